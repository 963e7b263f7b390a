"""Operators on constants alone, with ONNX's meaning; quantized weights keep their integers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from golden.affine import rationals
from golden.onnx_import.graph import MAX_CONSTANT, Node, UnsupportedModelError
from golden.onnx_import.levels import Levels, linear_levels, quant_levels

__all__ = ["CONSTANT_OPERATORS", "Constant", "compute"]


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant, and what it was quantized to.

    Parameters
    ----------
    values : array
        Its numbers in the file's type.
    integers, scale : int64 and float64 arrays of its shape, or ``None``
        The number that it stands for is ``integers * scale``, of which ``values`` is the nearest in the file's type.
    """

    values: np.ndarray
    integers: np.ndarray | None = None
    scale: np.ndarray | None = None

    @property
    def exact(self) -> np.ndarray:
        """Its numbers as rationals, in one dimension."""
        if self.integers is None or self.scale is None:
            return rationals(self.values)
        return rationals(self.integers) * rationals(self.scale)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Constant:
        """With every array moved in the same way."""
        if self.integers is None or self.scale is None:
            return Constant(move(self.values))
        return Constant(move(self.values), move(self.integers), move(self.scale))


def compute(node: Node, inputs: list[Constant], spend: Callable[..., None]) -> Constant:
    """What a node makes of constants; ``spend(node, computed=...)`` is told before how many elements it may be.

    Raises
    ------
    UnsupportedModelError
        If it cannot be computed, or would be larger than any constant may be.
    """
    try:
        spend(node, computed=_size(node, inputs))
        if node.operator in _QUANTIZERS:
            return _QUANTIZERS[node.operator](node, inputs)
        with np.errstate(all="ignore"):
            if node.operator in _MOVES:
                others = [each.values for each in inputs[1:]]
                return inputs[0].moved(lambda x: _MOVES[node.operator](node, x, *others))
            made = Constant(np.asarray(_COMPUTED[node.operator](node, *(each.values for each in inputs))))
            return _rescaled(node, inputs, made)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(f"{node.label} must have constants that can be computed: {error}") from None


def _rescaled(node: Node, inputs: list[Constant], made: Constant) -> Constant:
    """``made`` with the integers of a quantized constant, where it is that one times another positive one."""
    if node.operator != "Mul" or sum(each.integers is not None for each in inputs) != 1:
        return made
    quantized, factor = inputs if inputs[0].integers is not None else inputs[::-1]
    if quantized.values.shape != made.values.shape or not (factor.values > 0).all():
        return made
    assert quantized.scale is not None
    return Constant(made.values, quantized.integers, quantized.scale * factor.values.astype(np.float64))


def _size(node: Node, inputs: list[Constant]) -> int:
    """How many elements a node may make, or the refusal of what no constant may have."""
    shapes = [each.values.shape for each in inputs]
    if node.operator in ("Mul", "Add", "Sub", "Div", "Max", "Min"):
        size = math.prod(np.broadcast_shapes(*shapes))
    elif node.operator == "Gather":
        size = math.prod(shapes[0]) * math.prod(shapes[1])
    elif node.operator == "Constant":
        size = 0  # the file's own
    else:
        size = sum(math.prod(shape) for shape in shapes)
    if size > MAX_CONSTANT:
        raise UnsupportedModelError(f"{node.label} must make at most {MAX_CONSTANT} elements, not {size}")
    return size


def _constant_value(node: Node) -> np.ndarray:
    (key, value), *rest = node.attributes.items()
    if rest or key not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a value, not {', '.join(node.attributes)}")
    kind = np.float32 if "float" in key else np.int64 if "int" in key else None
    return np.asarray(value, kind)


def _axes(node: Node, axes: tuple[np.ndarray, ...]) -> tuple[int, ...] | None:
    given = node.integers("axes", None)
    if given is None and axes:
        given = [int(x) for x in axes[0].ravel()]
    return None if given is None else tuple(given)


def _slice(node: Node, x: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    if inputs:
        starts, ends, *rest = ([int(v) for v in each.ravel()] for each in inputs)
        axes, steps = [*rest, None, None][:2]
    else:
        starts, ends, axes, steps = node.integers("starts"), node.integers("ends"), node.integers("axes"), None
    chosen = [slice(None)] * x.ndim
    for i, axis in enumerate(axes or range(len(starts))):
        chosen[axis] = slice(starts[i], ends[i], steps[i] if steps else 1)
    return x[tuple(chosen)]


def _reshape(node: Node, x: np.ndarray, *shape: np.ndarray) -> np.ndarray:
    sizes = [int(v) for v in shape[0].ravel()] if shape else node.integers("shape")
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(sizes)])


