"""What `import pushforward as pf` offers, in one list."""

from pushforward.bases import Base, DiagonalNormal, GaussianMixture, StandardNormal, StudentT, Uniform
from pushforward.bijections import (
    LU,
    ActNorm,
    Bijection,
    BijectionTransform,
    Chain,
    Continuous,
    Coupling,
    Elementwise,
    FromTorch,
    Inverse,
    MaskedAutoregressive,
    Permutation,
    Planar,
    Standardize,
)
from pushforward.distribution import FlowDistribution
from pushforward.flow import Flow
from pushforward.io import load, load_info, register, save
from pushforward.nn import MLP, MaskedMLP, Parameters, Separate, Velocity
from pushforward.numerics import InversionWarning
from pushforward.objectives import FlowMatching, MaximumLikelihood, Objective, ReverseKL
from pushforward.recipes import cnf, ffjord, iaf, maf, nice, nsf, planar, real_nvp
from pushforward.training import TrainResult, cosine, exponential, train
from pushforward.transformers import Additive, Affine, InverseTransformer, RationalQuadratic, Transformer

__all__ = [
    "LU",
    "MLP",
    "ActNorm",
    "Additive",
    "Affine",
    "Base",
    "Bijection",
    "BijectionTransform",
    "Chain",
    "Continuous",
    "Coupling",
    "DiagonalNormal",
    "Elementwise",
    "Flow",
    "FlowDistribution",
    "FlowMatching",
    "FromTorch",
    "GaussianMixture",
    "Inverse",
    "InverseTransformer",
    "InversionWarning",
    "MaskedAutoregressive",
    "MaskedMLP",
    "MaximumLikelihood",
    "Objective",
    "Parameters",
    "Permutation",
    "Planar",
    "RationalQuadratic",
    "ReverseKL",
    "Separate",
    "StandardNormal",
    "Standardize",
    "StudentT",
    "TrainResult",
    "Transformer",
    "Uniform",
    "Velocity",
    "cnf",
    "cosine",
    "exponential",
    "ffjord",
    "iaf",
    "load",
    "load_info",
    "maf",
    "nice",
    "nsf",
    "planar",
    "real_nvp",
    "register",
    "save",
    "train",
]
