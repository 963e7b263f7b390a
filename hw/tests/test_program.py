"""Programs, interpreted word by word, compute what golden computes; what the builder plans and refuses."""

import dataclasses
import functools
import re

import numpy as np
import pytest

from golden import vectors
from golden.execute import execute
from golden.generated import AddSpec, ConvSpec, NetworkSpec, PoolSpec, ResidualSpec, random_spec
from golden.network import Add, Conv2d, Grid, IntegerNetwork, Kind, MaxPool2d, NetworkError, Requantize, Tensor
from hw.command import command_fields
from hw.config import PRESETS, AcceleratorConfig, UnsupportedNetworkError
from hw.program import build
from hw.program.listing import listing
from hw.program_format import Opcode
from hw.registers import LAYERS
from hw.tests.program_interpreter import Interpreter

TINY = PRESETS["tiny"]
ROOMY = {"weight_depth": 8192, "activation_depth": 1 << 16, "max_output_bits": 16, "acc_bits": 48, "bias_bits": 62}
ODD_CONFIGS = {
    "rows_over_lanes": AcceleratorConfig(name="a", rows=12, lanes=4, digit_bits=4, requant_lanes=4, **ROOMY),
    "lanes_over_rows": AcceleratorConfig(name="b", rows=2, lanes=10, digit_bits=2, requant_lanes=2, **ROOMY),
    "one_of_each": AcceleratorConfig(name="c", rows=1, lanes=1, digit_bits=8, requant_lanes=1, **ROOMY),
    "bits": AcceleratorConfig(name="d", rows=6, lanes=9, digit_bits=1, requant_lanes=3, **ROOMY),
    "wide_digits": AcceleratorConfig(
        name="e", rows=3, lanes=6, digit_bits=16, requant_lanes=3, stream_bits=128, **ROOMY
    ),
}


def refuses(text, kind=UnsupportedNetworkError):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


def check(network, tensors, config, *, trace=True, frame=0, interpreter=None):
    """Build, interpret, and compare every tensor that is stored; the program and the interpreter."""
    program = build(network, config, trace=trace)
    interpreter = interpreter or Interpreter(config, seed=frame)
    packets = interpreter.run(program.words(), program.inputs(tensors[network.input.name][frame]))
    stored = program.decode(packets)
    assert list(stored) == [name for name, _ in program.outputs]
    for name, codes in stored.items():
        np.testing.assert_array_equal(codes, tensors[name][frame], err_msg=f"{network.name} {config.name} {name}")
    check_ranges(program)
    assert packets == program.encode({name: tensors[name][frame] for name in stored})
    return program, interpreter


def check_spec(spec, config=TINY, **options):
    network, x = spec.build()
    return check(network, execute(network, x), config, **options)[0]


@functools.cache
def committed(name):
    return vectors.read(vectors.find(name))


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
@pytest.mark.parametrize("name", vectors.committed())
def test_committed_networks(name, config):
    network, tensors = committed(name)
    program, interpreter = check(network, tensors, config)
    # Back to back, on the same accelerator: another frame, then only the output.
    check(network, tensors, config, frame=1, interpreter=interpreter)
    check(network, tensors, config, frame=1, trace=False, interpreter=interpreter)
    written = {layer.tensor for layer in program.layers}
    unfused = {op.output for op in network.operations} - {op.input for op in network.operations if op.name == "pool"}
    assert written == unfused


@pytest.mark.parametrize("seed", range(100))
def test_random_networks(seed):
    spec = random_spec(seed)
    network, x = spec.build()
    tensors = execute(network, x)
    for config in (TINY, list(ODD_CONFIGS.values())[seed % len(ODD_CONFIGS)]):
        check(network, tensors, config)


