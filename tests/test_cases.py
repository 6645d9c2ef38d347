"""Every case of the registry through every property."""

import inspect
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from cases import BASES, BIJECTIONS, FLOWS, HIDDEN, RECIPE_GRIDS, RECIPES, TRANSFORMERS, Case
from torch import nn
from torch.distributions import constraints

import pushforward as pf
from pushforward.targets import TwoMoons
from pushforward.testing import check_bijection, check_flow


def _ids(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def _first_with(kinds: Callable[[nn.Module], set[type]]) -> set[str]:
    """The cases with a part of a kind that no case before them has: among them, every kind."""
    seen: set[type] = set()
    names = set()
    for case in (case for case in ALL if not case.slow):
        found = {kind for module in case.build().modules() for kind in kinds(module)}
        if found - seen:
            names.add(case.name)
        seen |= found
    return names


ALL = BIJECTIONS + FLOWS
THOROUGH = _first_with(lambda module: {type(module)} if type(module).__module__.startswith("pushforward") else set())
# A graph with the loop of a root takes 10 seconds: one transformer stands for all that have one.
COMPILED = _first_with(
    lambda module: {
        kind
        for kind in type(module).__mro__
        if issubclass(kind, pf.Bijection | pf.Flow) or kind is pf.NumericalTransformer
    }
)


def _check(case: Case, derivatives: bool, compiles: bool) -> None:
    torch.manual_seed(0)
    layer = case.build()
    options = {**case.options, "compiles": compiles and case.options.get("compiles", True)}
    if isinstance(layer, pf.Flow):
        check_flow(layer, name=case.name, **options)
    else:
        check_bijection(layer, name=case.name, derivatives=derivatives, **options)


def _has_kernel(case: Case) -> bool:
    parts = [part for part in case.build().modules() if isinstance(part, pf.Transformer)]
    return any(part.kernel(inverse) is not None for part in parts for inverse in (False, True))


FAST = [pytest.param(c, marks=[pytest.mark.kernel] if _has_kernel(c) else [], id=c.name) for c in ALL if not c.slow]


@pytest.mark.parametrize("case", FAST)
def test_every_property(case: Case) -> None:
    """Of the variants of a class but one, all but derivatives and compilation."""
    _check(case, derivatives=case.name in THOROUGH, compiles=case.name in COMPILED)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST := [c for c in ALL if c.name not in THOROUGH & COMPILED], ids=_ids(REST))
def test_every_property_of_every_variant(case: Case) -> None:
    _check(case, derivatives=True, compiles=True)


TRAINED = {**RECIPES, **{name: partial(getattr(pf, name), solver="rk8", steps=4) for name in ("cnf", "ffjord")}}
QUICK = [("real_nvp", 2), ("nsf", 1), ("bnaf", 1)]


@pytest.mark.parametrize(
    ("name", "features"),
    [
        pytest.param(name, features, marks=[] if (name, features) in QUICK else pytest.mark.slow)
        for name in TRAINED
        for features in (1, 2)
    ],
)
def test_integrates_to_one_after_training(name: str, features: int) -> None:
    """As it is after 100 steps of maximum likelihood on two moons, or on angles."""
    torch.manual_seed(0)
    flow = TRAINED[name](features, layers=2, hidden_features=HIDDEN)
    x = TwoMoons(0.2).sample(2000, torch.Generator().manual_seed(0)).clamp(-3, 3)[:, :features]
    pf.train(pf.MaximumLikelihood(flow), x, max_steps=100, learning_rate=3e-3, progress=False)
    check_flow(flow.eval(), name=name, grid=RECIPE_GRIDS.get(name), perturb=0.0, compiles=False)


@pytest.mark.parametrize("case", [c for c in BIJECTIONS if c.start is not None], ids=lambda c: c.name)
def test_starts_at_the_identity(case: Case) -> None:
    assert case.start is not None
    torch.manual_seed(0)
    layer = case.build().double()
    shape = layer.event_shape or case.options["event_shape"]
    z = 2 * torch.randn(5, *shape, dtype=torch.float64)
    context = torch.randn(5, layer.context_features, dtype=torch.float64) if layer.context_features else None
    x, log_det = layer(z, context)
    assert ((x - z).abs() <= case.start * z.abs().clamp_min(1.0)).all()
    assert (log_det.abs() <= 10 * case.start).all()


