"""What functions with a gradient of their own share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced() -> bool:
    """Whether a compiler, a function transform, a forward-mode derivative, a dispatch mode or `torch.jit.trace` has to
    see every single operation."""
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._is_tracing()
    )


def pull_back(
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """The gradient by each input that asks for one, given those by the outputs, of which some may be missing."""
    pulled = [(x, c) for x, c in zip(outputs, cotangents, strict=True) if c is not None and x.requires_grad]
    wanted = [part for part in inputs if part is not None and part.requires_grad]
    if not pulled or not wanted:
        return [None] * len(inputs)
    values, grads = zip(*pulled, strict=True)
    found = iter(torch.autograd.grad(values, wanted, grads, create_graph=create_graph, allow_unused=True))
    return [next(found) if part is not None and part.requires_grad else None for part in inputs]


def pull_back_with_graph(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor | None], cotangents: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradient of a function of these inputs, with a graph of its own, for derivatives of higher order."""
    # Views, as one input may depend on another: only what each does to this function counts.
    views = [None if part is None else part.view_as(part) for part in inputs]
    return pull_back(function(*views), cotangents, views, create_graph=True)
