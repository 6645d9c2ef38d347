"""The density of continuous columns: the best of a Gaussian, a mixture and a flow, by the rows they have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pushforward.bases import Base, LocatedMixture, StandardNormal
from pushforward.bijections import Bijection, Chain, Elementwise, Standardize
from pushforward.flow import Flow
from pushforward.mixture import FlowMixture
from pushforward.nn import Rescale
from pushforward.tabular.fitting import EPOCHS, FlowFit, advance, race, settle, start
from pushforward.tabular.flows import Size, sizes
from pushforward.tabular.gaussians import choose_gaussians, fit_shrunk_gaussian
from pushforward.tabular.pace import Clock
from pushforward.tabular.rows import Rows
from pushforward.training import TrainResult
from pushforward.transformers import Additive

Quality = Literal["fast", "balanced", "best"]
FEWEST_ROWS = 10
FOLDS, FOLD_ROWS, FAST_FOLD_ROWS = 5, 5000, 1000  # below so many rows each is held out by one of five fits
HELD_SHARE, HELD_SHARE_OF_ONE, HELD_MOST = 0.1, 0.3, 20_000  # a single column is learned from fewer rows
SEEN_ROWS = 10_000  # on which the gap between seen and unseen rows is measured
RACE_SHARE = 0.2  # of the budget
END = 0.95  # share of the budget at which the training ends
BLEND_STEPS, LEAST_PART = 500, 0.02
RIDGE = 1e-6
FAST = 1 / 3  # of the steps


@dataclass(frozen=True)
class Candidate:
    """One density that was fitted, and how it did.

    Attributes:
        name: what it is.
        log_likelihood: mean over rows that it has not seen, nats per row, in the units of the rows.
        error: standard error of that mean.
        gap: the mean over rows that it has seen, less `log_likelihood`.
        steps: training steps, of all fits that it consists of.
        seconds: wall-clock time.
    """

    name: str
    log_likelihood: float
    error: float
    gap: float
    steps: int
    seconds: float

    def __str__(self) -> str:
        steps = f", {self.steps} steps" if self.steps else ""
        return (
            f"{self.name}: {self.log_likelihood:.4f} +- {self.error:.4f} nats per row, gap {self.gap:.4f}{steps}, "
            f"{self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class DensityResult:
    """The best density, and what it was chosen from.

    Attributes:
        flow: the density of a row in its own units, float64; given a context if there was one.
        candidates: what was fitted, the best first.
        lead: mean of what the best gains on the second best, nats per row, on rows that neither has seen, and
            `lead_error`, its standard error.
        held_out: indices of the rows on which they were judged, `(m,)`.
        folds: how many fits shared the rows; with one, `held_out` is all that the flow has not seen.
        seconds: wall-clock time.
        runs: by the candidate's name, the course of its training, of several fits that of the first; losses are in
            nats per row of standardised columns.
    """

    flow: Flow
    candidates: tuple[Candidate, ...]
    lead: float
    lead_error: float
    held_out: Tensor
    folds: int
    seconds: float
    runs: Mapping[str, TrainResult] = field(default_factory=dict)

    @property
    def best(self) -> Candidate:
        """The candidate that `flow` is."""
        return self.candidates[0]

    def __str__(self) -> str:
        lead = f"{self.best.name} leads by {self.lead:.4f} +- {self.lead_error:.4f} nats per row"
        return "\n".join([lead, *(f"  {candidate}" for candidate in self.candidates), f"  {self.seconds:.1f} s"])


def fit_density(
    x: Tensor,
    context: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    quality: Quality = "balanced",
    max_seconds: float = 60.0,
    seed: int = 0,
    progress: bool | None = None,
) -> DensityResult:
    """The density of rows of real numbers, given a context if there is one: a Gaussian, a mixture of them, or a flow.

    All are fitted to some of the rows and judged on the others, and the likeliest wins: with fewer than 5,000 rows each
    row is left out by one of five fits, otherwise one tenth is (of a single column three tenths). A Gaussian or mixture
    that wins is fitted again to all rows; flows of five fits are mixed, and a blend of all candidates wins if it is
    better by two standard errors.

    The number of training steps follows from the number of rows and, where the time is short, from the time that a step
    takes, in factors of the fourth root of two: then two runs under one seed are alike if the machine is as fast.

    Args:
        x: rows, `(n, features)`; of any scale.
        context: what to condition on, `(n, context_features)`; of any scale.
        weights: how often each row counts, non-negative, `(n,)`: a row of weight 2 counts as two that are equal.
        quality: "fast" trains for a third of the steps and without comparing sizes, "best" mixes the flows of five fits
            however many rows there are.
        max_seconds: budget of time; it also ends the training.
        seed: of everything random; the global random state is left as it was.
        progress: show progress bars; by default only on a terminal.

    Raises:
        ValueError: the shapes do not fit, a number is not finite (in which row), a column is constant (which), or there
            are too few rows.

    References:
        Durkan et al., Neural Spline Flows, 2019, arXiv 1906.04032.
        Hickling and Prangle, Flexible Tails for Normalizing Flows, 2024, arXiv 2406.16971.

    Example:
        >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        >>> result = fit_density(x, max_seconds=3.0)
        >>> result.best.name, result.flow.sample(7).shape
        ('Gaussian', torch.Size([7, 3]))
    """
    if quality not in ("fast", "balanced", "best"):
        raise ValueError(f"fit_density: expected quality 'fast', 'balanced' or 'best', got {quality!r}")
    if not max_seconds > 0:
        raise ValueError(f"fit_density: expected max_seconds > 0, got {max_seconds}")
    rows, kept, embedding = _checked(x, context, weights)
    clock = Clock(max_seconds)
    folds = _folds(len(rows), rows.features, quality, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        entries = [_baseline("Gaussian", rows, folds, _gaussian)]
        if min(len(fold.fitted) for fold in folds) > rows.features:
            entries.append(_baseline("mixture", rows, folds, lambda part: _gaussians(part, seed)))
        entries += _flows(rows, folds, quality, clock, seed, progress)
        if len(folds) > 1:
            entries += _blended(entries, rows[torch.cat([fold.held for fold in folds])])
        held = torch.cat([fold.held for fold in folds])
        return _judged(entries, rows, held, kept, embedding, len(folds), clock)


@dataclass(frozen=True)
class _Fold:
    """Indices of the rows to fit to, and of those to judge on."""

    fitted: Tensor
    held: Tensor


@dataclass(frozen=True)
class _Entry:
    """A candidate before it is judged: its log-probabilities of the rows left out, fold by fold, and the way to it."""

    name: str
    held: Tensor
    seen: float
    steps: int
    seconds: float
    finish: Callable[[], Flow]
    run: TrainResult | None = None


def _checked(x: Tensor, context: Tensor | None, weights: Tensor | None) -> tuple[Rows, Tensor, Rescale | None]:
    """The rows that count, their indices, and what standardises the context."""
    if x.dim() != 2 or not x.shape[1] or not x.is_floating_point():
        raise ValueError(f"fit_density: expected x of real numbers, (n, features), got {x.dtype} {tuple(x.shape)}")
    n = len(x)
    weights = torch.ones_like(x[:, 0]) if weights is None else weights
    context_shape = (n, 0) if context is None else tuple(context.shape)
    if weights.shape != (n,) or len(context_shape) != 2 or context_shape[0] != n:
        raise ValueError(
            f"fit_density: expected {n} rows of context and {n} weights, got {context_shape} and {tuple(weights.shape)}"
        )
    for name, value in (("x", x), ("context", context), ("weights", weights.unsqueeze(-1))):
        if value is not None and not bool(value.isfinite().all()):
            row = int((~value.isfinite()).any(-1).nonzero()[0])
            raise ValueError(f"fit_density: expected finite {name}, got {value[row].tolist()} in row {row}")
    if bool((weights < 0).any()):
        row = int((weights < 0).nonzero()[0])
        raise ValueError(f"fit_density: expected weights of at least 0, got {weights[row].item()} in row {row}")
    kept = (weights > 0).nonzero().squeeze(-1)
    x, weights = x[kept].double(), weights[kept].double()
    if len(x) < FEWEST_ROWS or weights.sum() < FEWEST_ROWS:
        raise ValueError(
            f"fit_density: expected {FEWEST_ROWS} or more rows, got {len(x)} whose weights sum to {weights.sum():g}; "
            "a weight is how often a row counts"
        )
    constant = (x == x[0]).all(0)
    if bool(constant.any()):
        column = int(constant.nonzero()[0])
        raise ValueError(f"fit_density: column {column} is constant: {x[0, column].item()!r} in every row")
    if context is None or not context.shape[1]:
        return Rows(x, None, weights), kept, None
    context = context[kept].double()
    loc = weights @ context / weights.sum()
    away = (context - loc).abs()
    # The rare values of a column of zeros and ones stay near.
    scale = torch.maximum((weights @ away.square() / weights.sum()).sqrt(), away.amax(0) / 10)
    embedding = Rescale(loc, torch.where(scale > 0, scale, 1.0))
    return Rows(x, embedding(context), weights), kept, embedding


def _folds(n: int, features: int, quality: Quality, seed: int) -> list[_Fold]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    enough = FAST_FOLD_ROWS if quality == "fast" else FOLD_ROWS
    if quality != "best" and n >= enough:
        share = HELD_SHARE_OF_ONE if features == 1 else HELD_SHARE
        held = min(max(round(share * n), 1), HELD_MOST)
        return [_Fold(order[held:], order[:held])]
    parts = order.tensor_split(FOLDS)
    return [_Fold(torch.cat([*parts[:k], *parts[k + 1 :]]), parts[k]) for k in range(FOLDS)]


def _baseline(name: str, rows: Rows, folds: list[_Fold], fit: Callable[[Rows], Flow]) -> _Entry:
    """A density that is fitted anew to all rows if it wins."""
    clock = Clock(math.inf)
    flows = [fit(rows[fold.fitted]) for fold in folds]
    if isinstance(flows[0].base, LocatedMixture):
        numbers = sorted({len(flow.base.weights) for flow in flows if isinstance(flow.base, LocatedMixture)})
        name = f"{name} of {' to '.join(str(k) for k in dict.fromkeys((numbers[0], numbers[-1])))} Gaussians"
    return _entry(name, rows, folds, flows, 0, clock.spent, lambda: fit(rows))


def _entry(
    name: str,
    rows: Rows,
    folds: list[_Fold],
    flows: list[Flow],
    steps: int,
    seconds: float,
    finish: Callable[[], Flow] | None = None,
    run: TrainResult | None = None,
) -> _Entry:
    """The flows of the folds as one candidate; by default it ends up as their mixture."""
    held = torch.cat([rows[fold.held].log_prob(flow) for fold, flow in zip(folds, flows, strict=True)])
    seen = 0.0
    for fold, flow in zip(folds, flows, strict=True):
        some = rows[fold.fitted[: SEEN_ROWS // len(folds)]]
        seen += some.mean(some.log_prob(flow))[0] / len(folds)
    return _Entry(name, held, seen, steps, seconds, finish or (lambda: _mixed(flows)), run)


def _mixed(flows: list[Flow], weights: Tensor | None = None) -> Flow:
    return flows[0] if len(flows) == 1 else Flow(Chain(), FlowMixture(flows, weights)).double()


def _gaussian(rows: Rows) -> Flow:
    residuals, shift = _regression(rows)
    one = fit_shrunk_gaussian(residuals, weights=rows.weights).component_distribution
    assert isinstance(one, MultivariateNormal)
    layer = Standardize(one.loc[0], one.scale_tril[0].tril())
    return _around(layer, StandardNormal(rows.x.shape[1]), shift)


def _gaussians(rows: Rows, seed: int) -> Flow:
    residuals, shift = _regression(rows)
    ridge = 1e-6 if len(rows) >= 2000 else 1e-3
    mixture = choose_gaussians(residuals, weights=rows.weights, ridge=ridge, seed=seed)
    parts = mixture.component_distribution
    assert isinstance(parts, MultivariateNormal)
    probs = mixture.mixture_distribution.probs.clamp_min(torch.finfo(parts.loc.dtype).tiny)
    return _around(Chain(), LocatedMixture(parts.loc, parts.scale_tril, probs), shift)


def _around(layer: Bijection, base: Base, shift: Bijection | None) -> Flow:
    return Flow(layer if shift is None else Chain(layer, shift), base).double()


def _regression(rows: Rows) -> tuple[Tensor, Bijection | None]:
    """What a linear regression on the context leaves of the rows, and the map that adds the rest."""
    if rows.context is None:
        return rows.x, None
    share = rows.weights / rows.weights.sum()
    mean, context_mean = share @ rows.x, share @ rows.context
    centred = rows.context - context_mean
    gram = (centred * share.unsqueeze(-1)).T @ centred
    gram = gram + RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    slopes = torch.linalg.solve(gram, (centred * share.unsqueeze(-1)).T @ (rows.x - mean)).T
    shift = Elementwise(Additive(), rows.x.shape[1], context_features=rows.context_features, hidden_features=())
    shift = shift.to(rows.x)
    intercept = mean - slopes @ context_mean
    assert shift.params.network is not None
    with torch.no_grad():
        shift.params.set_(intercept)
        last = shift.params.network.layers[-1]
        last.weight.copy_(slopes)  # type: ignore[operator]
    return rows.x - rows.context @ slopes.T - intercept, shift


def _flows(
    rows: Rows, folds: list[_Fold], quality: Quality, clock: Clock, seed: int, progress: bool | None
) -> list[_Entry]:
    """Flows of every size for a column by itself, otherwise of the size that is best after a share of the time."""
    options = sizes(len(folds[0].fitted), rows.features, rows.context_features)
    options = options[:1] if quality == "fast" else options
    if rows.features == 1 and not rows.context_features:
        return [
            _splines(rows, folds, size, clock.until(END) / (len(options) - k), progress)
            for k, size in enumerate(options)
        ]
    own = Clock(clock.until(END))
    fits: list[FlowFit] = []
    steps = 0
    for k, fold in enumerate(folds):
        parts = rows[fold.fitted], rows[fold.held]
        raced = [start(*parts, size, seed=seed + k) for size in options]
        fit = raced[0]
        if len(raced) > 1:
            fit = race(raced, RACE_SHARE * own.seconds, seed=seed, progress=progress)
            options = [fit.size]
            steps += sum(other.steps for other in raced if other is not fit)
        if fits:
            fit.cost = fits[0].cost
        epochs = EPOCHS * (FAST if quality == "fast" else 1)
        advance(fit, own.left / (len(folds) - k), epochs=epochs, seed=seed + k, progress=progress)
        fits.append(fit)
        steps += fit.steps
    return [_trained(f"flow ({fits[0].size})", rows, folds, fits, steps, own.spent)]


def _splines(rows: Rows, folds: list[_Fold], size: Size, seconds: float, progress: bool | None) -> _Entry:
    own = Clock(seconds)
    fits = [start(rows[fold.fitted], rows[fold.held], size, seed=0, dtype=torch.float64) for fold in folds]
    for k, fit in enumerate(fits):
        settle(fit, own.left / (len(fits) - k), progress=progress)
    steps = sum(fit.steps for fit in fits)
    return _trained(f"spline ({size})", rows, folds, fits, steps, own.spent)


def _trained(name: str, rows: Rows, folds: list[_Fold], fits: list[FlowFit], steps: int, seconds: float) -> _Entry:
    return _entry(name, rows, folds, [fit.flow for fit in fits], steps, seconds, run=fits[0].run)


def _blended(entries: list[_Entry], rows: Rows) -> list[_Entry]:
    """The candidates weighted for the highest likelihood of the rows, if that is clearly above the best one's."""
    share = rows.weights / rows.weights.sum()
    held = torch.stack([entry.held for entry in entries])
    weights = torch.full((len(entries),), 1 / len(entries), dtype=held.dtype, device=held.device)
    for _ in range(BLEND_STEPS):
        weights = (held + weights.log().unsqueeze(-1)).softmax(0) @ share
    parts = [(w, entry) for w, entry in zip(weights.tolist(), entries, strict=True) if w > LEAST_PART]
    used = torch.tensor([w for w, _ in parts], dtype=held.dtype, device=held.device)
    blend = (torch.stack([entry.held for _, entry in parts]) + (used / used.sum()).log().unsqueeze(-1)).logsumexp(0)
    best = max(entries, key=lambda entry: rows.mean(entry.held)[0])
    gain, error = rows.mean(blend - best.held)
    if len(parts) < 2 or not gain > 2 * error:
        return []
    name = "blend: " + ", ".join(f"{w:.2f} {entry.name}" for w, entry in sorted(parts, key=lambda part: -part[0]))
    seen = sum(w * entry.seen for w, entry in parts) / float(used.sum())
    steps = sum(entry.steps for _, entry in parts)
    seconds = sum(entry.seconds for _, entry in parts)
    return [_Entry(name, blend, seen, steps, seconds, lambda: _mixed([entry.finish() for _, entry in parts], used))]


def _judged(
    entries: list[_Entry], rows: Rows, held: Tensor, kept: Tensor, embedding: Rescale | None, folds: int, clock: Clock
) -> DensityResult:
    """The entries by their likelihood on the rows left out, and the flow of the best."""
    judges = rows[held]
    means = {id(entry): judges.mean(entry.held) for entry in entries}
    order = sorted(entries, key=lambda entry: -means[id(entry)][0])
    candidates = tuple(
        Candidate(entry.name, *means[id(entry)], entry.seen - means[id(entry)][0], entry.steps, entry.seconds)
        for entry in order
    )
    lead, lead_error = judges.mean(order[0].held - order[1].held)
    flow = order[0].finish()
    if embedding is not None:
        flow = Flow(flow.bijection, flow.base, embedding=embedding).double()
    runs = {entry.name: entry.run for entry in order if entry.run is not None}
    return DensityResult(flow, candidates, lead, lead_error, kept[held], folds, clock.spent, runs)