ODD = Grid.ODD
CASES = {
    "depthwise": (ConvSpec(9, (3, 3), groups=9, padding=(1, 1, 1, 1), weight_bits=3, bits=4),),
    "depthwise multiplied": (ConvSpec(18, (3, 2), groups=9, padding=(0, 1, 1, 0), weight_bits=3, grid=ODD),),
    "groups across words": (ConvSpec(6, (2, 2), groups=3, weight_bits=2, bits=5),),
    "odd groups across words": (ConvSpec(6, (1, 3), groups=3, weight_bits=2, grid=ODD),),
    "bipolar groups": (ConvSpec(3, (3, 3), groups=3, weight_bits=1, grid=ODD, zero_point=1),),
    "dilated": (ConvSpec(5, (3, 2), dilation=(2, 3), padding=(2, 0, 1, 3), weight_bits=4, bits=3),),
    "strided": (ConvSpec(5, (2, 3), stride=(3, 2), padding=(1, 2, 0, 1), weight_bits=4, bits=3),),
    "sixteen bits": (ConvSpec(3, (2, 2), weight_bits=16, bits=8), ConvSpec(2, (1, 1), weight_bits=8, bits=None)),
    "zero points": (
        ConvSpec(7, (3, 3), padding=(1, 1, 1, 1), bits=6, zero_point=37),
        ConvSpec(4, (3, 3), padding=(2, 2, 2, 2), bits=3, zero_point=2),
    ),
    "pool": (ConvSpec(5, (2, 2), bits=4), PoolSpec((2, 3), (2, 3))),
    "pool of windows apart": (ConvSpec(5, (2, 2), bits=4), PoolSpec((1, 2), (3, 3))),
    "pool that overlaps": (ConvSpec(5, (2, 2), bits=4), PoolSpec((3, 3), (2, 1))),
    "pool that is padded": (ConvSpec(5, (2, 2), bits=4, zero_point=9), PoolSpec((3, 2), (3, 2), (2, 1, 1, 0))),
    "pool first": (PoolSpec((2, 2), (1, 1), (1, 0, 0, 1)), ConvSpec(3, (2, 2))),
    "pool behind pool": (ConvSpec(3, (1, 1), bits=5), PoolSpec(), PoolSpec((2, 1), (1, 1))),
    "residual": (ResidualSpec((ConvSpec(4, (3, 3), padding=(1, 1, 1, 1)), ConvSpec(9, (1, 1), bits=7))),),
    "projection": (
        ResidualSpec((ConvSpec(6, (2, 2), stride=(2, 2)),), ConvSpec(6, (2, 2), stride=(2, 2), bits=8, zero_point=99)),
    ),
    "sum": (ResidualSpec((ConvSpec(9, (3, 3), padding=(1, 1, 1, 1)),), add=AddSpec(6, 11)), ConvSpec(2, (2, 2))),
    "pool behind residual": (ResidualSpec((ConvSpec(9, (1, 1), bits=4),)), PoolSpec()),
    "linear": (ConvSpec(6, (2, 2), bits=5), ConvSpec(11, None, weight_bits=6, bits=None)),
    "average and linear": (ConvSpec(6, (2, 2), bits=5), ConvSpec(9, broadcast=True, weight_bits=5, bits=None)),
    "accumulators of a map": (ConvSpec(7, (3, 3), weight_bits=4, bits=None),),
}


@pytest.mark.parametrize("config", [TINY, *ODD_CONFIGS.values()], ids=["tiny", *ODD_CONFIGS])
@pytest.mark.parametrize("case", CASES)
def test_cases(case, config):
    # Five channels before everything, since the first layer may be packed otherwise.
    first = ConvSpec(9, (1, 2), bits=5, zero_point=3, weight_bits=3)
    for blocks in (CASES[case], (first, *CASES[case])):
        check_spec(NetworkSpec(1, (9, 7, 8), blocks, bits=3, zero_point=5), config)


