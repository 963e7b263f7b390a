# amaranth: UnusedElaboratable=no
"""ProgramFetch: random programs on streams of every width, its timing, and every way in which a program is wrong."""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hw.command import command_layout
from hw.config import PRESETS, STREAM_WIDTHS, AcceleratorConfig
from hw.datapath import constants_layout
from hw.fetch import ProgramFetch
from hw.program.words import pack_record
from hw.program_format import COMMANDS, CONSTANT_FIELDS, HEADER, Error, Opcode, constants_fields, record_words
from hw.tests import programs
from hw.tests.streams import Streams
from hw.weight_buffer import weights_layout

# Nothing is a power of two, and the sizes are such that programs are short.
ODD = AcceleratorConfig(
    name="odd", rows=3, lanes=6, digit_bits=4, requant_lanes=3, weight_depth=5, activation_depth=100, stream_bits=32
)
# Constants of one word each, fields without a choice.
LEAST = AcceleratorConfig(
    name="least",
    rows=1,
    lanes=1,
    digit_bits=16,
    multiplier_bits=18,
    skip_multiplier_bits=2,
    bias_bits=32,
    max_shift=1,
    weight_depth=1,
    activation_depth=2,
    stream_bits=32,
)
STREAMS = ("i_program", "o_command", "o_constants", "o_weights")
DONE_DELAY = 4


class Bench(wiring.Component):
    """The unit's streams alone; programs are done ``DONE_DELAY`` cycles after END was taken."""

    def __init__(self, config):
        self.config = config
        self.fetch = ProgramFetch(config)
        self.reset = Signal()
        self.stop = Signal()
        self.starts = Signal(32)
        self.waits = Signal(32)
        super().__init__({name: self.fetch.signature.members[name] for name in STREAMS})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = ResetInserter(self.reset)(self.fetch)
        for name in STREAMS:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(fetch, name))
        delay = Signal(range(DONE_DELAY + 1))
        command = self.o_command
        with m.If(command.valid & command.ready & (command.payload.opcode == Opcode.END)):
            m.d.sync += delay.eq(DONE_DELAY)
        with m.Elif(delay != 0):
            m.d.sync += delay.eq(delay - 1)
        m.d.comb += [fetch.i_done.eq(delay == 1), fetch.i_stop.eq(self.stop)]
        m.d.sync += [self.starts.eq(self.starts + fetch.o_start), self.waits.eq(self.waits + fetch.o_wait)]
        return m


def simulate(config, bench):
    dut = Bench(config)

    async def testbench(ctx):
        await bench(ctx, dut)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def packed(config, words):
    return [word.data | word.last << config.stream_bits for word in words]


def expected(words):
    """Payloads in order."""
    return {
        "o_command": [item for word in words for item in word.commands],
        "o_constants": [item for word in words for item in word.constants],
        "o_weights": [item for word in words for item in word.weights],
    }


def received(config, logs):
    """The same from logs; of a command only its own fields."""
    constants = constants_layout(config)
    commands = []
    for word in logs["o_command"].payloads:
        view = command_layout(config).from_bits(word)
        own = {field.name for field in COMMANDS[Opcode(view.opcode)]} - {"reserved"}
        commands.append({name: view[name] for name in own})
    return {
        "o_command": commands,
        "o_constants": [
            tuple(constants.from_bits(word)[name] for name in constants.members)
            for word in logs["o_constants"].payloads
        ],
        "o_weights": [
            tuple(weights_layout(config).from_bits(word)[name] for name in ("row", "address", "word", "last"))
            for word in logs["o_weights"].payloads
        ],
    }


async def feed(ctx, dut, words, good, *, stall=0.0, seed=0, **kwargs):
    """Feed ``words``; what comes out must be what ``good`` of them make, and all of them must be accepted."""
    wanted = expected(good)
    counts = {name: len(items) for name, items in wanted.items()}
    streams = Streams(dut, stall=stall, seed=seed)
    logs = await streams.run(ctx, {"i_program": packed(dut.config, words)}, counts, **kwargs)
    got = received(dut.config, logs)
    assert got == wanted
    return logs


def random_program(config, rng, length=6):
    kinds = [Opcode.LOAD, Opcode.STORE, Opcode.COMPUTE, Opcode.COMPUTE]
    return programs.program(config, [rng.choice(kinds) for _ in range(rng.randint(0, length))], rng)


def identity(config):
    return f"{config.name}-{config.stream_bits}"


CONFIGS = [*(replace(ODD, stream_bits=bits) for bits in STREAM_WIDTHS), LEAST, PRESETS["wide"]]


