"""Transformers against closed forms, scipy and quadrature, in float64."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import integrate, interpolate, special, stats
from torch import Tensor

import pushforward as pf
from pushforward.numerics import log_ndtr, log_ndtri

F64 = torch.float64


def params(transformer: pf.Transformer, scale: float = 1.0, seed: int = 0) -> Tensor:
    noise = torch.randn(transformer.num_params, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return transformer.identity_params().double() + scale * noise


def line(bound: float, n: int = 201) -> Tensor:
    return torch.linspace(-bound, bound, n, dtype=F64)


def close(found: Tensor, expected: object, tolerance: float) -> bool:
    return bool(np.allclose(found.detach().numpy(), np.asarray(expected), rtol=tolerance, atol=tolerance))


ONTO = [
    pf.LinearSpline(),
    pf.QuadraticSpline(),
    pf.CubicSpline(),
    pf.RationalQuadratic(),
    pf.RationalQuadratic(20, tails="free"),
    pf.DeepSigmoidal(layers=2),
    pf.LogisticMixture(),
    pf.Gaussianization(),
    pf.SumOfSquares(),
    pf.Bernstein(),
    pf.UnconstrainedMonotone(nodes=96),  # for steep networks
    pf.TailTransform(),
    pf.Moebius(),
]


@pytest.mark.parametrize("transformer", ONTO, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_round_trips_of_rough_parameters_say_nothing(transformer: pf.Transformer, scale: float) -> None:
    """Steep and flat stretches in turn, the middle and far out: solved without a warning."""
    for seed in range(3):
        h = params(transformer, scale, seed)
        far = 5.0 if isinstance(transformer, pf.TailTransform) else 30.0
        z = torch.cat([line(6.0), torch.tensor([-far, far], dtype=F64)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            x, log_slope = transformer(z, h)
            z_again, log_slope_inverse = transformer.inverse(x, h)
            x_again = transformer(z_again, h)[0]
        assert (x.diff()[:200] > 0).all()
        error = torch.minimum((z_again - z).abs(), (x_again - x).abs() / x.abs().clamp_min(1.0))
        assert error.max() <= 1e-12
        slack = 1e-9 * torch.maximum(log_slope.exp(), (-log_slope).exp()).clamp_min(1.0)
        assert ((log_slope + log_slope_inverse).abs() <= slack).all()


@pytest.mark.parametrize("transformer", ONTO, ids=lambda t: type(t).__name__)
def test_slope_is_the_one_of_autodiff(transformer: pf.Transformer) -> None:
    h = params(transformer)
    z = line(5.9, 40).requires_grad_()
    x, log_slope = transformer(z, h)
    (slope,) = torch.autograd.grad(x.sum(), z)
    assert close(slope.log(), log_slope.detach(), 1e-10)


@pytest.mark.parametrize(
    ("transformer", "tolerance"),
    [
        (pf.DeepSigmoidal(), 0.05),
        (pf.LogisticMixture(), 0.05),
        (pf.Gaussianization(), 0.05),
        (pf.Moebius(), 1e-3),
    ],
    ids=lambda v: type(v).__name__,
)
def test_starts_near_the_identity(transformer: pf.Transformer, tolerance: float) -> None:
    z = line(3.0)
    x, log_slope = transformer(z, transformer.identity_params().double())
    assert (x - z).abs().max() <= tolerance
    assert log_slope.abs().max() <= 2 * tolerance


@pytest.mark.parametrize("spline", [pf.LinearSpline(5), pf.QuadraticSpline(5), pf.CubicSpline(5)])
def test_slopes_of_splines_integrate_to_their_values(spline: pf.Transformer) -> None:
    h = params(spline)
    x_ends, _ = spline(torch.tensor([-5.0, 5.0], dtype=F64), h)
    z = line(5.0, 200_001)
    assert torch.trapezoid(spline(z, h)[1].exp(), z).item() == pytest.approx((x_ends[1] - x_ends[0]).item(), abs=1e-3)
    assert close(x_ends, [-5.0, 5.0], 1e-12)


def test_quadratic_spline_has_a_continuous_slope() -> None:
    spline = pf.QuadraticSpline(5)
    h = params(spline)
    knots = spline._table(h)[0]
    before, after = (spline(knots + side * 1e-10, h)[1] for side in (-1, 1))
    assert close(before, after, 1e-7)
    assert close(spline(torch.tensor([-5.0, 5.0], dtype=F64), h)[1], [0, 0], 1e-12)


def test_cubic_spline_is_the_hermite_interpolant_of_its_knots() -> None:
    spline = pf.CubicSpline(5)
    h = params(spline)
    knots, values, slopes = spline._table(h).numpy()
    truth = interpolate.CubicHermiteSpline(knots, values, slopes)
    z = line(5.0)
    x, log_slope = spline(z, h)
    assert close(x, truth(z.numpy()), 1e-12)
    assert close(log_slope.exp(), truth.derivative()(z.numpy()), 1e-11)
    out = torch.tensor([-7.0, 7.0], dtype=F64)
    assert close(spline(out, h)[0], [-5 - 2 * slopes[0], 5 + 2 * slopes[-1]], 1e-12)


def test_deep_sigmoidal_is_its_formula() -> None:
    transformer = pf.DeepSigmoidal(components=3, min_slope=1e-3)
    h = params(transformer)
    w, a, b = h.view(3, 3).numpy()
    a = 1e-3 + np.log1p(np.exp(a + math.log(math.expm1(1 - 1e-3))))
    z = line(4.0)
    truth = special.logit((special.softmax(w) * special.expit(a * z.numpy()[:, None] + b)).sum(-1))
    assert close(transformer(z, h)[0], truth, 1e-11)


def test_logistic_mixture_is_its_formula() -> None:
    transformer = pf.LogisticMixture(components=3, log_scale_bound=5.0)
    h = params(transformer)
    w, m, s = h[:9].view(3, 3).numpy()
    scale, a = np.exp(5 * np.tanh(s / 5)), 5 * np.tanh(h[9].item() / 5)
    z = line(4.0)
    cdf = (special.softmax(w) * special.expit((z.numpy()[:, None] - m) / scale)).sum(-1)
    assert close(transformer(z, h)[0], np.exp(a) * special.logit(cdf) + h[10].item(), 1e-11)


def test_gaussianization_is_its_formula_and_onto() -> None:
    transformer = pf.Gaussianization(components=3)
    h = params(transformer, 0.5)
    w, m, s = h.view(3, 3).numpy()
    scale = np.exp(5 * np.tanh(s / 5))
    z = line(4.0)
    truth = stats.norm.ppf((special.softmax(w) * stats.norm.cdf(z.numpy()[:, None], m, scale)).sum(-1))
    assert close(transformer(z, h)[0], truth, 1e-9)
    # Far out the widest component is alone: x = (z - m) / s, up to its weight, whose part is log(w) / x.
    widest = scale.argmax()
    far = torch.tensor([-1e4, 1e4], dtype=F64)
    assert close(transformer(far, h)[0], (far.numpy() - m[widest]) / scale[widest], 1e-4)


def test_normal_distribution_function_in_logarithms() -> None:
    x = torch.cat([line(40.0, 801), torch.tensor([-1400.0, -100.0], dtype=F64)])
    assert close(log_ndtr(x), special.log_ndtr(x.numpy()), 1e-13)
    log_p = -torch.logspace(-300, 6, 1000, dtype=F64)
    x = log_ndtri(log_p)
    assert close(x, special.ndtri_exp(log_p.numpy()), 1e-12)  # scipy's own precision, far out
    log_p = log_p.numpy()
    left = log_p < -math.log(2)
    residual = special.log_ndtr(-x.abs().numpy()) - np.where(left, log_p, np.log(-np.expm1(log_p)))
    assert (abs(residual) <= 1e-15 * (1 + x.square().numpy())).all()


def test_inverse_normal_distribution_function_has_derivatives() -> None:
    log_p = torch.tensor([-1e5, -60.0, -49.0, -3.0, -0.7, -0.6, -1e-3], dtype=F64, requires_grad=True)
    x = log_ndtri(log_p)
    (first,) = torch.autograd.grad(x.sum(), log_p, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), log_p)
    # x' = Phi / phi, x'' = x' (1 + x x')
    hazard = (log_p + 0.5 * x.square()).exp() * math.sqrt(2 * math.pi)
    assert close(first, hazard.detach(), 1e-9)
    assert torch.allclose(second, hazard * (1 + x * hazard), rtol=1e-4)


@pytest.mark.parametrize("components", [1, 8, 16])
def test_gaussianization_starts_from_data(components: int) -> None:
    """Columns of one, two and no modes, in units of their own, become about normal."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3000, 2, generator=generator, dtype=F64)
    modes = torch.where(torch.rand(3000, generator=generator) < 0.3, -3.0, 2.0)
    x = torch.stack([100 + 20 * noise[:, 0], modes + 0.5 * noise[:, 1], torch.full_like(modes, 7.0)], dim=-1)
    transformer = pf.Gaussianization(components)
    layer = pf.Elementwise(transformer.inv, 3).double()
    z = layer.initialize(x)
    assert torch.equal(z, layer.inverse(x)[0])
    assert z.isfinite().all()
    distances = [stats.kstest(column, "norm").statistic for column in z[:, :2].T]
    assert distances[0] <= 0.05
    assert distances[1] <= {1: 0.35, 8: 0.1, 16: 0.05}[components]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_inverse_normal_distribution_function_of_outliers(dtype: torch.dtype) -> None:
    """Where -x^2 / 2 and log Phi(x) agree to all digits: x = -sqrt(-2 log p), of slope -1 / x."""
    log_p = (-torch.logspace(10, 30, 41, dtype=dtype)).requires_grad_()
    x = log_ndtri(log_p)
    (slope,) = torch.autograd.grad(x.sum(), log_p)
    assert close(x.double() / -(-2 * log_p.detach().double()).sqrt(), 1.0, 1e-6)
    assert close(slope.double() * -x.double(), 1.0, 1e-6)


