"""The skip reader against the codes that lie in the buffer, and the cycle in which each comes."""

import random

import pytest

from hw.config import PRESETS
from hw.skip_reader import SkipReader
from hw.tests.clocked import Memory, simulate
from hw.tests.tiles import CONFIGS, groups_of, random_tile

TINY = PRESETS["tiny"]


def code_digits(config):
    return -(-config.max_output_bits // config.digit_bits)


def codes(config, words, tile):
    """The codes of each group, 0 where there is no channel."""
    d, lanes = config.digit_bits, config.requant_lanes
    mask = (1 << config.max_output_bits) - 1
    return [
        [
            sum(
                (words[address] >> (group.slot * lanes + lane) * d & (1 << d) - 1) << digit * d
                for digit, address in enumerate(group.words)
            )
            & mask
            for lane in range(lanes)
        ]
        for group in groups_of(config, tile)
    ]


class Run:
    """Read tiles; ``stall`` of who takes the codes, ``gap`` before tiles."""

    def __init__(self, config, tiles, *, stall=0.0, gap=0.0, halt=None, cycles=None, seed=0):
        rng = random.Random(seed)
        dut = SkipReader(config)
        bits = config.lanes * config.digit_bits
        memory = Memory(dut.read, {n: rng.getrandbits(bits) for n in range(config.activation_depth)})
        expected = [] if cycles else [code for tile in tiles for code in codes(config, memory.words, tile)]
        self.reads = memory.reads
        self.taken: list[int] = []
        self.valid: list[int] = []
        self.starts: list[int] = []
        self.errors: list[int] = []

        async def bench(ctx):
            offered = False
            held = None
            for cycle in range(cycles or 200 + 60 * len(expected)):
                if not offered and len(self.starts) < len(tiles):
                    offered = rng.random() >= gap
                    if offered:
                        ctx.set(dut.i_tile.payload, tiles[len(self.starts)])
                ctx.set(dut.i_tile.valid, offered)
                ready = rng.random() >= stall
                ctx.set(dut.o.ready, ready)
                ctx.set(dut.i_halt, halt is not None and cycle >= halt)
                now = None
                if ctx.get(dut.o.valid):
                    self.valid.append(cycle)
                    now = [ctx.get(dut.o.payload[lane]) for lane in range(config.requant_lanes)]
                    if ready:
                        assert cycles or now == expected[len(self.taken)], len(self.taken)
                        self.taken.append(cycle)
                assert held is None or now == held
                held = None if ready else now
                if ctx.get(dut.o_address_error):
                    self.errors.append(cycle)
                memory.before_edge(ctx, cycle)
                if offered and ctx.get(dut.i_tile.ready):
                    self.starts.append(cycle)
                    offered = False
                await ctx.tick()
                memory.after_edge(ctx)
                if not cycles and len(self.taken) == len(expected) and cycle > self.taken[-1] + 5:
                    break

        simulate(dut, bench)
        if not cycles:
            assert len(self.taken) == len(expected)
            assert not self.errors
            assert [address for _, address in self.reads] == [
                address for tile in tiles for group in groups_of(config, tile) for address in group.words[::2]
            ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize(("stall", "gap"), [(0.0, 0.0), (0.6, 0.0), (0.0, 0.9), (0.4, 0.4)])
def test_codes(config, stall, gap):
    rng = random.Random(9)
    tiles = [random_tile(config, rng, max_digits=code_digits(config)) for _ in range(14)]
    assert any(tile["channels"] < config.rows for tile in tiles) or config.rows == 1
    Run(config, tiles, stall=stall, gap=gap, seed=2)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_two_digits_are_one_cycle(config):
    """The first codes three cycles after the tile, then some every cycle, tiles included."""
    rng = random.Random(4)
    tiles = [random_tile(config, rng, max_digits=min(2, code_digits(config))) for _ in range(8)]
    run = Run(config, tiles)
    first = run.starts[0] + 3
    assert run.taken == list(range(first, first + len(run.taken)))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_cycles_of_each_group(config):
    """A cycle for two digits, one of a group without a channel."""
    rng = random.Random(5)
    tiles = [random_tile(config, rng, max_digits=code_digits(config)) for _ in range(8)]
    run = Run(config, tiles)
    cycle = run.starts[0] + 2
    expected = []
    for tile in tiles:
        for group in groups_of(config, tile):
            cycle += max(1, -(-len(group.words) // 2))
            expected.append(cycle)
    assert run.taken == expected


def test_it_reads_ahead():
    """With nobody who takes, one group waits on `o` and the next one is read; nothing moves then."""
    tile = {"address": 10, "step": 2, "digits_last": 0, "slot": 0, "channels": 4, "pixels_last": 9}
    run = Run(TINY, [tile], stall=1.0, cycles=30)
    assert run.valid == list(range(3, 30))
    assert [address for _, address in run.reads] == [10, 10]


def test_address_error():
    depth = TINY.activation_depth
    tile = {"address": depth - 3, "step": 1, "digits_last": 0, "slot": 0, "channels": 2, "pixels_last": 9}
    run = Run(TINY, [tile], cycles=30, halt=8)
    assert [address for _, address in run.reads] == [depth - 3, depth - 2, depth - 1]
    assert [cycle for cycle, _ in run.reads] == [1, 3, 5]
    assert run.errors == [7]


def test_halt():
    tile = {"address": 0, "step": 1, "digits_last": 0, "slot": 0, "channels": 4, "pixels_last": 9}
    run = Run(TINY, [tile], cycles=30, halt=5)
    assert [cycle for cycle, _ in run.reads] == [1, 2, 3, 4]
