"""The three ONNX forms: executed by ONNX Runtime and qonnx, against golden; and that a wrong model is found."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from golden import vectors
from golden.execute import execute
from golden.generated import random_spec
from golden.network import Conv2d, Grid, IntegerNetwork, Kind, NetworkError, Requantize, Tensor
from golden.onnx_export import compare, integer, integer_model, metadata, run
from golden.tests import onnx_runtime

COMMITTED = vectors.committed()


@pytest.fixture(scope="module", params=COMMITTED)
def committed(request):
    """A committed network and its vectors."""
    return vectors.read(vectors.find(request.param))


def one_convolution(codes, bits, grid, *, source_bits=8, slope=None, offset=None, **options) -> IntegerNetwork:
    """A convolution over the whole map of its weights; its accumulators are the output."""
    channels = len(codes)
    output = Tensor(
        "y",
        (channels, 1, 1),
        Kind.ACCUMULATOR,
        63,
        slope=np.ones(channels) if slope is None else slope,
        offset=np.zeros(channels) if offset is None else offset,
    )
    operation = Conv2d("c", "x", "y", codes, bits, grid, **options)
    return IntegerNetwork("one", (Tensor("x", np.shape(codes)[1:], bits=source_bits), output), (operation,))


def operators(model):
    return [node.op_type for node in model.graph.node]


def constants(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


# The integer form


@pytest.mark.parametrize("optimize", [True, False])
def test_every_tensor_of_the_committed_networks(committed, optimize):
    network, expected = committed
    values = run(integer_model(network), expected[network.input.name], optimize=optimize)
    for operation in network.operations:
        name = operation.output
        assert values[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(values[name], expected[name], name)
    acc = expected[network.output.name].astype(np.float64)
    real = acc * network.output.slope[:, None, None] + network.output.offset[:, None, None]
    np.testing.assert_array_equal(values[f"{network.output.name}.real"], real)


def test_what_the_file_says(committed):
    network, _ = committed
    model = integer_model(network)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (9, [("", 18)])
    assert len(model.graph.node[0].domain) == 0 and {node.domain for node in model.graph.node} == {""}
    # What nobody reads comes first: run(None, ...)[0] of the usual runtimes is the answer.
    names = [output.name for output in model.graph.output]
    assert names[:2] == [f"{network.output.name}.real", network.output.name]
    assert sorted(names[1:]) == sorted(operation.output for operation in network.operations)
    said = metadata(model)
    assert said["form"] == "integer" and said["output"] == network.output.name
    assert set(said["tensors"]) == {tensor.name for tensor in network.tensors}
    for tensor in network.tensors:
        entry = said["tensors"][tensor.name]
        assert (entry["kind"], entry["bits"]) == (tensor.kind.value, tensor.bits)
        if tensor.kind is Kind.CODE:
            assert (entry["zero_point"], entry["scale"]) == (tensor.zero_point, tensor.scale)
        else:
            np.testing.assert_array_equal(entry["slope"], tensor.slope)
            np.testing.assert_array_equal(entry["offset"], tensor.offset)
    for operation in network.operations:
        if isinstance(operation, Conv2d):
            assert said["weights"][operation.name] == {"bits": operation.bits, "grid": operation.grid.value}
    assert model.graph.input[0].doc_string == "8-bit codes 0..255; value = 0.00392156862745098*code"
    assert integer_model(network).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("weight_bits", range(1, 17))
def test_weights_in_bytes(grid, weight_bits):
    """Every code of every width; the weights are read back from the file by the definition of the grid."""
    codes = np.arange(1 << weight_bits).reshape(-1, 1, 1, 1)
    model = integer_model(one_convolution(codes, weight_bits, grid))
    values, total = constants(model), 0
    for power, node in enumerate(node for node in model.graph.node if node.op_type == "ConvInteger"):
        assert values[node.input[1]].dtype == np.uint8
        zero = int(values[node.input[3]]) if len(node.input) == 4 else 0
        total = total + 256**power * (values[node.input[1]].astype(np.int64) - zero)
    expected = 2 * codes - (2**weight_bits - 1) if grid is Grid.ODD else codes - 2 ** (weight_bits - 1)
    np.testing.assert_array_equal(total, expected)
    top = int(np.abs(expected).max())
    assert power == (0 if top <= 128 else 1 if top <= 32768 else 2)


def test_weights_take_the_bytes_that_they_need():
    """8-bit weights of the odd grid that all fit int8 are one convolution, not two."""
    codes = np.array([64, 191]).reshape(2, 1, 1, 1)
    assert operators(integer_model(one_convolution(codes, 8, Grid.ODD))).count("ConvInteger") == 1
    codes = np.array([63, 191]).reshape(2, 1, 1, 1)
    assert operators(integer_model(one_convolution(codes, 8, Grid.ODD))).count("ConvInteger") == 2


@pytest.mark.parametrize("zero_point", [0, 1, 256, 0x1FF])
def test_padding_is_the_zero_point_of_every_byte(network_maker, zero_point):
    maker = network_maker(9, (3, 5, 4), 9, zero_point=zero_point)
    maker.conv(4, bits=4, out_bits=None, padding=(1, 2, 0, 1))
    network, x = maker.network(), maker.input()
    np.testing.assert_array_equal(onnx_runtime.executed(network, x)["conv0_out"], execute(network, x)["conv0_out"])
    pads = operators(integer_model(network)).count("Pad")
    assert pads == (zero_point & 255 > 0) + (zero_point > 255)


@pytest.mark.parametrize("bits", [8, 9, 16])
def test_max_pools_of_wide_codes(network_maker, bits):
    maker = network_maker(10, (3, 7, 8), bits, zero_point=3)
    maker.pool((3, 2), (2, 1), (1, 0, 2, 1))
    network, x = maker.network(), maker.input()
    x[0], x[1] = 0, (1 << bits) - 1
    assert [each.different for each in compare(network, integer_model(network), x)] == [0]


def test_sums_beyond_32_bits_are_taken_apart():
    """40960 products of 255 and 255 exceed the int32 of ConvInteger; the bytes' sums would wrap."""
    codes = np.full((2, 160, 16, 16), 255)
    codes[1] = 0
    network = one_convolution(codes, 8, Grid.ODD, slope=np.full(2, 0.5), offset=np.array([1.0, -3]))
    x = np.full((1, 160, 16, 16), 255, np.uint8)
    values = onnx_runtime.executed(network, x)
    assert values["y"].ravel().tolist() == [255 * 255 * 40960, -255 * 255 * 40960]
    assert operators(integer_model(network)).count("ConvInteger") == 4


