"""Pictures of single columns: how their entries are distributed, in data and in samples."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from pushforward.plotting.panels import span_of
from pushforward.plotting.style import BLUE, INK, ORANGE, Array, house_style, new_figure

Entries = Tensor | Sequence[str | None]
MOST_BINS, FEWEST_BINS = 40, 10
MOST_LEVELS = 10
LONGEST = 14  # letters of a level
SPREAD = 50.0  # a positive column whose high quantile is so many times its median gets a logarithmic axis
BAND = 0.999


@house_style
def histograms(
    samples: Mapping[str, Entries], data: Mapping[str, Entries] | None = None, *, columns: int = 4
) -> Figure:
    """The distribution of each column: a density of numbers, or the share of each level, where they are not missing.

    Args:
        samples: by column, numbers `(n,)` with NaN where missing, or levels with None where missing.
        data: the same columns, to compare with.
        columns: at most so many panels in a row.

    Returns:
        A figure with one panel per column; where entries are missing it says how many.

    Raises:
        ValueError: there is no column, or the columns differ.

    Example:
        >>> figure = histograms({"size": torch.tensor([1.7, 1.8, 1.6]), "colour": ["red", "blue", None]})
        >>> figure.axes[1].get_xlabel()
        'missing 33.3 %'
    """
    if not samples or (data is not None and set(data) != set(samples)):
        raise ValueError(f"expected the same columns, at least one, got {list(samples)} and {list(data or [])}")
    figure, axes = _grid(len(samples), columns)
    for ax, (name, drawn) in zip(axes, samples.items(), strict=True):
        real = None if data is None else data[name]
        if isinstance(drawn, Tensor):
            _draw_numbers(ax, _numbers(drawn), None if real is None else _numbers(real))
        else:
            _draw_levels(ax, drawn, real)
        ax.set_title(_short(name, 28))
        ax.set_xlabel(_gaps(drawn, real), fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    if data is not None:
        handles = [Patch(**_look(kind)) for kind in ("data", "samples")]
        figure.legend(handles, ["data", "samples"], loc="outside upper right", ncols=2)
    return figure


@house_style
def calibration_plot(draws: Mapping[str, Tensor], data: Mapping[str, Tensor], *, columns: int = 4) -> Figure:
    """Of each column, the distribution function of the data against that of the draws: a diagonal if they agree.

    The band is where 99.9 % of such curves lie whole, were both from one distribution.

    Args:
        draws: by column, numbers `(m,)`; they may repeat.
        data: the same columns, `(n,)`.
        columns: at most so many panels in a row.

    Returns:
        A figure with one panel per column.

    Raises:
        ValueError: there is no column, or the columns differ.

    Reference:
        Massart, The Tight Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality, 1990.
    """
    if not draws or set(draws) != set(data):
        raise ValueError(f"expected the same columns, at least one, got {list(draws)} and {list(data)}")
    figure, axes = _grid(len(draws), columns, square=True)
    for i, (ax, (name, drawn)) in enumerate(zip(axes, draws.items(), strict=True)):
        real = data[name]
        effective = len(drawn) * len(real) / (len(drawn) + len(real))
        band = math.sqrt(math.log(2 / (1 - BAND)) / (2 * effective))
        line = np.linspace(0, 1, 2)
        ax.fill_between(line, line - band, line + band, color=INK, alpha=0.08, linewidth=0)
        ax.plot(line, line, color=INK, linewidth=0.6, linestyle=(0, (4, 3)))
        places = torch.cat([drawn, real]).unique()
        shares = [torch.searchsorted(part.sort().values, places, right=True) / len(part) for part in (drawn, real)]
        x, y = (torch.cat([share.new_zeros(1), share]).numpy() for share in shares)
        few = len(places) <= MOST_LEVELS
        ax.plot(x, y, color=BLUE, marker="o" if few else "", markersize=3)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_box_aspect(1)
        ax.locator_params(nbins=3)
        ax.set_title(_short(name, 28))
        if i % columns == 0:
            ax.set_ylabel("share of data below")
        if i + columns >= len(draws):
            ax.set_xlabel("share of draws below")
    return figure


def _grid(count: int, most: int, square: bool = False) -> tuple[Figure, list[Axes]]:
    rows, columns = math.ceil(count / most), min(count, most)
    figure = new_figure(2.1 * columns + 0.4, (2.3 if square else 1.9) * rows + 0.4)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _draw_numbers(ax: Axes, samples: Array, data: Array | None) -> None:
    seen = data if data is not None and len(data) else samples
    if not len(seen):
        _say(ax, "all missing")
        return
    edges, scale = _bins(seen)
    ax.set_xscale(scale)
    for kind, values in (("samples", samples), ("data", data)):
        if values is not None and len(values):
            inside = values[(values >= edges[0]) & (values <= edges[-1])]
            weights = np.full(len(inside), 1 / len(values))
            counts, _ = np.histogram(inside, edges, weights=weights)
            ax.stairs(counts / np.diff(edges), edges, fill=kind == "samples", **_look(kind))
    ax.set_xlim(edges[0], edges[-1])
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    if scale == "linear":
        ax.locator_params(axis="x", nbins=4)


def _bins(values: Array) -> tuple[Array, str]:
    """The edges of bins, some more for more values; the same number of whole numbers in each; and the axis' scale."""
    bins = int(np.clip(2.5 * len(values) ** (1 / 3), FEWEST_BINS, MOST_BINS))
    if values.min() > 0 and np.quantile(values, 0.995) > SPREAD * np.median(values):
        low, high = np.quantile(values, [0.002, 0.998])
        return np.asarray(np.geomspace(low, max(high, 1.001 * low), bins + 1), dtype=np.float64), "log"
    low, high = span_of(values, 0.05)
    if not (values == np.floor(values)).all() or high - low > 1e6:
        return np.linspace(low, high, bins + 1), "linear"
    width = math.ceil((high - low) / bins)
    return np.arange(math.floor(low), math.ceil(high) + width + 1, width, dtype=np.float64) - 0.5, "linear"


