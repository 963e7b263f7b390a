# amaranth: UnusedElaboratable=no
"""Synthesized arrays against golden, gate by gate, and the waves of their nets."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golden import vectors
from golden.network import Conv2d
from hw.config import AcceleratorConfig
from hw.synth.flow import Netlist, synthesize
from hw.synth.netlist import read
from hw.synth.technology import resolve
from hw.tests.tools import tool
from hw.verilog import generate
from tb.gates import array, instrumented, simulate_array
from tb.glitches import count_edges
from tb.runner import SimulationError

CONFIG = AcceleratorConfig(name="gates", rows=2, lanes=4, digit_bits=2, acc_bits=16, requant_lanes=1)
LATENCY = 2
TARGET = resolve()


@pytest.fixture(scope="module")
def netlist(tmp_path_factory: pytest.TempPathFactory) -> Netlist:
    design = generate(array(CONFIG), name="mac_array")
    return synthesize(design, "mac_array", TARGET, build=tmp_path_factory.mktemp("synth"))


def run(netlist: Netlist, operands: dict, simulator: str = "icarus", directory: Path | None = None):
    assert TARGET.library is not None
    return simulate_array(
        netlist, TARGET.library, CONFIG, LATENCY, operands, simulator=simulator, directory=directory
    )


def layer(folder: Path, low_bits: int = 0, beats: int = 40) -> dict:
    name = "grouped"
    return {"kind": "layer", "vectors": str(folder), "layer": name, "frames": 1, "low_bits": low_bits, "beats": beats}


def test_real_layer_through_gates(icarus: str, folders: dict[str, Path], netlist: Netlist) -> None:
    folder = folders["random-plain-w3a3"]
    result = run(netlist, layer(folder, beats=0))
    network, tensors = vectors.read(folder)
    operation = next(op for op in network.operations if isinstance(op, Conv2d) and op.name == "grouped")
    # Two digits each make four products.
    assert result.products == 4 * operation.codes[0].size * tensors[operation.output][0].size
    assert result.products <= result.beats * CONFIG.rows * CONFIG.lanes
    assert result.compared >= 3 * result.positions > 0
    assert 0 < result.density[0] < 1


def test_finer_codes_and_drawn_operands(icarus: str, folders: dict[str, Path], netlist: Netlist) -> None:
    coarse = run(netlist, layer(folders["random-plain-w3a3"]))
    fine = run(netlist, layer(folders["random-plain-w3a3"], low_bits=5, beats=400))
    # 8 instead of 3 bits are 4 instead of 2 digits.
    assert fine.beats / fine.positions == 4 * coarse.beats / coarse.positions
    drawn = run(netlist, {"kind": "uniform", "beats": 32, "length": 8})
    assert (drawn.positions, drawn.products) == (4, 32 * 8)
    assert drawn.waves.cycles - 1 == 32 + LATENCY - 1
    assert all(0.4 < share < 0.6 for share in drawn.density)
    zeros = run(netlist, {"kind": "zeros", "beats": 32, "length": 8})
    assert zeros.density[0] == 0 and 0.4 < zeros.density[1] < 0.6
    idle = run(netlist, {"kind": "idle", "cycles": 10})
    assert (idle.products, idle.waves.cycles) == (0, 11)
    assert not (idle.waves.bits[:, 1:] != idle.waves.bits[:, :-1]).any()


@pytest.mark.slow
def test_both_simulators_see_the_same(icarus: str, verilator: str, netlist: Netlist) -> None:
    operands = {"kind": "uniform", "beats": 32, "length": 8}
    first, second = (run(netlist, operands, simulator) for simulator in (icarus, verilator))
    assert first.waves.rows == second.waves.rows
    assert np.array_equal(first.waves.bits, second.waves.bits)


def broken(netlist: Netlist, folder: Path, *, verilog: bool) -> Netlist:
    """The netlist with one NAND made a NOR, in its JSON and, if ``verilog``, in its Verilog."""
    name, kind = next(
        (name, cell.kind) for name, cell in read(netlist.json, netlist.top).cells.items() if "nand2" in cell.kind
    )
    other = kind.replace("nand2", "nor2")
    modules = json.loads(netlist.json.read_text())
    modules["modules"][netlist.top]["cells"][name]["type"] = other
    copy = replace(netlist, folder=str(folder))
    copy.json.write_text(json.dumps(modules))
    text = netlist.verilog.read_text()
    changed = re.sub(rf"^  {kind} ", f"  {other} ", text, count=1, flags=re.MULTILINE)
    copy.verilog.write_text(changed if verilog else text)
    return copy


def test_wrong_cell_is_found(icarus: str, netlist: Netlist, tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match=r"accumulators_equal_golden: (rows|ones row|complete) in cycle \d+"):
        run(
            broken(netlist, tmp_path, verilog=True),
            {"kind": "uniform", "beats": 64, "length": 8},
            directory=tmp_path / "run",
        )


def test_verilog_and_graph_must_agree(netlist: Netlist, tmp_path: Path) -> None:
    assert TARGET.library is not None
    other = broken(netlist, tmp_path, verilog=False)
    with pytest.raises(SimulationError, match=r"must have the cells of its JSON in their order$"):
        instrumented(other, read(other.json, other.top), TARGET.library)
    text = netlist.verilog.read_text()
    first, second = re.findall(r"^    \.A\((\w+)\),?$", text, re.MULTILINE)[:2]
    other.json.write_text(netlist.json.read_text())
    other.verilog.write_text(text.replace(f".A({first})", f".A({second})", 1))
    with pytest.raises(SimulationError, match=r"must connect '.*' as its JSON$"):
        instrumented(other, read(other.json, other.top), TARGET.library)


def test_unknown_layer(icarus: str, folders: dict[str, Path], netlist: Netlist, tmp_path: Path) -> None:
    operands = layer(folders["random-plain-w3a3"]) | {"layer": "conv9"}
    with pytest.raises(SimulationError, match="must have a convolution or linear layer 'conv9'"):
        run(netlist, operands, directory=tmp_path)


def test_edges_with_delays(icarus: str, netlist: Netlist, tmp_path: Path) -> None:
    tool("sta")
    result = run(netlist, {"kind": "uniform", "beats": 32, "length": 4})
    edges = count_edges(netlist, TARGET, result, build=tmp_path, period_ns=40.0, slew_ns=0.05)
    more = [edges.all[net] - edges.settled[net] for net in edges.all]
    assert all(number >= 0 and number % 2 == 0 for number in more)
    assert 1.1 < sum(edges.all.values()) / sum(edges.settled.values()) < 3
    registers = {
        net
        for cell in result.netlist.cells.values()
        if TARGET.library is not None and TARGET.library.cells[cell.kind].is_flip_flop
        for net in cell.outputs.values()
        if isinstance(net, int)
    }
    assert all(edges.all[net] == edges.settled[net] for net in registers)
    with pytest.raises(SimulationError, match=r"^(Nets must settle within 0\.8 ns|Every net .* must be 0 or 1)"):
        count_edges(netlist, TARGET, result, build=tmp_path, period_ns=0.8, slew_ns=0.05)
