"""Your own Pyro programs: `fit` trains any object with a model and a guide.

A regression of petal width on petal length (iris) with a latent noise-free width per flower; the exact answer is known,
so the fit can be checked. Run: python examples/own_programs.py
"""

import os

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_iris
from torch import nn

import pyro_vae as pv

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))


class Regression(nn.Module):
    """x ~ N(z, 0.1^2), z ~ N(a + b length, s^2); the guide knows both the length and x."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.log_spread = nn.Linear(1, 1), nn.Parameter(torch.tensor(-1.0))
        self.posterior, self.log_scale = nn.Linear(2, 1), nn.Parameter(torch.tensor(-2.0))

    def model(self, x: torch.Tensor, length: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.line(length), self.log_spread.exp()).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=x)

    def guide(self, x: torch.Tensor, length: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = self.posterior(torch.cat([x, length], -1))
            pyro.sample("z", dist.Normal(loc, self.log_scale.exp()).to_event(1))


iris = torch.tensor(load_iris().data, dtype=torch.float32)
batch = {"x": iris[:, 3:4], "length": iris[:, 2:3]}
torch.manual_seed(0)
regression = Regression()
for lr in (1e-2, 1e-3):
    epochs = 20 if QUICK else 1000
    history = pv.fit(
        regression,
        batch,
        epochs=epochs,
        batch_size=150,
        objective=pv.objectives.ELBO(kl="analytic"),
        optimizer=pv.Adam(lr),
        progress=False,
    )

design = torch.cat([torch.ones(150, 1), batch["length"]], 1)
exact = torch.linalg.lstsq(design, batch["x"]).solution.flatten()
spread = (batch["x"] - design @ exact[:, None]).square().mean().sqrt()
log_likelihood = dist.Normal(design @ exact[:, None], spread).log_prob(batch["x"]).mean()
print(history)
fitted = [regression.line.bias.item(), regression.line.weight.item()]
print("intercept and slope:", *(f"{value:.3f}" for value in fitted), "exact:", *(f"{v:.3f}" for v in exact.tolist()))
print(f"bound {-history.last['loss']:.4f} nats per flower; exact log-likelihood {log_likelihood:.4f}")
