"""Figures: what is on them, without looking; looking is for people."""

import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pushforward import plotting
from pushforward.targets import TwoMoons, faithful

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


def off_centre(x: torch.Tensor) -> torch.Tensor:
    return log_normal((x - torch.tensor([0.5, -0.2]).to(x)) / 0.5) - 2 * np.log(0.5)


def has_ink(figure: Figure, panels: int) -> bool:
    """As many panels as expected, and something inside each."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    boxes = [ax.get_window_extent().extents.astype(int) for ax in figure.axes]
    inside = [image[len(image) - y1 + 3 : len(image) - y0 - 3, x0 + 3 : x1 - 3] for x0, y0, x1, y1 in boxes]
    return len(boxes) == panels and all(panel.std() > 2 for panel in inside)


def mass(ax: Axes) -> float:
    """The integral of the image in a panel."""
    x0, x1, y0, y1 = ax.images[0].get_extent()
    density = np.asarray(ax.images[0].get_array())
    return float(density.mean() * (x1 - x0) * (y1 - y0))


def test_density_grid_is_evaluated_in_blocks_without_gradients() -> None:
    sizes = []

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        assert not torch.is_grad_enabled()
        return log_normal(x)

    *_, log_density = plotting.density_grid(log_prob, WINDOW, 150, dtype=torch.float64)
    assert sizes == [20_000, 2_500]
    assert log_density.dtype == torch.float64


def test_density_grid_rows_are_y() -> None:
    x, y, log_density = plotting.density_grid(off_centre, WINDOW, 100)
    row, column = divmod(int(log_density.argmax()), 100)
    assert (x[column].item(), y[row].item()) == pytest.approx((0.5, -0.2), abs=0.05)


def test_window_of_ignores_outliers() -> None:
    (x0, x1), _ = plotting.window_of(torch.cat([Z, Z, torch.tensor([[1e6, 0.0], [torch.nan, 0.0]])]))
    assert -6 < x0 < -2 < 2 < x1 < 6
    assert plotting.window_of(torch.zeros(3, 2)) == ((-0.5, 0.5), (-0.5, 0.5))
    with pytest.raises(ValueError, match="finite rows"):
        plotting.window_of(torch.full((3, 2), torch.nan))
    with pytest.raises(ValueError, match=r"trailing shape \(2,\), got \(3, 5\)"):
        plotting.window_of(torch.zeros(3, 5))


def test_window_of_density_holds_the_bulk() -> None:
    (x0, x1), (y0, y1) = plotting.window_of_density(TwoMoons().log_prob)
    assert -2 < x0 < -1.1 < 2.1 < x1 < 3
    assert -1.5 < y0 < -0.6 < 1.1 < y1 < 2
    with pytest.raises(ValueError, match="give a window"):
        plotting.window_of_density(lambda x: torch.full(x.shape[:-1], -torch.inf))


def test_density_2d_shows_the_mass_where_it_is() -> None:
    figure = plotting.density_2d(off_centre, WINDOW, resolution=80, title="normal")
    ax, bar = figure.axes
    assert mass(ax) == pytest.approx(1, abs=1e-3)
    assert (ax.get_xlabel(), ax.get_title(), bar.get_ylabel()) == ("$x_1$", "normal", "density")
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    column, height = ax.transData.transform((0.5, -0.2)).astype(int)
    assert tuple(image[0, 0]) == (255, 255, 255)
    assert image[len(image) - height, column].mean() < 60


def test_density_2d_of_any_log_density() -> None:
    """Far from normalised, zero on half of the plane, and broken: each is drawn, and the scale says what it is."""
    far = plotting.density_2d(lambda x: log_normal(x) - 5000, WINDOW, resolution=30)
    assert far.axes[1].get_ylabel() == "density / its maximum"
    half = plotting.density_2d(
        lambda x: torch.where(x[:, 0] > 0, log_normal(x), -torch.inf), WINDOW, resolution=30, colorbar=False
    )
    assert has_ink(half, 1)
    plotting.density_2d(lambda x: torch.full(x.shape[:-1], torch.nan), WINDOW, resolution=30).canvas.draw()


def test_density_2d_with_points() -> None:
    (ax,) = plotting.density_2d(log_normal, data=Z, samples=Z + 0.1, resolution=30, colorbar=False).axes
    assert [len(np.asarray(dots.get_offsets())) for dots in ax.collections] == [200, 200]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "samples"]


def test_units_are_equal_where_they_can_be() -> None:
    (ax,) = plotting.density_2d(log_normal, ((-4, 4), (-1, 2)), resolution=30, colorbar=False).axes
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(ax.get_box_aspect())
    (ax,) = plotting.scatter_panels([("geyser", faithful())]).axes
    assert ax.get_box_aspect() == 1
    assert ax.get_xlim()[1] < 10 < 90 < ax.get_ylim()[1]


def test_scatter_panels_colors() -> None:
    kinds = [None, torch.arange(200) % 3, Z[:, 0], plotting.angle_colors(Z)]
    figure = plotting.scatter_panels([("", Z)] * 4, windows=WINDOW, colors=kinds)
    counts = [len(np.unique(ax.collections[0].get_facecolors(), axis=0)) for ax in figure.axes]
    assert counts[:2] == [1, 3]
    assert min(counts[2:]) > 100
    with pytest.raises(ValueError, match=r"colors with shape \(200,\) or \(200, 3\), got \(199,\)"):
        plotting.scatter_panels([("", Z)], colors=Z[1:, 0])
    with pytest.raises(ValueError, match="2 entries in colors"):
        plotting.scatter_panels([("", Z)] * 2, colors=[None])


def test_angle_colors_follow_the_angle() -> None:
    colors = plotting.angle_colors(torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]]))
    assert ((colors >= 0) & (colors <= 1)).all()
    assert (colors[0] - colors[2]).norm() > 0.3
    assert colors[0].mean() > colors[1].mean()


@pytest.mark.parametrize(("steps", "columns"), [(1, 1), (6, 6), (7, 4), (13, 5)])
def test_steps_samples_grid(steps: int, columns: int) -> None:
    figure = plotting.steps_samples([Z + 0.05 * k for k in range(steps)])
    assert has_ink(figure, steps)
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns
    colors = [ax.collections[0].get_facecolors() for ax in figure.axes]
    assert all((color == colors[0]).all() for color in colors)
    assert figure.axes[-1].get_title() == ("base" if steps == 1 else f"layer {steps - 1}")
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


def test_steps_samples_windows_and_errors() -> None:
    limits = [ax.get_xlim() for ax in plotting.steps_samples([Z, 10 * Z]).axes]
    assert limits[1][1] > 5 * limits[0][1]
    with pytest.raises(ValueError, match="expected 2 windows"):
        plotting.steps_samples([Z, Z], windows=[WINDOW] * 3)
    with pytest.raises(ValueError, match="expected 2 titles"):
        plotting.steps_samples([Z, Z], ["base"])
    with pytest.raises(ValueError, match="the same points at every step"):
        plotting.steps_samples([Z, Z[1:]])
    with pytest.raises(ValueError, match="at least one step"):
        plotting.steps_samples([])


def test_steps_density_shows_the_mass() -> None:
    log_probs = [lambda x, s=s: log_normal(x / s) - 2 * np.log(s) for s in (1.0, 0.8, 0.6)]
    figure = plotting.steps_density(log_probs, resolution=40)
    assert has_ink(figure, 3)
    assert [mass(ax) for ax in figure.axes] == pytest.approx([1, 1, 1], abs=1e-2)


def test_training_curve_range_ignores_spikes() -> None:
    losses = [1 + 2 * math.exp(-k / 50) for k in range(1000)]
    losses[0], losses[500], losses[600] = 1e6, 1e4, math.nan
    (ax,) = plotting.training_curve(losses, [(100, 1.3), (1000, 1.1)], reference=("entropy", 0.9)).axes
    low, high = ax.get_ylim()
    assert 0.5 < low < 0.9
    assert 1.3 < high < 3
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["each step", "running median", "held out", "entropy"]


def test_training_curve_of_one_step() -> None:
    plotting.training_curve([3.0]).canvas.draw()


@pytest.mark.parametrize("features", [2, 4])
def test_pair_plot(features: int) -> None:
    x = torch.randn(300, features, generator=torch.Generator().manual_seed(0))
    assert has_ink(plotting.pair_plot(x), features * (features + 1) // 2)
    both = plotting.pair_plot(x, x + 0.2, [f"c{i}" for i in range(features)], title="both")
    assert has_ink(both, features * (features + 1) // 2)
    assert both.axes[-1].get_xlabel() == f"c{features - 1}"


def test_pair_plot_errors() -> None:
    with pytest.raises(ValueError, match="2 to 8 columns"):
        plotting.pair_plot(torch.zeros(5, 9))
    with pytest.raises(ValueError, match="expected 2 names"):
        plotting.pair_plot(Z, columns=["eruptions"])
    with pytest.raises(ValueError, match=r"trailing shape \(3,\), got \(200, 2\)"):
        plotting.pair_plot(torch.zeros(5, 3), Z)


def test_animation_timing_and_background(tmp_path: Path) -> None:
    """White stays white, frames last as asked, and a frame in many colours fits one palette."""
    frames = [plotting.steps_samples([k * Z], windows=WINDOW) for k in (1.0, 1.5, 2.0)]
    plotting.animation(iter(frames), tmp_path / "path.gif", fps=5, hold=2.0)
    with Image.open(tmp_path / "path.gif") as image:
        for k, duration in enumerate((200, 200, 2200)):
            image.seek(k)
            assert image.info["duration"] == duration
            assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_animation_errors(tmp_path: Path) -> None:
    sizes = [plotting.scatter_panels([("", Z)]), plotting.training_curve([2.0, 1.0])]
    with pytest.raises(ValueError, match="at least one frame"):
        plotting.animation([], tmp_path / "none.gif")
    with pytest.raises(ValueError, match="frames of one size"):
        plotting.animation(sizes, tmp_path / "none.gif", dpi=30)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "curve.nonsense"
    path.write_text("old")
    with pytest.raises(ValueError, match="nonsense"):
        plotting.save_figure(plotting.training_curve([2.0, 1.0]), path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_notebooks_show_figures() -> None:
    png = plotting.training_curve([2.0, 1.0])._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")


def test_nothing_global_is_touched() -> None:
    before = dict(matplotlib.rcParams)
    plotting.training_curve([2.0, 1.0])
    assert dict(matplotlib.rcParams) == before
    assert torch.is_grad_enabled()


def test_missing_matplotlib_is_named() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try: import pushforward.plotting\n"
        "except ImportError as error: print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == 'pushforward.plotting needs matplotlib: pip install "pushforward[plot]"'


def test_histograms() -> None:
    """Areas are those of the data, gaps are told, and rare levels are counted together."""
    size = torch.cat([torch.linspace(0, 1, 90), torch.full((10,), torch.nan)])
    names: list[str | None] = [None, *(f"level {k % 14:02d}" for k in range(99))]
    drawn = plotting.histograms({"size": 2 * size, "name": names}, {"size": size, "name": names}, columns=1)
    assert has_ink(drawn, 2)
    numbers, levels = drawn.axes
    assert numbers.get_title() == "size" and numbers.get_xlabel() == "missing 10.0 %, of samples 10.0 %"
    filled, line = numbers.patches
    for patch, inside in ((filled, 0.5), (line, 1.0)):
        values, edges, _ = patch.get_data()
        assert float((values * np.diff(edges)).sum()) == pytest.approx(inside, abs=0.04)
    assert [text.get_text() for text in levels.get_yticklabels()][-1] == "5 others"
    assert len(levels.get_yticklabels()) == 10


def test_histograms_of_odd_columns() -> None:
    skewed = torch.randn(500, generator=torch.Generator().manual_seed(0)).mul(3).exp()
    gone = torch.full((5,), torch.nan)
    columns = {"skewed": skewed, "whole": torch.arange(40.0), "gone": gone, "one": torch.ones(5), "none": [None]}
    drawn = plotting.histograms(columns, columns)
    assert [ax.get_xscale() for ax in drawn.axes[:2]] == ["log", "linear"]
    assert has_ink(drawn, 5)
    edges = drawn.axes[1].patches[0].get_data()[1]
    assert np.allclose(edges % 1, 0.5) and len(set(np.diff(edges))) == 1
    assert [ax.texts[0].get_text() for ax in (drawn.axes[2], drawn.axes[4])] == ["all missing"] * 2


def test_calibration_plot() -> None:
    """Draws of the right distribution stay within the band, others do not; missing entries come first."""
    generator = torch.Generator().manual_seed(0)
    draws, data = (torch.randn(n, generator=generator) for n in (2000, 500))
    gaps = torch.where(torch.arange(500) % 4 == 0, -math.inf, data)
    drawn = plotting.calibration_plot(
        {"right": draws, "wrong": 2 * draws, "gaps": draws}, dict.fromkeys(["right", "wrong"], data) | {"gaps": gaps}
    )
    assert has_ink(drawn, 3)
    off = {ax.get_title(): np.abs(np.subtract(*ax.lines[1].get_data())).max() for ax in drawn.axes}
    band = np.sqrt(np.log(2 / 0.001) / (2 * 400))
    assert off["right"] < band < min(off["wrong"], off["gaps"])
    assert drawn.axes[2].lines[1].get_ydata()[1] == pytest.approx(0.25, abs=0.01)


def test_columns_must_agree() -> None:
    for plot in (plotting.histograms, plotting.calibration_plot):
        with pytest.raises(ValueError, match="the same columns"):
            plot({"a": torch.ones(3)}, {"b": torch.ones(3)})
        with pytest.raises(ValueError, match="at least one"):
            plot({}, {})
