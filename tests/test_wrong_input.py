"""Every wrong input is refused before any work, with a sentence that says what, where and how to mend it.

One table for Python, one for the command line. Each row holds words that its sentence must contain: the name of the
thing, the place, and the fix.
"""

import io
import math
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.fitting import grouped
from pyro.infer import Trace_ELBO
from torch import nn

import pyro_vae as pv
from pyro_vae.cli import main

X = torch.linspace(-1, 1, 30).reshape(10, 3)


def vae(**words: Any) -> pv.VAE:
    """A small VAE of vectors of length 3."""
    return pv.VAE(**({"event_shape": (3,), "latent_dim": 2, "encoder": pv.MLP(hidden=(4,))} | words))


def fit(x: Any = X, model: Any = None, **words: Any) -> pv.History:
    """One short fit."""
    return pv.fit(model or vae(), x, **grouped(**({"epochs": 1, "progress": False} | words)))


def with_value(value: float) -> torch.Tensor:
    x = X.clone()
    x[4, 1] = value
    return x


PYTHON: dict[str, tuple[Callable[[], Any], list[str]]] = {
    # the declaration
    "event shape is a number": (lambda: vae(event_shape=3), ["event_shape = 3", "(1, 28, 28)"]),
    "event shape with a zero": (lambda: vae(event_shape=(0, 3)), ["event_shape", "positive integers"]),
    "no latents": (lambda: vae(latent_dim=0), ["latent_dim = 0", "at least 1"]),
    "latents in half": (lambda: vae(latent_dim=2.5), ["latent_dim = 2.5", "integer"]),
    "prior by name": (lambda: vae(prior="Normal"), ["prior", "'Normal'", "prior=pv.Normal()"]),
    "family class": (lambda: vae(likelihood=pv.Normal), ["likelihood", "likelihood=pv.Normal()"]),
    "negative scale": (lambda: pv.Normal(scale=-1), ["Normal.scale", "-1", "outside of its range"]),
    "scale of zero": (lambda: pv.Normal(scale=0), ["Normal.scale", "outside of its range"]),
    "NaN as parameter": (lambda: pv.Normal(loc=math.nan), ["Normal.loc", "nan", "finite number"]),
    "misspelt source": (lambda: pv.Normal(scale="lerned"), ["Normal.scale", "'lerned'", "'learned'"]),
    "ragged array": (lambda: pv.Normal(loc=[[1, 2], [3]]), ["Normal.loc", "ragged"]),
    "array of another length": (lambda: vae(prior=pv.Normal([0, 1, 2], 1)), ["prior", "Normal.loc", "(3,)", "(2,)"]),
    "one class": (lambda: pv.Categorical(classes=1), ["Categorical.classes", "at least 2"]),
    "learned matrix": (lambda: pv.MultivariateNormal(scale_tril="learned"), ["scale_tril", "'per_feature'"]),
    "upper triangular": (
        lambda: pv.MultivariateNormal(scale_tril=[[1, 1], [0, 1]]),
        ["scale_tril", "lower-triangular"],
    ),
    "guide over another set": (lambda: vae(guide=pv.Bernoulli()), ["guide", "{0, 1}", "real numbers", "pv.Normal()"]),
    "guide without gradient": (
        lambda: fit(model=vae(prior=pv.Bernoulli(), guide=pv.Bernoulli())),
        ["guide", "cannot be reparameterised", "objective=pv.objectives.RWS()"],
    ),
    "likelihood without z": (lambda: vae(likelihood=pv.Normal(0, 1)), ["likelihood", "depend on z", "leave loc out"]),
    "guide without x": (lambda: vae(guide=pv.Normal(0, 1)), ["guide", "depend on x", "leave loc out"]),
    "vectors family on images": (
        lambda: vae(event_shape=(1, 4, 4), likelihood=pv.MultivariateNormal()),
        ["MultivariateNormal", "rank 1", "(1, 4, 4)", "flatten"],
    ),
    # networks
    "layer without units": (lambda: pv.MLP(hidden=(0,)), ["MLP.hidden", "at least 1"]),
    "unknown activation": (lambda: pv.MLP(activation="relo"), ["MLP.activation", "'relo'", "'relu'"]),
    "conv on vectors": (lambda: vae(encoder=pv.Conv()), ["Conv", "images", "pv.MLP()"]),
    "encoder by name": (lambda: vae(encoder="MLP"), ["encoder=pv.MLP()"]),
    "own encoder alone": (lambda: vae(encoder=nn.Linear(3, 2)), ["no mirror", "decoder="]),
    "own network of one output": (
        lambda: vae(encoder=nn.Linear(3, 2), decoder=pv.MLP()),
        ["guide Normal", "1 tensor", "loc: (N, 2)", "scale: (N, 2)"],
    ),
    "own network of wrong size": (
        lambda: vae(decoder=nn.Linear(2, 5), likelihood=pv.Normal(scale=1)),
        ["likelihood Normal", "loc of shape (2, 5)", "(2, 3)"],
    ),
    "own network of wrong input": (
        lambda: vae(decoder=nn.Linear(7, 3), likelihood=pv.Normal(scale=1)),
        ["likelihood Normal", "fails on rows of shape (2, 2)"],
    ),
    "replace of nothing": (lambda: vae().replace(likelyhood=pv.Normal()), ["'likelyhood'", "likelihood"]),
    # data
    "another shape": (lambda: fit(X.reshape(10, 3, 1)), ["(10, 3, 1)", "(N, 3)", "reshape(-1, 3)"]),
    "another size": (lambda: fit(torch.zeros(10, 4)), ["(10, 4)", "(N, 3)", "event_shape=(4,)"]),
    "one row as vector": (lambda: fit(X[0]), ["(3,)", "x[None]"]),
    "empty": (lambda: fit(X[:0]), ["no rows"]),
    "one row": (lambda: fit(X[:1]), ["1 row", "at least 2"]),
    "NaN": (lambda: fit(with_value(math.nan)), ["x[4, 1]", "nan", "1 of 30", "torch.isfinite"]),
    "infinity": (lambda: fit(with_value(-math.inf)), ["x[4, 1]", "-inf", "torch.isfinite"]),
    "NaN in validation": (lambda: fit(validation=with_value(math.nan)), ["validation data", "x[4, 1]", "nan"]),
    "grey under Bernoulli": (
        lambda: fit(X.abs(), vae(likelihood=pv.Bernoulli())),
        ["x[0, 1]", "Bernoulli", "binarize", "grey=True", "Normal"],
    ),
    "beyond grey": (lambda: fit(2 * X, vae(likelihood=pv.Bernoulli(grey=True))), ["x[0, 0] = -2", "Bernoulli"]),
    "label beyond classes": (
        lambda: fit(torch.full((10, 3), 5.0), vae(likelihood=pv.Categorical(classes=3))),
        ["= 5", "Categorical(classes=3", "classes=K"],
    ),
    "complex": (lambda: fit(X.to(torch.complex64)), ["complex"]),
    "strings": (lambda: fit(np.array([["a", "b", "c"]] * 4)), ["'x'"]),
    "text column": (lambda: fit(pd.DataFrame({"a": [1, 2], "b": ["u", "v"], "c": [1, 2]})), ["'b'", "drop"]),
    "mapping without x": (lambda: fit({"y": X}), ["'x'", "'y'"]),
    "batch with an unknown tensor": (lambda: fit({"x": X, "maks": X > 0}), ["'maks'", "did you mean 'mask'"]),
    "prior with point masses": (lambda: vae(prior=pv.Censored(pv.Normal(0, 1))), ["point masses", "pv.Truncated"]),
    "mask of numbers": (lambda: fit({"x": X, "mask": X}), ["mask is float32", "mask.bool()"]),
    "mask of another shape": (lambda: fit({"x": X, "mask": X[:, 0] > 0}), ["mask has shape", "one value for each"]),
    "empty mask": (lambda: fit({"x": X, "mask": X > 1e9}), ["leaves out every value"]),
    "NaN that a mask lets in": (lambda: fit({"x": X * math.nan, "mask": X > 0}), ["not finite", "mask"]),
    "mask of correlated elements": (
        lambda: fit({"x": X, "mask": X > 0}, vae(likelihood=pv.MultivariateNormal())),
        ["MultivariateNormal takes no mask", "independent elements"],
    ),
    "size of real numbers": (lambda: fit({"x": X, "size_factor": X[:, 0]}), ["no size to multiply", "leave it out"]),
    "tensors of two lengths": (lambda: fit({"x": X, "mask": X[:5]}), ["'mask'", "10 rows"]),
    "nothing": (lambda: fit(object()), ["object"]),
    # fit
    "no epochs": (lambda: fit(epochs=0), ["epochs = 0", "at least 1"]),
    "batch in half": (lambda: fit(batch_size=1.5), ["batch_size = 1.5", "integer"]),
    "negative seed": (lambda: fit(seed=-1), ["seed = -1"]),
    "Pyro's loss": (lambda: fit(objective=Trace_ELBO()), ["objective", "pv.objectives.ELBO()", "SVI"]),
    "no particles": (lambda: pv.objectives.ELBO(particles=0), ["ELBO.particles", "at least 1"]),
    "unknown KL": (lambda: pv.objectives.ELBO(kl="exact"), ["ELBO.kl", "'exact'", "analytic"]),
    "no closed form": (
        lambda: fit(model=vae(prior=pv.StudentT(4, 0, 1)), objective=pv.objectives.ELBO(kl="analytic")),
        ["no closed form", "Normal", "StudentT", "kl='sampled'"],
    ),
    "optimizer by name": (lambda: fit(optimizer="Adam"), ["optimizer", "'Adam'", "optimizer=pv.Adam()"]),
    "negative learning rate": (lambda: pv.Adam(lr=-1), ["Adam.lr", "at least 0"]),
    "unknown part": (lambda: fit(optimizer=pv.Adam(lr_by_part={"posterir": 0})), ["'posterir'", "'posterior'"]),
    "all frozen": (lambda: fit(optimizer=pv.Adam(lr=0)), ["frozen", "raise lr"]),
    "no programs": (lambda: fit(model=object()), [".model and .guide"]),
    "no weights": (
        lambda: fit(model=types.SimpleNamespace(model=vae_without_weights, guide=lambda x: None)),
        ["no weights", "pyro.param"],
    ),
    "no patience": (lambda: pv.EarlyStopping(patience=0), ["EarlyStopping.patience", "at least 1"]),
    "stopping without validation": (
        lambda: fit(stopping=pv.EarlyStopping()),
        ["'validation_loss'", "validation=", "monitor='loss'"],
    ),
    "misspelt monitor": (lambda: fit(stopping=pv.EarlyStopping(monitor="los")), ["'los'", "did you mean 'loss'"]),
    "stopping by number": (lambda: fit(stopping=10), ["stopping = 10", "pv.EarlyStopping(patience=10)"]),
    "one callback": (lambda: fit(callbacks=print), ["callbacks", "list", "callbacks=[...]"]),
    "no callback": (lambda: fit(callbacks=["print"]), ["'print'", "cannot be called"]),
    "logger by name": (lambda: fit(loggers=["csv"]), ["'csv'", "give run="]),
    "negative skips": (lambda: pv.Adam(max_nonfinite_steps=-1), ["Adam.max_nonfinite_steps", "at least 0"]),
    "sweep over nothing": (lambda: pv.sweep({}, to="s"), ["over = {}", "latent_dim: [2, 8]"]),
    "sweep over a slip": (lambda: pv.sweep({"latent_dims": [2]}, to="s"), ["'latent_dims'", "'latent_dim'"]),
    "sweep with a wrong value": (
        lambda: pv.sweep({"optimizer.lr": [1e-3, "fast"]}, to="s"),
        ["the point lr=fast", "optimizer.lr", "'fast'"],
    ),
    "grid of a range": (
        lambda: pv.sweep({"optimizer.lr": {"low": 1e-4, "high": 1}}, to="s"),
        ["optimizer.lr is a range", "--samples 20"],
    ),
    "sweep over the run": (lambda: pv.sweep({"run": ["a"]}, to="s"), ["sets run", "leave it out"]),
    # results
    "no draws": (lambda: vae().sample(0), ["n = 0", "at least 1"]),
    "mean of labels": (
        lambda: vae(likelihood=pv.Categorical(classes=3)).sample(2, mean=True),
        ["Categorical", "no mean", "mean=False"],
    ),
    "column of the history": (lambda: fit()["los"], ["'los'", "'loss'"]),
    "unknown data set": (lambda: pv.data.load("minst"), ["'minst'", "'mnist'"]),
    "no such file": (lambda: pv.data.load("nowhere/rows.csv"), ["rows.csv"]),
    "wrong data split": (lambda: pv.data.load("digits", validation=0.7, test=0.5), ["validation", "test"]),
}


