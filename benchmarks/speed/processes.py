"""The worker processes: one per library, of which one at a time has something to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.libraries import Library

ROOT = Path(__file__).resolve().parents[2]


def environment(threads: int) -> dict[str, str]:
    """One thread means one thread for every library that reads any of these."""
    ignored = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    kept = {name: value for name, value in os.environ.items() if name not in ignored}
    counts = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"], str(threads))
    xla = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return {**kept, **counts, "XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


def cores(threads: int) -> list[int]:
    """The same for all workers; the last ones, as the first serve most interrupts."""
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    if threads > len(available):
        sys.exit(f"speed: expected at most {len(available)} threads, the cores of this process, got {threads}")
    return list(available)[-threads:]


class Worker:
    """A library in its process, started anew if it has died."""

    def __init__(self, library: Library, python: str, threads: int) -> None:
        self.library = library
        self.command = [python, "-m", "benchmarks.speed.worker", library.module]
        self.command.append(",".join(str(core) for core in cores(threads)))
        self.environment = environment(threads)
        self.process: subprocess.Popen[str] | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command; a process that dies answers with a fault."""
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            if "fault" in (answer := self._read(self.process)):
                return answer
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the reading says that it is gone
        return self._read(self.process)

    def _read(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        if line := process.stdout.readline():
            return dict(json.loads(line))
        self.process = None
        return {"fault": f"the process of {self.library.name} ended with exit status {process.wait()}"}

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()  # closes its input, at which it ends
            self.process = None


def start_up(library: Library, python: str, threads: int) -> dict[str, float]:
    """Of one fresh process."""
    command = [python, "-m", "benchmarks.speed.startup", library.base, library.module]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def parity(library: str, python: str) -> float | None:
    """The largest difference between log-densities with the same weights."""
    command = [python, "-m", "benchmarks.speed.parity", library]
    done = subprocess.run(command, cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["difference"]) if done.returncode == 0 else None


def kernels(python: str) -> str:
    """Whether pushforward's compiled kernels are in use in its process."""
    command = [python, "-c", "import pushforward as pf; print(pf.native_status())"]
    done = subprocess.run(command, cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def versions(python: str, packages: list[str]) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {p: m.version(p) for p in sys.argv[1:]}\n"
        "print(json.dumps({'Python': platform.python_version(), **found}))"
    )
    return dict(json.loads(subprocess.run([python, "-c", code, *packages], capture_output=True, text=True).stdout))
