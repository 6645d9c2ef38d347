"""Compiled kernels for the CPU, in the instruction set of the processor; invisible, and never needed."""

from pushforward._native.autoregressive import ACTIVATIONS, KernelNetwork, autoregressive_layer
from pushforward._native.elementwise import KernelMap, affine_kernel, kernels_for, spline_kernel, with_kernel
from pushforward._native.library import NativeStatus, native_status, without_kernels

__all__ = [
    "ACTIVATIONS",
    "KernelMap",
    "KernelNetwork",
    "NativeStatus",
    "affine_kernel",
    "autoregressive_layer",
    "kernels_for",
    "native_status",
    "spline_kernel",
    "with_kernel",
    "without_kernels",
]
