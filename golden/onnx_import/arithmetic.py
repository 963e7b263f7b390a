"""Operators that change an expression: what is added, multiplied, divided, rounded and clipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from golden.affine import INFINITY, Expression, rationals
from golden.onnx_import.builder import Builder
from golden.onnx_import.constants import Constant
from golden.onnx_import.graph import Node, UnsupportedModelError
from golden.onnx_import.result import Step
from golden.onnx_import.values import Value
from golden.requantize import Rounding, norm_gain

__all__ = ["OPERATORS", "shift"]


def _operands(builder: Builder, node: Node) -> tuple[Value, np.ndarray, bool]:
    """The computed operand, the constant one per channel as rationals, and whether the constant comes first."""
    if len(node.inputs) != 2:
        raise UnsupportedModelError(f"{node.label} must have two operands, not {len(node.inputs)}")
    first = node.inputs[0] in builder.constants
    value = builder.value(node, int(first), pooled=True)
    constant = builder.constant(node, int(not first), "an operand")
    return value, builder.per_channel(node, constant, value), first


def _before_quantizer(builder: Builder, node: Node) -> Value | None:
    """The input before its quantizer with one step more, if that is what the node reads."""
    for index, name in enumerate(node.inputs[:2]):
        value = builder.values.get(name)
        other = node.inputs[1 - index] if len(node.inputs) == 2 else ""
        if value is not None and value.expression is None and other in builder.constants:
            constant = builder.constants[other].values.astype(np.float32)
            if constant.size == 1:
                return dataclasses.replace(value, steps=(*value.steps, _step(node.operator, constant, index == 1)))
    return None


def _step(operator: str, constant: np.ndarray, first: bool) -> Step:
    """What an operator does to the input with one number."""
    function = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}[operator]
    number = constant.reshape(())

    def step(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(function(*((number, x) if first else (x, number))), np.float32)

    return step


def multiply(builder: Builder, node: Node) -> Value:
    """Mul."""
    before = _before_quantizer(builder, node)
    if before is not None:
        return before
    value, factor, _ = _operands(builder, node)
    fine = builder.quantized or all(x.denominator == 1 or abs(x.numerator) == 1 for x in factor)
    return _scale(builder, node, value, factor, fine)


def _scale(builder: Builder, node: Node, value: Value, factor: np.ndarray, fine: bool = True) -> Value:
    expression = value.known
    if all(x == 1 for x in factor):
        return value
    if value.pools and any(x <= 0 for x in factor):
        builder.unquantized(node.label, node.inputs[0])
    if expression.rounding is not None or (not builder.quantized and _clipped_integers(expression)):
        expression = builder.codes(node, value)
    scaled = expression.scaled(factor)
    if not fine:
        scaled.fractional = scaled.fractional or node.label
    return dataclasses.replace(value, expression=scaled)


def _clipped_integers(expression: Expression) -> bool:
    """Whether it holds integers that are clipped on both sides: codes, though nothing was rounded."""
    bounds = (*expression.low, *expression.high)
    return expression.code is None and expression.whole and all(abs(x) != INFINITY for x in bounds)


def negate(builder: Builder, node: Node) -> Value:
    """Neg."""
    value = builder.value(node)
    return _scale(builder, node, value, rationals(np.full(value.shape[0], -1)))


def divide(builder: Builder, node: Node) -> Value:
    """Div: integers are rounded toward zero, or down where ``rounding`` says so."""
    before = _before_quantizer(builder, node)
    if before is not None:
        return before
    value, divisor, first = _operands(builder, node)
    if first or any(x <= 0 for x in divisor):
        raise UnsupportedModelError(f"{node.label} must divide a computed tensor by positive constants")
    if all(x == 1 for x in divisor):
        return value
    if node.attributes.get("rounding") is None and not value.integer:
        return _scale(builder, node, value, 1 / divisor)
    rounding = Rounding.FLOOR if node.attributes.get("rounding") == "floor" else Rounding.ZERO
    expression = value.known
    # floor(floor(x)/d) = floor(x/d); and toward 0, whether x was rounded down or toward 0, if x/d is not negative.
    if expression.rounding not in (None, Rounding.FLOOR, Rounding.ZERO):
        expression = builder.codes(node, value)
    rounding = Rounding.ZERO if expression.rounding is Rounding.ZERO else rounding
    scaled = dataclasses.replace(expression, rounding=None).scaled(1 / divisor)
    return dataclasses.replace(value, expression=scaled.rounded(rounding))


def add(builder: Builder, node: Node) -> Value:
    """Add: of two tensors, of a tensor and constants, or quantlib's with constants inside."""
    before = _before_quantizer(builder, node)
    if before is not None:
        return before
    if {f"{operand}_mul" for operand in ("in1", "in2", "out")} <= set(node.attributes):
        return _requantizing_add(builder, node)
    if not set(node.inputs) & set(builder.constants):
        return _sum(builder, node, builder.value(node, 0), builder.value(node, 1), 1)
    value, offset, _ = _operands(builder, node)
    return shift(builder, node, value, offset)


