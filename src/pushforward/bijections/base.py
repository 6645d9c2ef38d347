"""What a bijection is."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.distributions import constraints

from pushforward.numerics import check_context, check_event, check_sizes

Cheap = Literal["both", "forward", "inverse", "neither"]
Direction = Literal["forward", "inverse"]


class Bijection(nn.Module, ABC):
    """An invertible map x = f(z | context) of events, from the base to the data.

    To write one: call `super().__init__()`; set the attributes below that differ from their defaults; implement
    `forward` and `inverse`, each of which returns the value and the log-determinant of the map just applied, one
    number per event; let every batch shape pass; make the context optional and broadcast it; keep every constructor
    argument as an attribute of the same name, so that `pushforward.save` can write it. Both methods then raise a
    ValueError for events and contexts of another shape than these attributes say. A class without a closed form
    for one direction uses `pushforward.numerics.solve_increasing`. Then run `pushforward.testing.check_bijection`.

    A map whose x has another shape than its z overrides `forward_shape` and `inverse_shape`, and `data_dim` if the
    number of dimensions changes. If x lies on a surface, as the simplex, so that it has more numbers than z, it also
    overrides `chart`. If x or z is confined to a part of the space, it overrides `codomain` or `domain`, and answers a
    log-determinant of -inf outside.

    Attributes:
        event_shape: shape of one z, or `None` if any shape with at least `event_dim` dimensions will do.
        event_dim: number of trailing dimensions that make one z; `log_det` has the others.
        context_features: size of the context, 0 for none.
        cheap: the direction or directions that cost one evaluation in closed form.
        fused: a static method, if there is one, that takes several layers, the direction "forward" or "inverse", a
            value and a context, and gives what these layers do in a row, the first one first, or `None` where it does
            not know how; `Chain` calls it. A subclass that overrides a direction has none, unless it brings its own.
    """

    event_shape: tuple[int, ...] | None = None
    event_dim: int = 1
    context_features: int = 0
    cheap: Cheap = "both"
    fused: Callable[[Sequence[Any], Direction, Tensor, Tensor | None], tuple[Tensor, Tensor] | None] | None = None

    features: int
    hidden_features: tuple[int, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if ("forward" in vars(cls) or "inverse" in vars(cls)) and "fused" not in vars(cls):
            cls.fused = None
        for name, checked in (("forward", _checked_forward), ("inverse", _checked_inverse)):
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    @abstractmethod
    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = f(z | context).

        Args:
            z: shape `(*batch, *event)`.
            context: shape `(*batch, context_features)`; broadcasts against the batch of `z`.

        Returns:
            x, shape `(*batch, *event)`, or `forward_shape` of it, and log |det df/dz|, shape `(*batch,)`.
        """

    @abstractmethod
    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = f^-1(x | context) and log |det df^-1/dx|; shapes as in `forward`."""

    @property
    def data_shape(self) -> tuple[int, ...] | None:
        """Shape of one x, or `None` where `event_shape` is."""
        return None if self.event_shape is None else self.forward_shape(self.event_shape)

    @property
    def data_dim(self) -> int:
        """Number of trailing dimensions that make one x."""
        return self.event_dim

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of x for a z of shape `(*batch, *event)`."""
        return tuple(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for an x of shape `(*batch, *event)`."""
        return tuple(shape)

    @property
    def domain(self) -> constraints.Constraint:
        """Where z may be."""
        return constraints.real

    @property
    def codomain(self) -> constraints.Constraint:
        """Where x is; all of it is reached."""
        return constraints.real

    def chart(self, x: Tensor) -> Tensor:
        """Coordinates of x, as many as z has numbers: `log_det` is that of z -> chart(x)."""
        return x

    @property
    def inv(self) -> Bijection:
        """The same map read backwards."""
        from pushforward.bijections.compose import Inverse

        return Inverse(self)

    @property
    def outruns_compiler(self) -> bool:
        """Whether its compiled kernel, where those are in use, is faster than what `torch.compile` makes."""
        return False

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Set what starts from data and is new, given a batch `x` of shape `(n, *event)`, and return its z."""
        return self.inverse(x, context)[0]

    def _set_sizes(self, features: int, context_features: int, hidden_features: Sequence[int]) -> None:
        """Check and keep the sizes of a layer of vectors."""
        check_sizes(type(self).__name__, features, context_features, hidden_features)
        self.features = features
        self.event_shape = (features,)
        self.context_features = context_features
        self.hidden_features = tuple(hidden_features)


Method = Callable[[Bijection, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def _checked_forward(method: Method) -> Method:
    @functools.wraps(method)
    def forward(self: Bijection, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        name = type(self).__name__
        check_event(name, "z", z, self.event_shape, self.event_dim)
        check_context(name, context, self.context_features)
        return method(self, z, context)

    return forward


def _checked_inverse(method: Method) -> Method:
    @functools.wraps(method)
    def inverse(self: Bijection, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        name = type(self).__name__
        check_event(name, "x", x, self.data_shape, self.data_dim)
        check_context(name, context, self.context_features)
        return method(self, x, context)

    return inverse
