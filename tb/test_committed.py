"""The networks that the repository brings along, through the RTL of the ``small`` configuration."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from golden import vectors
from golden.network import Conv2d
from tb import simulate


def run(*networks: str, simulator: str, frames: int | None, reports: Path, seed: int = 1) -> str:
    console = Console(file=io.StringIO(), width=120)
    status = simulate.run(
        networks, simulator=simulator, frames=frames, seed=seed, reports=reports, console=console
    )
    assert isinstance(console.file, io.StringIO)
    assert status == 0, console.file.getvalue()
    return console.file.getvalue()


@pytest.mark.parametrize("seed", [1, 2])
def test_all_on_verilator(verilator: str, tmp_path: Path, seed: int) -> None:
    """Every output code of every layer of every frame, from two states at power-up."""
    names = vectors.committed()
    kinds = {tuple(name.rsplit("-", 1)) for name in names}
    assert kinds >= {(f"digits-{kind}", f"w{k}a{k}") for kind in ("plain", "residual") for k in (8, 4, 3, 2)}
    run(simulator=verilator, frames=None, reports=tmp_path, seed=seed)
    for name in names:
        network, tensors = vectors.read(vectors.find(name))
        report = json.loads((tmp_path / f"sim-{name}-small-verilator.json").read_text())
        compared = {
            layer["name"]: layer["compared"] for layer in report["layers"] if layer["computed_by"] == "rtl"
        }
        assert compared == {
            operation.name: tensors[operation.output].size
            for operation in network.operations
            if isinstance(operation, Conv2d)
        }


def test_one_on_icarus(icarus: str, tmp_path: Path) -> None:
    """All of them take minutes there: ``make sim SIM=icarus``."""
    text = run("digits-residual-w2a2", simulator=icarus, frames=1, reports=tmp_path)
    assert " 0 mismatches (small, icarus)" in text
