"""Programs of the user's own: what they are made of is found, and each works as under Pyro's ELBO or is refused."""

import functools
import types
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.fitting import fit
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger
from torch import Tensor

import pyro_vae as pv
from pyro_vae.objectives.structure import structure_of

ANNEALED = pv.criticism.AIS(chains=2, temperatures=3)
FEW = pv.criticism.Importance(draws=400)


def pair(model: Callable[..., Any], guide: Callable[..., Any]) -> Any:
    return types.SimpleNamespace(model=model, guide=guide)


def by_rows(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def exact(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def log_p(x: Tensor) -> Tensor:
    return dist.Normal(0.0, 2**0.5).log_prob(x)


# Rows


def features_at_the_right(size: int) -> tuple[Any, Any]:
    def model(x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("features", size, dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("features", size, dim=-1):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    return model, guide


@pytest.mark.parametrize("rows", [2, 3, 6])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_features_are_never_taken_for_rows(size: int, rows: int) -> None:
    programs = pair(*features_at_the_right(size))
    assert not structure_of(programs.model, programs.guide, (), {"x": torch.randn(rows, size)}).row_plates
    with pytest.raises(pv.InputError, match=r'pyro.plate\("data", x.shape\[0\], dim=-1\)'):
        pv.evidence(programs, torch.randn(rows, size), method=FEW, progress=False)
    with pytest.raises(pv.InputError, match="as 1"):
        pv.evidence(
            programs, torch.randn(rows, size), method=pv.criticism.AIS(chains=2, temperatures=3), progress=False
        )


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_rows_beside_a_plate_of_as_many_features_are_rows(rows: int) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("features", 3, dim=-2), pyro.plate("rows", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x: Tensor) -> None:
        with pyro.plate("features", 3, dim=-2), pyro.plate("rows", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))

    x = torch.randn(rows, 3)
    found = pv.evidence(pair(model, guide), x, method=FEW, progress=False).pointwise
    torch.testing.assert_close(found, log_p(x).sum(1).double(), rtol=1e-4, atol=1e-4)


def test_plate_over_a_part_of_the_data_does_not_scale_the_history() -> None:
    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", 200, subsample_size=len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(0.5**0.5))
        with pyro.plate("data", 200, subsample_size=len(x), dim=-1):
            pyro.sample("z", dist.Normal(x / 2, scale))

    x = torch.randn(200) * 2**0.5
    history = fit(pair(subsampled, guide), x, epochs=1, optimizer=pv.Adam(1e-9))
    expected = -float(log_p(x).mean())
    assert history.last["loss"] == pytest.approx(expected, abs=1e-3)
    assert history.last["kl"] - history.last["log_likelihood"] == pytest.approx(expected, abs=1e-3)


# Guides


def test_analytic_kl_of_another_order_is_refused_where_a_prior_depends_on_it() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
            z2 = pyro.sample("z2", dist.Normal(z1, 1.0))
            pyro.sample("x", dist.Normal(z2, 1.0), obs=x)

    def guide(x: Tensor) -> None:  # the exact posterior
        with pyro.plate("data", len(x), dim=-1):
            z2 = pyro.sample("z2", dist.Normal(2 / 3 * x, (2 / 3) ** 0.5))
            pyro.sample("z1", dist.Normal(z2 / 2, 0.5**0.5))

    def independent(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z1 + z2, 1.0), obs=x)

    x = torch.randn(400) * 3**0.5
    exact = -float(dist.Normal(0.0, 3**0.5).log_prob(x).sum())
    assert pv.objectives.ELBO().loss(model, guide, x=x) == pytest.approx(exact, rel=1e-5)
    with pytest.raises(pv.InputError, match=r"draws 'z2' before 'z1'.*take kl='sampled'"):
        pv.objectives.ELBO(kl="analytic").loss(model, guide, x=x)
    torch.manual_seed(0)
    values = [pv.objectives.ELBO(kl=kl, particles=200).loss(independent, guide, x=x) for kl in ("sampled", "analytic")]
    assert values[0] == pytest.approx(values[1], rel=0.02)


@pytest.mark.parametrize("event", [3, 2])
def test_latents_of_another_shape_are_refused(event: int) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(event))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    for use in (
        lambda: fit(pair(model, guide), torch.randn(50)),
        lambda: pv.evidence(pair(model, guide), torch.randn(9)),
    ):
        with pytest.raises(
            pv.InputError, match=rf"draws 'z' in shape \(\d+, {event}\), and in the model .* \(\d+, 1\)"
        ):
            use()


def test_global_latent_drawn_for_each_row_is_refused() -> None:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("m", dist.Normal(x / 2, 1.0))

    with pytest.raises(pv.InputError, match="draws 'm' in shape"):
        pv.objectives.ELBO().loss(model, guide, x=torch.randn(5))


def test_discrete_guide_is_weighed_ranked_and_checked() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5])))
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.0])[k], 1.0), obs=x)

    def guide(x: Tensor) -> None:  # the exact posterior
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Categorical(logits=torch.stack([-x, x], -1)))

    x, programs = torch.randn(60), pair(model, guide)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.5, 0.5])), dist.Normal(torch.tensor([-1.0, 1.0]), 1.0)
    )
    found = pv.evidence(programs, x, method=FEW, progress=False).pointwise
    torch.testing.assert_close(found, mixture.log_prob(x).double(), rtol=1e-4, atol=1e-4)
    assert pv.criticism.sbc(programs, given=x, simulations=60, draws=19, progress=False).passed
    pv.predictive_check(programs, x, draws=20, two_sample=False, progress=False)
    with pytest.raises(pv.InputError, match="reparameterised"):
        fit(programs, x)


