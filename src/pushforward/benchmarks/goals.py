"""Figures and what they should be."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A figure and what it should be: at most, or at least, the limit."""

    name: str
    limit: float
    sense: Literal["<=", ">="] = "<="

    def met(self, value: float) -> bool:
        return value <= self.limit if self.sense == "<=" else value >= self.limit

    def worst(self, values: Sequence[float]) -> float:
        return max(values) if self.sense == "<=" else min(values)


def header(what: str, note: str) -> str:
    """The first line of the table of `lines`."""
    return f"{what:18s} {'figure':18s} {'worst':>9s} {'median':>9s} {'asked':>10s}      {note}"


def lines(name: str, goals: Sequence[Goal], values: Mapping[str, Sequence[float]], note: str) -> Iterator[str]:
    """A line for each goal, with the worst and the median of its values; the first has the name and the note."""
    for k, goal in enumerate(goals):
        found = values[goal.name]
        worst = goal.worst(found)
        yield (
            f"{name if k == 0 else '':18s} {goal.name:18s} {worst:9.4f} {statistics.median(found):9.4f} "
            f"{goal.sense} {goal.limit:7.4g} {'met' if goal.met(worst) else 'NOT':>4s} {note if k == 0 else ''}"
        )


def counts(words: Sequence[str]) -> str:
    """How often each word comes, as in "3 good, 2 doubtful"."""
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
