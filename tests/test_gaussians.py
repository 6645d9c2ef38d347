"""Gaussians and mixtures of them, against closed forms and scikit-learn."""

import numpy as np
import pytest
import torch

from pushforward.tabular import numeric_table, read_file
from pushforward.tabular.gaussians import choose_gaussians, fit_gaussians, fit_shrunk_gaussian
from pushforward.targets import CorrelatedNormal, Gaussians, faithful_path


def test_one_gaussian_has_the_moments_of_the_rows():
    x = torch.randn(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4.0 + 7.0
    gaussian = fit_gaussians(x)
    component = gaussian.component_distribution
    torch.testing.assert_close(component.mean[0], x.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(component.covariance_matrix[0], x.T.cov(correction=0), rtol=1e-5, atol=1e-6)


def test_two_components_reach_the_likelihood_of_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    rows = numeric_table(read_file(faithful_path())).values
    theirs = mixture.GaussianMixture(2, n_init=5, tol=1e-7, max_iter=1000, random_state=0).fit(rows)
    x = torch.as_tensor(rows)
    ours = fit_gaussians(x, 2)
    np.testing.assert_allclose(ours.log_prob(x).numpy(), theirs.score_samples(rows), rtol=0, atol=1e-3)


def test_fewer_distinct_rows_than_components():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64).repeat(20, 1)
    assert fit_gaussians(x, 3).log_prob(x).isfinite().all()


@pytest.mark.parametrize(("rows", "components"), [(2, 1), (10, 0)])
def test_refused(rows, components):
    with pytest.raises(ValueError, match="expected a component or more and rows > features"):
        fit_gaussians(torch.zeros(rows, 2), components)


def repeated(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, how often each counts, and the rows so often."""
    generator = torch.Generator().manual_seed(seed)
    x = 3 + torch.randn(60, 3, generator=generator, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    weights = torch.randint(0, 4, (60,), generator=generator)
    return x, weights.double(), x.repeat_interleave(weights, 0)


def test_a_weight_is_how_often_a_row_counts() -> None:
    x, weights, rows = repeated()
    for fit in (fit_gaussians, fit_shrunk_gaussian):
        torch.testing.assert_close(fit(x, weights=weights).log_prob(x), fit(rows).log_prob(x), rtol=0, atol=1e-10)


def test_weighted_steps_of_a_mixture_from_one_start() -> None:
    """From the same responsibilities weights and repeated rows climb alike."""
    from pushforward.tabular.gaussians import _climb, _maximise, _Rows

    x, weights, rows = repeated()
    ours, theirs = _Rows.of(x, weights), _Rows.of(rows, None)
    found = []
    for part in (ours, theirs):
        left = (part.z[:, :1] < 0).double()
        components, _ = _climb(part, _maximise(part, torch.cat([left, 1 - left], 1), 1e-6), 1e-6, 30, 0.0)
        found.append(part.distribution(components).log_prob(x))
    torch.testing.assert_close(*found, rtol=0, atol=1e-8)


def test_shrinkage_has_the_best_likelihood_of_rows_left_out() -> None:
    """Among all shares it could take, by leaving out one row after the other."""
    from pushforward.tabular import gaussians

    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x @ torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    shares = torch.logspace(*gaussians.SHRINKAGE, dtype=torch.float64)
    scores = []
    for share in shares:
        total = 0.0
        for i in range(len(z)):
            rest = torch.cat([z[:i], z[i + 1 :]])
            covariance = (1 - share) * rest.T.cov(correction=0) + share * torch.eye(4).double()
            total += torch.distributions.MultivariateNormal(rest.mean(0), covariance).log_prob(z[i]).item()
        scores.append(total)
    best = shares[int(np.argmax(scores))]
    expected = (1 - best) * z.T.cov(correction=0) + best * torch.eye(4).double()
    scale = x.std(0, correction=0)
    found = fit_shrunk_gaussian(x).component_distribution.covariance_matrix[0]
    torch.testing.assert_close(found, scale[:, None] * expected * scale, rtol=1e-9, atol=0)


@pytest.mark.parametrize("n", [15, 40, 200])
def test_shrinkage_pays(n: int) -> None:
    """Mean over draws of ill-conditioned and of independent columns, against the maximum-likelihood Gaussian."""
    for target in (CorrelatedNormal(10), CorrelatedNormal(10, 1.0, 1.0)):
        test = target.sample(5000, torch.Generator().manual_seed(99))
        gains = []
        for seed in range(5):
            x = target.sample(n, torch.Generator().manual_seed(seed))
            gains.append((fit_shrunk_gaussian(x).log_prob(test) - fit_gaussians(x).log_prob(test)).mean().item())
        assert sum(gains) > 0


def test_the_criterion_finds_the_number_of_components() -> None:
    target = Gaussians.circle(4)
    x = target.sample(2000, torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture = choose_gaussians(x)
    assert len(mixture.mixture_distribution.probs) == 4
    excess = (target.log_prob(x) - mixture.log_prob(x)).mean().item()
    assert abs(excess) < 0.02
    one = choose_gaussians(CorrelatedNormal(3).sample(500, torch.Generator().manual_seed(0)))
    assert len(one.mixture_distribution.probs) == 1


def test_the_chosen_mixture_keeps_units_and_dtype() -> None:
    x = Gaussians.circle(2).sample(500, torch.Generator().manual_seed(0), dtype=torch.float64)
    scale, loc = torch.tensor([1e4, 1e-3], dtype=torch.float64), torch.tensor([1e6, -3.0], dtype=torch.float64)
    plain, moved = choose_gaussians(x), choose_gaussians(loc + scale * x)
    expected = plain.log_prob(x) - scale.log().sum()
    torch.testing.assert_close(moved.log_prob(loc + scale * x), expected, rtol=0, atol=1e-6)
    assert choose_gaussians(x.float()).log_prob(x.float()).dtype == torch.float32
