"""What a model remembers of the data that it was fitted to: names of columns, of tensors, and its own programs."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from helpers.cases import same
from helpers.fitting import fit
from torch import Tensor

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.data.columns import column_order
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.inputs import load_split

NAMES = ["age", "bmi", "bp"]
OTHER = ["bp", "age", "bmi"]
FEW = pv.criticism.Importance(draws=30)


def frame(n: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(0)
    factor = random.normal(size=n)
    return pd.DataFrame(
        {name: scale * factor + random.normal(size=n) for name, scale in zip(NAMES, (3, 1, -2), strict=True)}
    )


def small(**arguments: Any) -> pv.VAE:
    torch.manual_seed(0)
    likelihood = pv.Normal(scale="per_feature")
    return pv.VAE((3,), 1, **{"likelihood": likelihood, "encoder": pv.MLP(hidden=(6,)), **arguments})


@functools.cache
def fitted() -> pv.VAE:
    vae = small()
    fit(vae, frame(), epochs=5)
    return vae


def as_parquet(folder: Path, x: pd.DataFrame) -> pv.data.Stream:
    pytest.importorskip("pyarrow")
    file = folder / f"{'-'.join(x.columns)}.parquet"
    x.to_parquet(file, row_group_size=20)
    return pv.data.stream(file)


# Columns


def evidence(vae: pv.VAE, x: Any) -> Any:
    return pv.evidence(vae, x, method=FEW, progress=False).pointwise


def refit(vae: pv.VAE, x: Any) -> Any:
    other = small()
    other.load_state_dict(vae.state_dict())
    other.feature_names = vae.feature_names
    fit(other, x)
    return torch.cat([weight.detach().flatten() for weight in other.parameters()])


def validation(vae: pv.VAE, x: Any) -> Any:
    return torch.tensor(fit(small(), frame(), validation=x)["validation_loss"])


def check(vae: pv.VAE, x: Any) -> Any:
    tree = pv.predictive_check(vae, x, draws=20, two_sample=False, progress=False)
    return torch.tensor(tree["checks"]["p_value"].values) if "p_value" in tree["checks"] else str(tree["checks"])


def bdmc(vae: pv.VAE, x: Any) -> Any:
    method = pv.criticism.AIS(chains=2, temperatures=4, leapfrog=2)
    return pv.criticism.bdmc(vae, x=x, method=method, progress=False).lower


def masked(vae: pv.VAE, x: Any) -> Any:
    return evidence(vae, {"x": x, "mask": torch.tensor((x > -1).to_numpy(copy=True))})


def aggregated(vae: pv.VAE, x: Any) -> Any:
    other = pv.aggregate(vae, x, epochs=1, progress=False)
    return torch.cat([weight.detach().flatten() for weight in other.prior.parameters()])


def encoded(vae: pv.VAE, x: Any) -> Any:
    return vae.encode(x).mean


def reconstructed(vae: pv.VAE, x: Any) -> Any:
    return vae.reconstruct(x, mean=True).shape, vae.as_batch(x)["x"].tolist()


def drawn(vae: pv.VAE, x: Any) -> Any:
    axes = pv.plots.latent(vae, x).axes[0]
    return axes.collections[-1].get_offsets().tolist()


USES: Sequence[Callable[[pv.VAE, Any], Any]] = (
    *(evidence, refit, validation, check, bdmc, masked, aggregated, encoded, reconstructed, drawn),
)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_order_of_columns_changes_nothing(use: Callable[[pv.VAE, Any], Any]) -> None:
    one, other = use(fitted(), frame()), use(fitted(), frame()[OTHER])
    assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (lambda x: x.rename(columns={"age": "height"}), "'age' is missing: rename or add columns"),
        (lambda x: x.assign(height=x["age"]), "'height' is not among these: drop it"),
        (lambda x: x[["age", "bp"]], "'bmi' is missing"),
    ],
)
def test_other_columns_are_refused_with_both_lists(
    use: Callable[[pv.VAE, Any], Any], change: Callable[[pd.DataFrame], pd.DataFrame], fix: str
) -> None:
    x = change(frame())
    with pytest.raises(pv.InputError, match=fix) as refusal:
        use(fitted(), x)
    for names in (NAMES, x.columns):
        assert ", ".join(names) in str(refusal.value)


def test_mask_of_a_frame_is_matched_by_names() -> None:
    x = frame()
    rows = [pv.data.Rows.of({"x": x[OTHER], "mask": (x > -1)[names]}).aligned(NAMES) for names in (NAMES, OTHER)]
    for each in rows:
        assert torch.equal(each.x, torch.tensor(x.to_numpy()))
        assert torch.equal(each.tensors["mask"].bool(), torch.tensor((x > -1).to_numpy(copy=True)))
    with pytest.raises(pv.InputError, match="columns of the mask are age, bmi, b, and those of x are age, bmi, bp"):
        pv.data.Rows.of({"x": x, "mask": (x > -1).rename(columns={"bp": "b"})})


def test_arrays_and_numbered_columns_are_taken_in_their_order() -> None:
    expected = evidence(fitted(), frame())
    for x in (
        frame().to_numpy(copy=True),
        torch.as_tensor(frame().to_numpy(copy=True)),
        pd.DataFrame(frame().to_numpy(copy=True)),
    ):
        assert torch.equal(evidence(fitted(), x), expected)
    vae = small()
    fit(vae, frame().to_numpy(copy=True))
    assert vae.feature_names == ()
    assert torch.equal(evidence(vae, frame()), evidence(vae, frame().to_numpy(copy=True)))
    fit(vae, frame())
    fit(vae, frame().to_numpy(copy=True))
    assert vae.feature_names == tuple(NAMES)


def test_columns_of_one_name_are_not_reordered() -> None:
    x = frame().set_axis(["a", "b", "a"], axis=1)
    vae = small()
    fit(vae, x)
    evidence(vae, x)
    with pytest.raises(pv.InputError, match="two columns of x are named 'a'"):
        evidence(vae, frame().set_axis(["a", "a", "b"], axis=1))
    assert column_order(("a", "b"), ()) is None


def test_models_of_frames_in_other_orders_are_compared_on_the_same_rows() -> None:
    other = small()
    fit(other, frame()[OTHER])
    found = [pv.evidence(vae, frame(), method=FEW, progress=False) for vae in (fitted(), other)]
    assert found[0].fingerprint == found[1].fingerprint
    assert pv.evidence(other, frame()[OTHER], method=FEW, progress=False).fingerprint == found[0].fingerprint


def test_replaced_model_keeps_the_names_of_its_columns() -> None:
    assert fitted().replace(prior=pv.Laplace(0, 1)).feature_names == tuple(NAMES)
    assert fitted().replace(event_shape=(2,)).feature_names == ()


class Own(torch.nn.Module):
    """Programs that are no VAE."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.arange(3.0))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
            pyro.sample("x", pyro.distributions.Normal(self.loc + z[..., None], 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", pyro.distributions.Normal(x.mean(-1) - 1, 1.0))


def test_names_are_remembered_with_own_programs(tmp_path: Path) -> None:
    x = frame().astype("float32")
    own = Own()
    fit(own, pv.data.Rows.of(x).to(dtype=torch.float32), run=tmp_path / "run")
    again = pv.load(tmp_path / "run", vae=Own())
    assert torch.equal(evidence(again, x[OTHER]), evidence(own, x))
    with pytest.raises(pv.InputError, match="'age' is missing"):
        evidence(again, x.rename(columns={"age": "height"}))


# Streams and runs


def test_columns_of_a_stream_are_reordered(tmp_path: Path) -> None:
    streams = [as_parquet(tmp_path, frame()[order]) for order in (NAMES, OTHER)]
    aligned = streams[1].aligned(streams[0].features)
    assert tuple(aligned.features) == tuple(NAMES)
    assert torch.equal(aligned.head_sample().x, streams[0].head_sample().x)
    assert aligned.head_sample().features == tuple(NAMES)
    assert tuple(aligned.aligned(OTHER).features) == tuple(OTHER)
    assert torch.equal(aligned.aligned(OTHER).head_sample().x, streams[1].head_sample().x)
    histories = [fit(small(), streams[0], validation=held) for held in streams]
    assert histories[0]["validation_loss"].tolist() == histories[1]["validation_loss"].tolist()
    states = []
    for rows in streams:
        vae = small()
        vae.feature_names = tuple(NAMES)
        fit(vae, rows)
        states.append(vae.state_dict())
    assert same(*states)
    with pytest.raises(pv.InputError, match=r"columns of x are age, size, bp, and .* are age, bmi, bp"):
        fit(fitted(), as_parquet(tmp_path, frame().rename(columns={"bmi": "size"})))


def test_names_are_kept_in_the_run_and_apply_to_other_files(tmp_path: Path, capsys: Any) -> None:
    files = [str(tmp_path / f"{number}.csv") for number in range(3)]
    for file, x in zip(files, (frame(), frame()[OTHER], frame().rename(columns={"age": "height"})), strict=True):
        x.to_csv(file, index=False)
    run = tmp_path / "run"
    main(["fit", "--data", files[0], "--run", str(run), "--latent_dim", "1", "--epochs", "2", "--progress", "false"])
    spec = RunFolder(run).spec()
    assert spec["feature_names"] == NAMES
    assert spec["trained_with"] == ["x"]
    vae = pv.load(run)
    assert vae.feature_names == tuple(NAMES)
    one, other = (load_split(RunFolder(run), file, "train") for file in files[:2])
    assert torch.equal(evidence(vae, one), evidence(vae, other))
    capsys.readouterr()
    out = []
    for file in files[:2]:
        main(["evaluate", str(run), "--data", file, "--split", "train", "--method.draws", "30", "--progress", "false"])
        out.append(capsys.readouterr().out.replace(file, ""))
    assert out[0] == out[1]
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--data", files[2], "--split", "train", "--progress", "false"])
    assert "'age' is missing" in capsys.readouterr().err
    main(["fit", "--config", str(run / "spec.yaml"), "--run", str(tmp_path / "again"), "--progress", "false"])
    assert RunFolder(tmp_path / "again").spec()["feature_names"] == NAMES


def test_names_are_kept_with_checkpoints(tmp_path: Path) -> None:
    fit(small(), frame(), run=tmp_path / "run", checkpoints=pv.Checkpoints(every_epochs=1))
    assert pv.load(tmp_path / "run", checkpoint="last").feature_names == tuple(NAMES)


# Size factors


def test_model_fitted_with_size_factor_says_so_where_it_is_used_without() -> None:
    torch.manual_seed(0)
    x, size = torch.poisson(torch.full((40, 3), 4.0)), torch.rand(40) + 0.5
    vae = pv.VAE((3,), 1, likelihood=pv.Poisson(), encoder=pv.MLP(hidden=(6,)))
    rows = {"x": x, "size_factor": size}
    fit(vae, rows)
    uses: dict[str, Callable[[], Any]] = {
        "evidence": lambda: evidence(vae, x),
        "check": lambda: pv.predictive_check(vae, x, draws=20, two_sample=False, progress=False),
        "reconstruct": lambda: vae.reconstruct(x),
        "sample": lambda: vae.sample(3),
        "fit": lambda: fit(vae, x),
    }
    for use in uses.values():
        vae.trained_with = ("x", "size_factor")
        with pytest.warns(UserWarning, match="was fitted with size_factor and is used without"):
            use()
    vae.trained_with = ("x", "size_factor")
    evidence(vae, rows)  # and is silent with it, for warnings are errors here
    vae.sample(3, size_factor=torch.ones(3))
    vae.reconstruct(**rows)


# Programs of a subclass


class Squared(pv.VAE):
    """A VAE whose data depend on z^2."""

    def model(self, x: Tensor | None = None, *, rows: int | None = None, **given: Tensor) -> Tensor:
        self._register("prior", "likelihood")
        with pyro.plate("data", len(x) if x is not None else rows or 1, dim=-1):
            z = pyro.sample("z", self.prior())
            drawn: Tensor = pyro.sample("x", self.likelihood(z.square(), **given), obs=x)
        return drawn


class Preset(pv.VAE):
    """A VAE that differs in its arguments only."""

    def __init__(self, width: int) -> None:
        super().__init__((3,), 1, encoder=pv.MLP(hidden=(width,)))


class Mixin:
    """A decoder of the square."""

    def decode(self, z: Tensor, **given: Tensor) -> Any:
        return super().decode(z.square(), **given)  # type: ignore[misc]


class Mixed(Mixin, pv.VAE):
    """A VAE with a method of another class."""


@pytest.mark.parametrize("kind", [Squared, Mixed])
def test_run_of_a_subclass_is_loaded_into_that_class(kind: type[pv.VAE], tmp_path: Path) -> None:
    build = functools.partial(kind, (3,), 1, encoder=pv.MLP(hidden=(6,)))
    vae, run = build(), tmp_path / "run"
    fit(vae, frame(), run=run, checkpoints=pv.Checkpoints())
    line = rf"subclass of VAE with programs of its own.*pv\.load\('{run}', vae={kind.__name__}\(\.\.\.\)\)"
    for wrong in (None, small()):
        for checkpoint in (None, "last"):
            with pytest.raises(pv.InputError, match=line):
                pv.load(run, vae=wrong, checkpoint=checkpoint)  # type: ignore[call-overload]
    again = pv.load(run, vae=build())
    assert torch.equal(evidence(again, frame()), evidence(vae, frame()))
    assert same(pv.load(run, vae=build(), checkpoint="last").state_dict(), vae.state_dict())
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--data", "digits"])
    with pytest.raises(pv.InputError, match="programs"):
        fit(pv.VAE(**vars(build().declaration)), frame(), run=run, checkpoints=pv.Checkpoints(), resume=True)


def test_run_of_a_subclass_without_programs_of_its_own_is_that_of_a_vae(tmp_path: Path) -> None:
    vae = Preset(6)
    fit(vae, frame(), run=tmp_path / "run")
    again = pv.load(tmp_path / "run")
    assert type(again) is pv.VAE
    assert torch.equal(evidence(again, frame()), evidence(vae, frame()))


def test_replaced_subclass_keeps_its_class() -> None:
    vae = Squared((3,), 1, encoder=pv.MLP(hidden=(6,)))
    assert type(vae.replace(prior=pv.Laplace(0, 1))) is Squared
    with pytest.raises(pv.InputError, match="Preset is not built by the arguments of VAE"):
        Preset(6).replace(prior=pv.Laplace(0, 1))
