"""Values between two roundings: exact rational functions of accumulators and codes, per channel.

What an imported file computes between two clips is ``slope*acc + slopes*codes + offset``, rounded once and clamped. An
:class:`Expression` is that, in whatever order the file multiplies, adds, divides, rounds and clips. It proves how wide
its integers are (:meth:`Expression.code_range`); :func:`requantization` turns it into the constants of an operation.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from golden.network import MAX_CODE_BITS, MAX_SHIFT, Conv2d, Requantize, Tensor, signed_width
from golden.requantize import solve

__all__ = ["INFINITY", "Code", "Expression", "InexactError", "Sum", "rationals", "requantization"]

INFINITY = math.inf

Shape = tuple[int, int, int]


class InexactError(ValueError):
    """An expression that codes cannot hold; the reason, to be put behind the name of who needs them."""


@dataclass(frozen=True)
class Code:
    """A tensor of codes, and the integers that are known to be all it takes; 0 is one of them.

    An integer of the file is ``code - zero_point + fill``, where ``fill`` is what the file pads the tensor with.
    """

    tensor: Tensor
    low: int
    high: int
    fill: int = 0

    @property
    def zero(self) -> int:
        """The code of the file's 0."""
        return self.tensor.zero_point - self.fill

    @property
    def codes(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return self.low + self.zero, self.high + self.zero


@dataclass(frozen=True)
class Sum:
    """The accumulators of a convolution that is not in the network yet.

    Parameters
    ----------
    operation : :class:`~golden.network.Conv2d`
        Without constants; its output's name does not count.
    source : :class:`Code`
        What it reads.
    pooled : :class:`bool`
        It sums up the whole map, channel by channel.
    """

    operation: Conv2d
    source: Code
    pooled: bool = False

    @property
    def _positions(self) -> int:
        return math.prod(self.source.tensor.shape[1:]) if self.operation.broadcast else 1

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest accumulator per output channel, of the codes that the source really takes."""
        weights, (least, most) = self.operation.weights, self.source.codes
        low = np.minimum(weights * least, weights * most).sum(axis=(1, 2, 3)) * self._positions
        high = np.maximum(weights * least, weights * most).sum(axis=(1, 2, 3)) * self._positions
        return low, high

    def expression(self, shape: Shape) -> Expression:
        """The sum of the file's integers instead of codes: the zero point's share is in the offset."""
        sums = self.operation.weights.sum(axis=(1, 2, 3)) * self._positions
        one = rationals(np.ones(shape[0], np.int64))
        return dataclasses.replace(Expression.constant(shape, rationals(-self.source.zero * sums)), acc=self, slope=one)


@dataclass(eq=False)
class Expression:
    """``clamp(round(slope*acc + sum(slopes*codes) + offset), low, high)`` per channel.

    Codes and accumulators are raw: zero points are in the offset. Arrays are (C,), of exact rationals.

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
    rounding : ``"floor"``, ``"trunc"`` or ``None``
        Downwards, toward 0, or not at all.
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
    rounding: str | None = None
    fractional: str | None = None
    origin: str | None = None
    code: Code | None = None

    @classmethod
    def constant(cls, shape: Shape, offset: np.ndarray) -> Expression:
        """Numbers that depend on nothing."""
        return cls(shape, offset, np.full(shape[0], -INFINITY, object), np.full(shape[0], INFINITY, object))

    @classmethod
    def of(cls, code: Code) -> Expression:
        """The file's integers of a code tensor."""
        ones = np.ones(code.tensor.shape[0], np.int64)
        number = cls.constant(code.tensor.shape, rationals(-code.zero * ones))
        return dataclasses.replace(number, codes=((code, rationals(ones)),), code=code)

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
    def mean(self) -> Sum | None:
        """The sums over whole maps, if it is nothing but these times one number, plus an offset per channel."""
        if self.acc is None or not self.acc.pooled or not self.affine or self.codes or self.slope is None:
            return None
        return self.acc if len(set(self.slope)) == 1 else None

    def scaled(self, factor: np.ndarray) -> Expression:
        """Times a rational per channel. Only where nothing was rounded."""
        low, high = (
            np.array([x * f if f else Fraction(0) for x, f in zip(bounds, factor, strict=True)], object)
            for bounds in (self.low, self.high)
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
        """Plus a rational per channel. Where it was rounded: only downwards, and plus an integer."""
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

    def rounded(self, rounding: str) -> Expression:
        """Rounded; what can only be an integer stays as it is."""
        if self.whole:
            return self
        low, high = (_round(x, rounding) for x in (self.low, self.high))
        return dataclasses.replace(self, rounding=self.rounding or rounding, low=low, high=high, code=None)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest value per channel, rounded, before the clamp."""
        low = high = self.offset
        terms = [(*(np.array([x], object) for x in code.codes), slope) for code, slope in self.codes]
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

    def limits(self) -> tuple[int, int]:
        """Integers between which 0 and all values of all channels lie."""
        low, high = (
            [min(max(x, least), most) for x, least, most in zip(ends, self.low, self.high, strict=True)]
            for ends in self.bounds()
        )
        return min(0, math.floor(min(low))), max(0, math.ceil(max(high)))

    def code_range(self) -> tuple[int, int, bool]:
        """Smallest and largest integer of its codes, and whether values above the largest must be clipped.

        They are the bounds of the clip, if all channels have the same; where there is none, or one so far away that
        codes would be too wide, what can be reached.

        Raises
        ------
        InexactError
            If it is no integer, or codes of at most 16 bits cannot hold it.
        """
        if not self.whole:
            raise InexactError("must read integers, but {name!r} holds fractions: a Floor is missing")
        reached = self.limits()
        if self.rounding == "trunc" and reached[0] < 0:
            raise InexactError("must read what was rounded down, but {name!r} was rounded toward 0 and may be negative")
        bottom, top = (ends[0] if len(set(ends)) == 1 else default for ends, default in
                       ((self.low, -INFINITY), (self.high, INFINITY)))  # fmt: skip
        if bottom > 0 or top < 0:
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


def requantization(
    slopes: np.ndarray,
    skip: tuple[Code, np.ndarray] | None,
    offsets: np.ndarray,
    bits: int,
    bounds: tuple[np.ndarray, np.ndarray],
) -> Requantize:
    """Constants with ``(acc*M + skip*M_skip + B) >> S`` the floor of ``slope*acc + skip_slope*skip + offset``.

    Parameters
    ----------
    slopes, offsets : arrays of rationals (C,)
        Of each channel.
    skip : (:class:`Code`, array) or ``None``
        The residual operand and its slopes.
    bits : :class:`int`
        Of the output: outside 0..2**bits - 1 only the side counts.
    bounds : integer arrays (C,)
        Smallest and largest accumulator.

    Raises
    ------
    InexactError
        If no constants of 64 bits are exact.
    """
    rows = []
    skip_slopes = [Fraction(0)] * len(slopes) if skip is None else list(skip[1])
    for slope, skip_slope, offset, low, high in zip(slopes, skip_slopes, offsets, *bounds, strict=True):
        denominator = math.lcm(slope.denominator, skip_slope.denominator, offset.denominator)
        shift = denominator.bit_length() - 1
        row = [int(x * denominator) for x in (slope, skip_slope, offset)]
        if denominator != 1 << shift or shift > MAX_SHIFT or any(signed_width(x, x) > 64 for x in row):
            # r - 1/2 rounded half up is the floor of r.
            found = solve(slope, offset - Fraction(1, 2), bits, int(low), int(high), skip_slope=skip_slope,
                          skip_bits=0 if skip is None else skip[0].tensor.bits)  # fmt: skip
            if found.mismatches:
                raise InexactError("must read {name!r}, whose constants would need more than 64 bits")
            row, shift = [found.multiplier, found.skip_multiplier, found.bias], found.shift
        rows.append((*row, shift))
    m, ms, b, s = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Requantize(m, b, s, None if skip is None else ms)


def rationals(values: Any) -> np.ndarray:
    """Exact rationals of integers, binary fractions or rationals, as an array of objects of one dimension."""
    return np.array([Fraction(x) for x in np.asarray(values).ravel().tolist()], object)


def _round(values: np.ndarray, rounding: str) -> np.ndarray:
    number = math.floor if rounding == "floor" else math.trunc
    return np.array([x if abs(x) == INFINITY else Fraction(number(x)) for x in values], object)
