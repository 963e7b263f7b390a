"""The Liberty reader and the choice of a technology."""

import gzip
import re

import pytest

from hw.synth.liberty import Adder, LibertyError, Library, evaluate, read_text
from hw.synth.technology import MINI, TechnologyError, resolve
from hw.tests.synth_support import LIBERTY, full_liberty

ADDERS = """\
/* library (not_this_one) { */
library ("odd") {
  capacitive_load_unit (2, ff);
  operating_conditions (typical) { process : 1; }
  cell (INV) { area : 1; pin (A) { direction : input; capacitance : 0.5; }
    pin (Y) { direction : output; function : "A'"; } }
  cell (BIGFA) { area : 9; pin (A, B, C) { direction : input; }
    pin (S) { direction : output; function : "A^B^C"; } pin (M) { direction : output; function : "A B + A C + B C"; } }
  cell (FAN) { area : 5; pg_pin (VDD) { pg_type : "primary_power"; } pin (A) { direction : input; capacitance : 3; }
    pin (B) { direction : input; capacitance : 1; } pin (C) { direction : input; capacitance : 1; }
    pin (MN) { direction : output; function : "(!A * !B) + (!A * !C) + (!B * !C)";
      timing () { related_pin : "A"; cell_rise (t) { values ("1, 2", \\
        "3, 4"); } } }
    pin (S) { direction : output; function : "A ^ B ^ C"; } }
  cell (HIDDEN) { area : 1; dont_use : true; pin (A) { direction : input; } pin (B) { direction : input; }
    pin (S) { direction : output; function : "A^B"; } pin (C) { direction : output; function : "A&B"; } }
  cell (FF) { area : 4.5; ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    pin (D) { direction : input; } pin (CK) { direction : input; clock : true; }
    pin (Q) { direction : output; function : "IQ"; } }
}
"""


@pytest.mark.parametrize(
    ("function", "ones"),
    [
        ("A", "1111 0000"),
        ("!A", "0000 1111"),
        ("A'", "0000 1111"),
        ("!(A & B)", "0011 1111"),
        ("A B + C", "1110 1010"),
        ("A*B|C", "1110 1010"),
        ("A ^ B ^ C", "1001 0110"),
        ("(A&!B) | (!A&B)", "0011 1100"),
        ("A & B ^ C", "0110 0000"),  # exclusive or binds tighter than and
        ("1", "1111 1111"),
        ("0", "0000 0000"),
    ],
)
def test_evaluate(function, ones):
    values = [evaluate(function, {"A": i >> 2, "B": i >> 1 & 1, "C": i & 1}) for i in reversed(range(8))]
    assert "".join(map(str, values)) == ones.replace(" ", "")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("A & D", "Liberty function 'A & D' must name input pins only, not 'D'"),
        ("(A", "Liberty function '(A' must have matching parentheses"),
        ("A)", "Liberty function 'A)' must have matching parentheses"),
        ("A ? B", "Liberty function 'A ? B' must be a Boolean expression"),
        ("A &", "Liberty function 'A &' must name input pins only, not ''"),
    ],
)
def test_evaluate_wrong(function, message):
    with pytest.raises(LibertyError, match=f"^{re.escape(message)}$"):
        evaluate(function, {"A": 0, "B": 1})


def test_library():
    library = Library(ADDERS)
    assert library.name == "odd"
    assert list(library.cells) == ["INV", "BIGFA", "FAN", "HIDDEN", "FF"]
    assert library.cells["FAN"].area == 5
    assert [pin.capacitance for pin in library.cells["FAN"].inputs] == [6, 2, 2]
    assert library.full_adder == Adder(
        cell="FAN", inputs=("A", "B", "C"), sum="S", carry="MN", sum_inverted=False, carry_inverted=True
    )
    assert library.half_adder is None
    assert [cell.name for cell in library.flip_flops] == ["FF"]
    assert library.cells["FF"].state == {"clocked_on": "CK", "next_state": "D"}
    assert library.driver.name == "INV"
    assert library.load == 6
    assert library.tie(0) is None


def test_library_avoids():
    library = Library(ADDERS, lambda name: name == "FAN")
    assert library.full_adder is not None
    assert library.full_adder.cell == "BIGFA"


def test_mini():
    library = Library(read_text(MINI))
    prefix = "sky130_fd_sc_hd__"
    assert library.full_adder == Adder(
        cell=prefix + "fa_1",
        inputs=("A", "B", "CIN"),
        sum="SUM",
        carry="COUT",
        sum_inverted=False,
        carry_inverted=False,
    )
    assert library.half_adder == Adder(
        cell=prefix + "ha_1", inputs=("A", "B"), sum="SUM", carry="COUT", sum_inverted=False, carry_inverted=False
    )
    assert library.driver.name == prefix + "buf_2"
    assert library.tie(1) == (prefix + "conb_1", "HI")
    assert 20 <= len(library.cells) <= 30


