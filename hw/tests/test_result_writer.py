"""The result writer against the buffer that it must leave, and the cycle in which it takes each word."""

import random

import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.result_writer import ResultWriter
from hw.tests.clocked import simulate
from hw.tests.tiles import CONFIGS, groups_of, random_tile

TINY = PRESETS["tiny"]


def random_tiles(config, rng, number, *, pooled=True, digits=None):
    """Tiles of codes, pooled or not, and of accumulators."""
    code_digits = -(-config.max_output_bits // config.digit_bits)
    tiles = []
    for index in range(number):
        accumulators = index % 3 == 2 and digits is None
        most = -(-config.acc_bits // config.digit_bits) if accumulators else digits or code_digits
        tile = random_tile(config, rng, max_digits=most, pixels=4)
        window = 0 if accumulators or not pooled else rng.choice([0, 1, 3, 5])
        tiles.append(tile | {"window_last": window, "mark": rng.getrandbits(1), "accumulators": accumulators})
    return tiles


def random_results(config, rng, tile):
    """The result words of a tile: (values of the lanes, last), and per group of each pixel what is to be written."""
    bits = config.acc_bits if tile["accumulators"] else config.max_output_bits
    count, lanes = config.rows // config.requant_lanes, config.requant_lanes
    words, written = [], []
    for _ in range(tile["pixels_last"] + 1):
        window = [
            [
                rng.choice([0, (1 << bits) - 1, rng.getrandbits(bits), rng.getrandbits(bits)])
                for _ in range(count * lanes)
            ]
            for _ in range(tile["window_last"] + 1)
        ]
        words += [
            (values[group * lanes : (group + 1) * lanes], int(group == count - 1))
            for values in window
            for group in range(count)
        ]
        most = [max(values) if row < tile["channels"] else 0 for row, values in enumerate(zip(*window, strict=True))]
        written += [most[group * lanes : (group + 1) * lanes] for group in range(count)]
    return words, written


def write(config, memory, tile, written):
    """Do to a list of words what the writer must do."""
    d, lanes = config.digit_bits, config.requant_lanes
    for group, values in zip(groups_of(config, tile), written, strict=True):
        for digit, address in enumerate(group.words):
            cut = [value >> digit * d & (1 << d) - 1 for value in values]
            below = memory[address] & (1 << group.slot * lanes * d) - 1
            memory[address] = below | sum(value << (group.slot * lanes + lane) * d for lane, value in enumerate(cut))


class Run:
    """One run of tiles: results are offered with ``stall``, tiles late with ``gap``."""

    def __init__(self, config, tiles, *, stall=0.0, gap=0.0, halt=None, cycles=None, seed=0):
        rng = random.Random(seed)
        dut = ResultWriter(config)
        results = [random_results(config, rng, tile) for tile in tiles]
        words = [word for tile_words, _ in results for word in tile_words]
        word_bits = config.lanes * config.digit_bits
        self.memory = [rng.getrandbits(word_bits) for _ in range(config.activation_depth)]
        self.expected = list(self.memory)
        self.offered: list[int] = []
        self.taken: list[int] = []
        self.marks: list[int] = []
        self.errors: list[int] = []
        self.writes: list[tuple[int, int]] = []
        self.starts: list[int] = []
        self.busy: list[int] = []
        for tile, (_, written) in zip(tiles, results, strict=True):
            if cycles is None:
                write(config, self.expected, tile, written)

        async def bench(ctx):
            tile_offered = word_offered = False
            for cycle in range(cycles or 100 + 60 * len(words)):
                if not tile_offered and len(self.starts) < len(tiles):
                    tile_offered = rng.random() >= gap
                    if tile_offered:
                        tile = dict(tiles[len(self.starts)])
                        del tile["accumulators"]
                        tile["pooled"] = int(tile["window_last"] > 0)
                        ctx.set(dut.i_tile.payload, tile)
                ctx.set(dut.i_tile.valid, tile_offered)
                if not word_offered and len(self.taken) < len(words):
                    word_offered = rng.random() >= stall
                    if word_offered:
                        values, last = words[len(self.taken)]
                        ctx.set(dut.i_result.payload, {"values": values, "last": last})
                        self.offered.append(cycle)
                ctx.set(dut.i_result.valid, word_offered)
                ctx.set(dut.i_halt, halt is not None and cycle >= halt)
                ready = ctx.get(dut.i_result.ready)
                assert not (halt is not None and cycle >= halt and ready)
                if ctx.get(dut.o_mark):
                    self.marks.append(cycle)
                if ctx.get(dut.o_address_error):
                    self.errors.append(cycle)
                if ctx.get(dut.o_busy):
                    self.busy.append(cycle)
                enable, address = ctx.get(dut.write.en), ctx.get(dut.write.addr)
                if enable:
                    assert address < config.activation_depth
                    self.writes.append((cycle, address))
                    part = config.requant_lanes * config.digit_bits
                    slots = config.lanes // config.requant_lanes
                    mask = sum(((1 << part) - 1) << slot * part for slot in range(slots) if enable >> slot & 1)
                    for word in range(1 + ctx.get(dut.write.two)):
                        data = ctx.get(dut.write.data[word])
                        self.memory[address + word] = (self.memory[address + word] & ~mask) | (data & mask)
                if tile_offered and ctx.get(dut.i_tile.ready):
                    self.starts.append(cycle)
                    tile_offered = False
                if word_offered and ready:
                    self.taken.append(cycle)
                    word_offered = False
                await ctx.tick()
                if cycles is None and len(self.taken) == len(words) and cycle > self.taken[-1] + 3:
                    break

        simulate(dut, bench)
        if cycles is None:
            assert len(self.taken) == len(words)
            assert self.memory == self.expected
            assert not self.errors
            ends = [sum(len(tile_words) for tile_words, _ in results[: n + 1]) - 1 for n in range(len(tiles))]
            self.ends = [self.taken[end] for end in ends]
            assert self.marks == [end for end, tile in zip(self.ends, tiles, strict=True) if tile["mark"]]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize(("stall", "gap"), [(0.0, 0.0), (0.5, 0.3), (0.0, 0.9)])
def test_what_is_left_in_the_buffer(config, stall, gap):
    """Pooling, digits, masks, slots, zeros above, accumulators: the whole buffer, tile after tile."""
    rng = random.Random(3)
    tiles = random_tiles(config, rng, 15)
    assert any(tile["window_last"] for tile in tiles)
    assert any(tile["channels"] < config.rows for tile in tiles) or config.rows == 1
    Run(config, tiles, stall=stall, gap=gap, seed=1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_two_digits_are_one_cycle(config):
    """A word a cycle from the cycle after the first tile is taken, tiles included, and busy until the last one."""
    digits = min(2, -(-config.max_output_bits // config.digit_bits))
    tiles = random_tiles(config, random.Random(4), 8, digits=digits)
    run = Run(config, tiles)
    first = run.starts[0] + 1
    assert run.taken == list(range(first, first + len(run.taken)))
    assert run.busy == list(range(first, run.taken[-1] + 1))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_cycles_of_each_word(config):
    """A cycle for two digits, one where nothing is written."""
    tiles = random_tiles(config, random.Random(5), 8)
    run = Run(config, tiles)
    needs = []
    for tile in tiles:
        for group in groups_of(config, tile | {"pixels_last": 0}) * (tile["pixels_last"] + 1):
            needs.append(max(1, -(-len(group.words) // 2)))
    # Positions before the window's last write nothing.
    expected, at = [run.starts[0]], 0
    for tile in tiles:
        count = config.rows // config.requant_lanes
        for _ in range(tile["pixels_last"] + 1):
            pixel = needs[at : at + count]
            at += count
            for need in [1] * count * tile["window_last"] + pixel:
                expected.append(expected[-1] + need)
    assert run.taken == expected[1:]


def test_pooling_by_hand():
    """Two channels, windows of three, 4 bits in digits of 2: the maximum is unsigned and starts anew."""
    config = AcceleratorConfig(name="p", rows=2, lanes=2, digit_bits=2, requant_lanes=2, activation_depth=16)
    dut = ResultWriter(config)
    tile = {"address": 3, "step": 2, "digits_last": 1, "slot": 0, "channels": 2, "pixels_last": 1, "window_last": 2}
    tile["pooled"] = 1
    values = [(9, 1), (15, 2), (8, 0), (0, 3), (1, 0), (1, 7)]
    seen = []

    async def bench(ctx):
        ctx.set(dut.i_tile.payload, tile)
        ctx.set(dut.i_tile.valid, 1)
        await ctx.tick()
        ctx.set(dut.i_tile.valid, 0)
        ctx.set(dut.i_result.valid, 1)
        for pair in values:
            ctx.set(dut.i_result.payload, {"values": pair, "last": 1})
            for _ in range(2):
                if ctx.get(dut.write.en):
                    assert ctx.get(dut.write.two)
                    seen.append((ctx.get(dut.write.addr), ctx.get(dut.write.data[0]), ctx.get(dut.write.data[1])))
                if ctx.get(dut.i_result.ready):
                    break
                await ctx.tick()
            await ctx.tick()

    simulate(dut, bench)
    # (15, 2) = digits (3, 2) and (3, 0); (1, 7) = digits (1, 3) and (0, 1).
    assert seen == [(3, 3 | 2 << 2, 3), (5, 1 | 3 << 2, 1 << 2)]


def test_address_error():
    """Writes up to the edge are made; the one beyond it shows the error in its cycle, and a halt ends all."""
    tile = {"address": TINY.activation_depth - 5, "step": 2, "digits_last": 1, "slot": 0, "channels": 2}
    tile |= {"pixels_last": 9, "window_last": 0, "mark": 1, "accumulators": False}
    run = Run(TINY, [tile], cycles=30, halt=9)
    depth = TINY.activation_depth
    # Two digits in a cycle, then one cycle of the group without a channel. Of the last two only one would be inside.
    assert run.writes == [(1, depth - 5), (3, depth - 3)]
    assert run.errors[0] == 5
    assert not run.marks
    assert max(run.taken) <= 8
    run = Run(TINY, [tile | {"address": 0}], cycles=30, halt=4)
    assert [cycle for cycle, _ in run.writes] == [1, 3]
