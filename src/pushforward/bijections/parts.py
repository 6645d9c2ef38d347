"""Bijections that act on parts of an event, each part alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pushforward.bijections.base import Bijection
from pushforward.bijections.compose import _agreed, _cheap
from pushforward.numerics import sum_rightmost

Shape = tuple[int, ...]


class Independent(Bijection):
    """The same map at every place of `dims` further dimensions, which become part of the event.

    Values are those of `bijection`; the log-determinant is its sum over those dimensions.

    Args:
        bijection: the map; the same at every place.
        dims: how many dimensions, at least 1.

    Example:
        >>> from pushforward.bijections import Exp
        >>> Independent(Exp(), 1)(torch.ones(5, 3))[1]
        tensor([3., 3., 3., 3., 3.])
    """

    def __init__(self, bijection: Bijection, dims: int) -> None:
        super().__init__()
        if dims < 1:
            raise ValueError(f"Independent: expected dims >= 1, got {dims}")
        self.bijection = bijection
        self.dims = dims
        self.event_dim = bijection.event_dim + dims
        self.context_features = bijection.context_features
        self.cheap = bijection.cheap

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.bijection(z, insert_dims(context, self.dims))
        return x, sum_rightmost(log_det, self.dims)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection.inverse(x, insert_dims(context, self.dims))
        return z, sum_rightmost(log_det, self.dims)

    @property
    def data_dim(self) -> int:
        return self.bijection.data_dim + self.dims

    def forward_shape(self, shape: Shape) -> Shape:
        return self.bijection.forward_shape(shape)

    def inverse_shape(self, shape: Shape) -> Shape:
        return self.bijection.inverse_shape(shape)

    @property
    def domain(self) -> constraints.Constraint:
        return constraints.independent(self.bijection.domain, self.event_dim - self.bijection.domain.event_dim)

    @property
    def codomain(self) -> constraints.Constraint:
        return constraints.independent(self.bijection.codomain, self.data_dim - self.bijection.codomain.event_dim)

    def chart(self, x: Tensor) -> Tensor:
        return self.bijection.chart(x)


class Flattened(Bijection):
    """The same map, of arrays, as one of vectors: z and x are laid out row by row.

    Args:
        bijection: the map.
        shape: of one z of it as an array; dimensions beyond `bijection.event_dim` are places at which it acts alike.

    Raises:
        ValueError: if the shape has fewer dimensions than one z has, or one z has no number.

    Example:
        >>> from pushforward.bijections import Simplex
        >>> x, log_det = Flattened(Simplex(), (5, 2))(torch.zeros(10))
        >>> x.shape, log_det.shape
        (torch.Size([15]), torch.Size([]))
    """

    def __init__(self, bijection: Bijection, shape: Sequence[int]) -> None:
        super().__init__()
        self.bijection = bijection
        self.shape = tuple(shape)
        self.excess = len(self.shape) - bijection.event_dim
        if self.excess < 0 or math.prod(self.shape) < 1:
            raise ValueError(
                f"Flattened: expected a shape of {bijection.event_dim} or more dimensions that holds a number, "
                f"got {self.shape}"
            )
        self._data_shape = tuple(bijection.forward_shape(self.shape))
        self.event_shape = (math.prod(self.shape),)
        self.context_features = bijection.context_features
        self.cheap = bijection.cheap

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.bijection(_shaped(z, self.shape), insert_dims(context, self.excess))
        return _flat(x, self._data_shape), sum_rightmost(log_det, self.excess)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection.inverse(_shaped(x, self._data_shape), insert_dims(context, self.excess))
        return _flat(z, self.shape), sum_rightmost(log_det, self.excess)

    def forward_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], math.prod(self._data_shape))

    def inverse_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], math.prod(self.shape))

    @property
    def domain(self) -> constraints.Constraint:
        return _FlatConstraint(self.bijection.domain, self.shape)

    @property
    def codomain(self) -> constraints.Constraint:
        return _FlatConstraint(self.bijection.codomain, self._data_shape)

    def chart(self, x: Tensor) -> Tensor:
        return self.bijection.chart(_shaped(x, self._data_shape)).reshape(*x.shape[:-1], -1)


class _FlatConstraint(constraints.Constraint):
    """A vector that as an array is in a constraint, at every place."""

    event_dim = 1

    def __init__(self, constraint: constraints.Constraint, shape: Shape) -> None:
        self.constraint = constraint
        self.shape = shape

    def check(self, value: Tensor) -> Tensor:
        inside: Tensor = self.constraint.check(_shaped(value, self.shape))
        return inside.reshape(*value.shape[:-1], -1).all(-1)


class Concatenate(Bijection):
    """x = (f_1(z_1), ..., f_K(z_K)) for z = (z_1, ..., z_K) cut along one dimension: columns of several kinds.

    Parts that take no context are not given any.

    Args:
        parts: f_1, ..., f_K.
        lengths: the lengths of z_1, ..., z_K along `dim`.
        dim: the dimension to cut, negative: counted from the end.

    Raises:
        ValueError: if `parts` and `lengths` disagree, or a part changes the number of dimensions.

    Example:
        >>> from pushforward.bijections import Chain, Exp, Sigmoid
        >>> Concatenate([Exp(), Sigmoid(), Chain()], [1, 1, 2])(torch.zeros(4))[0]
        tensor([1.0000, 0.5000, 0.0000, 0.0000])
    """

    def __init__(self, parts: Sequence[Bijection], lengths: Sequence[int], dim: int = -1) -> None:
        super().__init__()
        _check_parts("Concatenate", parts, dim)
        self.lengths = tuple(int(length) for length in lengths)
        if len(self.lengths) != len(parts) or min(self.lengths) < 1:
            raise ValueError(
                f"Concatenate: expected a positive length for each of {len(parts)} parts, got {self.lengths}"
            )
        self.parts = nn.ModuleList(parts)
        self.dim = dim
        self.event_dim = max(-dim, *(part.event_dim for part in parts))
        self.context_features = _agreed("context_features", [part.context_features for part in parts], 0, "Concatenate")
        self.cheap = _cheap([part.cheap for part in parts])
        if self.event_dim == 1:
            self.event_shape = (sum(self.lengths),)
        self.data_lengths = tuple(
            _length(part, part.forward_shape, length, dim) for part, length in zip(parts, self.lengths, strict=True)
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pieces = z.split(self.lengths, self.dim)
        values, log_det = _each(_parts(self), pieces, context, self.event_dim)
        return torch.cat(_expanded(values, self.event_dim), self.dim), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pieces = x.split(self.data_lengths, self.dim)
        values, log_det = _each(_parts(self), pieces, context, self.event_dim, backward=True)
        return torch.cat(_expanded(values, self.event_dim), self.dim), log_det

    def forward_shape(self, shape: Shape) -> Shape:
        return self._shape(shape, self.lengths, [part.forward_shape for part in _parts(self)])

    def inverse_shape(self, shape: Shape) -> Shape:
        return self._shape(shape, self.data_lengths, [part.inverse_shape for part in _parts(self)])

    @property
    def domain(self) -> constraints.Constraint:
        return _PartsConstraint([p.domain for p in _parts(self)], lambda v: v.split(self.lengths, self.dim), self)

    @property
    def codomain(self) -> constraints.Constraint:
        return _PartsConstraint(
            [p.codomain for p in _parts(self)], lambda v: v.split(self.data_lengths, self.dim), self
        )

    def chart(self, x: Tensor) -> Tensor:
        return _charts(self, x, x.split(self.data_lengths, self.dim))

    def _shape(self, shape: Shape, lengths: Shape, maps: list[Callable[[Shape], Shape]]) -> Shape:
        if len(shape) < self.event_dim or shape[self.dim] != sum(lengths):
            raise ValueError(
                f"Concatenate: expected at least {self.event_dim} dimensions and length {sum(lengths)} along "
                f"{self.dim}, got {tuple(shape)}"
            )
        before, after = tuple(shape[: self.dim]), tuple(shape[len(shape) + self.dim + 1 :])
        results = [f((*before, length, *after)) for f, length in zip(maps, lengths, strict=True)]
        result = list(results[0])
        result[self.dim] = sum(r[self.dim] for r in results)
        return tuple(result)


class Stack(Bijection):
    """x = (f_1(z_1), ..., f_K(z_K)) for z that stacks z_1, ..., z_K, of one shape, along one dimension.

    Parts that take no context are not given any.

    Args:
        parts: f_1, ..., f_K.
        dim: the dimension of length K, negative: counted from the end.

    Raises:
        ValueError: if there are no parts, or a part changes the number of dimensions.

    Example:
        >>> from pushforward.bijections import Chain, Exp
        >>> Stack([Exp(), Chain()], dim=-2)(torch.zeros(2, 3))[0]
        tensor([[1., 1., 1.],
                [0., 0., 0.]])
    """

    def __init__(self, parts: Sequence[Bijection], dim: int = -1) -> None:
        super().__init__()
        _check_parts("Stack", parts, dim)
        self.parts = nn.ModuleList(parts)
        self.dim = dim
        self.event_dim = max(-dim, *(part.event_dim + 1 for part in parts))
        self.context_features = _agreed("context_features", [part.context_features for part in parts], 0, "Stack")
        self.cheap = _cheap([part.cheap for part in parts])
        if self.event_dim == 1:
            self.event_shape = (len(parts),)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values, log_det = _each(_parts(self), z.unbind(self.dim), context, self.event_dim - 1)
        return torch.stack(_expanded(values, self.event_dim - 1), self.dim), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values, log_det = _each(_parts(self), x.unbind(self.dim), context, self.event_dim - 1, backward=True)
        return torch.stack(_expanded(values, self.event_dim - 1), self.dim), log_det

    def forward_shape(self, shape: Shape) -> Shape:
        return self._shape(shape, [part.forward_shape for part in _parts(self)])

    def inverse_shape(self, shape: Shape) -> Shape:
        return self._shape(shape, [part.inverse_shape for part in _parts(self)])

    @property
    def domain(self) -> constraints.Constraint:
        return _PartsConstraint([p.domain for p in _parts(self)], lambda v: v.unbind(self.dim), self)

    @property
    def codomain(self) -> constraints.Constraint:
        return _PartsConstraint([p.codomain for p in _parts(self)], lambda v: v.unbind(self.dim), self)

    def chart(self, x: Tensor) -> Tensor:
        return _charts(self, x, x.unbind(self.dim))

    def _shape(self, shape: Shape, maps: list[Callable[[Shape], Shape]]) -> Shape:
        if len(shape) < self.event_dim or shape[self.dim] != len(maps):
            raise ValueError(
                f"Stack: expected at least {self.event_dim} dimensions and length {len(maps)} along {self.dim}, "
                f"got {tuple(shape)}"
            )
        one = tuple(shape[: self.dim]) + tuple(shape[len(shape) + self.dim + 1 :])
        results = {f(one) for f in maps}
        if len(results) > 1:
            raise ValueError(f"Stack: expected parts that give one shape, got {sorted(results)}")
        result = list(results.pop())
        result.insert(len(result) + 1 + self.dim, len(maps))
        return tuple(result)


class _PartsConstraint(constraints.Constraint):
    """Each piece of a value in its own constraint."""

    def __init__(
        self, parts: list[constraints.Constraint], cut: Callable[[Tensor], Sequence[Tensor]], owner: Concatenate | Stack
    ) -> None:
        self.parts = parts
        self.cut = cut
        self._event_dim = owner.event_dim
        self.piece_dim = owner.event_dim - isinstance(owner, Stack)

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        return self._event_dim

    def check(self, value: Tensor) -> Tensor:
        inside = None
        for part, piece in zip(self.parts, self.cut(value), strict=True):
            found = part.check(piece)
            batch = found.dim() - (self.piece_dim - part.event_dim)
            found = found.reshape(*found.shape[:batch], -1).all(-1)
            inside = found if inside is None else inside & found
        assert isinstance(inside, Tensor)
        return inside


def _shaped(value: Tensor, shape: Shape) -> Tensor:
    """Vectors as arrays."""
    return value.reshape((*value.shape[:-1], *shape))


def _flat(value: Tensor, shape: Shape) -> Tensor:
    """Arrays of the given shape as vectors."""
    return value.reshape(*value.shape[: value.dim() - len(shape)], math.prod(shape))


def insert_dims(context: Tensor | None, dims: int) -> Tensor | None:
    """A context `(*batch, context_features)` with `dims` dimensions of length 1 after its batch."""
    if context is None:
        return None
    return context.reshape(*context.shape[:-1], *(1,) * dims, context.shape[-1])


def _check_parts(name: str, parts: Sequence[Bijection], dim: int) -> None:
    if not parts:
        raise ValueError(f"{name}: expected at least one part, got none")
    if dim >= 0:
        raise ValueError(f"{name}: expected a negative dim, counted from the end, got {dim}")
    for part in parts:
        if part.event_dim != part.data_dim:
            raise ValueError(
                f"{name}: expected parts that keep the number of dimensions, got {type(part).__name__}, "
                f"from {part.event_dim} to {part.data_dim}"
            )


def _length(part: Bijection, shape_map: Callable[[Shape], Shape], length: int, dim: int) -> int:
    """The length along `dim` that comes from a piece of the given length, whose other dimensions do not matter."""
    return shape_map(part.event_shape or (length,) + (1,) * (-dim - 1))[dim]


def _parts(owner: Concatenate | Stack) -> list[Bijection]:
    return list(owner.parts)  # type: ignore[arg-type]


def _charts(owner: Concatenate | Stack, x: Tensor, pieces: Sequence[Tensor]) -> Tensor:
    batch = x.shape[: x.dim() - owner.event_dim]
    charts = [part.chart(piece) for part, piece in zip(_parts(owner), pieces, strict=True)]
    return torch.cat([chart.reshape(*batch, -1) for chart in charts], -1)


def _each(
    parts: Sequence[Bijection],
    pieces: Sequence[Tensor],
    context: Tensor | None,
    event_dim: int,
    *,
    backward: bool = False,
) -> tuple[list[Tensor], Tensor]:
    """What the parts make of the pieces, each an event of `event_dim` dimensions, and the sum of their log-dets."""
    values, total = [], None
    for part, piece in zip(parts, pieces, strict=True):
        excess = event_dim - part.event_dim
        its_context = insert_dims(context, excess) if part.context_features else None
        value, log_det = (part.inverse if backward else part)(piece, its_context)
        log_det = sum_rightmost(log_det, excess)
        values.append(value)
        total = log_det if total is None else total + log_det
    assert total is not None
    return values, total


def _expanded(values: list[Tensor], event_dim: int) -> list[Tensor]:
    """Values brought to one batch shape, which a context may have given to some of them only."""
    batch = torch.broadcast_shapes(*(v.shape[: v.dim() - event_dim] for v in values))
    return [v.expand(batch + v.shape[v.dim() - event_dim :]) for v in values]
