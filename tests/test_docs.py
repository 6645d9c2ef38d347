"""The generated pages say what the code says."""

import importlib.util
import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import pushforward as pf
from pushforward import recipes, surjections

DOCS = Path(__file__).parents[1] / "docs"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


choosing, layers = _script("choosing"), _script("layers")

BASE_CLASSES = {"Bijection", "Transformer", "NumericalTransformer", "InverseTransformer"}


def test_choosing_is_current() -> None:
    text = (DOCS / "choosing.md").read_text(encoding="utf-8")
    assert text == choosing.page(), "run: python docs/choosing.py"


def test_choosing_is_complete() -> None:
    made = {n for n, f in vars(recipes).items() if inspect.isfunction(f) and f.__module__ == recipes.__name__}
    assert set(choosing.RECIPES) == {n for n in made if not n.startswith("_")}
    assert set(choosing.SURJECTIONS) == set(surjections.__all__) - {"SurjectiveFlow"}
    public = {
        name
        for name in pf._api.__all__
        if inspect.isclass(cls := getattr(pf, name)) and issubclass(cls, pf.Bijection | pf.Transformer)
    }
    listed = [*choosing.TRANSFORMERS, *choosing.LAYERS, *choosing.IMAGES, *choosing.SUPPORTS, *choosing.GLUE]
    assert sorted(listed) == sorted(public - BASE_CLASSES)


def test_layers_has_a_row_and_a_picture_of_every_flow_of_the_plane() -> None:
    flows = set(choosing.RECIPES) - {"glow"}  # for images
    assert set(json.loads(layers.FIGURES.read_text())) == flows
    assert {picture.stem for picture in layers.PICTURES.glob("*.png")} == flows | {"targets"}
    text = (DOCS / "layers.md").read_text(encoding="utf-8")
    assert text == layers.page(), "run: python docs/layers.py NAME"
    assert set(re.findall(r"^\| \[`(\w+)`\]", text, re.MULTILINE)) == flows
