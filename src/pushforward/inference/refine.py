"""Carry a start to the target and polish it there."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from pushforward.flow import Flow
from pushforward.inference.budget import Budget
from pushforward.inference.density import Density
from pushforward.inference.exact import ANNEALING_COST, annealed_draws
from pushforward.inference.mixture import effective_share, power_at
from pushforward.objectives import LogVariance, MaximumLikelihood, ReverseKL
from pushforward.training import train

RATE, BATCH = 1e-2, 256
WARM_UP = 30
COVERAGE = 0.2
LOWEST = -1e10  # stands for a log density of -inf, whose gradient would be no number
ENOUGH = 0.995  # effective share of the draws at which nothing is left to gain
ANNEALED, ANNEALED_SHARE, ANNEALED_STEPS, ANNEALED_RATE = 2048, 0.1, 150, 2e-3
STAGE_DRAWS, STAGE_STEPS, STAGE_SHARE = 4096, 24, 0.5


def polish(
    flow: Flow,
    density: Density,
    *,
    steps: int,
    budget: Budget,
    until: float,
    modes: bool,
    seed: int,
    rate: float = RATE,
) -> None:
    """Train by reverse KL, or without gradients by the log-variance, until the steps or the budget are spent.

    Args:
        flow: changed in place.
        density: the target.
        steps: at most so many.
        budget: shared with the other stages.
        until: share of the whole budget at which to end.
        modes: hold the modes by the forward divergence on draws of the flow.
        seed: of the draws.
        rate: the highest learning rate.
    """

    def log_density(x: Tensor) -> Tensor:
        return density(x).clamp_min(LOWEST).to(x.dtype)

    objective: ReverseKL | LogVariance
    if density.differentiable:
        objective = ReverseKL(flow, log_density, BATCH, gradient="path", coverage=COVERAGE if modes else 0.0)
    else:
        objective = LogVariance(flow, log_density, BATCH)
    begun = budget.spent
    shares: deque[float] = deque([0.0] * 10, maxlen=10)

    def progress(step: int, total: int) -> float:
        return min(max(step / total, (budget.spent - begun) / max(until - begun, 1e-9)), 1.0)

    def schedule(step: int, total: int) -> float:
        rising = min((step + 1) / WARM_UP, 1.0)
        return rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress(step, total))))

    def after(step: int) -> bool:
        if step % 10 == 0:
            assert objective.log_weights is not None
            shares.append(effective_share(objective.log_weights))
        mean = sum(shares) / len(shares)
        budget.update(f"ESS {mean:.2f}, ")
        if progress(step, steps) > 0.7:
            objective.num_samples = 2 * BATCH
        return mean > ENOUGH or budget.spent >= until

    train(
        objective,
        max_steps=steps,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99), fused=True),
        schedule=schedule,
        clip=2.0,
        seed=seed,
        progress=False,
        callback=after,
        distributed=False,  # the clock decides, and no two processes have the same time
    )


def transport(flow: Flow, density: Density, *, budget: Budget, until: float, generator: torch.Generator) -> None:
    """Carry a wide flow to the target by a path of tempered ones, each fitted by weighted maximum likelihood.

    A stage draws from the flow, raises the weights to the power at which half of the draws count, and refits.

    Reference:
        Blessing et al., Constrained mass-covering transport, 2025, arXiv 2510.18460.
    """
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3, fused=True)
    buffer: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=3)
    arrived = 0
    while arrived < 3 and budget.spent < until:
        with torch.no_grad():
            x, log_q = flow.rsample_and_log_prob(STAGE_DRAWS)
            buffer.append((x, density(x.double()), log_q.double()))
        pool, weights = _pooled(flow, list(buffer))
        if effective_share(buffer[-1][1] - buffer[-1][2]) > 0.3:
            arrived += 1
        for _ in range(STAGE_STEPS):
            index = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
            optimizer.zero_grad()
            loss = -flow(pool[index]).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
            optimizer.step()
        budget.update()


def bootstrap(flow: Flow, density: Density, *, budget: Budget, seed: int) -> None:
    """Teach the flow where it lacks mass: annealed draws from it to the target, by weighted maximum likelihood.

    Reference:
        Midgley et al., Flow Annealed Importance Sampling Bootstrap, 2022, arXiv 2208.01893.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        n = int(min(ANNEALED, max(ANNEALED_SHARE * budget.affordable / ANNEALING_COST, BATCH)))
        x, log_weights = annealed_draws(flow, density, n)
        weights = (power_at(log_weights, 0.1) * log_weights).softmax(0)
        x = x[torch.multinomial(weights, n, replacement=True)].to(next(flow.parameters()).dtype)
    objective = MaximumLikelihood(flow)
    train(
        objective,
        x,
        max_steps=ANNEALED_STEPS,
        learning_rate=ANNEALED_RATE,
        seed=seed,
        progress=False,
        distributed=False,
    )


@torch.no_grad()
def _pooled(flow: Flow, buffer: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The draws of the last stages, weighted towards q^(1 - b) p^b, each stage counted by its effective number."""
    _, log_p, log_q = buffer[-1]
    b = power_at(log_p - log_q, STAGE_SHARE)
    points, weights = [], []
    for x, log_p, log_q in buffer:
        share = ((1 - b) * flow(x).double() + b * log_p - log_q).softmax(0)
        points.append(x)
        weights.append(share / share.square().sum())
    return torch.cat(points), torch.cat(weights)