@pytest.mark.parametrize("blocks", [CASES["depthwise"], CASES["dilated"], CASES["residual"]])
def test_one_row_of_pixels(blocks):
    """One-dimensional signals have a height of 1."""
    blocks = tuple(
        dataclasses.replace(block, kernel=(1, 3), padding=(0, 2, 0, 1), dilation=(1, 2), stride=(1, 2))
        if isinstance(block, ConvSpec)
        else block
        for block in blocks
    )
    if any(isinstance(block, ResidualSpec) for block in blocks):
        blocks = (ResidualSpec((ConvSpec(9, (1, 3), padding=(0, 1, 0, 1)),)), PoolSpec((1, 3), (1, 2)))
    check_spec(NetworkSpec(2, (9, 1, 23), blocks, bits=4))


def planned(spec, config=TINY, **options):
    return {layer.name: layer for layer in check_spec(spec, config, **options).layers}


def test_what_a_pool_joins():
    conv = ConvSpec(4, (1, 1), bits=3)
    first = ConvSpec(4, (3, 3))
    assert planned(NetworkSpec(1, (4, 6, 6), (first, conv, PoolSpec())))["conv2"].operations == ("conv2", "pool3")
    for pool in (PoolSpec((3, 3), (2, 2)), PoolSpec((2, 2), (2, 2), (1, 0, 0, 0))):
        assert list(planned(NetworkSpec(1, (4, 6, 6), (first, conv, pool)))) == ["conv1", "conv2", "pool3"]
    # A residual operand comes in the order of the output, which a pooling window is not.
    assert list(planned(NetworkSpec(1, (4, 6, 6), (ResidualSpec((conv,)), PoolSpec())))) == ["conv1", "pool2"]
    # What something else reads must be written unpooled; both are computed, in any order.
    network = branches()
    x = np.arange(4 * 6 * 6).reshape(1, 4, 6, 6) % 7
    program, _ = check(network, execute(network, x), TINY)
    assert [layer.operations for layer in program.layers] == [("conv",), ("pool",), ("down",), ("sum",)]


def branches():
    """A convolution whose output a max pool and a strided convolution read; their sum."""
    requantize = Requantize(np.full(4, 3), np.arange(4) - 2, np.full(4, 4))
    codes = np.random.default_rng(0).integers(0, 8, (4, 4, 3, 3))
    shapes = {"x": (4, 6, 6), "a": (4, 4, 4), "b": (4, 2, 2), "c": (4, 2, 2), "y": (4, 2, 2)}
    return IntegerNetwork(
        "branches",
        tuple(Tensor(name, shape, bits=3) for name, shape in shapes.items()),
        (
            Conv2d("conv", "x", "a", codes, 3, Grid.TWOS_COMPLEMENT, requantize=requantize),
            MaxPool2d("pool", "a", "b"),
            Conv2d("down", "a", "c", codes, 3, Grid.ODD, stride=(2, 2), padding=(0, 0, 1, 1), requantize=requantize),
            Add("sum", "b", "c", "y", np.full(4, 5), np.full(4, -3), np.full(4, 9), np.full(4, 2)),
        ),
    )


def test_windows_along_the_channels():
    thin = NetworkSpec(1, (1, 6, 6), (ConvSpec(4, (3, 3), stride=(1, 2), padding=(1, 0, 1, 2)),), bits=4, zero_point=3)
    assert planned(thin)["conv1"].packed
    # As many beats either way, and a larger input.
    assert not planned(dataclasses.replace(thin, shape=(4, 6, 6)))["conv1"].packed
    # One tap, or another reader.
    assert not planned(dataclasses.replace(thin, blocks=(ConvSpec(4, (1, 1)),)))["conv1"].packed
    shared = ResidualSpec((ConvSpec(1, (3, 3), padding=(1, 1, 1, 1)),))
    assert not planned(dataclasses.replace(thin, blocks=(shared,)))["conv1"].packed
    # A packed input that does not fit is sent as it is.
    config = dataclasses.replace(TINY, activation_depth=120)
    assert not planned(thin, config)["conv1"].packed
    assert planned(thin)["conv1"].macs == planned(thin, config)["conv1"].macs == 4 * 9 * 6 * 3 * 2
    assert planned(thin)["conv1"].beats < planned(thin, config)["conv1"].beats


