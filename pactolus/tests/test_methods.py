"""Every method that the array supports, from the module to the RTL: one simulation, every code of every layer."""

from __future__ import annotations

import io

import torch
from rich.console import Console

from golden import vectors
from sw.data import digits
from sw.export import export
from sw.models import MODELS, Precision
from tb import simulate

METHODS = {
    "dorefa-pact": ("digits-plain", {"weights": "dorefa", "activations": "pact", "weight_bits": 1}),
    "dorefa-pact+": ("digits-residual", {"weights": "dorefa", "activations": "pact+", "weight_bits": 4}),
    "sawb-pact": ("digits-residual", {"weights": "sawb", "activations": "pact", "shortcut_bits": 8}),
    "octav": ("digits-residual", {"weights": "octav", "activations": "octav", "weight_bits": 3}),
    "maxabs-octav": ("digits-plain", {"weights": "maxabs", "activations": "octav", "octav_clips": "static"}),
}


def test_every_method_reaches_the_rtl(tmp_path):
    """Untrained weights will do; a few batches give the batch norms and the clips that are not trained their values."""
    images = digits()[0].images[:64]
    folders = []
    for seed, (name, (network, precision)) in enumerate(METHODS.items()):
        torch.manual_seed(seed)
        model = MODELS[network](Precision(**{"weight_bits": 2, "activation_bits": 2, "clip": 2.0} | precision))
        for _ in range(3):
            model(images)
        exported = export(model, images[:8], name=name)
        assert all(layer.mismatches == layer.float64_differences == 0 for layer in exported.report.layers)
        folders.append(tmp_path / name)
        vectors.write(folders[-1], exported.network, exported.encode(images[:1]), seed=seed)
    console = Console(file=io.StringIO(), width=120)
    status = simulate.run(folders, config="small", simulator="verilator", reports=tmp_path, console=console)
    assert isinstance(console.file, io.StringIO)
    assert status == 0, console.file.getvalue()
