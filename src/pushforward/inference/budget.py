"""What a fit may spend, and what it has spent."""

import sys
import time
from typing import Any

from pushforward.inference.density import Density

INTERVAL = 0.2
ENOUGH = 1000  # evaluations from which on their time is that of the fit as a whole


class Budget:
    """Time and evaluations of the target, shared by all stages, with the line that shows them.

    Args:
        density: whose evaluations count.
        max_seconds: from now on.
        max_evaluations: of the target.
        show: show the progress; by default only on a terminal.
    """

    def __init__(
        self, density: Density, max_seconds: float, max_evaluations: int | None, show: bool | None = None
    ) -> None:
        self.density = density
        self.start = time.monotonic()
        self.max_seconds = max_seconds
        self.max_evaluations = max_evaluations
        self.show = sys.stderr.isatty() if show is None else show
        self.stage = "locate"
        self._next = 0.0
        self._status: Any = None

    def __enter__(self) -> "Budget":
        if self.show:
            from rich.console import Console

            self._status = Console(stderr=True).status("locate")
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    @property
    def affordable(self) -> float:
        """The evaluations that the whole budget pays for, at the time that one has taken so far, all else included."""
        known = self.density.evaluations >= ENOUGH
        by_time = self.max_seconds / (self.seconds / self.density.evaluations if known else self.density.cost)
        return by_time if self.max_evaluations is None else min(by_time, self.max_evaluations)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.start

    @property
    def spent(self) -> float:
        """The share of the budget that is gone, of time or of evaluations, whichever is more; 1 and above is all."""
        share = self.seconds / self.max_seconds
        if self.max_evaluations is not None:
            share = max(share, self.density.evaluations / self.max_evaluations)
        return share

    def update(self, note: str = "") -> None:
        """Redraw the line, at most every 0.2 seconds."""
        if self._status is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + INTERVAL
        left = max(self.max_seconds - self.seconds, 0.0)
        self._status.update(f"{self.stage}: {self.density.evaluations:,} evaluations, {note}{left:.0f} s left")
