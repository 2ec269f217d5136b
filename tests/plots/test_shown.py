"""What readers are shown equals its source: the laws of `helpers/shown.py`, on small real fits."""

import base64
import io

import pytest
from helpers.shown import LAWS, World
from matplotlib.image import imread

from pyro_vae import plots
from pyro_vae.reports.page import Picture


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize("name", LAWS)
def test_readers_are_shown_its_source(name: str, world: World) -> None:
    LAWS[name](world)


def test_every_public_plot_has_a_law() -> None:
    assert set(plots.__all__) <= set(LAWS)


def test_embedded_picture_is_the_figure_with_its_size(world: World) -> None:
    figure = plots.training(world.results.history)
    picture = Picture.of(figure, "Curves")
    pixels = imread(io.BytesIO(base64.b64decode(picture.source.partition(",")[2])))
    direct = io.BytesIO()
    figure.savefig(direct, format="png")
    direct.seek(0)
    assert (pixels == imread(direct)).all()
    assert (pixels.shape[1], pixels.shape[0]) == picture.size
