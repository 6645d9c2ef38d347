"""Invertible maps between events, each in both directions with its log-determinant."""

from pushforward.bijections.autoregressive import MaskedAutoregressive
from pushforward.bijections.base import Bijection
from pushforward.bijections.compose import Chain, Inverse
from pushforward.bijections.continuous import Continuous
from pushforward.bijections.coupling import Coupling
from pushforward.bijections.elementwise import Elementwise
from pushforward.bijections.linear import LU, Permutation
from pushforward.bijections.normalization import ActNorm, Standardize
from pushforward.bijections.planar import Planar
from pushforward.bijections.torch_adapter import BijectionTransform, FromTorch

__all__ = [
    "LU",
    "ActNorm",
    "Bijection",
    "BijectionTransform",
    "Chain",
    "Continuous",
    "Coupling",
    "Elementwise",
    "FromTorch",
    "Inverse",
    "MaskedAutoregressive",
    "Permutation",
    "Planar",
    "Standardize",
]
