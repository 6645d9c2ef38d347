"""Targets: their constants, and that draws and densities belong together."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pushforward.targets import (
    Banana,
    BrownianMotion,
    Checkerboard,
    CorrelatedNormal,
    EightSchools,
    Funnel,
    Gaussians,
    LobedRing,
    LogisticRegression,
    ManyWell,
    MixedCopula,
    NormalMixture,
    PhiFour,
    PlaneTarget,
    Potential,
    Ring,
    Rings,
    Seeds,
    SineWave,
    StudentTs,
    Target,
    TwoMoons,
    faithful,
    faithful_columns,
    faithful_path,
)

TARGETS = {
    "moons": TwoMoons(),
    "moons-uniform": TwoMoons(fixed_angles=False),
    "moons-wide": TwoMoons(0.3),
    "gaussians": Gaussians(),
    "gaussians-three": Gaussians([[0.0, 1.0], [2.0, 0.0], [-1.0, -1.0]], [1.0, 2.0, 3.0], scale=0.5),
    "circle": Gaussians.circle(8, 2.0, 0.2),
    "ring": LobedRing(),
    "ring-u1": LobedRing(2.0, spread=0.6),
    "rings": Rings(),
    "rings-one": Ring(),
    "rings-wide": Rings([1.0, 2.0], 0.15, [1.0, 3.0]),
    "sine": SineWave(2.0, 0.3),
}


@pytest.fixture(params=TARGETS.values(), ids=TARGETS.keys())
def target(request: pytest.FixtureRequest) -> PlaneTarget:
    return request.param


@functools.cache
def quadrature(target: PlaneTarget) -> tuple[Tensor, Tensor, Tensor]:
    """Points, weights and log p for Simpson's rule on a widened window, apart from the rule in the library."""
    margin, axes = 0.1, []
    for low, high in target.window:
        intervals = 2 * math.ceil((high - low + 2 * margin) / target.step / 2)
        points, spacing = np.linspace(low - margin, high + margin, intervals + 1, retstep=True)
        weights = np.full(intervals + 1, 2 / 3)
        weights[1::2], weights[[0, -1]] = 4 / 3, 1 / 3
        axes.append((torch.from_numpy(points), torch.from_numpy(weights * spacing)))
    (x, wx), (y, wy) = axes
    grid = torch.cartesian_prod(x, y)
    log_prob = torch.cat([target.log_prob(block) for block in grid.split(8192)])
    return grid, (wx[:, None] * wy).flatten(), log_prob


def test_normalised(target: PlaneTarget) -> None:
    _, weights, log_prob = quadrature(target)
    assert (weights * log_prob.exp()).sum().item() == pytest.approx(1, abs=1e-6)


def test_entropy(target: PlaneTarget) -> None:
    _, weights, log_prob = quadrature(target)
    assert -(weights * log_prob.exp() * log_prob).sum().item() == pytest.approx(target.entropy(), abs=1e-6)


def test_draws_have_the_density(target: PlaneTarget) -> None:
    """The mean of log p and the first two moments of draws are those of the density, to 4 standard errors."""
    grid, weights, log_prob = quadrature(target)
    x = target.sample(20_000, torch.Generator().manual_seed(0), dtype=torch.float64)
    log_prob_x = torch.cat([target.log_prob(block) for block in x.split(8192)])

    def statistics(x: Tensor, log_prob: Tensor) -> Tensor:
        return torch.stack([log_prob, x[:, 0], x[:, 1], x[:, 0] ** 2, x[:, 1] ** 2, x[:, 0] * x[:, 1]])

    draws = statistics(x, log_prob_x)
    truth = (statistics(grid, log_prob) * weights * log_prob.exp()).sum(-1)
    assert ((draws.mean(-1) - truth).abs() < 4 * draws.std(-1) / len(x) ** 0.5).all()