@pytest.mark.parametrize("where", ["model", "guide"])
def test_deterministic_sites_change_nothing(where: str) -> None:
    def model(x: Tensor) -> None:
        if where == "model":
            pyro.deterministic("w", torch.tensor(2.0))
        by_rows(x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            loc = 0.3 * x
            if where == "guide":
                loc = pyro.deterministic("loc", loc)
            pyro.sample("z", dist.Normal(loc, 0.9))

    x = torch.randn(50)
    for objective in (pv.objectives.ELBO(), pv.objectives.IWAE(particles=20)):
        losses = []
        for programs in ((model, guide), (by_rows, lambda x: exact_width(x))):
            torch.manual_seed(0)
            losses.append(objective.loss(*programs, x=x))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(pv.evidence(pair(model, guide), x, method=FEW, progress=False)) == 50


def exact_width(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(0.3 * x, 0.9))


def test_factor_in_a_guide_is_refused_by_the_line_for_the_model() -> None:
    def model(x: Tensor, factor: bool = False) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        if factor:
            pyro.factor("f", 0.1 * a**2)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(a, 1.0), obs=x)

    def guide(x: Tensor, factor: bool = True) -> None:
        a = pyro.sample("a", dist.Normal(pyro.param("m", torch.tensor(0.0)), 0.5))
        if factor:
            pyro.factor("f", -0.1 * a**2, has_rsample=True)

    x = torch.randn(20)
    with pytest.raises(pv.InputError, match=r"move it into the model .* pyro.factor\('f', -log_factor\)"):
        pv.objectives.ELBO().loss(model, guide, x=x)
    values = []
    for loss, ours in ((Trace_ELBO(), False), (pv.objectives.ELBO(), True)):
        torch.manual_seed(0)
        programs = (functools.partial(model, factor=ours), functools.partial(guide, factor=not ours))
        values.append(loss.loss(*programs, x))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_messenger_guide_has_the_loss_of_trace_elbo() -> None:
    def model(x: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(a, 1.0), obs=x)

    guide, x = AutoNormalMessenger(model), torch.randn(20)
    guide(x)
    values = []
    for loss in (Trace_ELBO(), pv.objectives.ELBO()):
        torch.manual_seed(0)
        values.append(loss.loss(model, guide, x))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_nothing_to_train_has_a_loss_under_svi() -> None:
    x = torch.randn(50)
    loss = SVI(by_rows, exact, pyro.optim.Adam({"lr": 0.1}), pv.objectives.ELBO()).step(x)
    assert loss == pytest.approx(-float(log_p(x).sum()), rel=1e-5)


# Batches


