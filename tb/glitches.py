"""How often nets move when gates take time: a netlist on Icarus with OpenSTA's delays, beside the run without."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw.synth.flow import Netlist, liberty_file
from hw.synth.liberty import Library
from hw.synth.technology import Target
from tb import runner
from tb.gates import NETS, GateRun, instrumented, read_waves, structural

__all__ = ["Glitches", "count_edges"]

LIMIT_S = 1800
SKIPPED = 12
"""Cycles at the beginning, in which registers still have what they powered up with."""


@dataclass(frozen=True, kw_only=True)
class Glitches:
    """Edges of every net over the same cycles.

    Members
    -------
    cycles : :class:`int`
    settled, all : mapping of :class:`int` to :class:`int`
        Edges between what a net is at the ends of cycles, and all of them.
    """

    cycles: int
    settled: Mapping[int, int]
    all: Mapping[int, int]


def count_edges(
    netlist: Netlist, target: Target, run: GateRun, *, build: Path, period_ns: float, slew_ns: float
) -> Glitches:
    """Play the inputs of ``run`` with delays and count the edges of its nets.

    What every net is at the end of a cycle must be the same as without delays. Delays are OpenSTA's, without wires,
    every input pin to every output; where one depends on other pins, the mean. Pulses shorter than a cell's delay are
    swallowed, as Verilog does. Inputs change 0.1 ns after the clock.

    Parameters
    ----------
    run : :class:`~tb.gates.GateRun`
        Positions of at most 4 beats.
    period_ns, slew_ns : :class:`float`
        Of the clock, longer than the longest path; of the input ports.

    Raises
    ------
    runner.SimulationError
        A tool is missing or failed, or a net does not settle to what it is without delays.
    """
    assert target.library is not None
    runner.check_simulator("icarus")
    if shutil.which("sta") is None:
        raise runner.MissingSimulator("OpenSTA is not installed: install it (on Debian, 'apt install opensta')")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "delays.sdf").write_text(_delays(target, run, folder, build=build, slew_ns=slew_ns))
        text, nets = instrumented(netlist, run.netlist, target.library, delays=True)
        ports = [
            (name, [bit for bit in bits if isinstance(bit, int)])
            for name, (direction, bits) in run.netlist.ports.items()
            if direction == "input" and name != "clk"
        ]
        rows = [run.waves.rows[bit] for _, bits in ports for bit in bits]
        lines = ["".join(map(str, line)) for line in run.waves.bits[rows][::-1].T]
        (folder / "inputs.txt").write_text("\n".join(lines))
        (folder / "bench.v").write_text(_bench(run.netlist.top, ports, len(lines), period_ns) + text)
        _call(["iverilog", "-g2005", "-gspecify", "-Ttyp", "-o", "bench", "-s", "bench", "bench.v"], folder)
        _call(["vvp", "-n", "bench"], folder)
        waves = read_waves(folder / NETS, nets, SKIPPED, len(lines))
        plain = run.waves.bits[[run.waves.rows[net] for net in nets], SKIPPED:]
        differing = (waves.bits != plain[:, :-1]).any(axis=1)  # the last cycle ends before its clock edge
        if differing.any():
            raise runner.SimulationError(
                f"Nets must settle within {period_ns:g} ns to what they are without delays, and "
                f"{int(differing.sum())} of {len(nets)} do not"
            )
        edges = _edges(folder / "nets.vcd")
    counts = np.count_nonzero(plain[:, 1:] != plain[:, :-1], axis=1)
    return Glitches(
        cycles=plain.shape[1] - 1,
        settled={net: int(number) for net, number in zip(nets, counts)},
        all={net: edges.get(net, 0) for net in nets},
    )


def _call(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise runner.SimulationError(f"{command[0]} must finish within {LIMIT_S} s, and did not") from None
    report = done.stdout + done.stderr
    if done.returncode or re.search(r"^(Error|SDF ERROR)", report, re.MULTILINE):
        tail = "\n".join(report.splitlines()[-10:])
        raise runner.SimulationError(f"{command[0]} failed with exit status {done.returncode}:\n{tail}")
    return report


def _delays(target: Target, run: GateRun, folder: Path, *, build: Path, slew_ns: float) -> str:
    """An SDF file of what OpenSTA says, without conditions, which Icarus does not know."""
    lines, _ = structural(run.netlist)
    (folder / "netlist.v").write_text("\n".join([*lines, "endmodule", ""]))
    library: Library | None = target.library
    assert library is not None
    script = f"""\
