"""Kinds of columns of numbers: each entry is a point of the real line, and a state that says whether there is one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.numerics.normal import LOG_2PI
from pushforward.tabular.columns.base import Coordinates, Kind
from pushforward.tabular.columns.column import WHOLE_BELOW, Column, Name, eps_of, refuse
from pushforward.tabular.columns.maps import from_line, to_line
from pushforward.tabular.columns.repeats import Grid, find_atoms, find_grid, given_grid, logarithm_helps, whole_grid

Floats = NDArray[np.float64]
SMALLEST = 1e-300  # scale
FINE = 1e-3  # standard deviations
FAR = 8.0  # standard deviations from the mean; beyond it a tail is heavy
EMPTY = 0.02  # an angle's circle is cut in the middle of the widest arc that holds this share of the rows


@dataclass(frozen=True, kw_only=True)
class Numeric(Kind):
    """A column of numbers x, whose continuous coordinate u is their standardised place on the real line.

    The state is 0 for an ordinary number; then come the atoms, which are values with a probability of their own, and
    last the missing entries. Where there is no ordinary number, u is noise N(0, 1), whose log-density is subtracted.
    Where numbers are rounded, u is that of a number drawn uniformly from the cell of x, or of its middle if all cells
    are narrower than a thousandth of u's standard deviation. Either noise makes the log-likelihood a lower bound, which
    rises to the truth when densities are averaged over draws. Log-densities are per unit of the column; that of a
    rounded number is the average over its cell: for a whole number, its probability.

    Args:
        step: width of the cells of rounded numbers; by default found in the data, 0 for none.
        origin: a number of the grid.
        decimals: of the numbers of the grid, if they have few.
        fine: whether cells are so narrow that nothing is drawn.
        atoms: the values with a probability of their own.
        loc: of the places on the real line: their mean, or, where a tail is heavy, their median.
        scale: their standard deviation, or their interquartile range over that of N(0, 1).
        dtype: of the column.
    """

    step: float | None = None
    origin: float = 0.0
    decimals: int | None = None
    fine: bool = False
    atoms: tuple[float, ...] = ()
    loc: float = 0.0
    scale: float = 1.0
    dtype: str = "float64"

    continuous: ClassVar[bool] = True
    cell_below: ClassVar[float] = 0.5  # the part of a cell that lies below its number

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", tuple(self.atoms))
        if self.step is not None and not 0 <= self.step < math.inf:
            raise ValueError(f"{self.label}: expected a step of 0 or more, got {self.step}")

    def fit(self, column: Column) -> Self:
        x = self._numbers(column)
        column.refuse(~self._admits(x, closed=True), f"expected {self._range()}")
        kind = replace(self, missing=float(column.missing.mean()), dtype=column.values.dtype.name)
        values, counts = np.unique(x[~column.missing], return_counts=True)
        if len(values) == 1:
            refuse(column.name, f"holds {values[0]:g} in every row: call it 'constant'")
        is_atom = find_atoms(values, counts) | ~kind._admits(values)
        if (~is_atom).sum() == 1:
            is_atom[:] = True  # one ordinary number has no density
        kind = replace(kind, atoms=tuple(values[is_atom].tolist()))
        return kind._fit_ordinary(values[~is_atom], counts[~is_atom], column.eps)

    def _fit_ordinary(self, values: Floats, counts: NDArray[np.int64], eps: float) -> Self:
        """With the grid, and the place and scale on the real line, of the distinct numbers that are no atoms."""
        grid = self._find_grid(values, counts, eps)
        kind = replace(self, **grid._asdict()) if grid else replace(self, step=0.0)
        lower, upper = kind._cells(values)
        t, log_slope = kind._to_line(torch.from_numpy(lower + 0.5 * (upper - lower)))
        loc, scale = _centre_and_scale(np.repeat(t.numpy(), counts))
        kind = replace(kind, loc=loc, scale=scale)
        if not grid:
            return kind
        with np.errstate(divide="ignore"):
            log_widths = log_slope.numpy() + np.log(upper - lower) - math.log(scale)
        return replace(kind, fine=bool(log_widths.max(initial=-math.inf) < math.log(FINE)))

    @property
    def states(self) -> int:
        return 1 + len(self.atoms) + (self.missing > 0)

    @property
    def exact(self) -> bool:
        return self.states == 1 and (not self.step or self.fine)

    def encode(self, column: Column, generator: torch.Generator | None = None) -> Coordinates:
        self._check_missing(column)
        x = self._numbers(column)
        state = self._state(x, column)

        t, log_slope = self._to_line(self._dequantize(x, generator))
        inside = torch.from_numpy(self._admits(x))
        u = (0.5 * t - 0.5 * self.loc) / (0.5 * self.scale)  # halves, since the difference may overflow
        log_jacobian = torch.where(inside, log_slope - math.log(self.scale), -torch.inf)
        if self.states > 1:
            ordinary = torch.from_numpy(state == 0)
            noise = torch.randn(len(x), dtype=torch.float64, generator=generator)
            u = torch.where(ordinary, u, noise)
            log_jacobian = torch.where(ordinary, log_jacobian, 0.5 * (noise.square() + LOG_2PI))
        return Coordinates(torch.from_numpy(state), u, log_jacobian)

    def _state(self, x: Floats, column: Column) -> NDArray[np.int64]:
        state = np.zeros(len(x), dtype=np.int64)
        coarsest = max("float64", self.dtype, column.values.dtype.name, key=eps_of)
        with np.errstate(over="ignore"):
            x, atoms = x.astype(coarsest), np.array(self.atoms).astype(coarsest)
        for i, atom in enumerate(atoms, 1):
            state[x == atom] = i
        state[column.missing] = self.states - 1
        return state

    def decode(self, name: Name, state: Tensor, u: Tensor | None) -> Column:
        assert u is not None
        x = self._representable(self._round(self._from_line(self.loc + self.scale * u).numpy()))
        states = state.numpy()
        for i, atom in enumerate(self.atoms, 1):
            x[states == i] = atom
        return Column(name, x, (states == self.states - 1) if self.missing else np.zeros(len(x), dtype=bool))

    def __str__(self) -> str:
        usual = 1.0 if isinstance(self, Integer) else 0.0
        steps = f", in steps of {self.step:g}" if self.step not in (None, usual) else ""
        atoms = f", with mass at {', '.join(f'{a:g}' for a in self.atoms)}" if self.atoms else ""
        return self._words() + steps + atoms

    def _words(self) -> str:
        return self.label

    def _bounds(self) -> tuple[float, float]:
        """What x, or the cells of all x together, lie between."""
        return -math.inf, math.inf

    def _range(self) -> str:
        """What x may be, in words."""
        low, high = self._bounds()
        if low == -math.inf:
            return f"a number below {high:g}"
        return f"a number above {low:g}" if high == math.inf else f"a number between {low:g} and {high:g}"

    def _numbers(self, column: Column) -> Floats:
        return column.numbers(self.label)

    def _admits(self, x: Floats, closed: bool = False) -> NDArray[np.bool_]:
        """Which x are ordinary numbers of this kind; `closed`: or one of the bounds."""
        low, high = self._bounds()
        return (x >= low) & (x <= high) if closed else (x > low) & (x < high)

    def _find_grid(self, values: Floats, counts: NDArray[np.int64], eps: float) -> Grid | None:
        if self.step is None:
            return find_grid(values, counts, eps)
        return given_grid(self.step, values) if self.step else None

    def _grid(self) -> Grid:
        assert self.step
        return Grid(self.step, self.origin, self.decimals)

    def _cells(self, x: Floats) -> tuple[Floats, Floats]:
        """The ends of the cell of each x; it is x itself where nothing is rounded."""
        if not self.step:
            return x, x
        lower = self._grid().lower_end(x, self.cell_below)
        low, high = self._bounds()
        return np.maximum(lower, low), np.minimum(lower + self.step, high)

    def _dequantize(self, x: Floats, generator: torch.Generator | None) -> Tensor:
        """A number from the cell of each x."""
        lower, upper = map(torch.from_numpy, self._cells(x))
        if not self.step or self.fine:
            return lower + 0.5 * (upper - lower)
        eps = torch.finfo(torch.float64).eps
        v = torch.rand(len(x), dtype=torch.float64, generator=generator).clamp(eps, 1 - eps)
        # Far from 0 the sum may round to an end; the upper one is of the next cell.
        return (lower + (upper - lower) * v).clamp(lower.nextafter(upper), upper.nextafter(lower))

    def _round(self, y: Floats) -> Floats:
        """The number in whose cell y lies."""
        return self._grid().number(y, self.cell_below) if self.step else y

    def _to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return to_line(y, *self._bounds())

    def _from_line(self, t: Tensor) -> Tensor:
        return from_line(t, *self._bounds())

    def _limits(self) -> tuple[float, float]:
        """What every x lies between, both excluded."""
        return self._bounds()

    def _representable(self, x: Floats) -> NDArray[Any]:
        """The nearest numbers of the column's dtype that are of this kind."""
        dtype = np.dtype(self.dtype)
        low, high = self._limits()
        if dtype.kind == "f":
            least, most = _next(low, math.inf, dtype), _next(high, -math.inf, dtype)
            return x.clip(float(least), float(most)).astype(dtype)
        info = np.iinfo(dtype)
        least = max(info.min, 1 - WHOLE_BELOW, -WHOLE_BELOW if low == -math.inf else math.floor(low) + 1)
        most = min(info.max, WHOLE_BELOW - 1, WHOLE_BELOW if high == math.inf else math.ceil(high) - 1)
        return np.rint(x).clip(least, most).astype(dtype)


