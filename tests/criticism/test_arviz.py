"""What checks return is what ArviZ takes: its pictures and numbers work on it as it is, and NetCDF keeps it."""

import json
import warnings
from pathlib import Path
from typing import Any

import arviz_plots
import arviz_stats
import matplotlib.pyplot
import numpy as np
import pytest
import torch
import xarray as xr
from helpers.exact_models import estimate, exact, rows
from torch import Tensor

import pyro_vae as pv
from pyro_vae.criticism.datatree import read, save
from pyro_vae.plots._run_figures import predictive_pictures

EVENTS = {"number": (), "one": (1,), "four": (4,), "forty": (40,), "image": (1, 6, 5), "colours": (3, 6, 5)}
SOME_EVENTS = [
    pytest.param(event, id=name, marks=() if name in ("one", "image") else pytest.mark.slow)
    for name, event in EVENTS.items()
]
KINDS = {"real": pv.Normal(), "count": pv.Poisson(), "binary": pv.Bernoulli()}
PICTURES = {
    "dist": (arviz_plots.plot_ppc_dist, {"real"}),
    "tstat": (arviz_plots.plot_ppc_tstat, {"real", "count", "binary"}),
    "pit": (arviz_plots.plot_ppc_pit, {"real", "count"}),
    "interval": (arviz_plots.plot_ppc_interval, {"real", "count", "binary"}),
    "rootogram": (arviz_plots.plot_ppc_rootogram, {"count"}),
    "pava": (arviz_plots.plot_ppc_pava, {"binary"}),
}
"""ArviZ's pictures, and the data that each is made for."""


def data(kind: str, event: tuple[int, ...], n: int = 60) -> Tensor:
    x = torch.randn(n, *event)
    return {"real": x, "count": torch.poisson(x.exp()), "binary": (x > 0).float()}[kind]


def checked(data_kind: str, event: tuple[int, ...], **options: Any) -> xr.DataTree:
    vae = pv.VAE(event, 2, likelihood=KINDS[data_kind], encoder=pv.MLP(hidden=(4,)))
    given = {"draws": 12, "keep": 10, "two_sample": False, "progress": False, **options}
    return pv.predictive_check(vae.initialize(data(data_kind, event)), data(data_kind, event), **given)


