"""What the importer refuses, sentence by sentence: wrong nodes, and files that nobody wrote in good faith."""

from __future__ import annotations

import random
import re
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from golden.onnx_import import UnsupportedModelError, convert, load
from golden.onnx_import import graph as graph_module
from golden.tests.qonnx_graphs import GRAPHS, QONNX, Maker

INF, NAN = float("inf"), float("nan")


def started(shape=(2, 6, 6), **options):
    """A maker behind the input's quantizer."""
    maker = Maker(shape, batch=1, **options)
    maker.quant(4, scale=0.1, signed=1)
    return maker


def convolved():
    """A maker behind a convolution of it, with no quantizer yet."""
    maker = started()
    maker.conv(3, 2, 3, 3)
    return maker


def plain(maker):
    """The model without qonnx's shape inference, which does not take everything."""
    information = helper.make_empty_tensor_value_info(maker.last)
    made = helper.make_graph(maker.nodes, "graph", [maker.input], [information], maker.initializers)
    opsets = [helper.make_opsetid("", maker.opset), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def refused(model, sentence, **options):
    with pytest.raises(UnsupportedModelError) as error:
        convert(model, **options)
    text = str(error.value)
    assert re.search(f"^{sentence}$", text), text
    assert text.isprintable() and len(text) <= graph_module.MAX_SENTENCE


# ---- nodes that are not what they should be --------------------------------------------------------------------------

CASES = {}


def case(sentence):
    """A function of this sentence: it returns a maker, or a model."""

    def decorate(function):
        CASES[function.__name__] = function, sentence
        return function

    return decorate


@case(r"Node 'n' \(Mul\) must have two operands, not 1")
def one_operand():
    maker = convolved()
    maker.node("Mul", maker.last, name="n")
    return maker


@case(r"Node 'n' \(BatchNormalization\) must not be in training")
def training():
    maker = convolved()
    norm(maker, training_mode=1)
    return maker


def norm(maker, channels=3, gamma=1.0, variance=1.0, dtype=np.float32, **attributes):
    numbers = [np.full(channels, x) for x in (gamma, 0.0, 0.0, variance)]
    maker.node("BatchNormalization", maker.last, *(maker.constant(x, dtype) for x in numbers), name="n", **attributes)


@case(r"Node 'n' \(BatchNormalization\) must have 3 finite numbers of each kind")
def norm_of_too_many():
    maker = convolved()
    norm(maker, channels=4)
    return maker


@case(r"Node 'n' \(BatchNormalization\) must have 3 finite numbers of each kind")
def norm_of_nan():
    maker = convolved()
    norm(maker, gamma=NAN)
    return maker


@case(r"Node 'n' \(BatchNormalization\) must have positive variances with its epsilon, 1e-05")
def negative_variance():
    maker = convolved()
    norm(maker, variance=-1.0, epsilon=1e-5)
    return maker


@case(r"Node 'n' \(BatchNormalization\) must have a finite gain in every channel")
def endless_gain():
    maker = convolved()
    norm(maker, gamma=1e308, variance=1e-300, dtype=np.float64, epsilon=0.0)
    return maker


@case(r"Node 'n' \(BatchNormalization\) must have the channels where its layout says")
def norm_of_another_layout():
    maker = convolved()
    maker.node("Transpose", perm=[0, 2, 3, 1])
    norm(maker)
    return maker


@case(r"Node 'n' \(Max\) must have a constant as an operand")
def maximum_of_two():
    maker = convolved()
    maker.node("Max", maker.last, maker.last, name="n")
    return maker


@case(r"Node 'n' \(Add\) must have shifts of 0 to 62 and at least 2 levels")
def requantizing_add():
    maker = Maker((2, 4, 4), batch=1)
    numbers = {f"{who}_{what}": 1 for who in ("in1", "in2", "out") for what in ("mul", "add", "rq", "n_levels")}
    maker.node("Add", "x", "x", name="n", **numbers, in1_shift=100)
    return maker


@case(r"Node 'n' \(Mul\) must make at most \d+ elements, not \d+")
def large_constant():
    maker = convolved()
    maker.node("Mul", maker.constant(np.zeros((1 << 14, 1))), maker.constant(np.zeros((1, 1 << 14))), name="n")
    wide = maker.last
    maker.node("Mul", "t2", wide)
    return maker


@case(r"Node 'n' \(Quant\) must have a scale that fits \(3, 2, 3, 3\), not \(4, 1, 1, 1\)|"
      r"Node 'n' \(Quant\) must have constants that can be computed: shape mismatch.*")  # fmt: skip
def weight_scale_of_another_shape():
    return weighted(scale=np.ones((4, 1, 1, 1)))


@case(r"Node 'n' \(Quant\) must have a scale that fits \(3, 2, 3, 3\), not \(1, 3, 2, 3, 3\)")
def weight_scale_of_more_axes():
    return weighted(scale=np.ones((1, 3, 2, 3, 3)))


def weighted(*, scale=0.1, zero_point=0.0, bits=4.0, values=None, **options):
    """A convolution of weights that node n quantizes."""
    maker = started()
    source = maker.last
    floats = maker.constant(np.ones((3, 2, 3, 3)) if values is None else values)
    options = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"} | options
    numbers = [maker.constant(each) for each in (scale, zero_point, bits)]
    weights = maker.node("Quant", floats, *numbers, domain=QONNX, name="n", **options)
    maker.node("Conv", source, weights, name="conv")
    return maker


@case(r"Node 'n' \(Quant\) must have an integer as the zero point of a constant")
def fractional_zero_point_of_weights():
    return weighted(zero_point=0.5)


@case(r"Node 'n' \(Quant\) must read finite numbers")
def infinite_weights():
    return weighted(values=np.full((3, 2, 3, 3), INF))


@case(r"Node 'n' \(Quant\) must have finite numbers as its zero point")
def zero_point_of_nan():
    return weighted(zero_point=NAN)


@case(r"Node 'n' \(Quant\) must have a zero point between -2\*\*31 and 2\*\*31, not .*")
def endless_zero_point():
    return weighted(zero_point=1e30)


@case(r"Node 'n' \(Quant\): its bit width must be one integer")
def fractional_bits():
    return weighted(bits=3.5)


@case(r"Node 'n' \(Quant\): its bit width must be between 1 and \d+, not 0")
def no_bits():
    return weighted(bits=0.0)


@case(r"Node 'n' \(Quant\) must round by one of ROUND, .*, not 'STOCHASTIC'")
def rounding_mode():
    return weighted(rounding_mode="STOCHASTIC")


@case(r"Node 'n' \(Quant\) must have zero point 0, being signed with 1 bit")
def bipolar_zero_point():
    return weighted(bits=1.0, zero_point=1.0)


@case(r"Node 'n' \(Quant\) must have more than one level, not 0\.\.0")
def one_level():
    return weighted(bits=1.0, signed=0)


@case(r"Node 'n' \(Quant\) must have positive finite numbers as its scale")
def scale_of_nan():
    return weighted(scale=NAN)


@case(r"Node 'n' \(Quant\) must have positive finite numbers as its scale")
def scale_of_zero():
    return weighted(scale=0.0)


@case(r"Node 'n' \(Quant\) must have positive finite numbers as its scale")
def negative_scale():
    return weighted(scale=-0.1)


@case(r"Node 'n' \(Quant\) must have a constant as its bit width")
def missing_bits():
    maker = weighted()
    del next(node for node in maker.nodes if node.name == "n").input[3]
    return maker


@case(r"Node 'conv' \(Conv\) must have one weight scale for the layer or for each output channel")
def scale_per_input_channel():
    return weighted(scale=np.array([0.1, 0.2]).reshape(1, 2, 1, 1))


@case(r"Node 'conv' \(Conv\) must .*")
def empty_weights():
    maker = weighted(values=np.ones((0, 2, 3, 3)))
    return maker


@case(r"Node 'n' \(Quant\) must have one scale for all channels of what is computed")
def activation_scale_per_channel():
    maker = convolved()
    maker.quant(4, scale=np.array([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1), name="n")
    return maker


@case(r"Node 'n' \(Quant\) must have a scale that fits \(1, 3, 4, 4\), not \(1, 4, 1, 1\)")
def activation_scale_of_another_shape():
    maker = convolved()
    maker.quant(4, scale=np.ones((1, 4, 1, 1)), name="n")
    return maker


@case(r"Node 'n' \(Quant\) must have one scale for the whole input")
def input_scale_per_channel():
    maker = Maker((2, 6, 6), batch=1)
    maker.quant(4, scale=np.array([0.1, 0.2]).reshape(1, 2, 1, 1), name="n")
    maker.conv(3, 2, 3, 3)
    return maker


@case(r"Node 'n' \(Quant\) must be the only quantizer of input 'x'")
def input_quantized_twice():
    maker = Maker((2, 6, 6), batch=1)
    first = maker.quant(4, scale=0.1)
    second = maker.quant(4, scale=0.2, source="x", name="n")
    maker.node("Add", first, second)
    maker.quant(4, scale=0.2)
    return maker


# ---- QCDQ ------------------------------------------------------------------------------------------------------------


def linear(operator, *operands, **attributes):
    """A convolution, and then a node n with these operands."""
    maker = convolved()
    maker.node(operator, maker.last, *(maker.constant(value, dtype) for value, dtype in operands), name="n",
               **attributes)  # fmt: skip
    return maker


@case(r"Node 'n' \(QuantizeLinear\) must have one scale for a tensor or channel, not blocks")
def blocks():
    return linear("QuantizeLinear", (0.1, np.float32), (0, np.uint8), block_size=4)


@case(r"Node 'n' \(QuantizeLinear\) must have one scale for a tensor or channel, not \(1, 3\)")
def scale_of_two_axes():
    return linear("QuantizeLinear", (np.ones((1, 3)), np.float32), (0, np.uint8))


@case(r"Node 'n' \(QuantizeLinear\) must make integers of at most 16 bits, not int32")
def wide_integers():
    return linear("QuantizeLinear", (0.1, np.float32), (0, np.int32))


@case(r"Node 'n' \(QuantizeLinear\) must have a scale that float32 holds, not .*")
def tiny_scale():
    return linear("QuantizeLinear", (1e-300, np.float64), (0, np.uint8))


@case(r"Node 'n' \(QuantizeLinear\) must be clipped to some of its levels 0\.\.255")
def clipped_to_nothing():
    maker = linear("QuantizeLinear", (0.1, np.float32), (0, np.uint8))
    maker.node("Clip", maker.last, maker.constant(9, np.uint8), maker.constant(3, np.uint8))
    return maker


@case(r"Node 'n' \(DequantizeLinear\) must read integers, not float32")
def dequantized_floats():
    maker = started()
    source = maker.last
    weights = maker.node("DequantizeLinear", maker.constant(np.ones((3, 2, 3, 3))), maker.constant(0.1), name="n")
    maker.node("Conv", source, weights)
    return maker


@case(r"Node 'n' \(DequantizeLinear\) must have .*")
def dequantized_by_too_many():
    maker = started()
    source = maker.last
    weights = maker.constant(np.ones((3, 2, 3, 3)), np.int8)
    scales, zeros = maker.constant(np.ones(4)), maker.constant(np.zeros(4), np.int8)
    maker.node("Conv", source, maker.node("DequantizeLinear", weights, scales, zeros, name="n", axis=0))
    return maker


@case(r"Node 'n' \(DequantizeLinear\) must have a scale that fits \(1, 2, 3, 3\), not \(3, 1, 1, 1\)")
def dequantized_to_more_channels():
    maker = started()
    source = maker.last
    weights = maker.constant(np.ones((1, 2, 3, 3)), np.int8)
    scales, zeros = maker.constant(np.ones(3)), maker.constant(np.zeros(3), np.int8)
    maker.node("Conv", source, maker.node("DequantizeLinear", weights, scales, zeros, name="n", axis=0))
    return maker


# ---- FINN ------------------------------------------------------------------------------------------------------------


def thresholded(values, **attributes):
    maker = convolved()
    maker.node("MultiThreshold", maker.last, maker.constant(values), domain=QONNX, name="n",
               **{"out_dtype": "UINT2"} | attributes)  # fmt: skip
    return maker


@case(r"Node 'n' \(MultiThreshold\) must have finite thresholds \(channels, steps\), not \(1, 2\)")
def thresholds_of_nan():
    return thresholded([[0.0, NAN]])


@case(r"Node 'n' \(MultiThreshold\) must have 1 to 1023 thresholds for all or each of 3 channels, not \(2, 3\)")
def thresholds_of_other_channels():
    return thresholded(np.zeros((2, 3)))


@case(r"Node 'n' \(MultiThreshold\) must read N, H, W, C, not N, C, H, W: see its data_layout")
def thresholds_of_another_layout():
    maker = convolved()
    maker.node("Relu")
    maker.node("MultiThreshold", maker.last, maker.constant([[0.0]]), domain=QONNX, name="n", out_dtype="UINT1",
               data_layout="NHWC")  # fmt: skip
    return maker


@case(r"Node 'n' \(MultiThreshold\) must have a positive out_scale, not -1")
def negative_out_scale():
    return thresholded([[0.0]], out_scale=-1.0)


@case(r"Node 'n' \(MultiThreshold\) must have the same thresholds for the whole input")
def input_thresholds_per_channel():
    maker = Maker((2, 6, 6), batch=1)
    maker.node("MultiThreshold", maker.last, maker.constant([[0.0], [1.0]]), domain=QONNX, name="n", out_dtype="UINT1")
    maker.node("Conv", maker.last, maker.constant(np.ones((1, 2, 3, 3))))
    return maker


@case(r"Node 'n' \(MultiThreshold\) must read one tensor, not a sum of two: put a Quant behind it")
def thresholds_of_a_sum():
    maker = started((2, 6, 6))
    skip = maker.last
    maker.conv(2, 2, 3, 3, pads=[1, 1, 1, 1])
    maker.node("Add", maker.last, skip)
    maker.node("MultiThreshold", maker.last, maker.constant([[0.0]]), domain=QONNX, name="n", out_dtype="UINT1")
    return maker


# ---- layers and shapes -----------------------------------------------------------------------------------------------


@case(r"Node 'n' \(Conv\) must read N, C, H, W, not N, H, W, C: a Transpose is missing")
def conv_of_channels_last():
    maker = started()
    maker.node("Transpose", perm=[0, 2, 3, 1])
    maker.conv(3, 6, 3, 3, name="n")
    return maker


@case(r"Node 'n' \(Conv\) must have kernels, strides and dilations of at least 1")
def stride_of_zero():
    maker = started()
    maker.conv(3, 2, 3, 3, strides=[0, 1], name="n")
    return maker


@case(r"Node 'n' \(Conv\) must have integers as its strides, not \[1\.5, 1\.0\]")
def fractional_stride():
    maker = started()
    maker.node("Conv", maker.last, maker.constant(np.ones((3, 2, 3, 3))), strides=[1.5, 1.0], name="n")
    return maker


@case(r"Node 'n' \(Conv\) must have an integer as its group, not 'all'")
def group_of_text():
    maker = started()
    maker.node("Conv", maker.last, maker.constant(np.ones((3, 2, 3, 3))), group="all", name="n")
    return maker


@case(r"Node 'n' \(AveragePool\) must have windows and strides of at least 1, not \(0, 2\), \(1, 1\)")
def window_of_nothing():
    maker = started()
    maker.node("AveragePool", kernel_shape=[0, 2], name="n")
    return maker


@case(r"Node 'n' \(AveragePool\) must have a window of at most \d+ numbers, not \(32768, 32768\)")
def huge_window():
    maker = started()
    maker.node("AveragePool", kernel_shape=[1 << 15, 1 << 15], name="n")
    return maker


@case(r"Node 'n' \(MaxPool\) must have a window that fits \(6, 6\)")
def window_that_does_not_fit():
    maker = started()
    maker.node("MaxPool", kernel_shape=[7, 7], name="n")
    return maker


@case(r"Node 'n' \(Transpose\) must leave the batch in front, not permute by \[1, 0, 2, 3\]")
def moved_batch():
    maker = started()
    maker.node("Transpose", perm=[1, 0, 2, 3], name="n")
    return maker


@case(r"Node 'n' \(ConvInteger\) must read integers of 8 bits")
def integers_of_floats():
    maker = started()
    maker.node("ConvInteger", maker.last, maker.constant(np.ones((3, 2, 3, 3)), np.int8), name="n")
    return maker


@case(r"Node 'n' \(ConvInteger\) must have one zero point for what it reads")
def two_zero_points():
    maker = Maker((2, 6, 6), batch=1, dtype=TensorProto.UINT8)
    maker.node("ConvInteger", "x", maker.constant(np.ones((3, 2, 3, 3)), np.int8), maker.constant([1, 2], np.uint8),
               name="n")  # fmt: skip
    return maker


@case(r"Node 'n' \(MatMulInteger\) must have integer weights")
def integers_by_floats():
    maker = Maker((8,), batch=1, dtype=TensorProto.UINT8)
    maker.node("MatMulInteger", "x", maker.constant(np.ones((8, 3))), name="n")
    return maker


@case(r"Node 'n' \(Relu\) makes 't0', which is there already")
def made_twice():
    maker = started()
    maker.nodes.append(helper.make_node("Relu", ["t0"], ["t0"], name="n"))
    return maker


@case(r"Node 'n' \(Relu\) reads 'y', which nothing makes before it")
def cycle():
    maker = started()
    maker.nodes.append(helper.make_node("Relu", ["y"], ["t1"], name="n"))
    maker.nodes.append(helper.make_node("Relu", ["t1"], ["y"], name="back"))
    maker.last = "y"
    return maker


@case(r"Node 'n' \(Relu\) reads 't1', which nothing makes before it")
def itself():
    maker = started()
    maker.nodes.append(helper.make_node("Relu", ["t1"], ["t1"], name="n"))
    maker.last = "t1"
    return maker


@case(r"Node 'Mul_\d+' \(Mul\) must not multiply more constants than float64 has digits for")
def endless_product():
    maker = convolved()
    for _ in range(200):
        maker.node("Mul", maker.last, maker.constant(0.1234567))
    return maker


@case(r"Output 't\d+' must hold finite numbers: .*")
def endless_output():
    maker = convolved()
    for _ in range(9):
        maker.node("Mul", maker.last, maker.constant(1e38))
    return maker


@pytest.mark.parametrize("name", CASES)
def test_node_is_refused(name):
    function, sentence = CASES[name]
    refused(plain(function()), sentence)


# ---- files -----------------------------------------------------------------------------------------------------------


def valid():
    """A model with constants of every kind, that is imported."""
    model = GRAPHS["per_channel"]().model
    assert convert(model).network.operations
    return model


def first(model):
    return model.graph.initializer[0]


def test_models_of_other_kinds(tmp_path):
    model = valid()
    model.functions.add(name="f", domain="d")
    refused(model, r"Model must have no functions of its own, not 'f'")
    model = valid()
    model.graph.sparse_initializer.add()
    refused(model, "Model must have no sparse constants")
    model = valid()
    model.graph.node[0].domain = "nobody.knows"
    refused(model, r"Node 'Quant_0' \(Quant\) must be of a known domain, not 'nobody.knows'")
    model = valid()
    model.graph.node[0].output[0] = ""
    refused(model, r"Node 'Quant_0' \(Quant\) must make something")
    model = valid()
    model.graph.node.extend([model.graph.node[0]] * (graph_module.MAX_NODES + 1))
    refused(model, r"Model must have at most 65536 nodes, not \d+")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match=r"^File '.*empty.onnx' must be an ONNX model: it has no graph$"):
        load(tmp_path / "empty.onnx")


def test_sizes_that_nothing_has():
    """The claim is compared with the bytes that are there before any memory is taken."""
    tracemalloc.start()
    model = valid()
    first(model).dims[:] = [1 << 20, 1 << 20]
    refused(model, r"Constant 'k0' must have at most \d+ elements, not \(1048576, 1048576\)")
    first(model).dims[:] = [-1, -1]
    refused(model, r"Constant 'k0' must have at most \d+ elements, not \(-1, -1\)")
    first(model).dims[:] = [1 << 24]
    refused(model, r"Constant 'k0' must have 67108864 bytes for \(16777216,\), not 4")
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 31, (1 << 63) - 1, 1 << 17])
def test_inputs_that_nothing_holds(size):
    model = valid()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = size
    refused(model, rf"Input 'x' must have sizes of at most 65536, and at most \d+ elements, not \(3, {size}, 8\)")


