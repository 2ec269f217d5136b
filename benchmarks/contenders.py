"""Who takes part in `peers.py`: each trains the same VAE for as many epochs as its `Gate` lets through.

Every contender imports what it needs, says `gate.begin()`, sets everything up and calls `gate()` after every step;
where the loop is a library's own, a hook of torch's optimizers does. Rows are a multiple of the batch size.
"""

import importlib
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from processes import Gate
from setting import Setting

EPOCHS = 10_000  # more than anybody waits for


Train = Callable[[Setting, np.ndarray, Gate], None]


class Unavailable(Exception):
    """A contender that cannot take part here."""


def ours(setting: Setting, images: np.ndarray, gate: Gate, **options: Any) -> None:
    """`pv.fit`, with whatever else it is told."""
    importlib.import_module("lightning.fabric")  # `fit` imports it late; what is imported does not count for anybody

    import pyro_vae as pv
    from pyro_vae.training.step import TrainStep

    x, after = _tensor(images), TrainStep.finish_step

    def then(*arguments: Any) -> None:
        after(*arguments)
        gate()

    TrainStep.finish_step = then  # for a compiled step runs no hook of torch's optimizers
    gate.begin()
    encoder = pv.MLP(hidden=(400,), activation=setting.activation) if setting.network == "mlp" else pv.Conv()
    likelihood = pv.Normal(scale="learned") if setting.likelihood == "gaussian" else pv.Bernoulli(grey=True)
    vae = pv.VAE((1, 28, 28), setting.latents, likelihood=likelihood, encoder=encoder)
    runtime = pv.Runtime(accelerator=setting.device)
    pv.fit(vae, x, epochs=EPOCHS, batch_size=setting.batch, runtime=runtime, progress=False, **options)


def ours_compiled(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """`pv.fit(..., compile=True)`; where that falls back to eager steps, it fails."""
    warnings.filterwarnings("error", message="training runs uncompiled")
    ours(setting, images, gate, compile=True)


def by_hand(setting: Setting, images: np.ndarray, gate: Gate, compiled: bool = False) -> None:
    """A loop over data in memory, with a fused Adam; nothing waits for the device within an epoch."""
    import torch
    from by_hand import HandWritten

    x = _tensor(images)
    gate.begin()
    x, model = x.to(setting.device), HandWritten(setting).to(setting.device)
    loss_of = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(EPOCHS):
        total = torch.zeros((), device=x.device)
        for index in torch.randperm(len(x), device=x.device).split(setting.batch):
            optimizer.zero_grad()
            loss = loss_of(x.index_select(0, index))
            loss.backward()
            optimizer.step()
            total += loss.detach()
            gate()


def by_hand_compiled(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """The same with its loss through `torch.compile`, forward and backward."""
    by_hand(setting, images, gate, compiled=True)


def by_hand_cuda_graph(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """The whole step, optimizer included, captured once and replayed."""
    import torch
    from by_hand import HandWritten

    if not torch.cuda.is_available():
        raise Unavailable("no GPU here")
    x, rows = _tensor(images).cuda(), setting.batch
    gate.begin()
    model = HandWritten(setting).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)
    index, total = torch.arange(rows, device="cuda"), torch.zeros((), device="cuda")

    def step() -> None:
        optimizer.zero_grad()
        loss = model(x.index_select(0, index))
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # what is allocated lazily has to be there before the capture
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), device="cuda").split(rows):
            index.copy_(batch)
            graph.replay()
            gate()


