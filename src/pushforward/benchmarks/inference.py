"""`fit_to_log_density` with default settings on targets whose evidence is known."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import pushforward as pf
from pushforward.benchmarks.goals import Goal, counts, header, lines
from pushforward.files import write_atomically
from pushforward.inference import LogDensityFit
from pushforward.targets import (
    Banana,
    BrownianMotion,
    CorrelatedNormal,
    EightSchools,
    Funnel,
    LobedRing,
    LogisticRegression,
    ManyWell,
    NormalMixture,
    PhiFour,
    Potential,
    Ring,
    Seeds,
    StudentTs,
    Target,
)

DRAWS = 20_000
DATA = {"brownian": "brownian.csv", "seeds": "seeds.csv"}

Measure = Callable[[Target, LogDensityFit, Tensor], float]


@dataclass(frozen=True)
class Figure:
    """A goal and how its figure is measured."""

    goal: Goal
    measure: Measure


@dataclass(frozen=True)
class Row:
    """A target and its figures."""

    name: str
    target: Callable[[], Target]
    figures: Sequence[Figure]


@dataclass
class Outcome:
    """What the fits of one row gave, a value for each goal and seed."""

    row: str
    values: dict[str, list[float]]
    verdicts: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)


def gap(limit: float) -> Figure:
    return Figure(Goal("gap", limit), lambda target, fit, x: target.log_normalizer - fit.elbo)


def delta(limit: float) -> Figure:
    return Figure(Goal("delta", limit), lambda target, fit, x: abs(fit.log_evidence - target.log_normalizer))


def ess(limit: float) -> Figure:
    return Figure(Goal("ESS", limit, ">="), lambda target, fit, x: fit.ess)


def shares(target: Target, x: Tensor) -> Tensor:
    """Share of the draws whose nearest mean is each component's, over the component's weight."""
    assert isinstance(target, NormalMixture)
    counts = torch.bincount(target.component(x.double()), minlength=len(target.weights))
    return counts.double() / len(x) / target.weights


def _funnel_spread(target: Target, fit: LogDensityFit, x: Tensor) -> float:
    return abs(x[:, 0].std().item() / 3 - 1)


def _well_masses(target: Target, fit: LogDensityFit, x: Tensor) -> float:
    assert isinstance(target, ManyWell)
    return ((x[:, ::2] > 0).double().mean(0) - target.right).abs().max().item()


def _sign_balance(target: Target, fit: LogDensityFit, x: Tensor) -> float:
    return abs((x.mean(-1) > 0).double().mean().item() - 0.5)


def _weight_error(target: Target, fit: LogDensityFit, x: Tensor) -> float:
    assert isinstance(target, NormalMixture)
    return ((shares(target, x) - 1) * target.weights).abs().max().item()


def rows(data: Path | None = None) -> Iterator[Row]:
    """The targets, those with data of their own only where the folder holds them."""
    forty = 80 * torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 40
    nine = [[5.0 * i, 5.0 * j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    two = [[0.0] * 10, [10 / math.sqrt(10)] * 10]
    well_mass = Figure(Goal("well mass", 0.02), _well_masses)
    sign = Figure(Goal("sign balance", 0.02), _sign_balance)
    yield Row("normal, d = 50", CorrelatedNormal, [gap(0.01), ess(0.99)])
    yield Row("banana", Banana, [gap(0.01)])
    yield Row("funnel", Funnel, [delta(0.005), ess(0.95), Figure(Goal("sd(x0), relative", 0.02), _funnel_spread)])
    yield Row("U1", lambda: LobedRing(2.0, spread=0.6), [gap(0.02)])
    for which, limit in ((2, 0.02), (3, 0.03), (4, 0.03)):
        yield Row(f"U{which}", lambda which=which: Potential(which), [gap(limit)])  # type: ignore[misc]
    yield Row("ring", Ring, [gap(0.01)])
    worst_weight = Figure(Goal("weights, relative", 0.1), lambda t, fit, x: (shares(t, x) - 1).abs().max().item())
    yield Row("nine", lambda: NormalMixture(nine, scale=0.5477), [delta(0.005), worst_weight])
    modes = Figure(Goal("modes", 40, ">="), lambda t, fit, x: float((shares(t, x) >= 0.5).sum()))
    yield Row("forty", lambda: NormalMixture(forty), [modes, ess(0.9), delta(0.01)])
    yield Row(
        "two", lambda: NormalMixture(two, [0.7, 0.3]), [Figure(Goal("weights", 0.02), _weight_error), delta(0.02)]
    )
    yield Row("many-well, d = 32", ManyWell, [delta(0.03), well_mass, ess(0.7)])
    yield Row("phi4, kappa = 2", PhiFour, [delta(0.02), sign])
    yield Row("phi4, kappa = 4", lambda: PhiFour(16, 4.0, 4.0), [delta(0.02), sign])
    yield Row("eight schools", EightSchools, [gap(0.03), delta(0.01)])
    khat = Figure(Goal("k-hat", 0.7), lambda t, fit, x: fit.khat)
    yield Row("Student t(3)", StudentTs, [khat, delta(0.02)])
    yield Row("breast cancer", LogisticRegression.breast_cancer, [gap(0.03)])
    if data is None or not all((data / name).exists() for name in DATA.values()):
        print(f"left out: Brownian motion and Seeds, for want of {' and '.join(DATA.values())} in --data", flush=True)
        return
    yield Row("Brownian motion", lambda: BrownianMotion.read(data / DATA["brownian"], 1.187747), [gap(0.05)])
    yield Row("Seeds", lambda: Seeds.read(data / DATA["seeds"], -73.40), [gap(0.05)])


def run(out: Path, *, seeds: int = 5, data: Path | None = None, only: str = "", max_seconds: float = 120.0) -> str:
    """Fit every target with every seed; write `inference.json` and return the table of worst and median figures.

    Args:
        out: folder for the JSON file.
        seeds: number of fits of each target.
        data: folder with `brownian.csv` and `seeds.csv`.
        only: fit only the targets whose name holds this text.
        max_seconds: budget of each fit, the default one of `fit_to_log_density`.
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    table = [header("target", "seconds, verdicts")]
    for row in rows(data):
        if only not in row.name:
            continue
        outcome = _measure(row, seeds, max_seconds)
        outcomes.append(outcome.__dict__)
        goals = [figure.goal for figure in row.figures]
        note = f"{statistics.median(outcome.seconds):.0f}, {counts(outcome.verdicts)}"
        table += lines(row.name, goals, outcome.values, note)
        with write_atomically(out / "inference.json") as temporary:
            temporary.write_text(json.dumps(outcomes, indent=1) + "\n")
    return "\n".join(table)


def _measure(row: Row, seeds: int, max_seconds: float) -> Outcome:
    target = row.target()
    outcome = Outcome(row.name, {figure.goal.name: [] for figure in row.figures})
    for seed in range(seeds):
        fit = pf.fit_to_log_density(target.log_density, target.features, seed=seed, max_seconds=max_seconds)
        x = fit.sample(DRAWS, seed=seed)
        assert isinstance(x, Tensor)
        for figure in row.figures:
            outcome.values[figure.goal.name].append(figure.measure(target, fit, x))
        outcome.verdicts.append(fit.verdict)
        outcome.seconds.append(fit.seconds)
        outcome.evaluations.append(fit.evaluations)
        figures = ", ".join(f"{name} {values[-1]:.4f}" for name, values in outcome.values.items())
        print(f"{row.name}, seed {seed}: {figures}; {fit.verdict}, {fit.seconds:.0f} s", file=sys.stderr, flush=True)
    return outcome