def test_sum_of_squares_is_the_integral_of_its_polynomials() -> None:
    transformer = pf.SumOfSquares(degree=3, count=2, scale=2.0, min_slope=0.01)
    h = params(transformer)
    square = sum(np.polynomial.Polynomial(a) ** 2 for a in h[:8].view(2, 4).numpy()) + 0.01
    z = line(10.0)
    x, log_slope = transformer(z, h)
    assert close(x, h[8].item() + 2.0 * square.integ()(z.numpy() / 2.0), 1e-11)
    assert close(log_slope.exp(), square(z.numpy() / 2.0), 1e-11)


def test_bernstein_is_the_polynomial_of_its_coefficients() -> None:
    transformer = pf.Bernstein(degree=7, bound=3.0, min_slope=1e-3)
    h = params(transformer)
    increments = 1e-3 + np.log1p(np.exp(h[1:].numpy() + math.log(math.expm1(1 - 1e-3))))
    theta = h[0].item() - 3 + np.concatenate([[0], np.cumsum(increments * 6 / 7)])
    truth = interpolate.BPoly(theta[:, None], [-3, 3])
    z = line(3.0)
    x, log_slope = transformer(z, h)
    assert close(x, truth(z.numpy()), 1e-12)
    assert close(log_slope.exp(), truth.derivative()(z.numpy()), 1e-11)


