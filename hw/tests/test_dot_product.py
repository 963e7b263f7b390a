# amaranth: UnusedElaboratable=no
"""DotProduct against sums of Python's integers."""

import random
import re

import pytest
from amaranth.sim import Simulator

from hw.dot_product import DotProduct, Form, best_form


def check(dut, cases):
    """Feed (x word, w word, addend) one a cycle and compare each result."""
    mask = (1 << dut.digit_bits) - 1
    shifts = range(0, dut.lanes * dut.digit_bits, dut.digit_bits)

    async def bench(ctx):
        count = 0
        for x, w, addend in cases:
            ctx.set(dut.w.as_value(), w)
            if dut.form is Form.PAIRS:
                ctx.set(dut.x_n.as_value(), ~x)
            else:
                ctx.set(dut.x.as_value(), x)
            if dut.pairs:
                digits = [x >> k & mask for k in shifts]
                ctx.set(dut.pair_sums_n, [2 * mask + 1 - a - b for a, b in zip(digits[::2], digits[1::2])])
            for _ in range(dut.latency):
                await ctx.tick()
                ctx.set(dut.w.as_value(), ~w)
            ctx.set(dut.addend, addend)
            await ctx.delay(1e-9)
            expected = addend + sum((x >> k & mask) * (w >> k & mask) for k in shifts)
            assert ctx.get(dut.result) == expected % (1 << dut.acc_bits)
            count += 1
        assert count > 0

    simulator = Simulator(dut)
    if dut.latency:
        simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize(
    ("lanes", "digit_bits", "acc_bits"),
    [(1, 1, 2), (2, 1, 2), (3, 1, 2), (3, 1, 4), (1, 2, 4), (1, 2, 5), (2, 2, 4), (3, 2, 4)],
)
def test_exhaustive(lanes, digit_bits, acc_bits, form):
    dut = DotProduct(lanes=lanes, digit_bits=digit_bits, acc_bits=acc_bits, pipeline=0, form=form)
    rng = random.Random(1)
    size = 1 << lanes * digit_bits
    every = range(1 << acc_bits)
    check(
        dut,
        (
            (x, w, addend)
            for x in range(size)
            for w in range(size)
            for addend in (every if size <= 16 else [rng.choice(every)])
        ),
    )


@pytest.mark.parametrize(("form", "pipeline"), [*((form, 0) for form in Form), (None, 1), (None, 2)])
@pytest.mark.parametrize(
    ("lanes", "digit_bits", "acc_bits"),
    [
        (33, 1, 14),
        (5, 2, 4),
        (24, 2, 16),
        (7, 4, 8),
        (16, 4, 20),
        (1, 8, 16),
        (16, 8, 28),
        (1, 16, 32),
        (3, 16, 44),
        (2, 16, 80),
    ],
)
def test_random_and_corners(lanes, digit_bits, acc_bits, pipeline, form):
    dut = DotProduct(lanes=lanes, digit_bits=digit_bits, acc_bits=acc_bits, pipeline=pipeline, form=form)
    assert dut.latency == pipeline
    rng = random.Random(2)
    width = lanes * digit_bits
    words, addends = (0, 1, (1 << width) - 1), (0, 1, 1 << (acc_bits - 1), (1 << acc_bits) - 1)
    corners = [(x, w, addend) for x in words for w in words for addend in addends]
    # One bit against one bit: each partial product alone, at its own weight.
    ones = [(1 << rng.randrange(width), (1 << width) - 1, 0) for _ in range(20)]
    rest = [(rng.getrandbits(width), rng.getrandbits(width), rng.getrandbits(acc_bits)) for _ in range(40)]
    check(dut, corners + ones + rest)


def test_pipeline_takes_a_product_per_cycle():
    dut = DotProduct(lanes=3, digit_bits=4, acc_bits=12, pipeline=1, form=Form.NAND)
    rng = random.Random(3)
    digits = [([rng.randrange(16) for _ in range(3)], [rng.randrange(16) for _ in range(3)]) for _ in range(50)]

    async def bench(ctx):
        for before, (x, w) in zip([None, *digits], [*digits, ([0] * 3, [0] * 3)], strict=True):
            ctx.set(dut.x, x)
            ctx.set(dut.w, w)
            ctx.set(dut.addend, 77)
            await ctx.delay(1e-9)
            if before is not None:
                assert ctx.get(dut.result) == (77 + sum(a * b for a, b in zip(*before, strict=True))) % 4096
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lanes": 0}, "Number of lanes must be at least 1, not 0"),
        ({"digit_bits": 0}, "Digit width must be at least 1, not 0"),
        ({"digit_bits": 3}, "Digit width must be 1, 2, 4, 8 or 16, not 3"),
        ({"digit_bits": 32}, "Digit width must be 1, 2, 4, 8 or 16, not 32"),
        ({"pipeline": 3}, "Number of pipeline registers must be between 0 and 2, not 3"),
        ({"form": "booth"}, "Form must be one of and, nand, pairs, not 'booth'"),
        ({"acc_bits": 7}, "Accumulator width must be at least 8, not 7"),
    ],
)
def test_init_wrong(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        DotProduct(**{"lanes": 2, "digit_bits": 4, "acc_bits": 8} | change)


@pytest.mark.parametrize(
    ("name", "title"),
    [("lanes", "Number of lanes"), ("digit_bits", "Digit width"), ("acc_bits", "Accumulator width")],
)
def test_init_wrong_type(name, title):
    with pytest.raises(TypeError, match=rf"^{title} must be an integer, not 8\.0$"):
        DotProduct(**{"lanes": 2, "digit_bits": 4, "acc_bits": 8} | {name: 8.0})


def test_init():
    dut = DotProduct(lanes=3, digit_bits=4, acc_bits=9)
    assert (dut.lanes, dut.digit_bits, dut.acc_bits, dut.pipeline, dut.latency) == (3, 4, 9, 0, 0)
    assert (dut.form, dut.pairs) == (Form.PAIRS, 1)
    dut = DotProduct(lanes=3, digit_bits=8, acc_bits=16)
    assert (dut.pipeline, dut.latency) == (1, 1)
    assert [best_form(d) for d in (1, 2, 4)] == ["nand", "nand", "pairs"]
