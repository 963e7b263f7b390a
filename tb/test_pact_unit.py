"""The PactUnit's and the ThresholdUnit's Verilog on both simulators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hw.pact_unit import PactUnit
from hw.threshold_unit import ThresholdUnit
from hw.verilog import generate
from tb import runner

UNITS: dict[str, dict[str, Any]] = {
    "small": {
        "acc_bits": 32,
        "multiplier_bits": 26,
        "bias_bits": 56,
        "max_shift": 40,
        "max_output_bits": 8,
        "skip_bits": 8,
        "skip_multiplier_bits": 34,
        "accumulator_out": True,
    },
    "plain": {"acc_bits": 20, "multiplier_bits": 18, "bias_bits": 30, "max_shift": 20, "max_output_bits": 4},
    "fixed": {
        "acc_bits": 24,
        "multiplier_bits": 18,
        "bias_bits": 40,
        "max_shift": 30,
        "max_output_bits": 2,
        "output_bits": 2,
        "skip_bits": 2,
        "skip_multiplier_bits": 20,
    },
}


@pytest.mark.parametrize("name", UNITS)
def test_pact_unit(any_simulator: str, folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    component = PactUnit(**UNITS[name])
    networks = ["random-residual-w4a4", "random-plain-w3a3", "random-residual-w2a2"]
    job = {
        "unit": UNITS[name],
        "latency": component.latency,
        "random": 3000,
        "vectors": [str(folders[network]) for network in networks] if name != "plain" else [],
    }
    simulation = runner.compile_verilog(generate(component, name="pact_unit"), "pact_unit", any_simulator)
    for seed, stall in ((1, 0.0), (2, 0.5)):
        result = runner.run_bench(
            simulation,
            "tb.benches.pact_unit",
            {**job, "stall": stall},
            directory=tmp_path / f"seed{seed}",
            seed=seed,
            test_filter="" if job["vectors"] else "corners|random",
        )
        assert len(result.tests) == (3 if job["vectors"] else 2)


@pytest.mark.parametrize(("acc_bits", "output_bits"), [(16, 1), (12, 2), (20, 4)])
def test_threshold_unit(any_simulator: str, tmp_path: Path, acc_bits: int, output_bits: int) -> None:
    component = ThresholdUnit(acc_bits=acc_bits, output_bits=output_bits)
    job = {"acc_bits": acc_bits, "output_bits": output_bits, "latency": component.latency, "random": 100}
    simulation = runner.compile_verilog(generate(component, name="threshold_unit"), "threshold_unit", any_simulator)
    for seed, stall in ((1, 0.0), (2, 0.5)):
        result = runner.run_bench(
            simulation,
            "tb.benches.threshold_unit",
            {**job, "stall": stall},
            directory=tmp_path / f"seed{seed}",
            seed=seed,
        )
        assert len(result.tests) == 2
