"""A synthesized netlist in place of the RTL: simulated against golden, and what each of its nets did, kept.

The netlist gets the Liberty's cells as modules and one more process, which writes the values of all nets at every clock
edge. There are no delays, so that a net changes at most once in a cycle: glitches are not seen.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.config import AcceleratorConfig
from hw.mac_array import MacArray
from hw.synth.cells import cell_models
from hw.synth.energy import Waves
from hw.synth.flow import Netlist
from hw.synth.liberty import Library
from hw.synth.netlist import FlatNetlist
from hw.synth.netlist import read as read_netlist
from tb import runner

__all__ = ["NETS", "GateRun", "array", "instrumented", "read_waves", "simulate_array", "structural"]

WORD = 32
"""Nets that are written together; more would be far slower to compile for Verilator."""
NETS = "nets.hex"
RESULT = "operands.json"
SLOWEST_CYCLES_PER_S = 10
"""A simulator slower than this is taken for hung."""

_INSTANCE = re.compile(r"^  (\w+) (?:\\\S+ |\w+) \(\n((?:    \.\w+\(.*\),?\n)*)  \);", re.MULTILINE)
_CONNECTION = re.compile(r"^    \.(\w+)\((.*)\),?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, eq=False)
class GateRun:
    """A simulation of an array's netlist.

    Members
    -------
    waves : :class:`~hw.synth.energy.Waves`
        From the first beat's cycle to the one in which the last one is in the accumulators.
    positions, beats, compared : :class:`int`
        Positions and beats that were simulated; accumulators that were compared with golden, of which none differed.
    products : :class:`int`
        Digit products of operands; rows and lanes without an operand make none.
    density : tuple of two :class:`float`
        Ones among the bits of the activation and weight digits sent.
    """

    netlist: FlatNetlist
    waves: Waves
    positions: int
    beats: int
    compared: int
    products: int
    density: tuple[float, float]


def array(config: AcceleratorConfig, **parameters: Any) -> MacArray:
    """The array of a configuration."""
    return MacArray(
        rows=config.rows,
        lanes=config.lanes,
        digit_bits=config.digit_bits,
        acc_bits=config.acc_bits,
        drain_rows=config.requant_lanes,
        **parameters,
    )


def _check_same(netlist: Netlist, flat: FlatNetlist) -> None:
    """Refuse a Verilog netlist whose cells are not those of the JSON, connected alike."""
    found = _INSTANCE.findall(netlist.verilog.read_text())
    if [kind for kind, _ in found] != [cell.kind for cell in flat.cells.values()]:
        raise runner.SimulationError(f"Netlist {str(netlist.verilog)!r} must have the cells of its JSON in their order")
    nets: dict[str, int | str] = {}
    for (_, connections), cell in zip(found, flat.cells.values()):
        pins = {**cell.inputs, **cell.outputs}
        for pin, expression in _CONNECTION.findall(connections):
            net = pins.get(pin, expression)
            if nets.setdefault(expression, net) != net:
                raise runner.SimulationError(f"Netlist {str(netlist.verilog)!r} must connect {cell.name!r} as its JSON")


def structural(flat: FlatNetlist) -> tuple[list[str], list[int]]:
    """Lines of the netlist's module but for its last one, instances called ``u0``, ``u1`` ..., and its nets.

    Net 7 is the wire ``n7``, each net a wire of its own: simulators are slow where vectors are driven bit by bit. The
    clock is not among the nets.
    """

    def wire(net: int | str) -> str:
        return f"n{net}" if isinstance(net, int) else f"1'b{net}"

    lines = [f"module {flat.top}({', '.join(flat.ports)});"]
    driven = []
    for name, (direction, bits) in flat.ports.items():
        lines.append(f"  {direction} {f'[{len(bits) - 1}:0] ' if len(bits) > 1 else ''}{name};")
        for index, bit in enumerate(bits):
            port = f"{name}[{index}]" if len(bits) > 1 else name
            if direction == "output":
                lines.append(f"  assign {port} = {wire(bit)};")
            elif isinstance(bit, int):
                driven.append(bit)
                lines += [f"  wire {wire(bit)};", f"  assign {wire(bit)} = {port};"]
    (clock,) = flat.ports["clk"][1]
    driven = [net for net in driven if net != clock]
    instances = []
    for number, cell in enumerate(flat.cells.values()):
        outputs = [net for net in cell.outputs.values() if isinstance(net, int)]
        lines += [f"  wire {wire(net)};" for net in outputs]
        driven += outputs
        pins = ", ".join(f".{pin}({wire(net)})" for pin, net in {**cell.inputs, **cell.outputs}.items())
        instances.append(f"  {cell.kind} u{number}({pins});")
    return [*lines, *instances], driven


def instrumented(
    netlist: Netlist, flat: FlatNetlist, library: Library, *, delays: bool = False
) -> tuple[str, list[int]]:
    """Verilog of the netlist with its cells, which writes its nets to ``nets.hex``; and those nets, as in a line.

    Parameters
    ----------
    delays : :class:`bool`
        As of :func:`~hw.synth.cells.cell_models`.

    Raises
    ------
    runner.SimulationError
        The Verilog of the netlist, which others get, is not the same netlist.
    """
    _check_same(netlist, flat)
    lines, driven = structural(flat)
    written = [f"n{net}" for net in driven] + ["1'b0"] * (-len(driven) % WORD)
    process = [
        "  integer nets_file;",
        f'  initial nets_file = $fopen("{NETS}", "w");',
        "  always @(posedge clk)",
        "    if (!rst) begin",
        *(
            f'      $fwrite(nets_file, "%h", {{{", ".join(written[start : start + WORD])}}});'
            for start in range(0, len(written), WORD)
        ),
        '      $fwrite(nets_file, "\\n");',
        "    end",
        "endmodule",
        "",
    ]
    kinds = sorted({cell.kind for cell in flat.cells.values()})
    return "\n".join([*lines, *process]) + cell_models(library, kinds, delays=delays), driven


def read_waves(path: Path, nets: list[int], first: int, last: int) -> Waves:
    """The waves in lines ``first`` to ``last`` of the file of nets."""
    with path.open("rb") as file:
        lines = [line.decode() for number, line in enumerate(file) if first <= number <= last]
    unknown = sum(1 for line in lines if re.search("[^0-9a-f\\s]", line))
    if unknown:
        raise runner.SimulationError(f"Every net of the netlist must be 0 or 1, and in {unknown} cycles one is not")
    packed = np.frombuffer(bytes.fromhex("".join(lines)), np.uint8).reshape(len(lines), -1)
    bits = np.unpackbits(packed, axis=1, count=len(nets))
    return Waves({net: row for row, net in enumerate(nets)}, np.ascontiguousarray(bits.T))


def simulate_array(
    netlist: Netlist,
    library: Library,
    config: AcceleratorConfig,
    latency: int,
    operands: Mapping[str, Any],
    *,
    simulator: str = "verilator",
    seed: int = 1,
    directory: Path | None = None,
) -> GateRun:
    """Simulate the netlist of :func:`array` on operands, and compare every accumulator with golden.

    Parameters
    ----------
    netlist : :class:`~hw.synth.flow.Netlist`
        Of the array, in standard cells of ``library``.
    latency : :class:`int`
        Of the array.
    operands : mapping
        What :mod:`tb.benches.gates` takes.
    directory : path or ``None``
        For the run's files, which are deleted unless it fails; a new one with ``None``.

    Raises
    ------
    runner.SimulationError
        An accumulator differs from golden; the netlist cannot be simulated.
    """
    flat = read_netlist(netlist.json, netlist.top)
    text, nets = instrumented(netlist, flat, library)
    directory = directory or runner.run_directory()
    job = {"config": asdict(config), "latency": latency, "operands": dict(operands), "result": RESULT}
    runner.run_bench(
        runner.compile_verilog(text, netlist.top, simulator),
        "tb.benches.gates",
        job,
        directory=directory,
        seed=seed,
        limit_s=3600,
    )
    result = json.loads((directory / RESULT).read_text())
    waves = read_waves(directory / NETS, nets, result["first"], result["last"])
    shutil.rmtree(directory)
    return GateRun(
        netlist=flat,
        waves=waves,
        positions=result["positions"],
        beats=result["beats"],
        compared=result["compared"],
        products=result["products"],
        density=(result["activation_density"], result["weight_density"]),
    )
