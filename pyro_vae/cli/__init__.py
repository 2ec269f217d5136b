"""The command line: one verb per stage, each a typed function without logic of its own."""

import sys

from pyro_vae import options
from pyro_vae.cli.criticise import check, compare, evaluate, report
from pyro_vae.cli.many import sweep
from pyro_vae.cli.train import fit
from pyro_vae.cli.use import describe, families, reconstruct, sample
from pyro_vae.errors import InputError, LostProcess, NotWritten

VERBS: dict[str, options.Verb] = {
    "fit": fit,
    "sweep": sweep,
    "sample": sample,
    "reconstruct": reconstruct,
    "check": check,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "describe": describe,
    "families": families,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a wrong input is one sentence and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["families"] and len(words) > 1 and not words[1].startswith("-"):
        words.insert(1, "--name")  # jsonargparse has no optional argument without a name
    try:
        if words[:1] == ["sweep"]:
            words = options.passed_on(words, sweep, fit)
        options.run(VERBS, words)
    except (InputError, LostProcess, NotWritten, FloatingPointError) as error:
        options.fail(error)
    except KeyboardInterrupt:
        print("pyro-vae: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
