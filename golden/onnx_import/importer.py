"""The importer: walks the nodes of a file in their order, from its input to its output.

Constants are computed; all else becomes values and operations of the :class:`~golden.onnx_import.builder.Builder`, by
the functions of :mod:`~golden.onnx_import.shapes`, :mod:`~golden.onnx_import.arithmetic`,
:mod:`~golden.onnx_import.layers`, :mod:`~golden.onnx_import.pools` and :mod:`~golden.onnx_import.quantizers`, each of
which says what one operator makes of what its node reads.
"""

from __future__ import annotations

import dataclasses
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from golden import vectors
from golden.affine import Expression, InexactError
from golden.network import (
    MAX_CODE_BITS,
    MAX_DIMENSION,
    MAX_ELEMENTS,
    IntegerNetwork,
    Kind,
    NetworkError,
    Tensor,
    signed_width,
)
from golden.onnx_import import arithmetic, layers, pools, quantizers, shapes
from golden.onnx_import.builder import Builder
from golden.onnx_import.constants import CONSTANT_OPERATORS, Constant, compute
from golden.onnx_import.graph import Node, UnsupportedModelError, graph, read
from golden.onnx_import.result import AXES, Import, View
from golden.onnx_import.values import Value, printable

__all__ = ["OPERATORS", "convert", "import_file", "load"]

DROPPED_AT_THE_END = ("Sigmoid", "Softmax", "LogSoftmax", "ArgMax", "TopK")
"""Left to the host where nothing but the output reads them."""

REFUSED = {"Trunc": "put a Quant in its place", "FloatQuant": "its numbers are no integers"}
"""Quantizers that are known, and why they are not taken."""

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
        return _imported(Builder(graph(model), thresholds=thresholds), input_range, input_scale, name)
    except InexactError as error:
        raise UnsupportedModelError(f"Model {error}") from None
    except NetworkError as error:
        raise UnsupportedModelError(f"Model must make an integer network: {error}") from None


def _imported(
    builder: Builder, input_range: tuple[int, int] | None, input_scale: float | None, name: str
) -> Import:
    """The whole import, into a builder that is empty yet."""
    _input(builder, input_range, input_scale)
    result = builder.graph.output
    makers = {output: node for node in builder.graph.nodes for output in node.outputs}
    while result in makers and makers[result].operator in DROPPED_AT_THE_END and makers[result].inputs:
        builder.notices.append(f"{makers[result].label} at the end was dropped: the host computes it.")
        result = makers.pop(result).inputs[0]
    for node in _needed(builder, result):
        _node(builder, node)
    _output(builder, result)
    try:
        network = IntegerNetwork(name, tuple(builder.tensors), tuple(builder.operations))
    except NetworkError as error:
        raise UnsupportedModelError(f"Model must make an integer network: {error}") from None
    assert builder.input_form is not None
    given = {builder.graph.input.name, *(name for node in builder.graph.nodes for name in node.outputs)}
    views = {}
    for label, value in builder.values.items():
        code = None if value.expression is None else value.expression.code
        if code is not None and label in given and not value.padded and label not in builder.hidden:
            views[label] = View(code.tensor.name, code.scale, code.offset, value.sizes, value.order)
    if network.output.kind is Kind.ACCUMULATOR:
        end = builder.values[result]
        views[result] = View(network.output.name, Fraction(1), Fraction(0), end.sizes, end.order)
    return Import(network, tuple(builder.notices), views, builder.exact, builder.input_form, builder.graph.input.name)


def _input(builder: Builder, input_range: tuple[int, int] | None, input_scale: float | None) -> None:
    given = builder.graph.input
    kind = given.type.tensor_type
    sizes = tuple(size.dim_value for size in kind.shape.dim)[1:]
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise UnsupportedModelError(
            f"Input {given.name!r} must have shape (N, C, H, W), (N, C, L) or (N, features) of fixed sizes, "
            f"not {tuple(size.dim_value or size.dim_param or '?' for size in kind.shape.dim)}"
        )
    if max(sizes) > MAX_DIMENSION or math.prod(sizes) > MAX_ELEMENTS:
        raise UnsupportedModelError(
            f"Input {given.name!r} must have sizes of at most {MAX_DIMENSION}, and at most {MAX_ELEMENTS} elements, "
            f"not {sizes}"
        )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    except KeyError:
        raise UnsupportedModelError(f"Input {given.name!r} must be of a known type, not {kind.elem_type}") from None
    order = _order(builder, given.name)
    if input_scale is not None and (
        input_range is None or not math.isfinite(input_scale) or input_scale <= 0
    ):
        raise UnsupportedModelError(
            f"Input scale must be a positive number and come with an input range, not {input_scale}"
        )
    if input_range is None and builder.quantized and dtype.kind == "f":
        builder.values[given.name] = Value(None, sizes, integer=False, order=order)
        return
    if input_range is None:
        small = dtype.kind in "iu" and dtype.itemsize <= 2
        low, high = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if small else (0, 255)
        builder.notices.append(
            f"Input {given.name!r} is taken to hold {low}..{high}, since the file does not say what it holds."
        )
    else:
        low, high = input_range
        if not low <= 0 <= high or low == high:
            raise UnsupportedModelError(f"Input range must contain 0 and another integer, not {low}..{high}")
    if (high - low).bit_length() > MAX_CODE_BITS:
        raise UnsupportedModelError(f"Input range must fit {MAX_CODE_BITS} bits, not {low}..{high}")
    scale = Fraction(1 if input_scale is None else input_scale)
    code = builder.input_codes(Value(None, sizes, integer=dtype.kind in "iu", order=order), low, high, 0, scale)
    builder.values[given.name] = Value(Expression.of(code), sizes, integer=dtype.kind in "iu", order=order)


