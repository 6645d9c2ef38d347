"""Tables of numbers, and what is wrong with a table told in one line."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_ROWS_TO_FIT = 10


class TableError(ValueError):
    """What is wrong with a table: one line that names the file and, where there is one, the column and the row."""


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of finite numbers.

    Args:
        columns: the names, one per column.
        values: float64, (rows, columns).
        source: where the table came from, for messages.
    """

    columns: tuple[str, ...]
    values: NDArray[np.float64]
    source: str = "table"


def check_fittable(table: Table) -> None:
    """Refuse a table that no density can be fitted to.

    Raises:
        TableError: if there are fewer than 10 rows, or if a column holds the same number in every row.
    """
    rows = len(table.values)
    if rows < FEWEST_ROWS_TO_FIT:
        raise TableError(f"{table.source}: expected {FEWEST_ROWS_TO_FIT} or more rows to fit, got {rows}")
    for name, column in zip(table.columns, table.values.T, strict=True):
        if (column == column[0]).all():
            raise TableError(f"{table.source}: column {name!r} is constant: {float(column[0])!r} in every row")


def check_names(found: Collection[object], expected: Collection[object], source: str = "table") -> None:
    """Refuse names of columns that are not the expected ones, in whatever order."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        differences = {"missing": missing, "unexpected": unexpected}
        parts = [f"{word} {_listed(names)}" for word, names in differences.items() if names]
        if tuple(found) == numbered(len(found)):
            parts.append("a table without a header has columns x1, x2, ...")
        raise TableError(f"{source}: its columns are not the model's: {'; '.join(parts)}")


def numbered(count: int) -> tuple[str, ...]:
    """The names of columns that have none: x1, x2, ..."""
    return tuple(f"x{index}" for index in range(1, count + 1))


def _listed(names: Sequence[object], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
