"""Verbs that draw from a model, or describe models and families."""

from pathlib import Path

from pyro_vae.cli import output
from pyro_vae.cli.output import Split
from pyro_vae.core.rng import seeded
from pyro_vae.core.signatures import delegates
from pyro_vae.families.catalogue import catalogue
from pyro_vae.model.summary import describe as describe_model
from pyro_vae.runs.folder import RunFolder, load
from pyro_vae.runs.inputs import load_split


@delegates(output.reserve, "overwrite")
def sample(run: str, *, n: int = 64, mean: bool = False, to: str | None = None, seed: int = 0, overwrite: bool) -> None:
    """Draw new data, x ~ p(x|z) with z ~ p(z), from a fitted model.

    Args:
        run: run folder.
        n: number of rows.
        mean: give means of p(x|z) instead of draws from it.
        to: file to write, .npy, .csv (vectors) or .png (images); by default samples.npy in the run.
        seed: seed of the draws.
    """
    vae = load(run)
    target = output.reserve(to or str(Path(run) / "samples.npy"), overwrite)
    with seeded(seed):
        draws = vae.sample(n, mean=mean)
    output.write(target, draws)
    if mean:
        print(output.how_means_come(vae))


@delegates(output.reserve, "overwrite")
@delegates(load_split, "data", "split")
def reconstruct(
    run: str,
    *,
    data: str | None,
    split: Split = "validation",
    n: int = 64,
    mean: bool = False,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool,
) -> None:
    """Replicate data, x' ~ p(x|z) with z ~ q(z|x), by a fitted model.

    Args:
        run: run folder.
        n: number of rows, from the first.
        mean: give means of p(x|z) instead of draws from it.
        to: file to write, .npy, .csv (vectors) or .png (images); by default reconstructions.npy in the run.
        seed: seed of the draws.
    """
    vae = load(run)
    target = output.reserve(to or str(Path(run) / "reconstructions.npy"), overwrite)
    rows = load_split(RunFolder(Path(run).expanduser()), data, split)
    with seeded(seed):
        batch = rows.batch(slice(n))
        replicates = vae.reconstruct(**batch, mean=mean)
    output.write(target, replicates, beside=vae.impute(batch))
    if mean:
        print(output.how_means_come(vae))


def describe(run: str) -> None:
    """Print a fitted model as mathematics, with its families and the number of its weights.

    Args:
        run: run folder.
    """
    print(describe_model(load(run)))


def families(name: str | None = None, *, markdown: bool = False) -> None:
    """List the families by kind of data, or explain one: pyro-vae families NAME.

    Args:
        name: a family to explain; all are listed without it.
        markdown: write the list as a table for a document.
    """
    print(catalogue(name, markdown=markdown))
