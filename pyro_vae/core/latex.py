r"""Formulas of docstrings as Unicode text for a terminal.

Formulas are written once, in LaTeX, for the pages of the documentation. A terminal shows them in Unicode, on one
line: fractions with a slash, Greek letters as themselves.
"""

import re

GREEK = (
    "alpha α beta β gamma γ delta δ epsilon ε varepsilon ε zeta ζ eta η theta θ iota ι kappa κ lambda λ mu μ nu ν xi ξ "
    "pi π rho ρ sigma σ tau τ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Sigma Σ Phi Φ Psi Ψ "
    "Omega Ω"
)
OTHERS = (
    "prod ∏ sum ∑ int ∫ infty ∞ partial ∂ nabla ∇ ell ℓ top ᵀ in ∈ le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ approx ≈ propto ∝ "
    "sim ~ mid | vert | lvert | rvert | Vert ‖ lVert ‖ rVert ‖ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ cdot · times × pm ± "
    "to → mapsto ↦ dots ... ldots ... cdots ..."
)
SYMBOLS = {**dict(re.findall(r"(\S+) (\S+)", f"{GREEK} {OTHERS}")), "quad": "  ", "qquad": "   "}
"""LaTeX commands and what a terminal shows; any other command is shown as its name, as in `exp`."""

ACCENTS = {"tilde": "\u0303", "hat": "\u0302", "bar": "\u0304"}
SIZES = r"\\(?:left|right|[Bb]igg?[lrm]?)(?![A-Za-z])"
FONTS = ("mathrm", "text", "operatorname", "mathbf", "boldsymbol", "mathbb", "mathcal")
GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}"
"""A group in braces, with up to three levels inside."""

BRACKETS = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"


def readable(text: str) -> str:
    r"""Text in which every formula between `$` or `$$` is Unicode on one line; the rest is unchanged.

    >>> readable(r"$$ \frac{1}{s_j\sqrt{2\pi}} \exp\Big(-\frac{x_j^2}{2 s_j^2}\Big) $$")
    '1/(s_j √(2π)) exp(-x_j²/(2 s_j²))'
    >>> readable(r"It costs $D^2$ outputs of size $\tfrac12$.")
    'It costs D² outputs of size 1/2.'
    """
    return re.sub(r"\$\$(.*?)\$\$|\$(.*?)\$", lambda found: _formula(found[1] or found[2]), text, flags=re.DOTALL)


def _formula(tex: str) -> str:
    tex = re.sub(SIZES, "", tex).replace(r"\{", "\0").replace(r"\}", "\1")
    tex = re.sub(r"\\[,;:! ]|(?<!\\)~", " ", tex)
    for font in FONTS:
        tex = re.sub(rf"\\{font}\s*(?:{GROUP}|(?=\w))", r"\1", tex)
    tex = re.sub(rf"\\binom\s*{GROUP}\s*{GROUP}", r" C(\1, \2)", tex)
    for accent, mark in ACCENTS.items():
        tex = re.sub(rf"\\{accent}\s*(?:\{{(\w)\}}|(\w))", rf"\g<1>\g<2>{mark}", tex)
    while (rooted := re.sub(rf"\\sqrt\s*{GROUP}", r" √(\1)", tex)) != tex:
        tex = rooted
    tex = _fractions(tex)
    tex = re.sub(r"\^\s*\\top(?![A-Za-z])", "ᵀ", tex)
    tex = re.sub(r"\\([A-Za-z]+)[ ]?", _command, tex)
    while (scripted := re.sub(rf"([\^_]){GROUP}", _script, tex)) != tex:
        tex = scripted
    tex = tex.replace("{", "").replace("}", "").replace("\0", "{").replace("\1", "}").replace("\\", "")
    tex = re.sub(r"\^2(?!\d)", "²", tex)
    tex = re.sub(r"([(\[])\s+", r"\1", re.sub(r"\s+([)\],;])", r"\1", " ".join(tex.split())))
    return re.sub(r"([(=]) ?- ", r"\1-", re.sub(r"(?<! )/ ", "/", tex))


def _command(found: re.Match[str]) -> str:
    name = found[1]
    if name in SYMBOLS:
        spaced = SYMBOLS[name] in "∈≤≥≠≈∝~|·×±→↦"
        after = " " if spaced or (SYMBOLS[name].isalpha() and found[0].endswith(" ")) else ""
        return f"{' ' if spaced else ''}{SYMBOLS[name]}{after}"
    return f" {name} " if found[0].endswith(" ") else f" {name}"


def _script(found: re.Match[str]) -> str:
    inside = found[2]
    plain = re.fullmatch(r"[\w∞]+", inside) or (found[1] == "_" and re.fullmatch(r"[\w,]+", inside))
    return found[1] + (inside if plain else f"({inside})")


def _fractions(tex: str) -> str:
    while match := re.search(rf"\\[td]?frac\s*(?:{GROUP}|(\w))\s*(?:{GROUP}|(\w))", tex):
        above, below = match[1] or match[2], match[3] or match[4]
        tex = f"{tex[: match.start()]} {_part(above)}/{_part(below, below=True)} {tex[match.end() :]}"
    return tex


def _part(tex: str, below: bool = False) -> str:
    """A numerator or denominator, in brackets unless it is one symbol or one call."""
    tex = _fractions(tex).strip()
    single = re.fullmatch(rf"(?:\d+|√|\w|\\[A-Za-z]+)(?:[_^](?:\w|{{\w+}}))*(?:{BRACKETS})?", tex)
    product = not below and re.fullmatch(r"[\w\\^{}]+", tex) and not re.search(r"[-+]", tex)
    return tex if single or product else f"({tex})"
