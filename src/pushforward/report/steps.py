"""The picture of draws on their way through the layers of a flow."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.plotting import angle_colors, histograms, steps_samples
from pushforward.report.page import Picture, Section

MOST, LONGEST = 17, 16


def steps_section(titles: Sequence[str], points: Sequence[Tensor], names: Sequence[str], what: str) -> Section:
    """Draws of the base and after each layer, of two coordinates: of many, of the two most correlated in the end.

    Args:
        titles: of the steps.
        points: after 0, 1, ..., K layers, each `(n, features)`.
        names: of the coordinates.
        what: they are, in the plural, for the caption.
    """
    text = "Draws of the base, and where each layer takes them; a point keeps its colour."
    if len(points) == 1:
        text = "The density is that of the base, which has no layers."
    kept = torch.linspace(0, len(points) - 1, min(len(points), MOST)).round().long().tolist()
    titles, points = [_broken(titles[k]) for k in kept], [points[k] for k in kept]
    if len(names) == 1:
        figure = histograms({title: p[:, 0] for title, p in zip(titles, points, strict=True)})
        return Section("Step by step", text, pictures=[Picture(figure, f"{what}: {names[0]}.")])
    pair = _most_correlated(points[-1])
    shown = [p[:, pair] for p in points]
    figure = steps_samples(shown, titles, angle_colors(shown[0]))
    more = ", the two most correlated ones" if len(names) > 2 else ""
    caption = f"{what}: {names[pair[0]]} and {names[pair[1]]}{more}."
    return Section("Step by step", text, pictures=[Picture(figure, caption)])


def _broken(title: str) -> str:
    """A long name of a class over several lines."""
    return title if len(title) <= LONGEST else re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", title)


def _most_correlated(points: Tensor) -> list[int]:
    correlation = torch.corrcoef(points.T).abs().nan_to_num().triu(1)
    first, second = divmod(int(correlation.argmax()), len(correlation))
    return [first, second] if first != second else [0, 1]
