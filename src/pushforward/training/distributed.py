"""One training run in several processes, as torchrun starts them."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pushforward.objectives import Objective
from pushforward.training.batches import Batch

TIMEOUT = timedelta(minutes=5)  # a process that has not answered for so long counts as dead
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_writer() -> bool:
    """Whether this process writes files and prints: the first of those that torchrun started, or the only one.

    Example:
        >>> pf.training.is_writer()
        True
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return not _is_launched() or os.environ["RANK"] == "0"


def join(device: torch.device) -> Processes:
    """The processes of this run, connected by gloo, and by NCCL for what is on GPUs.

    Args:
        device: of the parameters.

    Raises:
        ValueError: if another process of this machine has the same GPU.
    """
    if not dist.is_available() or not (dist.is_initialized() or _is_launched()):
        return Processes()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
        atexit.register(_leave)
    local = os.environ.get("LOCAL_RANK")
    if device.type == "cuda" and local is not None and device.index != int(local):
        raise ValueError(
            f"train: expected the flow of local process {local} on cuda:{local}, got {device}; call "
            "torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) before moving it to cuda"
        )
    return Processes(dist.get_rank(), dist.get_world_size())


def is_loss_of_process(error: RuntimeError) -> bool:
    """Whether an error says that another process does not answer; gloo has no class of its own for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _is_launched() -> bool:
    return all(name in os.environ for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class Processes:
    """The processes of a run; with only one, every method returns what it was given.

    All processes call the same methods in the same order, but `seed` and `share`.

    Attributes:
        rank: which one this is, from 0 on.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def seed(self, seed: int) -> int:
        """A seed for each process; the first has the given one."""
        return hash((seed, self.rank)) if self.rank else seed

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch that is for all."""
        if self.size == 1 or not batch.tensors:
            return batch
        rows = len(batch) // self.size
        return batch[self.rank * rows : (self.rank + 1) * rows]

    def guard(self, objective: Objective) -> nn.Module:
        """The loss, NaN instead of a `FloatingPointError`: one process cannot leave the others waiting."""
        return _Guarded(objective) if self.size > 1 else objective

    def parallel(self, loss: nn.Module) -> nn.Module:
        """The loss, whose gradients are means over the processes. Parameters are those of the first."""
        if self.size == 1:
            return loss
        # A static graph may leave parameters unused, if always the same ones.
        return nn.parallel.DistributedDataParallel(loss, static_graph=True)

    def mean(self, value: Tensor) -> Tensor:
        return self.sum(value) / self.size if self.size > 1 else value

    def sum(self, value: Tensor) -> Tensor:
        if self.size > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, raised if it is in one of the processes."""
        if self.size > 1:
            # By way of the host, which does not wait for the GPU.
            raised = torch.tensor(flags, dtype=torch.int32)
            dist.all_reduce(raised, dist.ReduceOp.MAX)
            flags = tuple(bool(flag) for flag in raised.tolist())
        return flags

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in order."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite real numbers by those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                if tensor.is_floating_point():
                    dist.broadcast(tensor, 0)

    @contextmanager
    def postponed_interrupts(self) -> Iterator[Callable[[], bool]]:
        """Whether an interrupt came so far, so that all processes can end after the same step.

        A second one does not wait. Requests to terminate count too: torchrun passes them on.
        """
        came: list[int] = []

        def note(number: int, frame: object) -> None:
            if came:
                raise KeyboardInterrupt
            came.append(number)

        if self.size == 1 or threading.current_thread() is not threading.main_thread():
            yield lambda: False
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield lambda: bool(came)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Guarded(nn.Module):
    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        try:
            loss: Tensor = self.objective(*args, **kwargs)
        except FloatingPointError:
            loss = torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * torch.nan
        return loss
