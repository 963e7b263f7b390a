"""Requantization: exact thresholds, the solver that puts them into one multiply and one shift, and its arithmetic.

A channel's real value in units of output codes is ``r = slope*acc + skip_slope*skip + offset`` with exact rational
coefficients. Rounding is half up, so the output code is at least j exactly when ``r >= j - 1/2``: the channel is fully
described by its thresholds, the smallest accumulators that reach each code. :func:`solve` finds integers (M, M_skip,
B, S) with the smallest shift for which ``clip((acc*M + skip*M_skip + B) >> S, 0, 2**k - 1)`` has the very same
thresholds over every reachable accumulator: nothing is lost by leaving the rationals.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from golden.network import MAX_SHIFT, Requantize, Thresholds, code_dtype, signed_width

__all__ = [
    "INT64",
    "Rounding",
    "Solution",
    "Widths",
    "count_thresholds",
    "fit",
    "fold",
    "norm_gain",
    "requantize",
    "solve",
    "solve_channels",
    "thresholds",
]


class Rounding(enum.Enum):
    """How a number becomes an integer. Ours is ``HALF_UP``; imported networks bring their own."""

    HALF_UP = "half up"
    """floor(r + 1/2)."""

    HALF_EVEN = "half to even"
    """To the nearest, a tie to the even one: ONNX's QuantizeLinear, QONNX's ROUND."""

    HALF_AWAY = "half away from zero"
    """QONNX's HALF_UP."""

    HALF_ZERO = "half toward zero"
    """QONNX's HALF_DOWN."""

    FLOOR = "down"
    """Toward minus infinity."""

    CEIL = "up"
    """Toward infinity."""

    ZERO = "toward zero"
    """QONNX's DOWN; what a Cast or a Div of integers does."""

    AWAY = "away from zero"
    """QONNX's UP."""

    def bound(self, level: int) -> tuple[int, bool]:
        """Twice the least r that is rounded to at least ``level``, and whether that very r is."""
        if self in (Rounding.FLOOR, Rounding.CEIL, Rounding.ZERO, Rounding.AWAY):
            down = self is Rounding.FLOOR or (self is not Rounding.CEIL and (self is Rounding.ZERO) == (level > 0))
            return (2 * level, True) if down else (2 * level - 2, False)
        ties = {
            Rounding.HALF_UP: True,
            Rounding.HALF_EVEN: level % 2 == 0,
            Rounding.HALF_AWAY: level > 0,
            Rounding.HALF_ZERO: level <= 0,
        }
        return 2 * level - 1, ties[self]

    def round(self, value: Fraction) -> int:
        """The integer that ``value`` becomes."""
        nearest = math.floor(value)
        return nearest + 1 if self._reaches(value, nearest + 1) else nearest

    def _reaches(self, value: Fraction, level: int) -> bool:
        twice, included = self.bound(level)
        return 2 * value >= twice if included else 2 * value > twice


@dataclass(frozen=True)
class Widths:
    """Widths that the constants of a requantization may have.

    Parameters
    ----------
    multiplier_bits, skip_multiplier_bits, bias_bits : :class:`int`
        Two's complement widths of M, M_skip and B, 1 to 64.
    max_shift : :class:`int`
        Largest S, 0 to 62.
    """

    multiplier_bits: int
    skip_multiplier_bits: int
    bias_bits: int
    max_shift: int

    def __post_init__(self) -> None:
        for name, width in (
            ("Multiplier bits", self.multiplier_bits),
            ("Skip multiplier bits", self.skip_multiplier_bits),
            ("Bias bits", self.bias_bits),
        ):
            if not 1 <= width <= 64:
                raise ValueError(f"{name} must be between 1 and 64, not {width!r}")
        if not 0 <= self.max_shift <= MAX_SHIFT:
            raise ValueError(f"Max shift must be between 0 and {MAX_SHIFT}, not {self.max_shift!r}")


INT64 = Widths(64, 64, 64, MAX_SHIFT)
"""What the network file holds."""


@dataclass(frozen=True)
class Solution:
    """Integer constants of one channel, and how many (acc, skip) pairs they get wrong (0 unless widths were short)."""

    multiplier: int
    skip_multiplier: int
    bias: int
    shift: int
    mismatches: int = 0

    def code(self, acc: int, bits: int, skip: int = 0) -> int:
        """The output code of one accumulator, in Python's unbounded integers."""
        value = (acc * self.multiplier + skip * self.skip_multiplier + self.bias) >> self.shift
        return min(max(value, 0), (1 << bits) - 1)


