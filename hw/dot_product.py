"""Dot product of unsigned digits: one carry-save compressor tree over all lanes."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import checked_digit_bits, checked_integer
from hw.counters import Bit, bits_of, carry_save_sum, compress, register

__all__ = ["ADDEND_ARRIVAL", "DotProduct"]

ADDEND_ARRIVAL = 6
"""How late the addend is, since it comes through a multiplexer; in the unit of :mod:`hw.counters`."""


class DotProduct(wiring.Component):
    """``result = addend + sum(x[l] * w[l])`` modulo ``2**acc_bits``, all digits unsigned.

    The d*d partial-product bits of every lane go, with the addend, through one carry-save compressor tree of
    logarithmic depth over all lanes, and then through one carry-propagate adder. Cost per lane: d*d NAND gates and
    d*d full adders. The partial products are kept complemented, which is a NAND in the place of an AND; since a
    full adder is its own dual, the whole tree then works on complements and its two last rows are complemented back.

    Rate: one product per cycle. Latency from ``x`` and ``w`` to ``result``: ``latency`` cycles; from ``addend``
    none. The addend is the one to be added to the ``x`` and ``w`` of ``latency`` cycles before. No reset.

    Parameters
    ----------
    lanes : :class:`int`
        Number of digit pairs; at least 1.
    digit_bits : :class:`int`
        Width d of a digit: 1, 2, 4, 8 or 16.
    acc_bits : :class:`int`
        Width of addend and result, at least 2*d.
    pipeline : :class:`bool` or ``None``
        Whether a register stands where the tree of the partial products has come down to two rows, before the
        addend joins. ``None``: from 8-bit digits up.

    Attributes
    ----------
    latency : :class:`int`
        1 with the pipeline register, else 0.

    Members
    -------
    x, w : ``In(data.ArrayLayout(digit_bits, lanes))``
        Digits.
    addend : ``In(acc_bits)``
        Added to the products; may come later than the digits.
    result : ``Out(acc_bits)``
        The sum.

    Raises
    ------
    :class:`TypeError`
        A parameter is not an integer.
    :class:`ValueError`
        A parameter is outside its range.
    """

    def __init__(self, *, lanes: int, digit_bits: int, acc_bits: int, pipeline: bool | None = None) -> None:
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        self.digit_bits = checked_digit_bits(digit_bits)
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2 * self.digit_bits)
        self.pipeline = self.digit_bits >= 8 if pipeline is None else bool(pipeline)
        self.latency = 1 if self.pipeline else 0
        word = data.ArrayLayout(self.digit_bits, self.lanes)
        super().__init__({"x": In(word), "w": In(word), "addend": In(self.acc_bits), "result": Out(self.acc_bits)})

    def elaborate(self, platform) -> Module:
        m = Module()

        def plane(word, digit_bit: int) -> Signal:
            """One bit of every lane's digit."""
            return Cat(word.as_value()[digit_bit :: self.digit_bits])

        columns: list[list[Bit]] = [[] for _ in range(self.acc_bits)]
        for i in range(self.digit_bits):
            for j in range(self.digit_bits):
                products_n = Signal(self.lanes, name=f"products_{i}_{j}_n")
                m.d.comb += products_n.eq(~(plane(self.w, i) & plane(self.x, j)))
                columns[i + j] += bits_of(products_n)

        if self.pipeline:
            columns = register(m, compress(m, columns, complemented=True, prefix="product"), "carry_save_n")

        addend_n = Signal(self.acc_bits)
        m.d.comb += addend_n.eq(~self.addend)
        for column, bit in zip(columns, bits_of(addend_n, ADDEND_ARRIVAL), strict=True):
            column.append(bit)
        columns = compress(m, columns, complemented=True, prefix="sum")
        m.d.comb += self.result.eq(carry_save_sum(m, columns, complemented=True))
        return m
