"""PACT's own figures on a small network: α over training, loss against α, λ of α, and the ends quantized or not.

Figures 2, 3, 8 and 9 of Choi et al., arXiv 1805.06085, on Fashion-MNIST and the small CNN.
"""
from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch.nn import functional

from golden.files import write_csv

from ..data import Split, load
from ..layers import PactActivation
from ..train import TrainConfig, load_checkpoint
from .plot import COLOURS, FAINT, figure
from .runs import Run, measure_all, percent

__all__ = ["BITS", "DECAYS", "ENDS", "Clip", "Loss", "clips", "configurations", "draw", "figures", "losses", "study",
           "write"]

BUDGET: Mapping[str, object] = {"epochs": 15, "epoch_images": 12_800, "batch_size": 128, "learning_rate": 0.1,
                                "warmup": 0.1}
"""3.2 passes over the training images, with fifteen points of the curves."""

BITS = (2, 4)
DECAYS = (0.0, 1e-4, 1e-3, 5e-3, 2e-2, 1e-1)
"""λ of α; the others are trained with 5e-3."""

ENDS = (None, 8, 4, 2)
"""Bits of the first and the last layer; ``None``: in float32."""

SHARES = tuple(2 ** (i / 4) for i in range(-8, 9))
"""α in the loss's sweep, of what was trained."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """α of one layer after one epoch."""

    bits: int
    layer: str
    epoch: int
    alpha: float


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss on training images, in evaluation mode, with one layer's α changed and all else as trained."""

    bits: int
    layer: str
    alpha: float
    trained_alpha: float
    loss: float


def configurations(network: str = "cnn", *, data: str = "fashion-mnist", seed: int = 0,
                   changes: Mapping[str, object] | None = None) -> dict[tuple[str, int, object], TrainConfig]:
    """The runs by (figure, bits, λ or bits of the ends); what figures share is there for each."""
    found: dict[tuple[str, int, object], TrainConfig] = {}
    for bits in BITS:
        fields: dict = {**BUDGET, **(changes or {}), "weight_bits": bits, "activation_bits": bits}
        base = TrainConfig(network=network, data=data, seed=seed, **fields)
        found["alpha", bits, None] = base
        for decay in DECAYS:
            found["decay", bits, decay] = dataclasses.replace(base, alpha_decay=decay)
        for ends in ENDS:
            found["ends", bits, ends] = dataclasses.replace(base, edge_bits=ends)
    return found


def study(runs: Mapping[tuple[str, int, object], TrainConfig], folder: Path, *, jobs: int = 1,
          directory: Path | None = None, console: Console | None = None) -> dict[tuple[str, int, object], Run]:
    """Train and measure every different configuration once; see :func:`sw.studies.runs.measure_all`.

    Checkpoints are in a folder for each λ, whose names do not tell it.
    """
    result: dict[TrainConfig, Run] = {}
    for decay in dict.fromkeys(config.alpha_decay for config in runs.values()):
        configs = list(dict.fromkeys(config for config in runs.values() if config.alpha_decay == decay))
        measured = measure_all(configs, folder / f"decay-{decay:g}", jobs=jobs, directory=directory, console=console)
        result |= dict(zip(configs, measured, strict=True))
    return {key: result[config] for key, config in runs.items()}


def _stem(config: TrainConfig, folder: Path) -> Path:
    return folder / f"decay-{config.alpha_decay:g}" / f"{config.name}-seed{config.seed}"


