"""How many steps of training a budget of time allows."""

from __future__ import annotations

import copy
import math
import statistics
import time

from pushforward.objectives import MaximumLikelihood
from pushforward.training import Schedule, cosine, train
from pushforward.training.batches import Rows

UNTIMED, TIMED = 3, 12
WARM_UP = 0.02
LATE = 0.5  # share of the time from which on the clock counts
COARSE = 0.25  # numbers of steps are powers of two to this power


class Clock:
    """Seconds since the start, of so many."""

    def __init__(self, seconds: float) -> None:
        self.start = time.monotonic()
        self.seconds = seconds

    @property
    def spent(self) -> float:
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        return self.until(1.0)

    def until(self, share: float) -> float:
        """Seconds left to a share of the whole."""
        return max(share * self.seconds - self.spent, 0.0)


def seconds_per_step(objective: MaximumLikelihood, rows: Rows, batch_size: int) -> float:
    """Of some steps of a copy, what the quicker quarter takes: the pace of a machine that is not disturbed."""
    times: list[float] = []

    def note(step: int) -> None:
        times.append(time.monotonic())

    train(
        copy.deepcopy(objective),
        rows,
        max_steps=UNTIMED + TIMED,
        batch_size=batch_size,
        progress=False,
        callback=note,
        distributed=False,
    )
    return statistics.quantiles(b - a for a, b in zip(times[UNTIMED - 1 :], times[UNTIMED:], strict=False))[0]


def coarse(number: float) -> int:
    """The largest power of the fourth root of two that is no larger, as a whole number; at least 1.

    So the number of steps, and with it the result, is the same as long as the pace of the machine is about the same.

    Example:
        >>> coarse(1000.0), coarse(1100.0), coarse(1200.0)
        (861, 1024, 1024)
    """
    return max(int(2 ** (COARSE * math.floor(math.log2(max(number, 1.0)) / COARSE))), 1)


def paced(clock: Clock) -> Schedule:
    """Warm-up and cosine by the share of the steps, or late in the time by its share where that is more.

    So it ends with the time, and does not follow the clock where there is time enough.
    """
    plan = cosine(WARM_UP)

    def factor(step: int, steps: int) -> float:
        share = min(clock.spent / clock.seconds, 1.0)
        late = math.ceil(share * steps) if share > LATE else 0
        return min(plan(step, steps), plan(late, steps)) if late > step else plan(step, steps)

    return factor
