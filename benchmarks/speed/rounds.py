"""Orders, medians and quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import TypeVar

T = TypeVar("T")


def rotated(items: Sequence[T], n: int) -> list[T]:
    """The items in their order, starting with the n-th, so that in n rounds each stands everywhere."""
    n %= max(len(items), 1)
    return [*items[n:], *items[:n]]


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times as long theirs takes: of the medians, and the quartiles of the ratios round by round."""
    rounds = [a / b for a, b in zip(theirs, ours, strict=True)]
    low, _, high = quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else rounds * 3
    return {"ratio": median(theirs) / median(ours), "low": low, "high": high}
