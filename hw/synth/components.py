"""What the area report synthesizes: the array at several digit widths, the PACT unit at several output widths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.lib import wiring

from hw.config import DIGIT_WIDTHS, checked_digit_bits
from hw.mac_array import MacArray
from hw.pact_unit import PactUnit
from hw.threshold_unit import ThresholdUnit
from hw.verilog import generate

__all__ = ["DIGIT_WIDTHS", "KINDS", "OUTPUT_WIDTHS", "Subject", "arrays", "units"]

OUTPUT_WIDTHS = (1, 2, 3, 4, 8)
"""The output widths of the PACT units in the report."""

KINDS = ("array", "pact")
"""What ``components`` of the report chooses from."""

WORD_BITS = 128
UNIT_ACC_BITS = 24

# What lossless requantization took at these output widths, rounded up (2..5 bits at 2, 10..14 at 4, 17..23 at 8).
MULTIPLIER_BITS = {1: 6, 2: 8, 3: 12, 4: 16, 8: 24}

MAX_THRESHOLD_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One component with its parameters, as one row of the report.

    Members
    -------
    component : :class:`str`
        ``mac_array``; ``pact_unit`` (k at run time), ``pact_unit_fixed`` (k fixed), ``threshold_unit``.
    digit_bits, rows, lanes : :class:`int` or ``None``
        Arrays only.
    output_bits : :class:`int` or ``None``
        Units only: k, or the largest k where it comes at run time.
    """

    component: str
    accumulator_bits: int
    digit_bits: int | None = None
    rows: int | None = None
    lanes: int | None = None
    output_bits: int | None = None

    @property
    def title(self) -> str:
        """What progress and errors call it."""
        if self.component == "mac_array":
            return f"mac_array d={self.digit_bits}"
        return f"{self.component} k={self.output_bits}"

    @property
    def macs(self) -> int | None:
        """Digit products per cycle. Arrays only."""
        return None if self.rows is None or self.lanes is None else self.rows * self.lanes

    def _component(self) -> wiring.Component:
        if self.component == "mac_array":
            assert self.rows is not None and self.lanes is not None and self.digit_bits is not None
            return MacArray(
                rows=self.rows, lanes=self.lanes, digit_bits=self.digit_bits, acc_bits=self.accumulator_bits
            )
        assert self.output_bits is not None
        if self.component == "threshold_unit":
            return ThresholdUnit(acc_bits=self.accumulator_bits, output_bits=self.output_bits)
        multiplier_bits = MULTIPLIER_BITS[self.output_bits]
        return PactUnit(
            acc_bits=self.accumulator_bits,
            multiplier_bits=multiplier_bits,
            bias_bits=self.accumulator_bits + multiplier_bits,
            max_shift=self.accumulator_bits + multiplier_bits - 1,
            max_output_bits=self.output_bits,
            output_bits=self.output_bits if self.component == "pact_unit_fixed" else None,
        )

    def verilog(self) -> str:
        """The generated Verilog; its top module is called as the component."""
        return generate(self._component(), name=self.component)


def arrays(
    digit_bits: Iterable[int] = DIGIT_WIDTHS,
    *,
    rows: int,
    lanes: int | None = None,
    accumulator_bits: int | None = None,
) -> list[Subject]:
    """One array per digit width.

    Parameters
    ----------
    lanes : :class:`int` or ``None``
        ``None``: as many as make an activation word of 128 bits.
    accumulator_bits : :class:`int` or ``None``
        ``None``: 2*d + 12, which is 4096 products; the rule decides a third of the area at d = 1, so a density says
        little without it.
    """
    return [
        Subject(
            component="mac_array",
            accumulator_bits=2 * d + 12 if accumulator_bits is None else accumulator_bits,
            digit_bits=d,
            rows=rows,
            lanes=WORD_BITS // d if lanes is None else lanes,
        )
        for d in map(checked_digit_bits, digit_bits)
    ]


def units(output_bits: Iterable[int] = OUTPUT_WIDTHS) -> list[Subject]:
    """The PACT unit in its forms per output width: thresholds (to 4 bits), k fixed, k at run time.

    24-bit accumulators, constants from outside; multipliers as wide as lossless requantization was seen to need.
    """
    widths = list(output_bits)
    for width in widths:
        if width not in OUTPUT_WIDTHS:
            raise ValueError(f"Output width must be one of {', '.join(map(str, OUTPUT_WIDTHS))}, not {width!r}")
    return [
        Subject(component=component, accumulator_bits=UNIT_ACC_BITS, output_bits=width)
        for component in ("threshold_unit", "pact_unit_fixed", "pact_unit")
        for width in widths
        if component != "threshold_unit" or width <= MAX_THRESHOLD_BITS
    ]
