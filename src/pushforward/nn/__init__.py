"""Conditioners: the modules that make parameters."""

from pushforward.nn.masked import MaskedMLP
from pushforward.nn.mlp import MLP
from pushforward.nn.parameters import Parameters

__all__ = ["MLP", "MaskedMLP", "Parameters"]
