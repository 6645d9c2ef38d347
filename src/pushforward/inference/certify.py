"""Judge a fit on fresh draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.diagnostics import effective_sample_size, khat_threshold, log_evidence, pareto_smooth
from pushforward.flow import Flow
from pushforward.inference.density import Density
from pushforward.inference.exact import hamiltonian_steps
from pushforward.inference.locate import Located
from pushforward.inference.mixture import Mixture

DRAWS = 20_000
BLOCK = 4096
MISSED_SHARE, MISSED_BLOCK = 0.1, 512  # of the draws
DRIFT_SHARE, DRIFT_STEPS = 0.025, 10
COST = 3  # evaluations for each draw, all checks included
SIGNIFICANT = 1e-4


@dataclass(frozen=True)
class Certificate:
    """Figures of a fit on fresh draws of its flow.

    Attributes:
        elbo: E_q[log p - log q], nats, a lower bound of the log evidence.
        elbo_error: its standard error.
        log_evidence: log of the mean importance weight, nats.
        log_evidence_error: its standard error; without meaning where k-hat is large.
        ess: effective share of the draws, of 1.
        khat: tail index of the importance weights; below `khat_limit` averages over the weights can be trusted.
        khat_limit: the threshold for so many draws.
        drift: largest shift, in standard errors, of the mean or the square of a base coordinate, or of the log
            density, when weighted draws are moved by short chains that leave the target as it is; NaN without
            gradients.
        drift_p: probability of so large a shift by chance.
        proper: false if the density does not fall off fast enough to have a finite integral.
    """

    elbo: float
    elbo_error: float
    log_evidence: float
    log_evidence_error: float
    ess: float
    khat: float
    khat_limit: float
    drift: float
    drift_p: float
    proper: bool


@torch.no_grad()
def certify(flow: Flow, density: Density, *, draws: int, seed: int) -> Certificate:
    """Draw afresh, weigh, and move some of the weighted draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, log_weights = weighted_draws(flow, density, draws)
        finite = log_weights.clamp_min(-1e10)
        evidence, error = log_evidence(log_weights)
        smoothed, khat = pareto_smooth(log_weights)
        chains = max(int(DRIFT_SHARE * draws), 32)
        drift, drift_p = _drift(flow, density, x, smoothed, chains)
        proper = _falls_off(density, x)
    return Certificate(
        elbo=finite.mean().item(),
        elbo_error=(finite.std() / math.sqrt(draws)).item(),
        log_evidence=evidence,
        log_evidence_error=error,
        ess=effective_sample_size(log_weights),
        khat=khat,
        khat_limit=khat_threshold(draws),
        drift=drift,
        drift_p=drift_p,
        proper=proper,
    )


@torch.no_grad()
def missed_mass(flow: Flow, density: Density, located: Located, log_evidence: float, *, draws: int, seed: int) -> float:
    """Share of the mass where the flow gives less than a tenth of its due.

    Estimated on draws of the flow and of the located approximations together, weighted by the mean of both densities,
    so that it sees what only the approximations visit, and their far tails cannot mislead it.
    """
    mixture = Mixture(located.elbos.softmax(0), located.means, located.scales)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        each = max(int(MISSED_SHARE * draws), 128)
        x = torch.cat([flow.sample(each), mixture.sample(each, generator)])
    log_q = torch.cat([flow.log_prob(block) for block in x.split(BLOCK)])
    log_mixture = torch.cat([mixture.log_terms(block).logsumexp(-1) for block in x.split(MISSED_BLOCK)])
    value = density(x)
    mass = (value - torch.logaddexp(log_q, log_mixture)).softmax(0)
    lacking = value - log_q - log_evidence > math.log(10.0)
    return (mass * lacking).sum().item()


@torch.no_grad()
def weighted_draws(flow: Flow, density: Density, n: int) -> tuple[Tensor, Tensor]:
    """Draws of the flow, `(n, features)`, and their log importance weights, float64."""
    parts = []
    for start in range(0, n, BLOCK):
        x, log_q = flow.rsample_and_log_prob(min(BLOCK, n - start))
        parts.append((x, density(x) - log_q.double()))
    return torch.cat([x for x, _ in parts]), torch.cat([w for _, w in parts])


def _drift(flow: Flow, density: Density, x: Tensor, log_weights: Tensor, chains: int) -> tuple[float, float]:
    """The largest shift of simple statistics, in standard errors, and its probability by chance."""
    if not density.differentiable:
        return math.nan, math.nan
    index = torch.multinomial(log_weights.exp(), chains, replacement=True)
    before = flow.to_base(x[index])
    after, accepted = hamiltonian_steps(flow, density, before, DRIFT_STEPS)
    if accepted < 0.05:
        return math.nan, math.nan
    change = torch.cat([after - before, after.square() - before.square()], dim=-1)
    spread = change.std(0).clamp_min(1e-300) / math.sqrt(chains)
    z = (change.mean(0) / spread).abs().max().item()
    return z, min(change.shape[-1] * math.erfc(z / math.sqrt(2)), 1.0)


def _falls_off(density: Density, x: Tensor) -> bool:
    """Whether along every axis, both ways, the density falls faster than 1 / r, and along the diagonals than r^-d."""
    d = x.shape[-1]
    center, scale = x.median(0).values, x.std(0) + 1e-12
    eye = torch.eye(d, dtype=x.dtype)
    diagonals = torch.randn(8, d, dtype=x.dtype)
    directions = torch.cat([eye, -eye, diagonals])
    needed = torch.cat([torch.ones(2 * d, dtype=x.dtype), torch.full((8,), float(d), dtype=x.dtype)])
    near, far = (density(center + r * scale * directions) for r in (1e3, 1e5))
    slope = (near - far) / math.log(100)
    return bool((slope.nan_to_num(torch.inf, torch.inf, torch.inf) > needed).all())
