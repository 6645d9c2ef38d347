"""Flows through maps that are not one-to-one; they have a bound on the likelihood, not the likelihood."""

from pushforward.surjections.augmented import Augmented
from pushforward.surjections.base import SurjectiveFlow
from pushforward.surjections.dequantized import Dequantized
from pushforward.surjections.symmetric import Absolute, Sorted

__all__ = ["Absolute", "Augmented", "Dequantized", "Sorted", "SurjectiveFlow"]
