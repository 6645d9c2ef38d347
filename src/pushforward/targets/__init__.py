"""Densities and data sets whose truth is known, to test and to show flows with."""

from pushforward.targets.base import PlaneTarget, Target
from pushforward.targets.copula import MixedCopula
from pushforward.targets.faithful import faithful, faithful_columns, faithful_path
from pushforward.targets.mixture import Gaussians, NormalMixture
from pushforward.targets.moons import TwoMoons
from pushforward.targets.plane import Checkerboard, Ring, Rings, SineWave
from pushforward.targets.posteriors import BrownianMotion, EightSchools, LogisticRegression, Seeds
from pushforward.targets.ring import LobedRing
from pushforward.targets.synthetic import (
    Banana,
    CorrelatedNormal,
    Funnel,
    ManyWell,
    PhiFour,
    Potential,
    StudentTs,
)

__all__ = [
    "Banana",
    "BrownianMotion",
    "Checkerboard",
    "CorrelatedNormal",
    "EightSchools",
    "Funnel",
    "Gaussians",
    "LobedRing",
    "LogisticRegression",
    "ManyWell",
    "MixedCopula",
    "NormalMixture",
    "PhiFour",
    "PlaneTarget",
    "Potential",
    "Ring",
    "Rings",
    "Seeds",
    "SineWave",
    "StudentTs",
    "Target",
    "TwoMoons",
    "faithful",
    "faithful_columns",
    "faithful_path",
]