def test_what_is_planned():
    """Hand-counted: 3x3, 6 to 5 channels, 5-bit weights and 3-bit codes on 4 rows, 4 lanes and 2-bit digits."""
    spec = NetworkSpec(1, (6, 5, 4), (ConvSpec(6, (1, 1), bits=3), ConvSpec(5, (3, 3), weight_bits=5)))
    program = check_spec(spec, trace=False)
    layer = program.layers[1]
    assert (layer.name, layer.operations, layer.tensor, layer.tiles) == ("conv2", ("conv2",), "conv2_out", 2)
    assert layer.positions == 6
    assert layer.beats == 2 * 6 * (9 * 2) * (3 * 2)
    assert layer.macs == 5 * 6 * (9 * 6) * (3 * 2)
    assert layer.weight_words == 5 * (9 * 2) * 3
    assert [command.opcode.name for command in program.commands] == ["LOAD", *["COMPUTE"] * 4, "STORE", "END"]
    assert [command.fields.get("fence") for command in program.commands] == [1, 1, 0, 1, 0, 1, None]
    assert [command.fields.get("mark") for command in program.commands] == [1, 0, 1, 0, 1, 1, None]
    assert [layer.mark for layer in program.layers] == [1, 2]
    assert program.outputs == (("conv2_out", 12),)


def test_more_layers_than_marks():
    spec = NetworkSpec(1, (1, 1, 1), tuple(ConvSpec(1) for _ in range(LAYERS + 3)))
    program, interpreter = check(*network_and_tensors(spec), TINY, trace=False)
    assert interpreter.marks == LAYERS
    marks = [layer.mark for layer in program.layers]
    assert marks == [*range(1, LAYERS), None, None, None, None]


def network_and_tensors(spec):
    network, x = spec.build()
    return network, execute(network, x)


@pytest.mark.parametrize("name", ["digits-residual-w4a4", "digits-plain-w2a2"])
def test_no_layer_writes_what_it_or_a_later_one_reads(name):
    """From the interpreter's own record of addresses, whatever the plan says."""
    network, tensors = committed(name)
    program, interpreter = check(network, tensors, TINY, trace=False)
    layer_reads, layer_writes = set(), set()
    for command, (opcode, reads, writes) in zip(program.commands, interpreter.trace, strict=False):
        assert opcode == command.opcode
        if command.fields["fence"]:
            layer_reads, layer_writes = set(), set()
        layer_reads |= reads
        layer_writes |= writes
        assert not layer_reads & layer_writes
    words = {region.lifetime.tensor: region for region in program.regions}
    for a in program.regions:
        for b in program.regions:
            assert a is b or not a.lifetime.meets(b.lifetime) or a.end <= b.address or b.end <= a.address
    # The identity's operand lives on while the block computes; regions of the dead are used again.
    if "block1.conv2" in [layer.name for layer in program.layers]:
        assert words["act"].lifetime.last == 3
    assert max(region.end for region in program.regions) < sum(region.lifetime.words for region in program.regions)


def test_listing():
    network, _ = committed("digits-residual-w4a4")
    program = build(network, PRESETS["small"])
    lines = listing(program).splitlines()
    assert lines[0] == "Program of digits-residual-w4a4 for small: 16 rows, 16 lanes, 4-bit digits."
    assert lines[1] == f"{len(program.commands)} commands in {len(program.words())} words of 64 bits."
    commands = lines[-len(program.commands) :]
    assert [line.split()[1] for line in commands] == [command.opcode.name for command in program.commands]
    # Worked out by hand: 16x8x8 4-bit codes at 64 words each, a 3x3 kernel with padding 1 from pixel (-1, -1).
    (line,) = [line for line in commands if " block1.conv2 " in line]
    assert line.split("  ", 3)[-1].strip() == (
        "weights 4-bit odd, 1 digit of 9 words a row | reads 0x0037 (-1, -1) of 8×8, 1 digit, pad 0/16 | "
        "loops kernel_x·3(+1, +0, +1) kernel_y·3(-2, +1, +6) output_x·8(-1, -2, -17) output_y·8(-9, -1, -17) | "
        "writes 0x0000+1×64, slot 0, 1 digit of 4-bit codes | adds 0x0080+1, 1 digit | fence | mark"
    )
    assert any(line.startswith("0x0080-0x00bf     64  act ") for line in lines)


