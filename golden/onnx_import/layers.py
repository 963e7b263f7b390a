"""Convolutions and linear layers."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from golden.affine import Sum, rationals
from golden.network import Conv2d, NetworkError
from golden.onnx_import.arithmetic import constant_bias, shift
from golden.onnx_import.builder import Builder
from golden.onnx_import.constants import Constant
from golden.onnx_import.graph import Node, UnsupportedModelError
from golden.onnx_import.result import AXES
from golden.onnx_import.values import Value, coded, integer_weights, printable
from golden.onnx_import.windows import laid_out, maps, pads_of, pair, sizes_of

__all__ = ["OPERATORS"]


def conv(builder: Builder, node: Node) -> Value:
    """Conv, of maps or signals."""
    weights = builder.constant(node, 1, "its weights")
    if node.channels_last and weights.values.ndim > 2:
        weights = weights.moved(lambda x: np.moveaxis(x, -1, 1))
    return _convolution(builder, node, maps(builder, node, padded=True), weights)


def conv_integer(builder: Builder, node: Node) -> Value:
    """ConvInteger: of integers minus their zero points."""
    weights = _minus_zero_point(builder, node, builder.constant(node, 1, "its weights"), 3, 0)
    return _convolution(builder, node, _integers_minus(builder, node, 2), weights, bias=False)


def _convolution(builder: Builder, node: Node, value: Value, weights: Constant, bias: bool = True) -> Value:
    axes = len(value.sizes) - 1
    shape = weights.values.shape
    if axes not in (1, 2) or len(shape) != axes + 2 or 0 in shape:
        raise UnsupportedModelError(
            f"{node.label} must convolve (N, C, H, W) or (N, C, L) with weights to suit, not {shape}"
        )
    kernel, stride, dilation = (
        pair(x) for x in (shape[2:], *(node.integers(k, [1] * axes) for k in ("strides", "dilations")))
    )
    if list(node.integers("kernel_shape", shape[2:])) != list(shape[2:]):
        raise UnsupportedModelError(f"{node.label} must have weights of its kernel_shape, not {shape}")
    pads = pads_of(node, value, kernel, stride, dilation)
    given = builder.optional(node, 2, "its bias") if bias else None
    codes = weights.moved(lambda x: x.reshape(*shape[:2], *kernel))
    groups = node.integer("group", 1)
    plain = (kernel, stride, dilation, pads, groups) == ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1)
    made = _linear(builder, node, value, codes, given, plain=plain, axes=axes,
                   stride=stride, dilation=dilation, padding=pads, groups=groups)  # fmt: skip
    return laid_out(node, made)


def gemm(builder: Builder, node: Node) -> Value:
    """Gemm with constant weights."""
    weights = builder.constant(node, 1, "its weights")
    if node.attributes.get("transA", 0):
        raise UnsupportedModelError(f"{node.label} must not transpose what it reads")
    weights = weights.moved(np.transpose) if node.attributes.get("transB", 0) else weights
    bias = builder.optional(node, 2, "its bias")
    alpha, beta = (Fraction(float(node.attributes.get(key, 1.0))) for key in ("alpha", "beta"))
    return _fully_connected(builder, node, builder.value(node), weights, bias, alpha, beta)


def matmul(builder: Builder, node: Node) -> Value:
    """MatMul by constant weights; of maps with the channels behind: pixel by pixel."""
    value = builder.value(node)
    return _fully_connected(builder, node, value, builder.constant(node, 1, "its second operand"), None)


def matmul_integer(builder: Builder, node: Node) -> Value:
    """MatMulInteger: of integers minus their zero points."""
    weights = _minus_zero_point(builder, node, builder.constant(node, 1, "its second operand"), 3, 1)
    return _fully_connected(builder, node, _integers_minus(builder, node, 2), weights, None)


def _integers_minus(builder: Builder, node: Node, index: int) -> Value:
    """The computed operand minus its zero point, what is around it too."""
    value = builder.value(node, padded=True)
    zero_point = builder.optional(node, index, "its zero point")
    if not value.integer:
        raise UnsupportedModelError(f"{node.label} must read integers of 8 bits")
    if zero_point is None:
        return value
    if zero_point.values.size != 1:
        raise UnsupportedModelError(f"{node.label} must have one zero point for what it reads")
    zero = int(zero_point.values.item())
    if value.padded:
        value = dataclasses.replace(value, fill=value.fill - zero)
    return shift(builder, node, value, rationals(np.full(value.shape[0], -zero)))


def _minus_zero_point(builder: Builder, node: Node, weights: Constant, index: int, axis: int) -> Constant:
    zero_point = builder.optional(node, index, "the zero point of its weights")
    values = weights.values
    if values.dtype.kind not in "iu" or (zero_point is not None and zero_point.values.dtype.kind not in "iu"):
        raise UnsupportedModelError(f"{node.label} must have integer weights")
    if zero_point is None:
        return Constant(values.astype(np.int64))
    zeros = zero_point.values.astype(np.int64)
    if zeros.size > 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        zeros = zeros.reshape(shape)
    return Constant(values.astype(np.int64) - zeros)


def _fully_connected(
    builder: Builder,
    node: Node,
    value: Value,
    weights: Constant,
    bias: Constant | None,
    alpha: Fraction = Fraction(1),
    beta: Fraction = Fraction(1),
) -> Value:
    shape, given = value.shape, weights.values.shape
    pixels = len(value.sizes) > 1 and value.axes[-1] == "C" and not node.operator.startswith("Gemm")
    wanted = shape[0] if pixels else math.prod(value.sizes)
    if (len(value.sizes) != 1 and not pixels) or len(given) != 2 or given[0] != wanted or not given[1]:
        raise UnsupportedModelError(
            f"{node.label} must multiply (N, features) by (features, outputs), not {value.sizes} by {given}"
        )
    averaged = value.known.mean is not None
    if pixels or averaged:
        codes = weights.moved(lambda x: x.T.reshape(-1, shape[0], 1, 1))
    else:
        # The features run through the map in the order that the file had them in.
        sizes = dict(zip(AXES, shape, strict=True))
        order = value.order
        axes = [0, *(1 + order.index(axis) for axis in AXES)]
        codes = weights.moved(lambda x: x.T.reshape(-1, *(sizes[axis] for axis in order)).transpose(axes))
    made = _linear(builder, node, value, codes, None, plain=True, axes=len(value.sizes) - 1)
    if pixels:
        made = dataclasses.replace(made, sizes=(*value.sizes[:-1], made.shape[0]), order=value.order)
    expression = made.known.scaled(rationals(np.full(made.shape[0], 1)) * alpha)
    made = dataclasses.replace(made, expression=expression)
    return made if bias is None else constant_bias(builder, node, made, bias, beta)


def _linear(
    builder: Builder,
    node: Node,
    value: Value,
    weights: Constant,
    bias: Constant | None,
    *,
    plain: bool,
    axes: int,
    **geometry: Any,
) -> Value:
    """A convolution (``axes`` 2 or 1) or linear layer (0); ``plain``: it works pixel by pixel."""
    mean = value.known.mean if plain else None
    source = builder.padded(node, value) if geometry.get("padding", (0,) * 4) != (0,) * 4 else None
    source = source or (builder.settle(value, node.label) if mean is None else mean.source)
    numbers, scale = integer_weights(node, weights, 0)
    codes, bits, grid = coded(node, numbers)
    name = printable(node.name)
    try:
        operation = Conv2d(name, source.tensor.name, name, codes, bits, grid, broadcast=mean is not None, **geometry)
    except NetworkError as error:
        raise UnsupportedModelError(f"{node.label} must make a layer: {error}") from None
    if source.tensor.shape[0] != codes.shape[1] * operation.groups:
        raise UnsupportedModelError(
            f"{node.label} must have weights for {source.tensor.shape[0]} channels, "
            f"not {codes.shape[1] * operation.groups}"
        )
    sizes = (1, 1) if mean is not None else sizes_of(node, source.tensor, operation)
    made = Sum(operation, source, scale).expression((len(codes), *sizes))
    if mean is not None:
        # The mean of channel c is slope*sum + offset[c], with one slope for all of them.
        expression = value.known
        assert expression.slope is not None
        offset = scale * rationals(operation.weights[:, :, 0, 0].astype(object) @ expression.offset)
        made = dataclasses.replace(made, slope=scale * expression.slope[0], offset=offset)
        made.fractional = expression.fractional
    shape = (len(codes), *(sizes if axes == 2 else sizes[1:] if axes == 1 else ()))
    result = Value(made, shape, value.integer)
    return result if bias is None else constant_bias(builder, node, result, bias, Fraction(1))


OPERATORS = {
    "Conv": conv,
    "ConvInteger": conv_integer,
    "Gemm": gemm,
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
}
