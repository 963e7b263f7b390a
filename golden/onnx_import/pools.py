"""Pools: sums and maxima over windows, whole maps, and what is put around them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from golden.affine import Code, Expression, Sum, rationals
from golden.network import Conv2d, Grid, MaxPool2d, NetworkError, map_size
from golden.onnx_import.builder import Builder
from golden.onnx_import.graph import MAX_CONSTANT, Node, UnsupportedModelError, integers
from golden.onnx_import.result import AXES
from golden.onnx_import.shapes import axes_of
from golden.onnx_import.values import Pool, Value, printable
from golden.onnx_import.windows import Four, four, laid_out, maps, size_of, sizes_of, window

__all__ = ["OPERATORS", "pool_codes"]


def average_pool(builder: Builder, node: Node) -> Value:
    """AveragePool: sums over windows, and a division."""
    value = maps(builder, node, padded=True)
    kernel, stride, pads, own = window(node, value)
    if any(own) and not node.integer("count_include_pad", 0):
        raise UnsupportedModelError(f"{node.label} must count its padding (count_include_pad), or have none")
    return _average(builder, node, value, kernel, stride, pads, Fraction(1, kernel[0] * kernel[1]))


def global_average_pool(builder: Builder, node: Node) -> Value:
    """GlobalAveragePool."""
    kernel = _whole_map(builder, node)
    factor = Fraction(1, kernel[0] * kernel[1])
    return _average(builder, node, maps(builder, node), kernel, (1, 1), (0, 0, 0, 0), factor)


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


def reduce_sum(builder: Builder, node: Node) -> Value:
    """ReduceSum of whole maps."""
    return reduce_mean(builder, node, mean=False)


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


def _whole_map(builder: Builder, node: Node, anywhere: bool = False) -> tuple[int, int]:
    value = builder.value(node) if anywhere else maps(builder, node)
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
    sizes = sizes_of(node, source.tensor, operation)
    pooled = sizes == (1, 1) and tuple(kernel) == source.tensor.shape[1:] and not any(pads)
    one = rationals(np.full(channels, 1))
    made = Sum(operation, source, one, pooled).expression((channels, *sizes)).scaled(one * factor)
    result = Value(made, (channels, *(sizes if len(value.sizes) == 3 else sizes[1:])), value.integer)
    return laid_out(node, result)


def max_pool(builder: Builder, node: Node) -> Value:
    """MaxPool."""
    value = maps(builder, node, padded=True, pooled=True)
    kernel, stride, pads, _ = window(node, value)
    return _max_pool(builder, node, value, kernel, stride, pads)


def global_max_pool(builder: Builder, node: Node) -> Value:
    """GlobalMaxPool."""
    kernel = _whole_map(builder, node)
    return _max_pool(builder, node, maps(builder, node), kernel, (1, 1), (0, 0, 0, 0))


def _max_pool(builder: Builder, node: Node, value: Value, kernel: Any, stride: Any, pads: Any) -> Value:
    name = printable(node.name)
    try:
        operation = MaxPool2d(name, name, name, kernel, stride, tuple(pads))
    except NetworkError as error:
        raise UnsupportedModelError(f"{node.label} must make a pool: {error}") from None
    sizes = map_size(size_of(value), operation.kernel, operation.stride, operation.padding)
    if min(sizes) < 1:
        raise UnsupportedModelError(f"{node.label} must have a window that fits {size_of(value)}")
    after = (value.shape[0], *(sizes if len(value.sizes) == 3 else sizes[1:]))
    known = value.known
    if builder.quantized and not value.padded and known.code is None and not known.whole and not known.same_codes:
        waiting = (*value.pools, Pool(node, operation, sizes))
        return laid_out(node, dataclasses.replace(value, sizes=after, pools=waiting))
    source = builder.settle(value, node.label)
    if value.padded and source.code_of(value.fill) != 0:
        raise UnsupportedModelError(f"{node.label} must read what is padded with its smallest value, if at all")
    code = pool_codes(builder, source, Pool(node, operation, sizes), node.outputs[0])
    return laid_out(node, Value(Expression.of(code), after, value.integer))


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
    added = four([pads[place] for place in maps] + [pads[rank + place] for place in maps])
    top, left, bottom, right = (a + b for a, b in zip(value.padding, added, strict=True))
    return dataclasses.replace(value, padding=(top, left, bottom, right), fill=fill)


OPERATORS = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "MaxPool": max_pool,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
}
