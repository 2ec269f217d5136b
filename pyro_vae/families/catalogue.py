r"""A list of all families by kind of data, and one page for each family, from what the families declare.

Nothing here is a list of names: a new entry of `FAMILIES` is in the catalogue as it is. Roles, kinds of data and
supports are class data, which a test proves by building every family in every role.
"""

import dataclasses
import inspect
import re
import textwrap
from typing import Any

from pyro_vae.core import serialization
from pyro_vae.core.calls import explained
from pyro_vae.core.errors import unknown_name_error
from pyro_vae.core.formatting import in_python, in_yaml, on_the_command_line, signature, written
from pyro_vae.core.latex import readable
from pyro_vae.core.signatures import describe_parameters
from pyro_vae.distributions.constraints import real
from pyro_vae.families import FAMILIES, Family
from pyro_vae.families.base import Parameter, event_shaped

WIDTH = 118
KINDS = (
    "Real numbers",
    "Positive numbers",
    "Unit interval",
    "Angles",
    "Counts",
    "Categories",
    "Pixel levels",
    "Vectors",
    "Shares that sum to one",
    "Made of another family",
    "Priors that depend on the model",
)
"""Kinds of data, in the order in which they are listed."""


@explained
def catalogue(family: str | type[Family] | None = None, *, markdown: bool = False) -> str:
    """Description of every family in two lines, or of one family on a page.

    Args:
        family: a family or its name; None for all.
        markdown: write the list of all as a table for a document.

    Returns:
        Text of at most 120 columns (a table in Markdown is wider).

    Raises:
        InputError: an unknown name; the message has the nearest known ones.

    >>> print(catalogue("Laplace").splitlines()[0])
    Laplace(loc, scale)
    """
    if family is None:
        return _table() if markdown else _list()
    name = family if isinstance(family, str) else family.__name__
    if name not in FAMILIES:
        raise unknown_name_error("family", name, FAMILIES)
    return _page(FAMILIES[name])


def group_by_kind() -> dict[str, list[type[Family]]]:
    """Families by their kind of data, in the order of `KINDS`."""
    return {kind: [family for family in FAMILIES.values() if family.data_kind == kind] for kind in KINDS}


def summary(family: type[Family]) -> str:
    """First line of a family's docstring."""
    return readable((inspect.getdoc(family) or "").partition("\n")[0])


def example_of(family: type[Family]) -> tuple[str, Family]:
    """A role of a family, and a declaration to show there: its last parameter trained, where there is another one."""
    role = "likelihood" if "likelihood" in family.roles else family.roles[0]
    from_network = [name for name in family.parameters if getattr(family(), name) is None]
    if len(from_network) < 2:
        return role, family()
    last = from_network[-1]
    return role, family(**{last: "learned" if family.parameters[last].allows_scalar else "per_feature"})


# ---- the list, the table and the page ------------------------------------------------------------------------------


def _list() -> str:
    lines: list[str] = []
    for kind, families in group_by_kind().items():
        lines += ["", kind.upper()]
        for family in families:
            first, rest = signature(family), f"{', '.join(family.roles):<25} {family.support_text}"
            if len(first) > 44 or len(rest) > WIDTH - 48:
                lines += textwrap.wrap(first, WIDTH - 2, initial_indent="  ", subsequent_indent=" " * 6)
                first = ""
            lines.append(f"  {first:<44}  {rest}")
            lines += textwrap.wrap(summary(family), WIDTH - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += [
        "",
        'A parameter is a number (fixed), "learned", "per_feature", or left out (computed by the network; in a prior,',
        'one per feature). One family on a page: pyro-vae families NAME, or print(pv.catalogue("NAME")).',
    ]
    return "\n".join(lines[1:])


def _table() -> str:
    rows = ["| data | family | support | roles | what it is |", "|---|---|---|---|---|"]
    for kind, families in group_by_kind().items():
        for family in families:
            first = f"**{kind}**" if family is families[0] else ""
            cells = (first, f"`{signature(family)}`", family.support_text, ", ".join(family.roles), summary(family))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _page(family: type[Family]) -> str:
    sections = _sections(inspect.getdoc(family) or "")
    arguments, example = {name: readable(text) for name, text in describe_parameters(family).items()}, family()
    lines = [*textwrap.wrap(signature(family), WIDTH, subsequent_indent="    "), "", *_paragraphs(sections[""]), ""]
    lines += [f"roles      {', '.join(family.roles)}", f"support    {family.support_text}"]
    if ranks := example.event_ranks:
        span = "vectors" if ranks == (1,) else f"of rank {ranks[0]} to {ranks[-1]}, where a vector has 1 and an image 3"
        lines.append(f"events     {span}")
    lines += ["", "Parameters and options"]
    width = max(len(field.name) for field in dataclasses.fields(family)) + 4
    for field in dataclasses.fields(family):
        about = arguments.get(field.name, "")
        default = getattr(example, field.name)
        parameter = family.parameters.get(field.name)
        rule = _rule(parameter, default, about) if parameter else f"by default {written(default)}."
        first = f"  {field.name:<{width - 2}}"
        for text in (about, rule) if about else (rule,):
            lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * width)
            first = " " * width
    role, declared = example_of(family)
    lines += [
        "",
        "Example",
        f"  Python        vae = pv.VAE(event_shape=(4,), latent_dim=2, {role}={in_python(declared)})",
        f"  YAML          {role}: {in_yaml(serialization.to_dict(declared))}",
        f"  command line  pyro-vae fit {on_the_command_line(role, declared)}",
    ]
    for title in ("References", "Raises"):
        if title in sections:
            lines += ["", title, *textwrap.indent("\n".join(_paragraphs(sections[title])), "  ").splitlines()]
    return "\n".join(lines)


def _rule(parameter: Parameter, default: Any, about: str) -> str:
    """The values a parameter may take, unless its description has them, and its sources."""
    words = repr(parameter.constraint)
    limits = "" if "in [" in about else "any real number; " if parameter.constraint is real else f"{words}; "
    if not parameter.trainable:
        return f"{limits}fixed, by default {written(default)}."
    numbers = "a number" if parameter.shape is event_shaped else "numbers"
    sources = [numbers, *(['"learned"'] if parameter.allows_scalar else []), '"per_feature"', "from the network"]
    shown = "from the network" if default is None else written(default)
    return f"{limits}{', '.join(sources[:-1])} or {sources[-1]}; by default {shown}."


def _sections(doc: str) -> dict[str, str]:
    """A docstring's sections by title, what comes before the first as ""; examples are left out."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in doc.splitlines():
        if line.startswith(">>>"):
            break
        if match := re.fullmatch(r"(References|Args|Raises):", line):
            title = match[1]
            found[title] = []
        else:
            found[title].append(line)
    return {title: textwrap.dedent("\n".join(lines)).strip() for title, lines in found.items()}


def _paragraphs(text: str) -> list[str]:
    """Paragraphs filled to the width, formulas set off, a table as it stands."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        formula = paragraph.strip().startswith("$$")
        indent = " " * 4 if formula else ""
        if paragraph.lstrip().startswith("|"):
            filled = paragraph.splitlines()
        else:
            words = readable(" ".join(paragraph.split()))
            filled = textwrap.wrap(words, WIDTH, initial_indent=indent, subsequent_indent=indent * 2)
        lines += [*([""] if lines else []), *filled]
    return lines
