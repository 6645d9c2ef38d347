"""`fit_density` with default settings on densities of known entropy, and on real tables."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pushforward.benchmarks.goals import Goal, counts, header, lines
from pushforward.files import write_atomically
from pushforward.flow import Flow
from pushforward.tabular.columns import Kind
from pushforward.tabular.engine import DensityResult, fit_density
from pushforward.tabular.fit_to_data import fit_to_data
from pushforward.tabular.gaussians import choose_gaussians, fit_gaussians
from pushforward.tabular.history import History
from pushforward.targets import (
    Checkerboard,
    CorrelatedNormal,
    Gaussians,
    MixedCopula,
    PlaneTarget,
    Ring,
    Rings,
    SineWave,
    StudentTs,
    Target,
    TwoMoons,
)

ROWS, TEST_ROWS = 50_000, 20_000
BLOCK = 4096
TABLES = {"protein": 3.82, "kin40k": -9.18, "bike": None, "wine": None}  # test log-likelihood to reach, nats per row
REPEATED, COMMON, DISTINCT = 0.05, 0.01, 20  # what makes a column a rounded one, and its noise that of its finer gaps

Figures = dict[str, float]
Fit = Callable[[int, float], tuple[Figures, DensityResult | History]]  # of a seed and a budget of seconds


@dataclass(frozen=True)
class Row:
    """Something to fit, from a seed and a budget in seconds, and its goals."""

    name: str
    fit: Fit
    goals: Sequence[Goal]


@dataclass
class Outcome:
    """What the fits of one row gave, a value for each goal and seed."""

    row: str
    values: dict[str, list[float]]
    winners: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def rows(data: Path | None = None) -> Iterator[Row]:
    """The densities, and the tables that the folder holds."""
    yield Row("eight Gaussians", _drawn(Gaussians.circle()), [_excess(0.005)])
    yield Row("eight, narrow", _drawn(Gaussians.circle(8, 2.0, 0.2)), [_excess(0.005)])
    yield Row("checkerboard", _drawn(Checkerboard()), [_excess(0.03)])
    yield Row("ring", _drawn(Ring()), [_excess(0.015)])
    yield Row("four rings", _drawn(Rings()), [_excess(0.03)])
    yield Row("sine", _drawn(SineWave()), [_excess(0.02)])
    yield Row("moons", _drawn(TwoMoons(fixed_angles=False)), [_excess(0.015)])
    yield Row("Student t(2)", _drawn(StudentTs(1, 2.0)), [_excess(0.002)])
    yield Row("Student t(3)", _drawn(StudentTs(1, 3.0)), [_excess(0.002)])
    yield Row("Student t, d = 3", _drawn(StudentTs(3, 2.5)), [_excess(0.02)])
    yield Row("normal, n = 200", _small_normal, [Goal("over Gaussian", 0.02)])
    yield Row("copula", _copula, [_excess(0.03)])
    for name, level in TABLES.items():
        if data is None or not (data / name / "data.csv.gz").exists():
            print(f"left out: the table {name}, for want of {name}/data.csv.gz in --data", flush=True)
            continue
        goals = [Goal("over baselines", 0.0, ">=")] + ([Goal("test", level, ">=")] if level is not None else [])
        yield Row(name, _table_fit(data / name), goals)


def run(out: Path, *, seeds: int = 2, data: Path | None = None, only: str = "", max_seconds: float = 60.0) -> str:
    """Fit everything with every seed; write `density.json` and return the table of worst and median figures.

    Args:
        out: folder for the JSON file.
        seeds: number of fits of each row.
        data: folder with a folder for each of the tables.
        only: fit only what holds this text in its name.
        max_seconds: budget of each fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    table = [header("data", "seconds, winners")]
    for row in rows(data):
        if only not in row.name:
            continue
        outcome = _measure(row, seeds, max_seconds)
        outcomes.append(outcome.__dict__)
        note = f"{statistics.median(outcome.seconds):.0f}, {counts(outcome.winners)}"
        table += lines(row.name, row.goals, outcome.values, note)
        with write_atomically(out / "density.json") as temporary:
            temporary.write_text(json.dumps(outcomes, indent=1) + "\n")
    return "\n".join(table)


