"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward.files import write_atomically
from pushforward.objectives import Objective
from pushforward.training.batches import Batch, Data, Rows, Source, source
from pushforward.training.distributed import Processes, is_loss_of_process, join
from pushforward.training.flat import FlatParameters
from pushforward.training.gradient import eager_gradient_function, gradient_function
from pushforward.training.progress import ProgressBar
from pushforward.training.schedules import Schedule, cosine

CHECK_EVERY = 50
NORM_WINDOW = 100
MOST_HELD = 65536


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes:
        losses: the loss of every step, in nats.
        validation: pairs of a number of steps and the validation loss after them.
        best_step: the number of steps after which the state that was kept was reached.
        stopped: why the run ended, in words: "all steps done", "no improvement ...", "out of time ...", "interrupted",
            "non-finite ...".
        seconds: wall-clock time.
    """

    losses: list[float]
    validation: list[tuple[int, float]]
    best_step: int
    stopped: str
    seconds: float

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return len(self.losses)

    @property
    def best_validation(self) -> float:
        """Validation loss of the state that was kept; NaN without validation."""
        return min((value for _, value in self.validation if math.isfinite(value)), default=math.nan)

    def __str__(self) -> str:
        last = f", loss {self.losses[-1]:.4f}" if self.losses else ""
        best = f", best validation loss {self.best_validation:.4f} at step {self.best_step}" if self.validation else ""
        return f"{self.steps} steps in {self.seconds:.1f} s{last}{best}; stopped: {self.stopped}"


def train(
    objective: Objective,
    data: Data | None = None,
    *,
    max_steps: int = 5000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    schedule: Schedule | Literal["cosine"] | None = "cosine",
    clip: float | None = 5.0,
    ema: float | None = None,
    validation: float | Rows | Source | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool | None = None,
    callback: Callable[[int], bool | None] | None = None,
    distributed: bool = True,
) -> TrainResult:
    """Minimise an objective over the parameters of its flow, in place.

    In the processes that `torchrun` starts, it is one run: each process takes its share of every batch, gradients are
    means over all, and all return the same state. N processes with `batch_size` B see the rows that one would see with
    N B, in the same order. The first process alone writes and shows progress. A process that dies ends the others with
    a `ConnectionError`; the checkpoint goes on from there.

    Args:
        objective: the loss.
        data: what the objective takes: a tensor of rows, a tuple of such tensors, a dict of them by the names of the
            objective's arguments, `FileRows` of a file, or a function from a number n to n fresh rows in one of the
            first forms; nothing for an objective that draws for itself.
        max_steps: number of steps.
        batch_size: rows per step and process; at most all.
        learning_rate: of the default optimiser, fused Adam on `FlatParameters`.
        optimizer: makes any other optimiser from the parameters.
        schedule: factor of the learning rate by step and number of steps, as `training.cosine` or
            `training.exponential` make; `None` keeps it constant.
        clip: the gradient's norm is clipped to this many times the running median of the last 100 norms; `None` not
            at all.
        ema: decay of an exponential moving average of the parameters, which is then what is validated and kept.
        validation: rows in the form of `data`, or the fraction of `data` to hold out; by default a tenth, at most 65536
            rows, where `data` are rows and `patience` or `validate_every` is set.
        validate_every: steps between validations; by default an epoch, but 20 to 100 steps.
        patience: stop after this many validations without a better one.
        max_seconds: stop after this time.
        seed: of the order of the rows and of all draws; the global random state is left as it was.
        checkpoint: a file, written every `checkpoint_every` steps. If it exists, the run goes on from it, and ends as
            if it had never stopped.
        checkpoint_every: steps between checkpoints.
        progress: show a progress bar; by default only on a terminal.
        callback: called after each step with the number of steps taken, in every process; what is true ends the run.
        distributed: let it be one run where `torchrun` has started several processes, and not one in each.

    Returns:
        What happened. The flow holds the state with the best validation loss if there is one, else the last; after
        a non-finite loss, the last state known to be finite.

    Raises:
        ValueError: if the data are unusable (which row), the options contradict each other, or the checkpoint is of
            another call.
        RuntimeError: if a callback freezes or moves parameters, which the default optimiser would not see.
        ConnectionError: if another process of the run has died, or has stood still for five minutes.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = 3 + 2 * torch.randn(500, 2)
        >>> flow = pf.maf(features=2, layers=1)
        >>> result = pf.train(pf.MaximumLikelihood(flow), x, max_steps=300, learning_rate=0.03)
        >>> result.losses[0] > 14 > 4.6 > result.losses[-1]  # the entropy is 4.22
        True
    """
    if isinstance(validation, float | int) and not 0 < validation < 1:
        raise ValueError(f"train: expected a validation fraction between 0 and 1, got {validation}")
    if max_steps < 1 or batch_size < 1 or checkpoint_every < 1 or (validate_every is not None and validate_every < 1):
        raise ValueError(
            "train: expected max_steps, batch_size, checkpoint_every and validate_every of at least 1, got "
            f"{max_steps}, {batch_size}, {checkpoint_every} and {validate_every}"
        )
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise FileNotFoundError(f"train: there is no folder {Path(checkpoint).parent} to write the checkpoint to")
    parameters: list[Tensor] = [p for p in objective.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("train: expected an objective with parameters to train, got none that requires a gradient")
    device, dtype = parameters[0].device, parameters[0].dtype
    processes = join(device) if distributed else Processes()

    rows = None if data is None or callable(data) else source(data)
    if rows is not None:
        rows.check("data", dtype)
    if validation is None and rows is not None and (patience is not None or validate_every is not None):
        validation = min(0.1, MOST_HELD / len(rows))
    held: Source | None = None
    if isinstance(validation, float | int):
        if rows is None:
            raise ValueError("train: a validation fraction needs data given as rows; give validation rows instead")
        rows, held = rows.split(validation, seed)
    elif validation is not None:
        held = source(validation)
        held.check("validation", dtype)
    if patience is not None and held is None:
        raise ValueError("train: patience needs validation rows")

    whole: Callable[[int], Batch]
    epoch = 100
    if rows is not None:
        if len(rows) < processes.size:
            raise ValueError(f"train: expected a row for each of {processes.size} processes, got {len(rows)}")
        shuffled = rows.to(device).shuffled(batch_size * processes.size, seed)
        whole, epoch = shuffled, shuffled.steps_per_epoch
        batches = lambda step: processes.share(shuffled(step))  # noqa: E731
    elif callable(data):
        draw = data
        whole = batches = lambda step: Batch.of(draw(batch_size)).to(device)
    else:
        whole = batches = lambda step: Batch((), {})

    factors = cosine() if schedule == "cosine" else schedule
    flat = FlatParameters(parameters) if optimizer is None else None
    optimized: list[Tensor] = parameters if flat is None else [*flat.wholes]
    algorithm = _fused_adam(optimized, learning_rate) if optimizer is None else optimizer(parameters)
    validate_every = validate_every or min(max(epoch, 20), 100)
    call = {
        "objective": type(objective).__name__,
        "optimizer": type(algorithm).__name__,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": [factors(step, max_steps) for step in range(0, max_steps, -(-max_steps // 8))] if factors else None,
        "clip": clip,
        "ema": ema,
        "validate_every": validate_every,
        "patience": patience,
        "seed": seed,
        "parameters": [list(p.shape) for p in parameters],
        "optimized": [list(p.shape) for p in optimized],
        "processes": processes.size,
    }
    if checkpoint is not None:
        call["data"] = rows.digest() if rows is not None else None
        call["validation"] = held.digest() if held is not None else None
    run = _Run(
        objective,
        optimized,
        flat,
        batches,
        whole,
        held.to(device) if held is not None else None,
        optimizer=algorithm,
        schedule=factors,
        max_steps=max_steps,
        clip=clip,
        ema=ema,
        validate_every=validate_every,
        patience=patience,
        max_seconds=max_seconds,
        checkpoint=Path(checkpoint) if checkpoint is not None else None,
        checkpoint_every=checkpoint_every,
        call=json.dumps(call),
        callback=callback,
        processes=processes,
    )
    with flat or nullcontext(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(processes.seed(seed))
        with ProgressBar(max_steps, progress if processes.rank == 0 else False) as bar:
            return run(bar)


def _fused_adam(parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=fused)


class _Run:
    """One training run and its state."""

    def __init__(
        self,
        objective: Objective,
        parameters: list[Tensor],
        flat: FlatParameters | None,
        batches: Callable[[int], Batch],
        whole: Callable[[int], Batch],
        held: Source | None,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None,
        max_steps: int,
        clip: float | None,
        ema: float | None,
        validate_every: int,
        patience: int | None,
        max_seconds: float | None,
        checkpoint: Path | None,
        checkpoint_every: int,
        call: str,
        callback: Callable[[int], bool | None] | None,
        processes: Processes,
    ) -> None:
        self.objective = objective
        self.parameters = parameters
        self.flat = flat
        self.batches = batches
        self.whole = whole
        self.held = held
        self.optimizer = optimizer
        self.schedule = schedule
        self.max_steps = max_steps
        self.clip = clip
        self.ema = ema
        self.validate_every = validate_every
        self.patience = patience
        self.max_seconds = max_seconds
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.call = call
        self.callback = callback
        self.processes = processes
        self.loss = processes.guard(objective)
        self.gradient: Callable[..., Tensor] = eager_gradient_function(self.loss, flat)
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]

        like = parameters[0].detach()
        self.step = 0
        self.losses = like.new_full((max_steps,), math.nan)
        self.norms = like.new_full((NORM_WINDOW,), math.nan)
        self.validation: list[tuple[int, float]] = []
        self.best_step = 0
        self.averages: list[Tensor] | None = None
        self.sound: dict[str, Tensor] = {}
        self.sound_step = 0
        self.best: dict[str, Tensor] = {}
        self.seconds_before = 0.0
        self.start = time.monotonic()

    def __call__(self, bar: ProgressBar) -> TrainResult:
        try:
            return self._run(bar)
        except RuntimeError as error:
            if self.processes.size == 1 or not is_loss_of_process(error):
                raise
            raise ConnectionError(self._describe_loss()) from error

    def _run(self, bar: ProgressBar) -> TrainResult:
        self._check_agreement()
        if self.checkpoint is not None and any(self.processes.any(self.checkpoint.exists())):
            self._resume(self.checkpoint)
        else:
            self._begin()
        if self.processes.size == 1:
            self.gradient = gradient_function(self.objective, self.flat)
        else:
            self.gradient = eager_gradient_function(self.processes.parallel(self.loss), self.flat)
        failure = ""
        try:
            stopped = self._loop(bar)
        except KeyboardInterrupt:
            stopped = "interrupted"
        except FloatingPointError as error:  # of a solver within the flow, in a state that training led to
            if self.step == 0:
                raise
            failure = str(error)
        if failure or not self._is_finite():
            stopped = self._describe_failure(failure)
        else:
            self._keep_sound()
        if not self.best:
            self.best, self.best_step = self.sound, self.sound_step
        self.processes.copy_first_(self.best.values())
        self.objective.load_state_dict(self.best)
        return TrainResult(
            losses=self.losses[: self.step].tolist(),
            validation=self.validation,
            best_step=self.best_step,
            stopped=stopped,
            seconds=self._seconds(),
        )

    def _check_agreement(self) -> None:
        """Raise a `ValueError` where processes would wait for each other in vain."""
        mine = json.loads(self.call) | {
            "max_seconds": self.max_seconds,
            "checkpoint": str(self.checkpoint),
            "checkpoint_every": self.checkpoint_every,
            "validation rows": len(self.held) if self.held is not None else 0,
        }
        first, *others = self.processes.gather(mine)
        for other in others:
            if changed := _changes(first, other, ("in the first process", "in another")):
                raise ValueError(f"train: expected the same call in all processes ({changed})")

    def _begin(self) -> None:
        batch = self.whole(0)
        if batch.tensors:
            self.objective.initialize(*batch.positional, **batch.named)
        self.processes.copy_first_([p.detach() for p in self.parameters])
        if self.ema is not None:
            self.averages = [p.detach().clone() for p in self.parameters]
        self._keep_sound()

    def _loop(self, bar: ProgressBar) -> str:
        """Step until something ends the run; why it did."""
        with self.processes.postponed_interrupts() as interrupted:
            while self.step < self.max_steps:
                self._train_step()
                self.step += 1
                told_to_stop = self.callback is not None and bool(self.callback(self.step))
                late = self.max_seconds is not None and self._seconds() > self.max_seconds
                told_to_stop, late, interrupt = self.processes.any(told_to_stop, late, interrupted())
                if interrupt:
                    raise KeyboardInterrupt
                last = self.step == self.max_steps or told_to_stop
                if self.step % CHECK_EVERY == 0 or last:
                    if not self._is_finite():
                        return "non-finite"
                    self._keep_sound()
                if self.held is not None and (self.step % self.validate_every == 0 or last):
                    self._validate(self.held)
                    since = sum(1 for step, _ in self.validation if step > self.best_step)
                    if self.patience is not None and since >= self.patience:
                        return f"no improvement in {since} validations"
                if self.checkpoint is not None and (self.step % self.checkpoint_every == 0 or last):
                    self._write(self.checkpoint)
                latest = self.validation[-1][1] if self.validation else math.nan
                bar.update(self.step, lambda: self.losses[self.step - 1].item(), latest)
                if told_to_stop:
                    return "stopped by the callback"
                if late and not last:
                    return f"out of time after {self.max_seconds:g} s"
        return "all steps done"

    def _train_step(self) -> None:
        if self.schedule is not None:
            factor = self.schedule(self.step, self.max_steps)
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
        batch = self.batches(self.step)

        def closure() -> Tensor:
            loss = self.gradient(*batch.positional, **batch.named)
            if self.clip is not None:
                self._clip_gradients(self.clip)
            return self.processes.mean(loss)

        loss = self.optimizer.step(closure)  # type: ignore[arg-type]
        assert isinstance(loss, Tensor)
        self.losses[self.step] = loss.detach()
        if self.averages is not None and self.ema is not None:
            decay = min(self.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    @torch.no_grad()
    def _clip_gradients(self, clip: float) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.norms[self.step % NORM_WINDOW] = norm
        limit = clip * self.norms.nanmedian()
        factor = torch.where((norm > limit) & (limit > 0), limit / norm, 1.0)  # a gradient of zero stays zero
        torch._foreach_mul_(gradients, factor)

    def _validate(self, held: Source) -> None:
        self.objective.eval()
        self.processes.copy_first_(self.objective.buffers())
        with torch.no_grad(), self._averaged():
            total = self.losses.new_zeros((), dtype=torch.float64)
            for block in islice(held.blocks(), self.processes.rank, None, self.processes.size):
                total += self.loss(*block.positional, **block.named).double() * len(block)
            value = float(self.processes.sum(total) / len(held))
            so_far = min((v for _, v in self.validation if math.isfinite(v)), default=math.inf)
            if math.isfinite(value) and value < so_far:
                self.best = self._state()
                self.best_step = self.step
        self.objective.train()
        self.validation.append((self.step, value))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the moving average, if there is one, in place of the parameters."""
        if self.averages is None:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        _copy(self.averages, self.parameters)
        try:
            yield
        finally:
            _copy(own, self.parameters)

    def _is_finite(self) -> bool:
        """Whether all losses since the last check and all parameters are: one question to the device."""
        recent = self.losses[max(0, self.step - CHECK_EVERY) : self.step]
        norm = torch.nn.utils.get_total_norm([p.detach() for p in self.parameters])
        return bool(recent.isfinite().all() & norm.isfinite())

    def _describe_failure(self, failure: str = "") -> str:
        bad = (~self.losses[: self.step].isfinite()).nonzero()
        where = f"loss at step {int(bad[0]) + 1}" if len(bad) else f"parameters by step {self.step}"
        what = f"no loss at step {self.step + 1} ({failure})" if failure else f"non-finite {where}"
        return f"{what}; kept the state after step {self.best_step if self.best else self.sound_step}"

    def _describe_loss(self) -> str:
        kept = self.checkpoint is not None and self.checkpoint.exists()
        advice = f"the same call goes on from {self.checkpoint}" if kept else "there is no checkpoint to go on from"
        return (
            f"train: in step {self.step + 1} process {self.processes.rank} of {self.processes.size} got no answer from "
            f"another one, which is dead or stands still; {advice}"
        )

    def _keep_sound(self) -> None:
        with self._averaged():
            self.sound = self._state()
        self.sound_step = self.step

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.objective.state_dict().items()}

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.start

    def _write(self, path: Path) -> None:
        random = (torch.get_rng_state(), torch.cuda.get_rng_state() if self.losses.is_cuda else None)
        randoms = self.processes.gather(random)
        if self.processes.rank > 0:
            return
        state = {
            "call": self.call,
            "step": self.step,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages,
            "losses": self.losses,
            "norms": self.norms,
            "validation": self.validation,
            "best": self.best,
            "best_step": self.best_step,
            "sound": self.sound,
            "sound_step": self.sound_step,
            "random": randoms,
            "seconds": self._seconds(),
        }
        with write_atomically(path) as temporary, temporary.open("wb") as file:  # torch refuses some names of files
            torch.save(state, file)

    def _resume(self, path: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.losses.device, weights_only=True)
            call = state["call"]
        except Exception as error:
            raise ValueError(f"train: {path} is not a checkpoint of this library, or is damaged: {error}") from error
        if call != self.call:
            changed = _changes(json.loads(call), json.loads(self.call), ("then", "now"))
            raise ValueError(
                f"train: the checkpoint {path} is of another call ({changed}); repeat that call, or delete the file"
            )
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.averages = state["averages"]
        self.losses, self.norms = state["losses"], state["norms"]
        self.validation = [(step, value) for step, value in state["validation"]]
        self.best, self.best_step = state["best"], state["best_step"]
        self.sound, self.sound_step = state["sound"], state["sound_step"]
        self.seconds_before = state["seconds"]
        random, random_cuda = state["random"][self.processes.rank]
        torch.set_rng_state(random.cpu())
        if random_cuda is not None:
            torch.cuda.set_rng_state(random_cuda.cpu())


def _changes(one: dict[str, Any], other: dict[str, Any], names: tuple[str, str]) -> str:
    """What differs between two calls, in words."""
    return ", ".join(f"{k}: {one.get(k)} {names[0]}, {v} {names[1]}" for k, v in other.items() if one.get(k) != v)


@torch.no_grad()
def _copy(source: Iterable[Tensor], target: list[Tensor]) -> None:
    torch._foreach_copy_(target, list(source))
