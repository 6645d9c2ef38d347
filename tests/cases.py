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
EXACT = 1e-6  # constants are made in float32


@dataclass(frozen=True)
class Case:
    """Something to build and check.

    Attributes:
        name: unique.
        build: makes it, with seed 0.
        options: what to pass to `check_bijection` or `check_flow`.
        start: how far from the identity a new one may be, relative to max(1, |z|); `None` for any map.
        reason: why an option asks for less than the default, or why a map with parameters may start anywhere.
        slow: left to `--slow`.
    """

    name: str
    build: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    start: float | None = EXACT
    reason: str = ""
    slow: bool = False


TRANSFORMERS: dict[str, Callable[[], pf.Transformer]] = {
    "Additive": pf.Additive,
    "Affine": pf.Affine,
    "Affine(log_scale_bound=1)": partial(pf.Affine, 1.0),
    "RationalQuadratic": partial(pf.RationalQuadratic, bins=4, bound=3.0),
    "RationalQuadratic(circular)": partial(pf.RationalQuadratic, bins=4, bound=3.0, tails="circular"),
    "RationalQuadratic(free)": partial(pf.RationalQuadratic, bins=4, bound=3.0, tails="free"),
    "RationalQuadratic(16 bins)": partial(pf.RationalQuadratic, bins=16, bound=3.0),
    "RationalQuadratic.inv": lambda: pf.RationalQuadratic(bins=4, bound=3.0).inv,
    "LinearSpline": partial(pf.LinearSpline, bins=4, bound=3.0),
    "QuadraticSpline": partial(pf.QuadraticSpline, bins=4, bound=3.0),
    "CubicSpline": partial(pf.CubicSpline, bins=4, bound=3.0),
    "DeepSigmoidal": partial(pf.DeepSigmoidal, components=3),
    "DeepSigmoidal(layers=2)": partial(pf.DeepSigmoidal, components=2, layers=2),
    "LogisticMixture": partial(pf.LogisticMixture, components=3),
    "Gaussianization": partial(pf.Gaussianization, components=3),
    "SumOfSquares": partial(pf.SumOfSquares, degree=2, count=2),
    "Bernstein": partial(pf.Bernstein, degree=5, bound=3.0),
    "UnconstrainedMonotone": partial(pf.UnconstrainedMonotone, hidden=3, nodes=24, bound=3.0),
    "TailTransform": pf.TailTransform,
    "Moebius": partial(pf.Moebius, components=2, bound=3.0),
    "CircularShift": partial(pf.CircularShift, bound=3.0),
}

# Those whose components start apart.
NEAR_IDENTITY: dict[str, float] = {
    "DeepSigmoidal": 0.05,
    "DeepSigmoidal(layers=2)": 0.15,
    "LogisticMixture": 0.05,
    "Gaussianization": 0.05,
    "Moebius": 0.02,
}
NO_IDENTITY = "its family does not hold the identity"
HUGE = f"{NO_IDENTITY}; values of size exp(lambda z^2 / 2) decide over lambda"
HEAVY: dict[str, dict[str, Any]] = {
    "Elementwise": {"start": None, "reason": NO_IDENTITY},
    "Coupling": {"start": None, "reason": HUGE, "options": {"tail": 8.0}},
    "MaskedAutoregressive": {"start": None, "reason": HUGE, "options": {"tail": 4.0, "tail32": 2.0}},
}


def _structures() -> list[Case]:
    """Every transformer in every structure, and the distinct ones with a context too."""
    cases = []
    for name, transformer in TRANSFORMERS.items():
        for c in (0, 2) if name in ("Additive", "Affine", "RationalQuadratic") else (0,):
            tag = f"{name}, context" if c else name
            kwargs: dict[str, Any] = {"context_features": c, "hidden_features": HIDDEN}
            builds = {
                "Elementwise": lambda t=transformer, k=kwargs: pf.Elementwise(t(), 3, **k),
                "Coupling": lambda t=transformer, k=kwargs: pf.Coupling([True, False, False], t(), **k),
                "MaskedAutoregressive": lambda t=transformer, k=kwargs: pf.MaskedAutoregressive(
                    t(), 3, order=[2, 0, 1], **k
                ),
            }
            for structure, build in builds.items():
                start = NEAR_IDENTITY.get(name, EXACT)
                settings = HEAVY[structure] if name == "TailTransform" else {"start": start}
                cases.append(Case(f"{structure}({tag})", build, **settings))
    # A context changes nothing in a transformer; two of the numerical ones stand for all.
    for name in ("DeepSigmoidal", "UnconstrainedMonotone"):
        build = partial(_elementwise_with_context, name)
        cases.append(Case(f"Elementwise({name}, context)", build, start=NEAR_IDENTITY.get(name, EXACT)))
    return cases


