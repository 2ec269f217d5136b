"""Latents: how the guide uses them, and how far their aggregate is from the prior."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.session import EvaluationSession, evaluation
from pyro_vae.criticism.two_sample_tests import ClassifierTest, MMDTest, classifier_test, mmd_test
from pyro_vae.data.rows import Rows
from pyro_vae.distributions.wrappers import distribution_name
from pyro_vae.model.vae import VAE

ACTIVE = 0.01
"""The variance over rows of a latent's posterior mean from which it counts as active (Burda et al. 2016)."""

LEAST = 50
"""Rows at least that tests of an aggregate need."""

LEVEL = 0.05
"""The share of aggregates equal to the prior that may be called different, by both tests together."""

ROWS = 2000
"""Rows at most in an aggregate: the cost grows with their square."""


@dataclass(frozen=True)
class AggregateKL:
    r"""The KL of the ELBO, taken apart.

    $$ E_x KL(q(z|x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)), \qquad q(z) = \frac1N \sum_n q(z \mid x_n) $$

    References:
        Hoffman and Johnson, ELBO surgery, 2016.

    Args:
        mean: the mean KL per row, in nats.
        information: the mutual information of row number and latent, in nats; at most log N.
        aggregate: the KL from the aggregate posterior of these rows to the prior, in nats.
        rows: the number N of rows.
    """

    mean: float
    information: float
    aggregate: float
    rows: int

    @property
    def saturated(self) -> bool:
        """Whether so few rows tell each latent's row apart: then more rows would lower `aggregate`."""
        return self.information > 0.9 * math.log(self.rows)


def aggregate_kl(vae: VAE, x: Tensor, *, seed: int = 0, **given: Tensor) -> AggregateKL:
    """Terms of the mean KL of some rows, by Monte Carlo with one draw per row.

    Args:
        vae: the model; it is evaluated in eval mode.
        x: rows (N, *event_shape); the first 2,000 are used.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The terms; they add up exactly, for they share their draws.
    """
    with evaluation(vae, seed):
        posterior = vae.encode(x[:ROWS], **{name: value[:ROWS] for name, value in given.items()})
        z = posterior.sample()
        count = len(z)
        log_prior = vae.prior().log_prob(z)
        own = posterior.log_prob(z)
        log_aggregate = _log_sum(posterior, z) - math.log(count)
    return AggregateKL(
        mean=float((own - log_prior).mean()),
        information=float((own - log_aggregate).mean()),
        aggregate=float((log_aggregate - log_prior).mean()),
        rows=count,
    )


def _log_sum(posterior: Any, z: Tensor) -> Tensor:
    """Log of the sum of N posterior densities at each of M points (M, D), (M,)."""
    count = posterior.batch_shape[0]
    chunks = [posterior.expand((len(part), count)).log_prob(part.unsqueeze(1)) for part in z.split(250)]
    return torch.cat([chunk.logsumexp(1) for chunk in chunks])


def spread_of_means(vae: VAE, x: Tensor, *, draws: int = 64, seed: int = 0, **given: Tensor) -> Tensor:
    """Unbiased estimate of the variance over rows of each latent's posterior mean, Var_x E[z|x].

    Args:
        vae: the model; it is evaluated in eval mode.
        x: rows (N, *event_shape); the first 2,000 are used.
        draws: draws per row behind each mean.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        Variances (D,); around 0, and perhaps below it, where the means do not vary.
    """
    with evaluation(vae, seed):
        z = vae.encode(x[:ROWS], **{name: value[:ROWS] for name, value in given.items()}).sample((draws,))
    return _spread(z.mean(0), z.var(0), draws)


