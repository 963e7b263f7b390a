# amaranth: UnusedElaboratable=no
"""The generated Verilog: shared modules, clean names, determinism, and the same behaviour in Icarus."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import DomainRenamer, Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hw.config import PRESETS
from hw.dot_product import DotProduct
from hw.mac_array import MacArray, MacRow
from hw.tests.tools import tool, verilator_lint
from hw.verilog import GenerateError, generate, write_if_changed


def small_array(**change):
    return MacArray(**{"rows": 5, "lanes": 3, "digit_bits": 2, "acc_bits": 12, "drain_rows": 2} | change)


def modules(text):
    return re.findall(r"(?m)^module (\S+?)\(", text)


def test_equal_components_share_a_module():
    text = generate(small_array())
    names = modules(text)
    assert len(names) == len(set(names))
    assert {"mac_array", "mac_row", "dot_product", "ones_row", "drain"} <= set(names)
    assert {"activation_register", "weight_register"} <= set(names)
    assert len(re.findall(r"(?m)^  mac_row row_\d+ \($", text)) == 5
    assert len(re.findall(r"(?m)^  dot_product dot_product \($", text)) == 1


def test_adders_have_their_ports():
    """Synthesis replaces these modules by name and port."""
    text = generate(DotProduct(lanes=6, digit_bits=2, acc_bits=12))
    full = [name for name in modules(text) if name.startswith("full_adders_")]
    assert full
    for name in full:
        width = int(name.removeprefix("full_adders_"))
        body = re.search(rf"(?ms)^module {name}\((.*?)\);(.*?)^endmodule", text)
        assert sorted(body[1].split(", ")) == ["a", "b", "c", "carry", "sum"]
        vector = f"[{width - 1}:0] " if width > 1 else ""
        for port in ("input {}a", "input {}b", "input {}c", "output {}sum", "output {}carry"):
            assert f"  {port.format(vector)};" in body[2]


def test_ports_of_the_top():
    text = generate(small_array(), name="some_name")
    head = re.search(r"(?m)^module some_name\((.*)\);$", text)[1]
    assert sorted(head.split(", ")) == sorted(
        ["clk", "rst", "i__payload", "i__valid", "capture", "advance", "complete", "o_rows", "o_ones"]
    )
    assert "  input [40:0] i__payload;" in text
    assert "  output [23:0] o_rows;" in text


def test_combinational_component_has_no_clock():
    text = generate(DotProduct(lanes=2, digit_bits=1, acc_bits=4, pipeline=0))
    assert "clk" not in text
    assert "rst" not in text
    assert "input clk;" in generate(DotProduct(lanes=2, digit_bits=1, acc_bits=4, pipeline=1))


def test_text_is_the_same_every_time():
    text = generate(small_array())
    assert generate(small_array()) == text
    script = (
        "import sys; from hw.mac_array import MacArray; from hw.verilog import generate;"
        "sys.stdout.write(generate(MacArray(rows=5, lanes=3, digit_bits=2, acc_bits=12, drain_rows=2)))"
    )
    root = Path(__file__).parents[2]
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        again = subprocess.run(
            [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=True
        )
        assert again.stdout == text
    assert str(root) not in text
    assert "src" not in text
    assert ".py" not in text


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "wide" else n for n in PRESETS])
def test_presets_are_small_texts(name):
    config = PRESETS[name]
    text = generate(
        MacArray(
            rows=config.rows,
            lanes=config.lanes,
            digit_bits=config.digit_bits,
            acc_bits=config.acc_bits,
            drain_rows=config.requant_lanes,
        )
    )
    assert len(modules(text)) < 35
    assert len(text) < 150_000


class Inverter(wiring.Component):
    """Not shared: its parameter cannot be read as an attribute."""

    i: In(1)
    o: Out(1)

    def __init__(self, really):
        self._really = really
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.i ^ self._really)
        return m


class Chain(wiring.Component):
    """Two parts of one class that differ, in a submodule that is no component, and an always ready stream."""

    i: In(stream.Signature(1, always_ready=True))
    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Module()
        inner.submodules.a = a = Inverter(0)
        inner.submodules.b = b = Inverter(1)
        m.d.comb += [a.i.eq(self.i.payload), b.i.eq(a.o)]
        m.d.sync += self.o.eq(Mux(self.i.valid, b.o, self.o))
        return m


def test_different_components_of_one_class():
    text = generate(Chain())
    assert {"chain", "chain_inner", "inverter", "inverter_2"} == set(modules(text))
    assert "i__ready" not in text


class OtherDomain(wiring.Component):
    """Has a clock of another name."""

    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        inner = Module()
        inner.d.sync += self.o.eq(~self.o)
        m.submodules += DomainRenamer("other")(inner)
        return m


def test_one_clock_only():
    with pytest.raises(
        GenerateError, match=r"^OtherDomain must have no clock domain but sync, not \['other_clk', 'other_rst'\]$"
    ):
        generate(OtherDomain())


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"^Component must be an Amaranth component, not 3$"):
        generate(3)
    with pytest.raises(ValueError, match=r"^Name must be a Verilog identifier, not '3d'$"):
        generate(small_array(), name="3d")


def test_sharing_is_right():
    """Components that are taken for equal do elaborate to the same text."""
    parameters = {"lanes": 3, "digit_bits": 8, "acc_bits": 20, "pipeline": 1}
    first, second = (generate(MacRow(**parameters)) for _ in range(2))
    assert first == second
    assert generate(MacRow(**parameters | {"acc_bits": 21})) != first


def test_write_if_changed(tmp_path):
    path = tmp_path / "deep" / "a.v"
    assert write_if_changed(path, "one")
    stamp = path.stat().st_mtime_ns
    assert not write_if_changed(path, "one")
    assert path.stat().st_mtime_ns == stamp
    assert write_if_changed(path, "two")
    assert path.read_text() == "two"


def amaranth_outputs(dut, stimulus):
    """Outputs before each clock edge, from Amaranth's simulator, as hexadecimal words."""
    inputs = [dut.i.payload.as_value(), dut.i.valid, dut.capture, dut.advance]
    lines = []

    async def bench(ctx):
        for word in stimulus:
            for signal in inputs:
                ctx.set(signal, word & (1 << len(signal)) - 1)
                word >>= len(signal)
            await ctx.delay(1e-9)
            outputs = (dut.complete, dut.o_rows.as_value(), dut.o_ones)
            lines.append(" ".join(f"{ctx.get(signal):x}" for signal in outputs))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return lines


