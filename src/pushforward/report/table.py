"""The page about a density of a table: its verdict, and what data and samples look like beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.plotting import calibration_plot, density_2d, histograms, training_curve
from pushforward.report.page import Page, Picture, Section
from pushforward.report.steps import steps_section
from pushforward.tabular.architecture import describe, path_of
from pushforward.tabular.check import APART, check
from pushforward.tabular.columns import Kind
from pushforward.tabular.columns.levels import Levels
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.judge import Judgement, Verdict
from pushforward.tabular.plot import MOST_PAIRED, entries, level_text, pairs
from pushforward.tabular.row_model import context_vector
from pushforward.tabular.sources import read_columns, some_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, FEWEST_DRAWS, STEP_DRAWS = 5000, 1000, 1500
MOST_COLUMNS, MOST_LISTED = 40, 200
GRADES: tuple[Verdict, ...] = ("good", "doubtful", "failed")


def table_page(fit: DataFit, data: Any, context: Any = None, *, title: str = "A density of a table") -> Page:
    """The page about a fit and the rows of a table, which may be those that it was fitted to or others.

    Args:
        fit: the density.
        data: a table with its columns, 20 rows or more; at most 5,000 are looked at.
        context: with the context's columns and as many rows.
        title: of the page.

    Raises:
        TableError: columns are missing, entries unusable, or rows too few.
    """
    here = check(fit, data, context)
    data, context = some_rows(data, ROWS), None if context is None else some_rows(context, ROWS)
    rows = len(next(iter(read_columns(data)[1].values())))
    draws = fit.sample(max(rows, FEWEST_DRAWS), seed=APART) if context is None else fit.sample(1, context, seed=APART)
    sections = [
        _figures(fit.judgement, here),
        _pairs(fit, draws, data),
        _densities(fit, draws, data),
        _calibration(fit, draws, data),
        _training(fit),
        _steps(fit, context),
        _columns(fit),
    ]
    return Page(
        title,
        max(fit.verdict, here.verdict, key=GRADES.index),
        [*_findings(fit.judgement, "when fitted"), *_findings(here, "on this table")],
        f"A density of {len(fit.schema.kinds)} columns{_given(fit)}, fitted to {fit.history.rows:,} rows in "
        f"{fit.history.seconds:.0f} seconds, and compared here with {here.rows:,} rows.",
        [section for section in sections if section is not None],
    )


def _given(fit: DataFit) -> str:
    return "" if fit.context_schema is None else f" given {', '.join(map(str, fit.context_schema.kinds))}"


def _findings(judgement: Judgement, where: str) -> list[str]:
    return [f"{text} ({where}; {grade})" for grade, text in judgement.findings]


def _figures(fitted: Judgement, here: Judgement) -> Section:
    rows = zip(_column(fitted, "no" if fitted.unseen else "yes"), _column(here, "–"), strict=True)
    names = (
        "rows",
        "seen in the fit",
        "log-likelihood, nats a row",
        "overfitting, nats a column",
        "worst column, distance of distributions",
        "two-sample distance",
        "its p-value",
        "round trip, standard deviations",
        "verdict",
    )
    bound = " Log-likelihoods are lower bounds, since entries are rounded or missing." if here.bound else ""
    return Section(
        "Behind the verdict",
        "Log-likelihoods are in the units of the table: the larger, the better. The distances are 0 where samples are "
        "like the data and 1 where they have nothing in common." + bound,
        ("", "when fitted", "this table"),
        [(name, *pair) for name, pair in zip(names, rows, strict=True)],
    )


def _column(judgement: Judgement, seen: str) -> list[str]:
    worst = max(judgement.calibration, key=judgement.calibration.__getitem__, default=None)
    return [
        f"{judgement.rows:,}",
        seen,
        f"{judgement.log_likelihood:.3f} ± {judgement.error:.3f}",
        "–" if math.isnan(judgement.gap) else f"{judgement.gap:.3f} ± {judgement.gap_error:.3f}",
        "–" if worst is None else f"{judgement.calibration[worst]:.3f} ({worst})",
        "–" if math.isnan(judgement.distance) else f"{judgement.distance:.3f}",
        "–" if math.isnan(judgement.distance_p) else f"{judgement.distance_p:.2g}",
        f"{judgement.round_trip:.0e}",
        judgement.verdict,
    ]


def _pairs(fit: DataFit, draws: Any, data: Any) -> Section | None:
    figure = pairs(fit, draws, data)
    if figure is None:
        return None
    whole = len(fit.schema.continuous_names)
    some = f"The first {MOST_PAIRED} of {whole} columns" if whole > MOST_PAIRED else "Columns"
    return Section("Data and samples", pictures=[Picture(figure, f"{some} of numbers against each other.")])


def _densities(fit: DataFit, draws: Any, data: Any) -> Section:
    pictures = _in_fours(histograms, entries(fit, draws), entries(fit, data))
    if fit.schema.features == 2 and not fit.schema.levels and fit.context_schema is None:
        rows = fit.schema.encode(data, torch.Generator().manual_seed(0))
        figure = density_2d(
            lambda u: fit.model.log_prob(u.new_zeros(len(u), 0).long(), u),
            data=rows.continuous[rows.inside],
            columns=[f"{name}, standardised" for name in fit.schema.continuous_names],
            dtype=torch.float64,
        )
        pictures.append(Picture(figure, "The density of the standardised coordinates, and the rows."))
    return Section("Densities", pictures=pictures)


def _calibration(fit: DataFit, draws: Any, data: Any) -> Section:
    pictures = _in_fours(calibration_plot, _ranked(fit, draws), _ranked(fit, data))
    return Section(
        "Calibration",
        "For each value, the share of draws and of rows that are not above it. Curves on the diagonal mean equal "
        "distributions; of equal ones 99.9 % lie whole within the grey band. Missing entries come first, then "
        "levels in their order.",
        pictures=pictures,
    )


def _in_fours(plot: Callable[..., Figure], draws: Mapping[str, Any], data: Mapping[str, Any]) -> list[Picture]:
    """Figures of four columns each, which lie side by side, or on a phone one below the other."""
    names = list(draws)[:MOST_COLUMNS]
    fours = [names[start : start + 4] for start in range(0, len(names), 4)]
    parts = [[{name: part[name] for name in four} for part in (draws, data)] for four in fours]
    return [Picture(plot(*pair, columns=2), ", ".join(pair[0])) for pair in parts]


def _ranked(fit: DataFit, table: Any) -> dict[str, Tensor]:
    """A number for each entry of each column: levels by their position, missing entries below all."""
    found: dict[str, Tensor] = {}
    values = entries(fit, table)
    for name, kind in fit.schema.kinds.items():
        column = values[str(name)]
        if isinstance(column, Tensor):
            found[str(name)] = torch.where(column.isnan(), -math.inf, column)
        else:
            found[str(name)] = _positions(column, kind)
    return found


def _positions(column: list[str | None], kind: Kind) -> Tensor:
    assert isinstance(kind, Levels)
    places: dict[str | None, int] = {level_text(level): i for i, level in enumerate(kind.levels or ())}
    places[None] = -1
    return torch.tensor([places.get(text, len(places)) for text in column], dtype=torch.float64)


def _training(fit: DataFit) -> Section:
    history = fit.history
    rows = [
        (
            c.name,
            f"{c.log_likelihood:.4f} ± {c.error:.4f}",
            f"{c.gap:.4f}",
            f"{c.steps:,}" if c.steps else "–",
            f"{c.seconds:.1f}",
        )
        for c in history.candidates
    ]
    text = ""
    if rows:
        text = (
            "What was fitted to the continuous coordinates, the best first, by its mean log-likelihood of rows that it "
            "had not seen, in nats of the standardised coordinates; the gap is how much likelier those are that it had."
        )
    if any(c.name in history.runs for c in history.candidates):
        text += (
            " The curves of a flow are those of the first of its fits, in coordinates that are transformed further, so "
            "that the losses differ by a constant."
        )
    pictures = [
        Picture(training_curve(run.losses, run.validation or None, title=name), f"Training of the {name}: {run}.")
        for name, run in history.runs.items()
        if any(map(math.isfinite, run.losses))
    ]
    header = ("", "log-likelihood", "gap", "steps", "seconds") if rows else ()
    return Section("Training", text, header, rows, pictures=pictures)


def _steps(fit: DataFit, context: Any) -> Section | None:
    """The draws on their way through the layers."""
    if fit.model.continuous is None:
        return None
    y = None
    n = STEP_DRAWS
    if fit.context_schema is not None:
        y = context_vector(fit.context_schema, some_rows(context, STEP_DRAWS))
        n = len(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        titles, points = path_of(fit.model, n, y)
    return steps_section(titles, points, list(map(str, fit.schema.continuous_names)), "Standardised coordinates")


def _columns(fit: DataFit) -> Section:
    schemas = [("", fit.schema)] + ([("given", fit.context_schema)] if fit.context_schema is not None else [])
    rows = [
        (str(name), f"{kind}", f"{100 * kind.missing:.1f} %" if kind.missing else "–", role)
        for role, schema in schemas
        for name, kind in schema.kinds.items()
    ]
    more = f"The first {MOST_LISTED} of {len(rows)} columns." if len(rows) > MOST_LISTED else ""
    return Section(
        "Columns and model", more, ("column", "kind", "missing", ""), rows[:MOST_LISTED], 2, listing=describe(fit.model)
    )
