"""Examples of Pyro's, written anew: each takes the steps of `SVI`, or is refused before the first, with what works."""

import warnings
from dataclasses import replace
from typing import Any

import pyro
import pytest
import torch
from helpers.pyro_examples import DISCRETE, TRAINED
from helpers.pyro_examples.example import Example
from helpers.pyro_examples.regressions import ENUMERATED, SCALED
from pyro.infer import SVI
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.data.rows import Rows

SEED = 3


@pytest.fixture(autouse=True)
def unshuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take rows in their own order, as the loops of SVI here do."""
    monkeypatch.setattr(Rows, "order", lambda rows, generator: torch.arange(len(rows)))


def fit(example: Example, programs: Any) -> Tensor:
    """Losses per row of each epoch of `pv.fit`."""
    history = pv.fit(
        programs,
        example.batch,
        objective=example.objective,
        optimizer=pv.Adam(example.lr),
        epochs=example.epochs,
        batch_size=example.rows_per_batch,
        seed=SEED,
        progress=False,
    )
    return torch.as_tensor(history["loss"])


def svi(example: Example, programs: Any) -> Tensor:
    """Losses per row of each epoch of `SVI`, whose loss is a sum over rows, and eps of Adam in proportion."""
    size = example.rows_per_batch
    optimizer = pyro.optim.Adam({"lr": example.lr, "eps": 1e-8 * size})
    steps = SVI(programs.model, programs.guide, optimizer, example.estimator())
    batches = [{k: v[at : at + size] for k, v in example.batch.items()} for at in range(0, example.rows, size)]
    pyro.set_rng_seed(SEED)
    sums = [sum(steps.step(**batch) for batch in batches) for _ in range(example.epochs)]
    return torch.tensor(sums, dtype=torch.float64) / example.rows


def elbo(example: Example, programs: Any, draws: int = 20) -> float:
    """ELBO per row by Pyro's estimator, of programs in eval mode, with the same random numbers at each call."""
    modules = [one for one in (programs, programs.guide) if isinstance(one, nn.Module)]
    for module in modules:
        module.eval()
    pyro.set_rng_seed(1)
    one = example.estimator()
    found = -sum(one.loss(programs.model, programs.guide, **example.batch) for _ in range(draws)) / draws
    for module in modules:
        module.train()
    return float(found) / example.rows


def values(programs: Any) -> dict[str, Tensor]:
    """Weights and buffers of a pair, and what is in the store of parameters, as copies."""
    modules = [one for one in (programs, programs.guide) if isinstance(one, nn.Module)]
    found = {name: value for module in modules for name, value in module.state_dict().items()}
    return {name: value.detach().clone() for name, value in [*found.items(), *pyro.get_param_store().items()]}


def check_refused(example: Example, sentence: str) -> None:
    """Check that `pv.fit` refuses an example by a sentence, and has changed no value then."""
    programs = example.start()
    before = values(programs)
    with pytest.raises(pv.InputError, match=sentence):
        fit(example, programs)
    after = values(programs)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


FAST = ("mixture", "prodlda", "regression, AutoNormal")
"""The examples that fast tests train: one without networks, one with BatchNorm, one with an automatic guide."""


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in TRAINED])
def test_example_takes_the_steps_of_svi_to_a_higher_elbo(name: str) -> None:
    example = TRAINED[name]
    programs = example.start()
    before = elbo(example, programs)
    expected = svi(example, programs)
    reached = elbo(example, programs)
    assert reached > before + example.gain

    programs = example.start()
    torch.testing.assert_close(fit(example, programs), expected, rtol=1e-4, atol=1e-4)  # of every epoch
    assert elbo(example, programs) == pytest.approx(reached, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_latents_are_refused_and_trained_by_what_is_advised(name: str) -> None:
    example = DISCRETE[name]
    check_refused(replace(example, objective=pv.objectives.ELBO()), r"cannot be reparameterised.*pv.objectives.RWS\(\)")
    programs = example.start()
    before = elbo(example, programs)
    svi(example, programs)
    reached = elbo(example, programs)
    assert reached > before + example.gain

    programs = example.start()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "these programs run one draw at a time")  # that of `air`
        fit(example, programs)
    assert elbo(example, programs) > before + 0.9 * (reached - before)


def test_enumerated_classes_are_refused_and_trained_as_the_distribution_that_is_advised() -> None:
    check_refused(ENUMERATED, "'assignment' that the guide does not draw.*no objective enumerates.*MixtureSameFamily")
    losses = svi(ENUMERATED, ENUMERATED.start())
    summed = TRAINED["mixture"]
    torch.testing.assert_close(fit(summed, summed.start()), losses, rtol=1e-4, atol=1e-4)


def test_enumeration_in_a_guide_is_named() -> None:
    check_refused(replace(DISCRETE["ss_vae_M2"], objective=pv.objectives.ELBO()), "no objective enumerates its values")


@pytest.mark.parametrize(("name", "latent"), [("regression, AutoNormal", "mean"), ("sparse_gamma_def", "w_top")])
def test_latents_of_all_rows_are_refused_in_batches(name: str, latent: str) -> None:
    example = replace(TRAINED[name], batch_size=20)
    check_refused(example, rf"the latent '{latent}', .*batch_size={example.rows}, or scale the rows")


def test_scaled_rows_in_batches_take_the_steps_of_svi() -> None:
    expected = svi(SCALED, SCALED.start())
    torch.testing.assert_close(fit(SCALED, SCALED.start()), expected / 4, rtol=1e-4, atol=1e-4)
