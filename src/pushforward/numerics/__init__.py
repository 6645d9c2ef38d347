"""Numerical methods that the layers share."""

from pushforward.numerics.normal import log_ndtr, log_ndtri
from pushforward.numerics.quadrature import gauss_legendre
from pushforward.numerics.root_finding import InversionWarning, solve_increasing
from pushforward.numerics.shapes import broadcast_batch, concatenate, floating, sum_rightmost

__all__ = [
    "InversionWarning",
    "broadcast_batch",
    "concatenate",
    "floating",
    "gauss_legendre",
    "log_ndtr",
    "log_ndtri",
    "solve_increasing",
    "sum_rightmost",
]
