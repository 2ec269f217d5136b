"""Report of one run: its checks, model, data, training, latents, evidence, and how to reproduce it."""

import dataclasses
import math
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas
import torch

from pyro_vae import plots
from pyro_vae.core import serialization
from pyro_vae.core.errors import InputError
from pyro_vae.core.formatting import in_python, on_the_command_line
from pyro_vae.criticism.evidence import Evidence
from pyro_vae.criticism.latent_usage import Latents
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.criticism.summary import findings
from pyro_vae.data.rows import observed_mask
from pyro_vae.data.suggest import suggest
from pyro_vae.model.summary import describe
from pyro_vae.model.vae import VAE
from pyro_vae.registry import tables
from pyro_vae.registry.options import RECORDED
from pyro_vae.reports.bibtex import Reference, cited
from pyro_vae.reports.formulas import density_formulas, mathml, model_formulas
from pyro_vae.reports.page import Bibliography, Code, Formula, Page, Section, Sentences, Table
from pyro_vae.reports.pictures import CHECKS, draw_check, draw_training
from pyro_vae.reports.results import ReportSettings, RunResults
from pyro_vae.workflow.comparison import data_facts

FEATURES = 30
"""Maximum number of features of a vector in a table."""

WORST = 10
"""Number of rows with the smallest log p(x) in a table."""

MODEL_KEYS = ("prior", "likelihood", "guide", "encoder", "decoder", "latent_dim")
"""Keys of spec.yaml that declare the model."""


def run_page(results: RunResults, data: str | None) -> Page:
    """Page on the results of a run, on its own data or on data of another name."""
    sections = [
        _checks(results),
        _suggestion(results, data),
        _model(results),
        _data(results),
        _training(results),
        _latents(results),
        _evidence(results),
        _worst(results),
        _reproduce(results, data),
        Section("References", [Bibliography(references([results]))]),
    ]
    return Page(f"{results.run.path.absolute().name}: a VAE and whether to believe it", _facts(results), sections)


def _facts(results: RunResults) -> list[str]:
    """Sentences on the data, the model and the rows on which it is evaluated."""
    declared, spec = results.vae.declaration, results.spec
    parts = [type(getattr(declared, role)).__name__ for role in ("prior", "likelihood", "guide")]
    seen = ", on which it was trained" if results.settings.split == "train" else ""
    shape = f"events of shape {declared.event_shape}" if declared.event_shape else "single numbers"
    source = data_facts(spec)["data"] or "data in memory"
    return [
        f"Fitted to {source}: {spec['rows']:,} rows, {shape}.",
        f"{declared.latent_dim} latents; {parts[0]} prior, {parts[1]} likelihood, {parts[2]} guide.",
        f"Evaluated on {results.described_rows}{seen}.",
    ]


def _checks(results: RunResults) -> Section:
    section = Section("What the checks say", [Sentences(findings(results.tree))])
    for name in CHECKS:
        draw_check(name, section, results)
    found = results.tree["checks"].to_dataset()
    columns = {"test statistic": "label", "of": "scope", "data": "observed", "replicates": "mean", "their sd": "sd"}
    columns |= {"p": "p_value", "error of p": "p_error", "q (false discovery rate)": "q_value"}
    caption = "Test statistics of the data and of replicate data sets, with two-sided tail probabilities p"
    section.blocks.append(Table.of(caption, {head: found[name].values.tolist() for head, name in columns.items()}))
    return section


def _suggestion(results: RunResults, data: str | None) -> Section:
    """Likelihood that suits the values, with the commands that compare it with the run's."""
    path, found = str(results.run.path), suggest(results.rows)
    name, own = type(found.family).__name__, type(results.vae.declaration.likelihood).__name__
    lead = "From values alone, without the dependences between them, suggest proposes"
    section = Section("What to try next", [f"{lead} {name}{', which this run has' * (name == own)}: {found.reason}"])
    if found.alternatives:
        section.blocks.append(f"Or {', '.join(f'likelihood={in_python(each)}' for each in found.alternatives)}.")
    section.blocks += [f"Note: {note}" for note in found.notes]
    if name == own:
        return section
    if results.spec.get("data") is None:
        section.blocks.append(Code("This likelihood instead", f"likelihood={in_python(found.family)}"))
    else:
        to, where = f"{path}-{name}", _data_option(data)
        again = f"{_fit_command(path, to, where)} {on_the_command_line('likelihood', found.family)}"
        both = shlex.join(["pyro-vae", "report", path, to, *where])
        section.blocks.append(Code("This likelihood, and a comparison of both", f"{again}\n{both}"))
    return section


