"""The host's side of the accelerator, over AXI: program, start, wait, read.

:class:`Control` is the registers and the interrupt, :class:`Driver` the streams too. The benches use this code, and
``docs/soc.md`` shows it: a driver in another language does the same, access by access.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from hw import registers
from hw.config import AcceleratorConfig
from hw.program_format import Error

__all__ = ["AcceleratorError", "Control", "Counters", "Driver"]


class AcceleratorError(RuntimeError):
    """The accelerator stopped: ``code`` says why, ``command`` is the index of a command in the program."""

    def __init__(self, code: Error, command: int) -> None:
        self.code, self.command = code, command
        super().__init__(f"Accelerator stopped at command {command} with error {code.value}, {code.name}")


@dataclass(frozen=True)
class Counters:
    """What the counters say of the last program, in cycles; ``layers`` is when its marked commands finished."""

    cycles: int
    beats: int
    program_waits: int
    input_waits: int
    output_waits: int
    layers: tuple[int, ...]


class Control:
    """The registers over AXI4-Lite, and the interrupt.

    Parameters
    ----------
    dut
        What has the ports ``s_axil_*`` and ``interrupt``.
    clock, resetn
        Its clock and its active-low reset.
    """

    def __init__(self, dut: Any, clock: Any, resetn: Any) -> None:
        for log in ("s_axil", "s_axis_program", "s_axis_input", "m_axis_output"):
            logging.getLogger(f"cocotb.{dut._name}.{log}").setLevel(logging.WARNING)
        self.interrupt = dut.interrupt
        bus = AxiLiteBus.from_prefix(dut, "s_axil")
        self.port = AxiLiteMaster(bus, clock, resetn, reset_active_level=False)

    async def get(self, name: str) -> int:
        """The value of a register."""
        return int.from_bytes((await self.port.read(registers.register(name).offset, 4)).data, "little")

    async def set(self, name: str, **fields: int) -> None:
        """Write a register: these fields, and 0 to all others."""
        register = registers.register(name)
        value = sum(number << register[field].low for field, number in fields.items())
        await self.port.write(register.offset, value.to_bytes(4, "little"))

    async def field(self, register: str, name: str) -> int:
        """One field of a register."""
        bits = registers.register(register)[name]
        return (await self.get(register) & bits.mask) >> bits.low

    async def identify(self, config: AcceleratorConfig) -> None:
        """Check that this is an accelerator of the given configuration.

        Raises
        ------
        ValueError
            A register says something else.
        """
        for name, value in registers.identity(config).items():
            found = await self.get(name)
            if found != value:
                raise ValueError(f"Register {name} must read {value:#x}, not {found:#x}")

    async def start(self) -> None:
        """Accept programs, and interrupt when one is done or fails."""
        await self.set("CONTROL", enable=1, done_interrupt=1, error_interrupt=1)

    async def wait(self) -> None:
        """Until a program has finished.

        Programs that follow each other without a pause may finish before this returns; the register PROGRAMS counts
        them.

        Raises
        ------
        AcceleratorError
            The accelerator stopped. It takes what is left of the program's and the input's packets and drops it;
            :meth:`recover` makes it usable again.
        """
        while not await self.field("STATUS", "done"):
            if await self.field("STATUS", "error"):
                raise AcceleratorError(Error(await self.field("ERROR", "code")), await self.field("ERROR", "command"))
            if self.interrupt.value != 1:
                await RisingEdge(self.interrupt)
        await self.set("STATUS", done=1)

    async def recover(self) -> None:
        """Reset all but the registers, after the packets of the program and its input have been sent whole."""
        await self.set("CONTROL", enable=1, done_interrupt=1, error_interrupt=1, soft_reset=1)
        while await self.field("CONTROL", "soft_reset"):
            pass

    async def counters(self) -> Counters:
        """What the counters say; exact once the program has finished."""
        values: dict[str, int] = {}
        for name in ("CYCLES", "BEATS"):
            # Reading the low half keeps the high one.
            low = await self.get(f"{name}_LOW")
            values[name.lower()] = low | await self.get(f"{name}_HIGH") << 32
        for name in ("PROGRAM_WAITS", "INPUT_WAITS", "OUTPUT_WAITS"):
            values[name.lower()] = await self.get(name)
        noted = await self.get("LAYERS")
        table = (await self.port.read(registers.register("LAYER_CYCLES").offset, 4 * noted)).data if noted else b""
        layers = tuple(int.from_bytes(table[n : n + 4], "little") for n in range(0, len(table), 4))
        return Counters(**values, layers=layers)


class Driver(Control):
    """The whole host: :class:`Control`, and the three streams.

    The program, its inputs and its outputs are packets: lists of words. They may be given in any order and at any
    time; a stream that has nothing to give, or nowhere to put something, makes the accelerator wait.

    Parameters
    ----------
    dut
        The accelerator, all of its ports.
    """

    def __init__(self, dut: Any) -> None:
        super().__init__(dut, dut.aclk, dut.aresetn)
        ports = dut.aclk, dut.aresetn
        # A word is one element of a frame: it has no bytes of its own.
        options = {"reset_active_level": False, "byte_lanes": 1}
        self.program_source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_program"), *ports, **options)
        self.input_source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis_input"), *ports, **options)
        self.output_sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis_output"), *ports, **options)

    def program(self, words: Sequence[int], inputs: Sequence[Sequence[int]]) -> None:
        """Hand over a program and the packets that its LOAD commands take; nothing moves before :meth:`start`."""
        self.program_source.send_nowait(AxiStreamFrame(list(words)))
        for packet in inputs:
            self.input_source.send_nowait(AxiStreamFrame(list(packet)))

    async def read(self, count: int) -> list[list[int]]:
        """The next ``count`` packets of the output stream, in the order of the program's STORE commands."""
        return [list((await self.output_sink.recv(compact=False)).tdata) for _ in range(count)]