@dataclass(frozen=True)
class Real(Numeric):
    """Any number; u is the number itself, standardised."""

    label: ClassVar[str] = "real"


@dataclass(frozen=True)
class Positive(Numeric):
    """Numbers above 0; u is their logarithm, standardised. If 0 itself occurs, it is an atom."""

    label: ClassVar[str] = "positive"

    def _bounds(self) -> tuple[float, float]:
        return 0.0, math.inf


@dataclass(frozen=True)
class Bounded(Numeric):
    """Numbers between two bounds, whose normal quantile is u, or beyond one, with a logarithm; standardised.

    A bound that itself occurs in the data is an atom.

    Args:
        low: `None` for no lower bound.
        high: `None` for no upper bound.

    Example:
        >>> print(Bounded(0, 1))
        between 0 and 1
    """

    low: float | None
    high: float | None

    label: ClassVar[str] = "bounded"
    declared: ClassVar[tuple[str, ...]] = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self._bounds()
        if not low < high or (low, high) == (-math.inf, math.inf):
            raise ValueError(f"bounded: expected low < high, of which one may be None, got {self.low} and {self.high}")

    def _words(self) -> str:
        return self._range().removeprefix("a number ")

    def _bounds(self) -> tuple[float, float]:
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high


@dataclass(frozen=True)
class Integer(Numeric):
    """Whole numbers x, scored as numbers drawn from [x, x + 1): the average density there is the probability of x.

    Without bounds u is that number, standardised; between two bounds its normal quantile; beyond one bound its
    logarithm or itself, bent in the cell next to the bound.

    Args:
        low: the least; by default 0 if no entry is negative, otherwise there is none.
        high: the largest; by default there is none.
        linear: whether, beyond one bound, u is linear after all, where a logarithm would make it less symmetric.
    """

    low: int | None = None
    high: int | None = None
    linear: bool = field(default=False, kw_only=True)

    label: ClassVar[str] = "integer"
    declared: ClassVar[tuple[str, ...]] = ("low", "high")
    cell_below: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.declared:
            bound = getattr(self, name)
            if bound is not None and bound != int(bound):
                raise ValueError(f"integer: expected whole bounds, got {name}={bound}")
            object.__setattr__(self, name, bound if bound is None else int(bound))
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"integer: expected low < high, got {self.low} and {self.high}")

    def fit(self, column: Column) -> Self:
        x = self._numbers(column)
        kind = replace(self, low=0) if self.low is None and (x >= 0).all() else self
        return super(Integer, kind).fit(column)

    def _fit_ordinary(self, values: Floats, counts: NDArray[np.int64], eps: float) -> Self:
        low, high = self._bounds()
        distances = np.repeat(values - low if low > -math.inf else high - values, counts) + 1
        linear = low == -math.inf == -high or not logarithm_helps(distances)
        return super(Integer, replace(self, linear=linear))._fit_ordinary(values, counts, eps)

    def _words(self) -> str:
        if self.high is None:
            return "integer" if self.low is None else f"integer, {self.low} or more"
        return f"integer, {self.high} or less" if self.low is None else f"integer, {self.low} to {self.high}"

    def _range(self) -> str:
        return f"a whole number{self._words().removeprefix('integer')}"

    def _bounds(self) -> tuple[float, float]:
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high + 1

    def _admits(self, x: Floats, closed: bool = False) -> NDArray[np.bool_]:
        low, high = self._bounds()
        admitted: NDArray[np.bool_] = (x == np.floor(x)) & (x >= low) & (x < high) & (np.abs(x) < WHOLE_BELOW)
        return admitted

    def _find_grid(self, values: Floats, counts: NDArray[np.int64], eps: float) -> Grid | None:
        return given_grid(self.step, values) if self.step else whole_grid(values)

    def _round(self, y: Floats) -> Floats:
        low, high = self._bounds()
        return super()._round(y).clip(max(low, 1 - WHOLE_BELOW), min(high, WHOLE_BELOW) - 1)

    def _to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return to_line(y, *self._bounds(), edge=self.step or 1.0, linear=self.linear)

    def _from_line(self, t: Tensor) -> Tensor:
        return from_line(t, *self._bounds(), edge=self.step or 1.0, linear=self.linear)

    def _limits(self) -> tuple[float, float]:
        low, high = self._bounds()
        return low - 1, high


