"""Batches of rows in files."""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from pushforward.training.batches import Batch
from pushforward.training.readers import Piece

if TYPE_CHECKING:
    from pushforward.training.files import FileRows


@dataclass(frozen=True)
class _Epoch:
    """What each buffer of an epoch is filled with, and the number of rows up to its end."""

    buffers: list[list[Piece]]
    ends: list[int]


class Streamed:
    """Batches cut from shuffled buffers of blocks, of which the next is read ahead."""

    def __init__(self, rows: FileRows, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.steps_per_epoch = len(rows) // self.batch_size
        self._reader = rows.open()
        self._thread = ThreadPoolExecutor(1)
        self._epochs: dict[int, _Epoch] = {}
        self._loads: dict[tuple[int, int], Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        number, position = divmod(step, self.steps_per_epoch)
        epoch = self._epoch(number)
        start, stop = position * self.batch_size, (position + 1) * self.batch_size
        index = bisect_right(epoch.ends, start)
        parts = []
        while start < stop:
            buffer = self._buffer(number, index)
            first = epoch.ends[index] - len(buffer)
            parts.append(buffer[start - first : stop - first])
            start = epoch.ends[index]
            index += 1
        return parts[0] if len(parts) == 1 else Batch.cat(parts)

    def _epoch(self, number: int) -> _Epoch:
        if number not in self._epochs:
            pieces, count = self.rows.pieces, -(-len(self.rows) // self.rows.buffer_rows)
            generator = torch.Generator().manual_seed(hash((self.seed, number)))
            buffers: list[list[Piece]] = [[] for _ in range(count)]
            # Each stretch of the file gives one piece to each buffer.
            for stretch in torch.arange(len(pieces)).split(count):
                places = torch.randperm(count, generator=generator)
                for i, place in zip(stretch.tolist(), places.tolist(), strict=False):
                    buffers[place].append(pieces[i])
            ends = list(accumulate(map(self._size, buffers)))
            self._epochs = {n: epoch for n, epoch in self._epochs.items() if n == number - 1}
            self._epochs[number] = _Epoch(buffers, ends)
        return self._epochs[number]

    def _size(self, pieces: list[Piece]) -> int:
        return sum(piece.rows - self.rows.held(piece) for piece in pieces)

    def _buffer(self, number: int, index: int) -> Batch:
        """A buffer of an epoch; has the one after it read meanwhile."""
        key = (number, index)
        needed = bisect_right(self._epoch(number).ends, self.steps_per_epoch * self.batch_size - 1) + 1
        after = (number, index + 1) if index + 1 < needed else (number + 1, 0)
        self._loads = {k: self._loads[k] if k in self._loads else self._load(*k) for k in (key, after)}
        return self._loads[key].result()

    def _load(self, number: int, index: int) -> Future[Batch]:
        pieces = self._epoch(number).buffers[index]
        return self._thread.submit(self._fill, pieces, hash((self.seed, number, index)))

    def _fill(self, pieces: list[Piece], seed: int) -> Batch:
        order = torch.randperm(self._size(pieces), generator=torch.Generator().manual_seed(seed))
        blocks = (block for piece in pieces for block in self.rows.read(self._reader, piece))
        return Batch.placed(blocks, order).to(self.rows.device)
