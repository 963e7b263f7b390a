"""Bench of the ThresholdUnit: every item's code against golden's thresholds, in order, at full rate.

Job: ``acc_bits``, ``output_bits``, ``latency``, ``random`` (number of random channels) and ``stall``
(probability, on both sides).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random
from typing import Any

import cocotb

from golden.requantize import solve, thresholds
from tb.benches.common import LIMIT, job
from tb.benches.pact_unit import check
from tb.stimulus import pack


def item(acc: int, levels: list[int], negate: bool, acc_bits: int, code: int) -> tuple[int, int]:
    """The packed input, and its output."""
    return pack([(acc, acc_bits), *((level, acc_bits + 1) for level in levels), (negate, 1)]), code


def channel_items(acc_bits: int, bits: int, random: Random, channels: int) -> Iterator[tuple[int, int]]:
    """Channels with slopes of both signs and zero; accumulators at both sides of every threshold and at the
    ends.

    The expected codes are those of golden's multiply and shift, which the solver made equal to the real
    channel.
    """
    low, high = -(1 << (acc_bits - 1)), (1 << (acc_bits - 1)) - 1
    for n in range(channels):
        reach = 2.0 ** random.uniform(-2, acc_bits)
        slope = 0.0 if n % 10 == 0 else random.choice([-1, 1]) * (1 << bits) / reach
        offset = random.uniform(-1, 1) * (1 << bits) - slope * random.randint(low, high) * random.choice([0, 0, 1])
        exact = Fraction(slope), Fraction(offset)
        solution = solve(*exact, bits, low, high)
        negate = slope < 0
        mirrored = (-exact[0], exact[1], bits, -high, -low)
        levels = thresholds(*mirrored) if negate else thresholds(*exact, bits, low, high)
        near = {(-t if negate else t) + step for t in random.sample(levels, min(4, len(levels))) for step in (-1, 0, 1)}
        for acc in [low, high, random.randint(low, high), *near]:
            if low <= acc <= high:
                yield item(acc, levels, negate, acc_bits, solution.code(acc, bits))


def corner_items(acc_bits: int, bits: int) -> Iterator[tuple[int, int]]:
    """Thresholds that are all equal, at either end, or never reached."""
    low, high = -(1 << (acc_bits - 1)), (1 << (acc_bits - 1)) - 1
    count = (1 << bits) - 1
    for negate in (False, True):
        least, most = (-high, -low) if negate else (low, high)
        for level in (least, least + 1, -1, 0, 1, most, most + 1):
            for split in (0, 1, count):
                levels = [level] * split + [most + 1] * (count - split)
                for acc in (low, low + 1, -1, 0, 1, high - 1, high):
                    value = -acc if negate else acc
                    yield item(acc, levels, negate, acc_bits, sum(value >= t for t in levels))


def arguments() -> tuple[int, int, Random]:
    """Widths and random numbers of the job."""
    return job()["acc_bits"], job()["output_bits"], Random(cocotb.RANDOM_SEED)


@cocotb.test(**LIMIT)
async def corners(dut: Any) -> None:
    """Extremes of every input."""
    await check(dut, corner_items(*arguments()[:2]))


@cocotb.test(**LIMIT)
async def channels_equal_golden(dut: Any) -> None:
    """Thresholds from golden for random channels."""
    await check(dut, channel_items(*arguments(), job()["random"]))
