"""Means, variances and cdfs: they agree with draws, and say how they were come by."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import cases
from helpers.cases import Place
from torch import Tensor

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.distributions import moments
from pyro_vae.families import FAMILIES, Family

COUNT = 20_000
NONE = {"Cauchy", "Categorical", "OrderedLogistic"}
"""Families without a mean: tails too heavy, and labels."""


def random_prior(name: str) -> tuple[Any, Tensor]:
    """A family with random fixed parameters, and a datum of its support."""
    case = cases.FAMILIES[name]
    with cases.in_float64():
        distribution = Place("prior", (3,)).build(case.fixed((3,), cases.seeded())[0])()
    return distribution, case.data(1, (3,), cases.seeded())[0]


def of_draws(statistic: Callable[[Tensor], Tensor], draws: Tensor) -> tuple[Tensor, Tensor]:
    """A statistic of draws and its standard error, from 50 groups of them."""
    return statistic(draws), torch.stack([statistic(group) for group in draws.chunk(50)]).std(0) / 50**0.5


def agrees(estimate: moments.Estimate, statistic: Callable[[Tensor], Tensor], draws: Tensor) -> None:
    """Both agree within five standard errors, and the sentence says what was done."""
    expected, error = of_draws(statistic, draws)
    assert estimate.value.shape == estimate.error.shape == expected.shape
    assert estimate.value.dtype == torch.float64
    gap = (estimate.value - expected).abs()
    rare = 5 / COUNT  # of what no draw showed
    assert bool((gap <= 5 * torch.hypot(error, estimate.error) + rare * (estimate.quantity == "cdf") + 1e-9).all()), gap
    if estimate.draws:
        assert estimate.draws == COUNT
        assert 1 / 3 < float(estimate.error.max() / error.max()) < 3
        error_text = f"{float(estimate.error.max()):.2g}"
        assert estimate.how == f"{estimate.quantity} by 20,000 draws, standard error at most {error_text}"
    else:
        assert not estimate.error.any()
        assert estimate.how == f"{estimate.quantity} in closed form"


def direction(draws: Tensor) -> Tensor:
    return torch.atan2(draws.sin().mean(0), draws.cos().mean(0))


@cases.over_families()
def test_moments_agree_with_draws_or_are_refused(name: str) -> None:
    distribution, _ = random_prior(name)
    draws = distribution.sample((COUNT,))
    circle = name == "VonMises"  # its mean is a direction
    for function, statistic in (
        (moments.mean, direction if circle else lambda x: x.mean(0)),
        (moments.variance, lambda x: x.var(0)),
    ):
        if name in NONE:
            with pytest.raises(pv.InputError, match=rf"has no {function.__name__} .* labels, or"):
                function(distribution, COUNT)
        else:
            agrees(function(distribution, COUNT), statistic, draws)


@cases.over_families()
def test_cdf_agrees_with_the_share_of_draws(name: str) -> None:
    distribution, x = random_prior(name)
    agrees(
        moments.cdf(distribution, x, COUNT), lambda draws: (draws <= x).double().mean(0), distribution.sample((COUNT,))
    )


def test_table_has_both_kinds() -> None:
    """Otherwise the laws above would hold of one branch alone."""
    by_draws = {name for name in set(FAMILIES) - NONE if moments.mean(random_prior(name)[0], 10).draws}
    assert {"Flow", "Transformed"} <= by_draws
    assert {"Normal", "Mixture", "ZeroInflated"}.isdisjoint(by_draws)


@pytest.mark.parametrize(
    ("family", "function"),
    [
        (pv.StudentT(1, 0, 1), moments.mean),
        (pv.StudentT(1.5, 0, 1), moments.variance),
        (pv.Cauchy(0, 1), moments.variance),
        (pv.Mixture(pv.Cauchy(0, 1), components=2), moments.mean),
        (pv.Scaled(pv.Cauchy(0, 1), scale=2), moments.mean),
        (pv.Transformed(pv.Cauchy(0, 100), "exp"), moments.mean),
        (pv.Mixture(pv.Categorical(3), components=2), moments.mean),
    ],
    ids=lambda value: repr(value) if isinstance(value, Family) else value.__name__,
)
def test_moments_that_do_not_exist_are_refused(family: Family, function: Callable[[Any], Any]) -> None:
    with pytest.raises(pv.InputError, match=rf"no {function.__name__} .*mean=False"):
        function(Place("prior", (2,)).build(family)())


def test_heavy_tail_that_has_a_mean_keeps_it() -> None:
    assert moments.mean(Place("prior", (2,)).build(pv.StudentT(1.5, 3, 1))()).value.tolist() == [3, 3]


@pytest.mark.parametrize("family", [pv.Normal(), pv.Transformed(pv.Normal(), "exp")], ids=["closed", "by draws"])
def test_moments_have_the_batch_shape_and_no_gradient(family: Family) -> None:
    likelihood = Place("likelihood", (3,), (2,)).build(family)(torch.randn(5, 4, 2))
    estimates = [moments.mean(likelihood), moments.variance(likelihood), moments.cdf(likelihood, torch.tensor(1.0), 9)]
    for estimate in estimates:
        assert estimate.value.shape == estimate.error.shape == (5, 4, 3)
        assert not estimate.value.requires_grad
    assert moments.mean(likelihood).draws in (0, moments.DRAWS)


MEANT = {
    "closed": (pv.Normal(scale="learned"), "Mean in closed form.\n"),
    "by draws": (pv.Transformed(pv.Normal(scale="learned"), "exp"), "Mean by 1,000 draws, standard error at most 0."),
}


@pytest.mark.parametrize(("family", "sentence"), MEANT.values(), ids=MEANT)
def test_model_and_the_command_line_give_these_means(
    family: Family,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x = torch.rand(20, 3, generator=cases.seeded()) + 0.5
    vae = pv.VAE((3,), 2, likelihood=family, encoder=pv.MLP(hidden=(4,)))
    monkeypatch.setattr("pyro_vae.plots._run_figures.write", lambda *arguments: None)
    pv.fit(vae, x, epochs=1, progress=False, run=tmp_path / "run")
    for make, given, latents in (
        (vae.sample, 5, lambda: vae.prior().sample((5,))),
        (vae.reconstruct, x, lambda: vae.encode(x).sample()),
    ):
        torch.manual_seed(3)
        value = make(given, mean=True)
        torch.manual_seed(3)
        assert torch.equal(value, moments.mean(vae.decode(latents())).value)
        torch.manual_seed(3)
        assert not torch.equal(value, make(given))
    (tmp_path / "x.csv").write_text("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in x.tolist()))
    run = str(tmp_path / "run")
    capsys.readouterr()
    for verb in (["sample", run], ["reconstruct", run, "--data", str(tmp_path / "x.csv")]):
        main([*verb, "--mean", "true"])
        assert sentence in capsys.readouterr().out
        main([*verb, "--overwrite", "true"])
        assert "Mean" not in capsys.readouterr().out


def test_model_without_a_mean_refuses_it() -> None:
    vae = pv.VAE((3,), 2, likelihood=pv.StudentT(1), encoder=pv.MLP(hidden=(4,)))
    with pytest.raises(pv.InputError, match="has no mean"):
        vae.sample(2, mean=True)
    assert math.isfinite(float(vae.sample(2).sum()))
