"""The integer form: the network in ONNX's own integer operators, to the very codes of golden.

====================  ==================================================================================================
convolution           ``ConvInteger`` of uint8 codes and uint8 weights W + 128 with zero point 128. Where |W| takes more
                      than 8 bits, or the codes do, both are taken apart into bytes, and the sums of the products of
                      bytes are added up with their powers of 256. Padding is the input's zero point: by ``Pad``, or
                      by the convolution where that is 0.
broadcast             the 1x1 convolution of every position, then ``ReduceSum`` over the map
vector scales         P = (w*a + 2**(r-1)) >> r is computed in the graph from the two scales' codes, and so are the
                      bytes of P*W: constants, which a runtime folds when it loads the model
thresholds            ``GreaterOrEqual`` with each of them, and the sum of what is reached
requantization        int64: ``Mul`` M, ``Add`` B (and ``Mul`` M_skip, ``Add``), negative values to 0, ``Div`` 2**S,
                      large values to 2**k - 1
max pool              ``MaxPool``, in float32 beyond 8 bits
====================  ==================================================================================================

Three things are written in this way because others are not computed rightly. Signed 8-bit weights may saturate on
processors without VNNI: they are unsigned, with a zero point. ``Div`` of integers truncates toward 0: what is negative
is made 0 before. ONNX Runtime's ``Max``, ``Min``, ``Clip`` and ``Relu`` of int64 compare the low words only (in 1.31
2**31 counts as less than 0): a clip is ``Less`` and ``Where``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from golden.network import (
    Conv2d,
    IntegerNetwork,
    MaxPool2d,
    NetworkError,
    Requantize,
    Tensor,
    Thresholds,
    VectorQuantize,
)
from golden.onnx_export.graph import Graph, code_type, describe

__all__ = ["integer_model"]

POSITIONS = ((1 << 31) - 1) // (255 * 255)
"""Products of two bytes that a 32-bit sum holds, whatever the bytes are."""

_ABOUT = (
    "An integer network in standard integer operators. Codes are unsigned, accumulators exact; every tensor of the "
    "network is an output under its own name. The metadata entry 'pactolus' has bits, zero points and scales."
)


def integer_model(network: IntegerNetwork) -> onnx.ModelProto:
    """The network in ONNX's integer operators; ONNX Runtime computes every tensor as golden does.

    The input takes codes: uint8 to 8 bits, uint16 beyond, (N, C, H, W). Every tensor that an operation makes is an
    output of the graph under its own name: codes as the input's, accumulators as int64. Of accumulators the real values
    too, ``NAME.real`` = slope*acc + offset in float64. What no node reads (the network's codes, or these real values)
    is the first output.

    Raises
    ------
    NetworkError
        If ``acc*M + skip*M_skip + B`` may exceed int64: the sentence names the operation.
    """
    graph = Graph(network, "integer")
    outputs = []
    for operation in network.operations:
        output = network.tensor(operation.output)
        if isinstance(operation, MaxPool2d):
            _max_pool(graph, operation, output)
        elif isinstance(operation, VectorQuantize):
            _vector_quantize(graph, operation, network.tensor(operation.input))
        elif not isinstance(operation, Conv2d):
            lo, hi = np.zeros(1, np.int64), np.full(1, network.tensor(operation.a).max_code)
            a = graph.cast(operation.a, TensorProto.INT64, f"{operation.name}.a")
            _requantize(graph, operation.name, a, operation.requantize, output, operation.b, lo, hi)
        elif operation.thresholds is not None:
            _compare(graph, operation.name, _accumulators(graph, operation), operation.thresholds, output)
        elif operation.requantize is None:
            graph.node("Identity", [_accumulators(graph, operation)], operation.name, output.name)
            outputs.append((_real(graph, output), int(TensorProto.DOUBLE), output, "slope*acc + offset"))
        else:
            lo, hi = network.accumulator_bounds(operation)
            acc = _accumulators(graph, operation)
            _requantize(graph, operation.name, acc, operation.requantize, output, operation.skip, lo, hi)
    made = [network.tensor(operation.output) for operation in network.operations]
    last = [t for t in made if t is network.output]
    outputs += [(t.name, code_type(t), t, describe(t)) for t in last + [t for t in made if t is not network.output]]
    return graph.model(code_type(network.input), outputs, about=_ABOUT)


def _real(graph: Graph, tensor: Tensor) -> str:
    assert tensor.slope is not None and tensor.offset is not None
    name = graph.free(f"{tensor.name}.real")
    acc = graph.cast(tensor.name, TensorProto.DOUBLE, f"{name}.acc")
    scaled = graph.node("Mul", [acc, graph.channels(tensor.slope, np.float64, f"{name}.slope")], f"{name}.scaled")
    return graph.node("Add", [scaled, graph.channels(tensor.offset, np.float64, f"{name}.offset")], name, name)


def _input_bytes(graph: Graph, operation: Conv2d, source: Tensor) -> Iterator[tuple[int, str, list[int]]]:
    """(power of 256, name of the padded byte, what padding is left to the convolution) of the input's codes."""
    digits = [operation.input]
    if source.bits > 8:
        wide = graph.cast(operation.input, TensorProto.INT64, f"{operation.name}.input")
        byte = graph.integer(256)
        low = graph.node("Mod", [wide, byte], f"{operation.name}.input.mod")
        high = graph.node("Div", [wide, byte], f"{operation.name}.input.div")
        digits = [
            graph.cast(value, TensorProto.UINT8, f"{operation.name}.input.{name}")
            for value, name in ((low, "low"), (high, "high"))
        ]
    top, left, bottom, right = operation.padding
    for power, digit in enumerate(digits):
        zero = source.zero_point >> 8 * power & 255
        if zero == 0 or not any(operation.padding):
            yield power, digit, list(operation.padding)
            continue
        pads = graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64, f"{operation.name}.pads")
        inputs = [digit, pads, graph.constant(zero, np.uint8, f"{operation.name}.zero_point")]
        yield power, graph.node("Pad", inputs, f"{operation.name}.padded"), [0, 0, 0, 0]


