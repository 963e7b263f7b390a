"""What a quantizer's integers are: Quant and BipolarQuant of QONNX, QuantizeLinear and DequantizeLinear of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

from golden.onnx_import.graph import SMALL_TYPES, Node, UnsupportedModelError, integer, type_bits
from golden.requantize import Rounding

__all__ = ["Levels", "linear_levels", "quant_levels"]

Reader = Callable[[int, str], np.ndarray]
"""The constant that a node reads at a place, by its place and what it is."""

MAX_BITS = 32
"""Of a quantizer: biases have as many."""

ROUNDINGS = {
    "ROUND": Rounding.HALF_EVEN, "HALF_EVEN": Rounding.HALF_EVEN, "CEIL": Rounding.CEIL, "FLOOR": Rounding.FLOOR,
    "UP": Rounding.AWAY, "DOWN": Rounding.ZERO, "HALF_UP": Rounding.HALF_AWAY, "HALF_DOWN": Rounding.HALF_ZERO,
}  # fmt: skip
"""QONNX's names."""

ROUNDED: dict[Rounding, Callable[[np.ndarray], np.ndarray]] = {
    Rounding.HALF_EVEN: np.rint,
    Rounding.CEIL: np.ceil,
    Rounding.FLOOR: np.floor,
    Rounding.ZERO: np.trunc,
    Rounding.AWAY: lambda x: np.sign(x) * np.ceil(np.abs(x)),
    Rounding.HALF_AWAY: lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    Rounding.HALF_ZERO: lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}


