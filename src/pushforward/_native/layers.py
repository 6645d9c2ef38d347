"""Whole layers by compiled kernels, network and scalar map in one pass, and their gradients."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward._native.elementwise import KernelMap, may_pull, wants_grad
from pushforward._native.library import Library
from pushforward.numerics import pull_back_with_graph

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 0, nn.SiLU: 1, nn.Tanh: 2}
# Of a coupling; and of a masked autoregressive layer whose network sees the values given, or those that come out.
STRUCTURES = {"coupling": 0, "parallel": 1, "sequential": 2}
LayerFormula = Callable[..., tuple[Tensor, Tensor]]


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
        library: where the kernel is.
        structure: one of `STRUCTURES`.
        map: the scalar map.
        network: the shape of the network.
        formula: the same by torch's operations, of value, context and parameters; for second derivatives.
    """

    library: Library
    structure: str
    map: KernelMap
    network: KernelNetwork
    formula: LayerFormula

    def __call__(self, value: Tensor, context: Tensor | None, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The layer's value and log-determinant.

        Args:
            value: shape `(*batch, features)`.
            context: shape `(*batch, context_features)`.
            parameters: of each linear map of the network the weight and the bias.

        Returns:
            Shapes `(*batch, features)` and `(*batch,)`.
        """
        if wants_grad(value, context, *parameters):
            answer: tuple[Tensor, Tensor] = _Layer.apply(self, value, context, *parameters)  # type: ignore[no-untyped-call]
            return answer
        out, log_det, _ = self.apply(value, context, parameters, save=False)
        return out, log_det

    def apply(
        self, value: Tensor, context: Tensor | None, parameters: Sequence[Tensor], save: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The value, the log-determinant, and what `pull` needs, `(units, at least rows)`, if it is to be saved."""
        value, context = value.contiguous(), None if context is None else context.contiguous()
        parameters = [parameter.contiguous() for parameter in parameters]
        out, log_det = torch.empty_like(value), value.new_empty(value.shape[:-1])
        saved = None
        if save:
            saved = value.new_empty(self.library.saved_shape(self.network, log_det.numel(), value.dtype))
        self.library.call(
            "layer", value.dtype, STRUCTURES[self.structure], ctypes.addressof(self.map),
            ctypes.addressof(self.network), _addresses(parameters[::2]), _addresses(parameters[1::2]), log_det.numel(),
            value.data_ptr(), _address(context), out.data_ptr(), log_det.data_ptr(), _address(saved),
        )  # fmt: skip
        return out, log_det, saved

    def pull(
        self,
        value: Tensor,
        context: Tensor | None,
        parameters: Sequence[Tensor],
        saved: Tensor,
        by_out: Tensor,
        by_log_det: Tensor,
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients by the value, the context, and each weight and bias, those needed."""
        value, by_out, by_log_det = value.contiguous(), by_out.contiguous(), by_log_det.contiguous()
        weights = [weight.contiguous() for weight in parameters[::2]]
        by_value = torch.empty_like(value)
        by_context = None
        if context is not None and needed[1]:
            by_context = torch.empty_like(context, memory_format=torch.contiguous_format)
        by_weights: list[Tensor | None] = [None] * len(parameters)
        if any(needed[2:]):
            by_weights = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in parameters]
        self.library.call(
            "layer_pull", value.dtype, STRUCTURES[self.structure], ctypes.addressof(self.map),
            ctypes.addressof(self.network), _addresses(weights), by_log_det.numel(), value.data_ptr(), saved.data_ptr(),
            by_out.data_ptr(), by_log_det.data_ptr(), by_value.data_ptr(), _address(by_context),
            _addresses(by_weights[::2]), _addresses(by_weights[1::2]),
        )  # fmt: skip
        return [by_value, by_context, *by_weights]


def is_watched(*parts: nn.Module) -> bool:
    """Whether hooks are to see what passes through one of these, which a kernel would not call."""
    for part in parts:
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            return True
    return False


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p] | None:
    if tensors[0] is None:
        return None
    return (ctypes.c_void_p * len(tensors))(*map(_address, tensors))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: LayerKernel, value: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, log_det, saved = kernel.apply(value, context, parameters, save=True)
        ctx.kernel = kernel
        ctx.save_for_backward(saved, value, context, *parameters)
        return out, log_det

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, by_log_det: Tensor) -> tuple[Tensor | None, ...]:
        saved, value, context, *parameters = ctx.saved_tensors
        if not may_pull(value, by_out, by_log_det):
            with torch.enable_grad():
                inputs = value, context, *parameters
                return None, *pull_back_with_graph(ctx.kernel.formula, inputs, (by_out, by_log_det))
        needed = ctx.needs_input_grad[1:]
        return None, *ctx.kernel.pull(value, context, parameters, saved, by_out, by_log_det, needed)
