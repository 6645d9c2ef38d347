"""Mixtures of full-covariance Gaussians by expectation-maximisation: what a flow has to beat."""

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal


def fit_gaussians(
    x: Tensor, components: int = 1, *, starts: int = 5, max_steps: int = 500, tolerance: float = 1e-7, seed: int = 0
) -> MixtureSameFamily:
    r"""The maximum-likelihood mixture $\sum_k w_k N(m_k, S_k)$ of rows, the best of some starts.

    Each covariance gets 1e-6 of the variances of the rows on its diagonal, so that none collapses onto a row.

    Args:
        x: rows, `(n, features)`, with n > features.
        components: number of Gaussians.
        starts: number of random starts; one is enough for one component.
        max_steps: upper limit of the steps of a start.
        tolerance: a start ends when the mean log-likelihood gains less, in nats.
        seed: of the starts.

    Returns:
        A distribution of rows, in the units and dtype of `x`.

    Raises:
        ValueError: if there are too few rows, or no component.

    Reference:
        Dempster et al., Maximum likelihood from incomplete data via the EM algorithm, 1977.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> left, right = torch.randn(2, 500, 2, generator=generator, dtype=torch.float64)
        >>> mixture = fit_gaussians(torch.cat([left - 5.0, right + 5.0]), components=2)
        >>> [round(weight, 3) for weight in mixture.mixture_distribution.probs.tolist()]
        [0.5, 0.5]
    """
    n, features = x.shape
    if components < 1 or n <= features:
        raise ValueError(f"expected a component or more and rows > features, got {components} for {n} x {features}")
    floor = torch.diag(1e-6 * x.var(0))
    generator = torch.Generator().manual_seed(seed)
    best, best_score = None, -torch.inf
    for _ in range(starts if components > 1 else 1):
        responsibilities = _nearest(x, components, generator)
        score = -torch.inf
        for _ in range(max_steps):
            mixture = _maximise(x, responsibilities, floor)
            log_terms = mixture.component_distribution.log_prob(x.unsqueeze(1)) + mixture.mixture_distribution.logits
            responsibilities = log_terms.softmax(-1)
            score, previous = log_terms.logsumexp(-1).mean().item(), score
            if score - previous < tolerance:
                break
        if best is None or score > best_score:
            best, best_score = mixture, score
    assert best is not None
    return best


def _nearest(x: Tensor, components: int, generator: torch.Generator) -> Tensor:
    """Each standardised row wholly to the nearest of some rows, which are drawn far apart (k-means++)."""
    z = (x - x.mean(0)) / x.std(0)
    square = z.new_full((len(z),), 1.0)
    centres = []
    for _ in range(components):
        centre = z[torch.multinomial(square, 1, generator=generator)]
        centres.append(centre)
        square = torch.cdist(z, torch.cat(centres)).amin(1).square()
        square = square + torch.finfo(x.dtype).tiny  # fewer distinct rows than components
    return torch.nn.functional.one_hot(torch.cdist(z, torch.cat(centres)).argmin(1), components).to(x)


def _maximise(x: Tensor, responsibilities: Tensor, floor: Tensor) -> MixtureSameFamily:
    """The mixture of the highest expected log-likelihood, given how much of each row each component answers for."""
    mass = responsibilities.sum(0).clamp_min(torch.finfo(x.dtype).tiny)
    means = responsibilities.T @ x / mass.unsqueeze(-1)
    centred = x.unsqueeze(1) - means
    covariances = torch.einsum("nk,nki,nkj->kij", responsibilities, centred, centred) / mass[:, None, None] + floor
    return MixtureSameFamily(Categorical(mass), MultivariateNormal(means, covariances))
