"""Bibliography: the entries of references.bib whose keys docstrings cite, as [kingma2014]."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

from pyro_vae.core.config import Config

KEY = re.compile(r"\[([a-z]+\d{4}[a-z]?)\]")
ENTRY = re.compile(r"^@\w+\{(\w+),\n(.*?)\n\}$", re.DOTALL | re.MULTILINE)
FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """Entry of references.bib.

    Args:
        key: as docstrings cite it: the first author and the year.
        authors: their names, "X", "X and Y" or "X et al.".
        title: the title.
        year: of publication.
        link: where it can be read; empty where it is not known.
        note: the journal or the book.
        bibtex: the entry itself.
    """

    key: str
    authors: str
    title: str
    year: int
    link: str
    note: str
    bibtex: str


@cache
def bibliography() -> dict[str, Reference]:
    """References of the package by key.

    >>> bibliography()["sonderby2016"].authors
    'Sønderby et al.'
    """
    entries = {}
    for found in ENTRY.finditer(files(__package__).joinpath("references.bib").read_text(encoding="utf-8")):
        parts = dict(FIELD.findall(found[2].replace("\\", "")))
        *names, last = parts["author"].split(" and ")
        authors = ", ".join(names) + (" et al." if last == "others" else f" and {last}" if names else last)
        title, rest = parts["title"].strip("{}"), (parts.get("url", ""), parts.get("note", ""))
        entries[found[1]] = Reference(found[1], authors, title, int(parts["year"]), *rest, found[0])
    return entries


def cited(things: Iterable[object]) -> list[Reference]:
    """References that the docstrings of objects cite, and of declarations inside them, each once, sorted by key.

    Args:
        things: classes, functions, or declarations.

    >>> from pyro_vae import Mixture, StudentT
    >>> [reference.key for reference in cited([Mixture(StudentT())])]
    ['dilokthanakul2017', 'figurnov2018', 'lange1989', 'mclachlan2000']
    """
    keys = {key for thing in _spread(things) for key in KEY.findall(thing.__doc__ or "")}
    return [bibliography()[key] for key in sorted(keys & bibliography().keys())]


def _spread(things: Iterable[object]) -> Iterator[object]:
    for thing in things:
        yield thing
        if isinstance(thing, Config):
            yield from _spread(getattr(thing, field.name) for field in fields(thing))
