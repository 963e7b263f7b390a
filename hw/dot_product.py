"""Dot product of unsigned digits: one carry-save compressor tree over all lanes."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import PIPELINED_DIGIT_BITS, checked_digit_bits, checked_integer
from hw.counters import Bit, bits_of, carry_save_sum, compress, register

__all__ = ["ADDEND_ARRIVAL", "DotProduct", "Form", "best_form", "checked_form"]

ADDEND_ARRIVAL = 6
"""How late the addend is, since it comes through a multiplexer; in the unit of :mod:`hw.counters`."""


class Form(enum.StrEnum):
    """What the compressor tree adds up.

    The bits to be added per lane, each of which costs a full adder, decide the area.
    """

    AND = "and"
    """The d*d partial-product bits of every lane, each an AND: the plain form that others are compared with."""

    NAND = "nand"
    """The same bits complemented, each a NAND. A full adder is its own dual, so the whole tree works on complements,
    and its last two rows are complemented back."""

    PAIRS = "pairs"
    """d*(d + 1) bits for two lanes a and b instead of 2*d*d: for every i, bit i of both weights selects 0, x_a, x_b or
    x_a + x_b, made once for all rows. Complemented like NAND. An odd lane that is left over has NANDs."""


def best_form(digit_bits: int) -> Form:
    """The form with the least area: what a selection costs is earned back from 4-bit digits up."""
    return Form.PAIRS if digit_bits >= 4 else Form.NAND


class DotProduct(wiring.Component):
    """``result = addend + sum(x[l] * w[l])`` modulo ``2**acc_bits``, all digits unsigned.

    The bits of ``form`` go, with the addend, through one carry-save compressor tree of logarithmic depth over all
    lanes, and then through one carry-propagate adder.

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
        Whether a register stands where the tree of the products has come down to two rows, before the addend joins.
        ``None``: from 8-bit digits up.
    form : :class:`Form` or ``None``
        ``None``: :func:`best_form`.

    Attributes
    ----------
    latency : :class:`int`
        1 with the pipeline register, else 0.

    Members
    -------
    x, w : ``In(data.ArrayLayout(digit_bits, lanes))``
        Digits.
    pair_sums : ``In(data.ArrayLayout(digit_bits + 1, lanes // 2))``
        ``x[2*p] + x[2*p + 1]``, in the same cycle. Only in the form PAIRS of at least two lanes.
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

    def __init__(
        self,
        *,
        lanes: int,
        digit_bits: int,
        acc_bits: int,
        pipeline: bool | None = None,
        form: Form | str | None = None,
    ) -> None:
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        self.digit_bits = checked_digit_bits(digit_bits)
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2 * self.digit_bits)
        self.pipeline = self.digit_bits >= PIPELINED_DIGIT_BITS if pipeline is None else bool(pipeline)
        self.form = checked_form(form, self.digit_bits)
        self.latency = 1 if self.pipeline else 0
        self.pairs = self.lanes // 2 if self.form is Form.PAIRS else 0
        word = data.ArrayLayout(self.digit_bits, self.lanes)
        sums = {"pair_sums": In(data.ArrayLayout(self.digit_bits + 1, self.pairs))} if self.pairs else {}
        super().__init__(
            {"x": In(word), "w": In(word), **sums, "addend": In(self.acc_bits), "result": Out(self.acc_bits)}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        complemented = self.form is not Form.AND
        columns: list[list[Bit]] = [[] for _ in range(self.acc_bits)]

        def add(name: str, weight: int, bits: Value) -> None:
            named = Signal(len(bits), name=f"{name}_n" if complemented else name)
            m.d.comb += named.eq(~bits if complemented else bits)
            columns[weight] += bits_of(named)

        def plane(word: Value, bit: int, lanes: slice) -> Value:
            """One bit of the digits of ``lanes``."""
            return Cat(word[bit :: self.digit_bits][lanes])

        x, w = self.x.as_value(), self.w.as_value()
        paired = 2 * self.pairs
        for i in range(self.digit_bits):
            if paired:
                a, b = plane(w, i, slice(0, paired, 2)), plane(w, i, slice(1, paired, 2))
                only_a, only_b, both = (Signal(self.pairs, name=f"{name}_{i}") for name in ("only_a", "only_b", "both"))
                m.d.comb += [only_a.eq(a & ~b), only_b.eq(~a & b), both.eq(a & b)]
                sums = self.pair_sums.as_value()
                for j in range(self.digit_bits + 1):
                    selected = both & Cat(sums[j :: self.digit_bits + 1])
                    if j < self.digit_bits:
                        selected |= only_a & plane(x, j, slice(0, paired, 2))
                        selected |= only_b & plane(x, j, slice(1, paired, 2))
                    add(f"selected_{i}_{j}", i + j, selected)
            if paired < self.lanes:
                rest = slice(paired, None)
                for j in range(self.digit_bits):
                    add(f"products_{i}_{j}", i + j, plane(w, i, rest) & plane(x, j, rest))

        if self.pipeline:
            columns = compress(m, columns, complemented=complemented, prefix="product")
            columns = register(m, columns, "carry_save_n" if complemented else "carry_save")

        addend = Signal(self.acc_bits, name="addend_n" if complemented else "addend_0")
        m.d.comb += addend.eq(~self.addend if complemented else self.addend)
        for column, bit in zip(columns, bits_of(addend, ADDEND_ARRIVAL), strict=True):
            column.append(bit)
        columns = compress(m, columns, complemented=complemented, prefix="sum")
        m.d.comb += self.result.eq(carry_save_sum(m, columns, complemented=complemented))
        return m


def checked_form(form: Form | str | None, digit_bits: int) -> Form:
    """The form that is meant; ``None`` is :func:`best_form`.

    Raises
    ------
    :class:`ValueError`
        There is no such form.
    """
    if form is None:
        return best_form(digit_bits)
    if form not in set(Form):
        raise ValueError(f"Form must be one of {', '.join(Form)}, not {form!r}")
    return Form(form)
