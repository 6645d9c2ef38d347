"""CSV files of numbers, text and gaps, and every problem with them told in one line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pushforward.tabular.table import TableError, numbered

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
BOOLEANS = {"true": True, "false": False}
MOSTLY = 0.9  # share of numbers from which other cells are taken for mistakes


def read_csv(path: Path) -> dict[str, Any]:
    """The columns of a CSV file: arrays of numbers, or lists of text, booleans and None."""
    records: Iterator[tuple[int, list[str]]] = _records(path)
    _, first = next(records, (0, []))
    if not first:
        raise TableError(f"{path}: is empty")
    if any(cell.strip() and not _is_number(cell) for cell in first):
        columns = _header(first, path)
    else:
        columns = numbered(len(first))
        records = chain([(1, first)], records)
    lines, rows = [], []
    for row, (line, cells) in enumerate(records, 1):
        if len(cells) != len(columns):
            expected = f"{len(columns)} cell{'s' * (len(columns) > 1)}"
            hint = " (cells are separated by commas)" if len(cells) == 1 and any(c in cells[0] for c in ";\t") else ""
            raise TableError(f"{path}: row {row} (line {line}): expected {expected}, got {len(cells)}{hint}")
        lines.append(line)
        rows.append(cells)
    cells_of = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return {name: _column(path, name, list(cells), lines) for name, cells in zip(columns, cells_of, strict=True)}


def write_csv_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write lists under a header; None as an empty cell. Reading them back gives the same numbers."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _column(path: Path, name: str, cells: list[str], lines: list[int]) -> Any:
    """The cells of a column as numbers if all are, else as booleans, else as text."""
    cells = [cell.strip() for cell in cells]
    missing = [cell.lower() in MISSING for cell in cells]
    filled = [cell for cell, gone in zip(cells, missing, strict=True) if not gone]
    numbers = [_is_number(cell) for cell in filled]
    if all(numbers):
        if any(missing) or not all(cell.lstrip("+-").isdigit() for cell in filled):
            return np.array([np.nan if gone else float(cell) for cell, gone in zip(cells, missing, strict=True)])
        try:
            return np.array([int(cell) for cell in cells], dtype=np.int64)
        except OverflowError:
            return np.array([float(cell) for cell in cells])
    if sum(numbers) >= MOSTLY * len(filled):
        row = next(i for i, cell in enumerate(cells) if not missing[i] and not _is_number(cell))
        shown = repr(cells[row] if len(cells[row]) <= 40 else cells[row][:37] + "...")
        raise TableError(
            f"{path}: column {name!r}, row {row + 1} (line {lines[row]}): expected a number like most others of its "
            f"column, got {shown}"
        )
    if all(cell.lower() in BOOLEANS for cell in filled):
        return [None if gone else BOOLEANS[cell.lower()] for cell, gone in zip(cells, missing, strict=True)]
    return [None if gone else cell for cell, gone in zip(cells, missing, strict=True)]


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


def _undecodable_line(path: Path) -> int:
    # The decoder reads ahead in blocks, so the CSV reader does not know the line.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError("every line is UTF-8, the file is not")
