"""The page of one run."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pyro_vae.core import serialization
from pyro_vae.core.errors import InputError
from pyro_vae.core.formatting import in_python, on_the_command_line
from pyro_vae.criticism.evidence import Evidence
from pyro_vae.criticism.latent_usage import Latents
from pyro_vae.criticism.predictive import predictive_check
from pyro_vae.data.suggest import suggest
from pyro_vae.model.summary import describe
from pyro_vae.model.vae import VAE
from pyro_vae.registry import tables
from pyro_vae.registry.options import RECORDED
from pyro_vae.reports import pictures
from pyro_vae.reports.bibtex import Reference, cited
from pyro_vae.reports.formulas import densities, mathml, model
from pyro_vae.reports.page import Bibliography, Code, Formula, Page, Section, Sentences, Table
from pyro_vae.reports.results import Measured, Settings

FEATURES = 30
"""Features of a vector that a table lists."""

WORST = 10
"""Rows with the smallest log p(x) that a table lists."""

ASIDE = (*RECORDED, "prior", "likelihood", "guide", "encoder", "decoder", "latent_dim")
"""What spec.yaml says beside data and settings of training."""

DATA = ("data", "root", "binarize", "levels", "validation", "test", "data_seed")
"""What spec.yaml says of the data."""


def told(measured: Measured, data: str | None) -> Page:
    """Tell of one run.

    Args:
        measured: the run, and what was measured of it.
        data: the data that were named in place of the run's own.
    """
    sections = [
        _checks(measured),
        _next(measured, data),
        _model(measured),
        _data(measured),
        _training(measured),
        _latents(measured),
        _evidence(measured),
        _worst(measured),
        _reproduce(measured, data),
        Section("References", [Bibliography(references([measured]))]),
    ]
    return Page(f"{name_of(measured)}: a VAE and whether to believe it", facts(measured), sections)


def name_of(measured: Measured) -> str:
    """What was fitted: the run's folder."""
    return measured.run.path.absolute().name


def facts(measured: Measured) -> list[str]:
    """What was fitted to what, and what was looked at, in sentences."""
    declared, plain = measured.vae.declaration, measured.spec
    parts = [type(getattr(declared, role)).__name__ for role in ("prior", "likelihood", "guide")]
    seen = ", on which it was trained" if measured.settings.split == "train" else ""
    shape = f"events of shape {declared.event_shape}" if declared.event_shape else "single numbers"
    return [
        f"Fitted to {_source(plain)}: {plain['rows']:,} rows, {shape}.",
        f"{declared.latent_dim} latents; {parts[0]} prior, {parts[1]} likelihood, {parts[2]} guide.",
        f"Looked at here: {measured.told_rows}{seen}.",
    ]


def _source(plain: Mapping[str, Any]) -> str:
    return str(plain["data"]) if plain.get("data") is not None else "data in memory"


def _checks(measured: Measured) -> Section:
    tree = measured.tree
    section = Section("What the checks say", [Sentences(measured.findings)])
    pictures.of_check(section, tree)
    section.blocks.append(quantities(tree))
    return section


def _next(measured: Measured, data: str | None) -> Section:
    """The likelihood that the values ask for, and what to type to compare it with the run's."""
    path, found = str(measured.run.path), suggest(measured.rows)
    name, own = type(found.family).__name__, type(measured.vae.declaration.likelihood).__name__
    lead = "Looking at values alone, and not at what depends on what, suggest proposes"
    section = Section("What to try next", [f"{lead} {name}{', which this run has' * (name == own)}: {found.reason}"])
    if found.alternatives:
        section.blocks.append(f"Or {', '.join(f'likelihood={in_python(each)}' for each in found.alternatives)}.")
    section.blocks += [f"Note: {note}" for note in found.notes]
    if name == own:
        return section
    if measured.spec.get("data") is None:
        section.blocks.append(Code("This likelihood instead", f"likelihood={in_python(found.family)}"))
    else:
        to, where = f"{path}-{name}", _where(data)
        again = shlex.join(["pyro-vae", "fit", "--config", f"{path}/spec.yaml", "--run", to, *where])
        again = f"{again} {on_the_command_line('likelihood', found.family)}"
        beside = shlex.join(["pyro-vae", "report", path, to, *where])
        section.blocks.append(Code("This likelihood, and both beside each other", f"{again}\n{beside}"))
    return section


def quantities(tree: Any) -> Table:
    """The table of a check's test statistics."""
    found = tree["checks"].to_dataset()
    columns = {"noun": "test statistic", "scope": "of", "observed": "data", "mean": "replicates", "sd": "their sd"}
    columns |= {"p_value": "p", "p_error": "error of p", "q_value": "q (false discovery rate)"}
    cells = zip(*(found[name].values.tolist() for name in columns), strict=True)
    return Table(
        "Test statistics of the data and of replicate data sets, with two-sided tail probabilities p",
        list(columns.values()),
        list(cells),
    )


