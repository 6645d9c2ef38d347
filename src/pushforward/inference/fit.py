"""From a log density to a flow, its evidence, and a verdict."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.bijections import Bijection, Chain, Standardize
from pushforward.diagnostics import log_evidence
from pushforward.flow import Flow
from pushforward.inference.budget import Budget
from pushforward.inference.certify import COST, DRAWS, Certificate, certify, missed_mass, weighted_draws
from pushforward.inference.density import Density, Draws, Features, LogDensity, Support
from pushforward.inference.exact import exact_draws
from pushforward.inference.locate import Located, locate
from pushforward.inference.mixture import truncated
from pushforward.inference.refine import LOWEST, RATE, bootstrap, polish, transport
from pushforward.inference.report import Verdict, report, verdict
from pushforward.inference.starts import Start, starts
from pushforward.inference.tails import heavy_tails
from pushforward.io import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYERS, HIDDEN = 4, (32, 32)
RACE = 0.15  # share of the budget that each of several starts gets before the best goes on
# Shares of the budget at which stages end; the certificate, which comes after the polish, gets a share of its own.
LOCATE, LOCATE_AGAIN, START, POLISH = 0.25, 0.35, 0.45, 0.75
CERTIFICATE, FEWEST_DRAWS = 0.15, 1000
JUDGE_DRAWS = 4096


@dataclass(frozen=True)
class LogDensityFit:
    """A flow fitted to a log density, and how far to trust it.

    Attributes:
        flow: on the user's scale, float64; for named sites over all of them side by side.
        elbo: lower bound of the log evidence, nats.
        log_evidence: log of the integral of the density, nats, and `log_evidence_error`, its standard error.
        ess: effective share of the flow's draws as importance samples, of 1.
        khat: tail index of their weights.
        evaluations: of the target, with those of the certificate.
        seconds: wall-clock time.
        missed: share of the mass, as far as the located modes and the flow show it, to which the flow gives less than
            a tenth of its due.
        verdict: "good", "doubtful" or "failed".
        report: the verdict in words, with the figures and what to do next.
        start: the kind of start that was best: "normal", "mixture", "product", "wide", or "given" for a given flow.
        dtype: of the draws.
    """

    flow: Flow
    elbo: float
    log_evidence: float
    log_evidence_error: float
    ess: float
    khat: float
    evaluations: int
    seconds: float
    missed: float
    verdict: Verdict
    report: str
    start: str
    certificate: Certificate
    dtype: torch.dtype
    _density: Density
    _inner: Flow
    _seed: int

    def sample(self, n: int, *, exact: bool = False, seed: int | None = None) -> Draws:
        """`n` draws on the user's scale, `(n, features)`; for named sites a dict of them.

        Args:
            n: number of draws.
            exact: draws of the target, not of the flow, as the end of n Markov chains that start from weighted draws
                and go between the flow's proposals and, where there are gradients, local moves in the base space.
            seed: of the draws; by default torch's random state, or the seed of the fit for exact ones.
        """
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            if not exact:
                return self._named(self.flow.sample(n))
            u, _ = exact_draws(self._inner, self._density, n, seed=self._seed if seed is None else seed)
            return self._named(self._density.bijection(u)[0])

    def log_prob(self, x: Draws) -> Tensor:
        """log q(x) in nats of an x on the user's scale, `(*batch, features)` or a dict by sites, to `(*batch,)`."""
        return self.flow.log_prob(self._density.flat(x).double())

    def weighted_sample(self, n: int) -> tuple[Draws, Tensor]:
        """`n` draws of the flow and their log importance weights, whose exponentials have the evidence for mean."""
        with torch.no_grad():
            u, log_weights = weighted_draws(self._inner, self._density, n)
            return self._named(self._density.bijection(u)[0]), log_weights

    def save(self, path: str | Path) -> None:
        """Write the flow, the figures of the fit and the shapes of named sites to one file.

        `pushforward.load` gives the flow back, over all sites side by side, and `load_info` the rest.
        """
        figures = {name: getattr(self, name) for name in _FIGURES}
        info = {"fit": figures, "report": self.report}
        if self._density.shapes is not None:
            info["sites"] = {name: list(shape) for name, shape in self._density.shapes.items()}
        save(self.flow, path, info=info)

    def plot(self) -> Figure:
        """The margins, or for two features the density with draws, as a figure."""
        from pushforward.inference.plot import plot

        return plot(self)

    def to_arviz(self, n: int = 4000) -> Any:
        """`n` exact draws as four chains of an arviz data tree; needs `arviz-base`."""
        from pushforward.inference.plot import to_arviz

        return to_arviz(self, n)

    def __repr__(self) -> str:
        return self.report

    def _named(self, x: Tensor) -> Draws:
        return self._density.named(x.to(self.dtype))