def test_inputs_of_too_many_elements():
    model = valid()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1 << 16
    refused(model, r"Input 'x' must have sizes of at most 65536, and .* elements, not \(3, 65536, 65536\)")


def test_types_that_do_not_exist():
    model = valid()
    first(model).data_type = 99
    refused(model, r"Constant 'k0' must be of a known type, not 99")
    model = valid()
    first(model).CopyFrom(numpy_helper.from_array(np.array([1 + 2j], np.complex64), "k0"))
    refused(model, r"Constant 'k0' must hold numbers, not complex64")
    model = valid()
    model.graph.input[0].type.tensor_type.elem_type = 99
    refused(model, r"Input 'x' must be of a known type, not 99")
    model = valid()
    tensor = first(model)
    tensor.ClearField("raw_data")
    tensor.data_type = TensorProto.FLOAT
    tensor.dims[:] = [3]
    tensor.float_data[:] = [1.0, 2.0]
    refused(model, r"Constant 'k0' must be a tensor of \(3,\): .*")


def test_attributes_that_are_none():
    model = valid()
    attribute = model.graph.node[0].attribute[0]
    attribute.type = AttributeProto.STRING
    attribute.s = b"\xff\xfe"
    refused(model, r"Node 'Quant_0' \(Quant\) must have an attribute '.*' that is one: .*")


