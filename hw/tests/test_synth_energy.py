"""Energy of a netlist, by hand: two gates and a flip-flop over a few cycles."""

import re

import numpy as np
import pytest

from hw.synth.energy import Energy, Waves, WavesError, energy, loads
from hw.synth.liberty import Library
from hw.synth.netlist import FlatCell, FlatNetlist
from hw.synth.power import read_power

# Every number is a different one, so that a wrong table, edge or condition shows.
TEXT = """
library (small) {
  capacitive_load_unit (1, ff); voltage_unit : "1V"; nom_voltage : 2; time_unit : "1ns"; leakage_power_unit : "1nW";
  power_lut_template (load) { variable_1 : total_output_net_capacitance; index_1 ("0, 10"); }
  cell (NAND) { area : 1; cell_leakage_power : 7; leakage_power () { when : "A & B"; value : 11; }
    pin (A) { direction : input; capacitance : 2;
      internal_power () { when : "!B"; rise_power (scalar) { values ("0.25"); }
        fall_power (scalar) { values ("0.5"); } } }
    pin (B) { direction : input; capacitance : 3; }
    pin (Y) { direction : output; function : "!(A & B)";
      internal_power () { related_pin : "A"; rise_power (load) { values ("10, 20"); }
        fall_power (load) { values ("30, 40"); } }
      internal_power () { related_pin : "B"; when : "A"; rise_power (scalar) { values ("100"); }
        fall_power (scalar) { values ("200"); } }
      internal_power () { related_pin : "B"; when : "!A"; rise_power (scalar) { values ("300"); }
        fall_power (scalar) { values ("700"); } } } }
  cell (TIE) { area : 1; cell_leakage_power : 9; pin (Z) { direction : output; function : "1"; } }
  cell (DFF) { area : 1; cell_leakage_power : 0; ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    leakage_power () { when : "CK & Q"; value : 4; }
    pin (D) { direction : input; capacitance : 5;
      internal_power () { when : "CK"; rise_power (scalar) { values ("1"); } fall_power (scalar) { values ("2"); } }
      internal_power () { when : "!CK"; rise_power (scalar) { values ("1000"); }
        fall_power (scalar) { values ("1000"); } } }
    pin (CK) { direction : input; capacitance : 6;
      internal_power () { when : "!D & !Q"; rise_power (scalar) { values ("0.125"); }
        fall_power (scalar) { values ("0.0625"); } }
      internal_power () { when : "D & !Q"; rise_power (scalar) { values ("400"); }
        fall_power (scalar) { values ("800"); } } }
    pin (Q) { direction : output; function : "IQ";
      internal_power () { related_pin : "CK"; rise_power (scalar) { values ("50"); }
        fall_power (scalar) { values ("60"); } } }
    pin (QN) { direction : output; function : "IQN";
      internal_power () { related_pin : "CK"; rise_power (scalar) { values ("5"); }
        fall_power (scalar) { values ("6"); } } } }
}
"""

A, B, CLK, Y, Q = range(2, 7)


def netlist(**changes):
    """a, b → NAND → flip-flop → port."""
    cells = {
        "gate": FlatCell(name="gate", kind="NAND", inputs={"A": A, "B": B}, outputs={"Y": Y}),
        "flop": FlatCell(name="flop", kind="DFF", inputs={"D": Y, "CK": CLK}, outputs={"Q": Q}),
    }
    ports = {"a": ("input", (A,)), "b": ("input", (B,)), "clk": ("input", (CLK,)), "q": ("output", (Q,))}
    return FlatNetlist(top="top", ports=ports, cells=cells | changes, names={})


def waves(a, b, y, q):
    return Waves({A: 0, B: 1, Y: 2, Q: 3}, np.array([a, b, y, q], np.uint8))


def measured(flat, what, **options):
    library = Library(TEXT)
    parameters = {"part": lambda cell: cell.name, "period_ns": 3.0, "slew": 1.0, "output_load": 4.0} | options
    return energy(flat, library, read_power(TEXT, ["NAND", "DFF", "TIE"]), what, **parameters)