@pytest.mark.parametrize("scaled", [False, True])
def test_parts_of_a_sum(network_maker, monkeypatch, scaled):
    """The same as before with parts of 7 products, so that they end within channels and rows."""
    maker = network_maker(11, (6, 6, 6), 9, zero_point=5)
    scales = {"scales": (4, 2)} if scaled else {}
    maker.conv(4, bits=8, out_bits=5, padding=(1, 0, 1, 1), groups=2, **scales)
    maker.conv(3, (1, 1), bits=8, out_bits=None, broadcast=True)
    network, x = maker.network(), maker.input()
    whole = operators(integer_model(network)).count("ConvInteger")
    monkeypatch.setattr(integer, "POSITIONS", 7)
    assert operators(integer_model(network)).count("ConvInteger") >= 4 * (whole - 2)
    assert sum(each.different for each in compare(network, integer_model(network), x)) == 0


def test_codes_as_the_output(network_maker):
    maker = network_maker(12, (2, 4, 4), 8)
    maker.conv(3, (2, 2), out_bits=3)
    network = maker.network()
    model = integer_model(network)
    assert [output.name for output in model.graph.output] == ["conv0_out"]
    assert compare(network, model, maker.input())[0].different == 0


def test_names_that_the_graph_would_like_for_itself(network_maker):
    maker = network_maker(13, (2, 4, 4), 8, zero_point=1)
    names = {"x": "int64 0", "conv0_out": "conv0.weight", "conv1_out": "conv0.M"}
    maker.conv(3, (2, 2), out_bits=3, padding=(1, 1, 1, 1))
    maker.conv(3, (1, 1), out_bits=None)
    for i, tensor in enumerate(maker.tensors):
        object.__setattr__(maker.tensors[i], "name", names[tensor.name])
    for operation in maker.operations:
        object.__setattr__(operation, "input", names[operation.input])
        object.__setattr__(operation, "output", names[operation.output])
    network, x = maker.network(), maker.input()
    assert [each.different for each in compare(network, integer_model(network), x)] == [0, 0]


