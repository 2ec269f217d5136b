"""Swapping a word: every pair that makes sense trains, in either precision, with any network."""

import copy
import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
import torch
from helpers.cases import FAMILIES, seeded
from helpers.family_pairs import (
    GUIDE_PAIRS,
    GUIDES,
    LIKELIHOODS,
    PAIR_OF_EACH_GUIDE,
    PRIORS,
    SMALL_MLP,
    guide_for,
    rows_for,
    small_vae,
)
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.distributions.constraints import supports_equal
from pyro_vae.families import FAMILIES as FAMILY_TABLE, Family

FIT = {"epochs": 3, "batch_size": 50, "optimizer": pv.Adam(2e-2), "progress": False}


@torch.no_grad()
def bound(vae: pv.VAE, x: Tensor) -> float:
    """The ELBO per row by 100 draws, the same random numbers every time."""
    objective = pv.objectives.ELBO(particles=100)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return float(objective.bound(objective.draw(vae.model, vae.guide, x=x)).mean())


@torch.no_grad()
def spoiled(vae: pv.VAE) -> pv.VAE:
    """The model with noise on every weight, for one that starts from data may have nothing left to learn."""
    for weight in vae.parameters():
        weight += 0.5 * torch.randn(weight.shape, generator=seeded()).to(weight)
    return vae


def trains(vae: pv.VAE, x: Tensor) -> None:
    x = x.to(vae.likelihood.device_tensor)
    first = bound(spoiled(vae.initialize(x)), x)
    before = copy.deepcopy(vae.state_dict())
    pv.fit(vae, x, **FIT)
    assert bound(vae, x) > first + 0.01
    for name, weight in vae.named_parameters():
        assert weight.isfinite().all()
        assert not torch.equal(weight, before[name]), f"{name} did not move"


def each_once(first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs in which everything occurs."""
    first, second = list(first), list(second)
    count = max(len(first), len(second))
    return [(first[i % len(first)], second[i % len(second)]) for i in range(count)]


def rarely(all_pairs: Iterable[tuple[str, str]], often: Collection[tuple[str, str]]) -> list[Any]:
    """All pairs, slow but for some."""
    return [pytest.param(*pair, marks=[] if pair in often else pytest.mark.slow) for pair in all_pairs]


OFTEN = each_once(PRIORS, LIKELIHOODS)


@pytest.mark.parametrize(("prior", "likelihood"), rarely(itertools.product(PRIORS, LIKELIHOODS), OFTEN))
def test_every_prior_trains_with_every_likelihood(prior: str, likelihood: str) -> None:
    chosen = {"prior": prior, "likelihood": likelihood, "guide": guide_for(prior)}
    trains(small_vae(**{role: FAMILIES[name].family for role, name in chosen.items()}), rows_for(likelihood))


@pytest.mark.parametrize(("prior", "guide"), rarely(GUIDE_PAIRS, PAIR_OF_EACH_GUIDE))
def test_every_guide_trains_with_every_prior_of_its_support(prior: str, guide: str) -> None:
    trains(small_vae(prior=FAMILIES[prior].family, guide=FAMILIES[guide].family), rows_for("Normal"))


@pytest.mark.parametrize("prior", [prior for prior in PRIORS if prior != "VampPrior"])  # whose support is the guide's
def test_guides_of_another_support_are_refused(prior: str) -> None:
    for guide in GUIDES:
        if not supports_equal(PRIORS[prior], GUIDES[guide]):
            with pytest.raises(pv.InputError, match="Take a pair over the same set"):
                small_vae(prior=FAMILIES[prior].family, guide=FAMILIES[guide].family)


def test_every_family_has_a_role_in_these_pairs() -> None:
    assert {*PRIORS, *GUIDES, *LIKELIHOODS} == set(FAMILY_TABLE)
    assert len(GUIDES) >= 4


@pytest.mark.parametrize("name", ["Normal", "Bernoulli", "Categorical"])
def test_images_train_through_convolutions(name: str) -> None:
    conv = pv.Conv(channels=(4,), hidden=8)
    trains(small_vae((1, 5, 7), likelihood=FAMILIES[name].family, encoder=conv), rows_for(name, (1, 5, 7)))


class OwnEncoder(nn.Module):
    """A user's network with two outputs, as a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.loc, self.scale = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.loc(h), self.scale(h)


class OwnDecoder(nn.Module):
    """A user's network whose outputs are named."""

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.scale = nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        return {"scale": self.scale(z), "loc": self.loc(z), "unused": z}


@pytest.mark.filterwarnings("ignore:training ended at:UserWarning")  # of six steps
@pytest.mark.parametrize(
    ("encoder", "decoder", "likelihood"),
    [
        (OwnEncoder, OwnDecoder, pv.Normal()),
        (OwnEncoder, lambda: nn.Linear(2, 3), pv.Normal(scale="learned")),
        (lambda: SMALL_MLP, OwnDecoder, pv.Laplace()),
    ],
    ids=["tuple and dict", "tuple and tensor", "declared and dict"],
)
def test_networks_of_ones_own_train(encoder: Callable, decoder: Callable, likelihood: Family) -> None:
    trains(small_vae(encoder=encoder(), decoder=decoder(), likelihood=likelihood), rows_for("Normal"))


# Precision


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_model_in_double_precision_is_so_throughout(likelihood: str) -> None:
    vae, x = small_vae(likelihood=FAMILIES[likelihood].family).double(), rows_for(likelihood).float()
    history = pv.fit(vae, x, validation=x, **FIT)
    assert history["loss"][-1] < history["loss"][0]
    tensors = [w for w in vae.state_dict().values() if w.is_floating_point()]
    draws = [draw for draw in (vae.sample(2), vae.reconstruct(x.double())) if draw.is_floating_point()]  # or labels
    outputs = [vae.guide(x.double()), vae.decode(vae.prior().sample((2,))).log_prob(vae.sample(2))]
    assert {tensor.dtype for tensor in [*tensors, *draws, *outputs]} == {torch.float64}
