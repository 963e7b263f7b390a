"""Operators that move or rename, and change no number."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnx

from golden.onnx_import.builder import Builder
from golden.onnx_import.graph import Node, UnsupportedModelError, integers
from golden.onnx_import.values import Value, canonical
from golden.requantize import Rounding

__all__ = ["OPERATORS", "axes_of"]

FAR = 1 << 31


def identity(builder: Builder, node: Node) -> Value:
    """Identity, Dropout: the same value."""
    return builder.value(node, padded=True, raw=True)


def cast(builder: Builder, node: Node) -> Value:
    """Cast: toward zero where it makes an integer of fractions."""
    value = builder.value(node, raw=True)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(node.integer("to", node.attributes["to"]))
    if dtype not in (np.float32, np.float64) and dtype.kind not in "iu":
        raise UnsupportedModelError(f"{node.label} must make integers, float32 or float64, not {dtype.name}")
    integer = dtype.kind in "iu"
    if value.expression is None:
        return builder.value(node) if integer else value
    expression = value.known
    if integer and not expression.whole:
        expression = expression.rounded(Rounding.ZERO)
    if integer:
        (low, high), limits = expression.limits(), np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            # Sums of 32 bits are what such networks are made for, though not all are proved to fit.
            if dtype.itemsize < 4:
                raise UnsupportedModelError(f"{node.label} must make what {dtype.name} holds, not {low}..{high}")
            builder.notices.append(
                f"{node.label} is taken never to exceed {dtype.name}, though {low}..{high} may occur."
            )
    return dataclasses.replace(value, expression=expression, integer=integer)


def flatten(builder: Builder, node: Node) -> Value:
    """Flatten: all of a frame in one dimension."""
    value = builder.value(node, raw=True)
    if node.integer("axis", 1) not in (1, -len(value.sizes)):
        raise UnsupportedModelError(f"{node.label} must flatten from axis 1 on, not {node.attributes['axis']}")
    return _reshaped(builder, node, (math.prod(value.sizes),))


def reshape(builder: Builder, node: Node) -> Value:
    """Reshape: to one dimension, or with axes of size 1 more or fewer."""
    value = builder.value(node, raw=True)
    if len(node.inputs) > 1:
        given = builder.constant(node, 1, "its shape").values
        wanted = integers(given, f"{node.label}: its shape", -1, FAR)
    else:
        wanted = list(node.integers("shape", None))
    sizes = [(1, *value.sizes)[i] if size == 0 else size for i, size in enumerate(wanted)]
    total = math.prod(value.sizes)
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        # The batch is 1 here; where -1 stands for it, the rest is all of a frame.
        sizes[sizes.index(-1)] = total // rest if rest and total % rest == 0 else 0
    if math.prod(sizes) != total or sizes[0] != 1:
        raise UnsupportedModelError(f"{node.label} must leave the batch alone, not reshape to {wanted}")
    return _reshaped(builder, node, tuple(sizes[1:]))


def squeeze(builder: Builder, node: Node) -> Value:
    """Squeeze: without axes of size 1."""
    sizes = [1, *builder.value(node, raw=True).sizes]
    axes = axes_of(builder, node, len(sizes))
    if axes is None:
        axes = [axis for axis, size in enumerate(sizes) if size == 1 and axis > 0]
    if 0 in axes or any(sizes[axis] != 1 for axis in axes):
        raise UnsupportedModelError(f"{node.label} must remove axes of size 1 behind the batch, not {axes}")
    return _reshaped(builder, node, tuple(size for axis, size in enumerate(sizes) if axis not in axes)[1:])


def unsqueeze(builder: Builder, node: Node) -> Value:
    """Unsqueeze: with more axes of size 1."""
    sizes = list(builder.value(node, raw=True).sizes)
    given = node.integers("axes", None)
    if given is None:
        given = integers(builder.constant(node, 1, "its axes").values, f"{node.label}: its axes", -FAR, FAR)
    rank = len(sizes) + 1 + len(given)
    axes = sorted(axis % rank for axis in given)
    if 0 in axes or rank > 8:
        raise UnsupportedModelError(f"{node.label} must add axes behind the batch, not {axes}")
    for axis in axes:
        sizes.insert(axis - 1, 1)
    return _reshaped(builder, node, tuple(sizes))


def axes_of(builder: Builder, node: Node, rank: int) -> list[int] | None:
    """The axes that a node is given, counted from the front, if there are any."""
    axes = node.integers("axes", None)
    if axes is None:
        constant = builder.optional(node, 1, "its axes")
        axes = None if constant is None else integers(constant.values, f"{node.label}: its axes", -FAR, FAR)
    return None if axes is None else [axis % rank for axis in axes]


def transpose(builder: Builder, node: Node) -> Value:
    """Transpose: the batch stays; where the channels are is written down, and no number moves."""
    value = builder.value(node, raw=True)
    rank = len(value.sizes) + 1
    perm = node.integers("perm", list(range(rank))[::-1])
    if sorted(perm) != list(range(rank)) or perm[0] != 0:
        raise UnsupportedModelError(f"{node.label} must leave the batch in front, not permute by {list(perm)}")
    if rank < 3:
        return value
    axes = "".join(value.axes[axis - 1] for axis in perm[1:])
    order = axes if rank == 4 else axes.replace("W", "HW")
    steps = value.steps
    if value.expression is None:
        steps = (*steps, lambda x: x.transpose(perm))
    return dataclasses.replace(value, sizes=tuple(value.sizes[axis - 1] for axis in perm[1:]), order=order, steps=steps)


def _reshaped(builder: Builder, node: Node, sizes: tuple[int, ...]) -> Value:
    value = builder.value(node, raw=True)
    if value.expression is None:
        value = dataclasses.replace(value, steps=(*value.steps, lambda x: x.reshape(len(x), *sizes)))
    if len(sizes) == 1 and sizes[0] == math.prod(value.sizes):
        return dataclasses.replace(value, sizes=sizes)
    shape = canonical(value.sizes, value.order) if value.expression is None else value.shape
    if len(sizes) not in (1, 2, 3) or math.prod(sizes) != math.prod(shape) or canonical(sizes, value.order) != shape:
        what = f"make {sizes} of {shape}"
        if len(sizes) == 1:
            raise UnsupportedModelError(f"{node.label} must keep all of {shape}, not make {sizes} of it")
        raise UnsupportedModelError(f"{node.label} must flatten a frame, or add and remove axes of size 1, not {what}")
    return dataclasses.replace(value, sizes=sizes)


OPERATORS = {
    "Cast": cast,
    "Dropout": identity,
    "Flatten": flatten,
    "Identity": identity,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
