"""What is imported when: names of the package on first use, and no torch for the help of the command line."""

import json
import subprocess
import sys

import pytest

import pyro_vae as pv

HEAVY = {"arviz", "arviz_stats", "h5netcdf", "lightning", "matplotlib", "optuna", "pandas", "pyarrow"}
HEAVY |= {"rich", "scipy", "sklearn", "torchvision", "xarray", "zuko"}
OURS = {
    "cli",
    "compile",
    "criticism",
    "data",
    "objectives",
    "plots",
    "registry",
    "reports",
    "runs",
    "schedules",
    "sweeps",
}
OURS |= {"training", "workflow"}

CODE = """
import json, sys
{before}
known = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - known)))
"""


def imported(code: str, before: str = "") -> set[str]:
    """The modules that code imports, in a process of its own."""
    words = [sys.executable, "-c", CODE.format(code=code, before=before)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_vae_is_declared_with_torch_pyro_and_what_it_is_made_of() -> None:
    found = imported("import pyro_vae as pv; pv.VAE((3,), 2)", before="import torch, pyro")
    assert {name for name in found if name.split(".")[0] in HEAVY} == set()
    assert {name for name in found if name.startswith("pyro_vae.") and name.split(".")[1] in OURS} == set()
    assert "pyro_vae.model.vae" in found


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--version"], ["ftt"]], ids=" ".join)
def test_help_of_the_command_line_needs_no_torch(words: list[str]) -> None:
    code = f"from pyro_vae.cli import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass"
    found = imported(code)
    assert {name.split(".")[0] for name in found} & {"torch", "pyro", "numpy", *HEAVY} == set()


def test_names_are_all_there_and_listed_once() -> None:
    assert pv.__version__
    assert sorted(set(pv.__all__)) == sorted(pv.__all__)
    for name in pv.__all__:
        assert getattr(pv, name) is not None
        assert name in dir(pv)
    assert callable(pv.sweep)
    assert callable(pv.report)
    assert pv.families.FAMILIES.keys() <= set(pv.__all__)
    with pytest.raises(AttributeError, match="attribute nonsense"):
        pv.nonsense  # noqa: B018 - the attribute is what is asked for
