"""Small QONNX and QCDQ models of structures that real files have, by the helpers of onnx, qonnx and ONNX Runtime.

:data:`GRAPHS` has one maker for each: ``GRAPHS[name](seed)`` is a :class:`Graph`. Scales are no powers of two unless
the graph is about ties; batch norm and calibration keep the values spread over all codes.
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.extract_quant_scale_zeropt import ExtractQuantScaleZeroPt
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ

__all__ = ["GRAPHS", "Graph", "Maker", "write"]

QONNX = "qonnx.custom_op.general"
BATCH = 100
ROUNDING_MODES = ("ROUND", "FLOOR", "CEIL", "HALF_UP", "UP", "DOWN", "HALF_DOWN")


@dataclass(frozen=True)
class Graph:
    """A model and its inputs.

    Members
    -------
    model : :class:`onnx.ModelProto`
        Its input has the batch :data:`BATCH`, or 1 where qonnx cannot do with more.
    low, high : :class:`float`
        Inputs are drawn uniformly from here; from the integers there if ``integers``.
    options : :class:`dict`
        What :func:`golden.onnx_import.convert` must be told.
    refused : :class:`str` or ``None``
        How the sentence begins if there is no integer network that computes this.
    """

    model: onnx.ModelProto
    low: float = -1.0
    high: float = 1.0
    integers: bool = False
    options: dict = field(default_factory=dict)
    refused: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input, with the batch."""
        return tuple(size.dim_value for size in self.model.graph.input[0].type.tensor_type.shape.dim)

    def inputs(self, seed: int = 0, frames: int = BATCH) -> np.ndarray:
        """Inputs: float32, or integers of the input's type."""
        rng = np.random.default_rng(seed)
        shape = (frames, *self.shape[1:])
        dtype = helper.tensor_dtype_to_np_dtype(self.model.graph.input[0].type.tensor_type.elem_type)
        if self.integers:
            return rng.integers(int(self.low), int(self.high), shape, endpoint=True).astype(dtype)
        return rng.uniform(self.low, self.high, shape).astype(dtype)


GRAPHS: dict[str, Callable[[int], Graph]] = {}


def graph(make):
    """Put a maker among :data:`GRAPHS` by its name."""
    GRAPHS[make.__name__] = make
    return make


class Maker:
    """Builds a model node by node; every method returns the name of what it makes.

    Members
    -------
    rms : :class:`float`
        About how large the last value is, so that scales suit it.
    """

    def __init__(self, shape, *, seed=0, opset=13, rms=0.577, batch=BATCH, dtype=TensorProto.FLOAT):
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list = []
        self.initializers: list = []
        self.input = helper.make_tensor_value_info("x", dtype, [batch, *shape])
        self.batch = batch
        self.last, self.rms = "x", rms

    def constant(self, value, dtype=np.float32, name=None) -> str:
        name = name or f"k{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator, *inputs, name=None, **attributes) -> str:
        """A node; without inputs it reads the last one's result."""
        made = f"t{len(self.nodes)}"
        name = f"{operator}_{len(self.nodes)}" if name is None else name
        self.nodes.append(helper.make_node(operator, list(inputs or (self.last,)), [made], name=name, **attributes))
        self.last = made
        return made

    def quant(self, bits, *, source=None, scale=None, zero_point=0.0, signed=0, narrow=0, rounding="ROUND", **other):
        """Quant with a scale that spreads a normal value over all codes if none is given."""
        if scale is None:
            scale = 2.4 * self.rms / ((1 << bits - signed) - 1 if bits > 1 else 1) * 1.01
        inputs = [source or self.last, self.constant(scale), self.constant(zero_point), self.constant(float(bits))]
        return self.node("Quant", *inputs, domain=QONNX, signed=signed, narrow=narrow, rounding_mode=rounding, **other)

    def weights(self, *shape, bits=4, per_channel=True, narrow=1, axis=0, scale=None) -> str:
        """Float weights and their Quant."""
        floats = self.rng.normal(0, 0.3, shape).astype(np.float32)
        self.fan_in = int(np.prod(shape)) // shape[axis]
        top = (1 << (bits - 1)) - 1 if bits > 1 else 1
        if scale is None:
            others = tuple(i for i in range(len(shape)) if i != axis)
            scale = np.abs(floats).max(axis=others if per_channel else None, keepdims=per_channel) / top
        return self.quant(bits, source=self.constant(floats), scale=scale, signed=1, narrow=narrow)

    def bipolar(self, *shape, scale=1.0) -> str:
        """Float weights and their BipolarQuant."""
        floats = self.rng.normal(0, 1, shape).astype(np.float32)
        self.fan_in = int(np.prod(shape[1:]))
        return self.node("BipolarQuant", self.constant(floats), self.constant(scale), domain=QONNX)

    def conv(self, outputs, inputs, *kernel, source=None, weights=None, bias=False, **attributes) -> str:
        source = source or self.last
        weights = weights or self.weights(outputs, inputs, *kernel)
        operands = [source, weights]
        if bias:
            operands.append(self.constant(self.rng.normal(0, 0.5 * self.rms, outputs)))
        self.rms *= 0.3 * self.fan_in**0.5
        if "auto_pad" not in attributes:
            axes = len(kernel)
            defaults = {"dilations": [1] * axes, "group": 1, "kernel_shape": list(kernel), "pads": [0] * 2 * axes,
                        "strides": [1] * axes}  # fmt: skip
            attributes = defaults | attributes
        return self.node("Conv", *operands, **attributes)

    def batch_norm(self, channels, *, negative=False, variance=None, epsilon=1e-5, low=0.5) -> str:
        """Makes the value about 1 in size."""
        rng = self.rng
        gamma = rng.uniform(low, 1.5, channels)
        if negative:
            gamma *= np.where(np.arange(channels) % 2, -1, 1)
        if variance is None:
            variance = self.rms**2 * rng.uniform(0.6, 1.5, channels)
        parameters = (gamma, rng.normal(0, 0.3, channels), rng.normal(0, 0.3 * self.rms, channels), variance)
        self.rms = 1.0
        return self.node(
            "BatchNormalization", self.last, *(self.constant(each) for each in parameters), epsilon=epsilon
        )

    def relu(self) -> str:
        self.rms *= 0.7
        return self.node("Relu")

    def block(self, outputs, inputs, *kernel, bits=4, weights=None, **attributes) -> str:
        """Convolution, batch norm, ReLU and quantizer."""
        self.conv(outputs, inputs, *kernel, weights=weights, **attributes)
        self.batch_norm(outputs)
        self.relu()
        return self.quant(bits)

    def linear(self, features, outputs, *, bits=4, bias=True) -> str:
        source = self.last
        weights = self.weights(outputs, features, bits=bits, per_channel=False)
        operands = [source, weights]
        if bias:
            operands.append(self.constant(self.rng.normal(0, 0.5, outputs)))
        return self.node("Gemm", *operands, transB=1)

    def model(self, *, domains=(QONNX,), dtype=TensorProto.FLOAT) -> onnx.ModelProto:
        """The model, with the shapes of all tensors."""
        information = helper.make_tensor_value_info(self.last, dtype, None)
        made = helper.make_graph(self.nodes, "graph", [self.input], [information], self.initializers)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=8 if self.opset < 21 else 10)
        if domains:
            shaped = ModelWrapper(model).transform(InferShapes()).model
            shaped.ir_version = 8
            return shaped
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


