"""Densities and data sets whose truth is known, to test and to show flows with."""

from pushforward.targets.base import PlaneTarget, Target
from pushforward.targets.faithful import faithful, faithful_columns, faithful_path
from pushforward.targets.mixture import Gaussians, NormalMixture
from pushforward.targets.moons import TwoMoons
from pushforward.targets.posteriors import BrownianMotion, EightSchools, LogisticRegression, Seeds
from pushforward.targets.ring import LobedRing
from pushforward.targets.synthetic import (
    Banana,
    CorrelatedNormal,
    Funnel,
    ManyWell,
    PhiFour,
    Potential,
    Ring,
    StudentTs,
)

__all__ = [
    "Banana",
    "BrownianMotion",
    "CorrelatedNormal",
    "EightSchools",
    "Funnel",
    "Gaussians",
    "LobedRing",
    "LogisticRegression",
    "ManyWell",
    "NormalMixture",
    "PhiFour",
    "PlaneTarget",
    "Potential",
    "Ring",
    "Seeds",
    "StudentTs",
    "Target",
    "TwoMoons",
    "faithful",
    "faithful_columns",
    "faithful_path",
]
