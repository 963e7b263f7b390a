"""What the area report synthesizes: the array at several digit widths, what it is compared with, the PACT unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from amaranth.lib import wiring

from hw.config import DIGIT_WIDTHS, checked_digit_bits, checked_integer
from hw.dot_product import MAX_PIPELINE, Form, best_form, checked_pipeline
from hw.mac_array import MacArray
from hw.pact_unit import PactUnit
from hw.synth import baselines
from hw.synth.technology import Kind
from hw.threshold_unit import ThresholdUnit
from hw.verilog import generate

__all__ = ["DIGIT_WIDTHS", "KINDS", "OUTPUT_WIDTHS", "SERIES", "Series", "Subject", "arrays", "series", "units"]

OUTPUT_WIDTHS = (1, 2, 3, 4, 8)
"""The output widths of the PACT units in the report."""

KINDS = ("array", "pact")
"""What ``components`` of the report chooses from."""

WORD_BITS = 128
UNIT_ACC_BITS = 24

ROWS = {1: 16, 2: 16, 4: 16, 8: 8, 16: 8}
"""Rows of the arrays by digit width."""

FPGA_ROWS = {1: 4, 2: 4, 4: 2, 8: 1, 16: 1}
"""Likewise on FPGAs: such that every array fits the largest iCE40."""

NATIVE_BITS = 8
"""The width of the product that the arrays of narrower digits make in several passes."""

WIDE_ACCUMULATOR_BITS = 32

# What lossless requantization took at these output widths, rounded up (2..5 bits at 2, 10..14 at 4, 17..23 at 8).
MULTIPLIER_BITS = {1: 6, 2: 8, 3: 12, 4: 16, 8: 24}

MAX_THRESHOLD_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Series:
    """Designs of one kind at several widths.

    Members
    -------
    title : :class:`str`
        For tables and plots.
    digit_bits : tuple of :class:`int`
        Their widths.
    everywhere : :class:`bool`
        Whether the report has it of every technology, not only of those in detail.
    fpga : :class:`bool`
        Whether it says something on FPGAs.
    """

    title: str
    digit_bits: tuple[int, ...] = DIGIT_WIDTHS
    everywhere: bool = True
    fpga: bool = False


SERIES = {
    "best": Series(title="array, best form", fpga=True),
    "fast": Series(title="array, two pipeline registers, 1 GHz"),
    "and": Series(title="array of AND products", digit_bits=(2, 16)),
    "nand": Series(title="array of NAND products", everywhere=False),
    "pairs": Series(title="array of pair sums", everywhere=False),
    "unpipelined": Series(title="array without pipeline register", digit_bits=(8, 16), everywhere=False),
    "wide": Series(
        title=f"array, {WIDE_ACCUMULATOR_BITS}-bit accumulators", digit_bits=(2, 4, NATIVE_BITS), everywhere=False
    ),
    "plain": Series(title="sum(w*x) left to Yosys", fpga=True),
    "booth": Series(title="sum(w*x) left to Yosys, Booth", digit_bits=(4, 8, 16)),
    "mac": Series(title="one MAC, accumulator 2k + 8 bits", digit_bits=(2, 4, 8, 16)),
    "signed_mac": Series(title="acc <= acc + a*b, signed", digit_bits=(NATIVE_BITS,)),
    "signed_mac_booth": Series(title="acc <= acc + a*b, signed, Booth", digit_bits=(NATIVE_BITS,)),
}
"""The report's series by name. ``best`` is the form that the generator chooses for a width."""