def subtract(builder: Builder, node: Node) -> Value:
    """Sub."""
    before = _before_quantizer(builder, node)
    if before is not None:
        return before
    if not set(node.inputs) & set(builder.constants):
        return _sum(builder, node, builder.value(node, 0), builder.value(node, 1), -1)
    value, offset, first = _operands(builder, node)
    if first:
        minus = _scale(builder, node, value, rationals(np.full(value.shape[0], -1)))
        return shift(builder, node, minus, offset)
    return shift(builder, node, value, -offset)


def shift(builder: Builder, node: Node, value: Value, offset: np.ndarray) -> Value:
    """A value plus a rational per channel."""
    fine = all(x.denominator == 1 for x in offset)
    expression = value.known
    alike = len(set(offset)) == 1
    floors = expression.rounding in (None, Rounding.FLOOR)
    if not floors or (expression.rounding and not (fine and alike)):
        expression = builder.codes(node, value)
    shifted = expression.shifted(offset)
    if not fine and not builder.quantized:
        shifted.fractional = shifted.fractional or node.label
    return dataclasses.replace(value, expression=shifted)


def _sum(builder: Builder, node: Node, a: Value, b: Value, sign: int) -> Value:
    """a + sign*b of two computed tensors."""
    if a.shape != b.shape or a.sizes != b.sizes or a.order != b.order:
        raise UnsupportedModelError(f"{node.label} must add tensors of one shape, not {a.sizes} and {b.sizes}")
    first = a.known if a.known.affine else builder.codes(node, a)
    second = b.known if b.known.affine else builder.codes(node, b)
    merged = _merged(first, second, sign)
    if merged is not None:
        return dataclasses.replace(a, expression=merged)
    accumulators = (first.acc is not None) + (second.acc is not None)
    if accumulators > 1 or accumulators + len(first.codes) + len(second.codes) > 2:
        # Too much for one operation: one of the two becomes codes of its own, the second if it can.
        if second.acc is not None or len(second.codes) > 1:
            second = builder.codes(node, b)
        if len(first.codes) > 1 or (first.acc is not None and len(first.codes) + len(second.codes) > 1):
            first = builder.codes(node, a)
    second = second.scaled(rationals(np.full(second.shape[0], sign)))
    return dataclasses.replace(a, expression=dataclasses.replace(first.plus(second), origin=node.name))


def _merged(first: Expression, second: Expression, sign: int) -> Expression | None:
    """The sum of two convolutions of the same codes in the same way as one, if that is what they are."""
    if first.acc is None or second.acc is None or first.codes or second.codes:
        return None
    assert first.slope is not None and second.slope is not None
    if len(set(first.slope)) > 1 or len(set(second.slope)) > 1:
        return None
    made = first.acc.plus(second.acc, (first.slope[0], sign * second.slope[0]))
    if made is None:
        return None
    operation, unit = made
    channels = rationals(np.full(first.shape[0], 1))
    whole = dataclasses.replace(first.acc, operation=operation, scale=channels * unit / first.acc.source.scale)
    return dataclasses.replace(
        first, acc=whole, slope=channels * unit, offset=first.offset + sign * second.offset, code=None
    )


