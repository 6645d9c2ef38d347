"""A page of words, tables and figures in one HTML file that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pushforward import __version__
from pushforward.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, CSS_INCH = 160, 96  # pixels of the image, and of the page, per inch


@dataclass(frozen=True)
class Picture:
    """A figure and what it shows, also for those who cannot see it."""

    figure: Figure
    caption: str

    @property
    def image(self) -> str:
        """The figure as the address of an image that lies within the page."""
        buffer = BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.05)
        return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()

    @property
    def width(self) -> int:
        """On a page that is wide enough, in its pixels."""
        return round(CSS_INCH * self.figure.get_figwidth())


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        text: a paragraph under it.
        header: of the table's columns; the first column is text, the others are figures.
        rows: of the table.
        words: how many of the first columns hold text.
        listing: lines of text, shown as they stand.
        pictures: shown last.
    """

    title: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: int = 1
    listing: str = ""
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """What `write_page` writes.

    Attributes:
        title: of the page.
        verdict: "good", "doubtful" or "failed".
        findings: sentences below the verdict.
        text: a paragraph below them.
        sections: what follows.
    """

    title: str
    verdict: str
    findings: Sequence[str] = ()
    text: str = ""
    sections: Sequence[Section] = field(default_factory=tuple)


def write_page(page: Page, path: str | Path) -> None:
    """Write a page to one file, whole or not at all.

    Raises:
        ModuleNotFoundError: without Jinja2.
        OSError: the file cannot be written.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        message = 'a report needs jinja2: pip install "pushforward[plot]"'
        raise ModuleNotFoundError(message, name="jinja2") from error
    source = files("pushforward.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(source).render(page=page, version=__version__)
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
