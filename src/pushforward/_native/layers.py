"""Whole layers by compiled kernels, network and scalar map in one pass, and their gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward._native.elementwise import KernelMap
from pushforward._native.function import address_of, addresses, by_kernel, kernels_for, room_for
from pushforward._native.library import Library
from pushforward.numerics import broadcast_batch

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
    return by_kernel(_Row(library, kernels), *broadcast_batch(value, context), parameters=parameters)


@dataclass(slots=True)
class _Row:
    """Layers, one after the other: one function of the value, the context, and the weights and biases."""

    library: Library
    kernels: Sequence[LayerKernel]

    def apply(self, inputs: Sequence[Any], save: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        value, context, *parameters = inputs
        out, log_det = torch.empty_like(value), value.new_empty(value.shape[:-1])
        layers, saved = self._layers(), None
        if save:
            saved = value.new_empty(self.library.functions["layers_saved", value.dtype](*layers, log_det.numel()))
        self.library.call(
            "layers", value.dtype, *layers, addresses(parameters), log_det.numel(), value.data_ptr(),
            address_of(context), out.data_ptr(), log_det.data_ptr(), address_of(saved),
        )  # fmt: skip
        return out, log_det, [] if saved is None else [saved]

    def pull(
        self,
        inputs: Sequence[Any],
        kept: Sequence[Tensor],
        by_out: Tensor,
        by_log_det: Tensor,
        wanted: Sequence[bool],
        places: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        value, context, *parameters = inputs
        by_value, by_context = torch.empty_like(value), torch.empty_like(context) if wanted[1] else None
        by_parameters = room_for(parameters, places[2:]) if any(wanted[2:]) else []
        self.library.call(
            "layers_pull", value.dtype, *self._layers(), addresses(parameters), by_log_det.numel(), value.data_ptr(),
            kept[0].data_ptr(), by_out.data_ptr(), by_log_det.data_ptr(), by_value.data_ptr(), address_of(by_context),
            addresses(by_parameters) if by_parameters else None,
        )  # fmt: skip
        unwanted: list[Tensor | None] = [None] * len(parameters)
        return [by_value, by_context, *(by_parameters or unwanted)]

    def formula(self, value: Tensor, context: Tensor | None, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        first, total = 0, torch.zeros((), dtype=value.dtype)
        for kernel in self.kernels:
            last = first + len(kernel.parameters)
            value, log_det = kernel.formula(value, context if kernel.network.context else None, *parameters[first:last])
            first, total = last, total + log_det
        return value, total

    def _layers(self) -> tuple[int, ctypes.Array[ctypes.c_int64]]:
        """Their number, and of each the structure and the addresses of map and network."""
        numbers: list[int] = []
        for kernel in self.kernels:
            numbers += STRUCTURES[kernel.structure], ctypes.addressof(kernel.map), ctypes.addressof(kernel.network)
        return len(self.kernels), (ctypes.c_int64 * len(numbers))(*numbers)


def is_watched(*parts: nn.Module) -> bool:
    """Whether hooks are to see what passes through one of these, which a kernel would not call."""
    for part in parts:
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            return True
    return False
