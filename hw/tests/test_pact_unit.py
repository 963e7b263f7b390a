# amaranth: UnusedElaboratable=no
"""PactUnit against golden's codes in Python's integers: exhaustive where it is small, corners and stalls where not."""

import itertools
import random
import re
from typing import Any

import pytest
from amaranth.sim import Simulator

from golden.requantize import Solution
from hw.pact_unit import PactUnit
from hw.tests.streams import pack, run

SMALL: dict[str, Any] = {"acc_bits": 4, "multiplier_bits": 3, "bias_bits": 5, "max_shift": 3, "max_output_bits": 3}
UNITS: dict[str, dict[str, Any]] = {
    "run-time k": {"acc_bits": 24, "multiplier_bits": 18, "bias_bits": 40, "max_shift": 30, "max_output_bits": 8},
    "datapath": {
        "acc_bits": 32,
        "multiplier_bits": 26,
        "bias_bits": 56,
        "max_shift": 40,
        "max_output_bits": 8,
        "skip_bits": 8,
        "skip_multiplier_bits": 34,
        "accumulator_out": True,
    },
    "fixed k, skip": {
        "acc_bits": 12,
        "multiplier_bits": 9,
        "bias_bits": 22,
        "max_shift": 12,
        "max_output_bits": 4,
        "output_bits": 4,
        "skip_bits": 3,
        "skip_multiplier_bits": 20,
    },
    "B wider than the product": SMALL | {"bias_bits": 10, "output_bits": 3},
    "fixed k below the largest": SMALL | {"output_bits": 2},
    "no shift": {"acc_bits": 6, "multiplier_bits": 2, "bias_bits": 3, "max_shift": 0, "max_output_bits": 16},
    "widest": {
        "acc_bits": 64,
        "multiplier_bits": 64,
        "bias_bits": 64,
        "max_shift": 62,
        "max_output_bits": 16,
        "skip_bits": 16,
        "skip_multiplier_bits": 64,
        "accumulator_out": True,
    },
}


def item(dut, acc, multiplier, bias, shift, *, bits=0, skip=0, skip_multiplier=0):
    """The packed input, and the output by golden's formula."""
    fields = [
        (acc, dut.acc_bits),
        (multiplier, dut.multiplier_bits),
        (bias, dut.bias_bits),
        (shift, dut.max_shift.bit_length()),
    ]
    if dut.output_bits is None:
        fields.append((bits, dut.max_output_bits.bit_length()))
    else:
        bits = dut.output_bits
    if dut.skip_bits:
        fields += [(skip, dut.skip_bits), (skip_multiplier, dut.skip_multiplier_bits)]
    if dut.accumulator_out and bits == 0:
        expected = (acc * multiplier + skip * skip_multiplier + bias) % (1 << dut.acc_bits)
    else:
        expected = Solution(multiplier, skip_multiplier, bias, shift).code(acc, min(bits, dut.max_output_bits), skip)
    return pack(fields), expected


def check(dut, items, **kwargs):
    words, expected = zip(*items, strict=True)
    logs = run(dut, {"i": words}, len(words), **kwargs)
    assert logs["o"].payloads == list(expected)
    return logs


def signed(bits):
    return range(-(1 << bits - 1), 1 << bits - 1)


def check_every(dut, items):
    """A fast pass at full rate: an item a cycle, its code exactly ``latency`` cycles later."""

    async def bench(ctx):
        words, expected = zip(*items, strict=True)
        payload, code = dut.i.payload.as_value(), dut.o.payload
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        got = []
        for word in words:
            ctx.set(payload, word)
            await ctx.tick()
            got.append(ctx.get(code))
        ctx.set(dut.i.valid, 0)
        for _ in range(dut.latency - 1):
            await ctx.tick()
            got.append(ctx.get(code))
        assert got[dut.latency - 1 :] == list(expected)
        assert len(set(expected)) > 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_every_input_with_run_time_output_bits():
    """All accumulators, M, B, S and k; ties, sums below zero and sums beyond the code are among them."""
    dut = PactUnit(**SMALL)
    check_every(
        dut,
        [
            item(dut, acc, multiplier, bias, shift, bits=bits)
            for acc, multiplier, bias in itertools.product(signed(4), signed(3), signed(5))
            for shift in range(4)
            for bits in range(1, 4)
        ],
    )


@pytest.mark.parametrize("output_bits", [1, 2, 3])
def test_every_input_with_fixed_output_bits(output_bits):
    dut = PactUnit(**SMALL, output_bits=output_bits)
    check_every(
        dut,
        [
            item(dut, acc, multiplier, bias, shift)
            for acc, multiplier, bias in itertools.product(signed(4), signed(3), signed(5))
            for shift in range(4)
        ],
    )


