"""Networks that others published, through the RTL. Golden's own tests prove every published layer output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golden import onnx_import, vectors
from hw.config import PRESETS, AcceleratorConfig
from tb import simulate

PUBLISHED = Path(__file__).parents[2] / "shared" / "external" / "dory"
pytestmark = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published networks of ../shared/external are not here"
)

DEEP = replace(
    PRESETS["small"],
    name="deep",
    max_output_bits=9,
    weight_depth=1536,
    activation_depth=1 << 16,
)
"""``small`` with buffers that hold residual_1's maps, and with the 9-bit codes of its unclipped residual sum."""


def folder(name: str, *, frames: int, input_range: tuple[int, int], to: Path) -> Path:
    """Golden vectors of an imported network with its first published inputs."""
    network = onnx_import.load(PUBLISHED / f"{name}.onnx", input_range=input_range).network
    published = np.load(PUBLISHED / f"{name}.npz")
    x = np.concatenate([published[f"in{frame}"] for frame in range(frames)]).astype(np.int64) - input_range[0]
    vectors.write(to, network, x.astype(np.uint8), seed=0)
    return to


@pytest.mark.parametrize(
    ("name", "config", "frames", "input_range"),
    [
        ("dvs_cnn", PRESETS["small"], 2, (-1, 1)),
        pytest.param("dvs_cnn", PRESETS["wide"], 2, (-1, 1), marks=pytest.mark.slow),
        pytest.param("residual_1", DEEP, 1, (0, 255), marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_published_network(
    verilator: str, tmp_path: Path, name: str, config: AcceleratorConfig, frames: int, input_range: tuple[int, int]
) -> None:
    where = folder(name, frames=frames, input_range=input_range, to=tmp_path / name)
    report = simulate.simulate_network(where, config, verilator)
    assert report.frames == frames
    assert report.mismatches == 0
    assert all(layer.compared for layer in report.layers)
    assert report.as_predicted
