"""The walk over the places of results against the same walk written out."""

import random

import pytest

from hw.result_walk import ResultWalk, walk_layout
from hw.tests.clocked import simulate
from hw.tests.tiles import CONFIGS, groups_of, random_tile


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize(("pace", "hurry"), [(1.0, 1.0), (0.5, 0.5), (0.8, 0.1)])
def test_places(config, pace, hurry):
    """Every place in turn, groups cut short and pixels repeated at random, tiles behind each other without a pause."""
    rng = random.Random(7)
    tiles = [random_tile(config, rng, max_digits=16 // config.digit_bits) for _ in range(14)]
    dut = ResultWalk(config, walk_layout(config, "output_digits_last"))
    count = config.rows // config.requant_lanes
    repeated = cut = 0

    async def bench(ctx):
        nonlocal repeated, cut
        given = done = place = digit = 0
        offering = False
        arrived: list[int] = []
        for cycle in range(20_000):
            if not offering and given < len(tiles):
                offering = rng.random() < hurry
                if offering:
                    ctx.set(dut.i.payload, tiles[given])
            ctx.set(dut.i.valid, offering)
            waiting = len(arrived) - done
            assert ctx.get(dut.i.ready) == (waiting < 2), cycle
            assert ctx.get(dut.valid) == (waiting > 0), cycle
            # The outputs do not depend on what is done with the place.
            advance = waiting > 0 and rng.random() < pace
            whole, again = rng.random() < 0.3, rng.random() < 0.3
            for name, value in (("advance", advance), ("whole", whole), ("again", again)):
                ctx.set(getattr(dut, name), value)
            finished = False
            if waiting:
                tile = tiles[done]
                group = groups_of(config, tile)[place]
                expected = {
                    # Groups without a channel have a place too, where nobody looks.
                    "address": group.words[digit] if group.words else ctx.get(dut.address),
                    "group": group.index,
                    "slot": group.slot,
                    "digit": digit,
                    "lanes": (1 << group.lanes) - 1,
                    "two": digit < tile["digits_last"],
                    "last_digit": digit + 1 >= tile["digits_last"],
                    "last_group": group.index == count - 1,
                    "last_pixel": group.pixel == tile["pixels_last"],
                }
                assert {name: ctx.get(getattr(dut, name)) for name in expected} == expected, (cycle, tile)
                assert all(ctx.get(getattr(dut.tile, name)) == value for name, value in tile.items())
                if advance:
                    cut += whole and not expected["last_digit"]
                    if not (whole or expected["last_digit"]):
                        digit += 2
                    else:
                        digit = 0
                        if expected["last_group"] and again:
                            place -= count - 1
                            repeated += 1
                        else:
                            finished = bool(expected["last_group"] and expected["last_pixel"])
                            place += 1
            taken = offering and waiting < 2
            await ctx.tick()
            if finished:
                place, done = 0, done + 1
            if taken:
                arrived.append(cycle)
                given += 1
                offering = False
            if done == len(tiles):
                break
        assert done == len(tiles)
        assert not ctx.get(dut.valid)

    simulate(dut, bench)
    assert repeated
    assert cut or all(tile["digits_last"] <= 1 for tile in tiles)


def test_walk_layout_takes_more():
    config = CONFIGS[0]
    layout = walk_layout(config, "skip_digits_last", mark=1)
    assert "mark" in dict(iter(layout))
