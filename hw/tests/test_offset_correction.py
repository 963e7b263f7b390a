# amaranth: UnusedElaboratable=no
"""OffsetCorrection against golden's grids in Python's integers."""

import itertools
import random
import re
from typing import Any

import pytest
from amaranth.sim import Simulator

from golden.network import Grid
from hw.offset_correction import OffsetCorrection


def check(dut, cases):
    """Each case: grid, weight bits, sums of the rows, and sum of the activations; unsigned, reduced here."""
    modulus = 1 << dut.acc_bits

    async def bench(ctx):
        count = 0
        for grid, weight_bits, rows, ones in cases:
            ctx.set(dut.i_rows, [row % modulus for row in rows])
            ctx.set(dut.i_ones, ones % modulus)
            ctx.set(dut.weight_bits, weight_bits)
            ctx.set(dut.odd, grid is Grid.ODD)
            await ctx.delay(1e-9)
            expected = [(grid.p(weight_bits) * row - grid.c(weight_bits) * ones) % modulus for row in rows]
            assert [ctx.get(dut.o[lane]) for lane in range(dut.lanes)] == expected
            count += 1
        assert count > 0

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("grid", list(Grid))
@pytest.mark.parametrize("acc_bits", [2, 3, 4])
def test_every_input(acc_bits, grid):
    """All sums at all weight widths, also those at which c does not fit the accumulator."""
    dut = OffsetCorrection(acc_bits=acc_bits, lanes=1)
    sums = range(1 << acc_bits)
    check(dut, ((grid, w, [row], ones) for w in range(1, 17) for row, ones in itertools.product(sums, sums)))


@pytest.mark.parametrize("grid", list(Grid))
@pytest.mark.parametrize(("acc_bits", "lanes"), [(12, 3), (32, 4), (64, 1)])
def test_sums_of_weights_times_activations(acc_bits, lanes, grid):
    """Sums made from codes: every weight lowest, every weight highest, and random ones."""
    dut = OffsetCorrection(acc_bits=acc_bits, lanes=lanes)
    rng = random.Random(1)
    cases = []
    for weight_bits, kind in itertools.product(range(1, 17), ("lowest", "highest", "random", "random")):
        largest = (1 << weight_bits) - 1
        u = [rng.getrandbits(8) for _ in range(20)]
        rows = []
        for _ in range(lanes):
            n = [{"lowest": 0, "highest": largest}.get(kind, rng.randint(0, largest)) for _ in u]
            rows.append(sum(a * b for a, b in zip(n, u, strict=True)))
        cases.append((grid, weight_bits, rows, sum(u)))
    check(dut, cases)


def test_grids_by_hand():
    """Two's complement: 3-bit codes 0 .. 7 are -4 .. 3. Odd: -7, -5 .. 7; at one bit, -1 and 1."""
    dut = OffsetCorrection(acc_bits=8, lanes=2)

    async def bench(ctx):
        for odd, weight_bits, codes, weights in (
            (0, 3, [0, 7], [-4, 3]),
            (0, 1, [0, 1], [-1, 0]),
            (1, 3, [0, 7], [-7, 7]),
            (1, 1, [0, 1], [-1, 1]),
        ):
            ctx.set(dut.odd, odd)
            ctx.set(dut.weight_bits, weight_bits)
            ctx.set(dut.i_ones, 5)
            ctx.set(dut.i_rows, [code * 5 for code in codes])
            await ctx.delay(1e-9)
            assert [ctx.get(dut.o[lane]) for lane in range(2)] == [weight * 5 % 256 for weight in weights]

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_init():
    dut = OffsetCorrection(acc_bits=9, lanes=3)
    assert (dut.acc_bits, dut.lanes, len(dut.weight_bits), len(dut.o.as_value())) == (9, 3, 5, 27)


GOOD: dict[str, Any] = {"acc_bits": 8, "lanes": 2}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"acc_bits": 1}, "Accumulator width must be at least 2, not 1"),
        ({"lanes": 0}, "Number of lanes must be at least 1, not 0"),
    ],
)
def test_init_wrong(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        OffsetCorrection(**GOOD | change)


@pytest.mark.parametrize(("name", "title"), [("acc_bits", "Accumulator width"), ("lanes", "Number of lanes")])
def test_init_wrong_type(name, title):
    with pytest.raises(TypeError, match=rf"^{title} must be an integer, not 2\.0$"):
        OffsetCorrection(**GOOD | {name: 2.0})
