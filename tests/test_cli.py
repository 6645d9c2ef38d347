"""The command line, as a user meets it: each command once, and each mistake ends in one line and exit code 2."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.tabular import read_file, write_file
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.sources import columns_as_lists
from pushforward.targets import faithful_path

ROWS = 80


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`main` may set this variable; it is gone after the test. No file of options lies in the working folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow of a chosen recipe."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    assert main(["fit", str(faithful_path()), "-o", str(path), "--flow", "nsf", "--max-steps", "5"]) == 0
    return path


def people(rows: int = ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sex = rng.choice(["f", "m"], rows)
    height = np.where(sex == "f", 1.65, 1.78) + 0.07 * rng.standard_normal(rows)
    weight = 22 * height**2 * np.exp(0.1 * rng.standard_normal(rows))
    return {
        "sex": [None if k % 10 == 3 else v for k, v in enumerate(sex.tolist())],
        "age": rng.integers(18, 80, rows).tolist(),
        "height": [None if k % 8 == 5 else v for k, v in enumerate(height.tolist())],
        "weight": weight.tolist(),
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "people.csv"
    write_file(path, people())
    return path


@pytest.fixture(scope="module")
def mixed(table: Path) -> Path:
    """A density of all columns."""
    path = table.parent / "mixed.safetensors"
    assert main(["fit", str(table), "-o", str(path), "--max-seconds", "0.5", "--quality", "fast"]) == 0
    return path


@pytest.fixture(scope="module")
def conditional(table: Path) -> Path:
    """A density of height and weight given sex and age."""
    path = table.parent / "conditional.safetensors"
    arguments = ["--context", "sex", "age", "--kinds", "weight=positive", "--max-seconds", "0.5", "--quality", "fast"]
    assert main(["fit", str(table), "-o", str(path), *arguments]) == 0
    return path


def test_fit_sample_score(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, scores = tmp_path / "new.csv", tmp_path / "scores.csv"
    assert main(["sample", str(model), "-n", "50", "-o", str(new)]) == 0
    lines = new.read_text().splitlines()
    assert lines[0] == "eruptions,waiting" and len(lines) == 51
    assert main(["score", str(model), str(new), "-o", str(scores)]) == 0
    assert "50 rows" in capsys.readouterr().out
    found = np.loadtxt(scores, skiprows=1)
    rows = torch.as_tensor(np.loadtxt(new, skiprows=1, delimiter=","))
    expected = DataFit.load(model).log_prob(dict(zip(("eruptions", "waiting"), rows.T, strict=True)))
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_densities_are_in_the_units_of_the_table(tmp_path: Path) -> None:
    """The same rows in other units: the log-density moves by the logarithm of the factor, also far from the origin."""
    rows = np.random.default_rng(0).normal(size=(60, 2))
    scaled = rows * [1.0, 1000.0] + [0.0, 1.6e9]
    scores = []
    for name, values in (("a", rows), ("b", scaled)):
        np.save(tmp_path / f"{name}.npy", values)
        arguments = ["fit", f"{name}.npy", "-o", f"{name}.safetensors", "--flow", "nsf", "--max-steps", "3"]
        assert main(arguments) == 0
        scores.append(DataFit.load(tmp_path / f"{name}.safetensors").log_prob(values))
    assert torch.allclose(scores[0] - scores[1], torch.full((60,), np.log(1000.0)).double(), rtol=0, atol=1e-3)


def test_fit_goes_on_from_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--flow", "nsf", "--max-steps", "5", "--checkpoint", str(tmp_path / "run.pt")]
    for name in ("a", "b"):
        assert main(["fit", str(faithful_path()), "-o", str(tmp_path / name), *options]) == 0
        assert (tmp_path / "run.pt").exists()
    first, second = (DataFit.load(tmp_path / name).model.state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    capsys.readouterr()
    assert main(["fit", str(faithful_path()), "-o", str(tmp_path / "c"), *options, "--seed", "1"]) == 2
    assert "seed: 0 then, 1 now" in capsys.readouterr().err


def test_columns_in_another_order_and_others_beside_them(model: Path) -> None:
    Path("straight.csv").write_text("eruptions,waiting\n2.0,60\n4.5,80\n")
    Path("swapped.csv").write_text("name,waiting,eruptions\nx,60,2.0\ny,80,4.5\n")
    for name in ("straight", "swapped"):
        assert main(["score", str(model), f"{name}.csv", "-o", f"{name}.out.csv"]) == 0
    assert Path("straight.out.csv").read_text() == Path("swapped.out.csv").read_text()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather", ".h5"])
def test_mixed_columns_in_every_format(suffix: str, mixed: Path, table: Path) -> None:
    """The scores of a table do not depend on its format, and new rows are like those of the table."""
    write_file(f"same{suffix}", columns_as_lists(read_file(table)))
    assert main(["score", str(mixed), f"same{suffix}", "-o", f"scores{suffix}"]) == 0
    found = torch.tensor(columns_as_lists(read_file(f"scores{suffix}"))["log_prob"], dtype=torch.float64)
    expected = DataFit.load(mixed).log_prob(read_file(table))
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    assert main(["sample", str(mixed), "-n", "30", "-o", f"new{suffix}"]) == 0
    drawn = columns_as_lists(read_file(f"new{suffix}"))
    assert list(drawn) == ["sex", "age", "height", "weight"]
    assert set(drawn["sex"]) <= {"f", "m", None} and len(drawn["sex"]) == 30
    assert all(isinstance(age, int) and age >= 0 for age in drawn["age"])


def test_impute_fills_the_gaps_and_leaves_the_rest(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushforward.tabular.given.LEARN_SECONDS", 0.2)
    monkeypatch.setattr("pushforward.tabular.given.ROWS", 500)
    some = {name: column[:16] for name, column in people().items()} | {"note": [f"n{k}" for k in range(16)]}
    write_file("gaps.csv", some)
    assert main(["impute", str(mixed), "gaps.csv", "-o", "full.csv"]) == 0
    full = columns_as_lists(read_file("full.csv"))
    assert list(full) == list(some)
    for name, column in some.items():
        assert None not in full[name]
        assert all(new == old for new, old in zip(full[name], column, strict=True) if old is not None)
    assert set(full["sex"]) <= {"f", "m"} and all(1 < height < 3 for height in full["height"])


def test_condition_agrees_with_a_sum_over_the_model(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushforward.tabular.given.LEARN_SECONDS", 0.5)
    monkeypatch.setattr("pushforward.tabular.given.ROWS", 1000)
    assert main(["condition", str(model), "waiting=70", "-n", "25", "-o", "given.csv"]) == 0
    assert list(read_file("given.csv")) == ["eruptions"] and len(read_file("given.csv")["eruptions"]) == 25
    printed = capsys.readouterr().out
    found, error = (float(part.split()[0]) for part in printed.split("waiting=70: ")[1].split("+-"))
    eruptions = torch.linspace(-20, 30, 20_001, dtype=torch.float64)
    table = {"eruptions": eruptions, "waiting": torch.full_like(eruptions, 70.0)}
    expected = (DataFit.load(model).log_prob(table).logsumexp(0) + np.log(50 / 20_000)).item()
    assert abs(found - expected) < 5 * error + 1e-3
    assert error < 0.05 and "effective share" in printed


def test_context(conditional: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(conditional), "--context", str(table), "-n", "2", "-o", "new.csv"]) == 0
    drawn, given = columns_as_lists(read_file("new.csv")), columns_as_lists(read_file(table))
    assert list(drawn) == ["sex", "age", "height", "weight"]
    assert drawn["age"][::2] == given["age"] and drawn["sex"][1::2] == given["sex"]
    assert all(weight > 0 for weight in drawn["weight"])
    assert main(["score", str(conditional), "new.csv", "-o", "scores.csv"]) == 0
    assert np.isfinite(read_file("scores.csv")["log_prob"]).all()
    capsys.readouterr()
    assert main(["inspect", str(conditional)]) == 0
    printed = capsys.readouterr().out
    for text in ("given:\n2 columns", "weight", "positive", "categorical: f, m", "fitted to 80 rows"):
        assert text in printed
    for arguments in (["sample"], ["sample", "--context", str(faithful_path())]):
        assert main([arguments[0], str(conditional), *arguments[1:], "-o", "no.csv"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "expected --context, a file with 'sex', 'age'" in errors[0] and "missing 'sex', 'age'" in errors[1]


def test_weights_count_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of weight 0 leave no trace: the mean of the draws is that of the others."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 200), rng.normal(50, 1, 200)])
    write_file("t.csv", {"x": x, "w": np.repeat([0.0, 1.0], 200)})
    arguments = ["--weights", "w", "--max-seconds", "0.5", "--quality", "fast"]
    assert main(["fit", "t.csv", "-o", "m.safetensors", *arguments]) == 0
    assert main(["sample", "m.safetensors", "-n", "200", "-o", "new.csv"]) == 0
    assert abs(read_file("new.csv")["x"].mean() - x[200:].mean()) < 0.5
    assert main(["fit", "t.csv", "-o", "m.safetensors", "--weights", "v"]) == 2
    assert "there is no column 'v'; the columns are 'x', 'w'" in capsys.readouterr().err


def test_inspect(model: Path, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model)]) == 0
    printed = capsys.readouterr().out
    for text in ("eruptions  real", "Coupling RationalQuadratic", "parameters", "flow (nsf): 5 steps", "verdict: "):
        assert text in printed
    assert main(["inspect", str(mixed)]) == 0
    printed = capsys.readouterr().out
    for text in ("sex     categorical: f, m", "discrete coordinates: 2", "Gaussian: ", "lower bounds (age, height)"):
        assert text in printed


def test_check_has_exit_codes(mixed: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good for its own draws, also under the seed of `check`; not for others; 2 for what is no table."""
    assert main(["sample", str(mixed), "-n", "300", "-o", "own.csv"]) == 0
    assert main(["check", str(mixed), "own.csv"]) == 0
    printed = capsys.readouterr().out
    assert "verdict: good" in printed and "distance 0.000 (chance 1)" not in printed
    other = columns_as_lists(read_file("own.csv"))
    write_file("other.csv", other | {"weight": [2 * weight for weight in other["weight"]]})
    assert main(["check", str(mixed), "other.csv"]) == 1
    assert "verdict: failed" in capsys.readouterr().out
    write_file("new.csv", other | {"sex": ["x"] * 300})
    assert main(["check", str(mixed), "new.csv"]) == 1
    assert "density zero" in capsys.readouterr().out
    write_file("few.csv", {name: column[:5] for name, column in other.items()})
    assert main(["check", str(mixed), "few.csv"]) == 2
    assert "few.csv: expected 20 or more rows to judge on, got 5" in capsys.readouterr().err


