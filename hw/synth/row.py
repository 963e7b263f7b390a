"""One line of the area report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw.synth.parts import BODY, PARTS

__all__ = ["Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a technology's CSV file; the members are its columns, empty where they do not apply.

    Area, lookup tables, cells and flip-flops of an array include its activation registers, buffers and accumulators,
    and leave its weight registers, ones row and drain registers to columns of their own. A MAC is one d×d digit
    product, so there are ``rows * lanes`` of them. *Cost* is the area, or lookup tables, or cells where there is
    neither.

    Members
    -------
    series : :class:`str`
        What it is compared with: the rows of one series differ in width only. See
        :data:`hw.synth.components.SERIES`.
    component : :class:`str`
        The Verilog module.
    form : :class:`str` or ``None``
        Of the array's dot products.
    pipeline_registers : :class:`int` or ``None``
        In the array's dot products.
    clock_ns : :class:`float` or ``None``
        The period that ABC mapped for.
    products, ..., control : :class:`float` or ``None``
        The cost by part, see :data:`hw.synth.parts.BODY`; their sum is the whole. Lookup tables on FPGAs.
    weight_register, ones_row, drain : :class:`float` or ``None``
        The cost of what is apart.
    delay_ns : :class:`float` or ``None``
        The shortest period by OpenSTA, wires ideal.
    fmax_mhz : :class:`float` or ``None``
        The highest clock frequency after place and route, by nextpnr.
    ratio_to_floor : :class:`float` or ``None``
        Area per MAC over d² times that of an AND gate and a full adder.
    ratio_to_16, ratio_to_16_with_weights : :class:`float` or ``None``
        How many times denser than the row of 16 bits of the same series and clock, without and with the weight
        registers.
    plain_ratio, booth_ratio : :class:`float` or ``None``
        The cost per MAC of the same array with its products and sums left to Yosys, over this one's.
    signed_mac_ratio : :class:`float` or ``None``
        The area of one signed 8-bit multiply-accumulate unit over that of a MAC. 8-bit digits only.
    passes, pass_ratio
        How many cycles an 8×8 product takes, and the cost of a native one over the cost of this one times its passes.
    """

    series: str = ""
    component: str
    form: str | None = None
    pipeline_registers: int | None = None
    digit_bits: int | None = None
    output_bits: int | None = None
    rows: int | None = None
    lanes: int | None = None
    accumulator_bits: int
    clock_ns: float | None = None
    area_um2: float | None = None
    area_per_mac_um2: float | None = None
    products: float | None = None
    tree: float | None = None
    accumulator: float | None = None
    pipeline: float | None = None
    activation_register: float | None = None
    distribution: float | None = None
    control: float | None = None
    weight_register: float | None = None
    ones_row: float | None = None
    drain: float | None = None
    delay_ns: float | None = None
    fmax_mhz: float | None = None
    cells: int
    ffs: int
    luts: int | None = None
    full_adders: int
    half_adders: int
    weight_register_ffs: int | None = None
    ratio_to_floor: float | None = None
    ratio_to_16: float | None = None
    ratio_to_16_with_weights: float | None = None
    plain_ratio: float | None = None
    booth_ratio: float | None = None
    signed_mac_ratio: float | None = None
    passes: int | None = None
    pass_ratio: float | None = None

    @property
    def macs(self) -> int | None:
        """Digit products per cycle. Arrays only."""
        return self.rows * self.lanes if self.rows and self.lanes else None

    @property
    def cost(self) -> float:
        """Area, or lookup tables, or cells: what the technology counts in."""
        return self.cells if self.area_um2 is None and self.luts is None else self.area_um2 or self.luts or 0

    @property
    def cost_per_mac(self) -> float | None:
        """``cost / (rows * lanes)``. Arrays only."""
        return self.cost / self.macs if self.macs else None

    @property
    def parts(self) -> Mapping[str, float]:
        """The cost by part, those apart included; empty where it was not split."""
        values = {name: getattr(self, name) for name in PARTS}
        return values if all(value is not None for value in values.values()) else {}

    @property
    def body(self) -> Mapping[str, float]:
        """The parts that the area per MAC counts."""
        return {name: value for name, value in self.parts.items() if name in BODY}
