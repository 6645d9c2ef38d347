"""What a target is, and integrals over the plane."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

Window = tuple[tuple[float, float], tuple[float, float]]
BLOCK = 8192


class Target(ABC):
    r"""A density $p(x) = \tilde p(x) / Z$ on $\mathbb{R}^d$ whose normaliser $Z$ is known.

    A subclass sets the two attributes and defines `log_density`.

    Attributes:
        features: $d$, the number of coordinates.
        log_normalizer: $\log Z$, in nats; 0 where `log_density` is normalised.
    """

    features: int
    log_normalizer: float = 0.0

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        r"""The unnormalised $\log \tilde p(x)$, in nats: `(*batch, features)` to `(*batch,)`, in the dtype of `x`.

        Raises:
            ValueError: `x` does not end in `features`.
        """

    def log_prob(self, x: Tensor) -> Tensor:
        r"""The normalised $\log p(x) = \log \tilde p(x) - \log Z$, in nats: `(*batch, features)` to `(*batch,)`."""
        return self.log_density(x) - self.log_normalizer

    def _check(self, x: Tensor) -> None:
        if x.dim() == 0 or x.shape[-1] != self.features:
            raise ValueError(f"expected x with trailing shape ({self.features},), got {tuple(x.shape)}")


class PlaneTarget(Target):
    """A smooth density of the plane that can be drawn from, with integrals by the midpoint rule.

    A subclass defines `log_density`, `sample`, and the two attributes below. The rule converges exponentially for
    smooth densities that vanish at the border, so the integrals are exact up to the mass outside the window, some 1e-8.

    Attributes:
        window: `((x0, x1), (y0, y1))`, all of the plane but a negligible mass; also what to plot.
        step: spacing of the grid, a third of the smallest length scale of the density.
    """

    features = 2
    window: Window
    step: float

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        """`n` independent draws, shape `(n, 2)`, on the device of the generator.

        Args:
            n: number of draws.
            generator: source of the randomness; torch's own by default.
            dtype: of the result; torch's default dtype by default.
        """

    def expectation(self, function: Callable[[Tensor], Tensor]) -> float:
        r"""$E_p[f(x)] = \int f(x) p(x) \, dx$ by quadrature.

        Args:
            function: $f$, from `(m, 2)`, float64, to `(m,)`.

        Example:
            >>> from pushforward.targets import LobedRing
            >>> round(LobedRing().expectation(lambda x: x.norm(dim=-1)), 6)
            3.976945
        """
        return self._integral(lambda x: self.log_prob(x).exp() * function(x))

    def entropy(self) -> float:
        r"""The entropy $-E_p[\log p(x)]$ by quadrature, in nats: the least loss that a model of the density can have.

        Example:
            >>> from pushforward.targets import TwoMoons
            >>> round(TwoMoons().entropy(), 6)
            0.306867
        """
        return self._integral(lambda x: _entropy_density(self.log_prob(x)))

    @torch.no_grad()
    def _integral(self, function: Callable[[Tensor], Tensor]) -> float:
        sides = [torch.arange(low + self.step / 2, high, self.step, dtype=torch.float64) for low, high in self.window]
        points = torch.cartesian_prod(*sides)
        return self.step**2 * sum(function(block).sum().item() for block in points.split(BLOCK))


def _entropy_density(log_prob: Tensor) -> Tensor:
    """-p log p, with the limit 0 where p = 0."""
    p = log_prob.exp()
    return -torch.xlogy(p, p)
