"""Panels: their windows, shapes and points."""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pushforward.plotting.style import BLUE, CLASSES, SCALE, Array, new_figure

Window = tuple[tuple[float, float], tuple[float, float]]
MAX_COLUMNS = 6
MAX_ELONGATION = 3.0


def to_numpy(samples: Tensor, features: int | None = 2) -> Array:
    """Samples of shape `(*batch, features)` as an array of shape `(n, features)`, float64."""
    samples = torch.as_tensor(samples)
    if samples.dim() == 0 or (features is not None and samples.shape[-1] != features):
        raise ValueError(f"expected samples with trailing shape ({features},), got {tuple(samples.shape)}")
    rows: Array = samples.detach().cpu().double().reshape(-1, samples.shape[-1]).numpy()
    return rows


def window_of(samples: Tensor, margin: float = 0.1) -> Window:
    """A window that shows the samples but is not stretched by outliers.

    It spans the central 99 % of each coordinate, all of it if that is not much wider, and a margin.

    Args:
        samples: shape `(*batch, 2)`; rows that are not finite are left out.
        margin: on each side, as a fraction of the span.

    Raises:
        ValueError: no row is finite.

    Example:
        >>> window_of(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), margin=0.5)
        ((-0.5, 1.5), (-1.0, 3.0))
    """
    rows = to_numpy(samples)
    rows = rows[np.isfinite(rows).all(-1)]
    return span_of(rows[:, 0], margin), span_of(rows[:, 1], margin)


def span_of(values: Array, margin: float = 0.1) -> tuple[float, float]:
    """The interval of one coordinate, as in `window_of`."""
    if not len(values):
        raise ValueError("expected samples with finite rows, got none")
    low, high = np.quantile(values, [0.005, 0.995])
    beyond = 0.25 * (high - low)
    low, high = max(values.min(), low - beyond), min(values.max(), high + beyond)
    pad = margin * (high - low) or 0.5
    return float(low - pad), float(high + pad)


def panels(
    windows: Sequence[Window], titles: Sequence[str | None], *, width: float, max_columns: int = MAX_COLUMNS
) -> tuple[Figure, list[Axes], list[Window]]:
    """A grid of panels of one shape, each `width` inches wide, and the windows they show.

    Units are equal on both axes of a panel, its window widened where that takes it, unless one side is more than
    `MAX_ELONGATION` times the other: such axes rarely share units.
    """
    common = all(window == windows[0] for window in windows)
    shape = _aspect(windows[0]) if common and not _elongated(windows[0]) else 1.0
    windows = [window if _elongated(window) else _widened(window, shape) for window in windows]
    rows = math.ceil(len(windows) / max_columns)
    columns = math.ceil(len(windows) / rows)
    figure = new_figure(columns * width + 0.4, rows * (shape * width + 0.2) + 0.2)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(windows) :]:
        unused.remove()
    axes = axes[: len(windows)]
    for i, (ax, window, title) in enumerate(zip(axes, windows, titles, strict=True)):
        ax.set_xlim(window[0])
        ax.set_ylim(window[1])
        ax.set_box_aspect(shape)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5 if width > 2 else 4, steps=[1, 2, 5, 10]))
        ax.tick_params(labelsize=8 if width > 2 else 7)
        if title:
            ax.set_title(title)
        if common:
            left, bottom = i % columns == 0, i // columns == rows - 1
            ax.tick_params(left=left, labelleft=left, bottom=bottom, labelbottom=bottom)
    return figure, axes, windows


def windows_for(windows: Window | Sequence[Window], n: int) -> list[Window]:
    """The windows of `n` panels from one for all or one for each."""
    if isinstance(windows[0][0], int | float):
        return [cast(Window, windows)] * n
    if len(windows) != n:
        raise ValueError(f"expected {n} windows, one per panel, got {len(windows)}")
    return list(cast(Sequence[Window], windows))


def fit_windows(windows: Sequence[Window]) -> list[Window]:
    """Their union in place of each, unless one of them would fill less than a third of it."""
    x, y = ((min(side[0] for side in sides), max(side[1] for side in sides)) for sides in zip(*windows, strict=True))
    smallest = min(max(x1 - x0, y1 - y0) for (x0, x1), (y0, y1) in windows)
    if smallest > max(x[1] - x[0], y[1] - y[0]) / 3:
        return [(x, y)] * len(windows)
    return list(windows)


def draw_points(
    ax: Axes, points: Array, colors: Array | str, *, inches: float, label: str | None = None, at_most: int = 5000
) -> None:
    """Dots of a size and an opacity that suit their number and the width of the panel."""
    points = points[:at_most]
    if not isinstance(colors, str):
        colors = colors[:at_most]
    crowd = max(len(points), 1) / 1000
    ax.scatter(
        points[:, 0],
        points[:, 1],
        s=min(max(1.5 * inches * crowd**-0.5, 0.8), 8.0),
        c=colors,
        alpha=min(max(0.75 * crowd**-0.25, 0.4), 0.9),
        linewidths=0,
        label=label,
        rasterized=len(points) > 1000,
    )


def to_colors(colors: Tensor | None, n: int) -> Array | str:
    """One colour for all `n` points, or one each.

    Args:
        colors: `(n,)` integers or booleans, which are classes; `(n,)` floats, which are mapped to a colour scale; or
            `(n, 3)` red, green, blue in [0, 1].
    """
    if colors is None:
        return BLUE
    colors = torch.as_tensor(colors).detach().cpu()
    if colors.shape not in ((n,), (n, 3)):
        raise ValueError(f"expected colors with shape ({n},) or ({n}, 3), got {tuple(colors.shape)}")
    if colors.dim() == 2:
        return np.asarray(colors.double().numpy())
    if colors.is_floating_point():
        low, high = colors.min(), colors.max()
        return np.asarray(SCALE(((colors - low) / (high - low).clamp_min(1e-12)).numpy())[:, :3])
    return np.array([to_rgb(CLASSES[k % len(CLASSES)]) for k in colors.long().tolist()])


def step_titles(titles: Sequence[str] | None, n: int) -> Sequence[str]:
    """The titles of the base and of n - 1 layers."""
    if n == 0:
        raise ValueError("expected at least one step, got none")
    if titles is None:
        return ["base", *(f"layer {k}" for k in range(1, n))]
    if len(titles) != n:
        raise ValueError(f"expected {n} titles, one per panel, got {len(titles)}")
    return titles


def _aspect(window: Window) -> float:
    (x0, x1), (y0, y1) = window
    return (y1 - y0) / (x1 - x0)


def _elongated(window: Window) -> bool:
    return not 1 / MAX_ELONGATION <= _aspect(window) <= MAX_ELONGATION


def _widened(window: Window, shape: float) -> Window:
    """The window with one side lengthened about its centre so that height / width = shape."""
    (x0, x1), (y0, y1) = window
    width, height = max(x1 - x0, (y1 - y0) / shape), max(y1 - y0, (x1 - x0) * shape)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return (x - width / 2, x + width / 2), (y - height / 2, y + height / 2)
