"""Requantization against exact fractions: every reachable accumulator where there are at most 2**20."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from golden.network import Requantize
from golden.requantize import (
    INT64,
    Rounding,
    Solution,
    Widths,
    fit,
    fold,
    requantize,
    solve,
    solve_channels,
    thresholds,
)
from golden.solver_study import Channel, random_channel, study, wrong_codes

HALF = Fraction(1, 2)


def exact_code(slope, offset, bits, acc, skip_slope=Fraction(0), skip=0):
    """The definition itself: round half up of the real value, then clip."""
    value = slope * acc + skip_slope * skip + offset
    return min(max(math.floor(value + HALF), 0), 2**bits - 1)


def assert_exact_everywhere(slope, offset, bits, lo, hi, solution):
    for acc in range(lo, hi + 1):
        assert solution.code(acc, bits) == exact_code(slope, offset, bits, acc), acc


def assert_thresholds_exact(slope, offset, bits, lo, hi, solution):
    assert wrong_codes(Channel(slope, offset, bits, lo, hi), solution) == 0


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_channels_are_lossless(count):
    rng = random.Random(1)
    for _ in range(count):
        channel = random_channel(rng)
        solution = channel.solve()
        assert solution.mismatches == wrong_codes(channel, solution) == 0, channel


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_random_residual_channels_are_lossless(count):
    rng = random.Random(2)
    for _ in range(count):
        channel = random_channel(rng, residual=True)
        solution = channel.solve()
        assert solution.mismatches == wrong_codes(channel, solution) == 0, channel


def test_wrong_codes_sees_what_is_wrong():
    """The check itself: constants that are off by one in B, M or S are found."""
    channel = Channel(Fraction(0.0371), Fraction(2.3), 4, -300, 400)
    good = channel.solve()
    for change in (
        {"bias": good.bias + (1 << good.shift)},
        {"multiplier": 2 * good.multiplier},
        {"shift": good.shift + 1},
    ):
        assert wrong_codes(channel, replace(good, **change)) > 0


def test_plain_rounding_needs_no_smaller_shift():
    for trial in study(40, 4, seed=3):
        assert trial.wrong == wrong_codes(trial.channel, trial.rounded) == 0
        assert trial.rounded.shift >= trial.solution.shift


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("sign", [1, -1])
def test_every_accumulator_of_a_range(bits, sign):
    rng = random.Random(bits * sign)
    lo, hi = -rng.randint(1000, 3000), rng.randint(1000, 3000)
    slope, offset = Fraction(sign * rng.uniform(0.3, 3) * 2**bits / (hi - lo)), Fraction(rng.uniform(-1, 2**bits))
    assert_exact_everywhere(slope, offset, bits, lo, hi, solve(slope, offset, bits, lo, hi))


def test_every_accumulator_of_the_largest_exhaustive_range():
    slope, offset, bits, half = Fraction(0.000241), Fraction(-3.7), 8, 1 << 19
    solution = solve(slope, offset, bits, -half, half - 1)
    acc = np.arange(-half, half)
    got = np.clip((acc * solution.multiplier + solution.bias) >> solution.shift, 0, 255)
    expected = np.searchsorted(thresholds(slope, offset, bits, -half, half - 1), acc, side="right")
    assert (got == expected).all()
    for a in range(-half, half, 997):
        assert got[a + half] == exact_code(slope, offset, bits, a)


@pytest.mark.parametrize("slope", [Fraction(1, 4), Fraction(-1, 4), Fraction(1, 2), Fraction(3, 8), Fraction(-5, 2)])
def test_exact_ties_round_half_up(slope):
    """r = j - 1/2 exactly gives code j, for both signs of the slope and of the value."""
    solution = solve(slope, Fraction(0), 4, -64, 64)
    ties = [a for a in range(-64, 65) if (slope * a - HALF).denominator == 1]
    assert ties
    for acc in ties:
        value = slope * acc
        assert solution.code(acc, 4) == min(max(int(value + HALF), 0), 15)
    assert_exact_everywhere(slope, Fraction(0), 4, -64, 64, solution)


@pytest.mark.parametrize("exponent", range(-12, 3))
def test_power_of_two_multiplier_is_one(exponent):
    """A slope of 2**-n needs M = 1 and S = n (the rounding half is in B); a slope of 2**n needs no shift."""
    slope, hi = Fraction(2) ** exponent, 1 << 16
    solution = solve(slope, Fraction(0), 4, -hi, hi)
    assert_thresholds_exact(slope, Fraction(0), 4, -hi, hi, solution)
    assert (solution.multiplier, solution.shift) == ((1, -exponent) if exponent < 0 else (2**exponent, 0))


def test_negative_multiplier():
    slope, offset = Fraction(-0.0123), Fraction(7.25)
    solution = solve(slope, offset, 4, -900, 900)
    assert solution.multiplier < 0
    assert_exact_everywhere(slope, offset, 4, -900, 900, solution)


@pytest.mark.parametrize("offset", [-5.0, -0.5, 0.0, 0.5, 2.49, 2.5, 3.0, 99.0])
def test_slope_zero_is_a_constant(offset):
    solution = solve(Fraction(0), Fraction(offset), 2, -10, 10)
    assert (solution.multiplier, solution.shift) == (0, 0)
    assert_exact_everywhere(Fraction(0), Fraction(offset), 2, -10, 10, solution)


def test_one_threshold_only():
    """One bit out: a comparison."""
    slope, offset = Fraction(0.37), Fraction(-11.2)
    solution = solve(slope, offset, 1, -200, 200)
    assert_exact_everywhere(slope, offset, 1, -200, 200, solution)


@pytest.mark.parametrize("offset", [-1000, 1000])
def test_thresholds_outside_the_reachable_range(offset):
    """Every threshold on one side: M = 0 and a constant code."""
    solution = solve(Fraction(1, 7), Fraction(offset), 4, -50, 50)
    assert solution.multiplier == 0
    assert solution.code(0, 4) == (0 if offset < 0 else 15)


def test_some_thresholds_outside_the_reachable_range():
    slope, offset = Fraction(1, 7), Fraction(12)
    assert_exact_everywhere(slope, offset, 4, -50, 50, solve(slope, offset, 4, -50, 50))


def test_a_single_reachable_accumulator():
    assert solve(Fraction(3), Fraction(1), 4, 2, 2).code(2, 4) == 7


def test_the_shift_is_the_smallest():
    """No smaller S has any multiplier at all."""
    rng = random.Random(5)
    for _ in range(30):
        slope, offset = Fraction(rng.uniform(0.01, 0.2)), Fraction(rng.uniform(-4, 4))
        solution = solve(slope, offset, 3, -100, 100)
        t = thresholds(slope, offset, 3, -100, 100)
        for shift in range(solution.shift):
            for m in range(1, 2 ** (shift + 1)):
                low = max(((j + 1) << shift) - m * tj for j, tj in enumerate(t) if tj <= 100)
                high = min(((j + 1) << shift) - 1 - m * (tj - 1) for j, tj in enumerate(t) if tj > -100)
                assert low > high


@pytest.mark.parametrize("slope", [0.01234, -0.01234, 0.0])
@pytest.mark.parametrize("skip_bits", [0, 2])
def test_mismatches_are_counted_exactly_when_widths_are_short(slope, skip_bits):
    slope, offset, skip_slope = Fraction(slope), Fraction(3.3), Fraction(0.777)
    limits = Widths(3, 3, 12, 20)
    solution = solve(slope, offset, 4, -700, 600, skip_slope=skip_slope, skip_bits=skip_bits, limits=limits)
    wrong = sum(
        solution.code(acc, 4, skip) != exact_code(slope, offset, 4, acc, skip_slope, skip)
        for acc in range(-700, 601)
        for skip in range(2**skip_bits)
    )
    assert solution.mismatches == wrong
    assert -4 <= solution.multiplier < 4 and -4 <= solution.skip_multiplier < 4 and -2048 <= solution.bias < 2048
    assert wrong > 0 or slope == 0


def test_widths_that_suffice_change_nothing():
    slope, offset = Fraction(0.01234), Fraction(3.3)
    free = solve(slope, offset, 4, -700, 600)
    bits = free.multiplier.bit_length() + 1
    assert solve(slope, offset, 4, -700, 600, limits=Widths(bits, 1, 64, 62)) == free
    assert solve(slope, offset, 4, -700, 600, limits=Widths(bits - 1, 1, 64, 62)).mismatches > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 8, 8, 8), r"^Multiplier bits must be between 1 and 64, not 0$"),
        ((8, 65, 8, 8), r"^Skip multiplier bits must be between 1 and 64, not 65$"),
        ((8, 8, 0, 8), r"^Bias bits must be between 1 and 64, not 0$"),
        ((8, 8, 8, 63), r"^Max shift must be between 0 and 62, not 63$"),
    ],
)
def test_wrong_widths(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Widths(*arguments)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"^Slope must be at least 0, not Fraction\(-1, 1\)$"):
        thresholds(Fraction(-1), Fraction(0), 2, 0, 1)
    with pytest.raises(ValueError, match=r"^Accumulator bounds must be ascending, not 2\.\.1$"):
        solve(Fraction(1), Fraction(0), 2, 2, 1)
    with pytest.raises(ValueError, match=r"^Skip must be given exactly when there is a skip multiplier$"):
        constants = Requantize(np.array([1]), np.array([0]), np.array([0]))
        requantize(np.zeros((1, 1, 1, 1), np.int64), constants, 8, np.zeros((1, 1, 1, 1), np.uint8))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("with_skip", [False, True])
def test_array_arithmetic_equals_unbounded_integers(large, with_skip):
    """Minimum and maximum shifts, biases across 0 and across the top code, and products beyond 63 bits."""
    rng = random.Random(3)
    top = 62 if large else 30
    solutions = [
        Solution(
            rng.randint(-(1 << top), 1 << top),
            rng.randint(-(1 << top), 1 << top) if with_skip else 0,
            rng.randint(-(1 << top), 1 << top),
            shift,
        )
        for shift in (0, 1, 7, 30, 62)
    ]
    constants = Requantize(
        np.array([s.multiplier for s in solutions]),
        np.array([s.bias for s in solutions]),
        np.array([s.shift for s in solutions]),
        np.array([s.skip_multiplier for s in solutions]) if with_skip else None,
    )
    acc = np.array([[[[rng.randint(-(1 << 24), 1 << 24) for _ in range(9)]]] * 5])
    skip = np.array([[[[rng.randint(0, 255) for _ in range(9)]]] * 5], np.uint8) if with_skip else None
    got = requantize(acc, constants, 8, skip)
    assert got.dtype == np.uint8
    for channel, solution in enumerate(solutions):
        for i in range(9):
            s = int(skip[0, channel, 0, i]) if skip is not None else 0
            assert got[0, channel, 0, i] == solution.code(int(acc[0, channel, 0, i]), 8, s)


def test_solve_channels_stores_what_solve_finds():
    slopes, offsets = [Fraction(0.01), Fraction(-0.02), Fraction(0)], [Fraction(1), Fraction(2), Fraction(3)]
    lo, hi = np.array([-90, -80, -70]), np.array([90, 80, 70])
    constants, solutions = solve_channels(slopes, offsets, 4, lo, hi, skip_slopes=[Fraction(1, 3)] * 3, skip_bits=2)
    for channel, solution in enumerate(solutions):
        assert solution == solve(
            slopes[channel],
            offsets[channel],
            4,
            int(lo[channel]),
            int(hi[channel]),
            skip_slope=Fraction(1, 3),
            skip_bits=2,
            limits=INT64,
        )
        assert constants.multiplier[channel] == solution.multiplier
        assert constants.skip_multiplier[channel] == solution.skip_multiplier
        assert (constants.bias[channel], constants.shift[channel]) == (solution.bias, solution.shift)


def test_fold_is_the_documented_expression():
    rng = np.random.default_rng(0)
    gamma, beta, mean, bias, scale = rng.normal(size=(5, 6))
    variance = rng.uniform(0.1, 2, 6)
    slope, offset = fold(
        gamma=gamma,
        beta=beta,
        mean=mean,
        variance=variance,
        epsilon=1e-5,
        bias=bias,
        weight_scale=scale,
        input_scale=0.3,
        output_scale=0.7,
        output_zero_point=5,
    )
    for c in range(6):
        gain = gamma[c] / math.sqrt(variance[c] + 1e-5)
        assert slope[c] == gain * (scale[c] * 0.3) / 0.7
        assert offset[c] == (beta[c] + gain * (bias[c] - mean[c])) / 0.7 + 5


def test_fold_refuses_what_is_not_finite():
    one = np.ones(3)
    sentence = r"^Slope and offset must be finite, not so in channel 1$"
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ValueError, match=sentence):
        fold(
            gamma=one,
            beta=one,
            mean=one,
            variance=np.array([1.0, 0.0, 1.0]),
            epsilon=0.0,
            bias=one,
            weight_scale=one,
            input_scale=1.0,
            output_scale=1.0,
        )


# ---- other roundings ------------------------------------------------------------------------------------------------

ROUNDINGS = {
    Rounding.HALF_UP: lambda r: math.floor(r + Fraction(1, 2)),
    Rounding.HALF_EVEN: round,
    Rounding.HALF_AWAY: lambda r: (1 if r > 0 else -1) * math.floor(abs(r) + Fraction(1, 2)),
    Rounding.HALF_ZERO: lambda r: (1 if r > 0 else -1) * math.ceil(abs(r) - Fraction(1, 2)),
    Rounding.FLOOR: math.floor,
    Rounding.CEIL: math.ceil,
    Rounding.ZERO: math.trunc,
    Rounding.AWAY: lambda r: (1 if r > 0 else -1) * math.ceil(abs(r)),
}


@pytest.mark.parametrize("rounding", Rounding)
def test_every_rounding_is_counted_exactly(rounding):
    """Each (acc, skip) pair against Python's own rounding; where ties allow no constants, the count says how many."""
    draw, exact, uneven = random.Random(7), 0, 0
    nearest = ROUNDINGS[rounding]
    for _ in range(150):
        slope = Fraction(draw.randint(-9, 9), draw.choice([1, 2, 3, 4, 6, 8, 10, 16, 32]))
        offset = Fraction(draw.randint(-20, 20), draw.choice([1, 2, 3, 4, 6, 8, 10, 16, 32]))
        bits, first, low = draw.randint(1, 4), draw.choice([0, 0, -8, -3, 2]), draw.randint(-30, 0)
        high, skip_bits = low + draw.randint(0, 60), draw.choice([0, 0, 0, 2])
        skip_slope = Fraction(draw.randint(-5, 5), draw.choice([1, 2, 3])) if skip_bits else Fraction(0)
        solution = solve(slope, offset, bits, low, high, skip_slope=skip_slope, skip_bits=skip_bits,
                         rounding=rounding, first=first)  # fmt: skip
        wrong = 0
        for skip in range(1 << skip_bits):
            for acc in range(low, high + 1):
                wanted = nearest(slope * acc + skip_slope * skip + offset)
                assert rounding.round(slope * acc + skip_slope * skip + offset) == wanted
                wrong += solution.code(acc, bits, skip) != min(max(wanted - first, 0), (1 << bits) - 1)
        assert wrong == solution.mismatches
        exact, uneven = exact + (wrong == 0), uneven + (wrong > 0)
    always = rounding in (Rounding.HALF_UP, Rounding.FLOOR, Rounding.CEIL)
    assert exact > 100 and (uneven == 0 or not always)


def test_constants_of_any_thresholds():
    """Thresholds that a line can pass between have constants; the wide gap after a narrow one has none."""
    solution = fit([3, 7, 12], -20, 20)
    assert [solution.code(acc, 2) for acc in (2, 3, 6, 7, 11, 12)] == [0, 1, 1, 2, 2, 3]
    assert fit([2, 3, 6, 7, 10, 11, 14], -20, 20) is None
    assert fit([5, 21, 21], -20, 20).code(20, 2) == 1
    ties = solve(Fraction(1, 2), Fraction(0), 3, 0, 20, rounding=Rounding.HALF_EVEN)
    assert ties.mismatches == 4
