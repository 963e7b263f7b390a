"""How many bits the solver's constants need, beside those of rounding slope and offset to a common shift.

Random channels with slopes of both signs and zero, 1 to 8 output bits and accumulators of 12 to 24 bits, with and
without a residual operand. Every solution is checked at both sides of every threshold, in exact fractions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from golden.requantize import Solution, solve, thresholds

__all__ = ["Channel", "Trial", "exact_code", "random_channel", "rounded", "study", "wrong_codes"]

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Channel:
    """``r = slope*acc + skip_slope*skip + offset`` over ``lo <= acc <= hi`` and all codes of ``skip_bits`` bits."""

    slope: Fraction
    offset: Fraction
    bits: int
    lo: int
    hi: int
    skip_slope: Fraction = Fraction(0)
    skip_bits: int = 0

    def solve(self) -> Solution:
        """What :func:`golden.requantize.solve` finds."""
        return solve(
            self.slope,
            self.offset,
            self.bits,
            self.lo,
            self.hi,
            skip_slope=self.skip_slope,
            skip_bits=self.skip_bits,
        )


@dataclass(frozen=True)
class Trial:
    """One channel, its solution, what plain rounding needs, and how many checked codes were wrong (0)."""

    channel: Channel
    solution: Solution
    rounded: Solution
    wrong: int


def exact_code(channel: Channel, acc: int, skip: int = 0) -> int:
    """The definition itself: round half up of the real value, then clip."""
    value = channel.slope * acc + channel.skip_slope * skip + channel.offset
    return min(max(math.floor(value + HALF), 0), 2**channel.bits - 1)


def random_channel(rng: random.Random, *, residual: bool = False) -> Channel:
    """A channel whose outputs spread over about the code range, with a fiftieth of the slopes 0."""
    bits, acc_bits = rng.randint(1, 8), rng.randint(12, 24)
    lo, hi = sorted(rng.randint(-(1 << (acc_bits - 1)), (1 << (acc_bits - 1)) - 1) for _ in range(2))
    span = 2.0 ** rng.uniform(-3, 1) * max(hi - lo, 1)
    slope = Fraction(rng.choice([-1.0, 1.0]) * (2**bits - 1) / span) if rng.random() < 0.98 else Fraction(0)
    offset = Fraction(float(-slope * Fraction(rng.uniform(lo, hi)) + Fraction(rng.uniform(-1, 2**bits))))
    if not residual:
        return Channel(slope, offset, bits, lo, hi)
    skip_bits = rng.choice([1, 2, 3, 4, 8])
    skip_slope = Fraction(rng.choice([-1, 1]) * rng.uniform(0.05, 1.5) * 2**bits / 2**skip_bits)
    return Channel(slope, offset, bits, lo, hi, skip_slope, skip_bits)


def wrong_codes(channel: Channel, solution: Solution) -> int:
    """Wrong codes at both sides of every threshold and at the ends of the range, for every skip code.

    Both codes are monotone in acc, so 0 means that no code at all is wrong.
    """
    sign = -1 if channel.slope < 0 else 1
    low, high = sorted((sign * channel.lo, sign * channel.hi))
    wrong = 0
    for skip in range(1 << channel.skip_bits):
        offset = channel.offset + channel.skip_slope * skip
        points = {low, high}
        for threshold in thresholds(abs(channel.slope), offset, channel.bits, low, high):
            points |= {acc for acc in (threshold - 1, threshold) if low <= acc <= high}
        wrong += sum(
            solution.code(sign * acc, channel.bits, skip) != exact_code(channel, sign * acc, skip) for acc in points
        )
    return wrong


def rounded(channel: Channel, *, shift: int = 0) -> Solution:
    """Slopes and offset each rounded to the nearest, at the smallest shift from ``shift`` on that is lossless.

    The solver tries these very multipliers with every bias, so its own shift is never larger.
    """
    while True:
        scale = 1 << shift
        solution = Solution(
            math.floor(channel.slope * scale + HALF),
            math.floor(channel.skip_slope * scale + HALF),
            math.floor((channel.offset + HALF) * scale + HALF),
            shift,
        )
        if _lossless(channel, solution):
            return solution
        shift += 1


def _lossless(channel: Channel, solution: Solution) -> bool:
    """Whether the solution has the channel's thresholds for every skip code."""
    sign = -1 if channel.slope < 0 else 1
    low, high = sorted((sign * channel.lo, sign * channel.hi))
    slope, skip_slope, offset = (
        Fraction(value, 1 << solution.shift)
        for value in (sign * solution.multiplier, solution.skip_multiplier, solution.bias)
    )
    return slope >= 0 and all(
        thresholds(slope, offset - HALF + skip_slope * skip, channel.bits, low, high)
        == thresholds(abs(channel.slope), channel.offset + channel.skip_slope * skip, channel.bits, low, high)
        for skip in range(1 << channel.skip_bits)
    )


def study(channels: int, residuals: int, *, seed: int = 0) -> Iterator[Trial]:
    """``channels`` trials without a residual operand, then ``residuals`` with one."""
    rng = random.Random(seed)
    for number in range(channels + residuals):
        channel = random_channel(rng, residual=number >= channels)
        solution = channel.solve()
        yield Trial(channel, solution, rounded(channel, shift=solution.shift), wrong_codes(channel, solution))
