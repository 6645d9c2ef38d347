"""Tail probabilities that the tests of this package share."""

import math

import torch
from torch import Tensor

TERMS = 8  # of the series: on their sides of 1 the first one left out is below 1e-60


def ks_p_value(u: Tensor) -> Tensor:
    r"""The Kolmogorov-Smirnov test of uniformity on (0, 1), for each column: $P(D_n \ge d)$.

    With $t = \sqrt n d + \frac1{6 \sqrt n} + \frac{\sqrt n d - 1}{4 n}$, p is $2 \sum_k (-1)^{k-1} e^{-2 k^2 t^2}$, or
    the same by its dual series where t is small.

    Args:
        u: values of a distribution function, shape `(n, *columns)`, n >= 5.

    Returns:
        shape `(*columns,)`, float64: off by less than 0.003 for n >= 10, and less than 0.0003 for n >= 100; where it
        is smaller than that, it is too large rather than too small.

    Raises:
        ValueError: fewer than 5 rows, or values outside [0, 1].

    Reference:
        Vrbik, Small-sample corrections to Kolmogorov-Smirnov test statistic, 2018.

    Example:
        >>> ks_p_value((torch.arange(10) / 10).square()).round(decimals=3)
        tensor(0.1340, dtype=torch.float64)
    """
    u = u.detach().double().cpu()
    if u.dim() < 1 or len(u) < 5:
        raise ValueError(f"expected u of shape (n, *columns) with n >= 5, got {tuple(u.shape)}")
    if not bool(((u >= 0) & (u <= 1)).all()):
        raise ValueError("expected values in [0, 1], got values outside or NaN")
    n = len(u)
    steps = torch.arange(n + 1, dtype=u.dtype).view(-1, *[1] * (u.dim() - 1)) / n
    ordered = u.sort(0).values
    distance = torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).amax(0)
    scaled = math.sqrt(n) * distance
    return _kolmogorov(scaled + 1 / (6 * math.sqrt(n)) + (scaled - 1) / (4 * n))


def _kolmogorov(t: Tensor) -> Tensor:
    """The chance that the supremum of a Brownian bridge is above t > 0."""
    k = torch.arange(1, TERMS + 1, dtype=t.dtype).view(-1, *[1] * t.dim())
    right = t.clamp_min(1.0)
    left = t.clamp(1e-3, 1.0)
    upper = 2 * ((-1) ** (k - 1) * (-2 * (k * right).square()).exp()).sum(0)
    lower = 1 - math.sqrt(2 * math.pi) / left * (-((2 * k - 1) * math.pi / left).square() / 8).exp().sum(0)
    return torch.where(t > 1, upper, lower)


def chi_square_p_value(x: Tensor, degrees: int) -> Tensor:
    r"""$P(\chi^2_k \ge x)$, of the shape of x.

    Example:
        >>> chi_square_p_value(torch.tensor([1.0, 3.84]), 1).round(decimals=3)
        tensor([0.3170, 0.0500])
    """
    upper: Tensor = torch.special.gammaincc(torch.full_like(x, degrees / 2), x / 2)
    return upper
