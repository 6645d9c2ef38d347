"""Numerical methods that the layers share."""

from pushforward.numerics.autograd import is_traced, pull_back, pull_back_with_graph
from pushforward.numerics.elementary import expm1_ratio, log1p_ratio, positive
from pushforward.numerics.linear import (
    cayley,
    multiply,
    orthonormal,
    reflections,
    rotation_exponential,
    solve_triangular,
)
from pushforward.numerics.normal import log_ndtr, log_ndtri
from pushforward.numerics.ode import SolverError, solve_ode
from pushforward.numerics.quadrature import gauss_legendre
from pushforward.numerics.root_finding import InversionWarning, solve_increasing, solve_rows, solve_system
from pushforward.numerics.series import log_det_series
from pushforward.numerics.shapes import (
    broadcast_batch,
    check_context,
    check_count,
    check_event,
    check_sizes,
    concatenate,
    floating,
    sum_rightmost,
    unaliased,
)
from pushforward.numerics.trace import exact_trace, hutchinson_trace, probe

__all__ = [
    "InversionWarning",
    "SolverError",
    "broadcast_batch",
    "cayley",
    "check_context",
    "check_count",
    "check_event",
    "check_sizes",
    "concatenate",
    "exact_trace",
    "expm1_ratio",
    "floating",
    "gauss_legendre",
    "hutchinson_trace",
    "is_traced",
    "log1p_ratio",
    "log_det_series",
    "log_ndtr",
    "log_ndtri",
    "multiply",
    "orthonormal",
    "positive",
    "probe",
    "pull_back",
    "pull_back_with_graph",
    "reflections",
    "rotation_exponential",
    "solve_increasing",
    "solve_ode",
    "solve_rows",
    "solve_system",
    "solve_triangular",
    "sum_rightmost",
    "unaliased",
]
