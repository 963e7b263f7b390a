"""Values between two roundings: exact rational functions of accumulators and codes, per channel.

What an imported file computes between two quantizers is ``slope*acc + slopes*codes + offset``, rounded once and
clamped. An :class:`Expression` is that, in whatever order the file multiplies, adds, divides, rounds and clips. It
proves how wide its integers are (:meth:`Expression.code_range`); :func:`requantization` turns it into the constants of
an operation, and :class:`Exact` keeps what they were made from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from golden.network import MAX_CODE_BITS, MAX_SHIFT, Conv2d, Grid, Requantize, Tensor, Thresholds, signed_width
from golden.requantize import INT64, Rounding, Solution, fit, solve, thresholds

__all__ = [
    "INFINITY",
    "Code",
    "Exact",
    "Expression",
    "InexactError",
    "Sum",
    "rationals",
    "requantization",
    "threshold_form",
    "weight_codes",
]

INFINITY = math.inf

MAX_TABLE_BITS = 20
"""Bits of an output and of its residual operand together: their thresholds are all looked at."""

Shape = tuple[int, int, int]


class InexactError(ValueError):
    """An expression that codes cannot hold; the reason, to be put behind the name of who needs them."""


@dataclass(frozen=True)
class Code:
    """A tensor of codes and what they stand for in the file: ``scale*code + offset``.

    Parameters
    ----------
    tensor : :class:`~golden.network.Tensor`
        In the network.
    low, high : :class:`int`
        Smallest and largest code that it is known to take.
    scale, offset : :class:`~fractions.Fraction`
        Of the file's values; the scale is positive.
    """

    tensor: Tensor
    low: int
    high: int
    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def code_of(self, value: Fraction) -> int | None:
        """The code that stands for ``value``, if there is one."""
        code = (value - self.offset) / self.scale
        return int(code) if code.denominator == 1 and 0 <= code <= self.tensor.max_code else None


@dataclass(frozen=True)
class Sum:
    """The accumulators of a convolution that is not in the network yet.

    Parameters
    ----------
    operation : :class:`~golden.network.Conv2d`
        Without constants; its output's name does not count.
    source : :class:`Code`
        What it reads.
    scale : array (O,) of rationals
        What one step of an integer weight is worth, per output channel.
    pooled : :class:`bool`
        It sums up the whole map, channel by channel.
    """

    operation: Conv2d
    source: Code
    scale: np.ndarray
    pooled: bool = False

    @property
    def _positions(self) -> int:
        return math.prod(self.source.tensor.shape[1:]) if self.operation.broadcast else 1

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest accumulator per output channel, of the codes that the source really takes."""
        weights, least, most = self.operation.weights, self.source.low, self.source.high
        low = np.minimum(weights * least, weights * most).sum(axis=(1, 2, 3)) * self._positions
        high = np.maximum(weights * least, weights * most).sum(axis=(1, 2, 3)) * self._positions
        return low, high

    def expression(self, shape: Shape) -> Expression:
        """The sum of the file's values instead of codes: what code 0 stands for is in the offset."""
        sums = rationals(self.operation.weights.sum(axis=(1, 2, 3)) * self._positions)
        offset = self.scale * sums * self.source.offset
        return dataclasses.replace(Expression.constant(shape, offset), acc=self, slope=self.scale * self.source.scale)

    def plus(self, other: Sum, factors: tuple[Fraction, Fraction]) -> tuple[Conv2d, Fraction] | None:
        """One convolution for ``factors[0]*self + factors[1]*other``, and what its accumulators are multiplied by.

        ``None`` if they do not read the same codes in the same way.
        """
        a, b = self.operation, other.operation
        if self.source != other.source or self.pooled or other.pooled:
            return None
        if (a.stride, a.dilation, a.padding, a.groups, a.broadcast, a.codes.shape) != (
            b.stride, b.dilation, b.padding, b.groups, b.broadcast, b.codes.shape
        ):  # fmt: skip
            return None
        unit = _common_divisor(factors)
        weights = a.weights * int(factors[0] / unit) + b.weights * int(factors[1] / unit)
        codes, bits, grid = weight_codes(weights)
        return dataclasses.replace(a, codes=codes, bits=bits, grid=grid), unit


