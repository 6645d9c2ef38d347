"""Scalar functions that several layers share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_SHIFT = math.log(math.expm1(1.0))


def positive(raw: Tensor) -> Tensor:
    """A smooth map of the line onto the positive numbers: softplus, shifted so that 0 gives 1."""
    return F.softplus(raw + _SHIFT)


def expm1_ratio(u: Tensor) -> Tensor:
    """expm1(u) / u, by its series near 0."""
    small = u.abs() < 0.03
    safe = torch.where(small, 1.0, u)
    series = torch.where(small, u, 0)
    total = torch.ones_like(u)
    for k in range(9, 1, -1):
        total = 1 + series / k * total
    return torch.where(small, total, torch.expm1(safe) / safe)


def log1p_ratio(u: Tensor) -> Tensor:
    """log1p(u) / u for u >= 0, by a series in v = u / (2 + u) near 0."""
    small = u.abs() < 0.03
    safe = torch.where(small, 1.0, u)
    series = torch.where(small, u, 0)
    v = (series / (2 + series)).square()
    total = 1 / (2 + series) * 2 * (1 + v * (1 / 3 + v * (1 / 5 + v * (1 / 7 + v / 9))))
    return torch.where(small, total, torch.log1p(safe) / safe)
