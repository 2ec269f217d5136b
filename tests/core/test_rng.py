"""Random states that are everybody's: taken, put back, and had to oneself, with nothing left behind."""

import contextlib
import random
from collections.abc import Callable
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


def test_every_generator_is_drawn_from_here() -> None:
    assert DRAW.keys() == GENERATORS.keys()


@pytest.mark.parametrize("name", GENERATORS)
def test_what_is_put_back_gives_the_same_numbers_again(name: str) -> None:
    DRAW[name]()
    generator = GENERATORS[name]
    state = generator.take()
    first = DRAW[name]()
    assert DRAW[name]() != first
    generator.put(state)
    assert DRAW[name]() == first


@pytest.mark.parametrize("name", ["numpy", "python"])
def test_states_that_are_compared_are_plain_and_tell_a_draw(name: str) -> None:
    take = GENERATORS[name].take
    before = take()
    assert take() == before
    DRAW[name]()
    assert take() != before
    assert hash(before) == hash(before)


@pytest.mark.parametrize("fault", [False, True], ids=["as it should", "with an error"])
def test_a_block_leaves_no_trace(fault: bool) -> None:
    def block() -> None:
        with isolate_rng():
            draws()
            if fault:
                raise ValueError

    states = rng.taken()
    expected = draws()
    rng.put(states)
    with contextlib.suppress(ValueError):
        block()
    assert draws() == expected


def test_own_numbers_depend_on_the_seed_alone_and_go_on() -> None:
    def two(seed: int, between: Callable[[], Any]) -> list[dict[str, Any]]:
        own, found = PrivateRng(seed), []
        for _ in range(2):
            with own.numbers():
                found.append(draws())
            between()
        return found

    states = rng.taken()
    expected = draws()
    rng.put(states)
    plain = two(5, lambda: None)
    assert draws() == expected
    assert plain == two(5, draws)
    assert plain[0] != plain[1]
    assert plain[0] != two(6, lambda: None)[0]


def test_a_generator_that_numpy_was_given_by_a_user_is_left_alone() -> None:
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        with isolate_rng():
            pass
        assert np.random.get_bit_generator().state == np.random.PCG64(1).state
    finally:
        np.random.set_bit_generator(before)
