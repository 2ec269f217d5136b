"""A model in words: as mathematics, its families, its weights."""

from pyro_vae.conditional import Conditional
from pyro_vae.families import Family, Parameter
from pyro_vae.families.constraints import real
from pyro_vae.networks import Network
from pyro_vae.vae import PARTS, VAE


def describe(vae: VAE) -> str:
    """Describe a VAE: the three distributions, the source of each parameter, and the number of weights.

    Args:
        vae: the model.

    Returns:
        Some lines of text.

    >>> from pyro_vae import MLP, Normal
    >>> print(describe(VAE((3,), 2, likelihood=Normal(scale="learned"), encoder=MLP(hidden=(8,)))))
    z     ~ Normal(loc=0, scale=1)            2 latents
    x | z ~ Normal(loc=loc(z), scale=scale)   events of shape (3,)
    z | x ~ Normal(loc=loc(x), scale=scale(x))
    ...
    """
    declared = vae.declaration
    lines = [
        (f"z     ~ {formula(declared.prior, '')}", f"{declared.latent_dim} latents"),
        (f"x | z ~ {formula(declared.likelihood, 'z')}", f"events of shape {declared.event_shape}"),
        (f"z | x ~ {formula(declared.guide, 'x')}", ""),
    ]
    width = max(len(left) for left, right in lines if right) + 3
    text = [f"{left:<{width}}{right}".rstrip() for left, right in lines]
    networks = (
        ("prior", vae.prior, None),
        ("likelihood", vae.decoder, declared.decoder),
        ("guide", vae.encoder, declared.encoder),
    )
    for role, part, network in networks:
        text += ["", *_parameters(role, part, network)]
    counts = {part: sum(weight.numel() for weight in getattr(vae, part).parameters()) for part in PARTS}
    text += ["", f"weights     {sum(counts.values()):,} ({', '.join(f'{p} {n:,}' for p, n in counts.items())})"]
    if vae.caveat:
        text += ["", f"Note: {vae.caveat}."]
    return "\n".join(text)


def formula(family: Family, context: str) -> str:
    """Write a family with the source of each parameter, as mathematics.

    >>> from pyro_vae import StudentT
    >>> formula(StudentT(df=4, scale="per_feature"), "z")
    'StudentT(df=4, loc=loc(z), scale=scale_j)'
    """
    shown = []
    for name in family.parameters:
        source = getattr(family, name)
        if source is None and context:
            shown.append(f"{name}={name}({context})")
        elif source in (None, "per_feature"):
            shown.append(f"{name}={name}_j")
        else:
            shown.append(f"{name}={name if source == 'learned' else _short(source)}")
    return f"{type(family).__name__}({', '.join(shown)})"


def _parameters(role: str, conditional: Conditional, network: object) -> list[str]:
    family = conditional.family
    summary = (type(family).__doc__ or "").strip().splitlines()[0]
    lines = [f"{role:<12}{family!r}: {summary}"]
    for name, parameter in family.parameters.items():
        source = getattr(family, name)
        if name in conditional.constants:
            value = conditional.constant(name)
            what = f"one trained constant, now {float(value):.4g}" if source == "learned" else "trained, per feature"
        elif source is None:
            what = f"from {network if isinstance(network, Network) else type(network).__name__}"
        else:
            what = f"fixed at {_short(source)}"
        bounds = "" if parameter.constraint is real or not isinstance(source, str | None) else f"; {_range(parameter)}"
        lines.append(f"  {name:<10}{what}{bounds}")
    return lines


def _range(parameter: Parameter) -> str:
    text = repr(parameter.constraint)
    return f"in {text}" if text.startswith("[") else text


def _short(source: object) -> str:
    text = f"{source:g}" if isinstance(source, float) else str(source)
    return text if len(text) < 30 else text[:27] + "..."
