"""Export as a user calls it: of a module, of a checkpoint, and what comes of the integer network."""
from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from golden import vectors
from golden.execute import execute
from golden.network import IntegerNetwork, Kind
from golden.requantize import INT64, Widths

from ..data import Split, digits
from ..layers import InputQuantizer, frozen
from ..train import load_checkpoint
from .builder import Builder
from .report import ExportReport
from .trace import Recorder, differences, trace

__all__ = ["Export", "export", "export_checkpoint", "integer_accuracy", "logits"]


@dataclass(frozen=True)
class Export:
    """An exported model: its integer network, the report, and the quantizer of its input."""

    network: IntegerNetwork
    report: ExportReport
    input: InputQuantizer

    def encode(self, images: torch.Tensor) -> np.ndarray:
        """Input codes, unsigned (N, C, H, W), of a batch in the model's own form."""
        codes = self.input.to_int(images.double()).numpy()
        return codes.reshape(len(codes), *self.network.input.shape).astype(np.uint16)


def export(model: nn.Module, sample: torch.Tensor, *, name: str = "network", limits: Widths = INT64) -> Export:
    """Turn a trained model into the integer network that computes the very same codes.

    The model starts with an :class:`~sw.layers.InputQuantizer` and may contain

    * :class:`~sw.layers.QuantConv2d` and :class:`~sw.layers.QuantLinear` on quantized tensors, each followed by an
      optional batch norm and an activation quantizer; the model's last one gives accumulators instead,
    * :class:`~sw.layers.ResidualAdd` (or ``+``) of a convolution's or linear layer's result and a quantized tensor, or
      of two quantized tensors, followed by an activation quantizer,
    * an activation quantizer on a quantized tensor, which becomes a depthwise 1×1 convolution with weight 1: a block
      whose shortcut keeps 8 bits while its convolution takes fewer,
    * ``MaxPool2d`` on quantized tensors, ``flatten`` before a linear layer,
    * :class:`~sw.layers.GlobalAveragePool` or ``AdaptiveAvgPool2d(1)`` of a quantized tensor before a linear layer,
    * ``Identity`` and dropout, which vanish.

    Parameters
    ----------
    model : :class:`torch.nn.Module`
        Not changed. Evaluation mode is what is exported.
    sample : :class:`torch.Tensor`
        A batch (N, C, H, W) or (N, features): gives the shapes, and is what the report compares.
    name : :class:`str`
        Of the network.
    limits : :class:`golden.requantize.Widths`
        Widths that the constants may have; the report counts what is lost where they are too narrow.

    Raises
    ------
    ExportError
        If the model has something else; the sentence names the module by its path, or the node as ``torch.fx`` does.
    """
    reference = frozen(model)
    graph = trace(reference)
    builder = Builder(reference, graph, sample.double(), limits)
    network, layers = builder.build(name)
    quantizer = builder.quantizer
    codes = quantizer.to_int(sample.double()).numpy().reshape(len(sample), *network.input.shape).astype(np.uint16)
    values = execute(network, codes)
    trained = copy.deepcopy(model).eval().float()
    agreement = [differences(network, values, recorded, builder.nodes)
                 for recorded in (builder.recorded, Recorder(trained, graph).record(sample.float()))]
    rows = []
    for layer, channels in zip(layers, builder.channels, strict=True):
        float64, float32 = (counts[layer.tensor] for counts in agreement)
        rows.append(dataclasses.replace(
            layer, compared=values[layer.tensor].size, ties=channels.ties(network, values) if channels else 0,
            float64_differences=float64, float32_differences=float32))
    return Export(network, ExportReport(name, tuple(rows)), quantizer)


def export_checkpoint(checkpoint: Path, folder: Path, *, frames: int = 2, limits: Widths = INT64) -> Export:
    """Export a checkpoint of a reference network and write its golden vectors.

    Parameters
    ----------
    checkpoint : path
        What :func:`sw.train.save_checkpoint` wrote.
    folder : path
        Gets the vectors of the test split's first ``frames`` images, see :mod:`golden.vectors`.
    frames : :class:`int`
        At least 1.
    limits : :class:`golden.requantize.Widths`
        See :func:`export`.

    Returns
    -------
    :class:`Export`
        With the report on the whole test split.
    """
    config, model = load_checkpoint(checkpoint)
    _, test = digits()
    if not 1 <= frames <= len(test.images):
        raise ValueError(f"Frames must be between 1 and {len(test.images)}, not {frames!r}")
    result = export(model, test.images, name=config.name, limits=limits)
    vectors.write(folder, result.network, result.encode(test.images[:frames]), seed=config.seed)
    return result


def logits(network: IntegerNetwork, values: dict[str, np.ndarray]) -> np.ndarray:
    """Real values of the network's output, (N, C, H, W): slope·acc + offset, or scale·(code − zero point)."""
    output, result = network.output, values[network.output.name]
    if output.kind is Kind.CODE:
        return output.scale * (result.astype(np.float64) - output.zero_point)
    assert output.slope is not None and output.offset is not None
    return output.slope[:, None, None] * result + output.offset[:, None, None]


def integer_accuracy(model: nn.Module, split: Split) -> float:
    """Share of the split's images that the exported integer network gives the right label, 0..1."""
    exported = export(model, split.images[:1])
    values = execute(exported.network, exported.encode(split.images))
    predictions = logits(exported.network, values).reshape(len(split.labels), -1).argmax(1)
    return float((predictions == split.labels.numpy()).mean())
