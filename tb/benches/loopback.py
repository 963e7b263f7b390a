"""Bench of the benches: a design that hands its stream ``i`` on to its stream ``o``, unchanged and in order."""

from __future__ import annotations

from random import Random
from typing import Any

import cocotb

from tb.benches.common import LIMIT, job
from tb.streams import Sink, Source, reset, run


@cocotb.test(**LIMIT)
async def items_come_out_in_order(dut: Any) -> None:
    """With the job's stall probability on both sides."""
    parameters = job()
    random = Random(cocotb.RANDOM_SEED)
    items = [random.getrandbits(len(dut.i__payload)) for _ in range(parameters["items"])]
    source = Source(dut, "i", items, stall=parameters["stall"], random=random)
    sink = Sink(dut, "o", stall=parameters["stall"], random=random)
    await reset(dut)
    cycles = await run(dut, (source, sink), lambda: source.done and len(sink.received) >= len(items))
    assert sink.received == items
    if not parameters["stall"]:
        assert cycles <= len(items) + 4
