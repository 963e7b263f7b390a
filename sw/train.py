"""Training of the networks: configurations, the loop, what it resumes from, and checkpoints.

A run is described by one :class:`TrainConfig` and is a function of it alone: the same configuration gives the same
bytes on the same machine, however often the run was killed and taken up again. Quantized networks are trained from
scratch with the hyper-parameters of their float32 baseline, as in the PACT paper.
"""
from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rich.progress
import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn import functional

from golden.files import write_atomically, write_csv

from .data import AUGMENTATIONS, SHAPES, Dataset, Split, augment, load
from .layers import (
    ActivationQuantizer,
    OctavActivation,
    PactActivation,
    QuantizedWeight,
    SymmetricActivation,
    VsQuantActivation,
)
from .models import MODELS, OPTIONS, Precision

__all__ = [
    "Epoch",
    "TrainConfig",
    "TrainResult",
    "accuracy",
    "held_out",
    "laid_out",
    "learning_rates",
    "load_checkpoint",
    "parameter_groups",
    "read_toml",
    "save_checkpoint",
    "threads",
    "train",
    "trained",
    "write_metrics",
]

FORMAT = "pactolus-checkpoint"
STATE_FORMAT = "pactolus-training-state"
VERSION = 3
"""Each version has fields of the configuration that those before it have not; the defaults are what these did."""

LayerBits = tuple[tuple[str, int], ...]

