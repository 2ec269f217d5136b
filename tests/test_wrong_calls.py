"""Calls with wrong words or kinds of arguments are refused by the line that was meant, which works."""

import copy
import functools
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main

# Python: what is wrong, what the sentence says to write, and that it works


PYTHON: list[tuple[str, str, str]] = [
    # a wrong call, what its sentence says to write, and the call with that
    ("pv.Normal(sigma=1)", "scale=1", "pv.Normal(scale=1)"),
    ("pv.Normal(mu=0, scale=1)", "loc=0", "pv.Normal(loc=0, scale=1)"),
    ("pv.Normal(std=2.0)", "scale=2.0", "pv.Normal(scale=2.0)"),
    ("pv.Laplace(0, sd=2.0)", "scale=2.0", "pv.Laplace(0, scale=2.0)"),
    ("pv.MLP(hidden_dims=(8,))", "hidden=...", "pv.MLP(hidden=(8,))"),
    ("pv.MLP(activations='relu')", "activation='relu'", "pv.MLP(activation='relu')"),
    ("pv.VAE((3,), z_dim=2)", "latent_dim=2", "pv.VAE((3,), latent_dim=2)"),
    ("pv.VAE((3,), n_latent=2)", "latent_dim=2", "pv.VAE((3,), latent_dim=2)"),
    ("pv.VAE(input_dim=3, latent_dim=2)", "event_shape=(3,)", "pv.VAE(event_shape=(3,), latent_dim=2)"),
    ("pv.VAE(x, 2)", "event_shape=(3,)", "pv.VAE(event_shape=(3,), latent_dim=2)"),
    ("pv.VAE(frame, 2)", "event_shape=(3,)", "pv.VAE(event_shape=(3,), latent_dim=2)"),
    (
        "pv.VAE((3,), 2, encoder=[400])",
        "encoder=pv.MLP(hidden=(400,))",
        "pv.VAE((3,), 2, encoder=pv.MLP(hidden=(400,)))",
    ),
    (
        "pv.VAE((3,), 2, encoder=(8, 4))",
        "encoder=pv.MLP(hidden=(8, 4))",
        "pv.VAE((3,), 2, encoder=pv.MLP(hidden=(8, 4)))",
    ),
    ("pv.VAE((3,), 2, encoder=16)", "encoder=pv.MLP(hidden=(16,))", "pv.VAE((3,), 2, encoder=pv.MLP(hidden=(16,)))"),
    ("pv.VAE((3,), 2, encoder=pv.MLP)", "encoder=pv.MLP()", "pv.VAE((3,), 2, encoder=pv.MLP())"),
    ("pv.VAE((3,), 2, encoder='mlp')", "encoder=pv.MLP()", "pv.VAE((3,), 2, encoder=pv.MLP())"),
    ("pv.VAE((3,), 2, likelihood='laplace')", "likelihood=pv.Laplace()", "pv.VAE((3,), 2, likelihood=pv.Laplace())"),
    (
        "pv.VAE((3,), 2, prior=torch.distributions.Normal(0.0, 1.0))",
        "prior=pv.Normal()",
        "pv.VAE((3,), 2, prior=pv.Normal())",
    ),
    ("pv.VAE((32, 32, 3), 2)", "event_shape=(3, 32, 32)", "pv.VAE(event_shape=(3, 32, 32), latent_dim=2)"),
    (
        "pv.fit(vae, x, lr=0.01, **quick)",
        "optimizer=pv.Adam(lr=0.01)",
        "pv.fit(vae, x, optimizer=pv.Adam(lr=0.01), **quick)",
    ),
    (
        "pv.fit(vae, x, learning_rate=0.01, **quick)",
        "optimizer=pv.Adam(lr=0.01)",
        "pv.fit(vae, x, optimizer=pv.Adam(lr=0.01), **quick)",
    ),
    (
        "pv.fit(vae, x, device='cpu', **quick)",
        "runtime=pv.Runtime(accelerator='cpu')",
        "pv.fit(vae, x, runtime=pv.Runtime(accelerator='cpu'), **quick)",
    ),
    (
        "pv.fit(vae, x, device='cuda:0', **quick)",
        "runtime=pv.Runtime(accelerator='auto')",
        "pv.fit(vae, x, runtime=pv.Runtime(accelerator='auto'), **quick)",
    ),
    (
        "pv.fit(vae, x, precision='64-true', **quick)",
        "runtime=pv.Runtime(precision='64-true')",
        "pv.fit(vae, x, runtime=pv.Runtime(precision='64-true'), **quick)",
    ),
    (
        "pv.fit(vae, x, beta=4.0, **quick)",
        "objective=pv.objectives.ELBO(beta=4.0)",
        "pv.fit(vae, x, objective=pv.objectives.ELBO(beta=4.0), **quick)",
    ),
    ("pv.fit(vae, x, num_epochs=2, progress=False)", "epochs=2", "pv.fit(vae, x, epochs=2, progress=False)"),
    ("pv.fit(vae, x, max_epochs=2, progress=False)", "epochs=2", "pv.fit(vae, x, epochs=2, progress=False)"),
    ("pv.fit(vae, x, verbose=False, epochs=1)", "progress=False", "pv.fit(vae, x, progress=False, epochs=1)"),
    ("pv.fit(vae, x, random_state=3, **quick)", "seed=3", "pv.fit(vae, x, seed=3, **quick)"),
    (
        "pv.fit(vae, x, early_stopping=True, validation=x, **quick)",
        "monitor=pv.Monitor(stopping=pv.EarlyStopping())",
        "pv.fit(vae, x, monitor=pv.Monitor(stopping=pv.EarlyStopping()), validation=x, **quick)",
    ),
    ("pv.fit(vae, x, validation_data=x, **quick)", "validation=...", "pv.fit(vae, x, validation=x, **quick)"),
    (
        "pv.fit(vae, x, optimizer=torch.optim.Adam(vae.parameters(), lr=0.01), **quick)",
        "optimizer=pv.Adam(lr=0.01)",
        "pv.fit(vae, x, optimizer=pv.Adam(lr=0.01), **quick)",
    ),
    (
        "pv.fit(vae, x, optimizer=torch.optim.RMSprop(vae.parameters(), lr=0.01), **quick)",
        "optimizer=functools.partial(torch.optim.RMSprop, lr=0.01)",
        "pv.fit(vae, x, optimizer=functools.partial(torch.optim.RMSprop, lr=0.01), **quick)",
    ),
    (
        "pv.fit(vae, x, optimizer=0.01, **quick)",
        "optimizer=pv.Adam(lr=0.01)",
        "pv.fit(vae, x, optimizer=pv.Adam(lr=0.01), **quick)",
    ),
    (
        "pv.fit(vae, x, optimizer='adam', **quick)",
        "optimizer=pv.Adam()",
        "pv.fit(vae, x, optimizer=pv.Adam(), **quick)",
    ),
    ("pv.fit(vae, x, optimizer=pv.SGD, **quick)", "optimizer=pv.SGD()", "pv.fit(vae, x, optimizer=pv.SGD(), **quick)"),
    (
        "pv.fit(vae, x, optimizer=pyro.optim.Adam({'lr': 0.1}), **quick)",
        "optimizer=pv.Adam(lr=1e-3)",
        "pv.fit(vae, x, optimizer=pv.Adam(lr=1e-3), **quick)",
    ),
    (
        "pv.fit(vae, x, objective='iwae', **quick)",
        "objective=pv.objectives.IWAE()",
        "pv.fit(vae, x, objective=pv.objectives.IWAE(), **quick)",
    ),
    (
        "pv.fit(vae, x, objective=pv.objectives.IWAE, **quick)",
        "objective=pv.objectives.IWAE()",
        "pv.fit(vae, x, objective=pv.objectives.IWAE(), **quick)",
    ),
    (
        "pv.fit(vae, x, objective=pyro.infer.Trace_ELBO(), **quick)",
        "objective=pv.objectives.ELBO()",
        "pv.fit(vae, x, objective=pv.objectives.ELBO(), **quick)",
    ),
    (
        "pv.fit(vae, x, monitor='csv', **quick)",
        "monitor=pv.Monitor(loggers=['csv']), run='run'",
        "pv.fit(vae, x, monitor=pv.Monitor(loggers=['csv']), run='logged', **quick)",
    ),
    (
        "pv.fit(vae, x, runtime='gpu', **quick)",
        "runtime=pv.Runtime(accelerator='auto')",
        "pv.fit(vae, x, runtime=pv.Runtime(accelerator='auto'), **quick)",
    ),
    ("pv.fit(x, vae, **quick)", "fit(vae, x)", "pv.fit(vae, x, **quick)"),
    ("pv.fit(vae, (x, y), **quick)", "`x[0]`", "pv.fit(vae, (x, y)[0], **quick)"),
    ("pv.fit(vae, (x.numpy(), y.numpy()), **quick)", "`x[0]`", "pv.fit(vae, (x, y)[0], **quick)"),
    (
        "pv.fit(pv.VAE, x, **quick)",
        "pv.VAE(event_shape=(3,), latent_dim=2)",
        "pv.fit(pv.VAE(event_shape=(3,), latent_dim=2), x, **quick)",
    ),
    (
        "pv.evidence(vae, x, draws=30, progress=False)",
        "method=pv.criticism.Importance(draws=30)",
        "pv.evidence(vae, x, method=pv.criticism.Importance(draws=30), progress=False)",
    ),
    (
        "pv.evidence(vae, x, num_samples=30, progress=False)",
        "method=pv.criticism.Importance(draws=30)",
        "pv.evidence(vae, x, method=pv.criticism.Importance(draws=30), progress=False)",
    ),
    (
        "pv.evidence(vae, x, method='importance', progress=False)",
        "method=pv.criticism.Importance()",
        "pv.evidence(vae, x, method=pv.criticism.Importance(), progress=False)",
    ),
    ("pv.evidence(history, x, progress=False)", "give the model", "pv.evidence(vae, x, progress=False)"),
    ("pv.evidence('run', x, progress=False)", "pv.load('run')", "pv.evidence(pv.load('run'), x, progress=False)"),
    ("pv.load(vae)", "pv.load('run')", "pv.load('run')"),
    ("pv.describe('run')", "pv.load('run')", "pv.describe(pv.load('run'))"),
    (
        "pv.predictive_check(vae, x, n_draws=30, progress=False)",
        "draws=30",
        "pv.predictive_check(vae, x, draws=30, progress=False)",
    ),
    (
        "pv.criticism.sbc(vae, num_samples=30, progress=False)",
        "draws=30",
        "pv.criticism.sbc(vae, draws=30, progress=False)",
    ),
    ("pv.plots.training(vae)", "history = pv.fit(vae, x)", "pv.plots.training(history)"),
    ("pv.plots.latent(x, vae)", "takes a VAE as vae, not Tensor", "pv.plots.latent(vae, x)"),
    ("pv.report(vae)", "pv.report('my-run')", "pv.report('run', data=x, progress=False, rows=30, draws=40)"),
    (
        "pv.compare(vae, vae)",
        "compare(models)",
        "pv.compare({'a': pv.evidence(vae, x, **calm), 'b': pv.evidence(other, x, **calm)})",
    ),
    ("vae.sample(num_samples=5)", "write n=5", "vae.sample(n=5)"),
    ("vae.sample(5, seed=1)", "`torch.manual_seed(1)`", "(torch.manual_seed(1), vae.sample(5))"),
    ("vae.sample(5, random_state=1)", "`torch.manual_seed(1)`", "(torch.manual_seed(1), vae.sample(5))"),
    ("vae.reconstruct(x, seed=1)", "`torch.manual_seed(1)`", "(torch.manual_seed(1), vae.reconstruct(x))"),
    (
        "pv.fit(vae, x, validation=0.1, **quick)",
        "x, held_out = x[: len(x) * 9 // 10], x[len(x) * 9 // 10 :]",
        "pv.fit(vae, x[: len(x) * 9 // 10], validation=x[len(x) * 9 // 10 :], **quick)",
    ),
]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("calls")
    quick: dict[str, Any] = {"epochs": 1, "progress": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(40, 3)
        vae, other = (pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,))) for _ in range(2))
    history = pv.fit(vae, x, run=folder / "run", **quick)
    return {
        **{"pv": pv, "torch": torch, "pyro": pyro, "functools": functools, "x": x, "y": torch.zeros(40).long()},
        **{"frame": pd.DataFrame(x.numpy()), "vae": vae, "other": other, "history": history, "quick": quick},
        **{"calm": {"progress": False}, "folder": folder},
    }


