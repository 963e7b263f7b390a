# amaranth: UnusedElaboratable=no
"""Adders and the compressor tree."""

import itertools
import random

import pytest
from amaranth.hdl import Fragment, Module, Signal
from amaranth.sim import Simulator

from hw.counters import (
    Bit,
    ComplementHalfAdders,
    FullAdders,
    HalfAdders,
    bits_of,
    compress,
    concatenate,
)


def check_combinational(module, stimulus):
    """Run ``stimulus(ctx)``, a generator of (value, expected) pairs, yielding after it has set its inputs."""

    async def bench(ctx):
        count = 0
        for value, expected in stimulus(ctx):
            await ctx.delay(1e-9)
            assert ctx.get(value) == expected
            count += 1
        assert count > 0

    simulator = Simulator(module)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("adders", [FullAdders, HalfAdders, ComplementHalfAdders])
def test_init_wrong_width(adders):
    with pytest.raises(ValueError, match=r"^Width must be at least 1, not 0$"):
        adders(width=0)
    with pytest.raises(TypeError, match=r"^Width must be an integer, not 1\.0$"):
        adders(width=1.0)


def test_names():
    assert FullAdders(width=24).module_name == "full_adders_24"
    assert HalfAdders(width=3).module_name == "half_adders_3"
    assert ComplementHalfAdders(width=3).module_name == "complement_half_adders_3"


@pytest.mark.parametrize("complemented", [False, True])
def test_full_adders(complemented):
    dut = FullAdders(width=3)
    mask = 7 if complemented else 0

    def stimulus(ctx):
        for a, b, c in itertools.product(range(8), repeat=3):
            ctx.set(dut.a, a ^ mask)
            ctx.set(dut.b, b ^ mask)
            ctx.set(dut.c, c ^ mask)
            yield dut.sum, (a ^ b ^ c) ^ mask
            yield dut.carry, (a & b | a & c | b & c) ^ mask

    check_combinational(dut, stimulus)


@pytest.mark.parametrize(("adders", "mask"), [(HalfAdders, 0), (ComplementHalfAdders, 3)])
def test_half_adders(adders, mask):
    dut = adders(width=2)

    def stimulus(ctx):
        for a, b in itertools.product(range(4), repeat=2):
            ctx.set(dut.a, a ^ mask)
            ctx.set(dut.b, b ^ mask)
            yield dut.sum, (a ^ b) ^ mask
            yield dut.carry, (a & b) ^ mask

    check_combinational(dut, stimulus)


def test_concatenate_joins_neighbours():
    a, b = Signal(8), Signal(4)
    value = concatenate([*bits_of(a)[2:5], *bits_of(b), bits_of(a)[7], bits_of(a)[0]])
    assert [(len(part.value), part.start, part.stop) for part in value.parts] == [
        (8, 2, 5),
        (4, 0, 4),
        (8, 7, 8),
        (8, 0, 1),
    ]


HEIGHTS = [
    [3],
    [1, 2, 1],
    [4, 0, 0, 0],
    [2, 3, 0, 7],
    [0, 5, 3, 0, 0],
    [1, 2, 3, 4, 3, 2, 1],
    [17, 9, 1, 2, 2, 2, 2, 2],
    [8, 16, 24, 32, 24, 16, 8, 0, 0, 0, 0, 0],
]


@pytest.mark.parametrize("complemented", [False, True])
@pytest.mark.parametrize("heights", HEIGHTS, ids=str)
def test_compress(heights, complemented):
    rng = random.Random(repr(heights))
    m = Module()
    inputs = [Signal(max(1, height), name=f"column_{weight}") for weight, height in enumerate(heights)]
    columns = [
        [Bit(rng.choice([0, 0, 0, 6]), signal, index) for index in range(height)]
        for signal, height in zip(inputs, heights, strict=True)
    ]
    compressed = compress(m, columns, complemented=complemented)
    assert len(compressed) == len(heights)
    assert max(map(len, compressed)) <= 2
    outputs = []
    for weight, column in enumerate(compressed):
        output = Signal(2, name=f"output_{weight}")
        m.d.comb += output.eq(concatenate(column))
        outputs.append((output, len(column)))

    def invert(value, width):
        return value ^ ((1 << width) - 1) if complemented else value

    async def bench(ctx):
        total_bits = sum(heights)
        if total_bits <= 10:
            words = list(range(1 << total_bits))
        else:
            words = [0, (1 << total_bits) - 1, *(rng.getrandbits(total_bits) for _ in range(300))]
        for word in words:
            expected = 0
            for weight, (signal, height) in enumerate(zip(inputs, heights, strict=True)):
                bits = word & ((1 << height) - 1)
                word >>= height
                expected += bits.bit_count() << weight
                ctx.set(signal, invert(bits, height))
            await ctx.delay(1e-9)
            total = sum(
                invert(ctx.get(output), height).bit_count() << weight for weight, (output, height) in enumerate(outputs)
            )
            assert total % (1 << len(heights)) == expected % (1 << len(heights))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("lanes", "digit_bits", "stages", "full_adders"),
    [(64, 2, 10, 252), (16, 4, 9, 250), (16, 8, 11, 993), (8, 16, 11, 1988)],
)
def test_depth_is_logarithmic_and_adders_are_few(lanes, digit_bits, stages, full_adders):
    """Bits that come in less those that go out is what full adders there have to be."""
    m = Module()
    columns = [[] for _ in range(2 * digit_bits + 12)]
    for i, j in itertools.product(range(digit_bits), repeat=2):
        columns[i + j] += bits_of(Signal(lanes, name=f"products_{i}_{j}"))
    if digit_bits < 8:
        for weight, column in enumerate(columns):
            column.append(Bit(6, Signal(len(columns), name="addend"), weight))
    compressed = compress(m, columns, complemented=True)
    adders = {name: fragment.origins[0] for fragment, name, _ in Fragment.get(m, None).subfragments}
    full = sum(a.width for a in adders.values() if isinstance(a, FullAdders))
    half = sum(a.width for a in adders.values() if isinstance(a, ComplementHalfAdders))
    assert full == sum(map(len, columns)) - sum(map(len, compressed)) == full_adders
    assert half <= 10
    assert 1 + max(int(name.split("_")[1]) for name in adders) == stages