def hierarchy(x: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(m, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def a_number_each(x: Tensor) -> None:
    loc = pyro.param("l", lambda: torch.zeros(len(x)))
    pyro.sample("m", dist.Normal(pyro.param("a", torch.tensor(0.0)), 0.2))
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(loc, 0.4))


@pytest.mark.parametrize("guide", [lambda: AutoNormal(hierarchy), lambda: a_number_each], ids=["AutoNormal", "param"])
def test_guide_with_a_value_of_each_row_is_fitted_to_all_rows_at_once(guide: Callable[[], Any]) -> None:
    x, made = torch.randn(60), guide()
    with pytest.raises(pv.InputError, match=r"write batch_size=60"):
        fit(pair(hierarchy, made), x, batch_size=20)
    first, *_, last = fit(pair(hierarchy, made), x, batch_size=60, epochs=60, optimizer=pv.Adam(0.05))["loss"]
    assert last < first
    with pytest.raises(pv.InputError, match="leave validation out"):
        fit(pair(hierarchy, made), x, batch_size=60, validation=x[:10])


def test_shared_latent_in_batches_is_refused_and_scaled_rows_are_not() -> None:
    def model(x: Tensor, rows: int = 0) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 5.0))
        with pyro.plate("data", rows or len(x), subsample_size=len(x) if rows else None, dim=-1):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))

    x = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 1
    with pytest.raises(
        pv.InputError, match=r"share the latent 'm'.*batch_size=400.*subsample_size=len\(x\)"
    ) as refusal:
        fit(pair(model, guide), x, batch_size=50)
    assert "pyro.plate('data', 400, subsample_size=len(x), dim=-1)" in str(refusal.value)
    for rows, batch_size in ((0, 400), (400, 50)):  # from the exact posterior, which that of one batch is far from
        pyro.clear_param_store()
        pyro.param("scale", torch.tensor(0.05), constraint=dist.constraints.positive)
        pyro.param("loc", x.mean())
        made, objective = pair(functools.partial(model, rows=rows), guide), pv.objectives.ELBO(particles=20)
        fit(
            made, x, batch_size=batch_size, epochs=400 * batch_size // 400, optimizer=pv.Adam(0.01), objective=objective
        )
        assert 0.03 < float(pyro.param("scale").detach()) < 0.08  # 1 / sqrt(400), and 1 / sqrt(50) = 0.14


def test_rows_that_share_a_latent_get_no_verdict_that_takes_them_for_independent() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.0, 5.0))

    for seed in range(3):
        torch.manual_seed(seed)
        x = 5 * torch.randn(()) + 1.25**0.5 * torch.randn(60)
        tree = pv.predictive_check(pair(hierarchy, guide), x, draws=60, seed=seed, progress=False)
        said = " ".join(pv.criticism.findings(tree))
        assert "All rows share the latent 'm'" in said
        assert "confident" not in said
        assert "classifier distinguishes" not in said
        assert tree["calibration"]["pit_p_value"].isnull().all()
        assert tree["checks"]["p_value"].notnull().all()


# Names


def test_mask_of_steps_is_a_tensor_of_the_programs() -> None:
    def model(x: Tensor, mask: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            steps = dist.Normal(z[..., None, None], 1.0).expand([*z.shape, *x.shape[1:]])
            pyro.sample("x", steps.mask(mask[..., None]).to_event(2), obs=x)

    def guide(x: Tensor, mask: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(a * x.mean((1, 2)), 0.5))

    batch = {"x": torch.randn(20, 4, 3), "mask": torch.rand(20, 4) < 0.7}
    fit(pair(model, guide), batch, epochs=1)
    assert len(pv.evidence(pair(model, guide), batch, method=FEW, progress=False)) == 20
    pv.predictive_check(pair(model, guide), batch, draws=20, two_sample=False, progress=False)


def test_conditional_model_without_data_x_has_no_replicates() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(z + x, 1.0), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal((y - x) / 2, 0.7))

    x = torch.randn(30)
    batch = {"x": x, "y": x + torch.randn(30)}
    assert len(pv.evidence(pair(model, guide), batch, method=FEW, progress=False)) == 30
    with pytest.raises(pv.InputError, match=r"observes 'y' at 'obs'.*name the tensor that it observes x"):
        pv.predictive_check(pair(model, guide), batch, draws=20, progress=False)


@pytest.mark.parametrize(
    ("model", "data", "advice"),
    [
        (lambda xs: None, torch.randn(9), "rename its argument 'xs' to 'x'"),
        (lambda x, y: None, torch.randn(9), "needs 'y'.*{'x': x, 'y': y}"),
        (lambda x: None, {"x": torch.randn(9), "y": torch.randn(9)}, "add y=None"),
    ],
)
def test_arguments_of_programs_are_checked_before_work(model: Any, data: Any, advice: str) -> None:
    for use in (fit, pv.evidence):
        with pytest.raises(pv.InputError, match=advice):
            use(pair(model, model), data)


def test_variance_of_angles_is_that_of_their_draws() -> None:
    vae = pv.VAE((2,), 1, likelihood=pv.VonMises(loc=0.5, concentration=None), encoder=pv.MLP(hidden=(4,)))
    likelihood = vae.decode(torch.zeros(1, 1))
    found = pv.moments.variance(likelihood, draws=40_000)
    drawn = likelihood.sample((40_000,)).var(0)
    torch.testing.assert_close(found.value, drawn, rtol=0.05, atol=0.0)
    assert (found.error > 0).all()
