"""Text that describes a model: its distributions, the source of each parameter, its weights."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError
from pyro_vae.core.formatting import shorten, written
from pyro_vae.distributions.constraints import real
from pyro_vae.families import Family
from pyro_vae.families.base import Composite
from pyro_vae.families.catalogue import summary
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import ParameterSlot
from pyro_vae.model.programs import Programs, as_module, check_programs, evaluation
from pyro_vae.model.vae import PARTS, VAE
from pyro_vae.networks import Network


@explained
def describe(vae: Programs, x: Any = None, **given: Any) -> str:
    """Text that says what a model is: its distributions, the source of each parameter, and the number of weights.

    Args:
        vae: a `VAE`, or any object whose `model` and `guide` are Pyro programs.
        x: for programs of your own, rows (N, *event_shape) that they are traced with; a `VAE` needs none.
        given: further named tensors of these rows.

    Returns:
        A line for each random variable, then the parameters of a `VAE`, and the weights.

    Raises:
        InputError: there is no `model` or no `guide`, or no rows for programs of your own.

    >>> from pyro_vae import MLP, Normal
    >>> print(describe(VAE((3,), 2, likelihood=Normal(scale="learned"), encoder=MLP(hidden=(8,)))))
    z     ~ Normal(loc=0, scale=1)            2 latents
    x | z ~ Normal(loc=loc(z), scale=scale)   events of shape (3,)
    z | x ~ Normal(loc=loc(x), scale=scale(x))
    ...
    """
    check_programs(vae, "describe")
    if not isinstance(vae, VAE):
        return _describe_programs(vae, x, given)
    declared = vae.declaration
    lines = [
        (f"z     ~ {formula(vae.prior, '')}", f"{declared.latent_dim} latents"),
        (f"x | z ~ {formula(vae.likelihood, 'z')}", f"events of shape {declared.event_shape}"),
        (f"z | x ~ {formula(vae.posterior, 'x')}", ""),
    ]
    width = max(len(left) for left, right in lines if right) + 3
    text = [f"{left:<{width}}{right}".rstrip() for left, right in lines]
    networks = (
        ("prior", vae.prior, None),
        ("likelihood", vae.likelihood, declared.decoder),
        ("guide", vae.posterior, declared.encoder),
    )
    for role, part, network in networks:
        text += ["", *_parameters(role, part, network)]
    counts = {part: sum(weight.numel() for weight in getattr(vae, part).parameters()) for part in PARTS}
    text += ["", f"weights     {sum(counts.values()):,} ({', '.join(f'{p} {n:,}' for p, n in counts.items())})"]
    if vae.caveat:
        text += ["", f"Note: {vae.caveat}."]
    return "\n".join(text)


def _describe_programs(programs: Programs, x: Any, given: Mapping[str, Any]) -> str:
    from pyro.infer.inspect import get_model_relations  # here, for importing it takes time

    if x is None:
        raise InputError(
            "programs of your own are described by a trace of them on some rows: give two, as in "
            "pv.describe(programs, x[:2])."
        )
    batch, lines = {"x": x, **given}, list[str]()
    with evaluation(programs, seed=0):
        for title, program in (("model", programs.model), ("guide", programs.guide)):
            relations = get_model_relations(program, (), batch)
            lines.append(title)
            for site, parents in relations["sample_sample"].items():
                left = f"{site} | {', '.join(parents)}" if parents else site
                seen = "   observed" if site in relations["observed"] else ""
                plates = [plate for plate, sites in relations["plate_sample"].items() if site in sites]
                within = f"   plate {', '.join(plates)}" if plates else ""
                lines.append(f"  {left} ~ {relations['sample_dist'][site]}{seen}{within}")
    count = sum(weight.numel() for weight in as_module(programs).parameters())
    return "\n".join([*lines, "", f"weights     {count:,} in torch modules"])


def formula(conditional: Conditional, context: str) -> str:
    """A family with the source of each parameter, in the notation of mathematics.

    >>> from pyro_vae import StudentT
    >>> from pyro_vae.families.conditional import SiteSpec
    >>> formula(Conditional(StudentT(df=4, scale="per_feature"), SiteSpec("prior", (2,))), "")
    'StudentT(df=4, loc=loc_j, scale=scale_j)'
    """
    shown = []
    for name, slot in conditional.slots.items():
        if slot.source is None and context:
            shown.append(f"{name}={name}({context})")
        elif slot.source in (None, "per_feature"):
            shown.append(f"{name}={name}_j")
        else:
            shown.append(f"{name}={name if slot.source == 'learned' else _short(slot.source)}")
    return f"{_name(conditional.family)}({', '.join(shown)})"


def _name(family: Family) -> str:
    """Name of a family, with that of its base family in brackets."""
    return (
        f"{type(family).__name__}[{_name(family.family)}]" if isinstance(family, Composite) else type(family).__name__
    )


def _parameters(role: str, conditional: Conditional, network: object) -> list[str]:
    family = conditional.family
    lines = [f"{role:<12}{written(family)}: {summary(type(family))}"]
    width = max((len(name) for name in conditional.slots), default=0) + 2
    for name, slot in conditional.slots.items():
        source = slot.source
        if name in conditional.constants:
            value = conditional.trained_value(name)
            what = f"one trained constant, now {float(value):.4g}" if source == "learned" else "trained, per feature"
        elif source is None:
            what = f"from {network if isinstance(network, Network) else type(network).__name__}"
        else:
            what = f"fixed at {_short(source)}"
        bounds = "" if slot.constraint is real or not isinstance(source, str | None) else f"; {_range(slot)}"
        lines.append(f"  {name:<{max(width, 10)}}{what}{bounds}")
    if isinstance(conditional.distribution, nn.Module):
        lines.append(
            f"  {sum(weight.numel() for weight in conditional.distribution.parameters()):,} weights of its own"
        )
    return lines


def _range(slot: ParameterSlot) -> str:
    text = repr(slot.constraint)
    return f"in {text}" if text.startswith("[") else text


def _short(source: object) -> str:
    return shorten(f"{source:g}" if isinstance(source, float) else str(source), 30)
