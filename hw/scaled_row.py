"""A row with two-level scales (VS-Quant): every vector's dot product times a scale product is what is accumulated.

Dai et al., "VS-Quant: Per-vector Scaled Quantization" (arXiv 2102.04503); the integers are those of
:class:`golden.network.VectorScales`.
"""

from __future__ import annotations

import enum

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.network import MAX_CODE_BITS, MAX_PRODUCT_SHIFT, signed_width
from hw.config import PIPELINED_DIGIT_BITS, checked_digit_bits, checked_integer
from hw.counters import Bit, bits_of, carry_save_sum, compress
from hw.dot_product import ADDEND_ARRIVAL, DotProduct, Form

__all__ = ["MultiplyAdd", "ScaleProduct", "ScaledRow", "Triple", "best_triple", "product_bits", "vector_bits"]

TRIPLE_ARRIVAL = 12
"""How late the high bits of that are; in the unit of :mod:`hw.counters`."""


def vector_bits(*, lanes: int, weight_bits: int, activation_bits: int, odd_grid: bool = False) -> int:
    """Width of the signed sum ``sum(W * u)`` over the lanes of one word, for every weight and code of these widths.

    Parameters
    ----------
    odd_grid : :class:`bool`
        Whether the weights may be on the odd grid; else they are two's complement.
    """
    step = lanes * ((1 << activation_bits) - 1)
    low, high = -(1 << (weight_bits - 1)), (1 << (weight_bits - 1)) - 1
    if odd_grid:
        # Twice the sums of the other grid go through the same register.
        low, high = min(2 * low, 1 - (1 << weight_bits)), (1 << weight_bits) - 1
    return signed_width(low * step, high * step)


def product_bits(*, weight_scale_bits: int, activation_scale_bits: int, product_shift: int) -> int:
    """Width of the largest ``(w*a + 2**(r-1)) >> r``; at least 1. Without activation scales that of w."""
    if not activation_scale_bits:
        return weight_scale_bits
    largest = ((1 << weight_scale_bits) - 1) * ((1 << activation_scale_bits) - 1)
    return max(1, (largest + (1 << product_shift >> 1) >> product_shift).bit_length())


class Triple(enum.StrEnum):
    """Whether two bits of a scale product P select 0, v, 2*v or 3*v of a vector's sum v, instead of each one 0 or v."""

    NONE = "none"
    """No."""

    MADE = "made"
    """Yes, with 3*v made in the cycle of the multiplication: half the bits to be added, but an adder before them."""

    STORED = "stored"
    """Yes, with 3*v in a register beside v: least delay where P is wide."""


def best_triple(*, vector_bits: int, product_bits: int) -> Triple:
    """The form with the least area among those that run at 500 MHz on Nangate45."""
    if product_bits <= 4:
        return Triple.NONE
    return Triple.MADE if vector_bits + 2 * product_bits <= 40 else Triple.STORED


class ScaleProduct(wiring.Component):
    """``o = (w*a + 2**(r-1)) >> r``: the product of two scales, rounded half up as golden does. Combinational.

    Parameters
    ----------
    weight_scale_bits, activation_scale_bits : :class:`int`
        Widths of w and a, 1 to 16.
    product_shift : :class:`int`
        r, 0 to 31; 0 does not round.

    Members
    -------
    w : ``In(weight_scale_bits)``
        Scale of the weights' vector.
    a : ``In(activation_scale_bits)``
        Scale of the activations' vector.
    o : ``Out(product_bits(...))``
        Their product.
    """

    def __init__(self, *, weight_scale_bits: int, activation_scale_bits: int, product_shift: int) -> None:
        self.weight_scale_bits = weight_scale_bits
        self.activation_scale_bits = activation_scale_bits
        self.product_shift = product_shift
        self.product_bits = product_bits(
            weight_scale_bits=weight_scale_bits,
            activation_scale_bits=activation_scale_bits,
            product_shift=product_shift,
        )
        super().__init__({"w": In(weight_scale_bits), "a": In(activation_scale_bits), "o": Out(self.product_bits)})

    def elaborate(self, platform) -> Module:
        m = Module()
        columns: list[list[Bit]] = [[] for _ in range(self.product_shift + self.product_bits)]
        for j in range(self.activation_scale_bits):
            products_n = Signal(self.weight_scale_bits, name=f"products_{j}_n")
            m.d.comb += products_n.eq(~(self.w & self.a[j].replicate(self.weight_scale_bits)))
            for i, bit in enumerate(bits_of(products_n)):
                # Beyond the largest product all bits are 0 together.
                if i + j < len(columns):
                    columns[i + j].append(bit)
        if self.product_shift:
            columns[self.product_shift - 1].append(Bit(0, C(0, 1), 0))
        columns = compress(m, columns, complemented=True, prefix="product")
        m.d.comb += self.o.eq(carry_save_sum(m, columns, complemented=True)[self.product_shift :])
        return m


