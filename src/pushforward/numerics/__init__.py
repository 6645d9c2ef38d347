"""Numerical methods that the layers share."""

from pushforward.numerics.ode import SolverError, solve_ode
from pushforward.numerics.root_finding import InversionWarning, solve_increasing
from pushforward.numerics.shapes import broadcast_batch, concatenate, floating, sum_rightmost
from pushforward.numerics.trace import exact_trace, hutchinson_trace, probe

__all__ = [
    "InversionWarning",
    "SolverError",
    "broadcast_batch",
    "concatenate",
    "exact_trace",
    "floating",
    "hutchinson_trace",
    "probe",
    "solve_increasing",
    "solve_ode",
    "sum_rightmost",
]
