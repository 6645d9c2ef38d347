"""Scalar monotone maps, for any of the structures `Elementwise`, `Coupling` and `MaskedAutoregressive`."""

from pushforward.transformers.affine import Additive, Affine
from pushforward.transformers.base import InverseTransformer, NumericalTransformer, Transformer
from pushforward.transformers.circular import CircularShift, Moebius
from pushforward.transformers.gaussianization import Gaussianization
from pushforward.transformers.integral import UnconstrainedMonotone
from pushforward.transformers.polynomial import Bernstein, SumOfSquares
from pushforward.transformers.rational_quadratic import RationalQuadratic
from pushforward.transformers.sigmoidal import DeepSigmoidal, LogisticMixture
from pushforward.transformers.splines import CubicSpline, LinearSpline, QuadraticSpline
from pushforward.transformers.tails import TailTransform

__all__ = [
    "Additive",
    "Affine",
    "Bernstein",
    "CircularShift",
    "CubicSpline",
    "DeepSigmoidal",
    "Gaussianization",
    "InverseTransformer",
    "LinearSpline",
    "LogisticMixture",
    "Moebius",
    "NumericalTransformer",
    "QuadraticSpline",
    "RationalQuadratic",
    "SumOfSquares",
    "TailTransform",
    "Transformer",
    "UnconstrainedMonotone",
]