def linear(name="fc", *, channels=4, lanes=4, height=1, width=1, weight_bits=2, bits=2, grid=Grid.TWOS_COMPLEMENT):
    """One linear layer of two's complement weights 1 that gives accumulators."""
    codes = np.full((channels, lanes, height, width), (1 << (weight_bits - 1)) + 1)
    conv = Conv2d(name, "x", "y", codes, weight_bits, grid)
    source = Tensor("x", (lanes, height, width), bits=bits)
    low, high = conv.accumulator_bounds(source)
    need = max(int(-low.min()).bit_length(), int(high.max()).bit_length()) + 1
    out = Tensor("y", (channels, 1, 1), Kind.ACCUMULATOR, need, slope=np.ones(channels), offset=np.zeros(channels))
    return IntegerNetwork("one", (source, out), (conv,))


def test_refuses_what_the_weight_banks_do_not_hold():
    spec = NetworkSpec(1, (5, 9, 9), (ConvSpec(8, (2, 2)), ConvSpec(4, (5, 5), weight_bits=7)))
    config = dataclasses.replace(TINY, weight_depth=199)
    network, _ = spec.build()
    with refuses("Layer 'conv2' needs 200 weight words a row, but configuration 'tiny' has weight_depth 199"):
        build(network, config)
    check_spec(spec, dataclasses.replace(TINY, weight_depth=200))


def test_refuses_what_the_activation_buffer_does_not_hold():
    network, _ = committed("digits-residual-w4a4")
    needs = max(region.end for region in build(network, PRESETS["small"]).regions)
    assert needs == 192
    check(*committed("digits-residual-w4a4"), dataclasses.replace(PRESETS["small"], activation_depth=192))
    with refuses(
        "Layer 'stem' needs 192 words of the activation buffer, but configuration 'small' has activation_depth 191"
    ):
        build(network, dataclasses.replace(PRESETS["small"], activation_depth=191))


def test_refuses_widths_as_the_configuration_does():
    for changes, text in (
        ({"max_output_bits": 7}, "Layer 'sum' needs max_output_bits of at least 8, but configuration 'a' has 7"),
        ({"multiplier_bits": 4}, "Layer 'sum' needs multiplier_bits of at least 5, but configuration 'a' has 4"),
        (
            {"skip_multiplier_bits": 5},
            "Layer 'sum' needs skip_multiplier_bits of at least 6, but configuration 'a' has 5",
        ),
        ({"bias_bits": 6}, "Layer 'sum' needs bias_bits of at least 7, but configuration 'a' has 6"),
        ({"max_shift": 2}, "Layer 'sum' needs max_shift of at least 3, but configuration 'a' has 2"),
        ({"acc_bits": 4}, "Layer 'sum' needs acc_bits of at least 5, but configuration 'a' has 4"),
    ):
        config = AcceleratorConfig(
            **{"name": "a", "rows": 2, "lanes": 2, "digit_bits": 2, "max_output_bits": 4} | changes
        )
        bits = {"max_output_bits": 8}.get(next(iter(changes)), 4)
        values = (np.full(2, 9), np.full(2, -20), np.full(2, 33), np.full(2, 3))
        network = IntegerNetwork(
            "sums",
            (Tensor("x", (2, 3, 3), bits=4), Tensor("y", (2, 3, 3), bits=bits)),
            (Add("sum", "x", "x", "y", *values),),
        )
        with refuses(text):
            build(network, config)
    network = IntegerNetwork(
        "pools", (Tensor("x", (2, 4, 4), bits=9), Tensor("y", (2, 2, 2), bits=9)), (MaxPool2d("pool", "x", "y"),)
    )
    with refuses("Layer 'pool' needs max_output_bits of at least 9, but configuration 'tiny' has 8"):
        build(network, TINY)


