"""Predictive checks: would data like these come out of this model?

Replicates are drawn from the likelihood (a draw, not its mean), and test statistics, ranks and classifiers compare
them with the data. A few data sets are in memory at a time, however many are drawn.
"""

import copy
import importlib.metadata
from typing import Any, Literal

import xarray as xr

from pyro_vae.core.calls import explained
from pyro_vae.core.errors import InputError, check_integers
from pyro_vae.core.progress import progress_bar
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.accumulator import PredictiveAccumulator
from pyro_vae.criticism.datatree import to_datatree
from pyro_vae.criticism.sampler import KINDS
from pyro_vae.criticism.session import EvaluationSession
from pyro_vae.criticism.test_statistics import StatisticsArgument
from pyro_vae.data.rows import Rows, fingerprint, observed_mask
from pyro_vae.model.programs import Programs, Traits, check_programs
from pyro_vae.model.vae import VAE

MIN_DRAWS = 500
"""Minimum number of replicates by default."""

DRAWS_PER_STATISTIC = 40
"""Replicates for each test statistic, so that one of them alone can be significant at a false discovery rate of 5 %."""


@explained
def predictive_check(
    vae: Programs,
    x: Any,
    *,
    kind: Literal["population", "posterior", "prior"] = "population",
    statistics: StatisticsArgument = None,
    draws: int | None = None,
    candidates: int = 1,
    keep: int = 100,
    two_sample: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> xr.DataTree:
    r"""Predictive check: data compared with replicates drawn by a model.

    | kind | replicates | question |
    |---|---|---|
    | `"population"` | $z \sim p(z)$, $x \sim p(x \mid z)$ | whether the fitted model describes new data |
    | `"posterior"` | $z_n \sim q(z \mid x_n)$, $x'_n \sim p(x' \mid z_n)$ | whether it can describe these rows again |
    | `"prior"` | as for the population, before a fit | whether the model can make such data |

    Posterior replicates have seen the data, so agreement with them is conservative, for the right model too.

    Of S replicates, each test statistic T has the two-sided tail probability
    $2 \min\{\Pr(T' \le T), \Pr(T' \ge T)\}$, where the data count as one more replicate. For held-out data and the
    right population it is at most a with probability at most a, apart from the estimation of parameters. Missing values
    of a mask are the same in data and replicates, and have no ranks.

    `arviz_stats.loo` and `arviz_plots.plot_loo_pit` do not apply: a row that is left out takes its latents with
    it, so that its predictive density is log p(x) (`pv.evidence`, whose `to_elpd()` ArviZ compares), and its PIT that
    of the population.

    References:
        Rubin, Bayesianly Justifiable and Relevant Frequency Calculations for the Applied Statistician, 1984
            [rubin1984].
        Gelman, Meng and Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, 1996
            [gelman1996].
        Gabry, Simpson, Vehtari, Betancourt and Gelman, Visualization in Bayesian Workflow, 2019 [gabry2019],
            https://arxiv.org/abs/1709.01449.

    Args:
        vae: a `VAE`, or any pair of Pyro programs that observe `x`.
        x: rows (N, *event_shape) as for `fit`, held out from training.
        kind: the kind of replicates.
        statistics: test statistics: names in `pv.criticism.STATISTICS`, `pv.criticism.Statistic`s, or a mapping of
            names to functions of x; by default all that suit the data.
        draws: replicates S of all rows; by default 40 for each test statistic, and at least 500.
        candidates: for `"posterior"`, the number of draws from the guide from which each z is chosen by importance
            weight: the more, the less the guide's error matters; 1 takes draws of the guide.
        keep: the number of rows, and of replicates of each, that are returned; fewer where rows are large.
        two_sample: whether one replicate is compared with the data by a classifier, MMD, and density and coverage.
        seed: of everything random; the global random state is left as it was.
        progress: whether to show progress in a terminal.

    Returns:
        A tree in ArviZ's form: `observed_data` and `posterior_predictive` (`prior_predictive`) of the rows that are
        kept, every value of `statistics`, `checks` of each, `calibration`, tails of `rows`, `two_sample`.
        `pv.criticism.findings(tree)` summarises it in sentences, `tree.to_netcdf` saves it.

    Raises:
        InputError: an argument or the data cannot be used, or the programs cannot draw data.
        FloatingPointError: a replicate is not finite.

    >>> import torch, pyro_vae as pv
    >>> vae = pv.VAE((3,), 2, likelihood=pv.Normal(scale=1), encoder=pv.MLP(hidden=(8,)))
    >>> tree = predictive_check(vae, torch.randn(200, 3), draws=20, two_sample=False)
    >>> tree["posterior_predictive"]["x[0]"].shape
    (1, 20, 100)
    """
    check_programs(vae, "predictive_check")
    if kind not in KINDS:
        raise InputError(f"kind = {kind!r} is none of {', '.join(f'{k!r} ({v})' for k, v in KINDS.items())}.")
    for name, value in (("two_sample", two_sample), ("progress", progress)):
        if not isinstance(value, bool):
            raise InputError(f"{name} = {value!r} has to be True or False.")
    if isinstance(seed, int) and seed >= 2**32:
        raise InputError(f"seed = {seed} is too large: take one below 2**32.")
    check_integers(candidates=(candidates, 1), keep=(keep, 1), seed=(seed, 0))
    check_integers(**({} if draws is None else {"draws": (draws, 2)}))
    if candidates > 1 and kind != "posterior":
        raise InputError(
            f"candidates={candidates} are draws of z given x, which {kind} replicates lack: take kind='posterior'."
        )
    session = EvaluationSession.of(vae, x)
    given = session.rows
    if kind == "prior":
        session = _with_starting_values(session)
    with session.activate(seed):
        batch = session.rows.to(session.device, session.dtype).batch()
        accumulator = PredictiveAccumulator(
            session.programs, batch, tuple(given.features), kind, statistics, candidates, keep
        )
        draws = max(MIN_DRAWS, DRAWS_PER_STATISTIC * len(accumulator.evaluator.scalars)) if draws is None else draws
        with progress_bar(progress) as bar:
            task = bar.add_task(f"{kind} replicates", total=draws)
            for done in accumulator.run(draws):
                bar.update(task, completed=done)
        groups = accumulator.to_datasets(two_sample, seed)
    attrs = {
        "kind": kind,
        "draws": draws,
        "rows": len(given),
        "seed": seed,
        "candidates": candidates,
        "event_shape": list(given.event_shape),
        "discrete": accumulator.data_kind.discrete,
        "model": _describe_model(vae),
        "data": {**given.source, "fingerprint": fingerprint(given.x)},
        "notes": [*_notes(vae, given, kind, candidates), *accumulator.notes],
        "pyro_vae_version": importlib.metadata.version("pyro-vae"),
    }
    return to_datatree(groups, attrs)


def _with_starting_values(session: EvaluationSession) -> EvaluationSession:
    """Session of a copy of a VAE with its starting values; of other programs, the session itself."""
    vae = session.programs
    if not isinstance(vae, VAE):
        return session
    with seeded(None, session.device):
        vae = copy.deepcopy(vae).initialize(**session.rows.to(session.device).batch())
    return EvaluationSession.of(vae, session.rows)


def _notes(vae: Programs, rows: Rows, kind: str, candidates: int) -> list[str]:
    """Sentences that qualify the results."""
    found = []
    trained_on = Traits.of(vae).trained_on
    if kind == "prior" and not trained_on:
        found.append(
            "The weights are initial values, not draws from a prior over weights: these replicates show where training "
            "starts, not all that the model can become."
        )
        if isinstance(vae, VAE) and not bool(vae.likelihood.initialized):
            found.append("Their starting values come from these rows, so that means and spreads agree by construction.")
    elif kind == "prior":
        found.append(
            "The weights are those of the fitted model: for where training starts, give one that is not fitted."
        )
    if rows.source.get("split") == "train" or (trained_on and trained_on == fingerprint(rows.x)):
        found.append(
            "The model is trained on these rows, so its results are better than for new ones: take held-out ones."
        )
    if kind == "posterior":
        found.append(
            "Posterior replicates have seen the rows they replicate, so agreement is conservative: calibration is "
            "measured by kind='population', or on left-out features."
        )
    if candidates > 1:
        found.append(f"Each z is one of {candidates} draws from the guide, chosen by its importance weight.")
    mask = observed_mask(rows.tensors)
    if mask is not None and not bool(mask.all()):
        missing = int((~mask.bool()).sum())
        found.append(
            f"{missing} of {mask.numel()} values are missing. Test statistics of features omit them; those of "
            "rows and of all data take them as filled, in data and replicates alike, which shrinks differences."
        )
    return found


def _describe_model(vae: Programs) -> str:
    if not isinstance(vae, VAE):
        return type(vae).__name__
    declared = vae.declaration
    return (
        f"prior {declared.prior!r}, likelihood {declared.likelihood!r}, guide {declared.guide!r}, "
        f"{declared.latent_dim} latents"
    )