@dataclass(eq=False)
class Expression:
    """``clamp(round(slope*acc + sum(slopes*codes) + offset), low, high)`` per channel.

    Codes and accumulators are raw: what they stand for is in slopes and offset. Arrays are (C,), of exact rationals.

    Parameters
    ----------
    shape : (C, H, W)
        Of the tensor.
    offset : array
        What is added.
    low, high : arrays
        Bounds; infinite where there are none.
    acc, slope : :class:`Sum` and array, or ``None``
        Accumulators and their factors.
    codes : tuple of (:class:`Code`, array)
        Code tensors and their factors.
    rounding : :class:`~golden.requantize.Rounding` or ``None``
        To integers, or not at all.
    fractional : :class:`str` or ``None``
        Who brought in constants that are no integers.
    origin : :class:`str` or ``None``
        What an operation is to be called that adds or rescales codes.
    code : :class:`Code` or ``None``
        The tensor in the network that holds the very values, once there is one.
    """

    shape: Shape
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray
    acc: Sum | None = None
    slope: np.ndarray | None = None
    codes: tuple[tuple[Code, np.ndarray], ...] = ()
    rounding: Rounding | None = None
    fractional: str | None = None
    origin: str | None = None
    code: Code | None = None

    @classmethod
    def constant(cls, shape: Shape, offset: np.ndarray) -> Expression:
        """Numbers that depend on nothing."""
        return cls(shape, offset, np.full(shape[0], -INFINITY, object), np.full(shape[0], INFINITY, object))

    @classmethod
    def of(cls, code: Code) -> Expression:
        """The file's values of a code tensor."""
        ones = rationals(np.ones(code.tensor.shape[0], np.int64))
        number = cls.constant(code.tensor.shape, ones * code.offset)
        return dataclasses.replace(number, codes=((code, ones * code.scale),), code=code)

    @property
    def clamped(self) -> bool:
        """Whether there is a bound."""
        return any(x != -INFINITY for x in self.low) or any(x != INFINITY for x in self.high)

    @property
    def affine(self) -> bool:
        """Whether nothing is rounded or clamped."""
        return self.rounding is None and not self.clamped

    @property
    def whole(self) -> bool:
        """Whether it can only be an integer."""
        numbers = [self.offset, *(slope for _, slope in self.codes), *([] if self.slope is None else [self.slope])]
        inside = self.rounding is not None or all(x.denominator == 1 for array in numbers for x in array)
        return inside and all(abs(x) == INFINITY or x.denominator == 1 for x in (*self.low, *self.high))

    @property
    def same_codes(self) -> Code | None:
        """The codes that it holds, if it is nothing but those of one tensor with another scale and offset."""
        if self.acc is not None or len(self.codes) != 1 or self.rounding is not None or self.clips:
            return None
        ((code, slope),) = self.codes
        if slope[0] <= 0 or len(set(slope)) > 1 or len(set(self.offset)) > 1:
            return None
        return dataclasses.replace(code, scale=slope[0], offset=self.offset[0])

    def grid(self) -> Fraction:
        """The largest number of which all that it can be is a multiple."""
        arrays = [self.offset, self.low, self.high, *(slope for _, slope in self.codes)]
        arrays += [] if self.slope is None else [self.slope]
        return _common_divisor(x for array in arrays for x in array if abs(x) != INFINITY)

    @property
    def mean(self) -> Sum | None:
        """The sums over whole maps, if it is nothing but these times one number, plus an offset per channel."""
        if self.acc is None or not self.acc.pooled or not self.affine or self.codes or self.slope is None:
            return None
        return self.acc if len(set(self.slope)) == 1 else None

    def scaled(self, factor: np.ndarray) -> Expression:
        """Times a rational per channel. Only where nothing was rounded."""
        low, high = (
            # What is multiplied by 0 is 0, whatever its bounds: none is needed.
            np.array([x * f if f else none for x, f in zip(bounds, factor, strict=True)], object)
            for bounds, none in ((self.low, -INFINITY), (self.high, INFINITY))
        )
        return dataclasses.replace(
            self,
            offset=self.offset * factor,
            slope=None if self.slope is None else self.slope * factor,
            codes=tuple((code, slope * factor) for code, slope in self.codes),
            low=np.where(factor >= 0, low, high),
            high=np.where(factor >= 0, high, low),
            code=None,
        )

    def shifted(self, offset: np.ndarray) -> Expression:
        """Plus a rational per channel. Where it was rounded: only downwards or up, and plus an integer."""
        low, high = self.low + offset, self.high + offset
        return dataclasses.replace(self, offset=self.offset + offset, low=low, high=high, code=None)

    def plus(self, other: Expression) -> Expression:
        """The sum. Only of affine expressions, at most one of them with accumulators."""
        codes = {code.tensor.name: (code, slope) for code, slope in self.codes}
        for code, slope in other.codes:
            known = codes.get(code.tensor.name)
            codes[code.tensor.name] = (code, slope if known is None else slope + known[1])
        return dataclasses.replace(
            self,
            offset=self.offset + other.offset,
            acc=self.acc or other.acc,
            slope=other.slope if self.acc is None else self.slope,
            codes=tuple(codes.values()),
            fractional=self.fractional or other.fractional,
            code=None,
        )

    def clipped(self, low: Any, high: Any) -> Expression:
        """Clamped once more; ``low <= high`` are rationals or infinite."""
        return dataclasses.replace(
            self,
            low=np.array([min(max(x, low), high) for x in self.low], object),
            high=np.array([max(min(x, high), low) for x in self.high], object),
            code=None,
        )

    def rounded(self, rounding: Rounding) -> Expression:
        """Rounded; what can only be an integer stays as it is."""
        if self.whole:
            return self
        low, high = (_round(x, rounding) for x in (self.low, self.high))
        return dataclasses.replace(self, rounding=self.rounding or rounding, low=low, high=high, code=None)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value per channel, rounded, before the clamp."""
        low = high = self.offset
        terms = [(*(np.array([x], object) for x in (code.low, code.high)), slope) for code, slope in self.codes]
        if self.acc is not None and self.slope is not None:
            least, most = self.acc.bounds()
            terms.append((least.astype(object), most.astype(object), self.slope))
        for least, most, slope in terms:
            ends = slope * least, slope * most
            low, high = low + np.minimum(*ends), high + np.maximum(*ends)
        if self.rounding is not None:
            low, high = _round(low, self.rounding), _round(high, self.rounding)
        return low, high

    @property
    def clips(self) -> bool:
        """Whether a bound is ever reached from outside."""
        low, high = self.bounds()
        return bool((low < self.low).any() or (high > self.high).any())

    @property
    def size(self) -> int:
        """Bits of the longest numerator or denominator."""
        arrays = [self.offset, *(slope for _, slope in self.codes), *([] if self.slope is None else [self.slope])]
        return max(max(abs(x.numerator), x.denominator).bit_length() for array in arrays for x in array)

    def limits(self, zero: int = 0) -> tuple[int, int]:
        """Integers between which ``zero`` and all values of all channels lie."""
        low, high = (
            [min(max(x, least), most) for x, least, most in zip(ends, self.low, self.high, strict=True)]
            for ends in self.bounds()
        )
        return min(zero, math.floor(min(low))), max(zero, math.ceil(max(high)))

    def code_range(self, zero: int = 0) -> tuple[int, int, bool]:
        """Smallest and largest integer of its codes, and whether values above the largest must be clipped.

        They are the bounds of the clip, if all channels have the same; where there is none, or one so far away that
        codes would be too wide, what can be reached. ``zero``, the integer that stands for 0, is one of them.

        Raises
        ------
        InexactError
            If it is no integer, or codes of at most 16 bits cannot hold it.
        """
        if not self.whole:
            raise InexactError("must read integers, but {name!r} holds fractions: a Floor is missing")
        reached = self.limits(zero)
        bottom, top = (ends[0] if len(set(ends)) == 1 else default for ends, default in
                       ((self.low, -INFINITY), (self.high, INFINITY)))  # fmt: skip
        if bottom > zero or top < zero:
            raise InexactError("must read what is clipped to a range with 0 in it, not so {name!r}")
        least, most = (r if abs(b) == INFINITY else int(b) for r, b in zip(reached, (bottom, top), strict=True))
        if (most - least).bit_length() > MAX_CODE_BITS:
            least, most = reached
        if (most - least).bit_length() > MAX_CODE_BITS:
            raise InexactError(
                f"must read integers of at most {MAX_CODE_BITS} bits, but {{name!r}} has {least}..{most}: "
                "a Clip is missing"
            )
        saturates = False
        for low, high, clip_low, clip_high in zip(*self.bounds(), self.low, self.high, strict=True):
            if (low < clip_low and clip_low != least) or (high > clip_high and clip_high != most):
                raise InexactError("must read what is clipped alike in all channels, not so {name!r}")
            saturates |= bool(high > clip_high)
        return least, most, saturates


@dataclass(frozen=True, eq=False)
class Exact:
    """What the constants of an operation were made from: the file's own arithmetic, in rationals.

    The code is the number of levels j in 1..2**bits - 1 that ``slope*acc + skip_slope*skip + offset`` reaches, where
    level j is that of the integer ``first + j`` under ``rounding``, or the j-th of ``levels``.

    Parameters
    ----------
    slope, skip_slope, offset : arrays (C,) of rationals
        ``skip_slope`` is 0 where there is no residual operand.
    bits : :class:`int`
        Of the output.
    rounding, first
        As in :func:`golden.requantize.thresholds`.
    levels : tuple of tuples of rationals, or ``None``
        Ascending levels of each channel, at most 2**bits - 1, which are reached by what is equal to them.
    mismatches : tuple of :class:`int`
        Per channel: (acc, skip) pairs whose code the constants do not give, because no constants do.
    pairs : tuple of :class:`int`
        Per channel: how many pairs there are.
    """

    slope: np.ndarray
    skip_slope: np.ndarray
    offset: np.ndarray
    bits: int
    rounding: Rounding = Rounding.FLOOR
    first: int = 0
    levels: tuple[tuple[Fraction, ...], ...] | None = None
    mismatches: tuple[int, ...] = ()
    pairs: tuple[int, ...] = ()

    def value(self, channel: int, acc: int, skip: int = 0) -> Fraction:
        """What is quantized, exactly."""
        return Fraction(self.slope[channel] * acc + self.skip_slope[channel] * skip + self.offset[channel])

    def code(self, channel: int, acc: int, skip: int = 0) -> int:
        """The code that the file's own arithmetic gives where nothing but the quantizer rounds."""
        return self.quantized(channel, self.value(channel, acc, skip))

    def quantized(self, channel: int, value: Fraction) -> int:
        """The code of a number."""
        if self.levels is not None:
            return sum(value >= level for level in self.levels[channel])
        return min(max(self.rounding.round(value) - self.first, 0), (1 << self.bits) - 1)

    def level(self, channel: int, code: int) -> Fraction:
        """The number at which the code changes from ``code - 1`` to ``code``, 1 <= code <= 2**bits - 1."""
        if self.levels is not None:
            return self.levels[channel][code - 1]
        return Fraction(self.rounding.bound(self.first + code)[0], 2)