read_liberty {{{liberty_file(target, build)}}}
read_verilog netlist.v
link_design {run.netlist.top}
set_cmd_units -time ns -capacitance fF
create_clock -name clock -period 1000 [get_ports clk]
set_input_transition {slew_ns} [all_inputs]
set_load {library.load} [all_outputs]
write_sdf -divider . -digits 5 written.sdf
exit
"""
    (folder / "delays.tcl").write_text(script)
    _call(["sta", "-no_splash", "-exit", "delays.tcl"], folder)
    written = (folder / "written.sdf").read_text()
    cells = []
    for kind, name, body in re.findall(
        r'\(CELLTYPE "(\w+)"\)\s*\(INSTANCE (u\d+)\)(.*?)(?=\(CELLTYPE|\Z)', written, re.DOTALL
    ):
        paths: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for start, end, delays in re.findall(r"\(IOPATH (\w+) (\w+) ((?:\([\d.]*:[\d.]*:[\d.]+\)\s*)+)\)", body):
            # One delay stands for both edges.
            values = [float(value) for value in re.findall(r"([\d.]+)\)", delays)]
            paths.setdefault((start, end), []).append((values[0], values[-1]))
        if not paths and library.cells[kind].inputs:
            raise runner.SimulationError(f"OpenSTA must give delays of every cell, and gave none of a {kind}")
        texts = []
        for (start, end), pairs in paths.items():
            rise, fall = (sum(column) / len(pairs) for column in zip(*pairs))
            texts.append(f"(IOPATH {start} {end} ({rise:.5f}) ({fall:.5f}))")
        cells.append(f'(CELL (CELLTYPE "{kind}") (INSTANCE {name}) (DELAY (ABSOLUTE {" ".join(texts)})))')
    expected = sum(1 for cell in run.netlist.cells.values() if cell.inputs)  # tie cells have no delays
    if len(cells) < expected:
        raise runner.SimulationError(f"OpenSTA must give delays of {expected} cells, not {len(cells)}")
    return "\n".join(['(DELAYFILE (SDFVERSION "3.0") (DIVIDER .) (TIMESCALE 1ns)', *cells, ")", ""])


def _bench(top: str, ports: list[tuple[str, list[int]]], cycles: int, period_ns: float) -> str:
    width = sum(len(bits) for _, bits in ports)
    connections, start = [".clk(clk)"], 0
    for name, bits in ports:
        connections.append(f".{name}(inputs[{start + len(bits) - 1}:{start}])")
        start += len(bits)
    return f"""\
`timescale 1ns/1ps
module bench;
  reg clk = 0;
  reg [{width - 1}:0] inputs;
  reg [{width - 1}:0] memory [0:{cycles - 1}];
  integer cycle;
  {top} dut({", ".join(connections)});
  initial begin
    $readmemb("inputs.txt", memory);
    $sdf_annotate("delays.sdf", dut);
    $dumpfile("nets.vcd");
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
      inputs = memory[cycle];
      #{period_ns / 2} clk = 0;
      #{period_ns / 2 - 0.2:.3f} if (cycle == {SKIPPED}) $dumpvars(1, dut);
      if (cycle == {cycles - 1}) $finish;
      #0.1 clk = 1;
      #0.1;
    end
  end
endmodule
"""


def _edges(path: Path) -> dict[int, int]:
    """The changes of every net in a VCD file after its initial values; pulses without a width are none."""
    names: dict[str, list[int]] = {}
    values: dict[str, str] = {}
    changes: Counter[str] = Counter()
    with path.open() as file:
        for line in file:
            declared = re.match(r"\$var wire +1 (\S+) n(\d+) \$end", line)
            if declared:
                names.setdefault(declared[1], []).append(int(declared[2]))
            elif line[0] in "01":
                code = line[1:].strip()
                changes[code] += values.get(code, line[0]) != line[0]
                values[code] = line[0]
    return {net: changes[code] for code, nets in names.items() for net in nets}
