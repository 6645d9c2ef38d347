"""The command line, as a user meets it: each command once, and each mistake ends in one line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.targets import faithful_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    main(["fit", str(faithful_path()), "-o", str(path), "--max-steps", "5"])
    return path


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` may set this variable; it is gone after the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_fit_sample_score(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, scores = tmp_path / "new.csv", tmp_path / "scores.csv"
    assert main(["sample", str(model), "-n", "50", "-o", str(new)]) == 0
    lines = new.read_text().splitlines()
    assert lines[0] == "eruptions,waiting" and len(lines) == 51
    assert main(["score", str(model), str(new), "-o", str(scores)]) == 0
    assert "50 rows" in capsys.readouterr().out
    found = np.loadtxt(scores, skiprows=1)
    rows = torch.as_tensor(np.loadtxt(new, skiprows=1, delimiter=","))
    with torch.no_grad():
        expected = pf.load(model).log_prob(rows)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)


def test_densities_are_in_the_units_of_the_table(tmp_path: Path) -> None:
    """The same rows in other units: the log-density moves by the logarithm of the factor, also far from the origin."""
    rows = np.random.default_rng(0).normal(size=(60, 2))
    scaled = rows * [1.0, 1000.0] + [0.0, 1.6e9]
    scores = []
    for name, table in (("a", rows), ("b", scaled)):
        np.save(tmp_path / f"{name}.npy", table)
        main(["fit", str(tmp_path / f"{name}.npy"), "-o", str(tmp_path / f"{name}.safetensors"), "--max-steps", "3"])
        flow = pf.load(tmp_path / f"{name}.safetensors")
        with torch.no_grad():
            scores.append(flow.log_prob(torch.as_tensor(table)))
    assert torch.allclose(scores[0] - scores[1], torch.full((60,), np.log(1000.0)).double(), rtol=0, atol=1e-3)


def test_fit_goes_on_from_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--max-steps", "5", "--checkpoint", str(tmp_path / "run.pt")]
    for name in ("a", "b"):
        assert main(["fit", str(faithful_path()), "-o", str(tmp_path / name), *options]) == 0
        assert (tmp_path / "run.pt").exists()
    first, second = (pf.load(tmp_path / name).state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    capsys.readouterr()
    assert main(["fit", str(faithful_path()), "-o", str(tmp_path / "c"), *options, "--seed", "1"]) == 2
    assert "seed: 0 then, 1 now" in capsys.readouterr().err


def test_columns_in_another_order_are_reordered(model: Path, tmp_path: Path) -> None:
    straight, swapped = tmp_path / "straight.csv", tmp_path / "swapped.csv"
    straight.write_text("eruptions,waiting\n2.0,60\n4.5,80\n")
    swapped.write_text("waiting,eruptions\n60,2.0\n80,4.5\n")
    for table in (straight, swapped):
        assert main(["score", str(model), str(table), "-o", str(table.with_suffix(".out.csv"))]) == 0
    assert straight.with_suffix(".out.csv").read_text() == swapped.with_suffix(".out.csv").read_text()


GOOD = "\n".join(["a,b", *(f"{i},{i * i % 7}" for i in range(12))]) + "\n"
MISTAKES = {
    "text": (GOOD.replace("3,2", "3,two"), ["column 'b'", "row 4"]),
    "missing value": (GOOD.replace("3,2", "3,"), ["column 'b'", "row 4"]),
    "nan": (GOOD.replace("3,2", "3,nan"), ["column 'b'", "row 4"]),
    "constant column": ("\n".join(["a,b", *(f"{i},5" for i in range(12))]), ["column 'b'", "constant"]),
    "few rows": ("\n".join(GOOD.splitlines()[:10]), ["10 or more rows", "got 9"]),
    "empty": ("", ["empty"]),
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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "nowhere.csv", "-o", "m.safetensors"], "no such file"),
        (["fit", "{faithful}", "-o", "nofolder/m.safetensors"], "no folder"),
        (["fit", "{faithful}", "-o", "m.safetensors", "--flow", "glob"], "nsf"),
        (["sample", "{model}", "-n", "0", "-o", "new.csv"], "one or more rows"),
        (["sample", "nowhere.safetensors", "-o", "new.csv"], "no such file"),
        (["sample", "{faithful}", "-o", "new.csv"], "not a model file"),
        (["score", "{model}", "{other}", "-o", "s.csv"], "not the model's"),
        (["demo", "moons", "--flow", "glob"], "nsf"),
    ],
)
def test_mistakes(
    arguments: list[str],
    says: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.csv"
    other.write_text("x,waiting\n1,2\n")
    names = {"{faithful}": str(faithful_path()), "{model}": str(model), "{other}": str(other)}
    assert main([names.get(a, a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error
    assert list(tmp_path.iterdir()) == [other]


def test_help_does_not_import_torch() -> None:
    code = "import sys\nfrom pushforward.cli import main\nassert main(['--help']) == 0\n"
    code += "assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


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
