"""The Datapath's Verilog on both simulators: layers of random networks, with and without stalls, at its stated rate."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from golden import vectors
from golden.network import Conv2d
from hw.config import PRESETS, AcceleratorConfig
from hw.datapath import Datapath
from hw.verilog import generate
from tb.layers import simulate_layers
from tb.stimulus import Layer

CONFIGS = {
    "tiny": PRESETS["tiny"],
    "odd": AcceleratorConfig(
        name="odd",
        rows=5,
        lanes=3,
        digit_bits=1,
        acc_bits=24,
        multiplier_bits=18,
        skip_multiplier_bits=24,
        bias_bits=40,
        max_shift=20,
        requant_lanes=2,
    ),
    "bytes": AcceleratorConfig(name="bytes", rows=3, lanes=4, digit_bits=8, requant_lanes=3),
}
# Other geometries than tiny's; the accelerator's benches have some too.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in ("bytes", "odd") else name for name in CONFIGS]
VERILATOR = ["random-plain-w3a3", "random-plain-w8a8", "random-residual-w4a4", "random-residual-w2a2"]
ICARUS = ["random-plain-w3a3", "random-residual-w2a2"]


def networks(simulator: str, config: str) -> list[str]:
    return VERILATOR if (simulator, config) == ("verilator", "tiny") else ICARUS


@functools.cache
def elaborated(name: str) -> Datapath:
    """A Datapath of which only the attributes are wanted; one that is never elaborated makes Amaranth warn."""
    component = Datapath(CONFIGS[name])
    generate(component)
    return component


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_at_full_rate(any_simulator: str, folders: dict[str, Path], name: str) -> None:
    """No stalls: golden's results, and exactly the documented number of cycles."""
    datapath = elaborated(name)
    slowest = datapath.groups + datapath.array_latency - 1
    for network_name in networks(any_simulator, name):
        network, tensors = vectors.read(folders[network_name])
        one = {key: values[:1] for key, values in tensors.items()}
        report = simulate_layers(folders[network_name], CONFIGS[name], any_simulator, frames=1)
        assert report.mismatches == 0 and report.difference is None
        for layer in report.layers:
            operation = network.operation(layer.name)
            assert isinstance(operation, Conv2d)
            stimulus = Layer.of(network, operation, CONFIGS[name], one)
            assert layer.compared == stimulus.expected.size > 0
            beats, positions = len(stimulus.schedule), stimulus.positions * len(stimulus.tiles)
            assert layer.cycles is not None
            running = layer.cycles - datapath.latency - datapath.groups
            if beats >= slowest:
                assert running == positions * beats
            else:
                assert positions * beats <= running <= positions * slowest


STALLS: dict[str, float | dict[str, float]] = {
    "none": 0.0,
    "all": 0.5,
    "beats": {"i_beat": 0.5},
    "constants": {"i_constants": 0.9},
    "skip": {"i_skip": 0.8},
    "results": {"o_result": 0.8},
}


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("name", NAMES)
def test_layers_follow_each_other(any_simulator: str, folders: dict[str, Path], name: str, stalls: str) -> None:
    """All layers as one stream each, so that the next layer's constants wait behind the current one's."""
    report = simulate_layers(
        folders["random-small"], CONFIGS[name], any_simulator, stalls=STALLS[stalls], together=True
    )
    assert report.frames == 2 and report.mismatches == 0


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_results_do_not_depend_on_the_state_at_power_up(verilator: str, folders: dict[str, Path], stall: float) -> None:
    """Verilator takes it from the seed."""
    for seed in (1, 2):
        report = simulate_layers(
            folders["random-residual-w4a4"],
            CONFIGS["tiny"],
            verilator,
            stalls=stall,
            together=True,
            seed=seed,
        )
        assert report.mismatches == 0
