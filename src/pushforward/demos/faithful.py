"""The bundled example: a flow of the Old Faithful eruptions, against a Gaussian and a mixture of two."""

from pathlib import Path

import numpy as np
import torch

from pushforward.demos.common import Outcome, layers_of, mean_and_error, path_from, write_results
from pushforward.plotting import angle_colors, density_2d, save_figure, steps_samples, window_of
from pushforward.tabular import Table, numeric_table, read_file, write_file
from pushforward.tabular.fit import fit_table
from pushforward.tabular.gaussians import fit_gaussians
from pushforward.targets import faithful_path

TEST_SHARE = 0.2


def run(out: Path, *, flow: str = "nsf", steps: int = 1000, seed: int = 0, progress: bool | None = None) -> Outcome:
    """Fit four fifths of the 272 eruptions, compare on the rest, and draw the result.

    Args:
        out: folder to write to.
        flow: name of a recipe.
        steps: upper limit of the number of steps.
        seed: of the split, weights and draws.
        progress: show progress bars; by default only on a terminal.

    Returns:
        Test log-likelihoods in nats per eruption, in minutes^-2.
    """
    table = numeric_table(read_file(faithful_path()))
    order = np.random.default_rng(seed).permutation(len(table.values))
    held = round(TEST_SHARE * len(order))
    test, rest = table.values[order[:held]], table.values[order[held:]]
    model, result = fit_table(Table(table.columns, rest), flow=flow, max_steps=steps, seed=seed, progress=progress)
    scores = _baselines(rest, test, seed)
    with torch.no_grad():
        scores[f"flow ({flow})"] = model.log_prob(torch.as_tensor(test))

    torch.manual_seed(seed)
    draws = model.sample(1000)
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "samples.csv", Table(table.columns, draws.numpy()))
    x = torch.as_tensor(table.values)
    columns = ("duration (min)", "waiting (min)")
    window = window_of(x)
    save_figure(density_2d(model.log_prob, window, data=x, columns=columns, dtype=torch.float64), out / "density.png")
    z = model.base.sample((1000,))
    path = path_from(model, z)
    titles = ["base", *(f"{k + 1}: {type(layer).__name__}" for k, layer in enumerate(layers_of(model)))]
    windows = [window_of(points) for points in path]
    save_figure(steps_samples(path, titles, angle_colors(z), windows=windows), out / "steps.png")

    metrics = {
        "flow": flow,
        "rows": len(x),
        "test_rows": held,
        "test_log_likelihood": {name: value.mean().item() for name, value in scores.items()},
        "seconds": result.seconds,
    }
    write_results(out, model, result, metrics, label="negative log-likelihood (nats)")
    return Outcome([str(result), *_table(scores)], metrics, out)


def _baselines(rest: np.ndarray, test: np.ndarray, seed: int) -> dict[str, torch.Tensor]:
    """The log-likelihood of each test row under mixtures of Gaussians that were fitted to the others."""
    counts = {"Gaussian": 1, "mixture of two Gaussians": 2}
    x = torch.as_tensor(rest)
    return {name: fit_gaussians(x, k, seed=seed).log_prob(torch.as_tensor(test)) for name, k in counts.items()}


def _table(scores: dict[str, torch.Tensor]) -> list[str]:
    gaussian = scores["Gaussian"]
    lines = [
        f"{'test log-likelihood, nats per eruption':40s} {'mean':>8s} {'+-':>6s} {'over the Gaussian':>18s} {'+-':>6s}"
    ]
    for name, values in scores.items():
        mean, error = mean_and_error(values)
        gain, gain_error = mean_and_error(values - gaussian)
        lines.append(f"{name:40s} {mean:8.3f} {error:6.3f} {gain:18.3f} {gain_error:6.3f}")
    return lines