MACS = ("mac", "signed_mac", "signed_mac_booth")
"""The series of single multiply-accumulate units."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One component with its parameters, as one row of the report.

    Members
    -------
    series : :class:`str`
        Of :data:`SERIES`; empty for units.
    component : :class:`str`
        ``mac_array``, ``plain_array``, ``mac``, ``signed_mac``; ``pact_unit`` (k at run time), ``pact_unit_fixed``
        (k fixed), ``threshold_unit``.
    digit_bits, rows, lanes : :class:`int` or ``None``
        Arrays and single multiply-accumulate units only.
    form : :class:`~hw.dot_product.Form` or ``None``
        Arrays only.
    pipeline : :class:`int` or ``None``
        Pipeline registers of arrays; ``None``: as the width has by default.
    booth : :class:`bool`
        Whether Yosys makes products that are left to it Booth multipliers.
    output_bits : :class:`int` or ``None``
        PACT units only: k, or the largest k where it comes at run time.
    """

    series: str = ""
    component: str
    accumulator_bits: int
    digit_bits: int | None = None
    rows: int | None = None
    lanes: int | None = None
    form: Form | None = None
    pipeline: int | None = None
    booth: bool = True
    output_bits: int | None = None

    @property
    def title(self) -> str:
        """What progress and errors call it."""
        if self.digit_bits is not None:
            series = f" {self.series}" if self.series not in ("", "best", self.component) else ""
            return f"{self.component}{series} d={self.digit_bits}"
        return f"{self.component} k={self.output_bits}"

    @property
    def macs(self) -> int | None:
        """Digit products per cycle. Arrays and single units only."""
        return None if self.rows is None or self.lanes is None else self.rows * self.lanes

    @property
    def is_array(self) -> bool:
        """Whether it has the array's interface and registers."""
        return self.component in ("mac_array", "plain_array")

    @property
    def size(self) -> int:
        """About how long it takes to synthesize, in any unit."""
        return (self.macs or 1) * (self.digit_bits or 8) ** 2 * (1 if self.component == "mac_array" else 4)

    def _component(self) -> wiring.Component:
        if self.is_array:
            assert self.rows is not None and self.lanes is not None and self.digit_bits is not None
            sizes: dict[str, Any] = {
                "rows": self.rows,
                "lanes": self.lanes,
                "digit_bits": self.digit_bits,
                "acc_bits": self.accumulator_bits,
            }
            if self.component == "plain_array":
                return baselines.PlainArray(**sizes)
            return MacArray(**sizes, form=self.form, pipeline=self.pipeline)
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
        """The Verilog; its top module is called as the component."""
        if self.component in ("mac", "signed_mac"):
            assert self.digit_bits is not None
            return getattr(baselines, self.component)(self.digit_bits, self.accumulator_bits)
        return generate(self._component(), name=self.component)


def arrays(
    digit_bits: Iterable[int] = DIGIT_WIDTHS,
    *,
    kind: Kind = Kind.CELLS,
    rows: int | None = None,
    lanes: int | None = None,
    accumulator_bits: int | None = None,
    form: Form | None = None,
    pipeline: int | None = None,
    plain: bool = False,
    series: str = "best",
    booth: bool = True,
) -> list[Subject]:
    """One array per digit width.

    Parameters
    ----------
    kind : :class:`~hw.synth.technology.Kind`
        Of the technology.
    rows : :class:`int` or ``None``
        ``None``: :data:`ROWS`, on FPGAs :data:`FPGA_ROWS`.
    lanes : :class:`int` or ``None``
        ``None``: as many as make an activation word of 128 bits.
    accumulator_bits : :class:`int` or ``None``
        ``None``: 2*d + 12, which is 4096 products; the rule decides a third of the area at d = 1, so a density says
        little without it.
    form : :class:`~hw.dot_product.Form` or ``None``
        ``None``: the best one for the width.
    pipeline : :class:`int` or ``None``
        As of :class:`Subject`.
    plain : :class:`bool`
        Whether products and sums are left to Yosys; then there is no form.

    Raises
    ------
    :class:`ValueError`
        A number is outside its range.
    """
    table = FPGA_ROWS if kind is Kind.FPGA else ROWS
    if rows is not None:
        checked_integer("Number of rows", rows, 1)
    if lanes is not None:
        checked_integer("Number of lanes", lanes, 1)
    return [
        Subject(
            series=series,
            component="plain_array" if plain else "mac_array",
            accumulator_bits=2 * d + 12 if accumulator_bits is None else accumulator_bits,
            digit_bits=d,
            rows=table[d] if rows is None else rows,
            lanes=WORD_BITS // d if lanes is None else lanes,
            form=None if plain else form or best_form(d),
            pipeline=None if plain else checked_pipeline(pipeline, d),
            booth=booth,
        )
        for d in map(checked_digit_bits, digit_bits)
    ]


def series(
    name: str,
    digit_bits: Iterable[int] = DIGIT_WIDTHS,
    *,
    kind: Kind = Kind.CELLS,
    rows: int | None = None,
    lanes: int | None = None,
) -> list[Subject]:
    """The designs of one of :data:`SERIES`, at those of its widths that are in ``digit_bits``.

    Raises
    ------
    :class:`ValueError`
        There is no such series.
    """
    if name not in SERIES:
        raise ValueError(f"Series must be one of {', '.join(SERIES)}, not {name!r}")
    widths = [d for d in map(checked_digit_bits, digit_bits) if d in SERIES[name].digit_bits]
    if name in MACS:
        return [
            Subject(
                series=name,
                component=name.removesuffix("_booth"),
                accumulator_bits=2 * d + 8,
                digit_bits=d,
                rows=1,
                lanes=1,
                booth=name.endswith("_booth"),
            )
            for d in widths
        ]
    return arrays(
        widths,
        kind=kind,
        rows=rows,
        lanes=lanes,
        accumulator_bits=WIDE_ACCUMULATOR_BITS if name == "wide" else None,
        form=Form(name) if name in set(Form) else None,
        pipeline={"unpipelined": 0, "fast": MAX_PIPELINE}.get(name),
        plain=name in ("plain", "booth"),
        series=name,
        booth=name != "plain",
    )


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
