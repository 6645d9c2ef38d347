"""Every case of `./dev bench` on one thread and on two, round by round, for this library alone.

python -m benchmarks.threads
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

import pushforward as pf
from benchmarks.speed.cases import CASES
from benchmarks.speed.libraries.ours import flow as build

ROUNDS, SECONDS = 9, 0.1


def operations(flow: pf.Flow, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    optimizer = torch.optim.Adam(flow.parameters(), fused=True)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def reverse_kl() -> torch.Tensor:
        draws, log_q = flow.rsample_and_log_prob((len(x),))
        return (log_q + 0.5 * draws.square().sum(-1)).mean()

    return {
        "train": lambda: step(lambda: -flow.log_prob(x).mean()),
        "log_prob": torch.no_grad()(lambda: flow.log_prob(x)),
        "sample": torch.no_grad()(lambda: flow.sample((len(x),))),
        "reverse_kl": lambda: step(reverse_kl),
    }


def milliseconds(operation: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    operation()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        operation()
        calls += 1
    return (time.perf_counter() - start) / calls * 1e3


def main() -> None:
    print(f"compiled kernels: {pf.native_status()}\n")
    print("| case | operation | 1 thread, ms | 2 threads, ms | one / two |")
    print("| --- | --- | --- | --- | --- |")
    for case in CASES.values():
        torch.manual_seed(0)
        flow, x = build(case), torch.randn(case.batch, case.features)
        for name, operation in operations(flow, x).items():
            if name in case.operations:
                rounds = [(milliseconds(operation, 1), milliseconds(operation, 2)) for _ in range(ROUNDS)]
                one, two = (statistics.median(times) for times in zip(*rounds, strict=True))
                ratio = statistics.median(a / b for a, b in rounds)
                print(f"| {case.title} | {name} | {one:.2f} | {two:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
