"""Options of the verbs: each stands once, at the function that takes it."""

import dataclasses
import inspect
from typing import Any

import pytest

import pyro_vae as pv
from pyro_vae.cli import VERBS, load_verb
from pyro_vae.cli.parser import Parser
from pyro_vae.core.errors import InputError
from pyro_vae.core.signatures import describe_parameters
from pyro_vae.registry import tables

DELEGATED = [
    pytest.param(verb, name, id=f"{verb} {name}")
    for verb in VERBS
    for name in sorted(getattr(load_verb(verb), "delegated", {}))
]
OWN = {("reconstruct", "split"): "default", ("check", "statistics"): "help", ("fit", "latent_dim"): "default"}
"""Options of which a verb states more than its type, and what."""


@pytest.mark.parametrize(("verb", "name"), DELEGATED)
def test_option_has_the_default_and_help_of_the_function_that_takes_it(verb: str, name: str) -> None:
    function: Any = load_verb(verb)
    inner = function.delegated[name]
    here, there = (inspect.signature(each).parameters[name] for each in (function, inner))
    own = OWN.get((verb, name))
    assert (here.default == there.default) == (own != "default")
    helped = describe_parameters(function)[name]
    assert (helped == describe_parameters(inner)[name]) == (own != "help")
    assert " ".join(helped.split()[:5]) in " ".join(Parser(verb, function).format_help().split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_described(verb: str) -> None:
    function = load_verb(verb)
    parameters = {name for name in inspect.signature(function).parameters if not name.startswith("_")}
    assert parameters <= set(describe_parameters(function))


def test_options_count_in_their_order() -> None:
    words = ["--prior", "Laplace", "--prior.scale", "-1e-3", "--epochs=3", "--overwrite", "--seed", "1", "--seed", "2"]
    parser = Parser("fit", load_verb("fit"))
    with pytest.raises(InputError, match=r"Laplace.scale = -0.001 is outside"):
        parser.parse(words)
    assert parser.plain == {"prior": {"Laplace": {"scale": -1e-3}}, "epochs": 3, "overwrite": True, "seed": 2}
    made = Parser("fit", load_verb("fit")).parse([*words, "--prior", "Normal", "--overwrite", "false"])
    assert (repr(made["prior"]), made["overwrite"]) == ("Normal(loc=None, scale=None)", False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs.many", "3"], "--epochs is one value and has no fields, so there is no --epochs.many"),
        (["here"], "unrecognized arguments: here: write --data here. See pyro-vae fit --help"),
        (
            ["--data", "digits", "--epochs", "3", "4"],
            "unrecognized arguments: 4: an option has one value, and a list is",
        ),
        (["--run", "--resume"], "--run needs a value: a str"),
        (["--prior.scale"], "--prior.scale needs a value."),
        (["--confg", "c.yaml"], "unknown option '--confg'"),
    ],
)
def test_wrong_words_are_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        Parser("fit", load_verb("fit")).parse(words)


def test_runs_and_options_may_stand_in_any_order() -> None:
    words = ["a", "--split", "train", "b", "--batch_size=3", "c"]
    made = Parser("compare", load_verb("compare")).parse(words)
    assert made == {"runs": ["a", "b", "c"], "split": "train", "batch_size": 3}


def test_fit_has_twenty_options() -> None:
    parser = Parser("fit", load_verb("fit"))
    words = {word.removeprefix("--") for word in parser.format_help().split() if word.startswith("--")}
    model = {"latent_dim", "prior", "likelihood", "guide", "encoder", "decoder"}
    training = {"objective", "optimizer", "epochs", "batch_size", "seed", "compile", "monitor", "runtime", "progress"}
    assert set(parser.keywords) == {"data", "run", "overwrite", "resume", "checkpoints"} | training | model
    assert len(parser.keywords) == 20
    assert {"help", "config", "print_config", *parser.keywords} <= words


def test_fields_of_a_record_are_options_with_its_defaults_and_help() -> None:
    helped = " ".join(Parser("fit", load_verb("fit")).format_help().split())
    for role in ("data", "checkpoints", "monitor", "runtime"):
        record = tables.ROLES[role]
        for name, text in describe_parameters(record).items():
            assert f"--{role}.{name} " in helped
            assert " ".join(text.replace("%", "%%").split()[:6]) in helped
    assert "--data.test TEST fraction of the rows held out from everything" in helped


def test_record_stands_by_its_first_field_alone_as_it_is_written() -> None:
    made = Parser("fit", load_verb("fit")).parse(["--data", "007", "--data.levels", "4", "--checkpoints", "5"])
    assert made == {"data": pv.data.DataOptions("007", levels=4), "checkpoints": pv.Checkpoints(5)}
    with pytest.raises(InputError, match="unknown field of Runtime 'device': did you mean 'devices'"):
        Parser("fit", load_verb("fit")).parse(["--runtime.device", "3"])


def test_options_of_data_are_those_of_load() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(pv.data.DataOptions)}
    known = {name: each.default for name, each in inspect.signature(pv.data.load).parameters.items()}
    assert fields.pop("name") is dataclasses.MISSING
    assert known.pop("data") is inspect.Parameter.empty
    assert fields == known
