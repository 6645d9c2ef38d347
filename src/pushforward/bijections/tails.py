"""A fixed map that makes tails heavy."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bijections.base import Bijection
from pushforward.numerics import expm1_ratio, floating, log1p_ratio


class StudentTail(Bijection):
    r"""$x_i = \mathrm{sign}(z_i) \sqrt{\nu_i (e^{z_i^2 / \nu_i} - 1)}$: a standard normal z gets the tails of a
    Student-t of $\nu_i$ degrees of freedom, and nearly its body.

    The slope at 0 is 1; x overflows where $z^2 / \nu$ reaches 700 (88 in float32). Learnable tails are those of the
    transformer `TailTransform`.

    Args:
        df: $\nu$, positive, shape `(features,)`; infinite leaves the coordinate as it is.

    Example:
        >>> StudentTail([3.0, torch.inf])(torch.tensor([4.0, 4.0]))[0]
        tensor([24.8673,  4.0000])
    """

    df: Tensor

    def __init__(self, df: Tensor | Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("df", floating(df))
        if self.df.dim() != 1 or not bool((self.df > 0).all()):
            raise ValueError(f"StudentTail: expected positive df of shape (features,), got {self.df}")
        self.event_shape = (len(self.df),)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        t, heavy = self._scaled(z)
        ratio = expm1_ratio(t)
        return torch.where(heavy, z * ratio.sqrt(), z), torch.where(heavy, t - 0.5 * ratio.log(), 0.0).sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v, heavy = self._scaled(x)
        ratio, t = log1p_ratio(v), torch.log1p(v)
        log_slope = 0.5 * expm1_ratio(t).log() - t
        return torch.where(heavy, x * ratio.sqrt(), x), torch.where(heavy, log_slope, 0.0).sum(-1)

    def _scaled(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The square over nu, and where nu is finite."""
        heavy = self.df.isfinite()
        return torch.where(heavy, value.square() / self.df, 1.0), heavy.expand(value.shape)
