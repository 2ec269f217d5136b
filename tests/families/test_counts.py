"""Counts: what the families say in closed form, how a row's size enters, and that they train from any start."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from helpers.cases import in_float64, seeded
from helpers.slow import slow_but
from torch import Tensor

import pyro_vae as pv
from pyro_vae.families import Family
from pyro_vae.families.conditional import Conditional
from pyro_vae.families.site import SiteSpec

OPEN = [
    pv.Poisson(),
    pv.NegativeBinomial(dispersion="per_feature"),
    pv.ZeroInflated(pv.Poisson(), "learned"),
    pv.ZeroInflated(pv.NegativeBinomial()),
]
CLOSED = [pv.Binomial(), pv.BetaBinomial(), pv.ZeroInflated(pv.BetaBinomial(), "per_feature")]


def small(family: Family, event: tuple[int, ...] = (3,), seed: int = 0) -> pv.VAE:
    torch.manual_seed(seed)
    return pv.VAE(event, 2, likelihood=family, encoder=pv.MLP(hidden=(8,), activation="tanh"))


def fit(vae: pv.VAE, batch: Any, **arguments: Any) -> pv.History:
    return pv.fit(vae, batch, **{"epochs": 3, "batch_size": 50, "progress": False, **arguments})


def prior(family: Family, event: tuple[int, ...] = ()) -> Any:
    with in_float64():
        return Conditional(family, SiteSpec("prior", event))()


def successes(trials: Tensor) -> Tensor:
    """Numbers of successes (N, 3) among each row's trials, of three probabilities."""
    return torch.binomial(trials[:, None].expand(-1, 3), torch.tensor([0.1, 0.5, 0.8]).expand(len(trials), 3))


# Closed forms


@pytest.mark.parametrize(("mean", "dispersion"), [(0.3, 2.0), (4.0, 0.5), (30.0, 0.02)])
def test_negative_binomial_is_a_poisson_of_a_gamma_rate(mean: float, dispersion: float) -> None:
    ours, rates = (
        prior(pv.NegativeBinomial(mean, dispersion)),
        scipy.stats.gamma(1 / dispersion, scale=mean * dispersion),
    )
    t = np.linspace(-90, 8, 40_001)  # in log rates, where the trapezoid rule is exact for what falls to 0 at both ends
    for x in (0, 1, 7, 40):
        mixed = np.trapezoid(np.exp(scipy.stats.poisson.logpmf(x, np.exp(t)) + rates.logpdf(np.exp(t)) + t), t)
        log_prob = ours.log_prob(torch.tensor(float(x), dtype=torch.float64)).item()
        assert log_prob == pytest.approx(math.log(mixed), abs=1e-8)
        exact = scipy.stats.nbinom.logpmf(x, 1 / dispersion, 1 / (1 + mean * dispersion))
        assert log_prob == pytest.approx(exact, rel=1e-12)
    assert ours.mean.item() == pytest.approx(mean)
    assert ours.variance.item() == pytest.approx(mean + dispersion * mean**2)


@pytest.mark.parametrize(
    "family", [pv.Poisson(2), pv.NegativeBinomial(2, 0.5), pv.Binomial(6, 0.4), pv.BetaBinomial(6, 2, 3)]
)
@pytest.mark.parametrize("gate_logits", [-2, 0.5, 50])
def test_zero_inflation_adds_zeros_by_hand(family: Family, gate_logits: float) -> None:
    ours, base = prior(pv.ZeroInflated(family, gate_logits)), prior(family)
    shut, open_ = 1 / (1 + math.exp(-gate_logits)), 1 / (1 + math.exp(gate_logits))
    assert ours.mean.item() == pytest.approx(open_ * base.mean.item())
    x = torch.arange(7, dtype=torch.float64)
    by_hand = [shut * (n == 0) + open_ * p for n, p in enumerate(base.log_prob(x).exp().tolist())]
    np.testing.assert_allclose(ours.log_prob(x).exp(), by_hand, rtol=1e-12)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (pv.Normal(), "is continuous, .* such as ZeroInflated"),
        (pv.Bernoulli(grey=True), "is continuous"),
        (pv.MultivariateNormal(), "has elements that depend on each other"),
        (pv.Mixture(pv.Poisson(), 2), "has elements that depend on each other"),
    ],
    ids=repr,
)
def test_zero_inflated_refuses_other_than_counts(family: Family, message: str) -> None:
    with pytest.raises(pv.InputError, match=rf"^ZeroInflated.family = \w+\(.*\) {message}"):
        pv.ZeroInflated(family)


def test_family_without_a_zero_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pv.Poisson, "distribution", From1)
    with pytest.raises(pv.InputError, match="cannot be 0: take a family of counts"):
        pv.ZeroInflated(pv.Poisson())


class From1(torch.distributions.Poisson):
    """A stand-in for counts from 1 on."""

    support = torch.distributions.constraints.positive_integer


