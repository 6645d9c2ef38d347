"""Pictures of densities of the plane."""

from collections.abc import Callable, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pushforward.plotting.panels import (
    Window,
    draw_points,
    fit_windows,
    panels,
    step_titles,
    to_numpy,
    window_of,
    windows_for,
)
from pushforward.plotting.style import DENSITY, INK, ORANGE, house_style

BLOCK = 20_000
LogProb = Callable[[Tensor], Tensor]


@torch.no_grad()
def density_grid(
    log_prob: LogProb,
    window: Window,
    resolution: int = 200,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A log-density at the midpoints of `resolution` by `resolution` equal cells of the window.

    Args:
        log_prob: from `(n, 2)` to `(n,)`, in nats; called on blocks of 20,000 points.
        window: `((x0, x1), (y0, y1))`.
        resolution: number of cells along each axis.
        dtype, device: of the points; by default torch's defaults.

    Returns:
        `x`, shape `(resolution,)`; `y`, shape `(resolution,)`; and the log-density, shape `(resolution, resolution)`,
        whose entry `[i, j]` is that of `(x[j], y[i])`. All on the CPU.

    Example:
        >>> normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        >>> x, y, log_density = density_grid(normal.log_prob, ((-5, 5), (-5, 5)))
        >>> round((log_density.exp().sum() * (x[1] - x[0]) * (y[1] - y[0])).item(), 3)
        1.0
    """
    offsets = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution
    x, y = ((low + (high - low) * offsets).to(dtype or torch.get_default_dtype()) for low, high in window)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
    values = torch.cat([log_prob(block.to(device)).cpu() for block in grid.split(BLOCK)])
    return x, y, values.reshape(resolution, resolution)


@torch.no_grad()
def window_of_density(
    log_prob: LogProb,
    *,
    reach: float = 20.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Window:
    """A window about the bulk of a density, found on three ever finer grids from `[-reach, reach]^2` inwards.

    Raises:
        ValueError: the density is finite nowhere on the grid.
    """
    window: Window = ((-reach, reach), (-reach, reach))
    for _ in range(3):
        x, y, log_density = density_grid(log_prob, window, 120, dtype=dtype, device=device)
        if not log_density.isfinite().any():
            raise ValueError(f"expected a density with mass within {reach} of the origin, got none; give a window")
        bulk = log_density.nan_to_num(-torch.inf) > log_density[log_density.isfinite()].max() - 6
        window = (_bounds(x[bulk.any(0)], x), _bounds(y[bulk.any(1)], y))
    return window


@house_style
def density_2d(
    log_prob: LogProb,
    window: Window | None = None,
    *,
    data: Tensor | None = None,
    samples: Tensor | None = None,
    columns: Sequence[str] = ("$x_1$", "$x_2$"),
    title: str | None = None,
    resolution: int = 200,
    colorbar: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Figure:
    """Image of a density of the plane, with points on top.

    Args:
        log_prob: from `(n, 2)` to `(n,)`, in nats.
        window: `((x0, x1), (y0, y1))`; by default about the data, the samples, or the bulk of the density.
        data, samples: shape `(*batch, 2)`, drawn as points.
        columns: names of the two coordinates.
        title: over the image.
        resolution: cells along each axis.
        colorbar: whether to show the scale of the density.
        dtype, device: of the points at which the density is evaluated.

    Returns:
        A figure of one panel. Colours are linear in the density, up to the level above which 1 % of the mass lies.
    """
    if window is None:
        points = data if data is not None else samples
        if points is not None:
            window = window_of(points)
        else:
            window = window_of_density(log_prob, dtype=dtype, device=device)
    figure, (ax,), (window,) = panels([window], [title], width=3.6)
    image, label = _draw(ax, log_prob, window, resolution, dtype, device)
    if colorbar:
        bar = figure.colorbar(image, ax=ax, label=label, fraction=0.05, pad=0.02, aspect=30, ticks=MaxNLocator(5))
        bar.outline.set_visible(False)
    ax.set_xlabel(columns[0])
    ax.set_ylabel(columns[1])
    for points, name, color in ((data, "data", ORANGE), (samples, "samples", INK)):
        if points is not None:
            draw_points(ax, to_numpy(points), color, inches=3.6, label=name)
    if data is not None and samples is not None:
        ax.legend(loc="upper right", handletextpad=0.1, markerscale=2)
    return figure


@house_style
def steps_density(
    log_probs: Sequence[LogProb],
    windows: Window | Sequence[Window] | None = None,
    titles: Sequence[str] | None = None,
    *,
    resolution: int = 120,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Figure:
    """Small multiples of densities: how the layers of a flow turn the base into the model.

    Args:
        log_probs: the densities after 0, 1, ..., K layers, each from `(n, 2)` to `(n,)`, in nats.
        windows: one for all panels or one for each; by default one about the bulk of all
            densities, unless that would be too wide for some panel.
        titles: one per panel; by default "base", "layer 1", ....
        resolution: cells along each axis of a panel.
        dtype, device: of the points at which the densities are evaluated.

    Returns:
        A figure of K + 1 panels, at most six in a row. Each panel has its own scale of colours.

    Raises:
        ValueError: there are no densities, or not as many windows or titles.
    """
    titles = step_titles(titles, len(log_probs))
    if windows is None:
        windows = fit_windows([window_of_density(log_prob, dtype=dtype, device=device) for log_prob in log_probs])
    windows = windows_for(windows, len(log_probs))
    figure, axes, windows = panels(windows, titles, width=1.3)
    for ax, log_prob, window in zip(axes, log_probs, windows, strict=True):
        _draw(ax, log_prob, window, resolution, dtype, device)
    return figure


def _draw(
    ax: Axes,
    log_prob: LogProb,
    window: Window,
    resolution: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[AxesImage, str]:
    """The image of a density in a panel, and what its colours stand for."""
    *_, log_density = density_grid(log_prob, window, resolution, dtype=dtype, device=device)
    log_density = log_density.double()
    peak = log_density.nan_to_num(-torch.inf, posinf=-torch.inf).max()
    # An unnormalised density can lie beyond what exp can hold.
    representable = peak.abs() < 100 or not peak.isfinite()
    density = (log_density if representable else log_density - peak).exp()
    image = ax.imshow(
        density.numpy(),
        cmap=DENSITY,
        vmin=0,
        vmax=_highest(density),
        origin="lower",
        extent=(*window[0], *window[1]),
        aspect="auto",
        interpolation="bilinear",
    )
    return image, "density" if representable else "density / its maximum"


def _highest(density: Tensor) -> float:
    """The level above which 1 % of the mass lies."""
    levels = density[density.isfinite()].sort(descending=True).values
    if not levels.numel() or not levels[0] > 0:
        return 1.0
    mass = levels.cumsum(0)
    return levels[torch.searchsorted(mass, 0.01 * mass[-1])].item()


def _bounds(bulk: Tensor, axis: Tensor) -> tuple[float, float]:
    """What the cells of the bulk span on an axis, and two cells on each side."""
    cell = (axis[1] - axis[0]).item()
    return bulk.min().item() - 2 * cell, bulk.max().item() + 2 * cell
