"""Numerical methods that the layers share."""

from pushforward.numerics.elementary import positive
from pushforward.numerics.linear import (
    cayley,
    multiply,
    orthonormal,
    reflections,
    rotation_exponential,
    solve_triangular,
)
from pushforward.numerics.normal import log_ndtr, log_ndtri
from pushforward.numerics.quadrature import gauss_legendre
from pushforward.numerics.root_finding import InversionWarning, solve_increasing, solve_rows, solve_system
from pushforward.numerics.series import log_det_series
from pushforward.numerics.shapes import broadcast_batch, concatenate, floating, sum_rightmost

__all__ = [
    "InversionWarning",
    "broadcast_batch",
    "cayley",
    "concatenate",
    "floating",
    "gauss_legendre",
    "log_det_series",
    "log_ndtr",
    "log_ndtri",
    "multiply",
    "orthonormal",
    "positive",
    "reflections",
    "rotation_exponential",
    "solve_increasing",
    "solve_rows",
    "solve_system",
    "solve_triangular",
    "sum_rightmost",
]
