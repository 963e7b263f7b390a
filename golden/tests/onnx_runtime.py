"""Integer networks in ONNX Runtime, for tests: what it computes is the answer that golden must give."""

from __future__ import annotations

import numpy as np

from golden.network import IntegerNetwork, Kind
from golden.onnx_export import integer_model, run


def executed(network: IntegerNetwork, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor that an operation of ``network`` makes, computed by ONNX Runtime."""
    values = run(integer_model(network), x)
    output = network.output
    if output.kind is Kind.ACCUMULATOR:
        acc = values[output.name].astype(np.float64)
        real = acc * output.slope[:, None, None] + output.offset[:, None, None]
        np.testing.assert_array_equal(values.pop(f"{output.name}.real"), real)
    assert set(values) == {operation.output for operation in network.operations}
    return values