def test_options_from_flags_environment_and_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags win over the environment, and that over the file."""
    seen: list[dict[str, Any]] = []

    def record(*args: object, **options: Any) -> None:
        seen.append(options)
        raise ValueError("enough")

    monkeypatch.setattr("pushforward.tabular.fit_to_data.fit_to_data", record)
    Path("pushforward.toml").write_text(
        '[fit]\nmax_seconds = 5\nquality = "best"\ncontext = ["waiting"]\nseed = 3\n[sample]\nrows = 7\n'
    )
    fit = ["fit", str(faithful_path()), "-o", "m.safetensors"]
    main(fit)
    monkeypatch.setenv("PUSHFORWARD_FIT_MAX_SECONDS", "6")
    monkeypatch.setenv("PUSHFORWARD_FIT_QUALITY", "fast")
    main(fit)
    main([*fit, "--max-seconds", "7"])
    assert [(o["max_seconds"], o["quality"], o["seed"]) for o in seen] == [
        (5, "best", 3),
        (6, "fast", 3),
        (7, "fast", 3),
    ]
    capsys.readouterr()
    for text, says in (("[fit]\nmax_second = 5\n", "max_second"), ("[fit\n", "pushforward.toml: Expected ']'")):
        Path("pushforward.toml").write_text(text)
        assert main(fit) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and says in error and "pushforward.toml" in error


GOOD = "\n".join(["a,b", *(f"{i},{i * i % 7}" for i in range(12))]) + "\n"
MISTAKES = {
    "text among numbers": (GOOD.replace("3,2", "3,two"), ["column 'b'", "row 4"]),
    "infinity": (GOOD.replace("3,2", "3,inf"), ["column 'b'", "row 4", "finite"]),
    "few rows": ("\n".join(GOOD.splitlines()[:10]), ["10 or more rows", "got 9"]),
    "one row": ("a,b\n1,2\n", ["two or more rows", "got 1"]),
    "only a header": ("a,b\n", ["two or more rows", "got 0"]),
    "empty": ("", ["empty"]),
    "all missing": ("a,b\n" + ",\n" * 12, ["a column that is not constant"]),
    "constant": ("a\n" + "7\n" * 12, ["a column that is not constant"]),
    "same names": (GOOD.replace("a,b", "a,a"), ["columns 1 and 2 are both called 'a'"]),
    "names of rows": ("id,a\n" + "".join(f"r{i},{i}\n" for i in range(30)), ["column 'id'", "30 different entries"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_tables(mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, says = MISTAKES[mistake]
    table, output = tmp_path / "bad.csv", tmp_path / "model.safetensors"
    table.write_text(text)
    assert main(["fit", str(table), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(table) in error
    assert all(word in error for word in says), error
    assert list(tmp_path.iterdir()) == [table]


def test_a_recipe_takes_numbers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for name, text, says in (
        ("gap", GOOD.replace("3,2", "3,"), "gap.csv: column 'b', row 4: expected a number, got a missing entry"),
        ("constant", "a,b\n" + "".join(f"{i},5\n" for i in range(12)), "constant.csv: table: column 'b' is constant"),
    ):
        Path(f"{name}.csv").write_text(text)
        assert main(["fit", f"{name}.csv", "-o", "m.safetensors", "--flow", "nsf"]) == 2
        assert says in capsys.readouterr().err


def test_a_million_categories_are_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa

    codes = pa.array(np.arange(1_000_000)).dictionary_encode()
    write_file("many.feather", pa.table({"code": codes, "x": np.arange(1e6)}))
    assert main(["fit", "many.feather", "-o", "m.safetensors"]) == 2
    assert "column 'code': has 1000000 different entries in 1000000 rows: leave it out" in capsys.readouterr().err
    write_file("few.parquet", pa.table({"code": [f"c{k}" for k in range(1500)], "x": np.arange(1500.0)}))
    assert main(["fit", "few.parquet", "-o", "m.safetensors", "--kinds", "code=categorical"]) == 2
    assert "column 'code': has 1500 levels, more than 1000: leave it out, or merge" in capsys.readouterr().err


def test_new_categories_and_gaps_in_a_scored_table(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New categories have density zero; a gap in a column that had none is an error; neither is filled in."""
    row = {"sex": ["f", "x"], "age": [30, 30], "height": [1.7, 1.7], "weight": [60.0, 60.0]}
    write_file("new.csv", row)
    assert main(["score", str(mixed), "new.csv", "-o", "scores.csv"]) == 0
    found = read_file("scores.csv")["log_prob"]
    assert np.isfinite(found[0]) and found[1] == -np.inf
    assert "1 rows are outside the support" in capsys.readouterr().out
    assert main(["impute", str(mixed), "new.csv", "-o", "full.csv"]) == 2
    assert "new.csv: row 2: holds an entry that the model has never seen" in capsys.readouterr().err
    write_file("gap.csv", row | {"weight": [60.0, None]})
    assert main(["score", str(mixed), "gap.csv", "-o", "more.csv"]) == 2
    assert "gap.csv: column 'weight', row 2: is missing" in capsys.readouterr().err
    write_file("types.csv", row | {"age": ["old", "young"]})
    assert main(["score", str(mixed), "types.csv", "-o", "more.csv"]) == 2
    assert "column 'age': expected numbers" in capsys.readouterr().err
    assert not Path("full.csv").exists() and not Path("more.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "nowhere.csv", "-o", "m.safetensors"], "no such file"),
        (["fit", "{faithful}"], "--output"),
        (["fit", "{faithful}", "-o", "nofolder/m.safetensors"], "no folder"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--flow", "glob"], "nsf"),
        (
            ["fit", "{faithful}", "-o", "m.safetensors", "--max-steps", "9"],
            "--max-steps and --checkpoint go with --flow",
        ),
        (["fit", "{faithful}", "-o", "m.safetensors", "--flow", "nsf", "--context", "waiting"], "do not go with it"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--context", "wait"], "no column 'wait'"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--context", "waiting", "eruptions"], "neither context nor"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--kinds", "waiting=long"], "expected a kind among"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--kinds", "length=real"], "with one of the columns"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--max-seconds", "0"], "max_seconds > 0"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--max-seconds", "soon"], "unable to convert"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--quality", "high"], "quality"),
        (["sample", "{model}", "-n", "0", "-o", "new.csv"], "one or more rows"),
        (["sample", "{model}", "-o", "new.txt"], "ends in .csv"),
        (["sample", "{model}", "-o", "nofolder/new.csv"], "no folder"),
        (["sample", "{model}", "--context", "{other}", "-o", "new.csv"], "fitted without one"),
        (["sample", "nowhere.safetensors", "-o", "new.csv"], "no such file"),
        (["sample", "{faithful}", "-o", "new.csv"], "not a model file"),
        (["score", "{model}", "{other}", "-o", "s.csv"], "not the model's: missing 'eruptions'; unexpected 'x'"),
        (["condition", "{model}", "-o", "s.csv"], "expected some of the columns"),
        (["condition", "{model}", "age=40", "-o", "s.csv"], "with one of the columns 'eruptions', 'waiting'"),
        (["condition", "{model}", "waiting=long", "-o", "s.csv"], "expected a finite number, got 'long'"),
        (["condition", "{model}", "waiting=1", "waiting=2", "-o", "s.csv"], "got two values"),
        (["condition", "{model}", "waiting=1", "eruptions=2", "-o", "s.csv"], "a column that is not given"),
        (["report", "{model}", "{faithful}", "-o", "nofolder/r.html"], "no folder"),
        (["report", "{model}", "{other}", "-o", "r.html"], "not the model's"),
        (["inspect", "{flow}"], "not one that was fitted to a table"),
        (["check", "{model}"], "requires an argument"),
        (["glob"], "Unknown command"),
        (["demo", "moons", "--flow", "glob"], "nsf"),
    ],
)
def test_mistakes(
    arguments: list[str], says: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, flow = tmp_path / "other.csv", tmp_path / "flow.safetensors"
    other.write_text("x,waiting\n1,2\n")
    pf.save(pf.planar(features=2, layers=1), flow)
    names = {"{faithful}": faithful_path(), "{model}": model, "{other}": other, "{flow}": flow}
    assert main([str(names.get(a, a)) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
    assert sorted(tmp_path.iterdir()) == [flow, other]


def test_a_full_disk_leaves_the_old_files(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import safetensors

    def full(*args: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device")

    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("m.safetensors", "new.csv", "r.html"):
        Path(name).write_text("old")
    monkeypatch.setattr("pushforward.io.save_file", full)
    fit = ["fit", str(faithful_path()), "-o", "m.safetensors", "--flow", "planar", "--max-steps", "2"]
    assert main(fit) == 2
    monkeypatch.setattr("os.replace", refuse)
    assert main(["sample", str(model), "-n", "3", "-o", "new.csv"]) == 2
    assert main(["report", str(model), str(faithful_path()), "-o", "r.html"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all("No space" in error for error in errors)
    assert {path.name: path.read_text() for path in Path().iterdir()} == dict.fromkeys(
        ["m.safetensors", "new.csv", "r.html"], "old"
    )


def test_values_as_text() -> None:
    """What is typed becomes a level or a number, as its column's kind takes it."""
    from pushforward.tabular import Schema
    from pushforward.tabular.text import parse_values

    table = {
        "code": np.repeat([1, 2, 3], 30),
        "yes": [True, False, None] * 30,
        "a=b": ["x=y", None, "NA"] * 30,
        "size": np.linspace(0, 1, 90) ** 2,
    }
    schema = Schema.infer(table)
    found = parse_values(schema, ["code=2.0", "yes=TRUE", "a=b=x=y", "size=1e-1"])
    assert found == {"code": 2, "yes": True, "a=b": "x=y", "size": 0.1}
    assert parse_values(schema, ["yes=", "a=b=NA"]) == {"yes": None, "a=b": "NA"}
    for text in ("code=4", "yes=maybe", "a=b=z", "size=", "size=inf", "code="):
        with pytest.raises(ValueError, match=r"column '(code|yes|a=b|size)': expected"):
            parse_values(schema, [text])


def test_help_does_not_import_torch() -> None:
    code = "import sys\nfrom pushforward.cli import main\nassert main(['--help']) == 0\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "command", ["fit", "sample", "score", "impute", "condition", "report", "inspect", "check", "demo", "bench"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Usage: pushforward {command}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["moons", "ring"])
def test_demos_write_their_files(name: str, tmp_path: Path) -> None:
    arguments = ["demo", name, "--out", str(tmp_path), "--steps", "20", "--flow", "planar"]
    assert main(arguments) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "metrics.json", "loss.png", "density.png", "steps.png"} <= written
    assert pf.load(tmp_path / "model.safetensors").sample(3).shape == (3, 2)


def test_faithful_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newcomer's first command, whole; the flow beats the Gaussian on rows that it has not seen."""
    import json

    assert main(["demo", "faithful", "--out", str(tmp_path), "--steps", "60"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())["test_log_likelihood"]
    assert metrics["flow (nsf)"] > metrics["Gaussian"] + 0.3
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 1001
    assert "mixture of two Gaussians" in capsys.readouterr().out