_Unsigned = PactActivation | OctavActivation | VsQuantActivation


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a training run depends on, but for the machine.

    Parameters
    ----------
    network : :class:`str`
        A key of :data:`sw.models.MODELS`.
    data : :class:`str`
        A key of :data:`sw.data.DATASETS`.
    width : :class:`float`
        Width multiplier of the network, positive.
    weight_bits, activation_bits : :class:`int` or ``None``
        Of the middle layers; both ``None`` trains the float32 baseline.
    edge_bits, shortcut_bits : :class:`int` or ``None``
        Of the ends and of the residual stream, see :class:`sw.models.Precision`.
    layer_weight_bits, layer_activation_bits : mapping, or pairs, of :class:`str` and :class:`int`
        Widths of single layers by the module's path, instead of the above; sorted pairs once it is made.
    weights, activations : :class:`str`
        Methods, keys of :data:`sw.models.WEIGHTS` and :data:`sw.models.ACTIVATIONS`; the baseline has none, and they
        are left at their defaults.
    octav_clips, octav_weight_gradient, octav_activation_gradient : :class:`str`
    vsquant_vector, vsquant_scale_bits : :class:`int`
    vsquant_scales : :class:`str`
        Options of these methods, see :class:`sw.models.Precision`.
    seed : :class:`int`
        Of the initial weights, of the order of the images and of their augmentation.
    epochs, batch_size : :class:`int`
    epoch_images : :class:`int` or ``None``
        Images of an epoch, drawn anew for each; ``None``: all of them. Metrics and state are kept per epoch.
    learning_rate, momentum, weight_decay : :class:`float`
        SGD with Nesterov momentum. The rate follows half a cosine from ``learning_rate`` to 0, step by step.
    warmup : :class:`float`
        Share of all steps, less than 1, in which the rate first rises in a straight line.
    alpha : :class:`float`
        Initial clip of every activation quantizer.
    alpha_decay : :class:`float`
        λ of the clips: adds λ·α to α's gradient, the gradient of λ·α²/2. With the default they end near 2 on the
        digits, as in the paper; five-fold cross-validation on the training split saw no difference between 2e-3 and
        1e-2.
    augmentation : :class:`str`
        One of :data:`sw.data.AUGMENTATIONS`.
    validation : :class:`int`
        Images of the training split that are held out, the same for every seed, and counted after each epoch. The test
        split is looked at once, at the end.
    threads : :class:`int`
        Of PyTorch. Sums over threads depend on their number, and so does the result.

    Raises
    ------
    ValueError
        A value out of its range; the sentence names it.
    """

    network: str
    data: str = "digits"
    width: float = 1.0
    weight_bits: int | None = None
    activation_bits: int | None = None
    edge_bits: int | None = 8
    shortcut_bits: int | None = None
    layer_weight_bits: LayerBits = ()
    layer_activation_bits: LayerBits = ()
    weights: str = "dorefa"
    activations: str = "pact"
    octav_clips: str = "dynamic"
    octav_weight_gradient: str = "mad"
    octav_activation_gradient: str = "pwl"
    vsquant_vector: int = 16
    vsquant_scale_bits: int = 0
    vsquant_scales: str = "static"
    seed: int = 0
    epochs: int = 60
    batch_size: int = 64
    epoch_images: int | None = None
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.0
    alpha: float = 10.0
    alpha_decay: float = 5e-3
    augmentation: str = "none"
    validation: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name, known in (("network", MODELS), ("data", SHAPES), ("augmentation", AUGMENTATIONS)):
            if getattr(self, name) not in tuple(known):
                raise ValueError(f"{name.capitalize()} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name, lowest in (("epochs", 1), ("batch_size", 2), ("epoch_images", 1), ("seed", 0), ("validation", 0),
                             ("threads", 1)):
            value = getattr(self, name)
            if value is None and name == "epoch_images":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ValueError(f"{_words(name)} must be an integer of at least {lowest}, not {value!r}")
        for name in ("learning_rate", "momentum", "weight_decay", "alpha_decay"):
            if not 0 <= _number(self, name) < math.inf:
                raise ValueError(f"{_words(name)} must be at least 0, not {getattr(self, name)!r}")
        for name in ("alpha", "width"):
            if not 0 < _number(self, name) < math.inf:
                raise ValueError(f"{_words(name)} must be positive, not {getattr(self, name)!r}")
        if not 0 <= _number(self, "warmup") < 1:
            raise ValueError(f"Warmup must be at least 0 and less than 1, not {self.warmup!r}")
        self.precision()
        for name in ("layer_weight_bits", "layer_activation_bits"):
            given = getattr(self, name)
            try:
                pairs = dict(given)
            except (TypeError, ValueError):
                raise ValueError(f"{_words(name)} must be bits by layer, not {given!r}") from None
            object.__setattr__(self, name, tuple(sorted((str(layer), bits) for layer, bits in pairs.items())))
        if self.layer_weight_bits or self.layer_activation_bits:
            if self.weight_bits is None:
                raise ValueError("Weight bits must be given where those of single layers are, not None")
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                self.build()

    def precision(self) -> Precision:
        """What the network's constructor takes."""
        return Precision(weight_bits=self.weight_bits, activation_bits=self.activation_bits, edge_bits=self.edge_bits,
                         shortcut_bits=self.shortcut_bits, weights=self.weights, activations=self.activations,
                         clip=self.alpha, **{name: getattr(self, name) for name in OPTIONS})

    @property
    def has_integers(self) -> bool:
        """Whether the network can be exported: it is quantized, and its ends are too."""
        return self.weight_bits is not None and self.edge_bits is not None

    @property
    def name(self) -> str:
        """``digits-plain-w4a4``, ``cnn-fashion-mnist-fp32``: what is not the default is in it, but for the training.

        For example ``digits-plain-sawb-pact-w2a2`` or ``cnn-fashion-mnist-x1.5-w2a4-e4``. Widths of single layers are
        there as a digest.
        """
        parts = [self.network, "" if self.network.startswith(self.data) else self.data,
                 "" if self.width == 1 else f"x{self.width:g}"]
        if self.weight_bits is None:
            parts.append("fp32")
        else:
            methods = f"{self.weights}-{self.activations}"
            gradients = f"{self.octav_weight_gradient}-{self.octav_activation_gradient}"
            parts += ["" if methods == "dorefa-pact" else methods, "" if gradients == "mad-pwl" else gradients,
                      "" if self.octav_clips == "dynamic" else self.octav_clips,
                      "" if self.vsquant_vector == 16 else f"v{self.vsquant_vector}",
                      "" if self.vsquant_scale_bits == 0 else f"m{self.vsquant_scale_bits}",
                      "" if self.vsquant_scales == "static" else self.vsquant_scales,
                      f"w{self.weight_bits}a{self.activation_bits}",
                      {8: "", None: "efp32"}.get(self.edge_bits, f"e{self.edge_bits}"),
                      "" if self.shortcut_bits is None else f"s{self.shortcut_bits}"]
            if self.layer_weight_bits or self.layer_activation_bits:
                text = repr((self.layer_weight_bits, self.layer_activation_bits))
                parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
        return "-".join(filter(None, parts))

    def build(self) -> nn.Module:
        """The network with untrained weights, drawn from PyTorch's global generator.

        Raises
        ------
        ValueError
            A single layer's width for what is no such layer.
        """
        precision, (shape, classes) = self.precision(), SHAPES[self.data]
        model = MODELS[self.network](precision, shape=shape, classes=classes, width=self.width)
        modules = dict(model.named_modules())
        for what, kind, widths in (("weight", QuantizedWeight, self.layer_weight_bits),
                                   ("activation", _Unsigned, self.layer_activation_bits)):
            known = [name for name, module in modules.items()
                     if isinstance(module, kind) and not getattr(module, "signed", False)]
            for name, bits in widths:
                if name not in known:
                    raise ValueError(f"Layer of {what} bits must be one of {', '.join(known)}, not {name!r}")
                if what == "weight":
                    module = modules[name]
                    assert isinstance(module, QuantizedWeight)
                    module.quantizer = precision.weight_quantizer(bits)
                else:
                    model.set_submodule(name, precision.activation(bits))
        return model


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _number(config: TrainConfig, name: str) -> float:
    """The field, or not a number for what is none: every comparison then refuses it."""
    value = getattr(config, name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def read_toml(path: Path) -> dict:
    """Fields of :class:`TrainConfig` from a TOML file.

    Raises
    ------
    ValueError
        If the file cannot be read, or has a key that is no field, which the sentence names.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"Configuration {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Configuration {str(path)!r} must be a TOML file: {error}") from None
    known = [field.name for field in dataclasses.fields(TrainConfig)]
    for key in values:
        if key not in known:
            raise ValueError(f"Key in {str(path)!r} must be one of {', '.join(known)}, not {key!r}")
    return values


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training images gave.

    Members
    -------
    epoch : :class:`int`
        From 1 on.
    learning_rate : :class:`float`
        Of the last step.
    loss : :class:`float`
        Mean over the epoch's batches.
    train_accuracy : :class:`float`
        Of the outputs that the losses were taken of, while the network changed, 0..1.
    validation_accuracy : :class:`float` or ``None``
        After the epoch, on the images held out, 0..1.
    clips : pairs of :class:`str` and :class:`float`
        Clip of every activation quantizer that has one (α of PACT) by the module's path, after the epoch.
    """

    epoch: int
    learning_rate: float
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    clips: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class TrainResult:
    """A trained network and how it got there.

    Members
    -------
    config : :class:`TrainConfig`
    model : :class:`torch.nn.Module`
        After the last epoch, in evaluation mode.
    epochs : tuple of :class:`Epoch`
    train_accuracy, test_accuracy : :class:`float`
        Of ``model``, in float32, 0..1; the first without the images held out.
    """

    config: TrainConfig
    model: nn.Module
    epochs: tuple[Epoch, ...]
    train_accuracy: float
    test_accuracy: float

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean training loss per epoch."""
        return tuple(epoch.loss for epoch in self.epochs)


def parameter_groups(model: nn.Module, *, weight_decay: float, alpha_decay: float) -> list[dict]:
    """Optimizer groups: activation clips with ``alpha_decay``, every other parameter with ``weight_decay``."""
    clips = [m.clip for m in model.modules() if isinstance(m, PactActivation | SymmetricActivation)]
    known = {id(p) for p in clips}
    others = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": others, "weight_decay": weight_decay}]
    return [*groups, {"params": clips, "weight_decay": alpha_decay}] if clips else groups


def learning_rates(config: TrainConfig, steps: int) -> list[float]:
    """The rate of each step: a straight rise over the warm-up, then half a cosine to 0.

    Without a warm-up the very numbers of ``torch.optim.lr_scheduler.CosineAnnealingLR``, whose recursion this is.
    """
    warm = int(steps * config.warmup)
    rates = [config.learning_rate * (step + 1) / (warm + 1) for step in range(warm)]
    rate, length = config.learning_rate, steps - warm
    for step in range(length):
        if step:
            rate *= (1 + math.cos(math.pi * step / length)) / (1 + math.cos(math.pi * (step - 1) / length))
        rates.append(rate)
    return rates


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the split's images that ``model``, in evaluation mode, gives the right label, 0..1."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(split), 1000):
            part = split.part(slice(start, start + 1000))
            right += int((model(part.images).argmax(1) == part.labels).sum())
    return right / len(split)


def held_out(split: Split, count: int) -> tuple[Split, Split]:
    """The split without ``count`` of its images, and those: always the same.

    Raises
    ------
    ValueError
        If nothing would remain to train with.
    """
    if count == 0:
        return split, split.part(slice(0))
    if count >= len(split):
        raise ValueError(f"Validation must be less than the {len(split)} images of the training split, not {count}")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.part(order[count:].sort().values), split.part(order[:count].sort().values)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many of PyTorch's threads for as long as the context lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def laid_out(model: nn.Module, memory: torch.memory_format) -> nn.Module:
    """The model itself, its weights in a memory format."""
    return model.to(memory_format=memory)  # type: ignore[call-overload]  # torch's stubs lack it


class _Run:
    """A training run between two epochs: all that the next one depends on, in memory and on disk."""

    def __init__(self, config: TrainConfig, steps: int):
        torch.manual_seed(config.seed)
        self.config = config
        self.epochs: list[Epoch] = []
        # Twice as fast for maps of this size; on the digits' 8×8 it would be slower.
        self.memory = torch.contiguous_format if config.data == "digits" else torch.channels_last
        self.model = laid_out(config.build(), self.memory)
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.model, weight_decay=config.weight_decay, alpha_decay=config.alpha_decay),
            lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0)
        self.rates = learning_rates(config, steps * config.epochs)
        self.steps = steps

    def epoch(self, split: Split, validation: Split, progress: Callable[[], None]) -> None:
        """One pass over the split in random order, without the images that do not fill a batch."""
        self.model.train()
        size = self.config.batch_size
        order = torch.randperm(len(split))
        loss_sum, right = 0.0, 0
        first = len(self.epochs) * self.steps
        for step, batch in enumerate(order[: self.steps * size].reshape(-1, size), first):
            part = split.part(batch)
            # Not contiguous(): it takes images of one channel for channels_last already and leaves their strides.
            images = augment(part.images, self.config.augmentation).to(memory_format=self.memory)
            outputs = self.model(images)
            loss = functional.cross_entropy(outputs, part.labels)
            self.optimizer.zero_grad()
            loss.backward()
            for group in self.optimizer.param_groups:
                group["lr"] = self.rates[step]
            self.optimizer.step()
            loss_sum += loss.item()
            right += int((outputs.detach().argmax(1) == part.labels).sum())
            progress()
        self.model.eval()
        quantizers = ((name, getattr(module, "clip", None)) for name, module in self.model.named_modules()
                      if isinstance(module, ActivationQuantizer))
        clips = tuple((name, clip.item()) for name, clip in quantizers
                      if isinstance(clip, torch.Tensor) and clip.dim() == 0)
        self.epochs.append(Epoch(
            epoch=len(self.epochs) + 1, learning_rate=self.rates[first + self.steps - 1], loss=loss_sum / self.steps,
            train_accuracy=right / (self.steps * size),
            validation_accuracy=accuracy(self.model, validation) if len(validation) else None,
            clips=clips))

    def _momenta(self) -> Iterator[tuple[str, torch.Tensor]]:
        for i, parameter in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
            yield f"momentum.{i}", parameter

    def save(self, path: Path) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors["generator"] = torch.random.get_rng_state()
        for name, parameter in self._momenta():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[name] = buffer
        header = {"config": dataclasses.asdict(self.config), "epochs": [dataclasses.asdict(e) for e in self.epochs]}
        write_atomically(path, _packed(tensors, STATE_FORMAT, header))

    def resume(self, path: Path) -> None:
        header, tensors = _unpacked(path, "Training state", STATE_FORMAT)
        try:
            config = TrainConfig(**header["config"])
            if config != self.config:
                raise ValueError("it is of another configuration; remove it, or choose another folder")
            self.model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items()
                                        if name.startswith("model.")})
            for name, parameter in self._momenta():
                if name in tensors:
                    # Laid out as the parameter: a contiguous one beside it would be slow.
                    self.optimizer.state[parameter]["momentum_buffer"] = (
                        torch.empty_like(parameter.detach()).copy_(tensors[name]))
            torch.random.set_rng_state(tensors["generator"])
            self.epochs = [Epoch(**{**row, "clips": tuple((name, clip) for name, clip in row["clips"])})
                           for row in header["epochs"]]
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"Training state {str(path)!r} must be of the run that is to go on: {error}") from None


def train(config: TrainConfig, *, console: Console | None = None, directory: Path | None = None,
          dataset: Dataset | None = None, state: Path | None = None,
          report: Callable[[int], None] | None = None) -> TrainResult:
    """Train one network on the training split.

    Parameters
    ----------
    config : :class:`TrainConfig`
    console : :class:`rich.console.Console` or ``None``
        Where progress is shown; ``None`` trains in silence.
    directory : path or ``None``
        Of the data's files, see :func:`sw.data.load`.
    dataset : :class:`sw.data.Dataset` or ``None``
        The data, where they have been loaded already.
    state : path or ``None``
        A file that is replaced after every epoch, in one piece. If it is there the run goes on from it, and ends with
        the same bytes as one that was never stopped. It stays after the last epoch.
    report : callable or ``None``
        Is called with the number of epochs that are done, after each.

    Returns
    -------
    :class:`TrainResult`
        The network after the last epoch: the test split is looked at once, at the end.

    Raises
    ------
    ValueError
        Data that are not there, a batch larger than the split, or a state of another configuration.
    """
    columns = (rich.progress.TextColumn("{task.description:<24}"), rich.progress.BarColumn(),
               rich.progress.TaskProgressColumn(), rich.progress.TimeRemainingColumn(),
               rich.progress.TextColumn("{task.fields[status]}"))
    progress = rich.progress.Progress(*columns, console=console or Console(quiet=True), disable=console is None)
    dataset = dataset or load(config.data, directory)
    split, validation = held_out(dataset.train, config.validation)
    images = min(len(split), config.epoch_images or len(split))
    steps = images // config.batch_size
    if steps == 0:
        raise ValueError(f"Batch size must be at most {images}, the images of an epoch, not {config.batch_size}")
    with threads(config.threads), torch.random.fork_rng(devices=[]), progress:
        run = _Run(config, steps)
        if state and state.exists():
            run.resume(state)
        task = progress.add_task(f"{config.name} seed {config.seed}", total=config.epochs * steps, status="",
                                 completed=len(run.epochs) * steps)
        while len(run.epochs) < config.epochs:
            run.epoch(split, validation, functools.partial(progress.advance, task))
            if state:
                run.save(state)
            last = run.epochs[-1]
            if report:
                report(last.epoch)
            progress.update(task, status=f"epoch {last.epoch} of {config.epochs}  loss {last.loss:.4f}")
        # As a checkpoint brings it back: the order of sums, and so the last bits, depend on the memory format.
        model = laid_out(run.model.eval(), torch.contiguous_format)
        result = TrainResult(config, model, tuple(run.epochs), accuracy(model, split), accuracy(model, dataset.test))
        progress.update(task, status=f"loss {run.epochs[-1].loss:.4f}  test {100 * result.test_accuracy:.2f} %")
    return result


def trained(config: TrainConfig, folder: Path, *, console: Console | None = None, directory: Path | None = None,
            dataset: Dataset | None = None, report: Callable[[int], None] | None = None) -> nn.Module:
    """The network of ``config`` from its checkpoint in ``folder``, trained first where there is none.

    The folder gets ``NAME-seedN.safetensors``, and ``.csv`` with the metrics of every epoch. A run that was killed is
    taken up from ``NAME-seedN.state``, which is removed at the end; a checkpoint of another configuration is replaced.

    Parameters
    ----------
    config, console, directory, dataset, report
        As for :func:`train`.
    folder : path

    Raises
    ------
    ValueError
        As :func:`train`; also if the folder holds a state of another configuration.
    """
    stem = f"{config.name}-seed{config.seed}"
    path, state = folder / f"{stem}.safetensors", folder / f"{stem}.state"
    if path.exists():
        found, model = load_checkpoint(path)
        if found == config:
            state.unlink(missing_ok=True)
            return model
    result = train(config, console=console, directory=directory, dataset=dataset, state=state, report=report)
    write_metrics(result, folder / f"{stem}.csv")
    save_checkpoint(result, path)
    state.unlink(missing_ok=True)
    return result.model


def write_metrics(result: TrainResult, path: Path) -> None:
    """Write one line per epoch, with every clip in a column ``clip:MODULE``; the accuracies in percent."""
    def line(row: Epoch) -> list[object]:
        validation = "" if row.validation_accuracy is None else f"{100 * row.validation_accuracy:.4f}"
        return [row.epoch, f"{row.learning_rate:.6g}", f"{row.loss:.6f}", f"{100 * row.train_accuracy:.4f}", validation,
                *(f"{clip:.6g}" for _, clip in row.clips)]

    names = ["epoch", "learning_rate", "loss", "train_percent", "validation_percent",
             *(f"clip:{name}" for name, _ in result.epochs[0].clips)]
    write_csv(path, names, map(line, result.epochs))


def _packed(tensors: Mapping[str, torch.Tensor], kind: str, header: dict) -> bytes:
    # One metadata entry: safetensors writes several in an order that changes from run to run.
    return save({name: value.contiguous() for name, value in tensors.items()},
                {kind: json.dumps({"version": VERSION, **header}, sort_keys=True)})


def _unpacked(path: Path, what: str, kind: str) -> tuple[dict, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(kind, "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as error:
        raise ValueError(f"{what} {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{what} {str(path)!r} must be a safetensors file: {error}") from None
    if header.get("version") not in range(1, VERSION + 1):
        raise ValueError(f"{what} {str(path)!r} must be a {kind} of version 1 to {VERSION}, "
                         f"not of version {header.get('version')!r}")
    return header, tensors


def save_checkpoint(result: TrainResult, path: Path) -> None:
    """Write the network after its last epoch, with its configuration, to one ``.safetensors`` file, in one piece."""
    write_atomically(path, _packed(result.model.state_dict(), FORMAT, {"config": dataclasses.asdict(result.config)}))


def load_checkpoint(path: Path) -> tuple[TrainConfig, nn.Module]:
    """The configuration and the network, in evaluation mode, of a file that :func:`save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is not a checkpoint of a known version, or does not match its own configuration.
    """
    header, state = _unpacked(path, "Checkpoint", FORMAT)
    try:
        config = TrainConfig(**header["config"])
        with torch.random.fork_rng(devices=[]):
            model = config.build()
        model.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"Checkpoint {str(path)!r} must hold the network that its configuration names: "
                         f"{error}") from None
    return config, model.eval()
