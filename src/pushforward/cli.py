"""The command line. Torch is imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env, Toml

from pushforward import __version__

if TYPE_CHECKING:
    from pushforward.tabular.data_fit import DataFit
    from pushforward.tabular.schema import Schema

CONFIG, PREFIX = "pushforward.toml", "PUSHFORWARD_"
HELP = f"""Normalizing flows: densities of tables, new rows, scores, reports.

Tables are .csv, .parquet, .feather, .npy, .h5 or .hdf5 files. Every option can also come from the environment, as
{PREFIX}FIT_MAX_SECONDS=10, or from {CONFIG} in the working folder, as max_seconds = 10 under [fit]; flags win over the
environment, and that over the file.
"""

app = App(name="pushforward", help=HELP, version=__version__, config=(Env(PREFIX), Toml(CONFIG)))
demo = App(name="demo", help="Teaching demos; each writes pictures, the model and its figures to a folder.")
app.command(demo)
bench = App(name="bench", help="Measurements against known answers; each prints a table and writes a JSON file.")
app.command(bench)

FlowName = Annotated[str, Parameter(help="Recipe, as nsf, maf or planar; a wrong name gets the list of all.")]
Out = Annotated[Path, Parameter(help="Folder to write to.")]
Seed = Annotated[int, Parameter(help="Seed of everything random.")]
Model = Annotated[Path, Parameter(help="Model that `fit` wrote.")]
Output = Annotated[Path, Parameter(name=["--output", "-o"], help="File to write; its name says the format.")]
Rows = Annotated[Path, Parameter(help="File with the model's columns, those of its context too; others are ignored.")]


@app.command
def fit(
    table: Annotated[Path, Parameter(help="File of rows.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="File for the model.")],
    context: Annotated[
        list[str] | None,
        Parameter(consume_multiple=True, negative=(), help="Columns that the density of the others is conditional on."),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=True,
            negative=(),
            help="Kinds of columns, as NAME=KIND: real, positive, bounded(LOW, HIGH), integer, angle, ordered, "
            "categorical or constant. Others are inferred.",
        ),
    ] = None,
    weights: Annotated[str | None, Parameter(help="Column that says how often each row counts.")] = None,
    quality: Annotated[
        Literal["fast", "balanced", "best"], Parameter(help="How much is tried; best is an ensemble.")
    ] = "balanced",
    max_seconds: Annotated[float, Parameter(help="Budget of time.")] = 60.0,
    flow: Annotated[
        str | None,
        Parameter(
            help="Train this recipe, as nsf or maf, on columns of numbers, instead of choosing the best density; only "
            "--max-steps, --checkpoint and --seed go with it."
        ),
    ] = None,
    max_steps: Annotated[int | None, Parameter(help="Upper limit of the training steps of --flow; 1000.")] = None,
    seed: Seed = 0,
    checkpoint: Annotated[
        Path | None, Parameter(help="File from which the same command goes on when repeated.")
    ] = None,
) -> None:
    """Fit a density to a table, in the table's own units, and say how far to trust it.

    Columns may hold numbers, text, booleans and gaps. A Gaussian, a mixture of Gaussians and flows are fitted, and the
    one with the best held-out likelihood is kept. With --flow, `torchrun --nproc-per-node 2 -m pushforward fit ...`
    trains in two processes, each with its own batch.
    """
    from pushforward.files import check_writable
    from pushforward.tabular.files import naming, read_file
    from pushforward.training import is_writer

    check_writable(output)
    if flow is None and (max_steps is not None or checkpoint is not None):
        raise ValueError("--max-steps and --checkpoint go with --flow; give --max-seconds")
    if flow is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("several processes train one chosen flow; give --flow, as --flow nsf")
    if flow is not None and (context or kinds or weights):
        raise ValueError("--flow takes all columns as real numbers; --context, --kinds and --weights do not go with it")
    data = read_file(table)
    with naming(table):
        if flow is not None:
            from pushforward.tabular.recipe import fit_recipe

            fitted = fit_recipe(data, flow=flow, max_steps=max_steps or 1000, seed=seed, checkpoint=checkpoint)
        else:
            fitted = _fit(data, context or [], kinds or [], weights, quality, max_seconds, seed)
    if not is_writer():
        return
    fitted.save(output)
    print(f"{fitted.report}\n\nwrote {output}")


@app.command
def sample(
    model: Model,
    /,
    *,
    output: Output,
    rows: Annotated[
        int | None, Parameter(name=["--rows", "-n"], help="Number of rows; 1000, or 1 for each row of a context.")
    ] = None,
    context: Annotated[Path | None, Parameter(help="File with the context's columns, where the model has any.")] = None,
    seed: Seed = 0,
) -> None:
    """Draw new rows, with the columns of the table that the model was fitted to, and those of the context."""
    from pushforward.tabular.files import check_writable, write_file

    check_writable(output)
    if rows is not None and rows < 1:
        raise ValueError(f"expected one or more rows, got {rows}")
    fitted = _load(model)
    given = _context(fitted, context)
    if given is None:
        rows = rows or 1000
        drawn = fitted.sample(rows, seed=seed)
    else:
        from pushforward.tabular.sources import columns_as_lists

        new = columns_as_lists(fitted.sample(rows, given, seed=seed))
        repeated = {k: [v for v in column for _ in range(rows or 1)] for k, column in columns_as_lists(given).items()}
        drawn = repeated | new
        rows = len(next(iter(new.values())))
    write_file(output, drawn)
    print(f"wrote {rows} rows to {output}")


@app.command
def score(model: Model, table: Rows, /, *, output: Output) -> None:
    """Write the log-density of each row, in nats, in the table's own units; -inf outside the support."""
    from pushforward.tabular.files import check_writable, naming, read_file, write_file

    check_writable(output)
    fitted = _load(model)
    data, context = _split(fitted, read_file(table), table)
    with naming(table):
        scores = fitted.log_prob(data, context)
    write_file(output, {"log_prob": scores.numpy()})
    outside = int((scores == -float("inf")).sum())
    print(f"{len(scores)} rows, mean log-density {scores.mean():.4f} nats; wrote {output}")
    if outside:
        print(f"{outside} rows are outside the support, as new categories are: their log-density is -inf")


