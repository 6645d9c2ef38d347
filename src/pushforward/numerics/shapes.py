"""Broadcasting of batches: every tensor is sample_shape + batch_shape + event_shape."""

from collections.abc import Sequence

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
