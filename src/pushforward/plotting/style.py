"""The one style of all figures: fonts, lines, colours. Nothing here touches pyplot or global settings."""

import functools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pushforward.files import write_atomically

Array = NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")

DPI = 150
PADDING = 0.04  # inches

INK = "#262626"
BLUE, ORANGE = "#0072B2", "#D55E00"
CLASSES = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: safe for the colour-blind

SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.titlepad": 4,
    "lines.linewidth": 1.4,
    "figure.dpi": 100,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.04,
}

OKLAB_TO_CONES = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


class NotebookFigure(Figure):
    """A figure that notebooks show although it was made without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=PADDING)
        return buffer.getvalue()


def house_style(function: Callable[P, R]) -> Callable[P, R]:
    """Run a plotting function without gradients and under the settings of this module."""

    @functools.wraps(function)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad(), matplotlib.rc_context(SETTINGS):
            return function(*args, **kwargs)

    return styled


def new_figure(width: float, height: float) -> Figure:
    """An empty figure on the Agg canvas, sizes in inches."""
    figure = NotebookFigure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path, *, dpi: int = DPI) -> None:
    """Write a figure to `path`, whole or not at all; the suffix says the format (png, pdf, svg).

    Folders above `path` are made where they are missing.

    Raises:
        ValueError: the format is unknown.
        OSError: the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=dpi, bbox_inches="tight", pad_inches=PADDING)


def oklch(lightness: ArrayLike, chroma: ArrayLike, hue: ArrayLike) -> Array:
    """sRGB of a colour given in the perceptual space OKLCH (Ottosson, "A perceptual color space", 2020).

    Args:
        lightness, chroma: about [0, 1] and [0, 0.3], broadcastable.
        hue: degrees.

    Returns:
        shape `(*batch, 3)`, clipped to [0, 1].
    """
    lightness, chroma, hue = np.broadcast_arrays(lightness, chroma, np.deg2rad(hue))
    cones = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1) @ OKLAB_TO_CONES.T
    linear = (cones**3 @ CONES_TO_RGB.T).clip(0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def _density_colormap() -> Colormap:
    """White to dark blue at a constant rate of lightness: equal steps of density are equal steps for the eye."""
    t = np.linspace(0, 1, 256)
    colors = oklch(1 - 0.72 * t, 0.06 * t + 0.09 * np.sin(np.pi * t), 235 + 35 * t)
    return ListedColormap(colors, "density").with_extremes(bad="#d0d0d0")


DENSITY = _density_colormap()
SCALE = matplotlib.colormaps["viridis"]