def test_by_hand():
    # a rises, then b and a together fall and rise: the output falls, rises, falls again by both.
    found = measured(netlist(), waves([0, 1, 0, 1], [1, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]))
    gate, flop = found["gate"], found["flop"]
    # Y drives 5 fF. Falls by A: 35. Rises by both: the mean of 15 and, A being 0 then, 300. Falls by both: the mean of
    # 35 and 200.
    # A moves with B at 0 once, falling: 0.5.
    assert gate.internal == pytest.approx(35 + (15 + 300) / 2 + (35 + 200) / 2 + 0.5)
    # V²/2 is 2: Y moves 3 times; a (2 fF) 3 times and b (3 fF) twice, out of ports.
    assert gate.switching == pytest.approx(2 * (3 * 5 + 3 * 2 + 2 * 3))
    # States at the end of each step: (1, 1), (0, 0), (1, 1); nanowatts times 3 ns are attojoules.
    assert gate.leakage == pytest.approx((11 + 7 + 11) * 3e-3)
    assert gate.clock == 0
    # Q rises, falls, rises and QN against it; D falls, rises, falls while the clock is high.
    assert flop.internal == pytest.approx((50 + 6) + (60 + 5) + (50 + 6) + (2 + 1 + 2))
    assert flop.switching == pytest.approx(2 * 3 * 4)
    # Three cycles of 6 fF there and back. Conditions on the way up are those before the edge: (D, Q) was (1, 0),
    # (0, 1), (1, 0); on the way down those after it: (0, 1), (1, 0), (0, 1).
    assert flop.clock == pytest.approx(3 * 2 * 2 * 6 + 400 + 400 + 800)
    assert flop.leakage == pytest.approx((2 + 0 + 2) * 3e-3)
    assert sum((gate, flop), Energy()).total == pytest.approx(gate.total + flop.total)


def test_nothing_moves():
    found = measured(netlist(), waves([0] * 5, [0] * 5, [1] * 5, [1] * 5))
    assert found["gate"] == Energy(leakage=pytest.approx(4 * 7 * 3e-3))
    assert (found["flop"].internal, found["flop"].switching) == (0, 0)
    assert found["flop"].clock == pytest.approx(4 * 2 * 2 * 6)


def test_tie_cells_leak():
    tie = FlatCell(name="tie", kind="TIE", inputs={}, outputs={"Z": B})
    flat = netlist(tie=tie)
    flat.ports.pop("b")
    found = measured(flat, waves([0, 1], [1, 1], [1, 0], [1, 1]))
    assert found["tie"] == Energy(leakage=pytest.approx(9 * 3e-3))
    with pytest.raises(WavesError, match="at cell 'tie'"):
        measured(flat, waves([0, 1], [0, 0], [1, 1], [1, 1]))


def test_loads_of_nets():
    assert loads(netlist(), Library(TEXT), outputs=4.0) == {A: 2, B: 3, Y: 5, CLK: 6, Q: 4}


@pytest.mark.parametrize(
    ("what", "changes", "message"),
    [
        (([0, 1], [1, 1], [1, 1], [1, 1]), {}, "Waves must be those of the netlist, and at cell 'gate' they are not"),
        (([0, 1], [1, 1], [1, 0], [0, 0]), {}, "Waves must be those of the netlist, and at cell 'flop' they are not"),
        (
            ([0, 0], [1, 1], [1, 1], [1, 1]),
            {"flop": FlatCell(name="flop", kind="DFF", inputs={"D": Y, "CK": A}, outputs={"Q": Q})},
            "Flip-flops of kind 'DFF' must be clocked by the port 'clk'",
        ),
        (
            ([0, 0], [1, 1], [1, 1], [1, 1]),
            {"flop": FlatCell(name="flop", kind="DFF", inputs={"D": Y, "CK": CLK}, outputs={})},
            "Flip-flop 'flop' must drive something",
        ),
    ],
)
def test_refused(what, changes, message):
    with pytest.raises(WavesError, match=rf"^{re.escape(message)}$"):
        measured(netlist(**changes), waves(*what))