def _requantizing_add(builder: Builder, node: Node) -> Value:
    """quantlib's own Add: both operands, and then the sum, through clip(floor((x*mul + add) / 2**shift)).

    What the file does not say is taken as DORY takes it: signed if an operand is.
    """
    values = [builder.value(node, i) for i in (0, 1)]
    signed = min(value.known.limits()[0] for value in values) < 0

    def requantized(value: Value, prefix: str, output: str) -> Value:
        given = {key: node.integer(f"{prefix}_{key}", 0) for key in ("mul", "add", "shift", "n_levels", "rq")}
        if not given["rq"]:
            return value
        if not 0 <= given["shift"] <= 62 or given["n_levels"] < 2:
            raise UnsupportedModelError(f"{node.label} must have shifts of 0 to 62 and at least 2 levels")
        ones = rationals(np.ones(value.shape[0], np.int64))
        value = shift(builder, node, _scale(builder, node, value, ones * given["mul"]), ones * given["add"])
        expression = value.known.scaled(ones / (1 << given["shift"])).rounded(Rounding.FLOOR)
        half, odd = divmod(given["n_levels"], 2)
        ranges = [(0, given["n_levels"] - 1), (-half, half - 1 + odd)]
        if f"{prefix}_signed" not in node.attributes and any(
            expression.clipped(*map(Fraction, each)).clips for each in ranges
        ):
            builder.notices.append(
                f"{node.label} does not say whether its {prefix} is signed: taken to be "
                f"{'signed, as an operand is' if signed else 'unsigned, as both operands are'}."
            )
        chosen = ranges[bool(node.attributes.get(f"{prefix}_signed", signed))]
        builder.values[output] = dataclasses.replace(value, expression=expression.clipped(*map(Fraction, chosen)))
        return builder.values[output]

    a, b = (requantized(values[i], f"in{i + 1}", f"{node.outputs[0]}.in{i + 1}") for i in (0, 1))
    return requantized(_sum(builder, node, a, b, 1), "out", node.outputs[0])


def batch_normalization(builder: Builder, node: Node) -> Value:
    """BatchNormalization with the statistics that it holds: ``gain*x + (beta - gain*mean)``.

    The gain ``gamma / sqrt(variance + epsilon)`` is computed in float64; all else is exact.
    """
    value = builder.value(node, pooled=True)
    channels = value.shape[0]
    if node.integer("training_mode", 0):
        raise UnsupportedModelError(f"{node.label} must not be in training")
    if value.axes[0 if not node.channels_last else -1] != "C":
        raise UnsupportedModelError(f"{node.label} must have the channels where its layout says")
    gamma, beta, mean, variance = (
        builder.constant(node, i, what).values
        for i, what in enumerate(("its scale", "its bias", "its mean", "its variance"), 1)
    )
    for numbers in (gamma, beta, mean, variance):
        if numbers.shape != (channels,) or numbers.dtype.kind != "f" or not np.isfinite(numbers).all():
            raise UnsupportedModelError(f"{node.label} must have {channels} finite numbers of each kind")
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if not np.isfinite(epsilon) or (variance.astype(np.float64) + epsilon <= 0).any():
        raise UnsupportedModelError(f"{node.label} must have positive variances with its epsilon, {epsilon:g}")
    with np.errstate(over="ignore"):
        gain = norm_gain(gamma, variance, epsilon)
    if not np.isfinite(gain).all():
        raise UnsupportedModelError(f"{node.label} must have a finite gain in every channel")
    scaled = _scale(builder, node, value, rationals(gain), builder.quantized)
    return shift(builder, node, scaled, rationals(beta) - rationals(gain) * rationals(mean))


def floor(builder: Builder, node: Node) -> Value:
    """Floor."""
    value = builder.value(node)
    if value.known.whole:
        return value
    if value.known.rounding not in (None, Rounding.FLOOR):
        return dataclasses.replace(value, expression=builder.codes(node, value))
    return dataclasses.replace(value, expression=value.known.rounded(Rounding.FLOOR))


