"""Import of integer ONNX: published networks, and small ones that ONNX Runtime computes layer by layer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from golden import onnx_import, vectors
from golden.execute import execute
from golden.network import Add, Conv2d, Grid, Kind, MaxPool2d
from golden.tests import onnx_maker
from golden.tests.onnx_maker import OnnxMaker

PUBLISHED = Path(__file__).parents[3] / "shared" / "external" / "dory"
STYLES = ("floor", "nemo", "integer", "shift")


def imported(maker, *, input_range=(0, 15), frames=3, output=None):
    """The import of what a maker made, and every one of its tensors equal to ONNX Runtime's."""
    model = maker.model(output)
    result = onnx_import.convert(model, input_range=input_range)
    low, high = input_range
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = maker.rng.integers(low, high + 1, (frames, *shape))
    compare(result, x, onnx_maker.run(model, x))
    return result


def compare(result, x, expected, least=1):
    network = result.network
    values = execute(network, result.encode(x))
    names = [name for name in result.tensors if name in expected]
    assert {result.tensors[name] for name in names} >= {t.name for t in network.tensors if not hidden(t, network)}
    for name in names:
        got = result.values(name, values[result.tensors[name]])
        np.testing.assert_array_equal(got.reshape(expected[name].shape), expected[name], err_msg=name)


def hidden(tensor, network):
    """Tensors that the file does not have: the input, and the first of two steps."""
    return tensor.name == network.input.name or tensor.name.endswith((".unclipped", ".padded"))


def layers(result):
    return [type(operation) for operation in result.network.operations]


# ---- published networks --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published networks of ../shared/external are not here")
@pytest.mark.parametrize(("name", "input_range", "layers"), [("dvs_cnn", (-1, 1), 90), ("residual_1", None, 8)])
def test_published_layers_are_equal(name, input_range, layers):
    result = onnx_import.load(PUBLISHED / f"{name}.onnx", input_range=input_range)
    published = np.load(PUBLISHED / f"{name}.npz")
    compared = 0
    for key in published.files:
        match = re.fullmatch(r"in(\d+)", key)
        if not match:
            continue
        values = execute(result.network, result.encode(published[key]))
        for node in [k for k in published.files if k.startswith(f"node{match[1]}_")]:
            label = str(published[node])
            tensor = result.network.tensor(result.tensors[label])
            got = values[tensor.name][0].astype(np.int64) - tensor.zero_point
            if tensor.kind is Kind.ACCUMULATOR:
                got = tensor.slope[:, None, None] * got + tensor.offset[:, None, None]
            wanted = published[node.replace("node", "gold", 1)]
            # Most are in H, W, C order, a few in C, H, W.
            assert any(np.array_equal(order.ravel(), wanted) for order in (got.transpose(1, 2, 0), got)), (key, label)
            compared += 1
    assert compared == layers