def requantization(exact: Exact, bounds: tuple[np.ndarray, np.ndarray], skip: Code | None) -> tuple[Requantize, Exact]:
    """Constants with ``clip((acc*M + skip*M_skip + B) >> S)`` the codes of ``exact``, and it with its mismatches.

    Parameters
    ----------
    exact : :class:`Exact`
        Of each channel.
    bounds : integer arrays (C,)
        Smallest and largest accumulator.
    skip : :class:`Code` or ``None``
        The residual operand.

    Raises
    ------
    InexactError
        If constants of 64 bits cannot be exact though larger ones could.
    """
    rows, mismatches, pairs = [], [], []
    skip_bits = 0 if skip is None else skip.tensor.bits
    for channel, (low, high) in enumerate(zip(*bounds, strict=True)):
        row = _dyadic(exact, channel)
        if row is None:
            found = _solved(exact, channel, int(low), int(high), skip_bits)
            row = found.multiplier, found.skip_multiplier, found.bias, found.shift
        else:
            found = None
        rows.append(row)
        mismatches.append(0 if found is None else found.mismatches)
        pairs.append((int(high) - int(low) + 1) << skip_bits)
    m, ms, b, s = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    constants = Requantize(m, b, s, None if skip is None else ms)
    return constants, dataclasses.replace(exact, mismatches=tuple(mismatches), pairs=tuple(pairs))


