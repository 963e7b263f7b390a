# amaranth: UnusedElaboratable=no
"""ThresholdUnit against counting in Python's integers, and against golden's thresholds."""

import itertools
import random
import re
from fractions import Fraction
from typing import Any

import pytest

from golden.requantize import solve, thresholds
from hw.tests.streams import pack, run
from hw.threshold_unit import ThresholdUnit


def word(dut, acc, levels, negate):
    return pack([(acc, dut.acc_bits), *((level, dut.acc_bits + 1) for level in levels), (negate, 1)])


def item(dut, acc, levels, negate):
    """The packed input, and the number of thresholds reached."""
    value = -acc if negate else acc
    return word(dut, acc, levels, negate), sum(value >= level for level in levels)


def check(dut, items, **kwargs):
    words, expected = zip(*items, strict=True)
    logs = run(dut, {"i": words}, len(words), **kwargs)
    assert logs["o"].payloads == list(expected)
    return logs


def signed(bits):
    return range(-(1 << bits - 1), 1 << bits - 1)


@pytest.mark.parametrize(("acc_bits", "output_bits"), [(2, 1), (4, 1), (2, 2), (3, 2)])
def test_every_input(acc_bits, output_bits):
    """Every accumulator with every ascending row of thresholds, equal ones included, plain and negated."""
    dut = ThresholdUnit(acc_bits=acc_bits, output_bits=output_bits)
    rows = itertools.combinations_with_replacement(signed(acc_bits + 1), (1 << output_bits) - 1)
    items = [item(dut, acc, levels, negate) for levels in rows for acc in signed(acc_bits) for negate in range(2)]
    check(dut, items if len(items) < 2000 else random.Random(1).sample(items, 2000))


@pytest.mark.parametrize("output_bits", [1, 2, 3, 4])
@pytest.mark.parametrize("acc_bits", [3, 20, 64])
def test_each_count(acc_bits, output_bits):
    """Accumulators just below, at and just above each threshold; the extremes; equal thresholds."""
    dut = ThresholdUnit(acc_bits=acc_bits, output_bits=output_bits)
    rng = random.Random(2)
    low, high = signed(acc_bits)[0], signed(acc_bits)[-1]
    items = []
    for spread in (acc_bits, min(acc_bits, 4), 1):
        levels = sorted(rng.randint(-1 << spread - 1, (1 << spread - 1) - 1) for _ in range((1 << output_bits) - 1))
        near = {level + step for level in levels for step in (-1, 0, 1)} | {low, -1, 0, 1, high}
        for value in sorted(near):
            items += [item(dut, value, levels, 0)] if low <= value <= high else []
            items += [item(dut, -value, levels, 1)] if low <= -value <= high else []
    check(dut, items)


def test_thresholds_that_are_never_or_always_reached():
    """hi + 1 is one more than any accumulator, also where the most negative one is negated."""
    dut = ThresholdUnit(acc_bits=4, output_bits=2)
    cases = [
        (7, [8, 8, 8], 0, 0),
        (7, [7, 8, 8], 0, 1),
        (-8, [-8, -8, -8], 0, 3),
        (-8, [8, 9, 9], 1, 1),
        (-8, [9, 9, 9], 1, 0),
        (-8, [-7, 8, 8], 1, 3),
        (7, [-7, -7, -6], 1, 2),
        (7, [-16, -6, 15], 1, 1),
    ]
    logs = run(dut, {"i": [word(dut, *case[:3]) for case in cases]}, len(cases))
    assert logs["o"].payloads == [case[3] for case in cases]


@pytest.mark.parametrize("slope", [Fraction(3, 7), Fraction(-5, 11), Fraction(0), Fraction(-9), Fraction(1, 200)])
def test_same_codes_as_multiply_and_shift(slope):
    """A channel of golden's, by its thresholds and by its multiplier: a negative slope negates the accumulator."""
    bits, low, high, offset = 3, -128, 127, Fraction(5, 2)
    dut = ThresholdUnit(acc_bits=8, output_bits=bits)
    negate = slope < 0
    reachable = (-high, -low) if negate else (low, high)
    levels = thresholds(abs(slope), offset, bits, *reachable)
    solution = solve(slope, offset, bits, low, high)
    check(dut, [(word(dut, acc, levels, negate), solution.code(acc, bits)) for acc in signed(8)])


@pytest.mark.parametrize(("source", "sink"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_stalls(source, sink):
    dut = ThresholdUnit(acc_bits=8, output_bits=3)
    rng = random.Random(3)
    items = []
    for _ in range(200):
        levels = sorted(rng.choice(signed(8)) for _ in range(7))
        items.append(item(dut, rng.choice(signed(8)), levels, rng.getrandbits(1)))
    logs = check(dut, items, stall={"i": source, "o": sink}, seed=3)
    if not sink:
        assert logs["o"].offered == [cycle + dut.latency for cycle in logs["i"].cycles]
    if not source and not sink:
        assert logs["i"].cycles == list(range(200))


def test_valid_does_not_wait_for_ready():
    dut = ThresholdUnit(acc_bits=8, output_bits=1)
    logs = check(dut, [item(dut, acc, [0], 0) for acc in (-1, 0, 1)], after={"o": 10})
    assert logs["o"].offered[0] == dut.latency == 1
    assert logs["i"].cycles == [0, 10, 11]
    assert logs["o"].cycles == [10, 11, 12]


def test_init():
    dut = ThresholdUnit(acc_bits=9, output_bits=2)
    assert (dut.acc_bits, dut.output_bits, dut.latency) == (9, 2, 1)
    assert {name: field.offset for name, field in dut.i.payload.shape()} == {"acc": 0, "thresholds": 9, "negate": 39}


GOOD: dict[str, Any] = {"acc_bits": 8, "output_bits": 2}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"acc_bits": 1}, "Accumulator width must be between 2 and 64, not 1"),
        ({"acc_bits": 65}, "Accumulator width must be between 2 and 64, not 65"),
        ({"output_bits": 0}, "Output width must be between 1 and 4, not 0"),
        ({"output_bits": 5}, "Output width must be between 1 and 4, not 5"),
    ],
)
def test_init_wrong(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ThresholdUnit(**GOOD | change)


@pytest.mark.parametrize(("name", "title"), [("acc_bits", "Accumulator width"), ("output_bits", "Output width")])
def test_init_wrong_type(name, title):
    with pytest.raises(TypeError, match=rf"^{title} must be an integer, not 2\.0$"):
        ThresholdUnit(**GOOD | {name: 2.0})
