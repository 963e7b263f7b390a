# amaranth: UnusedElaboratable=no
"""Synthesis: the mapped netlist computes what the Verilog does, and what it costs is exact."""

import json
import re
import subprocess

import pytest

from hw.mac_array import MacArray
from hw.pact_unit import PactUnit
from hw.synth import flow, timing
from hw.synth.cells import cell_models
from hw.synth.fanout import BRANCH, LEAF, buffer_trees
from hw.synth.flow import SynthesisError, synthesize
from hw.synth.technology import resolve
from hw.tests.synth_support import LIBERTY, full_liberty
from hw.tests.tools import tool
from hw.verilog import generate


def small_array(digit_bits=2, pipeline=0):
    component = MacArray(rows=3, lanes=5, digit_bits=digit_bits, acc_bits=2 * digit_bits + 12, pipeline=pipeline)
    return generate(component, name="mac_array")


def small_unit():
    component = PactUnit(acc_bits=9, multiplier_bits=5, bias_bits=13, max_shift=9, max_output_bits=3)
    return generate(component, name="pact_unit")


def _ports(verilog, top):
    """Direction, width and name of the top module's ports."""
    body = re.search(rf"^module {top}\(.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)[0]
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, re.MULTILINE)
    return [(direction, int(width or 0) + 1, name) for direction, width, name in found]


def assert_same(netlist, design, target, tmp_path, *, cycles, steady):
    """Run RTL and netlist side by side on random inputs in Icarus Verilog, and compare every output of every cycle.

    The netlist's registers begin with random values; ``steady`` fixes inputs for the first cycles, so that they get
    those of the RTL. Comparison begins later, and counts an X as a difference.
    """
    tool("iverilog")
    top = netlist.top
    ports = _ports(design, top)
    mapped = netlist.verilog.read_text()
    mapped = re.sub(rf"^module {top}\(", f"module {top}_mapped(", mapped, flags=re.MULTILINE)
    inputs = [(width, name) for direction, width, name in ports if direction == "input" and name not in ("clk", "rst")]
    outputs = [(width, name) for direction, width, name in ports if direction == "output"]
    connections = ", ".join(f".{name}({name})" for direction, _, name in ports if direction == "input")
    lines = ["module bench;", "  reg clk = 0, rst = 1;", "  integer cycle, compared = 0, wrong = 0;"]
    lines += [f"  reg [{width - 1}:0] {name} = 0;" for width, name in inputs]
    for width, name in outputs:
        lines.append(f"  wire [{width - 1}:0] rtl_{name}, net_{name};")
    for module, prefix in ((top, "rtl"), (f"{top}_mapped", "net")):
        outs = ", ".join(f".{name}({prefix}_{name})" for _, name in outputs)
        lines.append(f"  {module} {prefix}({connections}, {outs});")
    randomize = [
        f"{name} = {{{', '.join(['$random'] * -(-width // 32))}}};" for width, name in inputs if name not in steady
    ]
    lines += [
        "  always #5 clk = ~clk;",
        "  initial begin",
        f"    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin",
        "      @(negedge clk);",
        "      rst = cycle < 3;",
        *[f"      {line}" for line in randomize],
        *[f"      {name} = cycle < 30 ? {value} : $random;" for name, value in steady.items()],
        "      #4;",
        *[
            f"      if (cycle > 40) begin compared = compared + 1;"
            f" if (net_{name} !== rtl_{name}) wrong = wrong + 1; end"
            for _, name in outputs
        ],
        "    end",
        '    $display("compared %0d wrong %0d", compared, wrong);',
        "    $finish;",
        "  end",
        "endmodule",
    ]
    cells = {name for name in re.findall(r"^  (\w+) \S+ +\($", mapped, re.MULTILINE) if name in target.library.cells}
    source = tmp_path / "bench.v"
    source.write_text("\n".join([*lines, "", design, mapped, cell_models(target.library, sorted(cells))]))
    subprocess.run(["iverilog", "-g2005", "-o", tmp_path / "bench", "-s", "bench", source], check=True)
    output = subprocess.run([tmp_path / "bench"], capture_output=True, text=True, check=True, timeout=120).stdout
    compared, wrong = map(int, re.search(r"compared (\d+) wrong (\d+)", output).groups())
    assert wrong == 0
    assert compared > cycles


EXACT_AREA = 3824.9184

STEADY_ARRAY = {"i__valid": 1, "capture": 1, "advance": 0}
STEADY_UNIT = {"i__valid": 1, "o__ready": 1}


@pytest.mark.parametrize(
    "pdk", ["mini", *(pytest.param(name, marks=pytest.mark.slow) if name == "asap7" else name for name in LIBERTY)]
)
def test_mapped_array_computes_the_same(pdk, tmp_path):
    target = resolve(pdk, None if pdk == "mini" else full_liberty(pdk))
    design = small_array(pipeline=1)
    netlist = synthesize(design, "mac_array", target, build=tmp_path)
    assert_same(netlist, design, target, tmp_path, cycles=400, steady=STEADY_ARRAY)