def _elementwise_with_context(name: str) -> pf.Bijection:
    return pf.Elementwise(TRANSFORMERS[name](), 3, context_features=2, hidden_features=HIDDEN)


def _global(name: str, build: Callable[..., pf.Bijection], **options: Any) -> list[Case]:
    """A layer of global parameters, with and without a context."""
    return [
        Case(name, partial(build, 3), **options),
        Case(f"{name}(context)", partial(build, 3, context_features=2, hidden_features=HIDDEN), **options),
    ]


def _tokens(event_shape: int | tuple[int, int], **kwargs: Any) -> pf.TransformerAutoregressive:
    """A causal transformer of two blocks, small and in an order of its own."""
    kwargs = {"hidden_features": (6, 6), "width": 4, "heads": 2, **kwargs}
    return pf.TransformerAutoregressive(pf.Affine(1.0), event_shape, **kwargs)


def _user_conditioner() -> pf.Coupling:
    net = nn.Sequential(nn.Linear(1, 8), nn.LeakyReLU(), nn.Linear(8, 4), nn.Tanh())
    return pf.Coupling([False, True, False], pf.Affine(), conditioner=net)


def _batch_norm(features: int, **kwargs: Any) -> pf.Bijection:
    """Frozen, with statistics of its own; in train mode the inverse is another map than that of forward."""
    layer = pf.BatchNorm(features, **kwargs)
    layer.running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    layer.running_var.copy_(torch.tensor([0.1, 4.0, 1.0]))
    return layer.eval()