def test_options():
    model = GRAPHS["integer_input"]().model
    for scale in (0.0, -1.0, INF, NAN):
        refused(model, r"Input scale must be a positive number and come with an input range, not .*",
                input_range=(0, 15), input_scale=scale)  # fmt: skip
    refused(model, r"Input scale must be a positive number and come with an input range, not 0.5", input_scale=0.5)


def test_values_that_are_no_numbers():
    result = convert(valid())
    with pytest.raises(UnsupportedModelError, match=r"^Values of input 'x' must be finite numbers$"):
        result.encode(np.full((1, 3, 8, 8), NAN, np.float32))
    with pytest.raises(
        UnsupportedModelError, match=r"^Values of input 'x' must have shape \(N, 3, 8, 8\), not \(1, 2\)$"
    ):
        result.encode(np.zeros((1, 2), np.float32))


# ---- data in other files ---------------------------------------------------------------------------------------------


def external(tmp_path, **entries):
    """A model whose first constant is in another file, as these entries say."""
    model = valid()
    tensor = first(model)
    (tmp_path / "data.bin").write_bytes(tensor.raw_data + bytes(100))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "a.onnx")
    return model


def test_data_beside_the_model_is_read(tmp_path):
    external(tmp_path, location="data.bin", offset="0", length="4")
    assert load(tmp_path / "a.onnx").network.operations


