"""VS-Quant from the module to the RTL: exported networks on the ScaledArray, golden's accumulators, every element."""

from __future__ import annotations

import pytest
import torch

from golden import vectors
from golden.network import Conv2d
from hw.scaled_array import ScaledArray
from hw.verilog import generate
from sw.data import digits
from sw.export import export
from sw.models import MODELS, Precision
from tb import runner
from tb.conftest import installed

ARRAY = {"rows": 4, "lanes": 16, "digit_bits": 4, "acc_bits": 36, "drain_rows": 2}
SCALED = {"weight_scale_bits": 8, "activation_scale_bits": 8}
PASSES = {"passes": True, "max_weight_bits": 8, "max_activation_bits": 8}
CASES = {
    # 8-bit ends and 4-bit layers between: the ends take four beats a vector, the others one.
    "digits-plain": ({**SCALED, **PASSES}, 0, {"edge_bits": 8}),
    # Rounded products, made beforehand since all scales are static.
    "digits-residual": ({"weight_scale_bits": 6, "activation_scale_bits": 0}, 4, {"edge_bits": 4, "shortcut_bits": 4}),
}


@pytest.mark.parametrize(
    ("name", "simulator", "chosen"),
    [
        ("digits-plain", "icarus", ("conv3",)),
        *(pytest.param(name, "verilator", (), marks=pytest.mark.slow) for name in CASES),
        pytest.param("digits-plain", "icarus", (), marks=pytest.mark.slow),
    ],
)
def test_an_exported_network(tmp_path, name, simulator, chosen):
    """Untrained weights will do; a few batches give the batch norms and the scales their values."""
    images = digits()[0].images[:64]
    parameters, shift, widths = CASES[name]
    torch.manual_seed(0)
    precision = {"weights": "vsquant", "activations": "vsquant", "weight_bits": 4, "activation_bits": 4, **widths}
    model = MODELS[name](Precision(**precision))
    for _ in range(3):
        model(images)
    exported = export(model, images[:8], name=name, product_shift=shift)
    vectors.write(tmp_path, exported.network, exported.encode(images[:1]), seed=0)
    array = ScaledArray(**ARRAY, **parameters)
    simulation = runner.compile_verilog(generate(array, name="scaled_array"), "scaled_array", installed(simulator))
    every = [operation.name for operation in exported.network.operations if isinstance(operation, Conv2d)]
    job = {
        "array": {**ARRAY, **parameters},
        "latency": array.latency,
        "stall": 0.0,
        "vectors": str(tmp_path),
        "layers": chosen or every,
    }
    runner.run_bench(simulation, "tb.benches.scaled_array", job, directory=tmp_path)