@pytest.mark.parametrize(
    "stall", [0.0, 0.5, {"i_program": 0.0, "o_command": 0.9, "o_constants": 0.2, "o_weights": 0.7}]
)
@pytest.mark.parametrize("config", CONFIGS, ids=identity)
def test_random_programs(config, stall):
    async def bench(ctx, dut):
        rng = random.Random(config.stream_bits)
        stalls = stall if isinstance(stall, dict) else dict.fromkeys(STREAMS, stall)
        for seed in range(4):
            # Two programs follow each other at once.
            words = random_program(config, rng) + random_program(config, rng)
            logs = await feed(ctx, dut, words, words, stall=stalls, seed=seed)
            assert ctx.get(dut.fetch.o_error) == Error.NONE
            assert len(logs["i_program"].payloads) == len(words)
            weights = iter(logs["o_weights"].cycles)
            for command, offered in zip(expected(words)["o_command"], logs["o_command"].offered):
                if command["opcode"] == Opcode.COMPUTE:
                    last = [next(weights) for _ in range(command["channels"] * command["weight_words"])][-1]
                    assert offered == last + 1
        assert ctx.get(dut.starts) == 8

    simulate(config, bench)


@pytest.mark.parametrize("config", CONFIGS, ids=identity)
def test_timing(config):
    """One word a cycle, and everything in the cycle that the docstring says."""

    async def bench(ctx, dut):
        rng = random.Random(3)
        # All rows have channels: no zeros to wait for, whatever the length of a record.
        kinds = [Opcode.LOAD, Opcode.COMPUTE, Opcode.STORE, Opcode.COMPUTE, Opcode.COMPUTE]
        words = programs.header(config)
        for opcode in kinds:
            change = {"channels": config.rows} if opcode is Opcode.COMPUTE else {}
            words += programs.command(config, opcode, rng, **change)
        words += programs.command(config, Opcode.END, rng)
        logs = await feed(ctx, dut, words + words, words + words)
        one = len(words)
        accepted = [*range(one), *range(one + 1 + DONE_DELAY, 2 * one + 1 + DONE_DELAY)]
        assert logs["i_program"].cycles == accepted
        after = {"o_command": 1, "o_constants": 1, "o_weights": 0}
        for name, delay in after.items():
            items = [
                cycle for cycle, word in zip(accepted, words + words) for _ in getattr(word, name[2:].rstrip("s") + "s")
            ]
            assert logs[name].offered == logs[name].cycles == [cycle + delay for cycle in items]
        # The core had nothing to do but in the cycles in which it got a command.
        assert ctx.get(dut.waits) == 2 * (one - len(kinds))

    simulate(config, bench)


def test_records_of_zeros():
    """They leave one a cycle beside the weight words, and only the next tile's constants wait for them."""
    config = replace(PRESETS["wide"], stream_bits=1024)

    async def bench(ctx, dut):
        rng = random.Random(1)
        tile = programs.command(config, Opcode.COMPUTE, rng, channels=1, weight_words=3)
        words = programs.header(config) + tile + tile + programs.command(config, Opcode.END, rng)
        logs = await feed(ctx, dut, words, words)
        # Header, two words of the record, constants, three weight words.
        assert logs["i_program"].cycles == [*range(9), *range(67, 72)]
        assert logs["o_constants"].cycles == [*range(4, 132)]

    simulate(config, bench)


def test_a_record_waits_for_the_command_before():
    config = replace(ODD, stream_bits=64)

    async def bench(ctx, dut):
        rng = random.Random(1)
        words = programs.program(config, [Opcode.LOAD, Opcode.STORE], rng)
        logs = await feed(ctx, dut, words, words, after={"o_command": 20})
        # The header's and the LOAD's two words, then the first one of the STORE with the transfer of the LOAD.
        assert logs["i_program"].cycles == [0, 1, 2, 3, 20, 21, 22]
        assert logs["o_command"].offered == [4, 22, 23]
        assert logs["o_command"].cycles == [20, 22, 23]

    simulate(config, bench)


async def reset(ctx, dut):
    ctx.set(dut.reset, 1)
    await ctx.tick()
    ctx.set(dut.reset, 0)


async def fails(ctx, dut, words, position, error, *, command, stall=0.0, seed=0):
    """The word at ``position`` is wrong: nothing of it and after it, words accepted, error and index as told."""
    words = words[: position + 9]
    logs = await feed(ctx, dut, words, words[:position], stall=stall, seed=seed)
    assert ctx.get(dut.fetch.o_error) == error, (Error(ctx.get(dut.fetch.o_error)), error)
    assert ctx.get(dut.fetch.o_index) == command
    assert len(logs["i_program"].payloads) == len(words)
    await reset(ctx, dut)
    assert ctx.get(dut.fetch.o_error) == Error.NONE


