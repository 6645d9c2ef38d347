"""Composition and inversion."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from pushforward.bijections.base import Bijection, Cheap
from pushforward.numerics import sum_rightmost

T = TypeVar("T")


class Chain(Bijection):
    """The composition x = f_K(... f_2(f_1(z))): `Chain(f_1, ..., f_K)` applies f_1 first.

    Without layers it is the identity. Layers that take no context are not given any.

    Raises:
        ValueError: if the layers disagree on the event shape or on the size of the context.

    Example:
        >>> from pushforward.bijections import Permutation, Standardize
        >>> f = Chain(Standardize([1.0, 2.0], [3.0, 4.0]), Permutation([1, 0]))
        >>> x, log_det = f(torch.zeros(2))
        >>> x, log_det
        (tensor([2., 1.]), tensor(2.4849))
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.event_dim = max((layer.event_dim for layer in layers), default=0)
        self.event_shape = _agreed("event_shape", [layer.event_shape for layer in layers], None)
        self.context_features = _agreed("context_features", [layer.context_features for layer in layers], 0)
        self.cheap = _cheap([layer.cheap for layer in layers])

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        for layer in self._bijections():
            z, log_det = layer(z, context if layer.context_features else None)
            log_det = sum_rightmost(log_det, self.event_dim - layer.event_dim)
            total = log_det if total is None else total + log_det
        return z, z.new_zeros(z.shape) if total is None else total

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total: Tensor | None = None
        for layer in reversed(self._bijections()):
            x, log_det = layer.inverse(x, context if layer.context_features else None)
            log_det = sum_rightmost(log_det, self.event_dim - layer.event_dim)
            total = log_det if total is None else total + log_det
        return x, x.new_zeros(x.shape) if total is None else total

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in reversed(self._bijections()):
            x = layer.initialize(x, context if layer.context_features else None)
        return x

    def _bijections(self) -> list[Bijection]:
        return list(self.layers)  # type: ignore[arg-type]


class Inverse(Bijection):
    """A bijection with its two directions exchanged; `b.inv` makes one.

    Example:
        >>> from pushforward.bijections import Standardize
        >>> x, log_det = Inverse(Standardize([0.0], [2.0]))(torch.ones(1))
        >>> x
        tensor([0.5000])
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection
        self.event_dim = bijection.event_dim
        self.event_shape = bijection.event_shape
        self.context_features = bijection.context_features
        exchanged: dict[Cheap, Cheap] = {"forward": "inverse", "inverse": "forward"}
        self.cheap = exchanged.get(bijection.cheap, bijection.cheap)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection(x, context)
        return z, log_det

    @property
    def inv(self) -> Bijection:
        return self.bijection


def _agreed(name: str, values: list[T], absent: T) -> T:
    """The one value among those that are not `absent`."""
    stated = {i: value for i, value in enumerate(values) if value != absent}
    if len(set(stated.values())) > 1:
        listed = ", ".join(f"layer {i}: {value}" for i, value in stated.items())
        raise ValueError(f"Chain: expected layers that agree on {name}, got {listed}")
    return next(iter(stated.values()), absent)


def _cheap(values: list[Cheap]) -> Cheap:
    sides = set(values) - {"both"}
    if len(sides) > 1:
        return "neither"
    return next(iter(sides), "both")
