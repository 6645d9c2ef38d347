"""Builds the compiled kernels if there is a compiler; everything else stands in pyproject.toml.

One library is made for each instruction set of the processor, called through ctypes, so that one wheel serves every
Python. Without a C++ compiler the installation goes on without them. The environment variable PUSHFORWARD_NATIVE=0
leaves them out, PUSHFORWARD_NATIVE=require makes a failed build fatal.
"""

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

FOLDER = Path("src/pushforward/_native")
WISH = os.environ.get("PUSHFORWARD_NATIVE", "")
# A NaN stays a NaN: never -ffast-math.
ARITHMETIC = ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast"]
FLAGS = ["-std=c++17", "-O3", "-g0", "-fno-wrapv", "-fvisibility=hidden", "-Wno-psabi", *ARITHMETIC]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]


if WISH not in ("", "0", "require"):
    sys.exit(f"PUSHFORWARD_NATIVE: expected 0, require or nothing, got {WISH!r}")


def instruction_sets() -> dict[str, list[str]]:
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return {"baseline": [], **({"avx2": AVX2, "avx512": AVX512} if is_x86 else {})}


def kernels(name: str, flags: list[str]) -> Extension:
    headers = sorted(path.as_posix() for path in FOLDER.glob("*.h"))
    source = (FOLDER / "kernels.cpp").as_posix()
    return Extension(
        f"pushforward._native.kernels_{name}",
        [source],
        depends=headers,
        extra_compile_args=[*FLAGS, *flags],
        extra_link_args=["-pthread"],
        language="c++",
    )


class BuildKernels(build_ext):
    """Plain libraries, not Python modules, and none where the compiler fails."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", os.sep) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)  # of another time
        if WISH == "0":
            return
        self.build_temp = str(Path(self.build_temp) / ext.name)  # they share a source
        try:
            if sys.platform == "win32":
                raise PlatformError("there are no kernels for Windows")
            super().build_extension(ext)
        except Exception as error:
            if WISH == "require":
                raise
            print(
                f"pushforward: {ext.name} was not built, torch's operations will do its work: {error}", file=sys.stderr
            )
        finally:
            self.build_temp = str(Path(self.build_temp).parent)

    def built(self) -> list[Extension]:
        return [ext for ext in self.extensions if Path(self.get_ext_fullpath(ext.name)).exists()]

    def copy_extensions_to_source(self) -> None:
        for path in FOLDER.glob("kernels_*.so"):
            path.unlink()
        self.inplace, wanted = False, self.extensions
        self.extensions = self.built()
        try:
            super().copy_extensions_to_source()
        finally:
            self.extensions, self.inplace = wanted, True

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if Path(path).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {built: source for built, source in super().get_output_mapping().items() if Path(built).exists()}


class Wheel(bdist_wheel):
    """For any Python; for any platform too if nothing was built."""

    def has_kernels(self) -> bool:
        return any(Path(self.bdist_dir or "").rglob("kernels_*.so"))

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2] if self.has_kernels() else "any")

    def write_wheelfile(self, *args: str) -> None:
        self.root_is_pure = not self.has_kernels()
        super().write_wheelfile(*args)


setup(
    ext_modules=[kernels(name, flags) for name, flags in instruction_sets().items()],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)
