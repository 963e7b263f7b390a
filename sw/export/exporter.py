"""Export as a user calls it: of a module, of a checkpoint, and what comes of the integer network."""
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from golden import vectors
from golden.execute import execute
from golden.network import MAX_PRODUCT_SHIFT, IntegerNetwork, Kind
from golden.requantize import INT64, Widths

from ..data import Split, load
from ..layers import InputQuantizer, frozen
from ..train import load_checkpoint
from .builder import Builder
from .report import ExportReport
from .trace import CodeRecorder, differences, trace

__all__ = ["Export", "export", "export_checkpoint", "integer_accuracy", "logits"]

BATCH = 500
"""Images that are compared at once: every tensor of the network is kept for them."""


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


def export(model: nn.Module, sample: torch.Tensor, *, name: str = "network", limits: Widths = INT64,
           product_shift: int = 0) -> Export:
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
    product_shift : :class:`int`
        r, 0..31: where weights and input of a layer both have scales per vector, the products of the scales are rounded
        half up to multiples of 2^r, which loses something; the report counts the codes that differ.

    Raises
    ------
    ExportError
        If the model has something else; the sentence names the module by its path, or the node as ``torch.fx`` does.
    """
    if not 0 <= product_shift <= MAX_PRODUCT_SHIFT:
        raise ValueError(f"Product shift must be between 0 and {MAX_PRODUCT_SHIFT}, not {product_shift!r}")
    reference = frozen(model)
    graph = trace(reference)
    builder = Builder(reference, graph, sample[:1].double(), limits, product_shift)
    network, layers = builder.build(name)
    exported = Export(network, ExportReport(name, tuple(layers)), builder.quantizer)
    trained = copy.deepcopy(model).eval().float()
    for start in range(0, len(sample), BATCH):
        part = sample[start:start + BATCH]
        values = execute(network, exported.encode(part))
        float64, float32 = (differences(network, values, CodeRecorder(m, graph).record(part.to(dtype)), builder.nodes)
                            for m, dtype in ((reference, torch.float64), (trained, torch.float32)))
        layers = [dataclasses.replace(
            layer, compared=layer.compared + values[layer.tensor].size,
            ties=layer.ties + (channels.ties(network, values) if channels else 0),
            float64_differences=layer.float64_differences + float64[layer.tensor],
            float32_differences=layer.float32_differences + float32[layer.tensor])
            for layer, channels in zip(layers, builder.channels, strict=True)]
    return dataclasses.replace(exported, report=ExportReport(name, tuple(layers)))


def export_checkpoint(checkpoint: Path, folder: Path, *, frames: int = 2, limits: Widths = INT64,
                      product_shift: int = 0, directory: Path | None = None, name: str | None = None,
                      prepare: Callable[[nn.Module, Split], nn.Module] | None = None) -> Export:
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
    product_shift : :class:`int`
        See :func:`export`.
    directory : path or ``None``
        Of the data's files, see :func:`sw.data.load`.
    name : :class:`str` or ``None``
        Of the network, if it is not the checkpoint's.
    prepare : callable or ``None``
        What is exported, given the checkpoint's model and the training split: for a float model that is calibrated.

    Returns
    -------
    :class:`Export`
        With the report on the whole test split.
    """
    config, model = load_checkpoint(checkpoint)
    dataset = load(config.data, directory)
    test = dataset.test
    if not 1 <= frames <= len(test):
        raise ValueError(f"Frames must be between 1 and {len(test)}, not {frames!r}")
    if prepare is not None:
        model = prepare(model, dataset.train)
    result = export(model, test.images, name=name or config.name, limits=limits, product_shift=product_shift)
    vectors.write(folder, result.network, result.encode(test.images[:frames]), seed=config.seed)
    return result


def logits(network: IntegerNetwork, values: dict[str, np.ndarray]) -> np.ndarray:
    """Real values of the network's output, (N, C, H, W): slope·acc + offset, or its codes' value."""
    output, result = network.output, values[network.output.name]
    if output.kind is Kind.CODE:
        return output.channel_scale[:, None, None] * (result.astype(np.float64) - output.zero_point)
    assert output.slope is not None and output.offset is not None
    return output.slope[:, None, None] * result + output.offset[:, None, None]


def integer_accuracy(model: nn.Module, split: Split) -> float:
    """Share of the split's images that the exported integer network gives the right label, 0..1."""
    exported = export(model, split.part(slice(1)).images)
    right = 0
    for start in range(0, len(split), BATCH):
        part = split.part(slice(start, start + BATCH))
        values = execute(exported.network, exported.encode(part.images))
        predictions = logits(exported.network, values).reshape(len(part), -1).argmax(1)
        right += int((predictions == part.labels.numpy()).sum())
    return right / len(split)
