"""Numerical methods that the layers share."""

from pushforward.numerics.root_finding import InversionWarning, solve_increasing, solve_rows, solve_system
from pushforward.numerics.series import log_det_series
from pushforward.numerics.shapes import broadcast_batch, concatenate, floating, sum_rightmost

__all__ = [
    "InversionWarning",
    "broadcast_batch",
    "concatenate",
    "floating",
    "log_det_series",
    "solve_increasing",
    "solve_rows",
    "solve_system",
    "sum_rightmost",
]
