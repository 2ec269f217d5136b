"""The variational autoencoder: a prior, a likelihood and a guide as two ordinary Pyro programs.

    z ~ p(z),  x | z ~ p(x|z)            `VAE.model`
    z | x ~ q(z|x)                       `VAE.guide`

The encoder maps x to the parameters of a distribution of z, and the decoder maps z to those of a distribution of x: an
image is a draw from it.
"""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.distributions import moments
from pyro_vae.distributions.constraints import any_element
from pyro_vae.distributions.wrappers import expand_right
from pyro_vae.families import Family, Normal, units
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import Shape, SiteSpec
from pyro_vae.model import validation
from pyro_vae.model.advice import Advised
from pyro_vae.model.declaration import Declaration
from pyro_vae.networks import InputNormalization, Network
from pyro_vae.networks.base import log_counts

_counter = itertools.count(1)

PARTS = ("prior", "posterior", "likelihood")
"""The parts of a VAE that have weights, by their names in optimizers and state dicts."""

REINITIALIZED_BY = {
    "prior": {"event_shape", "prior"},
    "posterior": {"event_shape", "likelihood", "encoder"},
    "likelihood": {"event_shape", "likelihood"},
}
"""The arguments of `VAE` whose change resets the initialization of a part."""


class VAE(Advised):
    r"""A variational autoencoder, declared by a prior, a likelihood and a guide.

    $$ z_n \sim p(z), \quad x_n \mid z_n \sim p(x \mid z_n), \qquad
       q(z_n \mid x_n) \approx p(z_n \mid x_n), \quad n = 1, \dots, N $$

    `model` and `guide` are Pyro programs with a plate "data" of N rows and the sites "z", of shape (N, D), and "x", of
    shape (N, *event_shape). Pyro's `SVI`, `Predictive`, `NUTS` and `poutine` take them as they are. Initial weights
    follow torch's global seed.

    References:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014 [kingma2014], https://arxiv.org/abs/1312.6114.
        Rezende, Mohamed and Wierstra, Stochastic Backpropagation, 2014 [rezende2014], https://arxiv.org/abs/1401.4082.

    Args:
        event_shape: shape of one row of x: () for a number, (P,) for a vector, (C, H, W) for an image.
        latent_dim: the number D of latent dimensions.
        prior: p(z), a family over vectors of length D.
        likelihood: p(x|z), a family over events of shape `event_shape`.
        guide: q(z|x), a family with the prior's support that can be reparameterised.
        encoder: the network from x to the guide's parameters; by default `Conv()` for images, `MLP()` otherwise.
        decoder: the network from z to the likelihood's parameters; by default the mirror image of the encoder.

    Raises:
        InputError: the arguments do not fit each other; the message says which to change.

    >>> from pyro_vae import MLP
    >>> vae = VAE(event_shape=(3,), latent_dim=2, likelihood=Normal(scale=0.1), encoder=MLP(hidden=(8,)))
    >>> vae.sample(5).shape
    torch.Size([5, 3])
    >>> vae.encode(torch.zeros(4, 3)).batch_shape, vae.decode(torch.zeros(7, 4, 2)).batch_shape
    (torch.Size([4]), torch.Size([7, 4]))
    """

    @explained
    def __init__(
        self,
        event_shape: Shape,
        latent_dim: int,
        *,
        prior: Family = Normal(0, 1),
        likelihood: Family = Normal(scale="learned"),
        guide: Family = Normal(),
        encoder: Network | nn.Module | None = None,
        decoder: Network | nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.declaration = Declaration.of(event_shape, latent_dim, prior, likelihood, guide, encoder, decoder)
        event_shape, encoder, decoder = self.declaration.event_shape, self.declaration.encoder, self.declaration.decoder
        latent = (self.declaration.latent_dim,)
        view, spread = (log_counts, units.log_spread) if likelihood.is_count else (None, None)
        inputs = InputNormalization(event_shape, view, spread=spread) if isinstance(encoder, Network) else None
        self.posterior = Conditional(guide, SiteSpec("guide", latent, event_shape, encoder, inputs))
        self.prior = Conditional(prior, SiteSpec("prior", latent, guide=self.posterior, data_shape=event_shape))
        self.likelihood = Conditional(likelihood, SiteSpec("likelihood", event_shape, latent, decoder))
        if inputs is not None and self.likelihood.group is not None:
            inputs.measure = partial(units.measure, is_image=len(event_shape) == 3)
        has_size = any(slot.scales_with_size_factor for slot in self.likelihood.slots.values())
        self.optional_inputs = ("mask", "size_factor") if has_size else ("mask",)
        validation.check_pairing(self.declaration, self.prior.dummy_distribution(), self.posterior.dummy_distribution())
        self.store_name: str | None = _store_name()
        self.trained_on: str | None = None  # fingerprint of the rows, by which checks tell them from new ones
        self.feature_names: tuple[str, ...] = ()  # of the columns that it was fitted to
        self.trained_with: tuple[str, ...] = ()  # names of the tensors that it was fitted to

    def model(self, x: Tensor | None = None, *, rows: int | None = None, **given: Tensor) -> Tensor:
        """Data x, given or drawn, by the generative program z ~ p(z), x ~ p(x|z).

        Args:
            x: data (N, *event_shape) to condition on; None to draw x.
            rows: the number N of rows to draw without x; by default that of the tensors given, or 1.
            given: further named tensors of the batch: `mask` (N, *event_shape), true where x is observed, where all
                other values are ignored; `size_factor` (N,), positive, for families that scale with it.

        Returns:
            x: the data, or the draws (N, *event_shape).
        """
        self._check_names(given)
        if rows is not None:
            check_integers(rows=(rows, 1))
        self._register("prior", "likelihood")
        present = next((tensor for tensor in (x, *given.values()) if tensor is not None), None)
        count = len(present) if present is not None and (x is not None or rows is None) else rows or 1
        with pyro.plate("data", count, dim=-1):
            z = pyro.sample("z", self.prior())
            drawn: Tensor = pyro.sample("x", self.likelihood(z, **given), obs=x)
        return drawn

    def guide(self, x: Tensor, **given: Tensor) -> Tensor:
        """Latents drawn by the program of the approximate posterior, z ~ q(z|x).

        Args:
            x: data (N, *event_shape).
            given: further named tensors of the batch, as for `model`.

        Returns:
            z: latent draws (N, D).
        """
        self._check_names(given)
        self._register("posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            drawn: Tensor = pyro.sample("z", self._condition(x, **given))
        return drawn

    @explained
    @torch.no_grad()
    def decode(self, z: Any, **given: Any) -> TorchDistribution:
        """Likelihood p(x|z) given latents, a distribution that needs no gradient.

        Args:
            z: latents (*batch, D), a tensor, an array or a nested list.
            given: `mask` (*batch, *event_shape) and `size_factor` (*batch,), or one number, as for `model`.

        Returns:
            The distribution, of batch shape (*batch,).

        Raises:
            InputError: z has another length than D, or is NaN or infinite; or a tensor does not suit the model.
        """
        from pyro_vae.model.batches import latent_batch  # here, for it imports what reads data

        self._check_names(given)
        return self.likelihood(**latent_batch(z, given, self.declaration, self.likelihood.device_tensor))

    @explained
    @torch.no_grad()
    def encode(self, x: Any, **given: Any) -> TorchDistribution:
        """Approximate posterior q(z|x) given data, a distribution that needs no gradient.

        The encoder gets the mean of an element where `mask` is false, and x divided by `size_factor`.

        Args:
            x: data (*batch, *event_shape), as `fit` takes them.
            given: `mask` (*batch, *event_shape) and `size_factor` (*batch,), as for `model`.

        Returns:
            The distribution, of batch shape (*batch,).

        Raises:
            InputError: as for `check`.
        """
        return self._condition(**self.as_batch(x, **given))

    def as_batch(self, x: Any, **given: Any) -> dict[str, Tensor]:
        """Tensors by name of data as `fit` takes them, checked, on the device and in the precision of the weights.

        Args:
            x: data (*batch, *event_shape), or a mapping with them.
            given: further named tensors of these rows, as for `model`.

        Raises:
            InputError: as for `check`.
        """
        from pyro_vae.model.batches import data_batch  # here, for it imports what reads data

        return data_batch(x, given, self)

    def _condition(self, x: Tensor, mask: Tensor | None = None, size_factor: Tensor | None = None) -> TorchDistribution:
        """The approximate posterior given tensors that are not checked, with a gradient."""
        if x.dtype not in (torch.float32, self.row_type):  # of a user's own call
            x = x.to(self.likelihood.device_tensor)
        return self.posterior(self.normalize_size(x, size_factor), seen=mask)

    def normalize_size(self, x: Tensor, size_factor: Tensor | None = None) -> Tensor:
        """Input of the encoder, (*batch, *event_shape): x divided by the size factor (*batch,)."""
        return x if size_factor is None else x / expand_right(size_factor, len(self.declaration.event_shape))

    @explained
    @torch.no_grad()
    def sample(self, n: int, *, mean: bool = False, **given: Any) -> Tensor:
        """New data: z ~ p(z), then x ~ p(x|z).

        Args:
            n: the number of rows.
            mean: return the mean of p(x|z) instead of a draw from it (z is drawn in any case); by 1,000 draws
                where it has no closed form: `pv.moments.mean(vae.decode(z))` says which, and the error.
            given: `size_factor` (n,), or one number, for families that scale with it; 1 by default.

        Returns:
            x: (n, *event_shape), of the `row_type`.

        Raises:
            InputError: `mean` with a likelihood that has none, n is not an integer of at least 1, or a tensor does
                not suit the model.
        """
        check_integers(n=(n, 1))
        validation.warn_without_size(self.trained_with, given)
        return self._sample_or_mean(self.decode(self.prior().sample((n,)), **given), mean)

    @explained
    @torch.no_grad()
    def reconstruct(self, x: Any, *, mean: bool = False, **given: Any) -> Tensor:
        """Replicates of data: z ~ q(z|x), then x' ~ p(x|z).

        Args:
            x: data (*batch, *event_shape), as `fit` takes them.
            mean: return the mean of p(x|z) instead of a draw from it.
            given: further named tensors of the batch, as for `model`; values where `mask` is false are drawn too.

        Returns:
            x': (*batch, *event_shape).

        Raises:
            InputError: as for `sample` and `check`.
        """
        batch = self.as_batch(x, **given)
        z = self._condition(**batch).sample()
        return self._sample_or_mean(self.likelihood(z, size_factor=batch.get("size_factor")), mean)

    def initialize(self, x: Tensor, **given: Tensor) -> "VAE":
        """Set starting values from data: the likelihood's location and scale, and the normalization of inputs.

        `fit` calls it. Parts that were initialized before, or loaded, keep their values.

        Args:
            x: data (N, *event_shape).
            given: further named tensors of the batch, as for `model`.

        Returns:
            The model itself.
        """
        self.check({"x": x, **given})
        x = x.to(self.likelihood.device_tensor.device, self.row_type_for(x))
        x = self.normalize_size(self.impute({"x": x, **given}), given.get("size_factor"))
        self.likelihood.initialize(x)
        self.posterior.adapt(x)
        self.prior.adapt(x)
        return self

    @property
    def row_type(self) -> torch.dtype:
        """Floating type of rows x, given and drawn: that of the weights, or float64 where that rounds them away."""
        return self.likelihood.row_type

    def row_type_for(self, x: Tensor) -> torch.dtype:
        """The `row_type` that starting values from rows (N, *event_shape) give; the present one, if they are set."""
        from pyro_vae.data.precision import is_rounded_away  # here, for it reads data

        own, likelihood = self.likelihood.device_tensor.dtype, self.likelihood
        if bool(likelihood.initialized):
            return likelihood.row_type
        takes_wider = likelihood.group == "location_scale" and self.posterior.inputs is not None
        return torch.float64 if takes_wider and is_rounded_away(x, own) else own

    def impute(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Data of a batch (N, *event_shape), with observed values of the same element where the mask is false."""
        x, mask = batch["x"], batch.get("mask")
        return x if mask is None else validation.impute(x, mask, float(any_element(self.likelihood.support)))

    def check(self, batch: dict[str, Any]) -> None:
        """Check named tensors against the declaration.

        Raises:
            InputError: x has another shape or a wrong dtype, is NaN or infinite, or is outside the likelihood's
                support; or a tensor is given that this model does not take.
        """
        self._check_names({name: value for name, value in batch.items() if name != "x"})
        validation.check_batch(batch, self.declaration.event_shape, self.likelihood)
        validation.warn_without_size(self.trained_with, batch)

    def replace(self, **changes: Any) -> "VAE":
        """New model with some arguments changed, and with the weights whose names and shapes are the same.

        Args:
            changes: arguments of `VAE`. A changed encoder without a decoder changes the decoder to its mirror image.

        Raises:
            InputError: an unknown argument, or arguments that do not fit each other; or a subclass of VAE has other
                arguments.

        >>> from pyro_vae import MLP
        >>> vae = VAE((3,), 2, encoder=MLP(hidden=(8,)))
        >>> vae.replace(likelihood=Normal(scale=0.1)).declaration.likelihood
        Normal(loc=None, scale=0.1)
        """
        fields = {field.name: getattr(self.declaration, field.name) for field in dataclasses.fields(Declaration)}
        if unexpected := sorted(set(changes) - set(fields)):
            raise InputError(f"replace: VAE has no argument {unexpected[0]!r}; it has {', '.join(fields)}.")
        if "encoder" in changes and "decoder" not in changes:
            fields["decoder"] = None
        try:
            other = type(self)(**copy.deepcopy(fields | changes)).to(self.likelihood.device_tensor)
        except TypeError as error:
            raise InputError(
                f"replace: {type(self).__name__} is not built by the arguments of VAE ({error}): build the changed "
                "model by its own."
            ) from error
        if not self.training:  # or copied modules in eval mode would be taken for ones that stay so
            other.eval()
        mine, theirs = self.state_dict(), other.state_dict()
        other.load_state_dict({k: mine[k] if k in mine and mine[k].shape == v.shape else v for k, v in theirs.items()})
        if other.declaration.event_shape == self.declaration.event_shape:
            other.feature_names = self.feature_names
        for part, words in REINITIALIZED_BY.items():
            if not words.isdisjoint(changes):
                getattr(other, part).initialized.fill_(False)
        return other

    @contextlib.contextmanager
    def no_param_store(self) -> Iterator[None]:
        """Block in which the programs register no weights in Pyro's store, for a trainer that holds them itself."""
        name, self.store_name = self.store_name, None
        try:
            yield
        finally:
            self.store_name = name

    @property
    def own_programs(self) -> str:
        """Name of the subclass of VAE whose programs are its own; empty where they are those of `VAE`."""
        classes = type(self).__mro__
        own = {name for each in classes[: classes.index(VAE)] for name in vars(each)} - {"initialize"}
        changed = own & {name for name in vars(VAE) if not name.startswith("__")}
        return type(self).__name__ if changed or vars(self).keys() & {"model", "guide", "encode", "decode"} else ""

    @property
    def caveat(self) -> str:
        """Remark that belongs to every reported log-likelihood; empty for a density."""
        return self.declaration.likelihood.caveat

    @property
    def is_pixel(self) -> bool:
        """Whether log-likelihoods are of pixel levels, so that they are reported in bits per dimension too."""
        return self.declaration.likelihood.is_pixel

    def extra_repr(self) -> str:
        """Arguments of the declaration, for `repr`."""
        return ", ".join(f"{f.name}={getattr(self.declaration, f.name)}" for f in dataclasses.fields(Declaration)[:5])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Give a copy its own name in Pyro's store, since under a shared name Pyro would not train its weights."""
        super().__setstate__(state)
        self.store_name = _store_name()

    def _sample_or_mean(self, likelihood: TorchDistribution, mean: bool) -> Tensor:
        return moments.mean(likelihood).value if mean else likelihood.sample()

    def _register(self, *parts: str) -> None:
        if self.store_name is None:
            return
        for part in parts:
            pyro.module(f"{self.store_name}.{part}", getattr(self, part))

    def _check_names(self, given: Mapping[str, Any]) -> None:
        validation.check_names(given, self.optional_inputs, self.declaration.likelihood)


def _store_name() -> str:
    return f"vae{next(_counter)}"