BESIDE = "must have its data in a file beside the model, not in"
TOO_SHORT = "must have its data in 'data.bin', which has 104 bytes: not 4 from"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"location": "/etc/passwd"}, rf"Constant 'k0' {BESIDE} '/etc/passwd'"),
        ({"location": "../data.bin"}, rf"Constant 'k0' {BESIDE} '../data.bin'"),
        ({"location": "a/../../x"}, rf"Constant 'k0' {BESIDE} 'a/../../x'"),
        ({"location": "/dev/zero"}, rf"Constant 'k0' {BESIDE} '/dev/zero'"),
        ({"location": "link.bin"}, rf"Constant 'k0' {BESIDE} 'link.bin'"),
        ({"location": "absent.bin"}, rf"Constant 'k0' {BESIDE} 'absent.bin'"),
        ({"location": "x" * 300}, rf"Constant 'k0' {BESIDE} 'x+\.\.\.x+'"),
        ({"location": "\0"}, rf"Constant 'k0' {BESIDE} .*"),
        ({"location": "data.bin", "offset": "many"}, r"Constant 'k0' must say where its data is: .*"),
        ({"location": "data.bin", "offset": "-1", "length": "4"}, rf"Constant 'k0' {TOO_SHORT} -1 on"),
        ({"location": "data.bin", "offset": "101", "length": "4"}, rf"Constant 'k0' {TOO_SHORT} 101 on"),
        ({"location": "data.bin", "length": str(1 << 40)}, r"Model must have at most \d+ bytes of data in other files"),
        ({"location": "data.bin"}, r"Constant 'k0' must have 4 bytes for \(\), not 104"),
        ({}, r"Constant 'k0' must .*"),
    ],
)
def test_data_elsewhere_is_refused(entries, sentence, tmp_path):
    (tmp_path / "inner").mkdir()
    external(tmp_path / "inner", **entries)
    (tmp_path / "data.bin").write_bytes(bytes(4))
    (tmp_path / "inner" / "link.bin").symlink_to(tmp_path / "data.bin")
    with pytest.raises(UnsupportedModelError, match=f"^{sentence}$"):
        load(tmp_path / "inner" / "a.onnx")


