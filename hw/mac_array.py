"""The array: rows of dot products that share one activation word, with Horner accumulation and a drain."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import PIPELINED_DIGIT_BITS, checked_digit_bits, checked_integer
from hw.counters import Bit, bits_of, carry_save_sum, compress, compress_pipelined
from hw.dot_product import ADDEND_ARRIVAL, DotProduct, Form, checked_form, checked_pipeline

__all__ = ["MacArray", "beat_layout"]


def beat_layout(*, rows: int, lanes: int, digit_bits: int) -> data.StructLayout:
    """The payload of one beat, least significant field first.

    * ``activations``: one digit per lane, shared by all rows.
    * ``weights``: one digit per lane and row.
    * ``first``: first beat of a position; the accumulators start from 0.
    * ``shift``: the accumulators are shifted left by ``digit_bits`` before this beat is added.
    * ``last``: last beat of a position.
    * ``ones``: the weight digits are digit 0 of their codes, so the ones row adds this beat's activation digits.
    * ``tile_last``: this position is the last one of its tile; of no interest to the array.
    """
    word = data.ArrayLayout(digit_bits, lanes)
    return data.StructLayout(
        {
            "activations": word,
            "weights": data.ArrayLayout(word, rows),
            "first": 1,
            "shift": 1,
            "last": 1,
            "ones": 1,
            "tile_last": 1,
        }
    )


class ActivationRegister(wiring.Component):
    """Holds the activation word of the last cycle; zero if there was none. Latency 1, no back-pressure, no reset.

    Parameters
    ----------
    lanes, digit_bits : :class:`int`
        Digits of the word.
    pairs : :class:`bool`
        Whether what it holds is for rows of the form :attr:`~hw.dot_product.Form.PAIRS`.
    hold_sums : :class:`bool`
        Whether it holds the pairs' sums too. If not, it makes them of the digits that it holds: fewer registers, but
        the sums are later.

    Members
    -------
    i : ``In(data.ArrayLayout(digit_bits, lanes))``
        The word.
    valid : ``In(1)``
        Whether there is one in this cycle.
    x, x_n, pair_sums_n
        The word of the cycle before, or zeros, as :class:`hw.dot_product.DotProduct` takes it in that form.
    """

    def __init__(self, *, lanes: int, digit_bits: int, pairs: bool, hold_sums: bool = True) -> None:
        self.lanes = lanes
        self.digit_bits = digit_bits
        self.pairs = pairs
        self.hold_sums = hold_sums
        word = data.ArrayLayout(digit_bits, lanes)
        held = {"x_n": word} if pairs else {"x": word}
        if pairs and lanes > 1:
            held["pair_sums_n"] = data.ArrayLayout(digit_bits + 1, lanes // 2)
        self.names = tuple(held)
        super().__init__({"i": In(word), "valid": In(1)} | {name: Out(layout) for name, layout in held.items()})

    def elaborate(self, platform) -> Module:
        m = Module()
        digits = Signal(self.i.shape())
        m.d.comb += digits.eq(self.i.as_value() & self.valid.replicate(self.lanes * self.digit_bits))

        def hold(value: Value, name: str) -> Value:
            register = Signal(len(value), name=name, reset_less=True)
            m.d.sync += register.eq(value)
            return register

        if not self.pairs:
            m.d.comb += self.x.eq(hold(digits.as_value(), "word"))
            return m
        m.d.comb += self.x_n.eq(hold(~digits.as_value(), "word_n"))
        if "pair_sums_n" in self.names:
            source = list(digits) if self.hold_sums else [~digit for digit in self.x_n]
            sums_n = Cat(~(a + b) for a, b in zip(source[::2], source[1::2]))
            m.d.comb += self.pair_sums_n.eq(hold(sums_n, "sums_n") if self.hold_sums else sums_n)
        return m


class WeightRegister(wiring.Component):
    """Holds the weight words of the last cycle, whether there were any or not. Latency 1, no reset.

    Parameters
    ----------
    width : :class:`int`
        Bits of all rows' words.

    Members
    -------
    i : ``In(width)``
        The words.
    o : ``Out(width)``
        The words of the cycle before.
    """

    def __init__(self, *, width: int) -> None:
        self.width = width
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform) -> Module:
        m = Module()
        words = Signal(self.width, reset_less=True)
        m.d.sync += words.eq(self.i)
        m.d.comb += self.o.eq(words)
        return m


def _horner_addend(accumulator: Value, *, keep: Value, shift: Value, digit_bits: int) -> Value:
    """What the accumulator adds to the next products: itself, or itself shifted by a digit, or (neither) nothing."""
    width = len(accumulator)
    shifted = (accumulator << digit_bits)[:width]
    return Mux(keep, accumulator, 0) | Mux(shift, shifted, 0)


class MacRow(wiring.Component):
    """One row: a dot product that adds to its accumulator in every cycle.

    ``acc`` becomes ``(acc if keep else 0) + (acc << digit_bits if shift else 0) + sum(x[l] * w[l])``, modulo
    ``2**acc_bits``, with ``keep`` and ``shift`` of the same cycle, and ``x`` and ``w`` of the same cycle or, with the
    pipeline register, of the one before.
    No enable, no reset.

    Parameters
    ----------
    lanes, digit_bits, acc_bits, pipeline, form, carry_save
        As of :class:`hw.dot_product.DotProduct`.

    Members
    -------
    x, x_n, pair_sums_n, w
        As of :class:`hw.dot_product.DotProduct`.
    keep, shift : ``In(1)``
        At most one of them is high.
    acc : ``Out(acc_bits)``
        The accumulator.
    acc_carry : ``Out(acc_bits)``
        What is to be added to it. Only with ``carry_save``.
    """

    def __init__(
        self,
        *,
        lanes: int,
        digit_bits: int,
        acc_bits: int,
        pipeline: int,
        form: Form | str | None = None,
        carry_save: bool = False,
    ) -> None:
        self._dot_product = DotProduct(
            lanes=lanes, digit_bits=digit_bits, acc_bits=acc_bits, pipeline=pipeline, form=form, carry_save=carry_save
        )
        self.lanes = lanes
        self.digit_bits = digit_bits
        self.acc_bits = acc_bits
        self.pipeline = pipeline
        self.form = self._dot_product.form
        self.carry_save = bool(carry_save)
        self.parts = ("", "_carry") if carry_save else ("",)
        members = self._dot_product.signature.members.items()
        digits = {name: member for name, member in members if name in ("x", "x_n", "pair_sums_n", "w")}
        self._digits = tuple(digits)
        accumulators = {f"acc{part}": Out(acc_bits) for part in self.parts}
        super().__init__({**digits, "keep": In(1), "shift": In(1), **accumulators})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.dot_product = dot_product = self._dot_product
        m.d.comb += [getattr(dot_product, name).eq(getattr(self, name)) for name in self._digits]
        for part in self.parts:
            accumulator = Signal(self.acc_bits, name=f"accumulator{part}", reset_less=True)
            addend = _horner_addend(accumulator, keep=self.keep, shift=self.shift, digit_bits=self.digit_bits)
            m.d.sync += accumulator.eq(getattr(dot_product, f"result{part}"))
            m.d.comb += [
                getattr(dot_product, f"addend{part}").eq(addend),
                getattr(self, f"acc{part}").eq(accumulator),
            ]
        return m


class OnesRow(wiring.Component):
    """The ones row: a :class:`MacRow` with 1 in every lane's weight if ``ones``, else 0, without the multipliers.

    The lanes are summed first and the sum's few bits are gated, not the lanes.

    Parameters
    ----------
    lanes, digit_bits, acc_bits, pipeline
        As of :class:`hw.dot_product.DotProduct`.
    complemented : :class:`bool`
        Whether ``x`` has complements.

    Members
    -------
    x : ``In(data.ArrayLayout(digit_bits, lanes))``
        Digits, or their complements.
    ones : ``In(1)``
        Whether the digits count; of the same cycle as ``keep`` and ``shift``.
    keep, shift : ``In(1)``
        At most one of them is high.
    acc : ``Out(acc_bits)``
        The accumulator.
    """

    def __init__(
        self, *, lanes: int, digit_bits: int, acc_bits: int, pipeline: int, complemented: bool = False
    ) -> None:
        self.lanes = lanes
        self.digit_bits = digit_bits
        self.acc_bits = acc_bits
        self.pipeline = pipeline
        self.complemented = complemented
        super().__init__(
            {
                "x": In(data.ArrayLayout(digit_bits, lanes)),
                "ones": In(1),
                "keep": In(1),
                "shift": In(1),
                "acc": Out(acc_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        accumulator = Signal(self.acc_bits, reset_less=True)
        addend = Signal(self.acc_bits)
        m.d.comb += addend.eq(_horner_addend(accumulator, keep=self.keep, shift=self.shift, digit_bits=self.digit_bits))

        columns: list[list[Bit]] = [[] for _ in range(self.acc_bits)]
        for index, bit in enumerate(bits_of(self.x.as_value())):
            columns[index % self.digit_bits].append(bit)
        columns = compress_pipelined(
            m, columns, registers=self.pipeline, complemented=self.complemented, prefix="lanes"
        )
        columns = compress(m, columns, complemented=self.complemented, prefix="lanes")
        for weight, column in enumerate(columns):
            for row, bit in enumerate(column):
                gated = Signal(name=f"gated_{row}_{weight}")
                value = bit.source[bit.offset]
                m.d.comb += gated.eq((~value if self.complemented else value) & self.ones)
                column[row] = Bit(bit.arrival, gated, 0)
        for column, bit in zip(columns, bits_of(addend, ADDEND_ARRIVAL), strict=True):
            column.append(bit)
        columns = compress(m, columns, prefix="sum")
        m.d.sync += accumulator.eq(carry_save_sum(m, columns))
        m.d.comb += self.acc.eq(accumulator)
        return m


class Drain(wiring.Component):
    """The registers that take the finished accumulators out. Latency 1, no reset.

    Parameters
    ----------
    rows, acc_bits, drain_rows
        As of :class:`MacArray`.
    ones : :class:`bool`
        Whether there is a ones row.
    words : :class:`int`
        Numbers of ``acc_bits`` bits that a row's accumulator has.

    Members
    -------
    i_rows : ``In(rows * words * acc_bits)``
        The rows' accumulators, row 0 in the low bits.
    i_ones : ``In(acc_bits)``
        The ones row's accumulator, if there is one.
    capture, advance : ``In(1)``
        As of :class:`MacArray`.
    o_rows : ``Out(drain_rows * words * acc_bits)``
        The lowest ``drain_rows`` registers.
    o_ones : ``Out(acc_bits)``
        The captured ones row, if there is one.
    """

    def __init__(self, *, rows: int, acc_bits: int, drain_rows: int, ones: bool = True, words: int = 1) -> None:
        self.rows = rows
        self.acc_bits = acc_bits
        self.drain_rows = drain_rows
        self.ones = ones
        self.words = words
        super().__init__(
            {
                "i_rows": In(rows * words * acc_bits),
                **({"i_ones": In(acc_bits)} if ones else {}),
                "capture": In(1),
                "advance": In(1),
                "o_rows": Out(drain_rows * words * acc_bits),
                **({"o_ones": Out(acc_bits)} if ones else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        width = self.rows * self.words * self.acc_bits
        step = self.drain_rows * self.words * self.acc_bits
        rows = Signal(width, reset_less=True)
        # One-hot AND-OR, since libraries have it as one cell where two multiplexers would be two.
        load = Signal()
        move = Signal()
        hold = Signal()
        m.d.comb += [
            load.eq(self.capture),
            move.eq(self.advance & ~self.capture),
            hold.eq(~self.advance & ~self.capture),
        ]
        below = Cat(rows[step:], rows[width - step :])
        m.d.sync += rows.eq(Mux(load, self.i_rows, 0) | Mux(move, below, 0) | Mux(hold, rows, 0))
        m.d.comb += self.o_rows.eq(rows[:step])
        if self.ones:
            ones = Signal(self.acc_bits, reset_less=True)
            m.d.sync += ones.eq(Mux(load, self.i_ones, ones))
            m.d.comb += self.o_ones.eq(ones)
        return m


class MacArray(wiring.Component):
    """``rows`` accumulating dot products over ``lanes`` unsigned digit pairs, plus the ones row.

    A position (one accumulator per row) is a run of beats from one with ``first`` to one with ``last``; a beat does,
    in every row and modulo ``2**acc_bits``,

        ``accumulator = (0 if first else accumulator << digit_bits if shift else accumulator) + sum(w[l] * x[l])``

    and in the ones row the same with 1 in the place of each ``w[l]`` of a beat with ``ones``, else 0. Digit pairs
    (i, j) sent in descending i + j with ``shift`` whenever i + j drops (Horner) thus leave ``sum(n*u)`` in the rows
    and ``sum(u)`` in the ones row. The beats of one digit sum may come in any order. ``first`` wins over ``shift``.

    Rate: one beat per cycle, no back-pressure; cycles without a beat may come anywhere and change nothing, since no
    enable reaches the rows: such a cycle adds a word of zeros. Latency: the accumulators hold a beat ``latency``
    cycles after the cycle of its transfer, and their copy in the drain one cycle after ``capture``.

    The user must capture a finished position before the next one's first beat reaches the accumulators:
    ``complete`` says that they hold one, and back-to-back positions leave it there for a single cycle.

    Parameters
    ----------
    rows, lanes : :class:`int`
        At least 1.
    digit_bits : :class:`int`
        Width d of a digit: 1, 2, 4, 8 or 16.
    acc_bits : :class:`int`
        Width of an accumulator, at least 2*d.
    drain_rows : :class:`int`
        Rows that leave the drain together, 1 to ``rows``.
    pipeline : :class:`int` or ``None``
        Carry-save pipeline registers in the dot products, 0 to 2. ``None``: one from 8-bit digits up, else none.
    form : :class:`~hw.dot_product.Form` or ``None``
        Of the rows' dot products. ``None``: the one with the least area for d.
    carry_save : :class:`bool`
        Whether the rows' accumulators and drain registers are in carry-save form: twice the registers, and in the place
        of a carry-propagate adder in every row one at every output ``o_rows``.

    Attributes
    ----------
    latency : :class:`int`
        2 + ``pipeline``: activation and weight registers, carry-save registers, accumulators.

    Members
    -------
    i : ``In(stream.Signature(beat_layout(...), always_ready=True))``
        Beats; see :func:`beat_layout`.
    capture : ``In(1)``
        Copy the accumulators, as they are in this cycle, to the drain registers. Wins over ``advance``.
    advance : ``In(1)``
        Move the drain registers down by ``drain_rows`` rows.
    complete : ``Out(1)``
        The accumulators hold a finished position: from ``latency`` cycles after the transfer of its last beat until
        it is captured (high in the cycle of ``capture``, low in the next one) or the next beat is accumulated.
        Low after reset.
    o_rows : ``Out(data.ArrayLayout(acc_bits, drain_rows))``
        The lowest drain registers: rows ``0 .. drain_rows-1`` after a capture, the next ones after each ``advance``.
        Lanes beyond the last row hold copies of other rows.
    o_ones : ``Out(acc_bits)``
        The captured ones row; does not move with ``advance``.

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
        rows: int,
        lanes: int,
        digit_bits: int,
        acc_bits: int,
        drain_rows: int = 1,
        pipeline: int | None = None,
        form: Form | str | None = None,
        carry_save: bool = False,
    ) -> None:
        self.rows = checked_integer("Number of rows", rows, 1)
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        self.digit_bits = checked_digit_bits(digit_bits)
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2 * self.digit_bits)
        self.drain_rows = checked_integer("Number of drain rows", drain_rows, 1, self.rows)
        self.pipeline = checked_pipeline(pipeline, self.digit_bits)
        self.form = checked_form(form, self.digit_bits)
        self.carry_save = bool(carry_save)
        self.latency = 2 + self.pipeline
        layout = beat_layout(rows=self.rows, lanes=self.lanes, digit_bits=self.digit_bits)
        super().__init__(
            {
                "i": In(stream.Signature(layout, always_ready=True)),
                "capture": In(1),
                "advance": In(1),
                "complete": Out(1),
                "o_rows": Out(data.ArrayLayout(self.acc_bits, self.drain_rows)),
                "o_ones": Out(self.acc_bits),
            }
        )

    def _row(self, **parameters: Any) -> wiring.Component:
        """One row; for what shall be compared with this one in the same surroundings."""
        return MacRow(**parameters, form=self.form, carry_save=self.carry_save)

    def elaborate(self, platform) -> Module:
        m = Module()
        beat = self.i.payload
        word_bits = self.lanes * self.digit_bits
        parameters: dict[str, Any] = {
            "lanes": self.lanes,
            "digit_bits": self.digit_bits,
            "acc_bits": self.acc_bits,
            "pipeline": self.pipeline,
        }

        # Cycle 0: the beat. Cycle 1: its words and flags in registers.
        pairs = self.form is Form.PAIRS
        in_time = self.pipeline == 1 or (self.pipeline > 1 and self.digit_bits < PIPELINED_DIGIT_BITS)
        m.submodules.activation_register = activations = ActivationRegister(
            lanes=self.lanes, digit_bits=self.digit_bits, pairs=pairs, hold_sums=not in_time
        )
        m.submodules.weight_register = weights = WeightRegister(width=self.rows * word_bits)
        m.d.comb += [
            activations.i.eq(beat.activations),
            activations.valid.eq(self.i.valid),
            weights.i.eq(beat.weights),
        ]
        keep = Signal(reset_less=True)
        shift = Signal(reset_less=True)
        ones = Signal(reset_less=True)
        taken = Signal()
        last = Signal()
        m.d.sync += [
            keep.eq(~(self.i.valid & (beat.first | beat.shift))),
            shift.eq(self.i.valid & beat.shift & ~beat.first),
            ones.eq(beat.ones),
            taken.eq(self.i.valid),
            last.eq(self.i.valid & beat.last),
        ]

        # The products wait in the pipeline registers, and the flags for them.
        for _ in range(self.pipeline):
            flags = Cat(keep, shift, ones)
            waiting = Signal(len(flags), reset_less=True)
            waiting_taken = Signal()
            waiting_last = Signal()
            m.d.sync += [waiting.eq(flags), waiting_taken.eq(taken), waiting_last.eq(last)]
            keep, shift, ones = waiting
            taken, last = waiting_taken, waiting_last

        # Cycle latency - 1: the accumulators add. Cycle latency: they hold the beat.
        m.submodules.ones_row = ones_row = OnesRow(**parameters, complemented=pairs)
        m.d.comb += [
            ones_row.x.eq(activations.x_n if pairs else activations.x),
            ones_row.ones.eq(ones),
            ones_row.keep.eq(keep),
            ones_row.shift.eq(shift),
        ]
        accumulators = []
        for index in range(self.rows):
            m.submodules[f"row_{index}"] = row = self._row(**parameters)
            m.d.comb += [
                *(getattr(row, name).eq(getattr(activations, name)) for name in activations.names),
                row.w.eq(weights.o.word_select(index, word_bits)),
                row.keep.eq(keep),
                row.shift.eq(shift),
            ]
            accumulators += [row.acc, row.acc_carry] if self.carry_save else [row.acc]
        m.d.sync += self.complete.eq(last | (self.complete & ~taken & ~self.capture))

        words = 2 if self.carry_save else 1
        m.submodules.drain = drain = Drain(
            rows=self.rows, acc_bits=self.acc_bits, drain_rows=self.drain_rows, words=words
        )
        drained = data.ArrayLayout(data.ArrayLayout(self.acc_bits, words), self.drain_rows)(drain.o_rows)
        m.d.comb += [
            drain.i_rows.eq(Cat(accumulators)),
            drain.i_ones.eq(ones_row.acc),
            drain.capture.eq(self.capture),
            drain.advance.eq(self.advance),
            *(
                output.eq(row[0] + row[1] if self.carry_save else row[0])
                for output, row in zip(self.o_rows, drained, strict=True)
            ),
            self.o_ones.eq(drain.o_ones),
        ]
        return m
