"""Training of the reference networks, and their checkpoints.

A run is described by one :class:`TrainConfig` and is a function of it alone: the same configuration gives the same
bytes on the same machine. Quantized networks are trained from scratch with the hyper-parameters of their float32
baseline, as in the PACT paper.
"""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rich.progress
import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from .data import Split, digits
from .layers import PactActivation, SymmetricActivation
from .models import MODELS, Precision

__all__ = [
    "TrainConfig",
    "TrainResult",
    "accuracy",
    "load_checkpoint",
    "parameter_groups",
    "save_checkpoint",
    "train",
]

FORMAT = "pactolus-checkpoint"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a training run depends on.

    Parameters
    ----------
    network : :class:`str`
        A key of :data:`sw.models.MODELS`.
    weight_bits, activation_bits : :class:`int` or ``None``
        Of the middle layers; both ``None`` trains the float32 baseline.
    weights, activations : :class:`str`
        Methods, keys of :data:`sw.models.WEIGHTS` and :data:`sw.models.ACTIVATIONS`; the baseline has none, and they
        are left at their defaults.
    seed : :class:`int`
        Of the initial weights and of the order of the images.
    epochs, batch_size : :class:`int`
    learning_rate, momentum, weight_decay : :class:`float`
        SGD with Nesterov momentum; the rate follows half a cosine from ``learning_rate`` to 0, step by step.
    alpha : :class:`float`
        Initial clip of every activation quantizer.
    alpha_decay : :class:`float`
        λ of the clips: adds λ·α to α's gradient, the gradient of λ·α²/2. With the default they end near 2, as in the
        paper; five-fold cross-validation on the training split saw no difference between 2e-3 and 1e-2.

    Raises
    ------
    ValueError
        A value out of its range; the sentence names it.
    """

    network: str
    weight_bits: int | None = None
    activation_bits: int | None = None
    weights: str = "dorefa"
    activations: str = "pact"
    seed: int = 0
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    alpha: float = 10.0
    alpha_decay: float = 5e-3

    def __post_init__(self) -> None:
        if self.network not in MODELS:
            raise ValueError(f"Network must be one of {', '.join(MODELS)}, not {self.network!r}")
        self.precision()
        for name, lowest in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                what = name.replace("_", " ").capitalize()
                raise ValueError(f"{what} must be an integer of at least {lowest}, not {value!r}")
        for name in ("learning_rate", "momentum", "weight_decay", "alpha_decay"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name.replace('_', ' ').capitalize()} must be at least 0, not {value!r}")
        if not self.alpha > 0:
            raise ValueError(f"Alpha must be positive, not {self.alpha!r}")

    def precision(self) -> Precision:
        """What the network's constructor takes."""
        return Precision(weight_bits=self.weight_bits, activation_bits=self.activation_bits, weights=self.weights,
                         activations=self.activations, clip=self.alpha)

    @property
    def name(self) -> str:
        """``digits-plain-w4a4``, ``digits-residual-fp32``; with the methods unless they are DoReFa and PACT.

        For example ``digits-plain-sawb-pact-w2a2``.
        """
        if self.weight_bits is None:
            return f"{self.network}-fp32"
        methods = f"{self.weights}-{self.activations}-".removeprefix("dorefa-pact-")
        return f"{self.network}-{methods}w{self.weight_bits}a{self.activation_bits}"

    def build(self) -> nn.Module:
        """The network with untrained weights, drawn from PyTorch's global generator."""
        return MODELS[self.network](self.precision())


@dataclass(frozen=True)
class TrainResult:
    """A trained network and how it got there.

    Members
    -------
    config : :class:`TrainConfig`
    model : :class:`torch.nn.Module`
        After the last epoch, in evaluation mode.
    losses : tuple of :class:`float`
        Mean training loss per epoch.
    train_accuracy, test_accuracy : :class:`float`
        Of ``model``, in float32, 0..1.
    """

    config: TrainConfig
    model: nn.Module
    losses: tuple[float, ...]
    train_accuracy: float
    test_accuracy: float


