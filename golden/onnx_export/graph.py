"""What the forms share: a graph under construction, what a file says about its tensors, and its execution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from golden.network import Conv2d, IntegerNetwork, Kind, Tensor

__all__ = ["METADATA", "Graph", "describe", "metadata"]

IR_VERSION = 9
OPSET = 18
METADATA = "pactolus"
"""The entry of a model's metadata that :func:`metadata` reads."""


class Graph:
    """Nodes and constants that become a model.

    Parameters
    ----------
    network : :class:`~golden.network.IntegerNetwork`
        What the graph computes: the names of its tensors are kept for them.
    form : :class:`str`
        Name of the form, for the metadata.
    batch : :class:`str` or :class:`int`
        First dimension of what goes in and comes out.
    """

    def __init__(self, network: IntegerNetwork, form: str, *, batch: str | int = "N") -> None:
        self.network = network
        self.form = form
        self.batch = batch
        self.shapes: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constants: dict[tuple[Any, ...], str] = {}
        self.values = {tensor.name for tensor in network.tensors}
        self.node_names: set[str] = set()

    def free(self, name: str) -> str:
        """``name``, or ``name`` with the first number that makes it unique among the graph's values."""
        return _free(name, self.values)

    def integer(self, value: int) -> str:
        """An int64 constant, named by its value."""
        return self.constant(value, np.int64, f"int64 {value}")

    def constant(self, value: Any, dtype: type, name: str) -> str:
        """An initializer; equal ones of equal names are made once."""
        array: np.ndarray = np.array(value, dtype, order="C")
        key = (name, array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.free(name)
            self.initializers.append(numpy_helper.from_array(array, self.constants[key]))
        return self.constants[key]

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        output: str | None = None,
        *,
        shape: Sequence[int] = (),
        dtype: type = np.float32,
        batch: bool = True,
        **attributes: Any,
    ) -> str:
        """A node with one output, called ``output`` (a name that is taken already) or else like the node.

        Where ``shape`` is given, the model says the shape and type of the output; ``batch``: a frame's shape.
        """
        result = self.free(name) if output is None else output
        name = _free(name, self.node_names)
        if shape:
            whole = [self.batch, *shape] if batch else list(shape)
            element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            self.shapes.append(helper.make_tensor_value_info(result, element, whole))
        self.nodes.append(helper.make_node(operator, list(inputs), [result], name=name, **attributes))
        return result

    def cast(self, value: str, dtype: int, name: str, output: str | None = None) -> str:
        """``value`` as another type (of :class:`onnx.TensorProto`)."""
        return self.node("Cast", [value], name, output, to=dtype)

    def channels(self, values: Any, dtype: type, name: str) -> str:
        """A constant with one value for each channel."""
        return self.constant(np.asarray(values)[None, :, None, None], dtype, name)

    def model(
        self,
        input_type: int,
        outputs: Sequence[tuple[str, int, Tensor, str]],
        *,
        about: str,
        opsets: Sequence[tuple[str, int]] = (("", OPSET),),
        extra: dict[str, Any] | None = None,
        values: bool = False,
    ) -> onnx.ModelProto:
        """The checked model.

        Parameters
        ----------
        input_type : :class:`int`
            Element type of the input.
        outputs : sequence of (name, element type, tensor, description)
            In order; the tensor gives the shape.
        about : :class:`str`
            What the model is, for people.
        opsets : sequence of (domain, version)
        extra : :class:`dict`
            More for the metadata.
        values : :class:`bool`
            Whether tensors are values code - zero point, not codes.
        """
        source = self.network.input
        infos = [
            helper.make_tensor_value_info(name, dtype, [self.batch, *tensor.shape], doc_string=text)
            for name, dtype, tensor, text in [
                (source.name, input_type, source, describe(source, values=values)),
                *outputs,
            ]
        ]
        said = {info.name for info in infos}
        graph = helper.make_graph(
            self.nodes,
            self.network.name,
            infos[:1],
            infos[1:],
            self.initializers,
            doc_string=about,
            value_info=[shape for shape in self.shapes if shape.name not in said],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*each) for each in opsets],
            ir_version=IR_VERSION,
            producer_name="pactolus",
            doc_string=about,
        )
        entries = {"form": self.form, "output": self.network.output.name, **_tensors(self.network), **(extra or {})}
        helper.set_model_props(model, {METADATA: json.dumps(entries)})
        onnx.checker.check_model(model)
        return model


def _free(name: str, taken: set[str]) -> str:
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}.{number}"
    taken.add(unique)
    return unique


def describe(tensor: Tensor, *, values: bool = False) -> str:
    """One sentence that says what the integers of ``tensor`` are; ``values``: they are code - zero point."""
    if tensor.kind is Kind.ACCUMULATOR:
        return f"{tensor.bits}-bit accumulators; real value = slope*acc + offset"
    low = -tensor.zero_point if values else 0
    what = "value" if values else "code"
    real = what if values or not tensor.zero_point else f"(code - {tensor.zero_point})"
    scale = f"{tensor.scale!r}*{real}"
    if tensor.vector_scales is not None:
        scale = f"{scale}*(scale of the vector)"
    return f"{tensor.bits}-bit {what}s {low}..{low + tensor.max_code}; real value = {scale}"


def _tensors(network: IntegerNetwork) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for tensor in network.tensors:
        entry: dict[str, Any] = {"kind": tensor.kind.value, "bits": tensor.bits}
        if tensor.kind is Kind.CODE:
            entry |= {"zero_point": tensor.zero_point, "scale": tensor.scale}
            if tensor.vector_scales is not None:
                scales = tensor.vector_scales
                entry["vector_scales"] = {"codes": scales.codes.tolist(), "vector": scales.vector}
        else:
            assert tensor.slope is not None and tensor.offset is not None
            entry |= {"slope": tensor.slope.tolist(), "offset": tensor.offset.tolist()}
        tensors[tensor.name] = entry
    weights = {
        operation.name: {"bits": operation.bits, "grid": operation.grid.value}
        for operation in network.operations
        if isinstance(operation, Conv2d)
    }
    return {"tensors": tensors, "weights": weights}


def metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """What a model of ours says about itself: form, output, tensors, weights.

    Raises
    ------
    ValueError
        If it says nothing.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA:
            found: dict[str, Any] = json.loads(entry.value)
            return found
    raise ValueError(f"Model must have the metadata entry {METADATA!r}, which says what its tensors are")


def code_type(tensor: Tensor) -> int:
    """Element type of the tensor's integers in the integer form."""
    if tensor.kind is Kind.ACCUMULATOR:
        return int(TensorProto.INT64)
    return int(TensorProto.UINT8 if tensor.bits <= 8 else TensorProto.UINT16)
