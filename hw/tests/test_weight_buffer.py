"""The weight buffer: halves in turn, rows apart, full and free, read while the other half is written."""

import random

import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.tests.clocked import simulate
from hw.weight_buffer import WeightBuffer

CONFIGS = [
    PRESETS["tiny"],
    AcceleratorConfig(name="odd_depth", rows=3, lanes=2, digit_bits=4, weight_depth=11),
    AcceleratorConfig(name="one_word", rows=1, lanes=1, digit_bits=1, weight_depth=1),
]


def give(ctx, dut, *, row, address, word, last):
    for name, value in (("row", row), ("address", address), ("word", word), ("last", last)):
        ctx.set(getattr(dut.i.payload, name), value)
    ctx.set(dut.i.valid, 1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("hurry", [0.25, 1.0])
def test_tiles_in_turn(config, hurry):
    """Tiles are written and read at random paces; what is read is the tile's, at once after `last` too."""
    dut = WeightBuffer(config)
    rng = random.Random(3)
    bits = config.lanes * config.digit_bits
    tiles = []
    for number in range(24):
        words = config.weight_depth if number % 3 == 0 and config.weight_depth < 20 else rng.randint(1, 8)
        words = min(words, config.weight_depth)
        tiles.append([[rng.getrandbits(bits) for _ in range(words)] for _ in range(config.rows)])
    pieces = [
        (number, row, address, word)
        for number, tile in enumerate(tiles)
        for row, words in enumerate(tile)
        for address, word in enumerate(words)
    ]

    async def bench(ctx):
        at = read_tile = full = overlap = 0
        expected = None
        pending: list[int] = []
        for _ in range(20_000):
            assert ctx.get(dut.i.ready) == (full < 2)
            offers = at < len(pieces) and rng.random() < hurry
            closes = False
            if offers:
                number, row, address, word = pieces[at]
                closes = at + 1 == len(pieces) or pieces[at + 1][0] != number
                give(ctx, dut, row=row, address=address, word=word, last=closes)
            else:
                give(ctx, dut, row=0, address=0, word=rng.getrandbits(bits), last=1)
                ctx.set(dut.i.valid, 0)
            reads = full > 0 and rng.random() < 0.7
            release = False
            if reads:
                tile = tiles[read_tile]
                pending = pending or rng.sample(range(len(tile[0])), len(tile[0]))
                address = pending.pop()
                release = not pending
                expected = sum(words[address] << row * bits for row, words in enumerate(tile))
                overlap += offers and full < 2
                ctx.set(dut.address, address)
            else:
                ctx.set(dut.address, rng.randrange(config.weight_depth))
            ctx.set(dut.enable, reads)
            ctx.set(dut.release, release)
            accepted = offers and full < 2
            await ctx.tick()
            if expected is not None:
                assert ctx.get(dut.words) == expected
            at += accepted
            full += accepted and closes
            if release:
                full -= 1
                read_tile += 1
            if read_tile == len(tiles):
                break
        assert read_tile == len(tiles)
        assert overlap

    simulate(dut, bench)
