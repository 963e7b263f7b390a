"""The three ONNX forms: executed by ONNX Runtime and qonnx, against golden; and that a wrong model is found."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from golden import vectors
from golden.execute import execute
from golden.generated import random_spec
from golden.network import Add, Conv2d, Grid, IntegerNetwork, Kind, NetworkError, Requantize, Tensor, VectorScales
from golden.onnx_export import (
    agreement,
    compare,
    decode,
    encode,
    float32,
    integer,
    integer_model,
    metadata,
    qcdq,
    qcdq_model,
    qonnx,
    qonnx_model,
    run,
)
from golden.onnx_export.float32 import Quantizer, float_constants
from golden.onnx_export.graph import Graph
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


@pytest.mark.parametrize("name", ["digits-plain-w8a8", "digits-residual-w4a4"])
def test_the_operators_mean_what_onnx_says(name):
    """ONNX's own reference implementation gives the same codes: they are not a habit of ONNX Runtime."""
    network, expected = vectors.read(vectors.find(name))
    model = integer_model(network)
    names = [output.name for output in model.graph.output]
    values = dict(zip(names, ReferenceEvaluator(model).run(names, {"input": expected["input"][:1]}), strict=True))
    for operation in network.operations:
        np.testing.assert_array_equal(values[operation.output], expected[operation.output][:1])


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
    assert model.graph.input[0].doc_string == "8-bit codes 0..255; real value = 0.00392156862745098*code"
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


# The forms with floats

FORMS = {"qcdq": qcdq_model, "qonnx": qonnx_model}


@pytest.fixture(params=FORMS)
def form(request):
    """The function that makes a form."""
    return FORMS[request.param]


def different(network, model, x):
    return [each.different for each in compare(network, model, x)]


@pytest.mark.parametrize("name", [name for name in COMMITTED if "plain" in name or name.endswith("w2a2")])
def test_committed_networks_in_floats(name, form):
    network, expected = vectors.read(vectors.find(name))
    model = form(network)
    assert different(network, model, expected[network.input.name]) == [0] * len(network.operations)
    proved = {each.operation: each for each in agreement(model)}
    assert list(proved) == [o.name for o in network.operations if isinstance(o, Conv2d)]
    assert not any(each.reason for each in proved.values())
    # 8-bit outputs have thresholds closer to each other than float32 can always tell; what it misses is counted.
    assert sum(each.different for each in proved.values()) <= (20 if name.endswith("w8a8") else 0)
    assert min(each.reachable for each in proved.values()) > 1000


def test_what_the_float_forms_hold(form):
    network, expected = vectors.read(vectors.find("digits-residual-w2a2"))
    model = form(network)
    names = [output.name for output in model.graph.output]
    assert names[:2] == ["linear.real", "linear"] and set(names[1:]) == {o.output for o in network.operations}
    assert {o.type.tensor_type.elem_type for o in model.graph.output} == {onnx.TensorProto.FLOAT}
    values = run(model, encode(network, model, expected["input"]))
    for tensor in network.tensors[1:]:
        integers = expected[tensor.name].astype(np.int64) - tensor.zero_point
        np.testing.assert_array_equal(values[tensor.name], integers)
    acc = values["linear"] * network.output.slope.astype(np.float32)[:, None, None]
    real = acc + network.output.offset.astype(np.float32)[:, None, None]
    np.testing.assert_array_equal(values["linear.real"], real)
    said = metadata(model)
    assert said["tensors"] == metadata(integer_model(network))["tensors"]
    assert next(o.doc_string for o in model.graph.output if o.name == "block2.shortcut.2") == (
        "8-bit values -128..127; real value = 0.014949570490619329*value"
    )


