"""A flat mapped netlist as a graph: its cells, its nets by name, and what drives each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["FlatCell", "FlatNetlist", "read"]


@dataclass(frozen=True, kw_only=True)
class FlatCell:
    """An instance.

    Members
    -------
    kind : :class:`str`
        The library's cell.
    inputs, outputs : mapping of :class:`str` to :class:`int` or :class:`str`
        The net of each pin that is connected: a number, or ``"0"``, ``"1"``, ``"x"``. Pins of several bits, which
        FPGA cells have, are one each: ``O[0]`` and so on.
    """

    name: str
    kind: str
    inputs: Mapping[str, int | str]
    outputs: Mapping[str, int | str]


@dataclass(frozen=True, kw_only=True)
class FlatNetlist:
    """One flat module.

    Members
    -------
    ports : mapping
        Direction, ``"input"`` or ``"output"``, and nets, least significant bit first, by name.
    cells : mapping of :class:`str` to :class:`FlatCell`
        By instance name, which begins with the names of the modules it lay in, dots between.
    names : mapping
        Nets of every named signal, least significant bit first; names as for cells.
    """

    top: str
    ports: Mapping[str, tuple[str, tuple[int | str, ...]]]
    cells: Mapping[str, FlatCell]
    names: Mapping[str, tuple[int | str, ...]]

    @cached_property
    def drivers(self) -> Mapping[int, tuple[FlatCell, str]]:
        """The cell and pin that drive each net; input ports are not among them."""
        return {
            net: (cell, pin)
            for cell in self.cells.values()
            for pin, net in cell.outputs.items()
            if isinstance(net, int)
        }

    @cached_property
    def loads(self) -> Mapping[int, tuple[tuple[FlatCell, str], ...]]:
        """The cells and pins that each net drives; output ports are not among them."""
        found: dict[int, list[tuple[FlatCell, str]]] = {}
        for cell in self.cells.values():
            for pin, net in cell.inputs.items():
                if isinstance(net, int):
                    found.setdefault(net, []).append((cell, pin))
        return {net: tuple(pins) for net, pins in found.items()}


def read(path: Path, top: str) -> FlatNetlist:
    """Read the module ``top`` of Yosys's JSON; see :attr:`hw.synth.flow.Netlist.json`.

    Raises
    ------
    :class:`ValueError`
        There is no such module.
    """
    modules = json.loads(path.read_text())["modules"]
    if top not in modules:
        raise ValueError(f"Netlist {str(path)!r} must have a module {top!r}, and has {', '.join(modules)}")
    module = modules[top]
    cells = {}
    for name, cell in module["cells"].items():
        if cell["type"] == "$scopeinfo":
            continue
        pins = {
            pin if len(bits) == 1 else f"{pin}[{index}]": (cell["port_directions"][pin], bit)
            for pin, bits in cell["connections"].items()
            for index, bit in enumerate(bits)
        }
        cells[name] = FlatCell(
            name=name,
            kind=cell["type"].removeprefix("\\"),
            inputs={pin: net for pin, (direction, net) in pins.items() if direction == "input"},
            outputs={pin: net for pin, (direction, net) in pins.items() if direction == "output"},
        )
    return FlatNetlist(
        top=top,
        ports={name: (port["direction"], tuple(port["bits"])) for name, port in module["ports"].items()},
        cells=cells,
        names={name: tuple(net["bits"]) for name, net in module["netnames"].items()},
    )