@pytest.mark.parametrize(("wrong", "says", "right"), PYTHON, ids=[row[0] for row in PYTHON])
def test_wrong_call_is_mended_by_what_its_sentence_says(
    wrong: str, says: str, right: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(names["folder"])
    with pytest.raises(pv.InputError) as refusal:
        eval(wrong, dict(names) | {"vae": copy.deepcopy(names["vae"])})
    assert says in str(refusal.value)
    assert len(str(refusal.value)) < 600
    mended = dict(names) | {"vae": copy.deepcopy(names["vae"])}
    assert eval(right, mended) is not None


def test_channels_last_under_a_declared_network_is_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"x.permute\(0, 3, 1, 2\)"):
        pv.VAE((32, 32, 3), 2, encoder=pv.Conv(channels=(4,), hidden=8))
    pv.VAE((3, 4, 4), 2)
    pv.VAE((4, 8, 8), 2)
    pv.VAE((16, 9, 9), 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.uint8, torch.bfloat16])
def test_programs_take_data_of_other_types(dtype: torch.dtype, names: dict[str, Any]) -> None:
    x = torch.ones(2, 3, dtype=dtype)
    assert names["vae"].guide(x).dtype == torch.float32
    names["vae"].model(x)
    double = pv.VAE((3,), 2, encoder=pv.MLP(hidden=(4,))).double()
    assert double.guide(torch.ones(2, 3)).dtype == torch.float64


