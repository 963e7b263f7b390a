"""Balanced buffer trees for the nets that fan out widely: activation bits and the rows' control bits.

ABC's own buffering knows neither what lies behind an adder cell nor how much time there is, and makes chains of a dozen
buffers where every row hangs on one bit. This pass runs before ABC, on the netlist that Yosys writes as JSON, and
leaves ABC no net with more than ``LEAF`` loads among those that it takes as given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from hw.synth.liberty import Library

__all__ = ["LEAF", "WIDE_GATE", "buffer_trees"]

LEAF = 24
"""Most loads of a buffer, and of a flip-flop, port or adder that needs none."""

BRANCH = 12
"""Most buffers that a buffer or such a source drives."""

WIDE_GATE = 48
"""A gate, whose net ABC buffers itself, gets a tree only if it has more loads than this."""


def _clock_pins(library: Library) -> dict[str, set[str]]:
    """The clock pins of every sequential cell."""
    return {
        cell.name: set(re.findall(r"[A-Za-z_]\w*", cell.state.get("clocked_on", "")))
        for cell in library.cells.values()
        if cell.sequential
    }


def _loads(
    module: dict[str, Any], clocks: dict[str, set[str]]
) -> tuple[dict[int, list[tuple[str, str, int]]], set[int]]:
    """The loads of every net as (cell, port, index), in the netlist's order, and the nets that are clocks."""
    loads: dict[int, list[tuple[str, str, int]]] = {}
    clock_nets: set[int] = set()
    for name, cell in module["cells"].items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] != "input":
                continue
            for index, bit in enumerate(bits):
                if isinstance(bit, int):
                    loads.setdefault(bit, []).append((name, port, index))
                    if port in clocks.get(cell["type"], ()) or port in ("clk", "C"):
                        clock_nets.add(bit)
    return loads, clock_nets


def _gate_nets(module: dict[str, Any]) -> set[int]:
    """The nets that ABC drives."""
    return {
        bit
        for cell in module["cells"].values()
        if cell["type"].startswith("$_")
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "output"
        for bit in bits
        if isinstance(bit, int)
    }


def _split(count: int, parts: int) -> Iterator[slice]:
    """``count`` items in ``parts`` runs of nearly equal length."""
    for part in range(parts):
        yield slice(count * part // parts, count * (part + 1) // parts)


def buffer_trees(netlist: dict[str, Any], top: str, library: Library) -> int:
    """Add buffer trees to ``netlist``, Yosys's JSON, in place, and return how many buffers they have.

    Loads keep their order, so that a buffer serves neighbours; all loads of a net are equally many buffers away from
    its driver. The buffer is the library's ``driver``. Output ports stay at the driver.
    """
    module = netlist["modules"][top]
    buffer = library.driver
    source, sink = buffer.inputs[0].name, buffer.outputs[0].name
    loads, clocks = _loads(module, _clock_pins(library))
    gates = _gate_nets(module)
    bits = [bit for net in module["netnames"].values() for bit in net["bits"] if isinstance(bit, int)]
    next_bit = max(bits, default=1) + 1
    count = 0
    for net, targets in sorted(loads.items()):
        if net in clocks or len(targets) <= (WIDE_GATE if net in gates else LEAF):
            continue
        limit = LEAF
        while len(targets) > limit:
            parents = []
            for part in _split(len(targets), math.ceil(len(targets) / limit)):
                name = f"$fanout${count}"
                count += 1
                module["cells"][name] = {
                    "hide_name": 1,
                    "type": buffer.name,
                    "parameters": {},
                    "attributes": {},
                    "port_directions": {source: "input", sink: "output"},
                    "connections": {source: [net], sink: [next_bit]},
                }
                for cell, port, index in targets[part]:
                    module["cells"][cell]["connections"][port][index] = next_bit
                parents.append((name, source, 0))
                next_bit += 1
            targets, limit = parents, BRANCH
    return count
