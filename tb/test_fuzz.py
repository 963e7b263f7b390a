"""Random small networks: 200 of them, and what is said when one fails."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from golden import generated
from hw.accelerator import Accelerator
from hw.config import PRESETS
from hw.verilog import generate
from tb import fuzz, session

TINY = PRESETS["tiny"]


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


@pytest.mark.slow
def test_a_failing_one_is_made_smaller(icarus: str) -> None:
    """With an accelerator whose output words are all even."""
    verilog = generate(Accelerator(TINY), name="accelerator")
    wrong, count = re.subn(r"(m_axis_output_tdata = .*payload\[7:0\])", r"\1 & 8'hfe", verilog)
    assert count == 1
    simulation = session.compile_text(wrong, TINY, icarus)
    status, text = run(2, seed=7, simulator=icarus, simulation=simulation, tries=4)
    assert status == 1
    first, second, third, *_ = text.splitlines()
    assert first == "0 of 2 random networks passed (tiny, icarus; seeds from 7)."
    assert second.startswith("seed 8 fails too: first difference in layer ")
    assert third.startswith("seed 7 fails: first difference in layer ")
    assert "The smallest that fails: first difference in layer " in text
    smallest = eval(text.splitlines()[-1], vars(generated))
    assert smallest.seed == 7 and smallest.work() < generated.random_spec(7).work()


def test_one_that_fails_only_behind_others(verilator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = fuzz._check

    def flaky(cases: list[fuzz._Case], *rest: object) -> list[fuzz.Failure]:
        return [fuzz.Failure(cases[1].spec, "no reason")] if len(cases) > 1 else honest(cases, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fuzz, "_check", flaky)
    status, text = run(2)
    assert status == 1
    assert "seed 1 fails: no reason\nIt passes alone, and fails only behind others" in text


def test_count_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^Count must be at least 1, not 0$"):
        fuzz.run(0)
