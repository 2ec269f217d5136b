"""Everything that evaluates a model leaves it, and all random states, as they were."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.criticism import latent_usage
from pyro_vae.criticism.session import evaluation


class Normalised(nn.Module):
    """A user's own network with BatchNorm and dropout: location and scale."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(size, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5))
        self.heads = nn.ModuleList([nn.Linear(6, outputs), nn.Linear(6, outputs)])

    def forward(self, context: Tensor) -> tuple[Tensor, ...]:
        hidden = self.body(context)
        return tuple(head(hidden) for head in self.heads)


ROWS = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))


def in_train_mode() -> pv.VAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = pv.VAE((3,), 2, likelihood=pv.Normal(), encoder=Normalised(3, 2), decoder=Normalised(2, 3)).initialize(
            ROWS
        )
    return vae.train()


def tree_numbers(vae: pv.VAE) -> Any:
    tree = pv.predictive_check(vae, ROWS, draws=20, two_sample=False, progress=False)
    return tree["statistics"].to_dataset()["replicated"].values


def drawn(figure: Any) -> np.ndarray:
    """The pixels of a figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


EVALUATED: dict[str, Callable[[pv.VAE], Any]] = {
    "aggregate_kl": lambda vae: pv.criticism.aggregate_kl(vae, ROWS).mean,
    "spread_of_means": lambda vae: pv.criticism.spread_of_means(vae, ROWS).tolist(),
    "latents": lambda vae: pv.criticism.latents(vae, ROWS, progress=False).surgery.mean,
    "evidence": lambda vae: pv.evidence(vae, ROWS, method=pv.criticism.Importance(draws=8), progress=False).mean,
    "predictive_check": tree_numbers,
    "sbc": lambda vae: pv.criticism.sbc(vae, simulations=20, draws=9, progress=False).p_value,
    "bdmc": lambda vae: (
        pv.criticism.bdmc(vae, 4, method=pv.criticism.AIS(chains=2, temperatures=4), progress=False).gap
    ),
    "refine": lambda vae: pv.refine(vae, ROWS[:10], steps=3, progress=False).bound.tolist(),
    "inference_gap": lambda vae: pv.criticism.inference_gap(vae, ROWS[:50], steps=2, progress=False).total,
    "plots.latent": lambda vae: drawn(pv.plots.latent(vae, ROWS)),
    "plots.prior_predictive": lambda vae: drawn(pv.plots.prior_predictive(vae, ROWS)),
    "plots.reconstructions": lambda vae: drawn(pv.plots.reconstructions(vae, ROWS)),
    "plots.traversals": lambda vae: drawn(pv.plots.traversals(vae, ROWS)),
    "plots.interpolations": lambda vae: drawn(pv.plots.interpolations(vae, ROWS)),
    "plots.manifold": lambda vae: drawn(pv.plots.manifold(vae)),
}
"""Every public function that evaluates a model, at a seed."""


def states() -> list[Any]:
    numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - the global one is what is asked about
    return [torch.get_rng_state().tolist(), numpy["key"].tolist(), numpy["pos"], random.getstate()]


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluation_changes_neither_the_model_nor_random_states(name: str) -> None:
    vae = in_train_mode()
    kept = {key: value.clone() for key, value in vae.state_dict().items()}
    modes, before = [module.training for module in vae.modules()], states()
    first = EVALUATED[name](vae)
    assert [module.training for module in vae.modules()] == modes
    assert states() == before
    assert all(torch.equal(value, kept[key]) for key, value in vae.state_dict().items())
    torch.rand(5)
    np.testing.assert_array_equal(EVALUATED[name](vae), first)


def test_evaluation_is_in_eval_mode_without_gradients() -> None:
    vae = in_train_mode()
    with evaluation(vae, 3):
        assert not any(module.training for module in vae.modules())
        assert not torch.is_grad_enabled()
        first = torch.rand(3)
    with evaluation(vae, 3):
        assert torch.equal(torch.rand(3), first)


def test_latent_usage_takes_a_seed() -> None:
    vae = in_train_mode()
    one, same, other = (latent_usage.aggregate_kl(vae, ROWS, seed=seed).mean for seed in (1, 1, 2))
    assert one == same != other
