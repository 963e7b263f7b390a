"""Bench of the Datapath: the layers of an integer network, each fed golden's input to it.

Job: ``config`` (the fields of an AcceleratorConfig), ``vectors`` (a folder of golden vectors), ``frames``
(how many of them), ``stalls`` (probabilities by stream), ``together`` (whether the layers follow each other
without a pause) and ``results`` (file that gets one JSON line per layer: its name, cycles and result words).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import cocotb

from golden import vectors
from golden.network import Conv2d
from hw.config import AcceleratorConfig
from tb.benches.common import LIMIT, job
from tb.stimulus import Layer
from tb.streams import Sink, Source, reset, run


def layers(parameters: dict[str, Any]) -> Iterator[Layer]:
    """The job's layers, in the network's order."""
    config = AcceleratorConfig(**parameters["config"])
    network, tensors = vectors.read(parameters["vectors"])
    tensors = {name: values[: parameters["frames"]] for name, values in tensors.items()}
    for operation in network.operations:
        if isinstance(operation, Conv2d):
            yield Layer.of(network, operation, config, tensors)


def without_spare_lanes(config: AcceleratorConfig) -> Callable[[str], str] | None:
    """What hides a position's last lanes where no row stands behind them."""
    spare = -config.rows % config.requant_lanes
    if not spare:
        return None

    def hide(bits: str) -> str:
        return (
            bits[0] + "0" * (spare * config.acc_bits) + bits[1 + spare * config.acc_bits :] if bits[0] == "1" else bits
        )

    return hide


@cocotb.test(**LIMIT)
async def layers_run(dut: Any) -> None:
    """Streams every layer and writes what comes out into the results file."""
    parameters = job()
    random = Random(cocotb.RANDOM_SEED)
    stalls = parameters["stalls"]
    dont_care = without_spare_lanes(AcceleratorConfig(**parameters["config"]))

    async def stream(group: list[Layer]) -> tuple[list[int], int]:
        sink = Sink(dut, "o_result", stall=stalls.get("o_result", 0.0), random=random, dont_care=dont_care)
        sources = [
            Source(dut, name, items, stall=stalls.get(name, 0.0), random=random)
            for name, items in (
                ("i_constants", chain.from_iterable(layer.records() for layer in group)),
                ("i_skip", chain.from_iterable(layer.skip_words() for layer in group)),
                ("i_beat", chain.from_iterable(layer.beats() for layer in group)),
            )
        ]
        count = sum(layer.result_count for layer in group)
        if not started:
            await reset(dut)
            started.append(True)
        cycles = await run(
            dut,
            (*sources, sink),
            lambda: len(sink.received) >= count and all(source.done for source in sources),
        )
        return sink.received, cycles

    started: list[bool] = []
    with Path(parameters["results"]).open("w") as results:
        everything = layers(parameters)
        for group in [list(everything)] if parameters["together"] else ([layer] for layer in everything):
            words, cycles = await stream(group)
            for layer in group:
                line = {
                    "name": layer.operation.name,
                    "cycles": cycles if len(group) == 1 else None,
                    "words": words[: layer.result_count],
                }
                words = words[layer.result_count :]
                results.write(json.dumps(line) + "\n")
                results.flush()
