"""Conditioners: the modules that make parameters."""

from pushforward.nn.masked import MaskedMLP
from pushforward.nn.mlp import MLP
from pushforward.nn.parameters import Parameters
from pushforward.nn.separate import Separate
from pushforward.nn.velocity import Velocity

__all__ = ["MLP", "MaskedMLP", "Parameters", "Separate", "Velocity"]
