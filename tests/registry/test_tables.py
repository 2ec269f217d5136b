"""One word means one thing in Python, in YAML and on the command line."""

import dataclasses
import inspect
import json
from typing import Any

import pytest
from helpers import cases

import pyro_vae as pv
from pyro_vae.cli import VERBS, load_verb
from pyro_vae.cli.parser import Parser
from pyro_vae.core import serialization
from pyro_vae.core.config import Config, Record
from pyro_vae.core.errors import InputError
from pyro_vae.families import FAMILIES
from pyro_vae.registry import tables
from pyro_vae.training import STOPPINGS

# One of each, with every type of field.
SCHEDULED = [pv.schedules.Linear(2), pv.schedules.Sigmoid(steepness=3), pv.schedules.Cyclical(periods=2)]
SCHEDULED += [pv.schedules.GECO(rate=5), pv.schedules.GECO(distortion=-3.5, speed=0.1)]

# For each kind a role of it, and declarations beside the defaults that exercise every type of field.
WRITTEN: dict[type[Config], tuple[str, list[Config]]] = {
    pv.families.Family: ("prior", [v for case in cases.FAMILIES.values() for v in (case.family, *case.variants)]),
    pv.networks.Network: ("encoder", [pv.MLP(hidden=()), pv.MLP((3, 4), "tanh"), pv.Conv((8,), 16, "silu")]),
    pv.objectives.Objective: (
        "objective",
        [
            pv.objectives.ELBO(5),
            pv.objectives.ELBO(kl="analytic", beta=0.5, groups=2),
            *(pv.objectives.ELBO(beta=schedule) for schedule in SCHEDULED),
            pv.objectives.Capacity(pv.schedules.Linear(1, 2, 3.5), gamma=pv.schedules.Sigmoid(epochs=2)),
        ],
    ),
    pv.training.Optimizer: (
        "optimizer",
        [pv.Adam(1e-4, {"encoder": 0.0}), pv.SGD(0.1, momentum=0.5), pv.AdamW(betas=(0.5, 0.9))],
    ),
    pv.criticism.Method: (
        "method",
        [pv.criticism.Importance(50, "defensive", draws_at_once=7), pv.criticism.AIS(4, 50, 3, 0.8, "guide")],
    ),
}
RECORDS: dict[str, list[Record]] = {
    "data": [pv.data.DataOptions("digits"), pv.data.DataOptions("2024", "0", levels=17, test=0, stream=True)],
    "checkpoints": [pv.Checkpoints(5), pv.Checkpoints(None, every_epochs=1, best=False)],
    "monitor": [
        pv.Monitor(),
        pv.Monitor(["csv"], profile=True),
        pv.Monitor(stopping=pv.EarlyStopping(3, 0.5, "loss", restore=False)),
        *(pv.Monitor(stopping=rule()) for rule in STOPPINGS.values()),
    ],
    "runtime": [pv.Runtime(), pv.Runtime("cpu"), pv.Runtime(devices="auto", num_nodes=2)],
}
DECLARED = [
    pytest.param(role, thing, id=f"{role} {thing}"[:80])
    for kind, (role, things) in WRITTEN.items()
    for thing in [*things, *(entry() for entry in tables.TABLES[kind].values())]
] + [pytest.param(role, thing, id=f"{role} {thing}"[:80]) for role, things in RECORDS.items() for thing in things]


def parsed(*arguments: str) -> dict[str, Any]:
    """What the command line hands to a verb."""
    got: dict[str, Any] = {}

    def capture(
        *,
        prior: pv.families.Family = pv.Normal(0, 1),
        likelihood: pv.families.Family = pv.Normal(scale="learned"),
        guide: pv.families.Family = pv.Normal(),
        encoder: pv.networks.Network | None = None,
        decoder: pv.networks.Network | None = None,
        objective: pv.objectives.Objective = pv.objectives.ELBO(),
        optimizer: pv.training.Optimizer = pv.Adam(),
        method: pv.criticism.Method = pv.criticism.Importance(),
        data: pv.data.DataOptions = pv.data.DataOptions("digits"),
        checkpoints: pv.Checkpoints | None = None,
        monitor: pv.Monitor = pv.Monitor(),
        runtime: pv.Runtime = pv.Runtime(),
        epochs: int = 20,
    ) -> None:
        got.update(locals())

    capture(**Parser("fit", capture).parse(arguments))
    return got


def written(plain: Any) -> str:
    """A plain value as it is typed."""
    return plain if isinstance(plain, str) else json.dumps(plain)


@pytest.mark.parametrize(("role", "thing"), DECLARED)
def test_python_yaml_and_command_line_are_equal(role: str, thing: Config, tmp_path: Any) -> None:
    text = serialization.dump({role: serialization.to_dict(thing)})
    assert tables.from_dict(role, serialization.parse(text, "test")[role]) == thing
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert parsed("--config", str(file))[role] == thing
    assert parsed(f"--{role}", written(serialization.to_dict(thing)))[role] == thing


def word_by_word(option: str, thing: Config) -> list[str]:
    """A declaration as options: its name, and one for each field that differs, those of the parts inside included."""
    words = [] if isinstance(thing, Record) else [option, type(thing).__name__]
    for field in dataclasses.fields(thing):  # type: ignore[arg-type]
        value = getattr(thing, field.name)
        if value != field.default:
            inner = isinstance(value, Config)
            name = f"{option}.{field.name}"
            words += word_by_word(name, value) if inner else [name, written(serialization.to_dict(value))]
    return words


@pytest.mark.parametrize(("role", "thing"), DECLARED)
def test_field_by_field_on_the_command_line(role: str, thing: Config) -> None:
    assert parsed(*word_by_word(f"--{role}", thing))[role] == thing


