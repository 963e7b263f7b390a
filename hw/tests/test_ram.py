# amaranth: UnusedElaboratable=no
"""The memory against a list of words: lanes, ports, old words, held words."""

import random
import re

import pytest

from hw.ram import Ram
from hw.tests.clocked import simulate
from hw.verilog import generate


@pytest.mark.parametrize(
    "parameters",
    [
        {"lane_bits": 3, "lanes": 4, "depth": 5, "reads": 2},
        {"lane_bits": 1, "lanes": 1, "depth": 2, "reads": 1},
        {"lane_bits": 8, "lanes": 2, "depth": 16, "reads": 3},
    ],
    ids=str,
)
def test_random_accesses(parameters):
    dut = Ram(**parameters)
    rng = random.Random(1)
    lane_bits, lanes, depth = dut.lane_bits, dut.lanes, dut.depth
    held: list[int | None] = [None] * dut.reads
    seen_old = 0

    async def bench(ctx):
        nonlocal held, seen_old
        words = []
        for address in range(depth):
            words.append(rng.getrandbits(lane_bits * lanes))
            ctx.set(dut.write.addr, address)
            ctx.set(dut.write.data, words[-1])
            ctx.set(dut.write.en, (1 << lanes) - 1)
            await ctx.tick()
        for _ in range(1500):
            address, data = rng.randrange(depth), rng.getrandbits(lane_bits * lanes)
            enable = rng.choice([0, rng.getrandbits(lanes), (1 << lanes) - 1])
            ctx.set(dut.write.addr, address)
            ctx.set(dut.write.data, data)
            ctx.set(dut.write.en, enable)
            for index, port in enumerate(dut.read):
                read, enabled = rng.randrange(depth), rng.random() < 0.6
                ctx.set(port.addr, read)
                ctx.set(port.en, enabled)
                if enabled:
                    held[index] = words[read]
                    seen_old += read == address and bool(enable)
            mask = sum(((1 << lane_bits) - 1) << lane * lane_bits for lane in range(lanes) if enable >> lane & 1)
            words[address] = (words[address] & ~mask) | (data & mask)
            await ctx.tick()
            for port, word in zip(dut.read, held, strict=True):
                assert word is None or ctx.get(port.data) == word

    simulate(dut, bench)
    assert seen_old > 20


def test_verilog_is_one_memory():
    """A memory of the width and depth in a module of its own: what synthesis infers, or a macro replaces."""
    text = generate(Ram(lane_bits=2, lanes=3, depth=5, reads=2))
    assert re.findall(r"(?m)^module (\w+)\(", text) == ["ram"]
    assert re.findall(r"(?m)^  reg \[5:0\] \w+ \[4:0\];$", text)
    assert "rst" not in text


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lane_bits": 0}, ValueError, "Lane width must be at least 1, not 0"),
        ({"lanes": 0}, ValueError, "Number of lanes must be at least 1, not 0"),
        ({"depth": 1}, ValueError, "Depth must be at least 2, not 1"),
        ({"reads": 0}, ValueError, "Number of read ports must be at least 1, not 0"),
        ({"depth": 2.5}, TypeError, "Depth must be an integer, not 2.5"),
    ],
)
def test_refusals(change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        Ram(**{"lane_bits": 2, "lanes": 2, "depth": 4, "reads": 1} | change)
