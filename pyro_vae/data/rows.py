"""N rows of named tensors, `x` among them, batched by index.

Small data lives on the device as one tensor, so a batch is one gather and no `DataLoader` is needed.
`Rows.of` converts everything that may be given as data in memory, and checks that it can be rows. Whether the values
suit a model (NaN, the event shape, a likelihood's support) is the model's check.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_vae.core.errors import InputError
from pyro_vae.data.columns import column_order, select_columns
from pyro_vae.data.convert import as_tensor, check_has_x, columns_of
from pyro_vae.data.precision import check_precision


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """N rows of named tensors, batched by index.

    Row n is `x[n]` with whatever belongs to it (a mask, a size factor, covariates). All tensors are passed
    to the Pyro programs by their names.

    Args:
        tensors: the tensors by name, each of shape (N, ...); `"x"`, of shape (N, *event_shape), is required.
        labels: integer classes, shape (N,). For pictures only: the model never sees them.
        dynamic: whether `x` holds probabilities in [0, 1] of which every batch draws a new binary
            x ~ Bernoulli(x) (dynamic binarisation).
        source: the arguments of `load` that made the rows, as plain values; empty for data in memory.
        features: the names of the P elements of each row, where they have names: the columns of a table.

    Raises:
        InputError: without `"x"`, without any rows, with tensors of different N, with labels that are not
            N integers, with `dynamic` where `x` leaves [0, 1], or with names for other elements than x has.

    >>> rows = Rows({"x": torch.arange(6.0).reshape(3, 2), "mask": torch.ones(3, 2)})
    >>> rows
    Rows(N=3, x=(2,) float32, mask=(2,) float32)
    >>> rows.batch(torch.tensor([2, 0]))["x"]
    tensor([[4., 5.],
            [0., 1.]])
    """

    tensors: Mapping[str, Tensor]
    labels: Tensor | None = None
    dynamic: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)
    features: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check that the tensors have N >= 1 rows."""
        check_has_x(self.tensors, "the data")
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, Tensor):
                raise InputError(f"{name!r} is a {type(tensor).__name__}, not a tensor: `Rows.of` makes it one.")
        if self.x.ndim == 0 or self.x.numel() == 0:
            shape = tuple(self.x.shape)
            raise InputError(f"'x' has no rows: its shape is {shape}, and data is (N, *event_shape) with N >= 1.")
        labelled = {} if self.labels is None else {"labels": self.labels}
        for name, tensor in {**self.tensors, **labelled}.items():
            if tensor.ndim == 0 or len(tensor) != len(self):
                raise InputError(
                    f"{name!r} has shape {tuple(tensor.shape)} but 'x' has {len(self)} rows: every tensor "
                    f"needs one entry per row, shape ({len(self)}, ...)."
                )
        if self.labels is not None and not _is_classes(self.labels):
            raise InputError(
                f"labels are integer classes of shape ({len(self)},), not {_dtype(self.labels)} of shape "
                f"{tuple(self.labels.shape)}: give `labels.long()`, or name the tensor beside 'x'."
            )
        if self.features and self.event_shape != (len(self.features),):
            raise InputError(
                f"{len(self.features)} names of features for x of shape {tuple(self.x.shape)}: give one for each of "
                "the columns of a table (N, P), or none."
            )
        if self.dynamic:
            require_probabilities(self.x)

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.x)

    def __repr__(self) -> str:
        """Describe shapes and types in one line, never the values."""
        parts = [f"{name}={tuple(t.shape[1:])} {_dtype(t)}" for name, t in self.tensors.items()]
        parts += ["labels"] * (self.labels is not None) + ["dynamic"] * self.dynamic
        return f"Rows(N={len(self)}, {', '.join(parts)})"

    @property
    def x(self) -> Tensor:
        """The data as stored, shape (N, *event_shape); probabilities where `dynamic`."""
        return self.tensors["x"]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum."""
        return tuple(self.x.shape[1:])

    @property
    def n_observed(self) -> float:
        """Mean number of observed elements of x per row: those that the mask selects."""
        mask = observed_mask(self.tensors)
        return float(self.x[0].numel()) if mask is None else float(mask.sum()) / len(self)

    def batch(self, index: Tensor | slice | None = None) -> dict[str, Tensor]:
        """Tensors of some rows by name, the keyword arguments of the Pyro programs.

        Where the rows are dynamic, x ~ Bernoulli(x) is drawn with torch's global generator.

        Args:
            index: row numbers in 0 ... N - 1, shape (B,), on the device of the rows; or a slice; or None for
                all rows, which copies nothing.

        Returns:
            The tensors by name, each of shape (B, ...).

        >>> Rows.of([[0.0], [1.0]]).batch(slice(1))
        {'x': tensor([[0.]], dtype=torch.float64)}
        """
        if index is None:
            batch = dict(self.tensors)
        elif isinstance(index, slice):
            batch = {name: tensor[index] for name, tensor in self.tensors.items()}
        else:  # index_select gathers rows twice as fast as tensor[index] on a CPU
            batch = {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}
        return binarize(batch) if self.dynamic else batch

    def order(self, generator: torch.Generator) -> Tensor:
        """Row numbers 0, ..., N - 1 shuffled by a generator of the CPU, on the device of the rows."""
        return torch.randperm(len(self), generator=generator).to(self.x.device)

    def read(self, plan: Sequence[Tensor], epoch: int = 1) -> Iterator[dict[str, Tensor]]:
        """Batches of an epoch, or of the rest of it.

        Args:
            plan: the row numbers of each batch, in order.
            epoch: not used; a `Stream` may depend on it.

        Returns:
            For each batch its tensors by name; dynamic rows are drawn when the batch is requested.

        >>> rows = Rows.of([[0.0], [1.0], [2.0]])
        >>> [batch["x"].flatten().tolist() for batch in rows.read(torch.tensor([2, 0, 1]).split(2))]
        [[2.0, 0.0], [1.0]]
        """
        return (self.batch(numbers.to(self.x.device)) for numbers in plan)

    def select(self, index: Tensor) -> "Rows":
        """The rows of these numbers, shape (B,), labels and all."""
        tensors = {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors, labels=None if self.labels is None else self.labels[index])

    def head_sample(self, n: int | None = None) -> "Rows":
        """At most n rows, evenly spread over all; all by default."""
        if n is None or n >= len(self):
            return self
        return self.select((torch.arange(n) * len(self) // n).to(self.x.device))

    def chunks(self, size: int | None = None) -> Iterator["Rows"]:
        """All rows in order, at most `size` at a time; at once by default."""
        for numbers in chunk_ranges(len(self), size or len(self)):
            index = slice(numbers.start, numbers.stop)
            tensors = {name: tensor[index] for name, tensor in self.tensors.items()}
            yield replace(self, tensors=tensors, labels=None if self.labels is None else self.labels[index])

    def checked(self, check: Callable[[dict[str, Any]], None], progress: bool = False) -> "Rows":
        """These rows, after a model has checked them; see `Stream.checked`."""
        check(self.batch())
        return self

    def fingerprint(self, name: str = "x") -> str:
        """Hash of a tensor, which identifies the rows."""
        return fingerprint(self.tensors[name])

    def aligned(self, features: Sequence[str]) -> "Rows":
        """Rows whose columns have the order of these names; where there are no names to compare, the rows as they are.

        Raises:
            InputError: the columns have other names.

        >>> Rows({"x": torch.tensor([[1.0, 2.0]])}, features=("a", "b")).aligned(("b", "a")).x
        tensor([[2., 1.]])
        """
        index = column_order(self.features, features)
        if index is None:
            return self
        return replace(self, tensors=select_columns(self.tensors, index), features=tuple(features))

    def check_precision(self, dtype: torch.dtype) -> None:
        """Check that x keeps its values in another type: see `precision.check_precision`."""
        check_precision(self.tensors["x"], dtype, self.features)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(self.tensors)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Rows":
        """Rows on a device and in a precision; tensors that are there already are not copied.

        Args:
            device: where every tensor goes, or None to leave them.
            dtype: the type of `x` and of every other floating tensor, or None to leave them. Other integer
                and boolean tensors (a mask, a class) keep their type.

        >>> Rows.of([[1, 2], [3, 4]]).to("cpu", torch.float32)
        Rows(N=2, x=(2,) float32)
        """
        tensors = {
            name: tensor.to(device, dtype if name == "x" or tensor.is_floating_point() else None)
            for name, tensor in self.tensors.items()
        }
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, tensors=tensors, labels=labels)

    @classmethod
    def of(cls, x: object) -> "Rows":
        """Rows of whatever holds data in memory.

        Memory is shared with a tensor or array where that is possible.

        Args:
            x: rows (returned as they are), a tensor, a numpy array, a pandas DataFrame or Series of numbers, a nested
                list, a mapping of names to those with `"x"` among them, or a `TensorDataset` of x and,
                perhaps, integer labels. The first dimension counts the rows.

        Raises:
            InputError: x has another type, or does not hold rows.

        >>> Rows.of({"x": torch.zeros(3, 5), "size_factor": [1, 1, 2]})
        Rows(N=3, x=(5,) float32, size_factor=() int64)
        """
        if isinstance(x, Rows):
            return x
        if isinstance(x, Mapping):
            tensors = {str(name): as_tensor(str(name), values) for name, values in x.items()}
            features = columns_of(x.get("x"))
            index = column_order(columns_of(x.get("mask")), features, "columns of the mask", "those of x")
            if index is not None:
                tensors["mask"] = tensors["mask"].index_select(1, index)
            return cls(tensors, features=features)
        if isinstance(x, TensorDataset):
            return cls({"x": as_tensor("x", x.tensors[0])}, _labels(x))
        return cls({"x": as_tensor("x", x)}, features=columns_of(x))


def observed_mask(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Mask of x among named tensors, true where it is observed; None without one.

    A tensor named `mask` of another shape than x is one of the programs' own, as a mask of time steps.
    """
    mask = tensors.get("mask")
    return mask.bool() if mask is not None and mask.shape == tensors["x"].shape else None


