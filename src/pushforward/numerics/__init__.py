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
from pushforward.numerics.root_finding import InversionWarning, solve_increasing
from pushforward.numerics.shapes import broadcast_batch, concatenate, floating, sum_rightmost

__all__ = [
    "InversionWarning",
    "broadcast_batch",
    "cayley",
    "concatenate",
    "floating",
    "multiply",
    "orthonormal",
    "positive",
    "reflections",
    "rotation_exponential",
    "solve_increasing",
    "solve_triangular",
    "sum_rightmost",
]