def test_what_int64_does_not_hold_is_refused():
    codes, shift = np.array([[[[255]]]]), np.array([62])
    output = Tensor("y", (1, 1, 1), bits=8)

    def network(multiplier):
        requantize = Requantize(np.array([multiplier]), np.array([1 << 61]), shift)
        operation = Conv2d("c", "x", "y", codes, 8, Grid.ODD, requantize=requantize)
        return IntegerNetwork("wide", (Tensor("x", (1, 1, 1)), output), (operation,))

    most = ((1 << 63) - 1 - (1 << 61)) // (255 * 255)
    widest = network(most)
    x = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    assert len(np.unique(execute(widest, x)["y"])) == 2
    assert compare(widest, integer_model(widest), x)[0].different == 0
    sentence = r"^Requantization of operation 'c' must fit ONNX's 64-bit integers, but may take 65$"
    with pytest.raises(NetworkError, match=sentence):
        integer_model(network(most + 1))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 100))
def test_generated_networks(first):
    for seed in range(first, first + 100):
        network, x = random_spec(seed).build(frames=3)
        different = [each for each in compare(network, integer_model(network), x) if each.different]
        assert not different, f"seed {seed}: {different}"


# Faults that a comparison must find


def change_constant(model, name, change):
    (found,) = [each for each in model.graph.initializer if each.name == name]
    found.CopyFrom(numpy_helper.from_array(np.asarray(change(numpy_helper.to_array(found).copy())), name))


def one_more(array):
    array.flat[0] += 1
    return array


FAULTS = {
    "a wrong shift": lambda m: change_constant(m, "block1.conv1.two_to_S", lambda a: a * 2),
    "the multipliers of other channels": lambda m: change_constant(m, "stem.M", lambda a: np.roll(a, 1)),
    "a lost bias": lambda m: change_constant(m, "block1.conv2.B", lambda a: a * 0),
    "a lost zero point of the weights": lambda m: change_constant(m, "weight zero point", lambda a: np.uint8(127)),
    "a wrong weight": lambda m: change_constant(m, "linear.weight", one_more),
    "a wrong multiplier of the residual operand": lambda m: change_constant(m, "block2.conv2.M_skip", lambda a: -a),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(fault):
    network, expected = vectors.read(vectors.find("digits-residual-w4a4"))
    model = integer_model(network)
    x = expected[network.input.name]
    assert sum(each.different for each in compare(network, model, x)) == 0
    broken = copy.deepcopy(model)
    FAULTS[fault](broken)
    assert sum(each.different for each in compare(network, broken, x)) > 0


def test_a_lost_padding_is_found(network_maker):
    maker = network_maker(14, (2, 5, 5), 4, zero_point=3)
    maker.conv(3, out_bits=4, padding=(1, 1, 1, 1))
    network, x = maker.network(), maker.input()
    model = integer_model(network)
    (pad,) = [node for node in model.graph.node if node.op_type == "Pad"]
    assert compare(network, model, x)[0].different == 0
    change_constant(model, pad.input[2], lambda a: np.uint8(0))
    assert compare(network, model, x)[0].different > 0


def test_a_comparison_refuses_another_type():
    network, expected = vectors.read(vectors.find("digits-plain-w2a2"))
    model = integer_model(network)
    for output in model.graph.output:
        if output.name == "act1":
            output.type.tensor_type.elem_type = onnx.TensorProto.INT64
    next(node for node in model.graph.node if node.output[0] == "act1").attribute[0].i = onnx.TensorProto.INT64
    next(node for node in model.graph.node if "act1" in node.input).input[0] = "act1 as codes"
    model.graph.node.insert(
        [node.output[0] for node in model.graph.node].index("act1") + 1,
        onnx.helper.make_node("Cast", ["act1"], ["act1 as codes"], to=onnx.TensorProto.UINT8),
    )
    with pytest.raises(ValueError, match=r"^Tensor 'act1' must be of uint8, not int64$"):
        compare(network, model, expected[network.input.name])


def test_a_model_of_somebody_else_has_no_metadata():
    with pytest.raises(ValueError, match=r"^Model must have the metadata entry 'pactolus', which says what its"):
        metadata(onnx.ModelProto())
