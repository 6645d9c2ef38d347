"""Whole layers by compiled kernels, network and scalar map in one pass, and their gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward._native.elementwise import KernelMap, kernels_for, may_pull, wants_grad
from pushforward._native.library import Library
from pushforward.numerics import broadcast_batch, pull_back_with_graph

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 0, nn.SiLU: 1, nn.Tanh: 2}
# Of a coupling; and of a masked autoregressive layer whose network sees the values given, or those that come out.
STRUCTURES = {"coupling": 0, "parallel": 1, "sequential": 2}


class KernelNetwork(ctypes.Structure):
    """The shape of a layer and its network, as the kernels are told of it.

    The network of a coupling sees the columns that pass, then the context. A masked one sees the context, then all
    columns in the order of their generation; its hidden units are sorted by what they see.

    Args:
        moved: the columns that go through the scalar map, in the order of their generation.
        passed: the columns of a coupling that do not.
        context_features: size of the context.
        widths: of the hidden layers.
        activation: a value of `ACTIVATIONS`.
        parameters: how many numbers the network makes for each value.
        residual: each hidden layer after the first adds to the one before it; of a masked network.
        known: of a masked network, for each hidden layer, how many units see at most the first i columns.
    """

    _fields_ = [
        *[(name, ctypes.c_int32) for name in ("columns", "moved", "inputs", "context", "hidden")],
        *[(name, ctypes.c_int32) for name in ("activation", "residual", "parameters")],
        *[(name, ctypes.c_void_p) for name in ("moved_at", "passed_at", "widths_at", "known_at")],
    ]

    def __init__(
        self,
        moved: Sequence[int],
        passed: Sequence[int],
        context_features: int,
        widths: Sequence[int],
        activation: int,
        parameters: int,
        residual: bool = False,
        known: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.arguments = moved, passed, context_features, widths, activation, parameters, residual, known
        self.arrays = [np.ascontiguousarray(part, dtype=np.int32) for part in (moved, passed, widths, known or ())]
        seen_columns = len(passed) if known is None else len(moved)
        # Of each linear map of the network.
        self.inputs_of = [context_features + seen_columns, *widths]
        self.outputs_of = [*widths, len(moved) * parameters]
        self.weight_shapes = list(zip(self.outputs_of, self.inputs_of, strict=True))
        super().__init__(
            len(moved) + len(passed), len(moved), self.inputs_of[0], context_features, len(widths),
            activation, residual, parameters, *[array.ctypes.data for array in self.arrays],
        )  # fmt: skip

    def __reduce__(self) -> Any:  # addresses are of this process
        return KernelNetwork, self.arguments

    def __deepcopy__(self, memo: object) -> KernelNetwork:
        return self


@dataclass(slots=True)
class LayerKernel:
    """A layer in one direction, to be computed by a kernel.

    Attributes:
        structure: one of `STRUCTURES`.
        map: the scalar map.
        network: the shape of the network.
        parameters: of each linear map of the network the weight and the bias.
        formula: the same by torch's operations, of value, context and parameters; for second derivatives.
    """

    structure: str
    map: KernelMap
    network: KernelNetwork
    parameters: list[Tensor]
    formula: Callable[..., tuple[Tensor, Tensor]]

    def takes(self, value: Tensor, context: Tensor | None) -> bool:
        """Whether the sizes are those of the layer."""
        sizes = self.network.columns, self.network.context
        return sizes == (value.shape[-1], context.shape[-1] if context is not None and sizes[1] else 0)

    def apply(
        self, library: Library, value: Tensor, context: Tensor | None, save: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The value, the log-determinant, and what `pull` needs, `(units, at least rows)`, if it is to be saved.

        Args:
            library: the kernels.
            value: shape `(*batch, features)`, contiguous as all.
            context: shape `(*batch, context_features)`; not looked at by a layer without.
            save: whether there will be a `pull`.
        """
        out, log_det = torch.empty_like(value), value.new_empty(value.shape[:-1])
        saved = None
        if save:
            saved = value.new_empty(library.saved_shape(self.network, log_det.numel(), value.dtype))
        library.call(
            "layer", value.dtype, STRUCTURES[self.structure], ctypes.addressof(self.map),
            ctypes.addressof(self.network), addresses(self.parameters), log_det.numel(), value.data_ptr(),
            _address_of(context), out.data_ptr(), log_det.data_ptr(), _address_of(saved),
        )  # fmt: skip
        return out, log_det, saved

    def pull(
        self,
        library: Library,
        value: Tensor,
        saved: Tensor,
        by_out: Tensor,
        by_log_det: Tensor,
        by_context: Tensor | None,
        parameters: Sequence[Tensor],
        needs_parameters: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        """The gradients by the value and, if needed, the parameters; that by the context goes into `by_context`."""
        by_value = torch.empty_like(value)
        by_parameters = [torch.empty_like(each) for each in parameters] if needs_parameters else []
        library.call(
            "layer_pull", value.dtype, STRUCTURES[self.structure], ctypes.addressof(self.map),
            ctypes.addressof(self.network), addresses(parameters), by_log_det.numel(), value.data_ptr(),
            saved.data_ptr(), by_out.data_ptr(), by_log_det.data_ptr(), by_value.data_ptr(), _address_of(by_context),
            addresses(by_parameters) if needs_parameters else None,
        )  # fmt: skip
        return by_value, by_parameters


def by_kernels(kernels: Sequence[LayerKernel], value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """The value after these layers, one after the other, and their log-determinant; `None` where kernels may not.

    Args:
        kernels: the layers, first to last.
        value: shape `(*batch, features)`.
        context: shape `(*batch, context_features)`, for those layers that take one.

    Returns:
        Shapes `(*batch, features)` and `(*batch,)`.
    """
    if not any(kernel.network.context for kernel in kernels):
        context = None
    parameters = [parameter for kernel in kernels for parameter in kernel.parameters]
    library = kernels_for(value, context, *parameters)
    if library is None or not value.numel() or not all(kernel.takes(value, context) for kernel in kernels):
        return None
    value, context = broadcast_batch(value, context)
    if wants_grad(value, context, *parameters):
        answer: tuple[Tensor, Tensor] = _Layers.apply(library, kernels, value, context, *parameters)  # type: ignore[no-untyped-call]
        return answer
    out, log_det, _ = _apply(library, kernels, value, context, save=False)
    return out, log_det


def _apply(
    library: Library, kernels: Sequence[LayerKernel], value: Tensor, context: Tensor | None, save: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The value, the log-determinant, and for each layer what goes into it and what it saves, if it does."""
    value, context = value.contiguous(), None if context is None else context.contiguous()
    kept: list[Tensor] = []
    total: Tensor | None = None
    for kernel in kernels:
        kernel.parameters = [parameter.contiguous() for parameter in kernel.parameters]
        out, log_det, saved = kernel.apply(library, value, context, save)
        if saved is not None:
            kept += [value, saved]
        value, total = out, log_det if total is None else total.add_(log_det)
    assert total is not None
    return value, total, kept


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        library: Library,
        kernels: Sequence[LayerKernel],
        value: Tensor,
        context: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        out, log_det, kept = _apply(library, kernels, value, context, save=True)
        ctx.library, ctx.kernels = library, kernels
        ctx.save_for_backward(value, context, *parameters, *kept)
        return out, log_det

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, by_log_det: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        count = len(tensors) - 2 * len(ctx.kernels)
        inputs, kept = tensors[:count], tensors[count:]
        if may_pull(inputs[0], by_out, by_log_det):
            return None, None, *_pull(ctx, inputs, kept, by_out, by_log_det)
        with torch.enable_grad():
            return None, None, *pull_back_with_graph(partial(_by_formulas, ctx.kernels), inputs, (by_out, by_log_det))


def _pull(
    ctx: Any, inputs: Sequence[Tensor], kept: Sequence[Tensor], by_value: Tensor, by_log_det: Tensor
) -> list[Tensor | None]:
    """The gradients by the value, the context and the parameters."""
    _, context, *parameters = inputs
    by_value, by_log_det = by_value.contiguous(), by_log_det.contiguous()
    by_context: Tensor | None = None
    by_parameters: list[Tensor | None] = []
    last = len(parameters)
    for k in reversed(range(len(ctx.kernels))):
        kernel, first = ctx.kernels[k], last - len(ctx.kernels[k].parameters)
        own = None
        if context is not None and kernel.network.context and ctx.needs_input_grad[3]:
            own = torch.empty_like(context, memory_format=torch.contiguous_format)
        by_value, by_own = kernel.pull(
            ctx.library,
            *kept[2 * k : 2 * k + 2],
            by_value,
            by_log_det,
            own,
            [parameter.contiguous() for parameter in parameters[first:last]],
            any(ctx.needs_input_grad[4 + first : 4 + last]),
        )
        if own is not None:
            by_context = own if by_context is None else by_context.add_(own)
        by_parameters, last = [*(by_own or [None] * (last - first)), *by_parameters], first
    return [by_value, by_context, *by_parameters]


def _by_formulas(
    kernels: Sequence[LayerKernel], value: Tensor, context: Tensor | None, *parameters: Tensor
) -> tuple[Tensor, Tensor]:
    first, total = 0, torch.zeros((), dtype=value.dtype)
    for kernel in kernels:
        last = first + len(kernel.parameters)
        value, log_det = kernel.formula(value, context if kernel.network.context else None, *parameters[first:last])
        first, total = last, total + log_det
    return value, total


def is_watched(*parts: nn.Module) -> bool:
    """Whether hooks are to see what passes through one of these, which a kernel would not call."""
    for part in parts:
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            return True
    return False


def _address_of(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
