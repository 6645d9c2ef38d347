"""Intervals onto the real line, so that what has a density at a finite bound gets the tail of a normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.numerics.normal import LOG_2PI


def to_line(y: Tensor, low: float, high: float, edge: float = 0.0, linear: bool = False) -> tuple[Tensor, Tensor]:
    """The place of y on the real line, increasing in y, and the logarithm of its slope.

    A number without bounds is its own place. Between two bounds it is the normal quantile of the way from one to the
    other. Beyond one bound, at a distance r, it is L = log(r / edge), or r / edge - 1 if linear, and within `edge` of
    the bound 1 - sqrt(1 - 2 L).

    Args:
        y: float64; the answer is finite but means nothing where y is not between the bounds.
        low: -inf for no lower bound.
        high: inf for no upper bound.
        edge: width at a single bound; by default the place is log r throughout.
        linear: see above.
    """
    inside = (y > low) & (y < high)
    if low == -math.inf and high == math.inf:
        return y, torch.zeros_like(y)
    if low > -math.inf and high < math.inf:
        width = high - low
        above, below = (torch.where(inside, d, 0.5 * width) / width for d in (y - low, high - y))
        quantile = torch.special.ndtri(torch.minimum(above, below))
        return torch.where(above < below, quantile, -quantile), 0.5 * (quantile.square() + LOG_2PI) - math.log(width)
    unit = edge or 1.0
    r = torch.where(inside, y - low if low > -math.inf else high - y, unit)
    t = (r / unit).log()
    log_slope = -r.log()
    if edge:
        root = (1 - 2 * t.clamp_max(0.0)).sqrt()
        far = t > 0
        log_slope = torch.where(far, -math.log(unit) if linear else log_slope, log_slope - root.log())
        t = torch.where(far, r / unit - 1 if linear else t, 1 - root)
    return t if low > -math.inf else -t, log_slope


def from_line(t: Tensor, low: float, high: float, edge: float = 0.0, linear: bool = False) -> Tensor:
    """The number at a place of the real line, within rounding of its bounds."""
    if low == -math.inf and high == math.inf:
        return t
    if low > -math.inf and high < math.inf:
        part = (high - low) * torch.special.ndtr(-t.abs())
        return torch.where(t < 0, low + part, high - part)
    t = t if low > -math.inf else -t
    if edge:
        near = (t - 0.5 * t.square()).exp()
        r = edge * torch.where(t > 0, 1 + t if linear else t.exp(), near)
    else:
        r = t.exp()
    return low + r if low > -math.inf else high - r
