"""What kernels compute, for autograd."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from pushforward._native.library import DTYPES, Library, library
from pushforward.numerics import is_traced, pull_back_with_graph

# What torch dispatches an ordinary tensor on the CPU by: not lazily negated, of no transform, and on no other device.
with torch.inference_mode():
    _of_inference = torch.empty(0)
PLAIN = {torch._C._dispatch_keys(tensor).raw_repr() for tensor in (torch.empty(0), _of_inference)}
ORDINARY = Tensor, torch.nn.Parameter


class Kernel(Protocol):
    """Two tensors, values and the logarithms of what they are stretched by, as a function of others."""

    def apply(self, inputs: Sequence[Any], save: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The two, and what `pull` needs besides the inputs, if there will be one. Inputs are contiguous."""

    def pull(
        self,
        inputs: Sequence[Any],
        kept: Sequence[Tensor],
        by_out: Tensor,
        by_log: Tensor,
        wanted: Sequence[bool],
        places: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """The gradient by each input, at least by those that are wanted; by parameters in these places, if any."""

    def formula(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """The same by torch's operations; for second derivatives."""


def by_kernel(
    kernel: Kernel, value: Tensor, *others: Tensor | None, parameters: Sequence[Tensor] = ()
) -> tuple[Tensor, Tensor]:
    """What the kernel makes of all these, in this order, with a gradient if one of them wants it."""
    if not wants_grad(value, *others, *parameters):
        out, log, _ = kernel.apply(_contiguous([value, *others, *parameters]), save=False)
        return out, log
    apart: Sequence[Tensor] = ()
    if _places.get() is not None and all(map(_takes_gradient_itself, parameters)):
        apart, parameters = parameters, ()
        if not wants_grad(value, *others):
            value = value.detach().requires_grad_()  # as autograd asks only where an input of its own wants a gradient
    answer: tuple[Tensor, Tensor] = _ByKernel.apply(kernel, apart, value, *others, *parameters)  # type: ignore[no-untyped-call]
    return answer


_places: ContextVar[dict[int, Tensor] | None] = ContextVar("places", default=None)


@contextmanager
def parameters_apart(places: Mapping[int, Tensor] = MappingProxyType({})) -> Iterator[None]:
    """Within this block, graphs are made without the parameters of kernels, to spare autograd's bookkeeping of each.

    A `backward` through such a graph, after this block, adds to each parameter's `grad` as ever; `torch.autograd.grad`
    does not know of them. Parameters that are no leaves, or have hooks, are in the graph as ever.

    Args:
        places: memory for the gradients of parameters, by `id`, which the first `backward` may write to.
    """
    token = _places.set(dict(places))
    try:
        yield
    finally:
        _places.reset(token)


def _takes_gradient_itself(parameter: Tensor) -> bool:
    return parameter.is_leaf and not (parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


class _ByKernel(torch.autograd.Function):
    """Of `inputs`, for autograd, and of parameters that stand apart from its graph."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, apart: Sequence[Tensor], *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        all_inputs = *inputs, *apart
        out, log, kept = kernel.apply(_contiguous(all_inputs), save=True)
        ctx.kernel, ctx.apart, ctx.inputs = kernel, apart, len(all_inputs)
        # Each place is taken once: what a parameter gets elsewhere is added to it.
        places = _places.get() or {}
        ctx.places = *(None for _ in inputs), *(places.pop(id(parameter), None) for parameter in apart)
        # Also those apart, so that a checkpoint finds the same in a graph that it makes anew.
        ctx.save_for_backward(*all_inputs, *kept)
        return out, log

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, by_log: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        inputs, kept = tensors[: ctx.inputs], tensors[ctx.inputs :]
        if may_pull(inputs[0], by_out, by_log):
            cotangents = by_out.contiguous(), by_log.contiguous()
            wanted = *ctx.needs_input_grad[2:], *(parameter.requires_grad for parameter in ctx.apart)
            found = ctx.kernel.pull(_contiguous(inputs), kept, *cotangents, wanted, ctx.places)
        else:
            with torch.enable_grad():
                found = pull_back_with_graph(ctx.kernel.formula, inputs, (by_out, by_log))
        own = len(inputs) - len(ctx.apart)
        if _places.get() is None:
            _add_gradients(ctx.apart, found[own:])
        return None, None, *found[:own]


def _add_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.requires_grad and gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def kernels_for(*tensors: Tensor | None) -> Library | None:
    """The library, if it may compute with these tensors here and now."""
    if is_traced() or (found := library()) is None or torch.is_autocast_enabled("cpu") or not are_plain(*tensors):
        return None
    return found


def are_plain(*tensors: Tensor | None) -> bool:
    """Whether kernels may read the memory of these: ordinary tensors on the CPU of one dtype that they know."""
    dtypes = set()
    for tensor in tensors:
        if tensor is not None:
            if type(tensor) not in ORDINARY or torch._C._dispatch_keys(tensor).raw_repr() not in PLAIN:
                return False
            dtypes.add(tensor.dtype)
    return len(dtypes) == 1 and dtypes.pop() in DTYPES


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether a gradient by one of these will be asked for."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def may_pull(*tensors: Tensor) -> bool:
    """Whether a kernel may find a gradient here and now: not if that gradient is to have derivatives itself."""
    return not (torch.is_grad_enabled() or is_traced()) and are_plain(*tensors)


def address_of(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def room_for(tensors: Sequence[Tensor], places: Sequence[Tensor | None]) -> list[Tensor]:
    """For the gradient by each of these, the place there is for it, or new memory."""
    pairs = zip(tensors, places, strict=True)
    return [torch.empty_like(tensor) if place is None else place for tensor, place in pairs]


def _contiguous(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]
