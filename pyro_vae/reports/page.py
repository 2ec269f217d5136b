"""A page: sections of sentences, pictures, tables and formulas, rendered as one file that needs nothing else."""

import base64
import hashlib
import importlib.metadata
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from pyro_vae.core.errors import InputError
from pyro_vae.core.files import naming_unwritable, write_atomically
from pyro_vae.reports.bibtex import Reference

if TYPE_CHECKING:
    from jinja2 import Environment

GENERATOR = "pyro_vae report"
"""What a page says of its maker, by which one that may be replaced is known."""

MANY = 12
"""Rows from which a table is folded."""


@dataclass(frozen=True)
class Picture:
    """A picture, embedded.

    Args:
        source: a data URI.
        alt: what it shows, for those who do not see it.
        size: width and height in pixels.
        caption: what it means, and how it is read.
    """

    source: str
    alt: str
    size: tuple[int, int]
    caption: str = ""
    kind = "picture"

    @classmethod
    def of(cls, figure: Figure, alt: str, caption: str = "") -> "Picture":
        """Embed a figure as PNG."""
        written = io.BytesIO()
        figure.savefig(written, format="png", metadata={"Software": None})
        source = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
        width, height = figure.get_size_inches() * figure.dpi
        return cls(source, alt, (round(width), round(height)), caption)


@dataclass(frozen=True)
class Table:
    """A table that is sorted by its header buttons.

    Args:
        caption: what it holds, with units.
        head: the names of the columns; the first column names the rows.
        rows: cells, text or numbers; a number is written with four digits, and sorted by all of them.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    kind = "table"

    @property
    def folded(self) -> bool:
        """Whether it is so long that it is shown on demand, and in print."""
        return len(self.rows) > MANY


@dataclass(frozen=True)
class Code:
    """Text to copy.

    Args:
        label: what it is.
        text: the text.
    """

    label: str
    text: str
    kind = "code"


@dataclass(frozen=True)
class Formula:
    """A formula.

    Args:
        label: what it says.
        markup: MathML.
    """

    label: str
    markup: str
    kind = "formula"


@dataclass(frozen=True)
class Sentences:
    """A list of sentences.

    Args:
        items: them.
    """

    items: Sequence[str]
    kind = "sentences"


@dataclass(frozen=True)
class Bibliography:
    """References with their links, and as BibTeX.

    Args:
        entries: them.
    """

    entries: Sequence[Reference]
    kind = "bibliography"


@dataclass(frozen=True)
class Beside:
    """Several things of one kind beside each other, below each other where the page is narrow.

    Args:
        columns: the title of each, and what stands below it.
    """

    columns: Sequence[tuple[str, Sequence[Any]]]
    kind = "beside"


@dataclass
class Section:
    """A section of a page.

    Args:
        title: its heading.
        blocks: a string is a paragraph, everything else one of the classes above.
    """

    title: str
    blocks: list[Any] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its anchor."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def draw(self, make: Callable[[], Figure], alt: str, caption: str = "") -> None:
        """Add a picture, or the sentence that says why there is none for this kind of data."""
        try:
            self.blocks.append(Picture.of(make(), alt, caption))
        except InputError as error:
            self.blocks.append(f"Not drawn: {error}")


@dataclass(frozen=True)
class Page:
    """A whole page.

    Args:
        title: of the page.
        facts: what stands below the title.
        sections: in their order.
    """

    title: str
    facts: Sequence[str]
    sections: Sequence[Section]

    def html(self) -> str:
        """The page as text; whatever is not made here is escaped."""
        from markupsafe import Markup

        environment = _environment()
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
        """Write the page beside its place and move it there when it is complete."""
        with naming_unwritable(target), write_atomically(target) as fresh:
            fresh.write_text(self.html(), encoding="utf-8")
        return target


def reserve(target: Path) -> Path:
    """Make sure, before any work, that a page can be written; one that a report wrote may be replaced.

    Raises:
        InputError: no such folder, no .html, or a file in the way that no report wrote.
    """
    if target.suffix != ".html":
        raise InputError(f"{target} is no place for a report: name a file that ends in .html.")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise InputError(f"{target} cannot be written: {target.parent} is no folder that you may write to.")
    if target.exists():
        head = target.read_text(encoding="utf-8", errors="replace")[:2000] if target.is_file() else ""
        if f'content="{GENERATOR}' not in head:
            raise InputError(f"{target} exists and is no report, so it is left alone: name another file with --to.")
    return target


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, for importing it takes time

    loader = PackageLoader("pyro_vae.reports")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["shown"] = shown
    return made


def shown(value: Any) -> str:
    """Write a cell: a number with four digits.

    >>> shown(0.123456), shown(3), shown(float("nan")), shown("x")
    ('0.1235', '3', '', 'x')
    """
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