@dataclass(frozen=True, eq=False)
class Levels:
    """Integers q in ``low..high`` that stand for ``scale * (q - zero_point)``.

    Parameters
    ----------
    scale : float array
        Positive; broadcasts to what is quantized. One number: per tensor.
    zero_point : float array
        One number, or of the scale's shape.
    low, high : :class:`int`
        Smallest and largest q.
    rounding : :class:`~golden.requantize.Rounding`
        Of ``x / scale + zero_point``, or of ``x / scale`` alone.
    added_first : :class:`bool`
        The zero point is added before the rounding.
    bipolar : :class:`bool`
        q is 1 where x is not negative, else -1.
    thresholds : array or ``None``
        q is how many of these ascending numbers x reaches, and nothing else counts.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    low: int
    high: int
    rounding: Rounding = Rounding.HALF_EVEN
    added_first: bool = False
    bipolar: bool = False
    thresholds: np.ndarray | None = None

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The integers q of numbers, int64, in float32 step by step, as the executors compute them."""
        if self.bipolar:
            return np.where(x >= 0, 1, -1).astype(np.int64)
        if self.thresholds is not None:
            return np.searchsorted(self.thresholds.astype(np.float32), x.astype(np.float32), side="right")
        with np.errstate(over="ignore"):  # beyond float32 is beyond the last level
            scaled = x.astype(np.float32) / self.scale.astype(np.float32)
        if self.added_first:
            scaled = scaled + self.zero_point.astype(np.float32)
        rounded = np.clip(ROUNDED[self.rounding](scaled), -(2.0**40), 2.0**40).astype(np.int64)
        if not self.added_first:
            rounded = rounded + self.zero_point.astype(np.int64)
        return np.clip(rounded, self.low, self.high)

    @property
    def per_tensor(self) -> bool:
        """Whether one scale and zero point serve all channels."""
        return len(set(self.scale.ravel())) == 1 and len(set(self.zero_point.ravel())) == 1

    @property
    def step(self) -> Fraction:
        """The scale, per tensor."""
        return Fraction(float(self.scale.ravel()[0]))

    @property
    def zero(self) -> Fraction:
        """The zero point, per tensor."""
        return Fraction(float(self.zero_point.ravel()[0]))

    def within(self, low: int, high: int) -> Levels:
        """With the integers that a Clip behind it leaves."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


def quant_levels(node: Node, read: Reader) -> Levels:
    """The levels of a Quant or BipolarQuant."""
    scale = _scale(node, read(1, "its scale"))
    if node.operator == "BipolarQuant":
        return Levels(scale, np.zeros(1), -1, 1, Rounding.FLOOR, bipolar=True)
    zero_point = np.atleast_1d(read(2, "its zero point"))
    bits = integer(read(3, "its bit width"), f"{node.label}: its bit width", 1, MAX_BITS)
    if zero_point.dtype.kind not in "iuf" or not np.isfinite(zero_point).all():
        raise UnsupportedModelError(f"{node.label} must have finite numbers as its zero point")
    largest = np.abs(zero_point.astype(np.float64)).max(initial=0.0)
    if largest >= 1 << 31:
        raise UnsupportedModelError(f"{node.label} must have a zero point between -2**31 and 2**31, not {largest:g}")
    signed, narrow = node.integer("signed", 1), node.integer("narrow", 0)
    mode = node.attributes.get("rounding_mode", "ROUND")
    if not isinstance(mode, str) or mode.upper() not in ROUNDINGS:
        raise UnsupportedModelError(f"{node.label} must round by one of {', '.join(ROUNDINGS)}, not {mode!r}")
    if bits == 1 and signed:
        # As qonnx executes it: the sign of what would be rounded.
        if zero_point.any():
            raise UnsupportedModelError(f"{node.label} must have zero point 0, being signed with 1 bit")
        return Levels(scale, np.zeros(1), -1, 1, Rounding.FLOOR, bipolar=True)
    half = 1 << (bits - 1)
    low, high = (-half + bool(narrow), half - 1) if signed else (0, (1 << bits) - 1 - bool(narrow))
    if low >= high:
        raise UnsupportedModelError(f"{node.label} must have more than one level, not {low}..{high}")
    return Levels(scale, zero_point, low, high, ROUNDINGS[mode.upper()], added_first=True)


def linear_levels(node: Node, read: Reader, rank: int, *, axis: int = 1) -> Levels:
    """The levels of a QuantizeLinear or DequantizeLinear of a tensor with ``rank`` axes, the batch included.

    Its ``low`` and ``high`` are those of the zero point's type, where there is none of ``output_dtype`` or uint8.
    """
    if node.attributes.get("block_size", 0):
        raise UnsupportedModelError(f"{node.label} must have one scale for a tensor or channel, not blocks")
    scale = _scale(node, read(1, "its scale"))
    given = len(node.inputs) > 2 and node.inputs[2]
    zero_point = np.atleast_1d(read(2, "its zero point")) if given else np.zeros(1, _made_type(node))
    if zero_point.dtype.kind not in "iu" or (node.operator == "QuantizeLinear" and zero_point.dtype.itemsize > 2):
        raise UnsupportedModelError(f"{node.label} must make integers of at most 16 bits, not {zero_point.dtype.name}")
    axis = node.integer("axis", axis)
    if scale.size > 1:
        if scale.ndim != 1 or not -rank <= axis < rank or zero_point.size not in (1, scale.size):
            raise UnsupportedModelError(f"{node.label} must have one scale for a tensor or channel, not {scale.shape}")
        shape = [1] * rank
        shape[axis] = -1
        scale = scale.reshape(shape)
        zero_point = zero_point.reshape(shape) if zero_point.size > 1 else zero_point
    bits = type_bits(zero_point.dtype)
    low, high = (0, (1 << bits) - 1) if zero_point.dtype.kind == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return Levels(scale, zero_point, low, high)


def _made_type(node: Node) -> np.dtype[Any]:
    """What a QuantizeLinear without a zero point makes: its ``output_dtype``, uint8 if there is none."""
    kind = node.integer("output_dtype", 0)
    if kind == 0:
        return np.dtype(np.uint8)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    except KeyError:
        raise UnsupportedModelError(f"{node.label} must make a known type, not {kind}") from None
    return SMALL_TYPES.get(dtype.name, dtype)


def _scale(node: Node, scale: np.ndarray) -> np.ndarray:
    if scale.dtype.kind != "f" or not scale.size or not np.isfinite(scale).all() or not (scale > 0).all():
        raise UnsupportedModelError(f"{node.label} must have positive finite numbers as its scale")
    if math.frexp(float(scale.min()))[1] < -200:
        raise UnsupportedModelError(f"{node.label} must have a scale that float32 holds, not {scale.min()}")
    return np.atleast_1d(scale)