# The command line

COMMANDS: list[tuple[str, str, str]] = [
    ("fit --data table.csv --lr 0.1", "--optimizer.lr 0.1", "fit --data table.csv --optimizer.lr 0.1"),
    ("fit --data table.csv --learning-rate 0.1", "--optimizer.lr 0.1", "fit --data table.csv --optimizer.lr 0.1"),
    (
        "fit --data table.csv --device cpu",
        "--runtime.accelerator cpu",
        "fit --data table.csv --runtime.accelerator cpu",
    ),
    (
        "fit --data table.csv --device gpu",
        "--runtime.accelerator auto",
        "fit --data table.csv --runtime.accelerator auto",
    ),
    ("fit --data table.csv --runtime.accelerator gpu", "did you mean 'cuda'", "fit --data table.csv --runtime cpu"),
    ("fit --data table.csv --n_epochs 2", "--epochs 2", "fit --data table.csv --epochs 2"),
    ("fit --data table.csv --latent-dim 1", "--latent_dim 1", "fit --data table.csv --latent_dim 1"),
    ("fit --data table.csv --beta 4", "--objective.beta 4", "fit --data table.csv --objective.beta 4"),
    ("fit --data table.csv --verbose", "--progress true", "fit --data table.csv --progress true"),
    ("fit table.csv", "--data table.csv", "fit --data table.csv"),
    ("fit --data semicolon.csv", "sep=';', decimal=','", "fit --data mended.csv"),
    ("fit --data tab.csv", "sep='\\t'", "fit --data mended.csv"),
    ("fit --data decimal.csv", "decimal=','", "fit --data mended.csv"),
    ("check nowhere", "nowhere is not a run folder", "check run --draws 40 --data table.csv --split train"),
    ("sample nowhere", "nowhere is not a run folder", "sample run --n 3"),
    ("reconstruct nowhere", "nowhere is not a run folder", "reconstruct run --data table.csv --split train"),
    (
        "fit --data table.csv --patience 3",
        "--monitor.stopping EarlyStopping --monitor.stopping.patience 10",
        "fit --data table.csv --monitor.stopping EarlyStopping --monitor.stopping.patience 10",
    ),
    (
        "fit --data table.csv --hidden-dims 8",
        "--encoder MLP --encoder.hidden [400]",
        "fit --data table.csv --encoder MLP --encoder.hidden [400]",
    ),
    (
        "fit --data table.csv --lr-scheduler x",
        "--optimizer.lr Cosine",
        "fit --data table.csv --optimizer.lr Cosine",
    ),
    (
        "fit --data table.csv --early_stopping",
        "--monitor.stopping EarlyStopping.",
        "fit --data table.csv --monitor.stopping EarlyStopping",
    ),
    ("fit --data table.csv --gpu", "--runtime.accelerator auto", "fit --data table.csv --runtime.accelerator auto"),
    ("fit --data table.csv --output-dir new", "--run new", "fit --data table.csv"),
    ("fit --data table.csv --encoder [400]", "encoder: MLP.", "fit --data table.csv --encoder MLP"),
    ("fit --data table.csv -e 3", "unrecognized arguments: -e 3. See", "fit --data table.csv --epochs 1"),
    ("train --data table.csv", "did you mean 'fit'", "fit --data table.csv"),
    ("evaluate run --draws 30", "--method.draws 30", "evaluate run --method.draws 30 --data table.csv --split train"),
]


def write(folder: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_csv(folder / "semicolon.csv", index=False, sep=";", decimal=",")
    frame.to_csv(folder / "tab.csv", index=False, sep="\t")
    frame.to_csv(folder / "decimal.csv", index=False, decimal=",")


@pytest.mark.parametrize(("wrong", "says", "right"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_wrong_command_is_mended_by_what_its_sentence_says(
    wrong: str,
    says: str,
    right: str,
    names: dict[str, Any],
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink(names["folder"] / "run", tmp_path / "run")
    write(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(wrong.split())
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    for code in re.findall(r"`(pandas[^`]*)`", said):  # which is executed as it stands, on the file itself
        eval(code.replace("\\t", "\t"), {"pandas": pd, "file": wrong.split()[-1]})
        os.rename(wrong.split()[-1], "mended.csv")
    quick = (
        ["--epochs", "1", "--encoder", "MLP", "--run", "new"]
        if right.startswith("fit") and "epochs" not in right
        else []
    )
    main(
        [
            *right.split(),
            *quick,
            *(["--run", "new"] if "epochs" in right else []),
            *(["--overwrite"] if "run" in right and "fit" not in right else []),
        ]
    )
