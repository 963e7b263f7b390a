"""The cycle model against the RTL's counters, on geometries with other bottlenecks than the presets have."""

from __future__ import annotations

import pytest

from golden.generated import random_spec
from hw.config import AcceleratorConfig
from hw.program import build
from hw.program.cycles import predict
from hw.program_format import Error
from tb.session import Step, compile_accelerator, run_session

WIDTHS = {"acc_bits": 48, "max_output_bits": 16, "weight_depth": 4096, "activation_depth": 1 << 14}
CONFIGS = [
    # Eight groups a position, a pipelined array, constants in one word: the drain is what everything waits for.
    AcceleratorConfig(name="drains", rows=8, lanes=4, digit_bits=8, requant_lanes=1, stream_bits=256, **WIDTHS),
    # Many digits in and out: the writer and the residual operand keep the pipeline.
    AcceleratorConfig(name="digits", rows=6, lanes=9, digit_bits=1, requant_lanes=3, stream_bits=32, **WIDTHS),
]


@pytest.mark.parametrize(
    "config", [CONFIGS[0], pytest.param(CONFIGS[1], marks=pytest.mark.slow)], ids=lambda config: config.name
)
def test_counters(verilator: str, config: AcceleratorConfig) -> None:
    """Cycles, beats, and every stamp of the layer table; streams never wait for the host."""
    steps, predicted = [], []
    for seed in range(1000, 1020):
        network, x = random_spec(seed).build()
        program = build(network, config, trace=bool(seed % 2))
        predicted.append(predict(program))
        steps.append(Step([program.words()], program.inputs(x[0]), 2 * predicted[-1].total + 1000))
    outcomes = run_session(steps, config, compile_accelerator(config, verilator)).outcomes
    for cycles, outcome in zip(predicted, outcomes, strict=True):
        assert outcome.error is Error.NONE
        assert (outcome.cycles, outcome.beats, outcome.layers) == (cycles.total, cycles.beats, cycles.stamps)
        assert (outcome.input_waits, outcome.output_waits) == (0, 0)