def test_quantizers_say_their_bits():
    network, _ = vectors.read(vectors.find("digits-residual-w2a2"))
    model = qcdq_model(network)
    values = constants(model)
    clips = {n.name: [int(values[i]) for i in n.input[1:]] for n in model.graph.node if n.op_type == "Clip"}
    assert clips["act.clip"] == [0, 3] and clips["block1.conv1.weight.clip"] == [-3, 3]
    assert not any(name.startswith(("input", "stem", "block2.shortcut.2", "linear")) for name in clips)  # 8 bits
    zero = {n.name: int(values[n.input[2]]) for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert zero["block2.shortcut.2.quantize"] == 128 and zero["act.quantize"] == 0
    assert values["linear.weight.integers"].dtype == np.int8 and values["stem.weight.integers"].dtype == np.int32

    model = qonnx_model(network)
    values, found = constants(model), {}
    for node in (n for n in model.graph.node if n.op_type == "Quant"):
        flags = {a.name: a.i for a in node.attribute}
        found[node.name] = (*(float(values[i]) for i in node.input[1:]), flags["signed"], flags["narrow"])
    assert found["act.quant"] == (1, 0, 2, 0, 0)
    assert found["block2.shortcut.2.quant"] == (1, 0, 8, 1, 0)
    assert found["block1.conv1.weight"] == (1, 0, 3, 1, 1)  # -3, -1, 1, 3
    assert found["linear.weight"] == (1, 0, 8, 1, 0)


def constants_over(rng, channels, bits, reach, skip_levels=0):
    """Random constants whose thresholds lie anywhere among ``reach`` accumulators from 0 on."""
    shift = rng.integers(20, 30, channels)
    slope = rng.choice([-1, 1], channels) * 2.0**bits / (rng.uniform(0.1, 2, channels) * reach)
    multiplier = np.rint(slope * 2.0**shift).astype(np.int64)
    bias = -multiplier * rng.integers(0, reach, channels) + rng.integers(0, 1 << 20, channels)
    if not skip_levels:
        return Requantize(multiplier, bias, shift)
    skip_slope = rng.uniform(-1, 1, channels) * 2.0**bits / skip_levels
    return Requantize(multiplier, bias, shift, np.rint(skip_slope * 2.0**shift).astype(np.int64))


def codes_in_digits(bits, count):
    """Every combination of ``count`` codes, as frames (N, count, 1, 1)."""
    every = np.arange(1 << bits * count)
    digits = [every >> bits * i & (1 << bits) - 1 for i in range(count)]
    return np.stack(digits, 1).reshape(-1, count, 1, 1).astype(np.uint8)


@pytest.mark.parametrize(
    ("bits", "zero_point", "source_zero"),
    [(8, 0, 0), (8, 128, 7), (8, 77, 255), (3, 0, 0), (2, 3, 1), (1, 1, 0), (12, 0, 3), (14, 8192, 0), (14, 1000, 9)],
)
def test_the_count_is_what_happens(bits, zero_point, source_zero, form):
    """All 65536 accumulators through the executor: as many codes differ as were counted."""
    rng = np.random.default_rng(bits + zero_point)
    codes = np.repeat([[[[513]], [[768]]]], 8, 0)  # W = 1, 256: the accumulator is the input as a number
    operation = Conv2d("c", "x", "y", codes, 10, Grid.TWOS_COMPLEMENT, requantize=constants_over(rng, 8, bits, 65536))
    source = Tensor("x", (2, 1, 1), bits=8, zero_point=source_zero)
    network = IntegerNetwork("all", (source, Tensor("y", (8, 1, 1), bits=bits, zero_point=zero_point)), (operation,))
    if bits > 8 and form is qcdq_model:
        with pytest.raises(NetworkError, match=rf"^Tensor 'y' must have at most 8 bits in QCDQ, not {bits}$"):
            form(network)
        return
    x = codes_in_digits(8, 2)
    model = form(network) if form is qcdq_model else form(network, batch=len(x))
    (said,) = agreement(model)
    assert (said.operation, said.reachable) == ("c", 8 * 65536)
    assert different(network, model, x) == [said.different]
    assert said.different > 0 if bits > 12 else said.different == 0 or bits == 12
    if form is qcdq_model:  # what the runtime makes of the graph is of no consequence
        values = run(model, encode(network, model, x), optimize=False)["y"]
        np.testing.assert_array_equal(decode(network.tensor("y"), values), execute(network, x)["y"])


@pytest.mark.parametrize(("bits", "zero_point"), [(4, 0), (8, 128), (8, 3), (12, 0)])
@pytest.mark.parametrize("kind", ["skip", "add"])
def test_the_count_is_what_happens_with_a_residual_operand(bits, zero_point, kind):
    """Every pair of 4096 accumulators and 32 skip codes; a sum of tensors is the same with codes as accumulators."""
    rng = np.random.default_rng(bits + zero_point)
    x = codes_in_digits(6, 3)
    x = x[x[:, 2, 0, 0] < 32]
    tensors = [Tensor("x", (3, 1, 1), bits=6, zero_point=5)]
    one = np.zeros((4, 3, 1, 1), int) + 512
    one[:, 2] += 1
    same = Requantize(np.ones(4, int), np.zeros(4, int), np.zeros(4, int))
    operations = [Conv2d("s", "x", "skip", one, 10, Grid.TWOS_COMPLEMENT, requantize=same)]
    tensors.append(Tensor("skip", (4, 1, 1), bits=5, zero_point=9))
    weights = np.repeat([[[[513]], [[576]], [[512]]]], 4, 0)
    if kind == "skip":
        constants = constants_over(rng, 4, bits, 4096, 32)
        operations.append(
            Conv2d("c", "x", "y", weights, 10, Grid.TWOS_COMPLEMENT, requantize=constants, skip="skip")
        )
    else:
        wide = Requantize(np.ones(4, int), np.zeros(4, int), np.zeros(4, int))
        operations.append(Conv2d("w", "x", "wide", weights, 10, Grid.TWOS_COMPLEMENT, requantize=wide))
        tensors.append(Tensor("wide", (4, 1, 1), bits=12, zero_point=100))
        c = constants_over(rng, 4, bits, 4096, 32)
        operations.append(Add("c", "wide", "skip", "y", c.multiplier, c.skip_multiplier, c.bias, c.shift))
    tensors.append(Tensor("y", (4, 1, 1), bits=bits, zero_point=zero_point))
    network = IntegerNetwork("pairs", tuple(tensors), tuple(operations))
    model = qonnx_model(network, batch=len(x))
    said = agreement(model)[-1]
    assert said.reachable == 4 * 4096 * 32
    found = {each.tensor: each.different for each in compare(network, model, x)}
    assert found.pop("y") == said.different and not any(found.values())
    if bits < 12:
        assert said.different == 0


def test_counting_in_plain_numbers():
    """Constants of no use at all: the count is that of a loop over every accumulator."""
    rng = np.random.default_rng(5)
    constants = Requantize(np.array([3 << 40, -(5 << 38), 0]), np.array([7, 1 << 41, 3]), np.array([42, 43, 0]))
    quantizer = Quantizer(16, 77, 77)
    lo, hi, zero = np.array([-9, 0, -5]), np.array([3 << 16, 1 << 17, 5]), rng.integers(-100, 100, 3)
    found = float_constants(constants, quantizer, lo, hi, zero)
    for c in range(3):
        acc = np.arange(lo[c], hi[c] + 1)
        y = ((acc - zero[c]).astype(np.float32) + found.offset[c]) * found.multiplier[c] + found.bias[c]
        m, b, s = (int(each[c]) for each in (constants.multiplier, constants.bias, constants.shift))
        wrong = quantizer.codes(y) != np.clip([(a * m + b) >> s for a in acc.tolist()], 0, 65535)
        assert wrong.sum() == found.different[c]


@pytest.mark.parametrize("slope", [5, -3, 1])
def test_an_accumulator_is_counted_once(slope):
    """However many thresholds lie on its wrong side: numbers that are wrong by far, against a loop."""
    constants = Requantize(np.array([slope << 10]), np.array([9 << 10]), np.array([10]))
    quantizer = Quantizer(6, 0, 0)
    ends = np.array([-40]), np.array([50])
    channel = float32._Channel(constants, quantizer, 0, *ends, np.zeros(1, int), 0, 0)
    numbers = tuple(np.float32(x) for x in (abs(slope) * 1.5, 0, 0, 2.25))
    acc = np.arange(-50 if slope < 0 else -40, 41 if slope < 0 else 51)
    y = acc.astype(np.float32) * numbers[0] + numbers[3]
    wrong = quantizer.codes(y) != np.clip(acc * abs(slope) + 9, 0, 63)
    assert channel.count(channel.thresholds(), numbers) == wrong.sum() > 5


@pytest.mark.parametrize(("bits", "zero_point"), [(8, 77), (8, 128), (8, 0), (5, 3), (1, 1)])
def test_quantizers_round_as_the_proof_says(bits, zero_point, form):
    """Ties, and what becomes one when a zero point is added before rounding, in the executor's own quantizer."""
    x = np.concatenate([np.arange(-600, 600) / 2, [0.49999997, 2.4999998, -0.50000006, 1e9, -1e9, 2.0**-40]])
    x = np.concatenate([x, np.nextafter(x, np.inf, dtype=np.float32)]).astype(np.float32).reshape(-1, 1, 1, 1)
    source, tensor = Tensor("x", (1, 1, 1)), Tensor("y", (1, 1, 1), bits=bits, zero_point=zero_point)
    one = Requantize(np.ones(1, int), np.zeros(1, int), np.zeros(1, int))
    operation = Conv2d("c", "x", "y", np.array([[[[1]]]]), 2, Grid.TWOS_COMPLEMENT, requantize=one)
    network = IntegerNetwork("one", (source, tensor), (operation,))
    dialect = qcdq._Qcdq() if form is qcdq_model else qonnx._Qonnx(len(x))
    graph = Graph(network, dialect.form, batch=dialect.batch)
    dialect.quantize(graph, "x", tensor, "y")
    model = graph.model(1, [("y", 1, tensor, "")], about="a quantizer", opsets=dialect.opsets)
    expected = Quantizer(bits, zero_point, dialect.added(tensor)).codes(x)
    np.testing.assert_array_equal(decode(tensor, run(model, x)["y"]), expected)
    assert len(np.unique(expected)) == 1 << bits


def test_sums_beyond_float32_are_said(form):
    codes = np.full((1, 600, 1, 1), 255)
    network = one_convolution(codes, 8, Grid.ODD)
    (said,) = agreement(form(network))
    assert (said.operation, said.different) == ("c", None)
    assert said.reason == "Sums may reach 39015000, and float32 holds every integer up to 16777216 only"


def test_too_many_thresholds_are_said():
    requantize = Requantize(np.array([1 << 20]), np.array([0]), np.array([20]), np.array([1 << 19]))
    tensors = tuple(Tensor(name, (1, 1, 1), bits=bits) for name, bits in (("x", 8), ("a", 12), ("y", 12)))
    one = Requantize(np.array([16]), np.array([0]), np.array([0]))
    operations = (
        Conv2d("wide", "x", "a", np.array([[[[129]]]]), 8, Grid.TWOS_COMPLEMENT, requantize=one),
        Conv2d("c", "x", "y", np.array([[[[129]]]]), 8, Grid.TWOS_COMPLEMENT, requantize=requantize, skip="a"),
    )
    network = IntegerNetwork("wide", tensors, operations)
    model = qonnx_model(network)
    assert agreement(model)[1].different is None
    assert agreement(model)[1].reason == "There are too many thresholds and skip codes to look at all of them"
    assert different(network, model, np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)[::17]) == [0, 0]