def clips(config: TrainConfig, folder: Path) -> list[Clip]:
    """α of every layer over training, from the metrics beside the checkpoint; epoch 0 is the initial α."""
    stem = _stem(config, folder)
    with stem.with_name(f"{stem.name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = [name.removeprefix("clip:") for name in rows[0] if name.startswith("clip:")]
    assert config.weight_bits is not None
    return [Clip(bits=config.weight_bits, layer=layer, epoch=epoch, alpha=alpha) for layer in layers
            for epoch, alpha in [(0, config.alpha), *((int(r["epoch"]), float(r[f"clip:{layer}"])) for r in rows)]]


def losses(config: TrainConfig, folder: Path, split: Split) -> list[Loss]:
    """Cross entropy over ``split`` with each layer's α swept around what was trained."""
    stem = _stem(config, folder)
    _, model = load_checkpoint(stem.with_name(f"{stem.name}.safetensors"))
    assert config.weight_bits is not None
    images, found = split.images, []
    for name, module in model.named_modules():
        if not isinstance(module, PactActivation):
            continue
        trained = module.clip.item()
        with torch.no_grad():
            for share in SHARES:
                module.clip.fill_(trained * share)
                loss = functional.cross_entropy(model(images), split.labels).item()
                found.append(Loss(bits=config.weight_bits, layer=name, alpha=trained * share, trained_alpha=trained,
                                  loss=loss))
            module.clip.fill_(trained)
    return found


def figures(runs: Mapping[tuple[str, int, object], TrainConfig], folder: Path, *, directory: Path | None = None
            ) -> tuple[list[Clip], list[Loss]]:
    """What figures 2 and 3 show, of the trained runs; the losses over the first 1000 training images."""
    configs = [config for (kind, _, _), config in runs.items() if kind == "alpha"]
    split = load(configs[0].data, directory).train.part(slice(1000))
    return ([clip for config in configs for clip in clips(config, folder)],
            [loss for config in configs for loss in losses(config, folder, split)])


def _ends(bits: object) -> str:
    return "fp32" if bits is None else str(bits)


def write(runs: Mapping[tuple[str, int, object], Run], alphas: Sequence[Clip], swept: Sequence[Loss], folder: Path, *,
          command: str) -> list[Path]:
    """Write ``pact-alpha.csv``, ``pact-loss.csv`` and ``pact-runs.csv``; each names the command that made it."""
    tables: dict[str, list[list]] = {
        "pact-alpha": [["bits", "layer", "epoch", "alpha"],
                       *([c.bits, c.layer, c.epoch, f"{c.alpha:.6g}"] for c in alphas)],
        "pact-loss": [["bits", "layer", "alpha", "trained_alpha", "loss"],
                      *([s.bits, s.layer, f"{s.alpha:.6g}", f"{s.trained_alpha:.6g}", f"{s.loss:.6f}"] for s in swept)],
        "pact-runs": [["figure", "bits", "edge_bits", "alpha_decay", "fake_quantized_percent", "integer_percent"],
                      *([kind, bits, _ends(run.config.edge_bits), f"{run.config.alpha_decay:g}",
                         percent(run.fake_quantized), percent(run.integer)]
                        for (kind, bits, _), run in runs.items() if kind != "alpha")],
    }
    paths = []
    for name, (names, *rows) in tables.items():
        paths.append(folder / f"{name}.csv")
        write_csv(paths[-1], names, rows, command=command)
    return paths


def draw(runs: Mapping[tuple[str, int, object], Run], alphas: Sequence[Clip], swept: Sequence[Loss], folder: Path
         ) -> list[Path]:
    """Draw ``pact-alpha.svg`` (α over training, loss against α) and ``pact-runs.svg`` (λ, ends)."""
    layers = list(dict.fromkeys(clip.layer for clip in alphas))
    paths = [folder / "pact-alpha.svg", folder / "pact-runs.svg"]
    with figure(paths[0], 2, title="PACT: the clip α of each layer") as (left, right):
        for bits, dashes in zip(BITS, ("-", (0, (4, 2)))):
            for colour, layer in zip(COLOURS, layers):
                curve = [clip for clip in alphas if (clip.bits, clip.layer) == (bits, layer)]
                left.plot([clip.epoch for clip in curve], [clip.alpha for clip in curve], color=colour,
                          linestyle=dashes, linewidth=1.6, label=f"{layer}, {bits} bits")
                sweep = [s for s in swept if (s.bits, s.layer) == (bits, layer)]
                right.plot([s.alpha / s.trained_alpha for s in sweep], [s.loss for s in sweep], color=colour,
                           linestyle=dashes, linewidth=1.6)
        left.set_ylim(bottom=0)
        left.set_xlabel("epochs of 12 800 images")
        left.set_ylabel("α")
        left.legend()
        right.set_xscale("log", base=2)
        right.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
        right.set_yscale("log")
        right.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
        right.minorticks_off()
        right.axvline(1, color=FAINT, linewidth=1)
        right.set_xlabel("α of one layer ÷ its trained α")
        right.set_ylabel("cross entropy, 1000 training images")
    with figure(paths[1], 2, title="PACT + DoReFa: what λ of α and the ends cost") as (left, right):
        for colour, bits in zip(COLOURS, BITS):
            for axis, kind, values in ((left, "decay", DECAYS), (right, "ends", ENDS)):
                keys = [value for value in values if (kind, bits, value) in runs]
                axis.plot(range(len(keys)), [runs[kind, bits, value].accuracy for value in keys], color=colour,
                          marker="o", markersize=5, linewidth=1.6, label=f"{bits} bits between the ends")
                axis.set_xticks(range(len(keys)),
                                [_ends(value) if kind == "ends" else f"{value:g}" for value in keys])
                axis.set_ylabel("right answers on the test split (%)")
        left.set_xlabel("λ of α")
        right.set_xlabel("bits of the first and the last layer")
        right.legend()
    return paths
