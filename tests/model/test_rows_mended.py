"""What holds no rows is refused by a remedy that makes rows of it."""

from collections.abc import Callable
from typing import Any

import numpy
import numpy as np
import pandas
import pandas as pd
import PIL.Image
import pytest
import scipy.sparse
import torch

import pyro_vae as pv

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
SMALL = pv.MLP(hidden=(4,))


def small() -> pv.VAE:
    """A small VAE of vectors of length 3."""
    return pv.VAE((3,), 2, encoder=SMALL)


OTHERS: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": (lambda: (row for row in X), "list(x)"),
    "sparse matrix": (lambda: scipy.sparse.csr_matrix(X.numpy()), "x.toarray()"),
    "sparse tensor": (lambda: X.to_sparse(), "x.to_dense()"),
    "masked array": (
        lambda: np.ma.masked_greater(X.numpy(), 1),
        "{'x': x.filled(0), 'mask': ~numpy.ma.getmaskarray(x)}",
    ),
    "column of objects": (
        lambda: pd.DataFrame(X.numpy(), columns=list("abc")).assign(a=["u", "v"] * 15),
        "pandas.get_dummies(x, columns=['a']).iloc[:, :3]",
    ),
    "loader": (lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X)), "x.dataset"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_remedy_of_what_holds_no_rows_mends_it(case: str) -> None:
    make, remedy = OTHERS[case]
    with pytest.raises(pv.InputError) as caught:
        pv.fit(small(), make(), epochs=1, progress=False)
    said = "loader.dataset" if case == "loader" else remedy.removesuffix(".iloc[:, :3]")
    assert said in str(caught.value)
    mended = eval(remedy, {"x": make(), "numpy": numpy, "pandas": pandas})
    pv.fit(small(), mended, epochs=1, progress=False)


def test_remedy_of_data_of_another_name_mends_them() -> None:
    data = {"values": X}
    with pytest.raises(pv.InputError, match=r"rename one to 'x', `{'x': data\['values'\]}`"):
        pv.fit(small(), data, epochs=1, progress=False)
    pv.fit(small(), {"x": data["values"]}, epochs=1, progress=False)
    history = pv.fit(small(), X, epochs=1, progress=False)
    with pytest.raises(pv.InputError, match=r"it is what pv\.fit returns"):
        pv.evidence(small(), history, progress=False)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_pictures_of_pil_are_rows_after_their_remedy(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    x = [PIL.Image.fromarray(each) for each in pixels]
    vae = pv.VAE((3 if len(shape) == 3 else 1, 8, 8), 2, encoder=SMALL)
    with pytest.raises(pv.InputError) as caught:
        pv.fit(vae, x, epochs=1, progress=False)
    remedy = str(caught.value).split(": give ")[1].rstrip(".")
    mended = eval(remedy, {"x": x, "numpy": numpy})
    np.testing.assert_array_equal(mended, pixels.reshape(5, 8, 8, -1).transpose(0, 3, 1, 2))
    pv.fit(vae, mended, epochs=1, progress=False)
