"""Sizes and shapes: every tensor is sample_shape + batch_shape + event_shape."""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor


def sum_rightmost(value: Tensor, dims: int) -> Tensor:
    """Sum of `value` over its last `dims` dimensions."""
    return value.sum(dim=tuple(range(-dims, 0))) if dims else value


def broadcast_batch(x: Tensor, context: Tensor | None, event_dim: int = 1) -> tuple[Tensor, Tensor | None]:
    """`x`, `(*batch, *event)`, and `context`, `(*batch, context_features)`, expanded to one common batch shape."""
    if context is None:
        return x, None
    batch_x, event = x.shape[: x.dim() - event_dim], x.shape[x.dim() - event_dim :]
    batch_c = context.shape[:-1]
    if batch_x == batch_c:
        return x, context
    batch = torch.broadcast_shapes(batch_x, batch_c)
    return x.expand(batch + event), context.expand(*batch, context.shape[-1])


def floating(values: Tensor | Sequence[float]) -> Tensor:
    """A copy of numbers as a tensor; integers become the default dtype."""
    value = torch.as_tensor(values).detach().clone()
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def concatenate(x: Tensor, context: Tensor | None) -> Tensor:
    """`x`, `(*batch, n)`, beside `context`, `(*batch, c)`, in one tensor of shape `(*batch, n + c)`."""
    x, context = broadcast_batch(x, context)
    return x if context is None else torch.cat([x, context], dim=-1)


def unaliased(parts: Sequence[Tensor]) -> list[Tensor]:
    """Views of one tensor as tensors of their own, under compilation: loops may not close over two views of one."""
    return [part.clone() for part in parts] if torch.compiler.is_compiling() else list(parts)


def check_count(owner: str, name: str, value: object, least: int = 1) -> None:
    """Raise a ValueError for a number of things that is no integer or too small."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{owner}: expected {name}, an integer >= {least}, got {value!r}")


def check_sizes(owner: str, features: int, context_features: int = 0, hidden_features: Sequence[int] = ()) -> None:
    """Raise a ValueError for sizes that no layer can have."""
    check_count(owner, "features", features)
    check_count(owner, "context_features", context_features, 0)
    if not isinstance(hidden_features, Sequence):
        raise ValueError(f"{owner}: expected hidden_features, a sequence of widths, got {hidden_features!r}")
    for width in hidden_features:
        check_count(owner, "every width of hidden_features", width)


def check_event(owner: str, name: str, value: Tensor, shape: tuple[int, ...] | None, dims: int = 0) -> None:
    """Raise a ValueError for a value of another trailing shape, or of too few dimensions where any shape will do."""
    found = tuple(value.shape)
    if shape is None and len(found) < dims:
        raise ValueError(f"{owner}: expected {name} of at least {dims} dimensions, got shape {found}")
    if shape and found[-len(shape) :] != shape:
        raise ValueError(f"{owner}: expected {name} with trailing shape {shape}, got {found}")


def check_context(owner: str, context: Tensor | None, context_features: int) -> None:
    """Raise a ValueError for a context that is missing, not wanted or of another size."""
    if context is None:
        if context_features:
            raise ValueError(f"{owner}: expected a context of shape (*batch, {context_features}), got none")
    elif not context_features:
        raise ValueError(f"{owner}: got a context of shape {tuple(context.shape)}, but it takes none")
    elif context.shape[-1:] != (context_features,):
        raise ValueError(
            f"{owner}: expected a context with trailing shape ({context_features},), got {tuple(context.shape)}"
        )
