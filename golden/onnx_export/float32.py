"""Requantization in float32, proved to give golden's codes.

A form that computes with floats has, behind an exact sum a, two or three float32 operations and a quantizer that rounds
half to even::

    y    = fl(fl((a + c)*m) + b)                or  fl(fl(fl((a + c)*m) + fl(s*m_s)) + b)  with a residual operand s
    code = clip(round(fl(y + q)) + (z - q), 0, 2**k - 1)

a and s are accumulator and skip code without their zero points, z is the output's zero point, q what the quantizer adds
before it rounds (0, or z). c is a multiple of a power of two, so that a + c is exact: it takes most of the offset, so
that the product is not larger than need be, and all of it where that is enough: b is then 0. Every step is monotone in
a, so both sides of every threshold of golden's code prove all accumulators: code >= j at the smallest accumulator that
reaches j, and code < j at the one below.

The real numbers m, m_s and c*m + b are chosen for the largest distance of all these points from the rounding
boundaries: a concave function of m, and for each m of m_s, whose maximum is found by section. The offset is the middle
of its interval. Where the float32 numbers next to these have a wrong code somewhere, their neighbours are tried.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from golden.network import Requantize

__all__ = ["FloatConstants", "Quantizer", "float_constants"]

F32 = np.float32
EXACT = 1 << 24
"""Every integer up to this magnitude is a float32 number."""
MAX_POINTS = 1 << 22
"""Most thresholds of one channel, over all skip codes, that are looked at."""
SECTIONS = 40
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Quantizer:
    """What follows the float32 operations.

    Parameters
    ----------
    bits : :class:`int`
        Output bits k.
    zero_point : :class:`int`
        z.
    added : :class:`int`
        q.
    """

    bits: int
    zero_point: int
    added: int

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def codes(self, y: np.ndarray) -> np.ndarray:
        """Codes of float32 numbers, as int64."""
        assert y.dtype == F32
        rounded = np.rint(y + F32(self.added)).astype(np.float64) + (self.zero_point - self.added)
        return np.clip(rounded, 0, self.top).astype(np.int64)


@dataclass(frozen=True, eq=False)
class FloatConstants:
    """c, m, m_s and b of each channel.

    Parameters
    ----------
    offset, multiplier, bias : float32 arrays (C,)
        c, m and b.
    skip_multiplier : float32 array (C,) or ``None``
        m_s.
    different : int64 array (C,) or ``None``
        Accumulators, or pairs of accumulator and skip code, whose code is not golden's; ``None``: not known, since
        there are too many skip codes and thresholds to look at all of them.
    """

    offset: np.ndarray
    multiplier: np.ndarray
    bias: np.ndarray
    skip_multiplier: np.ndarray | None
    different: np.ndarray | None


def float_constants(
    constants: Requantize,
    quantizer: Quantizer,
    lo: np.ndarray,
    hi: np.ndarray,
    zero: np.ndarray,
    *,
    skip_bits: int = 0,
    skip_zero: int = 0,
) -> FloatConstants:
    """Float32 numbers that have the thresholds of ``constants``.

    Parameters
    ----------
    constants : :class:`~golden.network.Requantize`
        Of C channels.
    quantizer : :class:`Quantizer`
        What follows.
    lo, hi : int64 arrays (C,)
        Reachable accumulators.
    zero : int64 array (C,)
        The accumulator of which a is 0: a = acc - zero.
    skip_bits, skip_zero : :class:`int`
        Bits and zero point of the skip codes; 0 bits: no residual operand.

    Returns
    -------
    :class:`FloatConstants`
        With the exact number of accumulators whose code differs, nearly always 0.
    """
    channels = [_Channel(constants, quantizer, c, lo, hi, zero, skip_bits, skip_zero) for c in range(len(lo))]
    skips = 1 << skip_bits
    known = skips * quantizer.top <= MAX_POINTS
    found = [channel.solve() if known else (channel.plain(), 0) for channel in channels]
    m, ms, c, b = (np.array(each, F32) for each in zip(*(numbers for numbers, _ in found), strict=True))
    signs = np.array([channel.sign for channel in channels], F32)
    return FloatConstants(
        signs * c,
        signs * m,
        b,
        ms if skip_bits else None,
        np.array([different for _, different in found], np.int64) if known else None,
    )


Numbers = tuple[F32, F32, F32, F32]
"""m, m_s, c, b."""


class _Channel:
    """One channel, mirrored so that its multiplier is at least 0."""

    def __init__(
        self,
        constants: Requantize,
        quantizer: Quantizer,
        channel: int,
        lo: np.ndarray,
        hi: np.ndarray,
        zero: np.ndarray,
        skip_bits: int,
        skip_zero: int,
    ) -> None:
        self.quantizer = quantizer
        multiplier, bias, shift = (
            int(each[channel]) for each in (constants.multiplier, constants.bias, constants.shift)
        )
        skip_multiplier = int(constants.skip_multiplier[channel]) if constants.skip_multiplier is not None else 0
        self.sign = -1 if multiplier < 0 else 1
        ends = int(lo[channel]), int(hi[channel])
        self.lo, self.hi = (-ends[1], -ends[0]) if self.sign < 0 else ends
        self.zero = self.sign * int(zero[channel])
        self.m, self.ms = abs(multiplier) / 2**shift, skip_multiplier / 2**shift
        # Half a step of acc*M + skip*M_skip puts the sums into the middle between the boundaries.
        step = math.gcd(multiplier, skip_multiplier, 1 << shift)
        known = 2 * (bias - bias % step + multiplier * int(zero[channel]) + skip_multiplier * skip_zero) + step
        self.b = known / 2 ** (shift + 1) - 0.5 - quantizer.zero_point
        self.skip = (np.arange(1 << skip_bits) - skip_zero)[:, None]
        self.constants = abs(multiplier), skip_multiplier, bias, shift

    def thresholds(self) -> np.ndarray:
        """Smallest accumulators that reach each code, one row per skip code, within lo .. hi + 1."""
        m, ms, bias, shift = self.constants
        levels = np.arange(1, 1 << self.quantizer.bits)[None, :]
        codes = np.arange(len(self.skip))[:, None]
        largest = (1 << shift + self.quantizer.bits) + abs(ms) * len(codes) + abs(bias) + m
        number = np.int64 if largest < 1 << 62 else object
        missing = levels.astype(number) * (1 << shift) - bias - codes.astype(number) * ms
        found = -(-missing // m) if m else np.where(missing <= 0, self.lo, self.hi + 1)
        return np.clip(found, self.lo, self.hi + 1).astype(np.int64)

    def plain(self) -> Numbers:
        """The constants as they are."""
        return F32(self.m), F32(self.ms), F32(0), F32(self.b)

    def codes(self, acc: np.ndarray, skip: np.ndarray, numbers: Numbers) -> np.ndarray:
        """Codes of mirrored accumulators by float32 operations; ``skip`` are skip codes without their zero point."""
        m, ms, c, b = numbers
        y = ((acc - self.zero).astype(F32) + c) * m
        if len(self.skip) > 1:
            y = y + skip.astype(F32) * ms
        return self.quantizer.codes(y + b)

    def split(self, offset: float, m: F32, steps: int) -> Iterator[tuple[F32, F32]]:
        """Some (c, b) with c*m + b near ``offset``: c alone, then with what is missing, then multiples around it."""
        if m == 0:
            yield F32(0), F32(offset)
            return
        # The sum a + c must be exact: as many binary places as 24 bits leave.
        largest = max(abs(self.lo - self.zero), abs(self.hi - self.zero), 1)
        center = min(max(offset / float(m), -EXACT / 4), EXACT / 4)
        places = max(math.floor(math.log2(EXACT / (largest + abs(center) + steps + 1))), 0)
        for step in sorted(range(-steps, steps + 1), key=abs):
            c = round((center + step) * 2.0**places) / 2.0**places
            rest = F32(offset - c * float(m))
            if step == 0:
                yield F32(c), F32(0)
            yield F32(c), rest

    def solve(self) -> tuple[Numbers, int]:
        """The numbers, and the number of pairs of accumulator and skip code whose code differs."""
        thresholds = self.thresholds()
        points, lines = _Points(self, thresholds), _Lines(self, thresholds)
        candidates = self.candidates(lines, [F32(self.m)], 0)
        for found in candidates:
            if not points.wrong(found):
                return found, 0
        candidates += self.candidates(lines, _neighbours(F32(lines.best(self.m)), 2), 8)
        found = min(candidates, key=points.near(candidates).wrong)
        return found, self.count(thresholds, found) if points.wrong(found) else 0

    def candidates(self, lines: _Lines, multipliers: list[F32], steps: int) -> list[Numbers]:
        """Numbers to try, by multipliers and (c, b)."""
        found = []
        for m in multipliers:
            ms, offset = lines.best_offset(m)
            found += [(m, ms, c, b) for c, b in self.split(offset, m, steps)]
        return found

    def count(self, thresholds: np.ndarray, numbers: Numbers) -> int:
        """Number of pairs of accumulator and skip code whose code differs."""
        low = np.full(thresholds.shape, self.lo)
        high = np.full(thresholds.shape, self.hi + 1)
        levels = np.arange(1, 1 << self.quantizer.bits)[None, :]
        while (low < high).any():
            middle = (low + high) >> 1
            enough = self.codes(middle, self.skip, numbers) >= levels
            high = np.where(enough & (low < high), middle, high)
            low = np.where(~enough & (low < high), middle + 1, low)
        first, last = np.minimum(thresholds, low), np.maximum(thresholds, low)
        before = np.concatenate([np.full((len(last), 1), self.lo), last[:, :-1]], axis=1)
        return int(np.maximum(last - np.maximum(first, before), 0).sum())


class _Points:
    """Both sides of every threshold: accumulators, skip codes, and between which codes their code must be."""

    def __init__(self, channel: _Channel, thresholds: np.ndarray) -> None:
        self.channel = channel
        reached, crossed = thresholds <= channel.hi, thresholds > channel.lo
        levels, skip = (np.broadcast_to(each, thresholds.shape) for each in (
            np.arange(1, 1 << channel.quantizer.bits), channel.skip))  # fmt: skip
        self.acc = np.concatenate([thresholds[reached], thresholds[crossed] - 1])
        self.skip = np.concatenate([skip[reached], skip[crossed]])
        self.level = np.concatenate([levels[reached], levels[crossed]])
        self.above = np.arange(len(self.acc)) < reached.sum()

    def wrong(self, numbers: Numbers) -> int:
        """How many of the points have a wrong code."""
        codes = self.channel.codes(self.acc, self.skip, numbers)
        return int(((codes >= self.level) != self.above).sum())

    def near(self, candidates: list[Numbers]) -> _Points:
        """Those that are so near to a rounding boundary that the candidates may disagree about them."""
        place = (self.acc - self.channel.zero).astype(np.float64)
        boundary = self.level - 0.5 - self.channel.quantizer.zero_point
        m, ms, c, b = np.array(candidates, np.float64).T
        lines = np.stack([m, ms, c * m + b])
        middle = lines.mean(axis=1)
        spread = np.abs(lines - middle[:, None]).max(axis=1)
        y = middle[0] * place + middle[1] * self.skip + middle[2]
        reach = np.abs(place) * spread[0] + np.abs(self.skip) * spread[1] + spread[2]
        size = np.abs(middle[0] * place) + np.abs(middle[1] * self.skip) + np.abs(m * c).max() + np.abs(b).max()
        kept = np.abs(y - boundary) <= reach + (size + 2 * self.channel.quantizer.top) * 2.0**-22
        some = copy.copy(self)
        some.acc, some.skip, some.level, some.above = (
            each[kept] for each in (self.acc, self.skip, self.level, self.above)
        )
        return some


class _Lines:
    """The real numbers m, m_s and b that have all thresholds of a channel, and the distance they keep."""

    def __init__(self, channel: _Channel, thresholds: np.ndarray) -> None:
        self.channel = channel
        self.boundary = np.arange(1, 1 << channel.quantizer.bits)[None, :] - 0.5 - channel.quantizer.zero_point
        self.reached, self.crossed = thresholds <= channel.hi, thresholds > channel.lo
        self.place = (thresholds - channel.zero).astype(np.float64)
        self.skip = channel.skip[:, 0].astype(np.float64)

    def bounds(self, m: float) -> tuple[np.ndarray, np.ndarray]:
        """Interval of m_s*s + b for every skip code s."""
        rest = self.boundary - m * self.place
        low = np.where(self.reached, rest, -np.inf).max(axis=1)
        return low, np.where(self.crossed, rest + m, np.inf).min(axis=1)

    def interval(self, low: np.ndarray, high: np.ndarray, ms: float) -> tuple[float, float]:
        """Interval of b; empty where its ends are not in order."""
        return float((low - ms * self.skip).max()), float((high - ms * self.skip).min())

    def best_skip(self, low: np.ndarray, high: np.ndarray) -> float:
        """m_s with the widest interval of b."""
        if len(self.skip) == 1:
            return 0.0

        def width(ms: float) -> float:
            least, most = self.interval(low, high, ms)
            return most - least

        reach = max(abs(self.channel.ms), self.channel.m, 2.0**-10)
        return _section(width, self.channel.ms - reach, self.channel.ms + reach)

    def best(self, m: float) -> float:
        """m with the widest interval of b, not far from ``m``."""

        def width(m: float) -> float:
            low, high = self.bounds(m)
            least, most = self.interval(low, high, self.best_skip(low, high))
            return most - least

        return _section(width, m / 2, m * 2)

    def best_offset(self, m: F32) -> tuple[F32, float]:
        """The best m_s for ``m``, and the middle of the interval of the offset for both."""
        low, high = self.bounds(float(m))
        ms = F32(self.best_skip(low, high))
        least, most = self.interval(low, high, float(ms))
        if np.isinf(least) and np.isinf(most):
            return ms, 0.0
        # Where a code is never left, or never reached, the boundary on the other side alone counts.
        return ms, most - 0.5 if np.isinf(least) else least + 0.5 if np.isinf(most) else (least + most) / 2


def _neighbours(value: F32, count: int) -> list[F32]:
    """``value`` and the ``count`` float32 numbers on both sides of it, the nearest first."""
    found = [value]
    down = up = value
    for _ in range(count):
        down, up = np.nextafter(down, F32(-np.inf)), np.nextafter(up, F32(np.inf))
        found += [down, up]
    return found


def _section(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a concave function is largest between ``low`` and ``high``, by golden section."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(SECTIONS):
        if at_left < at_right:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = value(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = value(left)
    return (low + high) / 2