def bit_shift(builder: Builder, node: Node) -> Value:
    """BitShift to the right of what is never negative."""
    value, bits, first = _operands(builder, node)
    if first or node.attributes.get("direction", "RIGHT") != "RIGHT" or any(not 0 <= x <= 62 for x in bits):
        raise UnsupportedModelError(f"{node.label} must shift a computed tensor right by constants")
    if value.known.limits()[0] < 0:
        raise UnsupportedModelError(f"{node.label} must shift what is never negative: put a Clip at 0 before it")
    divisor = np.array([Fraction(1 << int(x)) for x in bits], object)
    scaled = dataclasses.replace(value.known, rounding=None).scaled(1 / divisor)
    return dataclasses.replace(value, expression=scaled.rounded(Rounding.FLOOR))


def clip(builder: Builder, node: Node) -> Value:
    """Clip: bounds as attributes or as inputs."""
    bounds = []
    for index, key in ((1, "min"), (2, "max")):
        constant = builder.optional(node, index, "a bound")
        bounds.append(node.attributes.get(key) if constant is None else constant.values.reshape(-1)[0])
    return _clamp(builder, node, builder.value(node, pooled=True), bounds[0], bounds[1])


def relu(builder: Builder, node: Node) -> Value:
    """Relu."""
    return _clamp(builder, node, builder.value(node, pooled=True), 0, None)


def _bound(builder: Builder, node: Node) -> tuple[Value, list[Fraction]]:
    if node.inputs and set(node.inputs) <= set(builder.values) and len(node.inputs) == 2:
        raise UnsupportedModelError(f"{node.label} must have a constant as an operand")
    value, bound, _ = _operands(builder, node)
    return value, sorted(set(bound))


def maximum(builder: Builder, node: Node) -> Value:
    """Max of a tensor and a constant."""
    value, bound = _bound(builder, node)
    return _clamp(builder, node, value, bound[-1], None, same=bound)


def minimum(builder: Builder, node: Node) -> Value:
    """Min of a tensor and a constant."""
    value, bound = _bound(builder, node)
    return _clamp(builder, node, value, None, bound[0], same=bound)


def _clamp(builder: Builder, node: Node, value: Value, low: Any, high: Any, same: Iterable[Any] = ()) -> Value:
    # PyTorch writes the limits of float32 for a bound that is absent.
    bottom = -INFINITY if low is None or not float(low) > -3e38 else _fraction(low)
    top = INFINITY if high is None or not float(high) < 3e38 else _fraction(high)
    if len(list(same)) > 1 or bottom > top:
        raise UnsupportedModelError(f"{node.label} must clip all channels to one range, low before high")
    expression = value.known
    code = expression.code
    if code is not None:
        least, most = (code.scale * x + code.offset for x in (code.low, code.high))
        if bottom <= least and top >= most:
            return value
    return dataclasses.replace(value, expression=expression.clipped(bottom, top))


def _fraction(x: Any) -> Fraction:
    return Fraction(x.item() if isinstance(x, np.generic) else x)


def constant_bias(builder: Builder, node: Node, value: Value, bias: Constant, factor: Fraction) -> Value:
    """A value plus ``factor`` times a bias per channel."""
    count, numbers = value.shape[0], bias.values
    if numbers.size not in (1, count) or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise UnsupportedModelError(f"{node.label} must have a bias of {count} finite numbers, not {numbers.shape}")
    exact = bias.exact if numbers.size == count else rationals(np.full(count, 1)) * bias.exact[0]
    return shift(builder, node, value, exact * factor)


OPERATORS = {
    "Add": add,
    "BatchNormalization": batch_normalization,
    "BitShift": bit_shift,
    "Clip": clip,
    "Div": divide,
    "Floor": floor,
    "Max": maximum,
    "Min": minimum,
    "Mul": multiply,
    "Neg": negate,
    "Relu": relu,
    "RightShift": bit_shift,
    "Sub": subtract,
}
