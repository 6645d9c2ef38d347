"""Mixtures of normal distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.targets.base import PlaneTarget, Target, Window


class NormalMixture(Target):
    r"""$p(x) = \sum_k w_k N(x; m_k, s^2 I)$.

    Args:
        means: $m_k$, shape `(components, features)`.
        weights: $w_k$, positive; they are normalised. By default equal.
        scale: $s$, the standard deviation of each component.

    Raises:
        ValueError: the shapes do not fit, or a weight or the scale is not positive.
    """

    def __init__(
        self, means: Sequence[Sequence[float]] | Tensor, weights: Sequence[float] | None = None, scale: float = 1.0
    ) -> None:
        self.means = torch.as_tensor(means, dtype=torch.float64)
        self.weights = torch.ones(len(self.means)) if weights is None else torch.as_tensor(weights)
        self.weights = self.weights.double() / self.weights.sum()
        self.scale = scale
        if self.means.dim() != 2 or self.weights.shape != self.means.shape[:1]:
            raise ValueError(
                "expected means of shape (components, features) and a weight for each, "
                f"got {tuple(self.means.shape)} and {tuple(self.weights.shape)}"
            )
        if not (scale > 0 and bool((self.weights > 0).all())):
            raise ValueError(f"expected scale > 0 and weights > 0, got {scale} and {self.weights.tolist()}")
        self.features = self.means.shape[1]

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x), in nats: `(*batch, features)` to `(*batch,)`."""
        self._check(x)
        means, log_weights = self.means.to(x), self.weights.log().to(x)
        square = ((x.unsqueeze(-2) - means) / self.scale).square().sum(-1)
        constant = self.features / 2 * math.log(2 * math.pi * self.scale**2)
        return (log_weights - 0.5 * square).logsumexp(-1) - constant

    def component(self, x: Tensor) -> Tensor:
        """The component whose mean is nearest to each point: `(*batch, features)` to `(*batch,)`."""
        self._check(x)
        return torch.cdist(x, self.means.to(x)).argmin(-1)

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        """`n` independent draws, shape `(n, features)`."""
        device = generator.device if generator is not None else None
        steps, means = self.weights.cumsum(0)[:-1].to(device), self.means.to(device)
        component = torch.searchsorted(steps, torch.rand(n, generator=generator, device=device, dtype=torch.float64))
        noise = torch.randn(n, self.features, generator=generator, device=device, dtype=torch.float64)
        return (means[component] + self.scale * noise).to(dtype or torch.get_default_dtype())


class Gaussians(NormalMixture, PlaneTarget):
    r"""The mixture $p(x) = \sum_k w_k N(x; m_k, s^2 I)$ of the plane; by default two, with as much mass each.

    Args:
        means: $m_k$, shape `(components, 2)`.
        weights: $w_k$, positive; they are normalised. By default equal.
        scale: $s$, the standard deviation of each component.

    Raises:
        ValueError: the shapes do not fit, or a weight or the scale is not positive.

    By default the entropy is 3.485473 nats.

    Example:
        >>> target = Gaussians()
        >>> round(target.entropy(), 6)
        3.485473
        >>> target.sample(1000).shape
        torch.Size([1000, 2])
    """

    def __init__(
        self,
        means: Sequence[Sequence[float]] = ((1.0, 1.0), (-2.0, -2.0)),
        weights: Sequence[float] | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__(means, weights, scale)
        if self.features != 2:
            raise ValueError(f"expected means of the plane, (components, 2), got {tuple(self.means.shape)}")
        (x0, y0), (x1, y1) = (self.means.amin(0) - 7 * scale).tolist(), (self.means.amax(0) + 7 * scale).tolist()
        self.window: Window = ((x0, x1), (y0, y1))
        self.step = scale / 3

    @classmethod
    def circle(cls, components: int = 8, radius: float = 4.0, scale: float = 0.5) -> Gaussians:
        """Gaussians of equal weight whose means are spread evenly over a circle.

        Example:
            >>> round(Gaussians.circle().entropy(), 6), round(Gaussians.circle(8, 2.0, 0.2).entropy(), 6)
            (3.524726, 1.698061)
        """
        angles = [2 * math.pi * k / components for k in range(components)]
        return cls([[radius * math.cos(a), radius * math.sin(a)] for a in angles], scale=scale)
