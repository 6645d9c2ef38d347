"""Find where the mass is: Gaussian approximations along many ascents from widely dispersed points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.inference.budget import Budget
from pushforward.inference.density import Density

SCALES = (0.5, 50.0)  # of the first starting points
FEWEST_PATHS = 16
PATH_DRAWS, FINAL_DRAWS = 6, 24
BEHIND = 10.0  # nats of ELBO behind the best at which an approximation is dropped
LANDED = 6.0  # nats of log density behind the best within which an end point counts as a mode
MAX_COMPONENTS = 160
MAX_ROUNDS = 10
COMPLETE = 0.1  # share of new modes among the landings of a round up to which all counts as found


@dataclass(frozen=True)
class Located:
    """Gaussian approximations of the modes, best first.

    Attributes:
        means: shape `(k, features)`.
        scales: Cholesky factors of their covariances, shape `(k, features, features)`.
        elbos: of each approximation alone, nats, shape `(k,)`.
        complete: fresh starts found hardly anything new.
        connected: from each the density hardly dips on the way to a near better one, as within one curved mode.
    """

    means: Tensor
    scales: Tensor
    elbos: Tensor
    complete: bool
    connected: bool


@dataclass
class _Paths:
    """Best approximation on each path, and where it ended."""

    means: Tensor
    scales: Tensor
    elbos: Tensor
    ends: Tensor
    values: Tensor

    def take(self, index: Tensor) -> _Paths:
        return _Paths(*(part[index] for part in (self.means, self.scales, self.elbos, self.ends, self.values)))


def locate(density: Density, generator: torch.Generator, *, budget: Budget, until: float) -> Located:
    """Climb from dispersed points, then from the spread of what was found, until nothing new is found.

    Args:
        density: the target.
        generator: of starting points and draws.
        budget: shared with the other stages.
        until: share of the whole budget at which the search ends, complete or not.

    Reference:
        Zhang et al., Pathfinder: Parallel quasi-Newton variational inference, 2021, arXiv 2108.03782.
    """
    d = density.features
    paths, saturated, rounds = (256, 0.0, MAX_ROUNDS) if d <= 4 else (64, 0.02, 4)
    paths = int(min(paths, max(until * budget.affordable / (40 + 10 * d), FEWEST_PATHS)))
    low, high = (math.log(s) for s in SCALES)
    scale = (low + (high - low) * torch.rand(paths, 1, generator=generator, dtype=torch.float64)).exp()
    starts = scale * torch.randn(paths, d, generator=generator, dtype=torch.float64)
    found = _distinct(_ascend(density, starts, generator, budget, until))
    share = 1.0
    for _ in range(1, rounds):
        if budget.spent > until:
            break
        fresh = _ascend(density, _restarts(found, paths, generator), generator, budget, until)
        share = _share_new(found, fresh)
        found = _distinct(_joined(found, fresh))
        if share <= saturated:
            break
    means, scales, elbos = found.means, found.scales, found.elbos
    connected = len(means) == 1 or (d > 4 and _connected(density, means, scales))
    return Located(means, scales, elbos, share <= COMPLETE, connected)


def _ascend(density: Density, x: Tensor, generator: torch.Generator, budget: Budget, until: float) -> _Paths:
    """BFGS from each point at once, with the best Gaussian approximation met on the way or at the end."""
    n, d = x.shape
    eye = torch.eye(d, dtype=x.dtype)
    value, gradient = density.value_and_gradient(x)
    usable = value.isfinite()
    if not usable.any():
        raise ValueError(f"log_density: expected a finite value somewhere, got -inf at all of {n} dispersed points")
    x, value, gradient = x[usable], value[usable], gradient[usable]
    n = len(x)
    inverse = eye / gradient.norm(dim=-1).clamp_min(1.0)[:, None, None]
    fresh = torch.ones(n, dtype=torch.bool)  # no curvature is known yet
    active = torch.ones(n, dtype=torch.bool)
    best = _Paths(x, eye.expand(n, d, d), torch.full((n,), -math.inf, dtype=x.dtype), x, value)
    for iteration in range(60 if d <= 4 else 100):
        if iteration < 4 or iteration % 2:
            _keep_better(density, best, active, x, gradient, inverse, generator, PATH_DRAWS)
        direction = (inverse @ gradient.unsqueeze(-1)).squeeze(-1)
        slope = (direction * gradient).sum(-1)
        uphill = slope > 0
        direction = torch.where(uphill[:, None], direction, gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1))
        slope = torch.where(uphill, slope, (direction * gradient).sum(-1))
        moved, new_value, new_gradient = _line_search(density, x, value, gradient, direction, slope, active)
        step, change = moved - x, gradient - new_gradient
        inverse, fresh = _bfgs(inverse, fresh, step, change, active)
        gained = new_value - value
        x, value, gradient = moved, new_value, new_gradient
        active = active & (gained > 1e-7 * (1 + value.abs()))
        budget.update()
        if not active.any() or budget.spent > until:
            break
    best.ends, best.values = x, value
    best.elbos = _elbo(density, best.means, best.scales, FINAL_DRAWS, generator)
    if budget.spent <= until:
        _keep_laplace(density, best, gradient, generator)
    return best


def _line_search(
    density: Density,
    x: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    slope: Tensor,
    active: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backtracking to sufficient ascent; paths that find none stay where they are."""
    x, value, gradient = x.clone(), value.clone(), gradient.clone()
    start, before = x.clone(), value.clone()
    open_ = active.clone()
    t = 1.0
    for _ in range(14):
        index = open_.nonzero().squeeze(-1)
        if not len(index):
            break
        trial = start[index] + t * direction[index]
        trial_value, trial_gradient = density.value_and_gradient(trial)
        risen = trial_value >= before[index] + 1e-4 * t * slope[index]
        done = index[risen]
        x[done], value[done], gradient[done] = trial[risen], trial_value[risen], trial_gradient[risen]
        open_[done] = False
        t *= 0.4
    return x, value, gradient