def test_unconstrained_monotone_is_the_integral_of_its_slope() -> None:
    transformer = pf.UnconstrainedMonotone(hidden=4, bound=4.0)
    h = params(transformer, 0.5)

    def slope(t: float) -> float:
        return transformer(torch.tensor(t, dtype=F64), h)[1].exp().item()

    for z in (-6.0, -3.0, 0.5, 4.0, 7.0):
        truth = h[-1].item() + integrate.quad(slope, 0.0, z, epsabs=1e-12, points=[-4.0, 4.0])[0]
        assert transformer(torch.tensor(z, dtype=F64), h)[0].item() == pytest.approx(truth, abs=1e-8)
    # Every derivative is the one of the slope, not of the quadrature.
    z = torch.tensor(1.3, dtype=F64)
    third = torch.func.grad(torch.func.grad(torch.func.grad(lambda z: transformer(z, h)[0])))(z)
    second_of_slope = torch.func.grad(torch.func.grad(lambda z: transformer(z, h)[1].exp()))(z)
    assert close(third, second_of_slope, 1e-10)
    mixed = torch.func.jacrev(torch.func.grad(lambda z, h: transformer(z, h)[0]), argnums=1)(z, h)
    assert close(mixed, torch.func.jacrev(lambda h: transformer(z, h)[1].exp())(h), 1e-10)


