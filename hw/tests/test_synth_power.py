"""A Liberty's power: units, tables, conditions, rails."""

import re

import numpy as np
import pytest

from hw.synth.liberty import LibertyError
from hw.synth.power import Table, read_power

TEXT = """
library (powers) {
  capacitive_load_unit (0.5, pf); voltage_unit : "1V"; nom_voltage : 1.2; time_unit : "100ps";
  leakage_power_unit : "10nW";
  power_lut_template (loads_first) {
    variable_1 : total_output_net_capacitance; variable_2 : input_transition_time;
    index_1 ("0, 0.01, 0.02"); index_2 ("1, 3"); }
  power_lut_template (slews) { variable_1 : input_transition_time; index_1 ("1, 2, 3"); }
  lu_table_template (times) { variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0, 10"); index_2 ("0, 0.02"); }
  cell (NAND) { cell_leakage_power : 3;
    leakage_power () { when : "A & B"; value : 2.5; related_pg_pin : VDD; }
    leakage_power () { when : "A & B"; value : 0.5; related_pg_pin : VSS; }
    pin (A) { direction : input; capacitance : 0.002;
      internal_power () { when : "!B"; rise_power (slews) { values ("0.001, 0.002, 0.003"); }
        fall_power (scalar) { values ("0.004"); } } }
    pin (B) { direction : input; capacitance : 0.002; }
    pin ("Y") { direction : output; function : "!(A & B)";
      internal_power () { related_pin : "A B"; related_pg_pin : VSS;
        power (loads_first) { values ("0.01, 0.03", \\
          "0.02, 0.04", "0.03, 0.05"); } }
      timing () { related_pin : "A"; rise_transition (times) { values ("0.1, 0.5", "0.3, 0.7"); } } } }
  cell (PLAIN) { pin (A) { direction : input; } }
  cell (SHORT) { pin (A) { direction : input; internal_power () { power (slews) { values ("1, 2"); } } } }
}
"""


def test_units_tables_and_conditions():
    power = read_power(TEXT, ["NAND"])
    assert (power.name, power.voltage, power.time_ns) == ("powers", 1.2, 0.1)
    nand = power.cells["NAND"]
    assert nand.leakage_nw == pytest.approx(30)
    assert nand.states == (("A & B", "VDD", pytest.approx(25)), ("A & B", "VSS", pytest.approx(5)))
    hidden, driven = nand.arcs
    assert (hidden.pin, hidden.related, hidden.when, hidden.rail) == ("A", None, "!B", "")
    assert (driven.pin, driven.related, driven.when, driven.rail) == ("Y", "A B", None, "VSS")
    # 0.5 pF * (1 V)² is 500 fJ; loads are multiples of 0.5 pF.
    assert hidden.rise.at(1.5, 99.0) == pytest.approx(0.0015 * 500)
    assert hidden.fall.at(7.0, 0.0) == pytest.approx(0.004 * 500)
    assert driven.rise.at(2.0, np.array([0.0, 2.5, 5.0, 50.0])) == pytest.approx(np.array([10, 12.5, 15, 20]))
    assert driven.fall.at(3.0, 5.0) == pytest.approx(20)


def test_slew_of_a_chain():
    # Half of 10 fF is half of 0.4 more: s = 0.1 + 0.02 s + 0.2.
    assert read_power(TEXT, ["NAND"]).slew("NAND", "Y", 5.0) == pytest.approx(0.3 / 0.98)
    message = "Cell 'NAND' of Liberty library 'powers' must have transition times at 'A'"
    with pytest.raises(LibertyError, match=rf"^{message}$"):
        read_power(TEXT, ["NAND"]).slew("NAND", "A", 5.0)


def test_known_cells_are_kept():
    first = read_power(TEXT, ["NAND"])
    again = read_power(TEXT, ["NAND", "PLAIN"], first)
    assert again.cells["NAND"] is first.cells["NAND"]
    assert set(again.cells) == {"NAND", "PLAIN"}


def test_table_ends_are_flat():
    table = Table(np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert [float(table.at(*at)) for at in ((0, 0), (9, 9), (1.5, 1.5))] == [1.0, 4.0, 2.5]


@pytest.mark.parametrize(
    ("text", "cell", "message"),
    [
        (TEXT, "NOR", "Liberty library 'powers' must have a cell 'NOR'"),
        (TEXT, "PLAIN", "Liberty library 'powers' must have internal_power groups, for an energy"),
        (TEXT, "SHORT", "Table 'slews' must have 3 x 1 values, not 2"),
        (TEXT.replace("nom_voltage : 1.2;", ""), "NAND", "Liberty library 'powers' must have a nom_voltage"),
        (TEXT[: TEXT.index('pin (B)')], "NAND", "Liberty text must close every group"),
    ],
)
def test_refused(text, cell, message):
    with pytest.raises(LibertyError, match=rf"^{re.escape(message)}$"):
        read_power(text, [cell])
