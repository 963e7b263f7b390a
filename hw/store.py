"""STORE: consecutive words of the activation buffer as one packet of the output stream."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.activation_buffer import read_signature
from hw.axi import word_layout
from hw.command import transfer_layout
from hw.config import AcceleratorConfig

__all__ = ["Store"]


class Store(wiring.Component):
    """Sends words of the activation buffer.

    Timing: with the command taken in cycle c, the first word is read in c + 1 and valid in c + 2; then one word a
    cycle. A word that is offered stays until it is taken, whatever happens. The next command is taken in the cycle
    after the last word's at the earliest. The reads follow ``o_output.ready`` in the same cycle.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry and depth.

    Members
    -------
    i_command : ``In(stream.Signature(transfer_layout(config)))``
        What to do.
    i_halt : ``In(1)``
        Nothing is read any more.
    read : ``Out(read_signature(config))``
        A read port of the activation buffer.
    o_output : ``Out(stream.Signature(word_layout(lanes * digit_bits)))``
        The words.
    o_busy : ``Out(1)``
        A command is being carried out.
    o_mark : ``Out(1)``
        Strobe, in the cycle in which the last word of a STORE with ``mark`` is taken.
    o_address_error : ``Out(1)``
        Strobe: this cycle's read is outside the activation buffer. It is not made.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        word = config.lanes * config.digit_bits
        super().__init__(
            {
                "i_command": In(stream.Signature(transfer_layout(config))),
                "i_halt": In(1),
                "read": Out(read_signature(config)),
                "o_output": Out(stream.Signature(word_layout(word))),
                "o_busy": Out(1),
                "o_mark": Out(1),
                "o_address_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        command = self.i_command.payload
        output = self.o_output
        reading = Signal()
        address = Signal(range(config.activation_depth + 1), reset_less=True)
        left = Signal(command.words_last.shape(), reset_less=True)
        mark = Signal(reset_less=True)
        last = Signal(reset_less=True)
        go = Signal()
        outside = Signal()
        m.d.comb += [
            self.i_command.ready.eq(~self.o_busy),
            self.o_busy.eq(reading | output.valid),
            outside.eq(address >= config.activation_depth),
            go.eq(reading & (~output.valid | output.ready) & ~self.i_halt),
            self.read.addr.eq(address),
            self.read.en.eq(go & ~outside),
            self.o_address_error.eq(go & outside),
            output.payload.data.eq(self.read.data),
            output.payload.last.eq(last),
            self.o_mark.eq(output.valid & output.ready & last & mark),
        ]
        with m.If(go & ~outside):
            m.d.sync += [output.valid.eq(1), last.eq(left == 0), address.eq(address + 1), left.eq(left - 1)]
            with m.If(left == 0):
                m.d.sync += reading.eq(0)
        with m.Elif(output.ready):
            m.d.sync += output.valid.eq(0)
        with m.If(self.i_command.valid & self.i_command.ready):
            m.d.sync += [
                reading.eq(1),
                address.eq(command.address),
                left.eq(command.words_last),
                mark.eq(command.mark),
            ]
        return m
