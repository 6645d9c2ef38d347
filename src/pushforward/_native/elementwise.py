"""Scalar maps by compiled kernels, where that is possible, and by torch's operations elsewhere."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from pushforward._native.function import by_kernel, kernels_for
from pushforward._native.library import Library

Owner = TypeVar("Owner")
MOST_BINS = 64
KINDS = {"affine": 0, "rational_quadratic": 1}
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
        return by_kernel(_Elementwise(found, kernel, lambda value, h: formula(self, value, h)), value, h)

    return dispatched


@dataclass(slots=True)
class _Elementwise:
    library: Library
    map: KernelMap
    formula: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def apply(self, inputs: Sequence[Tensor], save: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        value, h = inputs
        out, log_slope = torch.empty_like(value), torch.empty_like(value)
        self._call("map", value, h, out, log_slope)
        # Copies, as what is returned may be written to.
        return out, log_slope, [out.clone(), log_slope.clone()] if save else []

    def pull(
        self,
        inputs: Sequence[Tensor],
        kept: Sequence[Tensor],
        by_out: Tensor,
        by_log_slope: Tensor,
        wanted: Sequence[bool],
        places: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        by_value, by_h = (torch.empty_like(each) for each in inputs)
        self._call("map_pull", *inputs, *kept, by_out, by_log_slope, by_value, by_h)
        return [by_value, by_h]

    def _call(self, name: str, value: Tensor, *others: Tensor) -> None:
        pointers = [tensor.data_ptr() for tensor in (value, *others)]
        self.library.call(name, value.dtype, ctypes.addressof(self.map), value.numel(), *pointers)