# ---- layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [10, 13])
@pytest.mark.parametrize("style", STYLES)
def test_convolutions_in_a_row(style, opset):
    maker = OnnxMaker((3, 7, 6), opset=opset, seed=1)
    maker.conv(maker.weights(6, 3, 3, 3), pads=[1, 1, 1, 1])
    maker.requantize(6, style=style)
    maker.conv(maker.weights(5, 6, 3, 3), pads=[0, 1, 2, 0], strides=[2, 1])
    maker.requantize(5, style=style, high=7)
    maker.conv(maker.weights(4, 5, 1, 1), bias=maker.weights(4, low=-50, high=50))
    result = imported(maker)
    assert layers(result) == [Conv2d] * 3
    assert [t.bits for t in result.network.tensors][:3] == [4, 4, 3]
    assert result.network.output.kind is Kind.ACCUMULATOR
    assert [o.name for o in result.network.operations] == [n.name for n in maker.nodes if n.op_type == "Conv"]
    assert all(o.bits == 3 and o.grid is Grid.TWOS_COMPLEMENT for o in result.network.operations)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
        ((12, 1, 3, 3), {"group": 6}),
        ((4, 3, 2, 4), {"group": 2, "strides": [1, 2]}),
        ((5, 6, 3, 2), {"dilations": [2, 1], "pads": [2, 0, 2, 1]}),
        ((5, 6, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((5, 6, 2, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
        ((5, 6, 4, 3), {"auto_pad": "SAME_UPPER"}),
        ((5, 6, 3, 3), {"auto_pad": "VALID"}),
        ((5, 6, 3, 3), {"auto_pad": "NOTSET", "kernel_shape": [3, 3]}),
    ],
)
def test_geometry_of_convolutions(shape, attributes):
    maker = OnnxMaker((6, 8, 9), seed=2)
    maker.conv(maker.weights(*shape), **attributes)
    maker.requantize(shape[0], low=-8, high=7)
    maker.conv(maker.weights(3, shape[0], 1, 1))
    imported(maker, input_range=(-3, 4))


@pytest.mark.parametrize("opset", [10, 13])
def test_one_dimension(opset):
    maker = OnnxMaker((4, 20), seed=3, opset=opset)
    pads = [0, 0, 4, 0, 0, 0]
    if opset == 10:
        maker.node("Pad", pads=pads, mode="constant", value=0.0)
    else:
        maker.node("Pad", "x", maker.constant(pads, np.int64), maker.constant(0.0))
    maker.conv(maker.weights(6, 4, 3), dilations=[2])
    maker.requantize(6, axes=1, low=-8, high=7)
    maker.node("MaxPool", kernel_shape=[2], strides=[2])
    maker.conv(maker.weights(6, 6, 5), pads=[2, 2], strides=[1])
    maker.requantize(6, axes=1, style="nemo")
    maker.node("AveragePool", kernel_shape=[2], strides=[2])
    maker.node("Mul", maker.last, maker.constant(2.0))
    maker.node("Floor")
    maker.node("Flatten", axis=1)
    maker.node("Gemm", maker.last, maker.constant(maker.weights(3, 30)), maker.constant(np.zeros(3)), transB=1)
    result = imported(maker)
    assert all(t.shape[1] == 1 for t in result.network.tensors)
    assert layers(result) == [Conv2d, MaxPool2d, Conv2d, Conv2d, Conv2d]


@pytest.mark.parametrize(("low", "high", "bits", "zero_point", "steps"), [
    (0, 3, 2, 0, 1), (-8, 7, 4, 8, 1), (-2, 1, 2, 2, 1), (-1, 1, 2, 2, 2), (-7, 7, 4, 8, 2), (0, 9, 4, 6, 2),
])  # fmt: skip
def test_ranges_of_clips(low, high, bits, zero_point, steps):
    """Where the range is no power of two, a second step clips above; the zero point says what 0 is in any case."""
    maker = OnnxMaker((3, 5, 5), seed=4)
    maker.conv(maker.weights(4, 3, 3, 3))
    name = maker.requantize(4, low=low, high=high, shift=3)
    maker.conv(maker.weights(4, 4, 3, 3), pads=[1, 1, 1, 1])
    result = imported(maker)
    tensor = result.network.tensor(result.tensors[name])
    assert (tensor.bits, tensor.zero_point, len(layers(result)) - 1) == (bits, zero_point, steps)


def test_weights_take_the_fewest_bits():
    grids = {
        (-1, 1): (1, Grid.ODD), (-2, -1, 0, 1): (2, Grid.TWOS_COMPLEMENT), (-1, 0, 1): (2, Grid.TWOS_COMPLEMENT),
        (-3, -1, 1, 3): (2, Grid.ODD), (-128, 127): (8, Grid.TWOS_COMPLEMENT), (-127, 127): (7, Grid.ODD),
        (0, 255): (9, Grid.TWOS_COMPLEMENT), (0,): (1, Grid.TWOS_COMPLEMENT), (-1, 0): (1, Grid.TWOS_COMPLEMENT),
        (1, 5): (3, Grid.ODD), (4,): (4, Grid.TWOS_COMPLEMENT),
    }  # fmt: skip
    for values, expected in grids.items():
        maker = OnnxMaker((2, 4, 4), seed=5)
        weights = maker.rng.choice(values, (3, 2, 2, 2))
        weights.ravel()[: len(values)] = values
        maker.conv(weights)
        result = imported(maker)
        (operation,) = result.network.operations
        np.testing.assert_array_equal(operation.weights, weights)
        assert (operation.bits, operation.grid) == expected


def test_annotations_change_nothing():
    maker = OnnxMaker((2, 4, 4))
    maker.conv(maker.weights(3, 2, 2, 2), weight_bits=8, bias_bits=32)
    maker.node("Mul", maker.last, maker.constant(2.0), mult_bits=32)
    maker.node("Clip", min=0.0, max=255.0, out_bits=8)
    network = onnx_import.convert(maker.model()).network
    assert network.operations[0].bits == 3 and network.output.bits == 8


def test_max_pools():
    maker = OnnxMaker((3, 9, 8), seed=6)
    maker.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    maker.conv(maker.weights(4, 3, 3, 3), pads=[1, 1, 1, 1])
    maker.requantize(4, low=-8, high=7)
    maker.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    maker.node("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    maker.conv(maker.weights(4, 4, 1, 1))
    maker.requantize(4)
    maker.node("GlobalMaxPool")
    result = imported(maker)
    assert layers(result) == [MaxPool2d, Conv2d, MaxPool2d, MaxPool2d, Conv2d, MaxPool2d]
    assert result.network.output.shape == (4, 1, 1) and result.network.output.kind is Kind.CODE


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "pads", "size"),
    [(5, 2, 2, 0, 3), (6, 3, 2, 0, 3), (7, 2, 3, 0, 3), (6, 2, 2, 1, 4), (5, 2, 4, 1, 2), (4, 3, 3, 1, 2)],
)
def test_ceil_mode(extent, kernel, stride, pads, size):
    maker = OnnxMaker((2, extent, extent), seed=7)
    maker.node("MaxPool", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pads] * 4, ceil_mode=1)
    assert imported(maker).network.output.shape == (2, size, size)


def test_pad_before_layers():
    maker = OnnxMaker((2, 6, 6), seed=8)
    maker.node("Pad", pads=[0, 0, 1, 0, 0, 0, 0, 1], mode="constant", value=0.0)
    maker.node("Pad", pads=[0, 0, 0, 1, 0, 0, 0, 0])
    maker.node("MaxPool", kernel_shape=[2, 2])
    maker.node("Pad", pads=[0, 0, 0, 1, 0, 0, 0, 1])
    maker.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    maker.node("Mul", maker.last, maker.constant(4.0))
    maker.node("Pad", pads=[0, 0, 0, 0, 0, 0, 2, 0])
    maker.conv(maker.weights(3, 2, 3, 3), pads=[1, 0, 0, 0])
    assert [max(o.padding) for o in imported(maker).network.operations] == [1, 1, 2]


# ---- sums ----------------------------------------------------------------------------------------------------------


def block(maker, channels, source=None, **options):
    maker.conv(maker.weights(channels, channels, 3, 3), source=source, pads=[1, 1, 1, 1])
    return maker.requantize(channels, **options)


@pytest.mark.parametrize("low", [0, -8])
def test_residual_sum_with_a_common_divisor(low):
    """NEMO's: (m_a*a + m_b*b)/D rounded down and not clipped; the range says how many bits it takes."""
    maker = OnnxMaker((4, 6, 6), seed=9)
    stem = block(maker, 4, low=low, high=low + 15)
    main = block(maker, 4, low=low, high=low + 15)
    a = maker.node("Mul", main, maker.constant(45.0))
    b = maker.node("Mul", maker.constant(32.0), stem)
    maker.node("Add", a, b)
    maker.node("Div", maker.last, maker.constant(32.0))
    total = maker.node("Floor")
    block(maker, 4)
    result = imported(maker)
    tensor = result.network.tensor(result.tensors[total])
    assert layers(result) == [Conv2d, Conv2d, Add, Conv2d]
    assert tensor.bits == 6 and tensor.max_code >= 15 * 77 // 32


