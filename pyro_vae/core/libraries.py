"""The library that a user's values are of: its functions are those that a message names."""

import sys

import numpy as np
from torch import Tensor


def library_of(values: object) -> str:
    """Library that values are of, torch, numpy or pandas, or "list" for all else; of a converted tensor, as given."""
    if isinstance(values, Tensor):
        return str(getattr(values, "given_library", "torch"))
    pandas = sys.modules.get("pandas")  # a DataFrame exists only where pandas has been imported
    if pandas is not None and isinstance(values, pandas.DataFrame | pandas.Series):
        return "pandas"
    return "numpy" if isinstance(values, np.ndarray) else "list"


def array_expression(name: str, library: str) -> str:
    """Python of named values of a library as an array that can be indexed and reshaped."""
    return {"pandas": f"{name}.to_numpy()", "list": f"numpy.asarray({name})"}.get(library, name)
