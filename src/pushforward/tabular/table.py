"""Tables of numbers in CSV and NumPy files, and every problem with them told in one line."""

import csv
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.files import write_atomically

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


def read_table(path: str | Path, *, minimum_rows: int = 1) -> Table:
    """Read a table from a `.csv` or a `.npy` file.

    A CSV file is UTF-8 text with commas between the cells. Its first line is a header, unless every cell of it is a
    number; the columns are then called x1, x2, ..., and so are those of a NumPy array, which has one or two dimensions.

    Args:
        path: the file.
        minimum_rows: the fewest rows to accept.

    Raises:
        TableError: if the file cannot be read, or holds anything but finite numbers in rows of equal length. Rows
            count from 1, without the header.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_csv(f"{folder}/points.csv", ["height", "weight"], [[1.62, 58.5], [1.8, 81.0]])
        ...     table = read_table(f"{folder}/points.csv")
        >>> table.columns, table.values.tolist()
        (('height', 'weight'), [[1.62, 58.5], [1.8, 81.0]])
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".npy": _read_npy}
    with _telling(path, "cannot be read"):
        if path.is_dir():
            raise TableError(f"{path}: is a folder, not a file")
        if not path.exists():
            raise TableError(f"{path}: no such file")
        if path.suffix.lower() not in readers:
            raise TableError(f"{path}: expected a file that ends in {' or '.join(readers)}")
        table = readers[path.suffix.lower()](path)
    if len(table.values) < minimum_rows:
        raise TableError(f"{path}: expected {minimum_rows} or more rows of numbers, got {len(table.values)}")
    return table


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


def check_columns(table: Table, expected: Sequence[str]) -> Table:
    """The table with its columns in the expected order.

    Args:
        table: a table.
        expected: the names of the model's columns, each once.

    Raises:
        TableError: if the table lacks one of them or has others.

    Example:
        >>> table = Table(("b", "a"), np.array([[2.0, 1.0]]))
        >>> check_columns(table, ["a", "b"]).values.tolist()
        [[1.0, 2.0]]
        >>> check_columns(table, ["a", "c"])
        Traceback (most recent call last):
        pushforward.tabular.table.TableError: table: its columns are not the model's: missing 'c'; unexpected 'b'
    """
    expected = tuple(expected)
    if table.columns == expected:
        return table
    check_names(table.columns, expected, table.source)
    order = [table.columns.index(name) for name in expected]
    return replace(table, columns=expected, values=table.values[:, order])


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


def write_csv(path: str | Path, columns: Sequence[str], values: ArrayLike) -> None:
    """Write numbers under a header, whole or not at all; reading them back gives the same float64 numbers.

    Args:
        path: the file to write; one that exists is replaced.
        columns: the names, one per column.
        values: (rows, columns).

    Raises:
        TableError: if the file cannot be written.
        ValueError: if `values` has another shape.
    """
    path = Path(path)
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(columns):
        raise ValueError(f"expected values with shape (rows, {len(columns)}), got {rows.shape}")
    with _telling(path, "cannot be written"):
        if not path.parent.is_dir():
            raise TableError(f"{path}: cannot be written: there is no folder {path.parent}")
        with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows.tolist())


def _read_csv(path: Path) -> Table:
    records: Iterator[tuple[int, list[str]]] = _records(path)
    _, first = next(records, (0, []))
    if not first:
        raise TableError(f"{path}: is empty")
    if any(cell.strip() and not _is_number(cell) for cell in first):
        columns = _header(first, path)
    else:
        columns = numbered(len(first))
        records = chain([(1, first)], records)

    values = array("d")
    for row, (line, cells) in enumerate(records, 1):
        if len(cells) != len(columns):
            expected = f"{len(columns)} cell{'s' * (len(columns) > 1)}"
            raise TableError(f"{path}: row {row} (line {line}): expected {expected}, got {len(cells)}")
        try:
            numbers = list(map(float, cells))
        except ValueError:
            numbers = []
        if not numbers or not all(map(isfinite, numbers)) or "_" in "".join(cells):
            name, complaint = next(
                (n, text) for n, cell in zip(columns, cells, strict=True) if (text := _complaint(cell))
            )
            raise TableError(f"{path}: column {name!r}, row {row} (line {line}): {complaint}")
        values.extend(numbers)
    return Table(columns, np.array(values).reshape(-1, len(columns)), str(path))


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file, each with its number, up to the blank ones at its end."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = ("\n" if line.isspace() else line for line in file)
        reader = csv.reader(lines, strict=True, skipinitialspace=True)
        blank = 0
        try:
            for cells in reader:
                if not cells:
                    blank = blank or reader.line_num
                    continue
                if blank:
                    raise TableError(f"{path}: line {blank}: is blank")
                yield reader.line_num, cells
        except UnicodeDecodeError:
            raise TableError(f"{path}: line {_undecodable_line(path)}: is not UTF-8 text") from None
        except csv.Error as error:
            raise TableError(f"{path}: line {reader.line_num}: {error}") from None


def _header(cells: list[str], path: Path) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    for index, name in enumerate(names):
        if not name:
            raise TableError(f"{path}: column {index + 1} has no name in the header")
        if (earlier := names.index(name)) != index:
            raise TableError(f"{path}: columns {earlier + 1} and {index + 1} are both called {name!r}")
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # float() reads 1_000


def _complaint(cell: str) -> str | None:
    """Why a cell of text is no finite number; None if it is one."""
    if not cell.strip():
        return "the cell is empty"
    shown = repr(cell if len(cell) <= 40 else cell[:37] + "...")
    if not _is_number(cell):
        hint = " (cells are separated by commas)" if ";" in cell or "\t" in cell else ""
        return f"expected a number, got {shown}{hint}"
    return None if isfinite(float(cell)) else f"expected a finite number, got {shown}"


def _undecodable_line(path: Path) -> int:
    # The decoder reads ahead in blocks, so the CSV reader does not know the line.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("every line is UTF-8, the file is not")


def _read_npy(path: Path) -> Table:
    with path.open("rb") as file:
        try:
            found = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # NumPy evaluates the header: a damaged one can raise anything
            reason = str(error).partition("\n")[0]
            raise TableError(f"{path}: is not a whole .npy file of numbers: {reason}") from None
    if found.dtype.kind not in "iuf":
        raise TableError(f"{path}: expected an array of real numbers, got dtype {found.dtype}")
    if found.ndim not in (1, 2):
        raise TableError(f"{path}: expected an array with 1 or 2 dimensions, got shape {found.shape}")
    if found.ndim == 1:
        found = found[:, None]
    if found.shape[1] == 0:
        raise TableError(f"{path}: has no columns")
    with np.errstate(over="ignore"):
        values = found.astype(np.float64)
    if not (finite := np.isfinite(values)).all():
        row, column = np.argwhere(~finite)[0]
        raise TableError(
            f"{path}: column 'x{column + 1}', row {row + 1}: expected a finite number, got {values[row, column]}"
        )
    return Table(numbered(values.shape[1]), values, str(path))


def numbered(count: int) -> tuple[str, ...]:
    """The names of columns that have none: x1, x2, ..."""
    return tuple(f"x{index}" for index in range(1, count + 1))


def _listed(names: Sequence[object], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


@contextmanager
def _telling(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TableError(f"{path}: {what}: {error.strerror or error}") from None
