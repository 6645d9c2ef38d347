"""A flow for a numeric table, in the table's own units."""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pushforward as pf
from pushforward.recipes import RECIPES
from pushforward.tabular.table import Table, check_fittable


def fit_table(
    table: Table,
    *,
    flow: str = "nsf",
    max_steps: int = 1000,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> tuple[pf.Flow, pf.TrainResult]:
    """Fit a flow to the rows of a table by maximum likelihood, with a tenth of the rows held out to stop early.

    The columns are standardised inside the model, in float64, so that densities are per unit of the table's columns.

    Args:
        table: numeric columns.
        flow: name of a recipe.
        max_steps: upper limit of the number of steps.
        seed: of weights, split and order.
        checkpoint: a file, written every 100 steps; if it exists, the same call goes on from it.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        A float64 flow of rows, `(n, columns)`, and how it was trained; its losses are in nats per row, in the table's
        units.

    Raises:
        TableError: if a column is constant or there are fewer than 10 rows.
        ValueError: if there is no recipe of that name.

    Example:
        >>> from pushforward.tabular import Table
        >>> rows = np.random.default_rng(0).normal(5.0, 2.0, size=(200, 2))
        >>> flow, result = fit_table(Table(("a", "b"), rows), flow="maf", max_steps=50)
        >>> flow.log_prob(torch.as_tensor(rows)).shape
        torch.Size([200])
    """
    check_fittable(table)
    if flow not in RECIPES:
        raise ValueError(f"expected a flow among {', '.join(sorted(RECIPES))}, got {flow!r}")
    x = torch.as_tensor(table.values)
    standardize = pf.Standardize(x.mean(0), x.std(0))
    z, log_det = standardize.inverse(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner = RECIPES[flow](len(table.columns), **_sizes(flow, len(x)))
    batch_size = min(max(len(x) // 8, 32), 512)
    result = pf.train(
        pf.MaximumLikelihood(inner),
        z.float(),
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=3e-3,
        ema=0.98,
        validation=0.1,
        validate_every=20,
        patience=5,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_every=100,
        progress=progress,
    )
    assert isinstance(inner.bijection, pf.Chain)
    whole = pf.Flow(pf.Chain(*inner.bijection.layers, standardize), inner.base).double()
    return whole, _in_units(result, -log_det[0].item())


def _sizes(flow: str, rows: int) -> dict[str, Any]:
    """As many units as some hundreds of rows can teach, at most 128, and fewer layers for less than a thousand."""
    width = 2 ** round(math.log2(np.clip(math.sqrt(4 * rows), 16, 128)))
    layers = inspect.signature(RECIPES[flow]).parameters["layers"].default
    return {"layers": layers if rows >= 1000 else math.ceil(0.6 * layers), "hidden_features": (width, width)}


def _in_units(result: pf.TrainResult, log_scale: float) -> pf.TrainResult:
    """The losses per unit of the table's columns instead of per standard deviation."""
    return pf.TrainResult(
        losses=[loss + log_scale for loss in result.losses],
        validation=[(step, loss + log_scale) for step, loss in result.validation],
        best_step=result.best_step,
        stopped=result.stopped,
        seconds=result.seconds,
    )
