"""Conditioners: the modules that make parameters."""

from pushforward.nn.causal import CausalTransformer
from pushforward.nn.conv import ConvNet
from pushforward.nn.convex import ConvexMLP
from pushforward.nn.lipschitz import LipschitzMLP
from pushforward.nn.masked import MaskedMLP
from pushforward.nn.mlp import MLP
from pushforward.nn.parameters import Parameters
from pushforward.nn.periodic import PeriodicMLP
from pushforward.nn.rescale import Rescale
from pushforward.nn.separate import Separate
from pushforward.nn.sequential import sequential_map
from pushforward.nn.velocity import Velocity

__all__ = [
    "MLP",
    "CausalTransformer",
    "ConvNet",
    "ConvexMLP",
    "LipschitzMLP",
    "MaskedMLP",
    "Parameters",
    "PeriodicMLP",
    "Rescale",
    "Separate",
    "Velocity",
    "sequential_map",
]
