r"""Which families there are, and what each of them is for, read off the table.

Nothing here is a list of names: a role is one that a family was built in, a support is that of the distribution it
made, and a parameter is what the family declares. A new entry of `FAMILIES` is in the catalogue as it is.
"""

import dataclasses
import functools
import inspect
import math
import re
import textwrap
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints as sets

from pyro_vae.core import serialization
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.core.formatting import in_python, in_yaml, number, on_the_command_line, signature, written
from pyro_vae.core.latex import readable
from pyro_vae.core.rng import seeded
from pyro_vae.distributions.constraints import describe, element_of, real, supports_equal
from pyro_vae.families import FAMILIES, Family, Parameter
from pyro_vae.families.base import Composite, event_shaped
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.normal import Normal
from pyro_vae.families.site import Shape, SiteSpec
from pyro_vae.networks import MLP

LATENT: Shape = (3,)
EVENTS: tuple[Shape, ...] = ((), (3,), (2, 3), (1, 4, 4))
"""The events that likelihoods are tried on: a number, a vector, a sequence of vectors, an image."""

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
    "Priors that look at the model",
)
"""Kinds of data, in the order in which they are listed."""


@dataclass(frozen=True)
class Entry:
    """What the catalogue says of one family.

    Args:
        family: the family.
        kind: the kind of data, one of `KINDS`.
        roles: "prior", "likelihood", "guide": those it can be used in.
        support: the values it describes, in words.
        signature: its fields, with the defaults of those that are options.
        summary: the first line of its docstring.
    """

    family: type[Family]
    kind: str
    roles: tuple[str, ...]
    support: str
    signature: str
    summary: str


def catalogue(family: str | type[Family] | None = None, *, markdown: bool = False) -> str:
    """Describe every family in two lines, or one family on a page.

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


def entries() -> list[Entry]:
    """Every family, by kind of data."""
    found = [entry(family) for family in FAMILIES.values()]
    return sorted(found, key=lambda one: KINDS.index(one.kind))


def entry(family: type[Family]) -> Entry:
    """What the catalogue says of one family."""
    words = (inspect.getdoc(family) or "").splitlines()[0]
    return Entry(family, _kind(family), roles(family), _support(family), signature(family), readable(words))


# ---- what it can be ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A family where it could be built: its distributions, by role."""

    prior: TorchDistribution | None
    guide: TorchDistribution | None
    likelihoods: dict[Shape, TorchDistribution]


@functools.cache
def tried(family: type[Family]) -> Trial:
    """Build a family with its defaults in every role and place."""
    with seeded(None):
        network = MLP(hidden=())
        posterior = Conditional(Normal(), SiteSpec("guide", LATENT, (4,), network))
        prior = _built(family, SiteSpec("prior", LATENT, guide=posterior, data_shape=(4,)))
        guide = _built(family, SiteSpec("guide", LATENT, (4,), network))
        places = {event: _built(family, SiteSpec("likelihood", event, (2,), network)) for event in EVENTS}
        return Trial(prior, guide, {event: made for event, made in places.items() if made is not None})


def _built(family: type[Family], site: SiteSpec) -> TorchDistribution | None:
    """The family's distribution in a place, where there is one that can score its own draws."""
    try:
        distribution = Conditional(family(), site).dummy_distribution()
        scores: Tensor = distribution.log_prob(distribution.sample())
    except (InputError, NotImplementedError):
        return None
    return distribution if bool(torch.isfinite(scores).all()) else None


def roles(family: type[Family]) -> tuple[str, ...]:
    """The roles that a family can have: a prior needs a guide over its support, and a guide a prior.

    >>> from pyro_vae import Bernoulli, Laplace
    >>> roles(Laplace), roles(Bernoulli)
    (('prior', 'likelihood', 'guide'), ('likelihood',))
    """
    own, others = tried(family), [tried(other) for other in {*FAMILIES.values(), family}]
    guides = [other.guide for other in others if other.guide is not None and other.guide.has_rsample]
    priors = [other.prior for other in others if other.prior is not None]
    found = {
        "prior": own.prior is not None
        and not family().has_point_masses
        and any(supports_equal(own.prior.support, guide.support) for guide in guides),
        "likelihood": bool(own.likelihoods),
        "guide": own.guide in guides and any(supports_equal(own.guide.support, prior.support) for prior in priors),
    }
    return tuple(role for role, possible in found.items() if possible)


# ---- what it describes -------------------------------------------------------------------------------------------


def _element(distribution: TorchDistribution, family: Family) -> Any:
    """The constraint of one element of its data, or of one vector where elements depend on each other."""
    support = element_of(distribution.support)
    return support if family.data_support is None or support.event_dim else family.data_support


def _of(family: type[Family], example: Family) -> Any:
    trial = tried(family) if example == family() else None
    if trial is None:
        site = SiteSpec("likelihood", next(iter(tried(family).likelihoods)), (2,), MLP(hidden=()))
        return _element(Conditional(example, site).dummy_distribution(), example)
    known = [*trial.likelihoods.values(), trial.prior, trial.guide]
    return _element(next(one for one in known if one is not None), example)


def _bounds(constraint: Any) -> tuple[float, float]:
    if constraint is sets.boolean:
        return 0.0, 1.0
    low, high = getattr(constraint, "lower_bound", -math.inf), getattr(constraint, "upper_bound", math.inf)
    return float(torch.as_tensor(low).min()), float(torch.as_tensor(high).max())