def parameter_groups(model: nn.Module, *, weight_decay: float, alpha_decay: float) -> list[dict]:
    """Optimizer groups: activation clips with ``alpha_decay``, every other parameter with ``weight_decay``."""
    clips = [m.clip for m in model.modules() if isinstance(m, PactActivation | SymmetricActivation)]
    known = {id(p) for p in clips}
    others = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": others, "weight_decay": weight_decay}]
    return [*groups, {"params": clips, "weight_decay": alpha_decay}] if clips else groups


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the split's images that ``model``, in evaluation mode, gives the right label, 0..1."""
    with torch.no_grad():
        return (model(split.images).argmax(1) == split.labels).double().mean().item()


@contextmanager
def _one_thread() -> Iterator[None]:
    """These networks are too small for a second thread to help, and sums over threads would depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train(config: TrainConfig, *, console: Console | None = None) -> TrainResult:
    """Train one network on the digits' training split.

    Parameters
    ----------
    config : :class:`TrainConfig`
    console : :class:`rich.console.Console` or ``None``
        Where progress is shown; ``None`` trains in silence.

    Returns
    -------
    :class:`TrainResult`
        The network after the last epoch: the test split is looked at once, at the end.
    """
    columns = (rich.progress.TextColumn("{task.description:<24}"), rich.progress.BarColumn(),
               rich.progress.MofNCompleteColumn(), rich.progress.TimeRemainingColumn(),
               rich.progress.TextColumn("{task.fields[status]}"))
    progress = rich.progress.Progress(*columns, console=console or Console(quiet=True), disable=console is None)
    split, test = digits()
    losses: list[float] = []
    with _one_thread(), torch.random.fork_rng(devices=[]), progress:
        torch.manual_seed(config.seed)
        model = config.build()
        optimizer = torch.optim.SGD(
            parameter_groups(model, weight_decay=config.weight_decay, alpha_decay=config.alpha_decay),
            lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)
        steps = config.epochs * (len(split.labels) // config.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        task = progress.add_task(f"{config.name} seed {config.seed}", total=config.epochs, status="")
        for _ in range(config.epochs):
            losses.append(_epoch(model, split, optimizer, schedule, config.batch_size))
            progress.update(task, advance=1, status=f"loss {losses[-1]:.4f}")
        model.eval()
        result = TrainResult(config, model, tuple(losses), accuracy(model, split), accuracy(model, test))
        progress.update(task, status=f"loss {losses[-1]:.4f}  test {100 * result.test_accuracy:.2f} %")
    return result


def _epoch(model: nn.Module, split: Split, optimizer: torch.optim.Optimizer,
           schedule: torch.optim.lr_scheduler.LRScheduler, batch_size: int) -> float:
    """One pass over the split in random order, without the images that do not fill a batch; the mean loss."""
    model.train()
    order = torch.randperm(len(split.labels))
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    total = 0.0
    for batch in batches:
        loss = functional.cross_entropy(model(split.images[batch]), split.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / len(batches)


def save_checkpoint(result: TrainResult, path: Path) -> None:
    """Write the network after its last epoch, with its configuration, to one ``.safetensors`` file."""
    header = {"version": VERSION, "config": dataclasses.asdict(result.config)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # One metadata entry: safetensors writes several in an order that changes from run to run.
    save_file({k: v.contiguous() for k, v in result.model.state_dict().items()}, path,
              {FORMAT: json.dumps(header, sort_keys=True)})


def load_checkpoint(path: Path) -> tuple[TrainConfig, nn.Module]:
    """The configuration and the network, in evaluation mode, of a file that :func:`save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is not a checkpoint of this version, or does not match its own configuration.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as error:
        raise ValueError(f"Checkpoint {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"Checkpoint {str(path)!r} must be a safetensors file: {error}") from None
    if header.get("version") != VERSION:
        raise ValueError(f"Checkpoint {str(path)!r} must be a {FORMAT} of version {VERSION}, "
                         f"not of version {header.get('version')!r}")
    try:
        config = TrainConfig(**header["config"])
        with torch.random.fork_rng(devices=[]):
            model = config.build()
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"Checkpoint {str(path)!r} must hold the network that its configuration names: "
                         f"{error}") from None
    return config, model.eval()