def test_residual_operand_of_a_convolution():
    """A code added before the division is the convolution's residual operand."""
    maker = OnnxMaker((4, 6, 6), seed=10)
    stem = block(maker, 4, low=-4, high=3)
    accumulators = maker.conv(maker.weights(4, 4, 3, 3), pads=[1, 1, 1, 1])
    scaled = maker.node("Mul", stem, maker.constant(maker.weights(4, 1, 1, low=-9, high=9)))
    maker.node("Add", accumulators, scaled)
    maker.requantize(4, low=-8, high=7)
    maker.node("Sub", maker.last, stem)
    maker.node("Clip", min=0.0, max=3.4028234663852886e38)
    result = imported(maker)
    assert layers(result) == [Conv2d, Conv2d, Add]
    assert result.network.operations[1].skip == result.tensors[stem]
    assert result.network.output.bits == 4 and result.network.output.zero_point == 0


def test_sums_of_all_kinds():
    maker = OnnxMaker((3, 4, 4), seed=11)
    x = "x"
    twice = maker.node("Add", x, x)
    three = maker.node("Add", twice, x)
    minus = maker.node("Sub", maker.constant(20.0), three)
    a = block(maker, 3, source=minus, low=0, high=15)
    b = block(maker, 3, source=twice, low=0, high=15)
    maker.node("Add", maker.node("Add", a, b), x)
    maker.node("Neg")
    maker.node("Max", maker.last, maker.constant(-30.0))
    maker.node("Min", maker.constant([1.0]), maker.last)
    result = imported(maker)
    assert result.network.output.zero_point == 30


def test_two_accumulators_need_codes():
    """One of the two becomes codes of its own, exactly, if 16 bits hold it."""
    maker = OnnxMaker((2, 4, 4), seed=12)
    a = maker.conv(maker.weights(3, 2, 3, 3), source="x")
    b = maker.conv(maker.weights(3, 2, 2, 2), source="x", pads=[0, 0, 0, 0], dilations=[2, 2])
    maker.node("Add", a, b)
    maker.requantize(3)
    result = imported(maker)
    assert result.network.operations[1].skip == result.tensors[b]


def test_two_convolutions_of_the_same_codes_are_one():
    """2*sum(n*u) - 255*sum(u), as wide weights are written in integer operators."""
    maker = OnnxMaker((2, 4, 4), seed=12)
    a = maker.conv(maker.weights(3, 2, 3, 3, low=0, high=255), source="x")
    a = maker.node("Mul", a, maker.constant(2.0))
    b = maker.conv(np.ones((3, 2, 3, 3)), source="x")
    b = maker.node("Mul", b, maker.constant(255.0))
    maker.node("Sub", a, b)
    maker.requantize(3)
    result = imported(maker)
    (operation,) = result.network.operations
    assert (operation.bits, operation.grid) == (8, Grid.ODD)


