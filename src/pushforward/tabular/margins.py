"""Each column by itself: its scale, its tails, and the spline through its quantiles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.bijections import Bijection, Chain, Concatenate, Elementwise, Standardize
from pushforward.transformers import RationalQuadratic, TailTransform

TAIL_SHARE, TAIL_FEWEST, TAIL_MOST = 0.05, 10, 2000
HEAVY = 0.1  # a tail index that is clearly above this makes a tail heavy
LOWEST_INDEX = 0.02
OUTER, OUTER_ROWS = 2e-4, 10  # what lies beyond the outer knots: this share of the rows on each side, or so many
FLATTEST, STEEPEST = 1e-2, 100.0  # slopes of a spline in its box
SMALLEST_SLOPE = 1e-4


def weighted_quantiles(x: Tensor, levels: Tensor, weights: Tensor) -> Tensor:
    """Quantiles of each column of rows that count by their weights.

    Args:
        x: `(n, features)`.
        levels: increasing, between 0 and 1, `(k,)`.
        weights: non-negative, `(n,)`.

    Returns:
        `(k, features)`, linear between the rows, each of which sits in the middle of its weight.
    """
    ordered, order = x.sort(dim=0)
    counted = weights[order]
    places = ((counted.cumsum(0) - 0.5 * counted) / weights.sum()).T.contiguous()
    above = torch.searchsorted(places, levels.to(places).expand(x.shape[1], -1).contiguous()).clamp(1, len(x) - 1)
    low, high = places.gather(1, above - 1), places.gather(1, above)
    share = ((levels.to(places) - low) / (high - low).clamp_min(torch.finfo(places.dtype).tiny)).clamp(0, 1)
    values = ordered.T
    return torch.lerp(values.gather(1, above - 1), values.gather(1, above), share.to(values)).T


def tail_indices(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""The extreme-value index of the left and the right tail of each column, and its standard error, `(2, features)`.

    It is the moment estimate from the 5 % of the rows farthest from the median on that side of it, but 10 to 2,000
    rows: $\xi = 1/\nu$ for tails like those of a Student-t, 0 for exponential and normal ones, negative for ends.

    Args:
        x: `(n, features)`.
        weights: non-negative, `(n,)`.

    Reference:
        Dekkers et al., A moment estimator for the index of an extreme-value distribution, 1989.
    """
    n = len(x)
    k = min(max(round(TAIL_SHARE * n), TAIL_FEWEST), TAIL_MOST, n // 4)
    if k < 2:
        return x.new_zeros(2, x.shape[1]), x.new_full((2, x.shape[1]), math.inf)
    median = weighted_quantiles(x, x.new_tensor([0.5]), weights)
    away = torch.stack([median - x, x - median]).clamp_min(0)
    top, which = away.topk(k + 1, dim=1)
    counted = weights[which[:, :-1]]
    share = counted / counted.sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    tiny = torch.finfo(x.dtype).tiny
    logs = (top[:, :-1].clamp_min(tiny) / top[:, -1:].clamp_min(tiny)).log()
    first, second = (share * logs).sum(1), (share * logs.square()).sum(1)
    index = first + 1 - 0.5 / (1 - first.square() / second).clamp_min(tiny)
    usable = (top[:, -1] > 0) & (second > first.square())
    error = ((1 + index.square()) * share.square().sum(1)).sqrt()
    return torch.where(usable, index, 0.0), torch.where(usable, error, math.inf)


def heavy_columns(x: Tensor, weights: Tensor) -> Tensor:
    """Whether a tail of each column is heavy: its index two standard errors above 0.1, that of a Student-t of 10."""
    index, error = tail_indices(x, weights)
    return (index - 2 * error > HEAVY).any(0)


def tail_layer(x: Tensor, weights: Tensor) -> Elementwise:
    """The `TailTransform` of each column with its tail indices, median and quartiles."""
    low, median, high = weighted_quantiles(x, x.new_tensor([0.25, 0.5, 0.75]), weights)
    left, right = tail_indices(x, weights)[0].clamp(LOWEST_INDEX, 2.0)
    middle = 0.5 * (left + right)
    # Where a normal z has its quartile, x is sigma (2^lambda - 1) / lambda away from mu.
    sigma = 0.5 * (high - low) * middle / (2**middle - 1)
    layer = Elementwise(TailTransform(), x.shape[1]).to(x)
    layer.params.set_(layer.transformer.params_of(median, sigma, left, right))  # type: ignore[operator]
    return layer


def spline_layer(x: Tensor, weights: Tensor, bins: int, *, min_bin: float = 1e-4) -> Chain:
    """The spline of each column through its quantiles, from a normal z on.

    The knots are those of equally spaced z out to the share of 2e-4 or ten rows on each side, the slopes at them the
    harmonic means of those of the bins; beyond, straight lines that reach the farthest rows. Everything is learnable.

    Args:
        x: rows, `(n, features)`.
        weights: non-negative, `(n,)`.
        bins: of each spline.
        min_bin: the smallest, as a share of the box; below 1e-4 single precision is too little to learn by.
    """
    n = len(x)
    beyond = min(max(OUTER_ROWS / n, OUTER), 0.5 / (bins + 1))
    bound = -torch.special.ndtri(torch.tensor(beyond, dtype=torch.float64)).item()
    z = torch.linspace(-bound, bound, bins + 1, dtype=torch.float64, device=x.device)
    knots = weighted_quantiles(x.double(), torch.special.ndtr(z), weights.double()).T
    low, high = knots[:, 0], knots[:, -1]
    scale = (high - low) / (2 * bound)
    scale = torch.where(scale > 0, scale, x.double().std(0))
    inner = (knots - low.unsqueeze(-1)) / scale.unsqueeze(-1) - bound
    mean = (inner.diff() / z.diff()).clamp(FLATTEST, STEEPEST)
    between = 2 / (1 / mean[:, :-1] + 1 / mean[:, 1:])
    # The farthest row lies as far out as that of so many normal numbers. The fewer lie beyond the knots, the less it
    # costs to leave more room to rows not seen.
    farthest = -torch.special.ndtri(torch.tensor(0.5 / n, dtype=torch.float64)).item() - bound
    ends = torch.stack([low - x.double().amin(0), x.double().amax(0) - high], dim=-1) / scale.unsqueeze(-1) / farthest
    ends = ends.clamp_min(min(OUTER / beyond, 1.0))
    slopes = torch.cat([ends[:, :1], between, ends[:, 1:]], dim=-1)
    spline = RationalQuadratic(bins, bound, tails="free", min_bin=min_bin, min_slope=SMALLEST_SLOPE)
    layer = Elementwise(spline.inv, x.shape[1]).to(x)
    layer.params.set_(spline.params_through(inner, z, 1 / slopes).to(x))
    return Chain(layer, Standardize((low + 0.5 * (high - low)).to(x), scale.to(x)))


def standardize(x: Tensor, weights: Tensor, heavy: Tensor) -> Standardize:
    """By mean and standard deviation, or for heavy columns by median and quartiles."""
    share = weights / weights.sum()
    mean = share @ x
    deviation = (share @ (x - mean).square()).sqrt()
    low, median, high = weighted_quantiles(x, x.new_tensor([0.25, 0.5, 0.75]), weights)
    robust = heavy & (high > low)
    return Standardize(torch.where(robust, median, mean), torch.where(robust, (high - low) / 1.349, deviation))


def tails_of(x: Tensor, weights: Tensor, heavy: Tensor) -> Bijection:
    """The tail layer on the heavy columns, the identity on the others."""
    if not bool(heavy.any()):
        return Chain()
    runs: list[list[int]] = []
    for column, flag in enumerate(heavy.tolist()):
        if column and flag == bool(heavy[column - 1]):
            runs[-1].append(column)
        else:
            runs.append([column])
    parts = [tail_layer(x[:, run], weights) if bool(heavy[run[0]]) else Chain() for run in runs]
    return Concatenate(parts, [len(run) for run in runs])
