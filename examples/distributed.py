"""From a laptop to many nodes: one script, one declaration, one run folder.

    python examples/distributed.py                                   # one process, on a GPU where there is one
    python examples/distributed.py --devices 2                       # two processes on this machine, started by fit
    torchrun --nproc-per-node 4 examples/distributed.py              # started by torchrun, which tells how many
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 examples/distributed.py
                                                                     # on each of two nodes, HOST being one of them

Under SLURM `srun python examples/distributed.py --devices 8 --nodes 2` does the same. The command line takes the same
words: `pyro-vae fit --runtime.devices 2 ...`.

What stays the same, however many processes there are: `batch_size` counts the rows of all of them together, so learning
rate, schedules and epochs mean what they meant; validation and history are those of one process; the first one writes
the run. What is drawn differs, for each process has random numbers of its own. A killed process ends all of them, and
the same line goes on from the last checkpoint, on as many processes as there then are.
"""

import argparse
import os

import torch

import pyro_vae as pv
from pyro_vae.training.distributed import is_first_process

QUICK = bool(os.environ.get("PYRO_VAE_QUICK"))


def main() -> None:
    """Train, and say what it took; every process runs this from its beginning."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=2 if QUICK else 1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu" if QUICK else "auto")
    parser.add_argument("--folder", default="runs/distributed")
    options = parser.parse_args()
    if options.devices > 1 and options.accelerator == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.devices))  # or they stand in each other's way

    digits = pv.data.load("digits", seed=0)  # each process reads the data; see pv.data.stream for what is larger
    vae = pv.VAE(digits.event_shape, latent_dim=8, encoder=pv.MLP(hidden=(64,)))
    history = pv.fit(
        vae,
        digits.train,
        validation=digits.validation,
        optimizer=pv.Adam(pv.schedules.Cosine(3e-3, 0, epochs=60, warmup=2), ema=0.99, clip_norm=100),
        epochs=2 if QUICK else 60,
        batch_size=256,
        run=pv.RunOptions(options.folder, resume=True, checkpoints=pv.Checkpoints(every_minutes=5)),
        runtime=pv.Runtime(options.accelerator, devices=options.devices, num_nodes=options.nodes),
    )
    if is_first_process():  # the others go on with the script too: let one of them speak
        seconds = sorted(history["seconds"])[len(history) // 2]
        print(f"{len(digits.train) / seconds:,.0f} rows a second; held-out loss {history.last['validation_loss']:.2f}")
        print(f"The run, with its picture of the training: {options.folder}")


if __name__ == "__main__":
    main()
