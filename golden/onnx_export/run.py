"""Models of the three forms, executed by somebody else: ONNX Runtime, and qonnx for its own operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from golden.execute import check_codes, execute
from golden.network import IntegerNetwork

__all__ = ["Comparison", "compare", "run"]


@dataclass(frozen=True)
class Comparison:
    """One tensor as golden computes it, and as the model's executor does.

    Parameters
    ----------
    tensor : :class:`str`
        Its name.
    elements : :class:`int`
        Codes or accumulators compared.
    different : :class:`int`
        How many are not equal.
    """

    tensor: str
    elements: int
    different: int


def run(model: onnx.ModelProto, x: np.ndarray, *, optimize: bool = True) -> dict[str, np.ndarray]:
    """Every output of a model, computed by the executor of its form.

    Parameters
    ----------
    model : :class:`onnx.ModelProto`
        Of :func:`integer_model`, :func:`qcdq_model` or :func:`qonnx_model`.
    x : array
        What its input takes: codes (integer form), or float32 numbers code - zero point.
    optimize : :class:`bool`
        Whether ONNX Runtime may rewrite the graph, as it does unless told otherwise.

    Returns
    -------
    :class:`dict`
        Arrays by the outputs' names.
    """
    names = [output.name for output in model.graph.output]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {model.graph.input[0].name: x}), strict=True))


def compare(network: IntegerNetwork, model: onnx.ModelProto, x: np.ndarray) -> list[Comparison]:
    """Run a model on input codes and count, tensor by tensor, what differs from golden."""
    got, expected = run(model, check_codes(x, network.input)), execute(network, x)
    found = []
    for operation in network.operations:
        name = operation.output
        if got[name].shape != expected[name].shape or got[name].dtype != expected[name].dtype:
            raise ValueError(f"Tensor {name!r} must be of {expected[name].dtype}, not {got[name].dtype}")
        found.append(Comparison(name, got[name].size, int((got[name] != expected[name]).sum())))
    return found
