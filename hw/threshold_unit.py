"""The threshold unit: from an accumulator to an output code of few bits by comparisons."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import MAX_WIDTH, checked_integer

__all__ = ["ThresholdUnit"]

MAX_OUTPUT_BITS = 4


class ThresholdUnit(wiring.Component):
    """Requantizes accumulators by comparing them with the thresholds of their channel.

    The code is the number of thresholds that ``-acc if negate else acc`` reaches; ``negate`` serves channels with a
    negative slope. There is no residual operand: with one, every skip code has thresholds of its own.

    Rate: one item per cycle. Latency: 1 cycle. Back-pressure: while a valid code is not taken the register holds and
    the input is not ready; ``i.ready`` follows ``o.ready`` in the same cycle and does not depend on ``i.valid``.

    Parameters
    ----------
    acc_bits : :class:`int`
        Signed width of the accumulator, 2 to 64.
    output_bits : :class:`int`
        k, 1 to 4: ``2**k - 1`` comparators.

    Attributes
    ----------
    latency : :class:`int`
        1.

    Members
    -------
    i : ``In(stream.Signature(data.StructLayout({...})))``
        ``acc``: signed; ``thresholds``: T_1 .. T_(2**k - 1), signed, one bit wider than the accumulator (which reaches
        one more when negated, and not the threshold that says "never"), ascending, equal ones allowed; ``negate``.
        Least significant field first.
    o : ``Out(stream.Signature(unsigned(output_bits)))``
        The code.

    Raises
    ------
    :class:`TypeError`
        A parameter is not an integer.
    :class:`ValueError`
        A parameter is outside its range.
    """

    latency = 1

    def __init__(self, *, acc_bits: int, output_bits: int) -> None:
        self.acc_bits = checked_integer("Accumulator width", acc_bits, 2, MAX_WIDTH)
        self.output_bits = checked_integer("Output width", output_bits, 1, MAX_OUTPUT_BITS)
        layout = data.StructLayout(
            {
                "acc": signed(self.acc_bits),
                "thresholds": data.ArrayLayout(signed(self.acc_bits + 1), (1 << self.output_bits) - 1),
                "negate": 1,
            }
        )
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(stream.Signature(unsigned(self.output_bits)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        item = self.i.payload
        acc = Signal(signed(self.acc_bits + 1))
        m.d.comb += acc.eq(Mux(item.negate, -item.acc, item.acc))
        reached = [acc >= item.thresholds[level] for level in range((1 << self.output_bits) - 1)]

        def count(levels: list[Value]) -> list[Value]:
            """Bits of the number of ones, which all come before the zeros: the middle one is the top bit."""
            if len(levels) == 1:
                return levels
            middle = len(levels) // 2
            upper, lower = count(levels[middle + 1 :]), count(levels[:middle])
            return [*(Mux(levels[middle], u, low) for u, low in zip(upper, lower, strict=True)), levels[middle]]

        advance = Signal()
        m.d.comb += [advance.eq(self.o.ready | ~self.o.valid), self.i.ready.eq(advance)]
        code = Signal(self.output_bits, reset_less=True)
        m.d.comb += self.o.payload.eq(code)
        with m.If(advance):
            m.d.sync += [self.o.valid.eq(self.i.valid), code.eq(Cat(count(reached)))]
        return m
