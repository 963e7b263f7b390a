"""The skip reader: codes of the residual operand out of the activation buffer, in the order of the results."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.activation_buffer import read_two_signature
from hw.config import AcceleratorConfig
from hw.result_walk import ResultWalk, walk_layout

__all__ = ["SkipReader", "skip_layout"]


def skip_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A tile as the skip reader must know it; see :func:`~hw.result_walk.walk_layout`."""
    return walk_layout(config, "skip_digits_last")


class SkipReader(wiring.Component):
    """Reads a tile's residual operand and puts its digits together, one word per result word of the datapath.

    Groups without a channel are zeros and not read.

    Timing: two digits are read a cycle. With a tile taken in cycle c and none before it, its first digits are read in
    c + 1 and, if codes have at most two, the first word is valid in c + 3. A group without a channel takes a cycle too;
    while a word waits to be taken everything holds. ``o.valid`` and ``o.payload`` depend on registers alone, the reads
    on ``o.ready`` too.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry and widths.

    Members
    -------
    i_tile : ``In(stream.Signature(skip_layout(config)))``
        Tiles with a residual operand, in the order of their results; one may wait.
    i_halt : ``In(1)``
        Nothing is read any more.
    read : ``Out(read_two_signature(config))``
        A read port of the activation buffer.
    o : ``Out(stream.Signature(data.ArrayLayout(max_output_bits, requant_lanes)))``
        Codes.
    o_address_error : ``Out(1)``
        Strobe: this cycle's read is outside the activation buffer. It is not made.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        codes = data.ArrayLayout(config.max_output_bits, config.requant_lanes)
        super().__init__(
            {
                "i_tile": In(stream.Signature(skip_layout(config))),
                "i_halt": In(1),
                "read": Out(read_two_signature(config)),
                "o": Out(stream.Signature(codes)),
                "o_address_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        digit_bits = config.digit_bits
        m = Module()
        m.submodules.walk = walk = ResultWalk(config, skip_layout(config))
        wiring.connect(m, wiring.flipped(self.i_tile), walk.i)

        # Digits are read.
        moving = Signal()
        outside = Signal()
        used = walk.lanes[0]
        m.d.comb += [
            moving.eq(~self.o.valid | self.o.ready),
            walk.advance.eq(walk.valid & moving & ~self.i_halt),
            walk.whole.eq(~used),
            outside.eq((walk.address < 0) | (walk.address + walk.two >= config.activation_depth)),
            self.read.addr.eq(walk.address),
            self.read.en.eq(walk.advance & used & ~outside),
            self.o_address_error.eq(walk.advance & used & outside),
        ]

        # They are there, and join those before them.
        there = Signal()
        place = data.StructLayout(
            {"slot": walk.slot.shape(), "digit": walk.digit.shape(), "two": 1, "used": 1, "last": 1}
        )
        read = Signal(place, reset_less=True)
        with m.If(moving):
            m.d.sync += [
                there.eq(walk.advance),
                read.slot.eq(walk.slot),
                read.digit.eq(walk.digit),
                read.two.eq(walk.two),
                read.used.eq(used),
                read.last.eq(walk.last_digit | ~used),
            ]
        groups = [Signal(config.requant_lanes * digit_bits, name=f"group_{n}") for n in range(2)]
        for word, (group, there_is) in enumerate(zip(groups, (read.used, read.used & read.two), strict=True)):
            m.d.comb += group.eq(Mux(there_is, self.read.data[word].word_select(read.slot, len(group)), 0))
        with m.If(moving):
            m.d.sync += self.o.valid.eq(there & read.last)
        with m.If(moving & there):
            for lane in range(config.requant_lanes):
                parts = []
                for digit, at in enumerate(range(0, config.max_output_bits, digit_bits)):
                    part = self.o.payload[lane][at : at + digit_bits]
                    kept = Mux(read.digit == 0, 0, part)
                    new = groups[digit % 2].word_select(lane, digit_bits)
                    parts.append(Mux(read.digit == digit - digit % 2, new, kept)[: len(part)])
                m.d.sync += self.o.payload[lane].eq(Cat(parts))
        return m
