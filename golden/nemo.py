"""Import of integer ONNX files as NEMO and quantlib write them, for DORY and its kin.

Such a file holds integers in floating-point or int64 tensors: a convolution or linear layer (``Conv``, ``Gemm``,
``MatMul``) with integer weights, then ``Mul`` and ``Add`` with integers per channel or per layer, a division by a
power of two that rounds down (``Div`` and ``Floor``, ``Div`` of integers, ``BitShift``), and a ``Clip``. :func:`load`
reads it as the integer network that computes the very same integers, and refuses what is not exact: the sentence names
the node and the reason.

What a value is. Between two clips a value is ``slope*acc + skip_slope*skip + offset`` per channel, in exact rationals;
every ``Mul``, ``Add``, ``Div``, ``Floor`` and ``Clip`` only changes these numbers. An operation of the network is made
where a convolution, a pool or the output reads the value: then it must be an integer, and the constants M, B, S of
``clip((acc*M + skip*M_skip + B) >> S)`` are these rationals themselves. If a denominator is no power of two, constants
with the same thresholds over every reachable accumulator are solved (:func:`golden.requantize.solve`). Where no
``Clip`` says how wide a code is, its range follows from the ranges of what it is made of.

A code is the file's integer plus the tensor's zero point: ``Clip`` to -128..127 gives 8-bit codes with zero point 128.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from golden import vectors
from golden.affine import INFINITY, Code, Expression, InexactError, Sum, rationals, requantization
from golden.network import (
    MAX_CODE_BITS,
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    NetworkError,
    Operation,
    Tensor,
    code_dtype,
    signed_width,
)

__all__ = ["Import", "UnsupportedModelError", "convert", "import_file", "load"]

DROPPED_AT_THE_END = ("Sigmoid", "Softmax", "LogSoftmax", "ArgMax")
"""Left to the host where nothing but the output reads them."""

Shape = tuple[int, int, int]


class UnsupportedModelError(ValueError):
    """A file that is not such a network, or not exactly; one sentence that names the node and the reason."""


@dataclass(frozen=True)
class Import:
    """An imported network.

    Members
    -------
    network : :class:`~golden.network.IntegerNetwork`
        Tensors and operations are called as in the file, as far as such a name can be a file name.
    notices : tuple of :class:`str`
        What the reader should know: nodes that were dropped, what was assumed.
    tensors : :class:`dict`
        Name of the network's tensor by name of the file's.
    input_range : (low, high)
        Integers that the input takes.
    """

    network: IntegerNetwork
    notices: tuple[str, ...]
    tensors: dict[str, str]
    input_range: tuple[int, int]

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Input codes of the file's integers, (N, C, H, W) or in the file's own form, batch first.

        Raises
        ------
        UnsupportedModelError
            If they are no integers, outside the input's range or of another shape.
        """
        source = self.network.input
        x = np.asarray(x)
        if x.dtype.kind not in "iuf" or not np.array_equal(x, np.rint(x)):
            raise UnsupportedModelError(f"Values of input {source.name!r} must be integers, not {x.dtype.name} numbers")
        if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(source.shape) or x.shape[0] == 0:
            wanted = ", ".join(map(str, source.shape))
            raise UnsupportedModelError(f"Values of input {source.name!r} must have shape (N, {wanted}), not {x.shape}")
        low, high = self.input_range
        if x.min() < low or x.max() > high:
            raise UnsupportedModelError(
                f"Values of input {source.name!r} must be between {low} and {high}, not {int(x.min())}..{int(x.max())}"
            )
        return (x.astype(np.int64).reshape(-1, *source.shape) + source.zero_point).astype(code_dtype(source.bits))

    def integers(self, name: str, values: np.ndarray) -> np.ndarray:
        """The file's integers, int64, of a code tensor's values; ``name`` is the file's name of the tensor."""
        return values.astype(np.int64) - self.network.tensor(self.tensors[name]).zero_point

    def table(self) -> str:
        """One line an operation: its name, what it is, the bits of its weights, and what it makes."""
        rows = []
        for operation in self.network.operations:
            output = self.network.tensor(operation.output)
            what, weights = type(operation).__name__, ""
            if isinstance(operation, Conv2d):
                kernel = "×".join(map(str, operation.codes.shape[2:]))
                kind = f"{kernel} in {operation.groups} groups" if operation.groups > 1 else kernel
                whole = operation.codes.shape[2:] == self.network.tensor(operation.input).shape[1:]
                linear = operation.broadcast or (whole and output.shape[1:] == (1, 1))
                what = "linear" if linear else f"convolution {kind}"
                weights = f"{operation.bits}-bit weights"
            size = "×".join(map(str, output.shape))
            codes = f"{output.bits}-bit {output.kind.value}s" + f", zero point {output.zero_point}" * bool(
                output.zero_point
            )
            rows.append((operation.name, what, weights, output.name, size, codes))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "".join(f"{line.rstrip()}\n" for line in lines)


def load(
    path: str | os.PathLike[str], *, input_range: tuple[int, int] | None = None, name: str | None = None
) -> Import:
    """Read an ONNX file; see :func:`convert`. The network is called as the file, if ``name`` is not given."""
    path = Path(path)
    try:
        model = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's own class, which is not ours to import
        raise UnsupportedModelError(f"File {str(path)!r} must be an ONNX model: {error}") from None
    return convert(model, input_range=input_range, name=name or _printable(path.stem))


def import_file(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    input_range: tuple[int, int] | None = None,
    inputs: str | os.PathLike[str] | None = None,
    frames: int = 1,
    seed: int = 0,
) -> Import:
    """Import an ONNX file and write its golden vectors.

    Parameters
    ----------
    path, folder : path
        The file, and where :func:`golden.vectors.write` writes.
    input_range : (low, high) or ``None``
        As in :func:`convert`.
    inputs : path or ``None``
        A .npy file of input integers, batch first. ``None``: random ones.
    frames, seed : :class:`int`
        How many random frames, and what they are made from.

    Raises
    ------
    UnsupportedModelError
        See :func:`convert` and :meth:`Import.encode`.
    OSError
        If a file cannot be read or written.
    """
    result = load(path, input_range=input_range)
    if inputs is None:
        if frames < 1:
            raise UnsupportedModelError(f"Frames must be at least 1, not {frames}")
        shape = (frames, *result.network.input.shape)
        x = np.random.default_rng(seed).integers(*result.input_range, shape, endpoint=True)
    else:
        try:
            x = np.load(inputs, allow_pickle=False)
        except ValueError as error:
            raise UnsupportedModelError(f"File {os.fspath(inputs)!r} must be a .npy file: {error}") from None
        if not isinstance(x, np.ndarray):
            raise UnsupportedModelError(f"File {os.fspath(inputs)!r} must be a .npy file with one array")
    vectors.write(folder, result.network, result.encode(x), seed=seed)
    return result