async def works(ctx, dut, rng):
    words = random_program(dut.config, rng, 2)
    await feed(ctx, dut, words, words)
    await reset(ctx, dut)


WIDTHS = (32, 64, 256, 1024)


@pytest.mark.parametrize("bits", WIDTHS)
def test_wrong_header(bits):
    config = replace(ODD, stream_bits=bits)
    places = {"magic": 0, "version": 32 // bits, "fingerprint": 64 // bits}

    async def bench(ctx, dut):
        rng = random.Random(1)
        tail = random_program(config, rng)[len(programs.header(config)) :]
        for (name, position), error in zip(places.items(), (Error.MAGIC, Error.VERSION, Error.FINGERPRINT)):
            for flipped in (1, 1 << 15):
                good = programs.header(config)
                field = next(field for field in HEADER if field.name == name)
                assert field.bits >= 16
                bit = {"magic": 0, "version": 32, "fingerprint": 64}[name] % bits
                good[position].data ^= flipped << bit
                await fails(ctx, dut, good + tail, position, error, command=0)
        # Several in one word: the smallest code.
        everything = programs.header(config, magic=1, version=2, fingerprint=3)
        await fails(ctx, dut, everything + tail, 0, Error.MAGIC, command=0)
        await works(ctx, dut, rng)

    simulate(config, bench)


@pytest.mark.parametrize("bits", WIDTHS)
def test_wrong_opcode(bits):
    config = replace(ODD, stream_bits=bits)

    async def bench(ctx, dut):
        rng = random.Random(1)
        for opcode in (0, 5, 8 | Opcode.LOAD, 0x80 | Opcode.END, 255):
            words = programs.program(config, [Opcode.LOAD, Opcode.STORE], rng)
            position = len(programs.header(config)) + programs.lengths(config)[Opcode.LOAD]
            words[position].data = words[position].data & ~0xFF | opcode
            await fails(ctx, dut, words, position, Error.OPCODE, command=1)
        await works(ctx, dut, rng)

    simulate(config, bench)


@pytest.mark.parametrize("config", [replace(ODD, stream_bits=bits) for bits in WIDTHS] + [LEAST], ids=identity)
def test_wrong_fields(config):
    """Every field of every command, on both sides of its range."""

    async def bench(ctx, dut):
        rng = random.Random(1)
        seen = set()
        for opcode, name, value, error in programs.wrong_values(config):
            seen.add(name)
            good = programs.values_of(config, opcode, rng)
            wrong = pack_record(COMMANDS[opcode], good | {name: value}, config.stream_bits)
            before = programs.header(config) + programs.command(config, Opcode.LOAD, rng)
            position = len(before) + programs.slot_of(config, opcode, name)
            words = before + [programs.Word(word) for word in wrong]
            await fails(ctx, dut, words, position, error, command=1)
        assert {
            "address",
            "words_last",
            "weight_bits",
            "channels",
            "plane",
            "weight_words",
            "width",
            "word_step",
        } <= seen
        await works(ctx, dut, rng)

    simulate(config, bench)


@pytest.mark.parametrize("bits", [32, 128])
def test_window_and_residual_operand(bits):
    config = replace(ODD, stream_bits=bits)

    async def bench(ctx, dut):
        rng = random.Random(1)
        for use_skip, window_last, wrong in ((0, 3, False), (1, 0, False), (1, 1, True), (1, 0x8000, True)):
            tile = programs.command(config, Opcode.COMPUTE, rng, use_skip=use_skip, window_last=window_last)
            words = programs.header(config) + tile + programs.command(config, Opcode.END, rng)
            if wrong:
                position = len(programs.header(config)) + programs.slot_of(config, Opcode.COMPUTE, "window_last")
                await fails(ctx, dut, words, position, Error.FIELD, command=0)
            else:
                await feed(ctx, dut, words, words)

    simulate(config, bench)


@pytest.mark.parametrize("config", [replace(ODD, stream_bits=bits) for bits in WIDTHS] + [LEAST], ids=identity)
def test_wrong_constants(config):
    fields = constants_fields(config)

    def cases():
        for name in CONSTANT_FIELDS:
            if name == "shift":
                yield name, config.max_shift + 1
                yield name, 0xFFFF_FFFF
                continue
            bits = getattr(config, f"{name}_bits")
            if bits not in (32, 64):
                yield name, 1 << bits - 1
                yield name, -(1 << bits - 1) - 1

    async def bench(ctx, dut):
        rng = random.Random(1)
        for name, value in cases():
            before = programs.header(config) + programs.command(config, Opcode.STORE, rng)
            tile = programs.command(config, Opcode.COMPUTE, rng, channels=config.rows)
            start = len(before) + programs.lengths(config)[Opcode.COMPUTE]
            length = record_words(fields, config.stream_bits)
            start += length * (config.rows - 1)  # in the last row
            good = dict(zip(CONSTANT_FIELDS, programs.constants_of(config, rng)))
            record = programs.constants_record(config, (good | {name: value}).values())
            if name == "shift":
                record["shift"] = value
            words = before + tile
            words[start : start + length] = [
                programs.Word(word) for word in pack_record(fields, record, config.stream_bits)
            ]
            bit = 0
            for field in fields:
                if field.name in (name, f"{name}_high"):
                    break
                bit += field.bits
            await fails(ctx, dut, words, start + bit // config.stream_bits, Error.FIELD, command=1)
        await works(ctx, dut, rng)

    simulate(config, bench)


@pytest.mark.parametrize("bits", WIDTHS)
def test_truncated_everywhere(bits):
    """``tlast`` at every word but the last, and the next program after it; stalls at random."""
    config = replace(ODD, stream_bits=bits)

    async def bench(ctx, dut):
        rng = random.Random(1)
        words = programs.header(config)
        for index, opcode in enumerate((Opcode.LOAD, Opcode.COMPUTE, Opcode.STORE)):
            change = {"channels": 2, "weight_words": 2} if opcode is Opcode.COMPUTE else {}
            words += [replace(word, command=index) for word in programs.command(config, opcode, rng, **change)]
        for position, word in enumerate(words):
            cut = [*words[:position], replace(word, last=True)]
            await fails(ctx, dut, cut, position, Error.PROGRAM_SHORT, command=word.command, stall=0.3, seed=position)
        await works(ctx, dut, rng)

    simulate(config, bench)


@pytest.mark.parametrize("bits", WIDTHS)
def test_over_long(bits):
    config = replace(ODD, stream_bits=bits)

    async def bench(ctx, dut):
        rng = random.Random(1)
        words = programs.program(config, [Opcode.LOAD, Opcode.COMPUTE], rng)
        position = len(words) - 1
        words[position].last = False
        words += programs.program(config, [], rng)
        await fails(ctx, dut, words, position, Error.PROGRAM_LONG, command=2, stall=0.3)
        await works(ctx, dut, rng)

    simulate(config, bench)


def test_wrong_field_before_wrong_tlast():
    """Where a word is wrong in several ways, the smallest code."""

    async def bench(ctx, dut):
        words = programs.header(ODD)
        words[0] = programs.Word(words[0].data ^ 1, last=True)
        await fails(ctx, dut, words, 0, Error.MAGIC, command=0)

    simulate(ODD, bench)


def test_stop():
    """After ``i_stop`` words are thrown away; a command that waits stays valid."""
    config = replace(ODD, stream_bits=64)

    async def bench(ctx, dut):
        rng = random.Random(1)
        words = programs.program(config, [Opcode.LOAD, Opcode.STORE, Opcode.COMPUTE], rng)
        logs = await Streams(dut).run(
            ctx,
            {"i_program": packed(config, words)},
            dict.fromkeys(STREAMS[1:], 0),
            after={"o_command": 1000},
            cycles=30,
        )
        assert len(logs["i_program"].payloads) == 4
        ctx.set(dut.stop, 1)
        await ctx.tick()
        ctx.set(dut.stop, 0)
        logs = await Streams(dut).run(
            ctx,
            {"i_program": packed(config, words[4:])},
            {"o_command": 1, "o_constants": 0, "o_weights": 0},
            after={"o_command": 20},
        )
        assert logs["o_command"].offered == [0]
        assert logs["i_program"].cycles == [*range(len(words) - 4)]
        assert ctx.get(dut.fetch.o_error) == Error.NONE
        await reset(ctx, dut)
        await works(ctx, dut, rng)

    simulate(config, bench)


@pytest.mark.parametrize("bits", [32, 1024])
def test_reset_anywhere(bits):
    """A program that is broken off anywhere leaves nothing behind."""
    config = replace(ODD, stream_bits=bits)

    async def bench(ctx, dut):
        rng = random.Random(5)
        for seed in range(30):
            words = random_program(config, rng)
            streams = Streams(dut, stall=0.4, seed=seed)
            unlimited = dict.fromkeys(STREAMS[1:], 1 << 30)
            await streams.run(ctx, {"i_program": packed(config, words)}, unlimited, cycles=rng.randrange(1, 150))
            await reset(ctx, dut)
            await works(ctx, dut, rng)

    simulate(config, bench)
