"""The uniform base."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bases.base import Base
from pushforward.numerics import floating


class Uniform(Base):
    """z uniform on the box [lower_1, upper_1] x ... x [lower_d, upper_d].

    Args:
        lower: shape `(features,)`.
        upper: shape `(features,)`, above `lower`.

    Example:
        >>> base = Uniform([0.0, 0.0], [2.0, 4.0])
        >>> base.log_prob(torch.tensor([[1.0, 1.0], [3.0, 1.0]]))
        tensor([-2.0794,    -inf])
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, lower: Tensor | Sequence[float], upper: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("lower", floating(lower))
        self.register_buffer("upper", floating(upper))
        if self.lower.dim() != 1 or self.lower.shape != self.upper.shape:
            raise ValueError(
                "Uniform: expected lower and upper of one shape (features,), "
                f"got {tuple(self.lower.shape)} and {tuple(self.upper.shape)}"
            )
        if not bool(((self.lower < self.upper) & (self.upper - self.lower).isfinite()).all()):
            raise ValueError(f"Uniform: expected finite lower < upper, got {self.lower} and {self.upper}")
        self.event_shape = (len(self.lower),)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        inside = ((z >= self.lower) & (z <= self.upper)).all(-1)
        return torch.where(inside, -(self.upper - self.lower).log().sum(), -torch.inf)

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        u = torch.rand(self._shape(sample_shape, context), dtype=self.lower.dtype, device=self.lower.device)
        return self.lower + (self.upper - self.lower) * u
