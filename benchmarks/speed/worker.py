"""One library in a process of its own: reads commands from standard input, a JSON object a line, and answers likewise.

    python -m benchmarks.speed.worker MODULE CORES

Commands: `build` (a case), `prepare` (an operation), `time`. What fails is answered as `{"fault": ...}`, what a library
does not have as `{"unavailable": ...}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed import checks
from benchmarks.speed.cases import CASES, Unavailable, data

SAMPLE_SECONDS = 0.05
TRAINING_STEPS = 20
WARM_UP_CALLS = 3
COMPILED_WITHIN = 1e-3  # nats


class Worker:
    def __init__(self, module: str) -> None:
        self.library = importlib.import_module(f"benchmarks.speed.libraries.{module}")
        self.model: Any = None
        self.call: Callable[[], object] = lambda: None
        self.calls = 1

    def build(self, case: str) -> dict[str, Any]:
        self.model, self.call = None, lambda: None
        gc.collect()
        chosen = CASES[case]
        if "torch" in sys.modules:  # flowjax takes keys
            sys.modules["torch"].manual_seed(0)
        model = self.library.build(chosen)
        step = model.operation(chosen.warm_up)
        for _ in range(TRAINING_STEPS):
            step()
        model.exact(True)
        faults = checks.check(model, chosen)
        model.exact(False)
        if model.compile is not None:
            faults += compile_and_compare(model, chosen)
        self.model = model
        difference = checks.parameters_differ(model.parameters, chosen)
        return {
            "parameters": model.parameters,
            "faults": faults,
            "remarks": [remark for remark in (difference, model.remark) if remark],
            "unequal": model.unequal,
        }

    def prepare(self, operation: str) -> dict[str, Any]:
        """Warm up, compilation included, and find how many calls fill a sample."""
        self.call = self.model.operation(operation)
        for _ in range(WARM_UP_CALLS):
            self.call()
        begin = time.perf_counter()
        self.call()
        self.calls = max(1, int(SAMPLE_SECONDS / (time.perf_counter() - begin)))
        return {"calls": self.calls}

    def take_sample(self) -> dict[str, Any]:
        """Seconds of a call, the mean of several."""
        gc.collect()
        if self.calls > 1:  # after other processes the caches are theirs, as they never are in a loop of training
            self.call()
        begin = time.perf_counter()
        for _ in range(self.calls):
            self.call()
        return {"seconds": (time.perf_counter() - begin) / self.calls}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        do = command.pop("do")
        try:
            return {"build": self.build, "prepare": self.prepare, "time": self.take_sample}[do](**command)
        except Unavailable as reason:
            return {"unavailable": str(reason)}
        except Exception as error:  # of any library: it costs one cell, not the run
            traceback.print_exc()
            return {"fault": f"{type(error).__name__}: {error}".splitlines()[0][:200]}


def compile_and_compare(model: Any, case: Any) -> list[str]:
    eager = model.log_prob(data(case))
    model.compile()
    compiled = model.log_prob(data(case))
    if case.family == "continuous":  # the estimate differs from call to call
        return []
    gap = float(np.abs(compiled - eager).max())
    return [] if gap <= COMPILED_WITHIN else [f"compiled and eager log_prob disagree by {gap:.2g} nats"]


def pin(cores: str) -> None:
    """Before the library starts threads, which inherit it; not every system has it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def main() -> None:
    module, cores = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    pin(cores)
    worker = Worker(module)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