def test_addition_of_quantlib_with_constants_inside():
    """What such a node does not say is signed if an operand is; a notice says so where it matters."""
    maker = OnnxMaker((2, 4, 4), seed=13)
    b = block(maker, 2, source="x", low=-8, high=7)
    attributes = {
        "in1_mul": 7, "in1_add": -5, "in1_shift": 2, "in1_n_levels": 16, "in1_rq": 1,
        "in2_mul": 1, "in2_add": 0, "in2_shift": 0, "in2_n_levels": 256, "in2_rq": 0,
        "out_mul": 3, "out_add": 4, "out_shift": 3, "out_n_levels": 16, "out_rq": 1,
    }  # fmt: skip
    maker.node("Add", "x", b, add_bits=8, **attributes)
    for said, first, last in (({}, (-8, 7), (-8, 7)), ({"in1_signed": 0}, (0, 15), (-8, 7)),
                              ({"in1_signed": 1, "out_signed": 0}, (-8, 7), (0, 15))):  # fmt: skip
        model = maker.model()
        model.graph.node[-1].attribute.extend(helper.make_attribute(key, value) for key, value in said.items())
        result = onnx_import.convert(model, input_range=(0, 15))
        assert result.notices == tuple(
            f"Node 'Add_6' (Add) does not say whether its {which} is signed: taken to be signed, as an operand is."
            for which in ("in1", "out")
            if f"{which}_signed" not in said
        )
        x = maker.rng.integers(0, 16, (3, 2, 4, 4))
        values = execute(result.network, result.encode(x))
        total = np.clip((7 * x - 5) // 4, *first) + result.values(b, values[result.tensors[b]])
        got = result.values(maker.last, values[result.tensors[maker.last]])
        np.testing.assert_array_equal(got, np.clip((3 * total + 4) // 8, *last))


@pytest.mark.parametrize("form", ["sub", "where", "mod"])
def test_floor_division_of_pytorch(form):
    """Integer division with the correction that rounds down what is negative."""
    maker = OnnxMaker((2, 5, 5), seed=23, opset=13)
    maker.conv(maker.weights(3, 2, 3, 3))
    a = maker.node("Cast", to=TensorProto.INT64)
    b, zero, one = (maker.constant(x, np.int64) for x in (16, 0, 1))
    quotient = maker.node("Div", a, b)
    negative = maker.node("Xor", maker.node("Less", a, zero), maker.node("Less", b, zero))
    rest = maker.node("Mod", a, b) if form == "mod" else maker.node("Sub", a, maker.node("Mul", quotient, b))
    mask = maker.node("And", negative, maker.node("Not", maker.node("Equal", rest, zero)))
    if form == "where":
        total = maker.node("Where", mask, maker.node("Sub", quotient, one), quotient)
    else:
        total = maker.node("Sub", quotient, maker.node("Mul", maker.node("Cast", mask, to=TensorProto.INT64), one))
    maker.node("Cast", to=TensorProto.FLOAT)
    maker.clip(-8, 7)
    result = onnx_import.convert(maker.model(), input_range=(0, 15))
    x = maker.rng.integers(0, 16, (4, 2, 5, 5))
    values = execute(result.network, result.encode(x))
    expected = onnx_maker.run(maker.model(), x)
    assert expected[total].min() < 0
    np.testing.assert_array_equal(result.values(maker.last, values[result.network.output.name]), expected[maker.last])


def test_padding_with_another_number():
    """NEMO shifts inputs to be positive and pads with what 0 has become."""
    maker = OnnxMaker((2, 5, 5), seed=24)
    maker.node("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=7.0)
    maker.conv(maker.weights(3, 2, 3, 3))
    maker.requantize(3, low=-8, high=7)
    maker.node("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=-8.0)
    maker.node("MaxPool", kernel_shape=[2, 2])
    maker.node("Pad", pads=[0, 0, 1, 0, 0, 0, 0, 0], value=-3.0)
    maker.node("Pad", pads=[0, 0, 0, 1, 0, 0, 0, 0], value=-3.0)
    maker.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    maker.node("Mul", maker.last, maker.constant(4.0))
    result = imported(maker, input_range=(-2, 13))
    assert [t.name for t in result.network.tensors if t.name.endswith(".padded")] == ["x.padded", "t8.padded"]


def test_padding_beyond_what_the_tensor_takes():
    """Codes 0..8 padded with 15: constants that are solved must hold for the sums with it too."""
    for seed in range(5):
        maker = OnnxMaker((2, 4, 4), seed=seed)
        maker.node("Pad", pads=[0, 0, 2, 2, 0, 0, 2, 2], value=15.0)
        maker.conv(maker.weights(3, 2, 3, 3, low=1, high=7))
        maker.node("Mul", maker.last, maker.constant(maker.rng.integers(3, 90, (3, 1, 1))))
        maker.node("Div", maker.last, maker.constant(977.0))
        maker.node("Floor")
        maker.clip(0, 255)
        imported(maker, input_range=(0, 8))


# ---- averages, ends and shapes -------------------------------------------------------------------------------------


def test_average_pool_of_nemo():
    maker = OnnxMaker((3, 8, 8), seed=14)
    block(maker, 3)
    maker.node("AveragePool", kernel_shape=[4, 4], strides=[4, 4])
    maker.node("Mul", maker.last, maker.constant(16.0))
    maker.node("Mul", maker.last, maker.constant(43.0))
    maker.node("Div", maker.last, maker.constant(512.0))
    maker.node("Floor")
    maker.node("Flatten")
    maker.node("MatMul", maker.last, maker.constant(maker.weights(12, 5)))
    result = imported(maker)
    assert layers(result) == [Conv2d] * 3
    pool = result.network.operations[1]
    assert pool.groups == 3 and (pool.weights == 1).all() and pool.bits == 1
    assert result.network.tensor(pool.output).bits == 5  # 15*16*43 >> 9 is 20


def test_divisors_that_are_no_power_of_two():
    """Exact rationals; constants with the same thresholds are solved. Floats would be wrong at exact multiples."""
    maker = OnnxMaker((3, 6, 6), seed=15)
    maker.node("AveragePool", kernel_shape=[3, 3], strides=[1, 1])
    maker.node("Floor")
    weights = maker.weights(4, 3, 1, 1)
    maker.conv(weights)
    maker.node("Div", maker.last, maker.constant(7.0))
    pooled, name = "t1", maker.node("Floor")
    maker.clip(-4, 3)
    result = onnx_import.convert(maker.model(), input_range=(0, 15))
    x = maker.rng.integers(0, 16, (8, 3, 6, 6))
    values = execute(result.network, result.encode(x))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3)).sum(axis=(4, 5)) // 9
    np.testing.assert_array_equal(result.values(pooled, values[result.tensors[pooled]]), windows)
    acc = np.einsum("oc,nchw->nohw", weights[:, :, 0, 0], windows)
    np.testing.assert_array_equal(result.values(maker.last, values[result.network.output.name]),
                                  np.clip(acc // 7, -4, 3))  # fmt: skip
    assert name not in result.tensors


@pytest.mark.parametrize("head", ["global", "whole", "reduce", "conv", "sum"])
def test_mean_without_rounding_is_in_the_linear_layer(head):
    maker = OnnxMaker((3, 4, 4), seed=16, opset=13)
    block(maker, 3, low=-8, high=7)
    if head == "reduce":
        maker.node("ReduceMean", axes=[2, 3], keepdims=0)
    elif head == "sum":
        maker.node("ReduceSum", maker.last, maker.constant([-2, -1], np.int64))
    elif head == "whole":
        maker.node("AveragePool", kernel_shape=[4, 4])
    else:
        maker.node("GlobalAveragePool")
    if head == "conv":
        maker.conv(maker.weights(5, 3, 1, 1), bias=[1, 2, 3, 4, 5])
        maker.node("Flatten")
    else:
        if head != "reduce":
            maker.node("Reshape", maker.last, maker.constant([-1, 3], np.int64))
        bias = maker.constant([0.5, 0, 0, 0, 1])
        maker.node("Gemm", maker.last, maker.constant(maker.weights(5, 3)), bias, transB=1, alpha=2.0, beta=3.0)
    result = imported(maker)
    assert layers(result) == [Conv2d, Conv2d] and result.network.operations[1].broadcast


@pytest.mark.parametrize("dynamic", [False, True])
def test_shapes(dynamic):
    maker = OnnxMaker((3, 4, 4), seed=17, opset=11, batch="N")
    source = block(maker, 3)
    maker.node("Dropout")
    maker.node("Identity")
    reshaped = maker.last
    if dynamic:
        maker.node("Shape", source)
        maker.node("Gather", maker.last, maker.constant(0, np.int64), axis=0)
        size = maker.node("Unsqueeze", axes=[0])
        maker.node("Constant", value=onnx.numpy_helper.from_array(np.array([-1], np.int64)), name="end")
        maker.nodes[-1].input[:] = []
        target = maker.node("Concat", size, maker.last, axis=0)
    else:
        target = maker.constant([0, -1], np.int64)
    maker.node("Reshape", reshaped, target)
    maker.node("Gemm", maker.last, maker.constant(maker.weights(48, 6)), maker.constant(np.ones((1, 6))))
    maker.node("Clip", maker.last, maker.constant(-128.0), maker.constant(127.0))
    maker.node("Unsqueeze", axes=[2, 3])
    maker.conv(maker.weights(4, 6, 1, 1))
    maker.node("Squeeze", axes=[3])
    maker.node("Squeeze", axes=[2])
    result = imported(maker)
    assert layers(result) == [Conv2d, Conv2d, Conv2d] and result.network.output.shape == (4, 1, 1)


@pytest.mark.parametrize("operators", [["Sigmoid"], ["Softmax"], ["LogSoftmax"], ["Softmax", "ArgMax"]])
def test_what_is_left_to_the_host(operators):
    maker = OnnxMaker((3, 2, 2), seed=18)
    maker.node("Flatten")
    logits = maker.node("Gemm", maker.last, maker.constant(maker.weights(4, 12)), maker.constant(np.ones(4)), transB=1)
    for operator in operators:
        maker.node(operator)
    result = imported(maker)
    assert [n for n in result.notices if "dropped" in n] == [
        f"Node '{operators[i]}_{2 + i}' ({operators[i]}) at the end was dropped: the host computes it."
        for i in reversed(range(len(operators)))
    ]
    assert result.network.output.name == result.tensors[logits]


def test_a_wide_rounded_end_is_left_to_the_host():
    maker = OnnxMaker((3, 4, 4), seed=19)
    maker.node("Flatten")
    maker.node("MatMul", maker.last, maker.constant(maker.weights(48, 4, low=-128, high=127)))
    maker.node("Mul", maker.last, maker.constant(101.0))
    maker.node("Div", maker.last, maker.constant(4.0))
    maker.node("Floor")
    maker.clip(-(2.0**31), 2.0**31)
    result = onnx_import.convert(maker.model(), input_range=(0, 15))
    assert result.notices == (
        f"Output '{maker.last}' is wider than 16 bits, so it is the accumulator that comes out; "
        "floor(slope*acc + offset) is left to the host.",
    )
    assert (result.network.output.slope == 25.25).all()


def test_32_bits_are_taken_to_be_enough():
    maker = OnnxMaker((3, 2, 2), seed=25)
    maker.conv(np.full((1, 3, 2, 2), 100))
    maker.node("Mul", maker.last, maker.constant(100_000.0))
    maker.node("Cast", to=TensorProto.INT32, name="narrow")
    maker.node("Div", maker.last, maker.constant(1 << 20, np.int32))
    result = onnx_import.convert(maker.model(), input_range=(0, 255))
    assert result.notices == ("Node 'narrow' (Cast) is taken never to exceed int32, though 0..30600000000 may occur.",)
    maker.nodes[-2].attribute[0].i = TensorProto.UINT64
    assert onnx_import.convert(maker.model(), input_range=(0, 255)).notices == ()


def test_names_become_file_names():
    maker = OnnxMaker((2, 3, 3))
    maker.nodes.append(helper.make_node("Conv", ["x", maker.constant(maker.weights(2, 2, 1, 1))], ["/a/b c"]))
    maker.nodes.append(helper.make_node("Clip", ["/a/b c"], ["//"], min=0.0, max=7.0))
    maker.nodes.append(
        helper.make_node("Conv", ["//", maker.constant(maker.weights(2, 2, 1, 1))], ["x:0"], name="a_b_c")
    )
    result = onnx_import.convert(maker.model("x:0"), name="net")
    assert [o.name for o in result.network.operations] == ["a_b_c", "a_b_c_2"]
    assert result.tensors == {"x": "x", "//": "unnamed", "x:0": "x_0"}


# ---- refusals ------------------------------------------------------------------------------------------------------


def node(operator, *inputs, before=(), **attributes):
    """A model of one node (named by its operator) behind those of ``before``; arrays become constants."""

    def build():
        maker = OnnxMaker((2, 4, 4))

        def put(operator, *inputs, **attributes):
            names = [maker.last if x is ... else x if isinstance(x, str) else maker.constant(x, None) for x in inputs]
            maker.node(operator, *names, name=operator, **attributes)

        for each in before:
            put(*each)
        put(operator, *inputs, **attributes)
        return maker.model()

    return build


def ones(*shape):
    return np.ones(shape, np.float32)


FLAT = ("Flatten", "x")
PADS = np.array([0, 0, 1, 0, 0, 0, 0, 0])
THIRDS = ("Div", ..., np.float32(3))
REFUSED = [  # the operator that is named, and what is said of it; "..." stands for any rest
    ("Exp is of an operator that is not among Add, AveragePool, ...", node("Exp", "x")),
    ("Gather must compute a constant", node("Gather", "x", np.int64(0), axis=2)),
    ("Conv reads 'y', which nothing makes before it", node("Conv", "y", ones(1, 2, 1, 1))),
    ("Conv must have a constant as its weights", node("Conv", "x", "x")),
    ("Conv must have integer weights, or such as a quantizer makes",
     node("Conv", "x", np.full((1, 2, 1, 1), 0.5, np.float32))),
    ("Conv must have integer weights, or such as a quantizer makes",
     node("Conv", "x", np.full((1, 2, 1, 1), np.inf, np.float32))),
    ("Conv must have weights of at most 16 bits, not 1..40000",
     node("Conv", "x", np.array([1, 40000], np.float32).reshape(1, 2, 1, 1))),
    ("Conv must convolve (N, C, H, W) or (N, C, L) with weights to suit, not (1, 2, 1)",
     node("Conv", "x", ones(1, 2, 1))),
    ("Conv must have weights for 2 channels, not 3", node("Conv", "x", ones(1, 3, 1, 1))),
    ("Conv must make a layer: Groups of operation 'Conv' must divide 3 output channels, not 2",
     node("Conv", "x", ones(3, 1, 1, 1), group=2)),
    ("Conv must have weights of its kernel_shape, not (1, 2, 1, 1)",
     node("Conv", "x", ones(1, 2, 1, 1), kernel_shape=[3, 3])),
    ("Conv must have a window that fits (4, 4)", node("Conv", "x", ones(1, 2, 5, 1))),
    ("Conv must have auto_pad NOTSET, VALID or SAME_*, not SAME",
     node("Conv", "x", ones(1, 2, 1, 1), auto_pad="SAME")),
    ("Conv must have pads of at least 0, not (-1, 0, 0, 0)",
     node("Conv", "x", ones(1, 2, 1, 1), pads=[-1, 0, 0, 0])),
    ("Conv must have a bias of 1 finite numbers, not (2,)",
     node("Conv", "x", ones(1, 2, 1, 1), ones(2))),
    ("Conv must read integers, but 't0' holds fractions: a Floor is missing",
     node("Conv", ..., ones(1, 2, 1, 1), before=[THIRDS])),
    ("Conv must read integers of at most 16 bits, but 't0' has 0..76500: a Clip is missing",
     node("Conv", ..., ones(1, 2, 1, 1), before=[("Mul", "x", np.float32([[[300]], [[2]]]))])),
    ("Mul must have integers as constants",
     node("MaxPool", before=[("Mul", "x", np.float32(1.5)), ("Floor",)])),
    ("Add must have integers as constants", node("MaxPool", before=[("Add", "x", np.float32(0.5)), ("Floor",)])),
    ("Mul must have a constant as an operand", node("Mul", "x", "x")),
    ("Mul must have finite numbers as constants", node("Mul", "x", np.float32(np.nan))),
    ("Mul must have one constant, or one for each of 2 channels, not shape (4,)",
     node("Mul", "x", ones(4))),
    ("Mul must have one constant, or one for each of 2 channels, not shape (32,)",
     node("Mul", ..., ones(32), before=[FLAT])),
    ("Div must divide a computed tensor by positive constants", node("Div", np.float32(2), "x")),
    ("Div must divide a computed tensor by positive constants", node("Div", "x", np.float32(-2))),
    ("Add must add tensors of one shape, not (2, 4, 4) and (32,)", node("Add", "x", ..., before=[FLAT])),
    ("BitShift must shift a computed tensor right by constants",
     node("BitShift", "x", np.uint8(1), direction="LEFT")),
    ("BitShift must shift what is never negative: put a Clip at 0 before it",
     node("BitShift", ..., np.uint8(1), before=[("Sub", "x", np.float32(1))], direction="RIGHT")),
    ("Clip must clip all channels to one range, low before high", node("Clip", "x", min=3.0, max=1.0)),
    ("Max must clip all channels to one range, low before high",
     node("Max", "x", np.array([1, 2], np.float32).reshape(2, 1, 1))),
    ("MaxPool must read what is clipped to a range with 0 in it, not so 't0'",
     node("MaxPool", before=[("Max", "x", np.float32(2))])),
    ("MaxPool must have dilations of 1, not (2, 2)", node("MaxPool", dilations=[2, 2], kernel_shape=[2, 2])),
    ("MaxPool must make a pool: Padding of operation 'MaxPool' must be smaller than the kernel, ...",
     node("MaxPool", kernel_shape=[2, 2], pads=[2, 0, 0, 0])),
    ("MaxPool must pool maps (N, C, H, W) or (N, C, L)", node("MaxPool", before=[FLAT])),
    ("AveragePool must count its padding (count_include_pad), or have none",
     node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0])),
    ("AveragePool must not average windows that end outside (ceil_mode)",
     node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    ("GlobalAveragePool must read maps (N, C, H, W) or (N, C, L), not (N, features)",
     node("GlobalAveragePool", before=[FLAT])),
    ("ReduceMean must reduce the whole map of each channel, not axes [1]",
     node("ReduceMean", axes=[1])),
    ("Pad must pad with a constant integer", node("Pad", pads=[0] * 8, value=0.5)),
    ("Pad must pad with a constant integer", node("Pad", pads=[0] * 8, mode="reflect")),
    ("Pad must add pixels around maps and nothing else, not [0, 1, 0, 0, 0, 0, 0, 0]",
     node("Pad", pads=[0, 1, 0, 0, 0, 0, 0, 0])),
    ("Pad must have a constant as its pads",
     node("Pad")),
    ("Cast must have all that its operator needs, not so 'to'", node("Cast")),
    ("Cast must make integers, float32 or float64, not float16", node("Cast", to=TensorProto.FLOAT16)),
    ("Cast must make what int8 holds, not 0..255", node("Cast", to=TensorProto.INT8)),
    ("Gemm must not transpose what it reads",
     node("Gemm", ..., ones(32, 1), before=[FLAT], transA=1)),
    ("MatMul must multiply (N, features) by (features, outputs), not (2, 4, 4) by (4, 1)",
     node("MatMul", "x", ones(4, 1))),
    ("MatMul must read a computed tensor, not a constant", node("MatMul", ones(4, 1), "x")),
    ("Flatten must flatten from axis 1 on, not 2", node("Flatten", "x", axis=2)),
    ("Reshape must flatten a frame, or add and remove axes of size 1, not make (4, 2, 4) of (2, 4, 4)",
     node("Reshape", "x", np.array([1, 4, 2, 4]))),
    ("Reshape must leave the batch alone, not reshape to [2, 16]", node("Reshape", "x", np.array([2, 16]))),
    ("Squeeze must remove axes of size 1 behind the batch, not [2]", node("Squeeze", "x", axes=[2])),
    ("Unsqueeze must add axes behind the batch, not [0]", node("Unsqueeze", "x", axes=[0])),
    ("Concat must have constants that can be computed: ...",
     node("Concat", np.ones(2), np.ones((2, 2)), axis=0)),
    ("Output 't0' must be computed from the input", node("Identity", np.ones(3))),
    ("Output 't0' must be computed by at least one operation", node("Identity", "x")),
    ("Output 't0' must not be a padded tensor", node("Pad", pads=[0, 0, 1, 0, 0, 0, 0, 0])),
    ("Relu must not read a padded tensor: only convolutions and pools may",
     node("Relu", before=[("Pad", "x", PADS)])),
    ("MaxPool must read what is padded with its smallest value, if at all",
     node("MaxPool", before=[("Pad", "x", PADS, np.float32(3))], kernel_shape=[2, 2])),
    ("Pad must pad with 3 as the Pad before it, not 0",
     node("Pad", before=[("Pad", "x", PADS, np.float32(3))], pads=[0] * 8)),
    ("Conv must not pad with 0 what a Pad before it pads with 3",
     node("Conv", ..., ones(1, 2, 3, 3), pads=[1] * 4,
          before=[("Pad", "x", PADS, np.float32(3))])),
    ("Conv must read what is padded with one of its values, not 256",
     node("Conv", ..., ones(1, 2, 3, 3),
          before=[("Pad", "x", PADS, np.float32(256))])),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "build"), REFUSED)
def test_refusals_name_the_node_and_the_reason(sentence, build):
    with pytest.raises(onnx_import.UnsupportedModelError) as error:
        onnx_import.convert(build())
    operator, _, reason = sentence.partition(" ")
    expected = sentence if operator == "Output" else f"Node {operator!r} ({operator}) {reason}"
    assert str(error.value).startswith(expected.removesuffix("..."))
    assert expected.endswith("...") or str(error.value) == expected


def test_truncation_must_not_be_seen():
    maker = OnnxMaker((2, 4, 4), seed=20)
    maker.conv(maker.weights(3, 2, 1, 1))
    maker.node("Cast", to=TensorProto.INT64)
    maker.node("Div", maker.last, maker.constant(8, np.int64))
    maker.node("MaxPool", name="pool")
    sentence = (
        r"^Node 'pool' \(MaxPool\) must read what was rounded down, but 't2' was rounded toward 0 and may be neg.*$"
    )
    with pytest.raises(onnx_import.UnsupportedModelError, match=sentence):
        onnx_import.convert(maker.model())


def test_channels_must_be_clipped_alike():
    maker = OnnxMaker((2, 4, 4), seed=21)
    maker.conv(maker.weights(2, 2, 1, 1))
    maker.node("Div", maker.last, maker.constant(4.0))
    maker.node("Clip", min=0.0, max=255.0)
    maker.node("Mul", maker.last, maker.constant([[[1.0]], [[2.0]]]), name="mul")
    sentence = r"^Output 't3' must read integers, but 't3' holds fractions: a Floor is missing$"
    with pytest.raises(onnx_import.UnsupportedModelError, match=sentence):
        onnx_import.convert(maker.model())


def test_inputs_and_outputs():
    def refused(sentence, model, **options):
        with pytest.raises(onnx_import.UnsupportedModelError, match=sentence):
            onnx_import.convert(model, **options)

    maker = OnnxMaker((2, 4, 4))
    maker.node("MaxPool", kernel_shape=[2, 2])
    model = maker.model()
    refused(r"^Input range must contain 0 and another integer, not 1..5$", model, input_range=(1, 5))
    refused(r"^Input range must contain 0 and another integer, not 0..0$", model, input_range=(0, 0))
    refused(r"^Input range must fit 16 bits, not 0..65536$", model, input_range=(0, 1 << 16))
    two = onnx.ModelProto.FromString(model.SerializeToString())
    two.graph.node.append(helper.make_node("Identity", ["x"], ["t1"]))
    two.graph.output.append(helper.make_empty_tensor_value_info("t1"))
    refused(r"^Model must have one output that nothing in it reads, not 't0', 't1'$", two)
    two = onnx.ModelProto.FromString(model.SerializeToString())
    two.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2]))
    refused(r"^Model must have one input, not 2$", two)
    open_shape = OnnxMaker((2, "H", 4))
    open_shape.node("Relu")
    refused(r"^Input 'x' must have shape \(N, C, H, W\), .* of fixed sizes, not \(1, 2, 'H', 4\)$", open_shape.model())


