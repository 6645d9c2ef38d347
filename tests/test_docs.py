"""The generated pages say what the code says."""

import importlib.util
import inspect
from pathlib import Path

import pushforward as pf
from pushforward import recipes, surjections

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("choosing", DOCS / "choosing.py")
assert spec and spec.loader
choosing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(choosing)

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
