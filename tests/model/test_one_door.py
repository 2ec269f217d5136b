"""Whatever `fit` takes, the other functions take alike; and every remedy that a refusal names mends what was given."""

import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import numpy as np
import pandas
import pandas as pd
import PIL.Image
import pytest
import torch

import pyro_vae as pv
from pyro_vae.criticism.datatree import save
from pyro_vae.data.convert import as_tensor

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
SMALL = pv.MLP(hidden=(4,))

KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "float64": lambda x: x.double(),
    "array": lambda x: x.numpy(),
    "array of float64": lambda x: x.double().numpy(),
    "Fortran array": lambda x: np.asfortranarray(x.numpy()),
    "array of objects": lambda x: x.double().numpy().astype(object),
    "list": lambda x: x.tolist(),
    "list of arrays": lambda x: list(x.numpy()),
    "tuple of tensors": lambda x: tuple(x),
    "frame": lambda x: pd.DataFrame(x.numpy(), columns=list("abc")),
    "frame of objects": lambda x: pd.DataFrame(x.double().numpy(), columns=list("abc")).astype(object),
    "mapping": lambda x: {"x": x.numpy()},
    "rows": pv.data.Rows.of,
}


def small(**words: Any) -> pv.VAE:
    """A small VAE of vectors of length 3, the same at each call."""
    torch.manual_seed(0)
    return pv.VAE(**({"event_shape": (3,), "latent_dim": 2, "encoder": SMALL} | words))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rows_is_taken_alike(kind: str) -> None:
    vae, given = small(), KINDS[kind](X)
    torch.testing.assert_close(vae.encode(given).mean, vae.posterior(X).mean.detach())
    torch.manual_seed(1)
    replicates = vae.reconstruct(given)
    torch.manual_seed(1)
    torch.testing.assert_close(vae.reconstruct(X), replicates)
    found = [pv.evidence(vae, x, progress=False).pointwise for x in (given, X)]
    torch.testing.assert_close(*found)
    assert repr(pv.suggest(given)) == repr(pv.suggest(X))
    losses = [pv.fit(small(), x, epochs=1, progress=False)["loss"][0] for x in (given, X)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32, torch.uint8, torch.bool])
def test_every_precision_is_taken(dtype: torch.dtype) -> None:
    x = (X > 0).to(dtype) if dtype == torch.bool else (4 * X.abs()).to(dtype)
    vae = small()
    pv.fit(vae, x, epochs=1, progress=False)
    torch.testing.assert_close(vae.encode(x).mean, vae.posterior(x.float()).mean.detach())
    assert len(pv.evidence(vae, x, progress=False)) == 30
    assert pv.suggest(x).event_shape == (3,)
    assert pv.data.Rows({"x": x}).fingerprint()


def test_mask_and_size_factor_are_taken_of_every_library() -> None:
    counts, mask, size = torch.poisson(4 * X.abs()), X > -1, torch.linspace(1, 2, 30)
    vae = small(likelihood=pv.Poisson())
    wanted = vae.encode(counts, mask=mask, size_factor=size).mean
    others = (
        (mask.numpy(), size.double().numpy()),
        (pd.DataFrame(mask.numpy()), pd.Series(size.numpy())),
        (mask.tolist(), size.tolist()),
    )
    for known, sizes in others:
        torch.testing.assert_close(vae.encode(counts.numpy(), mask=known, size_factor=sizes).mean, wanted)
        torch.testing.assert_close(vae.encode({"x": counts, "mask": known, "size_factor": sizes}).mean, wanted)
        pv.fit(vae, {"x": counts, "mask": known, "size_factor": sizes}, epochs=1, progress=False)
        wanted = vae.encode(counts, mask=mask, size_factor=size).mean


def test_encode_and_decode_take_any_leading_dimensions_and_need_no_gradient() -> None:
    vae = small()
    for batch in ((), (5,), (2, 5)):
        posterior = vae.encode(torch.randn(*batch, 3).double())
        assert posterior.batch_shape == vae.decode(posterior.sample().double().numpy()).batch_shape == batch
        assert not posterior.log_prob(posterior.sample()).requires_grad
        assert not vae.decode(posterior.mean).mean.requires_grad
    assert vae.encode(torch.randn(3)).mean.numpy().shape == (2,)


