# amaranth: UnusedElaboratable=no
"""The accelerator at its ports: programs, registers, errors, resets. Whole networks on simulators are in tb."""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, ClockSignal, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from golden.execute import execute
from golden.generated import random_spec
from hw.accelerator import Accelerator
from hw.axi import LiteSignature, word_layout
from hw.config import PRESETS, AcceleratorConfig
from hw.program import build
from hw.program_format import Error, Opcode
from hw.registers import ADDRESS_BITS, register
from hw.tests import programs
from hw.tests.lite import Lite
from hw.tests.streams import Streams
from hw.tests.tools import verilator_lint
from hw.verilog import generate

# Stream words wider than activation words, depths that are no powers of two.
CONFIG = AcceleratorConfig(
    name="mini", rows=2, lanes=4, digit_bits=2, requant_lanes=2, weight_depth=9, activation_depth=50, stream_bits=32
)
WORD = CONFIG.lanes * CONFIG.digit_bits
STREAMS = {"i_program": "s_axis_program", "i_input": "s_axis_input", "o_output": "m_axis_output"}


def offset(name):
    return register(name).offset


class Bench(wiring.Component):
    """The accelerator's streams as streams; its other ports are ``dut``'s."""

    def __init__(self, config):
        self.config = config
        self.dut = Accelerator(config)
        self.reset = Signal()
        words = stream.Signature(word_layout(config.stream_bits))
        super().__init__({"i_program": In(words), "i_input": In(words), "o_output": Out(words)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.domains.bench = ClockDomain("bench", reset_less=True)
        m.d.comb += [dut.aclk.eq(ClockSignal("bench")), dut.aresetn.eq(~self.reset)]
        for name, prefix in STREAMS.items():
            inner = {part: getattr(dut, f"{prefix}_{part}") for part in ("tdata", "tlast", "tvalid", "tready")}
            outer = getattr(self, name)
            forward = [
                (outer.payload.data, inner["tdata"]),
                (outer.payload.last, inner["tlast"]),
                (outer.valid, inner["tvalid"]),
                (inner["tready"], outer.ready),
            ]
            m.d.comb += [b.eq(a) if name[0] == "i" else a.eq(b) for a, b in forward]
        return m


class Context:
    """A simulator context whose cycles are the bench's: the accelerator has its clock from a port."""

    def __init__(self, ctx):
        self.get, self.set, self._tick = ctx.get, ctx.set, ctx.tick

    def tick(self):
        return self._tick("bench")


def simulate(bench, *, config=CONFIG, beside=None):
    """Run ``bench(ctx, top, lite)``, and ``beside(ctx, top, lite)`` in parallel."""
    top = Bench(config)
    port = {name: getattr(top.dut, f"s_axil_{name}") for name in LiteSignature(ADDRESS_BITS).members}

    def testbench(function):
        async def run(ctx):
            await function(Context(ctx), top, Lite(port))

        return run

    simulator = Simulator(top)
    simulator.add_clock(1e-6, domain="bench")
    simulator.add_testbench(testbench(bench))
    if beside is not None:
        simulator.add_testbench(testbench(beside))
    simulator.run()


def payloads(words, config=CONFIG):
    """Of a program."""
    return [word.data | word.last << config.stream_bits for word in words]


def packet(rng, length, *, config=CONFIG, last=None):
    """Random words; ``last`` is the index of the one with ``tlast``, the final one if not given."""
    word = config.lanes * config.digit_bits
    bits = config.stream_bits
    # What is above an activation word is not read.
    return [rng.getrandbits(bits) | (n == (length - 1 if last is None else last)) << bits for n in range(length)], word


def copy_program(rng, *, words=5, address=0, **change):
    """LOAD and STORE of the same words."""
    command = {"words_last": words - 1, "address": address, "fence": 1, "mark": 1} | change
    return [
        *programs.header(CONFIG),
        *programs.command(CONFIG, Opcode.LOAD, rng, **command),
        *programs.command(CONFIG, Opcode.STORE, rng, **command),
        *programs.command(CONFIG, Opcode.END, rng),
    ]


async def copies(ctx, top, rng, *, length=5, **kwargs):
    """A copy program works, whatever was before."""
    sent, bits = packet(rng, length)
    items = {"i_program": payloads(copy_program(rng, words=length)), "i_input": sent}
    logs = await Streams(top, **kwargs).run(ctx, items, length)
    mask = (1 << bits) - 1
    assert logs["o_output"].payloads == [
        word & mask | word >> CONFIG.stream_bits << CONFIG.stream_bits for word in sent
    ]
    return logs


async def state(ctx, lite):
    """STATUS, ERROR.code, ERROR.command."""
    error = await lite.read(ctx, offset("ERROR"))
    return await lite.read(ctx, offset("STATUS")), error & 0xFF, error >> 8


async def soft_reset(ctx, lite):
    await lite.write(ctx, offset("CONTROL"), 0b11)
    while await lite.read(ctx, offset("CONTROL")) & 0b10:
        pass


BUSY, DONE, ERROR = 1, 2, 4


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_network(stall, seed=1):
    """Two frames of a network, back to back: every layer, and what the registers say of the second."""
    config = PRESETS["tiny"]
    network, x = random_spec(seed).build()
    program = build(network, config, trace=True)
    frames = [x[0], x[-1][..., ::-1]]
    sizes = [words for _, words in program.outputs]
    bits = config.stream_bits
    program_words = program.words()
    items = {
        "i_program": [word | (n == len(program_words) - 1) << bits for n, word in enumerate(program_words)] * 2,
        "i_input": [
            word | (n == len(words) - 1) << bits
            for frame in frames
            for words in program.inputs(frame)
            for n, word in enumerate(words)
        ],
    }

    async def bench(ctx, top, lite):
        await lite.write(ctx, offset("CONTROL"), 0b1)
        logs = await Streams(top, stall=stall, seed=seed).run(ctx, items, 2 * sum(sizes), idle=20_000)
        received = logs["o_output"].payloads
        for frame in frames:
            packets = []
            for size in sizes:
                packets.append([word & ((1 << bits) - 1) for word in received[:size]])
                assert [word >> bits for word in received[:size]] == [0] * (size - 1) + [1]
                received = received[size:]
            expected = execute(network, frame[None])
            for name, codes in program.decode(packets).items():
                np.testing.assert_array_equal(codes, expected[name][0], err_msg=name)
        assert await state(ctx, lite) == (DONE, Error.NONE, 0)
        assert await lite.read(ctx, offset("PROGRAMS")) == 2
        start, end = logs["i_program"].cycles[len(program_words)], logs["o_output"].cycles[-1]
        assert await lite.read(ctx, offset("CYCLES_LOW")) == end - start + 1
        # No word of the second program before the first one was done.
        assert start > logs["o_output"].cycles[sum(sizes) - 1]
        marks = sum(command.fields.get("mark", 0) for command in program.commands)
        assert await lite.read(ctx, offset("LAYERS")) == marks
        stamps = [await lite.read(ctx, offset("LAYER_CYCLES") + 4 * n) for n in range(marks)]
        assert stamps == sorted(stamps) and stamps[-1] <= end - start + 1
        assert await lite.read(ctx, offset("BEATS_LOW")) == sum(layer.beats for layer in program.layers)
        taken = logs["o_output"].cycles[sum(sizes) :]
        waits = await lite.read(ctx, offset("OUTPUT_WAITS"))
        assert waits == sum(b - a for a, b in zip(logs["o_output"].offered[sum(sizes) :], taken))

    simulate(bench, config=config)


def test_no_output_depends_on_an_input_of_the_same_cycle():
    """In every cycle of a run with stalls and an error all inputs change, and no output does."""

    async def bench(ctx, top, lite):
        rng = random.Random(1)
        names = {name: getattr(top.dut, name) for name in top.dut.signature.members}
        outputs = [port for name, port in names.items() if top.dut.signature.members[name].flow is Out]
        inputs = [Value.cast(port) for name, port in names.items() if name.startswith("s_axil_")]
        inputs = [port for port in inputs if not any(port is output for output in outputs)]
        for name in ("i_program", "i_input"):
            inputs += [Value.cast(getattr(top, name).payload), getattr(top, name).valid]
        inputs.append(top.o_output.ready)

        def tick():
            before = [ctx.get(port) for port in outputs]
            saved = [ctx.get(port) for port in inputs]
            for port in inputs:
                ctx.set(port, rng.getrandbits(len(port)))
            assert [ctx.get(port) for port in outputs] == before
            for port, value in zip(inputs, saved):
                ctx.set(port, value)
            return Context.tick(ctx)

        ctx.tick = tick
        await lite.write(ctx, offset("CONTROL"), 1)
        for seed in range(3):
            await copies(ctx, top, rng, stall=0.4, seed=seed)
        items = {"i_program": payloads(copy_program(rng)), "i_input": packet(rng, 9)[0]}
        await Streams(top, stall=0.4).run(ctx, items, 0)
        assert await state(ctx, lite) == (DONE | ERROR, Error.INPUT_LONG, 0)
        await soft_reset(ctx, lite)
        await copies(ctx, top, rng, stall=0.4)

    simulate(bench)


def test_copies_and_interrupts():
    async def bench(ctx, top, lite):
        rng = random.Random(1)
        await lite.write(ctx, offset("CONTROL"), 0x101)
        for n, length in enumerate((1, 2, 50, 7)):
            assert ctx.get(top.dut.interrupt) == 0
            await copies(ctx, top, rng, length=length, stall=0.3, seed=n)
            assert ctx.get(top.dut.interrupt) == 1
            assert await lite.read(ctx, offset("LAYERS")) == 2
            await lite.write(ctx, offset("STATUS"), DONE)
        assert await lite.read(ctx, offset("PROGRAMS")) == 4

    simulate(bench)


def test_nothing_moves_before_enable():
    async def bench(ctx, top, lite):
        rng = random.Random(1)
        words = payloads(copy_program(rng))
        logs = await Streams(top).run(ctx, {"i_program": words, "i_input": [1]}, 1, cycles=30)
        assert not logs["i_program"].payloads and not logs["i_input"].payloads
        assert await state(ctx, lite) == (0, 0, 0)
        await lite.write(ctx, offset("CONTROL"), 1)
        await copies(ctx, top, rng)

    simulate(bench)


def test_counts_waits():
    async def bench(ctx, top, lite):
        rng = random.Random(1)
        await lite.write(ctx, offset("CONTROL"), 1)
        logs = await copies(ctx, top, rng, length=4)
        program, i, o = (logs[name].cycles for name in STREAMS)
        assert await lite.read(ctx, offset("CYCLES_LOW")) == o[-1] - program[0] + 1
        assert await lite.read(ctx, offset("OUTPUT_WAITS")) == 0
        assert await lite.read(ctx, offset("INPUT_WAITS")) == 0
        # Until the LOAD is there, which takes eight words; the STORE is there when the LOAD has finished.
        assert await lite.read(ctx, offset("PROGRAM_WAITS")) == 8
        assert await lite.read(ctx, offset("LAYER_CYCLES")) == i[-1] - program[0] + 1
        assert await lite.read(ctx, offset("LAYER_CYCLES") + 4) == o[-1] - program[0] + 1
        # The same with streams that wait: the input for 20 cycles, the output for 30 more.
        sent, _ = packet(rng, 4)
        items = {"i_program": payloads(copy_program(rng, words=4)), "i_input": sent}
        logs = await Streams(top).run(ctx, items, 4, after={"i_input": 40, "o_output": 70})
        program, i, o = (logs[name].cycles for name in STREAMS)
        assert i == [40, 41, 42, 43] and o == [70, 71, 72, 73]
        assert await lite.read(ctx, offset("INPUT_WAITS")) == 40 - 9
        assert await lite.read(ctx, offset("OUTPUT_WAITS")) == 70 - logs["o_output"].offered[0]
        assert await lite.read(ctx, offset("CYCLES_LOW")) == 74

    simulate(bench)


@dataclass
class Failure:
    """A program and an input that stop the accelerator, and how."""

    error: Error
    command: int
    change: dict = field(default_factory=dict)
    wrong_word: int | None = None
    last: int | None = None
    length: int = 5
    outputs: int = 0


FAILURES = {
    "magic": Failure(Error.MAGIC, 0, wrong_word=0),
    "fingerprint": Failure(Error.FINGERPRINT, 0, wrong_word=2),
    "opcode": Failure(Error.OPCODE, 0, wrong_word=4),
    "address field": Failure(Error.ADDRESS, 0, wrong_word=5),
    "end": Failure(Error.OPCODE, 2, wrong_word=12, outputs=5),
    "input short": Failure(Error.INPUT_SHORT, 0, last=2),
    "input long": Failure(Error.INPUT_LONG, 0, length=9),
    "load beyond the buffer": Failure(Error.ADDRESS, 0, change={"address": 48}),
}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", list(FAILURES))
def test_errors(name, stall):
    """The documented code; all words of both streams are accepted; an interrupt; a soft reset, and it works again."""
    failure = FAILURES[name]

    async def bench(ctx, top, lite):
        rng = random.Random(1)
        await lite.write(ctx, offset("CONTROL"), 0x201)
        await copies(ctx, top, rng)
        assert ctx.get(top.dut.interrupt) == 0
        words = copy_program(rng, **failure.change)
        if failure.wrong_word is not None:
            words[failure.wrong_word].data ^= 0x4000_0040
        sent, _ = packet(rng, failure.length, last=failure.last)
        for seed in range(2):
            items = {"i_program": payloads(words), "i_input": sent}
            outputs = failure.outputs if seed == 0 else 0  # of the commands before the wrong one
            logs = await Streams(top, stall=stall, seed=seed).run(ctx, items, outputs)
            assert len(logs["i_program"].payloads) == len(words)
            assert len(logs["i_input"].payloads) == len(sent)
            assert await state(ctx, lite) == (DONE | ERROR, failure.error, failure.command)
            assert ctx.get(top.dut.interrupt) == 1
        await lite.write(ctx, offset("CONTROL"), 0b11)
        # Nothing moves in the cycle of the reset, which is the one after the answer's.
        assert not ctx.get(top.i_program.ready) and not ctx.get(top.i_input.ready)
        await ctx.tick()
        assert ctx.get(top.i_program.ready)
        assert ctx.get(top.dut.interrupt) == 0
        assert await state(ctx, lite) == (DONE, Error.NONE, 0)
        await lite.write(ctx, offset("STATUS"), DONE)
        await lite.write(ctx, offset("CONTROL"), 1)
        await copies(ctx, top, rng, stall=stall)
        assert await state(ctx, lite) == (DONE, Error.NONE, 0)

    simulate(bench)


def test_store_beyond_the_buffer():
    """What is inside leaves, the packet does not end, and the error names the STORE."""

    async def bench(ctx, top, lite):
        rng = random.Random(1)
        await lite.write(ctx, offset("CONTROL"), 1)
        words = [
            *programs.header(CONFIG),
            *programs.command(CONFIG, Opcode.LOAD, rng, address=45, words_last=4, fence=1),
            *programs.command(CONFIG, Opcode.STORE, rng, address=45, words_last=5, fence=1),
            *programs.command(CONFIG, Opcode.END, rng),
        ]
        sent, bits = packet(rng, 5)
        logs = await Streams(top).run(ctx, {"i_program": payloads(words), "i_input": sent}, 5, after={"o_output": 60})
        assert logs["o_output"].payloads == [word & ((1 << bits) - 1) for word in sent]
        assert await state(ctx, lite) == (ERROR, Error.ADDRESS, 1)
        await soft_reset(ctx, lite)
        await copies(ctx, top, rng)

    simulate(bench)


def test_soft_reset_waits_for_the_output_word():
    async def bench(ctx, top, lite):
        rng = random.Random(1)
        await lite.write(ctx, offset("CONTROL"), 1)
        sent, bits = packet(rng, 5)
        items = {"i_program": payloads(copy_program(rng)), "i_input": sent}
        # One word is taken, the next one stands there.
        streams = Streams(top)
        await streams.run(ctx, items, 5, after={"o_output": 10_000}, cycles=60)
        assert ctx.get(top.o_output.valid)
        await lite.write(ctx, offset("CONTROL"), 0b11)
        for _ in range(5):
            assert await lite.read(ctx, offset("CONTROL")) == 0b11
            assert ctx.get(top.o_output.valid)
            assert ctx.get(top.o_output.payload.data) == sent[0] & ((1 << bits) - 1)
        ctx.set(top.o_output.ready, 1)
        await ctx.tick()
        # In the cycle of the reset itself nothing moves.
        assert not any(ctx.get(getattr(top, name).ready) for name in ("i_program", "i_input"))
        assert not ctx.get(top.o_output.valid)
        await ctx.tick()
        assert ctx.get(top.i_program.ready)
        assert not ctx.get(top.o_output.valid)
        assert await lite.read(ctx, offset("CONTROL")) == 0b01
        assert await state(ctx, lite) == (0, 0, 0)
        await copies(ctx, top, rng)

    simulate(bench)


@pytest.mark.parametrize("hard", [False, True])
def test_reset_anywhere(hard):
    """Streams are broken off and reset at any time; no valid drops before a transfer, and the next program works."""

    async def bench(ctx, top, lite):
        rng = random.Random(3)
        unlimited = {"o_output": 1 << 30}
        for seed in range(25):
            await lite.write(ctx, offset("CONTROL"), 1)
            sent, _ = packet(rng, 20)
            items = {"i_program": payloads(copy_program(rng, words=20)), "i_input": sent}
            await Streams(top, stall=0.4, seed=seed).run(ctx, items, unlimited, cycles=rng.randrange(1, 110))
            if hard:
                ctx.set(top.o_output.ready, 0)
                ctx.set(top.reset, 1)
                await ctx.tick()
                ctx.set(top.reset, 0)
                assert await lite.read(ctx, offset("CONTROL")) == 0
                await lite.write(ctx, offset("CONTROL"), 1)
            else:
                ctx.set(top.o_output.ready, 1)
                await soft_reset(ctx, lite)
            assert await state(ctx, lite) in ((0, 0, 0), (DONE, 0, 0))
            assert not ctx.get(top.o_output.valid)
            await copies(ctx, top, rng, stall=0.2, seed=seed)

    simulate(bench)


def test_soft_reset_while_streams_move():
    """``tvalid`` of the output and its word hold until the transfer, whenever the reset comes."""
    rng = random.Random(7)
    sent, _ = packet(rng, 50)
    items = {"i_program": payloads(copy_program(rng, words=50)), "i_input": sent}

    for delay in range(70, 100, 5):

        async def beside(ctx, top, lite, delay=delay):
            await lite.write(ctx, offset("CONTROL"), 1)
            await ctx.tick().repeat(delay)
            await lite.write(ctx, offset("CONTROL"), 0b11)

        async def bench(ctx, top, lite):
            # Asserts in Streams.
            await Streams(top, stall={"i_program": 0, "i_input": 0, "o_output": 0.5}).run(ctx, items, 1000, cycles=200)
            assert await state(ctx, lite) == (0, 0, 0)
            await copies(ctx, top, rng)

        simulate(bench, beside=beside)


def test_init_wrong():
    with pytest.raises(ValueError, match=r"^Stream width of an accelerator must be at least 64, "):
        Accelerator(replace(CONFIG, lanes=32, stream_bits=32, digit_bits=2))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("wide", "int8") else name for name in PRESETS]
)
def test_verilator_has_no_complaint(name, tmp_path):
    """All warnings on, but for the waivers that ``hw/verilator.vlt`` gives reasons for."""
    source = tmp_path / "accelerator.v"
    source.write_text(generate(Accelerator(PRESETS[name])))
    waivers = Path(__file__).parents[1] / "verilator.vlt"
    status, text = verilator_lint(source, "-Wall", "--top-module", "accelerator", waivers)
    assert status == 0, text
    assert "%" not in text, text
