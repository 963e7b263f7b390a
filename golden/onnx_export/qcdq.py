"""The QCDQ form: ``QuantizeLinear``, ``Clip``, ``DequantizeLinear``, as Brevitas and ONNX Runtime write them.

Codes are uint8 with the tensor's zero point and scale 1; the values between the quantizers are code - zero point.
Weights are int8 constants (int32, where they do not fit) behind ``DequantizeLinear``. Where codes or weights have fewer
bits than their type, a ``Clip`` of the integers says so.
"""

from __future__ import annotations

import numpy as np
import onnx

from golden.network import Conv2d, IntegerNetwork, NetworkError, Tensor
from golden.onnx_export.graph import OPSET, Graph
from golden.onnx_export.values import Dialect, float_model

__all__ = ["qcdq_model"]


def qcdq_model(network: IntegerNetwork) -> onnx.ModelProto:
    """The network with quantizers of ONNX's own, executed by ONNX Runtime.

    The input takes float32 integers code - zero point, (N, C, H, W). Every tensor that an operation makes is an output
    under its own name: values code - zero point in float32, or accumulators. Of accumulators the real values too,
    ``NAME.real`` = slope*acc + offset in float32. Scales are 1 throughout; the real ones are in the metadata.

    How many of all reachable accumulators have a code that is not golden's is counted while the model is made;
    :func:`agreement` reads it from the model.

    Raises
    ------
    NetworkError
        If codes have more than 8 bits, or vector scales are found from the data; the sentence names the place.
    """
    return float_model(network, _Qcdq())


class _Qcdq(Dialect):
    form = "qcdq"
    title = "QCDQ"
    batch = "N"
    opsets = (("", OPSET),)
    about = (
        "An integer network with QuantizeLinear, Clip and DequantizeLinear. Every scale is 1, so that all sums are "
        "exact integers; the metadata entry 'pactolus' has bits, zero points and the real scales."
    )

    def check(self, tensor: Tensor) -> None:
        if tensor.bits > 8:
            raise NetworkError(f"Tensor {tensor.name!r} must have at most 8 bits in QCDQ, not {tensor.bits}")

    def added(self, tensor: Tensor) -> int:
        return 0

    def quantize(self, graph: Graph, value: str, tensor: Tensor, output: str) -> None:
        scale = graph.constant(1, np.float32, "scale 1")
        zero = graph.constant(tensor.zero_point, np.uint8, f"zero point {tensor.zero_point}")
        codes = graph.node(
            "QuantizeLinear", [value, scale, zero], f"{tensor.name}.quantize", shape=tensor.shape, dtype=np.uint8
        )
        if tensor.bits < 8:
            ends = [graph.constant(end, np.uint8, f"uint8 {end}") for end in (0, tensor.max_code)]
            codes = graph.node("Clip", [codes, *ends], f"{tensor.name}.clip", shape=tensor.shape, dtype=np.uint8)
        graph.node("DequantizeLinear", [codes, scale, zero], f"{tensor.name}.dequantize", output)

    def weights(self, graph: Graph, operation: Conv2d, weights: np.ndarray) -> str:
        name = f"{operation.name}.weight"
        scale = graph.constant(1, np.float32, "scale 1")
        if not -128 <= int(weights.min()) <= int(weights.max()) <= 127:
            inputs = [graph.constant(weights, np.int32, f"{name}.integers"), scale]
            return graph.node("DequantizeLinear", inputs, name)
        integers = graph.constant(weights, np.int8, f"{name}.integers")
        low, high = weight_range(operation, weights)
        if low >= -128 and high <= 127 and (low, high) != (-128, 127):
            ends = [graph.constant(end, np.int8, f"int8 {end}") for end in (low, high)]
            integers = graph.node("Clip", [integers, *ends], f"{name}.clip")
        return graph.node("DequantizeLinear", [integers, scale, graph.constant(0, np.int8, "int8 0")], name)


def weight_range(operation: Conv2d, weights: np.ndarray) -> tuple[int, int]:
    """Smallest and largest weight of the operation's grid, or of ``weights`` if these go beyond (vector scales)."""
    p, c = operation.grid.p(operation.bits), operation.grid.c(operation.bits)
    low, high = -c, p * ((1 << operation.bits) - 1) - c
    return min(low, int(weights.min())), max(high, int(weights.max()))