# ---- convolutions and linear layers ----------------------------------------------------------------------------------


def _plain(seed, **options):
    maker = Maker((3, 8, 8), seed=seed, **options)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3, pads=[1, 1, 1, 1])
    maker.block(8, 6, 3, 3, strides=[2, 2])
    maker.node("Flatten")
    maker.linear(72, 5)
    return maker


@graph
def per_channel(seed=0):
    """Weights of 4 bits with a scale per output channel, batch norm, ReLU, Gemm with a float bias."""
    return Graph(_plain(seed).model())


@graph
def bipolar_weights(seed=0):
    maker = Maker((3, 7, 7), seed=seed)
    source = maker.quant(8, scale=1 / 255)
    maker.block(8, 3, 3, 3, source=source, weights=maker.bipolar(8, 3, 3, 3), pads=[1, 1, 1, 1])
    source = maker.last
    maker.block(6, 8, 3, 3, source=source, weights=maker.bipolar(6, 8, 3, 3, scale=0.37))
    maker.node("Flatten")
    source, weights = maker.last, maker.bipolar(4, 150, scale=0.1)
    maker.node("MatMul", source, maker.node("Transpose", weights, perm=[1, 0]))
    return Graph(maker.model(), low=0.0)


@graph
def bipolar_activations(seed=0):
    """FINN's binary networks: 2x - 1, and activations of 1 bit that are -1 or 1."""
    maker = Maker((2, 8, 8), seed=seed)
    maker.node("Mul", maker.last, maker.constant(2.0))
    maker.node("Sub", maker.last, maker.constant([1.0]))
    maker.quant(8, scale=1 / 128, signed=1, narrow=1)
    maker.rms = 0.6
    for inputs, outputs in ((2, 6), (6, 8)):
        maker.conv(outputs, inputs, 3, 3, source=maker.last, weights=maker.bipolar(outputs, inputs, 3, 3))
        maker.batch_norm(outputs, negative=True)
        maker.node("BipolarQuant", maker.last, maker.constant(1.0 if outputs == 6 else 0.7), domain=QONNX)
    maker.node("Flatten")
    source = maker.last
    maker.node("Gemm", source, maker.bipolar(3, 128, scale=0.1), transB=1)
    return Graph(maker.model(), low=0.0)


@graph
def signed_activations(seed=0):
    maker = Maker((3, 7, 7), seed=seed)
    maker.quant(6, scale=1 / 31, signed=1)
    for inputs, outputs, bits in ((3, 6, 4), (6, 5, 3), (5, 4, 2)):
        maker.conv(outputs, inputs, 3, 3, pads=[1, 1, 1, 1], bias=True)
        maker.quant(bits, signed=1)
    return Graph(maker.model())


@graph
def narrow_ranges(seed=0):
    """Signed activations of 2**k - 1 levels, unsigned ones without the largest code, narrow and full weights."""
    maker = Maker((3, 6, 6), seed=seed)
    maker.quant(4, scale=1 / 7, signed=1, narrow=1)
    maker.conv(6, 3, 3, 3, pads=[1, 1, 1, 1])
    maker.batch_norm(6)
    source = maker.quant(4, signed=1, narrow=1)
    maker.conv(5, 6, 3, 3, source=source, weights=maker.weights(5, 6, 3, 3, bits=3, narrow=0))
    maker.relu()
    source = maker.quant(4, narrow=1)
    maker.conv(4, 5, 1, 1, source=source, weights=maker.weights(4, 5, 1, 1, bits=2))
    maker.quant(2, signed=1, narrow=1)
    return Graph(maker.model())


@graph
def ternary(seed=0):
    """Two bits, narrow: -1, 0, 1, for weights and activations."""
    maker = Maker((2, 8, 8), seed=seed)
    maker.quant(2, scale=0.66, signed=1, narrow=1)
    for inputs, outputs in ((2, 6), (6, 4)):
        source = maker.last
        maker.conv(outputs, inputs, 3, 3, source=source,
                   weights=maker.weights(outputs, inputs, 3, 3, bits=2, scale=0.35))  # fmt: skip
        maker.batch_norm(outputs)
        maker.quant(2, signed=1, narrow=1, scale=0.8)
    return Graph(maker.model())


