"""The array with two-level scales (VS-Quant): rows of :class:`~hw.scaled_row.ScaledRow` that share activation words."""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.network import Conv2d, Grid, Tensor
from hw.config import MAX_WEIGHT_BITS, UnsupportedNetworkError, checked_integer
from hw.counters import Bit, bits_of, carry_save_sum, compress
from hw.dot_product import Form
from hw.mac_array import ActivationRegister, Drain, OnesRow, WeightRegister
from hw.offset_correction import OffsetCorrection
from hw.scaled_row import ScaledRow, Triple, vector_bits

__all__ = ["ScaledArray", "scaled_beat_layout"]


def scaled_beat_layout(
    *, rows: int, lanes: int, digit_bits: int, weight_scale_bits: int, activation_scale_bits: int, passes: bool
) -> data.StructLayout:
    """The payload of one beat, least significant field first.

    * ``activations``: one digit per lane, shared by all rows.
    * ``weights``: one digit per lane and row.
    * ``activation_scale``: of the vector, shared by all rows; only where there are any.
    * ``weight_scales``: of the vector, one per row.
    * ``first``: the vector is the first one of a position; the accumulators start from 0.
    * ``last``: the vector is the last one of a position.

    With several passes a vector is a run of beats, its scales, ``first`` and ``last`` count in its last one, and there
    are also

    * ``vector_first``: first beat of a vector; its sum starts from 0.
    * ``shift``: the vector's sum is shifted left by ``digit_bits`` before this beat is added.
    * ``ones``: the weight digits are digit 0 of their codes.
    * ``vector_last``: last beat of a vector.
    """
    word = data.ArrayLayout(digit_bits, lanes)
    several = {"vector_first": 1, "shift": 1, "ones": 1, "vector_last": 1} if passes else {}
    return data.StructLayout(
        {
            "activations": word,
            "weights": data.ArrayLayout(word, rows),
            **({"activation_scale": activation_scale_bits} if activation_scale_bits else {}),
            "weight_scales": data.ArrayLayout(weight_scale_bits, rows),
            "first": 1,
            "last": 1,
            **several,
        }
    )


