"""The networks that the repository brings along, as whole networks through the RTL of the presets.

All of them on Icarus take minutes: ``make sim SIM=icarus``, ``make sim SIM=icarus CONFIG=wide``.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from golden import vectors
from tb import simulate


def run(*networks: str, config: str, simulator: str, frames: int | None, reports: Path, seed: int = 1) -> str:
    console = Console(file=io.StringIO(), width=120)
    status = simulate.run(
        networks, config=config, simulator=simulator, frames=frames, seed=seed, reports=reports, console=console
    )
    assert isinstance(console.file, io.StringIO)
    assert status == 0, console.file.getvalue()
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("config", "seed", "widths"),
    [
        ("tiny", 1, (8, 4, 3, 2)),
        ("small", 2, (8, 4, 3, 2)),
        pytest.param("wide", 3, (8, 4, 3, 2), marks=pytest.mark.slow),
        pytest.param("int8", 5, (8, 4, 3, 2), marks=pytest.mark.slow),
    ],
)
def test_all_on_verilator(verilator: str, tmp_path: Path, config: str, seed: int, widths: tuple[int, ...]) -> None:
    """Every output code of every layer and every cycle; every preset from another state at power-up."""
    names = vectors.committed()
    kinds = {tuple(name.rsplit("-", 1)) for name in names}
    assert kinds >= {(f"digits-{kind}", f"w{k}a{k}") for kind in ("plain", "residual") for k in (8, 4, 3, 2)}
    names = [name for name in names if int(name[-1]) in widths]
    run(*names, config=config, simulator=verilator, frames=1, reports=tmp_path, seed=seed)
    for name in names:
        network, tensors = vectors.read(vectors.find(name))
        report = json.loads((tmp_path / f"sim-{name}-{config}-verilator.json").read_text())
        seen = [operation for layer in report["layers"] for operation in layer["operations"]]
        assert seen == [operation.name for operation in network.operations]
        for layer in report["layers"]:
            output = network.operation(layer["operations"][-1]).output
            assert layer["compared"] == tensors[output][:1].size


@pytest.mark.parametrize(
    ("config", "name"),
    [("tiny", "digits-plain-w2a2"), pytest.param("small", "digits-residual-w2a2", marks=pytest.mark.slow)],
)
def test_on_icarus(icarus: str, tmp_path: Path, config: str, name: str) -> None:
    """X everywhere at power-up."""
    text = run(name, config=config, simulator=icarus, frames=1, reports=tmp_path)
    assert f" 0 mismatches ({config}, icarus)" in text
