"""Convolutions, linear layers and pools."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from golden.affine import Code, Expression, Sum, rationals
from golden.network import Conv2d, Grid, MaxPool2d, NetworkError, Tensor, map_size
from golden.onnx_import.arithmetic import constant_bias, shift
from golden.onnx_import.builder import Builder
from golden.onnx_import.constants import Constant
from golden.onnx_import.graph import MAX_CONSTANT, Node, UnsupportedModelError, integers
from golden.onnx_import.result import AXES
from golden.onnx_import.shapes import axes_of
from golden.onnx_import.values import Pool, Value, coded, integer_weights, printable

__all__ = ["OPERATORS", "pool_codes"]

Four = tuple[int, int, int, int]


def _maps(builder: Builder, node: Node, *, padded: bool = False, pooled: bool = False) -> Value:
    """What a layer reads, as (C, H, W) or (C, L), wherever the file has the channels."""
    value = builder.value(node, padded=padded, pooled=pooled)
    if len(value.sizes) == 1:
        return value
    wanted = "HWC" if node.channels_last else AXES
    if len(value.sizes) == 2:
        wanted = wanted.replace("H", "")
    if value.axes != wanted:
        raise UnsupportedModelError(
            f"{node.label} must read {', '.join(('N', *wanted))}, not {', '.join(('N', *value.axes))}: a Transpose is "
            "missing"
        )
    place = [value.axes.index(axis) for axis in AXES if axis in value.axes]
    return dataclasses.replace(value, sizes=tuple(value.sizes[i] for i in place), order=AXES)


def _laid_out(node: Node, made: Value) -> Value:
    """What a layer made, with the channels behind where the node has them there."""
    if not node.channels_last or len(made.sizes) == 1:
        return made
    return dataclasses.replace(made, sizes=(*made.sizes[1:], made.sizes[0]), order="HWC")


# ---- convolutions and linear layers ----------------------------------------------------------------------------------


def conv(builder: Builder, node: Node) -> Value:
    """Conv, of maps or signals."""
    weights = builder.constant(node, 1, "its weights")
    if node.channels_last and weights.values.ndim > 2:
        weights = weights.moved(lambda x: np.moveaxis(x, -1, 1))
    return _convolution(builder, node, _maps(builder, node, padded=True), weights)


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
        _pair(x) for x in (shape[2:], *(node.integers(k, [1] * axes) for k in ("strides", "dilations")))
    )
    if list(node.integers("kernel_shape", shape[2:])) != list(shape[2:]):
        raise UnsupportedModelError(f"{node.label} must have weights of its kernel_shape, not {shape}")
    pads = _pads(node, value, kernel, stride, dilation)
    given = builder.optional(node, 2, "its bias") if bias else None
    codes = weights.moved(lambda x: x.reshape(*shape[:2], *kernel))
    groups = node.integer("group", 1)
    plain = (kernel, stride, dilation, pads, groups) == ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1)
    made = _linear(builder, node, value, codes, given, plain=plain, axes=axes,
                   stride=stride, dilation=dilation, padding=pads, groups=groups)  # fmt: skip
    return _laid_out(node, made)


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
    sizes = (1, 1) if mean is not None else _sizes(node, source.tensor, operation)
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


# ---- pools -----------------------------------------------------------------------------------------------------------


def average_pool(builder: Builder, node: Node) -> Value:
    """AveragePool: sums over windows, and a division."""
    value = _maps(builder, node, padded=True)
    kernel, stride, pads, own = _window(node, value)
    if any(own) and not node.integer("count_include_pad", 0):
        raise UnsupportedModelError(f"{node.label} must count its padding (count_include_pad), or have none")
    return _average(builder, node, value, kernel, stride, pads, Fraction(1, kernel[0] * kernel[1]))


def global_average_pool(builder: Builder, node: Node) -> Value:
    """GlobalAveragePool."""
    kernel = _whole_map(builder, node)
    factor = Fraction(1, kernel[0] * kernel[1])
    return _average(builder, node, _maps(builder, node), kernel, (1, 1), (0, 0, 0, 0), factor)


def reduce_mean(builder: Builder, node: Node, mean: bool = True) -> Value:
    """ReduceMean of whole maps."""
    value = builder.value(node)
    kernel = _whole_map(builder, node, anywhere=True)
    rank = len(value.sizes) + 1
    axes = axes_of(builder, node, rank)
    maps = [1 + place for place, axis in enumerate(value.axes) if axis != "C"]
    if axes is None or sorted(axes) != maps:
        raise UnsupportedModelError(f"{node.label} must reduce the whole map of each channel, not axes {axes}")
    factor = Fraction(1, kernel[0] * kernel[1]) if mean else Fraction(1)
    kept = tuple(value.shape[0] if axis == "C" else 1 for axis in value.axes)
    if not node.integer("keepdims", 1):
        kept = value.shape[:1]
    summed = _summed(value.known)
    if summed is not None:
        summed = summed.scaled(rationals(np.full(value.shape[0], 1)) * factor)
        return dataclasses.replace(value, expression=summed, sizes=kept)
    sizes = value.shape if len(value.sizes) == 3 else (value.shape[0], value.shape[2])
    first = dataclasses.replace(value, sizes=sizes, order=AXES)
    made = _average(builder, node, first, kernel, (1, 1), (0, 0, 0, 0), factor)
    return dataclasses.replace(made, sizes=kept, order=value.order)


def _summed(expression: Expression) -> Expression | None:
    """The sum over the map of a layer that works pixel by pixel: one linear layer, if that is what it reads."""
    acc = expression.acc
    if acc is None or expression.codes or not expression.affine or acc.pooled:
        return None
    operation = acc.operation
    geometry = (operation.codes.shape[2:], operation.stride, operation.padding, operation.groups)
    if geometry != ((1, 1), (1, 1), (0, 0, 0, 0), 1) or operation.broadcast:
        return None
    whole = dataclasses.replace(acc, operation=dataclasses.replace(operation, dilation=(1, 1), broadcast=True))
    return dataclasses.replace(expression, shape=(expression.shape[0], 1, 1), acc=whole,
                               offset=expression.offset * math.prod(expression.shape[1:]), code=None)  # fmt: skip


def reduce_sum(builder: Builder, node: Node) -> Value:
    """ReduceSum of whole maps."""
    return reduce_mean(builder, node, mean=False)


def _whole_map(builder: Builder, node: Node, anywhere: bool = False) -> tuple[int, int]:
    value = builder.value(node) if anywhere else _maps(builder, node)
    if len(value.sizes) < 2:
        raise UnsupportedModelError(f"{node.label} must read maps (N, C, H, W) or (N, C, L), not (N, features)")
    return value.shape[1], value.shape[2]


def _average(
    builder: Builder,
    node: Node,
    value: Value,
    kernel: Sequence[int],
    stride: tuple[int, int],
    pads: Four,
    factor: Fraction,
) -> Value:
    """Sums over windows, channel by channel, times ``factor``: a convolution with weights 1."""
    source = builder.padded(node, value) if any(pads) else builder.settle(value, node.label)
    channels = source.tensor.shape[0]
    if min(kernel) < 1 or channels * math.prod(kernel) > MAX_CONSTANT:
        raise UnsupportedModelError(f"{node.label} must have a window of at most {MAX_CONSTANT} numbers, not {kernel}")
    ones = np.ones((channels, 1, *kernel), np.uint8)  # one bit on the odd grid: code 1 is the weight 1
    name = printable(node.name)
    operation = Conv2d(name, source.tensor.name, name, ones, 1, Grid.ODD, stride, (1, 1), pads, channels)
    sizes = _sizes(node, source.tensor, operation)
    pooled = sizes == (1, 1) and tuple(kernel) == source.tensor.shape[1:] and not any(pads)
    one = rationals(np.full(channels, 1))
    made = Sum(operation, source, one, pooled).expression((channels, *sizes)).scaled(one * factor)
    result = Value(made, (channels, *(sizes if len(value.sizes) == 3 else sizes[1:])), value.integer)
    return _laid_out(node, result)


def max_pool(builder: Builder, node: Node) -> Value:
    """MaxPool."""
    value = _maps(builder, node, padded=True, pooled=True)
    kernel, stride, pads, _ = _window(node, value)
    return _max_pool(builder, node, value, kernel, stride, pads)


def global_max_pool(builder: Builder, node: Node) -> Value:
    """GlobalMaxPool."""
    kernel = _whole_map(builder, node)
    return _max_pool(builder, node, _maps(builder, node), kernel, (1, 1), (0, 0, 0, 0))


def _max_pool(builder: Builder, node: Node, value: Value, kernel: Any, stride: Any, pads: Any) -> Value:
    name = printable(node.name)
    try:
        operation = MaxPool2d(name, name, name, kernel, stride, tuple(pads))
    except NetworkError as error:
        raise UnsupportedModelError(f"{node.label} must make a pool: {error}") from None
    sizes = map_size(_size(value), operation.kernel, operation.stride, operation.padding)
    if min(sizes) < 1:
        raise UnsupportedModelError(f"{node.label} must have a window that fits {_size(value)}")
    after = (value.shape[0], *(sizes if len(value.sizes) == 3 else sizes[1:]))
    known = value.known
    if builder.quantized and not value.padded and known.code is None and not known.whole and not known.same_codes:
        waiting = (*value.pools, Pool(node, operation, sizes))
        return _laid_out(node, dataclasses.replace(value, sizes=after, pools=waiting))
    source = builder.settle(value, node.label)
    if value.padded and source.code_of(value.fill) != 0:
        raise UnsupportedModelError(f"{node.label} must read what is padded with its smallest value, if at all")
    code = pool_codes(builder, source, Pool(node, operation, sizes), node.outputs[0])
    return _laid_out(node, Value(Expression.of(code), after, value.integer))


def pool_codes(builder: Builder, source: Code, pool: Pool, name: str) -> Code:
    """Append a pool of codes, and the tensor ``name`` that it makes."""
    label = builder.tensor_name(name)
    tensor = dataclasses.replace(source.tensor, name=label, shape=(source.tensor.shape[0], *pool.size))
    builder.tensors.append(tensor)
    builder.operations.append(
        dataclasses.replace(
            pool.operation, name=builder.operation_name(pool.operation.name), input=source.tensor.name, output=label
        )
    )
    return dataclasses.replace(source, tensor=tensor)


def _size(value: Value) -> tuple[int, int]:
    """Height and width of what a value is behind its pools."""
    return value.pools[-1].size if value.pools else value.shape[1:]


def pad(builder: Builder, node: Node) -> Value:
    """Pad with a constant; it goes into the layer or pool behind it."""
    value = builder.value(node, padded=True)
    rank = len(value.sizes) + 1
    given = node.integers("pads", None)
    if given is None:
        given = integers(builder.constant(node, 1, "its pads").values, f"{node.label}: its pads", -65536, 65536)
    pads = list(given)
    chosen = builder.optional(node, 3, "its axes")
    if chosen is not None:
        axes = [axis % rank for axis in integers(chosen.values, f"{node.label}: its axes", -rank, rank - 1)]
        ends = [[0] * rank, [0] * rank]
        for i, axis in enumerate(axes):
            ends[0][axis], ends[1][axis] = pads[i], pads[len(axes) + i]
        pads = ends[0] + ends[1]
    constant = builder.optional(node, 2, "its value")
    fill = Fraction(float(node.attributes.get("value", 0) if constant is None else constant.values.reshape(-1)[0]))
    whole = builder.quantized or fill.denominator == 1
    if node.attributes.get("mode", "constant") != "constant" or not whole:
        raise UnsupportedModelError(f"{node.label} must pad with a constant integer")
    if value.padded and fill != value.fill:
        raise UnsupportedModelError(f"{node.label} must pad with {value.fill} as the Pad before it, not {fill}")
    maps = [place for place, axis in enumerate(("N", *value.axes)) if axis in "HW"]
    others = [x for place in range(rank) if place not in maps for x in (pads[place], pads[rank + place])]
    known = value.axes in ("CHW", "CW", "HWC", "WC")
    if len(pads) != 2 * rank or any(others) or min(pads) < 0 or rank < 3 or not known:
        raise UnsupportedModelError(f"{node.label} must add pixels around maps and nothing else, not {pads}")
    added = _four([pads[place] for place in maps] + [pads[rank + place] for place in maps])
    top, left, bottom, right = (a + b for a, b in zip(value.padding, added, strict=True))
    return dataclasses.replace(value, padding=(top, left, bottom, right), fill=fill)


def _window(node: Node, value: Value) -> tuple[Any, Any, Any, Any]:
    """Kernel, stride, padding and the padding without what a Pad before it adds, of a pool."""
    axes = len(value.sizes) - 1
    if axes not in (1, 2):
        raise UnsupportedModelError(f"{node.label} must pool maps (N, C, H, W) or (N, C, L)")
    kernel, stride, dilation = (
        _pair(node.integers(key, [1] * axes)) for key in ("kernel_shape", "strides", "dilations")
    )
    if dilation != (1, 1):
        raise UnsupportedModelError(f"{node.label} must have dilations of 1, not {dilation}")
    if min(*kernel, *stride) < 1:
        raise UnsupportedModelError(f"{node.label} must have windows and strides of at least 1, not {kernel}, {stride}")
    pads = list(_pads(node, value, kernel, stride, (1, 1)))
    own = [a - b for a, b in zip(pads, value.padding, strict=True)]
    if node.integer("ceil_mode", 0):
        for axis in (0, 1):
            extent = _size(value)[axis] + pads[axis] + pads[axis + 2]
            over = (extent - kernel[axis]) % stride[axis]
            # One more window, if it begins inside the map or the padding before it.
            last = extent - kernel[axis] - over + stride[axis]
            if over and last < extent - pads[axis + 2]:
                if node.operator == "AveragePool":
                    raise UnsupportedModelError(f"{node.label} must not average windows that end outside (ceil_mode)")
                pads[axis + 2] += stride[axis] - over
    return kernel, stride, tuple(pads), own


def _pads(
    node: Node, value: Value, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Four:
    """(top, left, bottom, right), with what a Pad before it adds."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    axes = len(value.sizes) - 1
    if min(*kernel, *stride, *dilation) < 1:
        raise UnsupportedModelError(f"{node.label} must have kernels, strides and dilations of at least 1")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for axis in (0, 1):
            extent = _size(value)[axis] + value.padding[axis] + value.padding[axis + 2]
            span = (kernel[axis] - 1) * dilation[axis] + 1
            total = max((-(-extent // stride[axis]) - 1) * stride[axis] + span - extent, 0)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        own: Four = (before[0], before[1], after[0], after[1])
    elif mode in ("NOTSET", "VALID"):
        own = _four(list(node.integers("pads", [0] * 2 * axes)) if mode == "NOTSET" else [0] * 2 * axes)
    else:
        raise UnsupportedModelError(f"{node.label} must have auto_pad NOTSET, VALID or SAME_*, not {mode}")
    if min(own) < 0:
        raise UnsupportedModelError(f"{node.label} must have pads of at least 0, not {own}")
    if any(own) and value.fill:
        raise UnsupportedModelError(f"{node.label} must not pad with 0 what a Pad before it pads with {value.fill}")
    top, left, bottom, right = (a + b for a, b in zip(own, value.padding, strict=True))
    return top, left, bottom, right


def _sizes(node: Node, source: Tensor, operation: Conv2d | MaxPool2d) -> tuple[int, int]:
    """Height and width of what an operation makes."""
    sizes = operation.output_size(source)
    if min(sizes) < 1:
        raise UnsupportedModelError(f"{node.label} must have a window that fits {source.shape[1:]}")
    return sizes


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def _four(pads: list[int]) -> Four:
    """(top, left, bottom, right) of the begins and ends of one or two axes."""
    if len(pads) == 2:
        return 0, int(pads[0]), 0, int(pads[1])
    top, left, bottom, right = (int(x) for x in pads)
    return top, left, bottom, right


OPERATORS = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "MatMul": matmul,
    "MatMulInteger": matmul_integer,
    "MaxPool": max_pool,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
}
