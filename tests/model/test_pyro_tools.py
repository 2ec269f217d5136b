"""Pyro's own tools run on the two programs as they are, and fitting leaves Pyro as it was."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from helpers.oracles import PPCA, linear
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

import pyro_vae as pv


def small(**arguments: Any) -> pv.VAE:
    return pv.VAE((3,), 2, encoder=pv.MLP(hidden=(6,), activation="tanh"), **arguments)


def rows(n: int = 60) -> Tensor:
    return PPCA.random(3, 2).marginal().sample((n,)).float()


# Stochastic variational inference

LOSSES: dict[str, Callable[[], Any]] = {
    "Trace_ELBO": Trace_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "RenyiELBO, vectorised": lambda: RenyiELBO(alpha=0.5, num_particles=4, vectorize_particles=True),
    "Trace_ELBO, vectorised": lambda: Trace_ELBO(num_particles=4, vectorize_particles=True),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_svi_trains(loss: str) -> None:
    vae, x = small().initialize(rows()), rows()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.02}), loss=LOSSES[loss]())
    losses = np.array([svi.step(x) for _ in range(60)]) / len(x)
    assert losses[-10:].mean() < losses[:10].mean() - 0.1


@pytest.mark.parametrize("second", [small, None], ids=["another", "a copy"])
def test_two_vaes_in_one_process_both_train(second: Callable[[], pv.VAE] | None) -> None:
    first, x = small(), rows()
    for vae in (first, second() if second else copy.deepcopy(first)):
        before = copy.deepcopy(dict(vae.named_parameters()))
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), loss=Trace_ELBO())
        svi.step(x)
        unmoved = [name for name, weight in vae.named_parameters() if torch.equal(weight, before[name])]
        assert unmoved == []


@pytest.mark.parametrize("enabled", [True, False], ids=["validation on", "validation off"])
def test_programs_work_whatever_pyro_validates(enabled: bool) -> None:
    losses = []
    with pyro.validation_enabled(enabled):
        vae, x = small().initialize(rows()), rows()
        for loss in (Trace_ELBO(), pv.objectives.ELBO()):
            pyro.set_rng_seed(1)
            losses.append(SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-9}), loss=loss).step(x))
        history = pv.fit(vae, x, epochs=3, batch_size=20, optimizer=pv.Adam(0.02), progress=False)
        assert torch.distributions.Distribution._validate_args == enabled
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert history["loss"][-1] < history["loss"][0]


# Predictive

PARALLEL = pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])


@PARALLEL
def test_predictive_draws_from_the_prior_predictive(parallel: bool) -> None:
    vae = small()
    drawn = Predictive(vae.model, num_samples=7, parallel=parallel)(rows=5)
    assert (drawn["z"].shape, drawn["x"].shape) == ((7, 5, 2), (7, 5, 3))
    assert len(drawn["z"].unique()) == drawn["z"].numel()
    assert len(drawn["x"].unique()) == drawn["x"].numel()


WAYS: dict[str, Callable[[pv.VAE, Tensor, int, bool], dict[str, Tensor]]] = {
    "given latents": lambda vae, x, draws, parallel: Predictive(
        vae.model, posterior_samples={"z": vae.encode(x).sample((draws,))}, parallel=parallel
    )(rows=len(x)),
    "given the guide": lambda vae, x, draws, parallel: Predictive(
        poutine.uncondition(vae.model), guide=vae.guide, num_samples=draws, parallel=parallel
    )(x),
}


@PARALLEL
@pytest.mark.parametrize("way", WAYS)
def test_predictive_replicates_rows_and_does_not_give_them_back(way: str, parallel: bool) -> None:
    vae, x = small(), rows(5)
    replicates = WAYS[way](vae, x, 7, parallel)["x"]
    assert replicates.shape == (7, 5, 3)
    assert len(replicates.unique()) == replicates.numel()
    assert not (replicates == x).any()


@pytest.mark.parametrize("way", WAYS)
def test_replicates_of_the_exact_model_have_the_exact_moments(way: str) -> None:
    model, draws = PPCA.random(3, 2), 20_000
    vae, x = model.put_into(linear(3, 2)), rows(4).double()
    replicates = WAYS[way](vae, x, draws, True)["x"]
    posterior = model.posterior(x)
    mean = posterior.mean @ model.w.T + model.mu
    covariance = model.w @ posterior.covariance_matrix[0] @ model.w.T + model.s2 * torch.eye(3)
    variance = covariance.diagonal()
    error = ((variance[:, None] * variance + covariance**2) / draws).sqrt()
    assert ((replicates.mean(0) - mean).abs() < 4.5 * (variance / draws).sqrt()).all()
    for row in replicates.unbind(1):
        assert ((torch.cov(row.T) - covariance).abs() < 4.5 * error).all()


# Markov chain Monte Carlo


@pytest.mark.slow  # a sampler's steps
def test_nuts_finds_the_exact_posterior_with_the_decoder_fixed() -> None:
    w = torch.tensor([[1.0, 0.8], [0.9, 1.0], [0.5, 0.7]], dtype=torch.float64)
    model = PPCA(w, torch.zeros(3).double(), torch.tensor(0.5).double())
    vae, x = model.put_into(linear(3, 2)), rows(3).double()
    before = copy.deepcopy(vae.state_dict())
    mcmc = MCMC(NUTS(vae.model, max_tree_depth=4), num_samples=250, warmup_steps=80, disable_progbar=True)
    mcmc.run(x)
    z, exact = mcmc.get_samples()["z"], model.posterior(x)
    effective = mcmc.diagnostics()["z"]["n_eff"]
    assert ((z.mean(0) - exact.mean).abs() < 4.5 * exact.stddev / effective.sqrt()).all()
    centred, covariance = z - exact.mean, exact.covariance_matrix[0]  # the same for every row
    found = torch.einsum("sni,snj->ij", centred, centred) / centred[..., 0].numel()
    variance = covariance.diagonal()
    error = ((variance[:, None] * variance + covariance**2) / (3 * effective.min())).sqrt()
    assert ((found - covariance).abs() < 4.5 * error).all()
    assert covariance[0, 1].abs() > 4.5 * error[0, 1]  # so that a posterior without correlation would fail
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


# Handlers


@pytest.mark.parametrize("observed", [True, False], ids=["given x", "drawing x"])
def test_model_is_a_plate_and_two_sites(observed: bool) -> None:
    vae, x = small(), rows(4)
    trace = poutine.trace(vae.model).get_trace(*([x] if observed else []), rows=4)
    trace.compute_log_prob()
    sites = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
    assert list(sites) == ["data", "z", "x"]
    for name, width, given in (("z", 2, False), ("x", 3, observed)):
        (frame,) = sites[name]["cond_indep_stack"]
        assert (frame.name, frame.dim, frame.size) == ("data", -1, 4)
        assert (sites[name]["fn"].batch_shape, sites[name]["fn"].event_shape) == ((4,), (width,))
        assert sites[name]["is_observed"] == given
        assert sites[name]["value"].shape == (4, width)
        assert sites[name]["log_prob"].shape == (4,)
    assert (trace.nodes["_RETURN"]["value"] is x) == observed


def test_guide_is_a_plate_and_one_site() -> None:
    vae, x = small(), rows(4)
    trace = poutine.trace(vae.guide).get_trace(x)
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample"] == ["data", "z"]
    assert (trace.nodes["z"]["fn"].batch_shape, trace.nodes["z"]["fn"].event_shape) == ((4,), (2,))
    assert trace.nodes["_RETURN"]["value"] is trace.nodes["z"]["value"]
    posterior = vae.encode(x)
    torch.testing.assert_close(
        trace.nodes["z"]["fn"].log_prob(trace.nodes["z"]["value"]), posterior.log_prob(trace.nodes["z"]["value"])
    )


def test_handlers_condition_and_replay_it() -> None:
    vae, z = small(), torch.randn(4, 2)
    conditioned = poutine.trace(poutine.condition(vae.model, data={"z": z})).get_trace(rows=4)
    assert conditioned.nodes["z"]["value"] is z
    guide = poutine.trace(vae.guide).get_trace(rows(4))
    replayed = poutine.trace(poutine.replay(vae.model, trace=guide)).get_trace(rows(4))
    assert replayed.nodes["z"]["value"] is guide.nodes["z"]["value"]


# What fitting leaves alone


def surroundings() -> dict[str, Any]:
    """Everything global that a fit could change."""
    store = pyro.get_param_store()
    name, numbers, *rest = np.random.get_state()  # noqa: NPY002 - it is the global state that is looked at
    return {
        "store": {key: value.detach().clone() for key, value in store.items()},
        "settings": pyro.settings.get(),
        "validation": torch.distributions.Distribution._validate_args,
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.tensor(numbers.astype(np.int64)), tuple(rest)),
        "python": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, tuple) and first and isinstance(first[1], Tensor):
        return all(equal(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


@pytest.mark.parametrize("validation", [True, False], ids=["validation on", "validation off"])
@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_fit_leaves_the_world_as_it_was(fails: bool, validation: bool, tmp_path: Any) -> None:
    vae, x = small(), rows()
    pyro.param("users", torch.ones(2))
    with pyro.validation_enabled(validation):
        before = surroundings()
        lr = 1e30 if fails else 1e-3
        arguments = {"validation": x, "epochs": 4, "batch_size": 25, "optimizer": pv.SGD(lr), "progress": False}
        if fails:
            with pytest.raises(FloatingPointError):
                pv.fit(vae, x, **arguments)
        else:
            pv.fit(vae, x, run=tmp_path / "run", **arguments)
            pv.fit(vae, x, objective=pv.objectives.ELBO(particles=3), **arguments)
        after = surroundings()
    assert [name for name in before if not equal(before[name], after[name])] == []
    trace = poutine.trace(vae.model, param_only=True).get_trace(x)
    assert any(name.startswith(str(vae.store_name)) for name in trace.nodes)  # and the programs register again


def test_surroundings_see_a_change() -> None:
    before = surroundings()
    torch.randn(1)
    np.random.rand()  # noqa: NPY002
    random.random()
    pyro.param("new", torch.ones(1))
    after = surroundings()
    assert [name for name in before if not equal(before[name], after[name])] == ["store", "torch", "numpy", "python"]
