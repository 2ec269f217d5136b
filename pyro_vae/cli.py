"""The command line: one verb per stage, each a typed function."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from pyro_vae import data as datasets
from pyro_vae import options, output
from pyro_vae.catalogue import catalogue
from pyro_vae.criticism.evidence import evidence
from pyro_vae.criticism.methods import Importance, Method
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.verdicts import findings
from pyro_vae.describe import describe as describe_model
from pyro_vae.errors import InputError, LostProcess, NotWritten
from pyro_vae.families import Family, Normal
from pyro_vae.networks import Network
from pyro_vae.objectives import ELBO, Objective
from pyro_vae.report import report as write_report
from pyro_vae.run import Run, load
from pyro_vae.runs import Runs
from pyro_vae.sweep import sweep as train_sweep
from pyro_vae.training import Adam, Optimizer, Stopping
from pyro_vae.training.checkpoints import Checkpoints
from pyro_vae.training.devices import Runtime, first_process
from pyro_vae.training.fit import fit as fit_programs
from pyro_vae.training.watching import logger_named
from pyro_vae.vae import VAE


def fit(
    data: str = "digits",
    root: str | None = None,
    binarize: Literal["static", "dynamic"] | None = None,
    levels: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    data_seed: int = 0,
    stream: bool | Literal["auto"] = "auto",
    latent_dim: int = 8,
    prior: Family = Normal(0, 1),
    likelihood: Family = Normal(scale="learned"),
    guide: Family = Normal(),
    encoder: Network | None = None,
    decoder: Network | None = None,
    objective: Objective = ELBO(),
    optimizer: Optimizer = Adam(),
    epochs: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    run: str | None = None,
    overwrite: bool = False,
    checkpoint_minutes: float | None = None,
    checkpoint_epochs: int | None = None,
    resume: bool = False,
    compile: Literal["true", "false", "auto"] = "false",
    stopping: Stopping | None = None,
    logger: Literal["csv", "tensorboard", "mlflow", "wandb"] | None = None,
    profile: bool = False,
    progress: bool = True,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    precision: Literal["bf16-mixed", "16-mixed", "32-true", "64-true"] | None = None,
    devices: str = "1",
    num_nodes: int = 1,
    strategy: Literal["ddp"] | None = None,
    _callbacks: Sequence[Callable[..., Any]] = (),  # no option: what a study listens with
) -> None:
    """Fit a VAE and write a run folder.

    Declared things are given by name, with fields behind a dot: --prior Laplace --prior.scale 2,
    --encoder MLP --encoder.hidden "[400]", --optimizer.lr 3e-4. pyro-vae families lists the families. A field is
    a number (fixed), learned, per_feature, or left out (computed by the network).

    Args:
        data: a data set (digits, mnist, fashion_mnist, cifar10), .npy, .npz, .csv or .parquet file, a folder of images.
        root: folder that holds a named data set's files.
        binarize: draw binary pixels once (static) or anew for every batch (dynamic).
        levels: round pixels in [0, 1] to the whole numbers 0, ..., levels - 1: 256 for pictures of bytes.
        validation: share of rows held out to watch training.
        test: share of rows held out from everything, where there is no official test set.
        data_seed: seed of the split and of static binarisation.
        stream: read rows of .npy or .parquet while training; auto does so where they would fill a quarter of memory.
        latent_dim: number of latents.
        prior: p(z).
        likelihood: p(x|z).
        guide: q(z|x).
        encoder: network of the guide; by default Conv for images, MLP otherwise.
        decoder: network of the likelihood; by default the encoder's mirror.
        objective: the bound to maximise.
        optimizer: Adam, AdamW or SGD; parts sets learning rates by part, as in --optimizer.parts "{encoder: 1e-4}".
        epochs: passes over the data.
        batch_size: rows per step.
        seed: seed of weights, shuffling and draws.
        run: folder to write; by default runs/ and the data's name.
        overwrite: replace an existing run, once the new one is complete.
        checkpoint_minutes: save everything into the run so often, so that a crash loses no more than that.
        checkpoint_epochs: or after so many epochs.
        resume: go on from the newest checkpoint of the run, where there is one.
        compile: true compiles the loss, which takes half a minute and makes steps faster; auto where it pays.
        stopping: when to end before the last epoch: EarlyStopping, with fields as in --stopping.patience 5.
        logger: who is told of each epoch besides: csv, tensorboard, mlflow or wandb; files go into logs beside the run.
        profile: print where the time of some steps goes, and write it into the run.
        progress: show progress.
        accelerator: where to compute; auto takes a GPU where there is one.
        precision: of the numbers, such as bf16-mixed; by default that of the weights.
        devices: processes on this node, each with a device of its own, or auto; torchrun says it by itself.
        num_nodes: nodes.
        strategy: how several processes share the work; by default ddp.
    """
    folder = run or str(Path("runs") / Path(data).stem)
    if first_process():
        Run.reserve(folder, overwrite, resume)
    number: Any = int(devices) if devices.isdecimal() else devices
    runtime = Runtime(accelerator, precision, number, num_nodes, strategy)
    asked = checkpoint_minutes is not None or checkpoint_epochs is not None
    rows = datasets.load(
        data,
        root=root,
        binarize=binarize,
        levels=levels,
        validation=validation,
        test=test,
        seed=data_seed,
        stream=stream,
    )
    torch.manual_seed(seed)
    vae = VAE(
        rows.event_shape,
        latent_dim,
        prior=prior,
        likelihood=likelihood,
        guide=guide,
        encoder=encoder,
        decoder=decoder,
    )
    history = fit_programs(
        vae,
        rows.train,
        validation=rows.validation,
        objective=objective,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        run=folder,
        overwrite=overwrite,
        checkpoints=Checkpoints(every_minutes=checkpoint_minutes, every_epochs=checkpoint_epochs) if asked else None,
        resume=resume,
        compile=compile if compile == "auto" else compile == "true",
        stopping=stopping,
        callbacks=_callbacks,
        loggers=[] if logger is None else [logger_named(logger, folder)],
        profile=profile,
        progress=progress,
        runtime=runtime,
    )
    if first_process():
        print(output.summary(rows, history, folder))


def sweep(
    over: dict[str, Any] = {},  # noqa: B006 - jsonargparse would take a word without -- for it otherwise
    to: str = "runs/sweep",
    base: dict[str, Any] | None = None,
    search: Literal["grid", "random", "optuna"] | None = None,
    samples: int | None = None,
    search_seed: int = 0,
    jobs: int = 1,
    progress: bool = True,
) -> None:
    """Fit at many points of some options of fit, and write one table.

    Every option of pyro-vae fit may be given too, for all points: --config base.yaml, --epochs 50, --prior Laplace.
    Each point is a run folder in the folder of the sweep. Called again, the sweep leaves out what is finished and goes
    on with what was cut off.

    Args:
        over: options and their values, as in "{latent_dim: [2, 8], optimizer.lr: [1e-3, 3e-4]}", or ranges, as in
            "{optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}".
        to: folder of the sweep.
        base: options for all points, as in "{epochs: 50}"; the same as --epochs 50.
        search: all combinations (grid), some at random (random), or what a study proposes, which ends hopeless ones
            early (optuna); by default random where samples are given, and else the grid.
        samples: number of points of a random search or a study.
        search_seed: seed of a random search or a study.
        jobs: points trained at a time, each by a process of its own.
        progress: print a line for each point that is over.
    """
    found = train_sweep(
        over,
        base,
        to=to,
        search=search,
        samples=samples,
        search_seed=search_seed,
        jobs=jobs,
        progress=progress,
    )
    print(
        f"{found.require_one()}\nThe table in {Path(to) / 'sweep.csv'}, the loss by option in {Path(to) / 'sweep.png'}"
    )


def sample(
    run: str, n: int = 64, mean: bool = False, to: str | None = None, seed: int = 0, overwrite: bool = False
) -> None:
    """Draw new data, x ~ p(x|z) with z ~ p(z), from a fitted model.

    Args:
        run: run folder.
        n: number of rows.
        mean: give means of p(x|z) instead of draws from it.
        to: file to write, .npy, .csv (vectors) or .png (images); by default samples.npy in the run.
        seed: seed of the draws.
        overwrite: replace that file where it exists.
    """
    target = output.reserve(to or str(Path(run) / "samples.npy"), overwrite)
    vae = load(run)
    torch.manual_seed(seed)
    output.write(target, vae.sample(n, mean=mean))
    if mean:
        print(output.how_means_come(vae))


def reconstruct(
    run: str,
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "validation",
    n: int = 64,
    mean: bool = False,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Replicate data, x' ~ p(x|z) with z ~ q(z|x), by a fitted model.

    Args:
        run: run folder.
        data: data set, file or folder; by default the data of the run.
        split: which of its splits.
        n: number of rows, from the first.
        mean: give means of p(x|z) instead of draws from it.
        to: file to write, .npy, .csv (vectors) or .png (images); by default reconstructions.npy in the run.
        seed: seed of the draws.
        overwrite: replace that file where it exists.
    """
    target = output.reserve(to or str(Path(run) / "reconstructions.npy"), overwrite)
    vae, rows = load(run), output.split_of(Run(Path(run)), data, split)
    torch.manual_seed(seed)
    batch = rows.batch(slice(n))
    output.write(target, vae.reconstruct(**batch, mean=mean), beside=vae.completed(batch))
    if mean:
        print(output.how_means_come(vae))