def _model(measured: Measured) -> Section:
    vae, batch = measured.vae, measured.rows.batch(slice(2))
    labels = (
        "Prior: latents of row n",
        "Likelihood: its data, given its latents",
        "Guide: its latents, given its data",
    )
    section = Section("The model")
    section.blocks += [Formula(label, mathml(tex)) for label, tex in zip(labels, model(vae), strict=True)]
    section.blocks.append(
        "Parameters with an argument are computed by a network, those with an index j are trained constants, one for "
        "each element, and those with neither are one trained constant."
    )
    section.blocks += [Formula(f"{name}, its density of elements j", mathml(tex)) for name, tex in densities(vae)]
    pictures.graph(section, vae, batch)
    section.blocks.append(Code("The model in words", describe(vae)))
    return section


def _data(measured: Measured) -> Section:
    plain, rows = measured.spec, measured.rows
    settings = {name: plain[name] for name in DATA if plain.get(name) is not None}
    table = Table(
        "The data and its split", ["setting", "value"], [[name, str(value)] for name, value in settings.items()]
    )
    section = Section("The data", [f"{sentence}" for sentence in facts(measured)[::2]])
    if plain.get("fingerprint"):
        section.blocks.append(f"Fingerprint of the training rows: {plain['fingerprint']}.")
    if settings:
        section.blocks.append(table)
    section.blocks.append(_features(measured))
    if (labels := rows.labels) is not None:
        counts = torch.bincount(labels - labels.min()).tolist()
        kinds = [[int(labels.min()) + at, count] for at, count in enumerate(counts) if count]
        section.blocks.append(Table("Classes, which the model never saw", ["class", "rows"], kinds))
    return section


def _features(measured: Measured) -> Table:
    """Mean, spread and ends of the features that a mask lets in; of larger events of all elements together."""
    rows = measured.rows
    count = math.prod(rows.event_shape)
    x = rows.x.double().reshape(len(rows), -1)
    seen = rows.tensors.get("mask")
    known = torch.ones_like(x, dtype=torch.bool) if seen is None else seen.reshape(len(rows), -1).bool()
    if count <= FEATURES and len(rows.event_shape) <= 1:
        names = list(rows.features) or [f"x[{at}]" if rows.event_shape else "x" for at in range(count)]
        parts = [x[known[:, at], at] for at in range(count)]
    else:
        names, parts = [f"all {count:,} elements"], [x[known]]
    cells = [
        [name, *(float(value) for value in (part.mean(), part.std(), part.min(), part.max()))]
        if len(part) > 1
        else [name, *[math.nan] * 4]
        for name, part in zip(names, parts, strict=True)
    ]
    return Table(f"Values in {measured.told_rows}", ["feature", "mean", "sd", "least", "largest"], cells)


def _training(measured: Measured) -> Section:
    plain, history = measured.spec, measured.history
    aside = {*ASIDE, *DATA, "event_shape"}
    settings = [[name, written(name, value)] for name, value in plain.items() if name not in aside]
    section = Section("Training", [Table("Settings of the fit", ["setting", "value"], settings)])
    section.blocks += [f"Note: {note}." for note in (history.caveat, history.stopped) if note]
    if not len(history):
        section.blocks.append("No epoch was trained.")
        return section
    last = history.last
    names = {"loss": "loss, minus the bound", "log_likelihood": "log-likelihood", "kl": "KL from guide to prior"}
    if history.caveat:
        names["log_likelihood"] = "minus cross-entropy"
    names["bits_per_dim"] = "bits per dimension"
    cells = [
        [title, *(float(last.get(f"{prefix}{name}", math.nan)) for prefix in ("", "validation_"))]
        for name, title in names.items()
        if name in last
    ]
    caption = f"After epoch {last['epoch']:g}, in nats per row"
    section.blocks.append(Table(caption, ["quantity", "training", "validation"], cells))
    seconds = float(history["seconds"].sum())
    section.blocks.append(f"{len(history)} epochs took {seconds:,.0f} s.")
    pictures.training(section, history)
    return section


def written(name: str, value: Any) -> str:
    """Write a setting as in Python, where it is a declaration in spec.yaml."""
    if name in tables.ROLES and value is not None:
        try:
            return repr(tables.from_dict(name, value))
        except InputError:
            return str(value)
    return str(value)


