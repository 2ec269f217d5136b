"""What a VAE answers to calls that other libraries' models have and it has not."""

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import nn

from pyro_vae.core.calls import CallError

INSTEAD: Mapping[str, str] = {
    "fit": "pv.fit(vae, x)",
    "train_model": "pv.fit(vae, x)",
    "fit_transform": "pv.fit(vae, x), and then vae.encode(x).mean",
    "transform": "vae.encode(x).mean",
    "get_latent_representation": "vae.encode(x).mean",
    "inverse_transform": "vae.decode(z)",
    "predict": "vae.reconstruct(x)",
    "generate": "vae.sample(5)",
    "elbo": "pv.fit(vae, x)['loss'] of training, or pv.evidence(vae, x) of any rows",
    "log_prob": "pv.evidence(vae, x).pointwise",
    "score": "pv.evidence(vae, x).mean",
    "score_samples": "pv.evidence(vae, x).pointwise",
    "save": "pv.fit(vae, x, run='my-run'), and pv.load('my-run')",
    "load": "pv.load('my-run')",
    "encoder": "vae.posterior, or vae.encode(x)",
    "decoder": "vae.likelihood, or vae.decode(z)",
}
"""Lines to write, by the names that models of other libraries have."""


class Advised(nn.Module):
    """A module that names its own call where it is asked for another library's."""

    def __getattr__(self, name: str) -> Any:
        """Attribute of a module.

        Raises:
            AttributeError: there is none; with the line to write, for a name that other libraries use.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in INSTEAD:
                raise
            raise AttributeError(f"a {type(self).__name__} has no {name!r}: write {INSTEAD[name]}.") from None

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to be called.

        Raises:
            InputError: always: a VAE is two programs, and a call would not say which.
        """
        raise CallError(
            "a VAE is a pair of programs and no function: write vae.encode(x) for q(z|x), vae.decode(z) for p(x|z), or "
            "vae.reconstruct(x) for replicates."
        )
