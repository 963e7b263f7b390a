"""One line of the area report."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Row"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of ``area-<pdk>.csv``; the members are its columns, empty where they do not apply.

    Area, cells and flip-flops of an array include its activation registers, buffers and accumulators, and leave its
    weight registers, ones row and drain registers to columns of their own.

    Members
    -------
    area_per_mac_um2 : :class:`float` or ``None``
        ``area_um2 / (rows * lanes)``, a MAC being one d×d digit product.
    ratio_to_16 : :class:`float` or ``None``
        How many times denser than the array of 16-bit digits: its cost per MAC over this one's (area, else lookup
        tables, else cells).
    clock_ns : :class:`float` or ``None``
        The period that ABC mapped for.
    delay_ns : :class:`float` or ``None``
        The shortest period by OpenSTA, wires ideal.
    """

    component: str
    digit_bits: int | None = None
    output_bits: int | None = None
    rows: int | None = None
    lanes: int | None = None
    accumulator_bits: int
    area_um2: float | None = None
    area_per_mac_um2: float | None = None
    ratio_to_16: float | None = None
    weight_register_um2: float | None = None
    ones_row_um2: float | None = None
    drain_um2: float | None = None
    delay_ns: float | None = None
    clock_ns: float | None = None
    cells: int
    ffs: int
    luts: int | None = None
    full_adders: int
    half_adders: int
    weight_register_ffs: int | None = None

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
