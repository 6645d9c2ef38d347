"""What is found out about a density on rows that it has not seen, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward.diagnostics import energy_distance

Verdict = Literal["good", "doubtful", "failed"]

FEWEST_ROWS = 20
SIGNIFICANT = 1e-3
# Sizes of an error below which it is let pass however many rows show it, and from which the fit has failed.
OFF = {"calibration": (0.05, 0.2), "two-sample": (0.05, 0.3), "gap": (0.1, math.inf), "round trip": (1e-6, 1e-2)}


@dataclass(frozen=True)
class Judgement:
    """The figures behind a verdict.

    Attributes:
        rows: how many rows they were taken on.
        unseen: whether the fit had not seen those rows; None if nobody knows.
        log_likelihood: mean log-density of a row, nats, in the units of the table.
        error: its standard error.
        candidates: by name, the mean held-out log-likelihood of what was tried for the continuous coordinates, nats,
            and its standard error.
        chosen: which of them was the best.
        gap: how much larger the log-likelihood of the rows that were fitted is, in nats per column.
        gap_error: its standard error.
        calibration: by column, the largest difference of the distribution functions of draws and rows.
        calibration_p: by column, the chance of as large a difference.
        distance: energy distance of draws and rows, standardised columns, over the mean distance of two rows.
        distance_p: the chance of as large a one.
        round_trip: largest change of a coordinate on its way to the base and back, in standard deviations.
        bound: whether log-densities are lower bounds.
    """

    rows: int
    unseen: bool | None
    log_likelihood: float
    error: float
    candidates: Mapping[str, tuple[float, float]]
    chosen: str
    gap: float
    gap_error: float
    calibration: Mapping[str, float]
    calibration_p: Mapping[str, float]
    distance: float
    distance_p: float
    round_trip: float
    bound: bool

    @property
    def findings(self) -> list[tuple[Verdict, str]]:
        """Each check that is not passed: how bad, and what it means."""
        found: list[tuple[Verdict, str]] = []
        if not math.isfinite(self.log_likelihood):
            found.append(("failed", "some held-out rows have density zero"))
        if self.gap > OFF["gap"][0] and self.gap > 3 * self.gap_error:
            found.append(
                (
                    "doubtful",
                    f"fitted rows are {self.gap:.2g} nats a column likelier than others: it overfits",
                )
            )
        for name, size in self.calibration.items():
            if self.calibration_p[name] < SIGNIFICANT / len(self.calibration):
                found += _graded("calibration", size, f"the distribution of {name!r} is off by {size:.2f}")
        if self.distance_p <= 0.01:
            found += _graded("two-sample", self.distance, f"draws and rows are {self.distance:.2f} apart")
        found += _graded("round trip", self.round_trip, f"coordinates return changed by {self.round_trip:.1g}")
        return found

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings; "good" if there are none."""
        grades = [grade for grade, _ in self.findings]
        return "failed" if "failed" in grades else "doubtful" if grades else "good"

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> Judgement:
        """What `to_json` described."""
        rest = dict(description)
        rest["candidates"] = {name: tuple(pair) for name, pair in rest["candidates"].items()}
        return cls(**rest)

    def __str__(self) -> str:
        seen = {True: " that it has not seen", False: " that it was fitted to", None: ""}[self.unseen]
        rows = f"{self.rows} rows{seen}"
        lines = [f"verdict: {self.verdict}", *(f"  {grade}: {text}" for grade, text in self.findings)]
        at_least = "at least " if self.bound else ""
        lines += [
            f"judged on       {rows}",
            f"log-likelihood  {at_least}{self.log_likelihood:.4f} +- {self.error:.4f} nats a row",
        ]
        if self.unseen:
            lines.append(f"overfitting     {self.gap:.4f} +- {self.gap_error:.4f} nats a column")
        for name, (mean, error) in self.candidates.items():
            mark = "  (chosen)" if name == self.chosen else ""
            lines.append(f"  {name:<22}{mean:10.4f} +- {error:.4f} nats, coordinates{mark}")
        worst = max(self.calibration, key=self.calibration.__getitem__, default=None)
        if worst is not None:
            lines.append(f"calibration     off by at most {self.calibration[worst]:.3f}, of {worst!r}")
        lines += [
            f"two-sample      distance {self.distance:.3f} (chance {self.distance_p:.2g})",
            f"round trip      {self.round_trip:.1g} standard deviations",
        ]
        return "\n".join(lines)


def _graded(check: str, size: float, text: str) -> list[tuple[Verdict, str]]:
    limit, failed = OFF[check]
    if not size > limit:
        return []
    return [("failed" if size > failed else "doubtful", text)]


def calibration(
    of_draws: Mapping[str, Tensor], of_rows: Mapping[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """By column, the largest difference of the distribution functions of two samples, and the chance of one as large.

    Args:
        of_draws: by column a number for each draw, `(m,)`; numbers may repeat.
        of_rows: the same for each row, `(n,)`.
    """
    sizes, chances = {}, {}
    for name, draws in of_draws.items():
        rows = of_rows[name]
        places = torch.cat([draws, rows]).unique()
        shares = [torch.searchsorted(part.sort().values, places, right=True) / len(part) for part in (draws, rows)]
        size = (shares[0] - shares[1]).abs().max().item()
        effective = math.sqrt(len(draws) * len(rows) / (len(draws) + len(rows)))
        sizes[name] = size
        chances[name] = min(2 * math.exp(-2 * ((effective + 0.12 + 0.11 / effective) * size) ** 2), 1.0)
    return sizes, chances


def distance(draws: Tensor, rows: Tensor, seed: int) -> tuple[float, float]:
    """The energy distance of two samples over the mean distance of two rows, and its p-value."""
    found = energy_distance(draws, rows, seed=seed)
    half = len(rows) // 2
    scale = (rows[:half] - rows[half : 2 * half]).norm(dim=-1).mean().item()
    return max(found.statistic, 0.0) / max(scale, 1e-300), found.p_value
