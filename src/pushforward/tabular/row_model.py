"""The model of encoded rows: discrete coordinates, then continuous ones."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.flow import Flow
from pushforward.io import register
from pushforward.objectives import MaximumLikelihood
from pushforward.tabular.discrete import AutoregressiveCategorical, OneHot
from pushforward.tabular.engine import DensityResult, Quality, fit_density
from pushforward.tabular.schema import Schema
from pushforward.training import TrainResult, train

BLOCK = 8192
DISCRETE_SHARE = 0.2  # of the time
DISCRETE_STEPS = 3000


@register
class RowModel(nn.Module):
    r"""$p(c, u \mid y) = p(c \mid y)\, p(u \mid c, y)$ of discrete coordinates c and continuous u, given a context y.

    It computes in float64, whatever its parts were trained in.

    Args:
        discrete: of c, given y; None if there are no discrete coordinates.
        continuous: of u, given the states c one-hot, and y after them; None if there are no continuous coordinates.

    Example:
        >>> from pushforward.tabular.row_model import RowModel
        >>> model = RowModel(None, pf.nsf(features=2))
        >>> c, u = model.sample(5)
        >>> c.shape, u.shape, model.log_prob(c, u).shape
        (torch.Size([5, 0]), torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, discrete: AutoregressiveCategorical | None, continuous: Flow | None) -> None:
        super().__init__()
        self.discrete = discrete
        self.continuous = continuous
        self.levels: tuple[int, ...] = () if discrete is None else discrete.levels
        self.features = 0 if continuous is None else continuous.event_shape[0]
        self.double()

    @torch.no_grad()
    def log_prob(self, c: Tensor, u: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(c, u | context) in nats, float64.

        Args:
            c: states, `(n, len(levels))`.
            u: `(n, features)`.
            context: `(n, context_features)`.

        Returns:
            shape `(n,)`.
        """
        parts = []
        for start in range(0, len(c), BLOCK):
            rows = slice(start, start + BLOCK)
            y = None if context is None else context[rows]
            total = u.new_zeros(len(c[rows]), dtype=torch.float64)
            if self.discrete is not None:
                total = total + self.discrete(c[rows], y).double()
            if self.continuous is not None:
                given = given_states(c[rows], self.levels, y)
                total = total + self.continuous(u[rows], given).double()
            parts.append(total)
        return torch.cat(parts) if parts else u.new_zeros(0, dtype=torch.float64)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draws of c, `(n, len(levels))`, and u, `(n, features)`, float64: one for each row of a context `(n, ...)`."""
        c = torch.zeros(n, 0, dtype=torch.int64)
        if self.discrete is not None:
            c = self.discrete.sample(n) if context is None else self.discrete.sample((), context)
        return c, self.sample_continuous(c, context)

    @torch.no_grad()
    def sample_continuous(self, c: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of u, `(n, features)`, for each row of states c, `(n, len(levels))`, and of a context."""
        if self.continuous is None:
            return torch.zeros(len(c), 0, dtype=torch.float64)
        draws = [torch.zeros(0, self.features, dtype=torch.float64)]
        for start in range(0, len(c), BLOCK):
            rows = slice(start, start + BLOCK)
            given = given_states(c[rows], self.levels, None if context is None else context[rows])
            draws.append(self.continuous.sample(len(c[rows])) if given is None else self.continuous.sample((), given))
        return torch.cat(draws)


@dataclass(frozen=True)
class RowsFit:
    """A model of encoded rows, and how it was found.

    Attributes:
        model: of the rows.
        discrete: how the discrete coordinates were trained; None without any.
        continuous: what was tried for the continuous ones; None without any.
    """

    model: RowModel
    discrete: TrainResult | None
    continuous: DensityResult | None


def fit_rows(
    c: Tensor,
    u: Tensor,
    levels: tuple[int, ...],
    context: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    quality: Quality = "balanced",
    max_seconds: float = 60.0,
    seed: int = 0,
    progress: bool | None = None,
) -> RowsFit:
    """Fit p(c | context) by maximum likelihood, then p(u | c, context) by `fit_density`.

    Args:
        c: states, `(n, len(levels))`.
        u: `(n, features)`, about standardised.
        levels: how many states each discrete coordinate has.
        context: `(n, context_features)`, about standardised.
        weights: of the rows, not negative, `(n,)`.
        quality: of the continuous part.
        max_seconds: budget of time.
        seed: of everything random.
        progress: show a progress bar; by default only on a terminal.
    """
    end = time.monotonic() + max_seconds
    discrete = trained = None
    if levels:
        share = DISCRETE_SHARE if u.shape[1] else 1.0
        discrete, trained = _fit_discrete(c, levels, context, weights, share * max_seconds, seed, progress)
    continuous = found = None
    if u.shape[1]:
        found = fit_density(
            u,
            given_states(c, levels, context),
            weights=weights,
            quality=quality,
            max_seconds=max(end - time.monotonic(), 0.1 * max_seconds),
            seed=seed,
            progress=progress,
        )
        continuous = found.flow
    return RowsFit(RowModel(discrete, continuous), trained, found)


def _fit_discrete(
    c: Tensor,
    levels: tuple[int, ...],
    context: Tensor | None,
    weights: Tensor | None,
    max_seconds: float,
    seed: int,
    progress: bool | None,
) -> tuple[AutoregressiveCategorical, TrainResult]:
    """From independent columns at their frequencies to what the validation rows allow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoregressiveCategorical(levels, context_features=0 if context is None else context.shape[1])
    model.initialize(c, weights=weights)
    data = {"x": c, "context": None if context is None else context.float()}
    if weights is not None:
        data["weights"] = (weights / weights.mean()).float()
    result = train(
        MaximumLikelihood(model),  # type: ignore[arg-type]
        {name: value for name, value in data.items() if value is not None},
        max_steps=DISCRETE_STEPS,
        batch_size=min(max(len(c) // 8, 32), 512),
        learning_rate=3e-3,
        ema=0.98,
        patience=10,
        max_seconds=max_seconds,
        seed=seed,
        progress=progress,
        distributed=False,
    )
    return model, result


def context_vector(schema: Schema, context: Any) -> Tensor:
    """The coordinates of a context's rows, states one-hot and numbers after them, `(n, context_features)`.

    What is rounded stands for itself, without noise.
    """
    rows = schema.encode(context, torch.Generator().manual_seed(0))
    return torch.cat([one_hot(rows.discrete, schema.levels), rows.continuous], dim=-1)


def given_states(c: Tensor, levels: tuple[int, ...], context: Tensor | None) -> Tensor | None:
    """What the continuous coordinates are conditional on: the states one-hot, and the context after them."""
    parts = [one_hot(c, levels)] if levels else []
    if context is not None:
        parts.append(context)
    return torch.cat(parts, dim=-1).double() if parts else None


def one_hot(c: Tensor, levels: tuple[int, ...]) -> Tensor:
    """States one-hot, float64: `(n, len(levels))` to `(n, sum(levels))`."""
    encoded: Tensor = OneHot(levels)(c)
    return encoded.double()
