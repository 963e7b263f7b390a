"""Bench of the ScaledArray: every accumulator of every layer of a network against golden's.

Job: ``array`` (the parameters of the ScaledArray), ``latency``, ``stall`` (probability of a cycle without a beat, and
of one without an advance), ``vectors`` (a folder of golden vectors, first frame only) and ``layers`` (their names).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from golden import vectors
from golden.network import Conv2d
from hw.scaled_array import ScaledArray
from tb.benches.common import LIMIT, job
from tb.benches.mac_array import Cycle, Position, plan
from tb.scaled import ScaledLayer
from tb.streams import Strobe, read, reset


def layers(array: ScaledArray) -> Iterator[ScaledLayer]:
    """The job's layers."""
    network, tensors = vectors.read(job()["vectors"])
    for name in job()["layers"]:
        operation = network.operation(name)
        assert isinstance(operation, Conv2d)
        array.check(operation, network.tensor(operation.input))
        yield ScaledLayer(network, operation, array, tensors[operation.input][:1])


async def play(dut: Any, layer: ScaledLayer, steps: list[Cycle], random: Random) -> None:
    """Drive every cycle, and compare what the drain shows in it."""
    array = layer.array
    edge, strobe = RisingEdge(dut.clk), Strobe(dut, "i", random=random)
    mask, sign = (1 << array.acc_bits) - 1, 1 << (array.acc_bits - 1)
    seen = np.zeros(layer.expected.shape, bool)
    dut.weight_bits.value = layer.operation.bits
    if array.odd_grid:
        dut.odd.value = int(layer.odd)
    position, group = -1, 0
    before = Cycle()
    for number, step in enumerate([*steps, Cycle()]):
        await edge
        assert read(dut.complete) == before.complete, f"complete in cycle {number - 1}: expected {before.complete}"
        if before.rows is not None:
            word = read(dut.o_rows)
            for lane in range(len(before.rows)):
                place = layer.place(position, group * array.drain_rows + lane)
                if place is not None:
                    got, expected = (word >> (array.acc_bits * lane) & mask ^ sign) - sign, int(layer.expected[place])
                    assert got == expected, (
                        "layer {}, frame {}, channel {}, row {}, column {}: expected {}, got {}".format(
                            layer.operation.name, *place, expected, got
                        )
                    )
                    seen[place] = True
        position, group = (position + 1, 0) if before.capture else (position, group + before.advance)
        strobe.offer(step.beat)
        dut.capture.value = int(step.capture)
        dut.advance.value = int(step.advance)
        before = step
    assert seen.all(), f"layer {layer.operation.name}: {seen.sum()} of {seen.size} accumulators compared"


@cocotb.test(**LIMIT)
async def layers_equal_golden(dut: Any) -> None:
    """Every layer, one after the other: golden's accumulators, every element."""
    parameters, random = job(), Random(cocotb.RANDOM_SEED)
    array = ScaledArray(**parameters["array"])
    dut.capture.value = 0
    dut.advance.value = 0
    await reset(dut)
    for layer in layers(array):
        pairs = zip(layer.positions(), layer.sums(), strict=True)
        steps = plan(
            [Position(beats, [*sums, 0]) for beats, sums in pairs],
            rows=array.rows,
            drain_rows=array.drain_rows,
            latency=parameters["latency"],
            stall=parameters["stall"],
            random=random,
        )
        await play(dut, layer, steps, random)
