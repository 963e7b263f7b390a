"""LOAD: one packet of the input stream into consecutive words of the activation buffer."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.axi import word_layout
from hw.command import transfer_layout
from hw.config import AcceleratorConfig
from hw.program_format import ERROR_BITS, Error

__all__ = ["Load"]


class Load(wiring.Component):
    """Writes a packet of words into the activation buffer.

    Timing: with the command taken in cycle c, words are taken from c + 1 on, one a cycle; each is in the buffer for
    reads of the next cycle. The next command is taken in the cycle after the last word's at the earliest.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry and depth.

    Members
    -------
    i_command : ``In(stream.Signature(transfer_layout(config)))``
        What to do.
    i_input : ``In(stream.Signature(word_layout(lanes * digit_bits)))``
        The words.
    i_halt : ``In(1)``
        Nothing is written any more; the input's words are taken and thrown away.
    write : ``Out({addr, data, en})``
        The write port of the activation buffer; ``en`` is a single bit.
    o_busy : ``Out(1)``
        A command is being carried out.
    o_mark : ``Out(1)``
        Strobe, in the cycle in which the last word of a LOAD with ``mark`` is taken.
    o_error : ``Out(Error)``
        Strobe of a code: ADDRESS, INPUT_SHORT or INPUT_LONG, 0 if nothing is wrong.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        write = wiring.Signature(
            {
                "addr": Out(range(config.activation_depth)),
                "data": Out(config.lanes * config.digit_bits),
                "en": Out(1),
            }
        )
        super().__init__(
            {
                "i_command": In(stream.Signature(transfer_layout(config))),
                "i_input": In(stream.Signature(word_layout(config.lanes * config.digit_bits))),
                "i_halt": In(1),
                "write": Out(write),
                "o_busy": Out(1),
                "o_mark": Out(1),
                "o_error": Out(ERROR_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        command = self.i_command.payload
        address = Signal(range(config.activation_depth + 1), reset_less=True)
        left = Signal(command.words_last.shape(), reset_less=True)
        mark = Signal(reset_less=True)
        taken = Signal()
        last = Signal()
        outside = Signal()
        m.d.comb += [
            self.i_command.ready.eq(~self.o_busy),
            self.i_input.ready.eq(self.o_busy | self.i_halt),
            taken.eq(self.o_busy & self.i_input.valid & ~self.i_halt),
            last.eq(left == 0),
            outside.eq(address >= config.activation_depth),
            self.write.addr.eq(address),
            self.write.data.eq(self.i_input.payload.data),
            self.write.en.eq(taken & ~outside),
            self.o_mark.eq(taken & last & mark),
        ]
        with m.If(taken):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
            with m.If(outside):
                m.d.comb += self.o_error.eq(Error.ADDRESS)
            with m.Elif(self.i_input.payload.last != last):
                m.d.comb += self.o_error.eq(Mux(last, Error.INPUT_LONG, Error.INPUT_SHORT))
            with m.If(last):
                m.d.sync += self.o_busy.eq(0)
        with m.Elif(self.i_command.valid & self.i_command.ready):
            m.d.sync += [
                self.o_busy.eq(1),
                address.eq(command.address),
                left.eq(command.words_last),
                mark.eq(command.mark),
            ]
        return m
