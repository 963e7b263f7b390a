"""The importer: walks the nodes of a file, and makes an operation of the network where codes are read.

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
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx

from golden import vectors
from golden.affine import Code, Exact, Expression, InexactError, rationals, requantization, threshold_form
from golden.network import (
    MAX_CODE_BITS,
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    NetworkError,
    Operation,
    Requantize,
    Tensor,
    Thresholds,
    signed_width,
)
from golden.onnx_import import arithmetic, layers, quantizers, shapes
from golden.onnx_import.constants import CONSTANT_OPERATORS, Constant, compute
from golden.onnx_import.graph import Node, UnsupportedModelError, graph, read
from golden.onnx_import.levels import Levels
from golden.onnx_import.result import AXES, Import, InputForm, View
from golden.onnx_import.values import Value, canonical, printable
from golden.requantize import Rounding

__all__ = ["Importer", "convert", "import_file", "load"]

DROPPED_AT_THE_END = ("Sigmoid", "Softmax", "LogSoftmax", "ArgMax", "TopK")
"""Left to the host where nothing but the output reads them."""

REFUSED = {"Trunc": "put a Quant in its place", "FloatQuant": "its numbers are no integers"}
"""Quantizers that are known, and why they are not taken."""

MAX_THRESHOLD_BITS = 10
"""Of codes that are made by comparison with thresholds, at most."""

MAX_RATIONAL_BITS = 1 << 12
"""Numerators and denominators that constants may have after all that was done to them."""


def load(
    path: str | os.PathLike[str],
    *,
    input_range: tuple[int, int] | None = None,
    input_scale: float | None = None,
    thresholds: bool = True,
    name: str | None = None,
) -> Import:
    """Read an ONNX file; see :func:`convert`. The network is called as the file, if ``name`` is not given."""
    return convert(
        read(path),
        input_range=input_range,
        input_scale=input_scale,
        thresholds=thresholds,
        name=name or printable(Path(path).stem),
    )


def import_file(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    input_range: tuple[int, int] | None = None,
    input_scale: float | None = None,
    thresholds: bool = True,
    inputs: str | os.PathLike[str] | None = None,
    frames: int = 1,
    seed: int = 0,
) -> Import:
    """Import an ONNX file and write its golden vectors.

    Parameters
    ----------
    path, folder : path
        The file, and where :func:`golden.vectors.write` writes.
    input_range, input_scale, thresholds
        As in :func:`convert`.
    inputs : path or ``None``
        A .npy file of input values, batch first, as :meth:`Import.encode` takes them. ``None``: random codes.
    frames, seed : :class:`int`
        How many random frames, and what they are made from.

    Raises
    ------
    UnsupportedModelError
        See :func:`convert` and :meth:`Import.encode`.
    OSError
        If a file cannot be read or written.
    """
    result = load(path, input_range=input_range, input_scale=input_scale, thresholds=thresholds)
    if inputs is None:
        if frames < 1:
            raise UnsupportedModelError(f"Frames must be at least 1, not {frames}")
        source, form = result.network.input, result.input_form
        codes = np.random.default_rng(seed).integers(0, form.high - form.low, (frames, *source.shape), endpoint=True)
    else:
        try:
            x = np.load(inputs, allow_pickle=False)
        except ValueError as error:
            raise UnsupportedModelError(f"File {os.fspath(inputs)!r} must be a .npy file: {error}") from None
        if not isinstance(x, np.ndarray):
            raise UnsupportedModelError(f"File {os.fspath(inputs)!r} must be a .npy file with one array")
        codes = result.encode(x)
    vectors.write(folder, result.network, codes, seed=seed)
    return result


def convert(
    model: onnx.ModelProto,
    *,
    input_range: tuple[int, int] | None = None,
    input_scale: float | None = None,
    thresholds: bool = True,
    name: str = "network",
) -> Import:
    """The integer network that an ONNX model describes.

    Parameters
    ----------
    model : :class:`onnx.ModelProto`
        One input (N, C, H, W), (N, C, L) or (N, features) of fixed sizes but N, or with C behind, and one output.
    input_range : (low, high) or ``None``
        Integers that the input takes, ``low <= 0 <= high``: (-1, 1) makes 2-bit codes with zero point 1. ``None``: the
        file's own quantizer at the input says so. In a file without quantizers it is what the input's integer type
        holds (to 16 bits), 0..255 for another type; a notice says so.
    input_scale : :class:`float` or ``None``
        With ``input_range``: what the file reads is this number times the integers. ``None``: 1.
    thresholds : :class:`bool`
        Where no multiplier, bias and shift have the thresholds of the file's own rounding, compare with these. Else
        take the nearest constants, and say in a notice for how many accumulators they give another code: such a
        network runs where there is no comparison.
    name : :class:`str`
        Of the network.

    Raises
    ------
    UnsupportedModelError
        If a node is of an operator that is not known, or is not exactly what an integer network can do.
    """
    try:
        return Importer(model, input_range, input_scale, thresholds).run(name)
    except InexactError as error:
        raise UnsupportedModelError(f"Model {error}") from None
    except NetworkError as error:
        raise UnsupportedModelError(f"Model must make an integer network: {error}") from None


class Importer:
    """Computes constants, turns all else into values, and makes operations where these are read.

    The functions of :mod:`~golden.onnx_import.shapes`, :mod:`~golden.onnx_import.arithmetic`,
    :mod:`~golden.onnx_import.layers` and :mod:`~golden.onnx_import.quantizers` each say what one operator makes of
    what its node reads.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        input_range: tuple[int, int] | None,
        input_scale: float | None = None,
        thresholds: bool = True,
    ) -> None:
        self.graph = graph(model)
        self.thresholds = thresholds
        self.quantized = self.graph.quantized
        self.constants = {name: Constant(value) for name, value in self.graph.constants.items()}
        self.values: dict[str, Value] = {}
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        self.exact: dict[str, Exact] = {}
        self.notices: list[str] = []
        self.input_range = input_range
        self.input_scale = input_scale
        self.input_form: InputForm | None = None
        self.input_levels: Levels | None = None
        self._padded: dict[tuple[str, int], Tensor] = {}
        self.hidden: set[str] = set()
        """Names of the file whose values are clipped further before anything reads them as codes."""
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.graph.nodes:
            for name in node.inputs:
                self.readers[name].append(node)

    def run(self, name: str) -> Import:
        """The whole import."""
        self._input()
        result = self.graph.output
        makers = {output: node for node in self.graph.nodes for output in node.outputs}
        while result in makers and makers[result].operator in DROPPED_AT_THE_END and makers[result].inputs:
            self.notices.append(f"{makers[result].label} at the end was dropped: the host computes it.")
            result = makers.pop(result).inputs[0]
        for node in self._needed(result):
            self._node(node)
        self._output(result)
        try:
            network = IntegerNetwork(name, tuple(self.tensors), tuple(self.operations))
        except NetworkError as error:
            raise UnsupportedModelError(f"Model must make an integer network: {error}") from None
        assert self.input_form is not None
        given = {self.graph.input.name, *(name for node in self.graph.nodes for name in node.outputs)}
        views = {}
        for label, value in self.values.items():
            code = None if value.expression is None else value.expression.code
            if code is not None and label in given and not value.padded and label not in self.hidden:
                views[label] = View(code.tensor.name, code.scale, code.offset, value.sizes, value.order)
        if network.output.kind is Kind.ACCUMULATOR:
            end = self.values[result]
            views[result] = View(network.output.name, Fraction(1), Fraction(0), end.sizes, end.order)
        return Import(network, tuple(self.notices), views, self.exact, self.input_form, self.graph.input.name)

    # ---- input and output ----------------------------------------------------------------------------------------

    def _input(self) -> None:
        given = self.graph.input
        kind = given.type.tensor_type
        sizes = tuple(size.dim_value for size in kind.shape.dim)[1:]
        if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
            raise UnsupportedModelError(
                f"Input {given.name!r} must have shape (N, C, H, W), (N, C, L) or (N, features) of fixed sizes, "
                f"not {tuple(size.dim_value or size.dim_param or '?' for size in kind.shape.dim)}"
            )
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        except KeyError:
            raise UnsupportedModelError(f"Input {given.name!r} must be of a known type, not {kind.elem_type}") from None
        order = self._order(given.name)
        if self.input_scale is not None and (
            self.input_range is None or not math.isfinite(self.input_scale) or self.input_scale <= 0
        ):
            raise UnsupportedModelError(
                f"Input scale must be a positive number and come with an input range, not {self.input_scale}"
            )
        if self.input_range is None and self.quantized and dtype.kind == "f":
            self.values[given.name] = Value(None, sizes, integer=False, order=order)
            return
        if self.input_range is None:
            small = dtype.kind in "iu" and dtype.itemsize <= 2
            low, high = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if small else (0, 255)
            self.notices.append(
                f"Input {given.name!r} is taken to hold {low}..{high}, since the file does not say what it holds."
            )
        else:
            low, high = self.input_range
            if not low <= 0 <= high or low == high:
                raise UnsupportedModelError(f"Input range must contain 0 and another integer, not {low}..{high}")
        if (high - low).bit_length() > MAX_CODE_BITS:
            raise UnsupportedModelError(f"Input range must fit {MAX_CODE_BITS} bits, not {low}..{high}")
        scale = Fraction(1 if self.input_scale is None else self.input_scale)
        code = self._input_codes(Value(None, sizes, integer=dtype.kind in "iu", order=order), low, high, 0, scale)
        self.values[given.name] = Value(Expression.of(code), sizes, integer=dtype.kind in "iu", order=order)

    def _order(self, name: str) -> str:
        """Whether the channels of the input come first or last: as the first node needs it that cares."""
        seen: set[str] = set()
        names = [name]
        while names and len(seen) < 1000:
            for node in self.readers[names.pop(0)]:
                if node.name in seen:
                    continue
                seen.add(node.name)
                perm = node.attributes.get("perm")
                if node.channels_last or node.attributes.get("data_layout") in ("NHWC", "NWC"):
                    return "HWC"
                if node.operator == "Transpose" and perm is not None and perm[0] == 0:
                    return "HWC" if list(perm[1:]) in ([3, 1, 2], [2, 1]) else AXES
                if node.operator in layers.OPERATORS:
                    return AXES
                names.extend(node.outputs)
        return AXES

    def quantize_input(self, node: Node, value: Value, levels: Levels) -> Code:
        """The codes of the input, by the quantizer that reads it."""
        if self.input_form is not None:
            same = self.input_levels is not None and all(
                np.array_equal(getattr(levels, each.name), getattr(self.input_levels, each.name))
                for each in dataclasses.fields(levels)
            )
            if not same or not self.tensors:
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
            self.input_levels = levels
            code = self._input_codes(value, low, high, zero, scale, levels)
        else:
            code = Code(self.tensors[0], 0, high - low)
        return dataclasses.replace(code, scale=scale, offset=offset + scale * low)

    def _input_codes(
        self, value: Value, low: int, high: int, zero: int, scale: Fraction, levels: Levels | None = None
    ) -> Code:
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

    def _output(self, name: str) -> None:
        if name not in self.values or self.values[name].expression is None:
            raise UnsupportedModelError(f"Output {name!r} must be computed from the input")
        value = self.values[name]
        expression = value.known
        if value.padded:
            raise UnsupportedModelError(f"Output {name!r} must not be a padded tensor")
        if value.pools:
            self.unquantized(f"Output {name!r}", name)
        low, high = expression.limits()
        wide = expression.whole and not expression.clips and (high - low).bit_length() > MAX_CODE_BITS
        affine = expression.affine or (self.quantized and expression.rounding is None and not expression.clips)
        if expression.acc is not None and not expression.codes and (affine or wide):
            self._accumulators(name, expression)
            return
        self.settle(value, f"Output {name!r}")
        if not self.operations:
            raise UnsupportedModelError(f"Output {name!r} must be computed by at least one operation")

    def _accumulators(self, name: str, expression: Expression) -> None:
        """The network's output as accumulators, with what follows them as their slope and offset."""
        acc, slope = expression.acc, expression.slope
        assert acc is not None and slope is not None
        low, high = acc.operation.accumulator_bounds(acc.source.tensor)
        bits = max(2, signed_width(int(low.min()), int(high.max())))
        label = self.tensor_name(name)
        try:
            self.tensors.append(
                Tensor(label, expression.shape, Kind.ACCUMULATOR, bits, slope=slope.astype(float),
                       offset=expression.offset.astype(float))
            )  # fmt: skip
        except (NetworkError, OverflowError) as error:
            raise UnsupportedModelError(f"Output {name!r} must hold finite numbers: {error}") from None
        self.operations.append(
            dataclasses.replace(acc.operation, name=self.operation_name(acc.operation.name), output=label)
        )
        if expression.rounding is not None:
            self.notices.append(
                f"Output {name!r} is wider than {MAX_CODE_BITS} bits, so it is the accumulator that comes out; "
                f"{expression.rounding.name.lower()}(slope*acc + offset) is left to the host."
            )

    # ---- the graph -----------------------------------------------------------------------------------------------

    def _needed(self, result: str) -> list[Node]:
        """The nodes that the result depends on, in the file's order."""
        wanted, chosen = {result}, []
        for node in reversed(self.graph.nodes):
            if wanted & set(node.outputs):
                wanted |= set(node.inputs)
                chosen.append(node)
        return chosen[::-1]

    def _node(self, node: Node) -> None:
        function = _OPERATORS.get(node.operator)
        if node.operator in REFUSED:
            raise UnsupportedModelError(f"{node.label} is not taken: {REFUSED[node.operator]}")
        if function is None and node.operator not in CONSTANT_OPERATORS and node.operator != "Shape":
            raise UnsupportedModelError(f"{node.label} is of an operator that is not among {', '.join(OPERATORS)}")
        inputs = [name for name in node.inputs if name]
        for name in inputs:
            if name not in self.values and name not in self.constants:
                raise UnsupportedModelError(f"{node.label} reads {name!r}, which nothing makes before it")
        for name in node.outputs:
            if name in self.values or name in self.constants:
                raise UnsupportedModelError(f"{node.label} makes {name!r}, which is there already")
        if node.operator in CONSTANT_OPERATORS and all(name in self.constants for name in inputs):
            self.constants[node.outputs[0]] = compute(node, [self.constants[name] for name in inputs])
            return
        try:
            if node.operator == "Shape":
                # The batch counts as 1: it only says how a reshape leaves it alone.
                sizes = self.value(node, raw=True).sizes
                self.constants[node.outputs[0]] = Constant(np.array([1, *sizes], np.int64))
                return
            if function is None:
                raise UnsupportedModelError(f"{node.label} must compute a constant")
            value = function(self, node)
        except InexactError as error:
            raise UnsupportedModelError(f"{node.label} {str(error).format(name=node.inputs[0])}") from None
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, UnsupportedModelError):
                raise
            raise UnsupportedModelError(
                f"{node.label} must have all that its operator needs, not so {error}"
            ) from None
        if value.expression is not None and value.expression.size > MAX_RATIONAL_BITS:
            raise UnsupportedModelError(f"{node.label} must not multiply more constants than float64 has digits for")
        self.values[node.outputs[0]] = value

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


_OPERATORS: dict[str, Any] = {
    **shapes.OPERATORS,
    **arithmetic.OPERATORS,
    **layers.OPERATORS,
    **quantizers.OPERATORS,
}

OPERATORS = tuple(sorted({"Shape", *CONSTANT_OPERATORS, *_OPERATORS}))
"""Operators that are read."""
