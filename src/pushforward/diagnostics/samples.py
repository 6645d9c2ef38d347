"""How far two samples are apart, and how far they would be by chance."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 2000  # that are looked at, of each side
MEDIAN_ROWS = 500


@dataclass(frozen=True)
class TwoSample:
    """A figure on two samples, and what it would be if both came from one distribution.

    Attributes:
        statistic: the figure.
        floor: its mean if both come from one distribution: the noise floor, below which nothing can be seen.
        floor_sd: the standard deviation about it.
        p_value: the chance of as large a figure if both come from one distribution.

    Example:
        >>> print(TwoSample(statistic=0.31, floor=0.012, floor_sd=0.004, p_value=0.005))
        0.31 (by chance 0.012 +- 0.004, p 0.005)
    """

    statistic: float
    floor: float
    floor_sd: float
    p_value: float

    def __str__(self) -> str:
        chance = f"{self.floor:.3g} +- {self.floor_sd:.2g}"
        return f"{self.statistic:.4g} (by chance {chance}, p {self.p_value:.2g})"


def energy_distance(x: Tensor, y: Tensor, *, permutations: int = 200, seed: int = 0) -> TwoSample:
    r"""$2 E\|x - y\| - E\|x - x'\| - E\|y - y'\|$ of the two samples: zero only if they are the same.

    In the units of the columns, which should be alike: standardise them if not. Of more than 2000 rows on a side, 2000
    drawn with `seed` are taken.

    Args:
        x: shape `(n, d)`, n >= 2.
        y: shape `(m, d)`, m >= 2.
        permutations: of the labels, for the floor and the p-value, which is at least 1 / (1 + permutations).
        seed: of the permutations.

    Raises:
        ValueError: other shapes, values that are not finite, or fewer than 2 permutations.

    Reference:
        Székely and Rizzo, Energy statistics: A class of statistics based on distances, 2013.

    Example:
        >>> x, y = torch.randn(2, 300, 2, generator=torch.Generator().manual_seed(1))
        >>> print(energy_distance(x, y))
        0.005197 (by chance 0.0133 +- 0.0078, p 0.97)
        >>> print(energy_distance(x, y + 0.5))
        0.21 (by chance 0.0138 +- 0.008, p 0.005)
    """
    x, y, generator = _prepared(x, y, permutations, seed)
    return _judged(-_forms(_distances(x, y), len(x), permutations, generator))


def mmd(x: Tensor, y: Tensor, *, bandwidth: float | None = None, permutations: int = 200, seed: int = 0) -> TwoSample:
    r"""The squared maximum mean discrepancy $E k(x, x') + E k(y, y') - 2 E k(x, y)$, from 0 to 2.

    The kernel is Gaussian, $k(a, b) = e^{-\|a - b\|^2 / 2 h^2}$. Of more than 2000 rows on a side, 2000 drawn with
    `seed` are taken.

    Args:
        x: shape `(n, d)`, n >= 2.
        y: shape `(m, d)`, m >= 2.
        bandwidth: h, in the units of the columns; by default the median distance of two rows, among 500 of both sides.
        permutations: of the labels, for the floor and the p-value, which is at least 1 / (1 + permutations).
        seed: of the permutations.

    Raises:
        ValueError: other shapes, values that are not finite, a bandwidth <= 0, or fewer than 2 permutations.

    Reference:
        Gretton et al., A Kernel Method for the Two-Sample Problem, 2008, arXiv 0805.2368.

    Example:
        >>> x, y = torch.randn(2, 300, 2, generator=torch.Generator().manual_seed(1))
        >>> print(mmd(x, y))
        0.0009393 (by chance 0.0028 +- 0.002, p 0.9)
        >>> print(mmd(x, y + 0.5))
        0.05176 (by chance 0.00276 +- 0.0019, p 0.005)
    """
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"expected bandwidth > 0, got {bandwidth}")
    x, y, generator = _prepared(x, y, permutations, seed)
    distances = _distances(x, y)
    h = bandwidth or _median(distances, generator)
    return _judged(_forms((-0.5 * (distances / h).square()).exp(), len(x), permutations, generator))


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, projections: int = 100, permutations: int = 200, seed: int = 0
) -> TwoSample:
    r"""$E_u W_1(u^T x, u^T y)$ over directions u: the mean cost of moving projections of one sample onto the other.

    In the units of the columns, which should be alike: standardise them if not. Of more than 2000 rows on a side, 2000
    drawn with `seed` are taken.

    Args:
        x: shape `(n, d)`, n >= 2.
        y: shape `(m, d)`, m >= 2.
        projections: directions, uniform on the sphere; with a single column there is but one.
        permutations: of the labels, for the floor and the p-value, which is at least 1 / (1 + permutations).
        seed: of directions and permutations.

    Raises:
        ValueError: other shapes, values that are not finite, no projection, or fewer than 2 permutations.

    Reference:
        Nadjahi et al., Statistical and Topological Properties of Sliced Probability Divergences, 2020,
        arXiv 2003.05783.

    Example:
        >>> x, y = torch.randn(2, 300, 2, generator=torch.Generator().manual_seed(1))
        >>> print(sliced_wasserstein(x, y))
        0.07684 (by chance 0.106 +- 0.026, p 0.91)
        >>> print(sliced_wasserstein(x, y + 0.5))
        0.4549 (by chance 0.11 +- 0.027, p 0.005)
    """
    if projections < 1:
        raise ValueError(f"expected projections >= 1, got {projections}")
    x, y, generator = _prepared(x, y, permutations, seed)
    directions = torch.ones(1, 1, dtype=x.dtype)
    if x.shape[1] > 1:
        directions = torch.randn(projections, x.shape[1], generator=generator, dtype=x.dtype)
        directions = directions / directions.norm(dim=1, keepdim=True)
    values, order = (directions @ torch.cat([x, y]).T).sort(1)
    contrasts = _contrasts(len(x), len(y), permutations, generator)
    total = torch.zeros(permutations + 1, dtype=x.dtype)
    for gaps, rows in zip(values.diff(dim=1), order, strict=True):
        # The integral of |F - G|, whose value on each gap is the sum of the contrasts on its left.
        total += contrasts[:, rows[:-1]].cumsum(1).abs() @ gaps
    return _judged(total / len(directions))


def c2st(x: Tensor, y: Tensor, *, seed: int = 0) -> TwoSample:
    r"""Accuracy at which a classifier tells the samples apart: 0.5 if it cannot, 1 if it always can.

    The classifier is a network with two layers of 10 d units on standardised columns, trained until a tenth of its
    data says stop; the accuracy is that on the parts left out in fivefold cross-validation. Needs scikit-learn, and
    seconds to a minute. Both sides are cut to the rows of the smaller one, and to 2000 drawn with `seed`.

    Args:
        x: shape `(n, d)`, n >= 10.
        y: shape `(m, d)`, m >= 10.
        seed: of the folds and of the network.

    Returns:
        accuracy, its mean and standard deviation for one distribution, and a p-value by the normal approximation.

    Raises:
        ValueError: other shapes, or values that are not finite.
        ModuleNotFoundError: there is no scikit-learn.

    References:
        Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017, arXiv 1610.06545.
        Lueckmann et al., Benchmarking Simulation-Based Inference, 2021, arXiv 2101.04653: the network.

    Example:
        >>> x, y = torch.randn(2, 50, 1, generator=torch.Generator().manual_seed(1))
        >>> c2st(x, y + 9).statistic  # doctest: +SKIP
        1.0
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("c2st needs scikit-learn: pip install pushforward[sklearn]") from error
    x, y, generator = _prepared(x, y, 2, seed, rows=10)
    n, d = min(len(x), len(y)), x.shape[1]
    both = torch.cat([_subsample(x, n, generator), _subsample(y, n, generator)]).numpy()
    labels = torch.arange(2).repeat_interleave(n).numpy()
    network = MLPClassifier(
        (10 * d, 10 * d),
        learning_rate_init=0.005,
        max_iter=1000,
        early_stopping=True,
        n_iter_no_change=20,
        random_state=seed,
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(make_pipeline(StandardScaler(), network), both, labels, cv=folds)
    accuracy, sd = float(scores.mean()), 0.5 / math.sqrt(2 * n)
    return TwoSample(accuracy, 0.5, sd, 0.5 * math.erfc((accuracy - 0.5) / (math.sqrt(2) * sd)))


def _prepared(
    x: Tensor, y: Tensor, permutations: int, seed: int, *, rows: int = 2
) -> tuple[Tensor, Tensor, torch.Generator]:
    """Both samples checked, in float64 and cut to `ROWS`, with the generator of all chance."""
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or not x.shape[1] or min(len(x), len(y)) < rows:
        raise ValueError(
            f"expected x of shape (n, d) and y of shape (m, d) with n, m >= {rows} and d >= 1, got {tuple(x.shape)} "
            f"and {tuple(y.shape)}"
        )
    for name, value in {"x": x, "y": y}.items():
        bad = (~value.isfinite()).any(1)
        if bool(bad.any()):
            raise ValueError(f"expected finite {name}, got NaN or infinity in row {int(bad.nonzero()[0])}")
    if permutations < 2:
        raise ValueError(f"expected permutations >= 2, got {permutations}")
    generator = torch.Generator().manual_seed(seed)
    x, y = (_subsample(v.detach().double().cpu(), ROWS, generator) for v in (x, y))
    return x, y, generator


def _subsample(x: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    return x if len(x) <= rows else x[torch.randperm(len(x), generator=generator)[:rows]]


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Of every two rows of both sides; by differences, since products of far rows cancel."""
    both = torch.cat([x, y])
    return torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist")


def _median(distances: Tensor, generator: torch.Generator) -> float:
    """The median of the distances above zero among `MEDIAN_ROWS` rows of either side; 1 if there are none."""
    rows = torch.randperm(len(distances), generator=generator)[:MEDIAN_ROWS]
    apart = distances[rows[:, None], rows]
    apart = apart[apart > 0]
    return apart.median().item() if len(apart) else 1.0


def _contrasts(n: int, m: int, permutations: int, generator: torch.Generator) -> Tensor:
    """1 / n for rows of x and -1 / m for rows of y, under the true labels and then under permuted ones."""
    labels = torch.rand(permutations + 1, n + m, generator=generator, dtype=torch.float64).argsort(1)
    labels[0] = torch.arange(n + m)
    return (labels < n).double() * (1 / n + 1 / m) - 1 / m


def _forms(pairs: Tensor, n: int, permutations: int, generator: torch.Generator) -> Tensor:
    """c^T pairs c of each contrast: the mean within x plus that within y minus twice that between."""
    contrasts = _contrasts(n, len(pairs) - n, permutations, generator)
    return ((contrasts @ pairs) * contrasts).sum(1)


def _judged(values: Tensor) -> TwoSample:
    """The first value against the others; alike up to rounding counts as as large."""
    value, chance = values[0], values[1:]
    larger = int((chance >= value - 1e-9 * value.abs()).sum())
    return TwoSample(value.item(), chance.mean().item(), chance.std().item(), (1 + larger) / len(values))
