"""What is shown: small real fits, and how pictures are read back."""

import atexit
import copy
import math
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from numpy.typing import NDArray

import pyro_vae as pv
from pyro_vae.core.rng import seeded
from pyro_vae.criticism.session import evaluation
from pyro_vae.plots import _run_figures
from pyro_vae.plots._style import COLOURS
from pyro_vae.reports.results import ReportSettings, RunResults, load_rows, load_run

Array = NDArray[Any]
LAWS: dict[str, Callable[["World"], None]] = {}
QUIET: dict[str, Any] = {"progress": False}
NAMES = ["age", "income", "US$", "share"]
COLOUR = {"red": COLOURS[2], "blue": COLOURS[0], "orange": COLOURS[1]}


def law(check: Callable[["World"], None]) -> Callable[["World"], None]:
    """Enter a function into the table of laws."""
    LAWS[check.__name__] = check
    return check


# what is shown: small real fits


class World:
    """Fits, and everything that was computed of them, each once."""

    @cached_property
    def folder(self) -> Path:
        """Two runs on one table of 600 rows, which no Gaussian fits."""
        at = Path(tempfile.mkdtemp(prefix="pyro-vae-shown-"))
        atexit.register(shutil.rmtree, at, ignore_errors=True)
        rng = np.random.default_rng(1)
        x = rng.normal(size=(600, 4))
        x[:, 1], x[:, 2], x[:, 3] = np.exp(x[:, 1]), x[:, 0] + 0.3 * x[:, 2], rng.standard_t(3, 600)
        lines = [",".join([*NAMES, "label"])]
        lines += [",".join([*(f"{value:.6f}" for value in row), "abc"[i % 7 % 3]]) for i, row in enumerate(x)]
        (at / "table.csv").write_text("\n".join(lines))
        data = pv.data.load(str(at / "table.csv"), test=0.4)
        with pytest.MonkeyPatch.context() as patch, seeded(0):
            patch.setattr(_run_figures, "write", lambda *given: None)
            for name, latents, likelihood in (("small", 3, pv.Normal()), ("wide", 2, pv.Normal(scale=4))):
                vae = pv.VAE((4,), latents, likelihood=likelihood, encoder=pv.MLP(hidden=(8,)))
                with torch.no_grad():
                    weight = vae.posterior.network.heads["loc"].weight  # which stays
                    weight *= 5
                    weight[-1] *= 1e-4  # a latent that is not used
                rates = pv.Adam(lr_by_part={"posterior.network.heads.loc": 0})
                pv.fit(vae, data.train, validation=data.validation, epochs=6, optimizer=rates, run=at / name, **QUIET)
        return at

    settings = ReportSettings("test", 400, 160, pv.criticism.Importance(draws=200), 0, False)

    @cached_property
    def results(self) -> RunResults:
        run, vae = load_run(self.folder / "small")
        return RunResults.of(run, vae, load_rows(run, None, "test"), self.settings)

    @cached_property
    def other(self) -> RunResults:
        run, vae = load_run(self.folder / "wide")
        return RunResults.of(run, vae, load_rows(run, None, "test"), self.settings)

    @property
    def vae(self) -> pv.VAE:
        return self.results.vae

    @property
    def x(self) -> torch.Tensor:
        return self.results.rows.x

    @cached_property
    def posterior(self) -> Any:
        return pv.predictive_check(self.vae, self.results.rows, kind="posterior", draws=400, **QUIET)

    @cached_property
    def faithful(self) -> Any:
        """Check of a model on draws of its own, of which a few statistics stand out by chance alone."""
        vae = copy.deepcopy(self.results.vae)
        with evaluation(vae, 7):
            x = vae.sample(400).numpy()
        return pv.predictive_check(vae, pd.DataFrame(x, columns=NAMES), draws=400, **QUIET)

    @cached_property
    def narrow(self) -> Any:
        """Check of a model whose noise is too small."""
        with seeded(0):
            vae = pv.VAE((4,), 2, likelihood=pv.Normal(scale=0.2), encoder=pv.MLP(hidden=(8,)))
            pv.fit(vae, self.x, epochs=2, **QUIET)
        return pv.predictive_check(vae, pd.DataFrame(self.x.numpy(), columns=NAMES), draws=40, **QUIET)

    @cached_property
    def wrong_widths(self) -> pv.criticism.SBC:
        """Calibration of a guide half as wide as the posterior (the prior) in one latent, twice as wide in another."""
        vae = copy.deepcopy(self.other.vae)
        with torch.no_grad():
            for parameter in (*vae.likelihood.network.parameters(), *vae.posterior.network.heads.parameters()):
                parameter.zero_()
            scales = torch.tensor([0.5, 2.0])
            vae.posterior.network.heads["scale"].bias.copy_(scales.log())
        with evaluation(vae, 0):
            torch.testing.assert_close(vae.encode(self.x[:1]).stddev[0], scales, rtol=1e-3, atol=0)
        return pv.criticism.sbc(vae, simulations=150, draws=39, **QUIET)

    def _check(self, event: tuple[int, ...], likelihood: Any, x: torch.Tensor, **options: Any) -> Any:
        with seeded(0):
            vae = pv.VAE(event, 2, likelihood=likelihood, encoder=pv.MLP(hidden=(8,)))
            pv.fit(vae, x, epochs=2, **QUIET)
            return vae, pv.predictive_check(vae, x, draws=40, **QUIET, **options)

    @cached_property
    def images(self) -> tuple[pv.VAE, torch.Tensor, Any]:
        x = torch.rand(90, 1, 6, 5, generator=torch.Generator().manual_seed(0)).square()
        return (vae_tree := self._check((1, 6, 5), pv.Normal(), x, kind="posterior"))[0], x, vae_tree[1]

    @cached_property
    def binary(self) -> Any:
        x = (torch.rand(90, 5, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 5)).float()
        return self._check((5,), pv.Bernoulli(), x)[1]

    @cached_property
    def counts(self) -> Any:
        with seeded(0):
            x = torch.poisson(torch.tensor([1.0, 6.0]).expand(90, 2))
        return self._check((2,), pv.Poisson(), x)[1]

    @cached_property
    def sbc(self) -> pv.criticism.SBC:
        return pv.criticism.sbc(self.vae, simulations=150, draws=39, **QUIET)

    @cached_property
    def gap(self) -> Any:
        return pv.criticism.inference_gap(self.vae, self.x[:40], draws=100, steps=30, **QUIET)

    @cached_property
    def comparison(self) -> Any:
        return pv.compare({"wide": self.other.evidence, "small": self.results.evidence})

    def given(self) -> dict[str, Any]:
        return dict(self.results.rows.batch())


