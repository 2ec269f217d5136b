"""Columns of a table by their names: in which order they are, and in which a model takes them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_vae.core.errors import InputError
from pyro_vae.core.formatting import abbreviate

LISTED = 30
"""Largest number of names in a message."""


def column_order(
    features: Sequence[str],
    expected: Sequence[str],
    what: str = "columns of x",
    whose: str = "those that the model was fitted to",
) -> Tensor | None:
    """Positions (P,) of columns in the order that is expected of them; None where they have it, or there are no names.

    Names "0", "1", ... in this order are those of pandas for columns without names.

    Args:
        features: the names of the columns; none for an array.
        expected: the names in the order that is expected.
        what: what the columns are, for messages.
        whose: what the expected ones are.

    Raises:
        InputError: the columns have other names, or two have the same in another order.

    >>> column_order(("bmi", "age"), ("age", "bmi"))
    tensor([1, 0])
    """
    features, expected = tuple(features), tuple(expected)
    if not features or not expected or features == expected:
        return None
    if sorted(features) == sorted(expected):
        if twice := next((name for name in features if features.count(name) > 1), None):
            raise InputError(f"two {what} are named {twice!r}, and their order is not that of {whose}: rename one.")
        return torch.tensor([features.index(name) for name in expected])
    if any(names == tuple(map(str, range(len(names)))) for names in (features, expected)):
        return None
    missing = [name for name in expected if name not in features]
    added = [name for name in features if name not in expected]
    fix = f"{', '.join(map(repr, missing[:5]))} {'is' if len(missing) == 1 else 'are'} missing: rename or add columns"
    if not missing:
        fix = f"{', '.join(map(repr, added[:5]))} {'is' if len(added) == 1 else 'are'} not among these: drop it"
    raise InputError(
        f"the {what} are {abbreviate(features, LISTED)}, and {whose} are {abbreviate(expected, LISTED)}: {fix}, or "
        "give an array, whose columns are taken in their order."
    )


def select_columns(tensors: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """Named tensors with the columns of x, (N, P), and of a mask of its shape, selected by their positions."""
    shape = tensors["x"].shape
    return {
        name: tensor.index_select(1, index.to(tensor.device))
        if name == "x" or (name == "mask" and tensor.shape == shape)
        else tensor
        for name, tensor in tensors.items()
    }
