"""Programs without room for a dimension of draws run one draw at a time, with a note."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.fitting import fit
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.objectives import draw
from pyro_vae.objectives.particles import draw_without_gradient


class Normed(nn.Module):
    """Programs with BatchNorm1d, which takes (N, C) only."""

    def __init__(self, flat: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm, self.flat = nn.Linear(2, 4), nn.BatchNorm1d(4), flat

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            hidden = self.layer(z)
            hidden = self.norm(hidden) if self.flat else self.norm(hidden.flatten(0, -2)).reshape(hidden.shape)
            pyro.sample("x", dist.Normal(hidden, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x[:, :2] / 2, 0.8).to_event(1))


NOTE = "run one draw at a time, for they have no room for a dimension of draws"
X = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))


def uses(programs: Any) -> dict[str, Any]:
    importance = pv.criticism.Importance(draws=50)
    return {
        "evidence": lambda: pv.evidence(programs, X, method=importance, progress=False),
        "sbc": lambda: pv.criticism.sbc(programs, given=X, simulations=40, draws=9, progress=False),
        "fit": lambda: fit(programs, X, epochs=1, objective=pv.objectives.IWAE(particles=3)),
    }


@pytest.mark.parametrize("use", uses(None))
def test_programs_without_room_are_used_with_one_note(use: str) -> None:
    programs = Normed()
    with pytest.warns(UserWarning, match=NOTE) as notes:
        uses(programs)[use]()
    assert len([note for note in notes if NOTE in str(note.message)]) == 1
    uses(programs)[use]()  # silently, for warnings are errors


def test_evidence_is_that_of_vectorised_programs() -> None:
    method = pv.criticism.Importance(draws=2000)
    with pytest.warns(UserWarning, match=NOTE):
        one = pv.evidence(Normed().eval(), X[:5], method=method, progress=False)
    many = pv.evidence(Normed(flat=False).eval(), X[:5], method=method, progress=False)
    error = (one.mcse.square() + many.mcse.square()).sqrt()
    assert ((one.pointwise - many.pointwise).abs() < 4 * error).all()


def test_stacked_draws_have_the_shapes_and_densities_of_vectorised_ones() -> None:
    one, many = Normed().eval(), Normed(flat=False).eval()
    with pytest.warns(UserWarning, match=NOTE):
        stacked = draw(one.model, one.guide, 3, X)
    vectorised = draw(many.model, many.guide, 3, X)
    for name, latent in vectorised.latents.items():
        assert stacked.latents[name].value.shape == latent.value.shape
    assert stacked.log_weights.shape == vectorised.log_weights.shape == (3, 40)
    value = stacked.latents["z"].value
    expected = dist.Normal(X[:, :2] / 2, 0.8).to_event(1).log_prob(value)
    torch.testing.assert_close(stacked.latents["z"].log_posterior, expected)
    means = one.norm(one.layer(value.flatten(0, 1))).reshape(3, 40, 4)
    torch.testing.assert_close(stacked.log_likelihood, dist.Normal(means, 1.0).to_event(1).log_prob(X))
    assert draw_without_gradient(one.model, one.guide, 2, X).log_weights.shape == (2, 40)


@pytest.mark.parametrize(
    ("objective", "advice"),
    [
        (pv.objectives.ELBO(particles=2, kl="analytic"), "take kl='sampled', or particles=1"),
        (pv.objectives.IWAE(particles=2, estimator="dreg"), "take estimator='plain', or particles=1"),
    ],
)
def test_what_needs_several_draws_at_once_is_refused(objective: Any, advice: str) -> None:
    programs = Normed()
    with pytest.warns(UserWarning, match=NOTE), pytest.raises(pv.InputError, match=advice):
        objective.loss(programs.model, programs.guide, X)