@pytest.mark.parametrize("weight_bits", [1, 2, 7, 8, 12])
def test_weights_of_every_grid_in_floats(weight_bits, grid, form):
    codes = np.arange(min(1 << weight_bits, 256)).reshape(-1, 1, 1, 1) * (1 << max(weight_bits - 8, 0))
    network = one_convolution(codes, weight_bits, grid)
    assert different(network, form(network), np.array([0, 1, 77, 255], np.uint8).reshape(-1, 1, 1, 1)) == [0]


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(10, 200, 10))])
def test_generated_networks_in_floats(first, form):
    for seed in range(first, first + 10):
        network, x = random_spec(seed).build(frames=2)
        model = form(network)
        said = {network.operation(each.operation).output: each.different for each in agreement(model)}
        assert None not in said.values()
        if not any(said.values()):
            assert not any(different(network, model, x)), f"seed {seed}"


def test_vector_scales_in_floats(network_maker, form):
    """Fixed scales are in the weights; those that are found from the data are refused."""
    maker = network_maker(15, (4, 5, 5), 6, zero_point=5)
    maker.conv(4, bits=3, out_bits=4, out_scales=(3, 2), padding=(1, 0, 1, 1))
    maker.conv(5, (2, 2), bits=3, out_bits=7, scales=(3, 2), product_shift=2, groups=1)
    network, x = maker.network(), maker.input()
    model = form(network)
    assert [each.different for each in agreement(model)] == different(network, model, x) == [0, 0]
    maker.vector_quantize(4, 3, 3)
    sentence = (
        r"^Operation 'quantize2' must have fixed scales in (QCDQ|QONNX), not vector scales that are found from the "
        r"data: the integer form has them$"
    )
    with pytest.raises(NetworkError, match=sentence):
        form(maker.network())


