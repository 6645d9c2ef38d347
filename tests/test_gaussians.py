"""Gaussian mixtures by expectation-maximisation, against closed forms and scikit-learn."""

import numpy as np
import pytest
import torch

from pushforward.tabular import numeric_table, read_file
from pushforward.tabular.gaussians import fit_gaussians
from pushforward.targets import faithful_path


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
