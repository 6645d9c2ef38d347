"""The progress bar."""

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

INTERVAL = 0.2


class ProgressBar:
    """A bar on the terminal with loss, validation loss and time left, redrawn at most every 0.2 seconds.

    Args:
        total: number of steps.
        show: draw it; by default only if standard error is a terminal.
    """

    def __init__(self, total: int, show: bool | None = None) -> None:
        self.total = total
        self.show = sys.stderr.isatty() if show is None else show
        self._next = 0.0
        self._progress: Any = None

    def __enter__(self) -> "ProgressBar":
        if self.show:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("{task.fields[validation]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task("", total=self.total, loss="-", validation="")
            self._progress.start()
        return self

    def update(self, step: int, loss: Callable[[], float], validation: float) -> None:
        """Show the step; the loss is asked for, and the device waited for, only when the bar is redrawn."""
        if self._progress is None or (time.monotonic() < self._next and step < self.total):
            return
        self._next = time.monotonic() + INTERVAL
        shown = "" if math.isnan(validation) else f"validation {validation:.4f}"
        self._progress.update(self._task, completed=step, loss=f"{loss():.4f}", validation=shown)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
