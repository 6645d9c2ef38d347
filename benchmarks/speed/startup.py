"""One library's start in a fresh process: prints seconds and MiB as JSON.

    python -m benchmarks.speed.startup BASE MODULE

The time to the first results counts from the start of the process, the interpreter's own aside.
"""

from __future__ import annotations

import time

BEGIN = time.perf_counter()

import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

from benchmarks.speed.cases import CASES  # noqa: E402

CASE = "real_nvp_2"


def measure(base: str, module: str) -> dict[str, float]:
    before = time.perf_counter()
    importlib.import_module(base)
    middle = time.perf_counter()
    library = importlib.import_module(f"benchmarks.speed.libraries.{module}")
    figures = {"base_import": middle - before, "import": time.perf_counter() - middle}
    model = library.build(CASES[CASE])
    if model.compile is not None:
        model.compile()
    model.operation("log_prob")()
    figures["first_log_prob"] = time.perf_counter() - BEGIN
    model.operation("train")()
    figures["first_step"] = time.perf_counter() - BEGIN
    if peak := peak_memory():
        figures["peak_mib"] = peak
    return figures


def peak_memory() -> float | None:
    """MiB, where the system counts it."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    print(json.dumps(measure(*sys.argv[1:])), file=answers)
