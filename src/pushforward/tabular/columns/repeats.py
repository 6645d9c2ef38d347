"""What the repeated values of a column of numbers say: atoms, and the grid of rounded values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_ATOMS = 4
ATOM_SHARE, ATOM_FACTOR = 0.01, 10  # an atom's share of the entries, and its count in units of the largest other one
REPEATED = 0.05  # share of the entries that repeat another, above which numbers are taken for rounded
OFTEN = 3  # entries per value, from which values on no grid are given one
SPARSE = 20  # a grid is finer than the tenth percentile of the gaps by no more than this
LOOSE = 0.1  # steps by which a value may be off its grid
HUGE = 1e100  # differences and squares stay finite
ENOUGH_FOR_A_DIVISOR = 8
SKEWED = 0.2  # (1.5 - 1) / (1.5 + 1)


class Grid(NamedTuple):
    """The numbers origin + k step for whole k, rounded to `decimals` where that is known, each within a cell.

    Beyond 2^52 steps, where float64 is coarser than the grid, every number is its own cell.
    """

    step: float
    origin: float
    decimals: int | None

    def number(self, y: NDArray[np.float64], below: float) -> NDArray[np.float64]:
        """The number in whose cell y lies; `below` is the part of a cell that lies below its number."""
        number = self.origin + self._place(y, below) * self.step
        return np.where(self._resolves(y), number if self.decimals is None else number.round(self.decimals), y)

    def lower_end(self, y: NDArray[np.float64], below: float) -> NDArray[np.float64]:
        """The lower end of the cell in which y lies."""
        return np.where(self._resolves(y), self.origin + (self._place(y, below) - below) * self.step, y)

    def _resolves(self, y: NDArray[np.float64]) -> NDArray[np.bool_]:
        resolved: NDArray[np.bool_] = np.abs(y) * 2.0**-52 < self.step
        return resolved

    def _place(self, y: NDArray[np.float64], below: float) -> NDArray[np.float64]:
        place: NDArray[np.float64] = np.floor((np.where(self._resolves(y), y, 0.0) - self.origin) / self.step + below)
        return place


def find_atoms(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the distinct values have a probability of their own: zeros of rainfall, codes for what is not known.

    At most 4 of them, each with a hundredth of the entries or more, and with ten times as many as any other value.
    """
    order = counts.argsort(kind="stable")[::-1]
    sorted_counts = counts[order]
    chosen = np.zeros(len(values), dtype=bool)
    for k in range(min(MOST_ATOMS, len(values) - 1), 0, -1):
        if sorted_counts[k - 1] >= max(ATOM_SHARE * counts.sum(), ATOM_FACTOR * sorted_counts[k]):
            chosen[order[:k]] = True
            break
    return chosen


def find_grid(values: NDArray[np.float64], counts: NDArray[np.int64], eps: float) -> Grid | None:
    """The grid of values that repeat; `None` if fewer than one in twenty entries repeats another.

    It is a grid of decimals if all values have few; or that of the smallest gap, if all gaps are nearly multiples of
    it, as those of decimals that were shifted and scaled. Otherwise values that occur three times and more on average
    get one as wide as the tenth percentile of the gaps, each cell of which may hold several values.

    Args:
        values: distinct, in increasing order.
        counts: how often each occurs.
        eps: relative precision of the values.
    """
    if len(values) < 2 or 1 - 1 / counts.mean() <= REPEATED or np.abs(values).max() > HUGE:
        return None
    gaps = np.diff(values)
    real_gaps = gaps[gaps > 1e-9 * (values[-1] - values[0])]  # others come from rounding errors
    typical = float(np.quantile(real_gaps, 0.1))
    decimal = _decimal_grid(values, eps)
    few = len(values) < ENOUGH_FOR_A_DIVISOR
    if decimal is not None and (few or decimal.step > typical / SPARSE):
        return decimal
    if not few and (grid := _linear_grid(values, real_gaps[real_gaps > typical / SPARSE].min())) is not None:
        return grid
    return Grid(typical, float(values[0]), None) if counts.mean() >= OFTEN else decimal


def _decimal_grid(values: NDArray[np.float64], eps: float) -> Grid | None:
    """The coarsest grid of decimals that holds all values to their precision."""
    largest = float(np.abs(values).max())
    for decimals in range(16):
        if 4 * eps * largest * 10.0**decimals > LOOSE:
            break
        scaled = values * 10.0**decimals
        if (np.abs(scaled - np.rint(scaled)) <= 4 * eps * np.abs(scaled)).all():
            return whole_grid(np.rint(scaled), decimals)
    return None


def _linear_grid(values: NDArray[np.float64], gap: float) -> Grid | None:
    """The grid whose step is about the smallest gap, if it holds all values nearly."""
    multiples = np.diff(values) / gap
    if multiples.max() >= 2.0**53:
        return None
    places = np.concatenate([[0.0], np.rint(multiples).cumsum()])
    step, origin = map(float, np.polyfit(places, values, 1))
    off = np.abs(origin + step * places - values).max()
    return Grid(step, origin, None) if off < LOOSE * step else None


def whole_grid(values: NDArray[np.float64], decimals: int = 0) -> Grid:
    """The grid of multiples of 10^-decimals, of which `values` are whole numbers.

    The multiples are those of the greatest common divisor of the differences, if there are enough to be sure of it.
    """
    if len(values) < ENOUGH_FOR_A_DIVISOR:
        return Grid(10.0**-decimals, 0.0, decimals)
    whole = values.astype(np.int64)
    divisor = int(np.gcd.reduce(whole - whole[0]))
    return Grid(divisor / 10**decimals, int(whole[0]) % divisor / 10**decimals, decimals)


def given_grid(step: float, values: NDArray[np.float64]) -> Grid:
    """The grid of a step that goes through the first of the values."""
    origin = float(np.remainder(values[0], step)) if len(values) else 0.0
    for decimals in range(16):
        scaled = np.array([step, origin]) * 10.0**decimals
        if np.allclose(scaled, np.rint(scaled), rtol=1e-12, atol=1e-9):
            return Grid(step, origin, decimals)
    return Grid(step, origin, None)


def logarithm_helps(x: NDArray[np.float64]) -> bool:
    """Whether numbers above 0 are skewed to the right, while their logarithms are less so and lie no further out.

    Skewed is a 95th percentile at least 1.5 times as far from the median as the 5th; how far out is in units of the
    range between the two.
    """
    if not len(x):
        return False
    skewness, reach = _shape(x)
    log_skewness, log_reach = _shape(np.log(x))
    return skewness > max(SKEWED, abs(log_skewness)) and log_reach <= reach


def _shape(x: NDArray[np.float64]) -> tuple[float, float]:
    """Skewness by quantiles, between -1 and 1, and how far the furthest is from the median."""
    low, middle, high = np.quantile(x, [0.05, 0.5, 0.95])
    if low == high:
        return 0.0, 0.0
    return ((high - middle) - (middle - low)) / (high - low), np.abs(x - middle).max() / (high - low)
