"""Options of the verbs: each stands once, at the function that takes it."""

import inspect
from typing import Any

import pytest

from pyro_vae.cli import VERBS, load_verb
from pyro_vae.cli.parser import Parser
from pyro_vae.core.errors import InputError
from pyro_vae.core.signatures import describe_parameters

DELEGATED = [
    pytest.param(verb, name, id=f"{verb} {name}")
    for verb in VERBS
    for name in sorted(getattr(load_verb(verb), "delegated", {}))
]
OWN = {("reconstruct", "split"): "default", ("check", "statistics"): "help"}
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
        (["here"], "unrecognized arguments: here. See pyro-vae fit --help"),
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
