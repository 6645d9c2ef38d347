"""Scalar monotone maps, for any of the structures `Elementwise`, `Coupling` and `MaskedAutoregressive`."""

from pushforward.transformers.affine import Additive, Affine
from pushforward.transformers.base import InverseTransformer, Transformer
from pushforward.transformers.rational_quadratic import RationalQuadratic

__all__ = ["Additive", "Affine", "InverseTransformer", "RationalQuadratic", "Transformer"]
