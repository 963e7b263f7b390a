"""The PACT unit: from an accumulator to an output code with one multiplication, one shift and one clip."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import MAX_OUTPUT_BITS, MAX_SHIFT, MAX_WIDTH, checked_integer

__all__ = ["PactUnit"]


class PactUnit(wiring.Component):
    """Requantizes accumulators: ``clip((acc*M + skip*M_skip + B) >> S, 0, 2**k - 1)``.

    The shift is arithmetic (floor); the sum is exact, whatever the operands. M, M_skip, B, S and (unless fixed) k come
    with every accumulator. With the batch norm, the rounding half and the scales folded into them, this is PACT's clip
    followed by its k-bit quantizer (arXiv 1805.06085, eq. 1 and 2).

    Rate: one item per cycle. Latency: ``latency`` cycles from the transfer of an item to the first cycle in which its
    code is valid, if no code waits meanwhile. Back-pressure: while a valid code is not taken all stages hold, and the
    input is not ready; ``i.ready`` follows ``o.ready`` in the same cycle and does not depend on ``i.valid``.

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
        2: sum; shift and clip. 3 with a residual operand: products; their sum; shift and clip.

    Members
    -------
    i : ``In(stream.Signature(data.StructLayout({...})))``
        ``acc``, ``multiplier``, ``bias``: signed; ``shift``: unsigned, the bits that ``max_shift`` takes, all of whose
        values work; ``output_bits`` (unless fixed): k, the bits that ``max_output_bits`` takes, more than that acts
        like it, 0 gives code 0 unless ``accumulator_out``; ``skip`` and ``skip_multiplier`` (with a residual
        operand): unsigned and signed. Least significant field first.
    o : ``Out(stream.Signature(unsigned(...)))``
        The code, zero-extended to ``max_output_bits`` or, with ``accumulator_out``, to ``acc_bits`` bits.

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
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2, MAX_WIDTH)
        self.multiplier_bits = checked_integer("Multiplier width", multiplier_bits, 2, MAX_WIDTH)
        self.bias_bits = checked_integer("Bias width", bias_bits, 2, MAX_WIDTH)
        self.max_shift = checked_integer("Largest shift", max_shift, 0, MAX_SHIFT)
        self.max_output_bits = checked_integer("Largest output width", max_output_bits, 1, MAX_OUTPUT_BITS)
        self.output_bits = (
            None if output_bits is None else checked_integer("Output width", output_bits, 1, self.max_output_bits)
        )
        self.skip_bits = checked_integer("Skip width", skip_bits, 0, MAX_OUTPUT_BITS)
        self.skip_multiplier_bits = checked_integer(
            "Skip multiplier width", skip_multiplier_bits, 2 if self.skip_bits else 0, MAX_WIDTH
        )
        if not self.skip_bits and self.skip_multiplier_bits:
            raise ValueError(
                f"Skip multiplier width must be 0 without a residual operand, not {skip_multiplier_bits!r}"
            )
        self.latency = 3 if self.skip_bits else 2
        self.accumulator_out = bool(accumulator_out)
        if self.accumulator_out and self.output_bits is not None:
            raise ValueError(f"Output width must be None where accumulators pass, not {output_bits!r}")
        if self.accumulator_out and self.acc_bits < self.max_output_bits:
            raise ValueError(
                f"Accumulator width must be at least {self.max_output_bits} where accumulators pass, not {acc_bits!r}"
            )
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

        def registered(value: Value, name: str) -> Value:
            """``value`` one cycle later, held while the pipeline is; of its full shape, so that nothing is cut off."""
            if not len(value):
                return value  # a shift that is always 0; Verilog has no vectors without bits
            register = Signal(Shape.cast(value.shape()), name=name, reset_less=True)
            with m.If(advance):
                m.d.sync += register.eq(value)
            return register

        valid = [Signal(name=f"valid_{cycle}") for cycle in range(1, self.latency)]
        with m.If(advance):
            for now, before in zip([*valid, self.o.valid], [self.i.valid, *valid], strict=True):
                m.d.sync += now.eq(before)

        # The sum, exact since Amaranth's operators widen. One product takes B along in the same cycle; two products get
        # a cycle of their own, since they would be too slow to be summed in it.
        product: Value = item.acc * item.multiplier
        rest: Value = item.bias
        shift: Value = item.shift
        bits: Value | None = item.output_bits if self.output_bits is None else None
        if self.skip_bits:
            product = registered(product, "product")
            rest = registered(rest + item.skip * item.skip_multiplier, "rest")
            shift = registered(shift, "shift_1")
            bits = None if bits is None else registered(bits, "output_bits_1")
        total = registered(product + rest, "total")
        shift = registered(shift, "shift_2")
        bits = None if bits is None else registered(bits, "output_bits_2")

        # The last cycle: shift and clip. A negative sum gives 0, so only the bits of a positive one are shifted; of
        # those that can no longer reach the code all that matters is whether there are any.
        magnitude, negative = total[:-1], total[-1]
        reach = self.max_output_bits + (1 << len(shift)) - 1
        value, beyond = magnitude[:reach], magnitude[reach:].any()
        for step in reversed(range(len(shift))):
            reach -= 1 << step
            beyond = beyond | (~shift[step] & value[reach:].any())
            shifted = Signal(reach, name=f"shifted_{step}")
            m.d.comb += shifted.eq(Mux(shift[step], value[1 << step :], value))
            value = shifted
        if bits is None:
            mask: Value = Const((1 << self.output_bits) - 1, self.max_output_bits)  # type: ignore[operator]
        else:
            mask = Cat(bits > position for position in range(self.max_output_bits))
        saturated = Signal()
        m.d.comb += saturated.eq(beyond | (value & ~mask).any())
        code = (value | saturated.replicate(self.max_output_bits)) & mask & (~negative).replicate(self.max_output_bits)
        if self.accumulator_out:
            code = Mux(bits == 0, total.as_unsigned()[: self.acc_bits], code)
        m.d.comb += self.o.payload.eq(registered(code, "code"))
        return m
