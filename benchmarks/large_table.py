#!/usr/bin/env python3
"""Train from a `.npy` and from a Parquet file of 10^7 x 10 numbers: resident memory, and the loader beside the step.

    python benchmarks/large_table.py [--rows N] [--steps N]

Each file is read in a fresh process, which takes the columns' statistics, holds rows out, trains a small neural spline
flow, and then only reads one epoch. The files take 0.9 GB in a temporary folder (TMPDIR chooses where).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

COLUMNS = 10
BLOCK = 500_000
BATCH = 1024


def write(folder: Path, rows: int) -> list[Path]:
    """Two clusters, block by block, in both formats."""
    import pyarrow
    from pyarrow import parquet

    paths = [folder / "table.npy", folder / "table.parquet"]
    schema = pyarrow.schema([(f"x{i + 1}", pyarrow.float32()) for i in range(COLUMNS)])
    array = open_memmap(paths[0], mode="w+", dtype=np.float32, shape=(rows, COLUMNS))
    generator = np.random.default_rng(0)
    with parquet.ParquetWriter(paths[1], schema) as writer:
        for start in range(0, rows, BLOCK):
            block = generator.standard_normal((min(BLOCK, rows - start), COLUMNS), dtype=np.float32)
            block += 100 + 5 * (generator.random((len(block), 1)) < 0.3)
            array[start : start + len(block)] = block
            writer.write_table(pyarrow.table(list(block.T), schema=schema))
    array.flush()
    return paths


def measure(path: Path, steps: int) -> dict[str, float]:
    import torch

    import pushforward as pf

    torch.set_num_threads(1)
    table = pf.FileRows(path)
    begin = time.perf_counter()
    columns = table.statistics()
    statistics = time.perf_counter() - begin
    standardize = pf.Standardize(columns.mean, columns.sd)
    rows = table.map(lambda x: standardize.inverse(x)[0])
    times: list[float] = []
    result = pf.train(
        pf.MaximumLikelihood(pf.nsf(COLUMNS, layers=3, hidden_features=(32, 32))),
        rows,
        max_steps=steps,
        batch_size=BATCH,
        patience=10,
        callback=lambda _: times.append(time.perf_counter()),
    )
    batches = rows.shuffled(BATCH, seed=0)
    begin = time.perf_counter()
    for step in range(batches.steps_per_epoch):
        batches(step)
    loader = (time.perf_counter() - begin) / batches.steps_per_epoch
    return {
        "bytes": path.stat().st_size,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "statistics": statistics,
        "step": float(np.median(np.diff(times))),
        "loader": loader,
        "loss": result.losses[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.steps)))
        return
    print(f"{options.rows:,} rows, {COLUMNS} columns; {options.steps} steps of {BATCH} rows; one thread")
    print("| file | MB | peak memory, MB | statistics, s | step, ms | loader, ms per batch | loader, rows/s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in write(Path(folder), options.rows):
            command = [sys.executable, __file__, "--measure", str(path), "--steps", str(options.steps)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            print(
                f"| {path.suffix} | {found['bytes'] / 1e6:.0f} | {found['peak'] / 1e6:.0f} | {found['statistics']:.1f} "
                f"| {found['step'] * 1e3:.1f} | {found['loader'] * 1e3:.2f} | {BATCH / found['loader']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
