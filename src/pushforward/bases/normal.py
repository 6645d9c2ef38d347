"""Normal bases."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bases.base import Base
from pushforward.nn import Parameters
from pushforward.numerics import check_count, check_sizes, sum_rightmost

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class StandardNormal(Base):
    """z ~ N(0, I).

    Args:
        event_shape: shape of z; a number n means `(n,)`.

    Example:
        >>> round(StandardNormal(2).log_prob(torch.zeros(2)).item(), 4)
        -1.8379
    """

    zero: Tensor

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.event_shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        for size in self.event_shape:
            check_count("StandardNormal", "every size of event_shape", size)
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        squares = sum_rightmost(z.square(), len(self.event_shape))
        return torch.rsub(squares, -LOG_SQRT_2PI * math.prod(self.event_shape), alpha=0.5)

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        return torch.randn(self._shape(sample_shape, context), dtype=self.zero.dtype, device=self.zero.device)


class DiagonalNormal(Base):
    """z_i ~ N(loc_i, exp(log_scale_i)^2), with learnable constants or functions of the context.

    Args:
        features: size of z.
        context_features: size of the context.
        hidden_features: widths of the network that makes loc and log_scale from the context.

    Example:
        >>> DiagonalNormal(2, context_features=3).sample((5,), torch.zeros(7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(self, features: int, *, context_features: int = 0, hidden_features: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        check_sizes("DiagonalNormal", features, context_features, hidden_features)
        self.features = features
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        self.params = Parameters([torch.zeros(features), torch.zeros(features)], context_features, hidden_features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        loc, log_scale = self.params(context)
        standard = (z - loc) * (-log_scale).exp()
        log_prob: Tensor = -0.5 * standard.square() - log_scale - LOG_SQRT_2PI
        return log_prob.sum(-1)

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        loc, log_scale = self.params(context)
        noise = torch.randn(self._shape(sample_shape, context), dtype=loc.dtype, device=loc.device)
        z: Tensor = loc + log_scale.exp() * noise
        return z
