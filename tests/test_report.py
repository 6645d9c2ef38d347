"""The report: what is on the page, and that a real browser shows all of it."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pushforward as pf
from pushforward.cli import main
from pushforward.mixture import FlowMixture
from pushforward.plotting import training_curve
from pushforward.report import Page, Picture, Section, log_density_page, table_page, write_page
from pushforward.tabular import TableError
from pushforward.tabular.architecture import Parts, describe, path_of
from pushforward.tabular.data_fit import DataFit
from pushforward.tabular.fit_to_data import fit_to_data
from pushforward.tabular.recipe import fit_recipe
from pushforward.tabular.row_model import RowModel


def mixed(rows: int = 120) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size = np.exp(rng.standard_normal(rows))
    return {
        "size": size,
        "weight": 3 * size + rng.standard_normal(rows),
        "<colour>": [None if k % 9 == 0 else v for k, v in enumerate(rng.choice(["red", "blue"], rows).tolist())],
        "hour": rng.integers(0, 24, rows),
    }


@pytest.fixture(scope="module")
def fit() -> DataFit:
    return fit_to_data(mixed(), quality="fast", max_seconds=0.5)


@pytest.fixture(scope="module")
def page(fit: DataFit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "page.html"
    write_page(table_page(fit, mixed(), title="Sizes & <weights>"), path)
    return path


def images(path: Path) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', path.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_a_page_has_its_parts_and_needs_no_network(page: Path) -> None:
    text = page.read_text()
    headings = ["Behind the verdict", "Data and samples", "Densities", "Calibration", "Training", "Step by step"]
    assert re.findall(r"<h2>(.*?)</h2>", text) == [*headings, "Columns and model"]
    assert "<h1>Sizes &amp; &lt;weights&gt;</h1>" in text and "<colour>" not in text
    assert re.findall(r"<strong>(\w+)</strong>", text)[0] in ("good", "doubtful", "failed")
    assert not re.search(r"https?://|<script|<link(?! rel=\"icon\" href=\"data:,\")|url\(|@import", text)


def test_no_figure_is_blank(page: Path) -> None:
    pictures = images(page)
    assert len(pictures) == 6  # pairs, densities, calibration, the training of both parts, steps
    for picture in pictures:
        assert np.asarray(picture.convert("L"), dtype=float).std() > 5


@pytest.mark.parametrize(
    ("data", "flow", "pictures"),
    [
        ({"a": np.random.default_rng(0).normal(size=60)}, "nsf", 4),  # no pairs
        (np.random.default_rng(0).normal(size=(60, 2)), "planar", 6),  # and the density of the plane
        (np.random.default_rng(0).normal(size=(60, 5)), "maf", 7),  # columns in fours
    ],
)
def test_pages_of_recipes(data: Any, flow: str, pictures: int, tmp_path: Path) -> None:
    fitted = fit_recipe(data, flow=flow, max_steps=25)
    write_page(table_page(fitted, data), tmp_path / "page.html")
    assert len(images(tmp_path / "page.html")) == pictures
    assert "25 steps" in (tmp_path / "page.html").read_text()


def test_captions_say_what_is_left_out() -> None:
    """Of seven columns of numbers six are paired; a constant one has no coordinate."""
    rng = np.random.default_rng(0)
    data = {"same": ["k"] * 40} | {f"c{k}": rng.normal(size=40) for k in range(7)}
    fitted = fit_to_data(data, quality="fast", max_seconds=0.3)
    sections = {section.title: section for section in table_page(fitted, data).sections}
    captions = {title: [picture.caption for picture in section.pictures] for title, section in sections.items()}
    assert captions["Data and samples"] == ["The first 6 of 7 columns of numbers against each other."]
    assert captions["Densities"] == ["same, c0, c1, c2", "c3, c4, c5, c6"]
    assert len(sections["Data and samples"].pictures[0].figure.axes) == 21
    assert fitted.plot(data).axes[-1].get_xlabel() == "c5"


def test_a_page_given_a_context_and_one_of_categories_alone(tmp_path: Path) -> None:
    data = mixed()
    context = {"hour": data.pop("hour")}
    fitted = fit_to_data(data, context, quality="fast", max_seconds=0.5)
    write_page(table_page(fitted, data, context), tmp_path / "a.html")
    assert "A density of 3 columns given hour" in (tmp_path / "a.html").read_text()
    assert fitted.plot(data, context).axes[-1].get_xlabel() == "weight"
    colours = {"<colour>": data["<colour>"]}
    fitted = fit_to_data(colours, quality="fast", max_seconds=0.5)
    write_page(table_page(fitted, colours), tmp_path / "b.html")
    text = (tmp_path / "b.html").read_text()
    assert "Step by step" not in text and len(images(tmp_path / "b.html")) == 3


def test_the_verdict_is_the_worse_of_fit_and_table(fit: DataFit) -> None:
    other = mixed() | {"weight": mixed()["weight"] + 100}
    made = table_page(fit, other)
    assert fit.verdict == "good" and made.verdict == "failed"
    assert any("'weight'" in text and "on this table; failed" in text for text in made.findings)
    with pytest.raises(TableError, match="20 or more rows"):
        table_page(fit, {name: column[:9] for name, column in mixed().items()})


def test_histories_survive_saving(fit: DataFit, tmp_path: Path) -> None:
    fit.save(tmp_path / "m.safetensors")
    again = DataFit.load(tmp_path / "m.safetensors")
    assert again.history.candidates == fit.history.candidates and len(again.history.candidates) == 3
    runs = [history.runs["discrete coordinates"] for history in (again.history, fit.history)]
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-5) and len(runs[0].losses) > 0
    assert [step for step, _ in runs[0].validation] == [step for step, _ in runs[1].validation]
    assert str(again.history).startswith("fitted to 120 rows in ")


def test_the_path_through_the_layers_ends_at_the_model() -> None:
    """The last step is what the flow makes of the same draws of the base; of a mixture of flows, the first one."""
    fitted = fit_recipe(torch.randn(60, 2, generator=torch.Generator().manual_seed(0)), flow="nsf", max_steps=5)
    torch.manual_seed(0)
    titles, points = path_of(fitted.model, 50)
    flow = fitted.model.continuous
    assert flow is not None
    assert len(titles) == len(points) == len(Parts.of(flow).layers) + 1
    assert torch.allclose(points[-1], flow.from_base(points[0]), rtol=0, atol=1e-12)
    for text in ("continuous coordinates: 2", "base: StandardNormal", "1: Coupling RationalQuadratic", "2: LU"):
        assert text in describe(fitted.model)
    twice = RowModel(None, pf.Flow(pf.Chain(pf.LU(2)), FlowMixture([flow, pf.planar(features=2).double()])).double())
    titles, points = path_of(twice, 50)
    assert len(titles) == len(Parts.of(flow).layers) + 2 and titles[-1].endswith(": LU")
    assert torch.allclose(points[-2], flow.from_base(points[0]), rtol=0, atol=1e-12)
    assert "a mixture of 2 flows, each: " in describe(twice)


def test_pages_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(Page("a", "good"), tmp_path / "page.html")
    before = (tmp_path / "page.html").read_text()

    class Broken(Picture):
        @property
        def image(self) -> str:
            raise OSError("no space")

    broken = Section("s", pictures=[Broken(training_curve([2.0, 1.0]), "c")])
    with pytest.raises(OSError, match="no space"):
        write_page(Page("b", "good", sections=[broken]), tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r'jinja2: pip install "pushforward\[plot\]"'):
        write_page(Page("a", "good"), tmp_path / "other.html")


def test_a_page_about_a_log_density(tmp_path: Path) -> None:
    fitted = pf.fit_to_log_density(lambda x: -0.5 * x.square().sum(-1), features=3, max_steps=30, seed=0)
    write_page(log_density_page(fitted, title="A normal distribution"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert f"<strong>{fitted.verdict}</strong>" in text and "log evidence" in text
    pictures = images(tmp_path / "page.html")
    assert len(pictures) == 2
    assert all(np.asarray(picture.convert("L"), dtype=float).std() > 5 for picture in pictures)


PROBE = """<script>
window.problems = [];
addEventListener("error", event => problems.push(event.message || `${event.target.tagName} does not load`), true);
console.error = (...words) => problems.push(words.join(" "));
</script>"""
COLLECT = """<script>
addEventListener("load", () => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => ({
    problems: frame.contentWindow.problems,
    images: [...frame.contentDocument.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt.length]),
    width: frame.contentWindow.innerWidth,
    beyond: frame.contentDocument.documentElement.scrollWidth - frame.contentDocument.documentElement.clientWidth,
  })));
});
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_every_figure_without_an_error(page: Path, tmp_path: Path) -> None:
    """In frames as wide as a screen and as a phone, nothing but figures and tables scrolls sideways."""
    source = html.escape(page.read_text().replace("<head>", "<head>" + PROBE))
    frames = "".join(
        f'<iframe width="{width}" height="800" style="border: 0" srcdoc="{source}"></iframe>' for width in (1280, 390)
    )
    (tmp_path / "both.html").write_text("<!doctype html><title></title>" + frames + COLLECT)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1400,900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom"]
    command.append((tmp_path / "both.html").as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    found = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", done.stdout)[0]))
    assert [frame["width"] for frame in found] == [1280, 390]
    for frame in found:
        assert frame["problems"] == [] and frame["beyond"] <= 0
        assert len(frame["images"]) == len(images(page))
        assert all(natural > 100 and shown > 100 and alt for natural, shown, alt in frame["images"])


def test_the_command_writes_a_page(fit: DataFit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pushforward.tabular import write_file

    fit.save(tmp_path / "m.safetensors")
    write_file(tmp_path / "t.parquet", mixed())
    paths = [str(tmp_path / name) for name in ("m.safetensors", "t.parquet", "r.html")]
    assert main(["report", *paths[:2], "-o", paths[2]]) == 0
    assert f"verdict: {fit.verdict}; wrote" in capsys.readouterr().out
    assert "m.safetensors on t.parquet" in (tmp_path / "r.html").read_text()