def _order(builder: Builder, name: str) -> str:
    """Whether the channels of the input come first or last: as the first node needs it that cares."""
    seen: set[str] = set()
    names = [name]
    while names and len(seen) < 1000:
        for node in builder.readers[names.pop(0)]:
            if node.name in seen:
                continue
            seen.add(node.name)
            perm = node.attributes.get("perm")
            if node.channels_last or node.attributes.get("data_layout") in ("NHWC", "NWC"):
                return "HWC"
            if node.operator == "Transpose" and perm is not None and perm[0] == 0:
                return "HWC" if list(perm[1:]) in ([3, 1, 2], [2, 1]) else AXES
            if node.operator in layers.OPERATORS or node.operator in pools.OPERATORS:
                return AXES
            names.extend(node.outputs)
    return AXES


def _needed(builder: Builder, result: str) -> list[Node]:
    """The nodes that the result depends on, in the file's order."""
    wanted, chosen = {result}, []
    for node in reversed(builder.graph.nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
            chosen.append(node)
    return chosen[::-1]


def _node(builder: Builder, node: Node) -> None:
    function = _OPERATORS.get(node.operator)
    if node.operator in REFUSED:
        raise UnsupportedModelError(f"{node.label} is not taken: {REFUSED[node.operator]}")
    if function is None and node.operator not in CONSTANT_OPERATORS and node.operator != "Shape":
        raise UnsupportedModelError(f"{node.label} is of an operator that is not among {', '.join(OPERATORS)}")
    inputs = [name for name in node.inputs if name]
    for name in inputs:
        if name not in builder.values and name not in builder.constants:
            raise UnsupportedModelError(f"{node.label} reads {name!r}, which nothing makes before it")
    for name in node.outputs:
        if name in builder.values or name in builder.constants:
            raise UnsupportedModelError(f"{node.label} makes {name!r}, which is there already")
    if node.operator in CONSTANT_OPERATORS and all(name in builder.constants for name in inputs):
        made = compute(node, [builder.constants[name] for name in inputs], builder.spend)
        builder.constants[node.outputs[0]] = made
        return
    try:
        if node.operator == "Shape":
            # The batch counts as 1: it only says how a reshape leaves it alone.
            sizes = builder.value(node, raw=True).sizes
            builder.constants[node.outputs[0]] = Constant(np.array([1, *sizes], np.int64))
            return
        if function is None:
            raise UnsupportedModelError(f"{node.label} must compute a constant")
        read = (builder.values[name] for name in inputs if name in builder.values)
        builder.spend(node, channels=sum(each.shape[0] for each in read if each.expression is not None))
        value = function(builder, node)
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
    builder.values[node.outputs[0]] = value


def _output(builder: Builder, name: str) -> None:
    if name not in builder.values or builder.values[name].expression is None:
        raise UnsupportedModelError(f"Output {name!r} must be computed from the input")
    value = builder.values[name]
    expression = value.known
    if value.padded:
        raise UnsupportedModelError(f"Output {name!r} must not be a padded tensor")
    if value.pools:
        builder.unquantized(f"Output {name!r}", name)
    low, high = expression.limits()
    wide = expression.whole and not expression.clips and (high - low).bit_length() > MAX_CODE_BITS
    affine = expression.affine or (builder.quantized and expression.rounding is None and not expression.clips)
    if expression.acc is not None and not expression.codes and (affine or wide):
        _accumulators(builder, name, expression)
        return
    builder.settle(value, f"Output {name!r}")
    if not builder.operations:
        raise UnsupportedModelError(f"Output {name!r} must be computed by at least one operation")


def _accumulators(builder: Builder, name: str, expression: Expression) -> None:
    """The network's output as accumulators, with what follows them as their slope and offset."""
    acc, slope = expression.acc, expression.slope
    assert acc is not None and slope is not None
    low, high = acc.operation.accumulator_bounds(acc.source.tensor)
    bits = max(2, signed_width(int(low.min()), int(high.max())))
    label = builder.tensor_name(name)
    try:
        builder.tensors.append(
            Tensor(label, expression.shape, Kind.ACCUMULATOR, bits, slope=slope.astype(float),
                   offset=expression.offset.astype(float))
        )  # fmt: skip
    except (NetworkError, OverflowError) as error:
        raise UnsupportedModelError(f"Output {name!r} must hold finite numbers: {error}") from None
    builder.operations.append(
        dataclasses.replace(acc.operation, name=builder.operation_name(acc.operation.name), output=label)
    )
    if expression.rounding is not None:
        builder.notices.append(
            f"Output {name!r} is wider than {MAX_CODE_BITS} bits, so it is the accumulator that comes out; "
            f"{expression.rounding.name.lower()}(slope*acc + offset) is left to the host."
        )


_OPERATORS: dict[str, Any] = {
    **shapes.OPERATORS,
    **arithmetic.OPERATORS,
    **layers.OPERATORS,
    **pools.OPERATORS,
    **quantizers.OPERATORS,
}

OPERATORS = tuple(sorted({"Shape", *CONSTANT_OPERATORS, *_OPERATORS}))
"""Operators that are read."""