def read_table(folder: Path, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Training and test rows of a table's first split, standardised by the training rows.

    A column with more than 5 % repeated values, or one value in more than 1 % of the rows, gets uniform noise: as wide
    as the 10 % quantile of the gaps between its values, or, up to 20 values, as the smallest.

    Args:
        folder: with `data.csv.gz` and `test_mask.csv.gz`, whose first column marks the test rows.
        seed: of the noise.
    """
    x = np.loadtxt(folder / "data.csv.gz", delimiter=",")
    test = np.loadtxt(folder / "test_mask.csv.gz", delimiter=",")[:, 0] > 0
    generator = np.random.default_rng(seed)
    for column in x.T:
        values, counts = np.unique(column, return_counts=True)
        if len(values) < (1 - REPEATED) * len(x) or counts.max() > COMMON * len(x):
            gaps = np.diff(values)
            width = np.quantile(gaps, 0.1) if len(values) > DISTINCT else gaps.min()
            column += width * (generator.random(len(x)) - 0.5)
    mean, deviation = x[~test].mean(0), x[~test].std(0)
    return torch.as_tensor((x[~test] - mean) / deviation), torch.as_tensor((x[test] - mean) / deviation)


def _excess(limit: float) -> Goal:
    return Goal("excess", limit)


def _drawn(target: Target) -> Fit:
    """Of draws of a target; the excess is the mean of log p - log q over fresh ones."""

    def fit(seed: int, seconds: float) -> tuple[Figures, DensityResult]:
        x, test = _draws(target, ROWS, 2 * seed), _draws(target, TEST_ROWS, 2 * seed + 1)
        result = fit_density(x, seed=seed, max_seconds=seconds)
        return {"excess": (target.log_prob(test) - _log_prob(result.flow, test)).mean().item()}, result

    return fit


def _small_normal(seed: int, seconds: float) -> tuple[Figures, DensityResult]:
    """What is lost to the maximum-likelihood Gaussian of 200 rows of ten columns."""
    target = CorrelatedNormal(10)
    x, test = _draws(target, 200, 2 * seed), _draws(target, TEST_ROWS, 2 * seed + 1)
    result = fit_density(x, seed=seed, max_seconds=seconds)
    loss = (fit_gaussians(x).log_prob(test) - _log_prob(result.flow, test)).mean().item()
    return {"over Gaussian": loss}, result


def _copula(seed: int, seconds: float) -> tuple[Figures, History]:
    """The whole table by `fit_to_data`; log q is a lower bound, as the counts are whole."""
    target = MixedCopula()
    x, test = _draws(target, ROWS, 2 * seed), _draws(target, TEST_ROWS, 2 * seed + 1)
    tables = [
        {"a": part[:, 0], "b": part[:, 1], "count": part[:, 2].long(), "kind": part[:, 3].long()} for part in (x, test)
    ]
    kinds: dict[str | int, str | Kind] = {
        "a": "positive",
        "b": "bounded(0, 1)",
        "count": "integer",
        "kind": "categorical",
    }
    fit = fit_to_data(tables[0], kinds=kinds, max_seconds=seconds, seed=seed, progress=False)
    excess = (target.log_prob(test) - fit.log_prob(tables[1])).mean().item()
    return {"excess": excess}, fit.history


def _table_fit(folder: Path) -> Fit:
    def fit(seed: int, seconds: float) -> tuple[Figures, DensityResult]:
        x, test = read_table(folder, seed=seed)
        result = fit_density(x, seed=seed, max_seconds=seconds)
        log_q = _log_prob(result.flow, test)
        baselines = [fit_gaussians(x), choose_gaussians(x, seed=seed)]
        best = max(baseline.log_prob(test).mean().item() for baseline in baselines)
        return {"test": log_q.mean().item(), "over baselines": log_q.mean().item() - best}, result

    return fit


def _draws(target: Target, n: int, seed: int) -> Tensor:
    """In float64; of targets that draw in torch's default dtype, too."""
    options = {"dtype": torch.float64} if isinstance(target, PlaneTarget | Checkerboard) else {}
    x: Tensor = target.sample(n, torch.Generator().manual_seed(seed), **options)  # type: ignore[attr-defined]
    return x


@torch.no_grad()
def _log_prob(flow: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
    contexts = [None] * len(x) if context is None else context.split(BLOCK)
    return torch.cat([flow.log_prob(block, c) for block, c in zip(x.split(BLOCK), contexts, strict=False)])


def _measure(row: Row, seeds: int, max_seconds: float) -> Outcome:
    outcome = Outcome(row.name, {})
    for seed in range(seeds):
        figures, result = row.fit(seed, max_seconds)
        for name, value in figures.items():
            outcome.values.setdefault(name, []).append(value)
        outcome.winners.append(result.candidates[0].name)
        outcome.seconds.append(result.seconds)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"{row.name}, seed {seed}: {shown}; {result}", file=sys.stderr, flush=True)
    return outcome
