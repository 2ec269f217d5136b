"""Migrations of run folders: names of older formats, and the present ones.

A migration changes names and where they stand, never a value or a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_vae.core.serialization import to_dict
from pyro_vae.registry.tables import ROLES, TABLES, from_dict

FORMAT = 2
"""Version of the run folder's layout and names; a higher one is refused."""


@dataclass(frozen=True)
class Migration:
    """Renames from one format to the next.

    Args:
        classes: new names of declared classes by their old ones.
        fields: new names of fields by their old ones, for each class by its old name.
        parts: new names of the parts of a VAE by their old ones: the first words of the names of weights.
        added: tensors of a VAE, by their new names, that the old format lacks: those of a new model stand for them.
        keyed_by_part: fields, by their old names, whose keys begin with a part.
        grouped: new names of settings inside a record by their old ones beside all others, for each record.
    """

    classes: Mapping[str, str]
    fields: Mapping[str, Mapping[str, str]]
    parts: Mapping[str, str]
    added: frozenset[str]
    keyed_by_part: frozenset[str]
    grouped: Mapping[str, Mapping[str, str]]

    def rename_weight(self, name: str) -> str:
        """Name of a weight, or the beginning of one, in the next format."""
        part, dot, rest = name.partition(".")
        return self.parts.get(part, part) + dot + rest

    def rename(self, plain: Any, owner: str = "") -> Any:
        """Declaration as plain values in the next format.

        Args:
            plain: the declaration, or a part of it.
            owner: the old name of the class or field that the part belongs to.
        """
        if isinstance(plain, str):
            return self.classes.get(plain, plain)
        if isinstance(plain, list):
            return [self.rename(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        if owner in self.keyed_by_part:
            return {self.rename_weight(name): value for name, value in plain.items()}
        names = {**self.classes, **self.fields.get(owner, {})}
        return {names.get(name, name): self.rename(value, name) for name, value in plain.items()}

    def group(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Content of a spec.yaml whose records are in one place each."""
        flat = {old for fields in self.grouped.values() for old in fields}
        grouped = {name: value for name, value in spec.items() if name not in flat}
        for role, fields in self.grouped.items():
            if role in spec or fields.keys() & spec.keys():
                values = {new: spec[old] for old, new in fields.items() if spec.get(old) is not None}
                grouped[role] = to_dict(from_dict(role, values)) if values else None
        return grouped


OPTIMIZER_FIELDS = {
    "parts": "lr_by_part",
    "accumulate": "accumulate_grad_batches",
    "skip": "max_nonfinite_steps",
}
"""New names of an optimizer's fields by those of format 1."""

MIGRATIONS: Mapping[int, Migration] = {
    1: Migration(
        classes={"Steps": "MultiStep"},
        fields={**dict.fromkeys(("Adam", "AdamW", "SGD"), OPTIMIZER_FIELDS), "Cyclical": {"rise": "ratio"}},
        parts={"encoder": "posterior", "decoder": "likelihood"},
        added=frozenset(
            {
                "likelihood.shift",
                "likelihood.unit",
                "prior.distribution.loc",
                "prior.distribution.scale",
                "likelihood.raw_spread_rate",
                "likelihood.raw_spread_mean",
                "likelihood.raw_spread_logits",
            }
        ),
        keyed_by_part=frozenset({"parts"}),
        grouped={
            "data": {"data": "name", "data_seed": "seed"}
            | {name: name for name in ("root", "binarize", "levels", "validation", "test", "stream")},
            "monitor": {"stopping": "stopping"},
        },
    ),
}
"""Migration from each older format to the next."""


def migrate_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a spec.yaml in the present format; one without a format is returned as it is.

    >>> migrate_spec({"format": 1, "optimizer": {"Adam": {"lr": {"Steps": {"epochs": [1.0]}}}}})
    {'format': 2, 'optimizer': {'Adam': {'lr': {'MultiStep': {'epochs': [1.0]}}}}}
    """
    migrated = dict(spec)
    while (migration := MIGRATIONS.get(migrated.get("format", FORMAT))) is not None:
        declared = {role: migration.rename(plain) for role, plain in migrated.items() if ROLES.get(role) in TABLES}
        migrated = migration.group(migrated | declared | {"format": migrated["format"] + 1})
    return migrated


def migrate_weights(
    weights: Mapping[str, Tensor], spec: Mapping[str, Any], new: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights by their present names, complete, and of their present shapes where one number stood for all elements.

    Args:
        weights: tensors by the names of weights, as stored.
        spec: the content of the spec.yaml beside them, as stored; programs of a user's own have the user's names.
        new: the tensors of a new model.
    """
    migrated, format = dict(weights), spec.get("format", FORMAT)
    while "likelihood" in spec and (migration := MIGRATIONS.get(format)) is not None:
        migrated = {migration.rename_weight(name): value for name, value in migrated.items()}
        migrated = {name: new[name] for name in migration.added & new.keys()} | migrated
        for name in new.keys() & migrated.keys():
            if migrated[name].ndim == 0:
                migrated[name] = migrated[name].expand_as(new[name]).clone()
        format += 1
    return migrated
