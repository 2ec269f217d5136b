"""The run folder: whole or not at all, equal when it comes back, and readable without running anything."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import safetensors.torch
import torch
import yaml
from helpers.cases import FAMILIES, default_dtype, same
from helpers.small_runs import content, fit, rows, small
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.data.rows import fingerprint
from pyro_vae.families import FAMILIES as FAMILY_TABLE
from pyro_vae.runs.folder import FORMAT, RunFolder

# There and back

IMAGE = (1, 5, 7)
CONV = pv.Conv(channels=(2,), hidden=4)
LIKELIHOODS = [name for name in FAMILY_TABLE if "likelihood" in FAMILIES[name].roles]
MODELS: dict[str, tuple[Callable[[], pv.VAE], Tensor]] = {
    **{name: (lambda name=name: small(likelihood=FAMILIES[name].family), rows(name)) for name in LIKELIHOODS},
    "learned prior": (lambda: small(prior=pv.Laplace(), guide=pv.StudentT("learned")), rows()),
    "correlated": (lambda: small(prior=pv.MultivariateNormal(), guide=pv.MultivariateNormal()), rows()),
    "fixed values": (lambda: small(prior=pv.Normal([0.1, 0.2], 0.3), likelihood=pv.Normal(scale=0.1)), rows()),
    "images": (lambda: pv.VAE(IMAGE, 2, encoder=CONV), rows(event=IMAGE)),
    "images of labels": (
        lambda: pv.VAE(IMAGE, 2, encoder=CONV, likelihood=pv.Categorical(3)),
        rows("Categorical", IMAGE),
    ),
    "images and vectors": (lambda: pv.VAE(IMAGE, 2, encoder=CONV, decoder=pv.MLP(hidden=(4,))), rows(event=IMAGE)),
    "numbers": (lambda: small((), encoder=pv.MLP(hidden=())), rows(event=())),
}


def outputs(vae: pv.VAE, x: Tensor) -> list[Tensor]:
    """Everything a VAE computes, with random numbers of their own."""
    torch.manual_seed(5)
    z, replicate = vae.encode(x).sample(), vae.reconstruct(x)
    logs = [vae.prior().log_prob(z), vae.encode(x).log_prob(z), vae.decode(z).log_prob(x)]
    return [vae.sample(4), replicate, z, *(log.detach() for log in logs)]


@pytest.mark.parametrize("precision", ["float32", "float64", "made in float64"])
@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_is_equal_bit_for_bit(name: str, precision: str, tmp_path: Path) -> None:
    make, x = MODELS[name]
    with default_dtype(torch.float64 if precision == "made in float64" else torch.float32):
        vae = make().double() if precision == "float64" else make()
    fit(vae, x, tmp_path / "run")
    loaded = pv.load(tmp_path / "run")
    assert loaded.declaration == vae.declaration
    assert same(loaded.state_dict(), vae.state_dict())
    x = x.to(vae.likelihood.device_tensor)
    for mine, theirs in zip(outputs(vae, x), outputs(loaded, x), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
    assert not any(module.training for module in loaded.modules())
    assert all(weight.requires_grad for weight in loaded.parameters())
    assert loaded.store_name != vae.store_name


def test_loaded_model_goes_on_training_from_its_weights(run: Path) -> None:
    loaded = pv.load(str(run))
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    assert same(loaded.initialize(100 + rows()).state_dict(), before)
    assert len(fit(loaded, rows(), run, overwrite=True)) == 2
    assert not same(pv.load(run).state_dict(), before)


def test_history_comes_back(tmp_path: Path) -> None:
    grey = small(likelihood=pv.Bernoulli(grey=True))
    history = fit(grey, torch.rand(12, 3), tmp_path / "run", validation=torch.rand(5, 3))
    again = RunFolder(tmp_path / "run").history()
    assert again == history
    assert again.caveat == "Bernoulli(grey=True) on values in [0, 1] is a cross-entropy, not a density"
    assert isinstance(again.last["epoch"], int)


class Own(nn.Module):
    """A decoder of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Linear(2, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.loc(z)


def test_model_with_parts_of_ones_own_is_loaded_into_itself(tmp_path: Path) -> None:
    vae, x = small(decoder=Own()), rows()
    fit(vae, x, tmp_path / "run")
    with pytest.raises(pv.InputError, match=r"decoder is a part of your own \(Own\), .* pv.load\(run, vae=model\)"):
        pv.load(tmp_path / "run")
    blank = small(decoder=Own())
    assert pv.load(tmp_path / "run", vae=blank) is blank
    assert all(torch.equal(a, b) for a, b in zip(outputs(vae, x), outputs(blank, x), strict=True))


class Guide(nn.Module):
    """A guide of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class Pair(nn.Module):
    """Two programs in a module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Guide()

    def model(self, x: Tensor) -> None:
        model(x)

    def guide(self, x: Tensor) -> None:
        self.inner(x)


@pytest.mark.parametrize(
    "pair", [lambda: SimpleNamespace(model=model, guide=Guide()), Pair], ids=["a pair", "a module"]
)
def test_programs_of_ones_own_are_loaded_into_themselves(pair: Callable[[], Any], tmp_path: Path) -> None:
    fitted, blank = pair(), pair()
    fit(fitted, rows(), tmp_path / "run")
    with pytest.raises(pv.InputError, match=r"declares no VAE .* pv.load\(run, vae=programs\)"):
        pv.load(tmp_path / "run")
    assert pv.load(tmp_path / "run", vae=blank) is blank
    learned, loaded = (one.inner.loc if isinstance(one, Pair) else one.guide.loc for one in (fitted, blank))
    assert learned.abs().max() > 0
    assert torch.equal(learned, loaded)


def test_programs_whose_weights_lie_in_pyros_store_leave_none_in_the_run(tmp_path: Path) -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0).to_event(1))

    fitted = SimpleNamespace(model=model, guide=guide)
    fit(fitted, rows(), tmp_path / "run")
    with pytest.raises(pv.InputError, match=r"model.safetensors is missing"):
        pv.load(tmp_path / "run", vae=fitted)