NESTED = pv.Truncated(pv.Laplace(scale="learned"), low=None, high=1)


def test_declaration_inside_another_one(tmp_path: Any) -> None:
    plain = {"Mixture": {"family": {"Truncated": {"family": {"Normal": {"scale": 1}}, "high": 2}}, "components": 3}}
    deep = pv.Mixture(pv.Truncated(pv.Normal(scale=1), high=2), components=3)
    assert tables.from_dict("prior", plain) == deep
    assert tables.from_dict("prior", serialization.to_dict(deep)) == deep
    words = ["--prior", "Mixture", "--prior.components=3", "--prior.family", "Truncated", "--prior.family.high", "2"]
    assert parsed(*words, "--prior.family.family.scale", "1")["prior"] == deep
    file = tmp_path / "config.yaml"
    file.write_text(serialization.dump({"prior": plain, "likelihood": serialization.to_dict(NESTED)}))
    assert parsed("--config", str(file))["prior"] == deep
    # a field of what stands inside: by default, in the file, named before; a new name keeps nothing of the old one
    assert parsed("--prior", "Truncated", "--prior.family.scale", "2")["prior"] == pv.Truncated(pv.Normal(scale=2))
    changed = parsed("--config", str(file), "--likelihood.family.loc", "0")["likelihood"]
    assert changed == dataclasses.replace(NESTED, family=pv.Laplace(0, "learned"))
    renamed = parsed("--config", str(file), "--likelihood.family", "Normal", "--likelihood.high", "3")["likelihood"]
    assert renamed == pv.Truncated(pv.Normal(), None, 3)
    assert parsed("--config", str(file), "--likelihood", "Truncated")["likelihood"] == pv.Truncated()
    inflated = parsed(
        *("--likelihood", "ZeroInflated", "--likelihood.family", "NegativeBinomial"),
        *("--likelihood.family.dispersion", "learned"),
    )
    assert inflated["likelihood"] == pv.ZeroInflated(pv.NegativeBinomial(dispersion="learned"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--likelihood.family", "Norml"], r"unknown family for likelihood.family, 'Norml': did you mean 'Normal'"),
        (["--likelihood.family", "[1]"], r"^likelihood.family = \[1\] has to be a name, .*: family: Normal"),
        (["--likelihood.family", "{own: f}"], r"^likelihood.family is a part of your own \(f\)"),
        (
            ["--likelihood.family.scal", "1"],
            r"unknown field of Normal in likelihood.family 'scal': did you mean 'scale'",
        ),
        (["--likelihood.famly.scale", "1"], r"unknown field of Truncated 'famly': did you mean 'family'"),
        (["--likelihood.low.scale", "1"], r"^likelihood.low of Truncated is one value and has no 'scale' to set"),
        (["--likelihood.family.family.scale", "1"], r"unknown field of Normal in likelihood.family 'family'"),
        (["--likelihood.family", "MLP"], r"unknown family for likelihood.family, 'MLP'"),
        (["--likelihood.family.scale", "-1"], r"Normal.scale = -1.0 is outside of its range"),
        (["--likelihood.family", "Bernoulli"], r"Truncated.family = Bernoulli.* Normal, Laplace, Logistic, Cauchy"),
    ],
)
def test_error_inside_names_its_path(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parsed("--likelihood", "Truncated", *words)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("role", ["prior", "likelihood", "guide"])
def test_name_alone_is_the_default_of_its_class_and_nothing_carries_over(role: str, name: str) -> None:
    assert parsed(f"--{role}", name)[role] == FAMILIES[name]()


def test_defaults_of_the_command_line_are_those_of_python() -> None:
    got, vae = parsed(), pv.VAE((3,), 2)
    for role in ("prior", "likelihood", "guide"):
        assert got[role] == getattr(vae.declaration, role)


def test_field_changes_what_stood_before_it(tmp_path: Any) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("prior: {Laplace: {loc: 1, scale: 2}}\nepochs: 7\n")
    assert parsed("--prior.scale", "3")["prior"] == pv.Normal(0, 3)
    assert parsed("--config", str(file), "--prior.scale", "3")["prior"] == pv.Laplace(1, 3)
    assert parsed("--config", str(file), "--prior", "StudentT", "--prior.df=4")["prior"] == pv.StudentT(df=4)
    assert parsed("--config", str(file))["epochs"] == 7
    assert parsed("--config", str(file), "--epochs", "8")["epochs"] == 8


def test_every_role_of_the_command_line_is_a_declared_kind() -> None:
    parameters = [item for verb in VERBS for item in inspect.signature(load_verb(verb)).parameters.items()]
    roles = {name for name, parameter in parameters if isinstance(parameter.default, Config)}
    assert roles | {"encoder", "decoder", "checkpoints"} == set(tables.ROLES)
    records = {tables.ROLES[role] for role in RECORDS}
    classes = [*records, *(one for table in tables.TABLES.values() for one in table.values())]
    inside = {kind for one in classes for kind in tables._inner(one).values()}
    assert set(tables.ROLES.values()) == set(WRITTEN) | records
    assert set(tables.TABLES) == set(WRITTEN) | inside
    assert all(name == entry.__name__ for table in tables.TABLES.values() for name, entry in table.items())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 0.001), ("1.5E+2", 150.0), (".5e1", 5.0), ("3", 3), ("true", True), ("null", None)],
        *[("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1}), ("learned", "learned"), ("[1", "[1"), ("1e", "1e")],
    ],
)
def test_values_are_read_as_in_yaml_1_2(text: str, value: Any) -> None:
    got = serialization.value(text)
    assert got == value
    assert type(got) is type(value)
