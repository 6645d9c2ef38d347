"""The Student-t base."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.bases.base import Base
from pushforward.nn import Parameters
from pushforward.numerics import check_sizes


class StudentT(Base):
    """Independent z_i = loc_i + scale_i t_i with t_i Student-t of df_i degrees of freedom, all learnable.

    Args:
        features: size of z.
        df: the degrees of freedom at the start.
        context_features: size of the context.
        hidden_features: widths of the network that makes df, loc and scale from the context.

    Reference:
        Alexanderson and Henter, Robust model training and generalisation with Studentising flows, 2020,
        arXiv 2006.06599.

    Example:
        >>> round(StudentT(1, df=1.0).log_prob(torch.zeros(1)).item(), 4)  # Cauchy: -log(pi)
        -1.1447
    """

    def __init__(
        self,
        features: int,
        df: float = 5.0,
        *,
        context_features: int = 0,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        check_sizes("StudentT", features, context_features, hidden_features)
        if not df > 0:
            raise ValueError(f"StudentT: expected df > 0, got {df}")
        self.features = features
        self.df = df
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)
        start = [torch.full((features,), math.log(df)), torch.zeros(features), torch.zeros(features)]
        self.params = Parameters(start, context_features, hidden_features)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        log_df, loc, log_scale = self.params(context)
        df = log_df.exp()
        t = (z - loc) * (-log_scale).exp()
        log_normalizer = 0.5 * (log_df + math.log(math.pi)) - _lgamma_half_step(0.5 * df)
        log_prob: Tensor = -0.5 * (df + 1) * torch.log1p(t.square() / df) - log_normalizer - log_scale
        return log_prob.sum(-1)

    def sample(self, sample_shape: tuple[int, ...] = (), context: Tensor | None = None) -> Tensor:
        log_df, loc, log_scale = self.params(context)
        half_df = (0.5 * log_df.exp()).expand(self._shape(sample_shape, context))
        noise = torch.randn_like(half_df)
        # A chi-squared variable over its degrees of freedom; its gradient in df is torch's implicit one.
        ratio = torch._standard_gamma(half_df).clamp_min(torch.finfo(half_df.dtype).tiny) / half_df
        z: Tensor = loc + log_scale.exp() * noise * ratio.rsqrt()
        return z


def _lgamma_half_step(a: Tensor) -> Tensor:
    """lgamma(a + 1/2) - lgamma(a); for large a, where the difference cancels, by its asymptotic series."""
    large = a > 100
    small = torch.where(large, 1.0, a)
    big = torch.where(large, a, 100.0)
    series = 0.5 * big.log() - 1 / (8 * big) + 1 / (192 * big**3) - 1 / (640 * big**5)
    return torch.where(large, series, torch.lgamma(small + 0.5) - torch.lgamma(small))