def test_size_factor_of_draws_is_one_number_or_one_for_each() -> None:
    vae = small(likelihood=pv.Poisson())
    draws = []
    for size in (2, 2.0, np.float32(2), torch.full((4,), 2.0), [2.0] * 4):
        torch.manual_seed(0)
        draws.append(vae.sample(4, size_factor=size))
    assert all(torch.equal(draw, draws[0]) for draw in draws)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "width": (lambda: small().encode(X[:, :2]), r"\(30, 2\).*\(N, 3\)"),
    "NaN": (lambda: small().encode(X * torch.nan), "nan"),
    "unknown name": (lambda: small().encode(X, maks=X > 0), "did you mean 'mask'"),
    "mask of numbers": (lambda: small().encode(X, mask=X), "mask is float32"),
    "latents of another number": (lambda: small().decode(X), r"z has shape \(30, 3\), and this VAE has 2 latents"),
    "NaN in latents": (lambda: small().decode([[0.0, torch.nan]]), r"z\[0, 1\] is nan"),
    "outside the support": (lambda: small(likelihood=pv.Bernoulli()).encode(2 * X), "support"),
    "sizes of two rows": (
        lambda: small(likelihood=pv.Poisson()).sample(3, size_factor=torch.ones(2)),
        r"size_factor has shape \(2,\), and these rows need \(3,\)",
    ),
    "negative size": (lambda: small(likelihood=pv.Poisson()).sample(3, size_factor=-1), "not positive"),
    "rows in half": (lambda: small().sample(3.0), r"n = 3\.0"),
    "no rows": (lambda: small().model(rows=0), "rows = 0"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_wrong_input_is_refused(fault: str) -> None:
    use, message = REFUSED[fault]
    with pytest.raises(pv.InputError, match=message):
        use()


def with_hole(value: float = np.nan) -> torch.Tensor:
    x = X.double()
    x[4, 1] = value
    return x


IMAGES = torch.rand(4, 5, 6, 3)
SERIES = torch.rand(4, 7, 2)
FRAME = pd.DataFrame(with_hole().numpy(), columns=list("abc"))

# what was given, the event shape, the expression that the message has to name, and what it has to give
REMEDIES: dict[str, tuple[Any, tuple[int, ...], str, Any]] = {
    "channels last": (IMAGES, (3, 5, 6), "x.permute(0, 3, 1, 2)", IMAGES.permute(0, 3, 1, 2)),
    "array, channels last": (IMAGES.numpy(), (3, 5, 6), "x.transpose(0, 3, 1, 2)", IMAGES.permute(0, 3, 1, 2)),
    "grey, channels last": (IMAGES[..., :1], (1, 5, 6), "x.reshape(-1, 1, 5, 6)", IMAGES[..., :1].permute(0, 3, 1, 2)),
    "square, channels last": (IMAGES[:, :, :5], (3, 5, 5), "x.permute(0, 3, 1, 2)", IMAGES[:, :, :5].movedim(-1, 1)),
    "rows last": (IMAGES.permute(1, 2, 3, 0), (5, 6, 3), "x.permute(3, 0, 1, 2)", IMAGES),
    "time by channels": (SERIES, (2, 7), "x.transpose(1, 2)", SERIES.transpose(1, 2)),
    "array of time by channels": (SERIES.numpy(), (2, 7), "x.transpose(0, 2, 1)", SERIES.transpose(1, 2)),
    "list of time by channels": (
        SERIES.tolist(),
        (2, 7),
        "numpy.asarray(x).transpose(0, 2, 1)",
        SERIES.transpose(1, 2),
    ),
    "features by rows": (X.T, (3,), "x.T", X),
    "frame of features by rows": (pd.DataFrame(X.T.numpy()), (3,), "x.T", X),
    "list of features by rows": (X.T.tolist(), (3,), "numpy.asarray(x).T", X),
    "flat images": (IMAGES[..., :1].reshape(4, -1), (1, 5, 6), "x.reshape(-1, 1, 5, 6)", IMAGES[..., :1].movedim(3, 1)),
    "flat colours": (
        IMAGES.reshape(4, -1),
        (3, 5, 6),
        "x.reshape(-1, 5, 6, 3).permute(0, 3, 1, 2)",
        IMAGES.permute(0, 3, 1, 2),
    ),
    "frame of flat images": (
        pd.DataFrame(IMAGES[..., 0].reshape(4, -1).numpy()),
        (1, 5, 6),
        "x.to_numpy().reshape(-1, 1, 5, 6)",
        IMAGES[..., :1].movedim(3, 1),
    ),
    "images for vectors": (SERIES, (14,), "x.reshape(len(x), -1)", SERIES.flatten(1)),
    "one row": (X[0], (3,), "x[None]", X[:1]),
    "one row as a list": (X[0].tolist(), (3,), "numpy.asarray(x)[None]", X[:1]),
    "NaN in a tensor": (
        with_hole(),
        (3,),
        "x[torch.isfinite(x).reshape(len(x), -1).all(1)]",
        X[torch.arange(30) != 4],
    ),
    "NaN in an array": (
        with_hole().numpy(),
        (3,),
        "x[numpy.isfinite(x).reshape(len(x), -1).all(1)]",
        X[torch.arange(30) != 4],
    ),
    "NaN in a list": (
        with_hole().tolist(),
        (3,),
        "numpy.asarray(x)[numpy.isfinite(x).reshape(len(x), -1).all(1)]",
        X[torch.arange(30) != 4],
    ),
    "NaN in a frame": (FRAME, (3,), "x[x.notna().to_numpy().reshape(len(x), -1).all(1)]", X[torch.arange(30) != 4]),
    "infinity in a frame": (
        FRAME.fillna(np.inf),
        (3,),
        "x[numpy.isfinite(x).to_numpy().reshape(len(x), -1).all(1)]",
        X[torch.arange(30) != 4],
    ),
    "NaN in numbers": (
        torch.tensor([1.0, torch.nan, 3.0]),
        (),
        "x[torch.isfinite(x).reshape(len(x), -1).all(1)]",
        torch.tensor([1.0, 3.0]),
    ),
    "NaN in a series": (
        pd.Series([1.0, None, 3.0]),
        (),
        "x[x.notna().to_numpy().reshape(len(x), -1).all(1)]",
        torch.tensor([1.0, 3.0]),
    ),
    "mask of a tensor": (with_hole(), (3,), "{'x': x, 'mask': torch.isfinite(x)}", None),
    "mask of an array": (with_hole().numpy(), (3,), "{'x': x, 'mask': numpy.isfinite(x)}", None),
    "mask of a list": (with_hole().tolist(), (3,), "{'x': x, 'mask': numpy.isfinite(x)}", None),
    "mask of a frame": (FRAME, (3,), "{'x': x, 'mask': x.notna()}", None),
    "mask of a frame with infinity": (FRAME.fillna(np.inf), (3,), "{'x': x, 'mask': numpy.isfinite(x)}", None),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_remedy_of_a_message_mends_what_was_given(case: str) -> None:
    x, event_shape, remedy, wanted = REMEDIES[case]
    vae = pv.VAE(event_shape, 2, encoder=SMALL)
    for use in (vae.check, lambda batch: pv.fit(vae, batch, epochs=1, progress=False)):
        with pytest.raises(pv.InputError) as caught:
            use({"x": x})
        assert remedy in str(caught.value)
    mended = eval(remedy, {"x": x, "torch": torch, "numpy": numpy})
    if wanted is not None:
        torch.testing.assert_close(as_tensor("x", mended).double(), wanted.double())
    if len(as_tensor("x", x)) > 3 or wanted is None:
        pv.fit(vae, mended, epochs=1, progress=False)


@pytest.mark.parametrize("library", ["torch", "numpy", "pandas", "list"])
def test_remedies_of_a_mask_of_numbers_mend_it(library: str) -> None:
    known = (X > -1).float()
    mask = {
        "torch": known,
        "numpy": known.numpy(),
        "pandas": pd.DataFrame(known.numpy()),
        "list": known.tolist(),
    }[library]
    x = {"pandas": pd.DataFrame(X.numpy())}.get(library, X if library == "torch" else X.numpy())
    with pytest.raises(pv.InputError) as caught:
        pv.fit(small(), {"x": x, "mask": mask}, epochs=1, progress=False)
    remedies = str(caught.value).rstrip(".").split("give ")[1].split(", or ")
    assert len(remedies) == 2
    for remedy in remedies:
        mended = eval(remedy, {"x": x, "mask": mask, "torch": torch, "numpy": numpy})
        pv.fit(small(), {"x": x, "mask": mended}, epochs=1, progress=False)


COLUMNS: dict[str, tuple[Any, str]] = {
    "dates": (
        pd.date_range("2024", periods=30),
        "x.assign(**{'a': (x['a'] - x['a'].min()).dt.total_seconds() / 86400})",
    ),
    "durations": (pd.to_timedelta(range(30), "D"), "x.assign(**{'a': x['a'].dt.total_seconds() / 86400})"),
    "numbers as text": (["1.5"] * 30, "x.assign(**{'a': x['a'].astype(float)})"),
    "text": (["u", "v"] * 15, "pandas.get_dummies(x, columns=['a'])"),
    "text left out": (["u", "v"] * 15, "x.drop(columns='a')"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_remedy_of_a_column_that_is_not_of_numbers_mends_the_frame(case: str) -> None:
    column, remedy = COLUMNS[case]
    frame = pd.DataFrame(X.numpy(), columns=list("abc")).assign(a=column)
    with pytest.raises(pv.InputError) as caught:
        as_tensor("x", frame)
    assert remedy in str(caught.value)
    mended = as_tensor("x", eval(remedy, {"x": frame, "pandas": pandas}))
    assert bool(torch.isfinite(mended).all())


ARRAYS: dict[str, tuple[Any, str]] = {
    "text": (np.array([["u", "v"], ["v", "v"]]), "numpy.unique(x, return_inverse=True)[1].reshape(numpy.shape(x))"),
    "text in a list": ([["u", "v"], ["v", "v"]], "numpy.unique(x, return_inverse=True)[1].reshape(numpy.shape(x))"),
    "numbers as text": ([["1", "2.5"]], "numpy.asarray(x, dtype='float64')"),
    "dates": (np.array(["2024-01-01"], "datetime64[D]"), "numpy.asarray(x).astype('datetime64[s]').astype('float64')"),
    "durations": (np.array([5], "timedelta64[m]"), "numpy.asarray(x) / numpy.timedelta64(1, 's')"),
    "fields": (np.zeros(3, "f4,f4"), "numpy.stack([x[field] for field in x.dtype.names], axis=-1)"),
    "complex tensor": (torch.zeros(3, dtype=torch.complex64), "torch.view_as_real(x)"),
    "complex array": (np.zeros(3, complex), "numpy.stack([numpy.real(x), numpy.imag(x)], axis=-1)"),
    "text in a series": (pd.Series(["u", "v"]), "x.astype('category').cat.codes"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_remedy_of_what_is_not_of_numbers_mends_it(case: str) -> None:
    x, remedy = ARRAYS[case]
    with pytest.raises(pv.InputError) as caught:
        as_tensor("x", x)
    assert f"`{remedy}`" in str(caught.value)
    assert as_tensor("x", eval(remedy, {"x": x, "torch": torch, "numpy": numpy})).is_floating_point() or "text" in case


def test_integers_and_numbers_of_numpy_are_taken_everywhere(tmp_path: Path) -> None:
    n, x = np.int64(2), torch.randint(0, 3, (40, 3)).numpy()
    assert pv.Categorical(classes=x.max() + 1) == pv.Categorical(classes=3)
    assert pv.VAE((np.int64(3),), n, encoder=SMALL).declaration.event_shape == (3,)
    assert pv.Adam(lr=np.float32(0.5)) == pv.Adam(lr=0.5)
    assert pv.objectives.ELBO(beta=np.float32(2), particles=n) == pv.objectives.ELBO(beta=2, particles=2)
    assert pv.EarlyStopping(patience=n) == pv.EarlyStopping(patience=2)
    assert type(pv.EarlyStopping(patience=n).patience) is int
    assert pv.criticism.Importance(draws=torch.tensor(50)).draws == 50
    digits = [pv.data.load("digits", seed=seed).train for seed in (np.int64(1), 1)]
    assert torch.equal(digits[0].x, digits[1].x)
    assert digits[0].source == digits[1].source
    vae, run = pv.VAE((3,), n, encoder=SMALL), str(tmp_path / "run")
    pv.fit(vae, x, epochs=n, batch_size=np.int32(16), seed=np.uint8(3), run=run, progress=False)
    assert pv.load(run).declaration.latent_dim == 2
    with pytest.raises(pv.InputError):
        pv.VAE((3,), True)
    with pytest.raises(pv.InputError):
        pv.VAE((3,), np.float64(2))


@pytest.mark.parametrize("answer", [np.True_, torch.tensor(True), np.array(True), True, "enough"], ids=repr)
def test_callback_that_returns_any_truth_ends_the_training(answer: Any) -> None:
    assert len(pv.fit(small(), X, epochs=4, progress=False, callbacks=[lambda at: answer])) == 1


@pytest.mark.parametrize("answer", [np.False_, torch.tensor(False), None, 1.0, np.float64(2), "", torch.ones(2) > 0])
def test_callback_that_returns_no_truth_does_not_end_it(answer: Any) -> None:
    assert len(pv.fit(small(), X, epochs=2, progress=False, callbacks=[lambda at: answer])) == 2


def test_home_is_meant_by_a_tilde_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir(), here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    vae = small()
    for run in ("one", "two"):
        checkpoints = pv.Checkpoints(every_epochs=1)
        options = pv.RunOptions(f"~/runs/{run}", checkpoints=checkpoints)
        pv.fit(vae, X, validation=X, epochs=1, progress=False, run=options)
        pv.fit(vae, X, validation=X, epochs=1, progress=False, run=pv.RunOptions(f"~/runs/{run}", overwrite=True))
    np.save(home / "x.npy", X.numpy())
    assert pv.load("~/runs/one").declaration == vae.declaration
    assert len(pv.data.load("~/x.npy").train)
    save(pv.predictive_check(vae, X, draws=5, progress=False, two_sample=False), "~/check.nc")
    pv.sweep({"latent_dim": [1]}, {"epochs": 1, "data": "digits"}, to="~/sweep", progress=False)
    assert os.listdir(here) == []
    assert {"runs", "check.nc", "sweep"} <= set(os.listdir(home))


PICTURES: dict[str, Callable[[pv.VAE, Any], Any]] = {
    "latent": lambda vae, x: pv.plots.latent(vae, x, np.array(["a", "b"] * 15)),
    "prior_predictive": pv.plots.prior_predictive,
    "reconstructions": pv.plots.reconstructions,
    "traversals": pv.plots.traversals,
    "interpolations": pv.plots.interpolations,
    "aggregate_posterior": pv.plots.aggregate_posterior,
}


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_take_what_fit_takes(picture: str) -> None:
    draw, vae = PICTURES[picture], small()
    for kind in ("array of float64", "frame", "mapping"):
        figures = [draw(vae, x) for x in (KINDS[kind](X), X)]
        drawn = [[line.get_xydata() for axes in figure.axes for line in axes.lines] for figure in figures]
        for one, other in zip(*drawn, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    with pytest.raises(pv.InputError, match=r"\(30, 2\).*\(N, 3\)"):
        draw(vae, X[:, :2].numpy())


@pytest.mark.parametrize("kind", ["16 bits", "floats"])
def test_remedy_of_deep_grey_keeps_all_levels(kind: str, tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    pixels, suffix = (levels, "png") if kind == "16 bits" else (levels.astype(np.float32) / 65535, "tif")
    for row in range(3):
        PIL.Image.fromarray(pixels).save(tmp_path / f"{row}.{suffix}")
    with pytest.raises(pv.InputError) as caught:
        pv.data.load(tmp_path, validation=0, test=0)
    x = eval(str(caught.value).split("`")[1], {"numpy": numpy, "PIL": PIL, "pathlib": pathlib})
    assert x.shape == (3, 1, 8, 8)
    assert len(np.unique(x)) == 64
    pv.fit(pv.VAE((1, 8, 8), 2, encoder=SMALL), x / x.max(), epochs=1, progress=False)
