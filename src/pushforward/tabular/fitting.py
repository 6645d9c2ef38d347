"""Train flows on prepared rows within a budget of time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.bijections import Chain
from pushforward.flow import Flow
from pushforward.objectives import MaximumLikelihood
from pushforward.tabular.flows import Size, build, joined, prepare
from pushforward.tabular.pace import Clock, coarse, paced, seconds_per_step
from pushforward.tabular.rows import Rows
from pushforward.training import TrainResult, train
from pushforward.training.batches import Batch

SLACK = 0.9  # share of the time that the planned steps take at the pace that was measured
EPOCHS = 45
FEWEST_STEPS = 20
VALIDATIONS, PATIENCE = 20, 8
RATE, RATE_OF_MANY, CLIP = 1e-2, 5e-3, 5.0  # of Adam, for one or two columns and for more
AVERAGED = 0.005  # half-life of the moving average, as a share of the steps
ITERATIONS, ROUND = 30, 5  # of L-BFGS, and how many lie between two validations


@dataclass
class FlowFit:
    """A flow in training.

    Attributes:
        inner: of prepared rows.
        outer: the fixed map from prepared rows to rows in their own units.
        size: of the flow.
        fitted, held: the rows to fit to and to validate on, as arguments of the objective.
        cost: seconds that a step takes, once it is known.
        steps: taken so far.
        loss: on `held`, nats per prepared row.
        run: the course of the last training.
    """

    inner: Flow
    outer: Chain
    size: Size
    fitted: dict[str, Tensor]
    held: dict[str, Tensor]
    cost: float | None = None
    steps: int = 0
    loss: float = torch.inf
    run: TrainResult | None = None

    @property
    def flow(self) -> Flow:
        """Of rows in their own units, float64."""
        return joined(self.inner, self.outer)


def start(fitted: Rows, held: Rows, size: Size, *, seed: int, dtype: torch.dtype = torch.float32) -> FlowFit:
    """A new flow, and the rows as it will see them."""
    outer = prepare(fitted.x, fitted.weights)
    z, z_held = (outer.inverse(rows.x)[0] for rows in (fitted, held))
    torch.manual_seed(seed)
    inner = build(z, fitted.weights, fitted.context_features, size).to(z.device, dtype)
    fit = FlowFit(inner, outer, size, fitted.batch(z.to(dtype)), held.batch(z_held.to(dtype)))
    fit.loss = _loss(fit)
    return fit


def advance(
    fit: FlowFit, seconds: float, *, epochs: float = EPOCHS, seed: int = 0, progress: bool | None = None
) -> None:
    """Train by Adam for some epochs, or less where time is short; the best state so far on the held-out rows stays."""
    clock = Clock(max(seconds, 1e-3))
    n = len(fit.fitted["x"])
    batch_size = _batch_size(n)
    fit.cost = fit.cost or seconds_per_step(MaximumLikelihood(fit.inner), fit.fitted, batch_size)
    steps = max(min(coarse(SLACK * clock.left / fit.cost), round(epochs * n / batch_size)), FEWEST_STEPS)
    with _better_of_both(fit):
        result = train(
            MaximumLikelihood(fit.inner),
            fit.fitted,
            max_steps=steps,
            batch_size=batch_size,
            learning_rate=RATE if fit.inner.event_shape[0] <= 2 else RATE_OF_MANY,
            schedule=paced(clock),
            clip=CLIP,
            ema=0.5 ** (1 / max(AVERAGED * steps, 1.0)),
            validation=fit.held,
            validate_every=-(-steps // VALIDATIONS),
            patience=PATIENCE,
            max_seconds=clock.left,
            seed=seed,
            progress=progress,
            distributed=False,  # the number of steps follows the clock
        )
    fit.steps += result.steps
    fit.run = result


def race(fits: list[FlowFit], seconds: float, *, seed: int, progress: bool | None) -> FlowFit:
    """The flow that is best after an equal share of the time each."""
    for fit in fits:
        advance(fit, seconds / len(fits), seed=seed, progress=progress)
    return min(fits, key=lambda fit: fit.loss)


def settle(fit: FlowFit, seconds: float, *, progress: bool | None = None) -> None:
    """Train by L-BFGS on all rows at once, for flows of few parameters; the best state so far stays."""
    with _better_of_both(fit):
        result = train(
            MaximumLikelihood(fit.inner),
            fit.fitted,
            max_steps=ITERATIONS // ROUND,
            batch_size=len(fit.fitted["x"]),
            optimizer=lambda parameters: torch.optim.LBFGS(parameters, max_iter=ROUND, line_search_fn="strong_wolfe"),
            schedule=None,
            clip=None,
            validation=fit.held,
            validate_every=1,
            max_seconds=seconds,
            progress=progress,
            distributed=False,  # the number of steps follows the clock
        )
    fit.steps += result.steps * ROUND
    fit.run = result


@contextmanager
def _better_of_both(fit: FlowFit) -> Iterator[None]:
    """What training gives, or the state before it if that is as good on the held-out rows."""
    before = copy.deepcopy(fit.inner.state_dict())
    yield
    loss = _loss(fit)
    if loss < fit.loss:
        fit.loss = loss
    else:
        fit.inner.load_state_dict(before)


@torch.no_grad()
def _loss(fit: FlowFit) -> float:
    objective = MaximumLikelihood(fit.inner)
    blocks = list(Batch.of(fit.held).blocks())
    total: float = sum(objective(**block.named).item() * len(block) for block in blocks)
    return total / sum(len(block) for block in blocks)


def _batch_size(n: int) -> int:
    """Some ten batches an epoch for hundreds of rows, a hundred for many thousands."""
    return int(2 ** min(max(round(math.log2(4.5 * math.sqrt(n))), 6), 9))
