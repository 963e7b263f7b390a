"""The accelerator: fetch unit, core and control behind AXI ports. It joins them and computes nothing."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, ClockSignal, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.axi import connect_lite, lite_ports, stream_ports
from hw.config import AcceleratorConfig
from hw.control import Control
from hw.core import Core
from hw.fetch import ProgramFetch
from hw.program_format import Error
from hw.registers import ADDRESS_BITS

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """A whole network, one program stream in and the answer out.

    :mod:`hw.program_format` says what a program is, :mod:`hw.registers` what the registers are, :class:`ProgramFetch`
    and :class:`Core` when words are taken. The streams are independent: each waits for what it needs of the others, and
    any order of feeding ends, so long as every LOAD gets its packet and every output word is taken in the end.

    Program words are accepted while CONTROL.enable is 1; those of the next program from the cycle after the END
    command was executed. In the error state, until a soft reset, program and input words are accepted and thrown
    away; output words that come out still are what commands before the error have sent. A soft reset waits until no
    output word is offered and not accepted, then resets everything but Control; in that cycle (``tready`` and
    ``tvalid`` low) nothing is transferred. A program packet that has not ended by then is taken for a new program, an
    output packet that has not ended never ends: transfers are to be finished or aborted before.

    No output depends on an input of the same cycle.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry, widths and depths.

    Members
    -------
    aclk : ``In(1)``, ``aresetn`` : ``In(1)``
        The clock, and the synchronous reset, active low.
    s_axil_* :
        AXI4-Lite; :data:`~hw.registers.ADDRESS_BITS` of address, 32 of data.
    s_axis_program_* , s_axis_input_* , m_axis_output_* :
        AXI4-Streams of ``stream_bits``: ``tdata``, ``tvalid``, ``tready``, ``tlast``. Input and output have an
        activation word in the low ``lanes * digit_bits`` bits; those above are not read, and are 0.
    interrupt : ``Out(1)``
        Level; see CONTROL and STATUS.

    Raises
    ------
    :class:`ValueError`
        An array may have these parameters, but no accelerator (:meth:`AcceleratorConfig.check_accelerator`).
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        config.check_accelerator()
        self.config = config
        super().__init__(
            {
                "aclk": In(1),
                "aresetn": In(1),
                **lite_ports("s_axil", ADDRESS_BITS),
                **stream_ports("s_axis_program", In, config.stream_bits),
                **stream_ports("s_axis_input", In, config.stream_bits),
                **stream_ports("m_axis_output", Out, config.stream_bits),
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        control = Control(self.config)
        fetch = ProgramFetch(self.config)
        core = Core(self.config)

        def clocked(name: str, reset: Value) -> Module:
            """A part whose registers have this reset."""
            m.submodules[name] = part = Module()
            part.domains.sync = ClockDomain(local=True)
            part.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(reset)]
            return part

        hard, soft = Signal(), Signal()
        m.d.comb += [hard.eq(~self.aresetn), soft.eq(hard | control.o_reset)]
        clocked("registers", hard).submodules.control = control
        engine = clocked("engine", soft)
        engine.submodules.fetch = fetch
        engine.submodules.core = core

        wiring.connect(m, fetch.o_command, core.i_command)
        wiring.connect(m, fetch.o_constants, core.i_constants)
        wiring.connect(m, fetch.o_weights, core.i_weights)
        connect_lite(m, self, "s_axil", control.axil)
        m.d.comb += [
            control.i_start.eq(fetch.o_start),
            control.i_done.eq(core.o_done),
            control.i_mark.eq(core.o_mark),
            control.i_beat.eq(core.o_beat),
            control.i_program_wait.eq(fetch.o_wait),
            control.i_input_wait.eq(core.o_wait_input),
            control.i_output_wait.eq(core.o_wait_output),
            control.i_output_taken.eq(self.m_axis_output_tvalid & self.m_axis_output_tready),
            control.i_output_waits.eq(self.m_axis_output_tvalid & ~self.m_axis_output_tready),
            control.i_fetch_error.eq(fetch.o_error),
            control.i_core_error.eq(core.o_error),
            control.i_command.eq(fetch.o_index),
            fetch.i_done.eq(core.o_done),
            fetch.i_stop.eq(core.o_error != Error.NONE),
            self.interrupt.eq(control.o_interrupt),
        ]

        # Streams: closed in the cycle of a soft reset.
        program, i, o = fetch.i_program, core.i_input, core.o_output
        open_, error, accepts = Signal(), control.o_error, Signal()
        m.d.comb += [
            open_.eq(~control.o_reset),
            accepts.eq(open_ & (control.o_enable | error)),
            program.payload.data.eq(self.s_axis_program_tdata),
            program.payload.last.eq(self.s_axis_program_tlast),
            program.valid.eq(self.s_axis_program_tvalid & accepts),
            self.s_axis_program_tready.eq(program.ready & accepts),
            i.payload.data.eq(self.s_axis_input_tdata),
            i.payload.last.eq(self.s_axis_input_tlast),
            i.valid.eq(self.s_axis_input_tvalid & open_ & ~error),
            self.s_axis_input_tready.eq((i.ready | error) & open_),
            self.m_axis_output_tdata.eq(o.payload.data),
            self.m_axis_output_tlast.eq(o.payload.last),
            self.m_axis_output_tvalid.eq(o.valid & open_),
            o.ready.eq(self.m_axis_output_tready & open_),
        ]
        return m