def test_tail_transform_is_its_formula_and_finite_in_the_limit() -> None:
    transformer = pf.TailTransform()
    z = line(4.0, 41)
    for raw, tail in ((1.0, None), (-40.0, 0.0), (-800.0, 0.0)):
        h = torch.tensor([0.3, 0.2, raw, raw], dtype=F64)
        sigma = math.sqrt(math.pi / 2) * math.exp(5 * math.tanh(0.2 / 5))
        energy = -np.log(special.erfc(abs(z.numpy()) / math.sqrt(2)))
        lam = math.log1p(math.exp(raw) * math.expm1(0.1)) if tail is None else tail
        size = np.expm1(lam * energy) / lam if lam else energy
        x = transformer(z, h)[0]
        assert close(x, 0.3 + sigma * np.sign(z.numpy()) * size, 1e-12)
        assert close(transformer.inverse(x, h)[0], z.numpy(), 1e-12)
        h.requires_grad_()
        (gradient,) = torch.autograd.grad(sum(t.sum() for t in transformer(z, h)), h)
        assert gradient.isfinite().all()
    # A Student-like tail: a normal z beyond which there is p goes to a size of p^-lambda.
    x = transformer(torch.tensor([30.0], dtype=F64), torch.tensor([0.0, 0.0, 0.0, 0.0], dtype=F64))[0]
    assert math.log(x.item()) == pytest.approx(-0.1 * (math.log(2) + special.log_ndtr(-30.0)) + math.log(12.5331413732))


def test_moebius_is_the_map_of_the_complex_plane() -> None:
    transformer = pf.Moebius(components=1)
    h = torch.tensor([0.0, 1.2, -0.7], dtype=F64)
    raw = 1.2 - 0.7j
    w = 0.99 * raw / math.sqrt(1 + abs(raw) ** 2)
    theta = line(math.pi, 100)[1:-1]

    def moebius(point: np.ndarray) -> np.ndarray:
        return (1 - abs(w) ** 2) / abs(point - w) ** 2 * (point - w) - w

    # The map that the paper gives, turned so that -1 stays where it is.
    turned = moebius(np.exp(1j * theta.numpy())) / moebius(np.array(-1 + 0j)) * -1
    assert close(transformer(theta, h)[0], np.angle(turned), 1e-12)
    ends = torch.tensor([-math.pi, math.pi, 4.0], dtype=F64)
    assert close(transformer(ends, h)[0], ends, 1e-12)


def test_circular_shift_wraps() -> None:
    transformer = pf.CircularShift(bound=2.0)
    z = line(1.99, 50)
    x, log_slope = transformer(z, torch.tensor([3.0], dtype=F64))
    angle = np.exp(0.5j * math.pi * (z.numpy() + 3.0))
    assert close(x, np.angle(angle) * 2 / math.pi, 1e-12)
    assert not log_slope.any()
    assert close(transformer.inverse(x, torch.tensor([3.0], dtype=F64))[0], z, 1e-12)
    assert transformer(torch.tensor(2.5), torch.tensor([3.0]))[0].item() == 2.5


def test_ncsf_has_no_seam() -> None:
    torch.manual_seed(0)
    flow = pf.ncsf(2, layers=2, hidden_features=(8,)).double()
    for p in flow.parameters():
        p.data.add_(0.5 * torch.randn_like(p))
    other = line(3.0, 7)
    edges = [torch.stack([torch.full_like(other, side * math.pi), other], -1) for side in (-1, 1)]
    left, right = (flow.log_prob(x) for x in edges)
    assert close(left, right.detach(), 1e-5)  # pi is that of float32
    assert left.std() > 0.05
    assert (flow.log_prob(torch.tensor([4.0, 0.0], dtype=F64)) == -torch.inf).all()