def test_gate_of_a_gate_is_refused() -> None:
    with pytest.raises(pv.InputError, match="both have a parameter 'gate_logits'"):
        small(pv.ZeroInflated(pv.ZeroInflated()))


# The size of a row


@pytest.mark.parametrize("family", OPEN + CLOSED, ids=repr)
def test_size_factor_multiplies_the_size_alone(family: Family) -> None:
    decoder, z, size = small(family).likelihood, torch.randn(2, 5, 2), torch.tensor([1.0, 2, 3, 4, 50])
    plain, sized = decoder.values(z), decoder.values(z, size_factor=size)
    changed = {
        name for name, value in plain.items() if value.shape != sized[name].shape or not torch.equal(value, sized[name])
    }
    assert len(changed) == 1
    assert changed <= {"rate", "mean", "total_count"}
    (name,) = changed
    torch.testing.assert_close(sized[name], (plain[name] * size[:, None]).expand(sized[name].shape))
    distribution = decoder(z, size_factor=size)
    assert (distribution.batch_shape, distribution.event_shape) == ((2, 5), (3,))
    by_hand = decoder.distribution(**{**plain, name: sized[name]}).expand((2, 5, 3))
    x = torch.tensor([[1.0, 0, 1]])
    assert torch.equal(distribution.log_prob(x), by_hand.log_prob(x).sum(-1))
    torch.testing.assert_close(distribution.mean, decoder(z).mean * size[:, None])


def test_known_sizes_give_the_rates_of_one_unit() -> None:
    """Two kinds of rows, counted for times that differ tenfold."""
    generator = seeded()
    kinds = torch.tensor([[2.0, 20, 8, 1, 12, 5], [15.0, 3, 8, 6, 2, 5]])
    rates = kinds[torch.randint(2, (200,), generator=generator)]
    size = 0.3 * 10 ** torch.rand(200, generator=generator)
    x = torch.poisson(rates * size[:, None], generator=generator)

    def error(**given: Tensor) -> float:
        vae = small(pv.Poisson(), (6,))
        fit(vae, {"x": x, **given}, epochs=40, optimizer=pv.Adam(0.02))
        found = vae.decode(vae.encode(x, **given).mean).mean
        return ((found / rates).log().abs().mean()).item()

    assert error(size_factor=size) < 0.12
    assert error() > 0.4  # else the sizes would not matter


@pytest.mark.parametrize("family", CLOSED, ids=repr)
def test_trials_differ_between_rows(family: Family) -> None:
    generator = seeded()
    trials = torch.randint(1, 9, (100,), generator=generator).float()
    x = successes(trials)
    vae = small(family)
    fit(vae, {"x": x, "size_factor": trials})
    vae.check({"x": trials[:, None].expand(-1, 3), "size_factor": trials})
    replicates = torch.stack([vae.reconstruct(x, size_factor=trials) for _ in range(50)])
    assert bool((replicates <= trials[:, None]).all())
    assert bool((replicates == trials[:, None]).any())
    too_many = x.clone()
    too_many[7, 1] = trials[7] + 1
    with pytest.raises(
        pv.InputError, match=r"x\[7, 1\] = .* outside of the support .* raise total_count .*size_factor"
    ):
        vae.check({"x": too_many, "size_factor": trials})
    with pytest.raises(pv.InputError, match=r"support .* each row's as size_factor, an integer"):
        vae.check({"x": torch.zeros(100, 3), "size_factor": trials + 0.5})
    with pytest.raises(pv.InputError, match="raise total_count"):
        vae.check({"x": x})


def test_trials_differ_between_elements() -> None:
    vae = small(pv.Binomial([1, 4, 9]))
    vae.check({"x": torch.tensor([[1.0, 4, 9]]).expand(7, 3)})
    with pytest.raises(pv.InputError, match=r"x\[0, 0\] = 2"):
        vae.check({"x": torch.full((7, 3), 2.0)})
    with pytest.raises(pv.InputError, match=r"guide=Binomial.* has support the integers in \[0.0, \(1.0, 4.0\)\]"):
        pv.VAE((3,), 2, guide=pv.Binomial([1, 4]))


@pytest.mark.parametrize("family", OPEN, ids=repr)
@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_data_that_are_not_counts_are_refused_with_a_fix(family: Family, value: float) -> None:
    with pytest.raises(pv.InputError, match=r"x\[0, 0\] = .* integers from 0 on, so undo .* size_factor"):
        small(family).check({"x": torch.full((2, 3), value)})


# Training


@pytest.mark.parametrize("family", OPEN + CLOSED, ids=repr)
def test_masked_counts_change_nothing(family: Family) -> None:
    trials = torch.full((60,), 4.0)
    x = successes(trials)
    given = {"mask": torch.rand(x.shape, generator=seeded()) > 0.3, "size_factor": trials}
    histories = [
        fit(small(family), {"x": torch.where(given["mask"], x, junk), **given})["loss"]
        for junk in (math.nan, -1.0, 3.0)
    ]
    assert all(np.array_equal(history, histories[0]) for history in histories)
    assert histories[0][-1] < histories[0][0]


