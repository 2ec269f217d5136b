"""A training that diverges says where: the step and its rows, the site or the part of the model, the likely cause."""

import types
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.fitting import fit, rows, small
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.training import loop


def told(vae: Any, x: Any, **words: Any) -> str:
    with pytest.raises(FloatingPointError) as caught:
        fit(vae, x, **words)
    return str(caught.value)


def test_divergence_is_distinguished_from_bad_data() -> None:
    message = told(small(), rows(), optimizer=pv.SGD(1e12), batch_size=10)
    assert "in epoch 1" in message
    assert "of the epoch was the first, on rows" in message
    assert "every log-probability of these rows is finite. The steps were too long" in message
    assert "clip_norm" in message
    assert "Row" not in message


@pytest.mark.parametrize("look", [1, 2, 100])
def test_row_whose_density_overflows_is_named(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECK_FINITE_EVERY_STEPS", look)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    step, row = 3, int(order[35])
    x = rows()
    x[row] = 1e25  # finite, and its square is not
    vae = small(likelihood=pv.Normal(scale=1.0))
    vae.initialize(rows())
    vae.initialize = lambda **batch: vae  # data-dependent starts would have spread the value over all rows
    vae.likelihood.check_fixed_numbers = lambda x: None  # and would have been refused
    message = told(vae, x, batch_size=10, optimizer=pv.Adam(1e-9))
    assert f"Step {step + 1} of the epoch was the first, on rows" in message
    assert f"log p(x|...) is NaN or infinite on row {row}." in message
    assert "log q(z" not in message or f"row {row}" in message
    assert f"Row {row} has a value of size 1e+25" in message


class Programs(nn.Module):
    """A pair whose prior has a density that is NaN, or whose gradient is."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(2, 3)
        self.fault = fault

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            scale = torch.full((2,), float("nan")) if self.fault == "prior" else torch.ones(2)
            z = pyro.sample("z", dist.Normal(torch.zeros(2), scale, validate_args=False).to_event(1))
            loc = self.decoder(z)
            if self.fault == "gradient":
                loc = loc + torch.sqrt(self.decoder.weight * 0).sum()  # 0, with an infinite slope times 0
            pyro.sample("x", dist.Normal(loc, 1.0, validate_args=False).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5, validate_args=False).to_event(1))


def test_site_of_a_prior_is_named() -> None:
    message = told(Programs("prior"), rows(), batch_size=10)
    assert "Step 1 of the epoch was the first" in message
    assert "By the weights before that step, log p(z) is NaN or infinite on rows" in message
    assert "log p(x|...)" not in message
    assert "log q(z|...)" not in message


def test_part_of_a_gradient_is_named() -> None:
    message = told(Programs("gradient"), rows(), batch_size=10)
    assert "the loss is finite and its gradient to decoder is not" in message


def test_diagnosis_leaves_weights_and_random_numbers_as_they_are() -> None:
    vae, x = small(), rows()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    told(vae, x, optimizer=pv.SGD(1e12))
    assert torch.equal(torch.get_rng_state(), before)
    assert not all(weight.isfinite().all() for weight in vae.parameters())  # what was reached, not what was kept


def test_programs_of_one_row_are_diagnosed_too() -> None:
    layer = nn.Linear(1, 1)

    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0, validate_args=False))
        scale = z.exp() * 0 + 1e-30  # whose square is 0
        pyro.sample("x", dist.Normal(layer(z[None]), scale, validate_args=False).expand([len(x), 3]).to_event(2), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(layer.bias.sum(), 1.0, validate_args=False))

    programs = types.SimpleNamespace(model=model, guide=guide, layer=layer)
    message = told(programs, rows(), batch_size=50)
    assert "log p(x|...) is NaN or infinite on rows" in message


def test_training_that_goes_well_pays_no_kernel_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    isfinite = Tensor.isfinite
    monkeypatch.setattr(Tensor, "isfinite", lambda self: (calls.append(""), isfinite(self))[1])
    fit(small(), rows(), epochs=2, batch_size=1)
    assert not calls
