"""LOAD and STORE: order, rate, stalls, ends of packets, errors, and what stays after a halt."""

import random

import pytest

from hw.config import PRESETS, AcceleratorConfig
from hw.load import Load
from hw.program_format import Error
from hw.store import Store
from hw.tests.clocked import Memory, simulate

CONFIGS = [
    PRESETS["tiny"],
    AcceleratorConfig(name="odd_depth", rows=3, lanes=3, digit_bits=4, requant_lanes=3, activation_depth=37),
]


def command(ctx, dut, *, address, words_last, mark=0):
    for name, value in (("address", address), ("words_last", words_last), ("mark", mark)):
        ctx.set(getattr(dut.i_command.payload, name), value)
    ctx.set(dut.i_command.valid, 1)
    assert ctx.get(dut.i_command.ready)


def load(config, words, *, address, words_last, stall=0.0, mark=1, cycles=None, seed=0):
    """Offer (data, last) words to a LOAD: the writes, the cycles of the mark, the errors, the words taken."""
    dut = Load(config)
    rng = random.Random(seed)
    writes, marks, errors, taken = [], [], [], []

    async def bench(ctx):
        assert not ctx.get(dut.i_input.ready)
        command(ctx, dut, address=address, words_last=words_last, mark=mark)
        halted = False
        for cycle in range(cycles or 20 + 4 * len(words)):
            offers = cycle > 0 and len(taken) < len(words) and (halted or rng.random() >= stall)
            ctx.set(dut.i_input.valid, offers)
            data, last = words[len(taken)] if offers else (rng.getrandbits(8), rng.getrandbits(1))
            ctx.set(dut.i_input.payload.data, data)
            ctx.set(dut.i_input.payload.last, last)
            ctx.set(dut.i_halt, halted)
            if ctx.get(dut.write.en):
                writes.append((cycle, ctx.get(dut.write.addr), ctx.get(dut.write.data)))
            if ctx.get(dut.o_mark):
                marks.append(cycle)
            if error := ctx.get(dut.o_error):
                errors.append((cycle, Error(error)))
            assert ctx.get(dut.i_input.ready) == (halted or ctx.get(dut.o_busy))
            if offers and ctx.get(dut.i_input.ready):
                taken.append(cycle)
            await ctx.tick()
            ctx.set(dut.i_command.valid, 0)
            halted = halted or bool(errors)

    simulate(dut, bench)
    return writes, marks, errors, taken


def packet(config, count, last=None):
    rng = random.Random(count)
    last = count - 1 if last is None else last
    return [(rng.getrandbits(config.lanes * config.digit_bits), int(n == last)) for n in range(count)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("mark", [0, 1])
def test_load(config, stall, mark):
    for count in (1, 2, 30):
        address = config.activation_depth - count
        words = packet(config, count)
        writes, marks, errors, taken = load(
            config, [*words, (0, 0)], address=address, words_last=count - 1, stall=stall, mark=mark
        )
        assert [write[1:] for write in writes] == [(address + n, data) for n, (data, _) in enumerate(words)]
        assert [write[0] for write in writes] == taken
        assert marks == ([taken[-1]] if mark else [])
        assert not errors
        # The word of the next packet was not taken.
        assert len(taken) == count
        if not stall:
            assert taken == list(range(1, count + 1))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_load_errors(config):
    """The right code in the right cycle; nothing is written from then on, and all words are thrown away."""
    end = config.activation_depth
    for words, address, at, code, written in (
        (packet(config, 6, last=2), 3, 2, Error.INPUT_SHORT, 3),
        (packet(config, 6, last=99), 3, 4, Error.INPUT_LONG, 5),
        (packet(config, 6, last=4), end - 2, 2, Error.ADDRESS, 2),
    ):
        writes, marks, errors, taken = load(config, words, address=address, words_last=4, mark=0)
        assert errors == [(1 + at, code)]
        assert [write[1] for write in writes] == list(range(address, address + written))
        assert not marks
        assert len(taken) == len(words)


def store(config, *, address, words_last, stall=0.0, mark=1, halt=None, seed=0):
    """A STORE's words (cycle, data, last), the cycles of the mark, the address errors, the reads, the memory."""
    dut = Store(config)
    rng = random.Random(seed)
    sent, marks, errors = [], [], []
    words = {n: rng.getrandbits(config.lanes * config.digit_bits) for n in range(config.activation_depth)}
    memory = Memory(dut.read, words)

    async def bench(ctx):
        command(ctx, dut, address=address, words_last=words_last, mark=mark)
        waiting = None
        for cycle in range(20 + 4 * (words_last + 1)):
            ready = rng.random() >= stall and not (halt is not None and halt <= cycle < halt + 5)
            ctx.set(dut.o_output.ready, ready)
            ctx.set(dut.i_halt, halt is not None and cycle >= halt)
            now = None
            # Busy from the cycle after the command to that in which the last word is taken, however long it waits.
            busy = cycle > 0 and len(sent) <= words_last
            assert ctx.get(dut.o_busy) == busy, cycle
            assert ctx.get(dut.i_command.ready) == (not busy), cycle
            if ctx.get(dut.o_output.valid):
                now = (ctx.get(dut.o_output.payload.data), ctx.get(dut.o_output.payload.last))
                if ready:
                    sent.append((cycle, *now))
            assert waiting is None or now == waiting
            waiting = None if ready else now
            if ctx.get(dut.o_mark):
                marks.append(cycle)
            if ctx.get(dut.o_address_error):
                errors.append(cycle)
            memory.before_edge(ctx, cycle)
            await ctx.tick()
            memory.after_edge(ctx)
            ctx.set(dut.i_command.valid, 0)
        assert ctx.get(dut.o_busy) == (len(sent) <= words_last)

    simulate(dut, bench)
    return sent, marks, errors, memory.reads, words


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("mark", [0, 1])
def test_store(config, stall, mark):
    for count in (1, 2, 30):
        address = config.activation_depth - count
        sent, marks, errors, reads, words = store(config, address=address, words_last=count - 1, stall=stall, mark=mark)
        assert [word[1:] for word in sent] == [(words[address + n], int(n == count - 1)) for n in range(count)]
        assert [read[1] for read in reads] == list(range(address, address + count))
        assert marks == ([sent[-1][0]] if mark else [])
        assert not errors
        if not stall:
            assert [read[0] for read in reads] == list(range(1, count + 1))
            assert [word[0] for word in sent] == list(range(2, count + 2))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_store_outside(config):
    end = config.activation_depth
    sent, marks, errors, reads, _ = store(config, address=end - 3, words_last=4)
    assert [read[1] for read in reads] == [end - 3, end - 2, end - 1]
    assert errors[0] == 4
    assert len(sent) == 3
    assert not any(word[2] for word in sent)
    assert not marks


def test_halt_keeps_the_word_that_is_offered():
    config = PRESETS["tiny"]
    sent, marks, errors, reads, words = store(config, address=8, words_last=9, halt=4)
    # Words 0 and 1 went in cycles 2 and 3; word 2 was offered in cycle 4 and is taken five cycles later.
    assert [word[0] for word in sent] == [2, 3, 9]
    assert [word[1] for word in sent] == [words[8], words[9], words[10]]
    assert [read[0] for read in reads] == [1, 2, 3]
    assert not marks
    assert not errors