def _weight_bytes(graph: Graph, operation: Conv2d, source: Tensor) -> Iterator[tuple[int, str, int]]:
    """(power of 256, name of uint8 weights, their zero point), the sum of which is P*W."""
    products = operation.scaled_weights(source)
    count = 1
    while not -(1 << 8 * count - 1) <= int(products.min()) <= int(products.max()) < 1 << 8 * count - 1:
        count += 1
    # Two's complement: every byte counts from 0 but the highest, which counts from -128.
    offset = 128 << 8 * (count - 1)
    weights, size = operation.weights, operation.weights[0].size
    for part, first in enumerate(range(0, size, POSITIONS)):
        chosen = np.zeros(size, bool)
        chosen[first : first + POSITIONS] = True
        some = weights * chosen.reshape(weights.shape[1:])
        name = f"{operation.name}.weight" + (f".part{part}" if size > POSITIONS else "")
        scaled = _scaled(graph, operation, source, some, name)
        for power in range(count):
            zero = 128 if power == count - 1 else 0
            byte = f"{name}.byte{power}" if count > 1 else name
            if scaled is None:
                digit = graph.constant((some + offset) >> 8 * power & 255, np.uint8, byte)
            else:
                shifted = graph.node("Add", [scaled, graph.integer(offset)], f"{byte}.offset")
                divided = graph.node("Div", [shifted, graph.integer(256**power)], f"{byte}.div")
                rest = graph.node("Mod", [divided, graph.integer(256)], f"{byte}.mod")
                digit = graph.cast(rest, TensorProto.UINT8, byte)
            yield power, digit, zero


