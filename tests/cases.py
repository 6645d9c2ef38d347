"""The registry of cases: every bijection, transformer, base and recipe, with the variants that take another branch.

Each bijection goes through `check_bijection`, each flow through `check_flow`; tests/test_cases.py fails when a public
class is missing here. To add a case, add a line.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributions import transforms

import pushforward as pf

HIDDEN = (8,)


@dataclass(frozen=True)
class Case:
    """Something to build and check.

    Attributes:
        name: unique.
        build: makes it, with seed 0.
        options: what to pass to `check_bijection` or `check_flow`.
        starts_at_identity: whether a new one is the identity.
    """

    name: str
    build: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    starts_at_identity: bool = True


TRANSFORMERS: dict[str, Callable[[], pf.Transformer]] = {
    "Additive": pf.Additive,
    "Affine": pf.Affine,
    "Affine(log_scale_bound=1)": partial(pf.Affine, 1.0),
    "RationalQuadratic": partial(pf.RationalQuadratic, bins=4, bound=3.0),
    "RationalQuadratic(circular)": partial(pf.RationalQuadratic, bins=4, bound=3.0, tails="circular"),
    "RationalQuadratic.inv": lambda: pf.RationalQuadratic(bins=4, bound=3.0).inv,
}


def _structures() -> list[Case]:
    """Every transformer in every structure, and the distinct ones with a context too."""
    cases = []
    for name, transformer in TRANSFORMERS.items():
        for c in (0, 2) if name in ("Additive", "Affine", "RationalQuadratic") else (0,):
            tag = f"{name}, context" if c else name
            kwargs: dict[str, Any] = {"context_features": c, "hidden_features": HIDDEN}
            cases += [
                Case(f"Elementwise({tag})", lambda t=transformer, k=kwargs: pf.Elementwise(t(), 3, **k)),
                Case(f"Coupling({tag})", lambda t=transformer, k=kwargs: pf.Coupling([True, False, False], t(), **k)),
                Case(
                    f"MaskedAutoregressive({tag})",
                    lambda t=transformer, k=kwargs: pf.MaskedAutoregressive(t(), 3, order=[2, 0, 1], **k),
                ),
            ]
    return cases


def _global(name: str, build: Callable[..., pf.Bijection], **options: Any) -> list[Case]:
    """A layer of global parameters, with and without a context."""
    return [
        Case(name, partial(build, 3), **options),
        Case(f"{name}(context)", partial(build, 3, context_features=2, hidden_features=HIDDEN), **options),
    ]


def _user_conditioner() -> pf.Coupling:
    net = nn.Sequential(nn.Linear(1, 8), nn.LeakyReLU(), nn.Linear(8, 4), nn.Tanh())
    return pf.Coupling([False, True, False], pf.Affine(), conditioner=net)


@pf.register
class Swirl(nn.Module):
    """A velocity of a user's own, known by its forward alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.25))

    def forward(self, t: torch.Tensor, z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        turned = torch.stack([-z[..., 1], z[..., 0]], dim=-1)
        return self.rate * (turned + torch.tanh(z)) + t.unsqueeze(-1)


# The solver's error is to be below the tolerances of the suite, which differentiates twice through every step: so few
# steps of high order, and a field that the noise on its parameters does not make wild. Not compiled: an adaptive solver
# looks at values, and a fixed-step one unrolls into thousands of operations.
RK8: dict[str, Any] = {"solver": "rk8", "steps": 3}
ODE: dict[str, Any] = {"compiles": False, "perturb": 0.15}


def _from_torch(transform: Any) -> Callable[[], pf.Bijection]:
    return lambda: pf.FromTorch(transform)


BIJECTIONS: list[Case] = [
    *_structures(),
    Case("Coupling(user's conditioner)", _user_conditioner, starts_at_identity=False),
    Case(
        "Coupling(Separate conditioner)",
        lambda: pf.Coupling(
            [True, False, False],
            pf.Affine(1.0),
            conditioner=pf.Separate(pf.MLP(1, 2, HIDDEN), nn.Sequential(nn.Linear(1, 2))),
        ),
        starts_at_identity=False,
    ),
    Case("Coupling(interleaved mask)", lambda: pf.Coupling([True, False, True, False], pf.Affine())),
    Case("Coupling(mask passes nothing, context)", lambda: pf.Coupling([False] * 2, pf.Affine(), context_features=2)),
    Case("Elementwise(one feature)", lambda: pf.Elementwise(pf.Affine(), 1)),
    Case("MaskedAutoregressive(one feature)", lambda: pf.MaskedAutoregressive(pf.Affine(), 1)),
    Case(
        "MaskedAutoregressive(one feature, context)",
        lambda: pf.MaskedAutoregressive(pf.Affine(), 1, context_features=2),
    ),
    Case(
        "MaskedAutoregressive(two hidden layers)",
        lambda: pf.MaskedAutoregressive(pf.Affine(), 5, hidden_features=(7, 3)),
    ),
    *_global("Planar", pf.Planar),
    *_global("LU", pf.LU),
    Case("Continuous(rk8)", partial(pf.Continuous, 2, hidden_features=(4,), **RK8), ODE),
    Case(
        "Continuous(rk8, context)",
        partial(pf.Continuous, 1, context_features=2, hidden_features=(4,), **RK8),
        ODE,
    ),
    Case("Continuous(dopri5)", partial(pf.Continuous, 1, hidden_features=(), rtol=1e-10, atol=1e-10), ODE),
    Case(
        "Continuous(user's velocity)",
        lambda: pf.Continuous(2, velocity=Swirl(), **RK8),
        ODE,
        starts_at_identity=False,
    ),
    *_global("ActNorm", pf.ActNorm),
    Case("Permutation", lambda: pf.Permutation([2, 0, 1]), starts_at_identity=False),
    Case("Permutation.reverse", lambda: pf.Permutation.reverse(3), starts_at_identity=False),
    Case("Permutation.random", lambda: pf.Permutation.random(3), starts_at_identity=False),
    Case("Standardize", lambda: pf.Standardize([1.0, -2.0], [0.1, 30.0]), starts_at_identity=False),
    Case("Inverse(MaskedAutoregressive)", lambda: pf.MaskedAutoregressive(pf.Affine(), 3).inv),
    Case("Inverse(Planar)", lambda: pf.Planar(3).inv),
    Case("Chain()", lambda: pf.Chain(), {"event_shape": (3,)}),
    Case("Chain(Planar, LU, Coupling)", lambda: pf.Chain(pf.Planar(2), pf.LU(2), pf.Coupling([0, 1], pf.Affine()))),
    Case(
        "Chain(conditional, unconditional)",
        lambda: pf.Chain(pf.LU(2), pf.Planar(2, context_features=3), pf.Permutation([1, 0])),
        starts_at_identity=False,
    ),
    Case(
        "Chain(event_dim 0 and 1)",
        lambda: pf.Chain(pf.LU(2), pf.FromTorch(transforms.AffineTransform(1.0, 2.0))),
        starts_at_identity=False,
    ),
    Case(
        "FromTorch(ExpTransform)",
        _from_torch(transforms.ExpTransform()),
        {"event_shape": (2,)},
        starts_at_identity=False,
    ),
    Case(
        "FromTorch(SigmoidTransform)",
        _from_torch(transforms.SigmoidTransform()),
        {"event_shape": (2,), "tail": 15.0},  # torch clamps the sigmoid at one ulp below 1, reached at 36
        starts_at_identity=False,
    ),
    Case(
        "FromTorch(ComposeTransform)",
        _from_torch(
            transforms.ComposeTransform(
                [transforms.TanhTransform(), transforms.AffineTransform(torch.tensor([1.0, 2.0]), 3.0, event_dim=1)]
            )
        ),
        {"tail": None, "event_shape": (2,)},  # tanh is flat in float64 from |z| = 19 on
        starts_at_identity=False,
    ),
    Case(
        "FromTorch(ExpTransform).inv",
        lambda: pf.FromTorch(transforms.ExpTransform()).inv,
        {"event_shape": (2,), "tail": None, "z": torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) + 0.1},
        starts_at_identity=False,
    ),
]


