"""Verilog models of cells: what they compute, and what is refused. Netlists of them are simulated elsewhere."""

import re
import subprocess

import pytest

from hw.synth.cells import cell_models, clock_pin
from hw.synth.liberty import LibertyError, Library
from hw.tests.tools import tool

TEXT = """
library (cells) {
  capacitive_load_unit (1, ff);
  cell (AOI) { area : 1;
    pin (A) { direction : input; } pin (B) { direction : input; } pin (C) { direction : input; }
    pin (Y) { direction : output; function : "((A B) + C')'"; }
    pin (Z) { direction : output; function : "A ^ !B | 0"; } }
  cell (DFF) { area : 1;
    ff (IQ, IQN) { clocked_on : "CK'"; next_state : "(D & !S) | (IQ & S)"; clear : "!R"; preset : "P"; }
    pin (D) { direction : input; } pin (S) { direction : input; } pin (R) { direction : input; }
    pin (P) { direction : input; } pin (CK) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; } pin (QN) { direction : output; function : "IQN"; } }
  cell (GATED) { area : 1; ff (IQ, IQN) { clocked_on : "CK & EN"; next_state : "D"; }
    pin (D) { direction : input; } pin (EN) { direction : input; } pin (CK) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; } }
  cell (LATCH) { area : 1; latch (IQ, IQN) { enable : "G"; data_in : "D"; }
    pin (D) { direction : input; } pin (G) { direction : input; }
    pin (Q) { direction : output; function : "IQ"; } }
  cell (WRONG) { area : 1; pin (A) { direction : input; } pin (Y) { direction : output; function : "A & E"; } }
}
"""

BENCH = """
module bench;
  reg [2:0] i; wire y, z; reg d, s, r, p, ck; wire q, qn; integer wrong = 0;
  AOI aoi(.A(i[0]), .B(i[1]), .C(i[2]), .Y(y), .Z(z));
  DFF dff(.D(d), .S(s), .R(r), .P(p), .CK(ck), .Q(q), .QN(qn));
  task tick(input want); begin #1 ck = 1; #1 ck = 0; #1 if (q !== want || qn !== !want) wrong = wrong + 1; end endtask
  initial begin
    i = 0;
    repeat (8) begin #1 if (y !== !((i[0] & i[1]) | !i[2]) || z !== (i[0] ^ !i[1])) wrong = wrong + 1; i = i + 1; end
    r = 1; p = 0; s = 0; ck = 0;
    d = 1; tick(1); d = 0; tick(0); s = 1; d = 1; tick(0); s = 0; tick(1);
    r = 0; #1 if (q !== 0) wrong = wrong + 1; tick(0);
    r = 1; p = 1; #1 if (q !== 1) wrong = wrong + 1; d = 0; tick(1);
    $display("wrong %0d", wrong); $finish;
  end
endmodule
"""


@pytest.fixture(scope="module")
def library():
    return Library(TEXT)


def test_models_compute_the_functions(library, tmp_path):
    tool("iverilog")
    source = tmp_path / "bench.v"
    source.write_text(BENCH + cell_models(library, ["AOI", "DFF"], delays=True))
    subprocess.run(["iverilog", "-g2005", "-o", tmp_path / "bench", "-s", "bench", source], check=True)
    output = subprocess.run([tmp_path / "bench"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "wrong 0" in output


def test_edge_of_the_clock(library):
    assert clock_pin(library.cells["DFF"]) == ("CK", False)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("GATED", "Flip-flop 'GATED' must be clocked by a pin, not 'CK & EN'"),
        ("LATCH", "Cell 'LATCH' must be combinational or a flip-flop, to be simulated"),
        ("WRONG", "Cell 'WRONG' cannot be simulated: Liberty function 'A & E' must name input pins only, not 'E'"),
    ],
)
def test_what_has_no_model(library, cell, message):
    with pytest.raises(LibertyError, match=rf"^{re.escape(message)}$"):
        cell_models(library, [cell])