def _flatten(node: Node, x: np.ndarray) -> np.ndarray:
    axis = node.integer("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _clip(node: Node, x: np.ndarray, *bounds: np.ndarray) -> np.ndarray:
    low, high = (*bounds, None, None)[:2]
    return np.clip(x, node.attributes.get("min", low), node.attributes.get("max", high)).astype(x.dtype)


def _divide(node: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        raise ValueError("a division by 0")
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _quant(node: Node, inputs: list[Constant]) -> Constant:
    levels = quant_levels(node, lambda i, what: _given(node, inputs, i, what))
    return _quantized(node, inputs[0].values, levels)


def _quantized(node: Node, values: np.ndarray, levels: Levels) -> Constant:
    _check_numbers(node, values)
    if np.broadcast_shapes(levels.scale.shape, values.shape) != values.shape:
        given = levels.scale.shape
        raise UnsupportedModelError(f"{node.label} must have a scale that fits {values.shape}, not {given}")
    integers = levels.quantize(values)
    return _dequantized(node, integers, levels)


def _dequantized(node: Node, integers: np.ndarray, levels: Levels) -> Constant:
    zero_point = levels.zero_point
    if not np.array_equal(zero_point, np.rint(zero_point)):
        raise UnsupportedModelError(f"{node.label} must have an integer as the zero point of a constant")
    difference = integers.astype(np.int64) - zero_point.astype(np.int64)
    scale = np.broadcast_to(levels.scale.astype(np.float64), difference.shape)
    with np.errstate(all="ignore"):
        values = difference.astype(np.float32) * np.broadcast_to(levels.scale, difference.shape).astype(np.float32)
    return Constant(values.astype(np.float32), difference, scale)


def _quantize_linear(node: Node, inputs: list[Constant]) -> Constant:
    values = inputs[0].values
    _check_numbers(node, values)
    levels = linear_levels(node, lambda i, what: _given(node, inputs, i, what), values.ndim)
    np.broadcast_shapes(levels.scale.shape, values.shape)
    return Constant(levels.quantize(values))


def _dequantize_linear(node: Node, inputs: list[Constant]) -> Constant:
    values = inputs[0].values
    if values.dtype.kind not in "iu":
        raise UnsupportedModelError(f"{node.label} must read integers, not {values.dtype.name}")
    reader = inputs if len(inputs) > 2 else [*inputs, Constant(np.zeros(1, values.dtype))]
    node = node if len(inputs) > 2 else dataclasses.replace(node, inputs=(*node.inputs, "zero point"))
    levels = linear_levels(node, lambda i, what: _given(node, reader, i, what), values.ndim)
    if np.broadcast_shapes(levels.scale.shape, values.shape) != values.shape:
        given = levels.scale.shape
        raise UnsupportedModelError(f"{node.label} must have a scale that fits {values.shape}, not {given}")
    return _dequantized(node, values, levels)


def _given(node: Node, inputs: list[Constant], index: int, what: str) -> np.ndarray:
    if index >= len(inputs):
        raise UnsupportedModelError(f"{node.label} must have a constant as {what}")
    return inputs[index].values


def _check_numbers(node: Node, values: np.ndarray) -> None:
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise UnsupportedModelError(f"{node.label} must read finite numbers")


_MOVES: dict[str, Any] = {
    "Flatten": _flatten,
    "Gather": lambda node, x, i: np.take(x, i, axis=node.integer("axis", 0)),
    "Identity": lambda node, x: x,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": lambda node, x, *axes: np.squeeze(x, _axes(node, axes)),
    "Transpose": lambda node, x: np.transpose(x, node.integers("perm")),
    "Unsqueeze": lambda node, x, *axes: np.expand_dims(x, _axes(node, axes) or ()),
}
"""Operators that only move numbers."""

_COMPUTED: dict[str, Any] = {
    "Add": lambda node, a, b: a + b,
    "Cast": lambda node, x: x.astype(onnx.helper.tensor_dtype_to_np_dtype(node.integer("to", 0))),
    "Clip": _clip,
    "Concat": lambda node, *xs: np.concatenate(xs, axis=node.integer("axis", 0)),
    "Constant": _constant_value,
    "Div": _divide,
    "Max": lambda node, a, b: np.maximum(a, b),
    "Min": lambda node, a, b: np.minimum(a, b),
    "Mul": lambda node, a, b: a * b,
    "Neg": lambda node, x: -x,
    "Sub": lambda node, a, b: a - b,
}
"""Operators that make new numbers."""

_QUANTIZERS: dict[str, Callable[[Node, list[Constant]], Constant]] = {
    "BipolarQuant": _quant,
    "DequantizeLinear": _dequantize_linear,
    "IntQuant": _quant,
    "Quant": _quant,
    "QuantizeLinear": _quantize_linear,
}

CONSTANT_OPERATORS = frozenset((*_MOVES, *_COMPUTED, *_QUANTIZERS))
"""Operators that are computed where all they read is constant."""
