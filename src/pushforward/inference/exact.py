"""Draws of the target itself: Markov chains from the flow, in the flow's base space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.flow import Flow
from pushforward.inference.density import Density

LEAPFROGS = 8
STAGES = 8  # of annealing
ANNEALING_COST = 50  # evaluations for each draw
GOAL = 0.8  # acceptance rate that the step size is adapted to


def pulled_back(flow: Flow, density: Density, z: Tensor, power: float = 1.0) -> tuple[Tensor, Tensor]:
    """log of base^(1 - power) times the target^power in the base space, `(n,)`, and its gradient, `(n, features)`."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        x, log_det = flow.bijection(z, None)
        value = power * (density(x) + log_det)
        if power < 1:
            value = value + (1 - power) * flow.base.log_prob(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)


def hamiltonian_steps(flow: Flow, density: Density, z: Tensor, steps: int, power: float = 1.0) -> tuple[Tensor, float]:
    """Hamiltonian Monte Carlo of many chains at once, which leaves base^(1 - power) target^power as it is.

    The step size is that of the whole set of chains, found on a copy of them beforehand.

    Args:
        z: shape `(chains, features)`.
        steps: proposals per chain, each of up to eight leapfrog steps.
        power: of the target, which is seen in the base space; 1 is the target itself.

    Returns:
        the chains' ends, and the share of proposals that were accepted.

    Reference:
        Hoffman et al., NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport, 2019,
        arXiv 1903.03704.
    """
    size = 0.5 / z.shape[-1] ** 0.25
    for _ in range(6):
        _, rate = _proposal(flow, density, z[: min(len(z), 128)], size, power)
        if abs(rate - GOAL) < 0.1:
            break
        size *= min(max(rate / GOAL, 0.4), 1.3)
    accepted = 0.0
    for _ in range(steps):
        z, rate = _proposal(flow, density, z, size, power)
        accepted += rate / steps
    return z, accepted


def _proposal(flow: Flow, density: Density, z: Tensor, size: float, power: float) -> tuple[Tensor, float]:
    momentum = torch.randn_like(z)
    value, gradient = pulled_back(flow, density, z, power)
    start = value - 0.5 * momentum.square().sum(-1)
    place = z
    for _ in range(int(torch.randint(1, LEAPFROGS + 1, ()))):
        momentum = momentum + 0.5 * size * gradient
        place = place + size * momentum
        value, gradient = pulled_back(flow, density, place, power)
        momentum = momentum + 0.5 * size * gradient
    end = (value - 0.5 * momentum.square().sum(-1)).nan_to_num(-math.inf)
    accept = torch.rand(len(z), dtype=z.dtype).log() < end - start
    return torch.where(accept[:, None], place, z), accept.double().mean().item()


@torch.no_grad()
def annealed_draws(flow: Flow, density: Density, n: int, *, stages: int = STAGES) -> tuple[Tensor, Tensor]:
    """Draws of the flow, carried to the target by local moves on the way, and their log importance weights.

    Without gradients there are no moves, and these are draws of the flow.

    Returns:
        draws, `(n, features)`, and log-weights, `(n,)`.

    Reference:
        Neal, Annealed Importance Sampling, 2001, arXiv physics/9803008.
    """
    z = flow.base.sample((n,))
    log_weights = torch.zeros(n, dtype=torch.float64)
    for stage in range(1, stages + 1):
        x, log_det = flow.bijection(z)
        log_weights += (density(x) + log_det - flow.base.log_prob(z)) / stages
        if density.differentiable:
            z, _ = hamiltonian_steps(flow, density, z, 1, stage / stages)
    return flow.from_base(z), log_weights


@torch.no_grad()
def exact_draws(flow: Flow, density: Density, n: int, *, seed: int, rounds: int = 40) -> tuple[Tensor, float]:
    """n chains, each started from a weighted draw, that alternate between fresh proposals of the flow and local moves.

    An independence Metropolis-Hastings step proposes a draw of the flow; a Hamiltonian step in the base space moves
    it, where the target has a gradient. Both leave the target as it is, so the draws approach it as the rounds go on.

    Returns:
        the draws, `(n, features)`, and the share of the flow's proposals that were accepted.

    Reference:
        Nabergoj and Štrumbelj, Empirical evaluation of normalizing flows in Markov Chain Monte Carlo, 2024,
        arXiv 2412.17136.
    """
    from pushforward.inference.certify import weighted_draws

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool, log_weights = weighted_draws(flow, density, max(2 * n, 4096))
        index = torch.multinomial(log_weights.softmax(0), n, replacement=True)
        x, weight = pool[index], log_weights[index]
        accepted = 0.0
        for round_ in range(rounds):
            fresh, fresh_weight = weighted_draws(flow, density, n)
            accept = torch.rand(n, dtype=weight.dtype).log() < fresh_weight - weight
            x = torch.where(accept[:, None], fresh, x)
            accepted += accept.double().mean().item() / rounds
            if density.differentiable and round_ % 4 == 3:
                z, _ = hamiltonian_steps(flow, density, flow.to_base(x), 1)
                x = flow.from_base(z)
                weight = density(x) - flow.log_prob(x)
            else:
                weight = torch.where(accept, fresh_weight, weight)
    return x, accepted