# reading pictures back


def same(shown: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(shown, float), np.asarray(wanted, float), rtol=tolerance, atol=tolerance)


def title(axes: Any) -> str:
    return plain(axes.get_title(loc="left"))


def plain(text: str) -> str:
    return " ".join(text.replace("\N{NO-BREAK SPACE}", " ").replace(r"\$", "$").split())


def head(picture: Any) -> str:
    return plain(picture.get_suptitle())


def colour_of(artist: Any) -> str:
    found = artist.get_facecolor() if hasattr(artist, "get_facecolor") else artist.get_color()
    return to_hex(found[0] if np.ndim(found) == 2 else found)


def key(holder: Any) -> dict[str, str]:
    """Colours of a legend by label."""
    legend = holder.get_legend() if hasattr(holder, "get_legend") else holder.legends[0]
    return {
        plain(text.get_text()): colour_of(handle)
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def tiles(axes: Any, columns: int, size: tuple[int, int]) -> Array:
    """Images (M, H, W) of a grid with a border of one pixel between them."""
    sheet, (height, width) = np.asarray(axes.images[0].get_array(), float), size
    rows = (sheet.shape[0] + 1) // (height + 1)
    places = [(i * (height + 1), j * (width + 1)) for i in range(rows) for j in range(columns)]
    return np.stack([sheet[up : up + height, left : left + width] for up, left in places])


def grey(images: Any, scale: Any) -> Array:
    images, scale = np.asarray(images, float), np.asarray(scale, float)
    scaled = (images - scale.min()) / np.ptp(scale)
    return np.clip(scaled, 0, 1).reshape(-1, *images.shape[-2:])


def entries(tree: Any, group: str) -> dict[str, Array]:
    found = tree[group].to_dataset()
    return {str(name): found[name].to_numpy() for name in (*found.data_vars, *found.coords)}


def statistics_order(found: dict[str, Array]) -> list[int]:
    """By q, then by the distance of data and replicates in standard deviations, largest first."""
    distance = []
    for observed, mean, sd in zip(found["observed"], found["mean"], found["sd"], strict=True):
        distance.append(abs(observed - mean) / sd if sd > 0 else math.inf if observed != mean else 0.0)
    return sorted(range(len(distance)), key=lambda at: (found["q_value"][at], -distance[at], at))


def worst_features(found: dict[str, Array]) -> list[int]:
    distance = abs(found["ecdf"] - found["u"]).max(1)
    keys = zip(found["pit_q_value"], found["pit_p_value"], -distance, strict=True)
    return [at for _, at in sorted((each, at) for at, each in enumerate(keys))]
