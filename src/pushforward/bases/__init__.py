"""Base distributions: where z comes from."""

from pushforward.bases.base import Base
from pushforward.bases.located import LocatedMixture, MarginalMixtures
from pushforward.bases.mixture import GaussianMixture
from pushforward.bases.normal import DiagonalNormal, StandardNormal
from pushforward.bases.student import StudentT
from pushforward.bases.uniform import Uniform

__all__ = [
    "Base",
    "DiagonalNormal",
    "GaussianMixture",
    "LocatedMixture",
    "MarginalMixtures",
    "StandardNormal",
    "StudentT",
    "Uniform",
]
