"""Random small networks: 200 of them, and what is said when one fails."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tb import fuzz


def run(count: int, **arguments: object) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=400)
    status = fuzz.run(count, console=console, **arguments)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


@pytest.mark.parametrize("seed", [0, 1000])
def test_random_networks(verilator: str, seed: int) -> None:
    status, text = run(110, seed=seed)
    assert status == 0, text
    assert text.startswith(f"110 of 110 random networks passed (tiny, verilator; seeds from {seed}")


def test_on_icarus(icarus: str) -> None:
    status, text = run(6, seed=5000, simulator=icarus)
    assert status == 0, text


def test_count_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^Count must be at least 1, not 0$"):
        fuzz.run(0)