def test_which_direction_is_cheap() -> None:
    assert pf.Coupling([True, False], pf.DeepSigmoidal()).cheap == "forward"
    assert pf.Elementwise(pf.DeepSigmoidal().inv, 2).cheap == "inverse"
    assert pf.MaskedAutoregressive(pf.DeepSigmoidal(), 2).cheap == "neither"
    assert pf.MaskedAutoregressive(pf.DeepSigmoidal().inv, 2).cheap == "inverse"
    assert pf.naf(2).bijection.cheap == "inverse"
    assert pf.naf(2, cheap="forward").bijection.cheap == "forward"
    assert pf.flowpp(2, cheap="forward").bijection.cheap == "forward"
    assert pf.polynomial(2).bijection.cheap == "forward"
    assert pf.nsf(2).bijection.cheap == "both"


def test_components_start_apart() -> None:
    """Components alike would get the same gradients, and stay alike."""
    z = line(3.0)
    for transformer in (pf.DeepSigmoidal(4), pf.LogisticMixture(4), pf.Gaussianization(4), pf.Moebius(4)):
        h = transformer.identity_params().double().requires_grad_()
        x, log_slope = transformer(z, h)
        (gradient,) = torch.autograd.grad((log_slope - 0.5 * (x - z.sin()).square()).sum(), h)
        for row in gradient[: 4 * (len(gradient) // 4)].view(-1, 4):
            assert row.sort().values.diff().abs().max() > 1e-6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pf.LinearSpline(1), "LinearSpline: expected at least 2 bins, got 1"),
        (lambda: pf.CubicSpline(4, -1.0), "CubicSpline: expected bound > 0, got -1.0"),
        (lambda: pf.QuadraticSpline(4, min_bin=0.3), "QuadraticSpline: expected 0 < min_bin < 1/bins = 0.25"),
        (lambda: pf.DeepSigmoidal(0), "DeepSigmoidal: expected components >= 1"),
        (lambda: pf.LogisticMixture(0), "LogisticMixture: expected components >= 1, got 0"),
        (lambda: pf.Gaussianization(2, log_scale_bound=0), "Gaussianization: expected log_scale_bound > 0, got 0"),
        (lambda: pf.SumOfSquares(0), "SumOfSquares: expected degree >= 1"),
        (lambda: pf.Bernstein(4, 0.0), "Bernstein: expected bound > 0"),
        (lambda: pf.UnconstrainedMonotone(nodes=1), "UnconstrainedMonotone: expected hidden >= 1 and nodes >= 2"),
        (lambda: pf.TailTransform(log_scale_bound=-1), "TailTransform: expected log_scale_bound > 0, got -1"),
        (lambda: pf.Moebius(0), "Moebius: expected components >= 1, got 0"),
        (lambda: pf.CircularShift(0.0), "CircularShift: expected bound > 0, got 0.0"),
        (lambda: pf.PeriodicMLP(3, 2, 1), "PeriodicMLP: expected 0 <= angles <= in_features = 2, got 3"),
        (lambda: pf.naf(2, cheap="both"), "expected cheap to be 'inverse' or 'forward', got 'both'"),
    ],
)
def test_bad_use(build: object, message: str) -> None:
    with pytest.raises(ValueError) as error:
        build()  # type: ignore[operator]
    assert message in str(error.value)