def chunk_ranges(total: int, size: int) -> Iterator[range]:
    """Consecutive numbers 0, ..., total - 1, at most `size` at a time.

    >>> [list(numbers) for numbers in chunk_ranges(5, 2)]
    [[0, 1], [2, 3], [4]]
    """
    return (range(start, min(start + size, total)) for start in range(0, total, size))


def concat(parts: Sequence[Rows]) -> Rows:
    """Rows of several parts, one after the other.

    >>> concat([Rows.of([[1.0]]), Rows.of([[2.0]])]).x.tolist()
    [[1.0], [2.0]]
    """
    if len(parts) == 1:
        return parts[0]
    tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].names}
    labels = [part.labels for part in parts if part.labels is not None]
    return Rows(tensors, torch.cat(labels) if len(labels) == len(parts) else None, features=parts[0].features)


def fingerprint(x: Tensor) -> str:
    """Hash of a tensor: of its shape, dtype and values.

    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.ones(2))
    False
    """
    digest = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())  # bfloat16 too
    return digest.hexdigest()[:16]


def fingerprint_of(batch: Mapping[str, Tensor]) -> str:
    """Hash of named tensors, invariant to masked values and dtype.

    >>> x, mask = torch.tensor([[1.0, torch.nan]]), torch.tensor([[True, False]])
    >>> fingerprint_of({"x": x, "mask": mask}) == fingerprint_of({"x": torch.tensor([[1, 7]]), "mask": mask})
    True
    """
    seen = dict(batch)
    if (mask := observed_mask(seen)) is not None:
        seen["x"] = torch.where(mask, seen["x"], 0)
    parts = [f"{name} {fingerprint(seen[name].cpu().double())}" for name in sorted(seen)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def binarize(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Batch with a binary x ~ Bernoulli(x), of any shape, by torch's global generator: dynamic binarisation."""
    return {**batch, "x": torch.rand_like(batch["x"]).lt_(batch["x"])}  # torch.bernoulli takes twice as long


def require_probabilities(x: Tensor) -> None:
    """Check that values, of any shape, can be the probabilities of a binary draw.

    Raises:
        InputError: where one is outside [0, 1] or NaN.

    >>> require_probabilities(torch.tensor([0.0, 0.5, 1.0]))
    """
    low, high = (float(value) for value in torch.aminmax(x))
    if not (x.is_floating_point() and low >= 0 and high <= 1):
        raise InputError(
            "binarisation draws x ~ Bernoulli(x), so x holds floating-point probabilities in [0, 1]; this "
            f"one is {_dtype(x)} from {low:g} to {high:g}: scale it, (x - x.min()) / (x.max() - x.min()), "
            "or do not binarise it."
        )


def quantize(x: Tensor, levels: int) -> Tensor:
    """Integers 0, ..., levels - 1 that x in [0, 1], of any shape and floating dtype, is rounded to.

    Raises:
        InputError: some x are outside of [0, 1].

    >>> quantize(torch.tensor([0.0, 0.4, 1.0]), 3)
    tensor([0., 1., 2.])
    """
    low, high = (float(value) for value in torch.aminmax(x))
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"levels={levels} rounds x in [0, 1] to integers, and this one goes from {low:g} to {high:g}: scale "
            "it, (x - x.min()) / (x.max() - x.min()), or leave levels out where it holds integers already."
        )
    return (x * (levels - 1)).round()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_classes(tensor: Tensor) -> bool:
    return tensor.ndim == 1 and not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _labels(dataset: TensorDataset) -> Tensor | None:
    """Labels of a `TensorDataset`: its second tensor, if it has one."""
    rest = dataset.tensors[1:]
    if rest and not (len(rest) == 1 and _is_classes(rest[0])):
        raise InputError(
            "a TensorDataset is x and, perhaps, integer labels of shape (N,); this one has "
            f"{len(dataset.tensors)} tensors: name them in a mapping, {{'x': dataset.tensors[0], ...}}."
        )
    return rest[0] if rest else None