def test_mapped_unit_computes_the_same(tmp_path):
    target = resolve()
    design = small_unit()
    netlist = synthesize(design, "pact_unit", target, build=tmp_path)
    assert_same(netlist, design, target, tmp_path, cycles=2000, steady=STEADY_UNIT)


def test_comparison_can_fail(tmp_path):
    target = resolve()
    design = small_array()
    netlist = synthesize(design, "mac_array", target, build=tmp_path)
    text = netlist.verilog.read_text()
    broken = re.sub(r"(sky130_fd_sc_hd__)nand2_1 ", r"\1nor2_1 ", text, count=1)
    assert broken != text
    netlist.verilog.write_text(broken)
    with pytest.raises(AssertionError):
        assert_same(netlist, design, target, tmp_path, cycles=400, steady=STEADY_ARRAY)


def test_exact_area(tmp_path):
    """Areas are deterministic: for one version of pyosys a change here is a change of the RTL, the flow or mini.lib."""
    target = resolve()
    netlist = synthesize(small_array(), "mac_array", target, build=tmp_path)
    assert netlist.area == EXACT_AREA
    assert netlist.apart["weight_register"].ffs == 3 * 5 * 2
    assert netlist.apart["weight_register"].area == pytest.approx(30 * 20.0192, abs=1e-6)
    again = synthesize(small_array(), "mac_array", target, build=tmp_path / "again")
    assert again.folder != netlist.folder
    assert again.verilog.read_text() == netlist.verilog.read_text()


def test_adders_are_adder_cells(tmp_path):
    design = small_array()
    netlist = synthesize(design, "mac_array", resolve(), build=tmp_path)
    # In every row 20 bits of products and 16 of the addend come down to 20, and an adder takes one away.
    assert netlist.full_adders == 3 * 16
    assert netlist.full_adders == netlist.cells["sky130_fd_sc_hd__fa_1"]
    assert netlist.half_adders == netlist.cells.get("sky130_fd_sc_hd__ha_1", 0)


def test_cached_by_content(tmp_path, monkeypatch):
    design = small_array()
    first = synthesize(design, "mac_array", resolve(), build=tmp_path)
    other = synthesize(design, "mac_array", resolve(), build=tmp_path, clock_ns=3)
    assert other.folder != first.folder
    monkeypatch.setattr(flow, "run_yosys", lambda *arguments: pytest.fail("Yosys ran again"))
    assert synthesize(design, "mac_array", resolve(), build=tmp_path) == first
    with pytest.raises(pytest.fail.Exception):
        synthesize(design + "\n", "mac_array", resolve(), build=tmp_path)


ADDERS = """\
module full_adders_2(input [1:0] a, b, c, output [1:0] sum, carry);
  assign sum = a ^ b ^ c;
  assign carry = a & b | a & c | b & c;
endmodule
module half_adders_1(input a, b, output sum, carry);
  assign sum = a ^ b;
  assign carry = a & b;
endmodule
module top(clk, x, y, s, h);
  input clk;
  input [1:0] x;
  input [1:0] y;
  output [3:0] s;
  output [1:0] h;
  reg [3:0] s;
  reg [1:0] h;
  wire [1:0] sum, carry;
  wire hs, hc;
  full_adders_2 full(.a(x), .b(y), .c(2'b{constant}), .sum(sum), .carry(carry));
  half_adders_1 half(.a(x[0]), .b({half}), .sum(hs), .carry(hc));
  always @(posedge clk) {{s, h}} <= {{sum, carry, hs, hc}};
endmodule
"""


@pytest.mark.parametrize(
    ("constant", "half", "full_adders", "half_adders"),
    [("00", "y[0]", 0, 3), ("01", "y[0]", 0, 2), ("11", "1'b1", 0, 0), ("0z", "y[1]", 1, 2)],
)
def test_adders_with_constant_inputs_are_folded(constant, half, full_adders, half_adders, tmp_path):
    design = ADDERS.replace("2'b{constant}", "{1'b0, y[1]}" if constant == "0z" else f"2'b{constant}")
    design = design.replace("{half}", half).replace("{{", "{").replace("}}", "}")
    target = resolve()
    netlist = synthesize(design, "top", target, build=tmp_path)
    assert (netlist.full_adders, netlist.half_adders) == (full_adders, half_adders)
    assert_same(netlist, design, target, tmp_path, cycles=200, steady={})


def test_equal_flip_flops_stay_apart(tmp_path):
    """Copies of a control bit share its fan-out; merging them would undo what the RTL does for speed."""
    design = """
        module top(input clk, d, input [1:0] x, output reg [1:0] y);
          reg copy_0, copy_1;
          always @(posedge clk) begin
            copy_0 <= d;
            copy_1 <= d;
            y <= x & {copy_1, copy_0};
          end
        endmodule
    """
    netlist = synthesize(design, "top", resolve(), build=tmp_path)
    assert netlist.ffs == 4
    assert netlist.cells["sky130_fd_sc_hd__dfxtp_1"] == 4