@pytest.mark.parametrize("tails", ["linear", "free"])
def test_spline_through_given_knots(tails: str) -> None:
    spline = pf.RationalQuadratic(5, 3.0, tails=tails)  # type: ignore[arg-type]
    z = torch.tensor([-3.0, -2.0, -0.5, 0.0, 1.0, 3.0], dtype=F64)
    x = torch.tensor([[-3.0, -1.0, -0.7, 0.3, 1.0, 3.0], [-3.0, -2.9, 0.0, 1.0, 2.0, 3.0]], dtype=F64)
    slopes = torch.tensor([1.0, 0.5, 2.0, 30.0, 0.1, 1.0], dtype=F64).repeat(2, 1)
    if tails == "free":
        slopes[:, 0], slopes[:, -1] = 7.0, 0.02
    found, log_slope = spline(z, spline.params_through(z, x, slopes).unsqueeze(1))
    assert close(found, x, 1e-12)
    inner = slice(None) if tails == "free" else slice(1, -1)
    assert close(log_slope[:, inner].exp(), slopes[:, inner], 1e-12)


def test_free_tails_go_on_as_they_end() -> None:
    spline = pf.RationalQuadratic(5, 3.0, tails="free")
    h = params(spline)
    ends, log_slopes = spline(torch.tensor([-3.0, 3.0], dtype=F64), h)
    assert close(ends, [-3.0, 3.0], 1e-12)
    far, log_far = spline(torch.tensor([-10.0, 10.0], dtype=F64), h)
    assert close(far, ends + log_slopes.exp() * torch.tensor([-7.0, 7.0]), 1e-9)
    assert close(log_far, log_slopes, 1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_ends_of_narrow_bins_in_single_precision(inverse: bool) -> None:
    """Where the last knot is off by a rounding that is large against the last bin."""
    spline = pf.RationalQuadratic(16, 3.46, tails="free", min_bin=1e-4)
    steep = torch.linspace(-3.46, 3.46, 17, dtype=F64)
    narrow = torch.cat([torch.linspace(-3.46, 3.45, 15, dtype=F64), torch.tensor([3.4593, 3.46], dtype=F64)])
    knots = (steep, narrow) if inverse else (narrow, steep)
    h = spline.params_through(*knots, torch.full((17,), 0.01, dtype=F64)).float()
    values = torch.tensor(3.46) + 1e-7 * torch.arange(-20.0, 20.0)
    for seed in range(20):
        noise = 0.01 * torch.randn(h.shape, generator=torch.Generator().manual_seed(seed))
        value, log_slope = (spline.inverse if inverse else spline)(values, h + noise)
        assert value.isfinite().all() and log_slope.isfinite().all()


def test_knots_of_few_and_of_many_bins() -> None:
    """They are placed by different operations: a softmax of their own and torch's, against sums one by one."""
    from pushforward.transformers.bins import accumulator, place_knots

    for bins in (4, 15, 16, 40):
        sizes = 3 * torch.randn(7, bins, dtype=F64, generator=torch.Generator().manual_seed(0))
        shares = 1e-3 + (1 - bins * 1e-3) * sizes.softmax(-1)
        expected = torch.cat([torch.zeros(7, 1), shares.cumsum(-1)], dim=-1) * 10 - 5
        assert close(place_knots(sizes, accumulator(bins), 5.0, 1e-3), expected, 1e-12)


def test_tail_transform_of_given_parameters() -> None:
    """mu is the median; the tail indices are those of the quantiles far out."""
    values = [torch.tensor(v, dtype=F64) for v in (1.0, 2.0, 0.3, 0.5)]
    h = pf.TailTransform().params_of(*values)
    z = torch.tensor([-8.0, -7.0, 0.0, 7.0, 8.0], dtype=F64)
    x = pf.TailTransform()(z, h)[0] - 1
    assert abs(x[2].item()) < 1e-12
    log_p = log_ndtr(-z.abs())
    left, right = ((x[i].abs() / x[j].abs()).log() / (log_p[j] - log_p[i]) for i, j in ((0, 1), (4, 3)))
    assert left.item() == pytest.approx(0.3, abs=1e-3)
    assert right.item() == pytest.approx(0.5, abs=1e-3)
    # sigma / lambda (erfc(t)^-lambda - 1) at erfc(t) = 1/2
    quartile = pf.TailTransform()(torch.tensor([-0.674489750196], dtype=F64), h)[0] - 1
    assert quartile.item() == pytest.approx(-2 / 0.3 * (2**0.3 - 1), abs=1e-9)