def _latents(measured: Measured) -> Section:
    section = Section("Latents")
    try:
        found = measured.latents
    except InputError as error:
        section.blocks.append(f"Not looked at: {error}")
        return section
    section.blocks.append(Sentences(repr(found).splitlines()))
    pictures.of_latents(section, measured.vae, measured.rows, found)
    kl = [math.nan] * len(found) if found.kl is None else found.kl.tolist()
    cells = [
        [latent, kl[latent], float(found.spread[latent]), "yes" if latent in found.active else "no"]
        for latent in range(len(found))
    ]
    head = ["latent", "KL [nats]", "variance of the posterior mean", "active"]
    section.blocks.append(Table("Each latent: its KL to the prior, and whether it is used", head, cells))
    return section


def _evidence(measured: Measured) -> Section:
    found = measured.evidence
    section = Section("Evidence", [Sentences(repr(found).splitlines())])
    pictures.khat(section, found)
    return section


def _worst(measured: Measured) -> Section:
    found, tree = measured.evidence, measured.tree
    section = Section("Worst-fitted rows and features")
    pictures.worst(section, tree)
    section.blocks.append(worst_rows(found))
    if "calibration" in tree.children:
        held = tree["calibration"].to_dataset()
        at = int(np.abs(held["level"].values - 0.9).argmin())
        level = float(held["level"][at])
        columns = (held["feature"], held["coverage"][:, at], held["pit_p_value"], held["pit_q_value"])
        cells = sorted(zip(*(column.values.tolist() for column in columns), strict=True), key=lambda row: row[3])
        head = ["feature", f"data in the {level:.0%} interval", "p of a uniform PIT", "q (false discovery rate)"]
        section.blocks.append(Table("Calibration of each feature, the worst first", head, cells[:FEATURES]))
    return section


def worst_rows(found: Evidence) -> Table:
    """The rows with the smallest log p(x)."""
    order = found.pointwise.argsort()[:WORST].tolist()
    cells = [[row, *(float(column[row]) for column in (found.pointwise, found.mcse, found.khat))] for row in order]
    what = "log of the mean weight" if found.caveat else "log p(x)"
    return Table(f"The {len(order)} rows with the smallest {what}", ["row", f"{what} [nats]", "error", "k-hat"], cells)


def _reproduce(measured: Measured, data: str | None) -> Section:
    path, plain, settings = str(measured.run.path), measured.spec, measured.settings
    text = commands("evaluate", [path], settings, data)
    notes = [f"Seed {plain.get('seed')} of the fit, seed {settings.seed} of this report."]
    if plain.get("data") is None:
        notes.append("The data were in memory, so a command needs them in a file: name it with --data.")
    else:
        text = (
            shlex.join(["pyro-vae", "fit", "--config", f"{path}/spec.yaml", "--run", f"{path}-again", *_where(data)])
            + f"\n{text}"
        )
    if len(measured.rows) < measured.available:
        notes.append(f"evaluate takes all {measured.available:,} rows, this report {measured.told_rows}.")
    versions = [[name, str(version)] for name, version in plain.get("versions", {}).items()]
    blocks = [
        Code("Commands", text),
        Table("Versions the model was fitted with", ["package", "version"], versions),
        Code("spec.yaml", serialization.dump(plain)),
    ]
    return Section("How to reproduce", [*notes, *blocks])


def commands(verb: str, paths: Sequence[str], settings: Settings, data: str | None) -> str:
    """What to type for the numbers of a page, by the verb that measures log p(x), and for the page itself."""
    where = ["--split", settings.split, *_where(data)]
    look = [*paths, *where]
    plain = serialization.to_dict(settings.method)
    name, fields = (plain, {}) if isinstance(plain, str) else next(iter(plain.items()))
    look += ["--method", name, *(word for field in fields.items() for word in (f"--method.{field[0]}", str(field[1])))]
    closely = [] if settings.draws is None else ["--draws", str(settings.draws)]
    seed = ["--seed", str(settings.seed)]
    lines = [
        *(["pyro-vae", "check", path, *where, *closely, *seed] for path in paths),
        ["pyro-vae", verb, *look, *seed],
        ["pyro-vae", "report", *look, *closely, "--rows", str(settings.rows), *seed],
    ]
    return "\n".join(map(shlex.join, lines))


def _where(data: str | None) -> list[str]:
    return ["--data", data] if data else []


def references(several: list[Measured]) -> list[Reference]:
    """What the components and the methods of some runs rest on."""
    return cited([thing for measured in several for thing in _used(measured)])


def _used(measured: Measured) -> Iterator[object]:
    declared, plain = measured.vae.declaration, measured.spec
    yield from (VAE, declared.prior, declared.likelihood, declared.guide, declared.encoder, declared.decoder)
    for role in ("objective", "optimizer"):
        if plain.get(role) is not None:
            try:
                yield tables.from_dict(role, plain[role])
            except InputError:  # a part of the user's own
                continue
    yield from (Evidence, measured.settings.method, Latents)
    yield from (predictive_check, *pictures.CHECKS.values())
