"""`Runs`: several run folders that can be compared, in groups of seeds, and the differences between the groups."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae.core.errors import InputError
from pyro_vae.core.signatures import delegates
from pyro_vae.criticism.base_measure import base_measure
from pyro_vae.criticism.compare import Comparison, check_same_measure, compare
from pyro_vae.criticism.evidence import evidence
from pyro_vae.criticism.session import EvaluationSession
from pyro_vae.data import Rows
from pyro_vae.model.vae import VAE
from pyro_vae.registry import tables
from pyro_vae.runs.folder import RunFolder
from pyro_vae.runs.inputs import load_split

NON_IDENTIFYING_KEYS = ("format", "versions", "seed", "data", "rows", "fingerprint", "trained_with", "feature_names")
"""Keys of spec.yaml that identify no specification: seeds may differ in them, or all compared runs agree."""


def data_facts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about the data of a run by name, equal in runs that are compared; the first is None for data in memory.

    Args:
        spec: content of the run's spec.yaml.

    >>> data_facts({"data": {"name": "digits", "levels": 17}, "rows": 1437})["data.levels"]
    17
    """
    recorded = spec.get("data")
    options = None if recorded is None else tables.from_dict("data", recorded)
    names = ("binarize", "levels", "validation", "test", "seed")
    facts = {"data": getattr(options, "name", None), **{f"data.{name}": getattr(options, name, None) for name in names}}
    return facts | {name: spec.get(name) for name in ("rows", "fingerprint")}


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs on the same data, loaded, in groups that differ in the seed only.

    Args:
        paths: the folders by the names of their groups.
        specs: the declaration and settings of each group, without `NON_IDENTIFYING_KEYS`.
        models: the loaded models by folder.
        rows: the rows to measure them on.
    """

    paths: Mapping[str, Sequence[Path]]
    specs: Mapping[str, Mapping[str, Any]]
    models: Mapping[Path, VAE]
    rows: Rows

    @classmethod
    def of(cls, folders: Sequence[str], data: str | None, split: str) -> "Runs":
        """Load runs and their data.

        Args:
            folders: two run folders or more.
            data: other data than that of the runs.
            split: "train", "validation" or "test".

        Raises:
            InputError: a folder is not a run of a VAE, or these cannot be compared.
        """
        paths = [Path(folder).expanduser() for folder in folders]
        if len({path.resolve() for path in paths}) < len(paths) or len(paths) < 2:
            raise InputError("compare takes two or more different run folders: pyro-vae compare RUN RUN.")
        specs = {path: RunFolder(path).spec() for path in paths}
        _require_same_data(specs, data)
        groups = _grouped(specs)
        models = {path: RunFolder(path).load() for path in paths}
        rows = load_split(RunFolder(paths[0]), data, split)
        named = {_name(members, groups): members for members in groups}
        own = {name: _without(specs[members[0]], NON_IDENTIFYING_KEYS) for name, members in named.items()}
        return cls(named, own, models, rows)

    @delegates(evidence)
    def compare(self, *, seed: int, **options: Any) -> Comparison:
        """Comparison of the groups by log p(x) of the same rows, every run measured.

        Args:
            seed: of draws and binarisation.
            options: others of `evidence`.

        Raises:
            InputError: before any is measured: the rows do not suit a model, or the models' log p(x) are of
                different kinds.
        """
        sides = []
        for path, vae in self.models.items():
            subject = EvaluationSession.of(vae, self.rows)
            try:
                with subject.activate(seed):
                    _, batch = next(subject.batches(2, "", False))
                    sides.append((str(path), base_measure(vae, batch), vae.caveat))
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
        check_same_measure(sides)
        return compare(
            {
                name: [evidence(self.models[path], self.rows, seed=seed, **options) for path in members]
                for name, members in self.paths.items()
            }
        )

    def differences(self, names: Sequence[str]) -> str:
        """Settings that differ between the groups, in one line, in the order of `names`."""
        keys = dict.fromkeys(key for spec in self.specs.values() for key in spec)
        shown = {key: [words(self.specs[name].get(key)) for name in names] for key in keys}
        return "; ".join(f"{key}: {' | '.join(words)}" for key, words in shown.items() if len(set(words)) > 1)


def _require_same_data(specs: Mapping[Path, Mapping[str, Any]], data: str | None) -> None:
    (first, one), *others = ((path, data_facts(spec)) for path, spec in specs.items())
    for path, other in others:
        for key in one:
            if one[key] != other[key] and (data is None or key not in ("data", "rows", "fingerprint")):
                fix = f"Fit both with the same --{key}"
                if key in ("rows", "fingerprint"):
                    fix = "The data has changed between the fits: fit both anew, or name data for both with --data"
                elif key == "data":
                    fix = "Fit both to the same data, or name data for both with --data"
                raise InputError(
                    f"{first} and {path} cannot be compared: they were fitted to data with {key}={one[key]!r} and "
                    f"{key}={other[key]!r}. {fix}."
                )


def _grouped(specs: Mapping[Path, Mapping[str, Any]]) -> list[list[Path]]:
    """Runs whose specifications are equal but for the seed, in the order given."""
    groups: list[list[Path]] = []
    for path, spec in specs.items():
        own = _without(spec, NON_IDENTIFYING_KEYS)
        group = next((group for group in groups if _without(specs[group[0]], NON_IDENTIFYING_KEYS) == own), None)
        if group is None:
            groups.append([path])
            continue
        if same := [other for other in group if specs[other].get("seed") == spec.get("seed")]:
            raise InputError(f"{same[0]} and {path} are one specification with one seed: give one of them.")
        group.append(path)
    if len(groups) == 1:
        raise InputError(
            "these runs differ in their seed only, so there is nothing to compare: add a run of another specification."
        )
    return groups


def _without(spec: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in left_out}


def _name(members: Sequence[Path], groups: Sequence[Sequence[Path]]) -> str:
    """Name of a run's folder, or the common part of a group's; full paths where that is not unique."""
    name = _shared([path.name for path in members])
    if sum(name == _shared([path.name for path in other]) for other in groups) == 1:
        return name
    return _shared([str(path) for path in members]) if len(members) == 1 else " + ".join(map(str, members))


def _shared(names: Sequence[str]) -> str:
    """Common beginning of names, without a number or "seed" at its end.

    >>> _shared(["mlp-seed10", "mlp-seed11"]), _shared(["a", "b"]), _shared(["vae2"])
    ('mlp', 'a + b', 'vae2')
    """
    if len(names) == 1:
        return names[0]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in alike)
    return re.sub(r"[-_. ]*(seed|run)?[-_. ]*\d*$", "", shared) or " + ".join(names)


def words(plain: Any) -> str:
    """Text of a plain declaration, as in Python.

    >>> words({"Mixture": {"family": {"Normal": {"scale": 1.0}}, "components": 5}})
    'Mixture(family=Normal(scale=1.0), components=5)'
    """
    if isinstance(plain, Mapping) and len(plain) == 1:
        ((name, fields),) = plain.items()
        if isinstance(fields, Mapping):
            return f"{name}({', '.join(f'{key}={words(value)}' for key, value in fields.items())})"
    return str(plain)