class VectorOffset(wiring.Component):
    """What makes a word's dot product signed: ``-c * sum(x)``, registered. Latency 1, no reset.

    Two's complement grid: c = 2**(w-1), and with ``odd_grid`` twice that, since the products count twice too. Odd
    grid: c = 2**w - 1.

    Parameters
    ----------
    lanes, digit_bits : :class:`int`
        Digits of the word, which are whole codes.
    width : :class:`int`
        Of the result, which is modulo ``2**width``.
    odd_grid : :class:`bool`
        Whether there is the odd grid.

    Members
    -------
    x_n : ``In(data.ArrayLayout(digit_bits, lanes))``
        Complements of the codes.
    weight_bits : ``In(range(digit_bits + 1))``
        w, 1 to ``digit_bits``.
    odd : ``In(1)``
        Odd grid instead of two's complement; only with ``odd_grid``.
    o : ``Out(width)``
        The offset for the word of the cycle before.
    """

    def __init__(self, *, lanes: int, digit_bits: int, width: int, odd_grid: bool) -> None:
        self.lanes = lanes
        self.digit_bits = digit_bits
        self.width = width
        self.odd_grid = odd_grid
        super().__init__(
            {
                "x_n": In(data.ArrayLayout(digit_bits, lanes)),
                "weight_bits": In(range(digit_bits + 1)),
                **({"odd": In(1)} if odd_grid else {}),
                "o": Out(width),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # -x = ~x - (2**d - 1), so that the negative sum takes no adder of its own; a sign bit is above it.
        most = self.lanes * ((1 << self.digit_bits) - 1)
        width = most.bit_length() + 1
        columns: list[list[Bit]] = [[] for _ in range(width)]
        for index, bit in enumerate(bits_of(self.x_n.as_value())):
            columns[index % self.digit_bits].append(bit)
        for weight, column in enumerate(columns):
            if -most >> weight & 1:
                column.append(Bit(0, C(1, 1), 0))
        columns = compress(m, columns, prefix="lanes")
        negative = Signal(signed(width))
        m.d.comb += negative.eq(carry_save_sum(m, columns))
        half = Signal(signed(self.width))
        exponent = Signal(range(max(2, self.digit_bits)))
        m.d.comb += [exponent.eq(self.weight_bits - 1), half.eq(negative << exponent)]
        offset = Signal(self.width, reset_less=True)
        if self.odd_grid:
            m.d.sync += offset.eq((half << 1) - Mux(self.odd, negative, 0))
        else:
            m.d.sync += offset.eq(half)
        m.d.comb += self.o.eq(offset)
        return m


class ScaledArray(wiring.Component):
    """``rows`` rows whose accumulators hold ``sum(P * W * u)`` over the vectors of a position, exactly as in golden.

    A vector is the lanes of one word: W and u are whole codes, d digits at a time, W = p*n - c as of
    :class:`golden.network.Grid`, and P = (w*a + 2**(r-1)) >> r the product of the vector's two scales, r fixed here.
    Where all scales are known beforehand, as static ones are, P itself may be given in the place of w
    (``activation_scale_bits`` = 0): then any r will do, and no row multiplies scales.

    Weights and codes of at most d bits take one beat a vector. With ``passes`` a vector may be a run of beats: the
    digit pairs (i, j) of the one word in descending i + j, with ``shift`` where i + j drops and ``ones`` where i = 0.

    Rate: one beat per cycle, no back-pressure; cycles without a beat may come anywhere and change nothing. Latency: the
    accumulators hold a vector ``latency`` cycles after the transfer of its last beat, and their copy in the drain one
    cycle after ``capture``. The user must capture a finished position before the next one's first vector reaches the
    accumulators: ``complete`` says that they hold one, and positions of one vector leave it there for a single cycle.

    With one pass and without a carry-save register the sum over a word's codes is made in the cycle of the transfer,
    so activations must come early in it.

    Parameters
    ----------
    rows, lanes, digit_bits, drain_rows
        As of :class:`hw.mac_array.MacArray`.
    weight_scale_bits, activation_scale_bits, product_shift, acc_bits, pipeline, form, triple
        As of :class:`hw.scaled_row.ScaledRow`.
    passes : :class:`bool`
        Whether weights and codes may have more than d bits.
    odd_grid : :class:`bool`
        Whether layers may be on the odd grid. Without ``passes`` that takes one bit of the accumulators from those
        that are not.
    max_weight_bits, max_activation_bits : :class:`int` or ``None``
        With ``passes``: the widest weights and codes, 1 to 16. ``None``, and without: d.

    Attributes
    ----------
    latency : :class:`int`
        3 + ``pipeline``; one more with ``passes``.
    vector_bits, product_bits : :class:`int`
        Width of a vector's signed sum and of a scale product.

    Members
    -------
    i : ``In(stream.Signature(scaled_beat_layout(...), always_ready=True))``
        Beats; see :func:`scaled_beat_layout`.
    weight_bits : ``In(range(17))``
        w, 1 to ``max_weight_bits``. Like ``odd`` it must hold from the first beat of a layer until its last vector is
        accumulated.
    odd : ``In(1)``
        Odd grid instead of two's complement; only with ``odd_grid``.
    capture, advance : ``In(1)``
        As of :class:`hw.mac_array.MacArray`.
    complete : ``Out(1)``
        The accumulators hold a finished position: from ``latency`` cycles after its last beat until it is captured or
        the next vector is accumulated. Low after reset.
    o_rows : ``Out(data.ArrayLayout(signed(acc_bits), drain_rows))``
        The lowest drain registers: accumulators of rows ``0 .. drain_rows-1`` after a capture, the next ones after each
        ``advance``. Lanes beyond the last row hold copies of other rows.

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
        weight_scale_bits: int,
        activation_scale_bits: int,
        product_shift: int = 0,
        acc_bits: int,
        drain_rows: int = 1,
        passes: bool = False,
        odd_grid: bool = False,
        max_weight_bits: int | None = None,
        max_activation_bits: int | None = None,
        pipeline: int | None = None,
        form: Form | str | None = None,
        triple: Triple | str | None = None,
    ) -> None:
        self.rows = checked_integer("Number of rows", rows, 1)
        self.drain_rows = checked_integer("Number of drain rows", drain_rows, 1, self.rows)
        self.max_weight_bits, self.max_activation_bits = (
            digit_bits if value is None else checked_integer(name, value, 1, MAX_WEIGHT_BITS if passes else digit_bits)
            for name, value in (("Weight width", max_weight_bits), ("Activation width", max_activation_bits))
        )
        least = vector_bits(
            lanes=checked_integer("Number of lanes", lanes, 1),
            weight_bits=self.max_weight_bits,
            activation_bits=self.max_activation_bits,
            odd_grid=odd_grid,
        )
        parameters: dict[str, Any] = {
            "lanes": lanes,
            "digit_bits": digit_bits,
            "weight_scale_bits": weight_scale_bits,
            "activation_scale_bits": activation_scale_bits,
            "product_shift": product_shift,
            "vector_bits": max(least, 2 * digit_bits + int(odd_grid and not passes)),
            "acc_bits": acc_bits,
            "passes": passes,
            "odd_grid": odd_grid,
            "pipeline": pipeline,
            "form": form,
            "triple": triple,
        }
        self._rows = [ScaledRow(**parameters) for _ in range(self.rows)]
        row = self._rows[0]
        self.lanes, self.digit_bits, self.acc_bits = row.lanes, row.digit_bits, row.acc_bits
        self.weight_scale_bits, self.activation_scale_bits = row.weight_scale_bits, row.activation_scale_bits
        self.product_shift, self.product_bits, self.vector_bits = row.product_shift, row.product_bits, row.vector_bits
        self.passes, self.odd_grid, self.pipeline, self.form = row.passes, row.odd_grid, row.pipeline, row.form
        self.latency = 1 + row.latency
        self.layout = scaled_beat_layout(
            rows=self.rows,
            lanes=self.lanes,
            digit_bits=self.digit_bits,
            weight_scale_bits=self.weight_scale_bits,
            activation_scale_bits=self.activation_scale_bits,
            passes=self.passes,
        )
        super().__init__(
            {
                "i": In(stream.Signature(self.layout, always_ready=True)),
                "weight_bits": In(range(MAX_WEIGHT_BITS + 1)),
                **({"odd": In(1)} if self.odd_grid else {}),
                "capture": In(1),
                "advance": In(1),
                "complete": Out(1),
                "o_rows": Out(data.ArrayLayout(signed(self.acc_bits), self.drain_rows)),
            }
        )

    def check(self, operation: Conv2d, source: Tensor) -> None:
        """Refuse a layer that this array does not compute.

        Raises
        ------
        :class:`~hw.config.UnsupportedNetworkError`
            One sentence with the layer's name, what it needs and what the array has.
        """

        def refuse(what: str, must: str, found: object) -> None:
            raise UnsupportedNetworkError(f"{what} of layer {operation.name!r} must be {must}, not {found}")

        for what, bits, most in (
            ("Weight width", operation.bits, self.max_weight_bits),
            ("Activation width", source.bits, self.max_activation_bits),
        ):
            if bits > most:
                refuse(what, f"at most {most}", bits)
        if operation.grid is Grid.ODD and not self.odd_grid:
            refuse("Grid", Grid.TWOS_COMPLEMENT.value, operation.grid.value)
        channels, group_channels = source.shape[0], operation.codes.shape[1]
        for scales, extent in ((operation.vector_scales, group_channels), (source.vector_scales, channels)):
            if scales is not None:
                vectors = np.arange(extent) // scales.vector
                for group in vectors.reshape(-1, group_channels):
                    words = [group[start : start + self.lanes] for start in range(0, group_channels, self.lanes)]
                    if any(word.min() != word.max() for word in words):
                        refuse("Vectors", f"whole words of {self.lanes} channels", f"of {scales.vector}")
        products = operation.scale_products(source)
        if not self.activation_scale_bits:
            widest = 1 if products is None else int(products.max()).bit_length()
            if widest > self.weight_scale_bits:
                refuse("Scale products", f"of at most {self.weight_scale_bits} bits", f"of {widest}")
            return
        for what, scales, most in (
            ("Weight scales", operation.vector_scales, self.weight_scale_bits),
            ("Activation scales", source.vector_scales, self.activation_scale_bits),
        ):
            if scales is not None and scales.bits > most:
                refuse(what, f"of at most {most} bits", f"of {scales.bits}")
        if operation.product_shift != self.product_shift:
            refuse("Product shift", f"{self.product_shift}, as in the array", operation.product_shift)

    def elaborate(self, platform) -> Module:
        m = Module()
        beat, valid = self.i.payload, self.i.valid
        word_bits = self.lanes * self.digit_bits
        ended = valid & beat.vector_last if self.passes else valid

        def later(value, cycles: int, name: str, **options):
            """``value`` as it was ``cycles`` before."""
            for number in range(cycles):
                stored = Signal.like(value, name=f"{name}_{number}", reset_less=True, **options)
                m.d.sync += stored.eq(value)
                value = stored
            return value

        # Cycle 0: the beat. Cycle 1: its words in registers.
        pairs = self.form is Form.PAIRS
        m.submodules.activation_register = activations = ActivationRegister(
            lanes=self.lanes, digit_bits=self.digit_bits, pairs=pairs, hold_sums=not self.pipeline
        )
        m.submodules.weight_register = weights = WeightRegister(width=self.rows * (word_bits + self.weight_scale_bits))
        gated_scales = Signal(self.rows * self.weight_scale_bits)
        m.d.comb += [
            activations.i.eq(beat.activations),
            activations.valid.eq(valid),
            # A vector counts once, with its last pass. Without activation scales its weight scales are 0 before that.
            gated_scales.eq(
                Mux(ended, beat.weight_scales.as_value(), 0)
                if self.passes and not self.activation_scale_bits
                else beat.weight_scales
            ),
            weights.i.eq(Cat(beat.weights, gated_scales)),
        ]
        # Cycle 1 + wait: the scales meet; with them, or a cycle before, the offset.
        wait = self.pipeline + int(self.passes)
        scales = later(weights.o[self.rows * word_bits :], wait, "weight_scales")
        if self.activation_scale_bits:
            gated_scale = Signal(self.activation_scale_bits)
            m.d.comb += gated_scale.eq(Mux(ended, beat.activation_scale, 0))
            activation_scale = later(gated_scale, 1 + wait, "activation_scale")
        restart = later(ended & beat.first, 2 + wait, "restart")

        def delayed(value, name: str):
            """A flag that is low after reset, until the cycle in which the accumulators add."""
            for number in range(2 + wait):
                stored = Signal(name=f"{name}_{number}")
                m.d.sync += stored.eq(value)
                value = stored
            return value

        taken, last = delayed(ended, "taken"), delayed(ended & beat.last, "last")

        if self.passes:
            keep = later(~(valid & (beat.vector_first | beat.shift)), 1 + self.pipeline, "keep")
            shift = later(valid & beat.shift & ~beat.vector_first, 1 + self.pipeline, "shift")
            m.submodules.ones_row = ones_row = OnesRow(
                lanes=self.lanes,
                digit_bits=self.digit_bits,
                acc_bits=self.vector_bits,
                pipeline=self.pipeline,
                complemented=pairs,
            )
            m.submodules.ones_row_offset = correction = OffsetCorrection(acc_bits=self.vector_bits, lanes=1)
            m.d.comb += [
                ones_row.x.eq(activations.x_n if pairs else activations.x),
                ones_row.ones.eq(later(beat.ones, 1 + self.pipeline, "ones")),
                ones_row.keep.eq(keep),
                ones_row.shift.eq(shift),
                correction.i_rows[0].eq(0),
                correction.i_ones.eq(ones_row.acc),
                correction.weight_bits.eq(self.weight_bits),
                correction.odd.eq(self.odd if self.odd_grid else 0),
            ]
            offset = correction.o[0]
        else:
            m.submodules.ones_row = offsets = VectorOffset(
                lanes=self.lanes, digit_bits=self.digit_bits, width=self.vector_bits, odd_grid=self.odd_grid
            )
            if self.pipeline:
                m.d.comb += offsets.x_n.eq(activations.x_n if pairs else ~activations.x.as_value())
            else:
                m.d.comb += offsets.x_n.eq(~(beat.activations.as_value() & valid.replicate(word_bits)))
            m.d.comb += offsets.weight_bits.eq(self.weight_bits)
            if self.odd_grid:
                m.d.comb += offsets.odd.eq(self.odd)
            offset = later(offsets.o, max(0, self.pipeline - 1), "offset")

        accumulators = []
        for index, row in enumerate(self._rows):
            m.submodules[f"row_{index}"] = row
            m.d.comb += [
                *(getattr(row, name).eq(getattr(activations, name)) for name in activations.names),
                row.w.eq(weights.o.word_select(index, word_bits)),
                row.offset.eq(offset),
                row.weight_scale.eq(scales.word_select(index, self.weight_scale_bits)),
                *([row.activation_scale.eq(activation_scale)] if self.activation_scale_bits else []),
                row.restart.eq(restart),
                *([row.keep.eq(keep), row.shift.eq(shift)] if self.passes else []),
                *([row.double.eq(self.odd)] if self.passes and self.odd_grid else []),
            ]
            accumulators.append(row.acc)
        m.d.sync += self.complete.eq(last | (self.complete & ~taken & ~self.capture))

        m.submodules.drain = drain = Drain(
            rows=self.rows, acc_bits=self.acc_bits, drain_rows=self.drain_rows, ones=False
        )
        m.d.comb += [
            drain.i_rows.eq(Cat(accumulators)),
            drain.capture.eq(self.capture),
            drain.advance.eq(self.advance),
        ]
        for lane in range(self.drain_rows):
            sums = Signal(signed(self.acc_bits), name=f"sum_{lane}")
            m.d.comb += sums.eq(drain.o_rows.word_select(lane, self.acc_bits))
            # On two's complement the sums were doubled on their way; see VectorOffset.
            doubled = self.odd_grid and not self.passes
            m.d.comb += self.o_rows[lane].eq(Mux(self.odd, sums, sums >> 1) if doubled else sums)
        return m