def svi(setting: Setting, images: np.ndarray, gate: Gate, pictures: bool = False) -> None:
    """Pyro's `SVI` with `Trace_ELBO` and its own Adam, over a shuffling `DataLoader`, on programs as users write them.

    Args:
        setting: what is trained.
        images: the data.
        gate: its turns.
        pictures: whether the loader makes each tensor from a PIL picture, as torchvision's `MNIST` with `ToTensor`
            does, and not from a tensor in memory.
    """
    import pyro
    import pyro.distributions as dist
    import torch
    from by_hand import HandWritten
    from PIL import Image
    from torch.utils.data import DataLoader, TensorDataset
    from torchvision.transforms.functional import to_tensor

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, row: int) -> tuple[Any, int]:
            return to_tensor(Image.fromarray(images[row])), 0

    x = _tensor(images)
    gate.begin()
    module = HandWritten(setting).to(setting.device)

    def model(x: Any) -> None:
        pyro.module("decoder", module.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], setting.latents)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            emitted = module.decoder(z)
            if setting.likelihood == "gaussian":
                noise = pyro.param("noise", torch.ones((), device=x.device), constraint=dist.constraints.positive)
                pyro.sample("x", dist.Normal(emitted, noise).to_event(3), obs=x)
            else:  # the example emits probabilities
                pyro.sample("x", dist.Bernoulli(torch.sigmoid(emitted), validate_args=False).to_event(3), obs=x)

    def guide(x: Any) -> None:
        pyro.module("encoder", module.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_scale = module.encoder(x)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    data = Pictures() if pictures else TensorDataset(x, torch.zeros(len(x)))
    loader = DataLoader(data, batch_size=setting.batch, shuffle=True)
    inference = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
    for _ in range(EPOCHS):
        total = 0.0
        for batch, _ in loader:
            total += inference.step(batch.to(setting.device))
            gate()


def svi_of_pictures(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """The same over a loader of pictures, as Pyro's tutorial has it."""
    svi(setting, images, gate, pictures=True)


def pythae(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """pythae's `BaseTrainer`, its progress bar included."""
    from by_hand import HandWritten
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    x = _tensor(images)
    gate.begin()
    module = HandWritten(setting)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module.encoder

        def forward(self, x: Any) -> ModelOutput:
            loc, log_scale = self.inner(x)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module.decoder

        def forward(self, z: Any) -> ModelOutput:
            return ModelOutput(reconstruction=self.inner(z))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=setting.latents, reconstruction_loss="mse")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    _after_every_step(gate)
    with tempfile.TemporaryDirectory() as folder:
        plan = BaseTrainerConfig(
            output_dir=folder, num_epochs=EPOCHS, learning_rate=1e-3, per_device_train_batch_size=setting.batch,
            per_device_eval_batch_size=setting.batch, no_cuda=setting.device == "cpu",
        )  # fmt: skip
        BaseTrainer(model, BaseDataset(x, x.new_zeros(len(x))), training_config=plan).train()


def scvi_tools(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """`SCVI` on a table of pixels, its logger and progress bar off."""
    import anndata
    import scvi

    table = images.reshape(len(images), -1).astype(np.float32) / 255
    gate.begin()
    cells = anndata.AnnData(table)
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(
        cells, n_hidden=400, n_latent=setting.latents, n_layers=1, dropout_rate=0.0, gene_likelihood="normal",
        log_variational=False, use_batch_norm="none",
    )  # fmt: skip
    _after_every_step(gate)
    model.train(
        max_epochs=EPOCHS, batch_size=setting.batch, train_size=1.0, accelerator=setting.device, logger=False,
        enable_progress_bar=False, enable_checkpointing=False,
    )  # fmt: skip


def products_alone(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """The floor: no data, no noise, no density, no optimizer."""
    from by_hand import products

    gate.begin()
    step = products(setting)
    while True:
        step()
        gate()


@dataclass(frozen=True)
class Peer:
    """A contender.

    Args:
        train: what it does.
        networks: which networks it can have.
        instead: what it computes other than the rest.
    """

    train: Train
    networks: tuple[str, ...] = ("mlp", "conv")
    instead: str = ""


def numpyro_steps(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """NumPyro, one jitted step at a time."""
    from contenders_jax import one_by_one

    one_by_one(setting, images, gate)


def numpyro_epochs(setting: Setting, images: np.ndarray, gate: Gate) -> None:
    """NumPyro, a whole epoch in one `fori_loop`."""
    from contenders_jax import whole_epochs

    whole_epochs(setting, images, gate)


OURS, OURS_COMPILED = "pv.fit", "pv.fit, compiled"
HAND, HAND_COMPILED, HAND_GRAPH = "by hand", "by hand, compiled", "by hand, CUDA graph"
STEPS, EPOCH = "NumPyro, a jitted step at a time", "NumPyro, an epoch in fori_loop"
SVI, PICTURES = "Pyro SVI, DataLoader of a tensor", "Pyro SVI, DataLoader of pictures"
PYTHAE, SCVI, PRODUCTS = "pythae", "scvi-tools", "matrix products alone"

PEERS: dict[str, Peer] = {
    OURS: Peer(ours),
    OURS_COMPILED: Peer(ours_compiled),
    HAND: Peer(by_hand, instead="KL in closed form"),
    HAND_COMPILED: Peer(by_hand_compiled, instead="KL in closed form"),
    HAND_GRAPH: Peer(by_hand_cuda_graph, instead="KL in closed form"),
    STEPS: Peer(numpyro_steps),
    EPOCH: Peer(numpyro_epochs, instead="its first step, which is told for two, is a whole epoch"),
    SVI: Peer(svi),
    PICTURES: Peer(svi_of_pictures),
    PYTHAE: Peer(pythae, instead="squared error, that is a Gaussian with the fixed scale 1; KL in closed form"),
    SCVI: Peer(
        scvi_tools,
        networks=("mlp",),
        instead="means are a softmax times the row's sum, with a scale per pixel; a second head to the pixels (dropout "
        "of counts) is computed and not used; KL in closed form",
    ),
    PRODUCTS: Peer(products_alone, instead="no data, noise, densities or optimizer"),
}


def _tensor(images: np.ndarray) -> Any:
    """Images (N, 1, 28, 28) in [0, 1]."""
    import torch
    import torch._dynamo  # torch's optimizers import it late, which takes seconds

    return torch.from_numpy(images).unsqueeze(1).float().div_(255)


def _after_every_step(gate: Gate) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *_: gate())
