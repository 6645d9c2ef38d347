"""From a table to a density of its rows, and a verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pushforward.flow import Flow
from pushforward.mixture import FlowMixture
from pushforward.tabular.columns import Kind, Name
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.engine import DensityResult, Quality
from pushforward.tabular.history import History
from pushforward.tabular.judge import FEWEST_ROWS, Judgement, calibration, distance
from pushforward.tabular.row_model import RowModel, context_vector, fit_rows, given_states, one_hot
from pushforward.tabular.schema import Encoded, Schema
from pushforward.tabular.table import FEWEST_ROWS_TO_FIT, TableError

TEST_FROM = 1000  # rows from which some are kept for the verdict
TEST_SHARE, MOST_TEST = 0.1, 20_000
JUDGE_ROWS = 5000


def fit_to_data(
    data: Any,
    context: Any = None,
    *,
    kinds: Mapping[Name, str | Kind] | None = None,
    context_kinds: Mapping[Name, str | Kind] | None = None,
    weights: Any = None,
    quality: Quality = "balanced",
    max_seconds: float = 60.0,
    seed: int = 0,
    progress: bool | None = None,
) -> DataFit:
    """The density p(row), or p(row | context), of a table, in its own units, and a verdict.

    Columns may hold real, positive, bounded or whole numbers, angles, ordered or unordered categories, and gaps. A
    Gaussian, a mixture of Gaussians and a flow are fitted to what is continuous, and the one with the best held-out
    likelihood is taken; what is discrete gets exact probabilities. Of a thousand rows and more a tenth is kept for the
    verdict.

    Args:
        data: a DataFrame of pandas or polars, an Arrow table, an array or tensor of one or two dimensions, or a dict of
            columns; missing entries allowed.
        context: a table with as many rows, for the density of `data` given it.
        kinds: of some columns of `data`, as {"age": "integer", "share": "bounded(0, 1)"}; others are inferred. See
            `tabular.Schema.infer`.
        context_kinds: of some columns of the context.
        weights: of the rows, not negative, `(n,)`.
        quality: "fast", "balanced", or "best", which is an ensemble.
        max_seconds: budget of time.
        seed: of everything random.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        The fit; print its `report`.

    Raises:
        TableError: the table is unusable (which column and row), or has fewer than 10 rows.
        ValueError: arguments that contradict each other.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> height = 1.7 + 0.1 * torch.randn(300, generator=generator)
        >>> table = {"height": height, "weight": 22 * height**2 + torch.randn(300, generator=generator)}
        >>> fit = pf.fit_to_data(table, max_seconds=5)
        >>> fit.log_prob(table).shape
        torch.Size([300])
    """
    if not max_seconds > 0:
        raise ValueError(f"fit_to_data: expected max_seconds > 0, got {max_seconds}")
    start = time.monotonic()
    schema = Schema.infer(data, kinds)
    if schema.rows < FEWEST_ROWS_TO_FIT:
        raise TableError(f"expected {FEWEST_ROWS_TO_FIT} or more rows to fit, got {schema.rows}")
    if not schema.levels and not schema.features:
        raise TableError("expected a column that is not constant")
    context_schema = None if context is None else Schema.infer(context, context_kinds)
    if context_schema is not None and context_schema.rows != schema.rows:
        raise ValueError(f"fit_to_data: expected a context with {schema.rows} rows, got {context_schema.rows}")
    y = None if context_schema is None else context_vector(context_schema, context)
    w = _weights(weights, schema.rows)

    generator = torch.Generator().manual_seed(seed)
    rows = schema.encode(data, generator)
    order = torch.randperm(schema.rows, generator=generator)
    held = min(int(TEST_SHARE * schema.rows), MOST_TEST) if schema.rows >= TEST_FROM else 0
    test, seen = order[:held], order[held:].sort().values
    fitted = fit_rows(
        rows.discrete[seen],
        rows.continuous[seen],
        schema.levels,
        None if y is None else y[seen],
        weights=None if w is None else w[seen],
        quality=quality,
        max_seconds=max_seconds,
        seed=seed,
        progress=progress,
    )
    fresh, known = (_typical(part, w, generator) for part in (test, seen))
    judgement = judge(
        fitted.model,
        schema,
        *take(rows, y, fresh if held else known),
        seen=take(rows, y, known) if held else None,
        found=fitted.continuous,
        seed=seed,
    )
    history = History.of(fitted, rows=len(seen), seconds=time.monotonic() - start)
    return DataFit(schema, context_schema, fitted.model, judgement, history, {})


def _weights(weights: Any, n: int) -> Tensor | None:
    if weights is None:
        return None
    found = torch.as_tensor(weights, dtype=torch.float64)
    if found.shape != (n,):
        raise ValueError(f"fit_to_data: expected a weight for each of {n} rows, got shape {tuple(found.shape)}")
    if not bool(((found >= 0) & found.isfinite()).all()) or not bool(found.sum() > 0):
        raise ValueError("fit_to_data: expected weights that are finite and not negative, and not all zero")
    return found


def _typical(index: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
    """Some thousands of the rows; with weights as many as these are worth, drawn by them."""
    if weights is None or not len(index):
        return index[torch.randperm(len(index), generator=generator)[:JUDGE_ROWS]]
    own = weights[index]
    worth = int(own.sum().square() / own.square().sum().clamp_min(1e-300))
    return index[torch.multinomial(own, min(max(worth, 2), JUDGE_ROWS), replacement=True, generator=generator)]


@torch.no_grad()
def judge(
    model: RowModel,
    schema: Schema,
    rows: Encoded,
    context: Tensor | None,
    *,
    seen: tuple[Encoded, Tensor | None] | None,
    found: DensityResult | None,
    seed: int,
) -> Judgement:
    """The figures on rows.

    Args:
        model: of encoded rows.
        schema: that encoded them.
        rows: at most some thousands.
        context: of these rows.
        seen: as many that the model was fitted to, if `rows` are others; else None.
        found: how the continuous part was found.
        seed: of the draws.
    """
    n = len(rows.inside)
    own = _log_prob(model, rows, context)
    gap, gap_error = math.nan, math.nan
    if seen is not None:
        fitted = _log_prob(model, *seen)
        gap = (fitted.mean() - own.mean()).item() / len(schema.kinds)
        gap_error = math.hypot(_error(own), _error(fitted)) / len(schema.kinds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        c, u = model.sample(n, context)
    sizes, chances = calibration(_by_column(schema, c, u), _by_column(schema, rows.discrete, rows.continuous))
    apart, apart_p = math.nan, math.nan
    if n >= FEWEST_ROWS:
        draws, real = (_together(schema, *part) for part in ((c, u), (rows.discrete, rows.continuous)))
        apart, apart_p = distance(draws, real, seed)
    return Judgement(
        rows=n,
        unseen=seen is not None,
        log_likelihood=own.mean().item(),
        error=_error(own),
        candidates={} if found is None else {k.name: (k.log_likelihood, k.error) for k in found.candidates},
        chosen="" if found is None else found.best.name,
        gap=gap,
        gap_error=gap_error,
        calibration=sizes,
        calibration_p=chances,
        distance=apart,
        distance_p=apart_p,
        round_trip=_round_trip(model, rows, context),
        bound=not schema.exact,
    )


def take(rows: Encoded, context: Tensor | None, index: Tensor) -> tuple[Encoded, Tensor | None]:
    """Some of the rows."""
    return Encoded(*(part[index] for part in rows)), None if context is None else context[index]


def _log_prob(model: RowModel, rows: Encoded, context: Tensor | None) -> Tensor:
    return model.log_prob(rows.discrete, rows.continuous, context) + rows.log_jacobian


def _error(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values))


def _by_column(schema: Schema, c: Tensor, u: Tensor) -> dict[str, Tensor]:
    """A number for each row and column; states that are beside a number come before all numbers."""
    columns = {str(name): c[:, i].double() for i, name in enumerate(schema.discrete_names)}
    for i, name in enumerate(schema.continuous_names):
        states = columns.get(str(name), torch.zeros(len(u), dtype=torch.float64))
        columns[str(name)] = torch.where(states == 0, u[:, i], -1e6 - states)
    return columns


def _together(schema: Schema, states: Tensor, numbers: Tensor) -> Tensor:
    """All coordinates as numbers of about unit scale, clipped, so that a single far one does not decide."""
    return torch.cat([one_hot(states, schema.levels), numbers.clamp(-8, 8)], dim=-1)


def _round_trip(model: RowModel, rows: Encoded, context: Tensor | None) -> float:
    """The largest relative change of a coordinate on its way to the base and back, through each flow of a mixture."""
    if model.continuous is None:
        return 0.0
    given = given_states(rows.discrete, model.levels, context)
    base = model.continuous.base
    worst = 0.0
    for flow in base.flows if isinstance(base, FlowMixture) else [model.continuous]:
        assert isinstance(flow, Flow)
        back = flow.from_base(flow.to_base(rows.continuous, given), given)
        change = (back - rows.continuous).abs() / rows.continuous.abs().clamp_min(1.0)
        worst = max(worst, change.max().item())
    return worst
