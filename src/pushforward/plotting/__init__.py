"""Figures of densities, samples and training, in one style. Needs `pip install "pushforward[plot]"`."""

try:
    from pushforward.plotting.animation import animation
    from pushforward.plotting.columns import calibration_plot, histograms
    from pushforward.plotting.density import density_2d, density_grid, steps_density, window_of_density
    from pushforward.plotting.panels import Window, window_of
    from pushforward.plotting.samples import angle_colors, pair_plot, scatter_panels, steps_samples
    from pushforward.plotting.style import save_figure
    from pushforward.plotting.training import training_curve
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("matplotlib", "PIL"):
        raise
    message = f'pushforward.plotting needs {missing}: pip install "pushforward[plot]"'
    raise ModuleNotFoundError(message, name=missing) from error

__all__ = [
    "Window",
    "angle_colors",
    "animation",
    "calibration_plot",
    "density_2d",
    "density_grid",
    "histograms",
    "pair_plot",
    "save_figure",
    "scatter_panels",
    "steps_density",
    "steps_samples",
    "training_curve",
    "window_of",
    "window_of_density",
]
