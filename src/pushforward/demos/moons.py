"""The RealNVP course: affine couplings on two moons, both directions drawn, and the exact distance to the truth."""

from pathlib import Path

import torch
from torch import nn

import pushforward as pf
from pushforward.demos.common import Outcome, build, in_blocks, mean_and_error, path_from, write_results
from pushforward.plotting import angle_colors, density_2d, save_figure, scatter_panels, steps_samples
from pushforward.targets import TwoMoons

TEST_ROWS = 20_000


def course_flow() -> pf.Flow:
    """Six affine couplings that pass each coordinate in turn, with separate networks for log-scale and shift.

    The log-scale is the tanh of its network's output, which `Affine(1.0)` applies.
    """

    def network() -> nn.Module:
        return pf.MLP(1, 1, (256, 256), activation=nn.LeakyReLU)

    couplings = [
        pf.Coupling([k % 2 == 0, k % 2 == 1], pf.Affine(1.0), conditioner=pf.Separate(network(), network()))
        for k in range(6)
    ]
    return pf.Flow(pf.Chain(*couplings), pf.StandardNormal(2))


def run(
    out: Path, *, flow: str = "real_nvp", steps: int = 5001, seed: int = 0, progress: bool | None = None
) -> Outcome:
    """Fit two moons by maximum likelihood on fresh batches of 100, and draw every stage.

    Args:
        out: folder to write to.
        flow: "real_nvp" for the course's own architecture and its Adam of constant rate 1e-4, or any other recipe,
            with Adam of rate 3e-3 and a cosine schedule.
        steps: number of steps.
        seed: of weights and data.
        progress: show a progress bar; by default only on a terminal.

    Returns:
        The excess, the mean of log p - log q over 20,000 fresh rows, in nats; 0 is perfect.
    """
    moons = TwoMoons(noise=0.05)
    torch.manual_seed(seed)
    course = flow == "real_nvp"
    model = build(flow, course_flow if course else None)
    result = pf.train(
        pf.MaximumLikelihood(model),
        moons.batch,
        batch_size=100,
        max_steps=steps,
        learning_rate=1e-4 if course else 3e-3,
        schedule=None if course else "cosine",
        ema=None if course else 0.99,
        seed=seed,
        progress=progress,
    )

    generator = torch.Generator().manual_seed(seed + 1)
    rows = moons.sample(TEST_ROWS, generator, dtype=torch.float64)
    exact = in_blocks(moons.log_prob, rows, 4000)
    found = in_blocks(model.log_prob, rows.float()).double()
    excess, error = mean_and_error(exact - found)
    metrics = {
        "flow": flow,
        "steps": result.steps,
        "seconds": result.seconds,
        "negative_log_likelihood": -found.mean().item(),
        "entropy_of_the_data": moons.entropy(),
        "excess": excess,
        "excess_error": error,
    }
    out.mkdir(parents=True, exist_ok=True)
    _draw(out, model, moons, generator)
    write_results(
        out,
        model,
        result,
        metrics,
        label="negative log-likelihood (nats)",
        reference=("entropy of the data", moons.entropy()),
    )
    line = f"two moons, {flow}: excess {excess:.4f} +- {error:.4f} nats over {TEST_ROWS} fresh rows"
    return Outcome([str(result), line], metrics, out)


def _draw(out: Path, model: pf.Flow, moons: TwoMoons, generator: torch.Generator) -> None:
    x = moons.batch(2000, generator)
    side = moons.moon(x)
    z = torch.randn(2000, 2, generator=generator)
    angle = angle_colors(z)
    with torch.no_grad():
        panels = [
            ("$z = f^{-1}(X)$", model.to_base(x)),
            ("$z \\sim p(z)$", z),
            ("$X$", x),
            ("$X = f(z)$", model.from_base(z)),
        ]
    windows = [((-4.0, 4.0), (-4.0, 4.0))] * 2 + [((-1.6, 2.6), (-1.2, 1.7))] * 2
    save_figure(scatter_panels(panels, windows, colors=[side, angle, side, angle]), out / "directions.png")
    window = ((-1.6, 2.6), (-1.2, 1.7))
    save_figure(density_2d(model.log_prob, window, title="density of the flow"), out / "density.png")
    save_figure(steps_samples(path_from(model, z), colors=angle), out / "steps.png")
