"""Write layers.md: every recipe fitted to the same three densities of the plane, and the pictures.

python docs/layers.py [NAME ...]    trains all recipes (half an hour on one core), or those named and keeps the rest
"""

import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pushforward as pf
from pushforward.plotting import save_figure, steps_density
from pushforward.recipes import RECIPES
from pushforward.targets import Gaussians, LobedRing, TwoMoons
from pushforward.targets.base import PlaneTarget

DOCS = Path(__file__).parent
PAGE = DOCS / "layers.md"
PICTURES = DOCS / "images" / "layers"
FIGURES = PICTURES / "figures.json"

# All three lie within (-pi, pi)^2, so that flows of angles can hold them too.
WINDOW = ((-3.14, 3.14), (-3.14, 3.14))
NINE = [[x, y] for x in (-2.0, 0.0, 2.0) for y in (-2.0, 0.0, 2.0)]
TARGETS: dict[str, PlaneTarget] = {
    "two moons": TwoMoons(noise=0.1),
    "ring": LobedRing(radius=2, width=0.2, spread=0.6),
    "nine Gaussians": Gaussians(NINE, scale=0.25),
}
STEPS, BATCH, TEST_ROWS = 1000, 256, 20_000
CHEAP = 5  # steps of flow matching for one of maximum likelihood: it solves no equation

INTRO = f"""# What each flow can hold

*Made by `python docs/layers.py`.*

Recipes with their default sizes, fitted by maximum likelihood to fresh draws of three densities: {STEPS:,} steps of
{BATCH} rows, Adam of rate 3e-3 on a cosine schedule; cnf by flow matching, {CHEAP} times as many. The figures are
KL(p || q) in nats on {TEST_ROWS:,} fresh rows, with standard errors below 0.02; 0 is perfect. They tell what an
architecture of that size holds after so short a training, not how well it can be tuned; householder is a rotation of
a normal base and can hold none of them. Seconds are those of one core for the slowest of the three fits. glow, for
images, is not here.
"""


def main(names: list[str]) -> None:
    """Train, draw, and write the page."""
    torch.set_num_threads(1)  # the tensors are small
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    save_figure(
        steps_density([target.log_prob for target in TARGETS.values()], WINDOW, list(TARGETS), dtype=torch.float64),
        PICTURES / "targets.png",
        dpi=110,
    )
    for name in names or RECIPES:
        figures[name] = _fit(name)
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
        print(name, figures[name], flush=True)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page, from the figures that were measured."""
    figures = json.loads(FIGURES.read_text())
    rows = "\n".join(
        f"| [`{name}`](#{name}) | "
        + " | ".join(f"{figures[name][target]:.3f}" for target in TARGETS)
        + f" | {figures[name]['parameters']:,} | {figures[name]['seconds']:.0f} |"
        for name in RECIPES
    )
    head = "| flow | " + " | ".join(TARGETS) + " | parameters | seconds |\n|---|" + "---:|" * (len(TARGETS) + 2)
    parts = [INTRO, f"{head}\n{rows}\n", "## Targets\n\n![the three targets](images/layers/targets.png)\n"]
    parts += [f"## {name}\n\n{_sentence(RECIPES[name])}\n\n![{name}](images/layers/{name}.png)\n" for name in RECIPES]
    return "\n".join(parts)


def _fit(name: str) -> dict[str, float]:
    """Fit the recipe to each target, write its picture, and measure KL(p || q), parameters and time."""
    flows, figures, seconds = [], {}, 0.0
    for label, target in TARGETS.items():
        torch.manual_seed(0)
        flow = RECIPES[name](2)
        data = lambda n, target=target: target.sample(n)  # noqa: E731
        flow.initialize(target.sample(1000))
        objective: pf.Objective = pf.FlowMatching(flow) if name == "cnf" else pf.MaximumLikelihood(flow)
        steps = CHEAP * STEPS if name == "cnf" else STEPS
        before = time.process_time()
        pf.train(objective, data, max_steps=steps, batch_size=BATCH, learning_rate=3e-3, ema=0.99, progress=False)
        seconds = max(seconds, time.process_time() - before)
        flow.eval()
        x = target.sample(TEST_ROWS, torch.Generator().manual_seed(1))
        with torch.no_grad():
            log_q = torch.cat([flow.log_prob(block) for block in x.split(2000)])
        figures[label] = (target.log_prob(x) - log_q).mean().item()
        flows.append(flow)
    log_probs = [flow.log_prob for flow in flows]
    titles = [f"KL {figures[label]:.3f}" for label in TARGETS]
    save_figure(steps_density(log_probs, WINDOW, titles), PICTURES / f"{name}.png", dpi=110)
    parameters = sum(p.numel() for p in flows[0].parameters())
    return {**figures, "parameters": parameters, "seconds": seconds}


def _sentence(recipe: Callable[..., pf.Flow]) -> str:
    return " ".join((inspect.getdoc(recipe) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    main(sys.argv[1:])
