"""An experiment: a fit whose data, model and training are named, by options of the command line or of a sweep.

options -> data.load, VAE, fit -> a run folder
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyro_vae import data as datasets
from pyro_vae.core.rng import seeded
from pyro_vae.families import Family, Normal
from pyro_vae.model.vae import VAE
from pyro_vae.networks import Network
from pyro_vae.objectives import ELBO, Objective
from pyro_vae.runs.folder import RunFolder
from pyro_vae.training import Adam, History, Optimizer, Stopping
from pyro_vae.training.checkpoints import Checkpoints
from pyro_vae.training.distributed import Runtime, is_first_process
from pyro_vae.workflow.fit import fit
from pyro_vae.workflow.options import Monitor, RunOptions


@dataclass(frozen=True, eq=False)
class Experiment:
    """A fit that has ended.

    Args:
        data: the rows it was given, in three splits.
        history: the record of each epoch.
        folder: its run folder.
    """

    data: datasets.Dataset
    history: History
    folder: str


def run_experiment(
    *,
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
    compile: bool | Literal["auto"] = False,
    stopping: Stopping | None = None,
    logger: Literal["csv", "tensorboard"] | None = None,
    profile: bool = False,
    progress: bool = True,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    precision: Literal["bf16-mixed", "16-mixed", "32-true", "64-true"] | None = None,
    devices: str = "1",
    num_nodes: int = 1,
    _callbacks: Sequence[Callable[..., Any]] = (),  # not an option: how a study hears of each epoch
) -> Experiment:
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
        optimizer: Adam, AdamW or SGD; lr_by_part as in --optimizer.lr_by_part "{posterior: 1e-4}".
        epochs: passes over the data.
        batch_size: rows per step.
        seed: seed of weights, shuffling and draws.
        run: folder to write; by default runs/ and the data's name.
        overwrite: replace an existing run, once the new one is complete.
        checkpoint_minutes: save everything into the run so often, so that a crash loses no more than that.
        checkpoint_epochs: or after so many epochs.
        resume: go on from the newest checkpoint of the run, where there is one.
        compile: true compiles steps, which takes half a minute and makes them faster; auto where it pays.
        stopping: when to end before the last epoch: EarlyStopping, with fields as in --stopping.patience 5.
        logger: what records each epoch besides: csv or tensorboard; files go into logs beside the run.
        profile: print where the time of some steps goes, and write it into the run.
        progress: show progress.
        accelerator: where to compute; auto takes a GPU where there is one.
        precision: of the numbers, such as bf16-mixed; by default that of the weights.
        devices: processes on this node, each with a device of its own, or auto; torchrun says it by itself.
        num_nodes: nodes.
    """
    folder = run or str(Path("runs") / Path(data).stem)
    if is_first_process():
        RunFolder.reserve(folder, overwrite, resume)
    number: Any = int(devices) if devices.isdecimal() else devices
    runtime = Runtime(accelerator, precision, number, num_nodes)
    saves = checkpoint_minutes is not None or checkpoint_epochs is not None
    checkpoints = Checkpoints(every_minutes=checkpoint_minutes, every_epochs=checkpoint_epochs) if saves else None
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
    with seeded(seed):
        vae = VAE(
            rows.event_shape,
            latent_dim,
            prior=prior,
            likelihood=likelihood,
            guide=guide,
            encoder=encoder,
            decoder=decoder,
        )
    history = fit(
        vae,
        rows.train,
        validation=rows.validation,
        objective=objective,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        run=RunOptions(folder, overwrite, resume, checkpoints),
        compile=compile,
        monitor=Monitor(() if logger is None else (logger,), profile, stopping),
        callbacks=_callbacks,
        progress=progress,
        runtime=runtime,
    )
    return Experiment(rows, history, folder)