@pytest.mark.parametrize(
    ("dtype", "given", "low", "high", "bits"),
    [
        (TensorProto.FLOAT, None, 0, 255, 8),
        (TensorProto.INT8, None, -128, 127, 8),
        (TensorProto.UINT8, None, 0, 255, 8),
        (TensorProto.INT16, None, -(1 << 15), (1 << 15) - 1, 16),
        (TensorProto.INT64, None, 0, 255, 8),
        (TensorProto.FLOAT, (-1, 1), -1, 1, 2),
        (TensorProto.FLOAT, (0, 1), 0, 1, 1),
    ],
)
def test_what_the_input_holds(dtype, given, low, high, bits):
    maker = OnnxMaker((2, 4, 4), dtype=dtype)
    maker.node("MaxPool", kernel_shape=[2, 2])
    result = onnx_import.convert(maker.model(), input_range=given)
    source = result.network.input
    assert (source.bits, source.zero_point) == (bits, -low)
    assert result.notices == (() if given else (
        f"Input 'x' is taken to hold {low}..{high}, since the file does not say what it holds.",))  # fmt: skip
    x = np.full((1, 2, 4, 4), low)
    x[0, 0, 0, 0] = high
    np.testing.assert_array_equal(result.values("x", result.encode(x)), x)
    np.testing.assert_array_equal(result.encode(x.reshape(1, 32).astype(float)), result.encode(x))

    def refused(sentence, values):
        with pytest.raises(onnx_import.UnsupportedModelError, match=sentence):
            result.encode(values)

    refused(r"^Values of input 'x' must be integers, not float64 numbers$", x + 0.5)
    refused(r"^Values of input 'x' must have shape \(N, 2, 4, 4\), not \(1, 2, 4, 5\)$", np.zeros((1, 2, 4, 5)))
    refused(
        rf"^Values of input 'x' must be between {low} and {high}, not {low}..{high + 1}$",
        np.where(x == high, high + 1, x),
    )


