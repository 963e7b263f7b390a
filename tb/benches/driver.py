"""Bench of the host's driver: the page ``docs/soc.md`` runs on the accelerator, its streams driven from Python.

Job: ``vectors`` (a folder of golden vectors), ``config`` (the fields of an AcceleratorConfig) and ``pause``
(probability of a cycle in which a stream pauses).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

from golden import vectors
from hw.config import AcceleratorConfig
from hw.program import build
from hw.program_format import Error
from tb.benches.common import LIMIT, job
from tb.driver import AcceleratorError, Driver
from tb.streams import PERIOD_NS

PAGE = Path(__file__).parents[2] / "docs" / "soc.md"


def page() -> dict[str, Any]:
    """What the page's Python blocks define."""
    names: dict[str, Any] = {}
    for block in PAGE.read_text(encoding="utf-8").split("```python\n")[1:]:
        exec(compile(block.split("```")[0], str(PAGE), "exec"), names)
    return names


def pauses(probability: float) -> Iterator[bool]:
    """For the pause generators of a stream."""
    random = Random(cocotb.RANDOM_SEED)
    while True:
        yield random.random() < probability


async def power_up(dut: Any) -> None:
    """Clock and reset."""
    dut.aresetn.value = 0
    Clock(dut.aclk, PERIOD_NS, unit="ns", impl="gpi").start()
    await ClockCycles(dut.aclk, 3)
    dut.aresetn.value = 1
    await ClockCycles(dut.aclk, 1)


@cocotb.test(**LIMIT)
async def the_page_runs(dut: Any) -> None:
    """As a reader would copy it."""
    network, tensors = vectors.read(job()["vectors"])
    await power_up(dut)
    output = await page()["run_network"](dut, network, tensors[network.input.name][0])
    assert (output == tensors[network.output.name][0]).all()


@cocotb.test(**LIMIT)
async def streams_may_pause(dut: Any) -> None:
    """Frames queued ahead, every stream pausing, the program's packet before or after the input's."""
    parameters = job()
    network, tensors = vectors.read(parameters["vectors"])
    frames, expected = tensors[network.input.name], tensors[network.output.name]
    program = build(network, AcceleratorConfig(**parameters["config"]))
    driver = Driver(dut)
    await power_up(dut)
    for stream in (driver.program_source, driver.input_source, driver.output_sink):
        stream.set_pause_generator(pauses(parameters["pause"]))
    await driver.start()
    for frame in frames:
        driver.program(program.words(), program.inputs(frame))
    for number in range(len(frames)):
        outputs = program.decode(await driver.read(len(program.outputs)))
        assert (outputs[network.output.name] == expected[number]).all()
    await driver.wait()


@cocotb.test(**LIMIT)
async def recovers_from_an_error(dut: Any) -> None:
    """A wrong program raises; after a soft reset the right one runs."""
    parameters = job()
    network, tensors = vectors.read(parameters["vectors"])
    program = build(network, AcceleratorConfig(**parameters["config"]))
    driver = Driver(dut)
    await power_up(dut)
    await driver.start()
    words = program.words()
    driver.program([words[0] ^ 1, *words[1:]], program.inputs(tensors[network.input.name][0]))
    try:
        await driver.wait()
    except AcceleratorError as error:
        assert (error.code, error.command) == (Error.MAGIC, 0)
        assert str(error) == "Accelerator stopped at command 0 with error 1, MAGIC"
    else:
        raise AssertionError("The program must be refused, not run")
    await driver.program_source.wait()
    await driver.input_source.wait()
    await driver.recover()
    driver.program(words, program.inputs(tensors[network.input.name][0]))
    outputs = program.decode(await driver.read(len(program.outputs)))
    await driver.wait()
    assert (outputs[network.output.name] == tensors[network.output.name][0]).all()
