"""Invertible maps between events, each in both directions with its log-determinant."""

from pushforward.bijections.autoregressive import MaskedAutoregressive
from pushforward.bijections.base import Bijection
from pushforward.bijections.compose import Chain, Inverse
from pushforward.bijections.coupling import Coupling
from pushforward.bijections.elementwise import Elementwise
from pushforward.bijections.fixed import Exp, GreaterThan, Interval, LessThan, Power, Sigmoid, Softplus, Tanh
from pushforward.bijections.linear import LU, Permutation
from pushforward.bijections.normalization import ActNorm, Standardize
from pushforward.bijections.parts import Concatenate, Independent, Stack
from pushforward.bijections.planar import Planar
from pushforward.bijections.supports import Cholesky, CorrCholesky, Ordered, PositiveDefinite, Simplex, biject_to
from pushforward.bijections.torch_adapter import BijectionTransform, FromTorch

__all__ = [
    "LU",
    "ActNorm",
    "Bijection",
    "BijectionTransform",
    "Chain",
    "Cholesky",
    "Concatenate",
    "CorrCholesky",
    "Coupling",
    "Elementwise",
    "Exp",
    "FromTorch",
    "GreaterThan",
    "Independent",
    "Interval",
    "Inverse",
    "LessThan",
    "MaskedAutoregressive",
    "Ordered",
    "Permutation",
    "Planar",
    "PositiveDefinite",
    "Power",
    "Sigmoid",
    "Simplex",
    "Softplus",
    "Stack",
    "Standardize",
    "Tanh",
    "biject_to",
]
