"""The QONNX form: ``Quant`` and ``BipolarQuant`` nodes of the domain ``qonnx.custom_op.general``, executed by qonnx.

Values are integers, code - zero point, and every scale is 1. A tensor whose zero point is half its range has a signed
quantizer without a zero point, others an unsigned one. Weights are float32 integers behind a quantizer of their bits;
those of w bits on the odd grid are the odd ones of the symmetric range of w + 1 bits, and -1 and 1 bipolar.
"""

from __future__ import annotations

import numpy as np
import onnx

from golden.network import Conv2d, IntegerNetwork, NetworkError, Tensor, Thresholds, signed_width
from golden.onnx_export.graph import OPSET, Graph
from golden.onnx_export.qcdq import weight_range
from golden.onnx_export.values import Dialect, float_model

__all__ = ["DOMAIN", "qonnx_model"]

DOMAIN = "qonnx.custom_op.general"
MAX_WEIGHT_BITS = 24


def qonnx_model(network: IntegerNetwork, *, batch: int = 1) -> onnx.ModelProto:
    """The network with QONNX's quantizers, executed by qonnx.

    The input takes float32 integers code - zero point, (batch, C, H, W): qonnx wants every shape to be known. Outputs,
    scales and the counted agreement are those of :func:`qcdq_model`.

    Raises
    ------
    NetworkError
        If vector scales are found from the data, or weights times their vector scales exceed 24 bits; the sentence
        names the operation.
    """
    if batch < 1:
        raise ValueError(f"Batch must be at least 1, not {batch!r}")
    return float_model(network, _Qonnx(batch))


class _Qonnx(Dialect):
    form = "qonnx"
    title = "QONNX"
    opsets = (("", OPSET), (DOMAIN, 1))
    about = (
        "An integer network with Quant nodes. Every scale is 1, so that all sums are exact integers; the metadata "
        "entry 'pactolus' has bits, zero points and the real scales."
    )

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def check(self, tensor: Tensor) -> None:
        pass

    def signed(self, tensor: Tensor) -> bool:
        # A signed quantizer of one bit is bipolar in qonnx.
        return tensor.bits > 1 and tensor.zero_point == 1 << tensor.bits - 1

    def added(self, tensor: Tensor) -> int:
        return 0 if self.signed(tensor) else tensor.zero_point

    def quantize(self, graph: Graph, value: str, tensor: Tensor, output: str) -> None:
        inputs = _parameters(graph, self.added(tensor), tensor.bits)
        graph.node(
            "Quant",
            [value, *inputs],
            f"{tensor.name}.quant",
            output,
            shape=tensor.shape,
            domain=DOMAIN,
            signed=int(self.signed(tensor)),
            narrow=0,
            rounding_mode="ROUND",
        )

    def compare(self, graph: Graph, name: str, value: str, thresholds: Thresholds, output: Tensor) -> None:
        if thresholds.negate.any():
            signs = graph.channels(np.where(thresholds.negate, -1, 1), np.float32, f"{name}.sign")
            value = graph.node("Mul", [value, signs], f"{name}.signed", shape=output.shape)
        graph.node(
            "MultiThreshold",
            [value, graph.constant(thresholds.values, np.float32, f"{name}.thresholds")],
            f"{output.name}.compare",
            output.name,
            shape=output.shape,
            domain=DOMAIN,
            out_dtype=f"INT{output.bits + 1}",
            out_scale=1.0,
            out_bias=float(-output.zero_point),
        )

    def weights(self, graph: Graph, operation: Conv2d, weights: np.ndarray) -> str:
        name = f"{operation.name}.weight"
        low, high = weight_range(operation, weights)
        bits, narrow = max(signed_width(low, high), 2), low == -high and high & high + 1 == 0
        if bits > MAX_WEIGHT_BITS:
            raise NetworkError(
                f"Weights of operation {operation.name!r} must have at most {MAX_WEIGHT_BITS} bits in QONNX, not {bits}"
            )
        values = graph.constant(weights, np.float32, f"{name}.integers")
        if (low, high) == (-1, 1) and operation.bits == 1:
            inputs = [values, graph.constant(1, np.float32, "scale 1")]
            return graph.node("BipolarQuant", inputs, name, shape=weights.shape, batch=False, domain=DOMAIN)
        return graph.node(
            "Quant",
            [values, *_parameters(graph, 0, bits)],
            name,
            shape=weights.shape,
            batch=False,
            domain=DOMAIN,
            signed=1,
            narrow=int(narrow),
            rounding_mode="ROUND",
        )


def _parameters(graph: Graph, zero_point: int, bits: int) -> list[str]:
    """Scale, zero point and bit width of a Quant node."""
    return [
        graph.constant(1, np.float32, "scale 1"),
        graph.constant(zero_point, np.float32, f"zero point {zero_point}"),
        graph.constant(bits, np.float32, f"{bits} bits"),
    ]
