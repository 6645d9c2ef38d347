"""Invertible maps between events, each in both directions with its log-determinant."""

from pushforward.bijections.autoregressive import MaskedAutoregressive
from pushforward.bijections.base import Bijection
from pushforward.bijections.block_autoregressive import BlockAutoregressive
from pushforward.bijections.causal import TransformerAutoregressive
from pushforward.bijections.compose import Chain, Inverse
from pushforward.bijections.continuous import Continuous
from pushforward.bijections.convex_potential import ConvexPotential
from pushforward.bijections.coupling import Coupling
from pushforward.bijections.elementwise import Elementwise
from pushforward.bijections.fixed import Exp, GreaterThan, Interval, LessThan, Power, Sigmoid, Softplus, Tanh
from pushforward.bijections.image import (
    ImageCoupling,
    InvertibleConv,
    MultiScale,
    Pixelwise,
    Squeeze,
    channel_mask,
    checkerboard_mask,
)
from pushforward.bijections.linear import LU, QR, MatrixExponential, Permutation, Triangular
from pushforward.bijections.normalization import ActNorm, BatchNorm, Standardize
from pushforward.bijections.orthogonal import Householder, Orthogonal
from pushforward.bijections.parts import Concatenate, Flattened, Independent, Stack
from pushforward.bijections.planar import Planar, Radial
from pushforward.bijections.residual import Residual
from pushforward.bijections.supports import Cholesky, CorrCholesky, Ordered, PositiveDefinite, Simplex, biject_to
from pushforward.bijections.sylvester import Sylvester
from pushforward.bijections.tails import StudentTail
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
    "Cholesky",
    "Concatenate",
    "Continuous",
    "ConvexPotential",
    "CorrCholesky",
    "Coupling",
    "Elementwise",
    "Exp",
    "Flattened",
    "FromTorch",
    "GreaterThan",
    "Householder",
    "ImageCoupling",
    "Independent",
    "Interval",
    "Inverse",
    "InvertibleConv",
    "LessThan",
    "MaskedAutoregressive",
    "MatrixExponential",
    "MultiScale",
    "Ordered",
    "Orthogonal",
    "Permutation",
    "Pixelwise",
    "Planar",
    "PositiveDefinite",
    "Power",
    "Radial",
    "Residual",
    "Sigmoid",
    "Simplex",
    "Softplus",
    "Squeeze",
    "Stack",
    "Standardize",
    "StudentTail",
    "Sylvester",
    "Tanh",
    "TransformerAutoregressive",
    "Triangular",
    "biject_to",
    "channel_mask",
    "checkerboard_mask",
]