def _model(results: RunResults) -> Section:
    vae, batch = results.vae, results.rows.batch(slice(2))
    labels = (
        "Prior: latents of row n",
        "Likelihood: its data, given its latents",
        "Guide: its latents, given its data",
    )
    section = Section("The model")
    section.blocks += [Formula(label, mathml(tex)) for label, tex in zip(labels, model_formulas(vae), strict=True)]
    section.blocks.append(
        "Parameters with an argument are computed by a network, those with an index j are trained constants, one for "
        "each element, and those with neither are one trained constant."
    )
    section.blocks += [
        Formula(f"{name}, its density of elements j", mathml(tex)) for name, tex in density_formulas(vae)
    ]
    section.draw(
        lambda: plots.graph(vae, **batch),
        "Graph of the model: an arrow from the latents z to the data x, which are observed, within a plate over rows",
        "Shaded: observed. Box: repeated for each row. Dashed: the guide.",
    )
    section.blocks.append(Code("The model in words", describe(vae)))
    return section


def _data(results: RunResults) -> Section:
    spec, labels = results.spec, results.rows.labels
    loaded = {} if spec.get("data") is None else dataclasses.asdict(tables.from_dict("data", spec["data"]))
    settings = [[name, str(value)] for name, value in loaded.items() if value is not None]
    section = Section("The data", _facts(results)[::2])
    if spec.get("fingerprint"):
        section.blocks.append(f"Fingerprint of the training rows: {spec['fingerprint']}.")
    if settings:
        section.blocks.append(Table("The data and its split", ["setting", "value"], settings))
    section.blocks.append(_features(results))
    if labels is not None:
        kinds = [column.tolist() for column in torch.unique(labels, return_counts=True)]
        columns = dict(zip(("class", "rows"), kinds, strict=True))
        section.blocks.append(Table.of("Classes, which the model never saw", columns))
    return section


def _features(results: RunResults) -> Table:
    """Mean, spread and ends of the observed values of each feature; of larger events of all elements together."""
    rows = results.rows
    count, mask = math.prod(rows.event_shape), observed_mask(rows.tensors)
    x = rows.x.double() if mask is None else torch.where(mask.bool(), rows.x.double(), torch.nan)
    if count <= FEATURES and len(rows.event_shape) <= 1:
        names = list(rows.features) or [f"x[{at}]" if rows.event_shape else "x" for at in range(count)]
    else:
        names = [f"all {count:,} elements"]
    found = pandas.DataFrame(x.reshape(-1, len(names)).cpu().numpy()).agg(["mean", "std", "min", "max"])
    columns = dict(zip(("mean", "sd", "least", "largest"), found.values.tolist(), strict=True))
    return Table.of(f"Values in {results.described_rows}", {"feature": names, **columns})


def _training(results: RunResults) -> Section:
    spec, history = results.spec, results.history
    others = {*RECORDED, *MODEL_KEYS, "data"}
    settings = [[name, format_setting(name, value)] for name, value in spec.items() if name not in others]
    section = Section("Training", [Table("Settings of the fit", ["setting", "value"], settings)])
    section.blocks += [f"Note: {note}." for note in (history.caveat, history.stopped) if note]
    if not len(history):
        section.blocks.append("No epoch was trained.")
        return section
    last = history.last
    names = {
        "loss": "loss, minus the bound",
        "log_likelihood": "minus cross-entropy" if history.caveat else "log-likelihood",
        "kl": "KL from guide to prior",
        "bits_per_dim": "bits per dimension",
    }
    cells = [
        [title, *(float(last.get(f"{prefix}{name}", math.nan)) for prefix in ("", "validation_"))]
        for name, title in names.items()
        if name in last
    ]
    caption = f"After epoch {last['epoch']:g}, in nats per row"
    section.blocks.append(Table(caption, ["quantity", "training", "validation"], cells))
    section.blocks.append(f"{len(history)} epochs took {float(history['seconds'].sum()):,.0f} s.")
    draw_training(section, results)
    return section


def format_setting(name: str, value: Any) -> str:
    """Text of a setting of spec.yaml: a declaration as in Python."""
    if name in tables.ROLES and value is not None:
        try:
            return repr(tables.from_dict(name, value))
        except InputError:
            return str(value)
    return str(value)


def _latents(results: RunResults) -> Section:
    section, vae, rows = Section("Latents"), results.vae, results.rows
    try:
        found = results.latents
    except InputError as error:
        section.blocks.append(f"Not evaluated: {error}")
        return section
    section.blocks.append(Sentences(repr(found).splitlines()))
    given: dict[str, Any] = rows.batch()
    given["x"] = vae.impute(given)
    used = f"{len(found.active)} of {len(found)} latents are active"
    section.draw(lambda: plots.latent_usage(found), f"Bars of the KL and of the variance of each latent: {used}")
    alt = f"Posteriors of rows as ellipses over contours of the prior; aggregate KL {found.surgery.aggregate:.2f} nats"
    section.draw(
        lambda: plots.latent(vae, labels=rows.labels, usage=found, **given), alt, "An ellipse is one row, one sd wide."
    )
    alt = "Histograms of the latents of all rows, with the density of the prior"
    section.draw(lambda: plots.aggregate_posterior(vae, **given), alt, "The aggregate posterior against the prior.")
    alt = "Data that the decoder makes of one latent after the other, moved through its range"
    section.draw(lambda: plots.traversals(vae, **given), alt, "One latent is moved, the others stay.")
    columns = {
        "latent": range(len(found)),
        "KL [nats]": [math.nan] * len(found) if found.kl is None else found.kl.tolist(),
        "variance of the posterior mean": found.spread.tolist(),
        "active": ["yes" if latent in found.active else "no" for latent in range(len(found))],
    }
    section.blocks.append(Table.of("Each latent: its KL to the prior, and whether it is used", columns))
    return section


