"""Planar layers in a row by a compiled kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pushforward._native.elementwise import kernels_for, may_pull, wants_grad
from pushforward._native.layers import addresses
from pushforward._native.library import Library
from pushforward.numerics import pull_back_with_graph

Formula = Callable[..., tuple[Tensor, Tensor]]


def planar_by_kernel(formula: Formula, z: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor] | None:
    """x and the log-determinant of planar layers, one after the other; `None` where the kernel may not.

    Args:
        formula: the same by torch's operations, of z and the parameters; for second derivatives.
        z: shape `(*batch, features)`.
        parameters: of each layer (u, w, b) as they are learnt, shape `(2 * features + 1,)`.

    Returns:
        Shapes `(*batch, features)` and `(*batch,)`.
    """
    library = kernels_for(z, *parameters)
    size = 2 * z.shape[-1] + 1
    if library is None or not z.numel() or any(part.shape != (size,) for part in parameters):
        return None
    if wants_grad(z, *parameters):
        answer: tuple[Tensor, Tensor] = _Planar.apply(library, formula, z, *parameters)  # type: ignore[no-untyped-call]
        return answer
    x, log_det, _ = _apply(library, z, parameters, save=False)
    return x, log_det


def _apply(
    library: Library, z: Tensor, parameters: Sequence[Tensor], save: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    z, parameters = z.contiguous(), [part.contiguous() for part in parameters]
    x, log_det = torch.empty_like(z), z.new_empty(z.shape[:-1])
    saved = None
    if save:
        units = len(parameters) * (z.shape[-1] + 1)
        saved = z.new_empty(units, library.functions["saved_stride", z.dtype](log_det.numel()))
    library.call(
        "planar", z.dtype, len(parameters), z.shape[-1], addresses(parameters), log_det.numel(), z.data_ptr(),
        x.data_ptr(), log_det.data_ptr(), None if saved is None else saved.data_ptr(),
    )  # fmt: skip
    return x, log_det, saved


class _Planar(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, formula: Formula, z: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det, saved = _apply(library, z, parameters, save=True)
        ctx.library, ctx.formula = library, formula
        ctx.save_for_backward(saved, z, *parameters)
        return x, log_det

    @staticmethod
    def backward(ctx: Any, by_x: Tensor, by_log_det: Tensor) -> tuple[Tensor | None, ...]:
        saved, z, *parameters = ctx.saved_tensors
        if not may_pull(z, by_x, by_log_det):
            with torch.enable_grad():
                return None, None, *pull_back_with_graph(ctx.formula, (z, *parameters), (by_x, by_log_det))
        by_x, by_log_det = by_x.contiguous(), by_log_det.contiguous()
        parameters = [part.contiguous() for part in parameters]
        by_z, by_parameters = torch.empty_like(by_x), [torch.empty_like(part) for part in parameters]
        ctx.library.call(
            "planar_pull", z.dtype, len(parameters), z.shape[-1], addresses(parameters), by_log_det.numel(),
            saved.data_ptr(), by_x.data_ptr(), by_log_det.data_ptr(), by_z.data_ptr(), addresses(by_parameters),
        )  # fmt: skip
        return None, None, by_z, *by_parameters
