"""Pictures of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from pushforward.plotting.panels import (
    Window,
    draw_points,
    fit_windows,
    panels,
    span_of,
    step_titles,
    to_colors,
    to_numpy,
    window_of,
    windows_for,
)
from pushforward.plotting.style import BLUE, ORANGE, Array, house_style, new_figure, oklch

MAX_FEATURES = 8
MAX_POINTS = 2000


def angle_colors(samples: Tensor) -> Tensor:
    """A colour per point of the plane: the hue is its angle about the median, darker means farther out.

    Points keep their colour through `steps_samples` and `scatter_panels`, so that the eye can follow them.

    Args:
        samples: shape `(n, 2)`.

    Returns:
        shape `(n, 3)`, float64: red, green, blue in [0, 1].

    Example:
        >>> angle_colors(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])).shape
        torch.Size([3, 3])
    """
    rows = to_numpy(samples)
    x, y = (rows - np.nanmedian(rows, axis=0)).T
    radius = np.hypot(x, y)
    rank = radius.argsort().argsort() / max(len(rows) - 1, 1)
    return torch.from_numpy(oklch(0.8 - 0.3 * rank, 0.13, np.rad2deg(np.arctan2(y, x))))


@house_style
def scatter_panels(
    samples: Sequence[tuple[str, Tensor]],
    windows: Window | Sequence[Window] | None = None,
    colors: Tensor | Sequence[Tensor | None] | None = None,
    *,
    columns: int = 4,
) -> Figure:
    """Scatter plots side by side, for instance of z = f(x), z ~ p(z), x, and x = g(z).

    Args:
        samples: a title and points of shape `(*batch, 2)` for each panel.
        windows: `((x0, x1), (y0, y1))` for all panels, or one for each; by default each about its own points.
        colors: for all panels, or for each its own or None. Integers or booleans, `(n,)`, are classes; floats,
            `(n,)`, a scale; `(n, 3)` red, green, blue in [0, 1].
        columns: at most so many panels in a row.

    Returns:
        A figure with one panel per entry.

    Raises:
        ValueError: a shape is wrong, or windows or colors are not as many as panels.
    """
    points = [to_numpy(x) for _, x in samples]
    own_colors = _colors_for(colors, [len(rows) for rows in points])
    windows = [window_of(x) for _, x in samples] if windows is None else windows_for(windows, len(samples))
    figure, axes, _ = panels(windows, [title for title, _ in samples], width=2.4, max_columns=columns)
    for ax, rows, color in zip(axes, points, own_colors, strict=True):
        draw_points(ax, rows, to_colors(color, len(rows)), inches=2.4)
    return figure


@house_style
def steps_samples(
    samples: Sequence[Tensor],
    titles: Sequence[str] | None = None,
    colors: Tensor | None = None,
    *,
    windows: Window | Sequence[Window] | None = None,
) -> Figure:
    """Small multiples of the same points on their way from the base through the layers to the data.

    Args:
        samples: the points after 0, 1, ..., K layers, each of shape `(n, 2)`; row i is one point throughout.
        titles: one per panel; by default "base", "layer 1", ....
        colors: as in `scatter_panels`; by default `angle_colors` of the first panel.
        windows: one for all panels or one for each; by default one about all points, unless that would be too wide for
            some panel.

    Returns:
        A figure of K + 1 panels, at most six in a row.

    Raises:
        ValueError: there are no samples, shapes differ, or there are not as many windows or titles as panels.
    """
    titles = step_titles(titles, len(samples))
    points = [to_numpy(x) for x in samples]
    if any(len(rows) != len(points[0]) for rows in points):
        raise ValueError(f"expected the same points at every step, got {[len(rows) for rows in points]} of them")
    color = to_colors(angle_colors(samples[0]) if colors is None else colors, len(points[0]))
    windows = windows_for(windows or fit_windows([window_of(x) for x in samples]), len(samples))
    figure, axes, _ = panels(windows, titles, width=1.3)
    for ax, rows in zip(axes, points, strict=True):
        draw_points(ax, rows, color, inches=1.3)
    return figure


@house_style
def pair_plot(
    samples: Tensor,
    data: Tensor | None = None,
    columns: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Every pair of coordinates as a scatter plot, below the histograms of each on the diagonal.

    Args:
        samples: shape `(*batch, d)` with d from 2 to 8.
        data: shape `(*batch, d)`, to compare with.
        columns: d names; by default $x_1, x_2, ...$.
        title: over the figure.

    Returns:
        A figure with d (d + 1) / 2 panels. At most 2,000 points of each kind are drawn; the histograms have them all.

    Raises:
        ValueError: d is not from 2 to 8, or the shapes differ.
    """
    features = samples.shape[-1] if samples.dim() else 0
    if not 2 <= features <= MAX_FEATURES:
        raise ValueError(f"expected samples with 2 to {MAX_FEATURES} columns, got shape {tuple(samples.shape)}")
    names = [f"$x_{{{i + 1}}}$" for i in range(features)] if columns is None else list(columns)
    if len(names) != features:
        raise ValueError(f"expected {features} names of columns, got {len(names)}")
    kinds = [("samples", to_numpy(samples, features), BLUE)]
    if data is not None:
        kinds.insert(0, ("data", to_numpy(data, features), ORANGE))
    kinds = [(name, rows[np.isfinite(rows).all(-1)], color) for name, rows, color in kinds]
    spans = [span_of(kinds[0][1][:, i]) for i in range(features)]
    points, colors = _shuffled([(rows[:MAX_POINTS], color) for _, rows, color in kinds])
    width = max(1.0, min(1.6, 8 / features))
    figure = new_figure(features * width + 0.4, features * width + 0.4)
    grid = figure.subplots(features, features, squeeze=False, sharex="col")
    for i in range(features):
        for j in range(features):
            ax = grid[i, j]
            if j > i:
                ax.remove()
                continue
            ax.set_box_aspect(1)
            ax.set_xlim(spans[j])
            ax.locator_params(nbins=3)
            ax.label_outer()
            if i == j:
                ax.spines[["left", "top", "right"]].set_visible(False)
                ax.set_yticks([])
                edges = np.linspace(*spans[j], 31)
                for name, rows, color in kinds:
                    filled = name == "samples" or len(kinds) == 1
                    shown = rows[(rows[:, j] >= edges[0]) & (rows[:, j] <= edges[-1]), j]
                    ax.hist(
                        shown,
                        edges,
                        density=len(shown) > 0,
                        histtype="stepfilled" if filled else "step",
                        color=(color, 0.35) if filled else color,
                        zorder=1 if filled else 2,
                        label=name,
                    )
            else:
                ax.set_ylim(spans[i])
                draw_points(ax, points[:, [j, i]], colors, inches=width)
            if i == features - 1:
                ax.set_xlabel(names[j])
            if j == 0 and i > 0:
                ax.set_ylabel(names[i])
    if len(kinds) == 2:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right")
    if title:
        figure.suptitle(title)
    return figure


def _colors_for(colors: Tensor | Sequence[Tensor | None] | None, counts: Sequence[int]) -> Sequence[Tensor | None]:
    if colors is None or isinstance(colors, Tensor):
        return [colors] * len(counts)
    if len(colors) != len(counts):
        raise ValueError(f"expected {len(counts)} entries in colors, one per panel, got {len(colors)}")
    return colors


def _shuffled(kinds: Sequence[tuple[Array, str]]) -> tuple[Array, Array]:
    """Points of several kinds and their colours in one random order, so that no kind hides another."""
    points = np.concatenate([rows for rows, _ in kinds])
    colors = np.concatenate([np.tile(to_rgb(color), (len(rows), 1)) for rows, color in kinds])
    order = np.random.default_rng(0).permutation(len(points))
    return points[order], colors[order]