def threshold_form(exact: Exact, bounds: tuple[np.ndarray, np.ndarray]) -> Thresholds:
    """The thresholds of ``exact`` over every accumulator within ``bounds``, without a residual operand."""
    rows, negate = [], []
    for channel, (low, high) in enumerate(zip(*bounds, strict=True)):
        slope, offset = exact.slope[channel], exact.offset[channel]
        negate.append(bool(slope < 0))
        least, most = (int(low), int(high)) if slope >= 0 else (-int(high), -int(low))
        if exact.levels is None:
            rows.append(thresholds(abs(slope), offset, exact.bits, least, most, rounding=exact.rounding,
                                   first=exact.first))  # fmt: skip
        else:
            rows.append(_level_thresholds(exact, channel, least, most))
    return Thresholds(np.array(rows, np.int64), np.array(negate))


def _dyadic(exact: Exact, channel: int) -> tuple[int, int, int, int] | None:
    """Constants that are the rationals themselves, where these are rounded down and fit."""
    numbers = exact.slope[channel], exact.skip_slope[channel], exact.offset[channel] - exact.first
    denominator = math.lcm(*(x.denominator for x in numbers))
    shift = denominator.bit_length() - 1
    if exact.levels is not None or (exact.rounding is not Rounding.FLOOR and denominator != 1):
        return None
    m, ms, bias = (int(x * denominator) for x in numbers)
    if denominator != 1 << shift or shift > MAX_SHIFT or any(signed_width(x, x) > 64 for x in (m, ms, bias)):
        return None
    return m, ms, bias, shift