@pytest.mark.parametrize("accumulator_out", [False, True])
def test_every_input_with_skip(accumulator_out):
    """Every skip code and M_skip too, and k = 0: code 0, or what passes neither shifted nor clipped."""
    dut = PactUnit(
        acc_bits=3,
        multiplier_bits=2,
        bias_bits=3,
        max_shift=1,
        max_output_bits=2,
        skip_bits=2,
        skip_multiplier_bits=2,
        accumulator_out=accumulator_out,
    )
    check_every(
        dut,
        [
            item(dut, acc, multiplier, bias, shift, bits=bits, skip=skip, skip_multiplier=skip_multiplier)
            for acc, multiplier, bias in itertools.product(signed(3), signed(2), signed(3))
            for shift in range(2)
            for bits in range(3)
            for skip in range(4)
            for skip_multiplier in signed(2)
        ],
    )


def test_values_beyond_the_largest_shift_and_output_bits():
    """Fields hold more than the parameters say: every shift works, and more output bits act like the most."""
    dut = PactUnit(acc_bits=8, multiplier_bits=4, bias_bits=8, max_shift=4, max_output_bits=5)
    rng = random.Random(1)
    check_every(
        dut,
        [
            item(dut, acc, rng.choice(signed(4)), rng.choice(signed(8)), shift, bits=bits)
            for acc in signed(8)
            for shift in range(8)
            for bits in rng.sample(range(8), 2)
        ],
    )


def corners(dut):
    """Extremes of every operand with each other; the rest in turn."""
    rng = random.Random(2)

    def extremes(bits):
        top = 1 << bits - 1
        return [-top, 1 - top, -1, 0, 1, top - 1]

    ks = range(0 if dut.accumulator_out else 1, dut.max_output_bits + 1)
    for acc, multiplier, bias in itertools.product(*map(extremes, (dut.acc_bits, dut.multiplier_bits, dut.bias_bits))):
        for shift in sorted({0, min(1, dut.max_shift), dut.max_shift}):
            yield item(
                dut,
                acc,
                multiplier,
                bias,
                shift,
                bits=rng.choice([ks[0], rng.choice(ks), ks[-1]]),
                skip=rng.choice([0, 1, (1 << dut.skip_bits) - 1]) if dut.skip_bits else 0,
                skip_multiplier=rng.choice(extremes(dut.skip_multiplier_bits)) if dut.skip_bits else 0,
            )


def edges(dut, count):
    """Sums one below, at, and one above a multiple of 2**S around the codes, where the widths allow it."""
    rng = random.Random(3)

    def number(bits):
        return rng.getrandbits(bits) - (1 << bits - 1) >> rng.randrange(bits)

    low, high = signed(dut.bias_bits)[0], signed(dut.bias_bits)[-1]
    for _ in range(count):
        acc, multiplier, shift = number(dut.acc_bits), number(dut.multiplier_bits), rng.randint(0, dut.max_shift)
        bits = dut.output_bits or rng.randint(0 if dut.accumulator_out else 1, dut.max_output_bits)
        skip = rng.getrandbits(dut.skip_bits) if dut.skip_bits else 0
        skip_multiplier = number(dut.skip_multiplier_bits) if dut.skip_bits else 0
        level = rng.choice([-1, 0, 1, (1 << bits) - 1, 1 << bits, rng.randrange(1 << bits)])
        total = (level << shift) + rng.choice([-1, 0, 1])
        bias = min(max(total - acc * multiplier - skip * skip_multiplier, low), high)
        yield item(dut, acc, multiplier, bias, shift, bits=bits, skip=skip, skip_multiplier=skip_multiplier)


@pytest.mark.parametrize("name", UNITS)
def test_corners(name):
    dut = PactUnit(**UNITS[name])
    check_every(dut, [*corners(dut), *edges(dut, 600)])