def test_refuses_odd_weights_without_a_zero():
    spec = NetworkSpec(1, (6, 3, 3), (ConvSpec(6, (1, 1), groups=3, weight_bits=16, grid=ODD, bits=None),))
    config = ODD_CONFIGS["lanes_over_rows"]
    with refuses(
        "Layer 'conv1' needs weights of 17 bits, since its groups share words and the odd grid has no 0, "
        "but weights have at most 16 bits"
    ):
        build(spec.build()[0], config)
    check_spec(spec, dataclasses.replace(config, lanes=2))


def test_far_padding():
    """Steps over rows of padding that are farther apart than the buffer is deep: sums wrap, and come back."""
    conv = ConvSpec(3, (3, 1), dilation=(80, 1), padding=(90, 0, 80, 0), bits=3)
    config = dataclasses.replace(TINY, activation_depth=96)
    check_spec(NetworkSpec(3, (8, 2, 3), (ConvSpec(8, (1, 1)), conv)), config)


def check_ranges(program):
    """Every field is one that the hardware takes."""
    allowed = command_fields(program.config)
    for command in program.commands:
        for name, value in command.fields.items():
            _, low, high = allowed[name]
            assert low <= value <= high, (command.note, name, value)


def test_refuses_what_a_program_cannot_say():
    deep = dataclasses.replace(TINY, activation_depth=1 << 18, weight_depth=65535)
    config = dataclasses.replace(deep, lanes=2, requant_lanes=2)
    far = {"stride": (1, 20000), "padding": (0, 0, 0, 20000), "bits": None}
    spec = NetworkSpec(1, (1, 1, 20001), (ConvSpec(1, (1, 1)), ConvSpec(1, (1, 1), **far)))
    with refuses("Layer 'conv2' needs coordinate x 40000, but a program holds -32768 to 32767 there"):
        build(spec.build()[0], config)
    wide = NetworkSpec(1, (1, 1, 65536), (ConvSpec(1, (1, 1), stride=(1, 65536), bits=None),))
    with refuses("Layer 'conv1' needs width 65536, but a program holds 1 to 32767 there"):
        build(wide.build()[0], config)


def test_refuses_frames_and_packets():
    network, tensors = committed("digits-plain-w2a2")
    program = build(network, TINY)
    with refuses("Codes of tensor 'input' must have shape (N, 1, 8, 8), not (1, 8, 8)", NetworkError):
        program.inputs(tensors["input"][0, 0])
    with refuses("Outputs of network 'digits-plain-w2a2' must be 1 packets, not 2", ValueError):
        program.decode([[], []])
    with refuses("Packet of tensor 'linear' must have 33 words, not 32", ValueError):
        program.decode([[0] * 32])
    with refuses("Number of requantizer lanes of an accelerator must divide 6 rows and 4 lanes, not 3", ValueError):
        build(network, AcceleratorConfig(name="a", rows=6, lanes=4, digit_bits=2, requant_lanes=3))


def test_accumulators_keep_their_sign():
    """Of a tensor wider than the hardware's accumulators: what fits those is stored."""
    config = AcceleratorConfig(name="a", rows=4, lanes=4, digit_bits=4, acc_bits=10)
    network = linear(weight_bits=4, bits=4, lanes=2)
    wide = dataclasses.replace(network.output, bits=33)
    network = IntegerNetwork(network.name, (network.input, wide), network.operations)
    for codes in (0, 15):
        x = np.full((1, 2, 1, 1), codes)
        program, _ = check(network, execute(network, x), config)
        assert program.outputs == (("y", 3),)
    assert program.commands[-2].opcode is Opcode.STORE
