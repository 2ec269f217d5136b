"""Formulas of a model in LaTeX, and in MathML, which browsers show without scripts."""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from pyro_vae.core.formatting import shorten
from pyro_vae.core.latex import readable
from pyro_vae.families import Family
from pyro_vae.families.base import Composite
from pyro_vae.families.conditional import Conditional
from pyro_vae.model.summary import formula
from pyro_vae.model.vae import VAE

GREEK = {"z": r"\theta", "x": r"\phi", "": r"\lambda"}
"""Symbol of the weights behind a distribution, by the variable that it depends on."""


def mathml(tex: str) -> Markup:
    r"""MathML of a formula in LaTeX, without dollars, with its text as alternative.

    >>> print(mathml(r"s^2"))
    <math alttext="s²" ...<msup><mi>s</mi><mn>2</mn></msup>...</math>
    """
    from latex2mathml.converter import convert  # here, for importing it takes time

    made = convert(" ".join(tex.split()), display="block")
    made = made.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # "is distributed as" is an operator, with space
    return Markup(made.replace("<math ", f'<math alttext="{escape(readable(f"$${tex}$$"))}" ', 1))


def model_formulas(vae: VAE) -> list[str]:
    """Prior, likelihood and guide of a VAE in LaTeX, with the source of each parameter.

    >>> from pyro_vae import MLP, Normal
    >>> print(readable(f"${model_formulas(VAE((3,), 2, likelihood=Normal(scale=1), encoder=MLP(hidden=(8,))))[1]}$"))
    x_n | z_n ~ Normal(loc=loc_θ(z_n), scale=1)
    """
    lines = (("z_n", vae.prior, ""), (r"x_n \mid z_n", vae.likelihood, "z"), (r"z_n \mid x_n", vae.posterior, "x"))
    return [rf"{left} \sim {_distribution(part, context)}" for left, part, context in lines]


def density_formulas(vae: VAE) -> list[tuple[str, str]]:
    """Names and densities in LaTeX of the families of a VAE, each once, from their docstrings."""
    found = dict.fromkeys(type(family) for role in ("prior", "likelihood", "guide") for family in _inside(vae, role))
    formulas = ((family.__name__, re.search(r"\$\$(.*?)\$\$", family.__doc__ or "", re.DOTALL)) for family in found)
    return [(name, match[1].strip()) for name, match in formulas if match]


def _inside(vae: VAE, role: str) -> Iterator[Family]:
    family: Family | None = getattr(vae.declaration, role)
    while family is not None:
        yield family
        family = family.family if isinstance(family, Composite) else None


def _distribution(conditional: Conditional, context: str) -> str:
    """LaTeX of `model.summary.formula`: a computed parameter has its context and weights."""
    name = formula(conditional, context).partition("(")[0]
    shown = []
    for parameter, slot in conditional.slots.items():
        word = _text(parameter)
        if slot.source is None and context:
            value = rf"{word}_{GREEK[context]}({context}_n)"
        elif slot.source in (None, "per_feature"):
            value = rf"{word}_j"
        else:
            value = word if slot.source == "learned" else _number(slot.source)
        shown.append(f"{word}={value}")
    inner = r",\; ".join(shown)
    return rf"{_text(name)}({inner})" if inner else _text(name)


def _number(source: object) -> str:
    text = f"{source:g}" if isinstance(source, float | int) else str(source)
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return text
    return _text(shorten(text, 30))


def _text(word: str) -> str:
    return rf"\text{{{word}}}"
