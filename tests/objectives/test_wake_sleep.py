"""Reweighted wake-sleep against Pyro's on one row, on discrete latents, and in its dreams."""

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.programs import vae_of
from pyro.infer import SVI, ReweightedWakeSleep
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.objectives import IWAE, RWS


def gradients(vae: Any, loss: Any) -> dict[str, Tensor]:
    vae.zero_grad()
    pyro.set_rng_seed(1)
    loss()
    return {name: weight.grad.clone() for name, weight in vae.named_parameters()}


def test_on_one_row_value_and_gradient_equal_pyros() -> None:
    vae, x = vae_of(pv.Normal(), pv.MultivariateNormal()).double(), torch.randn(1, 3).double()
    theirs = ReweightedWakeSleep(num_particles=5, insomnia=1.0, vectorize_particles=True, max_plate_nesting=1)
    found: list[float] = []
    ours = gradients(vae, lambda: found.append(RWS(5).loss_and_grads(vae.model, vae.guide, x)))
    expected = gradients(vae, lambda: found.append(theirs.loss_and_grads(vae.model, vae.guide, x)[0]))
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-12, msg=name)


def test_rws_normalizes_weights_of_each_row() -> None:
    vae, x = vae_of(pv.Normal(), pv.Normal()).double(), torch.randn(6, 3).double()
    pyro.set_rng_seed(1)
    rows = RWS(4).bound(RWS(4).draw(vae.model, vae.guide, x=x))
    pyro.set_rng_seed(1)
    torch.testing.assert_close(rows, IWAE(4).bound(IWAE(4).draw(vae.model, vae.guide, x=x)))
    wake = gradients(vae, lambda: RWS(4).loss_and_grads(vae.model, vae.guide, x))
    iwae = gradients(vae, lambda: IWAE(4).loss_and_grads(vae.model, vae.guide, x))
    for name, gradient in wake.items():
        assert torch.allclose(gradient, iwae[name], rtol=1e-9) is not name.startswith("posterior"), name


def test_dreams_pull_the_guide_to_the_posterior_of_what_is_dreamt() -> None:
    """With insomnia 0 the guide's gradient is minus that of log q at the model's own draws."""
    vae, x = vae_of(pv.Normal(0, 1), pv.Normal()).double(), torch.randn(1000, 3).double()
    asleep = RWS(2, insomnia=0)
    total: dict[str, Tensor] = {}
    for seed in range(50):
        vae.zero_grad()
        pyro.set_rng_seed(seed)
        asleep.loss_and_grads(vae.model, vae.guide, x)
        for name, weight in vae.posterior.named_parameters():
            total[name] = total.get(name, 0) + weight.grad / (50 * 1000)
    vae.zero_grad()
    with torch.no_grad():
        z = vae.prior().sample((100_000,))
        dreamt = vae.likelihood(z).sample()
    (-vae.posterior(dreamt).log_prob(z)).mean().backward()
    for name, weight in vae.posterior.named_parameters():
        scale = float(weight.grad.abs().max())
        torch.testing.assert_close(total[name], weight.grad, rtol=0, atol=0.12 * scale, msg=name)


class Clusters(nn.Module):
    """A mixture of three Gaussians with its label as the latent: nothing to reparameterise."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([-1.0, 0.3, 1.0]))
        self.logits = nn.Linear(1, 3)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("x", dist.Normal(self.centres[z], 0.5), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=self.logits(x[:, None])))


@pytest.mark.parametrize("insomnia", [1.0, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.5, 0.0))])
def test_discrete_latent_is_learned(insomnia: float) -> None:
    centres = torch.tensor([-4.0, 0.0, 4.0])
    x = centres[torch.randint(3, (600,))] + 0.5 * torch.randn(600)
    pair = Clusters()
    with pytest.raises(pv.InputError, match=r"Categorical, cannot be reparameterised.*objective=pv.objectives.RWS\(\)"):
        pv.fit(pair, x, progress=False)
    objective = RWS(8, insomnia=insomnia)
    pv.fit(pair, x, objective=objective, optimizer=pv.Adam(0.05), epochs=30, batch_size=100, progress=False)
    assert pair.centres.detach().sort().values.tolist() == pytest.approx(centres.tolist(), abs=0.25)
    with torch.no_grad():
        exact = torch.softmax(-0.5 * ((x[:, None] - pair.centres) / 0.5) ** 2, -1)
        found = torch.softmax(pair.logits(x[:, None]), -1)
    assert float((exact - found).abs().mean()) < 0.1


def test_svi_takes_it() -> None:
    pair, x = Clusters(), torch.randn(20)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), loss=RWS(3, insomnia=0.5))
    assert svi.step(x) > 0


def test_dreams_of_data_that_the_guide_does_not_take_are_refused() -> None:
    class Other(Clusters):
        def model(self, data: Tensor) -> None:  # type: ignore[override]
            super().model(data)

        def guide(self, data: Tensor) -> None:  # type: ignore[override]
            super().guide(data)

    pair = Other()
    with pytest.raises(pv.InputError, match="simulates data for site 'x', and the guide takes data"):
        RWS(3, insomnia=0.5).loss(pair.model, pair.guide, torch.randn(5))


@pytest.mark.parametrize("insomnia", [-0.1, 1.1])
def test_insomnia_is_a_share(insomnia: float) -> None:
    with pytest.raises(pv.InputError, match="insomnia"):
        RWS(insomnia=insomnia)


@pytest.mark.parametrize("family", [pv.Poisson, pv.Bernoulli])
def test_vae_with_a_guide_that_has_no_rsample_trains_by_rws_and_by_nothing_else(family: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    vae = pv.VAE((3,), 2, prior=family(), guide=family(), likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    with pytest.raises(pv.InputError, match=r"cannot be reparameterised.*objective=pv.objectives.RWS\(\)"):
        pv.fit(vae, x, epochs=1, run=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(weight, before[name]) for name, weight in vae.state_dict().items())
    history = pv.fit(vae, x, epochs=3, objective=pv.objectives.RWS(), optimizer=pv.Adam(0.01), progress=False)
    assert history["loss"][-1] < history["loss"][0]
