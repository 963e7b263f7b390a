"""The control port: registers, counters, layer table, interrupt and soft reset behind AXI4-Lite."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw import registers
from hw.axi import OKAY, SLVERR, LiteSignature
from hw.config import AcceleratorConfig
from hw.program_format import ERROR_BITS, Error
from hw.ram import Ram
from hw.registers import ADDRESS_BITS, COUNTER_BITS, LAYERS, Access

__all__ = ["COMMAND_BITS", "Control"]

SECOND_CYCLE = 2
COMMAND_BITS = registers.register("ERROR")["command"].width


class Control(wiring.Component):
    """The registers of :data:`hw.registers.REGISTERS`.

    AXI4-Lite: addresses are taken modulo 4, strobes are honoured byte by byte. An access to an address where no
    register is, and a write to a register of which nothing can be written, is answered with SLVERR, reads 0 and
    changes nothing; all else is answered with OKAY. Reads and writes are independent; a read in the cycle of a write
    gives the old value. At most one write every two cycles and one read every two cycles: a write is taken in the
    second cycle in which its address and its data are both there (in any order before), BVALID follows in the next
    one; ARREADY is high unless a read's data waits, RVALID follows in the cycle after the address. No output depends
    on an input of the same cycle.

    A program runs from ``i_start``, the cycle in which its first word is accepted and which is its cycle 1, to
    ``i_done`` or an error. With ``i_start`` the counters begin again and the layer table is emptied; they count the
    events of the cycles in which the program runs, both ends included. Registers follow their event by one cycle.

    Soft reset: ``o_reset`` is high for one cycle. While it is high the accelerator must show neither valid nor ready
    outside, and ``i_output_waits`` must not have been high in the cycle before: that is what is waited for.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        What the registers say of it.

    Members
    -------
    axil : ``In(LiteSignature(ADDRESS_BITS))``
        The port.
    i_start, i_done : ``In(1)``
        Strobes: the first word of a program is accepted; a program has finished.
    i_mark : ``In(1)``
        Strobe: a marked command has finished.
    i_beat, i_program_wait, i_input_wait, i_output_wait : ``In(1)``
        What the counters count.
    i_output_taken : ``In(1)``, ``i_output_waits`` : ``In(1)``
        A word of the output stream is accepted; one is offered and not accepted.
    i_fetch_error, i_core_error : ``In(ERROR_BITS)``
        Codes of :class:`~hw.program_format.Error`, levels; the core's is taken where both come in one cycle.
    i_command : ``In(COMMAND_BITS)``
        Index of the command that is being read from the program stream; of the one before if the core fails.
    o_enable : ``Out(1)``
        CONTROL.enable.
    o_reset : ``Out(1)``
        Soft reset.
    o_error : ``Out(1)``
        STATUS.error: high from the cycle after the error's until the soft reset's.
    o_interrupt : ``Out(1)``
        ``(STATUS.done & CONTROL.done_interrupt) | (STATUS.error & CONTROL.error_interrupt)``, a level.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "axil": In(LiteSignature(ADDRESS_BITS)),
                "i_start": In(1),
                "i_done": In(1),
                "i_mark": In(1),
                "i_beat": In(1),
                "i_program_wait": In(1),
                "i_input_wait": In(1),
                "i_output_wait": In(1),
                "i_output_taken": In(1),
                "i_output_waits": In(1),
                "i_fetch_error": In(ERROR_BITS),
                "i_core_error": In(ERROR_BITS),
                "i_command": In(COMMAND_BITS),
                "o_enable": Out(1),
                "o_reset": Out(1),
                "o_error": Out(1),
                "o_interrupt": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        control = {bits.name: Signal(bits.width, name=bits.name) for bits in registers.register("CONTROL").bits}
        busy, done = Signal(), Signal()
        code, command = Signal(ERROR_BITS), Signal(COMMAND_BITS)
        m.d.comb += [
            self.o_enable.eq(control["enable"]),
            self.o_error.eq(code != Error.NONE),
            self.o_interrupt.eq(
                (done & control["done_interrupt"]) | (self.o_error & control["error_interrupt"]),
            ),
        ]

        # Counters. `now` is the number of the present cycle, from the second one on.
        start = self.i_start
        counting = Signal()
        now = Signal(COUNTER_BITS)
        cycles = Signal(COUNTER_BITS)
        m.d.comb += counting.eq(busy | start)
        with m.If(start):
            m.d.sync += [now.eq(SECOND_CYCLE), cycles.eq(0)]
        with m.Elif(busy):
            m.d.sync += now.eq(now + 1)
            with m.If(self.i_output_taken):
                m.d.sync += cycles.eq(now)
        counters = {}
        for name, event, bits in (
            ("beats", self.i_beat, COUNTER_BITS),
            ("program_waits", self.i_program_wait, 32),
            ("input_waits", self.i_input_wait, 32),
            ("output_waits", self.i_output_wait, 32),
        ):
            counters[name] = counter = Signal(bits, name=name)
            with m.If(counting):
                m.d.sync += counter.eq(Mux(start, 0, counter) + event)
        programs = Signal(32)
        m.d.sync += programs.eq(programs + self.i_done)

        # The layer table.
        m.submodules.table = table = Ram(lane_bits=32, depth=LAYERS)
        table_write, table_read = table.write, table.read[0]
        layers = Signal(range(LAYERS + 1))
        m.d.comb += [
            table_write.addr.eq(layers),
            table_write.data.eq(now),
            table_write.en.eq(self.i_mark & busy & (layers != LAYERS)),
        ]
        with m.If(start):
            m.d.sync += layers.eq(0)
        with m.Elif(table_write.en):
            m.d.sync += layers.eq(layers + 1)

        # Writes.
        port = self.axil
        write_ready = Signal()
        write_data = Signal(32)
        writes = {item.name: Signal(name=f"write_{item.name.lower()}") for item in registers.REGISTERS if item.writable}
        m.d.comb += [port.awready.eq(write_ready), port.wready.eq(write_ready)]
        m.d.sync += write_ready.eq(~write_ready & port.awvalid & port.wvalid & (~port.bvalid | port.bready))
        # What is not strobed is written as 0, or, in a field that keeps what is written, not at all.
        m.d.comb += write_data.eq(Cat(port.wdata.word_select(n, 8) & port.wstrb[n].replicate(8) for n in range(4)))
        with m.If(write_ready):
            m.d.sync += [port.bvalid.eq(1), port.bresp.eq(SLVERR)]
            with m.Switch(port.awaddr[2:]):
                for name, write in writes.items():
                    with m.Case(registers.register(name).offset // 4):
                        m.d.comb += write.eq(1)
                        m.d.sync += port.bresp.eq(OKAY)
        with m.Elif(port.bready):
            m.d.sync += port.bvalid.eq(0)
        with m.If(writes["CONTROL"]):
            for field in registers.register("CONTROL").bits:
                written = write_data[field.low : field.low + field.width]
                if field.access is Access.RW:
                    with m.If(port.wstrb[field.low // 8]):
                        m.d.sync += control[field.name].eq(written)
                else:
                    m.d.sync += control[field.name].eq(control[field.name] | written)

        # State. What happens in a cycle comes after what is written in it, and the soft reset after both.
        with m.If(writes["STATUS"] & write_data[registers.register("STATUS")["done"].low]):
            m.d.sync += done.eq(0)
        with m.If(start):
            m.d.sync += busy.eq(1)
        with m.If(self.i_done):
            m.d.sync += [busy.eq(0), done.eq(1)]
        with m.If(~self.o_error):
            with m.If(self.i_core_error != Error.NONE):
                m.d.sync += [busy.eq(0), code.eq(self.i_core_error), command.eq(self.i_command - 1)]
            with m.Elif(self.i_fetch_error != Error.NONE):
                m.d.sync += [busy.eq(0), code.eq(self.i_fetch_error), command.eq(self.i_command)]
        m.d.sync += self.o_reset.eq(control["soft_reset"] & ~self.o_reset & ~self.i_output_waits)
        with m.If(self.o_reset):
            m.d.sync += [busy.eq(0), code.eq(0), command.eq(0), control["soft_reset"].eq(0)]

        # Reads.
        values: dict[str, Value] = {
            **{name: Const(value, 32) for name, value in registers.identity(self.config).items()},
            "CONTROL": _packed("CONTROL", control),
            "STATUS": _packed("STATUS", {"busy": busy, "done": done, "error": self.o_error}),
            "ERROR": _packed("ERROR", {"code": code, "command": command}),
            "PROGRAMS": programs,
            **{name.upper(): counters[name] for name in ("program_waits", "input_waits", "output_waits")},
            "LAYERS": layers,
        }
        high = Signal(COUNTER_BITS - 32)
        read = Signal()
        read_data = Signal(32)
        from_table = Signal()
        m.d.comb += [
            port.arready.eq(~port.rvalid),
            read.eq(port.arvalid & port.arready),
            table_read.addr.eq(port.araddr[2:]),
            table_read.en.eq(read),
            port.rdata.eq(Mux(from_table, table_read.data, read_data)),
        ]
        with m.If(read):
            m.d.sync += [port.rvalid.eq(1), port.rresp.eq(OKAY), read_data.eq(0), from_table.eq(0)]
            with m.Switch(port.araddr[2:]):
                for name, value in values.items():
                    with m.Case(registers.register(name).offset // 4):
                        m.d.sync += read_data.eq(value)
                for name, counter in (("CYCLES", cycles), ("BEATS", counters["beats"])):
                    with m.Case(registers.register(f"{name}_LOW").offset // 4):
                        m.d.sync += [read_data.eq(counter[:32]), high.eq(counter[32:])]
                    with m.Case(registers.register(f"{name}_HIGH").offset // 4):
                        m.d.sync += read_data.eq(high)
                with m.Case(*(registers.register("LAYER_CYCLES").offset // 4 + n for n in range(LAYERS))):
                    m.d.sync += from_table.eq(table_read.addr < layers)
                with m.Default():
                    m.d.sync += port.rresp.eq(SLVERR)
        with m.Elif(port.rready):
            m.d.sync += port.rvalid.eq(0)
        return m


def _packed(name: str, fields: Mapping[str, Value]) -> Value:
    """The register called ``name``, of the values of all its fields."""
    return reduce(or_, (fields[bits.name].shift_left(bits.low) for bits in registers.register(name).bits))
