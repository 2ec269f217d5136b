"""Global random states: how they are read, set, isolated and seeded, on the CPU and one device.

Nothing else in the package seeds or forks a global generator. `seeded` is torch's alone and cheap, for what we draw
ourselves; `isolate_rng` and `PrivateRng` hold numpy's and Python's too, for code of a user's that may draw from any.
"""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch

States = dict[str, Any]

GLOBAL_STATE = "it draws from torch's global random state, so write `torch.manual_seed(1)` before it"
"""Advice on a seed where there is no such argument."""


class Generator(NamedTuple):
    """Global generator of random numbers.

    Args:
        get: returns its state, as a value that does not change when numbers are drawn.
        set: sets such a state.
    """

    get: Callable[[], Any]
    set: Callable[[Any], None]


def _get_numpy() -> tuple[Any, ...]:
    """State of numpy's global generator in plain numbers, comparable and writable; empty for one of another kind."""
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - users' code draws from the global one
    if state["bit_generator"] != "MT19937":
        return ()
    inner = state["state"]
    return (tuple(inner["key"].tolist()), int(inner["pos"]), int(state["has_gauss"]), float(state["gauss"]))


def _set_numpy(state: tuple[Any, ...]) -> None:
    if state:
        keys, *rest = state
        np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002 - see above


GENERATORS: Mapping[str, Generator] = {
    "torch": Generator(torch.get_rng_state, torch.set_rng_state),
    "numpy": Generator(_get_numpy, _set_numpy),
    "python": Generator(random.getstate, random.setstate),
}
"""Generators of the CPU, by name."""


def device_generator(device: torch.device) -> Generator:
    """Torch's global generator of a device; for the CPU that of the CPU."""
    if device.type == "cpu":
        return GENERATORS["torch"]
    module: Any = torch.get_device_module(device)
    which = () if device.type == "mps" else (device,)  # there is one of these
    return Generator(lambda: module.get_rng_state(*which), lambda state: module.set_rng_state(state, *which))


def get_states() -> States:
    """States of all generators of the CPU by name."""
    return {name: generator.get() for name, generator in GENERATORS.items()}


def set_states(states: States) -> None:
    """Set what `get_states` returned."""
    for name, generator in GENERATORS.items():
        generator.set(states[name])


def _own_generator(device: torch.device | None) -> list[Generator]:
    """Generator of a device, where it has one besides the CPU's."""
    return [] if device is None or device.type == "cpu" else [device_generator(device)]


@contextlib.contextmanager
def _restored(generators: Iterable[Generator]) -> Iterator[None]:
    """Block after which the states of these generators are as they were before."""
    before = [(generator, generator.get()) for generator in generators]
    try:
        yield
    finally:
        for generator, state in before:
            generator.set(state)


def isolate_rng(device: torch.device | None = None) -> AbstractContextManager[None]:
    """Block after which all global random states of the CPU, and of a device, are as they were before.

    >>> before = random.getstate(), torch.get_rng_state()
    >>> with isolate_rng():
    ...     _ = random.random(), torch.rand(3)
    >>> random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    True
    """
    return _restored([*GENERATORS.values(), *_own_generator(device)])


def seed_torch(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's generator of the CPU, and of one device; `torch.manual_seed` would seed every GPU."""
    torch.default_generator.manual_seed(int(seed))
    if device is not None and device.type != "cpu":
        module: Any = torch.get_device_module(device)
        with contextlib.nullcontext() if device.type == "mps" else module.device(device):
            module.manual_seed(int(seed))


@contextlib.contextmanager
def seeded(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Block with torch's random numbers of a seed, after which torch's states are as they were before.

    Args:
        seed: an integer; None goes on from the present state, and restores it too.
        device: a device that numbers are drawn on too; no other device's state is read or set.

    >>> with seeded(3):
    ...     first = torch.rand(2)
    >>> with seeded(3):
    ...     torch.equal(torch.rand(2), first)
    True
    """
    with _restored([GENERATORS["torch"], *_own_generator(device)]):
        if seed is not None:
            seed_torch(seed, device)
        yield


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
        """Block that draws from these states; the global ones are restored after it."""
        with isolate_rng():
            if self.states:
                set_states(self.states)
            else:
                seed_torch(self.seed)
                np.random.seed(self.seed % 2**32)  # noqa: NPY002 - users' code draws from the global one
                random.seed(self.seed)
            try:
                yield
            finally:
                self.states = get_states()
