"""Small ONNX files in the idioms of NEMO and quantlib, and what ONNX Runtime says every tensor of them is.

Numbers are small enough for float32 to be exact, or go through int64 as NEMO's do.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


class OnnxMaker:
    """Builds a model node by node; each method returns the name of what its node makes.

    Members
    -------
    opset : :class:`int`
        10: clips and pads have attributes; 13: inputs.
    last : :class:`str`
        What the next node reads if nothing else is said.
    """

    def __init__(self, shape, *, seed=0, opset=10, dtype=TensorProto.FLOAT, batch=1):
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list = []
        self.initializers: list = []
        self.input = helper.make_tensor_value_info("x", dtype, [batch, *shape])
        self.last = "x"

    def constant(self, value, dtype=np.float32, name=None) -> str:
        name = name or f"k{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator, *inputs, name=None, outputs=1, **attributes) -> str:
        """A node; without inputs it reads the last one's result."""
        made = [f"t{len(self.nodes)}{'abc'[i] if i else ''}" for i in range(outputs)]
        name = f"{operator}_{len(self.nodes)}" if name is None else name
        self.nodes.append(helper.make_node(operator, list(inputs or (self.last,)), made, name=name, **attributes))
        self.last = made[0]
        return self.last

    def weights(self, *shape, low=-4, high=3):
        return self.rng.integers(low, high + 1, shape)

    def conv(self, weights, *, source=None, bias=None, **attributes) -> str:
        inputs = [source or self.last, self.constant(weights)]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.node("Conv", *inputs, **attributes)

    def clip(self, low, high, source=None, dtype=np.float32) -> str:
        if self.opset < 11:
            return self.node("Clip", source or self.last, min=float(low), max=float(high))
        return self.node("Clip", source or self.last, self.constant(low, dtype), self.constant(high, dtype))

    def requantize(self, channels, *, style="floor", low=0, high=15, axes=2, scale=3, shift=5, offset=20) -> str:
        """Mul, Add, a division by 2**shift that rounds down, and Clip, as ``style`` writes them.

        ``floor``: quantlib's floats; ``nemo``: kappa first, then integers; ``integer``: int64; ``shift``: BitShift.
        """
        rng, flat = self.rng, (1,) * axes
        if self.opset < 11 and style == "shift":
            style = "integer"  # the operator is younger
        kappa = rng.integers(1, 1 + scale, (channels, *flat)) * rng.choice([-1, 1, 1, 1], (channels, *flat))
        lamda = rng.integers(-offset, offset + 1, (channels, *flat))
        if style == "floor":
            self.node("Mul", self.last, self.constant(kappa))
            self.node("Add", self.last, self.constant(lamda))
            self.node("Div", self.last, self.constant(2.0**shift))
            self.node("Floor")
            return self.clip(low, high)
        if style == "nemo":
            self.node("Mul", self.constant(kappa[None]), self.last)
            self.node("Add", self.last, self.constant(lamda[None]))
            self.node("Cast", to=TensorProto.INT64)
            self.node("Mul", self.last, self.constant([5], np.int64))
            self.node("Div", self.last, self.constant(5 << shift >> 2, np.int64))
            self.node("Cast", to=TensorProto.INT64)
            self.node("Cast", to=TensorProto.FLOAT)
            return self.clip(low, high)
        self.node("Cast", to=TensorProto.INT64)
        self.node("Mul", self.last, self.constant(kappa, np.int64))
        self.node("Add", self.last, self.constant(lamda, np.int64))
        if style == "integer":
            self.node("Div", self.last, self.constant(1 << shift, np.int64))
        else:
            self.node("Cast", to=TensorProto.FLOAT)
            self.node("Relu")
            self.node("Cast", to=TensorProto.UINT64)
            self.node("BitShift", self.last, self.constant(shift, np.uint64), direction="RIGHT")
        self.node("Cast", to=TensorProto.FLOAT)
        return self.clip(low, high)

    def shape(self) -> list[int]:
        """Sizes of what the last node made."""
        model = self.model()
        model.graph.node.append(helper.make_node("Identity", [self.last], ["end"]))
        model.graph.output[0].name = "end"
        known = [*onnx.shape_inference.infer_shapes(model).graph.value_info, self.input]
        return [size.dim_value for size in next(v for v in known if v.name == self.last).type.tensor_type.shape.dim]

    def model(self, output=None) -> onnx.ModelProto:
        name = output or self.last
        graph = helper.make_graph(
            self.nodes, "graph", [self.input], [helper.make_empty_tensor_value_info(name)], self.initializers
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=6)


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of a model by name, frame by frame through ONNX Runtime, as float64 (N, ...)."""
    inferred = onnx.shape_inference.infer_shapes(model)
    known = {info.name: info for info in inferred.graph.value_info}
    names = [name for node in inferred.graph.node for name in node.output[:1] if name in known]
    model = onnx.ModelProto()
    model.CopyFrom(inferred)
    final = [output.name for output in model.graph.output]
    model.graph.output.extend(known[name] for name in names if name not in final)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    labels = [output.name for output in session.get_outputs()]
    frames = [session.run(labels, {"x": frame[None].astype(dtype)}) for frame in x]
    return {
        label: np.concatenate([np.atleast_1d(f[i]) for f in frames]).astype(np.float64)
        for i, label in enumerate(labels)
    }
