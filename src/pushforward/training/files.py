"""Rows in files that need not fit in memory."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pushforward.training.batches import Batch, Rows, Source
from pushforward.training.readers import Piece, Reader, open_table
from pushforward.training.statistics import ColumnStatistics, Moments
from pushforward.training.stream import Streamed

BUFFER_BYTES = 64 * 2**20


class FileRows(Source):
    """Rows of a `.npy` or Parquet file that `train` reads in blocks, so that the file may be larger than memory.

    The order is random, and depends on the seed alone: a buffer is filled with pieces from all over the file, its rows
    are shuffled, and batches are cut from it while the next buffer is read. Every epoch fills other buffers, and visits
    each row once, but for those too few for a last batch. Rows held out for validation, the same share of every piece,
    stay in memory.

    A piece of an array is a 32nd of a buffer. A piece of a Parquet file is a row group, several small ones, or at most
    an eighth of a buffer out of a large one; what comes before it in the row group is then decoded in vain.

    Args:
        path: a `.npy` array of one or two dimensions, whose columns are called x1, x2, ..., or a Parquet file with
            columns of numbers, integers, truth values or decimals.
        columns: names of those to read, in this order; by default all.
        dtype: of the rows that come out, float32 or float64.
        buffer_rows: about how many rows fill a buffer, of which there are two; by default 64 MiB of them.

    Raises:
        ValueError: if the file is no table of numbers or lacks a column; in `train`, if a number is missing or
            infinite (which row).
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for a Parquet file, if there is no pyarrow.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> flow = pf.maf(features=3, layers=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/table.npy", np.random.default_rng(0).normal(50.0, 2.0, size=(1000, 3)))
        ...     rows = pf.FileRows(f"{folder}/table.npy")
        ...     columns = rows.statistics()
        ...     standardize = pf.Standardize(columns.mean, columns.sd)
        ...     z = rows.map(lambda x: standardize.inverse(x)[0])
        ...     result = pf.train(pf.MaximumLikelihood(flow), z, max_steps=20)
        >>> len(rows), rows.columns, result.steps
        (1000, ('x1', 'x2', 'x3'), 20)
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        buffer_rows: int | None = None,
    ) -> None:
        reader = open_table(Path(path), columns)
        if buffer_rows is None:
            buffer_rows = max(BUFFER_BYTES // (dtype.itemsize * len(reader.columns)), 1)
        if buffer_rows < 1 or dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"FileRows: expected buffer_rows >= 1 and a dtype of float32 or float64, got {buffer_rows} and {dtype}"
            )
        self.path = Path(path)
        self.columns = reader.columns
        self.dtype = dtype
        self.buffer_rows = buffer_rows
        self.device = torch.device("cpu")
        self.pieces = reader.pieces(buffer_rows)
        self._rows = reader.rows
        self._held, self._seed = 0, 0
        self._function: Callable[[Tensor], Rows] | None = None
        self._statistics: ColumnStatistics | None = None
        self._checksums: list[int] | None = None

    def __len__(self) -> int:
        return self._rows - self._held

    def map(self, function: Callable[[Tensor], Rows]) -> FileRows:
        """The rows as a function hands them on.

        Args:
            function: from some rows, `(n, columns)`, float64, NaN where a number is missing, to n rows of what the
                objective takes, in any form that `train` takes; a row gives the same whichever rows come with it.
        """
        new = copy.copy(self)
        new._function, new._checksums = function, None
        return new

    def statistics(self) -> ColumnStatistics:
        """Mean, standard deviation, range and missing numbers of the file's columns, by one pass, whose result is kept.

        Raises:
            ValueError: if a number is infinite (which row).
        """
        if self._statistics is None:
            moments = Moments(len(self.columns))
            reader = self.open()
            for piece in self.pieces:
                for block, values in _blocks(reader, piece, "float64"):
                    self._refuse(np.isinf(values), values, block)
                    moments.add(values)
            self._statistics = moments.result()
        return self._statistics

    def check(self, where: str, dtype: torch.dtype) -> None:
        if self.dtype != dtype:
            raise ValueError(
                f"train: expected {where} of the parameters' dtype {dtype}, got FileRows of {self.dtype}; "
                "give it the other dtype"
            )
        self.digest()

    def digest(self) -> list[object]:
        """Checksums of all rows, by one pass that also finds what is not finite, whose result is kept."""
        if self._checksums is None:
            checksums: list[int] = []
            for block, batch in self._all():
                checksums = checksums or [0] * len(batch.tensors)
                for i, t in enumerate(batch.tensors):
                    values = t.contiguous().numpy()
                    self._refuse(~np.isfinite(values), values, block)
                    checksums[i] = zlib.crc32(values.data, checksums[i])
            self._checksums = checksums
        return [self._checksums, self._rows, self._held, self.buffer_rows]

    def to(self, device: torch.device) -> FileRows:
        new = copy.copy(self)
        new.device = device
        return new

    def blocks(self) -> Iterator[Batch]:
        for block, batch in self._all():
            yield from batch[self._kept(block)].to(self.device).blocks()

    def split(self, fraction: float, seed: int) -> tuple[FileRows, Batch]:
        new = copy.copy(self)
        new._held, new._seed = self._to_hold(fraction), seed
        held = (batch[new._order(block)[: new.held(block)]] for block, batch in self._all())
        return new, Batch.placed(held, torch.arange(new._held)).to(self.device)

    def shuffled(self, batch_size: int, seed: int) -> Streamed:
        return Streamed(self, batch_size, seed)

    def open(self) -> Reader:
        """A reader of its own, for one thread."""
        return open_table(self.path, self.columns)

    def held(self, piece: Piece) -> int:
        """How many rows of a piece are held out: evenly over the file, and in all exactly those wanted."""
        end = piece.first + piece.rows
        return end * self._held // self._rows - piece.first * self._held // self._rows

    def read(self, reader: Reader, piece: Piece) -> Iterator[Batch]:
        """The rows of a piece that are not held out, in blocks, as the objective takes them."""
        for block, batch in self._read(reader, piece):
            yield batch[self._kept(block)]

    def _all(self) -> Iterator[tuple[Piece, Batch]]:
        reader = self.open()
        return (pair for piece in self.pieces for pair in self._read(reader, piece))

    def _read(self, reader: Reader, piece: Piece) -> Iterator[tuple[Piece, Batch]]:
        precise = self._function is not None or self.dtype == torch.float64
        for block, values in _blocks(reader, piece, "float64" if precise else "float32"):
            yield block, self._batch(torch.from_numpy(values))

    @torch.no_grad()
    def _batch(self, x: Tensor) -> Batch:
        if self._function is None:
            return Batch((x.to(self.dtype),), {})
        batch = Batch.of(self._function(x))
        lengths = [len(t) for t in batch.tensors]
        if set(lengths) != {len(x)}:
            raise ValueError(f"FileRows: expected {len(x)} rows from the function given to map, got {lengths}")
        return batch.each(lambda t: t.to(self.dtype) if t.is_floating_point() else t)

    def _kept(self, block: Piece) -> Tensor | slice:
        return self._order(block)[self.held(block) :].sort().values if self._held else slice(None)

    def _order(self, block: Piece) -> Tensor:
        # Of more numbers than the seeds of epochs and buffers, so that it is none of theirs.
        generator = torch.Generator().manual_seed(hash((self._seed, 0, *block)))
        return torch.randperm(block.rows, generator=generator)

    def _refuse(self, bad: NDArray[np.bool_], values: NDArray[Any], block: Piece) -> None:
        """Raise a `ValueError` about the first row that is bad, counted from 1 as tables are."""
        if bad.any():
            row, *place = np.argwhere(bad)[0].tolist()
            column = f"column {self.columns[place[0]]!r}, " if self._function is None else ""
            raise ValueError(
                f"{self.path}: {column}row {block.first + row + 1}: expected finite numbers, got {values[row].tolist()}"
            )


def _blocks(reader: Reader, piece: Piece, dtype: str) -> Iterator[tuple[Piece, NDArray[Any]]]:
    """The rows of a piece in blocks, each with its place in the file."""
    first = piece.first
    for values in reader.read(piece, dtype):
        yield Piece(first, len(values)), values
        first += len(values)