_FIGURES = (
    "verdict",
    "elbo",
    "log_evidence",
    "log_evidence_error",
    "ess",
    "khat",
    "missed",
    "evaluations",
    "seconds",
    "start",
)


def fit_to_log_density(
    log_density: LogDensity,
    features: Features,
    *,
    support: Support | None = None,
    flow: Flow | None = None,
    max_steps: int = 5000,
    max_seconds: float = 120.0,
    max_evaluations: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    progress: bool | None = None,
) -> LogDensityFit:
    r"""A flow q close to $p(x) = \tilde p(x) / Z$, an estimate of $\log Z$, and a verdict, from $\log \tilde p$ alone.

    It locates the modes by ascents from dispersed points, starts a flow on them, lets several starts race where it is
    not clear which is right, polishes the best by reverse KL with path gradients, and judges it on fresh draws. Where
    the verdict is not good and budget is left, annealed draws show it where it lacks mass, for one more round.

    Args:
        log_density: from x to $\log \tilde p(x)$ in nats: a batch `(n, features)`, float64, to `(n,)`, or one point
            to a number. With named sites it takes a dict of tensors. Gradients are used if torch can take them.
        features: the number of coordinates of x, or for named sites the shape of each, as `{"mu": 1, "theta": 8}`.
        support: a constraint of `torch.distributions.constraints` for x, or a dict of them for the sites that are not
            real.
        flow: of your own, over as many unconstrained coordinates; a copy is trained after an affine map to the modes.
        max_steps: of the last training.
        max_seconds: budget of time; the learning rate falls so that the training ends within it. Most fits are done
            sooner, when all steps are.
        max_evaluations: budget of evaluations of the density, of values or gradients. Some thousands, for the first
            ascents and the verdict, are made in any case.
        seed: of everything random.
        dtype: of the draws; what is computed is float64.
        progress: show a line of progress; by default only on a terminal.

    Returns:
        The fit; print its `report`.

    Raises:
        ValueError: the density raises, or returns NaN, +inf or another shape (at which point), or the arguments
            contradict each other.

    Example:
        >>> target = pf.targets.EightSchools()
        >>> fit = pf.fit_to_log_density(target.log_density, features=10, max_steps=50)
        >>> fit.sample(1000).shape
        torch.Size([1000, 10])
    """
    if max_seconds <= 0 or max_steps < 1 or (max_evaluations is not None and max_evaluations < 1):
        raise ValueError(
            "fit_to_log_density: expected positive max_seconds, max_steps and max_evaluations, got "
            f"{max_seconds}, {max_steps} and {max_evaluations}"
        )
    density = Density(log_density, features, support)
    if flow is not None and (flow.event_shape != (density.features,) or flow.context_features):
        raise ValueError(
            f"fit_to_log_density: expected a flow of event shape {(density.features,)} without context, got "
            f"{flow.event_shape} and context_features={flow.context_features}"
        )
    with Budget(density, max_seconds, max_evaluations, progress) as budget, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        outer = density.bijection
        located = locate(density, generator, budget=budget, until=LOCATE)
        if (tails := heavy_tails(density, located)) is not None:
            density.change_coordinates(tails)
            located = locate(density, generator, budget=budget, until=LOCATE_AGAIN)
        if flow is not None:
            name, inner, modes = "given", _given(flow, located), False
        else:
            budget.stage = "start"
            candidates = starts(density, located, generator, budget=budget, until=START)
            start, inner = _race(candidates, density, budget, max_steps, generator, seed)
            name, modes = start.name, start.modes
        budget.stage = "polish"
        polish(inner, density, steps=max_steps, budget=budget, until=POLISH, modes=modes, seed=seed + 1)
        judged = _judge(inner, density, located, budget, seed + 2)
        if judged.verdict != "good" and judged.certificate.proper and budget.spent < POLISH:
            budget.stage = "bootstrap"
            again = copy.deepcopy(inner)
            bootstrap(again, density, budget=budget, seed=seed + 3)
            end = 1 - CERTIFICATE
            polish(again, density, steps=max_steps, budget=budget, until=end, modes=True, seed=seed + 4, rate=RATE / 3)
            judged = max(judged, _judge(again, density, located, budget, seed + 5), key=lambda j: j.merit)
    parts: list[Bijection] = [judged.flow.bijection, *([] if tails is None else [tails])]
    if not (isinstance(outer, Chain) and not len(outer.layers)):
        parts.append(outer)
    certificate = judged.certificate
    return LogDensityFit(
        flow=Flow(Chain(*parts), judged.flow.base),
        elbo=certificate.elbo,
        log_evidence=certificate.log_evidence,
        log_evidence_error=certificate.log_evidence_error,
        ess=certificate.ess,
        khat=certificate.khat,
        evaluations=density.evaluations,
        seconds=budget.seconds,
        missed=judged.missed,
        verdict=judged.verdict,
        report=report(judged.verdict, certificate, located, judged.missed, name, density.evaluations, budget.seconds),
        start=name,
        certificate=certificate,
        dtype=dtype,
        _density=density,
        _inner=judged.flow,
        _seed=seed,
    )


