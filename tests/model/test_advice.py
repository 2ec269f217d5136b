"""A VAE that is called as another library's model is, names its own call, which works."""

import re

import pytest
import torch

import pyro_vae as pv
from pyro_vae.model.advice import INSTEAD


@pytest.fixture
def vae() -> pv.VAE:
    torch.manual_seed(0)
    return pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,)))


@pytest.mark.parametrize("name", INSTEAD)
@pytest.mark.filterwarnings("ignore:k-hat:UserWarning")
def test_call_of_another_library_is_answered_by_one_that_works(
    name: str, vae: pv.VAE, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert not hasattr(vae, name)
    with pytest.raises(AttributeError, match=f"VAE has no '{name}': write ") as refusal:
        getattr(vae, name)
    x, z = torch.randn(20, 3), torch.randn(4, 2)
    if "pv.load" in INSTEAD[name]:
        pv.fit(vae, x, epochs=1, progress=False, run="my-run")
    lines = str(refusal.value).split(": write ")[1].removesuffix(".")
    for line in re.split(r", and then |, and |, or | of training| of any rows", lines):
        if line and "run='my-run'" not in line:
            assert eval(line, {"pv": pv, "vae": vae, "x": x, "z": z}) is not None


def test_call_of_the_model_itself_is_refused_by_those_that_work(vae: pv.VAE) -> None:
    x = torch.randn(20, 3)
    with pytest.raises(pv.InputError, match="a pair of programs and no function") as refusal:
        vae(x)
    for line in re.findall(r"vae\.\w+\(\w\)", str(refusal.value)):
        assert eval(line, {"vae": vae, "x": x, "z": torch.randn(4, 2)}) is not None


def test_other_names_are_unknown_as_ever(vae: pv.VAE) -> None:
    with pytest.raises(AttributeError, match="'VAE' object has no attribute 'colour'"):
        _ = vae.colour
