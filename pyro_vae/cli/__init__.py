"""Command line: one verb per stage, each a typed function without logic of its own.

The verbs stand in a literal table, so that `pyro-vae --help` and `--version` import no torch; a verb's module is
imported when it is called.
"""

import importlib
import importlib.metadata
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from pyro_vae.core.errors import InputError, ProcessLostError, RunNotWrittenError, unknown_name_error

VERBS: Mapping[str, tuple[str, str]] = {
    "fit": ("fit", "Fit a VAE and write a run folder."),
    "sweep": ("sweep", "Fit at many points of some options of fit, and write one table."),
    "sample": ("sampling", "Draw new data, x ~ p(x|z) with z ~ p(z), from a fitted model."),
    "reconstruct": ("sampling", "Replicate data, x' ~ p(x|z) with z ~ q(z|x), by a fitted model."),
    "check": ("criticism", "Compare data with replicates that a fitted model draws, and report what differs."),
    "evaluate": ("criticism", "Estimate log p(x) of data under a fitted model, and its errors."),
    "compare": ("criticism", "Compare fitted models by log p(x) of the same rows: pyro-vae compare RUN RUN ..."),
    "report": (
        "criticism",
        "Write a page on a fitted model, or one that compares several: pyro-vae report RUN RUN ...",
    ),
    "describe": ("sampling", "Print a fitted model as mathematics, with its families and the number of its weights."),
    "families": ("sampling", "List the families by kind of data, or explain one: pyro-vae families NAME."),
}
"""Each verb: the module that holds the function of its name, and the first line of that function's docstring."""

WIDTH = 100
"""Columns of the overview."""


def load_verb(name: str) -> Callable[..., Any]:
    """Function of a verb, from its module."""
    verb: Callable[..., Any] = getattr(importlib.import_module(f"pyro_vae.cli.{VERBS[name][0]}"), name)
    return verb


def overview() -> str:
    """Text of `pyro-vae --help`: every verb in a line."""
    lines = [
        "usage: pyro-vae VERB [options]",
        "",
        "Variational autoencoders as Bayesian models, on Pyro.",
        "",
        "verbs:",
    ]
    for name, (_, summary) in VERBS.items():
        lines += textwrap.wrap(summary, WIDTH, initial_indent=f"  {name:<12} ", subsequent_indent=" " * 15)
    lines += ["", "options:", "  -h, --help   show this", "  --version    show the version"]
    return "\n".join([*lines, "", "Options of a verb: pyro-vae VERB --help"])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a wrong input is one sentence and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "--version"):
        print(f"pyro-vae {importlib.metadata.version('pyro-vae')}" if words[:1] == ["--version"] else overview())
        raise SystemExit(0)
    try:
        if words[0] not in VERBS:
            raise unknown_name_error("command", words[0], VERBS)
        from pyro_vae.cli.parser import Parser  # with torch

        verb = load_verb(words[0])
        verb(**Parser(words[0], verb).parse(words[1:]))
    except (InputError, ProcessLostError, RunNotWrittenError, FloatingPointError) as error:
        print(f"pyro-vae: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("pyro-vae: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
