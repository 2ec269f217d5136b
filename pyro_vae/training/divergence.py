"""The cause of a divergence, found once it has happened: a step costs nothing for it but a reference to its sums.

The weights of some steps before are kept. If with these the batch at fault has a NaN or infinite log-probability, the
data or the likelihood are the cause, and the site and the rows are named; otherwise the steps were too long.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.core.formatting import abbreviate
from pyro_vae.core.rng import seeded
from pyro_vae.data.rows import Rows
from pyro_vae.data.streaming import Stream
from pyro_vae.objectives import Particles
from pyro_vae.training.history import History
from pyro_vae.training.loss import Loss, substituted

ROWS = 3
"""Rows that are named at most."""

RISE = 10
"""How many times its size a loss needs to rise, from the first step to the last epoch, for a warning."""

FAR = 1e3
"""How many times the batch's median size a value needs to count as far from the others."""


class DivergenceRecorder:
    """Weights before the last steps, and `sums`, the loss and its parts of each of these steps, over rows."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self.weights = weights
        self.first, self.sums = 0, list[Tensor]()
        self.before: list[Tensor] = []
        self.start: Tensor | None = None  # the loss and its parts in the first step of all, by row
        self.mark_good(0)

    def mark_good(self, done: int) -> None:
        """Keep the weights after so many steps of an epoch, all of them finite."""
        self.first, self.sums = done, []
        if not self.before:
            self.before = [weight.detach().clone() for weight in self.weights.values()]
            return
        torch._foreach_copy_(self.before, [weight.detach() for weight in self.weights.values()])

    def first_bad_step(self) -> int | None:
        """The first step of the epoch, from 0, whose loss or a part of it is NaN or infinite; None if there is none."""
        if not self.sums:
            return None
        finite = torch.stack(self.sums).isfinite().all(1).tolist()
        return self.first + finite.index(False) if False in finite else None


def diagnose(recorder: DivergenceRecorder, loss: Loss, rows: Rows | Stream, order: Sequence[Tensor]) -> str:
    """Description of a divergence, in sentences with a space before them: step, rows, site, parts, likely cause.

    `order` has the row numbers of each step of the epoch.
    """
    if (step := recorder.first_bad_step()) is None:
        return _parts(recorder.weights)
    numbers = order[step]
    batch = next(iter(rows.read([numbers])))
    text = f" Step {step + 1} of the epoch was the first, on rows {abbreviate(numbers.tolist(), ROWS)} of the data."
    try:
        with seeded(None, batch["x"].device), substituted(recorder.weights, recorder.before):
            objective = loss.running.current
            particles = objective.draw(loss.model, loss.guide, **batch)
            finite = {name: _by_row(value) for name, value in _sites(particles).items()}
            gradient = _gradient(-objective.bound(particles).mean(), recorder.weights)
    except Exception as error:  # of programs that check their arguments: their message says it
        return f"{text} The programs fail on them: {str(error).strip().splitlines()[0]}."
    since = step - recorder.first
    when = f"the weights of {since} step{'s' * (since != 1)} before" if since else "the weights before that step"
    wrong = {name: good for name, good in finite.items() if not good.all()}
    for name, good in wrong.items():
        at = numbers[~good.to(numbers.device)].tolist() if len(good) == len(numbers) else numbers.tolist()
        text += f" By {when}, {name} is NaN or infinite on row{'s' * (len(at) != 1)} {abbreviate(at, ROWS)}."
    if wrong:
        return f"{text}{_far(batch['x'], numbers)} Look at these rows, and at whether the likelihood suits the data."
    if gradient:
        return f"{text} By {when}, the loss is finite and its gradient to {', '.join(gradient)} is not."
    steps = " The steps were too long: clip_norm=1.0 of the optimizer bounds them, together with a lower rate."
    return f"{text} By {when}, every log-probability of these rows is finite.{steps}{_far(batch['x'], numbers)}"


def warn_of_rise(recorder: DivergenceRecorder, names: Sequence[str], history: History) -> None:
    """Warn of a training that ends far worse than its first step began, by log p(x|z) - KL where the history has it.

    Args:
        recorder: of the training.
        names: of the loss and its parts, as in a step's sums.
        history: the history.
    """
    if recorder.start is None or not len(history):
        return
    began, ended = dict(zip(names, recorder.start.tolist(), strict=True)), history.last
    first, last = (
        each["kl"] - each["log_likelihood"] if {"kl", "log_likelihood"} <= each.keys() else each["loss"]
        for each in (began, ended)
    )
    if last - first > RISE * (1 + abs(first)):
        warnings.warn(
            f"training ended at {last:.4g} nats a row, and began at {first:.4g}: its steps were too long, so lower the "
            "learning rate, as in optimizer=pv.Adam(lr=1e-4).",
            stacklevel=3,
        )


def _sites(particles: Particles) -> dict[str, Tensor]:
    """Log-probabilities by name."""
    named = {f"log p({site}|...)": value for site, value in particles.log_likelihoods.items()}
    for site, latent in particles.latents.items():
        named[f"log q({site}|...)"] = latent.log_posterior
        named[f"log p({site})"] = latent.log_prior
    return named


def _by_row(value: Tensor) -> Tensor:
    """Whether all particles of each row are finite, (N,)."""
    finite = value.detach().isfinite()
    return finite.reshape(-1, finite.shape[-1]).all(0) if finite.ndim else finite[None]


def _gradient(loss: Tensor, weights: Mapping[str, nn.Parameter]) -> list[str]:
    """The parts of the model whose gradient is NaN or infinite."""
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    pairs = zip(trained, found, strict=True)
    return _groups(name for name, gradient in pairs if gradient is not None and not gradient.isfinite().all())


def _parts(weights: Mapping[str, nn.Parameter]) -> str:
    bad = _groups(name for name, weight in weights.items() if not weight.isfinite().all())
    return f" Weights of {', '.join(bad)} are NaN or infinite." if bad else ""


def _groups(names: Iterator[str]) -> list[str]:
    """The parts that weights belong to, as an optimizer's `lr_by_part` names them."""
    return list(dict.fromkeys(name.split(".")[0] for name in names))


def _far(x: Tensor, numbers: Tensor) -> str:
    """A sentence on the row whose largest value is far from those of the others."""
    sizes = x.detach().double().reshape(len(x), -1).abs().amax(1).nan_to_num(0.0)
    largest, middle = float(sizes.max()), float(sizes.median())
    if len(x) < 3 or not largest > FAR * middle:
        return ""
    row = int(numbers[int(sizes.argmax())])
    return f" Row {row} has a value of size {largest:.3g}, and half of these rows none above {middle:.3g}."
