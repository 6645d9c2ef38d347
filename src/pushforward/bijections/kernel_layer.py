"""Layers of vectors that a compiled kernel can compute as a whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pushforward._native import LayerKernel, by_kernels, kernels_for
from pushforward.bijections.base import Bijection, Direction


class KernelLayer(Bijection):
    """A network and a scalar map, by a compiled kernel where that is possible and by torch's operations elsewhere.

    Several in a row are one function and one call, which spares torch most of its bookkeeping.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return KernelLayer.fused([self], "forward", z, context) or self._forward(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return KernelLayer.fused([self], "inverse", x, context) or self._inverse(x, context)

    @property
    def outruns_compiler(self) -> bool:
        return self.layer_kernel("inverse") is not None

    @staticmethod
    def fused(
        layers: Sequence[Any], direction: Direction, value: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        if kernels_for(value) is None:
            return None
        kernels = [layer.layer_kernel(direction) for layer in layers]
        return None if None in kernels else by_kernels(kernels, value, context)

    @abstractmethod
    def _forward(self, z: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        """By torch's operations, and from other weights and biases if they are given."""

    @abstractmethod
    def _inverse(self, x: Tensor, context: Tensor | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        """As `_forward`."""

    @abstractmethod
    def layer_kernel(self, direction: Direction) -> LayerKernel | None:
        """What computes the layer as it is now; `None` if there is no compiled kernel for it."""
