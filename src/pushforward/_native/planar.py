"""Planar layers in a row by a compiled kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward._native.function import address_of, addresses, by_kernel, kernels_for, room_for
from pushforward._native.library import Library

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
    return by_kernel(_Planar(library, formula), z, parameters=parameters)


@dataclass(slots=True)
class _Planar:
    library: Library
    formula: Formula

    def apply(self, inputs: Sequence[Tensor], save: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        z, *parameters = inputs
        x, log_det = torch.empty_like(z), z.new_empty(z.shape[:-1])
        saved = None
        if save:
            units = len(parameters) * (z.shape[-1] + 1)
            saved = z.new_empty(units, self.library.functions["padded_rows", z.dtype](log_det.numel()))
        self.library.call(
            "planar", z.dtype, len(parameters), z.shape[-1], addresses(parameters), log_det.numel(), z.data_ptr(),
            x.data_ptr(), log_det.data_ptr(), address_of(saved),
        )  # fmt: skip
        return x, log_det, [] if saved is None else [saved]

    def pull(
        self,
        inputs: Sequence[Tensor],
        kept: Sequence[Tensor],
        by_x: Tensor,
        by_log_det: Tensor,
        wanted: Sequence[bool],
        places: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        z, *parameters = inputs
        by_z, by_parameters = torch.empty_like(z), room_for(parameters, places[1:])
        self.library.call(
            "planar_pull", z.dtype, len(parameters), z.shape[-1], addresses(parameters), by_log_det.numel(),
            kept[0].data_ptr(), by_x.data_ptr(), by_log_det.data_ptr(), by_z.data_ptr(), addresses(by_parameters),
        )  # fmt: skip
        return [by_z, *by_parameters]
