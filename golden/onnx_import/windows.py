"""Windows on maps: where they lie, and where the file has the channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from golden.network import Conv2d, MaxPool2d, Tensor
from golden.onnx_import.builder import Builder
from golden.onnx_import.graph import Node, UnsupportedModelError
from golden.onnx_import.result import AXES
from golden.onnx_import.values import Value

__all__ = ["Four", "four", "laid_out", "maps", "pads_of", "pair", "size_of", "sizes_of", "window"]

Four = tuple[int, int, int, int]
"""(top, left, bottom, right)."""


def maps(builder: Builder, node: Node, *, padded: bool = False, pooled: bool = False) -> Value:
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


def laid_out(node: Node, made: Value) -> Value:
    """What a layer made, with the channels behind where the node has them there."""
    if not node.channels_last or len(made.sizes) == 1:
        return made
    return dataclasses.replace(made, sizes=(*made.sizes[1:], made.sizes[0]), order="HWC")


def size_of(value: Value) -> tuple[int, int]:
    """Height and width of what a value is behind its pools."""
    return value.pools[-1].size if value.pools else value.shape[1:]


def sizes_of(node: Node, source: Tensor, operation: Conv2d | MaxPool2d) -> tuple[int, int]:
    """Height and width of what an operation makes."""
    sizes = operation.output_size(source)
    if min(sizes) < 1:
        raise UnsupportedModelError(f"{node.label} must have a window that fits {source.shape[1:]}")
    return sizes


def window(node: Node, value: Value) -> tuple[Any, Any, Any, Any]:
    """Kernel, stride, padding and the padding without what a Pad before it adds, of a pool."""
    axes = len(value.sizes) - 1
    if axes not in (1, 2):
        raise UnsupportedModelError(f"{node.label} must pool maps (N, C, H, W) or (N, C, L)")
    kernel, stride, dilation = (
        pair(node.integers(key, [1] * axes)) for key in ("kernel_shape", "strides", "dilations")
    )
    if dilation != (1, 1):
        raise UnsupportedModelError(f"{node.label} must have dilations of 1, not {dilation}")
    if min(*kernel, *stride) < 1:
        raise UnsupportedModelError(f"{node.label} must have windows and strides of at least 1, not {kernel}, {stride}")
    pads = list(pads_of(node, value, kernel, stride, (1, 1)))
    own = [a - b for a, b in zip(pads, value.padding, strict=True)]
    if node.integer("ceil_mode", 0):
        for axis in (0, 1):
            extent = size_of(value)[axis] + pads[axis] + pads[axis + 2]
            over = (extent - kernel[axis]) % stride[axis]
            # One more window, if it begins inside the map or the padding before it.
            last = extent - kernel[axis] - over + stride[axis]
            if over and last < extent - pads[axis + 2]:
                if node.operator == "AveragePool":
                    raise UnsupportedModelError(f"{node.label} must not average windows that end outside (ceil_mode)")
                pads[axis + 2] += stride[axis] - over
    return kernel, stride, tuple(pads), own


def pads_of(
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
            extent = size_of(value)[axis] + value.padding[axis] + value.padding[axis + 2]
            span = (kernel[axis] - 1) * dilation[axis] + 1
            total = max((-(-extent // stride[axis]) - 1) * stride[axis] + span - extent, 0)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        own: Four = (before[0], before[1], after[0], after[1])
    elif mode in ("NOTSET", "VALID"):
        own = four(list(node.integers("pads", [0] * 2 * axes)) if mode == "NOTSET" else [0] * 2 * axes)
    else:
        raise UnsupportedModelError(f"{node.label} must have auto_pad NOTSET, VALID or SAME_*, not {mode}")
    if min(own) < 0:
        raise UnsupportedModelError(f"{node.label} must have pads of at least 0, not {own}")
    if any(own) and value.fill:
        raise UnsupportedModelError(f"{node.label} must not pad with 0 what a Pad before it pads with {value.fill}")
    top, left, bottom, right = (a + b for a, b in zip(own, value.padding, strict=True))
    return top, left, bottom, right


def pair(values: Sequence[int]) -> tuple[int, int]:
    """(y, x) of one or two axes; of one it is x."""
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def four(pads: list[int]) -> Four:
    """(top, left, bottom, right) of the begins and ends of one or two axes."""
    if len(pads) == 2:
        return 0, int(pads[0]), 0, int(pads[1])
    top, left, bottom, right = (int(x) for x in pads)
    return top, left, bottom, right
