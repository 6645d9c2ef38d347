"""What the demos share."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pushforward as pf
from pushforward.files import write_atomically
from pushforward.plotting import save_figure, training_curve
from pushforward.recipes import RECIPES


@dataclass(frozen=True)
class Outcome:
    """What a demo hands back: a line for each figure that it measured, and where the files are."""

    lines: list[str]
    metrics: dict[str, Any]
    out: Path

    def __str__(self) -> str:
        files = ", ".join(sorted(path.name for path in self.out.iterdir() if not path.name.startswith(".")))
        return "\n".join([*self.lines, f"wrote to {self.out}/: {files}"])


def build(name: str, own: Callable[[], pf.Flow] | None = None, **settings: Any) -> pf.Flow:
    """The recipe of that name for two features, or the demo's own architecture."""
    if name not in RECIPES:
        raise ValueError(f"expected a flow among {', '.join(sorted(RECIPES))}, got {name!r}")
    return own() if own is not None else RECIPES[name](2, **settings)


def write_results(out: Path, flow: pf.Flow, result: pf.TrainResult, metrics: Mapping[str, Any], **curve: Any) -> None:
    """The model, the training curve and the figures."""
    pf.save(flow, out / "model.safetensors", info={"training": str(result)})
    save_figure(training_curve(result.losses, result.validation or None, **curve), out / "loss.png")
    with write_atomically(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(dict(metrics), indent=2) + "\n")


def layers_of(flow: pf.Flow) -> list[pf.Bijection]:
    """The layers, from base to data."""
    assert isinstance(flow.bijection, pf.Chain)
    return list(flow.bijection.layers)  # type: ignore[arg-type]


@torch.no_grad()
def path_from(flow: pf.Flow, z: Tensor) -> list[Tensor]:
    """Points of the base after 0, 1, ..., K layers."""
    path = [z]
    for layer in layers_of(flow):
        path.append(layer(path[-1])[0])
    return path


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 20_000) -> Tensor:
    """`function` of rows, without gradient."""
    with torch.no_grad():
        return torch.cat([function(block) for block in x.split(size)])
