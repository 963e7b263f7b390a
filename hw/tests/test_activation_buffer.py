"""The activation buffer against a list of words: both write widths, three ports at once, reads that hold."""

import random

import pytest

from hw.activation_buffer import ActivationBuffer
from hw.tests.clocked import simulate
from hw.tests.tiles import CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_port_at_once(config):
    rng = random.Random(2)
    dut = ActivationBuffer(config)
    slots = config.lanes // config.requant_lanes
    part = config.requant_lanes * config.digit_bits
    bits = part * slots
    # A few words at both ends of both banks, so that ports meet.
    depth = config.activation_depth
    addresses = [0, 1, 2, 3, depth - 3, depth - 2, depth - 1]
    words: dict[int, int] = {}

    async def bench(ctx):
        expected: dict[str, int | list[int] | None] = {"read": None, "read_two": None}
        ctx.set(dut.write.en, (1 << slots) - 1)
        for address in [*addresses, 4, depth - 4]:
            words[address] = rng.getrandbits(bits)
            ctx.set(dut.write.addr, address)
            ctx.set(dut.write.data[0], words[address])
            await ctx.tick()
        for _ in range(400):
            address = rng.choice(addresses)
            two = address + 1 in words and rng.random() < 0.5
            data = [rng.getrandbits(bits) for _ in range(2)]
            enable = rng.getrandbits(slots) if rng.random() < 0.7 else 0
            ctx.set(dut.write.addr, address)
            ctx.set(dut.write.data, data)
            ctx.set(dut.write.en, enable)
            ctx.set(dut.write.two, two)
            for name in expected:
                port = getattr(dut, name)
                enabled, at = rng.random() < 0.6, rng.choice(addresses)
                ctx.set(port.en, enabled)
                ctx.set(port.addr, at)
                if enabled:
                    expected[name] = [words[at], words.get(at + 1)] if name == "read_two" else words[at]
            mask = sum(((1 << part) - 1) << slot * part for slot in range(slots) if enable >> slot & 1)
            for word in range(1 + two):
                words[address + word] = (words[address + word] & ~mask) | (data[word] & mask)
            await ctx.tick()
            if expected["read"] is not None:
                assert ctx.get(dut.read.data) == expected["read"]
            if isinstance(expected["read_two"], list):
                for got, word in zip(ctx.get(dut.read_two.data), expected["read_two"], strict=True):
                    assert word is None or got == word

    simulate(dut, bench)