# What is in it


def test_folder_holds_text_weights_and_pictures_and_no_pickle(pictures: None, tmp_path: Path) -> None:
    vae, x = small(), rows()
    history = fit(vae, x, tmp_path / "run", validation=x, optimizer=pv.Adam(0.01, lr_by_part={"posterior": 0.02}))
    files = content(tmp_path / "run")
    pictures = {f"figures/{name}.png" for name in ("training", "draws", "reconstructions", "latent")}
    assert set(files) == {"spec.yaml", "model.safetensors", "history.csv", *pictures}
    assert all(files[name].startswith(b"\x89PNG") for name in pictures)
    assert files["history.csv"].decode() == history.to_csv()
    assert set(safetensors.torch.load(files["model.safetensors"])) == set(vae.state_dict())
    spec = yaml.safe_load(files["spec.yaml"])
    facts = {name: spec.pop(name) for name in ("format", "versions", "fingerprint", "rows", "data", "trained_with")}
    assert facts["format"] == FORMAT
    assert facts["versions"]["pyro-ppl"] == pyro.__version__
    assert facts["fingerprint"] == fingerprint(x) != fingerprint(x + 1)
    assert (facts["rows"], facts["data"], facts["trained_with"]) == (12, None, ["x"])
    assert spec == {
        "event_shape": [3],
        "latent_dim": 2,
        "prior": {"Normal": {"loc": 0.0, "scale": 1.0}},
        "likelihood": {"Normal": {"scale": "learned"}},
        "guide": "Normal",
        "encoder": {"MLP": {"hidden": [5]}},
        "decoder": {"MLP": {"hidden": [5]}},
        "objective": "ELBO",
        "optimizer": {"Adam": {"lr": 0.01, "lr_by_part": {"posterior": 0.02}}},
        "epochs": 2,
        "batch_size": 6,
        "seed": 0,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_data_set_is_named(tmp_path: Path) -> None:
    digits = pv.data.load("digits").train
    fit(small((1, 8, 8), likelihood=pv.Normal()), digits, tmp_path / "run", epochs=1, batch_size=1000)
    assert RunFolder(tmp_path / "run").spec()["data"] == "digits"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    fit(small(), rows(), tmp_path / "a" / "b" / "run")
    assert pv.load(tmp_path / "a" / "b" / "run").declaration == small().declaration


# Never overwritten, never half


def test_existing_run_is_refused_before_any_work(run: Path) -> None:
    before, vae = content(run), small()
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(pv.InputError, match=r"holds a run already: .* overwrite=True"):
        fit(vae, rows(), run)
    assert content(run) == before
    assert same(vae.state_dict(), weights)


def test_existing_run_is_replaced_on_request(run: Path) -> None:
    (run / "notes.txt").write_text("of the old run")
    vae = small(likelihood=pv.Laplace())
    fit(vae, rows(), run, overwrite=True)
    assert same(pv.load(run).state_dict(), vae.state_dict())
    assert set(content(run)) == {"spec.yaml", "model.safetensors", "history.csv"}
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fit(small(), rows(), tmp_path / "run")
    assert "spec.yaml" in content(tmp_path / "run")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("made", ["a folder with files", "a file"])
def test_folder_that_is_not_a_run_is_left_alone(made: str, overwrite: bool, tmp_path: Path) -> None:
    place = tmp_path / "run"
    if made == "a file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
    with pytest.raises(pv.InputError, match="exists and is not a run folder, so it is left alone"):
        fit(small(), rows(), place, overwrite=overwrite)
    assert {file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == {"mine"}


def test_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(pv.InputError, match=r"cannot be written: .*file is not a folder that you may write to"):
        fit(small(), rows(), tmp_path / "file" / "run")


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], tuple[type[BaseException], dict[str, Any]]]] = {
    "training diverges": lambda patch: (FloatingPointError, {"optimizer": pv.SGD(1e30)}),
    "wrong options": lambda patch: (pv.InputError, {"optimizer": pv.Adam(lr_by_part={"posterir": 0})}),
    "the weights cannot be written": lambda patch: (_break(patch, "safetensors.torch.save_model", OSError), {}),
    "the move fails": lambda patch: (_break(patch, "pathlib.Path.replace", OSError, only=".run.writing"), {}),
}


