"""Pictures and exports of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pushforward.inference.fit import LogDensityFit

DRAWS = 4000
MAX_PAIRS = 6
CHAINS = 4


def plot(fit: LogDensityFit) -> Figure:
    """Two features: the density with draws on top. More: all pairs of the first few, as draws."""
    from pushforward.plotting import density_2d, pair_plot

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = fit.flow.sample(DRAWS)
    if x.shape[-1] == 2:
        return density_2d(fit.flow.log_prob, samples=x[:1000], title=fit.verdict, dtype=torch.float64)
    figure: Figure = pair_plot(x[:, :MAX_PAIRS], columns=names(fit)[:MAX_PAIRS])
    return figure


def names(fit: LogDensityFit) -> list[str]:
    """A name for each coordinate of a flat x."""
    shapes = fit._density.shapes
    if shapes is None:
        return [f"x[{i}]" for i in range(fit.flow.event_shape[0])]
    found = []
    for name, shape in shapes.items():
        size = int(torch.Size(shape).numel())
        found += [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]
    return found


def to_arviz(fit: LogDensityFit, n: int) -> Any:
    """Exact draws as the posterior of an arviz data tree."""
    try:
        from arviz_base import from_dict
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_arviz needs arviz-base: pip install pushforward[arviz]") from error
    draws = fit.sample(n // CHAINS * CHAINS, exact=True)
    named = {"x": draws} if isinstance(draws, Tensor) else draws
    posterior = {name: value.reshape(CHAINS, -1, *value.shape[1:]).numpy() for name, value in named.items()}
    return from_dict({"posterior": posterior})
