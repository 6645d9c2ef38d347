#!/usr/bin/env python3
"""A training step in one process and in several, at equal global batches: when several pay.

    torchrun --nproc-per-node 2 benchmarks/processes.py

A neural spline flow of six features, one thread per process; the runs alternate, and the medians are printed.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.distributed as dist

import pushforward as pf
from pushforward.training import is_writer

FEATURES = 6
ROUNDS = 5
STEPS = {256: 60, 2048: 20, 16384: 6}


def steps(x: torch.Tensor, batch_size: int, count: int, *, distributed: bool) -> list[float]:
    """Seconds of each step but the first two."""
    torch.manual_seed(0)
    times: list[float] = []
    pf.train(
        pf.MaximumLikelihood(pf.nsf(FEATURES)),
        x,
        batch_size=batch_size,
        max_steps=count + 2,
        distributed=distributed,
        progress=False,
        callback=lambda _: times.append(time.perf_counter()),
    )
    return np.diff(times)[1:].tolist()


def main() -> None:
    torch.set_num_threads(1)
    x = torch.randn(4 * max(STEPS), FEATURES, generator=torch.Generator().manual_seed(0))
    steps(x, 64, 1, distributed=True)  # connects the processes
    size = dist.get_world_size() if dist.is_initialized() else 1
    if is_writer():
        print(f"| global batch | 1 process, ms | {size} processes, ms | ratio |\n|---|---|---|---|", flush=True)
    for batch, count in STEPS.items():
        alone: list[float] = []
        together: list[float] = []
        for _ in range(ROUNDS):
            if is_writer():
                alone += steps(x, batch, count, distributed=False)
            together += steps(x, batch // size, count, distributed=True)  # the others wait here for the first
        one, several = np.median(alone) * 1e3 if alone else 0.0, np.median(together) * 1e3
        if is_writer():
            print(f"| {batch} | {one:.1f} | {several:.1f} | {one / several:.2f} |", flush=True)


if __name__ == "__main__":
    main()