@pytest.mark.parametrize("batch", [(), (7,), (5, 7), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(target: PlaneTarget, batch: tuple[int, ...], dtype: torch.dtype) -> None:
    log_prob = target.log_prob(torch.zeros(*batch, 2, dtype=dtype))
    assert log_prob.shape == batch
    assert log_prob.dtype == dtype
    assert target.sample(3, dtype=dtype).dtype == dtype
    assert target.sample(0).shape == (0, 2)


def test_seeded(target: PlaneTarget) -> None:
    first, again = (target.sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.equal(again)
    assert first.dtype == torch.get_default_dtype()


def test_float32_close_to_float64(target: PlaneTarget) -> None:
    x = target.sample(500, torch.Generator().manual_seed(0), dtype=torch.float32)
    torch.testing.assert_close(target.log_prob(x), target.log_prob(x.double()).float(), rtol=1e-4, atol=1e-3)


def test_gradient(target: PlaneTarget) -> None:
    x = torch.cat([target.sample(50, torch.Generator().manual_seed(0), dtype=torch.float64), torch.zeros(1, 2)])
    x = torch.cat([x, torch.tensor([[1e3, -1e3]])]).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert gradient.isfinite().all()
    assert second.isfinite().all()
    assert torch.autograd.gradcheck(target.log_prob, x[:5].detach().requires_grad_())


def test_trailing_shape(target: PlaneTarget) -> None:
    with pytest.raises(ValueError, match=r"expected x with trailing shape \(2,\), got \(5, 3\)"):
        target.log_prob(torch.zeros(5, 3))


def test_moons_constants() -> None:
    for name, entropy in {"moons": 0.306867, "moons-uniform": 0.289234}.items():
        _, weights, log_prob = quadrature(TARGETS[name])
        assert -(weights * log_prob.exp() * log_prob).sum().item() == pytest.approx(entropy, abs=1e-6)


def test_moons_density_is_the_mixture() -> None:
    x = 2 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = np.linspace(0, np.pi, 50)
    centers = np.concatenate([np.c_[np.cos(t), np.sin(t)], np.c_[1 - np.cos(t), 0.5 - np.sin(t)]])
    component = torch.distributions.Normal(torch.from_numpy(centers), 0.05)
    expected = component.log_prob(x[:, None]).sum(-1).logsumexp(-1) - math.log(100)
    torch.testing.assert_close(TwoMoons().log_prob(x), expected)


def test_moons_uniform_is_the_limit_of_many_angles() -> None:
    x = TwoMoons().sample(100, torch.Generator().manual_seed(0), dtype=torch.float64)
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) * math.pi / 20_000
    outer, inner = torch.stack([t.cos(), t.sin()], -1), torch.stack([1 - t.cos(), 0.5 - t.sin()], -1)
    square = (x[:, None] - torch.cat([outer, inner])).square().sum(-1)
    expected = (-0.5 * square / 0.05**2).logsumexp(-1) - math.log(40_000 * 2 * math.pi * 0.05**2)
    torch.testing.assert_close(TwoMoons(fixed_angles=False).log_prob(x), expected, rtol=0, atol=1e-5)


def test_moons_batch_has_the_points_of_make_moons() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    expected, moon = datasets.make_moons(100, noise=None, shuffle=False)
    batch = TwoMoons(1e-9).batch(100, torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    order = [np.lexsort(x.round(6).T) for x in (batch, expected)]
    np.testing.assert_allclose(batch[order[0]], expected[order[1]], atol=1e-7)
    assert not np.allclose(batch, expected, atol=1e-3)
    np.testing.assert_array_equal(TwoMoons().moon(torch.from_numpy(expected)), moon)


def test_moons_batch() -> None:
    moons = TwoMoons(fixed_angles=False)
    assert moons.moon(moons.batch(50)).sum() == 25
    assert TwoMoons().batch(200).shape == (200, 2)
    with pytest.raises(ValueError, match="multiple of 100, got 64"):
        TwoMoons().batch(64)
    with pytest.raises(ValueError, match="noise > 0, got 0"):
        TwoMoons(0)


def test_ring_constants() -> None:
    ring = LobedRing()
    assert ring.log_normalizer == pytest.approx(2.313289, abs=1e-6)
    assert ring.expectation(lambda z: z.norm(dim=-1)) == pytest.approx(3.976945, abs=1e-6)
    assert ring.expectation(lambda z: (z[:, 0] > 0).double()) == pytest.approx(0.5, abs=1e-6)
    assert TARGETS["ring-u1"].log_normalizer == pytest.approx(1.877502, abs=1e-6)


def test_ring_is_stable_far_out() -> None:
    z = torch.tensor([[1e4, 0.0], [0.0, -1e4]])
    assert LobedRing().log_density(z).isfinite().all()
    with pytest.raises(ValueError, match="width > 0, got -1"):
        LobedRing(4.0, -1)


def test_faithful() -> None:
    x = faithful()
    assert x.shape == (272, 2)
    assert x.dtype == torch.float64
    assert x[0].tolist() == [3.6, 79.0]
    assert faithful_columns() == ("eruptions", "waiting")
    assert faithful_path().is_file()


@pytest.mark.parametrize(
    ("target", "entropy"),
    [
        (Gaussians.circle(), 3.524726),
        (Gaussians.circle(8, 2.0, 0.2), 1.698061),
        (Ring(), 2.745990),
        (Rings(), 3.135037),
        (SineWave(), 0.535292),
        (Checkerboard(), 3.465736),
    ],
    ids=["eight", "eight-narrow", "ring", "rings", "sine", "checkerboard"],
)
def test_entropies_of_the_plane(target: Any, entropy: float) -> None:
    assert target.entropy() == pytest.approx(entropy, abs=1e-6)
    x = target.sample(20_000, torch.Generator().manual_seed(0), dtype=torch.float64)
    values = -target.log_prob(x)
    assert values.mean().item() == pytest.approx(entropy, abs=4 * values.std().item() / len(x) ** 0.5 + 1e-6)


def test_checkerboard() -> None:
    """By the midpoint rule, exact for squares; the draws fill every square alike, to four standard errors."""
    target = Checkerboard()
    axis = torch.arange(-5, 5, 0.5, dtype=torch.float64) + 0.25
    assert 0.25 * target.log_prob(torch.cartesian_prod(axis, axis)).exp().sum().item() == pytest.approx(1, abs=1e-12)
    x = target.sample(8000, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert target.log_prob(x).isfinite().all()
    cells = (x / 2).floor().long() + 2
    counts = torch.bincount(4 * cells[:, 0] + cells[:, 1], minlength=16)
    assert (counts > 0).sum() == 8
    assert ((counts[counts > 0] - 1000).abs() < 4 * 875**0.5).all()


def test_mistaken_rings() -> None:
    for arguments in (([],), ([1.0, -1.0],), ([1.0], 0.1, [1.0, 2.0])):
        with pytest.raises(ValueError, match="expected"):
            Rings(*arguments)


@pytest.mark.parametrize("df", [2.0, 3.0, 30.0])
def test_student_columns(df: float) -> None:
    """The entropy by quadrature over asinh(x), and draws by their median and mean log-density."""
    target = StudentTs(1, df)
    t = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    log_prob = target.log_prob(t.sinh().unsqueeze(-1))
    mass = log_prob.exp() * t.cosh() * (t[1] - t[0])
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    assert -(mass * log_prob).sum().item() == pytest.approx(target.entropy(), abs=1e-8)
    x = target.sample(20_000, torch.Generator().manual_seed(0))
    values = -target.log_prob(x)
    assert values.mean().item() == pytest.approx(target.entropy(), abs=4 * values.std().item() / len(x) ** 0.5)
    assert abs((x > 0).double().mean().item() - 0.5) < 4 * 0.5 / len(x) ** 0.5


class TestMixedCopula:
    TARGET = MixedCopula()

    def test_sums_and_integrates_to_one(self) -> None:
        """By Gauss-Legendre rules in the quantiles of the two continuous margins."""
        nodes, weights = np.polynomial.legendre.leggauss(20)
        t = torch.from_numpy(nodes)
        amount, share = 9 * (t + 1), 0.5 * (t + 1)
        grid = torch.cartesian_prod(amount, share, torch.arange(20.0).double(), torch.arange(4.0).double())
        w = torch.from_numpy(weights)
        total = torch.einsum("ij,i,j->", self.TARGET.log_prob(grid).exp().reshape(20, 20, 80).sum(-1), 9 * w, 0.5 * w)
        assert total.item() == pytest.approx(1, abs=1e-6)

    def test_the_continuous_margin(self) -> None:
        """Summed over the discrete columns it is the bivariate Gaussian copula of the two others."""
        stats = pytest.importorskip("scipy.stats")
        discrete = torch.cartesian_prod(torch.arange(64.0), torch.arange(4.0)).double()
        normal = stats.multivariate_normal(cov=[[1, 0.5], [0.5, 1]])
        for amount, share in ((0.01, 0.001), (1.3, 0.2), (5.0, 0.9), (12.0, 0.02)):
            rows = torch.cat(
                [torch.tensor([[amount, share]], dtype=torch.float64).expand(len(discrete), 2), discrete], dim=1
            )
            z = stats.norm.ppf([stats.gamma(2).cdf(amount), stats.beta(2, 5).cdf(share)])
            margins = stats.gamma(2).logpdf(amount) + stats.beta(2, 5).logpdf(share)
            expected = normal.logpdf(z) - stats.norm.logpdf(z).sum() + margins
            assert self.TARGET.log_prob(rows).logsumexp(0).item() == pytest.approx(expected, abs=1e-9)

    def test_rectangles_of_the_discrete_columns(self) -> None:
        """P(count, category | the others) is a rectangle of a bivariate normal distribution."""
        stats = pytest.importorskip("scipy.stats")
        x = self.TARGET.sample(6, torch.Generator().manual_seed(0))
        covariance = np.full((4, 4), 0.5) + 0.5 * np.eye(4)
        gain = covariance[2:, :2] @ np.linalg.inv(covariance[:2, :2])
        given = covariance[2:, 2:] - gain @ covariance[:2, 2:]
        steps = np.concatenate([[-np.inf], stats.norm.ppf(np.cumsum([0.4, 0.3, 0.2])), [np.inf]])
        discrete = torch.cartesian_prod(torch.arange(64.0), torch.arange(4.0)).double()
        for row in x:
            amount, share, count, category = row.tolist()
            z = stats.norm.ppf([stats.gamma(2).cdf(amount), stats.beta(2, 5).cdf(share)])
            low = [stats.norm.ppf(stats.poisson(4).cdf(count - 1)), steps[int(category)]]
            high = [stats.norm.ppf(stats.poisson(4).cdf(count)), steps[int(category) + 1]]
            low, high = np.clip(low, -12, 12), np.clip(high, -12, 12)
            expected = np.log(stats.multivariate_normal(gain @ z, given).cdf(high, lower_limit=low))
            others = torch.cat([row[:2].expand(len(discrete), 2), discrete], dim=1)
            found = (self.TARGET.log_prob(row) - self.TARGET.log_prob(others).logsumexp(0)).item()
            assert found == pytest.approx(expected, abs=1e-4)  # scipy's own error

    def test_draws(self) -> None:
        """Margins and mean log-density to four standard errors."""
        x = self.TARGET.sample(20_000, torch.Generator().manual_seed(0))
        means = torch.tensor([2.0, 2 / 7, 4.0, 1.0]).double()
        assert ((x.mean(0) - means).abs() < 4 * x.std(0) / len(x) ** 0.5).all()
        shares = torch.bincount(x[:, 3].long(), minlength=4) / len(x)
        torch.testing.assert_close(shares, torch.tensor([0.4, 0.3, 0.2, 0.1]), rtol=0, atol=0.014)
        assert self.TARGET.log_prob(x).isfinite().all()
        spearman = torch.corrcoef(x.argsort(0).argsort(0).double().T)[0, 1].item()
        assert spearman == pytest.approx(6 / math.pi * math.asin(0.25), abs=0.03)

    def test_outside(self) -> None:
        good = [1.0, 0.5, 3.0, 1.0]
        for column, value in ((0, -1.0), (1, 1.0), (2, 2.5), (2, -1.0), (3, 4.0)):
            row = torch.tensor(good)
            row[column] = value
            assert self.TARGET.log_prob(row) == -torch.inf
        assert self.TARGET.log_prob(torch.tensor(good)).dtype == torch.float32
        with pytest.raises(ValueError, match="correlation"):
            MixedCopula(1.0)


PLANE: dict[str, tuple[Target, float]] = {
    "ring": (Ring(), 5.0),
    "U2": (Potential(2), 26.0),
    "U3": (Potential(3), 26.0),
    "U4": (Potential(4), 26.0),
    "double well": (ManyWell(2), 8.0),
    "banana": (Banana(2, 1.0, 0.3), 12.0),
    "student": (StudentTs(2, df=30.0), 40.0),
    "normal": (CorrelatedNormal(2, 0.5, 2.0), 12.0),
    "mixture": (NormalMixture([[0.0, 1.0], [2.0, 0.0]], [1.0, 3.0], 0.5), 12.0),
    "phi4": (PhiFour(2), 5.0),
}


@pytest.mark.parametrize("name", PLANE)
def test_normalisers_of_the_plane(name: str) -> None:
    """By the midpoint rule, to the six digits that are given."""
    target, side = PLANE[name]
    spacing = 0.05
    axis = torch.arange(-side, side, spacing, dtype=torch.float64) + spacing / 2
    values = torch.cat([target.log_density(torch.cartesian_prod(block, axis)) for block in axis.split(64)])
    assert values.logsumexp(0).item() + 2 * math.log(spacing) == pytest.approx(target.log_normalizer, abs=2e-6)


def test_published_normalisers() -> None:
    """Of many-well and of the phi^4 chain, from other computations."""
    assert ManyWell(32).log_normalizer == pytest.approx(164.695675, abs=1e-6)
    assert ManyWell(32).right == pytest.approx(0.844307, abs=1e-6)
    assert PhiFour(16).log_normalizer == pytest.approx(-6.300282, abs=1e-6)
    assert PhiFour(64).log_normalizer == pytest.approx(-25.377385, abs=1e-6)
    assert PhiFour(16, 4.0, 4.0).log_normalizer == pytest.approx(-13.486745, abs=1e-6)
    assert LobedRing(2.0, spread=0.6).log_normalizer == pytest.approx(1.877502, abs=1e-6)


@pytest.mark.parametrize("target", [Funnel(4), Banana(4), CorrelatedNormal(4)], ids=["funnel", "banana", "normal"])
def test_draws_of_synthetic_targets(target: Any) -> None:
    """E[-log p] of draws is the entropy, which for these is that of independent normals, to 5 standard errors."""
    x = target.sample(20_000, torch.Generator().manual_seed(0))
    values = -target.log_density(x)
    log_scale = {"Funnel": math.log(3.0), "Banana": math.log(10.0), "CorrelatedNormal": 0.0}[type(target).__name__]
    entropy = 2 * math.log(2 * math.pi * math.e) + log_scale
    assert values.mean().item() == pytest.approx(entropy, abs=5 * values.std().item() / len(x) ** 0.5)


def test_evidence_of_eight_schools() -> None:
    """Given tau, the effects are normal: what is left is an integral over log tau."""
    target = EightSchools()
    y, sigma = (torch.tensor(v, dtype=torch.float64) for v in (target.effects, target.errors))
    log_tau = torch.linspace(-30, 12, 8001, dtype=torch.float64)
    tau = log_tau.exp()
    prior = math.log(2 / math.pi) - torch.log(5 + tau**2 / 5) + log_tau
    covariance = torch.diag_embed(sigma**2 + tau[:, None] ** 2) + 25.0
    given = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=torch.float64), covariance).log_prob(y)
    evidence = (prior + given).logsumexp(0).item() + math.log((log_tau[1] - log_tau[0]).item())
    assert evidence == pytest.approx(target.log_normalizer, abs=2e-6)


def test_log_joint_of_a_brownian_motion() -> None:
    normal = torch.distributions.Normal
    target = BrownianMotion([0.3, math.nan, -0.2])
    a, b, x1, x2, x3 = x = torch.tensor([0.2, -0.4, 0.1, 0.5, -0.3], dtype=torch.float64)
    expected = normal(0, 2).log_prob(x[:2]).sum()
    expected = expected + normal(0, a.exp()).log_prob(x1) + normal(x1, a.exp()).log_prob(x2)
    expected = expected + normal(x2, a.exp()).log_prob(x3)
    expected = (
        expected + normal(x1, b.exp()).log_prob(torch.tensor(0.3)) + normal(x3, b.exp()).log_prob(torch.tensor(-0.2))
    )
    assert target.log_density(x).item() == pytest.approx(expected.item(), abs=1e-6)


def test_log_joint_of_seeds() -> None:
    target = Seeds([3, 5], [10, 9], [0, 1], [1, 1])
    x = torch.tensor([0.1, -0.2, 0.3, 0.4, 0.5, -0.6, 0.7], dtype=torch.float64)
    logits = torch.stack([x[0] + x[2] + x[5], x[:4].sum() + x[6]])
    counts = torch.tensor([3.0, 5.0], dtype=torch.float64)
    total = torch.tensor([10.0, 9.0], dtype=torch.float64)
    expected = torch.distributions.Binomial(total, logits=logits).log_prob(counts).sum()
    wide = torch.distributions.Normal(torch.zeros(4).double(), torch.full((4,), 10.0).double())
    expected = expected + wide.log_prob(x[:4]).sum()
    rate = torch.tensor(0.01, dtype=torch.float64)
    expected = expected + torch.distributions.Gamma(rate, rate).log_prob(x[4].exp()) + x[4]
    expected = expected + torch.distributions.Normal(0.0, (-x[4] / 2).exp()).log_prob(x[5:]).sum()
    assert target.log_density(x).item() == pytest.approx(expected.item(), abs=1e-9)


def test_log_joint_of_a_logistic_regression() -> None:
    inputs = torch.tensor([[1.0], [3.0], [5.0]], dtype=torch.float64)
    target = LogisticRegression(inputs, torch.tensor([0.0, 1.0, 1.0]))
    x = torch.tensor([0.4, -0.7], dtype=torch.float64)
    z = torch.tensor([-1.5, 0.0, 1.5], dtype=torch.float64) / 1.5**0.5
    logits = 0.4 - 0.7 * z
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(torch.tensor([0.0, 1, 1]).double()).sum()
    expected = expected + torch.distributions.Normal(0.0, 1.0).log_prob(x).sum()
    assert target.log_density(x).item() == pytest.approx(expected.item(), abs=1e-9)
