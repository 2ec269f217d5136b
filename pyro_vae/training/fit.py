"""Fitting: one loop for every pair of Pyro programs and every objective.

The data lies on the device as one tensor and is batched by index. Everything is checked before the first step;
a step then waits for nothing (no `.item()`), and the numbers of an epoch are read once, at its end.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyro_vae.data.fingerprint import fingerprint
from pyro_vae.data.rows import Rows
from pyro_vae.declared import Declared
from pyro_vae.errors import InputError, require_whole_numbers
from pyro_vae.objectives import ELBO, Objective
from pyro_vae.run import Run
from pyro_vae.training.history import History
from pyro_vae.training.optimizers import Adam, Optimizer
from pyro_vae.training.programs import Loss, Programs, frozen, require_programs
from pyro_vae.training.progress import Reporter
from pyro_vae.vae import VAE

EVALUATION_ROWS = 1000
"""Rows per batch of an evaluation, and training rows that stand in where there are no validation data."""


@dataclass(frozen=True)
class Runtime(Declared):
    """Where and how precisely the numbers are computed, in Fabric's terms.

    Args:
        accelerator: "auto" takes a GPU where there is one.
        precision: Fabric's precision, such as "bf16-mixed"; None keeps the type of the weights.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["bf16-mixed", "16-mixed", "32-true", "64-true"] | None = None