class _Seen:
    """What a guide says of rows, collected batch by batch.

    Args:
        vae: the model.
        draws: draws per row.
    """

    def __init__(self, vae: VAE, draws: int) -> None:
        self.vae, self.draws, self.prior = vae, draws, vae.prior()
        self.parts: dict[str, list[Tensor]] = {}
        self.why_no_kl = ""

    def look(self, batch: dict[str, Tensor]) -> None:
        """Draw from the guide at a batch of rows."""
        posterior = self.vae.encode(**batch)
        z = posterior.sample((self.draws,))
        first = z[0]
        terms = self._kl(posterior, z)
        seen = {"z": first, "own": posterior.log_prob(first), "log_prior": self.prior.log_prob(first)}
        seen |= {"means": z.mean(0), "variances": z.var(0)} | ({} if terms is None else {"kl": terms})
        for name, tensor in seen.items():
            self.parts.setdefault(name, []).append(tensor)

    def __getitem__(self, name: str) -> Tensor:
        return torch.cat(self.parts[name])

    def _kl(self, posterior: Any, z: Tensor) -> Tensor | None:
        """The KL of each row and latent, (B, D), or None and a reason."""
        for who, distribution in (("guide", posterior), ("prior", self.prior)):
            if not isinstance(distribution, Independent) or distribution.base_dist.event_shape:
                self.why_no_kl = f"the {who}'s {distribution_name(distribution)} is no product over latents"
                return None
        q, p = posterior.base_dist, self.prior.base_dist
        try:
            terms: Tensor = kl_divergence(q, p)
        except NotImplementedError:
            terms = (q.log_prob(z) - p.log_prob(z)).mean(0)
        return terms


def _check_arguments(vae: Any, draws: Any, rows: Any, batch_size: Any, seed: Any) -> None:
    if not isinstance(vae, VAE):
        raise InputError(f"latents looks at a VAE, its encoder and its prior; {type(vae).__name__} is none.")
    check_integers(draws=(draws, 2), rows=(rows, LEAST), batch_size=(batch_size, 1), seed=(seed, 0))


def _spread(means: Tensor, variances: Tensor, draws: int) -> Tensor:
    """The variance of the rows' true means, from means and variances (N, D) of draws."""
    noise = variances.mean(0) / draws * (1 - 1 / len(means))  # what the error of the means adds to their variance
    return means.var(0, correction=0) - noise


@dataclass(frozen=True, eq=False, repr=False)
class Latents:
    r"""How a guide uses its D latents over N rows, and whether their aggregate is the prior.

    $$ E_x KL(q(z|x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)), \qquad q(z) = \frac1N \sum_n q(z \mid x_n) $$

    `information` cannot exceed log N, so of few rows it is too small, and `aggregate` too large by as much.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519.
        Hoffman and Johnson, ELBO surgery, 2016.

    Args:
        kl: the mean KL of each latent from guide to prior, (D,), in nats; None where it is no sum over latents.
        why_no_kl: the reason then; empty otherwise.
        spread: the variance over rows of each latent's posterior mean, (D,), in units of z squared.
        surgery: the KL taken apart: mean, information, aggregate, in nats.
        error: the Monte Carlo standard errors of the three, in nats.
        mmd: the test of draws from the aggregate against draws from the prior by their maximum mean discrepancy.
        classifier: the same by a classifier.
    """

    kl: Tensor | None
    why_no_kl: str
    spread: Tensor
    surgery: AggregateKL
    error: tuple[float, float, float]
    mmd: MMDTest
    classifier: ClassifierTest

    def __len__(self) -> int:
        """Return the number of latents, D."""
        return len(self.spread)

    @property
    def active(self) -> tuple[int, ...]:
        """The latents in use: those whose posterior means vary by more than 0.01."""
        return tuple(torch.nonzero(self.spread > ACTIVE).flatten().tolist())

    @property
    def collapsed(self) -> tuple[int, ...]:
        """The latents that are not in use."""
        return tuple(sorted(set(range(len(self))) - set(self.active)))

    @property
    def p_value(self) -> float:
        """Of an aggregate equal to the prior: by both tests, Bonferroni's correction made."""
        return min(1.0, 2 * min(self.mmd.p_value, self.classifier.p_value))

    @property
    def matches_prior(self) -> bool:
        """Whether no difference of the aggregate from the prior was found."""
        return self.p_value >= LEVEL

    def __repr__(self) -> str:
        """Summarise in some sentences."""
        kl, errors = self.surgery, self.error
        bound = "at least " if kl.saturated else ""
        lines = [
            self._usage(),
            f"KL from guide to prior {kl.mean:.2f} nats per row = {bound}{kl.information:.2f} +- {errors[1]:.2g} of "
            f"mutual information + {kl.aggregate:.2f} +- {errors[2]:.2g} from aggregate to prior ({kl.rows} rows)",
        ]
        if self.kl is not None:
            lines.append(f"KL of each latent, in nats: {', '.join(f'{value:.2g}' for value in self.kl.tolist())}")
        else:
            lines.append(f"No KL of each latent: {self.why_no_kl}.")
        lines += [f"Aggregate and prior: {self.mmd!r}; by a classifier {self.classifier!r}.", self._match()]
        if kl.saturated:
            lines.append(
                f"Warning: the information is close to the log of the number of rows, {math.log(kl.rows):.2f}: more "
                "rows would raise it and lower the KL from aggregate to prior."
            )
        return "\n".join(lines)

    def _usage(self) -> str:
        unused, count = self.collapsed, len(self)
        if not unused:
            return {1: "The latent is active.", 2: "Both latents are active."}.get(
                count, f"All {count} latents are active."
            )
        if len(unused) == count:
            return (
                "Collapse: no latent is used, so the guide says the same of every row. Let the KL grow during "
                "training, weaken the decoder, or train longer."
            )
        named = f"latent {unused[0]} is" if len(unused) == 1 else f"latents {', '.join(map(str, unused))} are"
        return (
            f"Collapse: {named} not used; {len(self.active)} of {count} are active. That costs nothing if the data "
            f"need no more: latent_dim={len(self.active)} does the same. Otherwise let the KL grow during training."
        )

    def _match(self) -> str:
        if self.matches_prior:
            return "No difference between aggregate and prior was found."
        return (
            f"Warning: the aggregate is not the prior ({format_p_value(self.p_value)} by both tests together), so "
            "draws from the model lie where no data lie. A learned prior follows it: prior=pv.VampPrior(), or "
            "pv.Aggregate() after training."
        )


