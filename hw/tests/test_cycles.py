"""The cycle model by itself: a case counted by hand, its shortcut, its account; ``tb/test_cycles.py`` has the RTL."""

import time

import pytest

from golden import vectors
from golden.generated import ConvSpec, NetworkSpec, random_spec, resnet20
from golden.network import Grid
from hw.config import PRESETS, AcceleratorConfig
from hw.datapath import Datapath
from hw.program import build, cycles
from hw.program.cycles import array_latency, predict
from hw.program.listing import cycles_listing

TINY = PRESETS["tiny"]
CONFIGS = [
    TINY,
    PRESETS["small"],
    AcceleratorConfig(name="slow_drain", rows=8, lanes=8, digit_bits=8, requant_lanes=1, stream_bits=256),
    AcceleratorConfig(name="bits", rows=6, lanes=9, digit_bits=1, requant_lanes=3, acc_bits=48, weight_depth=9000),
]


@pytest.mark.parametrize("config", [*PRESETS.values(), *CONFIGS[2:]], ids=lambda config: config.name)
def test_latency_is_the_array_s(config):
    assert array_latency(config) == Datapath(config).array_latency


def test_one_linear_layer_by_hand():
    """4 to 2 accumulators on tiny: each event's cycle, worked out from the docstrings.

    The header takes 4 words, the LOAD 4: handed on in cycle 9, its one word is taken in 10. The COMPUTE's 38 words
    begin in 9, then come 2 records of 7 words and 2 weight words: all is read in 62, and the tile handed on in 63. Its
    beat is taken in 65, its sum captured in 67, its two groups are issued in 68 and 69. Four cycles on is the first
    result, its 3 digits written in 72 and 73; the second group has no channel and is taken in 74. The STORE was handed
    on in 67 and is taken in 75; its 3 words come from 77 to 79.
    """
    spec = NetworkSpec(1, (4, 1, 1), (ConvSpec(2, (1, 1), weight_bits=2, grid=Grid.ODD, bits=None),), bits=2)
    program = build(spec.build()[0], TINY)
    assert program.outputs == (("conv1_out", 3),)
    predicted = predict(program)
    assert predicted.stamps == (10, 74, 79)
    assert predicted.total == 79
    assert predicted.moves == (("LOAD x", 10), ("STORE conv1_out", 5))
    (layer,) = predicted.layers
    # The command could have been taken in 11.
    assert (layer.cycles, layer.beats, layer.drain, layer.program, layer.latency) == (64, 1, 0, 52, 11)


def programs():
    for config in CONFIGS:
        for seed in range(12):
            yield build(random_spec(seed).build()[0], config, trace=bool(seed % 2))
        yield build(vectors.read(vectors.find("digits-residual-w3a3"))[0], config)


def test_shortcut_and_account(monkeypatch):
    """Adding whole periods gives what going through every position does, and every cycle has one reason."""
    quick = [(program, predict(program)) for program in programs()]
    monkeypatch.setattr(cycles._Engine, "_state", lambda engine: (engine.last_beat,))
    for program, predicted in quick:
        assert predict(program) == predicted
        assert predicted.beats == sum(layer.beats for layer in program.layers)
        assert [layer.name for layer in predicted.layers] == [layer.name for layer in program.layers]
        for layer in predicted.layers:
            parts = (layer.beats, layer.drain, layer.program, layer.latency)
            assert min(parts) >= 0 and sum(parts) == layer.cycles
        moves = sum(count for _, count in predicted.moves)
        assert predicted.total == predicted.stamps[-1] == moves + sum(layer.cycles for layer in predicted.layers)
        assert list(predicted.stamps) == sorted(predicted.stamps)


def test_resnet20_in_no_time():
    network, _ = resnet20(frames=1)
    program = build(network, PRESETS["small"])
    begin = time.perf_counter()
    predicted = predict(program)
    assert time.perf_counter() - begin < 1
    products = sum(layer.macs for layer in program.layers)
    assert products / (predicted.total * 256) > 0.93
    lines = cycles_listing(program).splitlines()
    assert lines[0] == "Cycles of resnet20 on small, streams never waiting."
    assert [line.split()[0] for line in lines[4:26]] == [layer.name for layer in program.layers]
    assert lines[27].split()[:3] == ["all", str(predicted.total), str(predicted.beats)]