@app.command
def impute(model: Model, table: Rows, /, *, output: Output, seed: Seed = 0) -> None:
    """Write the table with its missing entries drawn from the model, given all else in their row."""
    from pushforward.tabular.files import check_writable, naming, read_file, write_file
    from pushforward.tabular.sources import columns_as_lists

    check_writable(output)
    fitted = _load(model)
    whole = read_file(table)
    data, context = _split(fitted, whole, table)
    with naming(table):
        drawn = columns_as_lists(fitted.impute(data, context, seed=seed))
    whole = columns_as_lists(whole)
    filled = 0
    for name, entries in drawn.items():
        filled += sum(entry is None for entry in whole[name])
        whole[name] = [new if old is None else old for old, new in zip(whole[name], entries, strict=True)]
    write_file(output, whole)
    print(f"filled {filled} entries; wrote {output}")


@app.command
def condition(
    model: Model,
    /,
    *given: Annotated[str, Parameter(help="Values, as NAME=VALUE.")],
    output: Output,
    rows: Annotated[int, Parameter(name=["--rows", "-n"], help="Number of rows.")] = 1000,
    context: Annotated[Path | None, Parameter(help="File of one row with the context's columns.")] = None,
    seed: Seed = 0,
) -> None:
    """Draw the other columns given the values of some, and print the log-density of these values."""
    from pushforward.tabular.files import check_writable, write_file
    from pushforward.tabular.text import parse_values

    check_writable(output)
    if rows < 1:
        raise ValueError(f"expected one or more rows, got {rows}")
    fitted = _load(model)
    values = parse_values(fitted.schema, given)
    found = fitted.conditional(values, context=_context(fitted, context), seed=seed)
    write_file(output, found.sample(rows, seed=seed))
    print(f"log-density of {', '.join(given)}: {found.log_evidence:.4f} +- {found.error:.4f} nats")
    print(f"effective share of the draws: {found.ess:.3f}")
    print(f"wrote {rows} rows to {output}")


@app.command
def report(
    model: Model,
    table: Rows,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="HTML file.")],
) -> None:
    """Write one HTML page that needs no network: verdict, data against samples, calibration, training, the layers."""
    from pushforward.files import check_writable
    from pushforward.report import table_page, write_page
    from pushforward.tabular.files import naming, read_file

    check_writable(output)
    fitted = _load(model)
    data, context = _split(fitted, read_file(table), table)
    with naming(table):
        page = table_page(fitted, data, context, title=f"{model.name} on {table.name}")
    write_page(page, output)
    print(f"verdict: {page.verdict}; wrote {output}")


@app.command
def inspect(model: Model, /) -> None:
    """Print the columns, their kinds, the architecture and how it was trained."""
    from pushforward import native_status
    from pushforward.tabular.architecture import describe

    fitted = _load(model)
    given = "" if fitted.context_schema is None else f"given:\n{fitted.context_schema}\n\n"
    print(f"{fitted.schema}\n\n{given}{describe(fitted.model)}\n\n{fitted.history}\n\n{fitted.judgement}")
    print(f"\ncompiled kernels: {native_status()}")