def test_files_that_are_no_models(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(onnx_import.UnsupportedModelError, match=r"^File '.*broken.onnx' must be an ONNX model: "):
        onnx_import.load(tmp_path / "broken.onnx")
    with pytest.raises(OSError):
        onnx_import.load(tmp_path / "absent.onnx")
    maker = OnnxMaker((2, 4, 4))
    maker.node("MaxPool", kernel_shape=[2, 2])
    onnx.save(maker.model(), tmp_path / "my net.onnx")
    assert onnx_import.load(tmp_path / "my net.onnx").network.name == "my_net"
    assert onnx_import.load(tmp_path / "my net.onnx", name="other").network.name == "other"


def test_vectors_of_a_file(tmp_path):
    maker = OnnxMaker((2, 4, 4))
    block(maker, 2, low=-8, high=7)
    maker.node("Flatten")
    maker.node("MatMul", maker.last, maker.constant(maker.weights(32, 3)))
    onnx.save(maker.model(), tmp_path / "net.onnx")
    result = onnx_import.import_file(tmp_path / "net.onnx", tmp_path / "v", input_range=(-3, 2), frames=3, seed=4)
    network, values = vectors.read(tmp_path / "v")
    assert network.name == "net" and values["x"].shape == (3, 2, 4, 4) and set(np.unique(values["x"])) == set(range(6))
    assert result.table() == (
        "Conv_0    convolution 3×3  3-bit weights  t5  2×4×4  4-bit codes, zero point 8\n"
        "MatMul_7  linear           3-bit weights  t7  3×1×1  11-bit accumulators\n"
    )
    x = values["x"].astype(np.int16) - 3
    np.save(tmp_path / "x.npy", x)
    onnx_import.import_file(tmp_path / "net.onnx", tmp_path / "w", input_range=(-3, 2), inputs=tmp_path / "x.npy")
    np.testing.assert_array_equal(vectors.read(tmp_path / "w")[1]["t7"], values["t7"])
    np.savez(tmp_path / "x.npz", x)
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    for sentence, options in (
        (r"^File '.*x.npz' must be a .npy file with one array$", {"inputs": tmp_path / "x.npz"}),
        (r"^File '.*broken.npy' must be a .npy file: ", {"inputs": tmp_path / "broken.npy"}),
        (r"^Frames must be at least 1, not 0$", {"frames": 0}),
    ):
        with pytest.raises(onnx_import.UnsupportedModelError, match=sentence):
            onnx_import.import_file(tmp_path / "net.onnx", tmp_path / "w", **options)


# ---- random networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_random_networks(first):
    """Networks of all the idioms, every tensor equal to ONNX Runtime's."""
    for seed in range(first, first + 20):
        random_network(np.random.default_rng(seed), seed)


def random_network(rng, seed):
    channels, axes = int(rng.integers(1, 6)), 1 if rng.random() < 0.2 else 2
    sizes = rng.integers(4, 8, axes).tolist()
    maker = OnnxMaker((channels, *sizes), seed=seed, opset=int(rng.choice([10, 13])))
    shortcut = None
    for _ in range(int(rng.integers(2, 6))):
        low = int(rng.choice([0, 0, 0, -8, -2, -1]))
        high = {0: int(rng.choice([1, 3, 7, 15, 5])), -8: 7, -2: 1, -1: 1}[low]
        kind = rng.choice(["sum", "max", "average", "conv"], p=[0.2, 0.15, 0.15, 0.5])
        if kind == "sum" and shortcut is not None:
            a = maker.node("Mul", maker.last, maker.constant(float(rng.integers(1, 40))))
            b = maker.node("Mul", shortcut, maker.constant(float(rng.integers(-20, 40))))
            maker.node("Add", a, b)
            maker.node("Div", maker.last, maker.constant(32.0))
            maker.node("Floor")
            if rng.random() < 0.5:
                maker.clip(low, high)
        elif kind == "max":
            maker.node("MaxPool", kernel_shape=[2] * axes, pads=[1] * 2 * axes, strides=[1] * axes)
            shortcut = None
        elif kind == "average" and min(maker.shape()[2:]) > 1:
            maker.node("AveragePool", kernel_shape=[2] * axes, strides=[1] * axes)
            maker.node("Mul", maker.last, maker.constant(2.0**axes * int(rng.integers(1, 9))))
            maker.node("Div", maker.last, maker.constant(8.0))
            maker.node("Floor")
            maker.clip(low, high)
            shortcut = None
        else:
            group = channels if rng.random() < 0.3 else 1
            after = channels if group > 1 or rng.random() < 0.6 else int(rng.integers(1, 6))
            before = maker.last
            maker.conv(maker.weights(after, channels // group, *[3] * axes), pads=[1] * 2 * axes, group=group)
            style = str(rng.choice(STYLES)) if low == 0 else "floor"
            maker.requantize(after, style=style, axes=axes, low=low, high=high, shift=int(rng.integers(2, 7)))
            channels, shortcut = after, before if after == channels else None
    if rng.random() < 0.7:
        maker.node("Flatten")
        maker.node("MatMul", maker.last, maker.constant(maker.weights(maker.shape()[1], 3)))
    imported(maker, input_range=(0, 15) if rng.random() < 0.5 else (-4, 3))
