"""Quadrature on [0, 1]."""

import numpy as np


def gauss_legendre(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on [0, 1], exact for polynomials up to degree 2 count - 1.

    Plain numbers, so that a module that keeps them loses no digits when its dtype is changed.

    Example:
        >>> nodes, weights = gauss_legendre(2)
        >>> round(sum(w * t**3 for t, w in zip(nodes, weights)), 12)
        0.25
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return tuple((0.5 * (nodes + 1)).tolist()), tuple((0.5 * weights).tolist())
