"""Normal mixtures that adapt to a density by weighted draws of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.inference.budget import Budget
from pushforward.inference.density import Density

DRAWS, FEWEST_DRAWS, SHARE = 8192, 256, 0.02  # a step's, and what it may cost of the budget
MAX_COMPONENTS, MAX_FEATURES = 128, 4  # beyond which no component is split: in many dimensions the layers curve
STEPS, PATIENCE = 60, 4
ENOUGH = 0.98  # effective share of the draws
TEMPERED = 0.4  # effective share to which the weights are tempered
APART = 0.8  # standard deviations by which the halves of a component move from its centre


@dataclass(frozen=True)
class Mixture:
    """Normal distributions of full covariance: weights `(k,)`, means `(k, d)`, Cholesky factors `(k, d, d)`."""

    weights: Tensor
    means: Tensor
    scales: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[-1], generator=generator, dtype=self.means.dtype)
        return self.means[k] + (self.scales[k] @ noise.unsqueeze(-1)).squeeze(-1)

    def log_terms(self, x: Tensor) -> Tensor:
        """log of weight times density of each component, `(n, k)`."""
        centred = (x.unsqueeze(0) - self.means.unsqueeze(1)).mT
        y = torch.linalg.solve_triangular(self.scales, centred, upper=False)
        log_det = self.scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * x.shape[-1] * math.log(2 * math.pi)
        terms: Tensor = (self.weights.log() - log_det - constant) - 0.5 * y.square().sum(-2).mT
        return terms

    def moments(self) -> tuple[Tensor, Tensor]:
        loc = self.weights @ self.means
        centred = self.means - loc
        within = torch.einsum("k,kij->ij", self.weights, self.scales @ self.scales.mT)
        covariance = within + (self.weights[:, None] * centred).mT @ centred
        return loc, torch.linalg.cholesky(covariance)


def population(
    density: Density, mixture: Mixture, generator: torch.Generator, *, budget: Budget, until: float
) -> Mixture:
    """Refit the mixture to its own importance-weighted draws, as long as fresh draws get better.

    Where they no longer do, each component is split in two, so that curved modes get as many as they need.

    Args:
        density: the target.
        mixture: to begin with.
        generator: of the draws.
        budget: shared with the other stages.
        until: share of the whole budget at which to end.

    Reference:
        Cappe et al., Adaptive importance sampling in general mixture classes, 2008, arXiv 0710.4242.
    """
    best, best_score, stale = mixture, -math.inf, 0
    for _ in range(STEPS):
        draws = int(min(DRAWS, max(SHARE * budget.affordable, FEWEST_DRAWS)))
        x = mixture.sample(draws, generator)
        terms = mixture.log_terms(x)
        with torch.no_grad():
            log_weights = density(x) - terms.logsumexp(-1)
        score = effective_share(truncated(log_weights))
        stale = 0 if score > best_score + 1e-3 else stale + 1
        if score > best_score:
            best, best_score = mixture, score
        budget.update(f"{len(mixture.weights)} components, ESS {best_score:.2f}, ")
        if best_score > ENOUGH or budget.spent > until:
            break
        if stale < PATIENCE:
            mixture = _refit(mixture, x, (power_at(log_weights, TEMPERED) * log_weights).softmax(0), terms)
        elif density.features <= MAX_FEATURES and 2 * len(best.weights) <= MAX_COMPONENTS:
            mixture, stale = _split(best), 0
        else:
            break
    return best


def effective_share(log_weights: Tensor) -> float:
    """The effective share of weighted draws, without NaN: 0 where all weights are 0."""
    share = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp() / len(log_weights)
    return share.nan_to_num(0.0).item()


def power_at(log_weights: Tensor, share: float) -> float:
    """The largest power up to 1 of the weights at which their effective share is at least `share`."""
    if effective_share(log_weights) >= share:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if effective_share(middle * log_weights) >= share else (low, middle)
    return low


def _refit(mixture: Mixture, x: Tensor, weights: Tensor, terms: Tensor) -> Mixture:
    """One step of expectation maximisation; covariances shrink towards the old ones where draws are few."""
    d = x.shape[-1]
    share = weights[:, None] * terms.softmax(-1)
    mass = share.sum(0)
    kept = mass > 3e-5
    share, mass = share[:, kept], mass[kept]
    means = (share.mT @ x) / mass[:, None]
    centred = x.unsqueeze(0) - means.unsqueeze(1)
    covariance = torch.einsum("nk,kni,knj->kij", share, centred, centred) / mass[:, None, None]
    old = mixture.scales[kept] @ mixture.scales[kept].mT
    count = share.sum(0).square() / share.square().sum(0)
    shrink = (((d + 1) if d <= 4 else 20 * d) / (count + d + 1))[:, None, None].clamp_max(1.0)
    scales, failed = torch.linalg.cholesky_ex((1 - shrink) * covariance + shrink * old)
    scales = torch.where((failed == 0)[:, None, None], scales, mixture.scales[kept])
    return Mixture(mass / mass.sum(), means, scales)


def _split(mixture: Mixture) -> Mixture:
    """Each component as two halves along its longest axis, with nearly the same mean and covariance together."""
    covariance = mixture.scales @ mixture.scales.mT
    values, vectors = torch.linalg.eigh(covariance)
    offset = APART * vectors[..., -1] * values[..., -1:].sqrt()
    narrowed = torch.linalg.cholesky(covariance - offset.unsqueeze(-1) * offset.unsqueeze(-2))
    means = torch.cat([mixture.means + offset, mixture.means - offset])
    return Mixture(mixture.weights.repeat(2) / 2, means, narrowed.repeat(2, 1, 1))


def truncated(log_weights: Tensor) -> Tensor:
    """Weights no larger than the root of their number times their mean, so that a single one does not decide."""
    n = len(log_weights)
    return log_weights.clamp_max((log_weights.logsumexp(0) - 0.5 * math.log(n)).item())