def _solved(exact: Exact, channel: int, low: int, high: int, skip_bits: int) -> Solution:
    slope, skip_slope, offset = exact.slope[channel], exact.skip_slope[channel], exact.offset[channel]
    if exact.levels is not None:
        return _of_levels(exact, channel, low, high)
    if exact.bits + skip_bits > MAX_TABLE_BITS:
        raise InexactError(
            f"must read {{name!r}} and a residual operand of at most {MAX_TABLE_BITS} bits together, "
            f"not {exact.bits + skip_bits}"
        )
    found = solve(slope, offset, exact.bits, low, high, skip_slope=skip_slope, skip_bits=skip_bits,
                  rounding=exact.rounding, first=exact.first)  # fmt: skip
    # Half up and down always have constants, but not always of 64 bits.
    if found.mismatches and exact.rounding in (Rounding.HALF_UP, Rounding.FLOOR):
        raise InexactError("must read {name!r}, whose constants would need more than 64 bits")
    return found


def _of_levels(exact: Exact, channel: int, low: int, high: int) -> Solution:
    """Constants that put every threshold where the levels of a channel do."""
    sign = -1 if exact.slope[channel] < 0 else 1
    least, most = sorted((sign * low, sign * high))
    found = fit(_level_thresholds(exact, channel, least, most), least, most, limits=INT64)
    if found is None:
        raise InexactError(
            "must read {name!r}, whose thresholds a multiplier, a bias and a shift can put: "
            f"not so those of channel {channel}"
        )
    return dataclasses.replace(found, multiplier=sign * found.multiplier)


def _level_thresholds(exact: Exact, channel: int, least: int, most: int) -> list[int]:
    """Thresholds of a channel's levels over ``least .. most``, which are accumulators times the sign of its slope."""
    assert exact.levels is not None
    slope, offset = abs(exact.slope[channel]), exact.offset[channel]
    never = [most + 1] * ((1 << exact.bits) - 1 - len(exact.levels[channel]))
    if slope == 0:
        return [least if offset >= level else most + 1 for level in exact.levels[channel]] + never
    return [min(max(math.ceil((x - offset) / slope), least), most + 1) for x in exact.levels[channel]] + never


def rationals(values: Any) -> np.ndarray:
    """Exact rationals of integers, binary fractions or rationals, as an array of objects of one dimension."""
    return np.array([Fraction(x) for x in np.asarray(values).ravel().tolist()], object)


def weight_codes(weights: np.ndarray) -> tuple[np.ndarray, int, Grid]:
    """Weight codes, bits and grid of integer weights: the fewest bits; the odd grid where that saves some.

    Raises
    ------
    InexactError
        If they need more than 16 bits.
    """
    low, high = int(weights.min()), int(weights.max())
    largest = max(-low, high)
    bits, grid = signed_width(low, high), Grid.TWOS_COMPLEMENT
    if largest < 1 << (bits - 1) and (weights % 2 == 1).all():
        bits, grid = max(1, largest.bit_length()), Grid.ODD
    if bits > MAX_CODE_BITS:
        raise InexactError(f"must have weights of at most {MAX_CODE_BITS} bits, not {low}..{high}")
    return (weights.astype(np.int64) + grid.c(bits)) // grid.p(bits), bits, grid


def _common_divisor(numbers: Iterable[Fraction]) -> Fraction:
    """The largest rational of which all are multiples; 1 if there are none but 0."""
    numerator, denominator = 0, 1
    for x in numbers:
        both = math.lcm(denominator, x.denominator)
        numerator = math.gcd(numerator * (both // denominator), int(x * both))
        denominator = both
    return Fraction(numerator, denominator) if numerator else Fraction(1)


def _round(values: np.ndarray, rounding: Rounding) -> np.ndarray:
    return np.array([x if abs(x) == INFINITY else Fraction(rounding.round(x)) for x in values], object)
