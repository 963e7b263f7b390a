"""Bench of the PactUnit: every item's code against golden's requantization, in order, at full rate.

Job: ``unit`` (the component's parameters, by name), ``latency``, ``random`` (number of random items),
``stall`` (probability, on both sides) and ``vectors`` (folders of golden vectors whose layers' accumulators
and constants are run, first frame only).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

import cocotb
import numpy as np

from golden import vectors
from golden.execute import accumulate
from golden.network import Conv2d
from golden.requantize import Solution
from tb.benches.common import LIMIT, job
from tb.stimulus import pack
from tb.streams import Sink, Source, reset, run


@dataclass(frozen=True)
class Unit:
    """The parameters of the unit under test; the ports follow from them."""

    acc_bits: int
    multiplier_bits: int
    bias_bits: int
    max_shift: int
    max_output_bits: int
    output_bits: int | None = None
    skip_bits: int = 0
    skip_multiplier_bits: int = 0
    accumulator_out: bool = False

    def item(self, acc: int, constants: Solution, bits: int, skip: int) -> tuple[int, int]:
        """The packed input and the output that golden gives for it; ``bits`` = 0 passes the accumulator."""
        fields = [
            (acc, self.acc_bits),
            (constants.multiplier, self.multiplier_bits),
            (constants.bias, self.bias_bits),
            (constants.shift, self.max_shift.bit_length()),
        ]
        if self.output_bits is None:
            fields.append((bits, self.max_output_bits.bit_length()))
        if self.skip_bits:
            fields += [(skip, self.skip_bits), (constants.skip_multiplier, self.skip_multiplier_bits)]
        if bits:
            return pack(fields), constants.code(acc, bits, skip)
        total = acc * constants.multiplier + skip * constants.skip_multiplier + constants.bias
        return pack(fields), total % (1 << self.acc_bits)

    @property
    def widths(self) -> range:
        """The output widths that the unit can be asked for."""
        if self.output_bits is not None:
            return range(self.output_bits, self.output_bits + 1)
        return range(0 if self.accumulator_out else 1, self.max_output_bits + 1)


def corner_items(unit: Unit, random: Random) -> Iterator[tuple[int, int]]:
    """All extremes of acc, M and B with each other; the shift, the skip and the output width in turn."""

    def extremes(bits: int) -> list[int]:
        top = 1 << (bits - 1)
        return [-top, 1 - top, -1, 0, 1, top // 2, top - 1]

    skips = [0, 1, (1 << unit.skip_bits) - 1] if unit.skip_bits else [0]
    skip_multipliers = extremes(unit.skip_multiplier_bits) if unit.skip_bits else [0]
    for acc, multiplier, bias in product(*map(extremes, (unit.acc_bits, unit.multiplier_bits, unit.bias_bits))):
        for shift in {0, 1, unit.max_shift, random.randint(0, unit.max_shift)}:
            if shift <= unit.max_shift:
                skip, skip_multiplier = random.choice(skips), random.choice(skip_multipliers)
                constants = Solution(multiplier, skip_multiplier, bias, shift)
                yield unit.item(acc, constants, random.choice(unit.widths), skip)


def random_items(unit: Unit, random: Random, count: int) -> Iterator[tuple[int, int]]:
    """Constants of every magnitude; half of the time with the bias that puts the sum near an output code's edge."""

    def signed(bits: int) -> int:
        return random.getrandbits(bits) - (1 << (bits - 1)) >> random.randrange(bits)

    low, high = -(1 << (unit.bias_bits - 1)), (1 << (unit.bias_bits - 1)) - 1
    for _ in range(count):
        acc, multiplier = signed(unit.acc_bits), signed(unit.multiplier_bits)
        shift, bits = random.randint(0, unit.max_shift), random.choice(unit.widths)
        skip = random.getrandbits(unit.skip_bits) if unit.skip_bits else 0
        skip_multiplier = signed(unit.skip_multiplier_bits) if unit.skip_bits else 0
        bias = signed(unit.bias_bits)
        if random.getrandbits(1):
            edge = (random.randint(-1, (1 << bits) + 1) << shift) + random.choice([-1, 0, 1])
            bias = min(max(edge - acc * multiplier - skip * skip_multiplier, low), high)
        yield unit.item(acc, Solution(multiplier, skip_multiplier, bias, shift), bits, skip)


def layer_items(unit: Unit, folder: str) -> Iterator[tuple[int, int]]:
    """Every accumulator of the first frame of a network's layers that the unit can requantize."""
    network, tensors = vectors.read(folder)
    for operation in network.operations:
        if not isinstance(operation, Conv2d):
            continue
        if operation.skip is not None and network.tensor(operation.skip).bits > unit.skip_bits:
            continue
        acc = accumulate(tensors[operation.input][:1], operation, network)[0]
        bits = 0 if operation.requantize is None else network.tensor(operation.output).bits
        if bits not in unit.widths:
            continue
        skips = np.zeros_like(acc) if operation.skip is None else tensors[operation.skip][0]
        expected = tensors[operation.output][0].astype(np.int64)
        for channel in range(acc.shape[0]):
            constants = Solution(1, 0, 0, 0)
            if operation.requantize is not None:
                each = operation.requantize
                skip_multiplier = 0 if each.skip_multiplier is None else int(each.skip_multiplier[channel])
                constants = Solution(
                    int(each.multiplier[channel]),
                    skip_multiplier,
                    int(each.bias[channel]),
                    int(each.shift[channel]),
                )
            values = zip(acc[channel].flat, skips[channel].flat, expected[channel].flat, strict=True)
            for value, skip, code in values:
                word, _ = unit.item(int(value), constants, bits, int(skip))
                yield word, int(code) % (1 << unit.acc_bits)


async def check(dut: Any, items: Iterable[tuple[int, int]]) -> None:
    """Stream the items through and compare; without stalls every cycle takes one."""
    parameters, random = job(), Random(cocotb.RANDOM_SEED)
    words, expected = zip(*items, strict=True)
    source = Source(dut, "i", words, stall=parameters["stall"], random=random)
    sink = Sink(dut, "o", stall=parameters["stall"], random=random)
    await reset(dut)
    cycles = await run(dut, (source, sink), lambda: len(sink.received) >= len(words))
    for n, (code, got) in enumerate(zip(expected, sink.received, strict=True)):
        assert got == code, f"item {n}, input {words[n]:#x}: expected {code}, got {got}"
    if not parameters["stall"]:
        assert cycles == len(words) + parameters["latency"] + 1, "one item a cycle after the latency"


@cocotb.test(**LIMIT)
async def corners_equal_golden(dut: Any) -> None:
    """Extremes of every input."""
    await check(dut, corner_items(Unit(**job()["unit"]), Random(cocotb.RANDOM_SEED)))


@cocotb.test(**LIMIT)
async def random_items_equal_golden(dut: Any) -> None:
    """Random constants, sums near the codes' edges."""
    await check(dut, random_items(Unit(**job()["unit"]), Random(cocotb.RANDOM_SEED), job()["random"]))


@cocotb.test(**LIMIT)
async def layers_equal_golden(dut: Any) -> None:
    """The accumulators and constants of the job's networks."""
    unit = Unit(**job()["unit"])
    await check(dut, [item for folder in job()["vectors"] for item in layer_items(unit, folder)])
