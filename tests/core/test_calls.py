"""Every public callable refuses wrong words, numbers and kinds of arguments, and keeps its signature."""

import dataclasses
import inspect
import pydoc
from collections.abc import Callable
from typing import Any

import pytest

import pyro_vae as pv
from pyro_vae.core.calls import LINES, REMARKS, SYNONYMS, CallError, explained
from pyro_vae.core.config import Config

NAMESPACES = (pv, pv.criticism, pv.data, pv.plots, pv.objectives, pv.schedules)
RESULTS = ("Comparison", "EpochEvent", "Evidence", "History", "Refined", "Sweep", "BDMC", "SBC", "AggregateKL")
RESULTS += ("ClassifierTest", "DensityCoverage", "InferenceGap", "Latents", "MMDTest", "Statistic", "Dataset", "Rows")
RESULTS += ("Stream", "Latent", "Particles", "InputError", "RunNotWrittenError", "TrainingInterrupted", "Method")
RESULTS += ("Objective", "Schedule", "ScheduledObjective")
"""Classes that users are given, and do not make."""

PUBLIC: dict[str, Callable[..., Any]] = {
    f"{space.__name__}.{name}": getattr(space, name)
    for space in NAMESPACES
    for name in space.__all__
    if callable(getattr(space, name)) and name not in RESULTS
} | {f"VAE.{name}": getattr(pv.VAE, name) for name in ("sample", "encode", "decode", "reconstruct")}


@pytest.mark.parametrize("name", PUBLIC)
def test_unknown_keyword_is_refused_by_the_words_that_are_known(name: str) -> None:
    public = PUBLIC[name]
    signature = inspect.signature(public)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    needed = {
        parameter.name: 1
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    if inspect.Parameter.VAR_KEYWORD not in kinds:  # others take named tensors
        with pytest.raises(CallError, match="has no keyword 'unheard_of'") as refusal:
            public(**needed, unheard_of=1)
        assert isinstance(refusal.value, TypeError)
        assert isinstance(refusal.value, pv.InputError)
        for known in signature.parameters:
            assert known == "self" or known in str(refusal.value)
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        with pytest.raises(CallError, match="too many positional arguments"):
            public(*range(40))
    if needed:
        with pytest.raises(CallError, match="missing a required"):
            public()


@pytest.mark.parametrize("name", [name for name in PUBLIC if ".plots." in name or ".criticism." in name])
def test_object_of_another_kind_is_refused(name: str) -> None:
    signature = inspect.signature(PUBLIC[name])
    needed = [
        one for one in signature.parameters.values() if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    ]
    for wrong in (pv.VAE, "run", 3.0):
        if needed:
            with pytest.raises(pv.InputError):
                PUBLIC[name](*[wrong] * len(needed))


@pytest.mark.parametrize("name", PUBLIC)
def test_signature_is_that_of_the_function(name: str) -> None:
    public = PUBLIC[name]
    parameters = inspect.signature(public).parameters
    assert list(parameters) not in (["given", "named"], ["args", "kwargs"])
    assert next(iter(parameters), "") in pydoc.plain(pydoc.render_doc(public))
    if inspect.isclass(public) and issubclass(public, Config):
        assert set(parameters) == {field.name for field in dataclasses.fields(public) if field.init}


def test_type_error_of_the_inside_stays_what_it_is() -> None:
    @explained
    def inside(x: Any) -> Any:
        return x + None

    with pytest.raises(TypeError, match="unsupported operand") as refusal:
        inside(1)
    assert not isinstance(refusal.value, pv.InputError)


def test_synonyms_are_words_of_something_public() -> None:
    words = {word for public in PUBLIC.values() for word in inspect.signature(public).parameters}
    words |= {name for public in PUBLIC.values() for name in getattr(public, "__dataclass_fields__", ())}
    words |= {*LINES, *REMARKS}
    assert SYNONYMS.keys() <= words
