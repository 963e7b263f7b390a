"""The network under construction: what the nodes of a file have become so far, and how codes are made of it.

What a value is. Between two quantizers a value is ``slope*acc + skip_slope*skip + offset`` per channel, in exact
rationals of the file's constants; every Mul, Add, BatchNormalization, Relu and Clip only changes these numbers. An
operation of the network is made where a quantizer rounds them, or where a layer, a pool or the output reads them. The
constants M, B, S of ``clip((acc*M + skip*M_skip + B) >> S)`` are these rationals themselves where they are dyadic and
rounded down; else they are solved so that every reachable accumulator gets the very code of the file's own rounding.

What a code is. A file with quantizers holds real numbers, which are ``scale*code + offset`` of a tensor of codes. Then
whatever only scales and shifts all channels alike is the same codes, and needs no operation. A file without quantizers
holds integers (as NEMO and quantlib write it); where no Clip says how wide they are, that follows from the ranges of
what they are made of.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import NoReturn

import numpy as np

from golden.affine import Code, Exact, Expression, InexactError, rationals, requantization, threshold_form
from golden.network import Add, Conv2d, Grid, Operation, Requantize, Tensor, Thresholds
from golden.onnx_import.constants import Constant
from golden.onnx_import.graph import Graph, Node, UnsupportedModelError
from golden.onnx_import.levels import Levels
from golden.onnx_import.result import InputForm
from golden.onnx_import.values import Value, canonical, printable
from golden.requantize import Rounding

__all__ = ["MAX_THRESHOLD_BITS", "Builder"]

MAX_CHANNELS = 1 << 14
"""Channels of all tensors that nodes read together, and four more for each number that the file holds."""

MAX_COMPUTED = 1 << 22
"""Elements of computed constants, and 16 more for each number that the file holds."""

MAX_THRESHOLD_BITS = 10
"""Of codes that are made by comparison with thresholds, at most."""


class Builder:
    """Constants, values, tensors and operations.

    Parameters
    ----------
    graph : :class:`~golden.onnx_import.graph.Graph`
        Of the file.
    thresholds : :class:`bool`
        Whether operations may compare with thresholds.

    Members
    -------
    quantized : :class:`bool`
        Whether the file's tensors hold real numbers and not integers.
    constants, values : :class:`dict`
        What is known of the file's tensors, by name.
    tensors, operations : :class:`list`
        Of the network.
    exact : :class:`dict`
        What the constants of an operation were made from, by its name.
    notices : list of :class:`str`
        What the reader should know.
    input_form : :class:`~golden.onnx_import.result.InputForm` or ``None``
        How the file's input becomes codes, once that is known.
    readers : :class:`dict`
        Nodes that read a tensor of the file, by its name.
    hidden : set of :class:`str`
        Names of the file whose values are clipped further before anything reads them as codes.
    """

    def __init__(self, graph: Graph, *, thresholds: bool = True) -> None:
        self.graph = graph
        self.thresholds = thresholds
        self.quantized = graph.quantized
        self.constants = {name: Constant(value) for name, value in graph.constants.items()}
        self.values: dict[str, Value] = {}
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        self.exact: dict[str, Exact] = {}
        self.notices: list[str] = []
        self.input_form: InputForm | None = None
        self.hidden: set[str] = set()
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for name in node.inputs:
                self.readers[name].append(node)
        inside = (each for node in graph.nodes for each in node.attributes.values() if isinstance(each, np.ndarray))
        self._numbers = sum(each.size for each in (*graph.constants.values(), *inside))
        self._channels = self._computed = 0
        self._input_levels: Levels | None = None
        self._padded: dict[tuple[str, int], Tensor] = {}

    # ---- what a file may take ------------------------------------------------------------------------------------

    def spend(self, node: Node, *, channels: int = 0, computed: int = 0) -> None:
        """Count the channels of what a node reads, or the elements of a constant that it computed.

        Time is proportional to the former and memory to the latter. Both may be as many as the file's own numbers call
        for, and no more: a small file cannot claim much.
        """
        self._channels += channels
        self._computed += computed
        most = MAX_CHANNELS + 4 * self._numbers
        if self._channels > most:
            raise UnsupportedModelError(
                f"{node.label} must not bring the channels that nodes read to more than {most}, with the "
                f"{self._numbers} numbers that the file holds"
            )
        most = MAX_COMPUTED + 16 * self._numbers
        if self._computed > most:
            raise UnsupportedModelError(
                f"{node.label} must not make more than {most} elements of constants, with the {self._numbers} numbers "
                "that the file holds"
            )

    # ---- what a node reads ---------------------------------------------------------------------------------------

    def value(
        self, node: Node, index: int = 0, *, padded: bool = False, raw: bool = False, pooled: bool = False
    ) -> Value:
        """What a node reads.

        ``padded``, ``raw``, ``pooled``: it may be padded, the input before its quantizer, or the maximum of what is not
        quantized yet.
        """
        if index >= len(node.inputs) or node.inputs[index] not in self.values:
            raise UnsupportedModelError(f"{node.label} must read a computed tensor, not a constant")
        value = self.values[node.inputs[index]]
        if value.expression is None:
            if raw:
                return value
            raise UnsupportedModelError(
                f"{node.label} must read quantized values, but input {self.graph.input.name!r} has no quantizer: put "
                "one (Quant, QuantizeLinear) behind it, or say with an input range which integers it holds, and with "
                "an input scale what they are multiplied by"
            )
        if value.pools and not pooled:
            self.unquantized(node.label, node.inputs[index])
        if not padded and value.padded:
            raise UnsupportedModelError(f"{node.label} must not read a padded tensor: only convolutions and pools may")
        code = value.expression.code
        return value if code is None else dataclasses.replace(value, expression=Expression.of(code))

    def constant(self, node: Node, index: int, what: str) -> Constant:
        """The constant that a node reads at a place."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.constants:
            raise UnsupportedModelError(f"{node.label} must have a constant as {what}")
        return self.constants[name]

    def optional(self, node: Node, index: int, what: str) -> Constant | None:
        """The constant that a node reads at a place, if it reads anything there."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        return self.constant(node, index, what)

    def per_channel(self, node: Node, constant: Constant, value: Value) -> np.ndarray:
        """A constant that is broadcast to a value, as one rational per channel."""
        channels, numbers = value.shape[0], constant.values
        if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
            raise UnsupportedModelError(f"{node.label} must have finite numbers as constants")
        if numbers.size == 1:
            return rationals(np.full(channels, 1)) * constant.exact[0]
        sizes = (1, *value.sizes)
        aligned = (1,) * max(0, len(sizes) - numbers.ndim) + numbers.shape
        place = 1 + value.axes.index("C")
        others = {*aligned[:place], *aligned[place + 1 :]}
        flat = len(value.sizes) == 1 and value.shape[1:] != (1, 1)
        if len(aligned) != len(sizes) or others - {1} or aligned[place] != channels or flat:
            raise UnsupportedModelError(
                f"{node.label} must have one constant, or one for each of {channels} channels, "
                f"not shape {numbers.shape}"
            )
        return constant.exact

    # ---- the input -----------------------------------------------------------------------------------------------

    def quantize_input(self, node: Node, value: Value, levels: Levels) -> Code:
        """The codes of the input, by the quantizer that reads it."""
        if self.input_form is not None:
            same = self._input_levels is not None and all(
                np.array_equal(getattr(levels, each.name), getattr(self._input_levels, each.name))
                for each in dataclasses.fields(levels)
            )
            if not same:
                raise UnsupportedModelError(
                    f"{node.label} must be the only quantizer of input {self.graph.input.name!r}"
                )
        if not levels.per_tensor:
            raise UnsupportedModelError(f"{node.label} must have one scale for the whole input")
        low, high = (-1, 0) if levels.bipolar else (levels.low, levels.high)
        scale = levels.step * (2 if levels.bipolar else 1)
        offset = levels.step if levels.bipolar else -levels.step * levels.zero
        zero = 0 if levels.bipolar or levels.zero.denominator != 1 else int(levels.zero)
        if self.input_form is None:
            self._input_levels = levels
            code = self.input_codes(value, low, high, zero, scale, levels)
        else:
            code = Code(self.tensors[0], 0, high - low)
        return dataclasses.replace(code, scale=scale, offset=offset + scale * low)

    def input_codes(
        self, value: Value, low: int, high: int, zero: int, scale: Fraction, levels: Levels | None = None
    ) -> Code:
        """The input tensor, of integers ``low..high``, of which ``zero`` stands for 0, times ``scale``."""
        zero_point = zero - low if low <= zero <= high else 0
        shape = canonical(value.sizes, value.order)
        tensor = Tensor(
            self.tensor_name(self.graph.input.name), shape, bits=(high - low).bit_length(), zero_point=zero_point,
            scale=float(scale),
        )  # fmt: skip
        self.tensors.insert(0, tensor)
        given = self.values.get(self.graph.input.name, value)
        self.input_form = InputForm(given.sizes, value.order, low, high, levels, value.steps)
        return Code(tensor, 0, high - low, scale, scale * low)

    # ---- from expressions to operations --------------------------------------------------------------------------

    def codes(self, node: Node, value: Value) -> Expression:
        """The same value as codes of a tensor of their own."""
        return Expression.of(self.settle(value, node.label))

    def settle(self, value: Value, label: str) -> Code:
        """The codes of a value that ``label`` reads; made now if they are not there, called as the file calls it."""
        expression = value.known
        if expression.code is None and (self.quantized or expression.whole):
            expression.code = expression.same_codes
        if expression.code is None:
            name = next((name for name, known in self.values.items() if known.expression is expression), "value")
            unit = Fraction(1)
            if self.quantized and not expression.whole:
                unit = expression.grid()
            try:
                code = self.emit(name, expression.scaled(rationals(np.full(expression.shape[0], 1)) / unit)
                                 if unit != 1 else expression, unit)  # fmt: skip
            except InexactError as error:
                reason = str(error).format(name=name)
                if self.quantized:
                    self.unquantized(label, name)
                raise UnsupportedModelError(f"{label} {reason}") from None
            expression.code = dataclasses.replace(code, scale=unit, offset=code.offset * unit)
        return expression.code

    def unquantized(self, label: str, name: str) -> NoReturn:
        """Refuse what reads ``name`` as codes."""
        raise UnsupportedModelError(
            f"{label} must read quantized values, but {name!r} is not quantized: put a Quant or QuantizeLinear before "
            "it"
        )

    def emit(self, name: str, expression: Expression, scale: Fraction = Fraction(1), zero: int = 0) -> Code:
        """A tensor ``name`` with the integers of an expression, and the operations that make it.

        Parameters
        ----------
        scale, zero : :class:`~fractions.Fraction`, :class:`int`
            What one of these integers is worth, and which one stands for 0: the tensor's scale and zero point.

        Returns
        -------
        :class:`~golden.affine.Code`
            Its values are the integers.

        Raises
        ------
        InexactError
            If it holds no integers, or codes cannot hold them.
        """
        if expression.fractional is not None:
            raise UnsupportedModelError(f"{expression.fractional} must have integers as constants")
        reached = expression.limits(zero)
        if not self.quantized and expression.rounding is Rounding.ZERO and reached[0] < 0:
            raise InexactError("must read what was rounded down, but {name!r} was rounded toward 0 and may be negative")
        low, high, saturates = expression.code_range(zero)
        bits = max(1, (high - low).bit_length())
        top, first = (1 << bits) - 1, low
        tensor = Tensor(
            self.tensor_name(name), expression.shape, bits=bits, zero_point=zero - low, scale=float(scale)
        )
        if saturates and high - low != top:
            # Two steps: the first clips below, the second shifts the codes up, so that the largest is all ones.
            unclipped = dataclasses.replace(tensor, name=self.tensor_name(f"{name}.unclipped"))
            self.operate(expression, unclipped, name, low)
            step = Expression.of(Code(unclipped, 0, top, offset=Fraction(low)))
            expression = dataclasses.replace(step, origin=f"{name}.clip", code=None)
            first = low - (top - (high - low))
            tensor = dataclasses.replace(tensor, zero_point=zero - first)
        self.operate(expression, tensor, name, first)
        least, most = max(low, reached[0]) - first, min(high, reached[1]) - first
        return Code(tensor, least, most, offset=Fraction(first))

    def operate(self, expression: Expression, output: Tensor, name: str, first: int) -> None:
        """Append the operation that makes the integers of an expression, ``first`` as code 0, and its tensor."""
        rounding = expression.rounding or Rounding.FLOOR
        if rounding is Rounding.ZERO and expression.limits()[0] >= 0:
            rounding = Rounding.FLOOR
        exact = Exact(
            slope=rationals(np.zeros(expression.shape[0], np.int64)),
            skip_slope=rationals(np.zeros(expression.shape[0], np.int64)),
            offset=expression.offset,
            bits=output.bits,
            rounding=rounding,
            first=first,
        )
        self.append(expression, exact, output, name)

    def append(self, expression: Expression, exact: Exact, output: Tensor, name: str) -> None:
        """Append the operation that quantizes an expression as ``exact`` says, but for its slopes."""
        codes, acc = expression.codes, expression.acc
        label = printable(expression.origin or f"{name}.requantize")
        operation: Operation
        if acc is not None and expression.slope is not None:
            if len(codes) > 1:
                raise InexactError("must read {name!r}, which adds more than one tensor to a convolution")
            skip = codes[0] if codes else None
            slope, bounds = expression.slope, acc.bounds()
        elif not codes:
            raise InexactError("must read what depends on the input, not {name!r}")
        elif len(codes) > 2:
            raise InexactError("must read {name!r}, which adds more than two tensors")
        else:
            (first, slope), skip = codes[0], codes[1] if len(codes) > 1 else None
            bounds = np.full(len(slope), first.low), np.full(len(slope), first.high)
        exact = dataclasses.replace(exact, slope=slope)
        if skip is not None:
            exact = dataclasses.replace(exact, skip_slope=skip[1])
        constants, compared, exact = self._constants(exact, bounds, None if skip is None else skip[0])
        if acc is not None:
            operation = dataclasses.replace(acc.operation, output=output.name, requantize=constants,
                                            thresholds=compared,
                                            skip=None if skip is None else skip[0].tensor.name)  # fmt: skip
            label = acc.operation.name
        elif skip is None:
            ones = np.ones((len(slope), 1, 1, 1), np.uint8)  # one bit on the odd grid: code 1 is the weight 1
            operation = Conv2d(label, first.tensor.name, output.name, ones, 1, Grid.ODD, groups=len(slope),
                               requantize=constants, thresholds=compared)  # fmt: skip
        else:
            assert constants is not None and constants.skip_multiplier is not None
            operation = Add(label, first.tensor.name, skip[0].tensor.name, output.name, constants.multiplier,
                            constants.skip_multiplier, constants.bias, constants.shift)  # fmt: skip
        operation = dataclasses.replace(operation, name=self.operation_name(label))
        self.tensors.append(output)
        self.operations.append(operation)
        self.exact[operation.name] = exact
        if compared is not None:
            self.notices.append(
                f"Operation {operation.name!r} compares with thresholds: no multiplier, bias and shift have those of "
                f"its {'levels' if exact.levels is not None else f'rounding {exact.rounding.value}'}."
            )
        elif any(exact.mismatches):
            channels = sum(count > 0 for count in exact.mismatches)
            pairs = "accumulators" if skip is None else "pairs of accumulator and residual code"
            self.notices.append(
                f"Operation {operation.name!r} rounds {exact.rounding.value} in the file, which no multiplier, bias "
                f"and shift do in {channels} of {len(exact.mismatches)} channels: {sum(exact.mismatches)} of "
                f"{sum(exact.pairs)} {pairs} get another code."
            )

    def _constants(
        self, exact: Exact, bounds: tuple[np.ndarray, np.ndarray], skip: Code | None
    ) -> tuple[Requantize | None, Thresholds | None, Exact]:
        """A multiplier, bias and shift; thresholds where these have no such thresholds and may be taken."""
        possible = skip is None and self.thresholds and exact.bits <= MAX_THRESHOLD_BITS
        try:
            constants, found = requantization(exact, bounds, skip)
        except InexactError:
            if not possible:
                raise
        else:
            if not any(found.mismatches) or not possible:
                return constants, None, found
        return None, threshold_form(exact, bounds), exact

    def padded(self, node: Node, value: Value) -> Code:
        """The codes of a value that a layer pads; with another zero point, if it is padded with something else."""
        code = self.settle(value, node.label)
        wanted = code.code_of(value.fill)
        if wanted is None:
            raise UnsupportedModelError(
                f"{node.label} must read what is padded with one of its values, not {float(value.fill):g}"
            )
        # What is around it is among the codes that the layer reads, though the tensor may never take it.
        code = dataclasses.replace(code, low=min(code.low, wanted), high=max(code.high, wanted))
        if wanted == code.tensor.zero_point:
            return code
        name = f"{code.tensor.name}.padded"
        tensor = self._padded.get((code.tensor.name, wanted))
        if tensor is None:
            tensor = dataclasses.replace(code.tensor, name=self.tensor_name(name), zero_point=wanted)
            copy = Expression.of(dataclasses.replace(code, scale=Fraction(1), offset=Fraction(0)))
            self.operate(dataclasses.replace(copy, code=None), tensor, name, 0)
            self._padded[code.tensor.name, wanted] = tensor
        return dataclasses.replace(code, tensor=tensor)

    def tensor_name(self, name: str) -> str:
        """``name`` as a tensor of the network may be called that is not there yet."""
        return _unused(printable(name), [tensor.name for tensor in self.tensors])

    def operation_name(self, name: str) -> str:
        """``name`` as an operation of the network may be called that is not there yet."""
        return _unused(name, [operation.name for operation in self.operations])


def _unused(name: str, taken: Iterable[str]) -> str:
    """``name``, or its first numbered form that is not taken."""
    taken = set(taken)
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