def fold(
    *,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
    bias: np.ndarray,
    weight_scale: np.ndarray,
    input_scale: float,
    output_scale: float | np.ndarray,
    output_zero_point: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of a layer with batch norm, in units of output codes, as float64.

    This expression and its order are normative, so that two implementations get the same thresholds; every operation
    is one IEEE float64 operation::

        gain   = gamma / sqrt(variance + epsilon)
        slope  = (gain * (weight_scale * input_scale)) / output_scale
        offset = (beta + gain * (bias - mean)) / output_scale + output_zero_point

    Without batch norm: gamma = variance = 1, beta = mean = epsilon = 0. The exact rationals of the two results are the
    channel; an input zero point adds ``-slope * z * sum(W)`` exactly, a residual operand's ``-skip_slope * z_skip``.
    With vector scales W is P*W, the input scale has the factor 2**r, and a channel's output scale that of its vector.

    Returns
    -------
    slope, offset : float64 arrays, the broadcast shape of the parameters
        Finite.

    Raises
    ------
    ValueError
        If a result is not finite, which names the first channel.
    """
    f64 = np.float64
    gain = norm_gain(gamma, variance, epsilon)
    step = np.asarray(output_scale, f64)
    slope = (gain * (np.asarray(weight_scale, f64) * f64(input_scale))) / step
    offset = (np.asarray(beta, f64) + gain * (np.asarray(bias, f64) - np.asarray(mean, f64))) / step + f64(
        output_zero_point
    )
    slope, offset = np.broadcast_arrays(slope, offset)
    bad = ~(np.isfinite(slope) & np.isfinite(offset))
    if bad.any():
        raise ValueError(f"Slope and offset must be finite, not so in channel {int(np.argmax(bad.ravel()))}")
    return slope.copy(), offset.copy()


def norm_gain(gamma: np.ndarray, variance: np.ndarray, epsilon: float) -> np.ndarray:
    """What a batch norm multiplies by, ``gamma / sqrt(variance + epsilon)``, as float64."""
    return np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + np.float64(epsilon))


def thresholds(
    slope: Fraction,
    offset: Fraction,
    bits: int,
    lo: int,
    hi: int,
    *,
    rounding: Rounding = Rounding.HALF_UP,
    first: int = 0,
) -> list[int]:
    """Thresholds T_1 .. T_(2**bits - 1) of a channel with ``slope >= 0`` over ``lo <= acc <= hi``.

    T_j is the smallest acc whose ``slope*acc + offset`` is rounded to at least ``first + j`` (``first``: the integer
    that code 0 stands for), clamped to ``lo .. hi + 1`` (``lo``: every reachable accumulator gives a code of at least
    j; ``hi + 1``: none does). Ascending.
    """
    if slope < 0:
        raise ValueError(f"Slope must be at least 0, not {slope!r}")
    denominator = slope.denominator * offset.denominator
    a = 2 * slope.numerator * offset.denominator
    b = 2 * offset.numerator * slope.denominator
    twice, included = _bounds(rounding, first, bits)
    # One more for what must be exceeded: numbers with this denominator are whole.
    short = twice * denominator - b + np.where(included, 0, 1)
    if a == 0:
        return [lo if x <= 0 else hi + 1 for x in short]
    return [min(max(x, lo), hi + 1) for x in -(-short // a)]


@lru_cache(maxsize=64)
def _bounds(rounding: Rounding, first: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """:meth:`Rounding.bound` of the levels ``first + 1 .. first + 2**bits - 1``, as arrays of Python numbers."""
    twice, included = zip(*(rounding.bound(level) for level in range(first + 1, first + (1 << bits))), strict=True)
    return np.array(twice, object), np.array(included, object)


def solve(
    slope: Fraction,
    offset: Fraction,
    bits: int,
    lo: int,
    hi: int,
    *,
    skip_slope: Fraction = Fraction(0),
    skip_bits: int = 0,
    rounding: Rounding = Rounding.HALF_UP,
    first: int = 0,
    limits: Widths = INT64,
) -> Solution:
    """Integer constants whose thresholds equal the channel's over every acc in ``lo .. hi`` and every skip code.

    With a negative slope the work is done on -acc. Given S and the multipliers, B may be any integer in an interval
    bounded by the thresholds; the multipliers tried are the floor and the ceiling of the slopes times 2**S, with S = 0,
    1, 2, ... The feasible multipliers are convex and have the true slopes inside, so this ends, and without a residual
    operand no other multiplier has a smaller S. Given M and S, the feasible M_skip are an interval too, of which the
    integer nearest to the true slope is taken; of B's interval it is the one nearest to 0. M = M_skip = 0 comes first.

    Parameters
    ----------
    slope, offset, skip_slope : :class:`~fractions.Fraction`
        ``r = slope*acc + skip_slope*skip + offset`` in units of output codes, zero points included.
    bits : :class:`int`
        Output bits k, 1 to 16.
    lo, hi : :class:`int`
        Reachable accumulators, ``lo <= hi``.
    skip_bits : :class:`int`
        Bits of the skip code; 0: no residual operand.
    rounding, first : :class:`Rounding`, :class:`int`
        As in :func:`thresholds`. Rounding half up, up or down always has a solution; others may have none, since
        their thresholds are not evenly spaced where ties occur.
    limits : :class:`Widths`
        Widths of the constants. If no exact solution fits, the widest multipliers that fit are used and
        :attr:`Solution.mismatches` is the exact number of (acc, skip) pairs whose codes differ.
    """
    if lo > hi:
        raise ValueError(f"Accumulator bounds must be ascending, not {lo!r}..{hi!r}")
    if slope < 0:
        mirrored = solve(-slope, offset, bits, -hi, -lo, skip_slope=skip_slope, skip_bits=skip_bits, rounding=rounding,
                         first=first, limits=limits)  # fmt: skip
        # -M must fit too: a two's complement M of exactly -2**(w-1) has no positive twin, and solve() never returns it.
        return Solution(
            -mirrored.multiplier, mirrored.skip_multiplier, mirrored.bias, mirrored.shift, mirrored.mismatches
        )
    if rounding is Rounding.FLOOR:
        rounding, offset = Rounding.HALF_UP, offset - Fraction(1, 2)
    if rounding is Rounding.HALF_UP:
        offset, first = offset - first, 0
    problem = _Problem.of(slope, offset, bits, lo, hi, skip_slope, skip_bits, rounding, first)
    if rounding is not Rounding.HALF_UP:
        exact = _through_ties(problem, slope, skip_slope, limits)
        if exact is not None:
            return exact
        near = solve(slope, offset, bits, lo, hi, skip_slope=skip_slope, skip_bits=skip_bits, first=first,
                     limits=limits)  # fmt: skip
        mismatches = problem.mismatches(near.multiplier, near.skip_multiplier, near.bias, near.shift)
        return replace(near, mismatches=mismatches)
    constant = problem.constants(0, 0, Fraction(0))
    if constant is not None and constant[0] == 0 and _fits(constant[1], limits.bias_bits):
        return Solution(0, *constant, 0)

    widest = None
    for shift in range(limits.max_shift + 1):
        neighbours = _neighbours(slope, shift)
        if neighbours[0] >= 1 << (limits.multiplier_bits - 1):
            break
        for m in neighbours:
            found = problem.constants(m, shift, skip_slope)
            if found is not None and _within(limits, m, *found):
                return Solution(m, *found, shift)
        rounded = (
            _half_up(slope * 2**shift),
            _half_up(skip_slope * 2**shift),
            _half_up(offset * 2**shift) + (1 << shift >> 1),
        )
        if _within(limits, *rounded):
            widest = (*rounded, shift)
    if widest is None:
        limit = 1 << (limits.bias_bits - 1)
        widest = (0, 0, min(max(_half_up(offset), -limit), limit - 1), 0)
    return Solution(*widest, mismatches=problem.mismatches(*widest))


def _through_ties(problem: _Problem, slope: Fraction, skip_slope: Fraction, limits: Widths) -> Solution | None:
    """Constants where a tie's side differs from level to level, if there are any."""
    skips = len(problem.skips) > 1
    if problem.levels.size <= MAX_TIE_LEVELS and not np.less_equal(*problem.multipliers(MAX_TIE_SHIFT)):
        return None
    for shift in range(min(limits.max_shift, MAX_TIE_SHIFT) + 1):
        neighbours = _neighbours(slope, shift)
        for m in range(max(neighbours[0] - 1, 0), neighbours[-1] + 2) if skips else neighbours:
            found = problem.constants(m, shift, skip_slope)
            if found is not None and _within(limits, m, *found):
                return Solution(m, *found, shift)
    return None if skips else _fit(problem, limits)


def fit(thresholds: Sequence[int], lo: int, hi: int, *, limits: Widths = INT64) -> Solution | None:
    """Integer constants of a channel with M >= 0 that has these thresholds, or ``None`` if there are none.

    Parameters
    ----------
    thresholds : sequence of 2**bits - 1 :class:`int`
        Ascending, each in ``lo .. hi + 1``, as :func:`thresholds` gives them; any numbers.
    lo, hi : :class:`int`
        Reachable accumulators, ``lo <= hi``.
    limits : :class:`Widths`
        Widths of the constants.
    """
    return _fit(_Problem([thresholds], lo, hi), limits)


def _fit(problem: _Problem, limits: Widths) -> Solution | None:
    if problem.levels.size > MAX_TIE_LEVELS:
        return None
    for shift in range(min(limits.max_shift, MAX_TIE_SHIFT) + 1):
        low, high = problem.multipliers(shift)
        for m in sorted({low, (low + high) // 2, high}) if low <= high else ():
            found = problem.constants(m, shift, Fraction(0))
            if found is not None and _within(limits, m, *found):
                return Solution(m, *found, shift)
    return None


def solve_channels(
    slopes: Sequence[Fraction],
    offsets: Sequence[Fraction],
    bits: int,
    lo: np.ndarray,
    hi: np.ndarray,
    *,
    skip_slopes: Sequence[Fraction] | None = None,
    skip_bits: int = 0,
    limits: Widths = INT64,
) -> tuple[Requantize, list[Solution]]:
    """:func:`solve` for every channel of a layer: its constants as arrays, and the solutions with their mismatches."""
    solutions = [
        solve(
            slope,
            offset,
            bits,
            int(lo[channel]),
            int(hi[channel]),
            skip_slope=skip_slopes[channel] if skip_slopes is not None else Fraction(0),
            skip_bits=skip_bits if skip_slopes is not None else 0,
            limits=limits,
        )
        for channel, (slope, offset) in enumerate(zip(slopes, offsets, strict=True))
    ]
    constants = Requantize(
        np.array([s.multiplier for s in solutions], np.int64),
        np.array([s.bias for s in solutions], np.int64),
        np.array([s.shift for s in solutions], np.uint8),
        np.array([s.skip_multiplier for s in solutions], np.int64) if skip_slopes is not None else None,
    )
    return constants, solutions


def requantize(acc: np.ndarray, constants: Requantize, bits: int, skip: np.ndarray | None = None) -> np.ndarray:
    """Output codes of accumulators, exactly.

    Parameters
    ----------
    acc : int64 array (N, C, H, W)
        Accumulators.
    constants : :class:`Requantize`
        Of C channels.
    bits : :class:`int`
        Output bits k.
    skip : unsigned array (N, C, H, W) or ``None``
        Codes of the residual operand, present exactly when the constants have a skip multiplier.

    Returns
    -------
    uint8 or uint16 array (N, C, H, W)
    """
    if (skip is None) != (constants.skip_multiplier is None):
        raise ValueError("Skip must be given exactly when there is a skip multiplier")
    terms = [(acc, constants.multiplier)]
    if skip is not None and constants.skip_multiplier is not None:
        terms.append((skip, constants.skip_multiplier))
    bound = _magnitude(constants.bias) + sum(_magnitude(x) * _magnitude(m) for x, m in terms)
    number = np.int64 if bound < 1 << 63 else object

    def channels(values: np.ndarray) -> np.ndarray:
        return values.astype(number)[None, :, None, None]

    total = channels(constants.bias) + sum(x.astype(number) * channels(m) for x, m in terms)
    return np.clip(total >> channels(constants.shift), 0, (1 << bits) - 1).astype(code_dtype(bits))


def count_thresholds(acc: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """Output codes of accumulators (N, C, H, W) by comparison with thresholds, uint8 or uint16."""
    codes = np.empty(acc.shape, code_dtype(thresholds.bits))
    for channel, (row, negate) in enumerate(zip(thresholds.values, thresholds.negate, strict=True)):
        values = acc[:, channel]
        codes[:, channel] = np.searchsorted(row, -values if negate else values, side="right")
    return codes


MAX_TIE_SHIFT = 40
"""Largest S that is tried where ties are not all on one side: such thresholds have a solution early, or none."""

MAX_TIE_LEVELS = (1 << 10) - 1
"""Every two thresholds bound M: beyond these, too many."""

_OPEN = 1 << 61
"""Where a bound is missing: more than any bound that is there."""


class _Problem:
    """The thresholds of one channel with a slope >= 0, one row per skip code."""

    def __init__(self, thresholds: Sequence[Sequence[int]], lo: int, hi: int) -> None:
        self.lo, self.hi = lo, hi
        self.thresholds = np.array(thresholds, np.int64 if max(abs(lo), abs(hi)) < 1 << 62 else object)
        self.levels = np.arange(1, self.thresholds.shape[1] + 1)[None, :]
        self.skips = np.arange(len(self.thresholds))[:, None]
        self.reached = self.thresholds <= hi
        self.crossed = self.thresholds > lo
        self.limit = max(abs(lo), abs(hi)) + 1

    @classmethod
    def of(
        cls,
        slope: Fraction,
        offset: Fraction,
        bits: int,
        lo: int,
        hi: int,
        skip_slope: Fraction,
        skip_bits: int,
        rounding: Rounding = Rounding.HALF_UP,
        first: int = 0,
    ) -> _Problem:
        """The thresholds of :func:`thresholds` for every skip code."""
        offsets = (offset + skip_slope * skip for skip in range(1 << skip_bits))
        return cls([thresholds(slope, x, bits, lo, hi, rounding=rounding, first=first) for x in offsets], lo, hi)

    def multipliers(self, shift: int) -> tuple[int, int]:
        """Smallest and largest M for which some real B puts every threshold of the first row right.

        Levels i that are reached need ``B >= i*2**S - M*T_i``, levels j that are crossed
        ``B < j*2**S - M*(T_j - 1)``; every two of them bound M.
        """
        row, levels = self.thresholds[0], self.levels[0]
        i, j = self.reached[0], self.crossed[0]
        gap = row[j][None, :] - 1 - row[i][:, None]
        rise = (levels[j][None, :] - levels[i][:, None]) << shift
        if ((gap == 0) & (rise <= 0)).any():
            return 1, 0
        above, below = gap < 0, gap > 0
        low = int((rise[above] // gap[above]).max(initial=-1)) + 1
        return low, int((-(-rise[below] // gap[below])).min(initial=max(low, 1) + 1)) - 1

    def constants(self, m: int, shift: int, skip_slope: Fraction) -> tuple[int, int] | None:
        """M_skip nearest to its true slope and B nearest to 0 that put every threshold right, or ``None``.

        Each skip code s has an interval [at_least, at_most] for ``M_skip*s + B``. Two codes bound M_skip by the slope
        between their intervals.
        """
        bound = (int(self.levels[0, -1]) << shift) + m * self.limit
        if bound >= _OPEN >> 1:
            number: type = object
        else:
            number = np.int64
        below: np.ndarray = self.levels.astype(number) * (1 << shift) - self.thresholds.astype(number) * m
        at_least = np.where(self.reached, below, -_OPEN).max(axis=1)
        at_most = np.where(self.crossed, below + (m - 1), _OPEN).min(axis=1)
        if (at_least > at_most).any():
            return None
        ms = 0
        if len(self.skips) > 1:
            # M_skip * (s - t) >= at_least[s] - at_most[t] for every two codes s and t.
            distance = self.skips - self.skips.T
            need: np.ndarray = np.where(distance != 0, at_least[:, None] - at_most[None, :], 0).astype(number)
            step = np.where(distance != 0, distance, 1)
            up, down = distance > 0, distance < 0
            low = int((-(-need[up] // step[up])).max())
            high = int((need[down] // step[down]).min())
            if low > high:
                return None
            ms = min(max(_half_up(skip_slope * 2**shift), low), high)
            skips = self.skips[:, 0].astype(object)
            at_least, at_most = at_least - skips * ms, at_most - skips * ms
        return ms, min(max(0, int(at_least.max())), int(at_most.min()))

    def mismatches(self, m: int, ms: int, bias: int, shift: int) -> int:
        """Number of (acc, skip) pairs whose code differs from the channel's."""
        slope, step = Fraction(m, 1 << shift), Fraction(ms, 1 << shift)
        # floor(x) >= j is x >= j, and the thresholds are those of r >= j - 1/2.
        offset = Fraction(bias, 1 << shift) - Fraction(1, 2)
        bits = len(self.levels[0]).bit_length()
        count = 0
        for row, skip in zip(self.thresholds.tolist(), self.skips[:, 0].tolist(), strict=True):
            end = self.lo
            got = thresholds(slope, offset + step * skip, bits, self.lo, self.hi)
            for low, high in zip(map(min, row, got), map(max, row, got), strict=True):
                count += max(high - max(low, end), 0)
                end = max(end, high)
        return count


def _neighbours(slope: Fraction, shift: int) -> list[int]:
    """Floor and ceiling of ``slope * 2**shift``; one value where they coincide."""
    scaled = slope * 2**shift
    floor = scaled.numerator // scaled.denominator
    return [floor] if scaled.denominator == 1 else [floor, floor + 1]


def _half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _within(limits: Widths, m: int, ms: int, bias: int) -> bool:
    return (
        m < 1 << (limits.multiplier_bits - 1)
        and _fits(ms, limits.skip_multiplier_bits)
        and _fits(bias, limits.bias_bits)
    )


def _fits(value: int, bits: int) -> bool:
    return signed_width(value, value) <= bits


def _magnitude(values: np.ndarray) -> int:
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0
