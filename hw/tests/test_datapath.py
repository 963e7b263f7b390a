# amaranth: UnusedElaboratable=no
"""Datapath against sums, multiplications and shifts of Python's integers: mixed tiles, stalls, order, cycles, reset."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re

import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.lib import data
from amaranth.sim import Simulator

from hw.config import PRESETS, AcceleratorConfig
from hw.datapath import Datapath, constants_layout, result_layout
from hw.tests.streams import Log, Streams, pack, run
from hw.verilog import generate

CONFIGS = {
    config.name: config
    for config in (
        PRESETS["tiny"],
        AcceleratorConfig(name="binary", rows=7, lanes=3, digit_bits=1, acc_bits=20, requant_lanes=3),
        AcceleratorConfig(name="at_once", rows=3, lanes=2, digit_bits=4, acc_bits=24, requant_lanes=3),
        AcceleratorConfig(name="piped", rows=4, lanes=2, digit_bits=8, acc_bits=36, requant_lanes=1),
        AcceleratorConfig(name="single", rows=1, lanes=1, digit_bits=2, acc_bits=12, max_output_bits=4),
        AcceleratorConfig(name="wide_digits", rows=3, lanes=2, digit_bits=16, acc_bits=40, requant_lanes=2),
    )
}


@dataclasses.dataclass
class Row:
    """What one row of a tile is given: weight codes n, and the constants of its output channel."""

    codes: list[int]
    multiplier: int
    skip_multiplier: int
    bias: int
    shift: int


@dataclasses.dataclass
class Tile:
    """Positions that share their weights: each has the activation codes of its window and a skip code per row."""

    weight_bits: int
    activation_bits: int
    odd: int
    output_bits: int
    use_skip: int
    rows: list[Row]
    windows: list[list[int]]
    skips: list[list[int]]


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (value >> bits - 1 << bits)


def result(tile: Tile, row: Row, window: list[int], skip: int, config: AcceleratorConfig) -> int:
    """One output, from the definition: weights are signed here, and nothing is cut into digits."""
    if tile.odd:
        weights = [2 * n - (1 << tile.weight_bits) + 1 for n in row.codes]
    else:
        weights = [n - (1 << tile.weight_bits - 1) for n in row.codes]
    acc = signed(sum(w * u for w, u in zip(weights, window, strict=True)), config.acc_bits)
    total = acc * row.multiplier + (skip * row.skip_multiplier if tile.use_skip else 0) + row.bias
    if tile.output_bits == 0:
        return total % (1 << config.acc_bits)
    return min(max(total >> row.shift, 0), (1 << tile.output_bits) - 1)


def results(tile: Tile, config: AcceleratorConfig) -> list[list[int]]:
    return [
        [result(tile, row, window, skip, config) for row, skip in zip(tile.rows, skips, strict=True)]
        for window, skips in zip(tile.windows, tile.skips, strict=True)
    ]


def beats(tile: Tile, config: AcceleratorConfig) -> list[int]:
    d, lanes = config.digit_bits, config.lanes
    weight_digits, activation_digits = -(-tile.weight_bits // d), -(-tile.activation_bits // d)
    starts = range(0, len(tile.windows[0]), lanes)

    def word(codes: list[int], start: int, digit: int) -> int:
        return pack([(code >> d * digit & (1 << d) - 1, d) for code in codes[start : start + lanes]])

    words = []
    for number, window in enumerate(tile.windows):
        position = [
            (total, i, total - i, start)
            for total in reversed(range(weight_digits + activation_digits - 1))
            for i in range(weight_digits)
            if 0 <= total - i < activation_digits
            for start in starts
        ]
        for index, (total, i, j, start) in enumerate(position):
            first, last = index == 0, index == len(position) - 1
            shift = not first and position[index - 1][0] > total
            words.append(
                pack(
                    [
                        (word(window, start, j), lanes * d),
                        *((word(row.codes, start, i), lanes * d) for row in tile.rows),
                        (first, 1),
                        (shift, 1),
                        (last, 1),
                        (i == 0, 1),
                        (number == len(tile.windows) - 1, 1),
                    ]
                )
            )
    return words


def records(tile: Tile, config: AcceleratorConfig) -> list[int]:
    return [
        pack(
            [
                (row.multiplier, config.multiplier_bits),
                (row.skip_multiplier, config.skip_multiplier_bits),
                (row.bias, config.bias_bits),
                (row.shift, config.max_shift.bit_length()),
                (tile.output_bits, config.max_output_bits.bit_length()),
                (tile.weight_bits, 5),
                (tile.odd, 1),
                (tile.use_skip, 1),
            ]
        )
        for row in tile.rows
    ]


def skip_words(tile: Tile, config: AcceleratorConfig) -> list[int]:
    starts = range(0, config.rows, config.requant_lanes)
    return [
        pack([(skip, config.max_output_bits) for skip in skips[start : start + config.requant_lanes]])
        for skips in tile.skips
        for start in starts
        if tile.use_skip
    ]


def streams(tiles: list[Tile], config: AcceleratorConfig) -> dict[str, list[int]]:
    return {
        "i_beat": [word for tile in tiles for word in beats(tile, config)],
        "i_constants": [word for tile in tiles for word in records(tile, config)],
        "i_skip": [word for tile in tiles for word in skip_words(tile, config)],
    }


def decode(words: list[int], config: AcceleratorConfig) -> list[list[int]]:
    """Positions from result words; their `last` flags are checked, their spare lanes left out."""
    groups = -(-config.rows // config.requant_lanes)
    mask = (1 << config.acc_bits) - 1
    assert [word >> config.acc_bits * config.requant_lanes for word in words] == [
        index % groups == groups - 1 for index in range(len(words))
    ]
    values = [[word >> config.acc_bits * lane & mask for lane in range(config.requant_lanes)] for word in words]
    starts = range(0, len(words), groups)
    return [[*itertools.chain(*values[start : start + groups])][: config.rows] for start in starts]


def random_tile(rng: random.Random, config: AcceleratorConfig, **fixed: int) -> Tile:
    """A tile whose results spread over the codes; ``fixed`` overrides what is drawn."""
    options = {
        "weight_bits": rng.choice([1, 2, 3, 4, 8, 16] if config.digit_bits > 2 else [1, 2, 3, 5]),
        "activation_bits": rng.choice([1, 2, 4, 8, 16] if config.digit_bits > 2 else [1, 2, 4]),
        "odd": rng.getrandbits(1),
        "output_bits": rng.choice([0, rng.randint(1, config.max_output_bits), config.max_output_bits]),
        "use_skip": rng.getrandbits(1),
        "length": rng.randint(1, 3 * config.lanes),
        "positions": rng.randint(1, 5),
    } | fixed
    length, positions = options.pop("length"), options.pop("positions")
    tile = Tile(**options, rows=[], windows=[], skips=[])
    tile.windows = [[rng.getrandbits(tile.activation_bits) for _ in range(length)] for _ in range(positions)]
    tile.skips = [[rng.getrandbits(config.max_output_bits) for _ in range(config.rows)] for _ in range(positions)]
    for _ in range(config.rows):
        row = Row([rng.getrandbits(tile.weight_bits) for _ in range(length)], 1, 0, 0, 0)
        if rng.random() < 0.8 or tile.output_bits:
            # Accumulators of about 2**(weight_bits + activation_bits) times M, down to about the output code.
            multiplier_bits = rng.randint(2, config.multiplier_bits)
            row.multiplier = rng.getrandbits(multiplier_bits) - (1 << multiplier_bits - 1)
            excess = tile.weight_bits + tile.activation_bits + multiplier_bits - 2 - tile.output_bits
            row.shift = min(max(excess, 0), config.max_shift)
            row.bias = rng.getrandbits(min(tile.output_bits + row.shift, config.bias_bits - 1))
            # Without use_skip it must not matter.
            reach = 1 << min(row.shift, config.skip_multiplier_bits - 1)
            row.skip_multiplier = rng.randrange(-reach, reach) >> config.max_output_bits - tile.output_bits
        tile.rows.append(row)
    return tile


def mixed_tiles(config: AcceleratorConfig, seed: int) -> list[Tile]:
    """Random tiles, and in their middle those of a single beat and a single position, all back to back."""
    rng = random.Random(seed)
    single = {"weight_bits": 1, "activation_bits": 1, "length": 1}
    return [
        *(random_tile(rng, config) for _ in range(3)),
        random_tile(rng, config, **single, positions=5, use_skip=0, output_bits=config.max_output_bits),
        random_tile(rng, config, **single, positions=1, use_skip=1, output_bits=0),
        random_tile(rng, config, **single, positions=1, use_skip=0, output_bits=1),
        random_tile(rng, config, **single, positions=4, use_skip=1, odd=1, output_bits=2),
        random_tile(rng, config, positions=3, use_skip=0, odd=0, output_bits=0),
        random_tile(rng, config, weight_bits=16, activation_bits=3, length=config.lanes, odd=1, output_bits=3),
        *(random_tile(rng, config) for _ in range(3)),
    ]


def check(tiles: list[Tile], config: AcceleratorConfig, **kwargs) -> dict[str, Log]:
    dut = Datapath(config)
    expected = [position for tile in tiles for position in results(tile, config)]
    logs = run(dut, streams(tiles, config), len(expected) * dut.groups, **kwargs)
    assert decode(logs["o_result"].payloads, config) == expected
    return logs


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name", CONFIGS)
def test_mixed_tiles(name, stall):
    """Precisions, grids, raw accumulators, residual operands and lengths change from tile to tile without a pause."""
    tiles = mixed_tiles(CONFIGS[name], seed=len(name))
    codes = {value for tile in tiles if tile.output_bits > 1 for row in results(tile, CONFIGS[name]) for value in row}
    assert len(codes) > 4, "the codes must be more than clipped ones"
    check(tiles, CONFIGS[name], stall=stall, seed=1)


@pytest.mark.parametrize("slow", ["i_beat", "i_constants", "i_skip", "o_result"])
@pytest.mark.parametrize("name", ["tiny", "piped"])
def test_one_slow_stream(name, slow):
    """Each stream in turn is the one that all others wait for."""
    check(mixed_tiles(CONFIGS[name], seed=7), CONFIGS[name], stall={slow: 0.85}, seed=2)


@pytest.mark.parametrize("late", ["i_constants", "i_skip", "o_result"])
@pytest.mark.parametrize("name", CONFIGS)
def test_late_stream(name, late):
    """The others run ahead as far as stated, and no more; then the missing stream comes, and nothing is lost."""
    config, rng, start = CONFIGS[name], random.Random(3), 90
    tiles = [random_tile(rng, config, length=2, positions=3, use_skip=1) for _ in range(3)]
    logs = check(tiles, config, stall={"i_beat": 0.2}, seed=4, after={late: start})

    def early(name: str) -> int:
        return sum(cycle < start for cycle in logs[name].cycles)

    # Result words that wait beyond the drain; four stages, in which gaps between words stay.
    held = early("i_skip")
    assert 1 <= held <= 4 if late == "o_result" else held == 0 or late == "i_constants"
    drained = held // -(-config.rows // config.requant_lanes)
    lengths = [len(beats(tile, config)) // 3 for tile in tiles for _ in range(3)]
    assert early("i_beat") == sum(lengths[: drained + 2])
    if late != "i_constants":
        assert early("i_constants") == (2 + drained // 3) * config.rows
    assert (logs["o_result"].offered[0] < start) == (late == "o_result")


def test_a_word_leaves_the_drain_while_results_wait():
    """The stage before the PACT units takes a word if it is free, even though they hold."""
    config, rng = CONFIGS["single"], random.Random(10)
    # The second position ends long after the first one's result has begun to wait.
    tiles = [random_tile(rng, config, length=n, positions=1, use_skip=1, weight_bits=2) for n in (1, 30)]
    logs = check(tiles, config, after={"o_result": 150})
    assert logs["i_beat"].cycles[-1] < 150
    assert [cycle < 150 for cycle in logs["i_skip"].cycles] == [True, True]
    assert logs["o_result"].cycles[0] == 150


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize(
    ("rows", "requant_lanes", "digit_bits"),
    [(4, 2, 2), (1, 1, 2), (4, 1, 2), (5, 2, 2), (1, 1, 8), (4, 2, 8), (4, 1, 8), (3, 3, 8)],
)
def test_cycles(rows, requant_lanes, digit_bits, n):
    """Positions of n beats at the stated rate, and the first result after the stated latency, to the cycle."""
    config = AcceleratorConfig(
        name="rate", rows=rows, lanes=1, digit_bits=digit_bits, acc_bits=16, requant_lanes=requant_lanes
    )
    tile = random_tile(
        random.Random(5), config, weight_bits=1, activation_bits=1, length=n, positions=12, use_skip=1, output_bits=4
    )
    logs = check([tile], config, after={"i_beat": rows + 2})
    groups, array_latency, latency = -(-rows // requant_lanes), 3 if digit_bits == 8 else 2, 8 if digit_bits == 8 else 7
    ends = logs["i_beat"].cycles[n - 1 :: n]
    starts = logs["o_result"].cycles[::groups]
    assert starts[0] - ends[0] == latency
    assert ends[0] - logs["i_beat"].cycles[0] == n - 1
    # The first two positions find the drain empty; from then on two positions at a time repeat.
    pairs = [after - before for before, after in zip(ends[2:], ends[4:], strict=False)]
    assert set(pairs) == {max(2 * n, 2 * groups, n + groups + array_latency - 1)}
    if n >= groups + array_latency - 1:
        assert logs["i_beat"].cycles == list(range(rows + 2, rows + 2 + 12 * n))
        assert starts == [end + latency for end in ends]
    # The words of a position come without gaps.
    assert logs["o_result"].cycles == [start + group for start in starts for group in range(groups)]


@pytest.mark.parametrize("name", CONFIGS)
def test_tiles_follow_each_other_without_a_gap(name):
    """Another tile costs no cycle where its constants were there in time."""
    config, rng = CONFIGS[name], random.Random(6)
    length = (config.rows + 4) * config.lanes
    tiles = [random_tile(rng, config, length=length, positions=1) for _ in range(6)]
    cycles = check(tiles, config, after={"i_beat": 2 * config.rows})["i_beat"].cycles
    assert cycles == list(range(cycles[0], cycles[0] + len(cycles)))


def simulate(dut, bench, reset: Signal | None = None) -> None:
    simulator = Simulator(dut if reset is None else ResetInserter(reset)(dut))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("name", ["tiny", "piped"])
def test_reset_in_mid_run(name):
    """Whatever a reset cuts off, the next run starts clean: no beat, record, skip code or result is left over."""
    config = CONFIGS[name]
    dut, reset, rng = Datapath(config), Signal(), random.Random(8)

    async def bench(ctx):
        streams_ = Streams(dut, stall=0.3, seed=9)
        for cycles in (3, 5, 6, 8, 9, 10, 11, 12, 14, 17, 20, 26, 33, 50):
            cut = [random_tile(rng, config, length=1, activation_bits=1) for _ in range(4)]
            await streams_.run(ctx, streams(cut, config), 1000, cycles=cycles)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            assert not ctx.get(dut.o_result.valid)
            tiles = [random_tile(rng, config, length=1) for _ in range(2)]
            expected = [position for tile in tiles for position in results(tile, config)]
            log = await streams_.run(ctx, streams(tiles, config), len(expected) * dut.groups)
            assert decode(log["o_result"].payloads, config) == expected

    simulate(dut, bench, reset)


def test_results_by_hand():
    """Two rows, one position, everything written out: the beats, the constants and the results."""
    config = AcceleratorConfig(name="hand", rows=2, lanes=2, digit_bits=2, acc_bits=12, requant_lanes=1)
    dut = Datapath(config)
    # 4-bit weight codes on the two's complement grid, 2-bit activations u = (3, 1), so one beat per weight digit:
    # row 0: n = (9, 8) is W = (1, 0), acc = 3;  row 1: n = (0, 15) is W = (-8, 7), acc = -17.
    high, low = [(2, 2), (0, 3)], [(1, 0), (0, 3)]
    position = [
        {"activations": [3, 1], "weights": high, "first": 1, "shift": 0, "last": 0, "ones": 0, "tile_last": 1},
        {"activations": [3, 1], "weights": low, "first": 0, "shift": 1, "last": 1, "ones": 1, "tile_last": 1},
    ]
    tile = {"output_bits": 8, "weight_bits": 4, "odd": 0, "use_skip": 1}
    constants = [
        {"multiplier": 10, "skip_multiplier": 2, "bias": 1, "shift": 1} | tile,  # (30 + 2*50 + 1) >> 1 = 65
        {"multiplier": -1, "skip_multiplier": -1, "bias": 0, "shift": 0} | tile,  # 17 - 5 = 12
    ]

    def word(layout, value):
        return layout.const(value).as_value().value

    logs = run(
        dut,
        {
            "i_beat": [word(dut.i_beat.payload.shape(), beat) for beat in position],
            "i_constants": [word(constants_layout(config), record) for record in constants],
            "i_skip": [50, 5],
        },
        2,
    )
    assert logs["o_result"].payloads == [65, 12 | 1 << 12]


@pytest.mark.parametrize("change", [{}, {"max_shift": 0}])
@pytest.mark.parametrize("name", ["single", "at_once"])
def test_verilog_has_no_vectors_without_bits(name, change):
    """A single row, lane or group is counted by nothing; Amaranth would write ``[-1:0]``, which is two bits."""
    text = generate(Datapath(dataclasses.replace(CONFIGS[name], **change)))
    assert "module datapath(" in text
    assert "[-1:0]" not in text


def test_layouts():
    config = CONFIGS["binary"]
    fields = {name: (field.offset, field.shape) for name, field in constants_layout(config)}
    widths = (config.multiplier_bits, config.skip_multiplier_bits, config.bias_bits, config.max_shift.bit_length())
    offsets = [0, *itertools.accumulate(widths), sum(widths) + 4, sum(widths) + 9, sum(widths) + 10]
    assert [offset for offset, _ in fields.values()] == offsets
    assert list(fields) == [
        "multiplier", "skip_multiplier", "bias", "shift", "output_bits", "weight_bits", "odd", "use_skip",
    ]  # fmt: skip
    assert [name for name, (_, shape) in fields.items() if getattr(shape, "signed", False)] == [
        "multiplier", "skip_multiplier", "bias",
    ]  # fmt: skip
    assert result_layout(config) == data.StructLayout({"values": data.ArrayLayout(20, 3), "last": 1})


def test_init():
    dut = Datapath(CONFIGS["binary"])
    simulate(dut, _nothing)
    assert (dut.config, dut.groups, dut.array_latency, dut.latency) == (CONFIGS["binary"], 3, 2, 7)
    dut = Datapath(CONFIGS["wide_digits"])
    simulate(dut, _nothing)
    assert (dut.groups, dut.array_latency, dut.latency) == (2, 3, 8)


async def _nothing(ctx):
    """A bench for components that are only elaborated."""


def test_init_wrong_type():
    with pytest.raises(TypeError, match=f"^{re.escape('Configuration must be an AcceleratorConfig, not 16')}$"):
        Datapath(16)  # type: ignore[arg-type]
