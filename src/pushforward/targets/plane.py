"""Densities of the plane with sharp features, made to be learned from draws."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.targets.base import PlaneTarget, Target, Window
from pushforward.targets.ring import norm


class Rings(PlaneTarget):
    r"""Concentric rings, $\tilde p(x) = \sum_k w_k e^{-\frac12 ((\|x\| - r_k) / s)^2}$ in the plane.

    Args:
        radii: $r_k$.
        width: s.
        weights: $w_k$; by default $1 / r_k$, which gives each ring as much mass.

    Raises:
        ValueError: a radius, a weight or the width is not positive, or there is not one weight for each radius.

    By default the entropy is 3.135037 nats.

    Example:
        >>> round(Rings().entropy(), 6)
        3.135037
    """

    def __init__(
        self,
        radii: Sequence[float] = (1.0, 2.0, 3.0, 4.0),
        width: float = 0.1,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.radii = torch.as_tensor(radii, dtype=torch.float64)
        self.width = width
        self.weights = 1 / self.radii if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        if self.radii.dim() != 1 or not len(self.radii) or self.weights.shape != self.radii.shape:
            raise ValueError(f"expected radii and a weight for each, got {radii} and {weights}")
        if not (width > 0 and bool((self.radii > 0).all() & (self.weights > 0).all())):
            raise ValueError(f"expected positive radii, width and weights, got {radii}, {width} and {weights}")
        # the integral of 2 pi r exp(-((r - r_k) / s)^2 / 2) over r > 0
        t = self.radii / width
        bell = width**2 * (-0.5 * t.square()).exp()
        bulk = self.radii * width * math.sqrt(2 * math.pi) * 0.5 * torch.erfc(-t / math.sqrt(2))
        self.masses = self.weights * 2 * math.pi * (bell + bulk)
        self.log_normalizer = math.log(self.masses.sum())
        side = float(self.radii.max()) + 7 * width
        self.window: Window = ((-side, side), (-side, side))
        self.step = width / 3

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        square = ((norm(x).unsqueeze(-1) - self.radii.to(x)) / self.width).square()
        return (self.weights.log().to(x) - 0.5 * square).logsumexp(-1)

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        device = generator.device if generator is not None else None
        angle = 2 * math.pi * torch.rand(n, generator=generator, device=device, dtype=torch.float64)
        steps = (self.masses.cumsum(0) / self.masses.sum())[:-1].to(device)
        ring = torch.searchsorted(steps, torch.rand(n, generator=generator, device=device, dtype=torch.float64))
        radii = self.radii.to(device)[ring]
        found, missing = torch.zeros_like(angle), torch.ones_like(angle, dtype=torch.bool)
        while bool(missing.any()):  # normal proposals; the factor r is left to rejection
            height, proposal = _pair(n, generator, device)
            proposal = radii + self.width * proposal
            accepted = missing & (height * (radii + 8 * self.width) < proposal)
            found = torch.where(accepted, proposal, found)
            missing = missing & ~accepted
        x = found.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], dim=-1)
        return x.to(dtype or torch.get_default_dtype())


class Ring(Rings):
    r"""$\tilde p(x) = e^{-\frac12 ((\|x\| - r) / w)^2}$ in the plane.

    Args:
        radius: r.
        width: w.

    By default the entropy is 2.745990 nats.
    """

    def __init__(self, radius: float = 3.0, width: float = 0.2) -> None:
        super().__init__((radius,), width, (1.0,))
        self.radius = radius


class SineWave(PlaneTarget):
    r"""$x_0 \sim N(0, 1)$, $x_1 \sim N(\sin(f x_0), s^2)$.

    Args:
        frequency: f, radians.
        width: s.

    The entropy is $\log(2 \pi e s)$, by default 0.535292 nats.
    """

    def __init__(self, frequency: float = 4.0, width: float = 0.1) -> None:
        if not width > 0:
            raise ValueError(f"expected width > 0, got {width}")
        self.frequency, self.width = frequency, width
        self.window: Window = ((-7.0, 7.0), (-1 - 7 * width, 1 + 7 * width))
        self.step = width / 3 / max(abs(frequency), 1.0)

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        away = (x[..., 1] - (self.frequency * x[..., 0]).sin()) / self.width
        return -0.5 * (x[..., 0].square() + away.square()) - math.log(2 * math.pi * self.width)

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        device = generator.device if generator is not None else None
        x = torch.randn(n, 2, generator=generator, device=device, dtype=torch.float64)
        x[:, 1] = (self.frequency * x[:, 0]).sin() + self.width * x[:, 1]
        return x.to(dtype or torch.get_default_dtype())


class Checkerboard(Target):
    """Uniform on every other one of the sixteen squares, of side 2, that make up [-4, 4]^2.

    Example:
        >>> round(Checkerboard().entropy(), 6)
        3.465736
    """

    features = 2

    def log_density(self, x: Tensor) -> Tensor:
        self._check(x)
        column, row = (x / 2).floor().unbind(-1)
        covered = (x.abs() < 4).all(-1) & ((column + row) % 2 == 0)
        return torch.where(covered, torch.full_like(column, -math.log(32)), -math.inf)

    def entropy(self) -> float:
        """log 32: the squares have the area 32 together."""
        return math.log(32)

    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        """`n` independent draws, shape `(n, 2)`, on the device of the generator; arguments as in `PlaneTarget`."""
        device = generator.device if generator is not None else None
        square = torch.randint(8, (n,), generator=generator, device=device)
        column = square // 2
        row = 2 * (square % 2) + column % 2
        corner = 2 * torch.stack([column, row], dim=-1) - 4
        x = corner + 2 * torch.rand(n, 2, generator=generator, device=device, dtype=torch.float64)
        return x.to(dtype or torch.get_default_dtype())


def _pair(n: int, generator: torch.Generator | None, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Uniform and normal numbers, float64."""
    uniform = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
    return uniform, torch.randn(n, generator=generator, device=device, dtype=torch.float64)
