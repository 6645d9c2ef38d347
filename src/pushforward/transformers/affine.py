"""Shifts and scales."""

import torch
from torch import Tensor

from pushforward._native import KernelMap, affine_kernel, with_kernel
from pushforward.transformers.base import Transformer


class Additive(Transformer):
    """x = z + h, of unit slope.

    Reference:
        Dinh et al., NICE: Non-linear Independent Components Estimation, 2014, arXiv 1410.8516.

    Example:
        >>> Additive()(torch.tensor(1.0), torch.tensor([2.0]))
        (tensor(3.), tensor(0.))
    """

    num_params = 1

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x = z + h[..., 0]
        return x, torch.zeros_like(x)

    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z = x - h[..., 0]
        return z, torch.zeros_like(z)


class Affine(Transformer):
    """x = z exp(s) + t with h = (r, t) and the softly clamped log-scale s = c tanh(r / c).

    Args:
        log_scale_bound: c; the scale stays between exp(-c) and exp(c).

    Reference:
        Dinh et al., Density estimation using Real NVP, 2016, arXiv 1605.08803.

    Example:
        >>> x, log_slope = Affine()(torch.tensor(1.0), torch.tensor([0.0, 2.0]))
        >>> x, log_slope
        (tensor(3.), tensor(0.))
    """

    num_params = 2

    def __init__(self, log_scale_bound: float = 5.0) -> None:
        super().__init__()
        if not log_scale_bound > 0:
            raise ValueError(f"Affine: expected log_scale_bound > 0, got {log_scale_bound}")
        self.log_scale_bound = log_scale_bound

    def kernel(self, inverse: bool) -> KernelMap | None:
        return affine_kernel(self.log_scale_bound, inverse) if type(self) is Affine else None

    @with_kernel
    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        r, t = h.unbind(-1)
        s = soft_clamp(r, self.log_scale_bound)
        x = torch.addcmul(t, z, s.exp())
        return x, _like(s, x)

    @with_kernel
    def inverse(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        r, t = h.unbind(-1)
        minus_s = -soft_clamp(r, self.log_scale_bound)
        z = (x - t) * minus_s.exp()
        return z, _like(minus_s, z)


def _like(value: Tensor, other: Tensor) -> Tensor:
    return value if value.shape == other.shape else value.expand_as(other)


def soft_clamp(value: Tensor, bound: float) -> Tensor:
    """The value, smoothly kept between -bound and bound."""
    return bound * torch.tanh(value / bound)