def _followed(family: type[Family]) -> list[str]:
    """The bounds of the support in words: a number, or the option that it follows, as in classes - 1."""
    example = family()
    bounds = _bounds(_of(family, example))
    words = [number(bound) for bound in bounds]
    for field in dataclasses.fields(family):
        value = getattr(example, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not tried(family).likelihoods:
            continue
        try:
            moved = _bounds(_of(family, family(**{field.name: value + 1})))
        except InputError:
            continue
        for i in range(2):
            if moved[i] - bounds[i] == 1:
                apart = bounds[i] - value
                words[i] = field.name + (f" {'-' if apart < 0 else '+'} {number(abs(apart))}" if apart else "")
    return words


def _support(family: type[Family]) -> str:
    return _values(family) + (" by default" if issubclass(family, Composite) else "")


def _values(family: type[Family]) -> str:
    constraint = _of(family, family())
    low, high = _bounds(constraint)
    if isinstance(constraint, type(sets.simplex)):
        return "vectors of shares, positive, that sum to one"
    if isinstance(constraint, type(sets.one_hot)):
        return "one-hot vectors"
    vectors = "vectors of " if all(tried(family).likelihoods) and _kind(family) == "Vectors" else ""
    if constraint.is_discrete:
        first, last = _followed(family)
        if last in ("1", "inf"):
            return vectors + ("0 and 1" if last == "1" else f"whole numbers {first}, {int(low) + 1}, ...")
        return vectors + f"whole numbers {first} to {last}"
    if (low, high) == (-math.inf, math.inf):
        return vectors + ("real numbers" if constraint in (real, sets.real_vector) else describe(constraint))
    first, last = _followed(family)
    if (first, last) == ("0", "inf"):
        return vectors + ("0 and " if bool(constraint.check(torch.zeros(()))) else "") + "positive numbers"
    if abs(high - math.pi) < 1e-3 and abs(low + math.pi) < 1e-3:
        return vectors + "angles in [-pi, pi]"
    closed = [math.isfinite(end) and bool(constraint.check(torch.tensor(end))) for end in (low, high)]
    return vectors + f"numbers in {'(['[closed[0]]}{first}, {last}{')]'[closed[1]]}"


def _kind(family: type[Family]) -> str:
    if roles(family) == ("prior",):
        return KINDS[-1]
    if issubclass(family, Composite):
        return "Made of another family"
    example = family()
    constraint = _of(family, example)
    low, high = _bounds(constraint)
    if example.is_pixel:
        return "Pixel levels"
    if isinstance(constraint, type(sets.simplex)):
        return "Shares that sum to one"
    if constraint.is_discrete:
        counted = example.is_count or any(parameter.scales_with_size_factor for parameter in family.parameters.values())
        return "Counts" if counted else "Categories"
    if example.event_ranks == (1,):
        return "Vectors"
    if (low, high) == (0, 1):
        return "Unit interval"
    if (low, high) == (0, math.inf):
        return "Positive numbers"
    return "Angles" if math.isfinite(low) and math.isfinite(high) else "Real numbers"


def example_of(family: type[Family]) -> tuple[str, Family]:
    """A role of a family, and a declaration to show there: its last parameter trained, where there is another one."""
    role = "likelihood" if "likelihood" in roles(family) else roles(family)[0]
    from_network = [name for name in family.parameters if getattr(family(), name) is None]
    if len(from_network) < 2:
        return role, family()
    last = from_network[-1]
    return role, family(**{last: "learned" if family.parameters[last].allows_scalar else "per_feature"})


# ---- the list, the table and the page ------------------------------------------------------------------------------


def _list() -> str:
    lines: list[str] = []
    kind = ""
    for one in entries():
        if one.kind != kind:
            kind = one.kind
            lines += ["", kind.upper()]
        head = f"  {one.signature:<44}  {', '.join(one.roles):<25} {one.support}"
        if len(one.signature) > 44 or len(head) > WIDTH:
            lines += textwrap.wrap(one.signature, WIDTH - 2, initial_indent="  ", subsequent_indent=" " * 6)
            head = f"  {'':<44}  {', '.join(one.roles):<25} {one.support}"
        lines += [head, *textwrap.wrap(one.summary, WIDTH - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    lines += [
        "",
        'A parameter is a number (fixed), "learned", "per_feature", or left out (computed by the network; in a prior,',
        'one per feature). One family on a page: pyro-vae families NAME, or print(pv.catalogue("NAME")).',
    ]
    return "\n".join(lines[1:])


def _table() -> str:
    rows = ["| data | family | support | roles | what it is |", "|---|---|---|---|---|"]
    kind = ""
    for one in entries():
        first = f"**{one.kind}**" if one.kind != kind else ""
        kind = one.kind
        cells = (first, f"`{one.signature}`", one.support, ", ".join(one.roles), one.summary)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _page(family: type[Family]) -> str:
    sections = _sections(inspect.getdoc(family) or "")
    one, arguments = entry(family), _arguments(sections.get("Args", ""))
    lines = [*textwrap.wrap(one.signature, WIDTH, subsequent_indent="    "), "", *_paragraphs(sections[""]), ""]
    ranks = family().event_ranks or ()
    lines += [f"roles      {', '.join(one.roles)}", f"support    {one.support}"]
    if ranks:
        span = "vectors" if ranks == (1,) else f"of rank {ranks[0]} to {ranks[-1]}, where a vector has 1 and an image 3"
        lines.append(f"events     {span}")
    lines += ["", "Parameters and options"]
    example = family()
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
        f"  Python        vae = pv.VAE(event_shape={_event(family, role)}, latent_dim=2, {role}={in_python(declared)})",
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


def _event(family: type[Family], role: str) -> Shape:
    fitting = tried(family).likelihoods if role == "likelihood" else {}
    return (4,) if not fitting or (3,) in fitting else next(iter(fitting))


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


def _arguments(text: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    found = re.findall(r"^(\w+): (.*(?:\n[ ].*)*)", text, re.MULTILINE)
    return {name: readable(" ".join(words.split())) for name, words in found}


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
