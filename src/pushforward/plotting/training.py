"""The course of training."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pushforward.plotting.style import BLUE, INK, ORANGE, Array, house_style, new_figure

POSITIONS = 400


@house_style
def training_curve(
    losses: Sequence[float],
    validation: Sequence[tuple[int, float]] | None = None,
    *,
    label: str = "loss (nats)",
    smooth: bool = True,
    reference: tuple[str, float] | None = None,
    title: str | None = None,
) -> Figure:
    """The loss of every step, its running median, and what it is measured against.

    Args:
        losses: one per step, the first at step 1.
        validation: pairs of a step and the loss on held-out data.
        label: of the axis of the loss, with its unit.
        smooth: whether to draw the running median over the faint raw losses.
        reference: a name and a level, for instance the entropy of the target, drawn as a line.
        title: over the figure.

    Returns:
        A figure of one panel, whose range leaves out the first spike and stray losses.

    Raises:
        ValueError: there is no finite loss.
    """
    raw = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(raw).any():
        raise ValueError(f"expected at least one finite loss, got none among {len(raw)}")
    steps = np.arange(1, len(raw) + 1)
    figure = new_figure(4.8, 3.0)
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    smooth = smooth and len(raw) >= 20
    ax.plot(steps, raw, color=BLUE, alpha=0.3 if smooth else 1.0, linewidth=0.5 if smooth else 1.2, label="each step")
    shown = [raw[len(raw) // 20 :]]
    if smooth:
        centers, median = _running_median(raw)
        ax.plot(centers, median, color=BLUE, label="running median")
    if validation:
        at, held_out = np.asarray(validation, dtype=np.float64).T
        ax.plot(at, held_out, color=ORANGE, marker="o", markersize=3, linewidth=1.0, label="held out")
        shown.append(held_out[len(held_out) // 20 :])
    low, high = _robust_limits(np.concatenate(shown))
    if reference is not None:
        name, level = reference
        ax.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=name)
        low, high = min(low, level), max(high, level)
    margin = 0.06 * (high - low) or 0.5
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlim(0, len(raw) + 1)
    ax.set_xlabel("step")
    ax.set_ylabel(label)
    if len(ax.lines) > 1:
        ax.legend(loc="upper right")
    if title:
        ax.set_title(title)
    return figure


def _running_median(values: Array) -> tuple[Array, Array]:
    """Medians over windows of a fiftieth of the run, at a few hundred steps."""
    reach = max(2, len(values) // 100)
    centers = np.unique(np.linspace(0, len(values) - 1, POSITIONS).round().astype(int))
    finite = np.where(np.isfinite(values), values, np.nan)
    windows = (finite[max(0, c - reach) : c + reach + 1] for c in centers)
    medians = [np.nanmedian(w) if np.isfinite(w).any() else np.nan for w in windows]
    return centers + 1.0, np.array(medians)


def _robust_limits(values: Array) -> tuple[float, float]:
    """The range of the values without the highest and lowest hundredth of them."""
    low, high = np.quantile(values[np.isfinite(values)], [0.01, 0.99])
    return float(low), float(high)
