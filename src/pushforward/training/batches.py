"""Batches of tensors in a reproducible order."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Rows = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
VALIDATION_BLOCK = 8192


class Batches(Protocol):
    """The batch of each step; one of a step's number alone, so that a run can be resumed."""

    @property
    def steps_per_epoch(self) -> int: ...

    def __call__(self, step: int, /) -> Batch: ...


class Source(ABC):
    """Rows to train on or to validate with, in memory or not."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def check(self, where: str, dtype: torch.dtype) -> None:
        """Raise a `ValueError` unless the rows agree in number, are finite, and if real numbers then of this dtype."""

    @abstractmethod
    def digest(self) -> list[object]:
        """Numbers by which to recognise the same rows again."""

    @abstractmethod
    def to(self, device: torch.device) -> Source:
        """The same, with what comes out of it on a device."""

    @abstractmethod
    def blocks(self) -> Iterator[Batch]:
        """All rows in their own order, at most `VALIDATION_BLOCK` at a time."""

    @abstractmethod
    def split(self, fraction: float, seed: int) -> tuple[Source, Batch]:
        """Rows for training and for validation."""

    @abstractmethod
    def shuffled(self, batch_size: int, seed: int) -> Batches:
        """Batches without replacement within each epoch."""

    def _to_hold(self, fraction: float) -> int:
        held = max(1, round(fraction * len(self)))
        if held >= len(self):
            raise ValueError(f"train: expected rows left to train on, got {len(self)} rows and validation={fraction}")
        return held


Data = Rows | Source | Callable[[int], Rows]


@dataclass(frozen=True)
class Batch(Source):
    """The arguments of an objective: rows of equal number, by position and by name."""

    positional: tuple[Tensor, ...]
    named: dict[str, Tensor]

    @classmethod
    def of(cls, data: Rows) -> Batch:
        if isinstance(data, Tensor):
            return cls((data,), {})
        if isinstance(data, Mapping):
            return cls((), dict(data))
        return cls(tuple(data), {})

    @classmethod
    def cat(cls, batches: Sequence[Batch]) -> Batch:
        """The rows of one after the other."""
        first = batches[0]
        positional = tuple(torch.cat(same) for same in zip(*(b.positional for b in batches), strict=True))
        return cls(positional, {name: torch.cat([b.named[name] for b in batches]) for name in first.named})

    @classmethod
    def placed(cls, batches: Iterable[Batch], places: Tensor) -> Batch:
        """The rows of all, each in its place among them; in memory that is taken at once, and so leaves no gaps."""
        whole: Batch | None = None
        done = 0
        for batch in batches:
            if whole is None:
                whole = batch.each(lambda t: t.new_empty((len(places), *t.shape[1:])))
            for target, values in zip(whole.tensors, batch.tensors, strict=True):
                target[places[done : done + len(batch)]] = values
            done += len(batch)
        assert whole is not None and done == len(places)
        return whole

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.positional, *self.named.values()]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return self.each(lambda t: t[index])

    def each(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch of what a function makes of each tensor."""
        return Batch(tuple(function(t) for t in self.positional), {name: function(t) for name, t in self.named.items()})

    def to(self, device: torch.device) -> Batch:
        return self.each(lambda t: t.to(device))

    def blocks(self) -> Iterator[Batch]:
        for start in range(0, len(self), VALIDATION_BLOCK):
            yield self[start : start + VALIDATION_BLOCK]

    def digest(self) -> list[object]:
        """Shape and checksum of each tensor."""
        contents = [t.detach().cpu().contiguous() for t in self.tensors]
        return [(list(t.shape), zlib.crc32(t.reshape(-1).view(torch.uint8).numpy().data)) for t in contents]

    def split(self, fraction: float, seed: int) -> tuple[Batch, Batch]:
        held = self._to_hold(fraction)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.tensors[0].device)
        return self[order[held:]], self[order[:held]]

    def shuffled(self, batch_size: int, seed: int) -> Shuffled:
        return Shuffled(self, batch_size, seed)

    def check(self, where: str, dtype: torch.dtype) -> None:
        named = [(str(i), t) for i, t in enumerate(self.positional)] + list(self.named.items())
        if not named or any(not isinstance(t, Tensor) or t.dim() == 0 for _, t in named):
            raise ValueError(f"train: expected {where} as a tensor with rows, or a sequence or mapping of such tensors")
        if len({len(t) for _, t in named}) > 1:
            listed = ", ".join(f"{name}: {len(t)}" for name, t in named)
            raise ValueError(f"train: expected tensors of equal length in {where}, got {listed}")
        if not len(self):
            raise ValueError(f"train: expected at least one row in {where}, got none")
        for name, t in named:
            if t.is_floating_point() and t.dtype != dtype:
                raise ValueError(
                    f"train: expected {where} of the parameters' dtype {dtype}, got {t.dtype} in tensor {name}; "
                    "convert one of them with .to"
                )
            bad = (~t.isfinite()).reshape(len(t), -1).any(-1)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                raise ValueError(f"train: expected finite {where}, got {t[row].tolist()} in row {row} of tensor {name}")


class Shuffled:
    """Batches of rows in memory."""

    def __init__(self, rows: Batch, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.steps_per_epoch = len(rows) // self.batch_size
        self._epoch = -1
        self._order = torch.empty(0)

    def __call__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(hash((self.seed, epoch)))
            order = torch.randperm(len(self.rows), generator=generator)
            self._epoch, self._order = epoch, order.to(self.rows.tensors[0].device)
        if self.batch_size == len(self.rows):
            return self.rows
        start = position * self.batch_size
        return self.rows[self._order[start : start + self.batch_size]]


def source(rows: Rows | Source) -> Source:
    return rows if isinstance(rows, Source) else Batch.of(rows)
