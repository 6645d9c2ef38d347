"""From what was located to the flows that the fit starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.bases import Base, LocatedMixture, MarginalMixtures, StandardNormal
from pushforward.bijections import Bijection, Chain, Coupling, Elementwise, Standardize, Triangular
from pushforward.flow import Flow
from pushforward.inference.budget import Budget
from pushforward.inference.density import Density
from pushforward.inference.locate import Located
from pushforward.inference.mixture import Mixture, population
from pushforward.nn import MLP
from pushforward.transformers import Affine, RationalQuadratic

MAX_MIXTURE = 64
MARGINAL_COMPONENTS = 4
LOG_SCALE = 9.0  # bound of the log-scale of one coupling: the squares of four in a row stay finite in float32


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


def starts(
    density: Density, located: Located, generator: torch.Generator, *, budget: Budget, until: float
) -> list[Start]:
    """The starts worth a try, the likeliest first, made before a share of the budget is spent."""
    d = density.features
    if located.connected:
        return [_normal(located)]
    small = len(located.means) <= MAX_MIXTURE
    candidates = [_mixture(density, located, generator, budget, until)] if small or d <= 4 else []
    if d > 4 and not (located.complete and len(located.means) <= 8):
        candidates += [_product(located), _wide(located)]
    return candidates


def _normal(located: Located) -> Start:
    d = located.means.shape[-1]
    return Start("normal", StandardNormal(d), located.means[0], located.scales[0], False, False, False)


def _mixture(density: Density, located: Located, generator: torch.Generator, budget: Budget, until: float) -> Start:
    """All components, refined by population Monte Carlo, in the coordinates of their common mean and covariance."""
    k = min(MAX_MIXTURE, len(located.means))
    mixture = Mixture(located.elbos[:k].softmax(0), located.means[:k], located.scales[:k])
    mixture = population(density, mixture, generator, budget=budget, until=until)
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


def _random_half(d: int, generator: torch.Generator) -> list[bool]:
    passes = set(torch.randperm(d, generator=generator)[: d // 2].tolist())
    return [i in passes for i in range(d)]
