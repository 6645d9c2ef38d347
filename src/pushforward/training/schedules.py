"""Learning-rate schedules: factors of the learning rate, as functions of the step and the number of steps."""

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]


def cosine(warmup: float = 0.0, final: float = 0.0) -> Schedule:
    """A linear rise over the share `warmup` of the steps, then half a cosine from 1 down to `final`.

    Example:
        >>> schedule = cosine()
        >>> [round(schedule(step, 100), 3) for step in (0, 50, 100)]
        [1.0, 0.5, 0.0]
    """

    def factor(step: int, steps: int) -> float:
        rising = warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        share = (step - rising) / max(steps - rising, 1)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    return factor


def exponential(decay: float) -> Schedule:
    """`decay` to the power of the step.

    Example:
        >>> exponential(0.5)(3, 100)
        0.125
    """

    def factor(step: int, steps: int) -> float:
        return decay**step

    return factor