ICARUS_BENCH = """
module bench;
  reg clk = 0, rst = 0;
  reg [{bits}-1:0] stimulus [0:{count}-1];
  reg [{bits}-1:0] word;
  wire complete;
  wire [{rows}-1:0] o_rows;
  wire [{ones}-1:0] o_ones;
  integer n;
  mac_array dut(.clk(clk), .rst(rst), .i__payload(word[{payload}-1:0]), .i__valid(word[{payload}]),
    .capture(word[{payload}+1]), .advance(word[{payload}+2]), .complete(complete), .o_rows(o_rows), .o_ones(o_ones));
  initial begin
    $readmemh("stimulus.hex", stimulus);
    for (n = 0; n < {count}; n = n + 1) begin
      word = stimulus[n];
      #5 $display("%0h %0h %0h", complete, o_rows, o_ones);
      clk = 1;
      #5 clk = 0;
    end
  end
endmodule
"""


@pytest.mark.parametrize(
    "change", [{}, {"digit_bits": 1, "rows": 1, "drain_rows": 1}, {"digit_bits": 8, "acc_bits": 17}], ids=str
)
def test_icarus_agrees_with_amaranth(change, tmp_path):
    icarus, vvp = tool("iverilog"), tool("vvp")
    dut = small_array(**change)
    rng = random.Random(5)
    payload = len(dut.i.payload.as_value())
    bits = payload + 3
    stimulus = [rng.getrandbits(bits) for _ in range(400)]
    (tmp_path / "stimulus.hex").write_text("\n".join(f"{word:x}" for word in stimulus))
    (tmp_path / "dut.v").write_text(generate(small_array(**change)))
    (tmp_path / "bench.v").write_text(
        ICARUS_BENCH.format(
            bits=bits, count=len(stimulus), payload=payload, rows=dut.drain_rows * dut.acc_bits, ones=dut.acc_bits
        )
    )
    subprocess.run([icarus, "-g2005", "-o", "sim", "dut.v", "bench.v"], cwd=tmp_path, check=True)
    run = subprocess.run([vvp, "-n", "sim"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert run.stdout.split("\n")[:-1] == amaranth_outputs(dut, stimulus)


@pytest.mark.parametrize("digit_bits", [2, 8])
def test_verilator_has_no_complaint(digit_bits, tmp_path):
    source = tmp_path / "mac_array.v"
    source.write_text(generate(small_array(digit_bits=digit_bits, acc_bits=20)))
    status, text = verilator_lint(source)
    assert status == 0, text
    assert "%" not in text
