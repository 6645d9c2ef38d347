"""Figures on draws and weights against closed forms, scipy and arviz."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from pushforward.diagnostics import (
    TwoSample,
    c2st,
    effective_sample_size,
    energy_distance,
    expected_coverage,
    khat_threshold,
    ks_p_value,
    latent_normality,
    log_evidence,
    mmd,
    pareto_smooth,
    samples,
    sbc_ranks,
    sliced_wasserstein,
    uniformity,
)


@pytest.mark.slow  # importing arviz takes longer than all else here
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("n", [100, 2000, 20_000])
def test_pareto_smoothing_is_that_of_arviz(spread: float, n: int) -> None:
    """arviz-stats takes the negated weights."""
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    log_weights = spread * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smoothed, khat = pareto_smooth(log_weights)
    expected, expected_khat = array_stats.psislw(-log_weights.numpy())
    assert khat == pytest.approx(float(expected_khat), abs=1e-6)
    assert abs(smoothed.numpy() - expected).max() < 1e-6
    assert smoothed.logsumexp(0).item() == pytest.approx(0.0, abs=1e-12)


def test_khat_finds_the_index_of_the_tail() -> None:
    """Weights u^-k have tails of index k."""
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (0.2, 0.5, 1.2):
        assert pareto_smooth(-k * u.log())[1] == pytest.approx(k, abs=0.12)  # 3 standard errors of 950 in the tail


def test_equal_and_few_weights() -> None:
    assert pareto_smooth(torch.zeros(1000))[1] == 0.0
    for dtype, above in ((torch.float64, 4), (torch.float64, 80), (torch.float32, 4)):
        rounded = torch.full((1000,), 2.75, dtype=dtype)
        rounded[:above] += 2 * torch.finfo(dtype).eps
        assert pareto_smooth(rounded)[1] == 0.0
        rounded[:above] += 1e-3
        assert pareto_smooth(rounded)[1] != 0.0
    assert pareto_smooth(torch.tensor([0.0, 1.0, 2.0]))[1] == math.inf
    some = torch.cat([torch.full((90,), -torch.inf), torch.arange(10.0)])
    smoothed, _ = pareto_smooth(some)
    assert (smoothed[:90] == -torch.inf).all() and smoothed[90:].isfinite().all()


def test_effective_sample_size_and_evidence_of_log_normal_weights() -> None:
    """log w ~ N(m, s^2): ESS exp(-s^2), log evidence m + s^2 / 2, its error sqrt((exp(s^2) - 1) / n)."""
    n, m, s = 200_000, 3.0, 0.5
    w = m + s * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert effective_sample_size(w) == pytest.approx(math.exp(-(s**2)), abs=0.01)
    value, error = log_evidence(w)
    assert error == pytest.approx(math.sqrt(math.expm1(s**2) / n), rel=0.05)
    assert value == pytest.approx(m + s**2 / 2, abs=4 * error)


def test_threshold() -> None:
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(20_000) == 0.7


@pytest.mark.parametrize("figure", [effective_sample_size, log_evidence, pareto_smooth])
def test_unusable_weights(figure) -> None:  # type: ignore[no-untyped-def]
    for bad, message in [
        (torch.tensor([1.0, torch.nan]), "NaN or"),
        (torch.tensor([1.0, torch.inf]), "got NaN or"),
        (torch.full((3,), -torch.inf), "above zero"),
        (torch.zeros(1), "n >= 2"),
        (torch.zeros(2, 2), r"got \(2, 2\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            figure(bad)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


TWO_SAMPLE = [energy_distance, mmd, sliced_wasserstein]


def test_distances_are_those_of_scipy() -> None:
    """In one dimension, with sides of different length; both are exact, up to rounding."""
    x, y = normal(150, 1), 0.5 + 1.3 * normal(90, 1, seed=1)
    a, b = x[:, 0].numpy(), y[:, 0].numpy()
    assert energy_distance(x, y, permutations=2).statistic == pytest.approx(stats.energy_distance(a, b) ** 2, rel=1e-10)
    found = sliced_wasserstein(x, y, permutations=2).statistic
    assert found == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-10)


def test_mmd_is_its_double_sum() -> None:
    x, y, h = normal(20, 3).numpy(), normal(15, 3, seed=1).numpy(), 0.7

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return np.mean([[math.exp(-((p - q) ** 2).sum() / (2 * h**2)) for q in b] for p in a])

    expected = mean(x, x) + mean(y, y) - 2 * mean(x, y)
    found = mmd(torch.from_numpy(x), torch.from_numpy(y), bandwidth=h, permutations=2)
    assert found.statistic == pytest.approx(expected, rel=1e-10)


def test_energy_distance_of_shifted_normals() -> None:
    """Quantiles instead of draws, so that both distribution functions are right to 1 / 1600 everywhere."""
    shift, n = 0.8, 800
    x = torch.special.ndtri((torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n)
    truth, _ = integrate.quad(lambda t: 2 * (stats.norm.cdf(t) - stats.norm.cdf(t - shift)) ** 2, -10, 10 + shift)
    assert energy_distance(x, x + shift, permutations=2).statistic == pytest.approx(truth, abs=1e-3)


def test_sliced_wasserstein_of_a_shift() -> None:
    """Each direction moves by |u . shift|, whose mean over the sphere of the plane is 2 / pi times the length."""
    x = normal(50, 2)
    found = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), projections=2000, permutations=2)
    assert found.statistic == pytest.approx(5 * 2 / math.pi, abs=0.11)  # 3 standard errors: 5 * 0.31 / sqrt(2000)


def test_the_floor_is_the_mean_under_one_distribution() -> None:
    """Against the expectation in closed form: 2 (1/n + 1/m) / sqrt(pi) for normals."""
    n, m = 60, 40
    found = [energy_distance(normal(n, 1, seed=2 * i), normal(m, 1, seed=2 * i + 1)).floor for i in range(40)]
    expected = (1 / n + 1 / m) * 2 / math.sqrt(math.pi)
    assert np.mean(found) == pytest.approx(expected, rel=0.05)  # 4 standard errors


@pytest.mark.parametrize("distance", TWO_SAMPLE)
def test_p_values_under_the_null_and_under_a_shift(distance: Callable[..., TwoSample]) -> None:
    """Of 200 pairs of one distribution the p-values are uniform; of shifted ones they are the least possible."""
    x, y = normal(200, 25, 2), normal(200, 20, 2, seed=1)
    few = {"projections": 5} if distance is sliced_wasserstein else {}
    p = [distance(a, b, permutations=99, seed=i, **few).p_value for i, (a, b) in enumerate(zip(x, y, strict=True))]
    # Steps of 0.01 add up to 0.01 to the distance of the test, against its 0.115 at the level 0.01.
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert distance(x[0], y[0] + 3, permutations=99).p_value == 0.01


@pytest.mark.parametrize("distance", TWO_SAMPLE)
def test_many_rows_and_equal_rows(distance: Callable[..., TwoSample], monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(80, 1)
    whole = distance(x, x[:20] + 1, seed=3).statistic
    monkeypatch.setattr(samples, "ROWS", 50)
    found = distance(x, x[:20] + 1, seed=3)
    assert found == distance(x, x[:20] + 1, seed=3)
    assert found.statistic not in (whole, distance(x, x[:20] + 1, seed=4).statistic)
    equal = distance(torch.ones(5, 2), torch.ones(7, 2), permutations=10)
    assert equal.statistic == pytest.approx(0.0, abs=1e-12)
    assert distance(x[:9].float(), x[9:20].float()).statistic > 0


@pytest.mark.parametrize("distance", [*TWO_SAMPLE, c2st])
def test_unusable_samples(distance: Callable[..., TwoSample]) -> None:
    if distance is c2st:
        pytest.importorskip("sklearn")
    x = normal(20, 2)
    with pytest.raises(ValueError, match=r"got \(20, 2\) and \(20, 1\)"):
        distance(x, x[:, :1])
    with pytest.raises(ValueError, match=r"n, m >= .* got \(20, 2\) and \(1, 2\)"):
        distance(x, x[:1])
    bad = x.clone()
    bad[7, 1] = torch.nan
    with pytest.raises(ValueError, match="expected finite y, got NaN or infinity in row 7"):
        distance(x, bad)


def test_unusable_options() -> None:
    x = normal(20, 2)
    with pytest.raises(ValueError, match="permutations >= 2, got 1"):
        energy_distance(x, x, permutations=1)
    with pytest.raises(ValueError, match="bandwidth > 0, got 0"):
        mmd(x, x, bandwidth=0)
    with pytest.raises(ValueError, match="projections >= 1, got 0"):
        sliced_wasserstein(x, x, projections=0)


def test_c2st_is_the_accuracy_of_the_best_classifier() -> None:
    """Two normals at a distance of 2 standard deviations: Phi(1), within 3 standard errors."""
    pytest.importorskip("sklearn")
    x, y = normal(150, 1), 2 + normal(200, 1, seed=1)
    found = c2st(x, y)
    assert found.statistic == pytest.approx(stats.norm.cdf(1), abs=0.065)
    assert found.p_value < 1e-10
    alike = c2st(x, y - 2)
    assert abs(alike.statistic - 0.5) < 4 * alike.floor_sd
    assert alike.floor == 0.5 and alike.floor_sd == pytest.approx(0.5 / math.sqrt(300))


def test_c2st_without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "sklearn"] + ["sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install pushforward\[sklearn\]"):
        c2st(normal(20, 2), normal(20, 2))


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_kolmogorov_p_values_are_those_of_scipy(n: int) -> None:
    """Against the exact distribution, at distances from the least to those of p = 1e-8."""
    shifts = torch.linspace(0, 1, 200, dtype=torch.float64) * min(0.9, 3.2 / math.sqrt(n))
    u = ((torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n + shifts).clamp_max(1.0)
    found = ks_p_value(u).numpy()
    exact = np.array([stats.kstest(column, "uniform", method="exact").pvalue for column in u.T.numpy()])
    assert abs(found - exact).max() < (0.003 if n < 100 else 0.0003)  # as documented
    tail = exact < 1e-3
    assert tail.any() and (found[tail] > 0.99 * exact[tail]).all()


def test_kolmogorov_shapes_and_errors() -> None:
    u = torch.rand(20, 3, 2, generator=seeded())
    assert ks_p_value(u).shape == (3, 2)
    assert ks_p_value(u)[1, 0] == ks_p_value(u[:, 1, 0])
    for bad, message in [(u[:4], "n >= 5"), (2 * u, "outside"), (u * torch.nan, "NaN")]:
        with pytest.raises(ValueError, match=message):
            ks_p_value(bad)


def test_latents_that_are_normal() -> None:
    """Of 300 sets, the p-values of each test are at most as often small as they say, and uniform for the radius."""
    found = [latent_normality(z) for z in normal(300, 100, 3)]
    assert stats.kstest([f.radius for f in found], "uniform").pvalue > 0.01
    assert stats.kstest([f.coordinates[1] for f in found], "uniform").pvalue > 0.01
    for p in ([f.coordinates_p for f in found], [f.correlation_p for f in found], [f.p_value for f in found]):
        assert np.mean(np.array(p) < 0.1) < 0.1 + 3 * math.sqrt(0.09 / 300)
    assert np.mean([f.correlation_p < 0.1 for f in found]) > 0.04  # Bonferroni loses little with three pairs
    assert np.mean([f.ok for f in found]) > 0.97


def test_latents_against_scipy() -> None:
    z = 1.1 * normal(80, 3)
    found = latent_normality(z)
    exact = [stats.kstest(column, "norm").pvalue for column in z.T.numpy()]
    assert found.coordinates == pytest.approx(exact, abs=0.003)
    assert found.radius == pytest.approx(stats.kstest(z.square().sum(1).numpy(), "chi2", (3,)).pvalue, abs=0.003)
    r = np.corrcoef(z.T.numpy())
    assert found.pair is not None and found.correlation == pytest.approx(abs(r[found.pair]), rel=1e-10)
    assert found.correlation == pytest.approx(abs(r[np.triu_indices(3, 1)]).max(), rel=1e-10)
    p = stats.pearsonr(*z[:, list(found.pair)].T.numpy()).pvalue
    assert found.correlation_p == pytest.approx(min(1, 3 * p), rel=0.05)  # Fisher's transform


def test_latents_that_are_not_normal() -> None:
    """Each test sees what it is for."""
    z = normal(2000, 3)
    shifted = latent_normality(z + torch.tensor([0.0, 0.3, 0.0]))
    assert not shifted.ok and min(shifted.coordinates) == shifted.coordinates[1] and "worst: 1" in str(shifted)
    tied = z.clone()
    tied[:, 2] = 0.3 * z[:, 0] + math.sqrt(1 - 0.09) * z[:, 2]
    correlated = latent_normality(tied)
    assert correlated.pair == (0, 2) and correlated.correlation_p < 1e-10 and not correlated.ok
    assert correlated.coordinates_p > 0.01
    folded = z.clone()
    folded[:, 1] = z[:, 0] * normal(2000, seed=2).sign()
    hidden = latent_normality(folded)
    assert hidden.radius < 1e-10 and hidden.coordinates_p > 0.01 and hidden.correlation_p > 0.01


def test_latents_at_the_edges() -> None:
    one = latent_normality(normal(50, 1))
    assert one.pair is None and one.correlation_p == 1.0 and "correlation" not in str(one)
    assert not latent_normality(torch.zeros(50, 2)).ok
    assert latent_normality(normal(50, 1).expand(50, 2)).correlation_p < 1e-10
    with pytest.raises(ValueError, match=r"got \(9, 2\)"):
        latent_normality(torch.zeros(9, 2))
    with pytest.raises(ValueError, match="finite"):
        latent_normality(torch.full((20, 2), torch.inf))


def conjugate(n: int, draws: int, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """theta ~ N(0, I_2), x ~ N(theta, I_2): posterior N(x / 2, I / 2), with its deviation scaled."""
    truth = normal(n, 2)
    mean, sd = (truth + normal(n, 2, seed=1)) / 2, scale * math.sqrt(0.5)
    draw = mean + sd * normal(draws, n, 2, seed=2)
    log_prob = [-0.5 * ((theta - mean) / sd).square().sum(-1) for theta in (draw, truth)]
    return draw, truth, log_prob[0], log_prob[1]


def test_ranks_of_exact_and_of_narrow_posteriors() -> None:
    draws, truth, *_ = conjugate(n=1000, draws=63, scale=1.0)
    assert (uniformity(sbc_ranks(draws, truth), 63) > 0.01).all()
    draws, truth, *_ = conjugate(n=1000, draws=63, scale=0.7)
    assert (uniformity(sbc_ranks(draws, truth), 63) < 1e-6).all()


def test_coverage_of_exact_and_of_narrow_posteriors() -> None:
    """At deviations scaled by s, regions of level a hold 1 - (1 - a)^(s^2) of a plane normal; within 4 errors."""
    levels, n = torch.tensor([0.05, 0.3, 0.5, 0.9, 0.99], dtype=torch.float64), 1500
    for scale in (1.0, 0.7, 1.5):
        *_, log_draws, log_truth = conjugate(n, draws=400, scale=scale)
        truth = 1 - (1 - levels) ** scale**2
        errors = (truth * (1 - truth) / n).sqrt()
        found = expected_coverage(log_draws, log_truth, levels)
        # Of few draws, levels blur by their own errors: 0.004 at most here for scales other than 1.
        assert ((found - truth).abs() < 4 * errors + (0.0 if scale == 1 else 0.004)).all(), (scale, found, truth)


def test_coverage_with_few_draws_and_with_ties() -> None:
    """Exact on average for three draws; a flat posterior, where all densities are equal, covers its level."""
    *_, log_draws, log_truth = conjugate(20_000, draws=3, scale=1.0)
    levels = [0.0, 0.1, 0.4, 0.8, 1.0]
    found = expected_coverage(log_draws, log_truth, levels)
    assert found.tolist() == pytest.approx(levels, abs=4 * 0.5 / math.sqrt(20_000))
    flat = expected_coverage(torch.zeros(3, 2), torch.zeros(2), levels)
    assert flat.tolist() == pytest.approx(levels, abs=1e-12)
    assert expected_coverage(torch.zeros(3, 2), torch.full((2,), -torch.inf), [0.75]).item() == 0.0


@pytest.mark.parametrize(("n", "draws"), [(50, 9), (300, 100), (2000, 30)])
def test_uniformity_under_the_null_and_against_scipy(n: int, draws: int) -> None:
    """400 columns of uniform ranks, with bins that do not divide the ranks; and one column by hand."""
    ranks = torch.randint(draws + 1, (n, 400), generator=seeded())
    p = uniformity(ranks, draws)
    assert stats.kstest(p.numpy(), "uniform").pvalue > 0.01
    bins = min(round(2 * n**0.4), n // 5, draws + 1)
    edges = np.ceil(np.arange(bins + 1) * (draws + 1) / bins)
    counts, _ = np.histogram(ranks[:, 0].numpy(), edges - 0.5)
    expected = n * np.diff(edges) / (draws + 1)
    assert p[0].item() == pytest.approx(stats.chisquare(counts, expected).pvalue, rel=1e-9)


def test_unusable_posteriors() -> None:
    draws, truth = torch.zeros(5, 20, 2), torch.zeros(20, 2)
    with pytest.raises(ValueError, match=r"got \(20, 2\) and \(20, 2\)"):
        sbc_ranks(truth, truth)
    with pytest.raises(ValueError, match="expected truth without NaN, got 40 NaN"):
        sbc_ranks(draws, truth * torch.nan)
    with pytest.raises(ValueError, match="draws = 3"):
        uniformity(torch.full((20, 1), 4), 3)
    with pytest.raises(ValueError, match=r"n >= 10, got \(9, 1\)"):
        uniformity(torch.zeros(9, 1), 3)
    with pytest.raises(ValueError, match=r"got \(5, 20\) and \(19,\)"):
        expected_coverage(draws[..., 0], truth[1:, 0], [0.5])
    with pytest.raises(ValueError, match=r"levels .* got \[1.5\]"):
        expected_coverage(draws[..., 0], truth[:, 0], [1.5])
    with pytest.raises(ValueError, match="at least one draw"):
        expected_coverage(draws[:0, :, 0], truth[:, 0], [0.5])