@pytest.mark.parametrize("event", SOME_EVENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_take_the_tree_as_it_is(kind: str, event: tuple[int, ...]) -> None:
    tree = checked(kind, event)
    names = list(tree["observed_data"].data_vars)[-1:]
    for plot, made_for in PICTURES.values():
        if kind in made_for:
            with warnings.catch_warnings():  # ArviZ's own, of xarray and of what suits binary data
                warnings.simplefilter("ignore")
                plot(tree, var_names=names, backend="matplotlib")
            matplotlib.pyplot.close("all")


@pytest.mark.parametrize("event", SOME_EVENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_netcdf_keeps_all(kind: str, event: tuple[int, ...], tmp_path: Path) -> None:
    tree = checked(kind, event)
    again = read(save(tree, tmp_path / "check.nc"))
    xr.testing.assert_identical(tree, again)
    assert again.attrs == tree.attrs
    for group in tree.children.values():
        for name, variable in group.variables.items():
            assert again[group.name][name].dtype == variable.dtype


@pytest.mark.parametrize("kind", KINDS)
def test_groups_dims_and_types(kind: str) -> None:
    tree = checked(kind, (4,))
    drawn = tree["posterior_predictive"]
    assert dict(drawn.sizes) == {"chain": 1, "draw": 10, "row": 10}
    for group in (drawn, tree["observed_data"]):
        assert {variable.dtype.kind for variable in group.data_vars.values()} == {"f" if kind == "real" else "i"}
    assert all(isinstance(value, str) for value in tree.attrs.values())
    assert json.loads(tree.attrs["event_shape"]) == [4]
    assert "posterior_predictive" not in checked(kind, (4,), kind="prior").children
    assert "prior_predictive" in checked(kind, (4,), kind="prior").children


def test_observed_and_replicated_elements_belong_together() -> None:
    x = torch.arange(60.0).reshape(2, 1, 6, 5)
    vae = pv.VAE((1, 6, 5), 2, likelihood=pv.Normal(scale=0.1), encoder=pv.MLP(hidden=(4,))).initialize(x)
    tree = pv.predictive_check(vae, x, draws=3, two_sample=False)
    flat = tree["observed_data"]
    where = (flat["row"] == 1) & (flat["height"] == 2) & (flat["width"] == 3)
    assert float(flat["x"][where].item()) == 30 + 2 * 5 + 3
    assert tree["posterior_predictive"]["x"].sizes["element"] == 60


def test_features_have_the_names_of_a_tables_columns(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=["row", "km/h", "b c"])
    vae = pv.VAE((3,), 1, likelihood=pv.Normal(), encoder=pv.MLP(hidden=(4,)))
    pv.fit(vae, frame, epochs=1, progress=False)
    tree = pv.predictive_check(vae, frame, draws=5, two_sample=False)
    assert list(tree["observed_data"].data_vars) == ["row_", "km|h", "b c"]
    assert list(tree["calibration"]["feature"].values) == ["row", "km/h", "b c"]
    save(tree, tmp_path / "t.nc")
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert pv.data.load(tmp_path / "t.csv", validation=0.5).train.features == ("row", "km/h", "b c")


def test_numbers_of_the_statistics_can_be_summarised() -> None:
    tree = checked("real", (4,))
    table = arviz_stats.summary(tree, group="statistics", var_names=["replicated"], kind="stats")
    assert len(table) == tree["statistics"].sizes["statistic"]


# Evidence as ELPD


def test_evidence_is_compared_by_arviz() -> None:
    x = rows(300)
    good, bad = exact(), exact().replace(likelihood=pv.Normal(scale=5.0))
    found = {"good": estimate(good, x, draws=200), "bad": estimate(bad, x, draws=200)}
    with warnings.catch_warnings():  # pandas of arviz_stats
        warnings.simplefilter("ignore")
        table = arviz_stats.compare({name: each.to_elpd() for name, each in found.items()})
    assert list(table.index) == ["good", "bad"]
    difference = found["good"].pointwise - found["bad"].pointwise
    column = "elpd_diff" if "elpd_diff" in table else "elpd_difference"
    assert abs(abs(float(table.loc["bad", column])) - float(difference.sum())) <= 0.5  # it rounds
    arviz_plots.plot_khat(found["good"].to_elpd(), backend="matplotlib")
    matplotlib.pyplot.close("all")


def test_loo_on_replicates_says_that_they_hold_no_likelihood() -> None:
    with pytest.raises(TypeError, match="log likelihood not found"):
        arviz_stats.loo(checked("real", (4,)))


NAMES = [("a/b", "a|b", "row"), ("row", "row_", "x"), ("", "1", "1"), ("cost $^", "US$ $_", r"$\foo$")]


@pytest.mark.parametrize(
    "names", [*NAMES[:2], *(pytest.param(one, marks=pytest.mark.slow) for one in NAMES[2:])], ids=str
)
def test_columns_may_have_any_names(names: tuple[str, ...], tmp_path: Path) -> None:
    x = pv.data.Rows({"x": torch.randn(60, 3)}, features=names)
    vae = pv.VAE((3,), 1, encoder=pv.MLP(hidden=(4,))).initialize(x.x)
    tree = pv.predictive_check(vae, x, draws=10)
    assert len(tree["observed_data"].data_vars) == 3
    xr.testing.assert_identical(tree, read(save(tree, tmp_path / "check.nc")))
    for picture in predictive_pictures(tree).values():
        picture.savefig(tmp_path / "picture.png")
