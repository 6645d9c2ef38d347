"""Maps between supports against torch.distributions, in the far tails, and outside."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transforms

import pushforward as pf

D = torch.float64


def draws(*shape: int) -> Tensor:
    return 1.5 * torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(0))


LOW, HIGH = torch.tensor([-1.0, 0.0, 3.0], dtype=D), torch.tensor([1.0, 0.5, 30.0], dtype=D)
CONSTRAINTS = {
    "real": constraints.real,
    "real_vector": constraints.real_vector,
    "positive": constraints.positive,
    "nonnegative": constraints.nonnegative,
    "greater_than": constraints.greater_than(2.0),
    "greater_than_eq": constraints.greater_than_eq(LOW),
    "less_than": constraints.less_than(-2.0),
    "interval": constraints.interval(-1.0, 2.5),
    "interval of tensors": constraints.interval(LOW, HIGH),
    "half_open_interval": constraints.half_open_interval(0.0, 3.0),
    "unit_interval": constraints.unit_interval,
    "independent": constraints.independent(constraints.positive, 1),
    "independent twice": constraints.independent(constraints.independent(constraints.unit_interval, 1), 1),
    "simplex": constraints.simplex,
    "corr_cholesky": constraints.corr_cholesky,
    "cat": constraints.cat([constraints.positive, constraints.unit_interval], -1, [1, 2]),
    "stack": constraints.stack([constraints.positive, constraints.real, constraints.unit_interval], -1),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_biject_to_agrees_with_torch(name: str) -> None:
    constraint = CONSTRAINTS[name]
    ours, theirs = pf.biject_to(constraint), biject_to(constraint)
    z = draws(5, 2, 3)
    x, log_det = ours(z)
    x_torch = theirs(z)
    expected = theirs.log_abs_det_jacobian(z, x_torch)
    assert torch.allclose(x, x_torch, rtol=1e-12, atol=1e-12)
    event = x.dim() - ours.data_dim
    assert torch.allclose(log_det, expected.reshape(*log_det.shape, -1).sum(-1), rtol=1e-9, atol=1e-9)
    z_again, log_det_inverse = ours.inverse(x_torch)
    assert torch.allclose(z_again, z, rtol=1e-9, atol=1e-9)
    assert torch.allclose(log_det_inverse, -log_det, rtol=1e-9, atol=1e-9)
    inside = ours.codomain.check(x)
    assert inside.shape[:event] == x.shape[:event]
    assert inside.all()


def test_every_kind_that_torch_can_do_is_among_them() -> None:
    for kind in (kind for kind in biject_to._registry if kind.__module__.startswith("torch.")):
        assert any(isinstance(constraint, kind) for constraint in CONSTRAINTS.values()), kind


def test_dims_of_cat_and_stack_from_the_front() -> None:
    cat = constraints.cat([constraints.positive, constraints.real], 0, [1, 2])
    stack = constraints.stack([constraints.positive, constraints.real, constraints.unit_interval], 0)
    for constraint in (cat, stack):
        z = draws(3)
        assert torch.allclose(pf.biject_to(constraint)(z)[0], biject_to(constraint)(z))
        batch = pf.biject_to(constraint)(draws(5, 3))[0]
        assert torch.allclose(batch[2], pf.biject_to(constraint)(draws(5, 3)[2])[0])


def test_stack_of_vectors() -> None:
    stack = constraints.stack([constraints.real_vector, constraints.independent(constraints.positive, 1)], -2)
    ours, theirs = pf.biject_to(stack), biject_to(stack)
    z = draws(5, 2, 3)
    x, log_det = ours(z)
    assert torch.allclose(x, theirs(z), rtol=1e-12, atol=0)
    # torch stacks the log-determinants of the rows, of shape (5,), along their own dimension -2.
    assert torch.allclose(log_det, theirs.log_abs_det_jacobian(z, x).sum(0), rtol=1e-12, atol=0)


def test_matrices_agree_with_torch() -> None:
    z = draws(4, 6)
    matrix = torch.zeros(4, 3, 3, dtype=D)
    rows, columns = torch.tril_indices(3, 3)
    matrix[:, rows, columns] = z
    for constraint, transform in (
        (constraints.lower_cholesky, transforms.LowerCholeskyTransform()),
        (constraints.positive_definite, transforms.PositiveDefiniteTransform()),
        (constraints.positive_semidefinite, transforms.PositiveDefiniteTransform()),
    ):
        x = pf.biject_to(constraint)(z)[0]
        assert torch.allclose(x, transform(matrix), rtol=1e-12, atol=1e-12)
        assert constraint.check(x).all()


@pytest.mark.parametrize(
    "constraint", [constraints.boolean, constraints.nonnegative_integer, constraints.integer_interval(0, 3)]
)
def test_no_bijection_onto_discrete_values(constraint: constraints.Constraint) -> None:
    with pytest.raises(ValueError, match="real space"):
        pf.biject_to(constraint)


class _Beyond(constraints.Constraint):
    """A user's constraint: x > 2."""

    def check(self, value: torch.Tensor) -> torch.Tensor:
        return value > 2


