"""What the synthesis tests share: the full Liberty files, where they are, and Verilog models of a library's cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw.synth.liberty import Cell, Library

SHARED = Path(__file__).parents[2].parent / "shared" / "pdk"

LIBERTY = {
    "nangate45": SHARED / "nangate45__tt_025C_1v10.lib.gz",
    "sky130hd": SHARED / "sky130_fd_sc_hd__tt_025C_1v80.lib.gz",
    "asap7": SHARED / "asap7_rvt_tt_merged.lib.gz",
    "ihp": SHARED / "sg13g2_stdcell_typ_1p20V_25C.lib.gz",
}


def full_liberty(pdk: str) -> Path:
    """The full Liberty of ``pdk``; skips the test where it is not at hand."""
    if not LIBERTY[pdk].is_file():
        pytest.skip(f"the full Liberty of {pdk} is not at hand (../shared/pdk/{LIBERTY[pdk].name})")
    return LIBERTY[pdk]


def _model(cell: Cell) -> str:
    ports = ", ".join(f"{pin.direction} {pin.name}" for pin in (*cell.inputs, *cell.outputs))
    lines = [f"module {cell.name}({ports});"]
    if cell.is_flip_flop:
        expressions = {key: cell.state[key].strip("() ") for key in ("clocked_on", "next_state")}
        lines += [
            "  reg q;",
            "  initial q = $random;",
            f"  always @(posedge {expressions['clocked_on']}) q <= {expressions['next_state']};",
        ]
        for pin in cell.outputs:
            function = (pin.function or "").strip("() ")
            lines.append(f"  assign {pin.name} = {'q' if function == cell.variables[0] else '~q'};")
    else:
        index = ", ".join(pin.name for pin in reversed(cell.inputs)) or "1'b0"
        for pin in cell.outputs:
            size = 1 << len(cell.inputs)
            lines.append(f"  wire [{size - 1}:0] table_{pin.name} = {size}'d{cell.table(pin)};")
            lines.append(f"  assign {pin.name} = table_{pin.name}[{{{index}}}];")
    return "\n".join([*lines, "endmodule", ""])


def cell_models(library: Library, names: list[str]) -> str:
    """Verilog of the cells ``names``, from their functions in the Liberty alone."""
    return "".join(_model(library.cells[name]) for name in names)