def _asks_for_less(case: Case) -> bool:
    fewer = {"tail", "tail32", "round_trip", "compiles", "saves"} & case.options.keys()
    weaker = case.options.get("perturb", 1.0) < 0.3
    anywhere = case.start is None and any(True for _ in case.build().parameters())
    return bool(fewer) or weaker or anywhere


def test_every_exception_has_its_reason() -> None:
    assert [c.name for c in ALL if _asks_for_less(c) and not c.reason] == []
    assert [c.name for c in ALL if c.reason and not _asks_for_less(c)] == []


def test_all_but_differential_equations_compile() -> None:
    exempt = {c.name for c in ALL if not c.options.get("compiles", True)}
    assert exempt == {c.name for c in ALL if any(isinstance(m, pf.Continuous) for m in c.build().modules())}


def _stacks(case: Case) -> bool:
    """Maps a space onto itself; and tails made heavier twenty times over are beyond any float."""
    layer = case.build()
    shape = layer.event_shape or case.options.get("event_shape")
    everywhere = layer.domain == layer.codomain == constraints.real
    return "Tail" not in case.name and everywhere and shape == layer.forward_shape(shape)


@pytest.mark.parametrize("case", [c for c in BIJECTIONS if c.name in THOROUGH and _stacks(c)], ids=lambda c: c.name)
def test_twenty_layers_stay_finite(case: Case) -> None:
    """Both ways, in float32, at three standard deviations, away from the start."""
    torch.manual_seed(0)
    chain = pf.Chain(*(case.build() for _ in range(20)))
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    shape = chain.event_shape or case.options["event_shape"]
    context = torch.randn(64, chain.context_features) if chain.context_features else None
    value = 3 * torch.randn(64, *shape).sign()
    for direction in (chain, chain.inverse):
        found, log_det = direction(value, context)
        assert found.isfinite().all()
        assert log_det.isfinite().all()
        if any(p.requires_grad for p in chain.parameters()):
            (log_det.mean() - found.square().mean()).backward()
    assert all(p.grad.isfinite().all() for p in chain.parameters() if p.grad is not None)


def _public(base: type) -> set[type]:
    return {
        value
        for name in pf._api.__all__
        if isinstance(value := getattr(pf, name), type) and issubclass(value, base) and not inspect.isabstract(value)
    }


def _all_subclasses(cls: type) -> set[type]:
    return {s for direct in cls.__subclasses__() for s in {direct} | _all_subclasses(direct)}


def _is_of_the_library(cls: type) -> bool:
    """Defined in one of its modules, and not by a docstring's example that ran there."""
    return cls.__module__.startswith("pushforward") and hasattr(sys.modules[cls.__module__], cls.__name__)


@pytest.mark.parametrize("base", [pf.Bijection, pf.Transformer, pf.Base], ids=lambda c: c.__name__)
def test_every_class_is_public_and_has_a_case(base: type) -> None:
    library = {c for c in _all_subclasses(base) if _is_of_the_library(c) and not inspect.isabstract(c)}
    assert library == _public(base)
    built = [case.build() for case in BIJECTIONS + FLOWS] + [t() for t in TRANSFORMERS.values()]
    built += [b() for b in BASES.values()]
    covered = {type(m) for b in built for m in b.modules()}
    assert library <= covered


def test_every_recipe_has_a_case() -> None:
    from pushforward import recipes

    names = {n for n, f in vars(recipes).items() if inspect.isfunction(f) and f.__module__ == recipes.__name__}
    public = {n for n in names if not n.startswith("_")}
    assert public <= set(pf._api.__all__)
    assert public <= {case.name.split("(")[0] for case in FLOWS}


def test_names_of_cases_are_unique() -> None:
    names = _ids(BIJECTIONS) + _ids(FLOWS)
    assert len(names) == len(set(names))