def _draw_levels(ax: Axes, samples: Sequence[str | None], data: Entries | None) -> None:
    counts = {"samples": Counter(v for v in samples if v is not None)}
    if data is not None:
        counts["data"] = Counter(v for v in data if v is not None)
    total = sum(counts.values(), Counter())
    if not total:
        _say(ax, "all missing")
        return
    often = [level for level, _ in total.most_common(MOST_LEVELS if len(total) <= MOST_LEVELS else MOST_LEVELS - 1)]
    levels = [level for level in dict.fromkeys(sorted(total)) if level in often]
    rest = len(total) - len(levels)
    y = np.arange(len(levels) + (rest > 0))
    for kind, found in counts.items():
        shares = [found[level] for level in levels]
        shares += [found.total() - sum(shares)] * (rest > 0)
        ax.barh(y, np.array(shares) / max(found.total(), 1), height=0.7, fill=kind == "samples", **_look(kind))
    ax.set_yticks(y, [_short(level, LONGEST) for level in levels] + [f"{rest} others"] * (rest > 0))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(y) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.locator_params(axis="x", nbins=4)


def _look(kind: str) -> dict[str, Any]:
    """Samples are filled, data drawn as a line on top."""
    if kind == "samples":
        return {"facecolor": (BLUE, 0.35), "edgecolor": "none", "zorder": 1}
    return {"facecolor": "none", "edgecolor": ORANGE, "linewidth": 1.2, "zorder": 2}


def _numbers(values: Entries) -> Array:
    assert isinstance(values, Tensor)
    found: Array = values.detach().cpu().double().numpy()
    return found[np.isfinite(found)]


def _gaps(samples: Entries, data: Entries | None) -> str:
    """How many entries are missing, in words; nothing if none is."""
    shares = [f"{100 * _missing(part):.1f} %" for part in (data, samples) if part is not None]
    if set(shares) == {"0.0 %"}:
        return ""
    return f"missing {shares[0]}" + (f", of samples {shares[1]}" if len(shares) > 1 else "")


def _missing(values: Entries) -> float:
    if isinstance(values, Tensor):
        return values.isnan().double().mean().item()
    return sum(v is None for v in values) / max(len(values), 1)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])