def hard(generator: torch.Generator) -> dict[str, Tensor]:
    """Counts with which a careless start ends in NaN, (200, 3) each."""
    zero = torch.zeros(200, 3)
    rare = zero.clone()
    rare[0, 0] = 1
    columns = torch.tensor([3.0, 0, 1e5]).expand(200, 3).clone()
    columns[:, 0] = torch.poisson(columns[:, 0], generator=generator)
    bursts = torch.poisson(1e5 * torch.rand(200, 3, generator=generator) ** 20, generator=generator)
    return {
        "all zero": zero,
        "one count": rare,
        "constant columns of 0 and of 1e5": columns,
        "0 to 1e5": bursts,
    }


@pytest.mark.parametrize("family", OPEN, ids=repr)
def test_hard_counts_train_from_where_they_start(family: Family) -> None:
    for name, x in hard(seeded()).items():
        vae = small(family)
        vae.initialize(x)
        start = vae.likelihood(torch.zeros(2)).base_dist
        assert bool((start.mean > 1e-4).all()), name  # not at the floor, where there is no gradient
        assert bool((start.mean <= 2 * x.mean(0).clamp(min=0.0025)).all()), name
        history = fit(vae, x, epochs=6, batch_size=100, optimizer=pv.Adam(0.01))
        assert np.isfinite(history["loss"]).all(), name
        assert history["loss"][-1] < history["loss"][0], name
        assert all(bool(torch.isfinite(weight).all()) for weight in vae.parameters()), name


@pytest.mark.parametrize("family", CLOSED, ids=repr)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_trials_that_all_end_alike_train(family: Family, share: float) -> None:
    trials = torch.full((100,), 1e5)
    history = fit(
        small(family),
        {"x": share * trials[:, None].expand(-1, 3), "size_factor": trials},
        epochs=10,
        optimizer=pv.Adam(0.01),
    )
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


def test_float32_is_as_exact_as_the_docstrings_say() -> None:
    for mean in (1e-3, 0.1, 1.0, 10.0, 100.0, 1e4, 1e5):
        for dispersion in (1e-3, 1e-2, 0.1, 1.0, 1e3):
            both = [
                pv.NegativeBinomial.distribution(*torch.tensor([mean, dispersion], dtype=dtype), False)
                for dtype in (torch.float64, torch.float32)
            ]
            torch.manual_seed(0)
            x = both[0].sample((100,))
            wrong = (both[1].log_prob(x.float()) - both[0].log_prob(x)).abs()
            assert bool((wrong < 0.002 + 3e-7 * x * torch.log1p(x)).all()), (mean, dispersion)


# Large counts


@pytest.mark.parametrize("mean", slow_but([3e6], [1e3, 1e5, 3e6]))
@pytest.mark.parametrize("family", [pv.Poisson(), pv.NegativeBinomial(), pv.Binomial(2**24)], ids=repr)
def test_factor_of_large_counts_is_found(family: Family, mean: float) -> None:
    generator = np.random.default_rng(0)
    rates = mean * np.exp(3 / math.sqrt(mean) * generator.normal(size=(400, 1)) * np.array([1.0, -1.0, 0.5]))
    x = generator.poisson(rates).astype(float)
    vae = small(family)
    loss = fit(vae, x, epochs=60, optimizer=pv.Adam(0.01))["loss"][-1]
    weights = np.array([1.0, -1.0, 0.5])
    covariance = mean * (np.eye(3) + 9 * np.outer(weights, weights))
    independent = 0.5 * np.log(2 * np.pi * np.e * np.diag(covariance)).sum()
    right = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    assert right - 0.3 < loss < (right + independent) / 2


@pytest.mark.parametrize("double", [False, True])
def test_counts_beyond_the_exact_ones_are_refused_by_what_takes_them(double: bool) -> None:
    vae = small(pv.Poisson())
    vae = vae.double() if double else vae
    x = np.random.default_rng(0).poisson(6e7 if double else 3e7, size=(60, 3)).astype(float)
    with pytest.raises(pv.InputError, match="no rate follows it" if double else "float32 skips integers") as refusal:
        fit(vae, x)
    *doubled, likelihood = [part.split("`")[0] for part in str(refusal.value).split("`")[1::2]]
    assert np.isfinite(fit(small(eval(likelihood.removeprefix("likelihood="), {"pv": pv})), x)["loss"]).all()
    for advice in doubled:
        eval(advice, {"vae": vae})
        assert fit(vae, x, epochs=20)["loss"][-1] < 1.5 * math.log(2 * math.pi * math.e * 3e7) + 2
