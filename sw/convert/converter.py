"""The call that quantizes a float model: traces, walks, and puts the result together."""
from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ..graph import Recorder
from ..models import Precision
from .forms import MODULES
from .modules import quantized_modules
from .swap import Swap

__all__ = ["Conversion", "convert", "quantize"]


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` made, and how it belongs to the float model.

    Members
    -------
    model : :class:`torch.fx.GraphModule`
        The quantized model.
    reference : :class:`torch.fx.GraphModule`
        The float model as it was traced: a copy, in evaluation mode.
    sources : :class:`dict`
        For the path of every activation quantizer in ``model``, the name of the node of ``reference`` whose value it
        quantizes and the bound above which the float model clips it, if it does.
    weights : tuple of :class:`str`
        Paths of the layers with weights, in the order of their first use.
    notices : tuple of :class:`str`
        What is not quite as it was, a sentence each.
    """

    model: fx.GraphModule
    reference: fx.GraphModule
    sources: dict[str, tuple[str, float | None]]
    weights: tuple[str, ...]
    notices: tuple[str, ...]


def quantize(model: nn.Module, sample: torch.Tensor | Sequence[int], precision: Precision, *,
             input_range: tuple[float, float] = (0.0, 1.0), bits: Mapping[str, int] | None = None) -> fx.GraphModule:
    """A quantized copy of a float model, ready to be trained and for :func:`sw.export.export`.

    What is swapped, under its own path where it is a module:

    * ``Conv2d`` and ``Linear``, each with an optional batch norm, which is copied with its statistics;
    * ``ReLU``, ``ReLU6``, ``Hardtanh(0, x)`` and their functions, and ``clamp`` from 0 on, for activation quantizers. A
      module that is called several times gets one for each call, numbered from the second on;
    * residual sums (``+``, ``torch.add``, in place or not) of two branches. If neither is quantized, the shorter one, a
      projection shortcut, gets a signed quantizer;
    * max pools, also between a layer and its activation;
    * global average pools: ``AdaptiveAvgPool2d(1)``, a mean over the map, an average pool as large as the map; an
      ``AdaptiveAvgPool2d`` to the size that the map has vanishes;
    * ``flatten``, and ``view``, ``reshape`` and ``squeeze`` that do the same; dropout; ``Identity``, which vanishes.

    The first and the last layer, the last layer's input, the network's input and what projection shortcuts give have
    edge bits. With shortcut bits, what residual sums and projection shortcuts read has these, and so have the weights
    of projections; every other layer that reads it does so through an activation quantizer of its own, ``branch`` in
    the module that calls the layer.
    DoReFa, whose weights are always within ±1, is taken where batch norm follows and can make up for it; the statistics
    are scaled accordingly. The last layer is max-abs whatever the method, as are layers without batch norm with DoReFa,
    and the first layer and those of more than 5 bits with SAWB.

    Parameters
    ----------
    model : :class:`torch.nn.Module`
        Not changed. What it does in evaluation mode is what is traced.
    sample : :class:`torch.Tensor` or sequence of :class:`int`
        A batch of images (N, C, H, W) or features (N, F), or the shape of one, (C, H, W) or (F,).
    precision : :class:`sw.models.Precision`
        With edge bits. Its ``clip`` is where every trained clip starts, but for activations
        that had a bound: they start at that.
    input_range : (low, high)
        Of the model's inputs, widened to include 0; gives the input's scale and zero point.
    bits : mapping or ``None``
        Other widths by path: of the weights for a layer with weights, of the codes for an activation (``input`` is the
        network's input, or ``input_2`` where the model has such a layer). ``print`` of the result shows all paths.

    Returns
    -------
    :class:`torch.fx.GraphModule`
        In the mode of ``model``. ``result.meta["notices"]`` says what is not quite as it was.

    Raises
    ------
    ConversionError
        Naming everything that cannot be swapped.
    ValueError
        An argument that does not fit the model.
    """
    return convert(model, sample, precision, input_range=input_range, bits=bits).model


def convert(model: nn.Module, sample: torch.Tensor | Sequence[int], precision: Precision, *,
            input_range: tuple[float, float] = (0.0, 1.0), bits: Mapping[str, int] | None = None) -> Conversion:
    """:func:`quantize`, with what a calibration needs beside it; parameters and errors are the same."""
    if precision.weight_bits is None:
        raise ValueError("Precision must have weight and activation bits, not those of the float32 baseline")
    if precision.edge_bits is None:
        raise ValueError("Precision must have edge bits, not None")
    low, high = (float(bound) for bound in input_range)
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"Input range must go from a smaller to a larger number, not {input_range!r}")
    batch = _batch(sample, low, high)
    reference = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(reference)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"Model must have a forward that torch.fx can trace: {error}") from None
    float_model = fx.GraphModule(reference, copy.deepcopy(graph))
    swap = Swap(reference, graph, _record(float_model, batch))
    swap.walk()
    if precision.shortcut_bits is not None:
        swap.separate_branches()
    modules, notices = quantized_modules(swap.weights, swap.activations, swap.kept, input_path=swap.input,
                                         precision=precision, input_range=(min(low, 0.0), max(high, 0.0)),
                                         bits=bits or {})
    notices = [*swap.notices, *notices]
    swapped = fx.GraphModule(modules, graph, class_name=type(model).__name__)
    swapped.graph.eliminate_dead_code()
    swapped.recompile()
    swapped.train(model.training)
    swapped.meta["notices"] = tuple(notices)
    sources = {path: (activation.source, activation.ceiling) for path, activation in swap.activations.items()}
    return Conversion(swapped, float_model, sources, tuple(swap.weights), tuple(notices))


def _batch(sample: torch.Tensor | Sequence[int], low: float, high: float) -> torch.Tensor:
    """Two inputs: with one, dropping the dimensions of size 1 could drop the batch's."""
    if not isinstance(sample, torch.Tensor):
        return low + (high - low) * torch.rand(2, *sample, generator=torch.Generator().manual_seed(0))
    if sample.dim() not in (2, 4) or not len(sample):
        raise ValueError(f"Sample must be a batch (N, C, H, W) or (N, features), not of shape {tuple(sample.shape)}")
    least, most = sample.min().item(), sample.max().item()
    if least < low - 0.01 * (high - low) or most > high + 0.01 * (high - low):
        raise ValueError(f"Sample must lie in the input range {low:g}..{high:g}, not in {least:g}..{most:g}")
    return sample[:2] if len(sample) > 1 else sample.repeat(2, *(1,) * (sample.dim() - 1))


class _Tracer(fx.Tracer):
    """What is swapped is not looked into, nor are types derived from it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, tuple(MODULES)) or super().is_leaf_module(m, module_qualified_name)


def _record(model: fx.GraphModule, batch: torch.Tensor) -> dict[str, Any]:
    recorder = Recorder(copy.deepcopy(model))
    recorder.extra_traceback = False
    try:
        return recorder.record(batch)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"Model must take inputs of shape {tuple(batch.shape[1:])}: {error}") from None