@dataclass(frozen=True)
class Angle(Numeric):
    """Numbers that are the same after a period; u is the normal quantile of the way round from a cut, standardised.

    The circle is cut in the middle of the widest arc that holds a fiftieth of the entries; only there may the density
    jump. Numbers are read modulo the period, and decoded between `low` and `low + period`; where they are rounded in
    steps that do not divide the period, the last cell is cut short.

    Args:
        period: a full turn, in the units of the column; by default 2 pi.
        low: 0 or minus half a period, whichever fits the data.
        cut: where the circle is cut.
    """

    period: float = 2 * math.pi
    low: float = field(default=0.0, kw_only=True)
    cut: float = field(default=0.0, kw_only=True)

    label: ClassVar[str] = "angle"
    declared: ClassVar[tuple[str, ...]] = ("period",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.period < math.inf:
            raise ValueError(f"angle: expected a period above 0, got {self.period}")

    def fit(self, column: Column) -> Self:
        x = column.numbers(self.label)[~column.missing]
        least, most = (x.min(), x.max()) if len(x) else (0.0, 0.0)
        if 0.5 * most - 0.5 * least > 0.5 * self.period:  # halves, since the difference may overflow
            refuse(column.name, f"expected angles within one period of {self.period:g}, got {least:g} to {most:g}")
        fits = [low for low in (0.0, -self.period / 2, least) if low <= least and most <= low + self.period]
        return super(Angle, replace(self, low=fits[0])).fit(column)

    def _fit_ordinary(self, values: Floats, counts: NDArray[np.int64], eps: float) -> Self:
        kind = replace(self, cut=_emptiest(np.repeat(values, counts), self.period)) if len(values) else self
        return super(Angle, kind)._fit_ordinary(values, counts, eps)

    def _words(self) -> str:
        return f"angle of period {self.period:g}"

    def _numbers(self, column: Column) -> Floats:
        return self._reduce(super()._numbers(column))

    def _reduce(self, x: Floats) -> Floats:
        """The same angles within the bounds; those that are there stay as they are, to the last digit."""
        low, high = self._bounds()
        return np.where((x >= low) & (x < high), x, low + np.remainder(x - low, self.period))

    def _bounds(self) -> tuple[float, float]:
        start = float(self._grid().lower_end(np.array(self.low), self.cell_below)) if self.step else self.low
        return start, start + self.period

    def _limits(self) -> tuple[float, float]:
        low, high = self._bounds()
        return math.nextafter(low, -math.inf), high

    def _admits(self, x: Floats, closed: bool = False) -> NDArray[np.bool_]:
        return np.ones(x.shape, dtype=bool)

    def _cells(self, x: Floats) -> tuple[Floats, Floats]:
        return super()._cells(self._reduce(x))

    def _to_line(self, y: Tensor) -> tuple[Tensor, Tensor]:
        way = (y - self.cut).remainder(self.period)
        tiny = torch.finfo(y.dtype).eps * self.period
        return to_line(way.clamp(tiny, self.period - tiny), 0.0, self.period)

    def _from_line(self, t: Tensor) -> Tensor:
        low, _ = self._bounds()
        return low + (self.cut - low + from_line(t, 0.0, self.period)).remainder(self.period)


def _centre_and_scale(t: Floats) -> tuple[float, float]:
    """Mean and standard deviation; median and interquartile range (of N(0, 1): 1.349) if an entry is far out."""
    if not len(t) or t.min() == t.max():
        return (float(t[0]), 1.0) if len(t) else (0.0, 1.0)
    unit = float(np.abs(t).max())  # against overflow
    t = t / unit
    centre, scale = float(t.mean()), float(t.std())
    if np.abs(t - centre).max() > FAR * scale:
        lower, median, upper = np.quantile(t, [0.25, 0.5, 0.75])
        if upper > lower:
            centre, scale = float(median), float((upper - lower) / 1.349)
    return centre * unit, max(scale * unit, SMALLEST)


def _emptiest(angles: Floats, period: float) -> float:
    """The middle of the widest arc that holds a fiftieth of the angles, less than a period above the least."""
    angles = np.sort(angles)
    steps = 1 + int(EMPTY * len(angles))
    ends = np.concatenate([angles, angles + period])[steps : steps + len(angles)]
    widest = int((ends - angles).argmax())
    return float(0.5 * (angles[widest] + ends[widest]))


def _next(bound: float, towards: float, dtype: np.dtype[Any]) -> Any:
    """The first number of a floating dtype beyond a bound; the largest of all beyond infinity."""
    info = np.finfo(dtype)
    value = dtype.type(min(max(bound, float(info.min)), float(info.max)))
    passed = float(value) > bound if towards > bound else float(value) < bound
    return value if passed else np.nextafter(value, dtype.type(towards))
