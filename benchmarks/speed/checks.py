"""Whether a library's model is what it claims, before it is timed.

Each model has taken the same number of training steps by then, so that none is at the identity. Checked are
* the number of trainable parameters, within 5 % of the architecture's;
* that the log-density of data is finite;
* that draws come with the log-density that `log_prob` finds for them, which ties both directions and both
  log-determinants together;
* in two dimensions that the density integrates to one: by quadrature over a square, to the share of the draws that
  fall into it; where a library scores nothing but its own draws x ~ q, by the mean of p(x)/q(x) for a normal density p,
  which is one.

`parity` copies weights where the parametrisations coincide, which is in the coupling splines of nflows and normflows.
The others parametrise scales, bin sizes or slopes in ways of their own.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from benchmarks.speed.cases import Case, data

Array = np.ndarray[Any, Any]
PARAMETERS_WITHIN = 0.05
DRAWS = 256
SHARE_DRAWS = 5_000
WEIGHED_DRAWS = 20_000
LOG_DENSITY_WITHIN = 0.01  # nats; float32 through up to 43 sequential steps and an adaptive solver
INTEGRAL_WITHIN = 0.03  # the standard error of the share is below 0.007, of the mean weight near 0.01


class Scored(Protocol):
    """What the checks need of a model."""

    parameters: int
    estimates: bool  # the log-density is an estimate whatever the mode

    def log_prob(self, x: Array) -> Array | None: ...
    def sample(self, n: int) -> Array: ...
    def draw(self, n: int) -> tuple[Array, Array]: ...
    def score_draws(self, x: Array) -> Array | None: ...


def check(model: Scored, case: Case) -> list[str]:
    """What is wrong with the model, in words; nothing, if all is well."""
    faults = []
    found = model.log_prob(data(case))
    if found is not None and not np.isfinite(found).all():
        faults.append("log-density of data is not finite")
    x, log_q = model.draw(DRAWS)
    again = model.score_draws(x)
    if again is not None:
        gap = float(np.abs(again - log_q).max())
        if not gap <= LOG_DENSITY_WITHIN:
            faults.append(f"draws and log_prob disagree by {gap:.2g} nats")
    if case.features == 2 and not model.estimates:
        total = mass(model) if found is not None else mean_weight(model)
        if not abs(total - 1) <= INTEGRAL_WITHIN:
            faults.append(f"density integrates to {total:.3f}")
    return faults


def parameters_differ(parameters: int, case: Case) -> str | None:
    difference = parameters - case.parameters
    if abs(difference) <= PARAMETERS_WITHIN * case.parameters:
        return None
    return f"{difference / case.parameters:+.0%} parameters"


def mass(model: Scored, reach: float = 10.0, step: float = 0.2) -> float:
    """The integral over a square, as a share of what it should be: the share of the draws that fall into it."""
    axis = np.arange(-reach, reach + step / 2, step)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    log_prob = model.log_prob(grid)
    assert log_prob is not None
    inside = np.abs(model.sample(SHARE_DRAWS)).max(-1) <= reach
    return float(np.exp(log_prob.astype(float)).sum() * step**2 / inside.mean())


def mean_weight(model: Scored, scale: float = 0.5) -> float:
    """The mean of p(x)/q(x) over draws of q; p is q's normal approximation, narrowed so that q covers it."""
    x, log_q = model.draw(WEIGHED_DRAWS)
    x = x.astype(float)
    root = scale * np.linalg.cholesky(np.cov(x.T))
    z = np.linalg.solve(root, (x - x.mean(axis=0)).T)
    log_p = -0.5 * (z**2).sum(0) - np.log(np.diag(root)).sum() - np.log(2 * np.pi)
    return float(np.exp(log_p - log_q).mean())
