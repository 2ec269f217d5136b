"""Pixel levels: the density that is written by hand, ordered cutpoints, levels in the data, bits per dimension."""

import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.distributions import transform_to

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.output import summary
from pyro_vae.core.errors import InputError
from pyro_vae.distributions.constraints import cutpoints
from pyro_vae.distributions.ordered import DiscretizedLogisticMixture, StableOrderedLogistic
from pyro_vae.plots.samples import image_grid

F64 = torch.float64
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def exact(level: int, loc: float, scale: float, bins: int) -> float:
    """The log mass of a rounded logistic, as it is defined, in 60 digits."""
    with localcontext(prec=60, Emin=-(10**7), Emax=10**7):
        below, above = (
            ((Decimal(2 * level + side)) / (bins - 1) - 1 - Decimal(loc)) / Decimal(scale) for side in (-1, 1)
        )
        first, last = level == 0, level == bins - 1
        if below > 0:  # the same difference in the other tail, for 60 digits do not hold 1 - exp(-1000)
            below, above, first, last = -above, -below, last, first
        return float(((1 if last else sigmoid(above)) - (0 if first else sigmoid(below))).ln())


# ---- the mixture of discretised logistics ------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("bins", [2, 17, 256])
def test_masses_are_the_definitions_in_both_types(bins: int, dtype: torch.dtype) -> None:
    for loc in (-50.0, -1.5, 0.25, 0.75, 40.0):
        for scale in (1 / 1024, 1 / 16, 1.0, 1024.0):
            one = DiscretizedLogisticMixture(*(torch.tensor([v], dtype=dtype) for v in (0.0, loc, scale)), bins=bins)
            for level in (0, 1, bins // 2, bins - 1):
                ours, rounding = one.log_prob(torch.tensor(level)), 4 * torch.finfo(dtype).eps
                assert ours.dtype == dtype
                assert ours.item() == pytest.approx(exact(level, loc, scale, bins), rel=rounding, abs=rounding)


def random_mixture(bins: int, components: int = 3) -> tuple[DiscretizedLogisticMixture, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits, loc, raw = torch.randn(3, 40, components, generator=generator, dtype=F64)
    parameters = [logits, loc, 0.2 * raw.exp()]
    return DiscretizedLogisticMixture(*parameters, bins=bins), parameters


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_masses_sum_to_one_and_give_the_moments(bins: int) -> None:
    mixture, (logits, loc, scale) = random_mixture(bins)
    level = torch.arange(bins, dtype=F64)[:, None]
    masses = mixture.log_prob(level).exp()
    torch.testing.assert_close(masses.sum(0), torch.ones(40, dtype=F64), rtol=0, atol=1e-10)
    middle, half = 2 * level[..., None] / (bins - 1) - 1, 1 / (bins - 1)
    below, above = (torch.sigmoid((middle + side * half - loc) / scale) for side in (-1, 1))
    below[0], above[-1] = 0, 1
    torch.testing.assert_close(masses, (logits.softmax(-1) * (above - below)).sum(-1), rtol=1e-10, atol=1e-14)
    mean = (masses * level).sum(0)
    torch.testing.assert_close(mixture.mean, mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mixture.variance, (masses * (level - mean) ** 2).sum(0), rtol=1e-9, atol=1e-9)


def test_components_start_apart_and_finite_also_on_a_constant_pixel() -> None:
    x = torch.stack([torch.full((50,), 7.0), torch.arange(50.0) % 17], -1)
    likelihood = pv.DiscretizedLogistic(17, 4, loc="per_feature")  # where it starts, without a network's noise
    for rows in (x, x[:1], x[:, :1].expand(50, 2)):
        vae = pv.VAE((2,), 1, likelihood=likelihood, encoder=pv.MLP(hidden=(4,))).initialize(rows)
        values = vae.likelihood.values(torch.zeros(1, 1))
        assert bool((values["loc"].diff() > 1e-3).all())
        assert all(bool(torch.isfinite(value).all()) for value in values.values())
        assert bool(torch.isfinite(vae.decode(torch.zeros(len(rows), 1)).log_prob(rows)).all())


# ---- ordered levels ----------------------------------------------------------------------------------------------


def test_ordered_logistic_is_pyros_and_keeps_its_digits_where_that_has_none() -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.randn(6, generator=generator, dtype=F64)
    cuts = transform_to(cutpoints)(torch.randn(6, 4, generator=generator, dtype=F64))
    ours, pyros = (kind(at, cuts) for kind in (StableOrderedLogistic, dist.OrderedLogistic))
    torch.testing.assert_close(ours.probs, pyros.probs, rtol=1e-10, atol=1e-12)
    assert isinstance(ours.expand((2, 6)), dist.OrderedLogistic)
    far = torch.tensor([60.0, -60.0], requires_grad=True)
    log_prob = StableOrderedLogistic(far, torch.tensor([-1.0, 0.0, 2.0])).log_prob(torch.tensor([0, 3]))
    torch.testing.assert_close(log_prob, torch.tensor([-61.0, -62.0]))
    (slope,) = torch.autograd.grad(log_prob.sum(), far)
    torch.testing.assert_close(slope, torch.tensor([-1.0, 1.0]))


@DTYPES
def test_ordered_cutpoints_are_inverted_and_bounded(dtype: torch.dtype) -> None:
    transform = transform_to(cutpoints)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(50, 7, generator=generator, dtype=F64)
    torch.testing.assert_close(transform.inv(transform(raw)), raw, rtol=0, atol=1e-9)
    equal = torch.logit(torch.arange(1, 256, dtype=F64) / 256)
    torch.testing.assert_close(transform(torch.zeros(255, dtype=F64)), equal, rtol=0, atol=1e-9)
    signs = 50 * (2 * torch.randint(2, (50, 255), generator=generator) - 1)
    for extreme in (signs, torch.full((1, 255), 50), torch.full((1, 255), -50)):
        value = transform(extreme.to(dtype).requires_grad_())
        assert bool((value.abs() <= cutpoints.ceiling).all())
        assert bool((value.diff() > cutpoints.gap / 2).all())
        assert bool(torch.isfinite(transform.inv(value)).all())
    assert cutpoints.check(torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-30.0, 0.0]])).tolist() == [True, False, False]


