"""Numerical methods that the layers share."""

from pushforward.numerics.root_finding import InversionWarning, solve_increasing
from pushforward.numerics.shapes import broadcast_batch, concatenate, floating, sum_rightmost

__all__ = ["InversionWarning", "broadcast_batch", "concatenate", "floating", "solve_increasing", "sum_rightmost"]