@app.command
def check(model: Model, table: Rows, /, *, seed: Seed = 0) -> int:
    """Judge a model on the rows of a table: exit code 0 if it is good, 1 if it is not."""
    from pushforward.tabular.check import check as judge
    from pushforward.tabular.files import naming, read_file

    fitted = _load(model)
    data, context = _split(fitted, read_file(table), table)
    with naming(table):
        judgement = judge(fitted, data, context, seed=seed)
    print(judgement)
    return 0 if judgement.verdict == "good" else 1


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
    pyro: Annotated[bool, Parameter(negative="", help="Fit by Pyro's SVI, with the flow as guide.")] = False,
) -> None:
    """Variational inference on two Gaussians with flows of every kind, and every intermediate step."""
    from pushforward.demos.mixture import run

    print(run(out, flow=flow, steps=steps, seed=seed, in_pyro=pyro))


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
    max_seconds: Annotated[float, Parameter(help="Budget of each fit.")] = 120.0,
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


@bench.command
def anomaly(
    *,
    out: Out = Path("out/bench"),
    seeds: Annotated[int, Parameter(help="Splits of each table.")] = 1,
    data: Annotated[Path | None, Parameter(help="Folder with a folder anomaly of .npz files.")] = None,
    only: Annotated[str, Parameter(help="Only tables whose name holds this text.")] = "",
    max_seconds: Annotated[float, Parameter(help="Budget of each fit.")] = 60.0,
) -> None:
    """Find anomalies in labelled tables, beside the methods of scikit-learn; ten minutes."""
    from pushforward.benchmarks.anomaly import run

    print(run(out, seeds=seeds, data=data, only=only, max_seconds=max_seconds))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what a user can get wrong ends in one line and code 2."""
    # Batches of some hundred rows: a second thread would cost more than it gives.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Importing torch makes millions of objects: at Python's own thresholds a third of that time goes to the collector.
    gc.set_threshold(200_000, 30, 30)
    try:
        code = app(arguments, result_action="return_value", exit_on_error=False, print_error=False)
    except (CycloptsError, ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split()).replace("TOMLDecodeError:", f"{CONFIG}:")
        print(f"pushforward: {text or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pushforward: interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


def _fit(
    data: Any,
    context: Sequence[str],
    kinds: Sequence[str],
    weights: str | None,
    quality: Literal["fast", "balanced", "best"],
    max_seconds: float,
    seed: int,
) -> DataFit:
    """`fit_to_data` for one table that holds the data, the context and the weights."""
    from pushforward.tabular.fit_to_data import fit_to_data
    from pushforward.tabular.sources import numeric_table, read_columns, select
    from pushforward.tabular.text import parse_pairs

    options: dict[str, Any] = {"quality": quality, "max_seconds": max_seconds, "seed": seed}
    aside = [*context, *([] if weights is None else [weights])]
    if not aside and not kinds:
        return fit_to_data(data, **options)
    names = list(read_columns(data)[1])
    parsed = parse_pairs(kinds, names, "NAME=KIND")
    for name in aside:
        if name not in names:
            raise ValueError(f"there is no column {name!r}; the columns are {', '.join(map(repr, names))}")
    if weights in context or weights in parsed:
        raise ValueError(f"the column of weights, {weights!r}, can be nothing else")
    modelled = [name for name in names if name not in aside]
    if not modelled:
        raise ValueError("expected a column that is neither context nor weights")
    return fit_to_data(
        select(data, modelled),
        select(data, context) if context else None,
        kinds={name: kind for name, kind in parsed.items() if name not in context},
        context_kinds={name: kind for name, kind in parsed.items() if name in context},
        weights=None if weights is None else numeric_table(select(data, [weights])).values[:, 0],
        **options,
    )


def _load(path: Path) -> DataFit:
    from pushforward.tabular.data_fit import DataFit

    return DataFit.load(path)


def _split(fitted: DataFit, data: Any, path: Path) -> tuple[Any, Any]:
    """The model's columns of a table, and those of its context, None if it has none."""
    context = None if fitted.context_schema is None else _columns(fitted.context_schema, data, path)
    return _columns(fitted.schema, data, path), context


def _context(fitted: DataFit, path: Path | None) -> Any:
    """The context's columns of a file; None if the model has no context."""
    from pushforward.tabular.files import read_file

    if fitted.context_schema is None:
        if path is not None:
            raise ValueError("got --context, but the density was fitted without one")
        return None
    if path is None:
        raise ValueError(f"expected --context, a file with {', '.join(map(repr, fitted.context_schema.kinds))}")
    return _columns(fitted.context_schema, read_file(path), path)


def _columns(schema: Schema, data: Any, path: Path) -> Any:
    """The schema's columns of a table that may have more."""
    from pushforward.tabular.files import naming
    from pushforward.tabular.sources import read_columns, select
    from pushforward.tabular.table import check_names

    with naming(path):
        found = read_columns(data)[1]
    if not set(schema.kinds) <= set(found):
        check_names(found, schema.kinds, str(path))
    return select(data, list(schema.kinds))
