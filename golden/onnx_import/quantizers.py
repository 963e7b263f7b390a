"""Quantizers: where real numbers become codes, by the file's own rounding."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np

from golden.affine import Code, Exact, Expression, InexactError, rationals
from golden.network import Tensor
from golden.onnx_import.builder import MAX_THRESHOLD_BITS, Builder
from golden.onnx_import.constants import Constant
from golden.onnx_import.graph import Node, UnsupportedModelError, integer
from golden.onnx_import.levels import Levels, linear_levels, quant_levels
from golden.onnx_import.pools import pool_codes
from golden.onnx_import.values import Value, canonical
from golden.requantize import Rounding

__all__ = ["OPERATORS"]


def quant(builder: Builder, node: Node) -> Value:
    """Quant and BipolarQuant of QONNX: codes, whose values are real numbers again."""
    value = builder.value(node, raw=True, pooled=True)
    levels = quant_levels(node, lambda i, what: builder.constant(node, i, what).values)
    return _quantized(builder, node, value, levels, levels, node.outputs[0])


def quantize_linear(builder: Builder, node: Node) -> Value:
    """QuantizeLinear, with the Clips behind it that leave fewer levels: codes, whose values are integers."""
    value = builder.value(node, raw=True, pooled=True)
    levels = linear_levels(node, lambda i, what: builder.constant(node, i, what).values, len(value.sizes) + 1)
    made = levels
    following = builder.readers[node.outputs[0]]
    while len(following) == 1 and following[0].operator == "Clip":
        bounds = [builder.optional(following[0], i, "a bound") for i in (1, 2)]
        low, high = (
            default if bound is None else integer(bound.values, f"{following[0].label}: a bound", -65536, 65536)
            for bound, default in zip(bounds, (made.low, made.high), strict=True)
        )
        builder.hidden.add(following[0].inputs[0])
        made = made.within(low, high)
        following = builder.readers[following[0].outputs[0]]
    if made.low > made.high:
        raise UnsupportedModelError(f"{node.label} must be clipped to some of its levels {levels.low}..{levels.high}")
    integers = dataclasses.replace(levels, scale=np.ones(1), zero_point=np.zeros(1))
    found = _quantized(builder, node, value, made, integers, node.outputs[0])
    return dataclasses.replace(found, integer=True)


def dequantize_linear(builder: Builder, node: Node) -> Value:
    """DequantizeLinear: the numbers that integers stand for."""
    value = builder.value(node)
    zero_point = builder.optional(node, 2, "its zero point")
    if zero_point is None:
        node = dataclasses.replace(node, inputs=node.inputs[:2])
    levels = linear_levels(node, lambda i, what: builder.constant(node, i, what).values, len(value.sizes) + 1)
    channels = rationals(np.full(value.shape[0], 1))
    scale = builder.per_channel(node, Constant(levels.scale), value)
    zero = builder.per_channel(node, Constant(levels.zero_point), value)
    expression = value.known
    if expression.rounding is not None or expression.clamped:
        expression = builder.codes(node, value)
    made = expression.shifted(-zero * channels).scaled(scale)
    made.code = made.same_codes
    return dataclasses.replace(value, expression=made, integer=False)


def _quantized(builder: Builder, node: Node, value: Value, levels: Levels, meaning: Levels, name: str) -> Value:
    """The codes of a value: integers by ``levels``, which stand for what ``meaning`` says."""
    _check_fits(node, value, levels)
    if value.expression is None:
        code = builder.quantize_input(node, value, levels)
        if meaning is not levels:
            # As integers, which the input form counts from its smallest.
            code = dataclasses.replace(code, scale=Fraction(1), offset=Fraction(levels.low))
        return dataclasses.replace(value, expression=Expression.of(code), steps=())
    if levels.bipolar:
        made = value.known if value.known.rounding is None else builder.codes(node, value)
        made = made.rounded(Rounding.FLOOR).clipped(Fraction(-1), Fraction(0))
        code = builder.emit(_before(value, name), made, 2 * levels.step)
        code = dataclasses.replace(code, scale=2 * levels.step, offset=levels.step * (2 * code.offset + 1))
        return _pooled(builder, node, value, code)
    if not levels.per_tensor:
        raise UnsupportedModelError(f"{node.label} must have one scale for all channels of what is computed")
    zero = levels.zero
    if zero.denominator != 1 and not levels.added_first:
        raise UnsupportedModelError(f"{node.label} must have an integer as its zero point")
    expression = value.known
    if expression.rounding is not None:
        expression = builder.codes(node, value)
    channels = rationals(np.full(expression.shape[0], 1))
    expression = expression.scaled(channels / levels.step)
    low, high, first = levels.low, levels.high, zero
    if levels.added_first:
        expression = expression.shifted(channels * zero)
    else:
        low, high, first = low - int(zero), high - int(zero), Fraction(0)
    # What only lies between two integers as a number is not known to be one of them.
    expression = expression.rounded(levels.rounding).clipped(Fraction(low), Fraction(high))
    place = int(first) if first.denominator == 1 and low <= first <= high else low
    code = _same_integers(expression) or builder.emit(_before(value, name), expression, levels.step, place)
    # From the integers that were rounded to those of the file, and to what they stand for.
    offset = code.offset + (0 if levels.added_first else zero)
    offset = (offset - meaning.zero) * meaning.step
    code = dataclasses.replace(code, scale=code.scale * meaning.step, offset=offset)
    return _pooled(builder, node, value, code)


def _before(value: Value, name: str) -> str:
    """What the codes of ``name`` are called, or those before their pools."""
    return f"{name}.unpooled" if value.pools else name


def _pooled(builder: Builder, node: Node, value: Value, code: Code) -> Value:
    """The value of codes, behind the pools that waited for them."""
    for place, pool in enumerate(value.pools, 1):
        name = node.outputs[0] if place == len(value.pools) else f"{node.outputs[0]}.unpooled"
        code = pool_codes(builder, code, pool, name)
    return dataclasses.replace(value, expression=Expression.of(code), pools=())


def _same_integers(expression: Expression) -> Code | None:
    """The codes that an expression of integers has already, with these integers as their values."""
    if expression.rounding is not None:
        return None
    same = expression.same_codes
    return same if same is not None and same.scale == 1 else None


def _check_fits(node: Node, value: Value, levels: Levels) -> None:
    shape = (1, *value.sizes)
    for numbers in (levels.scale, levels.zero_point):
        try:
            fits = np.broadcast_shapes(numbers.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise UnsupportedModelError(f"{node.label} must have a scale that fits {shape}, not {numbers.shape}")


def multi_threshold(builder: Builder, node: Node) -> Value:
    """MultiThreshold of FINN: how many thresholds a number reaches, times ``out_scale``, plus ``out_bias``."""
    value = builder.value(node, raw=True, pooled=True)
    given = builder.constant(node, 1, "its thresholds").values
    channels = canonical(value.sizes, value.order)[0]
    if given.dtype.kind not in "iuf" or given.ndim != 2 or not np.isfinite(given).all():
        raise UnsupportedModelError(f"{node.label} must have finite thresholds (channels, steps), not {given.shape}")
    steps = given.shape[1]
    if given.shape[0] not in (1, channels) or not 1 <= steps < 1 << MAX_THRESHOLD_BITS:
        raise UnsupportedModelError(
            f"{node.label} must have 1 to {(1 << MAX_THRESHOLD_BITS) - 1} thresholds for all or each of {channels} "
            f"channels, not {given.shape}"
        )
    layout = node.attributes.get("data_layout") or {1: "NC", 2: "NWC", 3: "NCHW"}[len(value.sizes)]
    if "".join(("N", *value.axes)) != layout:
        raise UnsupportedModelError(
            f"{node.label} must read {', '.join(layout)}, not {', '.join(('N', *value.axes))}: see its data_layout"
        )
    scale, bias = (Fraction(float(node.attributes.get(key, x))) for key, x in (("out_scale", 1.0), ("out_bias", 0.0)))
    if scale <= 0:
        raise UnsupportedModelError(f"{node.label} must have a positive out_scale, not {float(scale):g}")
    if value.expression is None:
        if given.shape[0] > 1:
            raise UnsupportedModelError(f"{node.label} must have the same thresholds for the whole input")
        thresholds = Levels(np.ones(1), np.zeros(1), 0, steps, thresholds=np.sort(given[0]))
        code = dataclasses.replace(builder.quantize_input(node, value, thresholds), scale=scale, offset=bias)
        return dataclasses.replace(value, expression=Expression.of(code), steps=())
    expression = value.known
    if expression.rounding is not None:
        expression = builder.codes(node, value)
    levels = []
    for channel in range(channels):
        row = sorted(rationals(given[channel if given.shape[0] > 1 else 0]))
        # A number that is clipped reaches what its lower bound reaches, and nothing above its upper bound.
        low, high = expression.low[channel], expression.high[channel]
        levels.append(tuple(-FAR if t <= low else FAR if t > high else t for t in row))
    bits = steps.bit_length()
    zero = -bias / scale
    tensor = Tensor(
        builder.tensor_name(_before(value, node.outputs[0])), value.shape, bits=bits, scale=float(scale),
        zero_point=int(zero) if zero.denominator == 1 and 0 <= zero < 1 << bits else 0,
    )  # fmt: skip
    exact = Exact(expression.offset, rationals(np.zeros(channels, np.int64)), expression.offset, bits,
                  levels=tuple(levels))  # fmt: skip
    if len(expression.codes) + (expression.acc is not None) > 1:
        raise UnsupportedModelError(f"{node.label} must read one tensor, not a sum of two: put a Quant behind it")
    try:
        builder.append(expression, exact, tensor, node.outputs[0])
    except InexactError as error:
        raise UnsupportedModelError(f"{node.label} {str(error).format(name=node.inputs[0])}") from None
    made = _pooled(builder, node, value, Code(tensor, 0, steps, scale, bias))
    return dataclasses.replace(made, integer=False)


FAR = Fraction(1 << 200)
"""A threshold that nothing reaches; everything reaches its opposite."""

OPERATORS = {
    "BipolarQuant": quant,
    "DequantizeLinear": dequantize_linear,
    "IntQuant": quant,
    "MultiThreshold": multi_threshold,
    "Quant": quant,
    "QuantizeLinear": quantize_linear,
}
