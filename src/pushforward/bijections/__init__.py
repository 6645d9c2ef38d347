"""Invertible maps between events, each in both directions with its log-determinant."""

from pushforward.bijections.autoregressive import MaskedAutoregressive
from pushforward.bijections.base import Bijection
from pushforward.bijections.block_autoregressive import BlockAutoregressive
from pushforward.bijections.compose import Chain, Inverse
from pushforward.bijections.coupling import Coupling
from pushforward.bijections.elementwise import Elementwise
from pushforward.bijections.linear import LU, QR, MatrixExponential, Permutation, Triangular
from pushforward.bijections.normalization import ActNorm, BatchNorm, Standardize
from pushforward.bijections.orthogonal import Householder, Orthogonal
from pushforward.bijections.planar import Planar, Radial
from pushforward.bijections.sylvester import Sylvester
from pushforward.bijections.torch_adapter import BijectionTransform, FromTorch

__all__ = [
    "LU",
    "QR",
    "ActNorm",
    "BatchNorm",
    "Bijection",
    "BijectionTransform",
    "BlockAutoregressive",
    "Chain",
    "Coupling",
    "Elementwise",
    "FromTorch",
    "Householder",
    "Inverse",
    "MaskedAutoregressive",
    "MatrixExponential",
    "Orthogonal",
    "Permutation",
    "Planar",
    "Radial",
    "Standardize",
    "Sylvester",
    "Triangular",
]