def _evidence(results: RunResults) -> Section:
    found = results.evidence
    section = Section("Evidence", [Sentences(repr(found).splitlines())])
    alt = f"k-hat of {len(found)} rows: {int(found.unreliable.sum())} are above the threshold {found.threshold:.2f}"
    section.draw(lambda: plots.khat(found), alt, "The log p(x) of a row with a large k-hat is unreliable.")
    return section


def _worst(results: RunResults) -> Section:
    found, tree = results.evidence, results.tree
    section = Section("Worst-fitted rows and features")
    section.draw(
        lambda: plots.outliers(tree),
        "Tail probabilities of the most extreme rows, and the calibration of the worst features",
        "Rows whose test statistics are extreme among replicates, and features.",
    )
    order, name = found.pointwise.argsort()[:WORST], "log of the mean weight" if found.caveat else "log p(x)"
    values = {f"{name} [nats]": found.pointwise, "error": found.mcse, "k-hat": found.khat}
    columns = {"row": order.tolist(), **{head: column[order].tolist() for head, column in values.items()}}
    section.blocks.append(Table.of(f"The {len(order)} rows with the smallest {name}", columns))
    held = tree["calibration"].to_dataset()
    at = int(np.abs(held["level"].values - 0.9).argmin())
    parts = (held["feature"], held["coverage"][:, at], held["pit_p_value"], held["pit_q_value"])
    cells = sorted(zip(*(part.values.tolist() for part in parts), strict=True), key=lambda row: row[3])
    head = ["feature", f"data in the {float(held['level'][at]):.0%} interval"]
    head += ["p of a uniform PIT", "q (false discovery rate)"]
    section.blocks.append(Table("Calibration of each feature, the worst first", head, cells[:FEATURES]))
    return section


def _reproduce(results: RunResults, data: str | None) -> Section:
    path, spec, settings = str(results.run.path), results.spec, results.settings
    text = check_commands("evaluate", [path], settings, data)
    notes = [f"Seed {spec.get('seed')} of the fit, seed {settings.seed} of this report."]
    if spec.get("data") is None:
        notes.append("The data were in memory, so a command needs them in a file: name it with --data.")
    else:
        text = f"{_fit_command(path, f'{path}-again', _data_option(data))}\n{text}"
    if len(results.rows) < results.available:
        notes.append(f"evaluate takes all {results.available:,} rows, this report {results.described_rows}.")
    versions = [[name, str(version)] for name, version in spec.get("versions", {}).items()]
    blocks = [
        Code("Commands", text),
        Table("Versions the model was fitted with", ["package", "version"], versions),
        Code("spec.yaml", serialization.dump(spec)),
    ]
    return Section("How to reproduce", [*notes, *blocks])


def check_commands(verb: str, paths: Sequence[str], settings: ReportSettings, data: str | None) -> str:
    """Commands that repeat the checks of a page, the verb that estimates log p(x), and the page itself."""
    where, seed = ["--split", settings.split, *_data_option(data)], ["--seed", str(settings.seed)]
    plain = serialization.to_dict(settings.method)
    name, fields = (plain, {}) if isinstance(plain, str) else next(iter(plain.items()))
    method = ["--method", name, *(word for key, value in fields.items() for word in (f"--method.{key}", str(value)))]
    draws = [] if settings.draws is None else ["--draws", str(settings.draws)]
    lines = [
        *(["pyro-vae", "check", path, *where, *draws, *seed] for path in paths),
        ["pyro-vae", verb, *paths, *where, *method, *seed],
        ["pyro-vae", "report", *paths, *where, *method, *draws, "--rows", str(settings.rows), *seed],
    ]
    return "\n".join(map(shlex.join, lines))


def _fit_command(path: str, to: str, where: Sequence[str]) -> str:
    return shlex.join(["pyro-vae", "fit", "--config", f"{path}/spec.yaml", "--run", to, *where])


def _data_option(data: str | None) -> list[str]:
    return ["--data", data] if data else []


def references(runs: Sequence[RunResults]) -> list[Reference]:
    """References of the components and methods of some runs."""
    return cited([used for results in runs for used in _cited_objects(results)])


def _cited_objects(results: RunResults) -> Iterator[object]:
    declared, spec = results.vae.declaration, results.spec
    yield from (VAE, declared.prior, declared.likelihood, declared.guide, declared.encoder, declared.decoder)
    for role in ("objective", "optimizer"):
        if spec.get(role) is not None:
            try:
                yield tables.from_dict(role, spec[role])
            except InputError:  # a part of the user's own
                continue
    yield from (Evidence, results.settings.method, Latents, predictive_check)
    yield from (figure for figure, _ in CHECKS.values())
