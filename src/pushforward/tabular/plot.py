"""Pictures of a density of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.tabular.columns.levels import Levels
from pushforward.tabular.sources import columns_as_lists, read_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pushforward.tabular.data_fit import DataFit

DRAWS = 4000
MOST_PAIRED = 6
MOST_HISTOGRAMS = 40


def plot(fit: DataFit, data: Any = None, context: Any = None) -> Figure:
    """New rows, and those of a table if one is given: all pairs of columns of numbers, or else each by itself."""
    draws = fit.sample(None if context is not None else DRAWS, context, seed=0)
    return pairs(fit, draws, data) or columns(fit, draws, data)


def pairs(fit: DataFit, draws: Any, data: Any = None) -> Figure | None:
    """Scatter plots of all pairs of columns of numbers, at most six of them; None of less than two."""
    from pushforward.plotting import pair_plot

    names = list(fit.schema.continuous_names)[:MOST_PAIRED]
    if len(names) < 2:
        return None
    parts = [None if table is None else _stacked(entries(fit, table), names) for table in (draws, data)]
    if any(part is not None and not bool(part.isfinite().all(-1).any()) for part in parts):
        return None
    assert parts[0] is not None
    figure: Figure = pair_plot(parts[0], parts[1], [str(name) for name in names])
    return figure


def columns(fit: DataFit, draws: Any, data: Any = None) -> Figure:
    """The distribution of each column, of the first 40."""
    from pushforward.plotting import histograms

    parts = [None if table is None else entries(fit, table) for table in (draws, data)]
    first, second = (None if part is None else dict(list(part.items())[:MOST_HISTOGRAMS]) for part in parts)
    assert first is not None
    figure: Figure = histograms(first, second)
    return figure


def entries(fit: DataFit, table: Any) -> dict[str, Tensor | list[str | None]]:
    """By column, numbers with NaN where missing, or levels as text with None where missing."""
    _, found = read_columns(table)
    levels = [name for name, kind in fit.schema.kinds.items() if isinstance(kind, Levels)]
    texts = columns_as_lists(table) if levels else {}
    answer: dict[str, Tensor | list[str | None]] = {}
    for name in fit.schema.kinds:
        if name in levels:
            answer[str(name)] = [None if entry is None else level_text(entry) for entry in texts[str(name)]]
            continue
        column = found[name]
        values = torch.from_numpy(column.values.astype(float))
        answer[str(name)] = torch.where(torch.from_numpy(column.missing), torch.nan, values)
    return answer


def level_text(entry: Any) -> str:
    """A level as text."""
    return f"{entry:g}" if isinstance(entry, float) else str(entry)


def _stacked(found: dict[str, Tensor | list[str | None]], names: list[Any]) -> Tensor:
    return torch.stack([torch.as_tensor(found[str(name)]) for name in names], dim=-1)
