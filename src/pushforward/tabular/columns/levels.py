"""Kinds of columns with finitely many entries: each is a state of a discrete coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.tabular.columns.base import Coordinates, Kind
from pushforward.tabular.columns.column import Column, Name, Scalar, eps_of, refuse

MOST_LEVELS = 1000


@dataclass(frozen=True)
class Levels(Kind):
    """A column whose entries are levels; their probabilities are exact. To be missing is one more state.

    Args:
        levels: text, numbers or booleans; by default those of the column, with the unused ones that it declares.
        dtype: of the column, where its entries are numbers or booleans.
    """

    levels: tuple[Scalar, ...] | None = None
    dtype: str = ""

    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))
            if len(set(self.levels)) < len(self.levels):
                raise ValueError(f"{self.label}: expected each level once, got {list(self.levels)}")
            if len({isinstance(level, str) for level in self.levels}) > 1:
                raise ValueError(f"{self.label}: expected levels that are all text or all not, got {list(self.levels)}")

    def fit(self, column: Column) -> Self:
        levels = self._find_levels(column) if self.levels is None else self.levels
        if len(levels) > MOST_LEVELS:
            refuse(
                column.name,
                f"has {len(levels)} levels, more than {MOST_LEVELS}: leave it out, or merge the rare ones",
            )
        coded = column.levels is not None
        kind = replace(
            self,
            levels=levels,
            dtype="" if coded else column.values.dtype.name,
            missing=float(column.missing.mean()),
        )
        kind._check_entries(column)
        column.refuse(kind._codes(column) < 0, f"expected one of {_listed(levels)}")
        return kind

    @property
    def states(self) -> int:
        return len(self.levels or ()) + (self.missing > 0)

    @property
    def exact(self) -> bool:
        return True

    def encode(self, column: Column, generator: torch.Generator | None = None) -> Coordinates:
        self._check_missing(column)
        self._check_entries(column)
        state = torch.from_numpy(np.where(column.missing, self.states - 1, self._codes(column)))
        zeros = torch.zeros(len(column), dtype=torch.float64)
        return Coordinates(state.clamp_min(0), None, torch.where(state < 0, -torch.inf, zeros))

    def decode(self, name: Name, state: Tensor, u: Tensor | None) -> Column:
        levels = self.levels or ()
        codes = state.numpy()
        missing = codes >= len(levels)
        codes = np.where(missing, 0, codes)
        if not self.dtype:
            return Column(name, codes, missing, levels)
        return Column(name, np.array(levels or (0,), dtype=self.dtype)[codes], missing)

    def _find_levels(self, column: Column) -> tuple[Scalar, ...]:
        return tuple(column.distinct()[0])

    def _check_entries(self, column: Column) -> None:
        """Raise unless text meets text, and finite numbers numbers."""
        if column.eps:
            column.refuse(np.isinf(column.values), "expected a finite number")
        mine = {isinstance(level, str) for level in self.levels or ()}
        theirs = {isinstance(level, str) for level in column.levels} if column.levels is not None else {False}
        if not column.missing.all() and mine and not mine & theirs:
            expected, got = ("text", "numbers") if True in mine else ("numbers", "text")
            refuse(column.name, f"expected {expected}, as {_listed(self.levels or ())}, got {got}")

    def _codes(self, column: Column) -> NDArray[np.int64]:
        """The position of each entry among the levels; -1 for others."""
        levels = self.levels or ()
        if column.levels is not None:
            positions = {level: i for i, level in enumerate(levels)}
            table = np.array([positions.get(level, -1) for level in column.levels] or [-1], dtype=np.int64)
            return table[np.where(column.missing, 0, column.values)]
        if not levels or isinstance(levels[0], str):
            return np.full(len(column), -1, dtype=np.int64)
        values = np.array(levels)
        order = values.argsort(kind="stable")
        places = np.searchsorted(values[order], column.values)  # of the first level that is not below
        above, below = order[places.clip(max=len(levels) - 1)], order[(places - 1).clip(0)]
        x = column.values.astype(np.float64)
        with np.errstate(over="ignore"):
            nearest = np.where(np.abs(x - values[below]) < np.abs(x - values[above]), below, above)
        eps = max(column.eps, eps_of(self.dtype))
        return np.where(_same(column.values, values[nearest], eps), nearest, -1)


@dataclass(frozen=True)
class Categorical(Levels):
    """Levels without an order.

    Example:
        >>> from pushforward.tabular import Categorical, Schema
        >>> schema = Schema.infer({"colour": ["red", "blue", "red"]}, kinds={"colour": Categorical(["blue", "red"])})
        >>> schema.encode({"colour": ["red", "green"]}).inside
        tensor([ True, False])
    """

    label: ClassVar[str] = "categorical"

    def __str__(self) -> str:
        return f"categorical: {_listed(self.levels)}" if self.levels is not None else "categorical"


@dataclass(frozen=True)
class Ordered(Levels):
    """Levels in order: numbers by size, ordered categories as they are, text as it is declared.

    Example:
        >>> from pushforward.tabular import Ordered, Schema
        >>> schema = Schema.infer({"size": ["S", "L", "M", "S"]}, kinds={"size": Ordered(["S", "M", "L"])})
        >>> schema.encode({"size": ["M"]}).discrete
        tensor([[1]])
    """

    label: ClassVar[str] = "ordered"

    def _find_levels(self, column: Column) -> tuple[Scalar, ...]:
        levels = super()._find_levels(column)
        if column.levels is not None and not column.ordered and isinstance(levels[0] if levels else "", str):
            refuse(column.name, f"expected the order of its levels, as Ordered({_sample(levels)})")
        return levels

    def __str__(self) -> str:
        return f"ordered: {_listed(self.levels, ' < ')}" if self.levels is not None else "ordered"


@dataclass(frozen=True)
class Constant(Levels):
    """The same entry in every row, with probability one; or no entry in any row."""

    label: ClassVar[str] = "constant"

    def _find_levels(self, column: Column) -> tuple[Scalar, ...]:
        levels, counts = column.distinct()
        found = tuple(level for level, count in zip(levels, counts.tolist(), strict=True) if count)
        if len(found) > 1:
            refuse(column.name, f"expected one constant entry, got {found[0]!r} and {found[1]!r}")
        return found

    def __str__(self) -> str:
        if self.levels is None:
            return "constant"
        return f"constant: {_listed(self.levels)}" if self.levels else "always missing"


def _same(values: NDArray[np.generic], levels: NDArray[np.generic], eps: float) -> NDArray[np.bool_]:
    """Whether numbers are equal up to the relative precision of floating point numbers."""
    close: NDArray[np.bool_] = values == levels
    if eps:
        a, b = values.astype(np.float64), levels.astype(np.float64)
        with np.errstate(over="ignore"):
            close = close | (np.abs(a - b) <= 4 * eps * np.abs(b))
    return close


def _sample(levels: Sequence[Scalar], most: int = 5) -> str:
    return "[" + ", ".join(map(repr, levels[:most])) + (", ...]" if len(levels) > most else "]")


def _listed(levels: Sequence[Scalar], between: str = ", ", most: int = 6) -> str:
    shown = [str(level) if isinstance(level, str | bool) else f"{level:g}" for level in levels[:most]]
    more = f"{between}... ({len(levels)} in all)" if len(levels) > most else ""
    return between.join(shown) + more
