"""The smallest requantizer of a fixed output width: thresholds where they serve, else multiplication and shift."""

from __future__ import annotations

from hw.config import MAX_OUTPUT_BITS, checked_integer
from hw.pact_unit import PactUnit
from hw.threshold_unit import MAX_OUTPUT_BITS as MAX_THRESHOLD_BITS
from hw.threshold_unit import ThresholdUnit

__all__ = ["requantizer"]


def requantizer(
    *,
    acc_bits: int,
    output_bits: int,
    multiplier_bits: int,
    bias_bits: int,
    max_shift: int,
    skip_bits: int = 0,
    skip_multiplier_bits: int = 0,
) -> ThresholdUnit | PactUnit:
    """The unit with the least area for codes of ``output_bits`` bits.

    Up to 4 bits and without a residual operand that is the :class:`~hw.threshold_unit.ThresholdUnit`: on every library
    in docs/results it has a third of the area of the :class:`~hw.pact_unit.PactUnit` at 4 bits, a tenth at 1. Its
    constants are more, ``(2**k - 1) * (acc_bits + 1) + 1`` bits a channel against M, B and S, and come from outside.

    Parameters
    ----------
    output_bits : :class:`int`
        k, 1 to 16.
    acc_bits, multiplier_bits, bias_bits, max_shift, skip_bits, skip_multiplier_bits
        As of :class:`~hw.pact_unit.PactUnit`; the constants' widths are of no meaning to thresholds.

    Raises
    ------
    :class:`TypeError`, :class:`ValueError`
        A parameter is no integer, or outside its range.
    """
    bits = checked_integer("Output width", output_bits, 1, MAX_OUTPUT_BITS)
    if bits <= MAX_THRESHOLD_BITS and not skip_bits:
        return ThresholdUnit(acc_bits=acc_bits, output_bits=bits)
    return PactUnit(
        acc_bits=acc_bits,
        multiplier_bits=multiplier_bits,
        bias_bits=bias_bits,
        max_shift=max_shift,
        max_output_bits=bits,
        output_bits=bits,
        skip_bits=skip_bits,
        skip_multiplier_bits=skip_multiplier_bits,
    )
