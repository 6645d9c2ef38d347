"""A chosen recipe for columns of numbers."""

from __future__ import annotations

from typing import Any

import torch

from pushforward.bijections import Chain, Standardize
from pushforward.flow import Flow
from pushforward.tabular.columns import Kind, Name, Real
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.fit import fit_table
from pushforward.tabular.fit_to_data import JUDGE_ROWS, judge
from pushforward.tabular.history import History
from pushforward.tabular.row_model import RowModel
from pushforward.tabular.schema import Schema
from pushforward.tabular.sources import TableSource, numeric_table
from pushforward.tabular.table import Table


def fit_recipe(data: Any, *, flow: str = "nsf", max_steps: int = 1000, seed: int = 0, **options: Any) -> DataFit:
    """Train a flow of a chosen recipe on columns of numbers, each taken as real as it stands.

    Numbers that repeat, as rounded ones do, are taken for exact; `fit_to_data` looks after them. Draws are a `Table`.

    Args:
        data: a table of finite numbers.
        flow: name of a recipe.
        max_steps: upper limit of the number of steps.
        seed: of everything random.
        options: of `fit_table`.

    Raises:
        TableError: an entry is no finite number, a column is constant, or there are fewer than 10 rows.
        ValueError: there is no recipe of that name.

    Example:
        >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> fit = fit_recipe(x, flow="maf", max_steps=20)
        >>> fit.log_prob(x).shape
        torch.Size([100])
    """
    table = numeric_table(data)
    whole, result = fit_table(table, flow=flow, max_steps=max_steps, seed=seed, **options)
    assert isinstance(whole.bijection, Chain)
    layers: list[Any] = list(whole.bijection.layers)
    standardize = layers.pop()
    assert isinstance(standardize, Standardize)
    pairs = zip(table.columns, standardize.loc.tolist(), standardize.scale.tolist(), strict=True)
    kinds: dict[Name, Kind] = {name: Real(step=0.0, loc=loc, scale=scale) for name, loc, scale in pairs}
    schema = Schema(kinds, len(table.values), TableSource())
    model = RowModel(None, Flow(Chain(*layers), whole.base).double())
    some = torch.linspace(0, schema.rows - 1, min(schema.rows, JUDGE_ROWS)).long()
    rows = schema.encode(Table(table.columns, table.values[some]))
    judgement = judge(model, schema, rows, None, seen=None, found=None, seed=seed)
    history = History(schema.rows, result.seconds, runs={f"flow ({flow})": result})
    return DataFit(schema, None, model, judgement, history, {})
