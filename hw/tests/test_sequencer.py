"""The sequencer against the loops, written out: every beat, every read, every flag, and the cycle of each."""

import itertools
import random
from dataclasses import dataclass

import pytest

from hw.command import STILL
from hw.config import PRESETS, AcceleratorConfig
from hw.program_format import LOOPS, Opcode, address_bits
from hw.sequencer import Sequencer
from hw.tests.clocked import Memory, simulate

TINY = PRESETS["tiny"]
CONFIGS = [
    TINY,
    AcceleratorConfig(
        name="bits", rows=2, lanes=6, digit_bits=1, requant_lanes=2, weight_depth=300, activation_depth=3000
    ),
    AcceleratorConfig(
        name="bytes", rows=3, lanes=3, digit_bits=8, requant_lanes=3, weight_depth=700, activation_depth=2100
    ),
]


@dataclass(frozen=True)
class Beat:
    """What one beat must be; ``address`` is None outside the map."""

    address: int | None
    made: int
    weight: int
    first: int
    shift: int
    last: int
    ones: int
    tile_last: int


def pairs(weight_digits, activation_digits):
    every = itertools.product(range(weight_digits), range(activation_digits))
    return sorted(every, key=lambda pair: (-(pair[0] + pair[1]), pair[0]))


def beats_of(config, f):
    """The loops, as the documentation has them."""
    order = pairs(f["weight_digits_last"] + 1, f["activation_digits_last"] + 1)
    counts = [len(order) if loop == "pass" else f[f"{loop}_last"] + 1 for loop in LOOPS]
    modulus = 1 << address_bits(config)
    address, x, y = f["input_address"], f["x"], f["y"]
    found = []
    for outer_first in itertools.product(*(range(count) for count in reversed(counts))):
        at = dict(zip(LOOPS, reversed(outer_first), strict=True))
        ends = [at[loop] == count - 1 for loop, count in zip(LOOPS, counts, strict=True)]
        i, j = order[at["pass"]]
        n = at["word"]
        if not f["broadcast"]:
            n += counts[0] * (at["kernel_x"] + counts[1] * at["kernel_y"])
        begins = all(at[loop] == 0 for loop in LOOPS[:3])
        previous = order[at["pass"] - 1]
        lanes = f["pad_lanes"] if ends[0] else config.lanes
        digit = f["pad_code"] >> j * config.digit_bits & (1 << config.digit_bits) - 1
        inside = 0 <= x < f["width"] and 0 <= y < f["height"]
        read = (address + j + modulus // 2) % modulus - modulus // 2
        found.append(
            Beat(
                address=read if inside else None,
                made=sum(digit << lane * config.digit_bits for lane in range(lanes)),
                weight=i * f["plane"] + n,
                first=int(begins and at["pass"] == 0),
                shift=int(begins and at["pass"] > 0 and sum(previous) != i + j),
                last=int(all(ends[:4])),
                ones=int(i == 0),
                tile_last=int(all(ends[4:])),
            )
        )
        for loop, end in zip(LOOPS, ends, strict=True):
            if not end:
                address += f[f"{loop}_step"]
                x += f[f"{loop}_dx"]
                y += f[f"{loop}_dy"]
                break
    return found


def command(config, **change):
    """A COMPUTE of one beat, changed; the weight's layout follows from the loops."""
    f = {
        "broadcast": 0,
        "weight_digits_last": 0,
        "activation_digits_last": 0,
        "pad_code": 0,
        "pad_lanes": config.lanes,
        "width": 100,
        "height": 100,
        "x": 0,
        "y": 0,
        "input_address": 0,
    }
    for loop in LOOPS:
        f |= {f"{loop}_last": 0, f"{loop}_step": 0, f"{loop}_dx": 0, f"{loop}_dy": 0}
    f |= change
    words = f["word_last"] + 1
    taps = 1 if f["broadcast"] else (f["kernel_x_last"] + 1) * (f["kernel_y_last"] + 1)
    f["plane"] = words * taps
    f["weight_words"] = f["plane"] * (f["weight_digits_last"] + 1)
    assert f["weight_words"] <= config.weight_depth
    return f


def random_command(config, rng):
    """One of few enough beats for a fast test."""
    while True:
        f = any_command(config, rng)
        if len(beats_of(config, f)) <= 200:
            return f


def any_command(config, rng):
    digits = -(-16 // config.digit_bits)
    change = {
        "broadcast": rng.getrandbits(1),
        "weight_digits_last": rng.randrange(min(digits, 4)),
        "activation_digits_last": rng.randrange(min(digits, 4)),
        "pad_code": rng.getrandbits(16),
        "pad_lanes": rng.randint(1, config.lanes),
        "width": rng.randint(1, 9),
        "height": rng.randint(1, 9),
        "x": rng.randint(-3, 3),
        "y": rng.randint(-3, 3),
        "input_address": rng.randint(800, 1200),
    }
    for loop in LOOPS:
        change[f"{loop}_last"] = rng.choice([0, 1, rng.randrange(3)])
        change[f"{loop}_step"] = rng.randint(-3, 4)
        for part in ("dx", "dy"):
            change[f"{loop}_{part}"] = 0 if (loop, part) in STILL else rng.randint(-1, 2)
    return command(config, **change)


@dataclass
class Seen:
    """What a run showed, with the cycle of each."""

    taken: list[int]
    beats: list[tuple[int, Beat]]
    offered: list[int]
    activation_reads: list[tuple[int, int]]
    weight_reads: list[tuple[int, int]]
    releases: list[int]
    errors: list[int]


def run(config, commands, *, stall=0.0, gap=0.0, halt=None, cycles=None, seed=0):
    """Offer the commands and take the beats; every word of both memories is random, so beats show what they are."""
    dut = Sequencer(config)
    rng = random.Random(seed)
    word_bits = config.lanes * config.digit_bits
    activations = Memory(dut.activations, {n: rng.getrandbits(word_bits) for n in range(config.activation_depth)})
    weights = Memory(dut.weights, {n: rng.getrandbits(config.rows * word_bits) for n in range(config.weight_depth)})
    expected = [beat for f in commands for beat in beats_of(config, f)]
    seen = Seen([], [], [], activations.reads, weights.reads, [], [])
    limit = cycles or 50 + 8 * len(expected)

    async def bench(ctx):
        offering = waiting = False
        held = None
        packed = dut.i_command.payload.as_value()
        for cycle in range(limit):
            if not offering:
                offering = len(seen.taken) < len(commands) and rng.random() >= gap
                ctx.set(dut.i_command.valid, offering)
                ctx.set(packed, rng.getrandbits(len(packed)))
                if offering:
                    ctx.set(dut.i_command.payload, {"opcode": Opcode.COMPUTE, **commands[len(seen.taken)]})
            ready = rng.random() >= stall
            ctx.set(dut.o_beat.ready, ready)
            ctx.set(dut.i_halt, halt is not None and cycle >= halt)
            payload = ctx.get(dut.o_beat.payload.as_value())
            if ctx.get(dut.o_beat.valid):
                seen.offered.append(cycle)
                assert not waiting or payload == held
                if ready:
                    beat = expected[len(seen.beats)]
                    fields = dut.o_beat.payload
                    if beat.address is None:
                        assert ctx.get(fields.activations.as_value()) == beat.made, (len(seen.beats), beat)
                    elif beat.address in activations.words:
                        word = activations.words[beat.address]
                        assert ctx.get(fields.activations.as_value()) == word, (len(seen.beats), beat)
                    assert ctx.get(fields.weights.as_value()) == weights.words[beat.weight], (len(seen.beats), beat)
                    for flag in ("first", "last", "ones", "tile_last", "shift"):
                        # `tile_last` counts with `last` only.
                        if flag != "tile_last" or beat.last:
                            assert ctx.get(getattr(fields, flag)) == getattr(beat, flag), (len(seen.beats), flag)
                    seen.beats.append((cycle, beat))
            else:
                assert not waiting
            waiting, held = bool(ctx.get(dut.o_beat.valid)) and not ready, payload
            if ctx.get(dut.o_release):
                seen.releases.append(cycle)
            if ctx.get(dut.o_address_error):
                seen.errors.append(cycle)
            activations.before_edge(ctx, cycle)
            weights.before_edge(ctx, cycle)
            if offering and ctx.get(dut.i_command.ready):
                seen.taken.append(cycle)
                offering = False
            await ctx.tick()
            activations.after_edge(ctx)
            weights.after_edge(ctx)
            if cycles is None and len(seen.beats) == len(expected) and cycle > seen.beats[-1][0] + 5:
                break

    simulate(dut, bench)
    if cycles is None:
        assert len(seen.beats) == len(expected)
        assert len(seen.taken) == len(commands)
        assert [address for _, address in seen.activation_reads] == [
            beat.address for beat in expected if beat.address is not None
        ]
        assert [address for _, address in seen.weight_reads] == [beat.weight for beat in expected]
        # The tile's last weight read is the one of its last beat.
        ends = [n for n, beat in enumerate(expected) if beat.last and beat.tile_last]
        assert seen.releases == [seen.weight_reads[n][0] for n in ends]
        assert not seen.errors
    return seen


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize(("stall", "gap"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.8), (0.3, 0.3)])
def test_random_commands(config, stall, gap):
    rng = random.Random(11)
    commands = [random_command(config, rng) for _ in range(12)]
    beats = [beat for f in commands for beat in beats_of(config, f)]
    # What is to be shown does occur.
    assert len({beat.address is None for beat in beats}) == 2
    assert any(beat.shift for beat in beats)
    assert any(beat.last and not beat.tile_last for beat in beats)
    run(config, commands, stall=stall, gap=gap)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_cycles(config):
    """The first beat two cycles after the command, one a cycle, and no pause between commands."""
    rng = random.Random(5)
    commands = [random_command(config, rng) for _ in range(6)]
    seen = run(config, commands)
    first = seen.taken[0] + 2
    assert [cycle for cycle, _ in seen.beats] == list(range(first, first + len(seen.beats)))
    assert [cycle for cycle, _ in seen.weight_reads] == [cycle - 1 for cycle, _ in seen.beats]
    # A command is taken in the cycle in which the one before reads its last words.
    assert seen.taken[1:] == seen.releases[:-1]


def test_commands_of_one_beat():
    seen = run(TINY, [command(TINY, input_address=n) for n in range(9)])
    assert [cycle for cycle, _ in seen.beats] == list(range(seen.taken[0] + 2, seen.taken[0] + 11))
    assert seen.taken == list(range(seen.taken[0], seen.taken[0] + 9))


def test_digit_pairs():
    """Three weight digits and two activation digits, by hand."""
    f = command(TINY, weight_digits_last=2, activation_digits_last=1, input_address=40)
    beats = [beat for _, beat in run(TINY, [f]).beats]
    assert [(beat.weight, beat.address - 40) for beat in beats] == [(2, 1), (1, 1), (2, 0), (0, 1), (1, 0), (0, 0)]
    assert [beat.shift for beat in beats] == [0, 1, 0, 1, 0, 1]
    assert [beat.ones for beat in beats] == [0, 0, 0, 1, 0, 1]
    assert [beat.first for beat in beats] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("digits", list(itertools.product(range(1, 5), range(1, 5))), ids=str)
def test_all_counts_of_digits(digits):
    weight, activation = digits
    f = command(
        TINY, weight_digits_last=weight - 1, activation_digits_last=activation - 1, word_last=1, word_step=5,
        pass_step=-5, output_x_last=1, output_x_step=6, output_x_dx=1, input_address=9,
    )  # fmt: skip
    run(TINY, [f, f])


def test_padding_of_a_three_by_three():
    """A map of 2 by 2 with a border: 9 taps of 2 words, of which a corner position has 4 inside."""
    f = command(
        TINY, x=-1, y=-1, width=2, height=2, input_address=100 - 3 * 2, pad_code=2, pad_lanes=3,
        word_last=1, word_step=1, kernel_x_last=2, kernel_x_step=1, kernel_x_dx=1,
        kernel_y_last=2, kernel_y_step=2 * 2 - 5, kernel_y_dx=-2, kernel_y_dy=1,
    )  # fmt: skip
    beats = [beat for _, beat in run(TINY, [f]).beats]
    assert len(beats) == 18
    assert [beat.address for beat in beats if beat.address is not None] == [100, 101, 102, 103, 104, 105, 106, 107]
    made = [beat.made for beat in beats if beat.address is None]
    assert set(made[0::2]) == {0b10101010}
    assert set(made[1::2]) == {0b00101010}


def test_broadcast():
    f = command(TINY, broadcast=1, word_last=2, word_step=1, kernel_x_last=3, kernel_x_step=1, weight_digits_last=1,
                pass_step=-11)  # fmt: skip
    beats = [beat for _, beat in run(TINY, [f]).beats]
    assert [beat.weight for beat in beats] == [3, 4, 5] * 4 + [0, 1, 2] * 4


def test_long_loops():
    """Counts beyond a byte, and the largest coordinates."""
    f = command(TINY, output_x_last=299, output_x_step=1, output_x_dx=1, width=32767, height=32767, x=32767 - 150,
                y=32766, input_address=7)  # fmt: skip
    beats = [beat for _, beat in run(TINY, [f]).beats if beat.address is not None]
    assert len(beats) == 150
    # A map of 32767 by 32767 ends before both.
    f |= {"height": 32766}
    assert not run(TINY, [f]).activation_reads


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@pytest.mark.parametrize("below", [False, True])
def test_address_error(config, below):
    """Reads up to the edge are made, the one beyond it is refused in its cycle; padding may be anywhere."""
    depth = config.activation_depth
    start, step = (2, -1) if below else (depth - 3, 1)
    f = command(config, input_address=start, output_x_last=9, output_x_step=step, output_x_dx=1)
    seen = run(config, [f], cycles=5)
    assert [address for _, address in seen.activation_reads] == [start, start + step, start + 2 * step]
    assert seen.errors == [4]
    # The core halts the sequencer in the next cycle.
    seen = run(config, [f], cycles=30, halt=5)
    assert seen.errors == [4]
    assert [cycle for cycle, _ in seen.weight_reads] == [1, 2, 3, 4]
    run(config, [f | {"x": -100}])


def test_digits_count_in_the_address_check():
    depth = TINY.activation_depth
    f = command(TINY, input_address=depth - 2, activation_digits_last=2)
    assert run(TINY, [f], cycles=2).errors == [1]


def test_halt():
    """Nothing is read and no command is taken; the beat that waits stays."""
    f = command(TINY, output_x_last=20, output_x_step=1, input_address=50)
    seen = run(TINY, [f, f], stall=1.0, halt=4, cycles=20)
    assert [cycle for cycle, _ in seen.weight_reads] == [1]
    assert seen.offered == list(range(2, 20))
    assert run(TINY, [f], halt=0, cycles=10).taken == []