def convert(model: onnx.ModelProto, *, input_range: tuple[int, int] | None = None, name: str = "network") -> Import:
    """The integer network that an ONNX model describes.

    Parameters
    ----------
    model : :class:`onnx.ModelProto`
        One input (N, C, H, W), (N, C, L) or (N, features) of fixed sizes but N, and one output.
    input_range : (low, high) or ``None``
        Integers that the input takes, ``low <= 0 <= high``: (-1, 1) makes 2-bit codes with zero point 1. ``None``: what
        the input's integer type holds (to 16 bits), 0..255 for another type; a notice says so.
    name : :class:`str`
        Of the network.

    Raises
    ------
    UnsupportedModelError
        If a node is of an operator that is not known, or is not exactly what an integer network can do.
    """
    return _Importer(model, input_range).run(name)


@dataclass(frozen=True)
class _Value:
    """A tensor of the file: its expression, sizes without the batch, and whether its type is an integer.

    ``padding`` is what a Pad has put around it, with the integer ``fill``.
    """

    expression: Expression
    sizes: tuple[int, ...]
    integer: bool
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: int = 0


@dataclass(frozen=True)
class _Node:
    """A node with its attributes as Python values."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"Node {self.name!r} ({self.operator})"


class _Importer:
    """Walks the nodes in order; constants are computed, all else becomes values, and operations where they are read."""

    def __init__(self, model: onnx.ModelProto, input_range: tuple[int, int] | None) -> None:
        self.graph = model.graph
        self.constants = {each.name: numpy_helper.to_array(each) for each in self.graph.initializer}
        self.nodes = [_node(node, position) for position, node in enumerate(self.graph.node)]
        self.values: dict[str, _Value] = {}
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        self.notices: list[str] = []
        self.input_range = input_range

    def run(self, name: str) -> Import:
        if len(self.graph.output) != 1:
            raise UnsupportedModelError(f"Model must have one output, not {len(self.graph.output)}")
        self._input()
        result = self.graph.output[0].name
        makers = {node.outputs[0]: node for node in self.nodes if node.outputs}
        self.nodes = [_floor_division(node, makers, self._ones()) for node in self.nodes]
        while result in makers and makers[result].operator in DROPPED_AT_THE_END:
            self.notices.append(f"{makers[result].label} at the end was dropped: the host computes it.")
            result = makers[result].inputs[0]
        for node in self._needed(result):
            self._node(node)
        self._output(result)
        try:
            network = IntegerNetwork(name, tuple(self.tensors), tuple(self.operations))
        except NetworkError as error:
            raise UnsupportedModelError(f"Model must make an integer network: {error}") from None
        given = {*(each.name for each in self.graph.input), *(name for node in self.nodes for name in node.outputs)}
        names = {}
        for label, value in self.values.items():
            if value.expression.code is not None and label in given and not any(value.padding):
                names[label] = value.expression.code.tensor.name
        names[result] = network.output.name
        assert self.input_range is not None
        return Import(network, tuple(self.notices), names, self.input_range)

    def _ones(self) -> set[str]:
        """Names of constants that are 1."""
        known = dict(self.constants)
        for node in self.nodes:
            if node.operator == "Constant" and isinstance(node.attributes.get("value"), onnx.TensorProto):
                known[node.outputs[0]] = numpy_helper.to_array(node.attributes["value"])
        return {name for name, value in known.items() if value.size == 1 and value.item() == 1}

    # ---- input and output ----------------------------------------------------------------------------------------

    def _input(self) -> None:
        given = [each for each in self.graph.input if each.name not in self.constants]
        if len(given) != 1:
            raise UnsupportedModelError(f"Model must have one input, not {len(given)}")
        kind = given[0].type.tensor_type
        sizes = tuple(size.dim_value for size in kind.shape.dim)[1:]
        if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
            raise UnsupportedModelError(
                f"Input {given[0].name!r} must have shape (N, C, H, W), (N, C, L) or (N, features) of fixed sizes, "
                f"not {tuple(size.dim_value or size.dim_param or '?' for size in kind.shape.dim)}"
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if self.input_range is None:
            small = dtype.kind in "iu" and dtype.itemsize <= 2
            low, high = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if small else (0, 255)
            self.notices.append(
                f"Input {given[0].name!r} is taken to hold {low}..{high}, since the file does not say what it holds."
            )
            self.input_range = low, high
        else:
            low, high = self.input_range
            if not low <= 0 <= high or low == high:
                raise UnsupportedModelError(f"Input range must contain 0 and another integer, not {low}..{high}")
        bits = (high - low).bit_length()
        if bits > MAX_CODE_BITS:
            raise UnsupportedModelError(f"Input range must fit {MAX_CODE_BITS} bits, not {low}..{high}")
        shape = _map(sizes)
        tensor = Tensor(self._tensor_name(given[0].name), shape, bits=bits, zero_point=-low)
        self.tensors.append(tensor)
        expression = Expression.of(Code(tensor, low, high))
        self.values[given[0].name] = _Value(expression, sizes, integer=dtype.kind in "iu")

    def _output(self, name: str) -> None:
        if name not in self.values:
            raise UnsupportedModelError(f"Output {name!r} must be computed from the input")
        value = self.values[name]
        expression = value.expression
        if value.padding != (0, 0, 0, 0):
            raise UnsupportedModelError(f"Output {name!r} must not be a padded tensor")
        low, high = expression.limits()
        wide = expression.whole and not expression.clips and (high - low).bit_length() > MAX_CODE_BITS
        if expression.acc is not None and not expression.codes and (expression.affine or wide):
            self._accumulators(name, expression)
            return
        self._settle(value, f"Output {name!r}")
        if not self.operations:
            raise UnsupportedModelError(f"Output {name!r} must be computed by at least one operation")

    def _accumulators(self, name: str, expression: Expression) -> None:
        """The network's output as accumulators, with what follows them as their slope and offset."""
        acc, slope = expression.acc, expression.slope
        assert acc is not None and slope is not None
        low, high = acc.operation.accumulator_bounds(acc.source.tensor)
        bits = max(2, signed_width(int(low.min()), int(high.max())))
        label = self._tensor_name(name)
        self.tensors.append(
            Tensor(label, expression.shape, Kind.ACCUMULATOR, bits, slope=slope.astype(float),
                   offset=expression.offset.astype(float))
        )  # fmt: skip
        self.operations.append(
            dataclasses.replace(acc.operation, name=self._operation_name(acc.operation.name), output=label)
        )
        if expression.rounding is not None:
            self.notices.append(
                f"Output {name!r} is wider than {MAX_CODE_BITS} bits, so it is the accumulator that comes out; "
                f"{expression.rounding}(slope*acc + offset) is left to the host."
            )

    # ---- the graph -----------------------------------------------------------------------------------------------

    def _needed(self, result: str) -> list[_Node]:
        """The nodes that the result depends on, in the file's order."""
        wanted, chosen = {result}, []
        for node in reversed(self.nodes):
            if wanted & set(node.outputs):
                wanted |= set(node.inputs)
                chosen.append(node)
        return chosen[::-1]

    def _node(self, node: _Node) -> None:
        compute = _COMPUTE.get(node.operator)
        if node.operator not in OPERATORS:
            raise UnsupportedModelError(f"{node.label} is of an operator that is not among {', '.join(OPERATORS)}")
        inputs = [name for name in node.inputs if name]
        for name in inputs:
            if name not in self.values and name not in self.constants:
                raise UnsupportedModelError(f"{node.label} reads {name!r}, which nothing makes")
        if node.operator in _CONSTANT and all(name in self.constants for name in inputs):
            try:
                self.constants[node.outputs[0]] = _CONSTANT[node.operator](
                    node, *(self.constants[name] for name in inputs)
                )
            except (ValueError, TypeError, IndexError, KeyError) as error:
                raise UnsupportedModelError(f"{node.label} must have constants that can be computed: {error}") from None
            return
        if node.operator == "Shape":
            # The batch counts as 1: it only says how a reshape leaves it alone.
            self.constants[node.outputs[0]] = np.array([1, *self._value(node).sizes], np.int64)
            return
        if compute is None:
            raise UnsupportedModelError(f"{node.label} must compute a constant")
        try:
            self.values[node.outputs[0]] = compute(self, node)
        except (KeyError, IndexError) as error:
            raise UnsupportedModelError(f"{node.label} must have all that its operator needs, not so {error}") from None

    def _value(self, node: _Node, index: int = 0, *, padded: bool = False) -> _Value:
        """What a node reads."""
        if index >= len(node.inputs) or node.inputs[index] not in self.values:
            raise UnsupportedModelError(f"{node.label} must read a computed tensor, not a constant")
        value = self.values[node.inputs[index]]
        if not padded and value.padding != (0, 0, 0, 0):
            raise UnsupportedModelError(f"{node.label} must not read a padded tensor: only convolutions and pools may")
        code = value.expression.code
        return value if code is None else dataclasses.replace(value, expression=Expression.of(code))

    def _constant(self, node: _Node, index: int, what: str) -> np.ndarray:
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.constants:
            raise UnsupportedModelError(f"{node.label} must have a constant as {what}")
        return self.constants[name]

    def _optional(self, node: _Node, index: int, what: str) -> np.ndarray | None:
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        return self._constant(node, index, what)

    def _operands(self, node: _Node) -> tuple[_Value, np.ndarray, bool]:
        """The computed operand, the constant one per channel as rationals, and whether the constant comes first."""
        if len(node.inputs) != 2:
            raise UnsupportedModelError(f"{node.label} must have two operands, not {len(node.inputs)}")
        first = node.inputs[0] in self.constants
        value = self._value(node, int(first))
        constant = self._constant(node, int(not first), "an operand")
        return value, self._per_channel(node, constant, value), first

    def _per_channel(self, node: _Node, constant: np.ndarray, value: _Value) -> np.ndarray:
        """A constant that is broadcast to a value, as one rational per channel."""
        channels = value.expression.shape[0]
        if constant.dtype.kind not in "iuf" or not np.isfinite(constant).all():
            raise UnsupportedModelError(f"{node.label} must have finite numbers as constants")
        sizes = (1, *value.sizes)
        aligned = constant.reshape((1,) * max(0, len(sizes) - constant.ndim) + constant.shape)
        if constant.size == 1:
            return rationals(np.broadcast_to(constant.reshape(1), channels))
        others = aligned.shape[:1] + aligned.shape[2:]
        flat = len(value.sizes) == 1 and value.expression.shape[1:] != (1, 1)
        if aligned.ndim != len(sizes) or set(others) - {1} or aligned.shape[1] != channels or flat:
            raise UnsupportedModelError(
                f"{node.label} must have one constant, or one for each of {channels} channels, "
                f"not shape {constant.shape}"
            )
        return rationals(aligned.reshape(channels))

    # ---- constants, and what changes nothing ---------------------------------------------------------------------

    def _identity(self, node: _Node) -> _Value:
        return self._value(node, padded=True)

    def _cast(self, node: _Node) -> _Value:
        value = self._value(node)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"])
        if dtype not in (np.float32, np.float64) and dtype.kind not in "iu":
            raise UnsupportedModelError(f"{node.label} must make integers, float32 or float64, not {dtype.name}")
        integer = dtype.kind in "iu"
        expression = value.expression
        if integer and not expression.whole:
            expression = expression.rounded("trunc")
        if integer:
            (low, high), limits = expression.limits(), np.iinfo(dtype)
            if low < limits.min or high > limits.max:
                # Sums of 32 bits are what such networks are made for, though not all are proved to fit.
                if dtype.itemsize < 4:
                    raise UnsupportedModelError(f"{node.label} must make what {dtype.name} holds, not {low}..{high}")
                self.notices.append(
                    f"{node.label} is taken never to exceed {dtype.name}, though {low}..{high} may occur."
                )
        return dataclasses.replace(value, expression=expression, integer=integer)

    def _flatten(self, node: _Node) -> _Value:
        value = self._value(node)
        if node.attributes.get("axis", 1) not in (1, -len(value.sizes)):
            raise UnsupportedModelError(f"{node.label} must flatten from axis 1 on, not {node.attributes['axis']}")
        return self._reshaped(node, (math.prod(value.sizes),))

    def _reshape(self, node: _Node) -> _Value:
        value = self._value(node)
        wanted = self._constant(node, 1, "its shape") if len(node.inputs) > 1 else np.array(node.attributes["shape"])
        sizes = [(1, *value.sizes)[i] if size == 0 else int(size) for i, size in enumerate(wanted.tolist())]
        total = math.prod(value.sizes)
        if sizes.count(-1) == 1:
            rest = math.prod(size for size in sizes if size != -1)
            # The batch is 1 here; where -1 stands for it, the rest is all of a frame.
            sizes[sizes.index(-1)] = total // rest if rest and total % rest == 0 else 0
        if math.prod(sizes) != total or sizes[0] != 1:
            raise UnsupportedModelError(f"{node.label} must leave the batch alone, not reshape to {wanted.tolist()}")
        return self._reshaped(node, tuple(sizes[1:]))

    def _squeeze(self, node: _Node) -> _Value:
        sizes = [1, *self._value(node).sizes]
        axes = self._axes(node, len(sizes))
        if axes is None:
            axes = [axis for axis, size in enumerate(sizes) if size == 1 and axis > 0]
        if 0 in axes or any(sizes[axis] != 1 for axis in axes):
            raise UnsupportedModelError(f"{node.label} must remove axes of size 1 behind the batch, not {axes}")
        return self._reshaped(node, tuple(size for axis, size in enumerate(sizes) if axis not in axes)[1:])

    def _unsqueeze(self, node: _Node) -> _Value:
        sizes = list(self._value(node).sizes)
        given = node.attributes.get("axes")
        axes = given if given is not None else self._constant(node, 1, "its axes").tolist()
        rank = len(sizes) + 1 + len(axes)
        axes = sorted(axis % rank for axis in axes)
        if 0 in axes:
            raise UnsupportedModelError(f"{node.label} must add axes behind the batch, not {axes}")
        for axis in axes:
            sizes.insert(axis - 1, 1)
        return self._reshaped(node, tuple(sizes))

    def _axes(self, node: _Node, rank: int) -> list[int] | None:
        axes = node.attributes.get("axes")
        if axes is None:
            constant = self._optional(node, 1, "its axes")
            axes = None if constant is None else constant.tolist()
        return None if axes is None else [axis % rank for axis in axes]

    def _reshaped(self, node: _Node, sizes: tuple[int, ...]) -> _Value:
        value = self._value(node)
        shape = value.expression.shape
        if len(sizes) != 1 and (len(sizes) > 3 or _map(sizes) != shape):
            raise UnsupportedModelError(
                f"{node.label} must flatten a frame, or add and remove axes of size 1, not make {sizes} of {shape}"
            )
        if len(sizes) == 1 and sizes[0] != math.prod(shape):
            raise UnsupportedModelError(f"{node.label} must keep all of {shape}, not make {sizes} of it")
        return dataclasses.replace(value, sizes=sizes)

    # ---- arithmetic ----------------------------------------------------------------------------------------------

    def _mul(self, node: _Node) -> _Value:
        value, factor, _ = self._operands(node)
        fine = all(x.denominator == 1 or abs(x.numerator) == 1 for x in factor)
        return self._scale(node, value, factor, fine)

    def _scale(self, node: _Node, value: _Value, factor: np.ndarray, fine: bool = True) -> _Value:
        expression = value.expression
        if all(x == 1 for x in factor):
            return value
        if expression.rounding is not None or (expression.clamped and (len(set(factor)) > 1 or factor[0] <= 0)):
            expression = self._as_codes(node, value)
        scaled = expression.scaled(factor)
        if not fine:
            scaled.fractional = scaled.fractional or node.label
        return dataclasses.replace(value, expression=scaled)

    def _neg(self, node: _Node) -> _Value:
        value = self._value(node)
        return self._scale(node, value, rationals(np.full(value.expression.shape[0], -1)))

    def _div(self, node: _Node) -> _Value:
        value, divisor, first = self._operands(node)
        if first or any(x <= 0 for x in divisor):
            raise UnsupportedModelError(f"{node.label} must divide a computed tensor by positive constants")
        if all(x == 1 for x in divisor):
            return value
        rounding = node.attributes.get("rounding", "trunc" if value.integer else None)
        if rounding is None:
            return self._scale(node, value, 1 / divisor)
        # floor(floor(x)/d) = floor(x/d); and toward 0, whether x was rounded down or toward 0, if x/d is not negative.
        rounding = "trunc" if value.expression.rounding == "trunc" else rounding
        scaled = dataclasses.replace(value.expression, rounding=None).scaled(1 / divisor)
        return dataclasses.replace(value, expression=scaled.rounded(rounding))

    def _add(self, node: _Node) -> _Value:
        if {f"{operand}_mul" for operand in ("in1", "in2", "out")} <= set(node.attributes):
            return self._requantizing_add(node)
        if not set(node.inputs) & set(self.constants):
            return self._sum(node, self._value(node, 0), self._value(node, 1), 1)
        value, offset, _ = self._operands(node)
        return self._shift(node, value, offset)

    def _sub(self, node: _Node) -> _Value:
        if not set(node.inputs) & set(self.constants):
            return self._sum(node, self._value(node, 0), self._value(node, 1), -1)
        value, offset, first = self._operands(node)
        if first:
            minus = self._scale(node, value, rationals(np.full(value.expression.shape[0], -1)))
            return self._shift(node, minus, offset)
        return self._shift(node, value, -offset)

    def _shift(self, node: _Node, value: _Value, offset: np.ndarray) -> _Value:
        fine = all(x.denominator == 1 for x in offset)
        expression = value.expression
        alike = len(set(offset)) == 1
        if expression.rounding == "trunc" or (expression.rounding and not fine) or (expression.clamped and not alike):
            expression = self._as_codes(node, value)
        shifted = expression.shifted(offset)
        if not fine:
            shifted.fractional = shifted.fractional or node.label
        return dataclasses.replace(value, expression=shifted)

    def _sum(self, node: _Node, a: _Value, b: _Value, sign: int) -> _Value:
        """a + sign*b of two computed tensors."""
        if a.expression.shape != b.expression.shape or a.sizes != b.sizes:
            raise UnsupportedModelError(f"{node.label} must add tensors of one shape, not {a.sizes} and {b.sizes}")
        first = a.expression if a.expression.affine else self._as_codes(node, a)
        second = b.expression if b.expression.affine else self._as_codes(node, b)
        accumulators = (first.acc is not None) + (second.acc is not None)
        if accumulators > 1 or accumulators + len(first.codes) + len(second.codes) > 2:
            # Too much for one operation: one of the two becomes codes of its own, the second if it can.
            if second.acc is not None or len(second.codes) > 1:
                second = self._as_codes(node, b)
            if len(first.codes) > 1 or (first.acc is not None and len(first.codes) + len(second.codes) > 1):
                first = self._as_codes(node, a)
        second = second.scaled(rationals(np.full(second.shape[0], sign)))
        total = dataclasses.replace(first.plus(second), origin=node.name)
        return dataclasses.replace(a, expression=total)

    def _requantizing_add(self, node: _Node) -> _Value:
        """quantlib's own Add: both operands, and then the sum, through clip(floor((x*mul + add) / 2**shift)).

        What the file does not say is taken as DORY takes it: signed if an operand is.
        """
        values = [self._value(node, i) for i in (0, 1)]
        signed = min(value.expression.limits()[0] for value in values) < 0

        def requantized(value: _Value, prefix: str, output: str) -> _Value:
            given = {
                key: node.attributes.get(f"{prefix}_{key}", 0) for key in ("mul", "add", "shift", "n_levels", "rq")
            }
            if not given["rq"]:
                return value
            ones = rationals(np.ones(value.expression.shape[0], np.int64))
            value = self._shift(node, self._scale(node, value, ones * given["mul"]), ones * given["add"])
            expression = value.expression.scaled(ones / (1 << given["shift"])).rounded("floor")
            half, odd = divmod(given["n_levels"], 2)
            ranges = [(0, given["n_levels"] - 1), (-half, half - 1 + odd)]
            if f"{prefix}_signed" not in node.attributes and any(
                expression.clipped(*map(Fraction, each)).clips for each in ranges
            ):
                self.notices.append(
                    f"{node.label} does not say whether its {prefix} is signed: taken to be "
                    f"{'signed, as an operand is' if signed else 'unsigned, as both operands are'}."
                )
            chosen = ranges[bool(node.attributes.get(f"{prefix}_signed", signed))]
            self.values[output] = dataclasses.replace(value, expression=expression.clipped(*map(Fraction, chosen)))
            return self.values[output]

        a, b = (requantized(values[i], f"in{i + 1}", f"{node.outputs[0]}.in{i + 1}") for i in (0, 1))
        return requantized(self._sum(node, a, b, 1), "out", node.outputs[0])

    def _floor(self, node: _Node) -> _Value:
        value = self._value(node)
        if value.expression.whole:
            return value
        return dataclasses.replace(value, expression=value.expression.rounded("floor"))

    def _bitshift(self, node: _Node) -> _Value:
        value, bits, first = self._operands(node)
        if first or node.attributes.get("direction", "RIGHT") != "RIGHT" or any(x < 0 for x in bits):
            raise UnsupportedModelError(f"{node.label} must shift a computed tensor right by constants")
        if value.expression.limits()[0] < 0:
            raise UnsupportedModelError(f"{node.label} must shift what is never negative: put a Clip at 0 before it")
        divisor = np.array([Fraction(1 << int(x)) for x in bits], object)
        scaled = dataclasses.replace(value.expression, rounding=None).scaled(1 / divisor)
        return dataclasses.replace(value, expression=scaled.rounded("floor"))

    def _clip(self, node: _Node) -> _Value:
        given = [node.attributes.get(key, self._optional(node, i, "a bound")) for i, key in ((1, "min"), (2, "max"))]
        low, high = (None if x is None else np.asarray(x).reshape(-1)[0] for x in given)
        return self._clamp(node, self._value(node), low, high)

    def _relu(self, node: _Node) -> _Value:
        return self._clamp(node, self._value(node), 0, None)

    def _max(self, node: _Node) -> _Value:
        value, bound, _ = self._operands(node)
        return self._clamp(node, value, max(bound), None, same=set(bound))

    def _min(self, node: _Node) -> _Value:
        value, bound, _ = self._operands(node)
        return self._clamp(node, value, None, min(bound), same=set(bound))

    def _clamp(self, node: _Node, value: _Value, low: Any, high: Any, same: Iterable[Any] = ()) -> _Value:
        # PyTorch writes the limits of float32 for a bound that is absent.
        bottom = Fraction(float(low)) if low is not None and float(low) > -3e38 else -INFINITY
        top = Fraction(float(high)) if high is not None and float(high) < 3e38 else INFINITY
        if len(list(same)) > 1 or bottom > top:
            raise UnsupportedModelError(f"{node.label} must clip all channels to one range, low before high")
        expression = value.expression
        inside = expression.code is not None and bottom <= expression.code.low and top >= expression.code.high
        if inside:
            return value
        return dataclasses.replace(value, expression=expression.clipped(bottom, top))

    # ---- layers --------------------------------------------------------------------------------------------------

    def _conv(self, node: _Node) -> _Value:
        value = self._value(node, padded=True)
        weights = self._constant(node, 1, "its weights")
        axes = len(value.sizes) - 1
        if axes not in (1, 2) or weights.ndim != axes + 2:
            raise UnsupportedModelError(
                f"{node.label} must convolve (N, C, H, W) or (N, C, L) with weights to suit, not {weights.shape}"
            )
        kernel, stride, dilation = (
            _pair(x)
            for x in (weights.shape[2:], *(node.attributes.get(k, [1] * axes) for k in ("strides", "dilations")))
        )
        if list(node.attributes.get("kernel_shape", weights.shape[2:])) != list(weights.shape[2:]):
            raise UnsupportedModelError(f"{node.label} must have weights of its kernel_shape, not {weights.shape}")
        pads = self._pads(node, value, kernel, stride, dilation)
        bias = self._optional(node, 2, "its bias")
        codes = weights.reshape(*weights.shape[:2], *kernel)
        groups = int(node.attributes.get("group", 1))
        plain = (kernel, stride, dilation, pads, groups) == ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1)
        return self._linear(
            node,
            value,
            codes,
            bias,
            plain=plain,
            axes=axes,
            stride=stride,
            dilation=dilation,
            padding=pads,
            groups=groups,
        )

    def _gemm(self, node: _Node) -> _Value:
        value = self._value(node)
        weights = self._constant(node, 1, "its weights")
        if node.attributes.get("transA", 0):
            raise UnsupportedModelError(f"{node.label} must not transpose what it reads")
        weights = weights.T if node.attributes.get("transB", 0) else weights
        bias = self._optional(node, 2, "its bias")
        alpha, beta = (Fraction(float(node.attributes.get(key, 1.0))) for key in ("alpha", "beta"))
        return self._fully_connected(node, value, weights, bias, alpha, beta)

    def _matmul(self, node: _Node) -> _Value:
        return self._fully_connected(node, self._value(node), self._constant(node, 1, "its second operand"), None)

    def _fully_connected(
        self,
        node: _Node,
        value: _Value,
        weights: np.ndarray,
        bias: np.ndarray | None,
        alpha: Fraction = Fraction(1),
        beta: Fraction = Fraction(1),
    ) -> _Value:
        shape = value.expression.shape
        if len(value.sizes) != 1 or weights.ndim != 2 or len(weights) != math.prod(shape):
            raise UnsupportedModelError(
                f"{node.label} must multiply (N, features) by (features, outputs), not {value.sizes} by {weights.shape}"
            )
        averaged = value.expression.mean is not None
        codes = weights.T.reshape(-1, *((shape[0], 1, 1) if averaged else shape))
        made = self._linear(node, value, codes, None, plain=True, axes=0)
        expression = made.expression
        expression = expression.scaled(rationals(np.full(expression.shape[0], 1)) * alpha)
        made = dataclasses.replace(made, expression=expression)
        return made if bias is None else self._bias(node, made, bias, beta)

    def _bias(self, node: _Node, value: _Value, bias: np.ndarray, factor: Fraction = Fraction(1)) -> _Value:
        count = value.expression.shape[0]
        if bias.size not in (1, count) or bias.dtype.kind not in "iuf" or not np.isfinite(bias).all():
            raise UnsupportedModelError(f"{node.label} must have a bias of {count} finite numbers, not {bias.shape}")
        return self._shift(node, value, rationals(np.broadcast_to(bias.reshape(-1), count)) * factor)

    def _linear(
        self,
        node: _Node,
        value: _Value,
        weights: np.ndarray,
        bias: np.ndarray | None,
        *,
        plain: bool,
        axes: int,
        **geometry: Any,
    ) -> _Value:
        """A convolution (``axes`` 2 or 1) or linear layer (0); ``plain``: it works pixel by pixel."""
        whole = value.expression.mean if plain else None
        source = self._padded(node, value) if whole is None else whole.source
        codes, bits, grid = _weight_codes(node, weights)
        name = _printable(node.name)
        try:
            operation = Conv2d(
                name, source.tensor.name, name, codes, bits, grid, broadcast=whole is not None, **geometry
            )
        except NetworkError as error:
            raise UnsupportedModelError(f"{node.label} must make a layer: {error}") from None
        if source.tensor.shape[0] != codes.shape[1] * operation.groups:
            raise UnsupportedModelError(
                f"{node.label} must have weights for {source.tensor.shape[0]} channels, "
                f"not {codes.shape[1] * operation.groups}"
            )
        sizes = (1, 1) if whole is not None or axes == 0 else _sizes(node, source.tensor, operation)
        made = Sum(operation, source).expression((len(codes), *sizes))
        if whole is not None:
            # The mean of channel c is slope*sum + offset[c], with one slope for all of them.
            assert value.expression.slope is not None
            slope, integers = value.expression.slope[0], operation.weights[:, :, 0, 0].astype(object)
            offset = integers @ value.expression.offset
            made = dataclasses.replace(made, slope=made.slope * slope, offset=rationals(offset))
            made.fractional = value.expression.fractional
        result = _Value(made, (len(codes), *(sizes if axes == 2 else sizes[1:] if axes == 1 else ())), value.integer)
        return result if bias is None else self._bias(node, result, bias)

    def _averagepool(self, node: _Node) -> _Value:
        value = self._value(node, padded=True)
        kernel, stride, pads, own = self._window(node, value)
        if any(own) and not node.attributes.get("count_include_pad", 0):
            raise UnsupportedModelError(f"{node.label} must count its padding (count_include_pad), or have none")
        return self._average(node, value, kernel, stride, pads, Fraction(1, kernel[0] * kernel[1]))

    def _globalaveragepool(self, node: _Node) -> _Value:
        kernel = self._whole_map(node)
        return self._average(node, self._value(node), kernel, (1, 1), (0, 0, 0, 0), Fraction(1, kernel[0] * kernel[1]))

    def _reducemean(self, node: _Node, mean: bool = True) -> _Value:
        value = self._value(node)
        kernel = self._whole_map(node)
        rank = len(value.sizes) + 1
        axes = self._axes(node, rank)
        if axes is None or sorted(axes) != list(range(2, rank)):
            raise UnsupportedModelError(f"{node.label} must reduce the whole map of each channel, not axes {axes}")
        factor = Fraction(1, kernel[0] * kernel[1]) if mean else Fraction(1)
        made = self._average(node, value, kernel, (1, 1), (0, 0, 0, 0), factor)
        return made if node.attributes.get("keepdims", 1) else dataclasses.replace(made, sizes=made.sizes[:1])

    def _reducesum(self, node: _Node) -> _Value:
        return self._reducemean(node, mean=False)

    def _whole_map(self, node: _Node) -> tuple[int, int]:
        value = self._value(node)
        if len(value.sizes) < 2:
            raise UnsupportedModelError(f"{node.label} must read maps (N, C, H, W) or (N, C, L), not (N, features)")
        return value.expression.shape[1], value.expression.shape[2]

    def _average(
        self,
        node: _Node,
        value: _Value,
        kernel: Sequence[int],
        stride: tuple[int, int],
        pads: tuple[int, int, int, int],
        factor: Fraction,
    ) -> _Value:
        """Sums over windows, channel by channel, times ``factor``: a convolution with weights 1."""
        source = self._padded(node, value)
        channels = source.tensor.shape[0]
        ones = np.ones((channels, 1, *kernel), np.uint8)  # one bit on the odd grid: code 1 is the weight 1
        name = _printable(node.name)
        operation = Conv2d(name, source.tensor.name, name, ones, 1, Grid.ODD, stride, (1, 1), pads, channels)
        sizes = _sizes(node, source.tensor, operation)
        pooled = sizes == (1, 1) and tuple(kernel) == source.tensor.shape[1:] and not any(pads)
        made = Sum(operation, source, pooled).expression((channels, *sizes))
        made = made.scaled(rationals(np.full(channels, 1)) * factor)
        return _Value(made, (channels, *(sizes if len(value.sizes) == 3 else sizes[1:])), value.integer)

    def _maxpool(self, node: _Node) -> _Value:
        value = self._value(node, padded=True)
        kernel, stride, pads, _ = self._window(node, value)
        return self._max_pool(node, value, kernel, stride, pads)

    def _globalmaxpool(self, node: _Node) -> _Value:
        return self._max_pool(node, self._value(node), self._whole_map(node), (1, 1), (0, 0, 0, 0))

    def _max_pool(self, node: _Node, value: _Value, kernel: Any, stride: Any, pads: Any) -> _Value:
        source = self._settle(value, node.label)
        if any(value.padding) and value.fill + source.tensor.zero_point:
            raise UnsupportedModelError(f"{node.label} must read what is padded with its smallest value, if at all")
        name = _printable(node.name)
        try:
            operation = MaxPool2d(name, source.tensor.name, name, kernel, stride, tuple(pads))
        except NetworkError as error:
            raise UnsupportedModelError(f"{node.label} must make a pool: {error}") from None
        sizes = _sizes(node, source.tensor, operation)
        label = self._tensor_name(node.outputs[0])
        code = dataclasses.replace(
            source, tensor=dataclasses.replace(source.tensor, name=label, shape=(source.tensor.shape[0], *sizes))
        )
        self.tensors.append(code.tensor)
        self.operations.append(dataclasses.replace(operation, name=self._operation_name(name), output=label))
        sizes_after = (code.tensor.shape[0], *(sizes if len(value.sizes) == 3 else sizes[1:]))
        return _Value(Expression.of(code), sizes_after, value.integer)

    def _pad(self, node: _Node) -> _Value:
        value = self._value(node, padded=True)
        rank = len(value.sizes) + 1
        given = node.attributes.get("pads")
        pads = list(given) if given is not None else self._constant(node, 1, "its pads").tolist()
        axes = self._optional(node, 3, "its axes")
        if axes is not None:
            chosen = [axis % rank for axis in axes.tolist()]
            ends = [[0] * rank, [0] * rank]
            for i, axis in enumerate(chosen):
                ends[0][axis], ends[1][axis] = pads[i], pads[len(chosen) + i]
            pads = ends[0] + ends[1]
        constant = self._optional(node, 2, "its value")
        fill = node.attributes.get("value", 0) if constant is None else constant.reshape(-1)[0]
        if node.attributes.get("mode", "constant") != "constant" or fill != int(fill):
            raise UnsupportedModelError(f"{node.label} must pad with a constant integer")
        if any(value.padding) and fill != value.fill:
            raise UnsupportedModelError(f"{node.label} must pad with {value.fill} as the Pad before it, not {fill}")
        if len(pads) != 2 * rank or any(pads[:2]) or any(pads[rank : rank + 2]) or min(pads) < 0 or rank < 3:
            raise UnsupportedModelError(f"{node.label} must add pixels around maps and nothing else, not {pads}")
        added = _four(pads[2:rank] + pads[rank + 2 :])
        top, left, bottom, right = (a + b for a, b in zip(value.padding, added, strict=True))
        return dataclasses.replace(value, padding=(top, left, bottom, right), fill=int(fill))

    def _window(self, node: _Node, value: _Value) -> tuple[Any, Any, Any, Any]:
        """Kernel, stride, padding and the padding without what a Pad before it adds, of a pool."""
        axes = len(value.sizes) - 1
        if axes not in (1, 2):
            raise UnsupportedModelError(f"{node.label} must pool maps (N, C, H, W) or (N, C, L)")
        kernel, stride, dilation = (
            _pair(node.attributes.get(key, [1] * axes)) for key in ("kernel_shape", "strides", "dilations")
        )
        if dilation != (1, 1):
            raise UnsupportedModelError(f"{node.label} must have dilations of 1, not {dilation}")
        pads = list(self._pads(node, value, kernel, stride, (1, 1)))
        own = [a - b for a, b in zip(pads, value.padding, strict=True)]
        if node.attributes.get("ceil_mode", 0):
            for axis in (0, 1):
                extent = value.expression.shape[1 + axis] + pads[axis] + pads[axis + 2]
                over = (extent - kernel[axis]) % stride[axis]
                # One more window, if it begins inside the map or the padding before it.
                last = extent - kernel[axis] - over + stride[axis]
                if over and last < extent - pads[axis + 2]:
                    if node.operator == "AveragePool":
                        raise UnsupportedModelError(
                            f"{node.label} must not average windows that end outside (ceil_mode)"
                        )
                    pads[axis + 2] += stride[axis] - over
        return kernel, stride, tuple(pads), own

    def _pads(
        self, node: _Node, value: _Value, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
    ) -> tuple[int, int, int, int]:
        """(top, left, bottom, right), with what a Pad before it adds."""
        mode = node.attributes.get("auto_pad", "NOTSET")
        axes = len(value.sizes) - 1
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            before, after = [], []
            for axis in (0, 1):
                extent = value.expression.shape[1 + axis] + value.padding[axis] + value.padding[axis + 2]
                span = (kernel[axis] - 1) * dilation[axis] + 1
                total = max((-(-extent // stride[axis]) - 1) * stride[axis] + span - extent, 0)
                small, large = total // 2, total - total // 2
                before.append(small if mode == "SAME_UPPER" else large)
                after.append(large if mode == "SAME_UPPER" else small)
            own = (*before, *after)
        elif mode in ("NOTSET", "VALID"):
            own = _four(list(node.attributes.get("pads", [0] * 2 * axes)) if mode == "NOTSET" else [0] * 2 * axes)
        else:
            raise UnsupportedModelError(f"{node.label} must have auto_pad NOTSET, VALID or SAME_*, not {mode}")
        if min(own) < 0:
            raise UnsupportedModelError(f"{node.label} must have pads of at least 0, not {own}")
        if any(own) and value.fill:
            raise UnsupportedModelError(f"{node.label} must not pad with 0 what a Pad before it pads with {value.fill}")
        top, left, bottom, right = (a + b for a, b in zip(own, value.padding, strict=True))
        return top, left, bottom, right

    # ---- from expressions to operations --------------------------------------------------------------------------

    def _as_codes(self, node: _Node, value: _Value) -> Expression:
        """The same value as codes of a tensor of their own."""
        return Expression.of(self._settle(value, node.label))

    def _settle(self, value: _Value, label: str) -> Code:
        """The codes of a value that ``label`` reads; made now if they are not there, called as the file calls it."""
        expression = value.expression
        if expression.code is None:
            name = next(name for name, known in self.values.items() if known.expression is expression)
            expression.code = self._emit(name, label, expression)
        return expression.code

    def _padded(self, node: _Node, value: _Value) -> Code:
        """The codes of a value; with another zero point, if it is padded with something else than 0."""
        code = self._settle(value, node.label)
        if not value.fill:
            return code
        zero_point = code.tensor.zero_point + value.fill
        if not 0 <= zero_point <= code.tensor.max_code:
            raise UnsupportedModelError(
                f"{node.label} must read what is padded with one of its values, not {value.fill}"
            )
        name = f"{code.tensor.name}.padded"
        tensor = dataclasses.replace(code.tensor, name=self._tensor_name(name), zero_point=zero_point)
        copy = Expression.of(code)
        self._operate(copy.shifted(rationals(np.full(copy.shape[0], -value.fill))), tensor, name)
        return dataclasses.replace(code, tensor=tensor, fill=value.fill)

    def _emit(self, name: str, label: str, expression: Expression) -> Code:
        if expression.fractional is not None:
            raise UnsupportedModelError(f"{expression.fractional} must have integers as constants")
        try:
            low, high, saturates = expression.code_range()
            bits = max(1, (high - low).bit_length())
            top = (1 << bits) - 1
            tensor = Tensor(self._tensor_name(name), expression.shape, bits=bits, zero_point=-low)
            if saturates and high - low != top:
                # Two steps: the first clips below, the second shifts the codes up, so that the largest is all ones.
                first = dataclasses.replace(tensor, name=self._tensor_name(f"{name}.unclipped"))
                self._operate(expression, first, name)
                expression = dataclasses.replace(Expression.of(Code(first, low, low + top)), origin=f"{name}.clip")
                tensor = dataclasses.replace(tensor, zero_point=tensor.zero_point + top - (high - low))
            self._operate(expression, tensor, name)
        except InexactError as error:
            raise UnsupportedModelError(f"{label} {str(error).format(name=name)}") from None
        reached = expression.limits()
        return Code(tensor, max(low, reached[0]), min(high, reached[1]))

    def _operate(self, expression: Expression, output: Tensor, name: str) -> None:
        """Append the operation that makes the codes ``output`` of an expression, and the tensor."""
        offset = expression.offset + output.zero_point
        codes, acc = expression.codes, expression.acc
        label = _printable(expression.origin or f"{name}.requantize")
        operation: Operation
        if acc is not None and expression.slope is not None:
            skip = codes[0] if codes else None
            constants = requantization(expression.slope, skip, offset, output.bits, acc.bounds())
            operation = dataclasses.replace(acc.operation, output=output.name, requantize=constants,
                                            skip=None if skip is None else skip[0].tensor.name)  # fmt: skip
            label = acc.operation.name
        elif not codes:
            raise InexactError("must read what depends on the input, not {name!r}")
        else:
            (a, slope), skip = codes[0], codes[1] if len(codes) > 1 else None
            least, most = (np.full(len(slope), x) for x in a.codes)
            constants = requantization(slope, skip, offset, output.bits, (least, most))
            if skip is None:
                ones = np.ones((len(slope), 1, 1, 1), np.uint8)  # as in _average
                operation = Conv2d(label, a.tensor.name, output.name, ones, 1, Grid.ODD, groups=len(slope),
                                   requantize=constants)  # fmt: skip
            else:
                assert constants.skip_multiplier is not None
                operation = Add(label, a.tensor.name, skip[0].tensor.name, output.name, constants.multiplier,
                                constants.skip_multiplier, constants.bias, constants.shift)  # fmt: skip
        self.tensors.append(output)
        self.operations.append(dataclasses.replace(operation, name=self._operation_name(label)))

    def _tensor_name(self, name: str) -> str:
        return _unused(_printable(name), [tensor.name for tensor in self.tensors])

    def _operation_name(self, name: str) -> str:
        return _unused(name, [operation.name for operation in self.operations])


def _weight_codes(node: _Node, weights: np.ndarray) -> tuple[np.ndarray, int, Grid]:
    """Weight codes, bits and grid of integer weights: the fewest bits; the odd grid where that saves some."""
    finite = weights.dtype.kind in "iuf" and weights.size and np.isfinite(weights).all()
    if not finite or not np.array_equal(weights, np.rint(weights)):
        raise UnsupportedModelError(f"{node.label} must have integer weights")
    low, high = int(weights.min()), int(weights.max())
    largest = max(-low, high)
    bits, grid = signed_width(low, high), Grid.TWOS_COMPLEMENT
    if largest < 1 << (bits - 1) and (weights % 2 == 1).all():
        bits, grid = max(1, largest.bit_length()), Grid.ODD
    if bits > MAX_CODE_BITS:
        raise UnsupportedModelError(
            f"{node.label} must have weights of at most {MAX_CODE_BITS} bits, not {low}..{high}"
        )
    integers = weights.astype(np.int64)
    return (integers + grid.c(bits)) // grid.p(bits), bits, grid


def _sizes(node: _Node, source: Tensor, operation: Conv2d | MaxPool2d) -> tuple[int, int]:
    """Height and width of what an operation makes."""
    sizes = operation.output_size(source)
    if min(sizes) < 1:
        raise UnsupportedModelError(f"{node.label} must have a window that fits {source.shape[1:]}")
    return sizes


def _map(sizes: tuple[int, ...]) -> Shape:
    """(C, H, W) of sizes without the batch; a one-dimensional signal has H = 1."""
    return (sizes[0], sizes[1] if len(sizes) == 3 else 1, sizes[-1] if len(sizes) > 1 else 1)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def _four(pads: list[int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the begins and ends of one or two axes."""
    if len(pads) == 2:
        return 0, int(pads[0]), 0, int(pads[1])
    top, left, bottom, right = (int(x) for x in pads)
    return top, left, bottom, right


def _printable(name: str) -> str:
    """``name`` as part of a file name: letters, digits, '_', '-' and '.'."""
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_")[:150] or "unnamed"


def _unused(name: str, taken: Iterable[str]) -> str:
    """``name``, or its first numbered form that is not taken."""
    taken = set(taken)
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _node(node: onnx.NodeProto, position: int) -> _Node:
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    name = node.name or (node.output[0] if node.output else str(position))
    return _Node(node.op_type, name, tuple(node.input), tuple(node.output), attributes)


def _floor_division(node: _Node, makers: dict[str, _Node], ones: set[str]) -> _Node:
    """``node``; if it is the end of what PyTorch writes for a floor division of integers, one node for all of it.

    That is ``q = Div(a, b)`` minus 1 where the remainder ``a - q*b`` is not 0 and one of a and b is negative.
    """

    def made_by(name: str, operator: str) -> _Node | None:
        maker = makers.get(name)
        while maker is not None and maker.operator in ("Cast", "Identity") and operator != maker.operator:
            maker = makers.get(maker.inputs[0])
        return maker if maker is not None and maker.operator == operator else None

    if node.operator == "Sub":
        quotient, fixup = made_by(node.inputs[0], "Div"), made_by(node.inputs[1], "Mul")
        mask = None if fixup is None else made_by(fixup.inputs[0], "And")
    elif node.operator == "Where":
        quotient, fixup = made_by(node.inputs[2], "Div"), made_by(node.inputs[1], "Sub")
        mask = made_by(node.inputs[0], "And")
    else:
        return node
    if quotient is None or mask is None or fixup is None or fixup.inputs[1] not in ones:
        return node
    sign, unequal = made_by(mask.inputs[0], "Xor"), made_by(mask.inputs[1], "Not")
    equal = None if unequal is None else made_by(unequal.inputs[0], "Equal")
    rest = None if equal is None else made_by(equal.inputs[0], "Sub") or made_by(equal.inputs[0], "Mod")
    if sign is None or rest is None or rest.inputs[0] != quotient.inputs[0]:
        return node
    return dataclasses.replace(node, operator="Div", inputs=quotient.inputs, attributes={"rounding": "floor"})


def _constant_value(node: _Node) -> np.ndarray:
    (key, value), *rest = node.attributes.items()
    if rest or key not in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        raise ValueError(f"a value, not {', '.join(node.attributes)}")
    return numpy_helper.to_array(value) if key == "value" else np.array(value)


def _axes_of(node: _Node, axes: tuple[np.ndarray, ...]) -> tuple[int, ...] | None:
    given = node.attributes.get("axes", axes[0].tolist() if axes else None)
    return None if given is None else tuple(given)


def _slice(node: _Node, x: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    if inputs:
        starts, ends, *rest = (each.tolist() for each in inputs)
        axes, steps = [*rest, None, None][:2]
    else:
        starts, ends, axes, steps = (
            node.attributes["starts"],
            node.attributes["ends"],
            node.attributes.get("axes"),
            None,
        )
    chosen = [slice(None)] * x.ndim
    for i, axis in enumerate(axes or range(len(starts))):
        chosen[axis] = slice(starts[i], ends[i], steps[i] if steps else 1)
    return x[tuple(chosen)]


_CONSTANT: dict[str, Any] = {
    "Constant": _constant_value,
    "Identity": lambda node, x: x,
    "Cast": lambda node, x: x.astype(onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"])),
    "Gather": lambda node, x, i: np.take(x, i, axis=node.attributes.get("axis", 0)),
    "Concat": lambda node, *xs: np.concatenate(xs, axis=node.attributes["axis"]),
    "Unsqueeze": lambda node, x, *axes: np.expand_dims(x, _axes_of(node, axes) or ()),
    "Squeeze": lambda node, x, *axes: np.squeeze(x, _axes_of(node, axes)),
    "Slice": _slice,
    "Transpose": lambda node, x: np.transpose(x, node.attributes.get("perm")),
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Neg": lambda node, x: -x,
    "Mul": lambda node, a, b: a * b,
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
}
"""Operators on constants alone, with ONNX's meaning."""

_COMPUTE: dict[str, Callable[[_Importer, _Node], _Value]] = {
    "Add": _Importer._add,
    "AveragePool": _Importer._averagepool,
    "BitShift": _Importer._bitshift,
    "Cast": _Importer._cast,
    "Clip": _Importer._clip,
    "Conv": _Importer._conv,
    "Div": _Importer._div,
    "Dropout": _Importer._identity,
    "Flatten": _Importer._flatten,
    "Floor": _Importer._floor,
    "Gemm": _Importer._gemm,
    "GlobalAveragePool": _Importer._globalaveragepool,
    "GlobalMaxPool": _Importer._globalmaxpool,
    "Identity": _Importer._identity,
    "MatMul": _Importer._matmul,
    "Max": _Importer._max,
    "MaxPool": _Importer._maxpool,
    "Min": _Importer._min,
    "Mul": _Importer._mul,
    "Neg": _Importer._neg,
    "Pad": _Importer._pad,
    "ReduceMean": _Importer._reducemean,
    "ReduceSum": _Importer._reducesum,
    "Relu": _Importer._relu,
    "Reshape": _Importer._reshape,
    "RightShift": _Importer._bitshift,
    "Squeeze": _Importer._squeeze,
    "Sub": _Importer._sub,
    "Unsqueeze": _Importer._unsqueeze,
}
"""Operators on computed tensors."""

OPERATORS = tuple(sorted({"Shape", *_CONSTANT, *_COMPUTE}))
"""Operators that are read."""
