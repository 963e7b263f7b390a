"""Bench of the accelerator: lets packets go, waits, and reads the registers. The words do not pass through Python.

Job: ``config`` (the fields of an AcceleratorConfig), ``steps`` (see :class:`tb.session.Step`; packets are counts),
``outcomes`` (file that gets one JSON line per step, and one at the end) and ``profile`` (whether to measure the time
that Python takes).
"""

from __future__ import annotations

import cProfile
import json
import pstats
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time

from hw.config import AcceleratorConfig
from hw.program_format import Error
from tb.benches.common import LIMIT, job
from tb.driver import AcceleratorError, Control
from tb.runner import SimulationError
from tb.streams import PERIOD_NS, read

DRAIN_CYCLES = 200_000
"""Cycles in which the packets of a program that failed must have been taken."""


class Host:
    """What a step does, one after the other."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut

    async def power_up(self, config: AcceleratorConfig) -> None:
        """Start the clock, reset, and see whether this is the right accelerator."""
        dut = self.dut
        # The masters of cocotbext-axi wait for edges of a reset that must be high when they are made.
        dut.resetn.value = 1
        await Timer(1, "ns")
        self.control = Control(dut, dut.clk, dut.resetn)
        dut.resetn.value = 0
        await Timer(1, "ns")
        for name in ("program_allowed", "input_allowed", "program_stall", "input_stall", "output_stall"):
            dut[name].value = 0
        dut.seed.value = cocotb.RANDOM_SEED & 0xFFFF_FFFF
        Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start()
        await self.reset()
        await self.control.identify(config)
        await self.control.start()

    async def reset(self) -> None:
        """The reset pin, low for some cycles."""
        self.dut.resetn.value = 0
        await ClockCycles(self.dut.clk, 3)
        self.dut.resetn.value = 1
        await RisingEdge(self.dut.clk)

    async def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """One step; what came of it."""
        dut, control = self.dut, self.control
        for name, stall in step["stalls"].items():
            dut[f"{name}_stall"].value = stall
        finished = await control.get("PROGRAMS")
        # The inputs wait before the program begins.
        dut.input_allowed.value = read(dut.input_allowed) + step["inputs"]
        dut.program_allowed.value = read(dut.program_allowed) + step["programs"]
        error, command = Error.NONE, 0
        if step["reset_after"] is not None:
            await ClockCycles(dut.clk, step["reset_after"])
            await self.reset()
            counters = await control.counters()
            await control.start()
        else:
            try:
                while (await control.get("PROGRAMS") - finished) % (1 << 32) < step["programs"]:
                    await with_timeout(control.wait(), step["limit"] * PERIOD_NS, "ns")
            except AcceleratorError as stopped:
                error, command = stopped.code, stopped.command
            except SimTimeoutError:
                counters = await control.counters()
                raise SimulationError(
                    f"The accelerator must finish a program within {step['limit']} cycles, and did not: {counters}"
                ) from None
            counters = await control.counters()
            await self.until(self.all_sent, "take all packets")
            if error is not Error.NONE:
                await control.recover()
                assert not await control.get("ERROR")
        if faults := read(dut.output_faults):
            raise SimulationError(f"The output stream must keep its rules, not break them in {faults} cycles")
        return {
            "error": error,
            "command": command,
            **asdict(counters),
            "words": read(dut.output_words),
        }

    def all_sent(self) -> bool:
        """Whether all packets have been taken."""
        dut = self.dut
        return read(dut.program_sent) == read(dut.program_allowed) and read(dut.input_sent) == read(dut.input_allowed)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for it, for a limited time."""
        for _ in range(DRAIN_CYCLES // 100):
            if condition():
                return
            await ClockCycles(self.dut.clk, 100)
        raise SimulationError(f"The accelerator must {what} within {DRAIN_CYCLES} cycles, and did not")


@cocotb.test(**LIMIT)
async def steps_run(dut: Any) -> None:
    """Does every step of the job and writes down what came of it."""
    parameters = job()
    profile = cProfile.Profile()
    if parameters["profile"]:
        profile.enable()
    started = time.monotonic()
    host = Host(dut)
    with Path(parameters["outcomes"]).open("w") as outcomes:

        def write(line: dict[str, Any]) -> None:
            outcomes.write(json.dumps(line) + "\n")
            outcomes.flush()

        await host.power_up(AcceleratorConfig(**parameters["config"]))
        for number, step in enumerate(parameters["steps"]):
            try:
                write(await host.step(step))
            except SimulationError as error:
                raise SimulationError(f"Step {number}: {error}") from None
        seconds = time.monotonic() - started
        profile.disable()
        python = pstats.Stats(profile).total_tt if parameters["profile"] else 0.0  # type: ignore[attr-defined]
        cycles = round(get_sim_time("ns") / PERIOD_NS)
        write({"cycles": cycles, "seconds": seconds, "python_seconds": python})
