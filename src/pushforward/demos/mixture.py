"""Variational inference on a mixture of two Gaussians with flows of every kind, each intermediate step drawn."""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch

import pushforward as pf
from pushforward.demos.common import Outcome, build, in_blocks, mean_and_error, write_results
from pushforward.plotting import density_2d, save_figure, steps_density
from pushforward.recipes import RECIPES
from pushforward.targets import Gaussians
from pushforward.training.progress import ProgressBar

DRAWS, RATE = 256, 5e-3
TEST_DRAWS = 100_000
WINDOW = ((-6.0, 5.0), (-6.0, 5.0))
ALL = ("planar", "radial", "householder", "sylvester", "naf", "iaf", "polynomial", "mixed")


def mixed_flow() -> pf.Flow:
    """An affine map, two radial layers and two inverse autoregressive ones."""
    affine = pf.Elementwise(pf.Affine(), 2)
    autoregressive = [pf.MaskedAutoregressive(pf.Affine(), 2, order=order).inv for order in ([0, 1], [1, 0])]
    return pf.Flow(pf.Chain(affine, pf.Radial(2), pf.Radial(2), *autoregressive), pf.StandardNormal(2))


# The chain that is no recipe, and flows that their recipe does not build by default as they are at their best here:
# draws would be slow, and three polynomials of degree 7 on top of each other run away at a constant learning rate.
OWN: dict[str, Callable[[], pf.Flow]] = {
    "mixed": mixed_flow,
    "naf": lambda: RECIPES["naf"](2, layers=3, cheap="forward"),
    "polynomial": lambda: RECIPES["polynomial"](2, layers=2, bound=5.0),
}


def run(
    out: Path,
    *,
    flow: str = "all",
    steps: int = 2000,
    seed: int = 0,
    in_pyro: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """Minimise KL(q || p) for one flow, or for each in turn, and draw q before, after, and layer by layer.

    Args:
        out: folder to write to; with "all", a folder for each flow within it.
        flow: name of a recipe, "mixed" (affine, radial and inverse autoregressive layers), or "all" for planar, radial,
            householder, sylvester, naf, iaf, polynomial and mixed.
        steps: number of steps, each on 256 draws, by Adam of rate 5e-3, on a cosine schedule but in Pyro.
        seed: of weights and draws.
        in_pyro: let Pyro's SVI minimise, with the flow as the guide.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        KL(q || p) over 100,000 fresh draws for each flow, in nats; 0 is perfect.
    """
    if in_pyro:
        import_module("pushforward.contrib.pyro")  # says what to install, before the work
    names: Sequence[str] = ALL if flow == "all" else (flow,)
    lines = [f"{'flow':12s} {'KL (nats)':>10s} {'+-':>7s} {'parameters':>11s} {'seconds':>8s}"]
    metrics = {}
    for name in names:
        place = out / name if len(names) > 1 else out
        metrics[name] = found = _fit(place, name, steps, seed, in_pyro, progress)
        lines.append(
            f"{name:12s} {found['kl']:10.4f} {found['kl_error']:7.4f} {found['parameters']:11d} {found['seconds']:8.1f}"
        )
    if "householder" in names:
        lines.append("householder turns the axes of a normal base: it can make nothing but a normal density")
    return Outcome(lines, metrics, out)


def _fit(out: Path, name: str, steps: int, seed: int, in_pyro: bool, progress: bool | None) -> dict[str, float]:
    target = Gaussians()
    torch.manual_seed(seed)
    model = OWN[name]() if name in OWN else build(name)
    out.mkdir(parents=True, exist_ok=True)
    save_figure(density_2d(model.log_prob, WINDOW, title="untrained"), out / "untrained.png")
    save_figure(density_2d(target.log_prob, WINDOW, title="target"), out / "target.png")

    if in_pyro:
        result = _train_in_pyro(model, target, steps, progress)
    else:
        objective = pf.ReverseKL(model, target.log_density, num_samples=DRAWS)
        result = pf.train(objective, max_steps=steps, learning_rate=RATE, ema=0.99, seed=seed, progress=progress)

    torch.manual_seed(seed + 1)
    with torch.no_grad():
        x, log_q = model.rsample_and_log_prob(TEST_DRAWS)
    kl, error = mean_and_error((log_q - in_blocks(target.log_prob, x)).double())
    save_figure(density_2d(model.log_prob, WINDOW, title=name), out / "density.png")
    log_probs = [step.log_prob for step in model.steps()]
    titles = ["base", *(f"$f_{{{k}}}$" for k in range(1, len(log_probs)))]
    save_figure(steps_density(log_probs, WINDOW, titles), out / "steps.png")
    metrics = {
        "kl": kl,
        "kl_error": error,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": result.steps,
        "seconds": result.seconds,
    }
    write_results(out, model, result, metrics, label="KL(q || p) (nats)", reference=("exact", 0.0))
    return metrics


def _train_in_pyro(model: pf.Flow, target: Gaussians, steps: int, progress: bool | None) -> pf.TrainResult:
    """The same loss, with the target as Pyro's model and the flow as its guide."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import Adam

    from pushforward.contrib.pyro import PyroFlow

    components = dist.MultivariateNormal(target.means.float(), target.scale**2 * torch.eye(2))
    mixture = dist.MixtureSameFamily(dist.Categorical(target.weights.float()), components)

    def density() -> None:
        with pyro.plate("draws", DRAWS):
            pyro.sample("x", mixture)

    def guide() -> None:
        pyro.module("flow", model)
        with pyro.plate("draws", DRAWS):
            pyro.sample("x", PyroFlow(model))

    start, losses = time.monotonic(), []
    with pyro.get_param_store().scope(), ProgressBar(steps, progress) as bar:
        svi = SVI(density, guide, Adam({"lr": RATE, "betas": (0.9, 0.999)}), Trace_ELBO())
        for step in range(steps):
            losses.append(svi.step() / DRAWS)
            bar.update(step + 1, lambda: losses[-1], float("nan"))
    return pf.TrainResult(losses, [], steps, "all steps done", time.monotonic() - start)
