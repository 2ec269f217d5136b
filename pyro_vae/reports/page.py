"""Page: sections of sentences, pictures, tables and formulas, rendered as one self-contained HTML file."""

import base64
import hashlib
import importlib.metadata
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyro_vae.core.errors import InputError
from pyro_vae.core.files import naming_unwritable, write_atomically
from pyro_vae.reports.bibtex import Reference

GENERATOR = "pyro_vae report"
"""Content of a page's generator tag, by which pages that may be replaced are recognised."""

MAX_UNFOLDED = 12
"""Maximum number of rows of a table that is not folded."""


@dataclass(frozen=True)
class Picture:
    """Embedded picture: a data URI, a description for screen readers, width and height in pixels, and a caption."""

    source: str
    alt: str
    size: tuple[int, int]
    caption: str = ""
    kind = "picture"

    @classmethod
    def of(cls, figure: Figure, alt: str, caption: str = "") -> "Picture":
        """Picture of a figure, as PNG."""
        png = io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None})
        source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        width, height = figure.get_size_inches() * figure.dpi
        return cls(source, alt, (round(width), round(height)), caption)


@dataclass(frozen=True)
class Table:
    """Table that is sorted by its header buttons.

    Args:
        caption: its content, with units.
        head: the names of the columns; the first column names the rows.
        rows: cells, text or numbers; a number is shown with four digits, and sorted by all of them.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    kind = "table"

    @classmethod
    def of(cls, caption: str, columns: Mapping[str, Sequence[Any]]) -> "Table":
        """Table of columns by name."""
        return cls(caption, list(columns), list(zip(*columns.values(), strict=True)))

    @property
    def folded(self) -> bool:
        """Whether it is so long that it is shown on demand, and in print."""
        return len(self.rows) > MAX_UNFOLDED


@dataclass(frozen=True)
class Code:
    """Text to copy, with its label."""

    label: str
    text: str
    kind = "code"


@dataclass(frozen=True)
class Formula:
    """Formula in MathML, with its label."""

    label: str
    markup: str
    kind = "formula"


@dataclass(frozen=True)
class Sentences:
    """List of sentences."""

    items: Sequence[str]
    kind = "sentences"


@dataclass(frozen=True)
class Bibliography:
    """References with their links, and as BibTeX."""

    entries: Sequence[Reference]
    kind = "bibliography"


@dataclass(frozen=True)
class SideBySide:
    """Columns of blocks, each with a title; below each other where the page is narrow."""

    columns: Sequence[tuple[str, Sequence[Any]]]
    kind = "side_by_side"


@dataclass
class Section:
    """Section of a page: a string among its blocks is a paragraph, everything else one of the classes above."""

    title: str
    blocks: list[Any] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Anchor of the section."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def draw(self, make: Callable[[], Figure], alt: str, caption: str = "") -> None:
        """Add a picture, or the reason why there is none for this kind of data."""
        try:
            self.blocks.append(Picture.of(make(), alt, caption))
        except InputError as error:
            self.blocks.append(f"Not drawn: {error}")


@dataclass(frozen=True)
class Page:
    """Page with a title, facts below it, and sections."""

    title: str
    facts: Sequence[str]
    sections: Sequence[Section]

    def html(self) -> str:
        """HTML of the page; text that is not made here is escaped."""
        from jinja2 import Environment, PackageLoader, StrictUndefined  # here, for importing it takes time
        from markupsafe import Markup

        environment = Environment(
            loader=PackageLoader("pyro_vae.reports"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["format_cell"] = format_cell
        style, script = (environment.get_template(name).render().strip() for name in ("page.css", "page.js"))
        return environment.get_template("page.html").render(
            page=self,
            version=importlib.metadata.version("pyro-vae"),
            generator=GENERATOR,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        )

    def write(self, target: Path) -> Path:
        """Path of the page, written atomically."""
        with naming_unwritable(target), write_atomically(target) as fresh:
            fresh.write_text(self.html(), encoding="utf-8")
        return target


def check_target(target: Path) -> Path:
    """Path of a page, checked before any work; a page that a report wrote may be replaced.

    Raises:
        InputError: no such folder, no .html, or an existing file that no report wrote.
    """
    if target.suffix != ".html":
        raise InputError(f"{target} is not a place for a report: name a file that ends in .html.")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise InputError(f"{target} cannot be written: {target.parent} is not a folder that you may write to.")
    if target.exists():
        head = target.read_text(encoding="utf-8", errors="replace")[:2000] if target.is_file() else ""
        if f'content="{GENERATOR}' not in head:
            raise InputError(f"{target} exists and is not a report, so it is kept: name another file with --to.")
    return target


def format_cell(value: Any) -> str:
    """Text of a cell: a number with four digits.

    >>> format_cell(0.123456), format_cell(3), format_cell(float("nan")), format_cell("x")
    ('0.1235', '3', '', 'x')
    """
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