def vae_without_weights(x: torch.Tensor) -> None:
    import pyro
    import pyro.distributions as dist

    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)


@pytest.mark.parametrize("name", PYTHON)
def test_python_refuses_with_a_sentence(name: str) -> None:
    wrong, words = PYTHON[name]
    with pytest.raises(pv.InputError) as caught:
        wrong()
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert len(message) > 20
    assert message.rstrip().endswith((".", ")")), message


def write_image(folder: Path) -> None:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "broken.png").write_bytes(b"no image")


def write_csv(folder: Path, text: str) -> None:
    (folder / "table.csv").write_text(text)


def write_run(folder: Path, **changes: Any) -> None:
    """A run with some lines of its spec.yaml replaced, or a file broken."""
    run = folder / "run"
    digits = pv.data.load("digits").train.x[:20].flatten(1)
    pv.fit(vae(event_shape=(64,)), digits, epochs=1, run=run, progress=False)
    for name, text in changes.items():
        file = run / {"spec": "spec.yaml", "weights": "model.safetensors"}[name]
        if callable(text):
            text = text(file.read_text())
        file.write_text(text)


def lying_array() -> bytes:
    """An array whose header declares more than there is."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2)})
    return stream.getvalue()


def nothing(folder: Path) -> None:
    """Nothing has to be there."""


CLI: dict[str, tuple[Callable[[Path], Any], list[str], list[str]]] = {
    "unknown command": (nothing, ["fti"], ["'fti'", "'fit'"]),
    "unknown option": (nothing, ["fit", "--epoch", "3"], ["'--epoch'", "'--epochs'"]),
    "unknown family": (nothing, ["fit", "--prior", "Norml"], ["'Norml'", "'Normal'"]),
    "unknown field": (nothing, ["fit", "--prior.skale", "3"], ["'skale'", "'scale'"]),
    "field of no network": (nothing, ["fit", "--encoder.hidden", "[3]"], ["--encoder MLP"]),
    "no number": (nothing, ["fit", "--latent_dim", "two"], ["--latent_dim", "'two'", "integer"]),
    "no value": (nothing, ["fit", "--latent_dim"], ["--latent_dim", "needs a value"]),
    "unknown binarisation": (nothing, ["fit", "--data.binarize", "both"], ["binarize", "'static'", "'dynamic'"]),
    "wrong field": (nothing, ["fit", "--optimizer.lr", "fast"], ["optimizer.lr", "'fast'", "number or schedule"]),
    "grey pixels": (nothing, ["fit", "--likelihood", "Bernoulli"], ["Bernoulli", "--data.binarize dynamic"]),
    "no such config": (nothing, ["fit", "--config", "none.yaml"], ["none.yaml", "cannot be read"]),
    "broken config": (lambda f: (f / "c.yaml").write_text("a: [1"), ["fit", "--config", "c.yaml"], ["c.yaml", "YAML"]),
    "config with an object": (
        lambda f: (f / "c.yaml").write_text("prior: !!python/object/apply:os.system ['true']"),
        ["fit", "--config", "c.yaml"],
        ["c.yaml", "YAML"],
    ),
    "config that imports": (
        lambda f: (f / "c.yaml").write_text("prior: {class_path: os.system, init_args: {command: 'true'}}"),
        ["fit", "--config", "c.yaml"],
        ["prior", "one name with its fields"],
    ),
    "misspelt config": (lambda f: (f / "c.yaml").write_text("epocs: 3"), ["fit", "--config", "c.yaml"], ["'epochs'"]),
    "no files": (nothing, ["fit", "--data", "mnist", "--data.root", "."], ["train-images-idx3-ubyte", "MNIST/raw"]),
    "empty csv": (lambda f: write_csv(f, ""), ["fit", "--data", "table.csv"], ["table.csv"]),
    "text in csv": (
        lambda f: write_csv(f, "a,b\n1,2\n3,x\n"),
        ["fit", "--data", "table.csv"],
        ["'b'", "row 2", "'x'"],
    ),
    "hole in csv": (lambda f: write_csv(f, "a,b\n1,2\n3,\n"), ["fit", "--data", "table.csv"], ["'b'", "row 2"]),
    "unreadable image": (write_image, ["fit", "--data", "pictures"], ["broken.png"]),
    "empty folder": (lambda f: (f / "empty").mkdir(), ["fit", "--data", "empty"], ["empty"]),
    "object array": (
        lambda f: np.save(f / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True),
        ["fit", "--data", "x.npy"],
        ["x.npy"],
    ),
    "declared shape": (
        lambda f: (f / "x.npy").write_bytes(lying_array()),
        ["fit", "--data", "x.npy"],
        ["x.npy", "(1099511627776, 2)", "damaged"],
    ),
    "a pipe": (lambda f: os.mkfifo(f / "x.csv"), ["fit", "--data", "x.csv"], ["x.csv", "not a regular file"]),
    "patience without a rule": (
        nothing,
        ["fit", "--monitor.stopping.patience", "3"],
        ["--monitor.stopping EarlyStopping --monitor.stopping.patience"],
    ),
    "misspelt rule": (nothing, ["fit", "--monitor.stopping", "EarlyStoping"], ["'EarlyStoping'", "'EarlyStopping'"]),
    "unknown logger": (nothing, ["fit", "--monitor.loggers", "comet"], ["'comet'", "tensorboard"]),
    "sweep over nothing": (nothing, ["sweep"], ["over = {}", "--over"]),
    "sweep over a number": (nothing, ["sweep", "--over", "3"], ["--over = 3", "mapping"]),
    "sweep with a slip": (nothing, ["sweep", "--over", "{seed: [0]}", "--epoch", "3"], ["'--epoch'", "'--epochs'"]),
    "sweep in a folder of others": (
        lambda f: ((f / "mine").mkdir(), (f / "mine" / "thesis.tex").write_text("")),
        ["sweep", "--over", "{seed: [0]}", "--to", "mine"],
        ["mine", "not a sweep", "left alone"],
    ),
    "run exists": (write_run, ["fit", "--run", "run"], ["run holds a run already", "--overwrite"]),
    "no run": (nothing, ["describe", "run"], ["run is not a run folder", "spec.yaml"]),
    "no run but others": (write_run, ["describe", "ron"], ["ron is not a run folder", "run"]),
    "something else's folder": (
        lambda f: ((f / "mine").mkdir(), (f / "mine" / "thesis.tex").write_text("")),
        ["fit", "--run", "mine", "--overwrite"],
        ["mine", "not a run folder", "left alone"],
    ),
    "newer run": (
        lambda f: write_run(f, spec=lambda text: text.replace("format: 2", "format: 99")),
        ["describe", "run"],
        ["newer pyro_vae", "99", "pip install --upgrade"],
    ),
    "run of unknown family": (
        lambda f: write_run(f, spec=lambda text: text.replace("guide: Normal", "guide: Norml")),
        ["describe", "run"],
        ["'Norml'", "'Normal'"],
    ),
    "broken spec": (lambda f: write_run(f, spec="a: ["), ["sample", "run"], ["spec.yaml", "YAML"]),
    "broken weights": (lambda f: write_run(f, weights="nonsense"), ["sample", "run"], ["model.safetensors", "weights"]),
    "weights of another model": (
        lambda f: write_run(f, spec=lambda text: text.replace("latent_dim: 2", "latent_dim: 3")),
        ["sample", "run"],
        ["model.safetensors", "weights"],
    ),
    "strange file": (write_run, ["sample", "run", "--to", "x.pkl"], ["x.pkl", ".npy"]),
    "picture of vectors": (write_run, ["sample", "run", "--to", "x.png"], ["x.png", "not images", ".npy"]),
    "no draws": (write_run, ["sample", "run", "--n", "0"], ["at least 1"]),
    "data in memory": (write_run, ["reconstruct", "run"], ["in memory", "--data"]),
    "other data": (write_run, ["reconstruct", "run", "--data", "digits"], ["(64, 1, 8, 8)", "(N, 64)", "reshape"]),
}


@pytest.mark.parametrize("name", CLI)
def test_command_line_refuses_with_one_sentence_and_status_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, arguments, words = CLI[name]
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out, error = capsys.readouterr()
    assert stopped.value.code == 2
    assert error.startswith("pyro-vae: ")
    assert error.count("\n") == 1, error
    assert "Traceback" not in out + error
    assert not [word for word in words if word not in error], error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before, "it left something"
