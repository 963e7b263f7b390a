"""Integer networks as ONNX models, each form with an executor of somebody else's that confirms it.

:func:`integer_model`
    ONNX's own integer operators: ONNX Runtime computes the very codes of golden at every layer.
:func:`qcdq_model`
    ``QuantizeLinear``, ``Clip``, ``DequantizeLinear``, executed by ONNX Runtime.
:func:`qonnx_model`
    ``Quant`` nodes, executed by qonnx.

The last two compute with floats. What is proved about their codes is counted when they are made: :func:`agreement`.
"""

from collections.abc import Callable

import onnx

from golden.network import IntegerNetwork
from golden.onnx_export.graph import metadata
from golden.onnx_export.integer import integer_model
from golden.onnx_export.qcdq import qcdq_model
from golden.onnx_export.qonnx import qonnx_model
from golden.onnx_export.run import Comparison, compare, decode, encode, run
from golden.onnx_export.values import Agreement, agreement

__all__ = [
    "FORMS",
    "Agreement",
    "Comparison",
    "agreement",
    "compare",
    "decode",
    "encode",
    "integer_model",
    "metadata",
    "qcdq_model",
    "qonnx_model",
    "run",
]

FORMS: dict[str, Callable[[IntegerNetwork], onnx.ModelProto]] = {
    "integer": integer_model,
    "qcdq": qcdq_model,
    "qonnx": qonnx_model,
}
"""What makes a form, by its name."""