# ---- levels in the data ------------------------------------------------------------------------------------------


def test_levels_are_whole_numbers_and_recorded() -> None:
    plain, rounded = pv.data.load("digits"), pv.data.load("digits", levels=17)
    assert torch.equal(rounded.train.x, 16 * plain.train.x)
    assert rounded.test is not None
    assert rounded.test.x.dtype == torch.float32
    assert rounded.train.source["levels"] == 17
    assert plain.train.source["levels"] is None
    assert repr(rounded).endswith("binarize=None, levels=17)")


@pytest.mark.parametrize("name", ["bytes.npy", "whole.npy"])
def test_bytes_are_given_back(name: str, tmp_path: Path) -> None:
    level = np.arange(256).repeat(2).reshape(-1, 2)
    np.save(tmp_path / "bytes.npy", (level / np.float32(255)).astype(np.float32))
    np.save(tmp_path / "whole.npy", level // 255)
    x = pv.data.load(tmp_path / name, levels=256, validation=0, test=0).train.x
    assert torch.equal(x, torch.as_tensor(level if name == "bytes.npy" else level // 255 * 255).float())


def test_wrong_levels_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.array([[0.0], [3.0]]))
    np.save(tmp_path / "missing.npy", np.array([[0.0], [np.nan]]))
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("digits", {"levels": 1}, "levels=1 is an integer, 2 or more: say levels=256"),
        ("digits", {"levels": True}, "levels=True is an integer"),
        ("digits", {"levels": 17.0}, "levels=17.0 is an integer"),
        (
            "digits",
            {"levels": 17, "binarize": "static"},
            "makes x 0 or 1, and levels=17 makes it 0 to 16",
        ),
        (str(tmp_path / "wide.npy"), {"levels": 4}, r"wide.npy.* from 0 to 3: scale it, .* or leave levels out"),
        (str(tmp_path / "missing.npy"), {"levels": 4}, r"from nan to nan"),
    ]
    for data, arguments, message in wrong:
        with pytest.raises(InputError, match=message):
            pv.data.load(data, **arguments)


def test_levels_are_shown_from_black_to_white() -> None:
    level = torch.arange(16).reshape(1, 4, 4)
    for beside in (None, level.float()):
        shown = image_grid(level, beside, columns=1).axes[0].images[0].get_array()
        assert shown is not None
        np.testing.assert_allclose(np.asarray(shown)[-4:, :4], level[0] / 15, atol=1e-6)


# ---- bits per dimension ------------------------------------------------------------------------------------------


class Zeros(nn.Module):
    """An encoder that says p(z) whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: self.zero.expand(len(x), 1) for name in ("loc", "scale")}


class Starts(nn.Module):
    """A decoder that leaves every parameter where it starts."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.zero, self.shape = nn.Parameter(torch.zeros(1)), shape

    def forward(self, z: Tensor) -> Tensor:
        return self.zero.expand(len(z), *self.shape)


def fitted(likelihood: pv.families.Family, x: Any, *shape: int, **arguments: Any) -> pv.History:
    """Fit, with steps too small to matter, from q(z|x) = p(z): minus the bound is that of the starting values."""
    vae = pv.VAE((4,), 1, likelihood=likelihood, encoder=Zeros(), decoder=Starts(*shape))
    return pv.fit(vae, x, epochs=1, optimizer=pv.SGD(lr=1e-30), progress=False, **arguments)


def test_bits_per_dimension_are_exact() -> None:
    x = torch.arange(32.0)[:, None].expand(32, 4) % 16
    history = fitted(pv.Categorical(16), x, 4, 16, validation=x[:16])
    for column in ("bits_per_dim", "validation_bits_per_dim"):
        assert history[column].item() == pytest.approx(4, abs=1e-6)  # 16 equal shares
    text = summary(pv.data.load("digits"), history, "run")
    assert text.count(" = 4.0000 bits per dimension") == 2
    picture = pv.plots.training(history)
    assert "training 4.000, validation 4.000" in picture.get_supxlabel()


def test_bits_per_dimension_are_per_observed_pixel() -> None:
    x = torch.arange(32.0)[:, None].expand(32, 4) % 16
    mask = torch.tensor([True, False, True, True]).expand(32, 4)
    history = fitted(pv.Categorical(16), {"x": x, "mask": mask}, 4, 16)
    assert history["bits_per_dim"].item() == pytest.approx(4, abs=1e-6)
    assert history["loss"].item() == pytest.approx(3 * math.log(16), abs=1e-5)
    assert "validation_bits_per_dim" not in history.columns


def test_bits_per_dim_is_reported_only_for_pixels() -> None:
    x = torch.arange(32.0)[:, None].expand(32, 4) % 3
    history = fitted(pv.Categorical(3), x, 4, 3)
    assert "bits_per_dim" not in history.columns
    assert "bits" not in summary(pv.data.load("digits"), history, "run")
    assert [family.is_pixel for family in (pv.OrderedLogistic(15), pv.OrderedLogistic(16), pv.Normal())] == [
        False,
        True,
        False,
    ]
    assert pv.DiscretizedLogistic(2).is_pixel


# ---- the command line --------------------------------------------------------------------------------------------


def test_levels_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    likelihood = ["--likelihood", "DiscretizedLogistic", "--likelihood.bins", "17", "--likelihood.components", "2"]
    small = ["--latent_dim", "2", "--epochs", "1", "--encoder", "MLP", "--encoder.hidden", "[8]", "--progress", "false"]
    main(["fit", "--data.levels", "17", *likelihood, *small, "--run", "run"])
    out = capsys.readouterr().out
    assert "levels=17" in out
    assert out.count("bits per dimension") == 2
    spec = yaml.safe_load(Path("run/spec.yaml").read_text())
    assert spec["data"] == {"name": "digits", "levels": 17}
    assert spec["likelihood"] == {"DiscretizedLogistic": {"bins": 17, "components": 2}}
    assert "validation_bits_per_dim" in Path("run/history.csv").read_text()
    main(["fit", "--config", "run", "--run", "again", "--progress", "false"])
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    main(["reconstruct", "run", "--n", "5", "--to", "x.npy"])
    replicates = np.load("x.npy")
    assert replicates.max() > 1
    assert set(np.unique(replicates)) <= set(range(17))
    with pytest.raises(SystemExit):
        main(["fit", *likelihood, *small, "--run", "grey"])
    assert "pv.data.load(..., levels=256)" in capsys.readouterr().err