def fit(
    vae: Programs,
    x: Any,
    *,
    validation: Any = None,
    objective: Objective = ELBO(),
    optimizer: Optimizer | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = Adam(),
    epochs: int = 20,
    batch_size: int = 128,
    seed: int = 0,
    run: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    runtime: Runtime = Runtime(),
) -> History:
    r"""Fit a model and its guide to data by stochastic variational inference.

    $$ \max_{\theta, \phi} \frac1N \sum_n \mathcal{L}(x_n; \theta, \phi) $$

    with $\mathcal{L}$ the objective's bound and gradients from shuffled batches. The same seed and starting
    weights give the same weights, bit for bit, on the same machine; the global random state is left as it was.

    Args:
        vae: a `VAE`, or any object whose `model` and `guide` are Pyro programs of one batch of named tensors.
        x: rows (N, *event_shape) as tensor, array, table, mapping of named tensors, or `pv.data.Rows`.
        validation: held-out rows, evaluated after each epoch with the same random numbers every time.
        objective: the bound to maximise.
        optimizer: a declared optimizer, or a callable from parameters to a torch optimizer.
        epochs: passes over the data.
        batch_size: rows per step; a shorter last batch is used too.
        seed: of shuffling, draws and dynamic binarisation.
        run: a folder to write: declaration, weights, history, pictures.
        overwrite: whether an existing run may be replaced, once the new one is complete.
        progress: whether to show progress.
        runtime: device and precision.

    Returns:
        The history. Interrupted by the keyboard, it stops after the running step, keeps what was learned, and
        says so in `history.stopped`.

    Raises:
        InputError: an argument or the data cannot be used; nothing has been done then.
        FloatingPointError: the loss is no longer finite; the message names the epoch.

    >>> import pyro_vae as pv
    >>> vae = pv.VAE((64,), 2, encoder=pv.MLP(hidden=(16,)))
    >>> history = pv.fit(vae, pv.data.load("digits").train.x.flatten(1), epochs=2, progress=False)
    >>> bool(history["loss"][1] < history["loss"][0])
    True
    """
    _check_arguments(vae, objective, epochs, batch_size, seed)
    rows, held = Rows.of(x), None if validation is None else Rows.of(validation)
    _check_rows(vae, rows, held)
    settings = {
        "objective": objective,
        "optimizer": optimizer,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    folder = Run.reserve(run, overwrite) if run is not None else None

    session = _Session(vae, objective, runtime, math.ceil(len(rows) / batch_size), len(rows))
    if isinstance(vae, VAE):
        vae.trained_on = fingerprint(rows.x)
    with session.seeded(seed):
        rows, held = session.place(rows), None if held is None else session.place(held)
        weights = session.loss.weights(rows.batch(slice(2)))
        made = optimizer.build(weights) if isinstance(optimizer, Optimizer) else _made_by(optimizer, weights)
        if hasattr(vae, "initialize"):
            vae.initialize(**rows.batch())
        history = History(caveat=getattr(vae, "caveat", ""))
        with frozen(weights, made), Reporter(epochs, math.ceil(len(rows) / batch_size), progress) as reporter:
            session.train(rows, held, made, epochs, batch_size, seed, reporter, history)
        if not history.stopped:
            from pyro_vae.training.aggregate import settle  # it fits, by this function

            settle(vae, rows, seed)
    if folder is not None:
        folder.write(vae, rows, held, history, settings)
    return history


class _Session:
    """The programs on their device: what one call of `fit` trains."""

    def __init__(
        self, programs: Programs, objective: Objective, runtime: Runtime, steps_per_epoch: int, rows: int
    ) -> None:
        from lightning.fabric import Fabric  # here, for importing it takes seconds

        self.programs = programs
        self.levels = getattr(programs, "pixels", False) and objective.bounds
        self.loss = Loss(programs, objective, steps_per_epoch, rows)
        precision = runtime.precision or "32-true"  # by which Fabric leaves every type as it is, float64 too
        self.fabric = Fabric(accelerator=runtime.accelerator, devices=1, precision=precision)
        self.wrapped = self.fabric.setup_module(self.loss)

    def _dtype(self) -> torch.dtype:
        return next((w.dtype for w in self.loss.parameters()), torch.get_default_dtype())

    def place(self, rows: Rows) -> Rows:
        return rows.to(self.fabric.device, self._dtype())

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Run with random numbers of our own, outside of Pyro's store, and leave the user's as they were."""
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        outside = getattr(self.programs, "outside_store", contextlib.nullcontext)
        with torch.random.fork_rng(devices), outside():
            torch.manual_seed(seed)
            yield

    def train(
        self,
        rows: Rows,
        held: Rows | None,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        batch_size: int,
        seed: int,
        reporter: Reporter,
        history: History,
    ) -> None:
        wrapped: Any = self.fabric.setup_optimizers(optimizer)
        order = torch.Generator().manual_seed(seed)
        try:
            for epoch in range(1, epochs + 1):
                start = time.perf_counter()
                self.wrapped.train()
                means = self._epoch(rows, wrapped, batch_size, order, reporter)
                record = {"epoch": epoch, "seconds": 0.0, **means}
                record |= {name: float(value) for name, value in self.loss.running.values.items()}
                if not math.isfinite(record["loss"]):
                    raise FloatingPointError(
                        f"the loss is {record['loss']} in epoch {epoch}: lower the learning rate, as in "
                        "optimizer=pv.Adam(lr=1e-4), or scale the data to unit spread."
                    )
                record |= self._evaluate(rows, held, seed)
                record["seconds"] = time.perf_counter() - start
                pixels = [subject.observed if subject and self.levels else 0.0 for subject in (rows, held)]
                history.add(record, *pixels)
                reporter.epoch(record)
        except KeyboardInterrupt:
            history.stopped = f"interrupted in epoch {len(history) + 1} of {epochs}"
        finally:
            self.wrapped.eval()

    def _epoch(
        self,
        rows: Rows,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        order: torch.Generator,
        reporter: Reporter,
    ) -> dict[str, float]:
        """One pass over the data; returns the means per row of the loss and its parts, read once, at the end."""
        names: list[str] = []
        totals = torch.zeros((), device=self.fabric.device, dtype=torch.float64)
        for index in torch.randperm(len(rows), generator=order).to(self.fabric.device).split(batch_size):
            optimizer.zero_grad()
            loss, parts = self.wrapped(rows.batch(index))
            self.fabric.backward(loss)
            optimizer.step()
            names = list(parts)
            totals = totals + torch.stack(list(parts.values())) * len(index)
            reporter.step()
        return dict(zip(names, (totals / len(rows)).tolist(), strict=True))

    def _evaluate(self, rows: Rows, held: Rows | None, seed: int) -> dict[str, float]:
        """The parts of the bound on held-out rows, or the KL per latent on some training rows."""
        self.wrapped.eval()
        subject, scalars = (rows, False) if held is None else (held, True)
        limit = min(len(subject), EVALUATION_ROWS) if held is None else len(subject)
        totals: dict[str, Tensor] = {}
        with torch.random.fork_rng([self.fabric.device] if self.fabric.device.type == "cuda" else []):
            torch.manual_seed(seed)
            for start in range(0, limit, EVALUATION_ROWS):
                batch = subject.batch(slice(start, min(start + EVALUATION_ROWS, limit)))
                for name, value in self.loss.parts(batch).items():
                    totals[name] = totals.get(name, 0) + value.double() * (len(batch["x"]) / limit)
        record: dict[str, float] = {}
        for name, value in totals.items():
            if value.ndim == 0 and scalars:
                record[f"validation_{name}"] = float(value)
            elif value.ndim:
                record |= {f"{name}_{i}": float(v) for i, v in enumerate(value.flatten())}
        return record


def _made_by(
    optimizer: Callable[[Iterable[nn.Parameter]], Any], weights: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    made = optimizer(list(weights.values())) if callable(optimizer) else None
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(
            f"optimizer = {optimizer!r} makes no torch optimizer: write optimizer=pv.Adam(lr=1e-3), or a callable such "
            "as functools.partial(torch.optim.RMSprop, lr=1e-3)."
        )
    return made


def _check_arguments(vae: Any, objective: Any, epochs: Any, batch_size: Any, seed: Any) -> None:
    require_programs(vae, "fit")
    if not isinstance(objective, Objective):
        raise InputError(
            f"objective = {objective!r} is no objective of this package: write objective=pv.objectives.ELBO(); Pyro's "
            "own run with pyro.infer.SVI on vae.model and vae.guide."
        )
    require_whole_numbers(epochs=(epochs, 1), batch_size=(batch_size, 1), seed=(seed, 0))


def _check_rows(vae: Any, rows: Rows, held: Rows | None) -> None:
    if len(rows) < 2:
        raise InputError(
            "x has 1 row, and a model is fitted to at least 2: give more data, as a tensor (N, *event_shape)."
        )
    if not hasattr(vae, "check"):
        return
    with torch.random.fork_rng():  # dynamic rows are drawn to be checked
        vae.check(rows.batch())
        try:
            if held is not None:
                vae.check(held.batch())
        except InputError as error:
            raise InputError(f"validation data: {error}") from None