@pytest.mark.parametrize(("source", "sink"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
@pytest.mark.parametrize("name", ["run-time k", "datapath", "fixed k, skip"])
def test_stalls(name, source, sink):
    """Nothing is lost, repeated or reordered, and a code that waits does not change."""
    dut = PactUnit(**UNITS[name])
    logs = check(dut, list(edges(dut, 200)), stall={"i": source, "o": sink}, seed=4)
    if not sink:
        # Each code comes after the latency, however far apart the items are.
        assert logs["o"].offered == [cycle + dut.latency for cycle in logs["i"].cycles]
    if not source and not sink:
        assert logs["i"].cycles == list(range(200))


@pytest.mark.parametrize(("name", "latency"), [("run-time k", 2), ("datapath", 3)])
def test_valid_does_not_wait_for_ready(name, latency):
    """With ready low the pipeline fills up and then holds; ready lets all of it go, an item a cycle."""
    dut = PactUnit(**UNITS[name])
    logs = check(dut, list(edges(dut, 10)), after={"o": 20})
    assert logs["o"].offered[0] == dut.latency == latency
    assert logs["i"].cycles == [*range(latency), *range(20, 30 - latency)]
    assert logs["o"].cycles == list(range(20, 30))


def test_half_up_ties_and_negative_multipliers():
    """Rounding half up by B, written out by hand: (acc*M + B) >> S with B = half of 2**S."""
    dut = PactUnit(acc_bits=8, multiplier_bits=4, bias_bits=8, max_shift=4, max_output_bits=4)
    cases = [
        (3, 1, 1, 1, 2),  # 1.5 -> 2
        (1, 1, 1, 1, 1),  # 0.5 -> 1
        (-1, 1, 1, 1, 0),  # -0.5 -> 0
        (-3, -1, 1, 1, 2),  # 1.5 -> 2
        (5, -1, 1, 1, 0),  # -2.5 -> clipped
        (-5, -8, 8, 4, 3),  # 2.5 -> 3
        (-128, -8, 0, 4, 15),  # 64 -> clipped
        (127, 7, 0, 0, 15),
        (0, 7, -1, 4, 0),  # floor(-1/16) is -1, not 0
        (0, 7, 127, 3, 15),
        (0, 7, 127, 4, 7),
    ]
    words = [item(dut, *case[:4], bits=4)[0] for case in cases]
    logs = run(dut, {"i": words}, len(words))
    assert logs["o"].payloads == [case[4] for case in cases]


def test_init():
    dut = PactUnit(**UNITS["fixed k, skip"])
    assert {name: getattr(dut, name) for name in UNITS["fixed k, skip"]} == UNITS["fixed k, skip"]
    assert (dut.latency, dut.accumulator_out, len(dut.o.payload)) == (3, False, 4)
    assert [name for name, _ in dut.i.payload.shape()] == [
        "acc", "multiplier", "bias", "shift", "skip", "skip_multiplier",
    ]  # fmt: skip
    dut = PactUnit(**UNITS["datapath"])
    assert (dut.output_bits, dut.accumulator_out, len(dut.o.payload)) == (None, True, 32)
    assert [name for name, _ in dut.i.payload.shape()] == [
        "acc", "multiplier", "bias", "shift", "output_bits", "skip", "skip_multiplier",
    ]  # fmt: skip


SKIP: dict[str, Any] = {"skip_bits": 4, "skip_multiplier_bits": 8}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"acc_bits": 1}, "Accumulator width must be between 2 and 64, not 1"),
        ({"acc_bits": 65}, "Accumulator width must be between 2 and 64, not 65"),
        ({"multiplier_bits": 1}, "Multiplier width must be between 2 and 64, not 1"),
        ({"multiplier_bits": 65}, "Multiplier width must be between 2 and 64, not 65"),
        ({"bias_bits": 1}, "Bias width must be between 2 and 64, not 1"),
        ({"bias_bits": 65}, "Bias width must be between 2 and 64, not 65"),
        ({"max_shift": -1}, "Largest shift must be between 0 and 62, not -1"),
        ({"max_shift": 63}, "Largest shift must be between 0 and 62, not 63"),
        ({"max_output_bits": 0}, "Largest output width must be between 1 and 16, not 0"),
        ({"max_output_bits": 17}, "Largest output width must be between 1 and 16, not 17"),
        ({"output_bits": 0}, "Output width must be between 1 and 3, not 0"),
        ({"output_bits": 4}, "Output width must be between 1 and 3, not 4"),
        (SKIP | {"skip_bits": -1}, "Skip width must be between 0 and 16, not -1"),
        (SKIP | {"skip_bits": 17}, "Skip width must be between 0 and 16, not 17"),
        (SKIP | {"skip_bits": 0}, "Skip multiplier width must be 0 without a residual operand, not 8"),
        (SKIP | {"skip_multiplier_bits": 1}, "Skip multiplier width must be between 2 and 64, not 1"),
        (SKIP | {"skip_multiplier_bits": 65}, "Skip multiplier width must be between 2 and 64, not 65"),
        (
            {"output_bits": 2, "accumulator_out": True},
            "Output width must be None where accumulators pass, not 2",
        ),
        (
            {"acc_bits": 2, "accumulator_out": True},
            "Accumulator width must be at least 3 where accumulators pass, not 2",
        ),
    ],
)
def test_init_wrong(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        PactUnit(**SMALL | change)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("acc_bits", "Accumulator width"),
        ("multiplier_bits", "Multiplier width"),
        ("bias_bits", "Bias width"),
        ("max_shift", "Largest shift"),
        ("max_output_bits", "Largest output width"),
        ("output_bits", "Output width"),
        ("skip_bits", "Skip width"),
        ("skip_multiplier_bits", "Skip multiplier width"),
    ],
)
def test_init_wrong_type(name, title):
    with pytest.raises(TypeError, match=f"^{title} must be an integer, not '2'$"):
        PactUnit(**SMALL | SKIP | {name: "2"})
