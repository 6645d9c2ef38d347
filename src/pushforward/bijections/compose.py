"""Composition and inversion."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pushforward._native import is_watched
from pushforward.bijections.base import Bijection, Cheap, Direction
from pushforward.bijections.normalization import BatchNorm
from pushforward.bijections.recompute import Step, compose, recompose
from pushforward.numerics import sum_rightmost

T = TypeVar("T")
Memory = Literal["full", "checkpoint", "reversible"]
KEPT = 16  # of so many states a reversible chain keeps one, so that rounding does not add up


class Chain(Bijection):
    """The composition x = f_K(... f_2(f_1(z))): `Chain(f_1, ..., f_K)` applies f_1 first.

    Without layers it is the identity. Layers that take no context are not given any. The codomain is that of the last
    layer: a set that holds every x, and all of which is reached if what comes before fills the last layer's domain.

    Args:
        layers: f_1, ..., f_K.
        memory: what is kept for the gradient. "full": all that the layers need. "checkpoint": the input of each layer,
            which is then computed once more, at 1.2 to 1.4 times the time. "reversible": one input in 16, and the
            others from what comes after them by the layers' inverses; that takes an inverse more, and the gradient of
            very deep chains of splines in float32 is less exact by what these inverses lose.

    Raises:
        ValueError: if a layer takes events of another shape than those that come from the layers before it, or if the
            layers disagree on the size of the context.

    Example:
        >>> from pushforward.bijections import Permutation, Standardize
        >>> f = Chain(Standardize([1.0, 2.0], [3.0, 4.0]), Permutation([1, 0]))
        >>> x, log_det = f(torch.zeros(2))
        >>> x, log_det
        (tensor([2., 1.]), tensor(2.4849))
    """

    def __init__(self, *layers: Bijection, memory: Memory = "full") -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.memory = memory
        if memory not in ("full", "checkpoint", "reversible"):
            raise ValueError(f"Chain: expected memory 'full', 'checkpoint' or 'reversible', got {memory!r}")
        if memory == "reversible" and (fixed := [i for i, layer in enumerate(layers) if not _is_reversible(layer)]):
            raise ValueError(
                f"Chain: memory 'reversible' needs layers whose directions undo each other in train mode too, which "
                f"BatchNorm in layer {fixed[0]} does not do; use 'checkpoint'"
            )
        self.event_dim, self._data_dim, self.excess = _event_dims(layers)
        self.event_shape = _event_shape(layers, self.event_dim)
        self.context_features = _agreed("context_features", [layer.context_features for layer in layers], 0)
        self.cheap = _cheap([layer.cheap for layer in layers])

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._compose("forward", self._bijections(), self.excess, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._compose("inverse", self._bijections()[::-1], self.excess[::-1], x, context)

    @property
    def data_dim(self) -> int:
        return self._data_dim

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self._bijections():
            shape = layer.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for layer in reversed(self._bijections()):
            shape = layer.inverse_shape(shape)
        return tuple(shape)

    @property
    def domain(self) -> constraints.Constraint:
        layers = self._bijections()
        return layers[0].domain if layers else constraints.real

    @property
    def codomain(self) -> constraints.Constraint:
        layers = self._bijections()
        return layers[-1].codomain if layers else constraints.real

    def chart(self, x: Tensor) -> Tensor:
        layers = self._bijections()
        return layers[-1].chart(x) if layers else x

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in reversed(self._bijections()):
            x = layer.initialize(x, context if layer.context_features else None)
        return x

    def _compose(
        self,
        direction: Direction,
        layers: Sequence[Bijection],
        excess: Sequence[int],
        value: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        steps = [Step(layer, direction, dims) for layer, dims in zip(layers, excess, strict=True)]
        if self.memory == "full":
            return compose(steps if torch.compiler.is_compiling() else _fused(steps), value, context)
        return recompose(steps, value, context, stride=1 if self.memory == "checkpoint" else KEPT)

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
        self.event_dim = bijection.data_dim
        self.event_shape = bijection.data_shape
        self.context_features = bijection.context_features
        exchanged: dict[Cheap, Cheap] = {"forward": "inverse", "inverse": "forward"}
        self.cheap = exchanged.get(bijection.cheap, bijection.cheap)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection(x, context)
        return z, log_det

    @property
    def data_dim(self) -> int:
        return self.bijection.event_dim

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijection.inverse_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.bijection.forward_shape(shape)

    @property
    def domain(self) -> constraints.Constraint:
        return self.bijection.codomain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.bijection.domain

    @property
    def inv(self) -> Bijection:
        return self.bijection


@dataclass
class _Run:
    """Steps in a row that one function can take together."""

    steps: list[Step]

    def __call__(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        first = self.steps[0]
        assert first.layer.fused is not None
        found = first.layer.fused([step.layer for step in self.steps], first.direction, value, context)
        if found is None:
            return compose(self.steps, value, context)
        return found[0], sum_rightmost(found[1], first.excess)


def _fused(steps: Sequence[Step]) -> Iterator[Step | _Run]:
    """The steps, several as one where they are of a kind; compilers fuse by themselves."""
    for (function, _), group in itertools.groupby(steps, key=_kind):
        if function is None:
            yield from group
        else:
            yield _Run(list(group))


def _kind(step: Step) -> tuple[object, int]:
    return None if is_watched(step.layer) else step.layer.fused, step.excess


def _is_reversible(layer: nn.Module) -> bool:
    return not any(isinstance(part, BatchNorm) for part in layer.modules())


def _event_dims(layers: Sequence[Bijection]) -> tuple[int, int, list[int]]:
    """Dimensions of the chain's z and x, and how many of each layer's batch belong to the chain's event."""
    dim = 0
    for layer in reversed(layers):
        dim = max(layer.event_dim, dim + layer.event_dim - layer.data_dim)
    event_dim, excess = dim, []
    for layer in layers:
        excess.append(dim - layer.event_dim)
        dim += layer.data_dim - layer.event_dim
    return event_dim, dim, excess


def _event_shape(layers: Sequence[Bijection], event_dim: int) -> tuple[int, ...] | None:
    """Shape of the chain's z, if a layer tells; each layer must take what comes from those before it."""
    start: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    for i, layer in enumerate(layers):
        if layer.event_shape is not None and shape is None:
            start = shape = layer.event_shape
            for earlier in reversed(layers[:i]):
                start = earlier.inverse_shape(start)
        elif layer.event_shape not in (None, shape):
            raise ValueError(
                f"Chain: expected layers that agree on the event shape, got events of shape {shape} from the layers "
                f"before layer {i}, {type(layer).__name__}, which takes {layer.event_shape}"
            )
        if shape is not None:
            shape = layer.forward_shape(shape)
    return start if start is not None and len(start) >= event_dim else None


def _agreed(name: str, values: list[T], absent: T, owner: str = "Chain") -> T:
    """The one value among those that are not `absent`."""
    stated = {i: value for i, value in enumerate(values) if value != absent}
    if len(set(stated.values())) > 1:
        listed = ", ".join(f"layer {i}: {value}" for i, value in stated.items())
        raise ValueError(f"{owner}: expected layers that agree on {name}, got {listed}")
    return next(iter(stated.values()), absent)


def _cheap(values: list[Cheap]) -> Cheap:
    sides = set(values) - {"both"}
    if len(sides) > 1:
        return "neither"
    return next(iter(sides), "both")