def test_wide_nets_get_balanced_trees():
    library = resolve().library
    loads = 1000
    cells = {
        f"gate{i}": {
            "type": "$_AND_",
            "port_directions": {"A": "input", "B": "input", "Y": "output"},
            "connections": {"A": [2], "B": [3 + i], "Y": [2000 + i]},
        }
        for i in range(loads)
    }
    cells["register"] = {
        "type": "sky130_fd_sc_hd__dfxtp_1",
        "port_directions": {"CLK": "input", "D": "input", "Q": "output"},
        "connections": {"CLK": [5000], "D": [3], "Q": [2]},
    }
    for i in range(100):
        cells[f"clocked{i}"] = {
            "type": "sky130_fd_sc_hd__dfxtp_1",
            "port_directions": {"CLK": "input", "D": "input", "Q": "output"},
            "connections": {"CLK": [5000], "D": [2000 + i], "Q": [6000 + i]},
        }
    netlist = {"modules": {"top": {"cells": cells, "netnames": {"all": {"bits": list(range(2, 6100))}}}}}
    added = buffer_trees(netlist, "top", library)
    buffers = {name: cell for name, cell in cells.items() if cell["type"] == library.driver.name}
    assert len(buffers) == added
    driver = {cell["connections"]["X"][0]: cell["connections"]["A"][0] for cell in buffers.values()}
    depths, fanout = set(), {}
    for i in range(loads):
        net, depth = cells[f"gate{i}"]["connections"]["A"][0], 0
        fanout[net] = fanout.get(net, 0) + 1
        while net != 2:
            net, depth = driver[net], depth + 1
        depths.add(depth)
    assert depths == {2}
    assert max(fanout.values()) <= LEAF
    inner = [sum(source == net for source in driver.values()) for net in (2, *driver)]
    assert max(inner) <= BRANCH
    assert all(cells[f"clocked{i}"]["connections"]["CLK"] == [5000] for i in range(100))


def test_yosys_error_has_the_end_of_the_log(tmp_path):
    with pytest.raises(SynthesisError) as error:
        synthesize("module top(input a; endmodule\n", "top", resolve("generic"), build=tmp_path)
    assert re.match(r"^Yosys failed on 'top' with status \d+; the end of its log \(run\.ys\):\n", str(error.value))
    assert "syntax error" in str(error.value)
    assert not list(tmp_path.glob("*/result.json"))


def test_yosys_missing(tmp_path, monkeypatch):
    def missing(name):
        raise flow.PackageNotFoundError(name)

    monkeypatch.setattr(flow, "version", missing)
    with pytest.raises(
        SynthesisError, match=r"^Yosys is not installed: pip install 'pactolus\[synth\]' brings it \(pyosys\)$"
    ):
        synthesize("module top; endmodule\n", "top", resolve(), build=tmp_path)


@pytest.mark.parametrize(("pdk", "luts"), [("ice40", 1), ("ecp5", 1), ("xilinx", 1), ("generic", None)])
def test_technologies_without_areas(pdk, luts, tmp_path):
    design = """
        module top(input clk, input [2:0] x, output reg y);
          always @(posedge clk) y <= x[0] & x[1] ^ x[2];
        endmodule
    """
    netlist = synthesize(design, "top", resolve(pdk), build=tmp_path)
    assert (netlist.area, netlist.luts, netlist.ffs) == (None, luts, 1)
    assert "$scopeinfo" not in netlist.cells


def test_no_delays(monkeypatch):
    assert timing.unavailable(resolve("ice40")) == "No delays: there is no Liberty for Lattice iCE40."
    monkeypatch.setattr(timing.shutil, "which", lambda command: None)
    assert timing.unavailable(resolve()) == "No delays: OpenSTA (sta) is not installed (Debian: apt install opensta)."


def test_delay(tmp_path):
    target = resolve()
    tool("sta")
    design = """
        module top(input clk, x, output reg y);
          reg [1:0] q;
          always @(posedge clk) begin q <= {q[0], x}; y <= ~q[1]; end
        endmodule
    """
    netlist = synthesize(design, "top", target, build=tmp_path)
    result = timing.analyze(netlist, target, build=tmp_path)
    # mini.lib: flip-flop into 2 fF, inverter into 2 fF, setup; the outputs' load of 6 fF is on y.
    assert result.delay_ns == pytest.approx(0.36 * 1.2 / 2 + 0.06 * 1.2 / 2 + 0.1, abs=0.002)


def test_timing_error(tmp_path):
    target = resolve()
    tool("sta")
    netlist = synthesize("module top(input clk, x, output y); assign y = x; endmodule", "top", target, build=tmp_path)
    netlist.verilog.write_text("module top(;\n")
    with pytest.raises(timing.TimingError, match=r"^OpenSTA failed on 'top'; the end of its output:\n"):
        timing.analyze(netlist, target, build=tmp_path)


def test_result_file(tmp_path):
    netlist = synthesize(small_unit(), "pact_unit", resolve("generic"), build=tmp_path)
    stored = json.loads((netlist.verilog.parent / "result.json").read_text())
    assert stored["cells"] == dict(netlist.cells)
