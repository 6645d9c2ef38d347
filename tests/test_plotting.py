"""Figures: what is on them, without looking; looking is for people."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pushforward import plotting

WINDOW = ((-4.0, 4.0), (-4.0, 4.0))
Z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


def log_normal(x: torch.Tensor) -> torch.Tensor:
    return -0.5 * x.square().sum(-1) - np.log(2 * np.pi)


def ink(figure: Figure) -> float:
    """The standard deviation of the pixels: 0 for a blank page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return float(np.asarray(canvas.buffer_rgba())[..., :3].std())


def test_density_grid_integrates_to_one() -> None:
    x, y, log_density = plotting.density_grid(log_normal, WINDOW, 80)
    cell = (x[1] - x[0]) * (y[1] - y[0])
    assert float(log_density.exp().sum() * cell) == pytest.approx(0.99987, abs=2e-4)  # erf(4 / sqrt(2))^2


@pytest.mark.parametrize(
    ("figure", "panels"),
    [
        (lambda: plotting.density_2d(log_normal, WINDOW, data=Z, resolution=40, colorbar=False), 1),
        (lambda: plotting.scatter_panels([("a", Z), ("b", 2 * Z), ("c", Z + 1)], WINDOW), 3),
        (lambda: plotting.steps_samples([Z, 2 * Z, 3 * Z], colors=plotting.angle_colors(Z)), 3),
        (lambda: plotting.steps_density([log_normal, log_normal], WINDOW, resolution=30), 2),
        (lambda: plotting.training_curve([3.0, 2.0, 1.5] * 20, [(20, 1.8), (40, 1.7)], reference=("exact", 1.0)), 1),
    ],
    ids=["density_2d", "scatter_panels", "steps_samples", "steps_density", "training_curve"],
)
def test_figures_have_their_panels_and_are_not_blank(figure, panels: int) -> None:  # type: ignore[no-untyped-def]
    drawn = figure()
    assert len([ax for ax in drawn.axes if ax.get_visible() and ax.has_data()]) == panels
    assert ink(drawn) > 1


def test_animation_has_its_frames(tmp_path: Path) -> None:
    frames = [plotting.scatter_panels([("", k * Z)], WINDOW) for k in (1.0, 1.5, 2.0)]
    plotting.animation(frames, tmp_path / "path.gif", dpi=40)
    with Image.open(tmp_path / "path.gif") as image:
        assert getattr(image, "n_frames", 1) == 3


def test_training_curve_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="finite"):
        plotting.training_curve([float("nan")] * 3)


def test_a_figure_is_written_whole(tmp_path: Path) -> None:
    plotting.save_figure(plotting.scatter_panels([("", Z)], WINDOW), tmp_path / "new" / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_leaves_pyplot_alone() -> None:
    code = "import sys, pushforward.plotting; assert 'matplotlib.pyplot' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