def _break(patch: pytest.MonkeyPatch, target: str, error: type[BaseException], only: str = "") -> type[BaseException]:
    """Make a function raise: always, or where its first argument has a name that begins with `only`."""
    module, name = target.rsplit(".", 1)
    owner = Path if module == "pathlib.Path" else __import__(module, fromlist=[name])
    original = getattr(owner, name)

    def broken(*arguments: Any, **more: Any) -> Any:
        if not only or arguments[0].name.startswith(only):
            raise error
        return original(*arguments, **more)

    patch.setattr(owner, name, broken)
    return error


@pytest.mark.parametrize("fault", FAULTS)
def test_fit_that_fails_leaves_the_run_that_was_there(fault: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(run)
    error, arguments = FAULTS[fault](monkeypatch)
    with pytest.raises(error):
        fit(small(likelihood=pv.Laplace()), rows(), run, overwrite=True, **arguments)
    assert content(run) == before
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("fault", FAULTS)
def test_fit_that_fails_leaves_no_half_a_run(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)
    error, arguments = FAULTS[fault](monkeypatch)
    with pytest.raises(error):
        fit(small(), rows(), tmp_path / "run", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("checkpoints", [None, pv.Checkpoints()])
@pytest.mark.parametrize("error", [ZeroDivisionError, OSError, KeyboardInterrupt])
def test_run_stays_when_a_picture_fails(
    error: type[BaseException], checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, "pyro_vae.plots._run_figures.write", error)
    vae, warned = small(), pytest.warns(UserWarning, match=rf"pictures .*{error.__name__}.* run is complete without")
    with pytest.raises(KeyboardInterrupt) if error is KeyboardInterrupt else warned:
        fit(vae, rows(), tmp_path / "run", checkpoints=checkpoints)
    assert same(pv.load(tmp_path / "run").state_dict(), vae.state_dict())
    assert len(RunFolder(tmp_path / "run").history()) == 2


def test_whoever_may_read_the_declaration_may_read_the_weights(run: Path) -> None:
    modes = {(run / name).stat().st_mode for name in ("spec.yaml", "history.csv", "model.safetensors")}
    assert len(modes) == 1
