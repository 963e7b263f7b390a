"""Models of the three forms, executed by somebody else: ONNX Runtime, and qonnx for its own operators."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from golden.execute import check_codes, execute
from golden.network import IntegerNetwork, Kind, Tensor, code_dtype
from golden.onnx_export.graph import metadata

__all__ = ["Comparison", "compare", "decode", "encode", "run"]


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
    if metadata(model)["form"] == "qonnx":
        return _run_qonnx(model, x)
    names = [output.name for output in model.graph.output]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {model.graph.input[0].name: x}), strict=True))


def _run_qonnx(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    wrapper = ModelWrapper(_with_batch(model, len(x)))
    found: dict[str, np.ndarray] = execute_onnx(wrapper, {model.graph.input[0].name: x})
    return found


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy for ``batch`` frames: qonnx takes what the file says and nothing else."""
    model = copy.deepcopy(model)
    weights = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if info.name not in weights:
            info.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def encode(network: IntegerNetwork, model: onnx.ModelProto, codes: np.ndarray) -> np.ndarray:
    """What the model's input takes for the input codes of ``network``."""
    codes = check_codes(codes, network.input)
    if metadata(model)["form"] == "integer":
        return codes
    return codes.astype(np.float32) - np.float32(network.input.zero_point)


def decode(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    """Codes or accumulators, in golden's dtype, of a model's output for ``tensor``.

    Raises
    ------
    ValueError
        If ``value`` is neither of the dtype of the integer form nor integers in float32.
    """
    expected = np.dtype(np.int64) if tensor.kind is Kind.ACCUMULATOR else code_dtype(tensor.bits)
    if value.dtype == expected:
        return value
    if value.dtype != np.float32 or (np.rint(value) != value).any():
        raise ValueError(f"Tensor {tensor.name!r} must hold {expected} or integers in float32, not {value.dtype}")
    return (value.astype(np.int64) + tensor.zero_point).astype(expected)


def compare(network: IntegerNetwork, model: onnx.ModelProto, codes: np.ndarray) -> list[Comparison]:
    """Run a model on input codes and count, tensor by tensor, what differs from golden."""
    got, expected = run(model, encode(network, model, codes)), execute(network, codes)
    found = []
    for operation in network.operations:
        tensor = network.tensor(operation.output)
        value = decode(tensor, got[tensor.name])
        different = int((value != expected[tensor.name]).sum())
        found.append(Comparison(tensor.name, value.size, different))
    return found
