"""Dot product of unsigned digits: one carry-save compressor tree over all lanes."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import PIPELINED_DIGIT_BITS, checked_digit_bits, checked_integer
from hw.counters import Bit, bits_of, carry_save_sum, compress, compress_pipelined, two_rows

__all__ = ["ADDEND_ARRIVAL", "MAX_PIPELINE", "DotProduct", "Form", "best_form", "checked_form", "checked_pipeline"]

MAX_PIPELINE = 2

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
    x_a + x_b, made once for all rows. All that selects and is selected is complemented, which makes the selections
    NANDs and OAI222s. An odd lane that is left over has ANDs."""


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
    pipeline : :class:`int` or ``None``
        Registers in the tree, 0 to 2: one where the products have come down to two rows, before the addend joins; the
        second one half way there. ``None``: one from 8-bit digits up, else none.
    form : :class:`Form` or ``None``
        ``None``: :func:`best_form`.
    carry_save : :class:`bool`
        Whether addend and result are in carry-save form: two numbers each, and no carry-propagate adder.

    Attributes
    ----------
    latency : :class:`int`
        ``pipeline``.

    Members
    -------
    x, w : ``In(data.ArrayLayout(digit_bits, lanes))``
        Digits.
    x_n : ``In(data.ArrayLayout(digit_bits, lanes))``
        Complements of the digits, instead of ``x``, in the form PAIRS.
    pair_sums_n : ``In(data.ArrayLayout(digit_bits + 1, lanes // 2))``
        Complements of ``x[2*p] + x[2*p + 1]``, in the same cycle. In the form PAIRS of at least two lanes.
    addend : ``In(acc_bits)``
        Added to the products; may come later than the digits.
    result : ``Out(acc_bits)``
        The sum.
    addend_carry : ``In(acc_bits)``, result_carry : ``Out(acc_bits)``
        Their second numbers. Only with ``carry_save``.

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
        pipeline: int | None = None,
        form: Form | str | None = None,
        carry_save: bool = False,
    ) -> None:
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        self.digit_bits = checked_digit_bits(digit_bits)
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2 * self.digit_bits)
        self.pipeline = self.latency = checked_pipeline(pipeline, self.digit_bits)
        self.form = checked_form(form, self.digit_bits)
        self.pairs = self.lanes // 2 if self.form is Form.PAIRS else 0
        word = data.ArrayLayout(self.digit_bits, self.lanes)
        digits = {"x_n" if self.form is Form.PAIRS else "x": In(word), "w": In(word)}
        if self.pairs:
            digits["pair_sums_n"] = In(data.ArrayLayout(self.digit_bits + 1, self.pairs))
        self.carry_save = bool(carry_save)
        sums = {"addend": In(self.acc_bits), "result": Out(self.acc_bits)}
        if self.carry_save:
            sums |= {"addend_carry": In(self.acc_bits), "result_carry": Out(self.acc_bits)}
        super().__init__({**digits, **sums})

    def elaborate(self, platform) -> Module:
        m = Module()
        complemented = self.form is Form.NAND
        columns: list[list[Bit]] = [[] for _ in range(self.acc_bits)]

        def planes(word: Value, name: str, bits: int, lanes: slice = slice(None)) -> list[Signal]:
            """Bit by bit, that bit of every lane's digit."""
            found = []
            for bit in range(bits):
                plane = Cat(word[bit::bits][lanes])
                found.append(Signal(len(plane), name=f"{name}_{bit}"))
                m.d.comb += found[-1].eq(plane)
            return found

        def add(name: str, weight: int, value: Value) -> None:
            bits = Signal(len(value), name=name)
            m.d.comb += bits.eq(value)
            columns[weight] += bits_of(bits)

        d, end = self.digit_bits, 2 * self.pairs
        w = self.w.as_value()
        x = self.x_n.as_value() if self.form is Form.PAIRS else self.x.as_value()
        if self.pairs:
            w_a, w_b = (planes(w, f"w_{name}", d, slice(start, end, 2)) for start, name in enumerate("ab"))
            x_a_n, x_b_n = (planes(x, f"x_{name}_n", d, slice(start, end, 2)) for start, name in enumerate("ab"))
            sums_n = planes(self.pair_sums_n.as_value(), "sums_n", d + 1)
            for i in range(d):
                both_n, a_n, b_n = (Signal(self.pairs, name=f"{name}_{i}_n") for name in ("both", "only_a", "only_b"))
                m.d.comb += [
                    both_n.eq(~(w_a[i] & w_b[i])),
                    a_n.eq(~(w_a[i] & both_n)),
                    b_n.eq(~(w_b[i] & both_n)),
                ]
                for j in range(d):
                    selected_n = (a_n | x_a_n[j]) & (b_n | x_b_n[j]) & (both_n | sums_n[j])
                    add(f"selected_{i}_{j}", i + j, ~selected_n)
                add(f"selected_{i}_{d}", i + d, ~(both_n | sums_n[d]))
        if end < self.lanes:
            w_rest, x_rest = planes(w, "w", d, slice(end, None)), planes(x, "x", d, slice(end, None))
            for i in range(d):
                for j in range(d):
                    product = w_rest[i] & (~x_rest[j] if self.form is Form.PAIRS else x_rest[j])
                    if complemented:
                        add(f"products_{i}_{j}_n", i + j, ~product)
                    else:
                        add(f"products_{i}_{j}", i + j, product)

        columns = compress_pipelined(m, columns, registers=self.pipeline, complemented=complemented, prefix="product")

        for name in ("addend", "addend_carry") if self.carry_save else ("addend",):
            addend = Signal(self.acc_bits, name=f"{name}{'_n' if complemented else '_0'}")
            m.d.comb += addend.eq(~getattr(self, name) if complemented else getattr(self, name))
            for column, bit in zip(columns, bits_of(addend, ADDEND_ARRIVAL), strict=True):
                column.append(bit)
        columns = compress(m, columns, complemented=complemented, prefix="sum")
        if self.carry_save:
            first, second = two_rows(m, columns, complemented=complemented)
            m.d.comb += [self.result.eq(first), self.result_carry.eq(second)]
        else:
            m.d.comb += self.result.eq(carry_save_sum(m, columns, complemented=complemented))
        return m


def checked_pipeline(pipeline: int | None, digit_bits: int) -> int:
    """The number of registers that is meant; ``None`` is one from 8-bit digits up, else none.

    Raises
    ------
    :class:`TypeError`, :class:`ValueError`
        It is no integer, or there are not so many.
    """
    if pipeline is None:
        return int(digit_bits >= PIPELINED_DIGIT_BITS)
    return checked_integer("Number of pipeline registers", pipeline, 0, MAX_PIPELINE)


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
