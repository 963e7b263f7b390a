"""From sums of unsigned codes to signed accumulators: what the two weight grids add to an unsigned array."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import MAX_WEIGHT_BITS, checked_integer

__all__ = ["OffsetCorrection"]


class OffsetCorrection(wiring.Component):
    """``sum(W*u) = p*sum(n*u) - c*sum(u)`` modulo ``2**acc_bits``, for several rows with one ``sum(u)``.

    Two's complement grid: p = 1, c = 2**(w-1). Odd grid: p = 2, c = 2**w - 1. So c takes one shifter and one
    subtraction for all lanes, and each lane one subtraction. Combinational.

    Parameters
    ----------
    acc_bits : :class:`int`
        Width of all sums, at least 2.
    lanes : :class:`int`
        Rows corrected together, at least 1.

    Members
    -------
    i_rows : ``In(data.ArrayLayout(acc_bits, lanes))``
        ``sum(n*u)`` per row.
    i_ones : ``In(acc_bits)``
        ``sum(u)``.
    weight_bits : ``In(range(17))``
        w, 1 to 16; others have no meaning.
    odd : ``In(1)``
        Odd grid instead of two's complement.
    o : ``Out(data.ArrayLayout(acc_bits, lanes))``
        ``sum(W*u)`` per row, two's complement.

    Raises
    ------
    :class:`TypeError`
        A parameter is not an integer.
    :class:`ValueError`
        A parameter is outside its range.
    """

    def __init__(self, *, acc_bits: int, lanes: int) -> None:
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2)
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        sums = data.ArrayLayout(self.acc_bits, self.lanes)
        super().__init__(
            {
                "i_rows": In(sums),
                "i_ones": In(self.acc_bits),
                "weight_bits": In(range(MAX_WEIGHT_BITS + 1)),
                "odd": In(1),
                "o": Out(sums),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        exponent = Signal(range(MAX_WEIGHT_BITS))
        half = Signal(self.acc_bits)
        offset = Signal(self.acc_bits)
        m.d.comb += [
            exponent.eq(self.weight_bits - 1),
            half.eq(self.i_ones << exponent),
            # c*u: 2**(w-1) * u, or twice that less u.
            offset.eq(Mux(self.odd, (half << 1) - self.i_ones, half)),
        ]
        for lane in range(self.lanes):
            row = self.i_rows[lane]
            m.d.comb += self.o[lane].eq(Mux(self.odd, row << 1, row) - offset)
        return m