def test_models_without_their_file_have_no_other_data(tmp_path):
    model = external(tmp_path, location="data.bin", length="4")
    refused(model, r"Constant 'k0' must hold its data: give the file, so that the data beside it is found")


# ---- what a small file may claim -------------------------------------------------------------------------------------


def test_channels_without_numbers_are_bounded():
    """Each channel of each tensor takes time; an input may claim thousands, node after node."""
    maker = Maker((4096, 1, 1), batch=1)
    maker.quant(4, scale=0.1)
    for _ in range(100):
        maker.node("Mul", maker.last, maker.constant(1.5))
        maker.node("Relu")
    most = r"must not bring the channels that nodes read to more than 16\d+, with the 1\d+ numbers that the file holds"
    refused(plain(maker), rf"Node '\w+_\d+' \(\w+\) {most}")


def test_computed_constants_are_bounded():
    """Small constants whose products are large, many times over."""
    maker = started()
    source = maker.last
    column, row = maker.constant(np.ones((1 << 10, 1))), maker.constant(np.ones((1, 1 << 10)))
    last = maker.node("Mul", column, row)
    for _ in range(100):
        last = maker.node("Mul", last, maker.node("Mul", column, row))
    maker.node("Mul", source, last)
    tracemalloc.start()
    most = r"must not make more than \d+ elements of constants, with the 2\d+ numbers that the file holds"
    refused(plain(maker), rf"Node 'Mul_\d+' \(Mul\) {most}")
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


