"""The references of docstrings as BibTeX: what a component rests on is written once, where it is defined."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, fields

from pyro_vae.core.config import Config
from pyro_vae.core.errors import InputError

NAME = r"[^\s,.]+(?:[ -](?!and\b|et\b)[^\s,.]+){0,2}"
AUTHORS = rf"{NAME} et al\.|(?:{NAME}, )*{NAME} and {NAME}|{NAME}"
REFERENCE = re.compile(
    rf"(?P<authors>{AUTHORS}), (?P<title>.+?), (?P<year>(?:1[89]|20)\d\d)\b(?P<rest>(?:[^.\s]|\.(?=\S)|\s)*)\.(?:\s+|$)"
)
LINK = re.compile(r"https?://[^\s,]+")
SMALL = {"a", "an", "the", "on", "of", "in", "for", "and", "with", "to", "from", "some"}


@dataclass(frozen=True)
class Reference:
    """One reference of a docstring.

    Args:
        authors: their names as written, "X", "X and Y" or "X et al.".
        title: the title.
        year: of publication.
        link: where it can be read; empty where the docstring gives none.
        note: what else is said of it: a journal, a chapter, what it is cited for.
    """

    authors: str
    title: str
    year: int
    link: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """The key of its entry: first author, year and the title's first word of weight.

        >>> Reference("Sønderby et al.", "Ladder Variational Autoencoders", 2016).key
        'sonderby2016ladder'
        """
        first = re.split(r",| and | et al", self.authors)[0]
        words = [_ascii(word) for word in re.split(r"[\s-]+", self.title)]
        return f"{_ascii(first)}{self.year}{next((word for word in words if word and word not in SMALL), '')}"

    @property
    def bibtex(self) -> str:
        """The entry, with the title as it is written kept from being lowered."""
        names = self.authors.replace(" et al.", " and others")
        parts = {"author": " and ".join(re.split(r", | and ", names)), "title": f"{{{self.title}}}"}
        parts |= {"year": str(self.year), "url": self.link, "note": self.note}
        lines = [f"  {name} = {{{_escaped(name, value)}}}," for name, value in parts.items() if value]
        return "\n".join([f"@misc{{{self.key},", *lines, "}"])


def references(docstring: str | None) -> list[Reference]:
    """Read the "References:" section of a docstring.

    Args:
        docstring: as written; None and one without the section have no references.

    Raises:
        InputError: something in the section is no reference of the form "Authors, Title, year, link."

    >>> references('''A family.
    ...
    ...     References:
    ...         Chen et al., Variational Lossy Autoencoder, 2017 (flow priors), https://arxiv.org/abs/1611.02731.
    ... ''')[0].key
    'chen2017variational'
    """
    found = re.search(r"^[ \t]*References:[ \t]*\n(.*?)(?=\n[ \t]*\n|\Z)", docstring or "", re.DOTALL | re.MULTILINE)
    text = " ".join(found[1].split()) if found else ""
    read, at = [], 0
    while at < len(text):
        match = REFERENCE.match(text, at)
        if match is None:
            raise InputError(f"{text[at:]!r} is no reference: write 'Authors, Title, year, link.'")
        rest = match["rest"].strip(" ,")
        link = LINK.search(rest)
        note = " ".join(LINK.sub("", rest).replace("(", "").replace(")", "").strip(" ,").split())
        read.append(Reference(match["authors"], match["title"], int(match["year"]), link[0] if link else "", note))
        at = match.end()
    return read


def cited(things: Iterable[object]) -> list[Reference]:
    """The references of objects, and of declarations inside them, each once, sorted by key.

    Args:
        things: classes, functions, or declared things.

    >>> from pyro_vae import Mixture, StudentT
    >>> [reference.key for reference in cited([Mixture(StudentT())])][0]
    'dilokthanakul2017deep'
    """
    found: dict[str, Reference] = {}
    for thing in _spread(things):
        owner = thing if isinstance(thing, type) or callable(thing) else type(thing)
        for reference in references(getattr(owner, "__doc__", None)):
            before = found.setdefault(reference.key, reference)
            found[reference.key] = max(before, reference, key=_fullness)
    return [found[key] for key in sorted(found)]


def _fullness(one: Reference) -> tuple[bool, int, int]:
    """How much a reference says: the fuller one of two with one key is kept."""
    return bool(one.link), len(one.title), len(one.authors)


def _spread(things: Iterable[object]) -> Iterable[object]:
    for thing in things:
        yield thing
        if isinstance(thing, Config):
            yield from _spread(getattr(thing, field.name) for field in fields(thing))


def _ascii(word: str) -> str:
    plain = unicodedata.normalize("NFKD", word.replace("ø", "o").replace("Ø", "O").replace("ß", "ss"))
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def _escaped(name: str, value: str) -> str:
    return value if name == "url" else re.sub(r"([&%#_])", r"\\\1", value)
