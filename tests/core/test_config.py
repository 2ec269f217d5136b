"""Whatever is declared is checked once, prints as it is written, and never changes."""

import copy
import dataclasses
import math
import pickle
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from helpers import cases

import pyro_vae as pv
from pyro_vae.core.config import Config, FrozenMapping, coerce, field
from pyro_vae.core.errors import InputError, unknown_name_error
from pyro_vae.families import FAMILIES
from pyro_vae.networks import NETWORKS

TABLED = [
    *(family for name in FAMILIES for family in cases.FAMILIES[name].declarations),
    *(net for name in NETWORKS for net in (cases.NETWORKS[name].network, *cases.NETWORKS[name].variants)),
]


@dataclass(frozen=True)
class Thing(Config):
    """One field of each type."""

    size: int = field(2, low=1, high=8)
    rate: float = field(0.5, low=0.0)
    name: str = field("relu", known=("relu", "leaky_relu", "tanh"))
    switch: bool = False
    sizes: tuple[int, ...] = field((4,), low=1)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: float | None = None
    mode: Literal["mean", "sum"] = "mean"
    parts: FrozenMapping[float] = field(FrozenMapping(), low=0.0)


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("size", 8, 8),
        ("rate", 3, 3.0),
        ("rate", np.float64(0.1), 0.1),
        ("sizes", [3, 2], (3, 2)),
        ("sizes", [], ()),
        ("pair", [1, 2], (1.0, 2.0)),
        ("limit", None, None),
        ("limit", 2, 2.0),
        ("mode", "sum", "sum"),
        ("parts", {"encoder": 1}, FrozenMapping(encoder=1.0)),
    ],
    ids=str,
)
def test_values_are_made_canonical(field: str, given: Any, kept: Any) -> None:
    value = getattr(Thing(**{field: given}), field)
    assert value == kept
    assert type(value) is type(kept)
    items, kept_items = (list(v) if isinstance(v, tuple) else [v] for v in (value, kept))
    assert list(map(type, items)) == list(map(type, kept_items))


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("size", True, r"Thing.size = True has to be an integer"),
        ("size", 2.0, r"Thing.size = 2.0 has to be an integer"),
        ("size", "2", r"Thing.size = '2' has to be an integer"),
        ("size", None, r"Thing.size = None has to be an integer"),
        ("size", 0, r"Thing.size = 0 has to be in \[1, 8\]"),
        ("size", 9, r"Thing.size = 9 has to be in \[1, 8\]"),
        ("rate", True, r"Thing.rate = True has to be a finite number"),
        ("rate", math.nan, r"Thing.rate = nan has to be a finite number"),
        ("rate", math.inf, r"Thing.rate = inf has to be a finite number"),
        ("rate", "fast", r"Thing.rate = 'fast' has to be a finite number"),
        ("rate", -0.1, r"Thing.rate = -0.1 has to be at least 0.0"),
        ("name", 3, r"Thing.name = 3 has to be a str"),
        ("name", "rleu", r"unknown Thing.name 'rleu': did you mean 'relu'\? Known: relu, leaky_relu, tanh"),
        ("name", "TANH", r"did you mean 'tanh'"),
        ("switch", 1, r"Thing.switch = 1 has to be True or False"),
        ("sizes", 4, r"Thing.sizes = 4 has to be a list of int"),
        ("sizes", "44", r"Thing.sizes = '44' has to be a list of int"),
        ("sizes", [4, True], r"Thing.sizes = True has to be an integer"),
        ("sizes", [4, 0], r"Thing.sizes = \(4, 0\) has to be at least 1"),
        ("pair", [1], r"Thing.pair = \[1\] has to be a list of 2 numbers"),
        ("pair", [1, "b"], r"Thing.pair = 'b' has to be a finite number"),
        ("limit", "high", r"Thing.limit = 'high' has to be a finite number or nothing"),
        ("mode", "men", r"unknown value of Thing.mode, 'men': did you mean 'mean'\? Known: mean, sum"),
        ("parts", [1], r"Thing.parts = \[1\] has to be a mapping of names to float"),
        ("parts", {"encoder": "x"}, r"Thing.parts\['encoder'\] = 'x' has to be a finite number"),
        ("parts", {"encoder": -1}, r"Thing.parts = .* has to be at least 0.0"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(field: str, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Thing(**{field: given})


@pytest.mark.parametrize("look_alike", [True, 1.0])
def test_literal_takes_no_look_alikes(look_alike: Any) -> None:
    assert coerce("x", Literal[1, "a"], 1) == 1
    with pytest.raises(InputError, match="unknown value of x,"):
        coerce("x", Literal[1, "a"], look_alike)


def test_name_unlike_any_lists_the_known_ones_without_a_guess() -> None:
    message = str(unknown_name_error("family", "zzz", ["Normal", "Laplace"]))
    assert message == "unknown family 'zzz'. Known: Normal, Laplace."


@pytest.mark.parametrize("declared", [Thing(), Thing(parts={"a": 1}), *TABLED], ids=repr)
def test_declared_things_are_values(declared: Config) -> None:
    copies = [copy.deepcopy(declared), pickle.loads(pickle.dumps(declared)), dataclasses.replace(declared)]
    assert all(other == declared and hash(other) == hash(declared) for other in copies)
    names = {**vars(pv), "Thing": Thing}
    again = eval(repr(declared), names)
    assert again == declared
    assert hash(again) == hash(declared)
    for part in dataclasses.fields(declared):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(declared, part.name, getattr(declared, part.name))


def test_different_declarations_differ() -> None:
    assert len(set(TABLED)) == len(TABLED)
    assert Thing(size=3) != Thing(size=4)
    assert pv.Normal(0, 1) != pv.Laplace(0, 1)


def test_frozen_mapping_is_hashed_by_content() -> None:
    first, second = FrozenMapping(a=1.0, b=2.0), FrozenMapping(b=2.0, a=1.0)
    assert first == second == {"a": 1.0, "b": 2.0}
    assert hash(first) == hash(second)
    assert hash(first) != hash(FrozenMapping(a=1.0))
    copies = [copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    assert all(other == first and type(other) is FrozenMapping for other in copies)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.__setitem__("a", 2.0),
        lambda m: m.__delitem__("a"),
        lambda m: m.update(a=2.0),
        lambda m: m.__ior__({"a": 2.0}),
        lambda m: m.pop("a"),
        lambda m: m.popitem(),
        lambda m: m.setdefault("b", 2.0),
        lambda m: m.clear(),
    ],
    ids=["set", "del", "update", "ior", "pop", "popitem", "setdefault", "clear"],
)
def test_frozen_mapping_never_changes(change: Any) -> None:
    mapping = FrozenMapping(a=1.0)
    with pytest.raises(TypeError, match=r"dataclasses\.replace"):
        change(mapping)
    assert mapping == {"a": 1.0}


def test_declaring_does_not_hold_on_to_what_was_given() -> None:
    sizes, parts = [3, 2], {"encoder": 1.0}
    thing = Thing(sizes=sizes, parts=parts)
    sizes.append(1)
    parts["decoder"] = 2.0
    assert (thing.sizes, thing.parts) == ((3, 2), {"encoder": 1.0})
