"""A ring with lobes: several modes joined by thin bridges."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pushforward.targets.base import PlaneTarget, Window


class LobedRing(PlaneTarget):
    r"""A ring of radius $r$ that is heavy near the lines $z_1 = \pm m$: $\tilde p(z) = e^{-u(z)}$ with

    $$u(z) = \tfrac12 \Big(\frac{\|z\| - r}{w}\Big)^2
    - \log\Big(e^{-\frac12 ((z_1 - m)/s)^2} + e^{-\frac12 ((z_1 + m)/s)^2}\Big).$$

    By default the lines cut the ring: four modes near $(\pm 2, \pm 3.5)$, a quarter of the mass each. With
    `LobedRing(radius=2, spread=0.6)` they touch it: the two modes of the potential $U_1$ of Rezende and Mohamed,
    "Variational Inference with Normalizing Flows" (2015), arXiv 1505.05770.

    Args:
        radius: $r$.
        width: $w$, the standard deviation of the norm about $r$.
        offset: $m$, the distance of the two lines from the centre.
        spread: $s$, the standard deviation of $z_1$ about the lines.

    Raises:
        ValueError: an argument is not positive.

    By default $\log Z = 2.313289$ nats and $E\|z\| = 3.976945$; for $U_1$, $\log Z = 1.877502$.

    Example:
        >>> ring = LobedRing()
        >>> round(ring.log_normalizer, 6)
        2.313289
        >>> ring.log_density(torch.tensor([2.0, 12**0.5])).round(decimals=4)
        tensor(0.)
    """

    def __init__(self, radius: float = 4.0, width: float = 0.4, *, offset: float = 2.0, spread: float = 0.8) -> None:
        for name, value in {"radius": radius, "width": width, "offset": offset, "spread": spread}.items():
            if not value > 0:
                raise ValueError(f"expected {name} > 0, got {value}")
        self.radius, self.width, self.offset, self.spread = radius, width, offset, spread
        side = radius + 6 * width
        self.window: Window = ((-side, side), (-side, side))
        self.step = min(width, spread) / 3
        self.log_normalizer = math.log(self._integral(lambda z: self.log_density(z).exp()))

    def log_density(self, x: Tensor) -> Tensor:
        """$-u(x)$, in nats: `(*batch, 2)` to `(*batch,)`."""
        self._check(x)
        return self._log_lines(x) - 0.5 * ((norm(x) - self.radius) / self.width).square()

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        device = generator.device if generator is not None else None
        kept = torch.empty(0, 2, dtype=torch.float64, device=device)
        while len(kept) < n:
            kept = torch.cat([kept, self._propose(4 * n + 64, generator)])
        return kept[:n].to(dtype or torch.get_default_dtype())

    def _propose(self, n: int, generator: torch.Generator | None) -> Tensor:
        """What rejection leaves of `n` proposals, whose norm is normal and whose angle is uniform."""
        device = generator.device if generator is not None else None
        angle, height = torch.rand(2, n, generator=generator, device=device, dtype=torch.float64)
        normal = torch.randn(n, generator=generator, device=device, dtype=torch.float64)
        norm = self.radius + self.width * normal
        z = norm[:, None] * torch.stack([(2 * math.pi * angle).cos(), (2 * math.pi * angle).sin()], dim=-1)
        highest = self.radius + 8 * self.width
        lines_bound = 1 + math.exp(-0.5 * (self.offset / self.spread) ** 2)
        ratio = norm * self._log_lines(z).exp() / (highest * lines_bound)
        return z[(height < ratio) & (norm < highest)]

    def _log_lines(self, z: Tensor) -> Tensor:
        """The log of the sum of both bells, as one bell and a sigmoid: its second derivatives are finite far out."""
        bell = -0.5 * ((z[..., 0] - self.offset) / self.spread).square()
        return bell - logsigmoid(2 * self.offset / self.spread**2 * z[..., 0])


def norm(z: Tensor) -> Tensor:
    """The Euclidean norm of the last dimension, with gradient zero at the origin."""
    square = z.square().sum(-1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
