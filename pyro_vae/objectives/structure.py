"""Structure of Pyro programs: their sites, the plate that holds the rows of a batch, and how deep plates are nested."""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pyro_vae.core.errors import InputError
from pyro_vae.core.rng import seeded
from pyro_vae.distributions.wrappers import distribution_name

Program: TypeAlias = Callable[..., Any]
"""A Pyro program: a function with sample statements."""

Site: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Structure:
    """What programs are made of, from dry runs.

    Args:
        nesting: the number of their plate dimensions.
        row_plates: names of the plates at dimension -1 whose size follows the number of rows of a batch.
        shared: latents outside of these plates, whose prior is not scaled: all rows share them.
        scales: whether such a plate takes the batch for a part of the data, and scales it.
        any_rows: whether they ran on another number of rows too: programs with a value of each row do not.
    """

    nesting: int
    row_plates: frozenset[str]
    shared: tuple[str, ...] = ()
    scales: bool = False
    any_rows: bool = True

    def has_rows(self, sites: Sequence[Site]) -> bool:
        """Whether all of some sites are in a plate of rows."""
        plates = {_last_plate(site) for site in sites}
        return bool(plates) and plates <= self.row_plates


# Keys: the owner of the model, that of the guide, their methods; weak and by identity, since owners may not hash.
_KNOWN: Any = WeakIdKeyDictionary()


def structure_of(model: Program, guide: Program | None, args: Any, kwargs: Any, *, through: bool = False) -> Structure:
    """Structure of a pair of programs, or of a model alone, found once for each.

    Rows are told from features by two dry runs, on the batch and on one with another number of rows. Where the second
    is not possible, as for programs with a value of each row, rows are the plate that has as many as the batch.

    Args:
        model: a Pyro program.
        guide: a Pyro program for its latent sites.
        args: arguments of both programs.
        kwargs: the same by keyword.
        through: whether to refuse draws without a gradient first: a model may not take discrete ones.

    Raises:
        InputError: the guide has such a draw.
    """
    known, methods = _known(model, guide)
    if methods not in known:
        known[methods] = _find(model, guide, args, kwargs, through)
    found: Structure = known[methods]
    return found


def _known(model: Program, guide: Program | None) -> tuple[dict[Any, Any], tuple[Any, ...]]:
    """What is known of a pair, and its key there."""
    programs = [model] if guide is None else [model, guide]
    owners = [getattr(program, "__self__", program) for program in programs]
    methods = tuple(getattr(program, "__func__", None) for program in programs)
    return _KNOWN.setdefault(owners[0], WeakIdKeyDictionary()).setdefault(owners[-1], {}), methods


def vectorizes(model: Program, guide: Program, k: int, args: Any, kwargs: Any) -> bool:
    """Whether programs have room for a dimension of particles, left of their plates, found once by a dry run of K.

    Those that do not, such as with BatchNorm or `x[mask]`, are said to run one draw at a time.
    """
    structure = structure_of(model, guide, args, kwargs)
    known, methods = _known(model, guide)
    if (methods, "vectorizes") not in known:
        plate = pyro.plate("particles", k, dim=-structure.nesting - 1)
        try:
            _dry_run(plate(model), plate(guide), args, kwargs, evaluate=True)
            known[methods, "vectorizes"] = True
        except Exception as error:  # of any kind
            if isinstance(error, InputError):
                raise
            known[methods, "vectorizes"] = False
            warnings.warn(
                "these programs run one draw at a time, for they have no room for a dimension of draws left of the "
                f"rows ({type(error).__name__}: {str(error).splitlines()[0]}): K draws take K times as long.",
                stacklevel=2,
            )
    return bool(known[methods, "vectorizes"])


