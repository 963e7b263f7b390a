# amaranth: UnusedElaboratable=no
"""The area report: its table, its files, its errors, and what must hold of the areas."""

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from hw.dot_product import best_form
from hw.synth import timing
from hw.synth.components import Subject, arrays, units
from hw.synth.parts import BODY
from hw.synth.plot import area as draw
from hw.synth.report import run
from hw.synth.row import Row
from hw.synth.technology import Kind, resolve
from hw.tests.synth_support import full_liberty

BUILD = Path(__file__).parents[2] / "build" / "synth"
def report(tmp_path, **parameters):
    """The report of a small configuration and what it printed."""
    output = io.StringIO()
    defaults = {"rows": 2, "lanes": 2, "jobs": 2, "build": tmp_path / "synth", "reports": tmp_path / "reports"}
    result = run(**defaults | parameters, console=Console(file=output, width=80))
    return result, output.getvalue()


def test_mini(tmp_path):
    result, text = report(tmp_path, digit_bits=[2, 16], output_bits=[1])
    with result.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert result.csv == tmp_path / "reports" / "area-mini.csv"
    assert list(rows[0]) == [field.name for field in dataclasses.fields(Row)]
    assert [(row["component"], row["digit_bits"], row["output_bits"]) for row in rows] == [
        ("mac_array", "2", ""),
        ("mac_array", "16", ""),
        ("threshold_unit", "", "1"),
        ("pact_unit_fixed", "", "1"),
        ("pact_unit", "", "1"),
    ]
    for row in rows[:2]:
        d = int(row["digit_bits"])
        assert (row["rows"], row["lanes"], row["luts"], row["clock_ns"]) == ("2", "2", "", "10.0")
        assert row["form"] == best_form(d).value
        assert int(row["accumulator_bits"]) == 2 * d + 12
        assert float(row["area_per_mac_um2"]) == pytest.approx(float(row["area_um2"]) / 4, abs=1e-3)
        assert float(row["weight_register"]) == pytest.approx(4 * d * 20.0192, abs=1e-3)
        assert sum(float(row[part]) for part in BODY) == pytest.approx(float(row["area_um2"]), abs=5e-3)
        ratio = float(rows[1]["area_um2"]) / float(row["area_um2"])
        assert float(row["ratio_to_16"]) == pytest.approx(ratio, abs=0.01)
    for row in rows[2:]:
        assert (row["rows"], row["area_per_mac_um2"], row["weight_register"], row["products"]) == ("", "", "", "")
        assert float(row["area_um2"]) > 0
    assert all(bool(row["delay_ns"]) == (timing.unavailable(result.target) is None) for row in rows)
    assert "Array: mini" in text
    assert "PACT unit: mini" in text
    assert max(map(len, text.splitlines())) <= 80 + len(str(tmp_path)) * 3  # but for the line with the files
    for path in result.plots:
        assert path.stat().st_size > 10_000
    assert [path.name for path in result.plots] == ["area-mini.svg", "area-mini.png"]


def test_generic(tmp_path):
    result, text = report(tmp_path, pdk="generic", components=["array"], digit_bits=[2])
    (row,) = result.rows
    assert (row.area_um2, row.luts, row.delay_ns, row.clock_ns, row.ratio_to_16) == (None, None, None, None, None)
    assert row.cells > 100
    assert sum(row.body.values()) == row.cells
    assert row.full_adders >= 2 * (2 * 2 * 2 - 3)
    assert row.cost_per_mac == row.cells / 4
    assert "No delays: there is no Liberty for generic gates." in text
    assert "cells/MAC" in text


def test_fpga(tmp_path):
    result, text = report(tmp_path, pdk="ice40", components=["array"], digit_bits=[1])
    (row,) = result.rows
    assert row.area_um2 is None
    assert row.luts > 50
    assert sum(row.body.values()) == row.luts
    assert row.weight_register_ffs == 4
    assert "LUTs/MAC" in text


def test_fixed_accumulator(tmp_path):
    result, _ = report(tmp_path, components=["array"], digit_bits=[1], accumulator_bits=20, clock_ns=4.5)
    assert [(row.accumulator_bits, row.clock_ns) for row in result.rows] == [(20, 4.5)]