@pf.register
class Swirl(nn.Module):
    """A velocity of a user's own, known by its forward alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.25))

    def forward(self, t: torch.Tensor, z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        turned = torch.stack([-z[..., 1], z[..., 0]], dim=-1)
        return self.rate * (turned + torch.tanh(z)) + t.unsqueeze(-1)


RK8: dict[str, Any] = {"solver": "rk8", "steps": 3}
ODE: dict[str, Any] = {
    "options": {"compiles": False, "perturb": 0.15, "round_trip": 1e-9},
    "reason": "the solver's error is to be below the tolerances of a suite that differentiates twice through every "
    "step, so few steps of high order and a field that is not wild; an adaptive solver looks at values, a fixed-step "
    "one unrolls into thousands of operations",
}
USERS: dict[str, Any] = {"start": None, "reason": "what the user brings starts where it likes"}
REFLECTION: dict[str, Any] = {"start": None, "reason": "an odd number of reflections is one"}
FIXED_PARTS: dict[str, Any] = {"start": None, "reason": "some of its parts are fixed maps"}


POSITIVE_ONLY = "of positive numbers alone"
STEPS = "steps of exp(-15) beside ones of exp(15)"


def _from_torch(transform: Any) -> Callable[[], pf.Bijection]:
    return lambda: pf.FromTorch(transform)


BIJECTIONS: list[Case] = [
    *_structures(),
    Case("Coupling(user's conditioner)", _user_conditioner, **USERS),
    Case(
        "Coupling(Separate conditioner)",
        lambda: pf.Coupling(
            [True, False, False],
            pf.Affine(1.0),
            conditioner=pf.Separate(pf.MLP(1, 2, HIDDEN), nn.Sequential(nn.Linear(1, 2))),
        ),
        **USERS,
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
    Case(
        "MaskedAutoregressive(residual)",
        lambda: pf.MaskedAutoregressive(pf.Affine(), 4, hidden_features=(7, 7, 7), order=[1, 3, 0, 2], residual=True),
    ),
    Case(
        "MaskedAutoregressive(residual, context)",
        lambda: pf.MaskedAutoregressive(pf.Affine(), 3, context_features=2, hidden_features=(5, 5), residual=True),
    ),
    *_global("Planar", pf.Planar),
    Case("Residual", lambda: pf.Residual(3, hidden_features=HIDDEN)),
    Case("Residual(context)", lambda: pf.Residual(3, hidden_features=HIDDEN, context_features=2)),
    Case("Residual(one feature)", lambda: pf.Residual(1, hidden_features=HIDDEN)),
    Case("Residual(steep)", lambda: pf.Residual(2, hidden_features=(8, 6)), {"perturb": 2.0}),
    Case("Residual(narrow hidden layer)", lambda: pf.Residual(4, hidden_features=(8, 2, 6))),
    Case(
        "Residual(estimate).eval",
        lambda: pf.Residual(2, hidden_features=HIDDEN, log_det="estimate").eval(),
    ),
    Case(
        "ConvexPotential",
        lambda: pf.ConvexPotential(3, hidden_features=HIDDEN),
        start=0.1,
    ),
    Case(
        "ConvexPotential(context)",
        lambda: pf.ConvexPotential(3, hidden_features=HIDDEN, context_features=2),
        start=0.1,
    ),
    Case(
        "ConvexPotential(two hidden layers)",
        lambda: pf.ConvexPotential(2, hidden_features=(8, 6)),
        {"perturb": 1.0},
        start=0.1,
    ),
    Case("TransformerAutoregressive", lambda: _tokens(3, order=[2, 0, 1])),
    Case("TransformerAutoregressive(context)", lambda: _tokens(3, context_features=2)),
    Case("TransformerAutoregressive(blocks of features)", lambda: _tokens(4, channels=2, order=[1, 0])),
    Case("TransformerAutoregressive(tokens)", lambda: _tokens((3, 2), order=[1, 2, 0])),
    Case("TransformerAutoregressive(tokens, context)", lambda: _tokens((2, 2), context_features=2)),
    Case("TransformerAutoregressive(one token)", lambda: _tokens((1, 2))),
    Case(
        "TransformerAutoregressive(RationalQuadratic)",
        lambda: pf.TransformerAutoregressive(
            pf.RationalQuadratic(bins=4, bound=3.0), 3, hidden_features=(6,), width=4, heads=1
        ),
    ),
    *_global("LU", pf.LU),
    Case("Continuous(rk8)", partial(pf.Continuous, 2, hidden_features=(4,), **RK8), **ODE),
    Case(
        "Continuous(rk8, context)",
        partial(pf.Continuous, 1, context_features=2, hidden_features=(4,), **RK8),
        **ODE,
    ),
    Case("Continuous(dopri5)", partial(pf.Continuous, 1, hidden_features=(), rtol=1e-10, atol=1e-10), **ODE),
    Case(
        "Continuous(user's velocity)",
        lambda: pf.Continuous(2, velocity=Swirl(), solver="rk8", steps=5),
        **{**ODE, "start": None},
    ),
    *_global("ActNorm", pf.ActNorm),
    *_global("Radial", pf.Radial),
    Case("Sylvester", lambda: pf.Sylvester(2)),
    *_global("Sylvester(m = 2)", partial(pf.Sylvester, m=2)),
    *_global("Sylvester(m = 1)", partial(pf.Sylvester, m=1)),
    *_global("Sylvester(householder)", partial(pf.Sylvester, m=2, kind="householder")),
    Case("Sylvester(reflections = 2)", lambda: pf.Sylvester(2, 1, kind="householder", reflections=2)),
    *_global("Sylvester(triangular)", partial(pf.Sylvester, m=2, kind="triangular")),
    Case("Sylvester(triangular, reverse)", lambda: pf.Sylvester(2, 1, kind="triangular", reverse=True)),
    *_global("Householder", pf.Householder),
    Case("Householder(reflections = 3)", lambda: pf.Householder(2, reflections=3), **REFLECTION),
    *_global("Orthogonal(cayley)", pf.Orthogonal),
    *_global("Orthogonal(exponential)", partial(pf.Orthogonal, kind="exponential")),
    *_global("Triangular", pf.Triangular),
    Case("Triangular(upper)", lambda: pf.Triangular(3, upper=True)),
    *_global("QR", pf.QR),
    Case("QR(reflections = 1)", lambda: pf.QR(3, reflections=1), **REFLECTION),
    *_global("MatrixExponential", pf.MatrixExponential),
    *_global("BatchNorm", _batch_norm, start=None, reason="it is given statistics"),
    Case("BatchNorm(new)", lambda: pf.BatchNorm(3).eval(), start=1e-5),  # eps is added to the variance 1
    Case("BlockAutoregressive", lambda: pf.BlockAutoregressive(2, (2,), order=[1, 0])),
    Case("BlockAutoregressive(two layers)", lambda: pf.BlockAutoregressive(3, (3, 2))),
    Case(
        "BlockAutoregressive(context)",
        lambda: pf.BlockAutoregressive(2, (2,), context_features=2, hidden_features=HIDDEN),
    ),
    Case("BlockAutoregressive(one feature)", lambda: pf.BlockAutoregressive(1, (2,))),
    Case("Permutation", lambda: pf.Permutation([2, 0, 1]), start=None),
    Case("Permutation.reverse", lambda: pf.Permutation.reverse(3), start=None),
    Case("Permutation.random", lambda: pf.Permutation.random(3), start=None),
    Case("Standardize", lambda: pf.Standardize([1.0, -2.0], [0.1, 30.0]), start=None),
    Case(
        "Standardize(triangular)",
        lambda: pf.Standardize([1.0, -2.0], [[0.1, 0.0], [5.0, 30.0]]),
        start=None,
    ),
    Case(
        "StudentTail",
        lambda: pf.StudentTail([2.0, 5.0, torch.inf]),
        {"tail32": 12.0},
        start=None,
        reason="exp(z^2 / 2) overflows in float32 from 13 on",
    ),
    Case("Inverse(MaskedAutoregressive)", lambda: pf.MaskedAutoregressive(pf.Affine(), 3).inv),
    Case("Inverse(Planar)", lambda: pf.Planar(3).inv),
    Case("Chain()", lambda: pf.Chain(), {"event_shape": (3,)}),
    Case("Chain(Planar, LU, Coupling)", lambda: pf.Chain(pf.Planar(2), pf.LU(2), pf.Coupling([0, 1], pf.Affine()))),
    Case(
        "Chain(conditional, unconditional)",
        lambda: pf.Chain(pf.LU(2), pf.Planar(2, context_features=3), pf.Permutation([1, 0])),
        **FIXED_PARTS,
    ),
    Case(
        "Chain(event_dim 0 and 1)",
        lambda: pf.Chain(pf.LU(2), pf.FromTorch(transforms.AffineTransform(1.0, 2.0))),
        **FIXED_PARTS,
    ),
    Case(
        "FromTorch(ExpTransform)",
        _from_torch(transforms.ExpTransform()),
        {"event_shape": (2,)},
        start=None,
    ),
    Case(
        "FromTorch(SigmoidTransform)",
        _from_torch(transforms.SigmoidTransform()),
        {"event_shape": (2,), "tail": 15.0},
        start=None,
        reason="torch clamps the sigmoid at one ulp below 1, reached at 36",
    ),
    Case(
        "FromTorch(ComposeTransform)",
        _from_torch(
            transforms.ComposeTransform(
                [transforms.TanhTransform(), transforms.AffineTransform(torch.tensor([1.0, 2.0]), 3.0, event_dim=1)]
            )
        ),
        {"tail": None, "event_shape": (2,)},
        start=None,
        reason="tanh is flat in float64 from |z| = 19 on",
    ),
    Case(
        "FromTorch(ExpTransform).inv",
        lambda: pf.FromTorch(transforms.ExpTransform()).inv,
        {"event_shape": (2,), "tail": None, "z": torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) + 0.1},
        start=None,
        reason=POSITIVE_ONLY,
    ),
    Case(
        "FromTorch(StickBreakingTransform)",
        _from_torch(transforms.StickBreakingTransform()),
        {"event_shape": (3,), "tail": 8.0},
        start=None,
        reason="torch takes the rest of the stick as 1 - sum",
    ),
    Case(
        "FromTorch(CorrCholeskyTransform)",
        _from_torch(transforms.CorrCholeskyTransform()),
        {"event_shape": (3,), "tail": 4.0},
        start=None,
        reason="torch takes what is left of a row as 1 - sum of squares",
    ),
    Case(
        "FromTorch(ReshapeTransform)",
        _from_torch(transforms.ReshapeTransform((4,), (2, 2))),
        {"event_shape": (4,)},
        start=None,
    ),
    Case(
        "FromTorch(CatTransform)",
        _from_torch(transforms.CatTransform([transforms.ExpTransform(), transforms.SigmoidTransform()], -1, [1, 2])),
        {"event_shape": (3,), "tail": 15.0, "saves": False},
        start=None,
        reason="torch keeps its arguments under other names, and clamps the sigmoid",
    ),
    Case(
        "Chain(shapes change)",
        lambda: pf.Chain(
            pf.LU(3),
            pf.FromTorch(transforms.ReshapeTransform((3,), (1, 3))),
            pf.FromTorch(transforms.StickBreakingTransform()),
        ),
        {"tail": 3.0},
        start=None,
        reason="torch's stick; some of its parts are fixed maps",
    ),
]


def _fixed(
    name: str, build: Callable[[], pf.Bijection], event_shape: tuple[int, ...], reason: str = "", **options: Any
) -> Case:
    """A map without parameters."""
    return Case(name, build, {"event_shape": event_shape, **options}, start=None, reason=reason)


_POSITIVE = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)) + 0.1

BIJECTIONS += [
    _fixed("Exp", pf.Exp, (2,)),
    _fixed("Exp.inv", lambda: pf.Exp().inv, (2,), POSITIVE_ONLY, z=_POSITIVE, tail=None),
    _fixed("Softplus", pf.Softplus, (2,)),
    _fixed("Sigmoid", pf.Sigmoid, (2,)),
    _fixed("Sigmoid.inv", lambda: pf.Sigmoid().inv, (2,), "of (0, 1) alone", z=_POSITIVE / 1.2, tail=None),
    _fixed("Tanh", pf.Tanh, (2,), "rounds to 1 at 18", tail=15.0),
    _fixed("Power", lambda: pf.Power(1.5), (2,), POSITIVE_ONLY, z=_POSITIVE, tail=None),
    _fixed("Power(negative exponent)", lambda: pf.Power(-0.5), (2,), POSITIVE_ONLY, z=_POSITIVE, tail=None),
    _fixed("GreaterThan", lambda: pf.GreaterThan(2.0), (2,)),
    _fixed("LessThan", lambda: pf.LessThan(torch.tensor([-1.0, 2.0])), (2,)),
    _fixed("Interval", lambda: pf.Interval(-1.0, 3.0), (2,)),
    _fixed("Interval(tensors)", lambda: pf.Interval(torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 0.1])), (2,)),
    _fixed("Simplex", pf.Simplex, (3,)),
    _fixed("Ordered", pf.Ordered, (3,), STEPS, tail=15.0),
    _fixed("Cholesky", pf.Cholesky, (3,)),
    _fixed("PositiveDefinite", pf.PositiveDefinite, (3,), "the condition of the matrix is exp(4 |z|)", tail=3.0),
    _fixed("CorrCholesky", pf.CorrCholesky, (3,), "squares of exp(-2 |z|) underflow in float32", tail32=20.0),
    _fixed("Independent", lambda: pf.Independent(pf.Simplex(), 1), (2, 2)),
    Case(
        "Independent(context)",
        lambda: pf.Independent(pf.Planar(2, context_features=2, hidden_features=HIDDEN), 1),
        {"event_shape": (2, 2)},
    ),
    _fixed("Flattened", lambda: pf.Flattened(pf.Simplex(), (2, 2)), (4,)),
    _fixed("Flattened(number)", lambda: pf.Flattened(pf.Exp(), ()), (1,)),
    _fixed(
        "Flattened(matrix)",
        lambda: pf.Flattened(pf.CorrCholesky(), (2, 3)),
        (6,),
        "squares of exp(-2 |z|) underflow in float32",
        tail32=20.0,
    ),
    Case(
        "Flattened(context)",
        lambda: pf.Flattened(pf.Planar(2, context_features=2, hidden_features=HIDDEN), (2, 2)),
        {"event_shape": (4,)},
    ),
    _fixed("Concatenate", lambda: pf.Concatenate([pf.Exp(), pf.Simplex(), pf.Chain()], [1, 2, 1]), (4,)),
    _fixed(
        "Concatenate(context)",
        lambda: pf.Concatenate([pf.Planar(2, context_features=2, hidden_features=HIDDEN), pf.Exp()], [2, 1]),
        (3,),
        FIXED_PARTS["reason"],
    ),
    _fixed(
        "Concatenate(rows)", lambda: pf.Concatenate([pf.Exp(), pf.Ordered()], [1, 2], dim=-2), (3, 2), STEPS, tail=15.0
    ),
    _fixed("Stack", lambda: pf.Stack([pf.Exp(), pf.Sigmoid()]), (2,)),
    _fixed("Stack(rows)", lambda: pf.Stack([pf.Simplex(), pf.Simplex()], dim=-2), (2, 2)),
    Case(
        "Stack(columns, context)",
        lambda: pf.Stack([pf.LU(2), pf.LU(2, context_features=2, hidden_features=HIDDEN)], dim=-1),
        {"event_shape": (2, 2)},
    ),
    Case("Chain(LU, Simplex)", lambda: pf.Chain(pf.LU(2), pf.Simplex()), **FIXED_PARTS),
]


_IMAGE = {"context_features": 2, "hidden_features": HIDDEN}

BIJECTIONS += [
    Case("Squeeze", lambda: pf.Squeeze(1, 2, 4), start=None),
    Case("Squeeze.inv", lambda: pf.Squeeze(1, 2, 4).inv, start=None),
    Case("Pixelwise(ActNorm)", lambda: pf.Pixelwise(pf.ActNorm(2), 2, 3)),
    Case("Pixelwise(Planar, context)", lambda: pf.Pixelwise(pf.Planar(2, **_IMAGE), 2, 1)),
    Case("InvertibleConv", lambda: pf.InvertibleConv(3, 1, 2)),
    Case("InvertibleConv(context)", lambda: pf.InvertibleConv(2, 2, 2, **_IMAGE)),
    Case(
        "ImageCoupling(channels)",
        lambda: pf.ImageCoupling(pf.channel_mask(3, 2, 2), pf.Affine(), hidden_channels=4),
    ),
    Case(
        "ImageCoupling(checkerboard, context)",
        lambda: pf.ImageCoupling(
            pf.checkerboard_mask(1, 2, 4, flip=True), pf.Affine(), context_features=2, hidden_channels=4
        ),
    ),
    Case(
        "ImageCoupling(spline, user's conditioner)",
        lambda: pf.ImageCoupling(
            pf.channel_mask(2, 2, 2), pf.RationalQuadratic(bins=3, bound=3.0), conditioner=nn.Conv2d(1, 8, 1)
        ),
        **USERS,
    ),
    Case(
        "MultiScale",
        lambda: pf.MultiScale(
            pf.Chain(pf.InvertibleConv(4, 1, 1), pf.Squeeze(1, 2, 2).inv),
            pf.Chain(
                pf.ImageCoupling(pf.channel_mask(2, 2, 2), pf.Affine(), context_features=2, hidden_channels=4),
                pf.InvertibleConv(2, 2, 2),
            ),
        ),
        start=None,
        reason="it changes the shape",
    ),
]


PLACES = torch.tensor([[1.0, -1.0], [-2.0, 0.5]])
PLACES_SCALES = torch.tensor([[[0.5, 0.0], [0.8, 0.4]], [[1.0, 0.0], [-0.5, 0.7]]])


def _flow_mixture(c: int = 0) -> pf.FlowMixture:
    """One around (-3, -3), another around (3, 3), with a third of the mass."""
    flows = []
    for loc in (-3.0, 3.0):
        layers = [pf.Planar(2, context_features=c, hidden_features=HIDDEN), pf.Standardize([loc, loc], [0.8, 1.2])]
        flows.append(pf.Flow(pf.Chain(*layers), pf.StandardNormal(2)))
    return pf.FlowMixture(flows, [2.0, 1.0])


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
    "LocatedMixture": lambda: pf.LocatedMixture(PLACES, PLACES_SCALES, torch.tensor([1.0, 2.0])),
    "LocatedMixture(context)": lambda: pf.LocatedMixture(
        PLACES, PLACES_SCALES, torch.tensor([1.0, 2.0]), context_features=3, hidden_features=HIDDEN
    ),
    "FlowMixture": _flow_mixture,
    "FlowMixture(context)": partial(_flow_mixture, 3),
    "MarginalMixtures": lambda: pf.MarginalMixtures(PLACES, PLACES.exp().clamp_max(1.0), torch.ones(2, 2)),
    "MarginalMixtures(context)": lambda: pf.MarginalMixtures(
        PLACES, PLACES.exp().clamp_max(1.0), torch.ones(2, 2), context_features=3, hidden_features=HIDDEN
    ),
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
    "bnaf": partial(pf.bnaf, hidden=(3,)),
    "bpf": partial(pf.bpf, degree=5),
    "convex_potential": pf.convex_potential,
    "flowpp": partial(pf.flowpp, components=3),
    "gaussianization": partial(pf.gaussianization, components=3),
    "householder": pf.householder,
    "naf": partial(pf.naf, components=3),
    "naf(cheap forward)": partial(pf.naf, components=3, cheap="forward"),
    "ncsf": partial(pf.ncsf, bins=4),
    "polynomial": partial(pf.polynomial, degree=2, count=2),
    "radial": pf.radial,
    "residual_flow": pf.residual_flow,
    "sospf": partial(pf.sospf, degree=2, count=2),
    "sylvester": pf.sylvester,
    "sylvester(householder)": partial(pf.sylvester, m=1, kind="householder"),
    "sylvester(triangular)": partial(pf.sylvester, kind="triangular"),
    "tarflow": partial(pf.tarflow, width=8, heads=2),
    "unaf": partial(pf.unaf, hidden=3, nodes=16),
}
# The angles, whose density does not vanish at the ends.
RECIPE_GRIDS = {"ncsf": torch.linspace(-3.1415927, 3.1415927, 241, dtype=torch.float64)}


def _recipes() -> list[Case]:
    """Each for one, two and five features; of those with a costly direction, two by default."""
    cases = []
    for name, recipe in RECIPES.items():
        for features, c in ((1, 0), (2, 3), (5, 0)):
            small = partial(recipe, features, c, layers=2, hidden_features=HIDDEN)
            slow = features != 2 and small().bijection.cheap != "both"
            cases.append(Case(f"{name}({features}, {c})", small, {"grid": RECIPE_GRIDS.get(name)}, slow=slow))
    return cases


def _continuous() -> list[Case]:
    """In evaluation mode, where no trace is estimated."""
    small: dict[str, Any] = {"layers": 1, "hidden_features": (4,), "solver": "rk8", "steps": 2}
    options = {"compiles": False, "grid": torch.linspace(-8, 8, 121, dtype=torch.float64)}
    reason = ODE["reason"]
    return [
        Case(
            f"{name}({features}, {c})",
            lambda r=recipe, n=features, c=c: r(n, c, **small).eval(),
            options,
            reason=reason,
        )
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
    Case("tarflow((2, 2), 0)", lambda: pf.tarflow((2, 2), layers=2, hidden_features=HIDDEN, width=8)),
    *_continuous(),
    *(_on_base(name) for name in BASES),
    *(
        Case(
            f"glow({features}, {c})",
            partial(pf.glow, features, c, layers=2, levels=levels, hidden_features=HIDDEN, hidden_channels=4),
        )
        for features, c, levels in (((1, 2, 2), 0, 1), ((2, 4, 4), 3, 2))
    ),
    Case(
        "Flow onto an interval",
        lambda: pf.Flow(pf.Chain(pf.LU(1), pf.Interval(-1.0, 2.0)), pf.StandardNormal(1)),
        {"grid": torch.linspace(-1.1, 2.1, 3201, dtype=torch.float64)},
    ),
    Case("Flow onto a simplex", lambda: pf.Flow(pf.Chain(pf.LU(3), pf.Simplex()), pf.StandardNormal(3))),
    Case("Flow onto matrices", lambda: pf.Flow(pf.Chain(pf.LU(3), pf.PositiveDefinite()), pf.StandardNormal(3))),
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
