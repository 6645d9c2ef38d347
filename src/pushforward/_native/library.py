"""The compiled library: which one is there, which one is loaded, and how to call it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

ABI = 4
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
FOLDER = Path(__file__).parent
DTYPES = {torch.float32: "f32", torch.float64: "f64"}


@dataclass(frozen=True)
class NativeStatus:
    """Whether the compiled kernels are in use.

    Attributes:
        instruction_set: "baseline", "avx2" or "avx512"; `None` if the kernels are not in use.
        reason: why they are not, or why it is this set.

    Example:
        >>> print(pf.NativeStatus("avx2", "the best of this processor"))
        in use, avx2: the best of this processor
    """

    instruction_set: str | None
    reason: str

    def __str__(self) -> str:
        if self.instruction_set is None:
            return f"not in use, torch's operations do the same: {self.reason}"
        return f"in use, {self.instruction_set}: {self.reason}"


class Library:
    """The functions of one compiled library, by name and dtype."""

    def __init__(self, path: Path) -> None:
        self.handle = ctypes.CDLL(str(path))
        if (found := self.handle.pushforward_abi()) != ABI:
            raise OSError(
                f"{path.name} is of another version (interface {found}, expected {ABI}); install pushforward anew"
            )
        pointer, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
        arguments: dict[str, list[Any]] = {
            "padded_rows": [size],
            "map": [pointer, size, *[pointer] * 4, size],
            "map_pull": [pointer, size, *[pointer] * 8, size],
            "layers_saved": [flag, pointer, size],
            "layers": [flag, pointer, pointer, size, *[pointer] * 5, size],
            "layers_pull": [flag, pointer, pointer, size, *[pointer] * 7, size],
            "planar": [flag, flag, pointer, size, *[pointer] * 4, size],
            "planar_pull": [flag, flag, pointer, size, *[pointer] * 5, size],
        }
        self.functions: dict[tuple[str, torch.dtype], Any] = {}
        for name, types in arguments.items():
            for dtype, suffix in DTYPES.items():
                function = getattr(self.handle, f"pushforward_{name}_{suffix}")
                function.argtypes = types
                self.functions[name, dtype] = function
        # torch's OpenMP, which it loads for all to see.
        parallel = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
        self.handle.pushforward_set_region(None if parallel is None else ctypes.cast(parallel, pointer))
        for dtype in DTYPES:
            self.functions["padded_rows", dtype].restype = size
            self.functions["layers_saved", dtype].restype = size

    def call(self, name: str, dtype: torch.dtype, *arguments: Any) -> None:
        if self.functions[name, dtype](*arguments, torch.get_num_threads()):
            raise RuntimeError(f"pushforward's kernel {name} refused its arguments; PUSHFORWARD_NATIVE=0 goes without")


def native_status() -> NativeStatus:
    """Whether the compiled kernels for the CPU are in use, and why.

    They are chosen at the first use: the environment variable `PUSHFORWARD_NATIVE=0` turns them off, `require` makes
    their lack an error, and `PUSHFORWARD_ISA=baseline` or `avx2` bounds the instruction set.

    Example:
        >>> pf.native_status().instruction_set in ("baseline", "avx2", "avx512", None)
        True
    """
    return _load()[1]


def library() -> Library | None:
    """The loaded library, or `None` if torch's operations have to do."""
    return None if _paused.get() else _load()[0]


_paused = ContextVar("paused", default=False)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within this block, torch's operations do all the work."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


@cache
def _load() -> tuple[Library | None, NativeStatus]:
    wish = os.environ.get("PUSHFORWARD_NATIVE", "")
    if wish not in ("", "0", "require"):
        raise ValueError(f"PUSHFORWARD_NATIVE: expected 0, require or nothing, got {wish!r}")
    if wish == "0":
        return None, NativeStatus(None, "PUSHFORWARD_NATIVE=0")
    loaded, status = _first_that_loads(_highest())
    if loaded is None and wish == "require":
        raise RuntimeError(f"PUSHFORWARD_NATIVE=require, but the compiled kernels are {status}")
    if loaded is not None:
        _keep_freed_memory()
    return loaded, status


def _keep_freed_memory() -> None:
    """Let malloc keep what one step frees for the next; it would go back to the system and come again page by page.

    glibc keeps blocks up to the size of the largest that was ever freed, within 32 MiB. This one is never touched.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _highest() -> tuple[str, str]:
    """The instruction set to use at most, and why."""
    capability = torch.backends.cpu.get_cpu_capability()
    highest = {"AVX2": "avx2", "AVX512": "avx512"}.get(capability, "baseline")
    wish = os.environ.get("PUSHFORWARD_ISA", highest)
    if wish not in INSTRUCTION_SETS:
        raise ValueError(f"PUSHFORWARD_ISA: expected one of {', '.join(INSTRUCTION_SETS)}, got {wish!r}")
    if INSTRUCTION_SETS.index(wish) < INSTRUCTION_SETS.index(highest):
        return wish, f"PUSHFORWARD_ISA={wish}"
    return highest, f"the best of this processor, torch says {capability}"


def _first_that_loads(highest: tuple[str, str]) -> tuple[Library | None, NativeStatus]:
    name, reason = highest
    problem = "the library was not built, for want of a C++ compiler or on a system that it is not made for"
    for instruction_set in reversed(INSTRUCTION_SETS[: INSTRUCTION_SETS.index(name) + 1]):
        path = FOLDER / f"kernels_{instruction_set}.so"
        if not path.exists():
            continue
        try:
            return Library(path), NativeStatus(instruction_set, reason)
        except (OSError, AttributeError) as error:
            problem = str(error)
    return None, NativeStatus(None, problem)
