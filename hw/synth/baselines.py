"""What the array is compared with: the same array with its sums left to Yosys, and single multiply-accumulate units."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.mac_array import MacArray

__all__ = ["PlainArray", "PlainRow", "mac", "signed_mac"]


class PlainRow(wiring.Component):
    """A :class:`~hw.mac_array.MacRow` as one would write it: ``sum(x * w)`` and an accumulator, no word on adders.

    Parameters
    ----------
    lanes, digit_bits, acc_bits, pipeline
        As of :class:`~hw.mac_array.MacRow`.

    Members
    -------
    x, w, keep, shift, acc
        As of :class:`~hw.mac_array.MacRow`.
    """

    def __init__(self, *, lanes: int, digit_bits: int, acc_bits: int, pipeline: bool) -> None:
        self.lanes = lanes
        self.digit_bits = digit_bits
        self.acc_bits = acc_bits
        self.pipeline = pipeline
        word = data.ArrayLayout(digit_bits, lanes)
        super().__init__({"x": In(word), "w": In(word), "keep": In(1), "shift": In(1), "acc": Out(acc_bits)})

    def elaborate(self, platform) -> Module:
        m = Module()
        total = sum(x * w for x, w in zip(self.x, self.w))
        if self.pipeline:
            products = Signal(self.acc_bits, reset_less=True)
            m.d.sync += products.eq(total)
            total = products
        accumulator = Signal(self.acc_bits, reset_less=True)
        kept = Mux(self.shift, accumulator << self.digit_bits, Mux(self.keep, accumulator, 0))
        m.d.sync += accumulator.eq(kept + total)
        m.d.comb += self.acc.eq(accumulator)
        return m


class PlainArray(MacArray):
    """A :class:`~hw.mac_array.MacArray` of plain rows; registers, ones row, drain and interface are the same.

    Parameters
    ----------
    rows, lanes, digit_bits, acc_bits
        As of :class:`~hw.mac_array.MacArray`.
    """

    def __init__(self, *, rows: int, lanes: int, digit_bits: int, acc_bits: int) -> None:
        super().__init__(rows=rows, lanes=lanes, digit_bits=digit_bits, acc_bits=acc_bits, form="and")

    def _row(self, **parameters: Any) -> wiring.Component:
        return PlainRow(**parameters)


# Ports are declared without a sign: OpenSTA reads no other.
def mac(bits: int, accumulator_bits: int) -> str:
    """Verilog of one multiply-accumulate unit, signed weight by unsigned activation, with enable and reset."""
    return f"""\
module mac(
  input clk, rst, enable,
  input [{bits - 1}:0] w, x,
  output reg [{accumulator_bits - 1}:0] acc
);
  always @(posedge clk)
    if (rst) acc <= 0;
    else if (enable) acc <= $signed(acc) + $signed(w) * $signed({{1'b0, x}});
endmodule
"""


def signed_mac(bits: int, accumulator_bits: int) -> str:
    """Verilog of the multiply-accumulate unit that everybody writes first."""
    return f"""\
module signed_mac(
  input clk, rst,
  input [{bits - 1}:0] a, b,
  output reg [{accumulator_bits - 1}:0] acc
);
  always @(posedge clk)
    if (rst) acc <= 0;
    else acc <= $signed(acc) + $signed(a) * $signed(b);
endmodule
"""
