"""The core with the fetch unit before it: whole programs, every layer's tensor as golden computes it."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from golden.execute import execute
from golden.generated import random_spec
from hw.axi import word_layout
from hw.config import PRESETS, AcceleratorConfig
from hw.core import Core
from hw.fetch import ProgramFetch
from hw.program import build
from hw.tests.streams import run

TINY = PRESETS["tiny"]
ROWS_BELOW_LANES = AcceleratorConfig(
    name="narrow", rows=2, lanes=6, digit_bits=1, requant_lanes=2, weight_depth=700, activation_depth=3000
)
ROWS_ABOVE_LANES = AcceleratorConfig(
    name="tall", rows=6, lanes=3, digit_bits=8, requant_lanes=3, weight_depth=600, activation_depth=2100
)


class Streamed(wiring.Component):
    """Fetch unit and core with nothing but streams outside."""

    def __init__(self, config):
        self.config = config
        words = stream.Signature(word_layout(config.lanes * config.digit_bits))
        super().__init__(
            {
                "i_program": In(stream.Signature(word_layout(config.stream_bits))),
                "i_input": In(words),
                "o_output": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = ProgramFetch(self.config)
        m.submodules.core = core = Core(self.config)
        wiring.connect(m, wiring.flipped(self.i_program), fetch.i_program)
        wiring.connect(m, wiring.flipped(self.i_input), core.i_input)
        wiring.connect(m, core.o_output, wiring.flipped(self.o_output))
        wiring.connect(m, fetch.o_command, core.i_command)
        wiring.connect(m, fetch.o_constants, core.i_constants)
        wiring.connect(m, fetch.o_weights, core.i_weights)
        m.d.comb += [fetch.i_done.eq(core.o_done), fetch.i_stop.eq(core.o_error != 0)]
        return m


def packets(words, bits):
    """Payloads of packets: the data, and `last` above it."""
    return [word | (n == len(packet) - 1) << bits for packet in words for n, word in enumerate(packet)]


def outputs(program, payloads, bits):
    """The tensors in the output stream's payloads."""
    found, packet = [], []
    for payload in payloads:
        packet.append(payload & ((1 << bits) - 1))
        if payload >> bits:
            found.append(packet)
            packet = []
    assert not packet
    return program.decode(found)


@pytest.mark.parametrize("stall", [0.4, pytest.param(0.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("config", [TINY, ROWS_BELOW_LANES, ROWS_ABOVE_LANES], ids=lambda config: config.name)
@pytest.mark.parametrize("seed", [2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1, 3))])
def test_random_networks(config, seed, stall):
    network, x = random_spec(seed).build()
    program = build(network, config, trace=True)
    bits = config.lanes * config.digit_bits
    items = {
        "i_program": packets([program.words()], config.stream_bits),
        "i_input": packets(program.inputs(x[0]), bits),
    }
    count = sum(words for _, words in program.outputs)
    logs = run(Streamed(config), items, count, stall=stall, seed=seed, idle=20_000)
    expected = execute(network, x[:1])
    for name, codes in outputs(program, logs["o_output"].payloads, bits).items():
        np.testing.assert_array_equal(codes, expected[name][0], err_msg=name)