def test_wide_weights_in_qonnx():
    codes = np.array([[[[65535]], [[0]]]])
    qonnx_model(one_convolution(codes, 16, Grid.ODD))
    network = one_convolution(codes, 16, Grid.ODD, vector_scales=VectorScales(np.full((1, 2, 1, 1), 255), 8, 1))
    sentence = r"^Weights of operation 'c' must have at most 24 bits in QONNX, not 25$"
    with pytest.raises(NetworkError, match=sentence):
        qonnx_model(network)


def test_batches_in_qonnx():
    network, expected = vectors.read(vectors.find("digits-plain-w2a2"))
    x = np.concatenate([expected["input"]] * 2)[:3]
    assert not any(different(network, qonnx_model(network, batch=1), x))
    assert not any(different(network, qonnx_model(network, batch=3), x))
    with pytest.raises(ValueError, match=r"^Batch must be at least 1, not 0$"):
        qonnx_model(network, batch=0)


FLOAT_FAULTS = {
    "another bias": lambda m: change_constant(m, "conv2.offset", lambda a: a + 3),
    "another multiplier": lambda m: change_constant(m, "conv1.multiplier", lambda a: np.roll(a, 1)),
    "a wrong weight": lambda m: change_constant(m, "conv2.weight.integers", lambda a: np.roll(a, 1, 0)),
    "a lost zero point": lambda m: change_constant(m, "linear.zero", lambda a: a + 1),
}


@pytest.mark.parametrize("fault", FLOAT_FAULTS)
def test_faults_in_floats_are_found(fault, form):
    network, expected = vectors.read(vectors.find("digits-plain-w4a4"))
    model = form(network)
    FLOAT_FAULTS[fault](model)
    assert sum(different(network, model, expected["input"])) > 0


def test_a_wrong_multiplier_would_be_counted(monkeypatch):
    """Offsets that are not in the middle of their interval put codes wrong, and the count sees it."""
    network, _ = vectors.read(vectors.find("digits-plain-w4a4"))
    right = float32._Lines.best_offset

    def wrong(self, m):
        ms, offset = right(self, m)
        return ms, offset + 0.01

    assert agreement(qcdq_model(network))[2].different == 0
    monkeypatch.setattr(float32._Lines, "best_offset", wrong)
    assert agreement(qcdq_model(network))[2].different > 0


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
    with pytest.raises(ValueError, match=r"^Tensor 'act1' must hold uint8 or integers in float32, not int64$"):
        compare(network, model, expected[network.input.name])


def test_a_model_of_somebody_else_has_no_metadata():
    with pytest.raises(ValueError, match=r"^Model must have the metadata entry 'pactolus', which says what its"):
        metadata(onnx.ModelProto())