def latents(
    vae: VAE, x: Any, *, draws: int = 64, rows: int = ROWS, batch_size: int = 200, seed: int = 0, progress: bool = True
) -> Latents:
    """Look at how the guide uses the latents, and at their aggregate.

    Args:
        vae: the model.
        x: rows (N, *event_shape), as for `fit`, with `mask` and `size_factor` where the model takes them.
        draws: draws per row behind each posterior mean, and each KL that has no closed form.
        rows: rows at most that are looked at, chosen by the seed: the cost grows with their square.
        batch_size: rows at once.
        seed: of everything random; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        What was found, with its errors.

    Raises:
        InputError: an argument or the data cannot be used.

    >>> import pyro_vae as pv
    >>> _ = torch.manual_seed(0)
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = latents(vae, 3 * torch.randn(200, 3), draws=16)
    >>> found.active, found.surgery.rows
    ((0, 1), 200)
    """
    _check_arguments(vae, draws, rows, batch_size, seed)
    subject = EvaluationSession.of(vae, x)
    if len(subject.rows) < LEAST:
        raise InputError(f"{len(subject.rows)} rows are too few to tell an aggregate by: give at least {LEAST}.")
    with subject.activate(seed):
        chosen = torch.randperm(len(subject.rows))[:rows].to(subject.rows.x.device)
        subject.rows = Rows(subject.rows.batch(chosen))
        seen = _Seen(vae, draws)
        for _, batch in subject.batches(batch_size, "latents", progress):
            seen.look(batch)
        z, own, log_prior = (seen[name] for name in ("z", "own", "log_prior"))
        log_aggregate = torch.full_like(own, -math.inf)
        for _, batch in subject.batches(batch_size, "aggregate", progress):
            log_aggregate = torch.logaddexp(log_aggregate, _log_sum(vae.encode(**batch), z))
        log_aggregate -= math.log(len(z))
        prior = vae.prior().sample((len(z),))
    terms = torch.stack([own - log_prior, own - log_aggregate, log_aggregate - log_prior])
    means, errors = terms.mean(1).tolist(), (terms.std(1) / math.sqrt(len(z))).tolist()
    return Latents(
        kl=None if seen.why_no_kl else seen["kl"].mean(0),
        why_no_kl=seen.why_no_kl,
        spread=_spread(seen["means"], seen["variances"], draws),
        surgery=AggregateKL(means[0], means[1], means[2], len(z)),
        error=(errors[0], errors[1], errors[2]),
        mmd=mmd_test(z, prior, seed=seed),
        classifier=classifier_test(z.cpu(), prior.cpu(), seed=seed),
    )