class MultiplyAdd(wiring.Component):
    """``result = addend + a*b`` modulo ``2**width``, a signed, b unsigned: one compressor tree, one adder.

    Combinational. Each bit of b selects 0 or a. Given 3*a, each two bits select 0, a, 2*a or 3*a, which are half as
    many bits to be added. Sign bits count negative, as complements and a constant (C. Baugh and B. Wooley, "A two's
    complement parallel array multiplication algorithm", IEEE Trans. Computers C-22, 1973).

    Parameters
    ----------
    a_bits, b_bits, width : :class:`int`
        Widths of a, of b, and of addend and result; at least 1.
    triple : :class:`bool`
        Whether 3*a is given.
    late : :class:`bool`
        Whether it comes through an adder.

    Members
    -------
    a : ``In(signed(a_bits))``
        Factor.
    triple : ``In(signed(a_bits + 2))``
        3*a, if it is given.
    b : ``In(b_bits)``
        Factor.
    addend : ``In(width)``
        Added; may come a little later than the factors.
    result : ``Out(width)``
        The sum.
    """

    def __init__(self, *, a_bits: int, b_bits: int, width: int, triple: bool = False, late: bool = False) -> None:
        self.a_bits = checked_integer("Width of a", a_bits, 1)
        self.b_bits = checked_integer("Width of b", b_bits, 1)
        self.width = checked_integer("Width", width, 1)
        self.has_triple = bool(triple)
        self.late = bool(late)
        given = {"triple": In(signed(a_bits + 2))} if triple else {}
        super().__init__({"a": In(signed(a_bits)), **given, "b": In(b_bits), "addend": In(width), "result": Out(width)})

    def elaborate(self, platform) -> Module:
        m = Module()
        columns: list[list[Bit]] = [[] for _ in range(self.width)]
        constant = 0

        def add(weight: int, row: Value, late: bool) -> int:
            """Add a signed number, whose sign bit s counts as ~s less 1; return what is to be added for that."""
            named = Signal(len(row), name=f"selected_{weight}_n")
            m.d.comb += named.eq(Cat(~row[:-1], row[-1]))
            for offset, column in zip(range(len(row)), columns[weight:]):
                column.append(Bit(min(offset, TRIPLE_ARRIVAL) if late else 0, named, offset))
            return -1 << (weight + len(row) - 1)

        pairs = self.b_bits // 2 if self.has_triple else 0
        if pairs:
            width = self.a_bits + 2
            double = Cat(C(0, 1), self.a, self.a[-1])
            single = Cat(self.a, self.a[-1], self.a[-1])
            for pair in range(pairs):
                low, high = self.b[2 * pair], self.b[2 * pair + 1]
                choices = {"single": low & ~high, "double": ~low & high, "triple": low & high}
                selected = C(0, width)
                for (name, chosen), value in zip(choices.items(), (single, double, self.triple.as_unsigned())):
                    select = Signal(name=f"{name}_{pair}")
                    m.d.comb += select.eq(chosen)
                    selected = selected | (value & select.replicate(width))
                constant += add(2 * pair, selected, self.late)
        for number in range(2 * pairs, self.b_bits):
            constant += add(number, self.a.as_unsigned() & self.b[number].replicate(self.a_bits), False)

        addend_n = Signal(self.width)
        m.d.comb += addend_n.eq(~self.addend)
        for weight, (column, bit) in enumerate(zip(columns, bits_of(addend_n, ADDEND_ARRIVAL), strict=True)):
            column.append(bit)
            if constant >> weight & 1:
                column.append(Bit(0, C(0, 1), 0))
        columns = compress(m, columns, complemented=True, prefix="sum")
        m.d.comb += self.result.eq(carry_save_sum(m, columns, complemented=True))
        return m


