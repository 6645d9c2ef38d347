"""Batches of tensors in a reproducible order."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Data = Rows | Callable[[int], Rows]
VALIDATION_BLOCK = 8192


@dataclass(frozen=True)
class Batch:
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

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.positional, *self.named.values()]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return Batch(tuple(t[index] for t in self.positional), {name: t[index] for name, t in self.named.items()})

    def to(self, device: torch.device) -> Batch:
        return Batch(
            tuple(t.to(device) for t in self.positional), {name: t.to(device) for name, t in self.named.items()}
        )

    def blocks(self) -> Iterator[Batch]:
        for start in range(0, len(self), VALIDATION_BLOCK):
            yield self[start : start + VALIDATION_BLOCK]

    def digest(self) -> list[tuple[list[int], int]]:
        """Shape and checksum of each tensor, to recognise the same rows again."""
        contents = [t.detach().cpu().contiguous() for t in self.tensors]
        return [(list(t.shape), zlib.crc32(t.reshape(-1).view(torch.uint8).numpy().tobytes())) for t in contents]

    def check(self, where: str, dtype: torch.dtype) -> None:
        """Raise a `ValueError` unless the rows agree in number, are finite, and if real numbers then of this dtype."""
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
    """Batches without replacement; those of step s depend on the seed and s alone, so that a run can be resumed."""

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


def split(rows: Batch, fraction: float, seed: int) -> tuple[Batch, Batch]:
    """Rows for training and for validation."""
    held = max(1, round(fraction * len(rows)))
    if held >= len(rows):
        raise ValueError(f"train: expected rows left to train on, got {len(rows)} rows and validation={fraction}")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.tensors[0].device)
    return rows[order[held:]], rows[order[:held]]
