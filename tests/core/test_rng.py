"""Random states that are everybody's: taken, put back, and had to oneself, with nothing left behind."""

import contextlib
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_vae.core import rng
from pyro_vae.core.rng import GENERATORS, PrivateRng, isolate_rng

DRAW: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.randn(3).tolist(),
    "numpy": lambda: (np.random.normal(), np.random.rand()),  # noqa: NPY002 - an odd number of normals leaves one over
    "python": lambda: (random.gauss(0, 1), random.random()),
}


def draws() -> dict[str, Any]:
    return {name: draw() for name, draw in DRAW.items()}


def test_draws_cover_every_generator() -> None:
    assert DRAW.keys() == GENERATORS.keys()


@pytest.mark.parametrize("name", GENERATORS)
def test_restored_states_give_the_same_numbers_again(name: str) -> None:
    DRAW[name]()
    generator = GENERATORS[name]
    state = generator.get()
    first = DRAW[name]()
    assert DRAW[name]() != first
    generator.set(state)
    assert DRAW[name]() == first


@pytest.mark.parametrize("name", ["numpy", "python"])
def test_states_that_are_compared_are_plain_and_tell_a_draw(name: str) -> None:
    take = GENERATORS[name].get
    before = take()
    assert take() == before
    DRAW[name]()
    assert take() != before
    assert hash(before) == hash(before)


@pytest.mark.parametrize("fault", [False, True], ids=["as it should", "with an error"])
def test_block_leaves_no_trace(fault: bool) -> None:
    def block() -> None:
        with isolate_rng():
            draws()
            if fault:
                raise ValueError

    states = rng.get_states()
    expected = draws()
    rng.set_states(states)
    with contextlib.suppress(ValueError):
        block()
    assert draws() == expected


def test_private_rng_depends_only_on_its_seed_and_continues() -> None:
    def two(seed: int, between: Callable[[], Any]) -> list[dict[str, Any]]:
        own, found = PrivateRng(seed), []
        for _ in range(2):
            with own.numbers():
                found.append(draws())
            between()
        return found

    states = rng.get_states()
    expected = draws()
    rng.set_states(states)
    plain = two(5, lambda: None)
    assert draws() == expected
    assert plain == two(5, draws)
    assert plain[0] != plain[1]
    assert plain[0] != two(6, lambda: None)[0]


def test_generator_that_numpy_was_given_by_a_user_is_left_alone() -> None:
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        with isolate_rng():
            pass
        assert np.random.get_bit_generator().state == np.random.PCG64(1).state
    finally:
        np.random.set_bit_generator(before)


PACKAGE = Path(rng.__file__).parents[1]


def test_seeded_gives_the_numbers_of_its_seed_and_restores_the_state() -> None:
    state = torch.get_rng_state()
    with rng.seeded(3):
        first = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), state)
    with contextlib.suppress(ZeroDivisionError), rng.seeded(3):
        assert torch.equal(torch.rand(2), first)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), state)
    with rng.seeded(None):
        now = torch.rand(2)
    assert torch.equal(torch.rand(2), now)


class FakeDevices:
    """A machine with two devices of a type "cuda", which notes whose state is read, set or seeded."""

    def __init__(self) -> None:
        self.states = {"cuda:0": 0, "cuda:1": 10}
        self.touched: list[tuple[str, str]] = []
        self.present = "cuda:0"

    def get_rng_state(self, device: torch.device) -> int:
        self.touched.append(("get", str(device)))
        return self.states[str(device)]

    def set_rng_state(self, state: int, device: torch.device) -> None:
        self.touched.append(("set", str(device)))
        self.states[str(device)] = state

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.present = self.present, str(device)
        yield
        self.present = before

    def manual_seed(self, seed: int) -> None:
        self.touched.append(("seed", self.present))
        self.states[self.present] = seed


@pytest.mark.parametrize("block", [rng.isolate_rng, lambda device: rng.seeded(7, device)], ids=["isolated", "seeded"])
def test_block_touches_the_state_of_its_own_device_alone(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = FakeDevices()
    monkeypatch.setattr(torch, "get_device_module", lambda device: devices)
    for module in (torch.cuda, torch.random):
        for name in ("manual_seed_all", "manual_seed", "fork_rng", "get_rng_state_all"):
            monkeypatch.setattr(module, name, lambda *given: pytest.fail("a global seed"), raising=False)
    with block(torch.device("cpu")):
        torch.rand(1)
    assert devices.touched == []
    with block(torch.device("cuda:1")):
        devices.states["cuda:1"] += 1
    assert devices.states == {"cuda:0": 0, "cuda:1": 10}
    assert {device for _, device in devices.touched} == {"cuda:1"}


def test_global_generators_are_seeded_and_forked_in_one_module() -> None:
    word = re.compile(r"\bfork_rng\b|(?<!Generator\(\)\.)\bmanual_seed\b|\bset_rng_state\b|\bnp\.random\.seed\b")
    found = {
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        if file != Path(rng.__file__)
        for line in file.read_text().splitlines()
        if word.search(line) and not line.strip().startswith(">>>")
    }
    assert found == set()
    assert word.search("with torch.random.fork_rng():")
    assert word.search("torch.manual_seed(3)")
