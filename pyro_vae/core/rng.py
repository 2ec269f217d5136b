"""Random states that are everybody's: how they are taken and put back, and how a block of code has its own."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

States = dict[str, Any]


class Generator(NamedTuple):
    """A global generator of random numbers.

    Args:
        take: gives its state, as a value that stays as it is when numbers are drawn.
        put: puts such a state back.
    """

    take: Callable[[], Any]
    put: Callable[[Any], None]


def _numpy() -> tuple[Any, ...]:
    """Its state in plain numbers, so that it can be compared and written; nothing of a generator of another kind."""
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - users' code draws from the global one
    if state["bit_generator"] != "MT19937":
        return ()
    inner = state["state"]
    return (tuple(inner["key"].tolist()), int(inner["pos"]), int(state["has_gauss"]), float(state["gauss"]))


def _put_numpy(state: tuple[Any, ...]) -> None:
    if state:
        keys, *rest = state
        np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002 - see above


GENERATORS: Mapping[str, Generator] = {
    "torch": Generator(torch.get_rng_state, torch.set_rng_state),
    "numpy": Generator(_numpy, _put_numpy),
    "python": Generator(random.getstate, random.setstate),
}
"""Those of the CPU."""


def of_device(device: torch.device) -> Generator:
    """That of a device; for the CPU torch's."""
    if device.type == "cpu":
        return GENERATORS["torch"]
    module: Any = torch.get_device_module(device)
    which = () if device.type == "mps" else (device,)  # there is one of these
    return Generator(lambda: module.get_rng_state(*which), lambda state: module.set_rng_state(state, *which))


def taken(device: torch.device | None = None) -> States:
    """All of them by name; with a device, its own too."""
    return {name: generator.take() for name, generator in _generators(device).items()}


def put(states: States, device: torch.device | None = None) -> None:
    """Put back what was taken."""
    for name, generator in _generators(device).items():
        generator.put(states[name])


def _generators(device: torch.device | None) -> Mapping[str, Generator]:
    return GENERATORS if device is None or device.type == "cpu" else {**GENERATORS, "device": of_device(device)}


@contextlib.contextmanager
def isolate_rng(device: torch.device | None = None) -> Iterator[None]:
    """Leave all random states as they were.

    Args:
        device: where numbers are drawn too, if not on the CPU alone.

    >>> before = random.getstate(), torch.get_rng_state()
    >>> with isolate_rng():
    ...     _ = random.random(), torch.rand(3)
    >>> random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    True
    """
    before = taken(device)
    try:
        yield
    finally:
        put(before, device)


class PrivateRng:
    """Random states of the CPU for some blocks of code alone: each goes on where the one before ended.

    Args:
        seed: of all of them, at the start of the first block.

    >>> own, same = PrivateRng(3), random.Random(3)
    >>> with own.numbers():
    ...     first = random.random()
    >>> with own.numbers():
    ...     second = random.random()
    >>> (first, second) == (same.random(), same.random())
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.states = seed, States()

    @contextlib.contextmanager
    def numbers(self) -> Iterator[None]:
        """Draw from these; those of everybody are left as they were."""
        with isolate_rng():
            if self.states:
                put(self.states)
            else:
                torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would seed every GPU too
                np.random.seed(self.seed % 2**32)  # noqa: NPY002 - users' code draws from the global one
                random.seed(self.seed)
            try:
                yield
            finally:
                self.states = taken()
