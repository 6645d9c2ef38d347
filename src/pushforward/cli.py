"""The command line. Torch is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from pushforward import __version__

app = App(name="pushforward", help="Normalizing flows: fit, sample and score tables.", version=__version__)
demo = App(name="demo", help="Teaching demos; each writes pictures, the model and its figures to a folder.")
app.command(demo)
bench = App(name="bench", help="Measurements against known answers; each prints a table and writes a JSON file.")
app.command(bench)

FlowName = Annotated[str, Parameter(help="Recipe, as nsf, maf or planar; a wrong name gets the list of all.")]
Out = Annotated[Path, Parameter(help="Folder to write to.")]
Seed = Annotated[int, Parameter(help="Seed of everything random.")]


@app.command
def fit(
    table: Annotated[Path, Parameter(help="CSV or .npy file of numbers.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="File for the model.")],
    flow: FlowName = "nsf",
    max_steps: Annotated[int, Parameter(help="Upper limit of the number of training steps.")] = 1000,
    seed: Seed = 0,
) -> None:
    """Fit a flow to a table; its densities are in the table's own units."""
    from pushforward.io import save
    from pushforward.tabular import read_table
    from pushforward.tabular.fit import fit_table

    _check_folder(output)
    rows = read_table(table)
    model, result = fit_table(rows, flow=flow, max_steps=max_steps, seed=seed)
    save(model, output, info={"columns": list(rows.columns), "training": str(result)})
    print(f"{len(rows.values)} rows, {len(rows.columns)} columns: {result}")
    print(f"wrote {output}")


@app.command
def sample(
    model: Annotated[Path, Parameter(help="Model that `fit` wrote.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="CSV file for the new rows.")],
    rows: Annotated[int, Parameter(name=["--rows", "-n"], help="Number of rows.")] = 1000,
    seed: Seed = 0,
) -> None:
    """Draw new rows, with the columns of the table that the model was fitted to."""
    import torch

    from pushforward.tabular import write_csv

    if rows < 1:
        raise ValueError(f"expected one or more rows, got {rows}")
    _check_folder(output)
    flow, columns = _load_table_model(model)
    torch.manual_seed(seed)
    write_csv(output, columns, flow.sample(rows).numpy())
    print(f"wrote {rows} rows to {output}")


@app.command
def score(
    model: Annotated[Path, Parameter(help="Model that `fit` wrote.")],
    table: Annotated[Path, Parameter(help="CSV or .npy file with the model's columns.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="CSV file for the log-densities.")],
) -> None:
    """Write the log-density of each row, in nats, in the table's own units."""
    import torch

    from pushforward.tabular import check_columns, read_table, write_csv

    _check_folder(output)
    flow, columns = _load_table_model(model)
    rows = check_columns(read_table(table), columns)
    with torch.no_grad():
        scores = torch.cat([flow.log_prob(block) for block in torch.as_tensor(rows.values).split(10_000)])
    write_csv(output, ["log_prob"], scores.unsqueeze(-1).numpy())
    print(f"{len(scores)} rows, mean log-density {scores.mean():.4f} nats; wrote {output}")


@demo.command
def moons(*, out: Out = Path("out/moons"), flow: FlowName = "real_nvp", steps: int = 5001, seed: Seed = 0) -> None:
    """RealNVP on two moons: both directions, the density, the path layer by layer, the distance to the truth."""
    from pushforward.demos.moons import run

    print(run(out, flow=flow, steps=steps, seed=seed))


@demo.command
def ring(*, out: Out = Path("out/ring"), flow: FlowName = "planar", steps: int | None = None, seed: Seed = 0) -> None:
    """Variational inference with planar flows on a ring-shaped density."""
    from pushforward.demos.ring import run

    print(run(out, flow=flow, steps=steps, seed=seed))


@demo.command
def mixture(
    *,
    out: Out = Path("out/mixture"),
    flow: Annotated[str, Parameter(help="A recipe, `mixed` for a chain of three kinds, or `all`.")] = "all",
    steps: int = 2000,
    seed: Seed = 0,
) -> None:
    """Variational inference on two Gaussians with flows of every kind, and every intermediate step."""
    from pushforward.demos.mixture import run

    print(run(out, flow=flow, steps=steps, seed=seed))


@demo.command
def faithful(*, out: Out = Path("out"), flow: FlowName = "nsf", steps: int = 1000, seed: Seed = 0) -> None:
    """The bundled Old Faithful eruptions: a fitted model, new rows, pictures, a comparison."""
    from pushforward.demos.faithful import run

    print(run(out, flow=flow, steps=steps, seed=seed))


@bench.command
def inference(
    *,
    out: Out = Path("out/bench"),
    seeds: Annotated[int, Parameter(help="Fits of each target.")] = 5,
    data: Annotated[Path | None, Parameter(help="Folder with brownian.csv and seeds.csv.")] = None,
    only: Annotated[str, Parameter(help="Only targets whose name holds this text.")] = "",
    max_seconds: Annotated[float, Parameter(help="Budget of each fit.")] = 60.0,
) -> None:
    """Fit known log densities with default settings: evidences, modes, verdicts; an hour and a half."""
    from pushforward.benchmarks.inference import run

    print(run(out, seeds=seeds, data=data, only=only, max_seconds=max_seconds))


@bench.command
def density(
    *,
    out: Out = Path("out/bench"),
    seeds: Annotated[int, Parameter(help="Fits of each density and table.")] = 2,
    data: Annotated[Path | None, Parameter(help="Folder with tables: protein/data.csv.gz, kin40k, bike, wine.")] = None,
    only: Annotated[str, Parameter(help="Only what holds this text in its name.")] = "",
    max_seconds: Annotated[float, Parameter(help="Budget of each fit.")] = 60.0,
) -> None:
    """Fit draws of known densities, and real tables, with default settings: the likelihood lost; half an hour."""
    from pushforward.benchmarks.density import run

    print(run(out, seeds=seeds, data=data, only=only, max_seconds=max_seconds))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what a user can get wrong ends in one line and code 2."""
    # Batches of some hundred rows: a second thread would cost more than it gives.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Importing torch makes millions of objects: at Python's own thresholds a third of that time goes to the collector.
    gc.set_threshold(200_000, 30, 30)
    try:
        app(arguments, result_action="return_value")
    except (ValueError, OSError, ImportError) as error:
        print("pushforward: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pushforward: interrupted", file=sys.stderr)
        return 130
    return 0


def _check_folder(output: Path) -> None:
    """Refuse before the work, not after it."""
    if output.is_dir():
        raise ValueError(f"{output}: is a folder, not a file")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: cannot be written: there is no folder {output.parent}")


def _load_table_model(path: Path) -> tuple[Any, list[str]]:
    from pushforward.io import load, load_info

    columns = load_info(path).get("columns")
    if columns is None:
        raise ValueError(f"{path}: a flow, but not one that `pushforward fit` fitted to a table")
    return load(path), columns
