"""Every public plot is listed, is documented by its figure, and returns a figure of matplotlib."""

import importlib
import inspect
import pkgutil
import typing

import pytest
from matplotlib.figure import Figure

from pyro_vae import plots

MODULES = [module.name for module in pkgutil.iter_modules(plots.__path__) if not module.name.startswith("_")]


@pytest.mark.parametrize("name", plots.__all__)
def test_plot_returns_a_figure_and_says_which(name: str) -> None:
    plot = getattr(plots, name)
    assert inspect.signature(plot).return_annotation in (Figure, "Figure")
    assert (inspect.getdoc(plot) or "").startswith("Figure of ")


@pytest.mark.parametrize("name", MODULES)
def test_module_of_plots_holds_a_public_plot(name: str) -> None:
    module = importlib.import_module(f"pyro_vae.plots.{name}")
    returned = {
        key: typing.cast(object, inspect.signature(value).return_annotation)
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }
    figures = {key for key, annotation in returned.items() if annotation in (Figure, "Figure")}
    assert figures
    assert figures <= set(plots.__all__)