def test_mini_cells_are_those_of_the_full_library():
    mini = Library(read_text(MINI))
    full = Library(read_text(full_liberty("sky130hd")))
    for name, cell in mini.cells.items():
        assert cell.area == pytest.approx(full.cells[name].area, abs=1e-9), name
        assert {pin.name for pin in cell.inputs} == {pin.name for pin in full.cells[name].inputs}, name
        assert cell.is_flip_flop == full.cells[name].is_flip_flop
        if not cell.sequential:
            assert [pin.name for pin in full.cells[name].inputs] == [pin.name for pin in cell.inputs], name
            assert {p.name: cell.table(p) for p in cell.outputs} == {
                p.name: full.cells[name].table(p) for p in full.cells[name].outputs
            }, name


@pytest.mark.parametrize(
    ("pdk", "adder", "inverted", "flip_flop"),
    [
        ("nangate45", "FA_X1", False, "DFF_X1"),
        ("sky130hd", "sky130_fd_sc_hd__fa_1", False, "sky130_fd_sc_hd__dfxtp_1"),
        ("asap7", "FAx1_ASAP7_75t_R", True, "DFFHQNx1_ASAP7_75t_R"),
        ("ihp", None, False, "sg13g2_dfrbpq_1"),
    ],
)
def test_full_libraries(pdk, adder, inverted, flip_flop):
    target = resolve(liberty=full_liberty(pdk))
    assert target.name == pdk
    assert target.library is not None
    found = target.library.full_adder
    assert (found and found.cell) == adder
    if found:
        assert (found.sum_inverted, found.carry_inverted) == (inverted, inverted)
    assert target.library.flip_flops[0].name == flip_flop


def test_compressed_liberty(tmp_path):
    path = tmp_path / "odd.lib.gz"
    path.write_bytes(gzip.compress(ADDERS.encode()))
    target = resolve("nangate45", path)  # the Liberty decides, not PDK=
    assert target.name == "odd"
    assert target.technology.clock_ns == 5
    assert target.liberty == ADDERS


def _file(tmp_path, content):
    path = tmp_path / "some.lib"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_unknown_pdk():
    with pytest.raises(
        TechnologyError,
        match=r"^PDK must be one of mini, generic, nangate45, sky130hd, asap7, ihp, ice40, ecp5, xilinx, not 'tsmc7'$",
    ):
        resolve("tsmc7")


@pytest.mark.parametrize("pdk", LIBERTY)
def test_missing_liberty(pdk):
    with pytest.raises(
        TechnologyError, match=f"^PDK '{pdk}' needs the Liberty file of .*: give its path with LIBERTY= or --liberty$"
    ):
        resolve(pdk)


def test_no_such_liberty(tmp_path):
    path = tmp_path / "none.lib"
    with pytest.raises(
        LibertyError, match=f"^Liberty file {re.escape(repr(str(path)))} cannot be read: No such file or directory$"
    ):
        resolve(liberty=path)


@pytest.mark.parametrize("content", ["module top; endmodule\n", "", b"\x00\xff\xfe"])
def test_liberty_that_is_none(tmp_path, content):
    path = _file(tmp_path, content)
    with pytest.raises(
        LibertyError,
        match=rf"^Liberty file must have a library\(\.\.\.\) group, and {re.escape(repr(str(path)))} has none$",
    ):
        resolve(liberty=path)


def test_broken_gzip(tmp_path):
    path = _file(tmp_path, gzip.compress(ADDERS.encode())[:100])
    with pytest.raises(LibertyError, match=f"^Liberty file {re.escape(repr(str(path)))} cannot be decompressed: .+$"):
        resolve(liberty=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("library (empty) { }", "Liberty library 'empty' must have cells"),
        ("library (x) { capacitive_load_unit (1, nf); }", "Liberty unit of capacitance must be ff or pf, not 'nf'"),
    ],
)
def test_unfit_liberty(tmp_path, content, message):
    with pytest.raises(LibertyError, match=f"^{re.escape(message)}$"):
        resolve(liberty=_file(tmp_path, content))


def test_liberty_without_flip_flops(tmp_path):
    path = _file(tmp_path, re.sub(r"ff \(IQ, IQN\) \{.*?\}", "", ADDERS))
    with pytest.raises(
        TechnologyError,
        match=f"^Liberty library 'odd' must have a flip-flop, and {re.escape(repr(str(path)))} has none$",
    ):
        resolve(liberty=path)


def test_liberty_without_buffers(tmp_path):
    path = _file(tmp_path, re.sub(r"  cell \(INV\).*\n.*\n", "", ADDERS))
    with pytest.raises(TechnologyError, match=r"^Liberty library 'odd' must have a buffer or an inverter$"):
        resolve(liberty=path)
