"""Densities and data sets whose truth is known, to test and to show flows with."""

from pushforward.targets.base import PlaneTarget, Target
from pushforward.targets.faithful import faithful, faithful_columns, faithful_path
from pushforward.targets.mixture import Gaussians
from pushforward.targets.moons import TwoMoons
from pushforward.targets.ring import LobedRing

__all__ = [
    "Gaussians",
    "LobedRing",
    "PlaneTarget",
    "Target",
    "TwoMoons",
    "faithful",
    "faithful_columns",
    "faithful_path",
]
