"""Maps of single numbers onto parts of the line, without parameters.

Outside of its domain or codomain each answers a log-determinant of -inf, and as value that of some point inside, so
that values and gradients of the other points of a batch stay finite. Nothing is clamped: a map saturates where its
value is no number of the dtype any more.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import constraints

from pushforward.bijections.base import Bijection
from pushforward.numerics import floating

LOG_4 = math.log(4.0)


class Exp(Bijection):
    """x = exp(z), onto x > 0; elementwise, for events of any shape.

    Example:
        >>> Exp().inverse(torch.tensor([1.0, -1.0]))
        (tensor([0., 0.]), tensor([-0., -inf]))
    """

    event_dim = 0
    codomain = constraints.positive

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.exp(), z

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = (x > 0) & (x < torch.inf)
        z = torch.where(inside, x, 1.0).log()
        return z, torch.where(inside, -z, -torch.inf)


class Softplus(Bijection):
    """x = log(1 + exp(z)), onto x > 0; elementwise, for events of any shape.

    Example:
        >>> Softplus()(torch.tensor([-30.0, 0.0, 30.0]))[0]
        tensor([9.3576e-14, 6.9315e-01, 3.0000e+01])
    """

    event_dim = 0
    codomain = constraints.positive

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # torch's softplus is linear beyond 20, an error of 2e-9.
        return -F.logsigmoid(-z), F.logsigmoid(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = (x > 0) & (x < torch.inf)
        safe = torch.where(inside, x, 1.0)
        log_slope = (-torch.expm1(-safe)).log()
        return safe + log_slope, torch.where(inside, -log_slope, -torch.inf)


class Sigmoid(Bijection):
    """x = 1 / (1 + exp(-z)), onto 0 < x < 1; elementwise, for events of any shape. The logit is `Sigmoid().inv`.

    Saturates, as x rounds to 1, for z above 37 in float64 and 17 in float32.

    Example:
        >>> Sigmoid().inverse(torch.tensor([0.5, 1.5]))
        (tensor([0., 0.]), tensor([1.3863,   -inf]))
    """

    event_dim = 0
    codomain = constraints.unit_interval

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.sigmoid(), F.logsigmoid(z) + F.logsigmoid(-z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = (x > 0) & (x < 1)
        safe = torch.where(inside, x, 0.5)
        low, high = safe.log(), torch.log1p(-safe)
        return low - high, torch.where(inside, -low - high, -torch.inf)


class Tanh(Bijection):
    """x = tanh(z), onto -1 < x < 1; elementwise, for events of any shape.

    Saturates, as x rounds to 1, for |z| above 18 in float64 and 9 in float32.

    Example:
        >>> x, log_det = Tanh()(torch.tensor([0.0, 10.0]))
        >>> log_det
        tensor([  0.0000, -18.6137])
    """

    event_dim = 0
    codomain = constraints.interval(-1.0, 1.0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.tanh(), LOG_4 + F.logsigmoid(2 * z) + F.logsigmoid(-2 * z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inside = (x > -1) & (x < 1)
        safe = torch.where(inside, x, 0.0)
        low, high = torch.log1p(safe), torch.log1p(-safe)
        return 0.5 * (low - high), torch.where(inside, -low - high, -torch.inf)


class Power(Bijection):
    """x = z^p of positive numbers onto positive numbers; elementwise, for events of any shape.

    Args:
        exponent: p, finite and not 0.

    Example:
        >>> Power(2.0)(torch.tensor([3.0, -1.0]))
        (tensor([9., 1.]), tensor([1.7918,   -inf]))
    """

    event_dim = 0
    domain = constraints.positive
    codomain = constraints.positive

    def __init__(self, exponent: float) -> None:
        super().__init__()
        if not (math.isfinite(exponent) and exponent != 0):
            raise ValueError(f"Power: expected a finite exponent other than 0, got {exponent}")
        self.exponent = float(exponent)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _power(z, self.exponent)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _power(x, 1 / self.exponent)


class GreaterThan(Bijection):
    """x = low + exp(z), onto x > low; elementwise, for events of any shape.

    Args:
        low: a number, or a tensor that broadcasts against x, in the units of x.

    Example:
        >>> GreaterThan(2.0)(torch.zeros(2))
        (tensor([3., 3.]), tensor([0., 0.]))
    """

    event_dim = 0
    low: Tensor | float

    def __init__(self, low: float | Tensor) -> None:
        super().__init__()
        _keep(self, "low", low)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.low + z.exp()
        return x, z.expand_as(x)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        excess = x - self.low
        inside = (excess > 0) & (excess < torch.inf)
        z = torch.where(inside, excess, 1.0).log()
        return z, torch.where(inside, -z, -torch.inf)

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.greater_than(self.low)


class LessThan(Bijection):
    """x = high - exp(z), onto x < high; elementwise, for events of any shape; decreasing.

    Args:
        high: a number, or a tensor that broadcasts against x, in the units of x.

    Example:
        >>> LessThan(2.0)(torch.zeros(2))
        (tensor([1., 1.]), tensor([0., 0.]))
    """

    event_dim = 0
    high: Tensor | float

    def __init__(self, high: float | Tensor) -> None:
        super().__init__()
        _keep(self, "high", high)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.high - z.exp()
        return x, z.expand_as(x)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        excess = self.high - x
        inside = (excess > 0) & (excess < torch.inf)
        z = torch.where(inside, excess, 1.0).log()
        return z, torch.where(inside, -z, -torch.inf)

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.less_than(self.high)


class Interval(Bijection):
    """x = low + (high - low) / (1 + exp(-z)), onto low < x < high; elementwise, for events of any shape.

    Saturates where x rounds to an end.

    Args:
        low: a number, or a tensor that broadcasts against x, in the units of x.
        high: alike, above `low`.

    Example:
        >>> Interval(-1.0, 3.0)(torch.zeros(2))
        (tensor([1., 1.]), tensor([0., 0.]))
    """

    event_dim = 0
    low: Tensor | float
    high: Tensor | float

    def __init__(self, low: float | Tensor, high: float | Tensor) -> None:
        super().__init__()
        _keep(self, "low", low)
        _keep(self, "high", high)
        width = torch.as_tensor(self.high - self.low)
        if not bool(((width > 0) & width.isfinite()).all()):
            raise ValueError(f"Interval: expected finite low < high, got low={low}, high={high}")

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        width = torch.as_tensor(self.high - self.low, dtype=z.dtype, device=z.device)
        # From the nearer end, so that the distance to it keeps its precision.
        x = torch.where(z < 0, self.low + width * z.sigmoid(), self.high - width * (-z).sigmoid())
        return x, width.log() + F.logsigmoid(z) + F.logsigmoid(-z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        width = torch.as_tensor(self.high - self.low, dtype=x.dtype, device=x.device)
        above, below = x - self.low, self.high - x
        inside = (above > 0) & (below > 0)
        log_above, log_below = torch.where(inside, above, 1.0).log(), torch.where(inside, below, 1.0).log()
        return log_above - log_below, torch.where(inside, width.log() - log_above - log_below, -torch.inf)

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.interval(self.low, self.high)


def _power(value: Tensor, exponent: float) -> tuple[Tensor, Tensor]:
    inside = (value > 0) & (value < torch.inf)
    safe = torch.where(inside, value, 1.0)
    log_slope = math.log(abs(exponent)) + (exponent - 1) * safe.log()
    return safe.pow(exponent), torch.where(inside, log_slope, -torch.inf)


def _keep(module: nn.Module, name: str, value: float | Tensor) -> None:
    """A tensor becomes a buffer; a number stays one, exact in every dtype."""
    if isinstance(value, Tensor):
        module.register_buffer(name, floating(value))
    else:
        if not math.isfinite(value):
            raise ValueError(f"{type(module).__name__}: expected a finite {name}, got {value}")
        setattr(module, name, float(value))
