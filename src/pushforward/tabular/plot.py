"""Pictures of a density of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.tabular.sources import read_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pushforward.tabular.data_fit import DataFit

DRAWS = 4000
MAX_COLUMNS = 6


def plot(fit: DataFit, data: Any = None, context: Any = None) -> Figure:
    """New rows, and those of a table if one is given: scatter plots of all pairs of columns, or a histogram of one."""
    from pushforward.plotting import histogram, pair_plot

    draws = fit.sample(None if context is not None else DRAWS, context, seed=0)
    names = [str(name) for name in fit.schema.kinds][:MAX_COLUMNS]
    samples = numbers(fit, draws)[:, :MAX_COLUMNS]
    real = None if data is None else numbers(fit, data)[:, :MAX_COLUMNS]
    if len(names) == 1:
        return histogram(samples[:, 0], None if real is None else real[:, 0], names[0])
    return pair_plot(samples, real, names)


def numbers(fit: DataFit, table: Any) -> Tensor:
    """A number for each entry, `(n, columns)`: levels by their position, NaN where missing."""
    columns = read_columns(table)[1]
    found = []
    for name in fit.schema.kinds:
        column = columns[name]
        values = torch.from_numpy(column.values.astype(float))
        found.append(torch.where(torch.from_numpy(column.missing), torch.nan, values))
    return torch.stack(found, dim=-1)
