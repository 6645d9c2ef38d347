"""The package as a whole: what importing it does, what it offers, and who may import whom."""

import ast
import importlib.machinery
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pushforward as pf
from pushforward import _api

SOURCE = Path(pf.__file__).parent

# Who may import whom, from the inside out: a package, and those that it may import besides itself.
INNER = ["_native", "numerics"]
LAYERS: dict[str, list[str]] = {
    "numerics": [],
    "_native": ["numerics"],
    "files": [],
    "transformers": INNER,
    "nn": INNER,
    "bases": [*INNER, "nn"],
    "bijections": [*INNER, "nn", "transformers"],
    "distribution": ["flow"],  # for its type alone
    "flow": [*INNER, "bases", "bijections", "distribution", "transformers"],
    "mixture": ["bases", "flow", "numerics"],
    "recipes": ["bases", "bijections", "flow", "nn", "numerics", "transformers"],
    "surjections": ["flow", "numerics"],
    "objectives": ["bijections", "flow"],
    "training": ["_native", "files", "objectives"],
    "io": ["", "bases", "bijections", "files", "flow", "mixture", "nn", "transformers"],
    "diagnostics": [],
    "tabular": [
        *("", "bases", "bijections", "diagnostics", "files", "flow", "io", "mixture", "nn", "numerics", "objectives"),
        *("plotting", "recipes", "training", "transformers"),
    ],
    "report": ["__version__", "files", "inference", "plotting", "tabular"],
    "inference": [
        *("bases", "bijections", "diagnostics", "flow", "io", "nn", "numerics", "objectives", "training"),
        *("plotting", "transformers"),
    ],
    "contrib": [
        *("bases", "bijections", "distribution", "flow", "inference", "io", "numerics", "recipes"),
    ],
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_alone_does_not_import_torch() -> None:
    assert run("import sys, pushforward; pushforward.__version__; print('torch' in sys.modules)") == "False"


def test_import_has_no_side_effects() -> None:
    code = """
import sys, warnings, torch
from torch.distributions import Distribution, Transform
def state():
    return (
        Distribution._validate_args, torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().tolist(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), torch.get_num_threads(),
        {k: id(v) for k, v in vars(Transform).items() if not k.startswith("__")},
        {k: id(v) for k, v in vars(Distribution).items() if not k.startswith("__")}, list(warnings.filters),
    )
before = state()
import pushforward._api
assert state() == before
print({"matplotlib", "sklearn", "pandas", "pyro", "rich", "cyclopts", "PIL"} & sys.modules.keys())
import pushforward.plotting
print({"matplotlib.pyplot", "sklearn", "pandas"} & sys.modules.keys())
"""
    assert run(code) == "set()\nset()"


def test_every_name_is_reachable_and_others_are_attribute_errors() -> None:
    assert list(_api.__all__) == sorted(_api.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    for name in _api.__all__:
        assert getattr(pf, name) is getattr(_api, name)
        assert name in dir(pf)
    for name in ("nonsense", "_nonsense", "__wrapped__"):
        with pytest.raises(AttributeError, match=name):
            getattr(pf, name)


def imported(path: Path) -> set[str]:
    """The parts of this library that a file imports, also within functions; "" for the package itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "pushforward":
                names = [f"pushforward.{alias.name}" for alias in node.names]
        found |= {n.partition(".")[2].split(".")[0] for n in names if n.split(".")[0] == "pushforward"}
    return found


@pytest.mark.parametrize("part", LAYERS)
def test_imports_point_inward(part: str) -> None:
    place = SOURCE / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for path in files:
        assert imported(path) <= {part, *LAYERS[part]}, path


def test_names_without_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.machinery.SourceFileLoader, "get_source", lambda self, name: None)
    homes = pf._homes.__wrapped__()  # type: ignore[attr-defined]
    assert set(homes) == set(_api.__all__) and set(homes.values()) == {"pushforward._api"}


@pytest.mark.parametrize("name", _api.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    value = getattr(pf, name)
    text = inspect.getdoc(value)
    assert text
    own = vars(value).get("__doc__") if isinstance(value, type) else text
    assert own, f"{name} only inherits its documentation"
    plain = inspect.isabstract(value) or (isinstance(value, type) and issubclass(value, Warning))
    if not plain and name not in ("DataFit", "LogDensityFit", "TrainResult"):  # which functions make
        assert ">>>" in text, f"{name} has no example"