@graph
def zero_points(seed=0):
    """Asymmetric quantizers: unsigned codes with a zero point, which is also what padding is."""
    maker = Maker((3, 7, 7), seed=seed)
    maker.quant(8, scale=2 / 255, zero_point=127.0)
    maker.conv(6, 3, 3, 3, pads=[1, 1, 1, 1])
    maker.batch_norm(6)
    maker.quant(4, scale=0.31, zero_point=6.0)
    maker.conv(5, 6, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    maker.quant(3, scale=maker.rms * 0.7, zero_point=3.0)
    maker.conv(4, 5, 3, 3, pads=[1, 1, 1, 1])
    maker.quant(4, scale=maker.rms / 3, zero_point=-2.0, signed=1)
    return Graph(maker.model())


@graph
def asymmetric_pads(seed=0):
    maker = Maker((2, 9, 8), seed=seed)
    maker.quant(8, scale=1 / 255)
    maker.block(5, 2, 3, 3, pads=[0, 1, 2, 1], strides=[2, 1])
    maker.node("Pad", maker.last, maker.constant([0, 0, 1, 0, 0, 0, 0, 2], np.int64), maker.constant(0.0))
    maker.block(4, 5, 3, 2, dilations=[1, 2])
    maker.block(4, 4, 3, 3, auto_pad="SAME_UPPER", strides=[2, 2])
    return Graph(maker.model(), low=0.0)


@graph
def grouped_and_depthwise(seed=0):
    maker = Maker((4, 8, 8), seed=seed)
    maker.quant(8, scale=1 / 255)
    maker.block(8, 2, 3, 3, group=2, pads=[1, 1, 1, 1])
    maker.block(8, 1, 3, 3, group=8, strides=[2, 2])
    maker.block(16, 1, 3, 3, group=8)
    maker.block(6, 16, 1, 1)
    return Graph(maker.model(), low=0.0)


@graph
def dilated(seed=0):
    maker = Maker((3, 11, 10), seed=seed)
    maker.quant(8, scale=1 / 255)
    maker.block(4, 3, 3, 3, dilations=[2, 3], pads=[2, 3, 2, 3])
    maker.block(4, 4, 2, 4, strides=[3, 2])
    return Graph(maker.model(), low=0.0)


@graph
def one_dimensional(seed=0):
    maker = Maker((3, 20), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 5, pads=[2, 2])
    maker.node("MaxPool", kernel_shape=[2], strides=[2])
    maker.block(6, 1, 3, group=6, pads=[2, 0])
    maker.block(8, 6, 1)
    maker.node("GlobalAveragePool")
    maker.node("Flatten")
    maker.linear(8, 3)
    return Graph(maker.model())


@graph
def mixed_widths(seed=0):
    """Every layer of other bits, up to 8-bit weights and 10-bit activations."""
    maker = Maker((2, 6, 6), seed=seed)
    maker.quant(3, scale=1 / 7)
    for inputs, outputs, weight_bits, bits in ((2, 5, 8, 10), (5, 5, 2, 1), (5, 6, 6, 7)):
        source = maker.last
        maker.block(outputs, inputs, 3, 3, source=source, bits=bits, pads=[1, 1, 1, 1],
                    weights=maker.weights(outputs, inputs, 3, 3, bits=weight_bits))  # fmt: skip
    return Graph(maker.model(), low=0.0)


# ---- residual connections --------------------------------------------------------------------------------------------


def _residual(seed):
    maker = Maker((3, 6, 6), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    return maker, maker.block(6, 3, 3, 3, pads=[1, 1, 1, 1])


@graph
def residual_of_one_scale(seed=0):
    """Both branches through quantizers of one scale."""
    maker, skip = _residual(seed)
    maker.conv(6, 6, 3, 3, pads=[1, 1, 1, 1])
    maker.batch_norm(6)
    a = maker.quant(5, signed=1, scale=0.17)
    b = maker.quant(5, signed=1, scale=0.17, source=skip)
    maker.node("Add", a, b)
    maker.rms = 1.2
    maker.relu()
    maker.quant(4)
    maker.block(4, 6, 3, 3)
    return Graph(maker.model())


@graph
def residual_of_two_scales(seed=0):
    """A sum of codes with scales that have nothing to do with each other."""
    maker, skip = _residual(seed)
    maker.conv(6, 6, 3, 3, pads=[1, 1, 1, 1])
    maker.batch_norm(6)
    branch = maker.quant(4, signed=1)
    maker.node("Add", branch, skip)
    maker.rms = 1.2
    maker.relu()
    maker.quant(4)
    maker.block(4, 6, 3, 3)
    return Graph(maker.model())


@graph
def residual_unquantized_branch(seed=0):
    """Convolution and batch norm, plus the codes of the shortcut, then one quantizer."""
    maker, skip = _residual(seed)
    maker.conv(6, 6, 3, 3, pads=[1, 1, 1, 1])
    maker.batch_norm(6)
    maker.node("Add", skip, maker.last)
    maker.rms = 1.2
    maker.relu()
    skip = maker.quant(4)
    maker.conv(6, 6, 3, 3, pads=[1, 1, 1, 1])
    maker.batch_norm(6, negative=True)
    maker.node("Add", maker.last, skip)
    maker.rms = 1.2
    maker.quant(4, signed=1)
    return Graph(maker.model())


@graph
def residual_with_projection(seed=0):
    """The shortcut has a 1x1 convolution and a quantizer of its own; a zero point on one side."""
    maker, skip = _residual(seed)
    maker.conv(8, 6, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    maker.batch_norm(8)
    branch = maker.quant(6, zero_point=31.0, scale=0.08)
    maker.rms = 0.6
    maker.conv(8, 6, 1, 1, source=skip, strides=[2, 2])
    maker.batch_norm(8)
    projected = maker.quant(5, signed=1)
    maker.node("Add", branch, projected)
    maker.rms = 1.4
    maker.relu()
    maker.quant(4)
    return Graph(maker.model())


@graph
def residual_with_ties(seed=0):
    """Scales of powers of two: every other sum of an accumulator and a residual code is a tie, rounded to even."""
    maker = Maker((2, 5, 5), seed=seed)
    skip = maker.quant(3, scale=0.25, signed=1)
    maker.conv(2, 2, 3, 3, source=skip, weights=maker.weights(2, 2, 3, 3, bits=3, scale=0.25), pads=[1, 1, 1, 1])
    maker.node("Add", maker.last, skip)
    maker.quant(4, scale=0.125, signed=1)
    return Graph(maker.model(), low=-1.5, high=1.5)


# ---- batch norm ------------------------------------------------------------------------------------------------------


@graph
def batch_norm_negative(seed=0):
    maker = Maker((3, 7, 7), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    for inputs, outputs in ((3, 6), (6, 5)):
        maker.conv(outputs, inputs, 3, 3, bias=True)
        maker.batch_norm(outputs, negative=True)
        maker.relu()
        maker.quant(4)
    return Graph(maker.model())


@graph
def batch_norm_after_relu(seed=0):
    """Convolution, ReLU, batch norm, quantizer: the shift is negative, so that the clip at 0 is the quantizer's."""
    maker = Maker((3, 7, 7), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    for inputs, outputs in ((3, 6), (6, 5)):
        maker.conv(outputs, inputs, 3, 3)
        maker.relu()
        rng = maker.rng
        gamma, beta = rng.uniform(0.5, 1.5, outputs), -rng.uniform(0, 0.2, outputs)
        mean, variance = rng.uniform(0.1, 0.3, outputs) * maker.rms, maker.rms**2 * rng.uniform(0.6, 1.5, outputs)
        maker.node("BatchNormalization", maker.last, *map(maker.constant, (gamma, beta, mean, variance)))
        maker.rms = 1.0
        maker.quant(4)
    return Graph(maker.model())


@graph
def batch_norm_of_codes(seed=0):
    """Batch norm between two quantizers."""
    maker = Maker((4, 8, 8), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.batch_norm(4, negative=True)
    maker.quant(6, signed=1)
    maker.block(6, 4, 3, 3)
    maker.batch_norm(6, negative=True)
    maker.quant(5, zero_point=13.0)
    return Graph(maker.model())


@graph
def dead_channels(seed=0):
    """Weights that are nothing (scale 1e-10), variances of nothing, gammas of nothing."""
    maker = Maker((3, 7, 7), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    floats = maker.rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32)
    floats[1] = 0
    floats[4] *= 1e-12
    scale = np.maximum(np.abs(floats).max((1, 2, 3), keepdims=True) / 7, 1e-10)
    source, maker.fan_in = maker.last, 27
    maker.conv(6, 3, 3, 3, source=source,
               weights=maker.quant(4, source=maker.constant(floats), scale=scale, signed=1, narrow=1))  # fmt: skip
    variance = maker.rms**2 * np.array([1, 1e-30, 0.7, 0, 1e-24, 1.2])
    rng = maker.rng
    gamma = np.array([1, 0.8, 1.1, 1e-3, 0.9, 1e-30])
    maker.node("BatchNormalization", maker.last, maker.constant(gamma), maker.constant(rng.normal(0.2, 0.2, 6)),
               maker.constant(rng.normal(0, 0.01, 6)), maker.constant(variance), epsilon=1e-5)  # fmt: skip
    maker.rms = 1.0
    maker.relu()
    maker.quant(4)
    maker.block(4, 6, 3, 3)
    return Graph(maker.model())


# ---- pools and shapes ------------------------------------------------------------------------------------------------


@graph
def max_pools(seed=0):
    maker = Maker((3, 9, 9), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3, pads=[1, 1, 1, 1])
    maker.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    maker.block(5, 6, 3, 3)
    maker.node("MaxPool", kernel_shape=[2, 2], strides=[1, 1], ceil_mode=1)
    maker.node("Flatten")
    maker.linear(20, 4)
    return Graph(maker.model())


@graph
def pool_before_quantizer(seed=0):
    """The maximum of what nothing has quantized yet."""
    maker = Maker((4, 8, 8), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.conv(6, 4, 3, 3)
    maker.batch_norm(6)
    maker.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    maker.relu()
    maker.quant(4)
    maker.block(5, 6, 1, 1)
    return Graph(maker.model())


@graph
def average_pools(seed=0):
    """The mean of 4 codes of one scale, quantized with another; many are ties where the scales are equal."""
    maker = Maker((3, 9, 9), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3)
    maker.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    maker.quant(5)
    maker.block(5, 6, 1, 1)
    maker.node("AveragePool", kernel_shape=[3, 3], name="mean")
    maker.quant(4)
    return Graph(maker.model())


@graph
def average_of_one_scale(seed=0):
    """As Brevitas quantizes a pool: the mean of 4 codes in their own scale, so a quarter of them are ties."""
    maker = Maker((2, 8, 8), seed=seed)
    maker.quant(4, scale=0.13)
    maker.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    maker.quant(4, scale=0.13)
    maker.block(3, 2, 3, 3)
    return Graph(maker.model(), low=0.0, high=2.0)


@graph
def global_pool(seed=0):
    """GlobalAveragePool and a linear layer; ReduceMean and a convolution of it."""
    maker = Maker((3, 6, 7), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3)
    maker.node("GlobalAveragePool")
    maker.node("Flatten")
    maker.linear(6, 4)
    return Graph(maker.model())


@graph
def quantized_global_pool(seed=0):
    maker = Maker((3, 6, 6), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3)
    maker.node("ReduceMean", axes=[2, 3], keepdims=0)
    maker.rms *= 0.6
    maker.quant(6)
    maker.linear(6, 4)
    return Graph(maker.model())


@graph
def reshape_and_matmul(seed=0):
    """A multilayer perceptron behind a Reshape; the bias is an Add, the batch norm is one of features."""
    maker = Maker((2, 4, 4), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.node("Reshape", maker.last, maker.constant([0, -1], np.int64))
    for inputs, outputs in ((32, 16), (16, 12)):
        source = maker.last
        weights = maker.weights(inputs, outputs, axis=1)
        maker.node("MatMul", source, weights)
        maker.rms *= 0.3 * inputs**0.5
        maker.node("Add", maker.last, maker.constant(maker.rng.normal(0, 0.3, outputs)))
        maker.batch_norm(outputs)
        maker.relu()
        maker.quant(3)
    source = maker.last
    maker.node("MatMul", source, maker.weights(12, 4, bits=8, per_channel=False))
    return Graph(maker.model())


@graph
def scaled_by_constants(seed=0):
    """Mul, Div, Add and Sub by constants between a convolution and its quantizer; a Clip (ReLU6)."""
    maker = Maker((3, 6, 6), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.conv(6, 3, 3, 3)
    rng = maker.rng
    maker.node("Mul", maker.last, maker.constant(rng.uniform(0.5, 2, (6, 1, 1))))
    maker.node("Sub", maker.last, maker.constant(rng.normal(0, 0.3, (1, 6, 1, 1))))
    maker.node("Div", maker.last, maker.constant(0.7))
    maker.node("Add", maker.constant(0.11), maker.last)
    maker.node("Clip", maker.last, maker.constant(0.0), maker.constant(2.0))
    maker.quant(4, scale=0.11)
    maker.block(4, 6, 1, 1)
    return Graph(maker.model())


# ---- layouts and qonnx's transformations -----------------------------------------------------------------------------


def _transformed(model, *transformations):
    random.seed(0)  # qonnx makes up names of tensors
    wrapper = ModelWrapper(model)
    for each in transformations:
        wrapper = wrapper.transform(each)
    made = wrapper.transform(InferShapes()).model
    made.ir_version = 8
    return made


@graph
def channels_last(seed=0):
    """qonnx's channels-last form, with a Transpose at the input."""
    maker = Maker((3, 8, 8), seed=seed, opset=11, batch=1)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3, pads=[1, 1, 1, 1])
    maker.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
    maker.block(8, 6, 3, 3)
    return Graph(_transformed(maker.model(), ConvertToChannelsLastAndClean()))


@graph
def channels_last_input(seed=0):
    """The same, with a channels-last input."""
    maker = Maker((3, 8, 8), seed=seed, opset=11, batch=1)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(6, 3, 3, 3, pads=[1, 1, 1, 1])
    maker.node("Flatten")
    maker.linear(384, 4)
    return Graph(_transformed(maker.model(), ConvertToChannelsLastAndClean(make_input_channels_last=True)))


@graph
def transposed_input(seed=0):
    """Frames (H, W, C) and a Transpose, as exported from other frameworks; back again before the linear layer."""
    maker = Maker((6, 7, 3), seed=seed)
    maker.node("Transpose", perm=[0, 3, 1, 2])
    maker.quant(8, scale=1 / 127, signed=1)
    maker.block(5, 3, 3, 3)
    maker.node("Transpose", perm=[0, 2, 3, 1])
    maker.node("Reshape", maker.last, maker.constant([0, -1], np.int64))
    maker.linear(100, 4)
    return Graph(maker.model())


@graph
def affine_and_matmul(seed=0):
    """BatchNormToAffine and GemmToMatMul of qonnx: Mul, Add and MatMul."""
    with warnings.catch_warnings():
        # It says so of every Gemm of an opset that is not 9; these have nothing that is younger.
        warnings.filterwarnings("ignore", "The GemmToMatMul transformation only offers", UserWarning)
        return Graph(_transformed(_plain(seed).model(), BatchNormToAffine(), GemmToMatMul()))


@graph
def extracted_scales(seed=0):
    """ExtractQuantScaleZeroPt of qonnx: scales become Div and Mul around quantizers of scale 1."""
    return Graph(_transformed(_plain(seed).model(), ExtractQuantScaleZeroPt()))


# ---- rounding --------------------------------------------------------------------------------------------------------


def _rounding(mode):
    def make(seed=0):
        """A rounding mode, with scales of powers of two so that ties are common and float32 is exact."""
        maker = Maker((2, 6, 6), seed=seed)
        maker.quant(5, scale=1 / 8, signed=1)
        source = maker.last
        weights = maker.weights(5, 2, 3, 3, bits=3, scale=0.25)
        maker.node("Conv", source, weights)
        source = maker.quant(4, scale=0.25, signed=1, rounding=mode)
        weights = maker.weights(4, 5, 2, 2, bits=3, scale=0.25)
        maker.node("Conv", source, weights)
        maker.relu()
        source = maker.quant(3, scale=0.5, rounding=mode)
        weights = maker.weights(4, 4, 1, 1, bits=3, scale=0.25)
        maker.node("Conv", source, weights)
        maker.quant(4, scale=0.25, zero_point=5.0, rounding=mode)
        return Graph(maker.model(), low=-2.0, high=2.0)

    return make


for _mode in ROUNDING_MODES:
    GRAPHS[f"rounding_{_mode.lower()}"] = _rounding(_mode)


# ---- FINN's dialect --------------------------------------------------------------------------------------------------


def _thresholds(maker, channels, levels, *, step, spread=0.0, whole=True):
    """Thresholds as FINN makes them of batch norm and a uniform quantizer: evenly spaced, then rounded up."""
    steps = maker.rng.uniform(0.7, 1.4, (channels, 1)) * step
    offsets = maker.rng.normal(0, spread, (channels, 1))
    values = (np.arange(levels) - (levels - 1) / 2) * steps + offsets
    return np.ceil(values) if whole else values


@graph
def multi_threshold(seed=0):
    """Integer weights, thresholds per channel, codes with an offset; then global ones."""
    maker = Maker((3, 7, 7), seed=seed)
    maker.quant(4, scale=1.0, signed=1)
    weights = maker.rng.integers(DataType["INT3"].min(), DataType["INT3"].max() + 1, (6, 3, 3, 3))
    maker.node("Conv", maker.last, maker.constant(weights), pads=[1, 1, 1, 1])
    thresholds = _thresholds(maker, 6, 15, step=8, spread=20)
    maker.node("MultiThreshold", maker.last, maker.constant(thresholds), domain=QONNX, out_dtype="INT4", out_bias=-8.0)
    maker.node("Conv", maker.last, maker.constant(maker.rng.integers(-1, 2, (5, 6, 3, 3))))
    thresholds = _thresholds(maker, 1, 3, step=20)
    maker.node("MultiThreshold", maker.last, maker.constant(thresholds), domain=QONNX, out_dtype="UINT2")
    maker.node("Reshape", maker.last, maker.constant([0, -1], np.int64))
    maker.node("MatMul", maker.last, maker.constant(maker.rng.integers(-2, 2, (125, 4))))
    return Graph(maker.model(), low=-8.0, high=7.0)


@graph
def multi_threshold_bipolar(seed=0):
    """Integers in, one threshold each, outputs -1 and 1 (out_scale 2, out_bias -1), bipolar weights."""
    maker = Maker((24,), seed=seed)
    bipolar = {"domain": QONNX, "out_dtype": "BIPOLAR", "out_scale": 2.0, "out_bias": -1.0}
    maker.node("MultiThreshold", maker.last, maker.constant([[128.0]]), **bipolar)
    for inputs, outputs, channels in ((24, 16, 16), (16, 12, 1)):
        maker.node("MatMul", maker.last, maker.constant(maker.rng.choice([-1, 1], (inputs, outputs))))
        thresholds = _thresholds(maker, channels, 1, step=1, spread=3)
        maker.node("MultiThreshold", maker.last, maker.constant(thresholds), **bipolar)
    maker.node("MatMul", maker.last, maker.constant(maker.rng.choice([-1, 1], (12, 4))))
    return Graph(maker.model(), low=0, high=255, integers=True, options={"input_range": (0, 255)})


@graph
def multi_threshold_fractions(seed=0):
    """A float scale in front, thresholds that are no integers, a scale on the way out, negative factors."""
    maker = Maker((3, 6, 6), seed=seed)
    maker.quant(5, scale=0.07, signed=1)
    maker.node("Conv", maker.last, maker.constant(maker.rng.integers(-2, 2, (4, 3, 3, 3))))
    maker.node("Mul", maker.last, maker.constant(np.array([0.31, -0.27, 0.4, 0.22]).reshape(1, 4, 1, 1)))
    thresholds = _thresholds(maker, 4, 7, step=0.16, spread=0.1, whole=False)
    maker.node("MultiThreshold", maker.last, maker.constant(thresholds), domain=QONNX, out_dtype="UINT3", out_scale=0.5)
    maker.node("Conv", maker.last, maker.constant(maker.rng.integers(-2, 2, (4, 4, 3, 3))))
    return Graph(maker.model())


@graph
def uneven_thresholds(seed=0):
    """MultiThreshold whose thresholds no multiplier, bias and shift can put."""
    maker = Maker((2, 5, 5), seed=seed)
    maker.quant(4, scale=1.0, signed=1)
    maker.node("Conv", maker.last, maker.constant(maker.rng.integers(-4, 4, (3, 2, 3, 3))))
    thresholds = np.array([[-30.0, -29, 0, 1, 2, 50, 90]])
    maker.node("MultiThreshold", maker.last, maker.constant(thresholds), domain=QONNX, out_dtype="UINT3")
    return Graph(maker.model(), low=-8.0, high=7.0)


# ---- QCDQ ------------------------------------------------------------------------------------------------------------


@graph
def qcdq_of_qonnx(seed=0):
    """QuantToQCDQ of qonnx: QuantizeLinear, Clip, DequantizeLinear of weights and activations."""
    made = _transformed(_plain(seed).model(), QuantToQCDQ())
    return Graph(made)


def _quantize(maker, scale, zero_point, dtype, *, clip=None, source=None, axis=None):
    """QuantizeLinear, Clip and DequantizeLinear, as Brevitas writes them."""
    attributes = {} if axis is None else {"axis": axis}
    scale, zero = maker.constant(scale), maker.constant(zero_point, dtype)
    maker.node("QuantizeLinear", source or maker.last, scale, zero, **attributes)
    if clip is not None:
        maker.node("Clip", maker.last, *(maker.constant(each, dtype) for each in clip))
    return maker.node("DequantizeLinear", maker.last, scale, zero, **attributes)


def _dequantized(maker, *shape, bits, scale, axis=0):
    """Integer weights, Clip and DequantizeLinear per channel, as Brevitas writes them."""
    top = (1 << bits - 1) - 1
    integers = maker.constant(maker.rng.integers(-top, top + 1, shape), np.int8)
    clipped = maker.node("Clip", integers, maker.constant(-top, np.int8), maker.constant(top, np.int8))
    zeros = maker.constant(np.zeros(np.shape(scale)), np.int8)
    return maker.node("DequantizeLinear", clipped, maker.constant(scale), zeros, axis=axis)


@graph
def qcdq_of_brevitas(seed=0):
    """Clip between QuantizeLinear and DequantizeLinear, weights dequantized per channel, an int32 bias."""
    maker = Maker((3, 7, 7), seed=seed)
    source = _quantize(maker, 1 / 255, 0, np.uint8)
    rng = maker.rng
    scale = rng.uniform(0.03, 0.06, 6)
    weights = _dequantized(maker, 6, 3, 3, 3, bits=4, scale=scale)
    bias = maker.node("DequantizeLinear", maker.constant(rng.integers(-2000, 2000, 6), np.int32),
                      maker.constant(scale / 255), maker.constant(np.zeros(6), np.int32), axis=0)  # fmt: skip
    maker.node("Conv", source, weights, bias, pads=[1, 1, 1, 1])
    maker.relu()
    source = _quantize(maker, 0.061, 0, np.uint8, clip=(0, 15))
    weights = _dequantized(maker, 5, 6, 3, 3, bits=3, scale=rng.uniform(0.1, 0.3, 5))
    maker.node("Conv", source, weights)
    source = _quantize(maker, 0.21, 0, np.int8, clip=(-8, 7))
    maker.node("Flatten", source)
    source = maker.last
    weights = _dequantized(maker, 4, 125, bits=8, scale=0.01)
    bias = maker.node("DequantizeLinear", maker.constant(rng.integers(-99, 99, 4), np.int32), maker.constant(0.0021),
                      maker.constant(0, np.int32))  # fmt: skip
    maker.node("Gemm", source, weights, bias, transB=1)
    return Graph(maker.model(domains=()), low=0.0)


@graph
def qcdq_zero_points(seed=0):
    """Asymmetric activations of uint8 and int8, padded; a sum; asymmetric weights of uint8."""
    maker = Maker((2, 6, 6), seed=seed)
    first = _quantize(maker, 0.011, 93, np.uint8)
    rng = maker.rng
    weights = maker.node("DequantizeLinear", maker.constant(rng.integers(0, 256, (2, 2, 3, 3)), np.uint8),
                         maker.constant(0.004), maker.constant(117, np.uint8))  # fmt: skip
    maker.node("Conv", first, weights, pads=[1, 1, 1, 1])
    second = _quantize(maker, 0.013, -17, np.int8)
    maker.node("Add", first, second)
    source = _quantize(maker, 0.02, 100, np.uint8)
    weights = _dequantized(maker, 4, 2, 3, 3, bits=8, scale=rng.uniform(0.001, 0.004, 4))
    maker.node("Conv", source, weights)
    _quantize(maker, 0.01, 12, np.int8)
    return Graph(maker.model(domains=()), low=-1.2, high=1.8)


def _four_bits(maker, values, name, kind):
    """A constant of ONNX's own 4-bit types, two to a byte."""
    values = np.asarray(values)
    maker.initializers.append(helper.make_tensor(name, kind, values.shape, values.ravel().tolist()))
    return name


@graph
def qcdq_four_bit_types(seed=0):
    """INT4 weights and UINT4 activations of opset 21, and an output_dtype without a zero point."""
    maker = Maker((3, 7, 7), seed=seed, opset=21)
    rng = maker.rng
    scale = maker.constant(1 / 127)
    maker.node("QuantizeLinear", maker.last, scale, output_dtype=TensorProto.INT8)
    source = maker.node("DequantizeLinear", maker.last, scale)
    weights = _four_bits(maker, rng.integers(-8, 8, (6, 3, 3, 3)), "w", TensorProto.INT4)
    scales = maker.constant(rng.uniform(0.03, 0.06, 6))
    zeros = _four_bits(maker, np.zeros(6, np.int64), "z", TensorProto.INT4)
    weights = maker.node("DequantizeLinear", weights, scales, zeros, axis=0)
    maker.node("Conv", source, weights, pads=[1, 1, 1, 1])
    scale, zero = maker.constant(0.11), _four_bits(maker, 3, "u", TensorProto.UINT4)
    maker.node("QuantizeLinear", maker.last, scale, zero)
    source = maker.node("DequantizeLinear", maker.last, scale, zero)
    weights = _four_bits(maker, rng.integers(-8, 8, (4, 6, 3, 3)), "v", TensorProto.INT4)
    maker.node("Conv", source, maker.node("DequantizeLinear", weights, maker.constant(0.07)))
    scale = maker.constant(0.9)
    maker.node("QuantizeLinear", maker.last, scale, output_dtype=TensorProto.INT4)
    maker.node("DequantizeLinear", maker.last, scale)
    return Graph(maker.model(domains=()))


def _float_model(seed):
    maker = Maker((3, 8, 8), seed=seed)
    rng = maker.rng

    def conv(outputs, inputs, *kernel, **attributes):
        weights = rng.normal(0, 0.3, (outputs, inputs, *kernel))
        source = maker.last
        maker.node("Conv", source, maker.constant(weights), maker.constant(rng.normal(0, 0.2, outputs)), **attributes)

    conv(6, 3, 3, 3, pads=[1, 1, 1, 1])
    skip = maker.node("Relu")
    conv(6, 6, 3, 3, pads=[1, 1, 1, 1])
    maker.node("Add", maker.last, skip)
    maker.node("Relu")
    maker.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
    conv(8, 6, 3, 3)
    maker.node("Relu")
    maker.node("Flatten")
    maker.node("Gemm", maker.last, maker.constant(rng.normal(0, 0.3, (4, 32))), maker.constant(rng.normal(0, 0.2, 4)),
               transB=1)  # fmt: skip
    return maker.model(domains=())


def _static(seed, **options):
    """quantize_static of ONNX Runtime on a small float model, calibrated on random inputs."""
    from onnxruntime import quantization

    model = _float_model(seed)
    rng = np.random.default_rng(seed + 1)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": rng.uniform(-1, 1, (BATCH, 3, 8, 8)).astype(np.float32)} for _ in range(2)]

        def get_next(self):
            return self.left.pop() if self.left else None

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        source, target = (Path(folder) / name for name in ("float.onnx", "quantized.onnx"))
        onnx.save(model, source)
        quantization.quantize_static(source, target, Reader(), **options)
        return onnx.load(target)


@graph
def qcdq_of_onnx_runtime(seed=0):
    """ONNX Runtime's QDQ format: uint8 activations with zero points, int8 weights per channel, int32 biases."""
    from onnxruntime import quantization

    return Graph(_static(seed, quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                         activation_type=quantization.QuantType.QUInt8,
                         weight_type=quantization.QuantType.QInt8))  # fmt: skip


@graph
def qcdq_of_onnx_runtime_signed(seed=0):
    """The same with int8 activations and weights per tensor, symmetric."""
    from onnxruntime import quantization

    return Graph(_static(seed, quant_format=quantization.QuantFormat.QDQ, per_channel=False,
                         activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8,
                         extra_options={"ActivationSymmetric": True, "WeightSymmetric": True}))  # fmt: skip


# ---- integers --------------------------------------------------------------------------------------------------------


@graph
def integer_operators(seed=0):
    """ConvInteger and MatMulInteger with zero points, int32 sums scaled to floats, one quantizer between."""
    maker = Maker((3, 7, 7), seed=seed, dtype=TensorProto.UINT8)
    rng = maker.rng
    weights, point = maker.constant(rng.integers(-8, 8, (5, 3, 3, 3)), np.int8), maker.constant(120, np.uint8)
    maker.node("ConvInteger", maker.last, weights, point, pads=[1, 1, 1, 1])
    maker.node("Cast", to=TensorProto.FLOAT)
    maker.node("Mul", maker.last, maker.constant(0.0037))
    maker.node("Relu")
    maker.node("QuantizeLinear", maker.last, maker.constant(0.41), maker.constant(0, np.uint8))
    maker.node("Reshape", maker.last, maker.constant([0, -1], np.int64))
    maker.node("MatMulInteger", maker.last, maker.constant(rng.integers(-8, 8, (245, 4)), np.int8))
    return Graph(
        maker.model(domains=(), dtype=TensorProto.INT32),
        low=0,
        high=255,
        integers=True,
        options={"input_range": (0, 255)},
    )


@graph
def integer_input(seed=0):
    """An input without a quantizer that holds multiples of 1/15."""
    maker = Maker((2, 7, 7), seed=seed)
    maker.block(5, 2, 3, 3, pads=[1, 1, 1, 1])
    maker.block(4, 5, 3, 3)
    return Graph(maker.model(), low=0, high=15, integers=True, options={"input_range": (0, 15)})


# ---- what is refused -------------------------------------------------------------------------------------------------


@graph
def float_input(seed=0):
    """The input has no quantizer."""
    maker = Maker((2, 7, 7), seed=seed)
    maker.block(5, 2, 3, 3, name="conv")
    return Graph(maker.model(), refused="Node 'conv' (Conv) must read quantized values, but input 'x' has no quantizer")


@graph
def truncation(seed=0):
    """Trunc of QONNX behind an average pool."""
    maker = Maker((2, 6, 6), seed=seed)
    maker.quant(4, scale=1 / 15)
    maker.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    maker.node("Trunc", maker.last, *(maker.constant(each) for each in (1 / 60, 0.0, 6.0, 4.0)), domain=QONNX,
               rounding_mode="FLOOR", name="trunc")  # fmt: skip
    maker.block(3, 2, 3, 3)
    return Graph(maker.model(), low=0.0, refused="Node 'trunc' (Trunc)")


@graph
def float_weights(seed=0):
    """A layer whose weights no quantizer has."""
    maker = Maker((2, 6, 6), seed=seed)
    maker.quant(4, scale=1 / 15)
    maker.node("Conv", maker.last, maker.constant(maker.rng.normal(0, 1, (3, 2, 3, 3))), name="conv")
    maker.quant(4)
    return Graph(maker.model(), low=0.0, refused="Node 'conv' (Conv)")


@graph
def missing_quantizer(seed=0):
    """Two convolutions with nothing between them."""
    maker = Maker((2, 8, 8), seed=seed)
    maker.quant(4, scale=1 / 15)
    maker.conv(3, 2, 3, 3)
    maker.conv(3, 3, 3, 3, name="second")
    maker.quant(4)
    return Graph(maker.model(), low=0.0, refused="Node 'second' (Conv)")


@graph
def bipolar_padded(seed=0):
    """Activations that are -1 or 1, padded with 0: three values."""
    maker = Maker((2, 6, 6), seed=seed)
    maker.node("BipolarQuant", maker.last, maker.constant(0.5), domain=QONNX)
    maker.rms = 0.5
    maker.block(4, 2, 3, 3, bits=3, pads=[1, 1, 1, 1], name="conv")
    return Graph(maker.model(), refused="Node 'conv' (Conv) must read what is padded with one of its values")


@graph
def pool_before_negative_slopes(seed=0):
    """The maximum of sums that nothing has quantized yet, and factors that make a minimum of it."""
    maker = Maker((4, 8, 8), seed=seed)
    maker.quant(8, scale=1 / 127, signed=1)
    maker.conv(6, 4, 3, 3)
    maker.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    maker.batch_norm(6, negative=True)
    maker.relu()
    maker.quant(4)
    return Graph(maker.model(), refused="Node 'BatchNormalization_4' (BatchNormalization) must read quantized values")


@graph
def sigmoid_inside(seed=0):
    maker = Maker((2, 8, 8), seed=seed)
    maker.quant(4, scale=1 / 15)
    maker.conv(3, 2, 3, 3)
    maker.node("Sigmoid", name="sigmoid")
    maker.quant(4, scale=1 / 15)
    maker.block(3, 3, 3, 3)
    return Graph(maker.model(), low=0.0, refused="Node 'sigmoid' (Sigmoid)")


def write(folder: Path, *, seed: int = 0) -> list[Path]:
    """All graphs as files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in GRAPHS.items():
        paths.append(folder / f"{name}.onnx")
        onnx.save(make(seed).model, paths[-1])
    return paths


if __name__ == "__main__":
    write(Path(sys.argv[1]))
