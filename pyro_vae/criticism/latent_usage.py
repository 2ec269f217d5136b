"""Latent usage: active and collapsed latents, and the distance of the aggregate posterior from the prior."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.formatting import format_p_value
from pyro_vae.criticism.session import EvaluationSession, evaluation
from pyro_vae.criticism.two_sample_tests import MIN_ROWS, ClassifierTest, MMDTest, classifier_test, mmd_test
from pyro_vae.data.rows import Rows
from pyro_vae.distributions.wrappers import distribution_name
from pyro_vae.model.vae import VAE

ACTIVE = 0.01
"""Variance over rows of the posterior mean of a latent above which it is active (Burda et al. 2016)."""

LEVEL = 0.05
"""Significance level of both tests of the aggregate together."""

MAX_ROWS = 2000
"""Maximum number of rows of an aggregate, whose cost grows with its square."""


@dataclass(frozen=True)
class AggregateKL:
    r"""Decomposition of the mean KL of the ELBO.

    $$ E_x KL(q(z|x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)), \qquad q(z) = \frac1N \sum_n q(z \mid x_n) $$

    References:
        Hoffman and Johnson, ELBO surgery, 2016 [hoffman2016].

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
        """Whether the information is close to its maximum log N, so that more rows would lower `aggregate`."""
        return self.information > 0.9 * math.log(self.rows)


@explained
def aggregate_kl(vae: VAE, x: Any, *, seed: int = 0, **given: Any) -> AggregateKL:
    """Terms of the mean KL of rows, by Monte Carlo with one draw per row.

    Args:
        vae: the model; it is evaluated in eval mode.
        x: rows (N, *event_shape), as for `fit`; the first 2,000 are used.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        The terms, which add up exactly, since they share their draws.
    """
    with evaluation(vae, seed):
        posterior = vae.encode(_first_rows(vae.as_batch(x, **given)))
        z = posterior.sample()
        count = len(z)
        terms = _kl_terms(posterior.log_prob(z), vae.prior().log_prob(z), _log_sum(posterior, z) - math.log(count))
    mean, information, aggregate = terms.mean(1).tolist()
    return AggregateKL(mean, information, aggregate, count)


def _first_rows(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[:MAX_ROWS] for name, tensor in batch.items()}


def _kl_terms(own: Tensor, log_prior: Tensor, log_aggregate: Tensor) -> Tensor:
    """Mean KL, information and aggregate KL of each draw, (3, N), from its log densities under q(z|x), p(z), q(z)."""
    return torch.stack([own - log_prior, own - log_aggregate, log_aggregate - log_prior])


def _log_sum(posterior: Any, z: Tensor) -> Tensor:
    """Logs (M,) of the sum of N posterior densities at each of M points (M, D)."""
    count = posterior.batch_shape[0]
    chunks = [posterior.expand((len(part), count)).log_prob(part.unsqueeze(1)) for part in z.split(250)]
    return torch.cat([chunk.logsumexp(1) for chunk in chunks])


@explained
def spread_of_means(vae: VAE, x: Any, *, draws: int = 64, seed: int = 0, **given: Any) -> Tensor:
    """Unbiased estimate of the variance over rows of each latent's posterior mean, Var_x E[z|x].

    Args:
        vae: the model; it is evaluated in eval mode.
        x: rows (N, *event_shape), as for `fit`; the first 2,000 are used.
        draws: draws per row behind each mean.
        seed: of the draws; the global random state is left as it was.
        given: further named tensors of these rows, as for `VAE.guide`.

    Returns:
        Variances (D,); around 0, and perhaps below it, where the means do not vary.
    """
    with evaluation(vae, seed):
        z = vae.encode(_first_rows(vae.as_batch(x, **given))).sample((draws,))
    return _spread(z.mean(0), z.var(0), draws)


def _describe_dependence(posterior: Any, prior: Any) -> str:
    """Why the KL is not a sum over latents; empty if it is."""
    for who, distribution in (("guide", posterior), ("prior", prior)):
        if not isinstance(distribution, Independent) or distribution.base_dist.event_shape:
            return f"the {who}'s {distribution_name(distribution)} is not a product over latents"
    return ""


def _kl_by_latent(posterior: Any, prior: Any, z: Tensor) -> Tensor:
    """KL of each row and latent, (B, D), in closed form or by draws z (S, B, D)."""
    q, p = posterior.base_dist, prior.base_dist
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        terms: Tensor = (q.log_prob(z) - p.log_prob(z)).mean(0)
        return terms


def _spread(means: Tensor, variances: Tensor, draws: int) -> Tensor:
    """Unbiased variances (D,) over rows of true means, from means and variances (N, D) of draws."""
    noise = variances.mean(0) / draws * (1 - 1 / len(means))  # the Monte Carlo variance of the means
    return means.var(0, correction=0) - noise


