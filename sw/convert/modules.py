"""The quantized modules that come for those of the float model."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..layers import InputQuantizer, QuantConv2d, QuantLinear
from ..models import WEIGHTS, Precision
from ..quantizers import WeightQuantizer
from ..quantizers.dorefa import Dorefa
from ..quantizers.sawb import COEFFICIENTS
from .forms import symmetric_padding
from .values import Activation, Weight

__all__ = ["quantized_modules"]


def quantized_modules(weights: Mapping[str, Weight], activations: Mapping[str, Activation],
                      kept: Mapping[str, nn.Module], *, input_path: str, precision: Precision,
                      input_range: tuple[float, float], bits: Mapping[str, int]
                      ) -> tuple[dict[str, nn.Module], list[str]]:
    """All modules of a changed graph by path, and notices of what is not quite as it was.

    Parameters
    ----------
    weights, activations : mapping
        By path, what is to be made.
    kept : mapping
        By path, modules that are taken as they are. Batch norms among them follow weights that are scaled.
    input_path : :class:`str`
        Of the input's quantizer.
    precision : :class:`sw.models.Precision`
        With edge bits.
    input_range : (low, high)
        Includes 0.
    bits : mapping
        Other widths by path, see :func:`sw.convert.quantize`.

    Raises
    ------
    ValueError
        A width for no path, or one that the method does not have.
    """
    unknown = sorted(set(bits) - {input_path, *weights, *activations})
    if unknown:
        raise ValueError(f"Bits must be for layers of the model, not for {', '.join(map(repr, unknown))}")
    edges = {weight.source.path for weight in weights.values() if weight.last and weight.source is not None}
    assert precision.edge_bits is not None
    made: dict[str, nn.Module] = {input_path: _input(bits.get(input_path, precision.edge_bits), *input_range)}
    for path, activation in activations.items():
        made[path] = _quantizer(activation, precision, bits.get(path), edge=path in edges)
    made.update(kept)
    notices: list[str] = []
    for path, weight in weights.items():
        first = weight.source is not None and weight.source.path == input_path
        made[path] = _layer(path, weight, precision, bits.get(path), notices, first=first)
    return made, notices


def _layer(path: str, weight: Weight, precision: Precision, bits: int | None, notices: list[str], *,
           first: bool) -> nn.Module:
    assert precision.weight_bits is not None and precision.edge_bits is not None
    if bits is None:
        wide = precision.shortcut_bits if weight.projection else None
        bits = precision.edge_bits if first or weight.last else wide or precision.weight_bits
    method = precision.weights
    if weight.last or (method == "sawb" and (first or bits > max(COEFFICIENTS))):
        method = "maxabs"
    elif method == "dorefa" and (weight.bare or not weight.norms):
        method = "maxabs"
        notices.append(f"{path}: its weights are max-abs, since DoReFa needs a batch norm behind it")
    if method == "maxabs" and bits == 1 and precision.weights != "maxabs":
        raise ValueError(f"Bits of {path!r} must be at least 2: its weights are max-abs")
    quantizer = precision.weight_quantizer(bits) if method == precision.weights else WEIGHTS[method](bits)
    layer = _quantized(weight, quantizer)
    if isinstance(quantizer, Dorefa) and bits > 1:
        _scale(layer, weight.norms)
    return layer


def _input(bits: int, low: float, high: float) -> InputQuantizer:
    top = 2 ** bits - 1
    scale = (high - low) / top
    return InputQuantizer(bits=bits, scale=scale, zero_point=min(top, math.floor(-low / scale + 0.5)))


def _quantizer(activation: Activation, precision: Precision, bits: int | None, *, edge: bool) -> nn.Module:
    if activation.signed:
        return dataclasses.replace(precision, edge_bits=bits or precision.edge_bits).shortcut()
    if bits is None:
        wide = precision.shortcut_bits if activation.stream else None
        bits = precision.edge_bits if edge else wide or precision.activation_bits
    clip = precision.clip if activation.ceiling is None else activation.ceiling
    return dataclasses.replace(precision, activation_bits=bits, clip=clip).activation()


def _quantized(weight: Weight, quantizer: WeightQuantizer) -> QuantConv2d | QuantLinear:
    module = weight.module
    layer: QuantConv2d | QuantLinear
    if isinstance(module, nn.Conv2d):
        padding = symmetric_padding(module)
        layer = QuantConv2d(module.in_channels, module.out_channels, module.kernel_size, quantizer=quantizer,
                            stride=module.stride, padding=padding, dilation=module.dilation, groups=module.groups,
                            bias=module.bias is not None)
    else:
        layer = QuantLinear(module.in_features, module.out_features, quantizer=quantizer,
                            bias=module.bias is not None, positions=weight.positions)
    layer.weight = nn.Parameter(module.weight.detach().clone())
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach().clone())
    return layer


def _scale(layer: QuantConv2d | QuantLinear, norms: Iterable[nn.Module]) -> None:
    """Let bias and batch norm follow weights that DoReFa stretches to ±1."""
    factor = 1 / torch.tanh(layer.weight.detach()).abs().max().clamp(min=torch.finfo(layer.weight.dtype).tiny)
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias *= factor
        for norm in norms:
            assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean *= factor
            norm.running_var *= factor ** 2