BASES: dict[str, Callable[[], pf.Base]] = {
    "StandardNormal": partial(pf.StandardNormal, 2),
    "StandardNormal(one feature)": partial(pf.StandardNormal, 1),
    "DiagonalNormal": partial(pf.DiagonalNormal, 2),
    "DiagonalNormal(context)": partial(pf.DiagonalNormal, 2, context_features=3, hidden_features=HIDDEN),
    "Uniform": partial(pf.Uniform, [-1.0, 2.0], [1.0, 5.0]),
    "StudentT": partial(pf.StudentT, 1, df=4.0),
    "StudentT(context)": partial(pf.StudentT, 1, df=4.0, context_features=3, hidden_features=HIDDEN),
    "GaussianMixture": partial(pf.GaussianMixture, 2, 3, spread=2.0),
    "GaussianMixture(context)": partial(pf.GaussianMixture, 2, 3, context_features=3, hidden_features=HIDDEN),
}

# Grids whose cells do not straddle a jump of the density, or that reach far enough into the tails.
GRIDS: dict[str, torch.Tensor] = {
    "Uniform": torch.arange(-2.01, 6.02, 0.02, dtype=torch.float64),
    "StudentT": torch.linspace(-200, 200, 40001, dtype=torch.float64),
    "StudentT(context)": torch.linspace(-200, 200, 40001, dtype=torch.float64),
}

