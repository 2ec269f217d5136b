"""NumPyro's part in `peers.py`, on networks of jax's own `stax`: the same layers, with channels last, as XLA likes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.infer import SVI, Trace_ELBO
from processes import Gate
from setting import Setting


def one_by_one(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """One jitted step at a time; batches are gathered within it, and the state's memory is used again."""
    x = _pixels(setting, images)
    gate.begin()
    x, svi = jnp.asarray(x), _svi(setting)
    state = svi.init(jax.random.PRNGKey(0), x[: setting.batch])
    gate.settle = lambda: jax.block_until_ready(state)

    def step(state: Any, x: Any, index: Any) -> Any:
        return svi.update(state, x[index])

    step, rng = jax.jit(step, donate_argnums=0), np.random.default_rng(0)
    while True:
        total = []
        for index in rng.permutation(len(x)).astype(np.int32).reshape(-1, setting.batch):
            state, loss = step(state, x, index)
            total.append(loss)
            gate()


def whole_epochs(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """A whole epoch in one compiled loop, shuffling included."""
    x = _pixels(setting, images)
    gate.begin()
    x, svi = jnp.asarray(x), _svi(setting)
    state, key = svi.init(jax.random.PRNGKey(0), x[: setting.batch]), jax.random.PRNGKey(1)
    gate.settle = lambda: jax.block_until_ready(state)
    steps = len(x) // setting.batch

    def epoch(state: Any, x: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(x)).reshape(steps, setting.batch)

        def step(i: Any, carry: Any) -> Any:
            state, loss = svi.update(carry[0], x[order[i]])
            return state, carry[1] + loss

        return jax.lax.fori_loop(0, steps, step, (state, 0.0))

    epoch = jax.jit(epoch, donate_argnums=0)
    while True:
        key, now = jax.random.split(key)
        state, _ = epoch(state, x, now)
        gate(steps)


def _pixels(setting: Setting, images: np.ndarray) -> np.ndarray:
    x = images.astype(np.float32) / 255
    return x.reshape(len(x), -1) if setting.network == "mlp" else x[..., None]


def _svi(setting: Setting) -> SVI:
    encoder, decoder = _networks(setting)
    rank = 1 if setting.network == "mlp" else 3

    def model(x: Any) -> None:
        emit = numpyro.module("decoder", decoder, (setting.batch, setting.latents))
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([setting.latents]).to_event(1))
            if setting.likelihood == "gaussian":
                noise = numpyro.param("noise", 1.0, constraint=dist.constraints.positive)
                numpyro.sample("x", dist.Normal(emit(z), noise).to_event(rank), obs=x)
            else:
                numpyro.sample("x", dist.Bernoulli(logits=emit(z)).to_event(rank), obs=x)

    def guide(x: Any) -> None:
        encode = numpyro.module("encoder", encoder, x.shape)
        loc, scale = encode(x)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())


def _networks(setting: Setting) -> tuple[Any, Any]:
    act = stax.Relu if setting.activation == "relu" else stax.Softplus
    loc, log_scale = stax.Dense(setting.latents), stax.Dense(setting.latents)
    heads = [stax.FanOut(2), stax.parallel(loc, stax.serial(log_scale, stax.Exp))]
    if setting.network == "mlp":
        return stax.serial(stax.Dense(400), act, *heads), stax.serial(stax.Dense(400), act, stax.Dense(784))

    def convolution(kind: Callable[..., Any], channels: int) -> Any:
        return kind(("NHWC", "HWIO", "NHWC"), channels, (3, 3), strides=(2, 2), padding="SAME")

    down = [convolution(stax.GeneralConv, 32), act, convolution(stax.GeneralConv, 64), act]
    up = [convolution(stax.GeneralConvTranspose, 32), act, convolution(stax.GeneralConvTranspose, 1)]
    images = (lambda rng, shape: ((shape[0], 7, 7, 64), ()), lambda weights, x, **_: x.reshape(-1, 7, 7, 64))
    return (
        stax.serial(*down, stax.Flatten, stax.Dense(128), act, *heads),
        stax.serial(stax.Dense(128), act, stax.Dense(7 * 7 * 64), images, act, *up),
    )
