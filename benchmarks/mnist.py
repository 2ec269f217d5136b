"""MNIST with the Pyro tutorial's network and schedule, through the public API.

Run: python benchmarks/mnist.py --root ../shared/data [--setting dynamic|grey|gaussian|conv] [--seeds 0 1 2] [--run RUN]

z = 50, one hidden layer of 400 softplus units each way, batch 256, Adam 1e-3, 60,000 training rows; the test -ELBO per
image after each epoch, one draw per row, on the 10,000 test rows. `conv` is the setting to look at: 10 latents and
convolutions, under which the draws of a Gaussian likelihood are digits.
"""

import argparse
import statistics
import time

import torch

import pyro_vae as pv

SETTINGS = {
    "dynamic": {"binarize": "dynamic", "likelihood": pv.Bernoulli()},
    "static": {"binarize": "static", "likelihood": pv.Bernoulli()},
    "grey": {"binarize": None, "likelihood": pv.Bernoulli(grey=True)},
    "gaussian": {"binarize": None, "likelihood": pv.Normal(scale="learned")},
    "conv": {
        "binarize": None,
        "likelihood": pv.Normal(scale="learned"),
        "latent_dim": 10,
        "encoder": pv.Conv(channels=(32, 64), hidden=256),
    },
}
TUTORIAL = {"latent_dim": 50, "encoder": pv.MLP(hidden=(400,), activation="softplus")}


def main() -> None:
    """Fit once per seed and print the test curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=None)
    parser.add_argument("--setting", choices=SETTINGS, default="dynamic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--run", default=None)
    options = parser.parse_args()
    setting = TUTORIAL | SETTINGS[options.setting]
    mnist = pv.data.load("mnist", root=options.root, binarize=setting["binarize"], validation=0)
    final = []
    for seed in options.seeds:
        torch.manual_seed(seed)
        vae = pv.VAE(
            mnist.event_shape,
            latent_dim=setting["latent_dim"],
            likelihood=setting["likelihood"],
            encoder=setting["encoder"],
        )
        start = time.perf_counter()
        history = pv.fit(
            vae,
            mnist.train,
            validation=mnist.test,
            objective=pv.objectives.ELBO(),
            epochs=options.epochs,
            batch_size=256,
            seed=seed,
            run=options.run and f"{options.run}-{seed}",
            progress=True,
        )
        curve = " ".join(f"{value:.2f}" for value in history["validation_loss"])
        print(f"{options.setting}, seed {seed}: test -ELBO by epoch {curve} ({time.perf_counter() - start:.0f} s)")
        final.append(history.last["validation_loss"])
    if vae.caveat:
        print(f"Note: {vae.caveat}.")
    print(f"{options.setting}: epoch {options.epochs}, mean of {len(final)} seeds: {statistics.mean(final):.2f} nats")


if __name__ == "__main__":
    main()
