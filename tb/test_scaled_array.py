"""The ScaledArray's Verilog on both simulators: networks with two-level scales, every accumulator of every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from golden import vectors
from golden.network import Conv2d
from hw.scaled_array import ScaledArray
from hw.verilog import generate
from tb import examples, runner
from tb.conftest import installed

COMMON: dict[str, Any] = {"rows": 2, "lanes": 4, "drain_rows": 1, "acc_bits": 32}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    # The array's parameters, the network's, and the layers if it does not take all of them.
    "one pass": ({"digit_bits": 4, "weight_scale_bits": 4, "activation_scale_bits": 4, "odd_grid": True}, {}, ()),
    "rounded": (
        {"digit_bits": 4, "weight_scale_bits": 4, "activation_scale_bits": 4, "product_shift": 3, "pipeline": 1},
        {"shift": 3},
        ("both_layer", "grouped_layer"),
    ),
    "static": (
        {"digit_bits": 4, "weight_scale_bits": 8, "activation_scale_bits": 0, "odd_grid": True},
        {"shift": 3},
        (),
    ),
    "several passes": (
        {"digit_bits": 2, "weight_scale_bits": 4, "activation_scale_bits": 4, "odd_grid": True, "passes": True,
         "max_weight_bits": 8, "max_activation_bits": 8},
        {"bits": 3, "ends": 8},
        (),
    ),
}  # fmt: skip


QUICK: dict[str, tuple[str, ...]] = {"icarus": ("one pass",), "verilator": ()}
"""What ``make test`` runs; compiling takes nearly all of the time."""


@pytest.mark.parametrize(
    ("simulator", "name"),
    [
        pytest.param(simulator, name, marks=[] if name in names else pytest.mark.slow)
        for simulator, names in QUICK.items()
        for name in CASES
    ],
)
def test_networks(simulator: str, tmp_path: Path, name: str) -> None:
    own, options, layers = CASES[name]
    array = ScaledArray(**COMMON, **own)
    network = examples.scaled_network(**options)
    vectors.write(tmp_path, network, examples.random_codes(network, 1, seed=1), seed=1)
    every = [operation.name for operation in network.operations if isinstance(operation, Conv2d)]
    simulation = runner.compile_verilog(generate(array, name="scaled_array"), "scaled_array", installed(simulator))
    for seed, stall in ((1, 0.0), (2, 0.4)):
        job = {
            "array": {**COMMON, **own},
            "latency": array.latency,
            "stall": stall,
            "vectors": str(tmp_path),
            "layers": layers or every,
        }
        runner.run_bench(simulation, "tb.benches.scaled_array", job, directory=tmp_path / str(seed), seed=seed)