def test_constraints_that_are_registered_with_torch(tmp_path: Path) -> None:
    parts = [transforms.AffineTransform(0.0, 3.0).inv, transforms.ExpTransform(), transforms.AffineTransform(2.0, 1.0)]
    biject_to.register(_Beyond, lambda _: transforms.ComposeTransform(parts))
    bijection = pf.biject_to(_Beyond())
    z = draws(5)
    x, log_det = bijection(z)
    assert torch.allclose(x, 2 + (z / 3).exp()) and torch.allclose(log_det, z / 3 - math.log(3))
    pf.save(pf.Flow(bijection, pf.StandardNormal(5)), tmp_path / "flow.safetensors")
    assert torch.equal(pf.load(tmp_path / "flow.safetensors").bijection(z)[0], x)


TRANSFORMS = [
    (pf.Exp(), transforms.ExpTransform()),
    (pf.Softplus(), transforms.SoftplusTransform()),
    (pf.Sigmoid(), transforms.SigmoidTransform()),
    (pf.Tanh(), transforms.TanhTransform()),
]


@pytest.mark.parametrize(("ours", "theirs"), TRANSFORMS, ids=lambda v: type(v).__name__)
def test_scalar_maps_agree_with_torch(ours: pf.Bijection, theirs: transforms.Transform) -> None:
    z = draws(5, 3)
    x, log_det = ours(z)
    assert torch.allclose(x, theirs(z), rtol=1e-12, atol=0)
    assert torch.allclose(log_det, theirs.log_abs_det_jacobian(z, x), rtol=1e-9, atol=1e-12)


def test_power_agrees_with_torch() -> None:
    z = draws(5, 3).exp()
    for exponent in (2.0, -0.5):
        theirs = transforms.PowerTransform(torch.tensor(exponent, dtype=D))
        x, log_det = pf.Power(exponent)(z)
        assert torch.allclose(x, theirs(z), rtol=1e-12, atol=0)
        assert torch.allclose(log_det, theirs.log_abs_det_jacobian(z, x), rtol=1e-9, atol=1e-12)


def test_log_dets_in_the_far_tails() -> None:
    z = torch.tensor([-700.0, -50.0, 50.0, 700.0], dtype=D)
    far = -z.abs()
    assert torch.allclose(pf.Sigmoid()(z)[1], far, rtol=1e-15, atol=0)
    assert torch.allclose(pf.Interval(-1.0, 3.0)(z)[1], far + math.log(4), rtol=1e-15, atol=0)
    assert torch.allclose(pf.Tanh()(z)[1], 2 * far + math.log(4), rtol=1e-15, atol=0)
    assert torch.allclose(pf.Softplus()(z)[1], z.clamp_max(0), rtol=1e-15, atol=1e-21)
    # The round trip of what is not saturated is exact to rounding, also where 1 - x is 1.
    for layer in (pf.Softplus(), pf.Sigmoid(), pf.Simplex(), pf.Exp()):
        low = torch.tensor([-700.0, -300.0, -40.0, -1e-3], dtype=D)
        z_again, log_det = layer.inverse(layer(low)[0])
        assert torch.allclose(z_again, low, rtol=1e-12, atol=1e-12)
        assert torch.allclose(log_det, -layer(low)[1], rtol=1e-12, atol=1e-12)
    z = torch.tensor([25.0, 30.0], dtype=D)
    assert torch.allclose(pf.Softplus()(z)[0] - z, torch.log1p((-z).exp()), rtol=0, atol=4e-15)


