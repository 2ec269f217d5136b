"""Exact answers to hold estimates to: probabilistic PCA in closed form, in float64.

z ~ N(0, I_q), x | z ~ N(W z + mu, s2 I_P): its marginal, its posterior and its maximum likelihood are known
(Tipping and Bishop, Probabilistic Principal Component Analysis, 1999), and a linear `pv.VAE` is this model.
"""

from dataclasses import dataclass

import sklearn.datasets
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, transform_to

import pyro_vae as pv
from pyro_vae.families.conditional import Conditional


@dataclass(frozen=True, eq=False)
class PPCA:
    """A probabilistic PCA model: W (P, q), mu (P,), s2 a number."""

    w: Tensor
    mu: Tensor
    s2: Tensor

    @classmethod
    def fit(cls, x: Tensor, q: int) -> "PPCA":
        """The maximum-likelihood model of rows x (N, P), covariance with 1/N; its M is diagonal."""
        x = x.double()
        values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
        values, vectors = values.flip(0), vectors.flip(1)
        s2 = values[q:].mean()
        return cls(vectors[:, :q] * (values[:q] - s2).sqrt(), x.mean(0), s2)

    @classmethod
    def random(cls, p: int, q: int, *, s2: float = 0.5, seed: int = 0) -> "PPCA":
        """Some model whose posterior has correlated latents."""
        generator = torch.Generator().manual_seed(seed)
        w, mu = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((p, q), (p,)))
        return cls(w, mu, torch.tensor(s2, dtype=torch.float64))

    @classmethod
    def of(cls, vae: pv.VAE) -> "PPCA":
        """What a linear VAE with one noise scale has learned, read off its likelihood."""
        q = vae.declaration.latent_dim
        reference = vae.likelihood.device_tensor
        with torch.no_grad():
            origin = vae.decode(reference.new_zeros(1, q)).base_dist
            loc = vae.decode(torch.eye(q).to(reference)).base_dist.loc
        return cls((loc - origin.loc).T.double(), origin.loc[0].double(), origin.scale.flatten()[0].double().square())

    def rotated(self) -> "PPCA":
        """The same model with its latents turned so that M, and the posterior covariance, is diagonal."""
        left, singular, _ = torch.linalg.svd(self.w, full_matrices=False)
        return PPCA(left * singular, self.mu, self.s2)

    @property
    def m(self) -> Tensor:
        """M = W'W + s2 I, (q, q)."""
        return self.w.T @ self.w + self.s2 * torch.eye(self.w.shape[1], dtype=self.w.dtype)

    def marginal(self) -> MultivariateNormal:
        """p(x) = N(mu, W W' + s2 I)."""
        return MultivariateNormal(self.mu, self.w @ self.w.T + self.s2 * torch.eye(len(self.mu), dtype=self.w.dtype))

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z|x) = N(M^-1 W'(x - mu), s2 M^-1), for rows x (N, P)."""
        inverse = torch.linalg.inv(self.m)
        return MultivariateNormal((x.double() - self.mu) @ self.w @ inverse, self.s2 * inverse)

    def put_into(self, vae: pv.VAE) -> pv.VAE:
        """Write these parameters, and the exact posterior's, into a linear VAE in float64, and return it.

        Args:
            vae: with prior `Normal(0, 1)`, likelihood `Normal(scale="learned")`, encoder `MLP(hidden=())`, and
                the guide `MultivariateNormal` or, where M is diagonal, `Normal`, its spread from any source.
        """
        vae = vae.double()
        inverse = torch.linalg.inv(self.m)
        weight = inverse @ self.w.T
        root = torch.linalg.cholesky(self.s2 * inverse)
        _write(vae.likelihood, "loc", self.mu, self.w)
        _write(vae.likelihood, "scale", self.s2.sqrt())
        _write(vae.posterior, "loc", -weight @ self.mu, weight)
        if "scale_tril" in vae.posterior.family.parameters:
            _write(vae.posterior, "scale_tril", root)
        else:
            torch.testing.assert_close(root, root.diagonal().diag())  # otherwise no diagonal guide is exact
            _write(vae.posterior, "scale", root.diagonal())
        for part in (vae.posterior, vae.likelihood):
            part.initialized.fill_(True)
        return vae


@torch.no_grad()
def _write(conditional: Conditional, name: str, value: Tensor, weight: Tensor | None = None) -> None:
    """Set a parameter to value + weight @ context."""
    raw = transform_to(conditional.family.parameters[name].constraint).inv(value)
    if name in conditional.constants:
        conditional.constants[name].copy_(raw)
        return
    head = conditional.network.heads[name]
    head.bias.copy_(raw.flatten())
    head.weight.copy_(torch.zeros_like(head.weight) if weight is None else weight)
    conditional.get_buffer(f"offset_{name}").zero_()


def linear(p: int, q: int, guide: pv.families.Family = pv.MultivariateNormal(scale_tril="per_feature")) -> pv.VAE:
    """The VAE that is probabilistic PCA."""
    return pv.VAE((p,), q, guide=guide, encoder=pv.MLP(hidden=()))


def largest_angle(first: Tensor, second: Tensor) -> float:
    """The largest principal angle between the column spaces of two (P, q) matrices, in degrees."""
    a, b = (torch.linalg.qr(matrix).Q for matrix in (first, second))
    sine = torch.linalg.matrix_norm(b - a @ (a.T @ b), ord=2)
    return float(torch.rad2deg(torch.asin(sine.clamp(max=1))))


def table_data(name: str) -> Tensor:
    """The data of REFERENCE.md's table, (N, P) in float64: "iris", "breast cancer" or "digits"."""
    if name == "iris":
        return torch.tensor(sklearn.datasets.load_iris().data)
    if name == "digits":
        return torch.tensor(sklearn.datasets.load_digits().data) / 16
    x = torch.tensor(sklearn.datasets.load_breast_cancer().data)
    return (x - x.mean(0)) / x.std(0, correction=0)


TABLE = [  # data, q, mean log-likelihood per row, s2
    ("iris", 2, -2.699752, 0.050682),
    ("breast cancer", 5, -24.625057, 0.183189),
    ("digits", 5, 8.907637, 0.036197),
    ("digits", 10, 17.451947, 0.022751),
]
"""REFERENCE.md, "Closed forms": data raw, standardised, and divided by 16."""
