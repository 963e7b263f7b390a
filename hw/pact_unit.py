"""The PACT unit: from an accumulator to an output code with one multiplication, one shift and one clip."""

from __future__ import annotations

import operator

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PactUnit"]

MAX_BITS = 64
MAX_SHIFT = 62
MAX_OUTPUT_BITS = 16


class PactUnit(wiring.Component):
    """Requantizes accumulators: ``clip((acc*M + skip*M_skip + B) >> S, 0, 2**k - 1)``.

    The shift is arithmetic (floor); the sum is exact, whatever the operands. M, M_skip, B, S and (unless fixed) k come
    with every accumulator. With k fixed, and with the batch norm, the rounding half and both scales in the constants,
    this is PACT's clip and its k-bit quantizer (arXiv 1805.06085, eq. 1 and 2) of the layer's output.

    Rate: one item per cycle. Latency: ``latency`` cycles from the transfer of an item to the first cycle in which its
    code is valid, while the output is not stalled. Back-pressure: while a code is not taken all stages hold, and the
    input is not ready; ``i.ready`` follows ``o.ready`` in the same cycle.

    Parameters
    ----------
    acc_bits : :class:`int`
        Signed width of the accumulator, 2 to 64.
    multiplier_bits, bias_bits : :class:`int`
        Signed widths of M and B, 2 to 64.
    max_shift : :class:`int`
        Largest S, 0 to 62.
    max_output_bits : :class:`int`
        Width of the output code and largest k, 1 to 16.
    output_bits : :class:`int` or ``None``
        k, if it is fixed when the unit is generated; ``None``: it comes with every accumulator.
    skip_bits : :class:`int`
        Width of the residual operand's code, 1 to 16; 0: there is none.
    skip_multiplier_bits : :class:`int`
        Signed width of M_skip, 2 to 64; 0 exactly when ``skip_bits`` is.
    accumulator_out : :class:`bool`
        Widens the output to ``acc_bits``, at least ``max_output_bits``, and gives k = 0 a meaning: the output is the
        low ``acc_bits`` bits of ``acc*M + skip*M_skip + B``, neither shifted nor clipped (M = 1 and B = 0 pass the
        accumulator). Only without a fixed k.

    Attributes
    ----------
    latency : :class:`int`
        3: products, their sum, shift and clip.

    Members
    -------
    i : ``In(stream.Signature(data.StructLayout({...})))``
        ``acc``, ``multiplier``, ``bias``: signed; ``shift``: 0 to ``max_shift``; ``output_bits`` (unless fixed): 1 to
        ``max_output_bits``, or 0 with ``accumulator_out``; ``skip`` and ``skip_multiplier`` (with a residual operand):
        unsigned and signed. Least significant field first.
    o : ``Out(stream.Signature(unsigned(...)))``
        The code, zero-extended to ``max_output_bits`` or, with ``accumulator_out``, to ``acc_bits`` bits.

    Raises
    ------
    :class:`TypeError`
        A parameter is not an integer.
    :class:`ValueError`
        A parameter is outside its range.
    """

    latency = 3

    def __init__(
        self,
        *,
        acc_bits: int,
        multiplier_bits: int,
        bias_bits: int,
        max_shift: int,
        max_output_bits: int,
        output_bits: int | None = None,
        skip_bits: int = 0,
        skip_multiplier_bits: int = 0,
        accumulator_out: bool = False,
    ) -> None:
        self.acc_bits = operator.index(acc_bits)
        self.multiplier_bits = operator.index(multiplier_bits)
        self.bias_bits = operator.index(bias_bits)
        self.max_shift = operator.index(max_shift)
        self.max_output_bits = operator.index(max_output_bits)
        self.output_bits = None if output_bits is None else operator.index(output_bits)
        self.skip_bits = operator.index(skip_bits)
        self.skip_multiplier_bits = operator.index(skip_multiplier_bits)
        self.accumulator_out = bool(accumulator_out)
        for title, value, low, high in (
            ("Accumulator width", self.acc_bits, 2, MAX_BITS),
            ("Multiplier width", self.multiplier_bits, 2, MAX_BITS),
            ("Bias width", self.bias_bits, 2, MAX_BITS),
            ("Largest shift", self.max_shift, 0, MAX_SHIFT),
            ("Largest output width", self.max_output_bits, 1, MAX_OUTPUT_BITS),
            ("Skip width", self.skip_bits, 0, MAX_OUTPUT_BITS),
        ):
            if not low <= value <= high:
                raise ValueError(f"{title} must be between {low} and {high}, not {value!r}")
        if self.skip_bits and not 2 <= self.skip_multiplier_bits <= MAX_BITS:
            raise ValueError(f"Skip multiplier width must be between 2 and {MAX_BITS}, not {skip_multiplier_bits!r}")
        if not self.skip_bits and self.skip_multiplier_bits != 0:
            raise ValueError(
                f"Skip multiplier width must be 0 without a residual operand, not {skip_multiplier_bits!r}"
            )
        if self.output_bits is not None and not 1 <= self.output_bits <= self.max_output_bits:
            raise ValueError(f"Output width must be between 1 and {self.max_output_bits}, not {output_bits!r}")
        if self.accumulator_out and self.output_bits is not None:
            raise ValueError(f"Output width must not be fixed where accumulators pass, not {output_bits!r}")
        if self.accumulator_out and self.acc_bits < self.max_output_bits:
            raise ValueError(f"Accumulator width must be at least {self.max_output_bits}, not {acc_bits!r}")
        fields: dict[str, Shape] = {
            "acc": signed(self.acc_bits),
            "multiplier": signed(self.multiplier_bits),
            "bias": signed(self.bias_bits),
            "shift": unsigned(self.max_shift.bit_length()),
        }
        if self.output_bits is None:
            fields["output_bits"] = unsigned(self.max_output_bits.bit_length())
        if self.skip_bits:
            fields["skip"] = unsigned(self.skip_bits)
            fields["skip_multiplier"] = signed(self.skip_multiplier_bits)
        code = unsigned(self.acc_bits if self.accumulator_out else self.max_output_bits)
        super().__init__({"i": In(stream.Signature(data.StructLayout(fields))), "o": Out(stream.Signature(code))})

    def elaborate(self, platform) -> Module:
        m = Module()
        item = self.i.payload
        advance = Signal()
        m.d.comb += [advance.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(advance)]

        def registered(value: Value, name: str) -> Signal:
            """``value`` one cycle later, held while the pipeline is; of its full shape, so that nothing is cut off."""
            register = Signal(Shape.cast(value.shape()), name=name, reset_less=True)
            with m.If(advance):
                m.d.sync += register.eq(value)
            return register

        valid = [Signal(name=f"valid_{cycle}") for cycle in range(1, self.latency)]
        with m.If(advance):
            for now, before in zip([*valid, self.o.valid], [self.i.valid, *valid], strict=True):
                m.d.sync += now.eq(before)

        # Cycle 1: the products. Each is the exact product of two signed numbers.
        product = registered(item.acc * item.multiplier, "product")
        rest = item.bias + item.skip * item.skip_multiplier if self.skip_bits else item.bias
        rest = registered(rest, "rest")
        shift = registered(item.shift, "shift_1")
        bits = None if self.output_bits is not None else registered(item.output_bits, "output_bits_1")

        # Cycle 2: their sum.
        total = registered(product + rest, "total")
        shift = registered(shift, "shift_2")
        bits = None if bits is None else registered(bits, "output_bits_2")

        # Cycle 3: shift and clip. A negative sum gives 0, so only the bits of a positive one are shifted; bits that can
        # no longer reach the code are not shifted further, only remembered.
        negative, value = total[-1], total[:-1]
        beyond = Const(0, 1)
        for step in reversed(range(len(shift))):
            distance = 1 << step
            reach = self.max_output_bits + distance - 1
            beyond = beyond | value[reach + distance :].any() | (~shift[step] & value[reach : reach + distance].any())
            value = Mux(shift[step], value[distance:], value)[:reach]
        if not len(shift):
            beyond = value[self.max_output_bits :].any()
            value = value[: self.max_output_bits]
        if bits is None:
            mask: Value = Const((1 << self.output_bits) - 1, self.max_output_bits)  # type: ignore[operator]
        else:
            mask = Cat(bits > position for position in range(self.max_output_bits))
        saturated = Signal()
        m.d.comb += saturated.eq(beyond | (value & ~mask).any())
        code = (value | saturated.replicate(self.max_output_bits)) & mask & (~negative).replicate(self.max_output_bits)
        if self.accumulator_out:
            code = Mux(bits == 0, total.as_unsigned()[: self.acc_bits], code)
        with m.If(advance):
            m.d.sync += self.o.payload.eq(code)
        return m
