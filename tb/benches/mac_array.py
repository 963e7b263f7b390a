"""Bench of the MacArray: a plan says for every cycle what goes in and what must come out.

Job: ``config`` (the fields of an AcceleratorConfig, whose ``requant_lanes`` are the drain rows), ``latency``,
``stall`` (probability of a cycle without a beat, and of one without an advance) and ``vectors`` (folders of
golden vectors whose layers are run, first frame only).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from golden import vectors
from golden.execute import weight_matrix, windows
from golden.network import Conv2d
from hw.config import AcceleratorConfig
from tb.benches.common import LIMIT, job
from tb.stimulus import Layer, pack
from tb.streams import Strobe, read, reset


@dataclass(frozen=True)
class Position:
    """The beats of one position, and the sums that they leave modulo ``2**acc_bits``: one a row, then the ones row."""

    beats: list[int]
    sums: list[int]


def random_positions(config: AcceleratorConfig, random: Random, count: int) -> Iterator[Position]:
    """Digits of every kind (random, all ones, zeros) and flags in every combination."""
    limit = (1 << config.digit_bits) - 1
    for _ in range(count):
        beats, sums = [], [0] * (config.rows + 1)
        length = random.choice([1, 1, 2, 5])
        for n in range(length):
            fill = random.choice([None, None, 0, limit])

            def digits(fill: int | None = fill) -> list[int]:
                return [random.randint(0, limit) if fill is None else fill for _ in range(config.lanes)]

            x = digits()
            rows = [digits() if random.random() < 0.9 else [limit] * config.lanes for _ in range(config.rows)]
            shift, ones = random.getrandbits(1), random.getrandbits(1)
            for row, weights in enumerate([*rows, [ones] * config.lanes]):
                before = 0 if n == 0 else sums[row] << (config.digit_bits * shift)
                sums[row] = before + sum(a * b for a, b in zip(x, weights, strict=True))
            flags = [n == 0, shift, n == length - 1, ones, random.getrandbits(1)]
            fields = [(digit, config.digit_bits) for row in [x, *rows] for digit in row]
            beats.append(pack([*fields, *((flag, 1) for flag in flags)]))
        yield Position(beats, [total % (1 << config.acc_bits) for total in sums])


def layer_positions(layer: Layer) -> Iterator[Position]:
    """A layer's positions; the sums are golden's windows times golden's weight codes."""
    source = layer.network.tensor(layer.operation.input)
    gathered = windows(layer.source, layer.operation, source).astype(np.int64)
    matrix = weight_matrix(layer.operation, source).astype(np.int64)
    beats = layer.beats()
    modulus = 1 << layer.config.acc_bits
    for group, channels in layer.tiles:
        rows = np.zeros((layer.config.rows, matrix.shape[2]), np.int64)
        first = group * matrix.shape[1]
        rows[: len(channels)] = matrix[group, channels.start - first : channels.stop - first]
        for window in gathered[:, group].reshape(layer.positions, -1):
            sums = [*(rows @ window).tolist(), int(window.sum())]
            yield Position([next(beats) for _ in layer.schedule], [total % modulus for total in sums])


@dataclass
class Cycle:
    """What is driven in one cycle and what is read in it; ``rows`` is the part of a position that the drain shows."""

    beat: int | None = None
    capture: bool = False
    advance: bool = False
    complete: bool = False
    rows: list[int] | None = None
    ones: int | None = None


def plan(
    positions: Iterable[Position], *, rows: int, drain_rows: int, latency: int, stall: float, random: Random
) -> list[Cycle]:
    """Cycle by cycle: positions as early as the drain allows, with gaps and late captures if ``stall`` is not 0."""
    groups = -(-rows // drain_rows)
    cycles: dict[int, Cycle] = {}

    def cycle(number: int) -> Cycle:
        return cycles.setdefault(number, Cycle())

    def wait() -> int:
        count = 0
        while random.random() < stall:
            count += 1
        return count

    now = drained = 0
    for position in positions:
        # The last beat reaches the accumulators after the drain registers are free.
        now = max(now, drained - latency - len(position.beats) + 1)
        for beat in position.beats:
            now += wait()
            cycle(now).beat = beat
            now += 1
        complete = now - 1 + latency
        late = wait()
        capture = complete + late
        for number in range(complete, capture + 1):
            cycle(number).complete = True
        cycle(capture).capture = True
        # The next position's first beat is accumulated after the capture.
        now = max(now, capture - latency + 1)
        shown = capture + 1
        for group in range(groups):
            part = range(group * drain_rows, min((group + 1) * drain_rows, rows))
            hold = wait()
            for number in range(shown, shown + hold + 1):
                cycle(number).rows = [position.sums[row] for row in part]
                cycle(number).ones = position.sums[-1]
            shown += hold + 1
            if group < groups - 1:
                cycle(shown - 1).advance = True
        drained = shown - 1
    return [cycles.get(number, Cycle()) for number in range(max(cycles) + 4)]


async def play(
    dut: Any, steps: list[Cycle], config: AcceleratorConfig, random: Random, *, hold: bool = False
) -> None:
    """Drive and check every cycle; ``hold`` keeps the payload between beats instead of driving something unknown."""
    edge = RisingEdge(dut.clk)
    strobe = Strobe(dut, "i", random=random, hold=hold)
    mask = (1 << config.acc_bits) - 1
    capture = advance = False
    dut.capture.value = 0
    dut.advance.value = 0
    await reset(dut)
    before = Cycle()
    for number, step in enumerate([*steps, Cycle()]):
        await edge
        assert read(dut.complete) == before.complete, f"complete in cycle {number - 1}: expected {before.complete}"
        if before.rows is not None:
            word = read(dut.o_rows)
            got = [(word >> (config.acc_bits * lane)) & mask for lane in range(len(before.rows))]
            assert got == before.rows, f"rows in cycle {number - 1}: expected {before.rows}, got {got}"
            ones = read(dut.o_ones)
            assert ones == before.ones, f"ones row in cycle {number - 1}: expected {before.ones}, got {ones}"
        strobe.offer(step.beat)
        if step.capture != capture:
            capture = step.capture
            dut.capture.value = int(capture)
        if step.advance != advance:
            advance = step.advance
            dut.advance.value = int(advance)
        before = step


async def check(dut: Any, positions: Iterable[Position]) -> None:
    """Plan the positions with the job's stalls and play them."""
    parameters, random = job(), Random(cocotb.RANDOM_SEED)
    config = AcceleratorConfig(**parameters["config"])
    steps = plan(
        positions,
        rows=config.rows,
        drain_rows=config.requant_lanes,
        latency=parameters["latency"],
        stall=parameters["stall"],
        random=random,
    )
    assert sum(step.capture for step in steps) > 0
    await play(dut, steps, config, random)


@cocotb.test(**LIMIT)
async def random_beats_equal_the_formula(dut: Any) -> None:
    """Digits and flags of every kind against the formula in the component's contract."""
    config = AcceleratorConfig(**job()["config"])
    await check(dut, random_positions(config, Random(cocotb.RANDOM_SEED), job()["random"]))


@cocotb.test(**LIMIT)
async def layers_equal_golden(dut: Any) -> None:
    """Every layer of the job's networks against golden's windows and weight codes."""
    config = AcceleratorConfig(**job()["config"])

    def positions() -> Iterator[Position]:
        for folder in job()["vectors"]:
            network, tensors = vectors.read(folder)
            one = {name: values[:1] for name, values in tensors.items()}
            for operation in network.operations:
                if isinstance(operation, Conv2d):
                    yield from layer_positions(Layer.of(network, operation, config, one))

    await check(dut, positions())
