"""The VAE as an object: shapes and contracts of its programs and distributions, its roles, its copies."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.cases import HeadedNetwork, same
from helpers.oracles import PPCA, linear
from pyro import poutine
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.families import Family

SMALL = pv.MLP(hidden=(6,), activation="tanh")
EVENTS = [(), (3,), (1, 5, 7)]


def small(event: tuple[int, ...] = (3,), **arguments: Any) -> pv.VAE:
    return pv.VAE(event, 2, **{"encoder": SMALL, **arguments})


# Shapes


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_programs_and_distributions_have_the_shapes_they_promise(event: tuple[int, ...]) -> None:
    vae, x = small(event), torch.randn(4, *event)
    assert (vae.prior().batch_shape, vae.prior().event_shape) == ((), (2,))
    for batch in [(), (4,), (7, 4), (2, 7, 4)]:
        posterior, likelihood = vae.encode(torch.randn((*batch, *event))), vae.decode(torch.randn(*batch, 2))
        assert (posterior.batch_shape, posterior.event_shape) == (batch, (2,))
        assert (likelihood.batch_shape, likelihood.event_shape) == (batch, event)
    assert vae.model().shape == (1, *event)
    assert vae.model(rows=5).shape == vae.sample(5).shape == vae.sample(5, mean=True).shape == (5, *event)
    assert vae.model(x) is x
    assert vae.guide(x).shape == (4, 2)
    assert vae.reconstruct(x).shape == vae.reconstruct(x, mean=True).shape == (4, *event)


@pytest.mark.parametrize(
    ("event", "encoder", "decoder"),
    [
        ((3,), pv.MLP(), pv.MLP()),
        ((), pv.MLP(), pv.MLP()),
        ((1, 5, 7), pv.Conv(), pv.Conv()),
    ],
    ids=str,
)
def test_networks_follow_from_the_data_by_default(event: tuple[int, ...], encoder: Any, decoder: Any) -> None:
    declared = pv.VAE(event, 2).declaration
    assert (declared.encoder, declared.decoder) == (encoder, decoder)


def test_decoder_is_the_encoders_mirror_unless_given() -> None:
    assert small(encoder=pv.MLP(hidden=(8, 4))).declaration.decoder == pv.MLP(hidden=(4, 8))
    assert small(encoder=pv.MLP(hidden=(8, 4)), decoder=pv.MLP()).declaration.decoder == pv.MLP()


# Draws and means


def test_sample_is_a_draw_from_the_likelihood_at_a_draw_from_the_prior() -> None:
    vae = small()
    torch.manual_seed(1)
    likelihood = vae.decode(vae.prior().sample((5,)))
    draws = likelihood.sample()
    torch.manual_seed(1)
    assert torch.equal(vae.sample(5), draws)
    torch.manual_seed(1)
    assert torch.equal(vae.sample(5, mean=True), likelihood.mean)
    assert not vae.sample(5).requires_grad


def test_reconstruction_is_a_draw_from_the_likelihood_at_a_draw_from_the_guide() -> None:
    vae, x = small(), torch.randn(5, 3)
    torch.manual_seed(1)
    likelihood = vae.decode(vae.encode(x).sample())
    draws = likelihood.sample()
    torch.manual_seed(1)
    assert torch.equal(vae.reconstruct(x), draws)
    torch.manual_seed(1)
    assert torch.equal(vae.reconstruct(x, mean=True), likelihood.mean)
    assert not vae.reconstruct(x).requires_grad


@pytest.mark.parametrize("program", ["sample", "model", "reconstruct"])
def test_draws_of_the_exact_model_have_its_mean_and_covariance(program: str) -> None:
    model, n = PPCA.random(3, 2), 20_000
    vae, marginal = model.put_into(linear(3, 2)), model.marginal()
    draw: dict[str, Callable[[], Tensor]] = {
        "sample": lambda: vae.sample(n),
        "model": lambda: vae.model(rows=n),
        "reconstruct": lambda: vae.reconstruct(marginal.sample((n,))),  # z | x of x ~ p(x) is z ~ p(z)
    }
    x = draw[program]().detach()
    exact, variances = marginal.covariance_matrix, marginal.variance
    error = ((variances[:, None] * variances + exact**2) / n).sqrt()
    assert ((x.mean(0) - model.mu).abs() < 4 * (variances / n).sqrt()).all()
    assert ((torch.cov(x.T) - exact).abs() < 4 * error).all()


@pytest.mark.parametrize(
    ("likelihood", "event"),
    [(pv.Categorical(classes=3), (3,)), (pv.StudentT(df=1), (3,)), (pv.StudentT(df=0.7), (1, 5, 7))],
    ids=str,
)
def test_family_without_a_mean_says_so(likelihood: Family, event: tuple[int, ...]) -> None:
    vae = small(event, likelihood=likelihood)
    sentence = f"^{type(likelihood).__name__} has no mean"
    with pytest.raises(pv.InputError, match=sentence):
        vae.sample(3, mean=True)
    with pytest.raises(pv.InputError, match=sentence):
        vae.reconstruct(torch.zeros(3, *event), mean=True)
    assert vae.sample(3).isfinite().all()


@pytest.mark.parametrize(
    ("likelihood", "mean"),
    [
        (pv.StudentT(df=3), lambda likelihood: likelihood.loc),
        (pv.Laplace(), lambda likelihood: likelihood.loc),
        (pv.Bernoulli(), lambda likelihood: likelihood.logits.sigmoid()),
    ],
    ids=["StudentT", "Laplace", "Bernoulli"],
)
def test_family_with_a_mean_gives_it(likelihood: Family, mean: Callable[[Any], Tensor]) -> None:
    vae = small(likelihood=likelihood)
    torch.manual_seed(1)
    z = vae.prior().sample((5,))
    torch.manual_seed(1)
    torch.testing.assert_close(vae.sample(5, mean=True), mean(vae.decode(z).base_dist).detach())


# Starting values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_initialize_starts_a_network_that_says_nothing_at_the_datas_moments(dtype: torch.dtype) -> None:
    x = (3 + 2 * torch.randn(50, 3)).to(dtype)
    decoder = HeadedNetwork({"loc": torch.zeros(3, dtype=dtype)})
    vae = small(decoder=decoder).to(dtype)
    likelihood = vae.initialize(x).decode(torch.randn(4, 2, dtype=dtype)).base_dist
    torch.testing.assert_close(likelihood.loc.detach(), x.mean(0).expand(4, 3))
    torch.testing.assert_close(likelihood.scale.detach(), x.std(0, correction=0).mean().expand(4, 3))


def test_initialize_happens_once_and_fit_does_it() -> None:
    vae, x = small(decoder=HeadedNetwork({"loc": torch.zeros(3)})), 3 + 2 * torch.randn(50, 3)
    pv.fit(vae, x, optimizer=pv.SGD(1e-9), epochs=1, progress=False)
    torch.testing.assert_close(vae.decode(torch.zeros(2)).base_dist.loc.detach(), x.mean(0), rtol=0, atol=1e-5)
    before = copy.deepcopy(vae.state_dict())
    assert same(vae.initialize(100 * x).state_dict(), before)
    assert vae.initialize(x) is vae


@pytest.mark.parametrize(
    "x", [torch.zeros(0, 3), torch.zeros(5, 4), torch.full((5, 3), torch.nan)], ids=["empty", "shape", "nan"]
)
def test_initialize_refuses_wrong_rows_and_changes_nothing(x: Tensor) -> None:
    vae = small()
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(pv.InputError):
        vae.initialize(x)
    assert same(vae.state_dict(), before)


# Replacing a word


def initialized() -> pv.VAE:
    return small().initialize(torch.randn(20, 3))


CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {  # what is changed, and weights that have to be kept
    "nothing": ({}, ["posterior.", "likelihood."]),
    "likelihood": (
        {"likelihood": pv.Laplace()},
        ["posterior.", "likelihood.network.heads.loc", "likelihood.offset_loc"],
    ),
    "noise": ({"likelihood": pv.Normal(scale=0.1)}, ["posterior.", "likelihood.network"]),
    "prior": ({"prior": pv.Laplace()}, ["posterior.", "likelihood."]),
    "guide": (
        {"guide": pv.MultivariateNormal()},
        ["posterior.network.body", "posterior.network.heads.loc", "likelihood."],
    ),
    "latents": ({"latent_dim": 3}, ["posterior.network.body", "likelihood.network.heads", "likelihood.offset_loc"]),
    "data": ({"event_shape": (4,)}, ["posterior.network.heads", "likelihood.network.body"]),
    "encoder": ({"encoder": pv.MLP(hidden=(5,))}, ["likelihood.constants", "likelihood.offset_loc"]),
}


@pytest.mark.parametrize("word", CHANGES)
def test_replace_keeps_the_weights_that_fit_and_shares_none(word: str) -> None:
    changes, kept = CHANGES[word]
    vae = initialized()
    other = vae.replace(**changes)
    for name, value in changes.items():
        assert getattr(other.declaration, name) == value != getattr(vae.declaration, name)
    mine, theirs = vae.state_dict(), other.state_dict()
    theirs = {name: value for name, value in theirs.items() if not name.endswith("initialized")}
    fitting = {name for name, value in theirs.items() if name in mine and mine[name].shape == value.shape}
    assert all(torch.equal(theirs[name], mine[name]) for name in fitting)
    assert all(any(name.startswith(part) for name in fitting) for part in kept)
    assert not {value.data_ptr() for value in mine.values()} & {value.data_ptr() for value in theirs.values()}
    assert other.store_name != vae.store_name


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"likelihood": pv.Laplace()}, {"posterior", "likelihood"}),
        ({"event_shape": (4,)}, {"prior", "posterior", "likelihood"}),
        ({"prior": pv.Laplace()}, {"prior"}),
        ({"guide": pv.Laplace()}, set()),
        ({"encoder": pv.MLP(hidden=(5,))}, {"posterior"}),
    ],
    ids=["likelihood", "data", "prior", "guide", "encoder"],
)
def test_replace_starts_what_was_changed_at_the_data_again(changes: dict[str, Any], again: set[str]) -> None:
    other = initialized().replace(**changes)
    before = copy.deepcopy(other.state_dict())
    other.initialize(torch.randn(20, *other.declaration.event_shape) + 7)
    changed = {name.split(".")[0] for name, value in other.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == again


def test_replace_mirrors_a_changed_encoder_and_copies_a_network_of_ones_own() -> None:
    assert small().replace(encoder=pv.MLP(hidden=(8, 4))).declaration.decoder == pv.MLP(hidden=(4, 8))
    own = nn.Linear(2, 3)
    vae = small(decoder=own)
    other = vae.replace(prior=pv.Normal())
    with torch.no_grad():
        own.weight.add_(1.0)
    z = torch.randn(4, 2)
    assert not torch.equal(vae.decode(z).base_dist.loc, other.decode(z).base_dist.loc)


def test_replace_keeps_the_precision() -> None:
    other = small().double().replace(likelihood=pv.Laplace())
    assert {value.dtype for value in other.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"likelyhood": pv.Laplace()}, "VAE has no argument 'likelyhood'; it has event_shape, latent_dim, prior"),
        ({"guide": pv.Bernoulli()}, "has support {0, 1}"),
    ],
    ids=["misspelt", "no vae"],
)
def test_replace_refuses_what_makes_no_vae(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        small().replace(**changes)


# Copies, and names in Pyro's store

COPIES: dict[str, Callable[[pv.VAE], pv.VAE]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda vae: pickle.loads(pickle.dumps(vae)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copy_is_equal_and_has_its_own_weights_and_name(how: str) -> None:
    vae, x = initialized(), torch.randn(4, 3)
    other = COPIES[how](vae)
    assert same(vae.state_dict(), other.state_dict())
    assert other.declaration == vae.declaration
    assert torch.equal(other.encode(x).base_dist.loc, vae.encode(x).base_dist.loc)
    assert not {w.data_ptr() for w in vae.parameters()} & {w.data_ptr() for w in other.parameters()}
    assert len({vae.store_name, other.store_name, small().store_name}) == 3


def test_outside_of_the_store_nothing_is_registered_also_after_an_error() -> None:
    vae, x = small(), torch.randn(4, 3)

    def registered() -> set[str]:
        trace = poutine.trace(lambda: (vae.model(x), vae.guide(x)), param_only=True).get_trace()
        return {name for name, site in trace.nodes.items() if site["type"] == "param"}

    inside = registered()
    assert {name.split("$$$")[0] for name in inside} == {
        f"{vae.store_name}.{part}" for part in ("posterior", "likelihood")
    }
    with pytest.raises(ZeroDivisionError), vae.no_param_store():
        len(outside := registered()) / 0
    assert outside == set()
    assert registered() == inside


# Roles that make no sense


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prior": pv.Bernoulli()}, r"support the real numbers and prior=.* has {0, 1}.*Take a pair over the same set"),
    ({"guide": pv.Bernoulli()}, r"has support {0, 1} and prior=.* has the real numbers"),
    ({"prior": pv.Categorical(3), "guide": pv.Categorical(4)}, "has support the integers"),
    ({"likelihood": pv.Normal(0, 1)}, "nothing would depend on z: leave loc out"),
    ({"likelihood": pv.Laplace("learned", "per_feature")}, "nothing would depend on z"),
    ({"guide": pv.Normal(0, "per_feature")}, "nothing would depend on x"),
    ({"event_shape": (1, 5, 7), "likelihood": pv.MultivariateNormal()}, "events of rank 1, and .* has rank 3"),
    ({"event_shape": (), "likelihood": pv.MultivariateNormal()}, "has rank 0"),
    ({"likelihood": pv.Normal(scale=[1, 2])}, r"shape \(2,\), which does not broadcast"),
    ({"prior": pv.Normal([0, 0, 0], 1)}, "does not broadcast"),
    ({"prior": "Normal"}, "prior = 'Normal' is not a family: write prior=pv.Normal"),
    ({"guide": pv.Normal}, "is not a family"),
    ({"encoder": nn.Linear(3, 4)}, "an encoder of your own has no mirror"),
    ({"encoder": nn.Linear(3, 4), "decoder": SMALL}, "your network returns 1 tensor; it has to return"),
    ({"encoder": nn.Linear(4, 4), "decoder": SMALL}, "your network fails on rows of shape"),
    ({"decoder": nn.Linear(2, 5)}, r"your network returns loc of shape \(2, 5\)"),
    ({"decoder": "MLP"}, r"is not a network: write decoder=pv.MLP\(\)"),
    ({"encoder": pv.Conv()}, "Conv maps images"),
    ({"event_shape": 3}, "event_shape = 3 has to be a tuple"),
    ({"event_shape": None}, "event_shape = None has to be a tuple"),
    ({"event_shape": "3"}, "event_shape = '3' has to be a tuple"),
    ({"event_shape": (3, 0)}, "has to be a tuple of positive integers"),
    ({"latent_dim": 0}, "latent_dim = 0 has to be an integer of at least 1"),
    ({"latent_dim": 2.0}, "latent_dim = 2.0 has to be"),
    ({"latent_dim": True}, "latent_dim = True has to be"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_wrong_roles_are_refused_when_the_model_is_built(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(pv.InputError, match=sentence):
        pv.VAE(**{"event_shape": (3,), "latent_dim": 2, **arguments})


USES: dict[str, Callable[[pv.VAE, dict[str, Tensor]], Any]] = {
    "model": lambda vae, batch: vae.model(**batch),
    "guide": lambda vae, batch: vae.guide(**batch),
    "check": lambda vae, batch: vae.check(batch),
    "fit": lambda vae, batch: pv.fit(vae, batch, progress=False),
}


@pytest.mark.parametrize("use", USES)
def test_tensors_that_the_model_does_not_take_are_refused(use: str) -> None:
    batch = {"x": torch.randn(4, 3), "mask": torch.ones(4, 3) > 0, "maks": torch.ones(4)}
    with pytest.raises(pv.InputError, match="unknown tensor of the batch 'maks': did you mean 'mask'"):
        USES[use](small(), batch)


@pytest.mark.parametrize("n", [0, -1])
def test_sample_refuses_zero_rows(n: int) -> None:
    with pytest.raises(pv.InputError, match=r"n = .* at least 1"):
        small().sample(n)
