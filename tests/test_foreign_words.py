"""Words of other libraries are refused by a line that is read from the sentence, executed, and works."""

import functools
import inspect
import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import pyro_vae as pv
from pyro_vae.core.calls import LINES, REMARKS, SYNONYMS, CallError

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
QUICK: dict[str, Any] = {"epochs": 1, "progress": False}
WORDS = sorted({*LINES, *REMARKS, *SYNONYMS, *(word for theirs in SYNONYMS.values() for word in theirs)})

CALLS: dict[str, dict[str, Any]] = {
    # what is called, with arguments that it takes
    "pv.fit": {"vae": None, "x": X, **QUICK},
    "pv.VAE": {"event_shape": (3,), "latent_dim": 2},
    "pv.Normal": {},
    "pv.MLP": {},
    "pv.Adam": {},
    "pv.objectives.IWAE": {},
    "pv.evidence": {"vae": None, "x": X, "progress": False},
    "pv.criticism.sbc": {"vae": None, "simulations": 20, "draws": 20, "progress": False},
    "pv.predictive_check": {"vae": None, "x": X, "draws": 20, "two_sample": False, "progress": False},
}
VALUES = [2, 0.5, True, "mse", [8, 4], None]
"""Values that somebody may give to any of the words."""


def small() -> pv.VAE:
    """A small VAE of vectors of length 3."""
    return pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,)))


def space() -> dict[str, Any]:
    """Names that a line of a sentence may use."""
    names = {"x": X, "mask": X > -1, "size_factor": torch.ones(40), "labels": torch.zeros(40).long(), "vae": small()}
    modules = {"pv": pv, "torch": torch, "numpy": numpy, "functools": functools}
    return {**modules, **names, "dataset": torch.utils.data.StackDataset(x=X)}


@pytest.mark.parametrize("name", CALLS)
def test_line_for_a_foreign_word_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    function, executed = eval(name, {"pv": pv}), set()
    for word, value in itertools.product(WORDS, VALUES):
        given = {key: small() if key == "vae" else one for key, one in CALLS[name].items()}
        if word in inspect.signature(function).parameters:
            continue
        with pytest.raises(CallError, match=f"has no keyword {word!r}") as refusal:
            function(**given, **{word: value})
        found = re.search(r": write (\w+)=(.*)\. It takes ", str(refusal.value))
        # "..." is the value as it was, and what is wrong with that is for the next sentence to say
        if found is not None and "..." not in found[2] and found[0] not in executed and "devices" not in found[2]:
            executed.add(found[0])
            shutil.rmtree("run", ignore_errors=True)
            held_out = {"validation": X} if "EarlyStopping" in found[2] else {}
            assert function(**given | eval(f"dict({found[1]}={found[2]})", space()) | held_out) is not None
    assert executed


@pytest.mark.parametrize("word", REMARKS)
def test_remark_on_a_foreign_word_works(word: str) -> None:
    for code in re.findall("`([^`]*)`", REMARKS[word]):
        names = space() | {"x": X}
        exec(code.replace("pv.fit(vae, x, ", "pv.fit(vae, x, progress=False, "), names)
        if code.startswith("{"):
            vae = pv.VAE((3,), 2, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(4,)))
            pv.fit(vae, eval(code, names | {"x": X.abs().round()}), **QUICK)


def test_value_that_cannot_be_written_is_not_repeated() -> None:
    with pytest.raises(CallError, match=r"write objective=pv.objectives.IWAE\(\)\. "):
        pv.fit(small(), X, loss="iwae")  # type: ignore[call-arg]
    with pytest.raises(CallError, match=r"write objective=pv.objectives.ELBO\(\)\. "):
        pv.fit(small(), X, loss="mse")  # type: ignore[call-arg]
    with pytest.raises(CallError, match=r"write optimizer=pv.Adam\(lr=\.\.\.\)\. "):
        pv.fit(small(), X, lr=pv.schedules.Linear(1e-3, 0, epochs=2))  # type: ignore[call-arg]
    with pytest.raises(CallError, match=r"write seed=0\. "):
        pv.fit(small(), X, random_state=None)  # type: ignore[call-arg]


@pytest.mark.parametrize("given", [X, X.numpy(), X.tolist(), list(X.numpy()), {"x": X}, tuple(X)], ids=type)
def test_data_in_the_place_of_the_shape_are_not_shown(given: Any) -> None:
    with pytest.raises(pv.InputError, match=r"write event_shape=\(3,\), and give the data to pv.fit") as refusal:
        pv.VAE(given, 2)
    assert not re.search(r"\d\.\d", str(refusal.value))
    with pytest.raises(pv.InputError, match=r"write event_shape=\(3,\) for a vector"):
        pv.VAE(3, 2)  # type: ignore[arg-type]
    with pytest.raises(pv.InputError, match="event_shape = a DataLoader has to be"):
        pv.VAE(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X)), 2)  # type: ignore[arg-type]
