"""How a density of a table came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pushforward.tabular.engine import Candidate
from pushforward.tabular.row_model import RowsFit
from pushforward.training import TrainResult

DIGITS = 6


@dataclass(frozen=True)
class History:
    """How a density of a table came about.

    Attributes:
        rows: how many rows it was fitted to.
        seconds: wall-clock time.
        candidates: what was fitted to the continuous coordinates, the best first.
        runs: by what was trained, the course of its training.
    """

    rows: int
    seconds: float
    candidates: tuple[Candidate, ...] = ()
    runs: Mapping[str, TrainResult] = field(default_factory=dict)

    @classmethod
    def of(cls, fitted: RowsFit, *, rows: int, seconds: float) -> History:
        """The history of a model of encoded rows."""
        candidates = () if fitted.continuous is None else fitted.continuous.candidates
        runs = {} if fitted.discrete is None else {"discrete coordinates": fitted.discrete}
        runs |= {} if fitted.continuous is None else fitted.continuous.runs
        return cls(rows, seconds, candidates, runs)

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; losses have six digits."""
        runs = {name: asdict(_rounded(run)) for name, run in self.runs.items()}
        return {**asdict(replace(self, runs={})), "runs": runs}

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> History:
        """What `to_json` described."""
        rest = dict(description)
        candidates = tuple(Candidate(**candidate) for candidate in rest.pop("candidates"))
        runs = {name: _run(run) for name, run in rest.pop("runs").items()}
        return cls(**rest, candidates=candidates, runs=runs)

    def __str__(self) -> str:
        lines = [f"fitted to {self.rows} rows in {self.seconds:.1f} s"]
        lines += [f"  {candidate}" for candidate in self.candidates]
        lines += [f"  {name}: {run}" for name, run in self.runs.items()]
        return "\n".join(lines)


def _rounded(run: TrainResult) -> TrainResult:
    losses = [float(f"{loss:.{DIGITS}g}") for loss in run.losses]
    return replace(run, losses=losses, validation=[(step, float(f"{v:.{DIGITS}g}")) for step, v in run.validation])


def _run(description: Mapping[str, Any]) -> TrainResult:
    rest = dict(description)
    return TrainResult(**{**rest, "validation": [(int(step), loss) for step, loss in rest["validation"]]})