def test_plot_repeats(tmp_path):
    rows = [
        Row(component="mac_array", digit_bits=d, rows=2, lanes=2, accumulator_bits=20, cells=9 * d * d, ffs=1,
            full_adders=0, half_adders=0)
        for d in (1, 2)
    ]  # fmt: skip
    paths = [draw(rows, resolve("generic"), tmp_path / name) for name in ("a", "b")]
    for first, second in zip(*paths):
        assert first.read_bytes() == second.read_bytes()
    assert draw([], resolve("generic"), tmp_path / "none") == ()


def test_subjects():
    assert [(s.digit_bits, s.lanes, s.accumulator_bits, s.macs) for s in arrays()] == [
        (1, 128, 14, 2048),
        (2, 64, 16, 1024),
        (4, 32, 20, 512),
        (8, 16, 28, 128),
        (16, 8, 44, 64),
    ]
    assert [s.rows for s in arrays(kind=Kind.FPGA)] == [4, 4, 2, 1, 1]
    assert [s.rows for s in arrays([2, 8], rows=3)] == [3, 3]
    assert [s.title for s in units([4, 8])] == [
        "threshold_unit k=4",
        "pact_unit_fixed k=4",
        "pact_unit_fixed k=8",
        "pact_unit k=4",
        "pact_unit k=8",
    ]
    assert Subject(component="mac_array", accumulator_bits=14, digit_bits=1, rows=1, lanes=1).title == "mac_array d=1"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"components": ["adder"]}, "Component must be one of array, pact, not 'adder'"),
        ({"clock_ns": 0}, "Clock period must be positive, not 0"),
        ({"digit_bits": [3]}, "Digit width must be 1, 2, 4, 8 or 16, not 3"),
        ({"output_bits": [5]}, "Output width must be one of 1, 2, 3, 4, 8, not 5"),
        ({"rows": 0}, "Number of rows must be at least 1, not 0"),
        ({"lanes": 0}, "Number of lanes must be at least 1, not 0"),
        (
            {"pdk": "tsmc7"},
            "PDK must be one of mini, generic, nangate45, sky130hd, asap7, ihp, ice40, ecp5, xilinx, not 'tsmc7'",
        ),
    ],
)
def test_wrong_parameters(parameters, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        report(tmp_path, **parameters)
    assert not (tmp_path / "reports").exists()


@pytest.mark.slow
def test_mini_is_within_three_percent_of_the_full_library(tmp_path):
    full = full_liberty("sky130hd")
    parameters = {"components": ["array"], "digit_bits": [2, 4], "rows": 8, "lanes": 16, "build": BUILD}
    mini, _ = report(tmp_path, **parameters)
    sky130, _ = report(tmp_path, pdk="sky130hd", liberty=full, **parameters)
    for ours, theirs in zip(mini.rows, sky130.rows):
        assert ours.area_um2 == pytest.approx(theirs.area_um2, rel=0.03)
        assert ours.weight_register == theirs.weight_register


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "lanes", "rows", "accumulator_bits", "limit"),
    [(2, 64, 16, 16, 24.0), (4, 32, 16, 20, 79), (8, 16, 8, 28, 290), (16, 8, 8, 44, 1060)],
)
def test_nangate45_density(tmp_path, d, lanes, rows, accumulator_bits, limit):
    """What the project promises of its arrays, on the full library at 500 MHz."""
    liberty = full_liberty("nangate45")
    parameters = {"components": ["array"], "digit_bits": [d], "rows": None, "lanes": None, "build": BUILD}
    result, text = report(tmp_path, pdk="nangate45", liberty=liberty, **parameters)
    (row,) = result.rows
    assert (row.lanes, row.rows, row.accumulator_bits) == (lanes, rows, accumulator_bits)
    assert row.area_per_mac_um2 <= limit, text
    # No register was lost.
    assert row.ffs >= rows * accumulator_bits + 128
    assert row.weight_register_ffs == rows * 128
    assert math.isclose(row.weight_register, rows * 128 * 4.522, abs_tol=0.01)
    if timing.unavailable(result.target):
        pytest.skip("OpenSTA is not installed, so the areas were checked and the delays were not")
    assert row.delay_ns <= 2.0, text
