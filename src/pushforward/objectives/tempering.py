"""Powers to which a density is raised while a flow is trained on it: flat at first, itself in the end."""

from collections.abc import Callable

from torch import Tensor

Tempering = Callable[[Tensor], Tensor]


def linear_tempering(start: float = 0.01, steps: float = 10_000) -> Tempering:
    r"""$\beta_t = \min(1, \beta_0 + t / T)$ after t steps; the defaults are those of Rezende and Mohamed.

    Args:
        start: $\beta_0$, in (0, 1].
        steps: T, positive.

    Raises:
        ValueError: a number out of its range.

    Reference:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv 1505.05770.

    Example:
        >>> power = pf.linear_tempering()
        >>> [round(power(torch.tensor(t)).item(), 4) for t in (0.0, 5000.0, 20_000.0)]
        [0.01, 0.51, 1.0]
    """
    _check("linear_tempering", start, steps)
    return lambda t: (start + t / steps).clamp_max(1.0)


def geometric_tempering(start: float = 0.01, steps: float = 10_000) -> Tempering:
    r"""$\beta_t = \beta_0^{1 - t / T}$ after t < T steps, and 1 from then on: equal steps of the logarithm.

    Args:
        start: $\beta_0$, in (0, 1].
        steps: T, positive.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> power = pf.geometric_tempering(0.01, 1000)
        >>> [round(power(torch.tensor(t)).item(), 4) for t in (0.0, 500.0, 1000.0)]
        [0.01, 0.1, 1.0]
    """
    _check("geometric_tempering", start, steps)
    return lambda t: start ** (1 - t / steps).clamp_min(0.0)


def _check(name: str, start: float, steps: float) -> None:
    if not 0 < start <= 1 or steps <= 0:
        raise ValueError(f"{name}: expected 0 < start <= 1 and steps > 0, got {start} and {steps}")
