"""Scalar maps by compiled kernels, where that is possible, and by torch's operations elsewhere."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from pushforward._native.library import DTYPES, Library, library
from pushforward.numerics import is_traced, pull_back_with_graph

Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Owner = TypeVar("Owner")
MOST_BINS = 64
KINDS = {"affine": 0, "rational_quadratic": 1}
# What torch dispatches an ordinary tensor on the CPU by: not lazily negated, of no transform, and on no other device.
with torch.inference_mode():
    _of_inference = torch.empty(0)
PLAIN = {torch._C._dispatch_keys(tensor).raw_repr() for tensor in (torch.empty(0), _of_inference)}
TAILS = {"linear": 0, "free": 1, "circular": 2}


class KernelMap(ctypes.Structure):
    """A scalar map in one direction, as the kernels are told of it."""

    _fields_ = [
        ("kind", ctypes.c_int32),
        ("inverse", ctypes.c_int32),
        ("bins", ctypes.c_int32),
        ("tails", ctypes.c_int32),
        ("bound", ctypes.c_double),
        ("min_bin", ctypes.c_double),
        ("min_slope", ctypes.c_double),
        ("slope_shift", ctypes.c_double),
    ]


@cache
def affine_kernel(log_scale_bound: float, inverse: bool) -> KernelMap:
    """For `Affine`."""
    return KernelMap(KINDS["affine"], inverse, 0, 0, log_scale_bound)


@cache
def spline_kernel(
    bins: int, bound: float, tails: str, min_bin: float, min_slope: float, inverse: bool
) -> KernelMap | None:
    """For `RationalQuadratic`, unless it has more bins than the kernel has room for."""
    if bins > MOST_BINS:
        return None
    shift = math.log(math.expm1(1 - min_slope))
    kind = KINDS["rational_quadratic"]
    return KernelMap(kind, inverse, bins, TAILS[tails], bound, min_bin, min_slope, shift)


def are_plain(*tensors: Tensor | None) -> bool:
    """Whether kernels may read the memory of these: ordinary tensors on the CPU of one dtype that they know."""
    dtype = None
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
            return False
        if torch._C._dispatch_keys(tensor).raw_repr() not in PLAIN or tensor.dtype != (dtype or tensor.dtype):
            return False
        dtype = tensor.dtype
    return dtype in DTYPES


def kernels_for(*tensors: Tensor | None) -> Library | None:
    """The library, if it may compute with these tensors here and now."""
    if is_traced() or (found := library()) is None or torch.is_autocast_enabled("cpu") or not are_plain(*tensors):
        return None
    return found


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether a gradient by one of these will be asked for."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def may_pull(*tensors: Tensor) -> bool:
    """Whether a kernel may find a gradient here and now: not if that gradient is to have derivatives itself."""
    return not (torch.is_grad_enabled() or is_traced()) and are_plain(*tensors)


def with_kernel(
    formula: Callable[[Owner, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Callable[[Owner, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Let `forward` or `inverse` of a transformer go by its `kernel`, of which its own text is the definition.

    The kernel serves ordinary tensors on the CPU, float32 and float64, with a set of parameters for each value. All
    else gets the formula: compilers, function transforms, forward mode, second derivatives, other devices and dtypes.
    """
    inverse = formula.__name__ == "inverse"

    @wraps(formula)
    def dispatched(self: Any, value: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        found = kernels_for(value, h)
        batch = h.shape[:-1]
        fits = found is not None and h.dim() > 0 and h.shape[-1] == self.num_params and h.numel() > 0
        if found is None or not fits or (kernel := self.kernel(inverse)) is None:
            return formula(self, value, h)
        if value.shape != batch:
            if torch.broadcast_shapes(value.shape, batch) != batch:  # the formula shares what is common to many values
                return formula(self, value, h)
            value = value.expand(batch)
        if wants_grad(value, h):
            found_values: tuple[Tensor, Tensor] = _Elementwise.apply(  # type: ignore[no-untyped-call]
                found, kernel, lambda value, h: formula(self, value, h), value, h
            )
            return found_values
        return _apply(found, kernel, value.contiguous(), h.contiguous())

    return dispatched


def _apply(found: Library, kernel: KernelMap, value: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    out, log_slope = torch.empty_like(value), torch.empty_like(value)
    pointers = [tensor.data_ptr() for tensor in (value, h, out, log_slope)]
    found.call("map", value.dtype, ctypes.addressof(kernel), value.numel(), *pointers)
    return out, log_slope


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, found: Library, kernel: KernelMap, formula: Formula, value: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, log_slope = _apply(found, kernel, value.contiguous(), h.contiguous())
        ctx.found, ctx.kernel, ctx.formula = found, kernel, formula
        # Copies, as what is returned may be written to.
        ctx.save_for_backward(value, h, out.clone(), log_slope.clone())
        return out, log_slope

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, by_log_slope: Tensor) -> tuple[Tensor | None, ...]:
        value, h, out, log_slope = ctx.saved_tensors
        if not may_pull(value, by_out, by_log_slope):
            with torch.enable_grad():
                grads = pull_back_with_graph(ctx.formula, (value, h), (by_out, by_log_slope))
            return None, None, None, *grads
        inputs = [tensor.contiguous() for tensor in (value, h, out, log_slope, by_out, by_log_slope)]
        by_value, by_h = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
        tensors = (*inputs, by_value, by_h)
        pointers = [tensor.data_ptr() for tensor in tensors]
        ctx.found.call("map_pull", value.dtype, ctypes.addressof(ctx.kernel), value.numel(), *pointers)
        return None, None, None, by_value, by_h
