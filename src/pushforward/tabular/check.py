"""A fit judged on a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from pushforward.tabular.fit_to_data import JUDGE_ROWS, judge
from pushforward.tabular.judge import FEWEST_ROWS, Judgement
from pushforward.tabular.row_model import context_vector
from pushforward.tabular.sources import read_columns, some_rows
from pushforward.tabular.table import TableError

if TYPE_CHECKING:
    from pushforward.tabular.data_fit import DataFit

APART = 1_000_003  # the rows may be draws of the model under the same seed; they are compared with others


def check(fit: DataFit, data: Any, context: Any = None, *, seed: int = 0) -> Judgement:
    """The figures and the verdict of a fit on the rows of a table, of which at most 5,000 are looked at.

    Args:
        fit: a density.
        data: a table with its columns, 20 rows or more.
        context: with the context's columns and as many rows.
        seed: of the draws that the rows are compared with.

    Raises:
        TableError: columns are missing, entries unusable, or rows too few.
    """
    rows = len(next(iter(read_columns(data)[1].values())))
    if rows < FEWEST_ROWS:
        raise TableError(f"expected {FEWEST_ROWS} or more rows to judge on, got {rows}")
    y = None
    if fit.context_schema is not None:
        y = context_vector(fit.context_schema, some_rows(context, JUDGE_ROWS))
    encoded = fit.schema.encode(some_rows(data, JUDGE_ROWS), torch.Generator().manual_seed(seed))
    judgement = judge(fit.model, fit.schema, encoded, y, seen=None, found=None, seed=seed + APART)
    return replace(judgement, unseen=None)
