"""An integer network as ONNX integer operators, so that ONNX Runtime can say what the answer is.

``p*ConvInteger(u, n) - c*ConvInteger(u, 1)`` with unsigned 8-bit operands; wider codes are split into bytes; padding is
explicit; the requantized value is clipped at 0 before the division, because ONNX's Div truncates. The clips are Less
and Where: ONNX Runtime 1.31's Max, Min, Clip and Relu of int64 compare the low words as signed numbers (2**31 counts as
less than 0).

With vector scales every weight position (channel of the group, ky, kx) is a ConvInteger of its own, multiplied by the
scale product of its vector, which ONNX Runtime multiplies and rounds too.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from golden.network import Conv2d, IntegerNetwork, MaxPool2d, VectorQuantize


class _Graph:
    def __init__(self) -> None:
        self.nodes: list = []
        self.initializers: list = []

    def constant(self, value, dtype) -> str:
        name = f"k{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator, inputs, output=None, **attributes) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def cast(self, value, dtype, output=None) -> str:
        return self.node("Cast", [value], output, to=dtype)


def _code_type(bits):
    return TensorProto.UINT8 if bits <= 8 else TensorProto.UINT16


def _bytes_of(graph, value, bits):
    """[(weight 256**i, name of a uint8 tensor)] of a tensor of codes."""
    if bits <= 8:
        return [(1, value)]
    wide = graph.cast(value, TensorProto.INT64)
    byte = graph.constant(256, np.int64)
    return [
        (1, graph.cast(graph.node("Mod", [wide, byte]), TensorProto.UINT8)),
        (256, graph.cast(graph.node("Div", [wide, byte]), TensorProto.UINT8)),
    ]


def _accumulator(graph, network, operation, output=None):
    source = network.tensor(operation.input)
    codes = operation.codes.astype(np.int64)
    if operation.broadcast:
        codes = np.broadcast_to(codes, (*codes.shape[:2], *source.shape[1:]))
    top, left, bottom, right = operation.padding
    padded = operation.input
    if any(operation.padding):
        dtype = np.uint8 if source.bits <= 8 else np.int32
        value = padded if source.bits <= 8 else graph.cast(padded, TensorProto.INT32)
        pads = graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
        padded = graph.node("Pad", [value, pads, graph.constant(source.zero_point, dtype)])
        if source.bits > 8:
            padded = graph.cast(padded, TensorProto.UINT16)
    options = {"strides": operation.stride, "dilations": operation.dilation, "group": operation.groups}
    total = None
    p, c = operation.grid.p(operation.bits), operation.grid.c(operation.bits)
    digits = _bytes_of(graph, padded, source.bits)
    for places, product in _scale_products(graph, operation, source, codes.shape):
        weights = [(p, codes & 255), (-c, np.ones_like(codes))]
        if operation.bits > 8:
            weights.append((p * 256, codes >> 8))
        for input_factor, digit in digits:
            for factor, part in weights:
                acc = graph.node("ConvInteger", [digit, graph.constant(part * places, np.uint8)], **options)
                term = graph.node(
                    "Mul", [graph.cast(acc, TensorProto.INT64), graph.constant(factor * input_factor, np.int64)]
                )
                if product is not None:
                    term = graph.node("Mul", [term, product])
                total = term if total is None else graph.node("Add", [total, term])
    return graph.node("Identity", [total], output)


def _scale_products(graph, operation, source, shape):
    """(mask of some weights, name of what their sums are multiplied by), until every weight has had its turn."""
    own, given = operation.vector_scales, source.vector_scales
    if own is None and given is None:
        yield np.ones(shape, np.int64), None
        return
    outputs = np.arange(shape[0])
    for channel, ky, kx in np.ndindex(shape[1:]):
        mask = np.zeros(shape, np.int64)
        mask[:, channel, ky, kx] = 1
        product = graph.constant(np.ones((1, shape[0], 1, 1)), np.int64)
        if own is not None:
            tap = (0, 0) if operation.broadcast else (ky, kx)
            scales = own.codes[:, channel // own.vector, *tap]
            product = graph.node("Mul", [product, graph.constant(scales[None, :, None, None], np.int64)])
        if given is not None:
            channels = outputs // (shape[0] // operation.groups) * shape[1] + channel
            scales = given.codes[channels // given.vector]
            product = graph.node("Mul", [product, graph.constant(scales[None, :, None, None], np.int64)])
        if operation.product_shift:
            half = graph.constant(2 ** (operation.product_shift - 1), np.int64)
            divisor = graph.constant(2**operation.product_shift, np.int64)
            product = graph.node("Div", [graph.node("Add", [product, half]), divisor])
        yield mask, product


def _vector_quantize(graph, operation, source, output):
    top = graph.constant((1 << operation.bits) - 1, np.int64)
    most = graph.constant((1 << operation.scale_bits) - 1, np.int64)
    one, two, zero = (graph.constant(x, np.int64) for x in (1, 2, 0))
    fine = graph.cast(operation.input, TensorProto.INT64)
    parts = []
    for start in range(0, source.shape[0], operation.vector):
        begin, end, axis = (graph.constant([x], np.int64) for x in (start, start + operation.vector, 1))
        part = graph.node("Slice", [fine, begin, end, axis])
        largest = graph.node("ReduceMax", [part, graph.constant([1], np.int64)], keepdims=1)
        scale = graph.node("Div", [graph.node("Sub", [graph.node("Add", [largest, top]), one]), top])
        scale = graph.node("Where", [graph.node("Less", [scale, most]), scale, most])
        nothing = graph.node("Equal", [scale, zero])
        twice = graph.node("Where", [nothing, one, graph.node("Mul", [scale, two])])
        code = graph.node("Div", [graph.node("Add", [graph.node("Mul", [part, two]), scale]), twice])
        code = graph.node("Where", [graph.node("Less", [code, top]), code, top])
        parts.append(graph.node("Mul", [scale, code]))
    graph.cast(graph.node("Concat", parts, axis=1), _code_type(source.bits), output)


def _requantized(graph, value, constants, bits, skip, output):
    def channels(array):
        return graph.constant(np.asarray(array, np.int64)[None, :, None, None], np.int64)

    total = graph.node("Add", [graph.node("Mul", [value, channels(constants.multiplier)]), channels(constants.bias)])
    if skip is not None:
        term = graph.node("Mul", [graph.cast(skip, TensorProto.INT64), channels(constants.skip_multiplier)])
        total = graph.node("Add", [total, term])
    zero, top = graph.constant(0, np.int64), graph.constant((1 << bits) - 1, np.int64)
    total = graph.node("Where", [graph.node("Less", [total, zero]), zero, total])
    total = graph.node("Div", [total, channels(2 ** constants.shift.astype(np.int64))])
    total = graph.node("Where", [graph.node("Less", [total, top]), total, top])
    graph.cast(total, _code_type(bits), output)


def run(network: IntegerNetwork, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor that an operation of ``network`` makes, computed by ONNX Runtime."""
    graph = _Graph()
    for operation in network.operations:
        output = network.tensor(operation.output)
        if isinstance(operation, MaxPool2d):
            graph.node(
                "MaxPool",
                [operation.input],
                operation.output,
                kernel_shape=operation.kernel,
                strides=operation.stride,
                pads=operation.padding,
            )
        elif isinstance(operation, VectorQuantize):
            _vector_quantize(graph, operation, network.tensor(operation.input), operation.output)
        elif isinstance(operation, Conv2d) and operation.requantize is None:
            _accumulator(graph, network, operation, operation.output)
        elif isinstance(operation, Conv2d):
            acc = _accumulator(graph, network, operation)
            _requantized(graph, acc, operation.requantize, output.bits, operation.skip, operation.output)
        else:
            a = graph.cast(operation.a, TensorProto.INT64)
            _requantized(graph, a, operation.requantize, output.bits, operation.b, operation.output)
    names = [operation.output for operation in network.operations]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "reference",
            [helper.make_tensor_value_info(network.input.name, _code_type(network.input.bits), [None] * 4)],
            [
                helper.make_tensor_value_info(
                    name,
                    TensorProto.INT64
                    if network.tensor(name).kind.value == "accumulator"
                    else _code_type(network.tensor(name).bits),
                    [None] * 4,
                )
                for name in names
            ],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {network.input.name: x}), strict=True))
