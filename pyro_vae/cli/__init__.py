"""The command line: one verb per stage, each a typed function without logic of its own."""

import sys

from pyro_vae.cli.criticism import check, compare, evaluate, report
from pyro_vae.cli.fit import fit
from pyro_vae.cli.sampling import describe, families, reconstruct, sample
from pyro_vae.cli.sweep import sweep
from pyro_vae.core.errors import InputError, ProcessLostError, RunNotWrittenError
from pyro_vae.registry import options

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
    except (InputError, ProcessLostError, RunNotWrittenError, FloatingPointError) as error:
        options.fail(error)
    except KeyboardInterrupt:
        print("pyro-vae: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
