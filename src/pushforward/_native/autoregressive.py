"""A whole masked autoregressive layer by compiled kernels: network and scalar map, in either direction."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pushforward._native.elementwise import KernelMap, may_pull, wants_grad
from pushforward._native.library import Library
from pushforward.numerics import pull_back_with_graph

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 0, nn.SiLU: 1, nn.Tanh: 2}
LayerFormula = Callable[..., tuple[Tensor, Tensor]]


class KernelNetwork(ctypes.Structure):
    """The shape of a masked network whose hidden units are sorted by what they see, as the kernels are told of it.

    Args:
        context_features: size of the context.
        activation: a value of `ACTIVATIONS`.
        residual: each hidden layer after the first adds to the one before it.
        parameters: how many numbers the network makes for each feature.
        order: the features in the order of their generation.
        widths: of the hidden layers.
        known: for each hidden layer, how many units see at most the first i inputs.
    """

    _fields_ = [
        *[(name, ctypes.c_int32) for name in ("features", "context", "hidden", "activation", "residual", "parameters")],
        *[(name, ctypes.c_void_p) for name in ("order_at", "widths_at", "known_at")],
    ]

    def __init__(
        self,
        context_features: int,
        activation: int,
        residual: bool,
        parameters: int,
        order: Sequence[int],
        widths: Sequence[int],
        known: Sequence[Sequence[int]],
    ) -> None:
        self.arguments = (context_features, activation, residual, parameters, order, widths, known)
        self.arrays = [np.ascontiguousarray(part, dtype=np.int32) for part in (order, widths, known)]
        addresses = [array.ctypes.data for array in self.arrays]
        super().__init__(len(order), context_features, len(widths), activation, residual, parameters, *addresses)
        self.seen = [context_features + len(order), *widths]  # by each layer
        self.made = [*widths, len(order) * parameters]
        # The units that see at most half of the inputs, among what each layer makes and sees: in the gradient of a
        # weight, these rows are zero in all columns but these.
        half = len(order) // 2
        early = [each[half - 1] for each in known] if half else [0] * len(widths)
        self.early_made = [*early, half * parameters]
        self.early_seen = [context_features + half, *early]

    def __reduce__(self) -> Any:  # addresses are of this process
        return KernelNetwork, self.arguments

    def __deepcopy__(self, memo: object) -> KernelNetwork:
        return self


def autoregressive_layer(
    found: Library,
    kernel: KernelMap,
    network: KernelNetwork,
    formula: LayerFormula,
    sequential: bool,
    value: Tensor,
    context: Tensor | None,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """The layer's value and log-determinant.

    Args:
        found: the library.
        kernel: the scalar map.
        network: the shape of the network.
        formula: the same by torch's operations, of value, context and parameters; for second derivatives.
        sequential: whether the network sees the values that come out, not those that are given.
        value: shape `(*batch, features)`.
        context: shape `(*batch, context_features)`.
        parameters: of each layer the weight, whose entries outside the mask do not count, and the bias.
        masks: of each weight.

    Returns:
        Shapes `(*batch, features)` and `(*batch,)`.
    """
    if wants_grad(value, context, *parameters):
        answer: tuple[Tensor, Tensor] = _Layer.apply(  # type: ignore[no-untyped-call]
            found, kernel, network, formula, sequential, masks, value, context, *parameters
        )
        return answer
    out, log_det, _ = _apply(found, kernel, network, sequential, value, context, parameters, save=False)
    return out, log_det


def _apply(
    found: Library,
    kernel: KernelMap,
    network: KernelNetwork,
    sequential: bool,
    value: Tensor,
    context: Tensor | None,
    parameters: Sequence[Tensor],
    save: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    value, context = value.contiguous(), None if context is None else context.contiguous()
    parameters = [parameter.contiguous() for parameter in parameters]
    out, log_det = torch.empty_like(value), value.new_empty(value.shape[:-1])
    saved = None
    if save:
        saved = value.new_empty(found.saved_shape(network, log_det.numel(), value.dtype))
    found.call(
        "autoregressive", value.dtype, ctypes.addressof(kernel), ctypes.addressof(network), sequential,
        _addresses(parameters[::2]), _addresses(parameters[1::2]), log_det.numel(), value.data_ptr(),
        None if context is None else context.data_ptr(), out.data_ptr(), log_det.data_ptr(),
        None if saved is None else saved.data_ptr(),
    )  # fmt: skip
    return out, log_det, saved


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        found: Library,
        kernel: KernelMap,
        network: KernelNetwork,
        formula: LayerFormula,
        sequential: bool,
        masks: Sequence[Tensor],
        value: Tensor,
        context: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        out, log_det, saved = _apply(found, kernel, network, sequential, value, context, parameters, save=True)
        ctx.call = found, kernel, network, sequential
        ctx.formula, ctx.masks = formula, masks
        # What the network saw is among what is saved; a copy, as what is returned may be written to.
        ctx.save_for_backward(None if sequential else out.clone(), saved, value, context, *parameters)
        return out, log_det

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, by_log_det: Tensor) -> tuple[Tensor | None, ...]:
        out, saved, *inputs = ctx.saved_tensors
        if not may_pull(inputs[0], by_out, by_log_det):
            with torch.enable_grad():
                grads = pull_back_with_graph(ctx.formula, inputs, (by_out, by_log_det))
        else:
            grads = _transposed(ctx, out, saved, by_out, by_log_det, *inputs)
        return None, None, None, None, None, None, *grads


def _transposed(
    ctx: Any,
    out: Tensor | None,
    saved: Tensor,
    by_out: Tensor,
    by_log_det: Tensor,
    value: Tensor,
    context: Tensor | None,
    *parameters: Tensor,
) -> list[Tensor | None]:
    """The gradients by the value, the context, and each weight and bias."""
    found, kernel, network, sequential = ctx.call
    value, by_out, by_log_det = value.contiguous(), by_out.contiguous(), by_log_det.contiguous()
    weights = [weight.mT.contiguous() for weight in parameters[::2]]
    by_value = torch.empty_like(value)
    by_made = value.new_empty(sum(network.made), saved.shape[1])
    found.call(
        "autoregressive_pull", value.dtype, ctypes.addressof(kernel), ctypes.addressof(network), sequential,
        _addresses(weights), by_log_det.numel(), value.data_ptr(), None if out is None else out.data_ptr(),
        saved.data_ptr(), by_out.data_ptr(), by_log_det.data_ptr(), by_value.data_ptr(), by_made.data_ptr(),
    )  # fmt: skip
    needed = ctx.needs_input_grad[6:]
    rows = by_log_det.numel()
    by_units = by_made[:, :rows].split(network.made)
    by_context = None
    if context is not None and needed[1]:
        by_context = (weights[0][: context.shape[-1]] @ by_units[0]).mT.reshape(context.shape)
    grads: list[Tensor | None] = [by_value, by_context]
    seen = saved[:, :rows].split([*network.seen, saved.shape[0] - sum(network.seen)])
    for layer, (by_unit, mask) in enumerate(zip(by_units, ctx.masks, strict=True)):
        weight, bias = needed[2 + 2 * layer : 4 + 2 * layer]
        early = network.early_made[layer], network.early_seen[layer]
        grads += [
            _by_weight(by_unit, seen[layer], *early).mul_(mask) if weight else None,
            by_unit.sum(-1) if bias else None,
        ]
    return grads


def _by_weight(by_unit: Tensor, seen: Tensor, early_made: int, early_seen: int) -> Tensor:
    """The gradient of a weight, without half of what its mask takes out."""
    grad = by_unit.new_zeros(len(by_unit), len(seen))
    torch.mm(by_unit[:early_made], seen[:early_seen].mT, out=grad[:early_made, :early_seen])
    torch.mm(by_unit[early_made:], seen.mT, out=grad[early_made:])
    return grad