def check_order(model: Program, drawn: Sequence[str], args: Any, kwargs: Any) -> None:
    """Check that no prior depends on a latent that the guide draws after its own.

    Only then are the closed forms of the KL of each site, summed, the KL: it is called where a guide has an order of
    its own.

    Args:
        model: the model.
        drawn: the latents in the order of the guide.
        args: arguments of the model.
        kwargs: the same by keyword.

    Raises:
        InputError: a prior does.
    """
    from pyro.infer.inspect import get_dependencies

    device = next((one.device for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
    with seeded(None, device), poutine.block():
        parents: Any = get_dependencies(model, args, dict(kwargs))["prior_dependencies"]
    for at, name in enumerate(drawn):
        if later := [parent for parent in parents.get(name, {}) if parent in drawn[at + 1 :]]:
            raise InputError(
                f"the guide draws {name!r} before {later[0]!r}, on which its prior depends, so the closed forms of "
                "each site do not sum to the KL: take kl='sampled', or draw them in the order of the model."
            )


def sample_sites(trace: Any) -> dict[str, dict[str, Any]]:
    """Random sites of a trace by name, latent and observed, without the subsampling of plates and `deterministic`."""
    nodes: dict[str, Any] = prune_subsample_sites(trace).nodes
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample" and not (site["infer"] or {}).get("_deterministic")
    }


def row_count(args: Any, kwargs: Mapping[str, Any]) -> int | None:
    """Number of rows of a batch, that of x or of the first tensor; None where there is none."""
    tensors = [kwargs.get("x"), *args, *kwargs.values()]
    return next((len(tensor) for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim), None)


def check_rsample(guide_sites: Mapping[str, Site]) -> None:
    """Refuse draws through which an objective cannot differentiate, before the model sees them.

    Raises:
        InputError: a distribution of the guide cannot be reparameterised.
    """
    for name, site in guide_sites.items():
        if not site["fn"].has_rsample:
            raise InputError(
                f"the guide's distribution at {name!r}, {distribution_name(site['fn'])}, cannot be reparameterised, "
                "and this objective differentiates through the draws: take a continuous guide, or "
                f"objective=pv.objectives.RWS(){_or_enumeration(site)}."
            )


def check_guide(guide_sites: Mapping[str, Site]) -> dict[str, Any]:
    """Sites that a guide draws, by name: those that it observes have no part in its density.

    Raises:
        InputError: it has a factor.
    """
    for name, site in guide_sites.items():
        if site["is_observed"] and distribution_name(site["fn"]) == "Unit":
            raise InputError(
                f"the guide has a factor {name!r}, which is no draw of a latent, so the guide has no density: move it "
                f"into the model with the opposite sign, as in pyro.factor({name!r}, -log_factor)."
            )
    return {name: site for name, site in guide_sites.items() if not site["is_observed"]}


def check_sites(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
    """Check that a guide draws the latents of a model, in their shapes.

    Raises:
        InputError: a latent is missing, unknown, observed in the model, or of another shape; or nothing is observed.
    """
    hidden = [name for name, site in model_sites.items() if not site["is_observed"]]
    if missing := sorted(set(hidden) - set(guide_sites)):
        raise InputError(
            f"the model has a latent site {missing[0]!r} that the guide does not draw: sample it in the guide, or give "
            f"the model its data{_or_enumeration(model_sites[missing[0]])}."
        )
    if len(hidden) == len(model_sites):
        raise InputError("the model observes nothing: pass its data to pyro.sample(..., obs=x).")
    for name, site in guide_sites.items():
        if name not in model_sites and not site["infer"].get("is_auxiliary"):
            raise InputError(
                f"the guide draws a site {name!r} that the model does not have: name it as in the model, or mark it "
                "with infer={'is_auxiliary': True}."
            )
        if name not in model_sites:
            continue
        if model_sites[name]["is_observed"]:
            raise InputError(f"the guide draws {name!r}, which the model observes: leave it out of the guide.")
        _check_shapes(name, model_sites[name]["fn"], tuple(site["value"].shape))


def _or_enumeration(site: Site) -> str:
    """What else to do about a site that is marked for enumeration, which no objective does; empty for others."""
    if not (site["infer"] or {}).get("enumerate"):
        return ""
    return (
        ", or, since no objective enumerates its values, sum over them in a distribution of the model, such as "
        "dist.MixtureSameFamily; pyro.infer.TraceEnum_ELBO enumerates them under Pyro's SVI"
    )


def _check_shapes(name: str, of_model: Any, drawn: tuple[int, ...]) -> None:
    expected = (*of_model.batch_shape, *of_model.event_shape)
    sizes = itertools.zip_longest(reversed(expected), reversed(drawn), fillvalue=1)
    if expected != drawn and any(one != other for one, other in sizes):
        raise InputError(
            f"the guide draws {name!r} in shape {drawn}, and in the model its shape is {expected}: give it the same "
            "plates and the same event in both."
        )


def _find(model: Program, guide: Program | None, args: Any, kwargs: Any, through: bool) -> Structure:
    rows = row_count(args, kwargs)
    traces = _dry_run(model, guide, args, kwargs, through=through)
    sites = [site for trace in traces for site in sample_sites(trace).values()]
    frames = [frame for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
    nesting = max((-frame.dim for frame in frames), default=0)
    last = {frame.name: frame.size for frame in frames if frame.dim == -1}
    follow = {name for name, size in last.items() if size == rows or rows is None}
    again = traces
    if rows is not None:
        other = rows - 1 if rows > 1 else 2
        try:
            again = _dry_run(model, guide, *(_resized(each, rows, other) for each in (args, kwargs)), evaluate=True)
        except Exception:  # of any kind: these programs take no other number of rows
            again = []
    found = [frame for trace in again for s in sample_sites(trace).values() for frame in s["cond_indep_stack"]]
    if rows is not None:
        sizes = {frame.name: frame.size for frame in found if frame.vectorized and frame.dim == -1}
        follow = {name for name in follow if sizes.get(name, other) == other}
    structure = Structure(nesting, frozenset(follow), any_rows=bool(again))
    latents = [site for site in sample_sites(traces[0]).values() if not site["is_observed"]]
    shared = [site["name"] for site in latents if not structure.has_rows([site]) and _is_unscaled(site)]
    scales = any(frame.full_size != frame.size for frame in [*frames, *found] if frame.vectorized)
    return replace(structure, shared=tuple(shared), scales=scales)


def _dry_run(
    model: Program, guide: Program | None, args: Any, kwargs: Any, *, evaluate: bool = False, through: bool = False
) -> list[Any]:
    """Traces of the programs, the model first, with their densities where asked; random states stay as they were."""
    device = next((one.device for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
    with seeded(None, device), torch.no_grad(), poutine.block():
        traces = [poutine.trace(model if guide is None else guide).get_trace(*args, **kwargs)]
        if guide is not None:
            if through:
                check_rsample(check_guide(sample_sites(traces[0])))
            traces.insert(0, poutine.trace(poutine.replay(model, trace=traces[0])).get_trace(*args, **kwargs))
        for site in (site for trace in traces for site in sample_sites(trace).values() if evaluate):
            site["fn"].log_prob(site["value"])
        return traces


def _resized(given: Any, rows: int, other: int) -> Any:
    """Arguments with another number of rows, the first ones, repeated where there are too few."""

    def resize(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim or len(value) != rows:
            return value
        return value[torch.arange(other, device=value.device) % rows]

    return {name: resize(v) for name, v in given.items()} if isinstance(given, Mapping) else tuple(map(resize, given))


def _last_plate(site: Site) -> str | None:
    frames = site["cond_indep_stack"]
    return next((frame.name for frame in frames if frame.dim == -1 and frame.name != "particles"), None)


def _is_unscaled(site: Site) -> bool:
    return bool((torch.as_tensor(site["scale"]) == 1).all())