def test_surfaces_in_the_far_tails() -> None:
    # Shares as small as 1e-300 in any place, and rows whose last entry is 1e-130.
    z = torch.tensor([[200.0, 200.0, 200.0], [200.0, -200.0, 200.0], [-200.0, 200.0, -200.0]], dtype=D)
    for layer, points in ((pf.Simplex(), z), (pf.CorrCholesky(), 0.5 * z)):
        x, log_det = layer(points)
        z_again, log_det_inverse = layer.inverse(x)
        assert torch.allclose(z_again, points, rtol=1e-12, atol=1e-12)
        assert torch.allclose(log_det_inverse, -log_det, rtol=1e-12, atol=1e-12)
        assert layer.codomain.check(x).all()
    single = pf.Simplex().inverse(pf.Simplex()(torch.full((4,), 10.0))[0])[0]  # torch: an error of order 1
    assert torch.allclose(single, torch.full((4,), 10.0), rtol=1e-5, atol=0)


OUTSIDE = {
    "Exp": (pf.Exp(), [0.0, -1.0, math.nan, math.inf]),
    "Softplus": (pf.Softplus(), [0.0, -1.0, math.nan, math.inf]),
    "Sigmoid": (pf.Sigmoid(), [0.0, 1.0, 1.5, math.nan, -math.inf]),
    "Tanh": (pf.Tanh(), [-1.0, 1.0, 2.0, math.nan, math.inf]),
    "Power": (pf.Power(2.0), [0.0, -1.0, math.nan, math.inf]),
    "GreaterThan": (pf.GreaterThan(2.0), [2.0, 1.0, math.nan, math.inf]),
    "LessThan": (pf.LessThan(-1.0), [-1.0, 3.0, math.nan, -math.inf]),
    "Interval": (pf.Interval(0.2, 0.5), [0.2, 0.5, 3.0, math.nan, math.inf]),
    "Simplex": (pf.Simplex(), [[0.5, 0.2], [1.5, -0.5], [0.0, 1.0], [math.nan, 0.5]]),
    "Ordered": (pf.Ordered(), [[1.0, 0.0], [1.0, 1.0], [0.0, math.inf], [math.nan, 0.0]]),
    "Cholesky": (pf.Cholesky(), [[[1.0, 0.1], [0.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]], [[math.nan, 0.0], [0.0, 1.0]]]),
    "PositiveDefinite": (
        pf.PositiveDefinite(),
        [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.1], [0.0, 1.0]], [[math.nan, 0.0], [0.0, 1.0]]],
    ),
    "CorrCholesky": (
        pf.CorrCholesky(),
        [[[1.0, 0.0], [0.6, 0.7]], [[1.0, 0.0], [0.6, -0.8]], [[2.0, 0.0], [0.6, 0.8]]],
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_the_density_is_zero_and_nothing_is_nan(name: str) -> None:
    layer, outside = OUTSIDE[name]
    x = torch.tensor(outside, dtype=D).requires_grad_()
    z, log_det = layer.inverse(x)
    assert (log_det == -math.inf).all()
    assert z.isfinite().all()
    z.sum().backward()
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_density_outside_the_support_of_a_flow() -> None:
    for last, x in ((pf.Simplex(), [0.7, 0.7, -0.4]), (pf.Cholesky(), None), (pf.Interval(0.0, 1.0), [0.5, 2.0])):
        features = 3 if x is None else 2
        flow = pf.Flow(pf.Chain(pf.LU(features), last), pf.StandardNormal(features)).double()
        point = torch.ones(2, 2, dtype=D) if x is None else torch.tensor(x, dtype=D)
        assert flow.log_prob(point).item() == -math.inf
        inside = flow.sample(5)
        distribution = flow.distribution()
        assert distribution.support.check(inside).all()
        assert not distribution.support.check(point)
        assert distribution.event_shape == inside.shape[1:]
        assert torch.equal(distribution.log_prob(inside), flow.log_prob(inside))


def test_support_is_that_of_the_last_layer_and_of_inverses() -> None:
    normal = pf.StandardNormal(2)
    support = pf.Flow(pf.Chain(pf.LU(2), pf.GreaterThan(1.0)), normal).distribution().support
    assert (support.event_dim, support.base_constraint.lower_bound) == (1, 1.0)
    assert pf.Exp().inv.domain is pf.Exp().codomain
    assert pf.Exp().inv.codomain is constraints.real
    assert pf.BijectionTransform(pf.Simplex()).codomain.event_dim == 1
    assert pf.BijectionTransform(pf.CorrCholesky()).codomain.event_dim == 2


def test_density_on_a_simplex_integrates_to_one() -> None:
    torch.manual_seed(0)
    flow = pf.Flow(pf.Chain(pf.Planar(2), pf.LU(2), pf.Simplex()), pf.StandardNormal(2)).double()
    n = 1000
    grid = (torch.arange(n, dtype=D) + 0.5) / n
    a, b = torch.cartesian_prod(grid, grid).unbind(-1)
    log_prob = flow.log_prob(torch.stack([a, b, 1 - a - b], -1))
    assert abs(log_prob.exp().mean().item() - 1) < 1e-3


def test_a_bijection_onto_a_simplex_as_a_transform() -> None:
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2, dtype=D), 1.0), 1)
    ours = torch.distributions.TransformedDistribution(base, [pf.BijectionTransform(pf.Simplex())])
    theirs = torch.distributions.TransformedDistribution(base, [transforms.StickBreakingTransform()])
    x = ours.sample((5,))
    assert (ours.event_shape, x.shape) == ((3,), (5, 3))
    assert torch.allclose(ours.log_prob(x), theirs.log_prob(x))