def _bfgs(inverse: Tensor, fresh: Tensor, s: Tensor, y: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse Hessian of minus the log density after a step s that changed the gradient by y."""
    sy = (s * y).sum(-1)
    good = active & (sy > 1e-10 * s.norm(dim=-1) * y.norm(dim=-1)) & (sy > 0)
    safe = torch.where(good, sy, 1.0)
    yy = (y * y).sum(-1)
    eye = torch.eye(s.shape[-1], dtype=s.dtype)
    first = good & fresh
    inverse = torch.where(first[:, None, None], (safe / torch.where(good, yy, 1.0))[:, None, None] * eye, inverse)
    hy = (inverse @ y.unsqueeze(-1)).squeeze(-1)
    yhy = (y * hy).sum(-1)
    cross = s.unsqueeze(-1) * hy.unsqueeze(-2)
    outer = s.unsqueeze(-1) * s.unsqueeze(-2)
    updated = inverse + ((safe + yhy) / safe**2)[:, None, None] * outer - (cross + cross.mT) / safe[:, None, None]
    return torch.where(good[:, None, None], updated, inverse), fresh & ~good


def _keep_better(
    density: Density,
    best: _Paths,
    active: Tensor,
    x: Tensor,
    gradient: Tensor,
    inverse: Tensor,
    generator: torch.Generator,
    draws: int,
) -> None:
    """Compare N(x + H g, H) with the best approximation so far, on the paths that still move."""
    index = active.nonzero().squeeze(-1)
    scale, failed = torch.linalg.cholesky_ex(inverse[index])
    index, scale = index[failed == 0], scale[failed == 0]
    if not len(index):
        return
    mean = x[index] + (inverse[index] @ gradient[index].unsqueeze(-1)).squeeze(-1)
    _replace(best, index, mean, scale, _elbo(density, mean, scale, draws, generator))


def _keep_laplace(density: Density, best: _Paths, gradient: Tensor, generator: torch.Generator) -> None:
    """Compare the best approximations with the one from the curvature at the end of the path.

    It is centred where a last Newton step from there leads.
    """
    values, vectors = torch.linalg.eigh(-density.hessian(best.ends))
    index = (values > 1e-8).all(-1).nonzero().squeeze(-1)
    if not len(index):
        return
    covariance = (vectors[index] / values[index].unsqueeze(-2)) @ vectors[index].mT
    scale, failed = torch.linalg.cholesky_ex(covariance)
    index, scale, covariance = index[failed == 0], scale[failed == 0], covariance[failed == 0]
    mean = best.ends[index] + (covariance @ gradient[index].unsqueeze(-1)).squeeze(-1)
    _replace(best, index, mean, scale, _elbo(density, mean, scale, FINAL_DRAWS, generator))


def _replace(best: _Paths, index: Tensor, mean: Tensor, scale: Tensor, elbo: Tensor) -> None:
    better = elbo > best.elbos[index]
    best.means, best.scales, best.elbos = best.means.clone(), best.scales.clone(), best.elbos.clone()
    best.means[index[better]], best.scales[index[better]] = mean[better], scale[better]
    best.elbos[index[better]] = elbo[better]


def _elbo(density: Density, mean: Tensor, scale: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """E log p + entropy of each Gaussian, with the same antithetic noise for all: `(k,)`; -inf where not finite."""
    k, d = mean.shape
    noise = torch.randn(draws // 2, d, generator=generator, dtype=mean.dtype)
    noise = torch.cat([noise, -noise])
    x = mean.unsqueeze(1) + noise @ scale.mT
    with torch.no_grad():
        value = density(x.reshape(-1, d)).reshape(k, len(noise))
    entropy = scale.diagonal(dim1=-2, dim2=-1).log().sum(-1) + d / 2 * (1 + math.log(2 * math.pi))
    elbo: Tensor = (value.mean(-1) + entropy).nan_to_num(-math.inf)
    return elbo


def _distinct(paths: _Paths) -> _Paths:
    """The best approximations that differ from each other, best first."""
    order = paths.elbos.argsort(descending=True)
    order = order[paths.elbos[order] > paths.elbos[order[0]] - BEHIND] if paths.elbos.isfinite().any() else order[:1]
    paths = paths.take(order)
    close = _distances(paths.means, paths.scales, paths.means, paths.scales) < _radius(paths.means.shape[-1])
    kept: list[int] = []
    for i in range(len(paths.means)):
        if len(kept) < MAX_COMPONENTS and not (kept and bool(close[i, kept].any())):
            kept.append(i)
    return paths.take(torch.tensor(kept))


def _share_new(found: _Paths, fresh: _Paths) -> float:
    """Of the fresh paths that ended as high as the known ones, the share that ended nowhere near any of them."""
    highest = max(found.values.max().item(), fresh.values.max().item())
    landed = fresh.take((fresh.values > highest - LANDED).nonzero().squeeze(-1))
    if not len(landed.values):
        return 0.0
    near_mean = _distances(landed.means, landed.scales, found.means, found.scales).amin(-1)
    near_end = _distances(landed.ends, landed.scales, found.ends, found.scales).amin(-1)
    return (torch.minimum(near_mean, near_end) > _radius(found.means.shape[-1])).double().mean().item()


def _distances(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor) -> Tensor:
    """Mahalanobis distances between all pairs, `(len(a), len(b))`, in the smaller of the two metrics."""
    difference = a.unsqueeze(1) - b
    by_a = torch.linalg.solve_triangular(a_scale, difference.mT, upper=False).norm(dim=-2)
    by_b = torch.linalg.solve_triangular(b_scale, difference.permute(1, 2, 0), upper=False).norm(dim=-2)
    return torch.minimum(by_a, by_b.mT)


def _radius(d: int) -> float:
    return 1.5 if d <= 4 else 0.6 * math.sqrt(d)


def _joined(a: _Paths, b: _Paths) -> _Paths:
    parts = ("means", "scales", "elbos", "ends", "values")
    return _Paths(*(torch.cat([getattr(a, part), getattr(b, part)]) for part in parts))


def _restarts(found: _Paths, paths: int, generator: torch.Generator) -> Tensor:
    """Starting points about what was found: half uniform in a box about it, half at scales up to a hundred times."""
    several = len(found.means) > 1
    d = found.means.shape[-1]
    center = found.means.mean(0)
    width = found.scales.square().sum(-1).sqrt().mean(0)
    reach = 2 * found.means.std(0) + 3 * width if several else 10 * width
    box = 1.3 * (found.means - center).abs().amax(0) + (0.3 if several else 1.0) * reach
    uniform = 2 * torch.rand(paths // 2, d, generator=generator, dtype=center.dtype) - 1
    far = torch.randn(paths - paths // 2, d, generator=generator, dtype=center.dtype)
    far = far * (math.log(100) * torch.rand(len(far), 1, generator=generator, dtype=center.dtype)).exp()
    return center + torch.cat([box * uniform, reach * far])


def _connected(density: Density, means: Tensor, scales: Tensor) -> bool:
    """Whether from every mean the density dips by less than 1 nat on the way to one of the three nearest better ones.

    Curved modes are located in many places, and straight lines between far ones leave them.
    """
    d = means.shape[-1]
    ends: list[tuple[int, int]] = []
    for i in range(1, len(means)):
        away = torch.linalg.solve_triangular(scales[i], (means[:i] - means[i]).mT, upper=False).norm(dim=0)
        ends += [(i, int(j)) for j in away.argsort()[:3]]
    a, b = (means[[pair[side] for pair in ends]] for side in (0, 1))
    t = torch.linspace(0, 1, 9, dtype=means.dtype)[:, None, None]
    with torch.no_grad():
        values = density((a + t * (b - a)).reshape(-1, d)).reshape(9, -1)
    joined = values.amin(0) > torch.minimum(values[0], values[-1]) - 1
    reached = {pair[0] for pair, dips in zip(ends, joined.tolist(), strict=True) if dips}
    return len(reached) == len(means) - 1
