"""Compiled kernels for the CPU, in the instruction set of the processor; invisible, and never needed."""

from pushforward._native.elementwise import KernelMap, affine_kernel, spline_kernel, with_kernel
from pushforward._native.function import kernels_for, parameters_apart
from pushforward._native.layers import ACTIVATIONS, KernelNetwork, LayerKernel, by_kernels, is_watched
from pushforward._native.library import NativeStatus, native_status, without_kernels
from pushforward._native.planar import planar_by_kernel

__all__ = [
    "ACTIVATIONS",
    "KernelMap",
    "KernelNetwork",
    "LayerKernel",
    "NativeStatus",
    "affine_kernel",
    "by_kernels",
    "is_watched",
    "kernels_for",
    "native_status",
    "parameters_apart",
    "planar_by_kernel",
    "spline_kernel",
    "with_kernel",
    "without_kernels",
]
