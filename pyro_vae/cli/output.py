"""Files and messages of the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor
from xarray import DataTree

from pyro_vae.core.errors import InputError
from pyro_vae.core.files import naming_unwritable
from pyro_vae.criticism.compare import Comparison
from pyro_vae.criticism.datatree import save
from pyro_vae.data import Dataset
from pyro_vae.data.images import is_image
from pyro_vae.distributions import moments
from pyro_vae.model.vae import VAE
from pyro_vae.plots._run_figures import predictive_pictures
from pyro_vae.plots.compare import compare
from pyro_vae.plots.samples import image_grid
from pyro_vae.training import History

Split = Literal["train", "validation", "test"]

SUFFIXES = (".npy", ".csv", ".png")


def summary(data: Dataset, history: History, run: str) -> str:
    """Summary of a fit: its data, its last losses, and where its files are."""
    lines = [repr(data)]
    if history.stopped:
        lines.append(f"Training was {history.stopped}; the run holds what was learned.")
    if len(history):
        last = history.last
        name = "minus cross-entropy" if history.caveat else "log-likelihood"
        for split, prefix in (("training", ""), ("validation", "validation_")):
            if f"{prefix}loss" in last:
                loss, likelihood, kl = (last[prefix + column] for column in ("loss", "log_likelihood", "kl"))
                bits = last.get(f"{prefix}bits_per_dim")
                extra = "" if bits is None else f" = {bits:.4f} bits per dimension"
                lines.append(f"{split:<11} loss {loss:.3f} nats per row ({name} {likelihood:.3f}, KL {kl:.3f}){extra}")
    if history.caveat:
        lines.append(f"Note: {history.caveat}.")
    lines.append(f"Look at {Path(run) / 'figures'}: training.png, draws.png, reconstructions.png, latent.png")
    verbs = (f"describe {run}", f"evaluate {run}", f"sample {run} --to draws.png")
    lines.append("Go on with: " + "   ".join(f"pyro-vae {verb}" for verb in verbs))
    return "\n".join(lines)


def how_means_come(vae: VAE) -> str:
    """Sentence on the means of p(x|z): whether they are closed forms, or how large the error of their draws is."""
    return f"{moments.mean(vae.decode(vae.prior().sample((2,)))).how}.".capitalize()


def reserve(path: str, overwrite: bool = False, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """Path of a file that can be written, checked before any work.

    Args:
        path: the file.
        overwrite: whether an existing file is replaced.
        suffixes: what its name may end in.

    Raises:
        InputError: an unknown suffix, a file in the way, or no such folder.
    """
    target = Path(path).expanduser()
    if target.suffix not in suffixes:
        raise InputError(f"--to {path}: name a file that ends in {', '.join(suffixes)}.")
    if target.exists() and not overwrite:
        raise InputError(f"{path} exists: name another file with --to, or replace it with --overwrite.")
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {target.parent}.")
    return target


def write(target: Path, x: Tensor, beside: Tensor | None = None) -> None:
    """Write rows (N, *event_shape) in the form that the file's name asks for.

    Args:
        target: the file.
        x: the rows.
        beside: rows to show above them in a picture.

    Raises:
        InputError: rows that are not vectors in a .csv, or not images in a .png; a folder that does not exist.
    """
    if target.suffix == ".csv" and x.ndim > 2:
        raise InputError(f"{target}: rows of shape {tuple(x.shape[1:])} are not vectors; write a .npy file.")
    if target.suffix == ".png" and not is_image(tuple(x.shape[1:])):
        raise InputError(f"{target}: rows of shape {tuple(x.shape[1:])} are not images; write a .npy file.")
    with naming_unwritable(target):
        if target.suffix == ".npy":
            np.save(target, x.numpy())
        elif target.suffix == ".csv":
            np.savetxt(target, x.reshape(len(x), -1).numpy(), delimiter=",", fmt="%.9g")
        else:
            image_grid(x, beside).savefig(target)
    print(f"{len(x)} rows of shape {tuple(x.shape[1:])} in {target}")


def write_text(target: Path, text: str, what: str) -> None:
    """Write a file of text, and say what it holds.

    Raises:
        InputError: it cannot be written.
    """
    with naming_unwritable(target):
        target.write_text(text)
    print(f"{what} in {target}")


def write_comparison(target: Path, found: Comparison) -> None:
    """Write a comparison as the picture or the table that the file's name asks for.

    Raises:
        InputError: it cannot be written.
    """
    if target.suffix == ".csv":
        write_text(target, found.to_csv(), "The table")
        return
    with naming_unwritable(target):
        compare(found).savefig(target)
    print(f"The picture in {target}")


def write_check(target: Path, tree: DataTree) -> None:
    """Write the results of a predictive check, and its pictures beside it: check-KIND.nc, check-KIND-coverage.png, ...

    Raises:
        InputError: it cannot be written.
    """
    save(tree, target)
    pictures = predictive_pictures(tree)
    with naming_unwritable(target.parent):
        for old in target.parent.glob(f"{target.stem}-*.png"):
            old.unlink()
        for name, picture in pictures.items():
            picture.savefig(target.with_name(f"{target.stem}-{name}.png"))
    print(f"All of it in {target}, pictures beside it: {', '.join(f'{target.stem}-{name}.png' for name in pictures)}")