def evaluate(
    run: str,
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    method: Method = Importance(),
    batch_size: int = 100,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Estimate log p(x) of data under a fitted model, and its errors.

    --method Importance --method.draws 5000 --method.proposal defensive samples with 5,000 draws per row, a tenth of
    them from the prior; --method.proposal refined --method.steps 50 improves the guide for each row first.

    Args:
        run: run folder.
        data: data set, file or folder; by default the data of the run.
        split: which of its splits.
        method: how, Importance or AIS.
        batch_size: rows at once.
        to: file to write with log p(x), its error and k-hat of each row, .csv.
        seed: seed of the draws and of dynamic binarisation.
        overwrite: replace that file where it exists.
        progress: show progress.
    """
    target = None if to is None else output.reserve(to, overwrite, (".csv",))
    vae, rows = load(run), output.split_of(Run(Path(run)), data, split)
    found = evidence(vae, rows, method=method, batch_size=batch_size, seed=seed, progress=progress)
    print(found)
    if target is not None:
        output.write_text(target, found.to_csv(), f"Log p(x), error and k-hat of {len(found)} rows")


def check(
    run: str,
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    kind: Literal["population", "posterior", "prior"] = "population",
    statistics: tuple[str, ...] | None = None,
    draws: int | None = None,
    candidates: int = 1,
    keep: int = 100,
    two_sample: bool = True,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Compare data with replicates that a fitted model draws, and say what differs.

    Writes check-KIND.nc into the run, in ArviZ's form, and pictures beside it.

    Args:
        run: run folder.
        data: data set, file or folder; by default the data of the run.
        split: which of its splits.
        kind: population (new data), posterior (the same rows again), or prior (by the weights before training).
        statistics: names of test quantities, as in "[mean, skewness]"; by default all that suit the data.
        draws: replicates of all rows; by default 40 for each test quantity, and 500 at least.
        candidates: for posterior replicates, draws from the guide of which one is chosen by importance weight.
        keep: rows, and replicates of each, that are written whole.
        two_sample: hold a replicate against the data by a classifier, MMD, density and coverage.
        to: file to write, .nc; by default check-KIND.nc in the run.
        seed: seed of everything random.
        overwrite: replace that file where it exists.
        progress: show progress.
    """
    target = output.reserve(to or str(Path(run) / f"check-{kind}.nc"), overwrite, (".nc",))
    folder = Run(Path(run))
    rows = output.split_of(folder, data, split)
    vae = output.untrained(folder) if kind == "prior" else load(run)
    tree = predictive_check(
        vae,
        rows,
        kind=kind,
        statistics=statistics,
        draws=draws,
        candidates=candidates,
        keep=keep,
        two_sample=two_sample,
        seed=seed,
        progress=progress,
    )
    print("\n".join(findings(tree)))
    output.write_check(target, tree)


def compare(
    runs: list[str],
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    method: Method = Importance(),
    batch_size: int = 100,
    to: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Compare fitted models by log p(x) of the same rows: pyro-vae compare RUN RUN ...

    Runs that differ in nothing but --seed are one group, and its errors hold the variation between seeds.

    Args:
        runs: run folders, two or more.
        data: data set, file or folder; by default the data of the runs.
        split: which of its splits.
        method: how log p(x) is measured, Importance or AIS.
        batch_size: rows at once.
        to: file to write, .png for a picture or .csv for the table.
        seed: seed of the draws and of dynamic binarisation.
        overwrite: replace that file where it exists.
        progress: show progress.
    """
    target = None if to is None else output.reserve(to, overwrite, (".png", ".csv"))
    loaded = Runs.of(runs, data, split)
    found = loaded.compare(method, batch_size=batch_size, seed=seed, progress=progress)
    print(f"{found}\nWhat differs: {loaded.told(found.names)}")
    if target is not None:
        output.write_comparison(target, found)


def report(
    runs: list[str],
    data: str | None = None,
    split: Literal["train", "validation", "test"] = "test",
    to: str | None = None,
    draws: int | None = None,
    rows: int = 500,
    method: Method = Importance(draws=500),
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Write a page on a fitted model, or one that compares several: pyro-vae report RUN RUN ...

    The page is one file that needs no network. One that a report wrote before is replaced.

    Args:
        runs: run folders.
        data: data set, file or folder; by default the data of the runs.
        split: which of its splits.
        to: file to write, .html; by default report.html in the run, or comparison.html beside several.
        draws: replicate data sets; by default 40 for each test quantity, and 500 at least.
        rows: rows at most that are looked at, from the first.
        method: how log p(x) is measured, Importance or AIS.
        seed: seed of the draws and of dynamic binarisation.
        progress: show progress.
    """
    page = write_report(
        runs, data=data, split=split, to=to, draws=draws, rows=rows, method=method, seed=seed, progress=progress
    )
    print(f"The report in {page}")


def describe(run: str) -> None:
    """Print a fitted model as mathematics, with its families and the number of its weights.

    Args:
        run: run folder.
    """
    print(describe_model(load(run)))


def families(name: str | None = None, markdown: bool = False) -> None:
    """List the families by kind of data, or explain one: pyro-vae families NAME.

    Args:
        name: a family to explain; all are listed without it.
        markdown: write the list as a table for a document.
    """
    print(catalogue(name, markdown=markdown))


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


if __name__ == "__main__":
    main()