@dataclass(frozen=True, eq=False, repr=False)
class Latents:
    r"""Usage of D latents by a guide over N rows, and tests of the aggregate posterior against the prior.

    $$ E_x KL(q(z|x) \| p(z)) = I_q(x; z) + KL(q(z) \| p(z)), \qquad q(z) = \frac1N \sum_n q(z \mid x_n) $$

    `information` cannot exceed log N, so of few rows it is too small, and `aggregate` too large by as much.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016 [burda2016],
            https://arxiv.org/abs/1509.00519.
        Hoffman and Johnson, ELBO surgery, 2016 [hoffman2016].

    Args:
        kl: the mean KL of each latent from guide to prior, (D,), in nats; None where it is not a sum over latents.
        why_no_kl: the reason why `kl` is None; empty otherwise.
        spread: the variance over rows of each latent's posterior mean, (D,), in units of z squared.
        surgery: the decomposition of the mean KL.
        mcse: the Monte Carlo standard errors of its mean, information and aggregate, in nats.
        mmd: the MMD test of draws from the aggregate against draws from the prior.
        classifier: the classifier test of the same draws.
    """

    kl: Tensor | None
    why_no_kl: str
    spread: Tensor
    surgery: AggregateKL
    mcse: tuple[float, float, float]
    mmd: MMDTest
    classifier: ClassifierTest

    def __len__(self) -> int:
        """Return the number of latents, D."""
        return len(self.spread)

    @property
    def active(self) -> tuple[int, ...]:
        """Indices of the active latents: those whose posterior means have a variance above 0.01."""
        return tuple(torch.nonzero(self.spread > ACTIVE).flatten().tolist())

    @property
    def collapsed(self) -> tuple[int, ...]:
        """Indices of the latents that are not active."""
        return tuple(sorted(set(range(len(self))) - set(self.active)))

    @property
    def p_value(self) -> float:
        """P-value of equality of aggregate and prior, by both tests with Bonferroni's correction."""
        return min(1.0, 2 * min(self.mmd.p_value, self.classifier.p_value))

    @property
    def matches_prior(self) -> bool:
        """Whether neither test found a difference of the aggregate from the prior."""
        return self.p_value >= LEVEL

    def __repr__(self) -> str:
        """Summary in a few sentences."""
        kl, errors = self.surgery, self.mcse
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
                "Collapse: no latent is used, so the guide is the same for every row. Let the KL grow during "
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


@explained
def latents(
    vae: VAE,
    x: Any,
    *,
    draws: int = 64,
    rows: int = MAX_ROWS,
    batch_size: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Latents:
    """Usage of the latents by the guide, and tests of their aggregate posterior.

    Args:
        vae: the model.
        x: rows (N, *event_shape), as for `fit`, with `mask` and `size_factor` where the model takes them.
        draws: draws per row behind each posterior mean, and each KL that has no closed form.
        rows: maximum number of rows, chosen by the seed: the cost grows with its square.
        batch_size: rows at once.
        seed: of everything random; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        Usage, decomposition of the KL and tests, with errors.

    Raises:
        InputError: an argument or the data cannot be used.

    >>> import pyro_vae as pv
    >>> _ = torch.manual_seed(0)
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> found = latents(vae, 3 * torch.randn(200, 3), draws=16)
    >>> found.active, found.surgery.rows
    ((0, 1), 200)
    """
    if not isinstance(vae, VAE):
        raise InputError(f"latents takes a pv.VAE, not {type(vae).__name__}: it needs guide and prior of one latent.")
    check_integers(draws=(draws, 2), rows=(rows, MIN_ROWS), batch_size=(batch_size, 1), seed=(seed, 0))
    session = EvaluationSession.of(vae, x)
    if len(session.rows) < MIN_ROWS:
        raise InputError(f"{len(session.rows)} rows are too few for tests of an aggregate: give at least {MIN_ROWS}.")
    with session.activate(seed):
        chosen = torch.randperm(len(session.rows))[:rows].to(session.rows.x.device)
        session.rows = Rows(session.rows.batch(chosen))
        prior, why_no_kl, parts = vae.prior(), "", list[tuple[Tensor, ...]]()
        for _, batch in session.batches(batch_size, "latents", progress):
            posterior = vae.encode(**batch)
            samples = posterior.sample((draws,))
            first = samples[0]
            why_no_kl = _describe_dependence(posterior, prior)
            kl = () if why_no_kl else (_kl_by_latent(posterior, prior, samples),)
            densities = posterior.log_prob(first), prior.log_prob(first)
            parts.append((first, *densities, samples.mean(0), samples.var(0), *kl))
        z, own, log_prior, posterior_means, variances, *rest = (torch.cat(part) for part in zip(*parts, strict=True))
        log_aggregate = torch.full_like(own, -math.inf)
        for _, batch in session.batches(batch_size, "aggregate", progress):
            log_aggregate = torch.logaddexp(log_aggregate, _log_sum(vae.encode(**batch), z))
        log_aggregate -= math.log(len(z))
        prior_draws = vae.prior().sample((len(z),))
    terms = _kl_terms(own, log_prior, log_aggregate)
    means, errors = terms.mean(1).tolist(), (terms.std(1) / math.sqrt(len(z))).tolist()
    return Latents(
        kl=rest[0].mean(0) if rest else None,
        why_no_kl=why_no_kl,
        spread=_spread(posterior_means, variances, draws),
        surgery=AggregateKL(means[0], means[1], means[2], len(z)),
        mcse=(errors[0], errors[1], errors[2]),
        mmd=mmd_test(z, prior_draws, seed=seed),
        classifier=classifier_test(z.cpu(), prior_draws.cpu(), seed=seed),
    )