class ScaledRow(wiring.Component):
    """One row: the dot product of a word, made signed, times the scale product of its vector, is accumulated.

    With one pass, every word is whole codes, and a vector's sum is ``v = sum(x[l] * w[l]) + offset``. With several,
    the digits of a word come pass after pass, ``s = (s if keep else 0) + (s << digit_bits if shift else 0) +
    sum(x[l] * w[l])`` (Horner), and ``v = (2*s if double else s) + offset``. Then ``acc = (0 if restart else acc) +
    v * P`` modulo ``2**acc_bits``, with P of :class:`ScaleProduct`, or ``weight_scale`` itself where there are no
    activation scales. v is signed; that it fits ``vector_bits`` is up to the user. All of it is exact.

    Rate: one pass per cycle. No enable and no reset: a cycle without a vector must have P = 0 or v = 0. With x and w
    of cycle t and L = ``pipeline``:

    * one pass: ``offset`` and the scales of cycle t + L, ``restart`` of t + L + 1; ``acc`` holds the vector in
      t + L + 2 = t + ``latency``;
    * several: ``keep`` and ``shift`` of cycle t + L, ``offset``, ``double`` and the scales one cycle later,
      ``restart`` two; ``acc`` holds the vector in t + L + 3.

    Parameters
    ----------
    lanes, digit_bits, form
        As of :class:`hw.dot_product.DotProduct`.
    pipeline : :class:`int` or ``None``
        Registers in the tree, 0 to 2. ``None``: one where digits have 8 bits or more and 3*v is stored, else none.
    weight_scale_bits : :class:`int`
        Width of the weights' scales, 1 to 16; without activation scales that of the scale product, 1 to 32.
    activation_scale_bits : :class:`int`
        Width of the activations' scales, 1 to 16; 0: there are none, or they are in the weights' scales already.
    product_shift : :class:`int`
        r, 0 to 31: how far the scale product is rounded; 0 without activation scales.
    vector_bits : :class:`int`
        Width of a vector's signed sum, at least 2*d; see :func:`vector_bits`.
    acc_bits : :class:`int`
        Width of the accumulator, at least ``vector_bits``.
    passes : :class:`bool`
        Whether a vector may take several passes.
    triple : :class:`Triple` or ``None``
        How v and P are multiplied. ``None``: :func:`best_triple`.
    odd_grid : :class:`bool`
        Whether the lowest bit of v comes from ``offset`` alone, so that with one pass v may be odd while
        ``x * w`` counts twice.

    Members
    -------
    x, x_n, pair_sums_n, w
        As of :class:`hw.dot_product.DotProduct`.
    offset : ``In(vector_bits)``
        Added to the vector's sum; common to all rows.
    weight_scale : ``In(weight_scale_bits)``, activation_scale : ``In(activation_scale_bits)``
        The vector's scales; the latter only where there are any.
    restart : ``In(1)``
        The vector is the first one.
    keep, shift : ``In(1)``
        Several passes only. At most one of them is high.
    double : ``In(1)``
        Several passes on the odd grid only.
    acc : ``Out(acc_bits)``
        The accumulator.

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
        weight_scale_bits: int,
        activation_scale_bits: int,
        product_shift: int = 0,
        vector_bits: int,
        acc_bits: int,
        passes: bool = False,
        odd_grid: bool = False,
        pipeline: int | None = None,
        form: Form | str | None = None,
        triple: Triple | str | None = None,
    ) -> None:
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        self.digit_bits = checked_digit_bits(digit_bits)
        self.activation_scale_bits = checked_integer(
            "Width of activation scales", activation_scale_bits, 0, MAX_CODE_BITS
        )
        self.weight_scale_bits = checked_integer(
            "Width of weight scales", weight_scale_bits, 1, MAX_CODE_BITS * (1 if self.activation_scale_bits else 2)
        )
        highest = MAX_PRODUCT_SHIFT if self.activation_scale_bits else 0
        self.product_shift = checked_integer("Product shift", product_shift, 0, highest)
        self.passes = bool(passes)
        self.odd_grid = bool(odd_grid)
        # With one pass on the odd grid the lowest bit does not go through the dot product.
        self._low = int(self.odd_grid and not self.passes)
        self.vector_bits = checked_integer("Width of a vector's sum", vector_bits, 2 * self.digit_bits + self._low)
        self.acc_bits = checked_integer("Accumulator width", acc_bits, self.vector_bits)
        self.product_bits = product_bits(
            weight_scale_bits=self.weight_scale_bits,
            activation_scale_bits=self.activation_scale_bits,
            product_shift=self.product_shift,
        )
        if triple is not None and triple not in set(Triple):
            raise ValueError(f"Triple must be one of {', '.join(Triple)}, not {triple!r}")
        best = best_triple(vector_bits=self.vector_bits, product_bits=self.product_bits)
        self.triple = best if triple is None else Triple(triple)
        if pipeline is None:
            pipeline = int(self.digit_bits >= PIPELINED_DIGIT_BITS and self.triple is Triple.STORED)
        self._dot_product = DotProduct(
            lanes=self.lanes,
            digit_bits=self.digit_bits,
            acc_bits=self.vector_bits - self._low,
            pipeline=pipeline,
            form=form,
        )
        self.pipeline, self.form = self._dot_product.pipeline, self._dot_product.form
        self.latency = self._dot_product.latency + (3 if self.passes else 2)
        digits = {name: member for name, member in self._dot_product.signature.members.items() if member.flow is In}
        del digits["addend"]
        self._digits = tuple(digits)
        super().__init__(
            {
                **digits,
                "offset": In(self.vector_bits),
                "weight_scale": In(self.weight_scale_bits),
                **({"activation_scale": In(self.activation_scale_bits)} if self.activation_scale_bits else {}),
                "restart": In(1),
                **({"keep": In(1), "shift": In(1)} if self.passes else {}),
                **({"double": In(1)} if self.passes and self.odd_grid else {}),
                "acc": Out(self.acc_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.dot_product = dot_product = self._dot_product
        m.d.comb += [getattr(dot_product, name).eq(getattr(self, name)) for name in self._digits]

        total = Signal(signed(self.vector_bits))
        vector = Signal(signed(self.vector_bits), reset_less=True)
        if self.passes:
            horner = Signal(self.vector_bits, reset_less=True)
            shifted = (horner << self.digit_bits)[: self.vector_bits]
            m.d.comb += dot_product.addend.eq(Mux(self.keep, horner, 0) | Mux(self.shift, shifted, 0))
            m.d.sync += horner.eq(dot_product.result)
            doubled = Mux(self.double, horner << 1, horner) if self.odd_grid else horner
            m.d.comb += total.eq(doubled + self.offset)
        else:
            m.d.comb += dot_product.addend.eq(self.offset[self._low :])
            m.d.comb += total.eq(Cat(self.offset[: self._low], dot_product.result))
        m.d.sync += vector.eq(total)

        product = Signal(self.product_bits, reset_less=True)
        if self.activation_scale_bits:
            m.submodules.scale_product = scale_product = ScaleProduct(
                weight_scale_bits=self.weight_scale_bits,
                activation_scale_bits=self.activation_scale_bits,
                product_shift=self.product_shift,
            )
            m.d.comb += [scale_product.w.eq(self.weight_scale), scale_product.a.eq(self.activation_scale)]
            m.d.sync += product.eq(scale_product.o)
        else:
            m.d.sync += product.eq(self.weight_scale)

        accumulator = Signal(self.acc_bits, reset_less=True)
        m.submodules.multiply_add = multiply_add = MultiplyAdd(
            a_bits=self.vector_bits,
            b_bits=self.product_bits,
            width=self.acc_bits,
            triple=self.triple is not Triple.NONE,
            late=self.triple is Triple.MADE,
        )
        m.d.comb += [
            multiply_add.a.eq(vector),
            multiply_add.b.eq(product),
            multiply_add.addend.eq(Mux(self.restart, 0, accumulator)),
            self.acc.eq(accumulator),
        ]
        if self.triple is Triple.MADE:
            m.d.comb += multiply_add.triple.eq(vector + (vector << 1))
        elif self.triple is Triple.STORED:
            triple = Signal(signed(self.vector_bits + 2), reset_less=True)
            m.d.sync += triple.eq(total + (total << 1))
            m.d.comb += multiply_add.triple.eq(triple)
        m.d.sync += accumulator.eq(multiply_add.result)
        return m
