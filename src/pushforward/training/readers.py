"""Successive rows of `.npy` and Parquet files, without the rest of the file in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

BLOCK_ROWS = 65536
PIECES = 32  # of a buffer, where any rows are fast to read
DECODED_PIECES = 8  # where the rows before them in their row group are decoded too


class Piece(NamedTuple):
    """Successive rows of a file."""

    first: int
    rows: int


class Reader(ABC):
    """Columns of numbers in a file.

    Attributes:
        path: the file.
        rows: how many it has.
        columns: names of the columns that are read.
    """

    def __init__(self, path: Path, rows: int, available: Sequence[str], columns: Sequence[str] | None) -> None:
        self.path = path
        self.rows = rows
        self.columns = tuple(available if columns is None else columns)
        if missing := [name for name in self.columns if name not in available]:
            raise ValueError(f"{path}: expected columns among {', '.join(available)}, got {', '.join(missing)}")
        if not (self.rows and self.columns):
            raise ValueError(f"{path}: expected rows and columns, got {self.rows} and {len(self.columns)}")

    @abstractmethod
    def pieces(self, buffer_rows: int) -> list[Piece]:
        """All rows, in pieces that are fast to read, and of which several fill a buffer."""

    @abstractmethod
    def read(self, piece: Piece, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
        """The rows of a piece, (rows, columns), at most `BLOCK_ROWS` at a time; NaN where there is no number."""


def open_table(path: Path, columns: Sequence[str] | None = None) -> Reader:
    """The reader for a file, by its suffix.

    Raises:
        ValueError: if the file is no table of numbers, or lacks a column.
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for a Parquet file, if there is no pyarrow.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() == ".npy":
        return NpyReader(path, columns)
    if path.suffix.lower() in (".parquet", ".pq"):
        return ParquetReader(path, columns)
    raise ValueError(f"{path}: expected a file that ends in .npy or .parquet")


class NpyReader(Reader):
    """An array of one or two dimensions; its columns are called x1, x2, ..."""

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        try:
            array = open_memmap(path, mode="r")
        except Exception as error:  # NumPy evaluates the header: a damaged one can raise anything
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: is not a whole .npy file of numbers: {reason}") from None
        if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
            raise ValueError(
                f"{path}: expected real numbers in 1 or 2 dimensions, got {array.dtype} of shape {array.shape}"
            )
        self._dtype, self._offset, self._by_rows = array.dtype, array.offset, array.flags.c_contiguous
        self._width = array.shape[1] if array.ndim == 2 else 1
        names = [f"x{i + 1}" for i in range(self._width)]
        super().__init__(path, len(array), names, columns)
        self._chosen = [names.index(name) for name in self.columns]

    def pieces(self, buffer_rows: int) -> list[Piece]:
        return _parts(Piece(0, self.rows), -(-buffer_rows // PIECES))

    def read(self, piece: Piece, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
        for first, rows in _parts(piece, BLOCK_ROWS):
            if self._by_rows:
                values = self._numbers(first * self._width, rows * self._width).reshape(rows, -1)
                if self._chosen != list(range(self._width)):
                    values = values[:, self._chosen]
            else:
                values = np.stack([self._numbers(i * self.rows + first, rows) for i in self._chosen], axis=-1)
            yield values.astype(dtype, order="C", copy=False)

    def _numbers(self, first: int, count: int) -> NDArray[Any]:
        # Read and not mapped: what is mapped counts as memory of the process, and kills it if the file is cut short.
        numbers = np.fromfile(self.path, self._dtype, count, offset=self._offset + first * self._dtype.itemsize)
        if len(numbers) < count:
            raise ValueError(f"{self.path}: has been cut short since it was opened")
        return numbers


class ParquetReader(Reader):
    """A Parquet file, whose row groups are decoded each from its first row on, some megabytes of a column at a time."""

    def __init__(self, path: Path, columns: Sequence[str] | None) -> None:
        try:
            from pyarrow import parquet, types
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{path}: Parquet needs pyarrow: pip install pushforward[tables]") from error
        try:
            self._file = parquet.ParquetFile(path, buffer_size=1 << 16)  # without, it reads whole row groups
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: is not a whole Parquet file: {error}") from None
        schema, metadata = self._file.schema_arrow, self._file.metadata
        super().__init__(path, metadata.num_rows, schema.names, columns)
        numbers = (types.is_floating, types.is_integer, types.is_boolean, types.is_decimal)
        for name in self.columns:
            kind = schema.field(name).type
            if not any(holds(kind) for holds in numbers):
                raise ValueError(f"{path}: expected numbers in column {name!r}, got {kind}; choose other columns")
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = list(accumulate(sizes, initial=0))
        self._stream = _Stream(iter(()), 0, 0)

    def pieces(self, buffer_rows: int) -> list[Piece]:
        pieces: list[Piece] = []
        for first, end in pairwise(self._starts):
            last = pieces[-1] if pieces else Piece(0, buffer_rows)
            if last.rows + end - first <= buffer_rows // PIECES:
                pieces[-1] = Piece(last.first, end - last.first)
            elif end > first:
                pieces += _parts(Piece(first, end - first), -(-buffer_rows // DECODED_PIECES))
        return pieces

    def read(self, piece: Piece, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
        end = piece.first + piece.rows
        try:
            if self._stream.position != piece.first or self._stream.end < end:
                groups = range(bisect_right(self._starts, piece.first) - 1, bisect_left(self._starts, end))
                batches = self._file.iter_batches(
                    BLOCK_ROWS, row_groups=list(groups), columns=list(self.columns), use_threads=False
                )
                self._stream = _Stream(batches, self._starts[groups.start], self._starts[groups.stop])
                while self._stream.position < piece.first:
                    self._stream.take(min(BLOCK_ROWS, piece.first - self._stream.position))
            for part in _parts(piece, BLOCK_ROWS):
                yield self._numbers(self._stream.take(part.rows), dtype)
        except OSError as error:
            raise ValueError(f"{self.path}: is damaged: {error}") from None

    def _numbers(self, rows: Any, dtype: DTypeLike) -> NDArray[Any]:
        import pyarrow

        values = np.empty((len(rows), len(self.columns)), dtype)
        for i, name in enumerate(self.columns):
            column = rows.column(name)
            if not pyarrow.types.is_floating(column.type):
                column = column.cast(pyarrow.float64(), safe=False)  # to the nearest number
            values[:, i] = column.to_numpy()
        return values


class _Stream:
    """Record batches, handed out in any numbers of rows."""

    def __init__(self, batches: Iterator[Any], position: int, end: int) -> None:
        self.position = position
        self.end = end
        self._batches = batches
        self._rest: list[Any] = []

    def take(self, rows: int) -> Any:
        """The next rows, as a table."""
        import pyarrow

        while sum(map(len, self._rest)) < rows:
            self._rest.append(next(self._batches))
        table = pyarrow.Table.from_batches(self._rest)
        self._rest = table.slice(rows).to_batches()
        self.position += rows
        return table.slice(0, rows)


def _parts(piece: Piece, most: int) -> list[Piece]:
    """Parts of equal size, at most so large."""
    count = -(-piece.rows // most)
    ends = [piece.first + piece.rows * i // count for i in range(count + 1)]
    return [Piece(first, end - first) for first, end in pairwise(ends)]
