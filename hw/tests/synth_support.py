"""What the synthesis tests share: where the full Liberty files are."""

from __future__ import annotations

from pathlib import Path

import pytest

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