# ---- truncated and changed files -------------------------------------------------------------------------------------


def test_truncated_files(tmp_path):
    data = valid().SerializeToString()
    refusals = 0
    for end in range(0, len(data), len(data) // 60):
        (tmp_path / "a.onnx").write_bytes(data[:end])
        try:
            load(tmp_path / "a.onnx")
        except UnsupportedModelError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals >= 60


def test_names_of_any_kind():
    """Names may be anything; sentences stay one printable line."""
    rng = random.Random(0)
    for name in ("\n", "a" * 9000, "\x00\x1b[31m", "名", "{name!r}", "%s%n", " ", "'"):
        model = valid()
        node = rng.choice(model.graph.node)
        node.name = name
        node.op_type = name
        refused(model, ".*")
        model = valid()
        for node in model.graph.node:
            node.name = name
        result = convert(model)
        assert len({operation.name for operation in result.network.operations}) == len(result.network.operations)


def test_names_that_are_no_text(tmp_path):
    """Bytes that are not UTF-8, which protobuf hands over as bytes."""
    data = valid().SerializeToString()
    for name in (b"Conv_2", b"Quant_0", b"t5", b"k3", b"signed"):
        assert name in data
        (tmp_path / "a.onnx").write_bytes(data.replace(name, b"\xff" * len(name)))
        with pytest.raises(
            UnsupportedModelError, match=r"^(Model must have names that are text|File .* an ONNX model.*)$"
        ):
            load(tmp_path / "a.onnx")


def test_four_bit_constants_of_too_few_bytes():
    model = GRAPHS["qcdq_four_bit_types"]().model
    tensor = next(each for each in model.graph.initializer if each.name == "w")
    tensor.ClearField("int32_data")
    tensor.raw_data = bytes(80)
    refused(model, r"Constant 'w' must have 81 bytes for \(6, 3, 3, 3\), not 80")


def test_types_that_nothing_makes():
    model = GRAPHS["qcdq_four_bit_types"]().model
    next(each for each in model.graph.node[0].attribute if each.name == "output_dtype").i = 99
    refused(model, r"Node 'QuantizeLinear_0' \(QuantizeLinear\) must make a known type, not 99")
    next(each for each in model.graph.node[0].attribute if each.name == "output_dtype").i = TensorProto.FLOAT
    refused(model, r"Node 'QuantizeLinear_0' \(QuantizeLinear\) must make integers of at most 16 bits, not float32")


def test_deep_graphs_are_no_recursion():
    """Thousands of nodes in a row."""
    maker = started()
    for _ in range(5000):
        maker.node("Identity")
    maker.conv(3, 2, 3, 3)
    assert len(convert(plain(maker)).network.operations) == 1
