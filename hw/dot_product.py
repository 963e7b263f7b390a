"""Dot product of unsigned digits: one carry-save compressor tree over all lanes."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import checked_digit_bits, checked_integer
from hw.counters import Bit, bits_of, compress, concatenate

__all__ = ["DotProduct", "carry_save_sum", "register"]

ADDEND_ARRIVAL = 6  # the addend comes through a multiplexer; see the delays in hw.counters


def carry_save_sum(m: Module, columns: list[list[Bit]], *, complemented: bool = False) -> Value:
    """The sum, modulo ``2**len(columns)``, of columns of at most two bits: one carry-propagate adder.

    Columns of one bit below the first one of two are passed through. An empty column is 0.
    """
    rows = []
    for row in range(2):
        bits = [
            concatenate(column[row : row + 1]) if row < len(column) else C(complemented, 1) for column in columns
        ]
        rows.append(Signal(len(columns), name=f"row_{row}"))
        m.d.comb += rows[row].eq(~Cat(bits) if complemented else Cat(bits))
    low = next((weight for weight, column in enumerate(columns) if len(column) == 2), len(columns))
    return Cat(rows[0][:low], (rows[0][low:] + rows[1][low:])[: len(columns) - low])


def register(m: Module, columns: list[list[Bit]], name: str) -> list[list[Bit]]:
    """Columns of the same bits one cycle later, out of one register without reset."""
    value = concatenate(bit for column in columns for bit in column)
    stored = Signal(len(value), name=name, reset_less=True)
    m.d.sync += stored.eq(value)
    bits = iter(bits_of(stored))
    return [[next(bits) for _ in column] for column in columns]


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
        super().__init__(
            {"x": In(word), "w": In(word), "addend": In(self.acc_bits), "result": Out(self.acc_bits)}
        )

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
