"""Figures on weighted draws against closed forms and arviz."""

import math

import pytest
import torch

from pushforward.diagnostics import effective_sample_size, khat_threshold, log_evidence, pareto_smooth


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
