"""The entries of one column, whatever table they came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from pushforward.tabular.table import TableError

Name = str | int
Scalar = str | int | float | bool
WHOLE_BELOW = 2**53  # beyond it float64 does not hold every whole number
_NONE = ("NoneType", "NAType", "NaTType")


@dataclass(frozen=True, eq=False)
class Column:
    """Numbers, booleans, or codes that stand for levels; a missing entry may hold any value.

    Args:
        name: of the column.
        values: numbers or booleans of any dtype, shape `(n,)`; where there are levels their positions, int64.
        missing: shape `(n,)`.
        levels: what text and categorical entries can be.
        ordered: whether the table says that the levels are in order.
    """

    name: Name
    values: NDArray[Any]
    missing: NDArray[np.bool_]
    levels: tuple[Scalar, ...] | None = None
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of_numbers(cls, name: Name, values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Column:
        """Numbers or booleans, of any dtype of NumPy; NaN is missing."""
        if missing is None:
            missing = np.zeros(len(values), dtype=bool)
        if values.dtype.kind == "f":
            missing = missing | np.isnan(values)
        return cls(name, values, missing)

    @classmethod
    def of_objects(cls, name: Name, entries: Iterable[Any], missing: NDArray[np.bool_] | None = None) -> Column:
        """Python objects, which must be all text, all booleans or all numbers; `None`, NaN and NA are missing."""
        entries = list(entries)
        if missing is None:
            missing = np.zeros(len(entries), dtype=bool)
            if any(issubclass(t, float | np.floating) or t.__name__ in _NONE for t in set(map(type, entries))):
                missing[:] = [type(v).__name__ in _NONE or (isinstance(v, Real) and v != v) for v in entries]
        filled = [v for v, gone in zip(entries, missing.tolist(), strict=True) if not gone]
        found = {t: _sort_of(t) for t in set(map(type, filled))}
        sort = next(iter(found.values()), "a number")
        if not sort or len(set(found.values())) > 1:
            _refuse_types(name, entries, missing, found)
        if sort == "text":
            levels = tuple(sorted(map(str, set(filled))))
            positions = {level: i for i, level in enumerate(levels)}
            codes = np.zeros(len(entries), dtype=np.int64)
            codes[~missing] = [positions[v] for v in filled]
            return cls(name, codes, missing, levels)
        whole = bool(found) and all(issubclass(t, Integral) for t in found)
        values = np.zeros(len(entries), dtype=bool if sort == "a boolean" else np.int64 if whole else np.float64)
        try:
            values[~missing] = filled
        except OverflowError:
            refuse(name, f"expected numbers that fit into 64 bits, got {max(filled, key=abs)}")
        return cls(name, values, missing)

    @property
    def eps(self) -> float:
        """The relative precision of the numbers; 0 if they are whole, booleans or levels."""
        return eps_of(self.values.dtype.name)

    def numbers(self, kind: str) -> NDArray[np.float64]:
        """The entries as finite float64 numbers, 0 where missing.

        Args:
            kind: what the column is taken for, for the message.

        Raises:
            TableError: if they are text, booleans, infinite, or whole numbers beyond 2^53.
        """
        if self.levels is not None or self.values.dtype.kind == "b":
            held = "booleans" if self.levels is None else "text or categories"
            refuse(self.name, f"expected numbers, for the kind {kind}, got {held}")
        values = np.where(self.missing, 0, self.values).astype(np.float64)
        self.refuse(~np.isfinite(values), "expected a finite number")
        if self.values.dtype.kind in "iu":
            self.refuse(np.abs(values) >= WHOLE_BELOW, "expected a whole number below 2^53")
        return values

    def updated(self, other: Column) -> Column:
        """The column with the numbers of another where that has any; levels stay as they are."""
        if self.levels is not None or other.levels is not None:
            return self
        values = np.where(other.missing, self.values, other.values)
        return replace(self, values=values, missing=self.missing & other.missing)

    def distinct(self) -> tuple[list[Scalar], NDArray[np.int64]]:
        """The different entries, in increasing order or that of the levels, and how often each occurs."""
        filled = self.values[~self.missing]
        if self.levels is not None:
            return list(self.levels), np.bincount(filled, minlength=len(self.levels))
        values, counts = np.unique(filled, return_counts=True)
        return values.tolist(), counts

    def refuse(self, bad: NDArray[np.bool_], expected: str) -> None:
        """Raise a `TableError` that names the first bad entry, if there is one."""
        bad = bad & ~self.missing
        if bad.any():
            row = int(bad.argmax())
            value = self.values[row].item()
            refuse(self.name, f"{expected}, got {value if self.levels is None else self.levels[value]!r}", row)


def eps_of(dtype: str) -> float:
    """The relative precision of a floating dtype; 0 of any other."""
    return float(np.finfo(dtype).eps) if dtype.startswith("float") else 0.0


def refuse(name: Name, complaint: str, row: int | None = None) -> NoReturn:
    """Raise a `TableError` about a column; `row` counts from 0, the message from 1."""
    raise TableError(f"column {name!r}" + ("" if row is None else f", row {row + 1}") + f": {complaint}")


def _sort_of(cls: type) -> str:
    """What an entry is, in words; nothing for what no column can hold."""
    sorts: dict[str, tuple[type, ...]] = {"text": (str,), "a boolean": (bool, np.bool_), "a number": (Real,)}
    return next((sort for sort, classes in sorts.items() if issubclass(cls, classes)), "")


def _refuse_types(name: Name, entries: list[Any], missing: NDArray[np.bool_], sorts: dict[type, str]) -> NoReturn:
    """Name the first entry that cannot be used, or else the first of each sort."""
    first: dict[str, int] = {}
    for row in np.flatnonzero(~missing).tolist():
        sort = sorts[type(entries[row])]
        if not sort:
            refuse(name, f"expected a number, text or a boolean, got {entries[row]!r}", row)
        first.setdefault(sort, row)
    mixed = " and ".join(f"{sort} in row {row + 1}" for sort, row in first.items())
    refuse(name, f"expected entries of one type, got {mixed}")
