"""From what was located to the flows that the fit starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.bases import Base, LocatedMixture, MarginalMixtures, StandardNormal
from pushforward.bijections import Bijection, Chain, Coupling, Elementwise, Standardize, Triangular
from pushforward.flow import Flow
from pushforward.inference.density import Density
from pushforward.inference.locate import Located
from pushforward.nn import MLP
from pushforward.transformers import Affine, RationalQuadratic

MAX_MIXTURE = 64
MARGINAL_COMPONENTS = 4
POPULATION = 4096
LOG_SCALE = 6.0  # bound of the log-scale of one coupling


@dataclass(frozen=True)
class Start:
    """A base in standardised coordinates, and the affine map that takes them to the target's.

    Attributes:
        name: "normal", "mixture", "product" or "wide".
        base: the distribution of the standardised coordinates.
        loc: shape `(features,)`.
        scale: lower triangular, shape `(features, features)`.
        modes: whether there are several, so that the fit has to hold them.
        margins: whether each coordinate gets a spline of its own.
        transport: whether the flow is first carried along a path of tempered targets.
    """

    name: str
    base: Base
    loc: Tensor
    scale: Tensor
    modes: bool
    margins: bool
    transport: bool

    def flow(self, *, layers: int, hidden_features: tuple[int, ...], seed: int) -> Flow:
        """Affine couplings of random halves, splines of the margins, a triangular map, all near the identity."""
        d = len(self.loc)
        chain: list[Bijection] = []
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mask = [False] * d
            for k in range(layers if d > 1 else 0):
                mask = [not m for m in mask] if k % 2 else _random_half(d, generator)
                passed = sum(mask)
                conditioner = MLP(passed, 2 * (d - passed), hidden_features, skip=True)
                conditioner.start_at_(torch.zeros(2 * (d - passed)))
                chain.append(Coupling(mask, Affine(LOG_SCALE), conditioner=conditioner))
            if self.margins or d == 1:
                chain.append(Elementwise(RationalQuadratic(16, bound=5.0), d))
        chain += [Triangular(d), Standardize(self.loc.float(), self.scale.float())]
        return Flow(Chain(*chain), self.base)


def starts(density: Density, located: Located, generator: torch.Generator) -> list[Start]:
    """The starts worth a try, the likeliest first."""
    d = density.features
    if located.connected:
        return [_normal(located)]
    small = len(located.means) <= MAX_MIXTURE
    candidates = [_mixture(density, located, generator)] if small or d <= 4 else []
    if d > 4 and not (located.complete and len(located.means) <= 8):
        candidates += [_product(located), _wide(located)]
    return candidates


def _normal(located: Located) -> Start:
    d = located.means.shape[-1]
    return Start("normal", StandardNormal(d), located.means[0], located.scales[0], False, False, False)


def _mixture(density: Density, located: Located, generator: torch.Generator) -> Start:
    """All components, refined by population Monte Carlo, in the coordinates of their common mean and covariance."""
    k = min(MAX_MIXTURE, len(located.means))
    mixture = Mixture(located.elbos[:k].softmax(0), located.means[:k], located.scales[:k])
    mixture = _population(density, mixture, generator)
    loc, scale = mixture.moments()
    means = torch.linalg.solve_triangular(scale, (mixture.means - loc).mT, upper=False).mT
    scales = torch.linalg.solve_triangular(scale, mixture.scales, upper=False)
    base = LocatedMixture(means.float(), scales.float(), mixture.weights.float())
    return Start("mixture", base, loc, scale, len(mixture.weights) > 1, False, False)


def _product(located: Located) -> Start:
    """For each coordinate the clusters of the modes' places, as if they combined freely."""
    loc, spread, width = _spread(located)
    columns = [_clusters(located.means[:, i], width[i].item()) for i in range(len(loc))]
    means = (torch.stack([c[0] for c in columns]) - loc[:, None]) / spread[:, None]
    widths = torch.stack([c[1] for c in columns]) / spread[:, None]
    base = MarginalMixtures(means.float(), widths.float(), torch.stack([c[2] for c in columns]).float())
    return Start("product", base, loc, spread.diag(), True, True, False)


def _wide(located: Located) -> Start:
    """One normal distribution, axis by axis, that covers all modes."""
    loc, spread, _ = _spread(located)
    return Start("wide", StandardNormal(len(loc)), loc, spread.diag(), True, True, True)


def _spread(located: Located) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation over all modes, and mean standard deviation within one, of each coordinate."""
    width = located.scales.square().sum(-1).mean(0).sqrt()
    loc = located.means.mean(0)
    between = (located.means - loc).square().mean(0)
    return loc, (between + width.square()).sqrt(), width


def _clusters(places: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Means, widths and weights of at most four clusters, cut where sorted places gap by over 3 widths."""
    ordered = places.sort().values
    gaps = ordered.diff()
    cuts = (gaps > 3 * width).nonzero().squeeze(-1)
    if len(cuts) >= MARGINAL_COMPONENTS:
        cuts = cuts[gaps[cuts].argsort(descending=True)[: MARGINAL_COMPONENTS - 1]].sort().values
    groups = ordered.tensor_split((cuts + 1).tolist())
    means = [group.mean() for group in groups]
    widths = [(group.var(correction=0) + width**2).sqrt() for group in groups]
    weights = [torch.tensor(len(group) / len(places), dtype=places.dtype) for group in groups]
    missing = MARGINAL_COMPONENTS - len(groups)
    # Coordinates with fewer clusters split their first into equal ones.
    weights[0] = weights[0] / (missing + 1)
    return (
        torch.stack(means[:1] * missing + means),
        torch.stack(widths[:1] * missing + widths),
        torch.stack(weights[:1] * missing + weights),
    )


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


def _population(density: Density, mixture: Mixture, generator: torch.Generator) -> Mixture:
    """Refit the mixture to its own importance-weighted draws, as long as fresh draws get better.

    Reference:
        Cappe et al., Adaptive importance sampling in general mixture classes, 2008, arXiv 0710.4242.
    """
    best, best_score = mixture, -math.inf
    for _ in range(8):
        x = mixture.sample(POPULATION, generator)
        terms = mixture.log_terms(x)
        with torch.no_grad():
            log_weights = density(x) - terms.logsumexp(-1)
        score = _score(log_weights)
        if score > best_score:
            best, best_score = mixture, score
        if score > 0.97:
            break
        mixture = _refit(mixture, x, (power_at(log_weights, 0.4) * log_weights).softmax(0), terms)
    return best


def _score(log_weights: Tensor) -> float:
    """The effective share of the draws."""
    return ((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp() / len(log_weights)).item()


def power_at(log_weights: Tensor, share: float) -> float:
    """The largest power up to 1 of the weights at which their effective share is at least `share`."""
    if _score(log_weights) >= share:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(middle * log_weights) >= share else (low, middle)
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


def _random_half(d: int, generator: torch.Generator) -> list[bool]:
    passes = set(torch.randperm(d, generator=generator)[: d // 2].tolist())
    return [i in passes for i in range(d)]