def _scaled(graph: Graph, operation: Conv2d, source: Tensor, weights: np.ndarray, name: str) -> str | None:
    """Name of P*W, computed from the codes of the scales; ``None`` where there are none."""
    outputs, channels = weights.shape[:2]
    factors = []
    own, given = operation.vector_scales, source.vector_scales
    if own is None and given is None:
        return None
    if own is not None:
        vectors = graph.constant(np.arange(channels) // own.vector, np.int64, f"{operation.name}.vector")
        codes = graph.constant(own.codes, np.int64, f"{operation.name}.scales")
        factors.append(graph.node("Gather", [codes, vectors], f"{name}.scale", axis=1))
    if given is not None:
        # Output channel o reads the input channels of its group.
        groups = np.arange(outputs) // (outputs // operation.groups)
        positions = (groups[:, None] * channels + np.arange(channels)) // given.vector
        vectors = graph.constant(positions[:, :, None, None], np.int64, f"{operation.name}.input.vector")
        codes = graph.constant(given.codes, np.int64, f"{source.name}.scales")
        factors.append(graph.node("Gather", [codes, vectors], f"{name}.input.scale", axis=0))
    product = factors[0] if len(factors) == 1 else graph.node("Mul", factors, f"{name}.scale_product")
    if operation.product_shift:
        half = graph.integer(1 << operation.product_shift - 1)
        product = graph.node("Add", [product, half], f"{name}.scale_product.half")
        step = graph.integer(1 << operation.product_shift)
        product = graph.node("Div", [product, step], f"{name}.scale_product.rounded")
    return graph.node("Mul", [graph.constant(weights, np.int64, f"{name}.integers"), product], f"{name}.scaled")


def _accumulators(graph: Graph, operation: Conv2d) -> str:
    """Name of the int64 accumulators."""
    source = graph.network.tensor(operation.input)
    total = ""
    digits = list(_input_bytes(graph, operation, source))
    for weight_power, weights, zero in _weight_bytes(graph, operation, source):
        inputs = [weights] if zero == 0 else [weights, "", graph.constant(zero, np.uint8, "weight zero point")]
        for power, digit, pads in digits:
            sums = graph.node(
                "ConvInteger",
                [digit, *inputs],
                f"{operation.name}.conv",
                kernel_shape=operation.codes.shape[2:],
                strides=operation.stride,
                dilations=operation.dilation,
                pads=pads,
                group=operation.groups,
            )
            term = graph.cast(sums, TensorProto.INT64, f"{operation.name}.acc")
            factor = 256 ** (power + weight_power)
            if factor > 1:
                term = graph.node("Mul", [term, graph.integer(factor)], f"{operation.name}.term")
            total = graph.node("Add", [total, term], f"{operation.name}.sum") if total else term
    if operation.broadcast:
        axes = graph.constant([2, 3], np.int64, "axes of the map")
        total = graph.node("ReduceSum", [total, axes], f"{operation.name}.map", keepdims=1)
    return total


def _requantize(
    graph: Graph,
    name: str,
    value: str,
    constants: Requantize,
    output: Tensor,
    skip: str | None,
    lo: np.ndarray,
    hi: np.ndarray,
) -> None:
    _check_range(graph.network, name, constants, skip, lo, hi)
    total = graph.node("Mul", [value, graph.channels(constants.multiplier, np.int64, f"{name}.M")], f"{name}.times_M")
    if skip is not None:
        other = graph.cast(skip, TensorProto.INT64, f"{name}.skip")
        inputs = [other, graph.channels(constants.skip_multiplier, np.int64, f"{name}.M_skip")]
        total = graph.node("Add", [total, graph.node("Mul", inputs, f"{name}.times_M_skip")], f"{name}.plus_skip")
    total = graph.node("Add", [total, graph.channels(constants.bias, np.int64, f"{name}.B")], f"{name}.plus_B")
    zero, top = graph.integer(0), graph.integer(output.max_code)
    negative = graph.node("Less", [total, zero], f"{name}.negative")
    total = graph.node("Where", [negative, zero, total], f"{name}.at_least_0")
    powers = graph.channels(1 << constants.shift.astype(np.int64), np.int64, f"{name}.two_to_S")
    total = graph.node("Div", [total, powers], f"{name}.shifted")
    inside = graph.node("Less", [total, top], f"{name}.inside")
    total = graph.node("Where", [inside, total, top], f"{name}.clipped")
    graph.cast(total, code_type(output), name, output.name)


def _compare(graph: Graph, name: str, acc: str, thresholds: Thresholds, output: Tensor) -> None:
    """The number of thresholds that an accumulator reaches: a comparison with each, along an axis of their own."""
    sign = np.where(thresholds.negate, -1, 1)
    signed = graph.node("Mul", [acc, graph.channels(sign, np.int64, f"{name}.sign")], f"{name}.signed")
    axis = graph.constant([4], np.int64, "axis of the thresholds")
    values = graph.constant(thresholds.values[None, :, None, None, :], np.int64, f"{name}.thresholds")
    reached = graph.node(
        "GreaterOrEqual", [graph.node("Unsqueeze", [signed, axis], f"{name}.compared"), values], f"{name}.reached"
    )
    ones = graph.cast(reached, TensorProto.INT64, f"{name}.ones")
    count = graph.node("ReduceSum", [ones, axis], f"{name}.count", keepdims=0)
    graph.cast(count, code_type(output), name, output.name)


def _check_range(
    network: IntegerNetwork, name: str, constants: Requantize, skip: str | None, lo: np.ndarray, hi: np.ndarray
) -> None:
    acc = np.maximum(np.abs(lo.astype(object)), np.abs(hi.astype(object)))
    largest = acc * np.abs(constants.multiplier.astype(object)) + np.abs(constants.bias.astype(object))
    if skip is not None and constants.skip_multiplier is not None:
        largest = largest + network.tensor(skip).max_code * np.abs(constants.skip_multiplier.astype(object))
    bits = int(max(largest)).bit_length() + 1
    if bits > 64:
        raise NetworkError(f"Requantization of operation {name!r} must fit ONNX's 64-bit integers, but may take {bits}")


def _max_pool(graph: Graph, operation: MaxPool2d, output: Tensor) -> None:
    options: dict[str, Any] = {"kernel_shape": operation.kernel, "strides": operation.stride, "pads": operation.padding}
    if output.bits <= 8:
        graph.node("MaxPool", [operation.input], operation.name, output.name, **options)
        return
    # ONNX has no max pool of uint16; float32 holds them all.
    value = graph.cast(operation.input, TensorProto.FLOAT, f"{operation.name}.float")
    value = graph.node("MaxPool", [value], f"{operation.name}.max", **options)
    graph.cast(value, TensorProto.UINT16, operation.name, output.name)


def _vector_quantize(graph: Graph, operation: VectorQuantize, source: Tensor) -> None:
    name = operation.name
    top = graph.integer((1 << operation.bits) - 1)
    round_up = graph.integer((1 << operation.bits) - 2)
    most = graph.integer((1 << operation.scale_bits) - 1)
    one, two, zero = (graph.integer(x) for x in (1, 2, 0))
    axis = graph.constant([1], np.int64, "axis of the channels")
    fine = graph.cast(operation.input, TensorProto.INT64, f"{name}.fine")
    parts = []
    for start in range(0, source.shape[0], operation.vector):
        end = min(start + operation.vector, source.shape[0])
        bounds = [graph.constant([x], np.int64, f"int64 [{x}]") for x in (start, end)]
        part = graph.node("Slice", [fine, *bounds, axis], f"{name}.vector")
        largest = graph.node("ReduceMax", [part, axis], f"{name}.largest", keepdims=1)
        scale = graph.node("Div", [graph.node("Add", [largest, round_up], f"{name}.up"), top], f"{name}.covering")
        inside = graph.node("Less", [scale, most], f"{name}.scale_inside")
        scale = graph.node("Where", [inside, scale, most], f"{name}.scale")
        nothing = graph.node("Equal", [scale, zero], f"{name}.nothing")
        twice = graph.node("Where", [nothing, one, graph.node("Mul", [scale, two], f"{name}.twice")], f"{name}.step")
        double = graph.node("Add", [graph.node("Mul", [part, two], f"{name}.double"), scale], f"{name}.half_up")
        code = graph.node("Div", [double, twice], f"{name}.code")
        inside = graph.node("Less", [code, top], f"{name}.code_inside")
        code = graph.node("Where", [inside, code, top], f"{name}.coarse")
        parts.append(graph.node("Mul", [scale, code], f"{name}.part"))
    graph.cast(graph.node("Concat", parts, f"{name}.parts", axis=1), code_type(source), name, operation.output)
