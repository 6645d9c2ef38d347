"""From a table to a density of its rows, and a verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pushforward.tabular.columns import Kind, Name
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.engine import Quality
from pushforward.tabular.judge import FEWEST_ROWS, Judgement, calibration, distance
from pushforward.tabular.row_model import RowModel, RowsFit, context_vector, fit_rows
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
    r"""The density $p(\text{row})$, or $p(\text{row} \mid \text{context})$, of a table, in its own units, and a verdict.

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
    judgement = _judge(fitted, schema, rows, y, test if held else seen, seen, bool(held), seed)
    return DataFit(schema, context_schema, fitted.model, judgement, time.monotonic() - start, {})


def _weights(weights: Any, n: int) -> Tensor | None:
    if weights is None:
        return None
    found = torch.as_tensor(weights, dtype=torch.float64)
    if found.shape != (n,) or not bool((found >= 0).all()) or not bool(found.sum() > 0) or not bool(found.isfinite().all()):
        raise ValueError(f"fit_to_data: expected {n} weights that are finite and not negative, got {tuple(found.shape)}")
    return found


@torch.no_grad()
def _judge(
    fitted: RowsFit, schema: Schema, rows: Encoded, y: Tensor | None, test: Tensor, seen: Tensor, unseen: bool, seed: int
) -> Judgement:
    """The figures on the test rows, and on as many of those that were fitted."""
    model = fitted.model
    test, seen = test[:JUDGE_ROWS], seen[torch.linspace(0, len(seen) - 1, min(len(seen), JUDGE_ROWS)).long()]
    own = [_log_prob(model, rows, y, part) for part in (test, seen)]
    columns = max(len(schema.discrete_names), 1) if not schema.features else len(schema.kinds)
    gap = (own[1].mean() - own[0].mean()).item() / columns if unseen else math.nan
    errors = [part.std().item() / math.sqrt(len(part)) for part in own]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        c, u = model.sample(len(test), None if y is None else y[test])
    compared = {
        **{str(name): (c[:, i].double(), rows.discrete[test, i].double()) for i, name in enumerate(schema.discrete_names)},
        **{str(name): (u[:, i], rows.continuous[test, i]) for i, name in enumerate(schema.continuous_names)},
    }
    sizes, chances = calibration(compared)
    apart, apart_p = math.nan, math.nan
    if len(test) >= FEWEST_ROWS:
        sides = [_together(schema, states, numbers) for states, numbers in ((c, u), (rows.discrete[test], rows.continuous[test]))]
        apart, apart_p = distance(*sides, seed)
    found = fitted.continuous
    return Judgement(
        rows=len(test),
        unseen=unseen,
        log_likelihood=own[0].mean().item(),
        error=errors[0],
        candidates={} if found is None else {k.name: (k.log_likelihood, k.error) for k in found.candidates},
        chosen="" if found is None else found.won,
        gap=gap,
        gap_error=math.hypot(*errors) / columns if unseen else math.nan,
        calibration=sizes,
        calibration_p=chances,
        distance=apart,
        distance_p=apart_p,
        round_trip=_round_trip(model, rows, y, test),
        bound=not schema.exact,
    )


def _log_prob(model: RowModel, rows: Encoded, y: Tensor | None, part: Tensor) -> Tensor:
    context = None if y is None else y[part]
    return model.log_prob(rows.discrete[part], rows.continuous[part], context) + rows.log_jacobian[part]


def _together(schema: Schema, states: Tensor, numbers: Tensor) -> Tensor:
    """All coordinates as numbers of about unit scale, bounded, so that a single far one does not decide."""
    from pushforward.tabular.discrete import one_hot

    return torch.cat([one_hot(states, schema.levels).double(), numbers.clamp(-8, 8)], dim=-1)


def _round_trip(model: RowModel, rows: Encoded, y: Tensor | None, part: Tensor) -> float:
    from pushforward.tabular.row_model import given_states

    if model.continuous is None:
        return 0.0
    given = given_states(rows.discrete[part], model.levels, None if y is None else y[part])
    u = rows.continuous[part]
    back = model.continuous.from_base(model.continuous.to_base(u, given), given)
    return ((back - u).abs() / u.abs().clamp_min(1.0)).max().item()
