"""The MacArray's Verilog on both simulators."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.mac_array import MacArray
from hw.verilog import generate
from tb import runner
from tb.benches import mac_array as bench

CONFIGS = {
    "tiny": PRESETS["tiny"],
    "bits": AcceleratorConfig(name="bits", rows=3, lanes=7, digit_bits=1, acc_bits=16, requant_lanes=3),
    "bytes": AcceleratorConfig(name="bytes", rows=3, lanes=2, digit_bits=8, acc_bits=24, requant_lanes=1),
    "one": AcceleratorConfig(name="one", rows=1, lanes=1, digit_bits=16, acc_bits=40),
}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in ("one", "bits") else name for name in CONFIGS]


def array(config: AcceleratorConfig) -> MacArray:
    return MacArray(
        rows=config.rows,
        lanes=config.lanes,
        digit_bits=config.digit_bits,
        acc_bits=config.acc_bits,
        drain_rows=config.requant_lanes,
    )


@pytest.mark.parametrize("name", NAMES)
def test_array(any_simulator: str, folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    config = CONFIGS[name]
    component = array(config)
    job = {
        "config": asdict(config),
        "latency": component.latency,
        "random": 150,
        "vectors": [str(folders["random-plain-w3a3"])],
    }
    simulation = runner.compile_verilog(generate(component, name="mac_array"), "mac_array", any_simulator)
    for seed, stall in ((1, 0.0), (2, 0.5)):
        directory = tmp_path / f"seed{seed}"
        result = runner.run_bench(
            simulation, "tb.benches.mac_array", {**job, "stall": stall}, directory=directory, seed=seed
        )
        assert len(result.tests) == 2


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name", CONFIGS)
def test_plan_keeps_the_rules(name: str, stall: float) -> None:
    config = CONFIGS[name]
    positions = list(bench.random_positions(config, Random(1), 200))
    sizes = {"rows": config.rows, "drain_rows": config.requant_lanes}
    steps = bench.plan(positions, **sizes, latency=2, stall=stall, random=Random(2))
    assert [step.beat for step in steps if step.beat is not None] == [b for p in positions for b in p.beats]
    assert sum(step.capture for step in steps) == len(positions)
    assert sum(step.advance for step in steps) == len(positions) * (-(-config.rows // config.requant_lanes) - 1)
    assert not any(step.capture and (step.advance or not step.complete) for step in steps)
    if not stall and config.rows == config.requant_lanes:
        assert len(steps) == sum(len(position.beats) for position in positions) + 2 + 1 + 3
