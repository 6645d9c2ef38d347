"""Time pushforward beside its peers.

    ./dev bench [--cases NAME ...] [--operations NAME ...] [--libraries NAME ...] [--rounds N] [--threads N]

One process per library, all on the same core; one of them at a time does something. A sample is the mean of as many
calls as fit into 50 ms, at least one; each round takes one of every library, in rotating order; the figure is the
median over the rounds. The results go to out/speed.json and, of a full run or with --docs, to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.speed import report
from benchmarks.speed.cases import CASES, OPERATIONS, Case
from benchmarks.speed.libraries import LIBRARIES
from benchmarks.speed.processes import ROOT, Worker, kernels, parity, start_up, versions
from benchmarks.speed.rounds import rotated

START_UPS = 3
PACKAGES = {
    "peers": ["torch", "zuko", "normflows", "nflows", "pyro-ppl", "torchflows", "FrEIA"],
    "jax": ["jax", "flowjax", "equinox", "optax"],
}
SHARED = ("nflows", "normflows")  # whose coupling splines are pushforward's, as `parity` shows


def say(text: str) -> None:
    print(f"speed: {text}", file=sys.stderr, flush=True)


def measure_case(case: Case, operations: list[str], workers: dict[str, Worker], rounds: int) -> list[dict[str, Any]]:
    """The cells of one case: a dictionary per operation and library."""
    built = {}
    for name, worker in workers.items():
        say(f"{case.name}: {name}")
        built[name] = worker.ask("build", case=case.name)
    cells = []
    for operation in [operation for operation in case.operations if operation in operations]:
        ready = {}
        for name, worker in workers.items():
            cell = {"case": case.name, "operation": operation, "library": name, **built[name]}
            cells.append(cell)
            if "parameters" in built[name]:
                cell.update(worker.ask("prepare", operation=operation))
                if "calls" in cell:
                    ready[name] = cell
        say(f"{case.name} {operation}: {len(ready)} libraries, {report.counted(rounds, 'round')}")
        time_rounds(ready, workers, rounds)
    return cells


def time_rounds(cells: dict[str, dict[str, Any]], workers: dict[str, Worker], rounds: int) -> None:
    samples: dict[str, list[float]] = {name: [] for name in cells}
    for r in range(rounds):
        for name in rotated(list(cells), r):
            answer = workers[name].ask("time")
            if "seconds" in answer:
                samples[name].append(answer["seconds"])
            else:
                cells[name].update(answer)
    for name, cell in cells.items():
        if len(samples[name]) == rounds:
            cell["samples"] = samples[name]


def measure_start_up(names: list[str], pythons: dict[str, str], threads: int) -> dict[str, dict[str, float]]:
    """The medians over fresh processes, which take turns."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for r in range(START_UPS):
        for name in rotated(names, r):
            say(f"start-up: {name}")
            library = LIBRARIES[name]
            runs[name].append(start_up(library, pythons[library.environment], threads))
    return {
        name: {key: median(run[key] for run in found) for key in found[0] if all(key in run for run in found)}
        for name, found in runs.items()
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS), metavar="NAME")
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-start-up", action="store_true", help="leave out the start-up table")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md of a partial run too")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder of speed.json")
    parser.add_argument("--peers", default=sys.executable, help="Python with the torch libraries")
    parser.add_argument("--jax", default=sys.executable, help="Python with flowjax")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error(f"expected rounds and threads >= 1, got {options.rounds} and {options.threads}")
    return options


def is_full(options: argparse.Namespace) -> bool:
    chosen = (options.cases, options.operations, options.libraries)
    everything = (CASES, OPERATIONS, LIBRARIES)
    return all(set(a) == set(b) for a, b in zip(chosen, everything, strict=True)) and not options.no_start_up


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    pythons = {"peers": options.peers, "jax": options.jax}
    libraries = [LIBRARIES[name] for name in options.libraries]
    workers = {library.name: Worker(library, pythons[library.environment], options.threads) for library in libraries}
    results: dict[str, Any] = {
        "machine": report.machine(),
        "kernels": kernels(options.peers),
        "threads": options.threads,
        "rounds": options.rounds,
        "versions": {
            name: versions(pythons[name], PACKAGES[name]) for name in {library.environment for library in libraries}
        },
        "libraries": options.libraries,
        "parity": {name: parity(name, options.peers) for name in options.libraries if name in SHARED},
        "cells": [],
        "start_up": {},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "speed.json"
    try:
        for name in options.cases:
            results["cells"] += measure_case(CASES[name], options.operations, workers, options.rounds)
            path.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        for worker in workers.values():
            worker.close()
    if not options.no_start_up:
        results["start_up"] = measure_start_up(options.libraries, pythons, options.threads)
        path.write_text(json.dumps(results, indent=1) + "\n")
    print(report.tables(results))
    if options.docs or is_full(options):
        (ROOT / "docs" / "benchmarks.md").write_text(report.page(results), encoding="utf-8")
        say("wrote docs/benchmarks.md")
    say(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