RECIPES: dict[str, Callable[..., pf.Flow]] = {
    "nice": pf.nice,
    "real_nvp": pf.real_nvp,
    "maf": pf.maf,
    "iaf": pf.iaf,
    "nsf": pf.nsf,
    "nsf(autoregressive)": partial(pf.nsf, coupling=False),
    "planar": pf.planar,
}


def _recipes() -> list[Case]:
    cases = []
    for name, recipe in RECIPES.items():
        for features, c in ((1, 0), (2, 0), (2, 3), (5, 0)):
            small = partial(recipe, features, c, layers=2, hidden_features=HIDDEN)
            # The layers are compiled one by one among the bijections; here, once more per recipe, whole.
            cases.append(Case(f"{name}({features}, {c})", small, {"compiles": c > 0}))
    return cases


def _continuous() -> list[Case]:
    """In evaluation mode, where no trace is estimated."""
    small: dict[str, Any] = {"layers": 1, "hidden_features": (4,), "solver": "rk8", "steps": 2}
    options = {"compiles": False, "grid": torch.linspace(-8, 8, 121, dtype=torch.float64)}
    return [
        Case(f"{name}({features}, {c})", lambda r=recipe, n=features, c=c: r(n, c, **small).eval(), options)
        for name, recipe in (("cnf", pf.cnf), ("ffjord", pf.ffjord))
        for features, c in ((1, 0), (2, 3))
    ]


def _on_base(name: str) -> Case:
    def build() -> pf.Flow:
        base = BASES[name]()
        return pf.Flow(pf.Chain(), base)

    return Case(f"Flow on {name}", build, {"grid": GRIDS.get(name)})


FLOWS: list[Case] = [
    *_recipes(),
    *_continuous(),
    *(_on_base(name) for name in BASES),
    Case(
        "Flow with an embedding",
        lambda: pf.Flow(
            pf.Planar(2, context_features=3, hidden_features=HIDDEN),
            pf.StandardNormal(2),
            embedding=nn.Linear(3, 3),
        ),
    ),
    Case(
        "Flow with a conditional base alone",
        lambda: pf.Flow(pf.LU(2), pf.DiagonalNormal(2, context_features=3, hidden_features=HIDDEN)),
    ),
    Case(
        "circular spline on a uniform base",
        lambda: pf.Flow(
            pf.Elementwise(pf.RationalQuadratic(bins=4, bound=1.0, tails="circular"), 1), pf.Uniform([-1.0], [1.0])
        ),
        {"grid": torch.arange(-1.2005, 1.2, 0.001, dtype=torch.float64)},
    ),
]