@dataclass(frozen=True)
class _Judged:
    """A flow in float64, and what was found about it."""

    flow: Flow
    certificate: Certificate
    missed: float

    @property
    def verdict(self) -> Verdict:
        return verdict(self.certificate, self.missed)

    @property
    def merit(self) -> tuple[int, float]:
        """The larger, the better: the verdict first, then the share of the draws that counts."""
        return ("failed", "doubtful", "good").index(self.verdict), self.certificate.ess


def _judge(flow: Flow, density: Density, located: Located, budget: Budget, seed: int) -> _Judged:
    """The flow as it is now, on as many fresh draws as the budget pays for."""
    budget.stage = "certify"
    budget.update()
    flow = copy.deepcopy(flow).double()
    draws = int(min(DRAWS, max(CERTIFICATE * budget.affordable / COST, FEWEST_DRAWS)))
    certificate = certify(flow, density, draws=draws, seed=seed)
    missed = missed_mass(flow, density, located, certificate.log_evidence, draws=draws, seed=seed + 100)
    return _Judged(flow, certificate, missed)


def _given(flow: Flow, located: Located) -> Flow:
    """A copy of the user's flow, behind the affine map to the mean and covariance of the modes."""
    weights = located.elbos.softmax(0)
    loc = weights @ located.means
    centred = located.means - loc
    within = torch.einsum("k,kij->ij", weights, located.scales @ located.scales.mT)
    scale = torch.linalg.cholesky(within + (weights[:, None] * centred).mT @ centred)
    flow = copy.deepcopy(flow)
    return Flow(Chain(flow.bijection, Standardize(loc.to(_dtype(flow)), scale.to(_dtype(flow)))), flow.base)


def _race(
    candidates: list[Start], density: Density, budget: Budget, steps: int, generator: torch.Generator, seed: int
) -> tuple[Start, Flow]:
    """The start whose flow promises the most mass after a share of the budget; lost mass can only lower it.

    Of those that promise the same within two standard errors, the one with the largest ELBO.
    """
    flows = [start.flow(layers=LAYERS, hidden_features=HIDDEN, seed=seed) for start in candidates]
    if len(flows) == 1:
        return candidates[0], flows[0]
    masses, errors, elbos = [], [], []
    for start, flow in zip(candidates, flows, strict=True):
        budget.stage = f"race, {start.name} start"
        end = budget.spent + RACE
        if start.transport:
            transport(flow, density, budget=budget, until=end - RACE / 2, generator=generator)
        polish(flow, density, steps=max(steps // 5, 50), budget=budget, until=end, modes=start.modes, seed=seed)
        with torch.no_grad():
            _, log_weights = weighted_draws(flow, density, JUDGE_DRAWS)
        mass, error = log_evidence(truncated(log_weights))
        masses.append(mass)
        errors.append(error)
        elbos.append(log_weights.clamp_min(LOWEST).mean().item())
    most = max(range(len(flows)), key=masses.__getitem__)
    equal = [k for k in range(len(flows)) if masses[k] > masses[most] - 2 * math.hypot(errors[k], errors[most])]
    best = max(equal, key=elbos.__getitem__)
    return candidates[best], flows[best]


def _dtype(flow: Flow) -> torch.dtype:
    return next((p.dtype for p in flow.parameters()), torch.get_default_dtype())