def test_shapes_of_chains() -> None:
    chain = pf.Chain(pf.LU(2), pf.Simplex(), pf.LU(3))
    assert (chain.event_shape, chain.data_shape, chain.event_dim, chain.data_dim) == ((2,), (3,), 1, 1)
    assert pf.Chain(pf.Simplex(), pf.LU(3)).event_shape == (2,)
    chain = pf.Chain(pf.LU(3), pf.Exp(), pf.CorrCholesky(), pf.Exp())
    assert (chain.event_shape, chain.data_shape, chain.event_dim, chain.data_dim) == ((3,), (3, 3), 1, 2)
    assert (chain.inv.event_shape, chain.inv.data_shape, chain.inv.data_dim) == ((3, 3), (3,), 1)
    with pytest.raises(ValueError, match=r"shape \(3,\).*layer 2, LU, which takes \(2,\)"):
        pf.Chain(pf.LU(2), pf.Simplex(), pf.LU(2))
    with pytest.raises(ValueError, match="1, 3, 6"):
        pf.Chain(pf.LU(4), pf.Cholesky())
    with pytest.raises(ValueError, match=r"trailing shape \(3,\)"):
        pf.Flow(pf.Simplex(), pf.StandardNormal(2)).log_prob(torch.ones(2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pf.Interval(1.0, 1.0), "low < high"),
        (lambda: pf.Power(0.0), "other than 0"),
        (lambda: pf.GreaterThan(math.nan), "finite low"),
        (lambda: pf.Independent(pf.Exp(), 0), "dims >= 1"),
        (lambda: pf.Flattened(pf.Simplex(), ()), "1 or more dimensions"),
        (lambda: pf.Concatenate([pf.Exp()], [1, 2]), "each of 1 parts"),
        (lambda: pf.Concatenate([pf.Exp()], [1], dim=0), "negative dim"),
        (lambda: pf.Stack([pf.Cholesky()]), "number of dimensions"),
        (lambda: pf.Stack([]), "at least one part"),
    ],
)
def test_bad_use(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
