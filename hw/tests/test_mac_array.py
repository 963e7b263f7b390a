# amaranth: UnusedElaboratable=no
"""MacArray: Horner accumulation, stalls, drain; and against convolution arithmetic in plain integers."""

import dataclasses
import random
import re

import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.lib import data
from amaranth.sim import Simulator

from golden.network import Grid
from hw.dot_product import Form
from hw.mac_array import MacArray, beat_layout
from hw.verilog import generate


@dataclasses.dataclass
class Beat:
    x: list
    w: list
    first: int = 0
    shift: int = 0
    last: int = 0
    ones: int = 0


class Bench:
    """Feeds positions, captures each as soon as it is complete, and drains it while the next one is computed."""

    def __init__(self, dut, *, stall=0.0, seed=0):
        self.dut = dut
        self.stall = stall
        self.rng = random.Random(seed)
        self.drained = []
        self.complete_cycles = []
        self.cycle = 0

    async def _send(self, ctx, positions):
        payload = self.dut.i.payload
        for position in positions:
            for beat in position:
                while self.rng.random() < self.stall:
                    # What stands on the port without valid, flags included, must not matter.
                    ctx.set(self.dut.i.valid, 0)
                    ctx.set(payload.as_value(), self.rng.getrandbits(len(payload.as_value())))
                    await ctx.tick()
                ctx.set(self.dut.i.valid, 1)
                ctx.set(payload.activations, beat.x)
                ctx.set(payload.weights, beat.w)
                for flag in ("first", "shift", "last", "ones"):
                    ctx.set(getattr(payload, flag), getattr(beat, flag))
                ctx.set(payload.tile_last, self.rng.getrandbits(1))
                await ctx.tick()
            ctx.set(self.dut.i.valid, 0)
        await ctx.tick().repeat(self.dut.rows + 8)

    async def _drain(self, ctx):
        dut = self.dut
        groups = -(-dut.rows // dut.drain_rows)
        while True:
            while not ctx.get(dut.complete):
                await ctx.tick()
            ctx.set(dut.capture, 1)
            # Capture wins over advance.
            ctx.set(dut.advance, self.rng.getrandbits(1))
            await ctx.tick()
            ctx.set(dut.capture, 0)
            rows = []
            for group in range(groups):
                ctx.set(dut.advance, 0)
                for _ in range(self.rng.randrange(2) if self.stall else 0):
                    await ctx.tick()
                rows += [ctx.get(dut.o_rows[lane]) for lane in range(dut.drain_rows)]
                ones = ctx.get(dut.o_ones)
                if group < groups - 1:
                    ctx.set(dut.advance, 1)
                    await ctx.tick()
            ctx.set(dut.advance, 0)
            self.drained.append((rows[: dut.rows], ones))

    def run(self, positions):
        async def send(ctx):
            await self._send(ctx, positions)

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(send)
        simulator.add_testbench(self._drain, background=True)
        simulator.run()
        return self.drained


def model(positions, *, digit_bits, acc_bits):
    """What the docstring of MacArray says, on Python's integers."""
    results = []
    for position in positions:
        rows, ones = [0] * len(position[0].w), 0
        for beat in position:

            def step(acc, dot, beat=beat):
                acc = 0 if beat.first else acc << digit_bits if beat.shift else acc
                return (acc + dot) % (1 << acc_bits)

            rows = [
                step(acc, sum(a * b for a, b in zip(beat.x, w, strict=True)))
                for acc, w in zip(rows, beat.w, strict=True)
            ]
            ones = step(ones, sum(beat.x) if beat.ones else 0)
        results.append((rows, ones))
    return results


def random_positions(dut, rng, count, *, biggest=False):
    def digit():
        return (1 << dut.digit_bits) - 1 if biggest else rng.getrandbits(dut.digit_bits)

    positions = []
    for _ in range(count):
        length = rng.randrange(-(-dut.rows // dut.drain_rows) * 2 + 2, dut.rows * 2 + 8)
        position = [
            Beat(
                x=[digit() for _ in range(dut.lanes)],
                w=[[digit() for _ in range(dut.lanes)] for _ in range(dut.rows)],
                shift=rng.getrandbits(1),
                ones=rng.getrandbits(1),
            )
            for _ in range(length)
        ]
        position[0].first = position[-1].last = 1
        positions.append(position)
    return positions


SHAPES = [
    {"rows": 1, "lanes": 1, "digit_bits": 1, "acc_bits": 2, "drain_rows": 1},
    {"rows": 3, "lanes": 5, "digit_bits": 1, "acc_bits": 9, "drain_rows": 2},
    {"rows": 4, "lanes": 3, "digit_bits": 2, "acc_bits": 16, "drain_rows": 4},
    {"rows": 5, "lanes": 4, "digit_bits": 2, "acc_bits": 4, "drain_rows": 3},
    {"rows": 2, "lanes": 6, "digit_bits": 4, "acc_bits": 20, "drain_rows": 1},
    {"rows": 3, "lanes": 2, "digit_bits": 8, "acc_bits": 28, "drain_rows": 2},
    {"rows": 2, "lanes": 1, "digit_bits": 16, "acc_bits": 44, "drain_rows": 2},
]


@pytest.mark.parametrize(("stall", "biggest"), [(0.0, True), (0.5, False)])
@pytest.mark.parametrize("pipeline", [0, 1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_positions(shape, pipeline, stall, biggest):
    """Back-to-back positions with everything random, modulo wraps included; drained while the next one runs."""
    dut = MacArray(**shape, pipeline=pipeline)
    positions = random_positions(dut, random.Random(1), 8, biggest=biggest)
    expected = model(positions, digit_bits=dut.digit_bits, acc_bits=dut.acc_bits)
    assert Bench(dut, stall=stall).run(positions) == expected


@pytest.mark.parametrize("shape", SHAPES[2:], ids=lambda shape: "-".join(map(str, shape.values())))
@pytest.mark.parametrize("carry_save", [False, True])
@pytest.mark.parametrize("form", list(Form))
def test_forms(shape, form, carry_save):
    dut = MacArray(**shape, form=form, carry_save=carry_save)
    positions = random_positions(dut, random.Random(2), 4)
    expected = model(positions, digit_bits=dut.digit_bits, acc_bits=dut.acc_bits)
    assert Bench(dut, stall=0.3).run(positions) == expected


def digits(code, digit_bits, count):
    return [code >> digit_bits * i & (1 << digit_bits) - 1 for i in range(count)]


@pytest.mark.parametrize("grid", list(Grid))
@pytest.mark.parametrize(
    ("digit_bits", "weight_bits", "activation_bits", "stall"),
    [(1, 1, 3, 0.0), (2, 2, 2, 0.5), (2, 3, 5, 0.0), (2, 8, 8, 0.5), (4, 8, 5, 0.5), (8, 16, 9, 0.0), (16, 7, 16, 0.5)],
)
def test_horner_gives_the_sum_of_weights_times_activations(digit_bits, weight_bits, activation_bits, stall, grid):
    """acc = p*N - c*U of the drained numbers equals the signed sum(W*u) of several words of whole codes."""
    rows, lanes, words, acc_bits = 3, 4, 2, 44
    dut = MacArray(rows=rows, lanes=lanes, digit_bits=digit_bits, acc_bits=acc_bits, drain_rows=2)
    rng = random.Random(4)
    passes_w, passes_x = -(-weight_bits // digit_bits), -(-activation_bits // digit_bits)
    positions, expected = [], []
    for number in range(4):
        u = [[rng.getrandbits(activation_bits) for _ in range(lanes)] for _ in range(words)]
        n = [[[rng.getrandbits(weight_bits) for _ in range(lanes)] for _ in range(words)] for _ in range(rows)]
        if number == 0:
            u = [[(1 << activation_bits) - 1] * lanes] * words
            n = [[[0] * lanes] * words, [[(1 << weight_bits) - 1] * lanes] * words, n[2]]
        position = []
        for total in reversed(range(passes_w + passes_x - 1)):
            for i in range(passes_w):
                j = total - i
                if not 0 <= j < passes_x:
                    continue
                for word in range(words):
                    position.append(
                        Beat(
                            x=[digits(code, digit_bits, passes_x)[j] for code in u[word]],
                            w=[[digits(code, digit_bits, passes_w)[i] for code in n[r][word]] for r in range(rows)],
                            ones=int(i == 0),
                            # The first beat of each digit sum shifts what the higher ones have left.
                            shift=int(word == 0 and i == max(0, total - passes_x + 1)),
                        )
                    )
        position[0].shift = 0
        position[0].first = position[-1].last = 1
        positions.append(position)
        expected.append(
            [
                sum((grid.p(weight_bits) * n[r][t][k] - grid.c(weight_bits)) * u[t][k]
                    for t in range(words) for k in range(lanes))
                for r in range(rows)
            ]
        )  # fmt: skip

    def signed(value):
        value %= 1 << acc_bits
        return value - (value >> acc_bits - 1 << acc_bits)

    # Short positions need room for their drain; the model-based test above has them back to back.
    bench = Bench(dut, stall=stall)
    spaced = []
    for position in positions:
        while len(position) < 8:
            zero = Beat(x=[0] * lanes, w=[[0] * lanes] * rows)
            position.insert(1, zero)
        spaced.append(position)
    drained = bench.run(spaced)
    results = [
        [signed(grid.p(weight_bits) * row - grid.c(weight_bits) * ones) for row in rows_] for rows_, ones in drained
    ]
    assert results == expected


@pytest.mark.parametrize("pipeline", [0, 1, 2])
def test_latency_and_complete(pipeline):
    dut = MacArray(rows=1, lanes=2, digit_bits=2, acc_bits=8, pipeline=pipeline)
    assert dut.latency == 2 + pipeline

    async def beat(ctx, first, last, x):
        ctx.set(dut.i.valid, 1)
        ctx.set(
            dut.i.payload,
            {"activations": [x, 0], "weights": [[3, 0]], "first": first, "last": last, "ones": 1},
        )
        await ctx.tick()
        ctx.set(dut.i.valid, 0)

    async def bench(ctx):
        async def complete(*expected):
            for value in expected:
                assert ctx.get(dut.complete) == value
                await ctx.tick()

        assert ctx.get(dut.complete) == 0
        await beat(ctx, 1, 0, 1)
        await beat(ctx, 0, 1, 2)
        await complete(*[0] * (dut.latency - 1), 1, 1, 1)

        # Captured: low from the next cycle on.
        ctx.set(dut.capture, 1)
        await complete(1)
        ctx.set(dut.capture, 0)
        await complete(0, 0)
        assert ctx.get(dut.o_rows[0]) == 9
        assert ctx.get(dut.o_ones) == 3

        # Overwritten by the next beat without a capture: low as soon as that is accumulated.
        await beat(ctx, 1, 1, 3)
        await complete(*[0] * (dut.latency - 1), 1)
        await beat(ctx, 1, 0, 1)
        await complete(*[1] * (dut.latency - 1), 0)

        # Two positions of one beat each, back to back: captured in two consecutive cycles.
        await beat(ctx, 1, 1, 1)
        await beat(ctx, 1, 1, 2)
        await complete(*[0] * (dut.latency - 2))
        for expected in (3, 6):
            assert ctx.get(dut.complete) == 1
            ctx.set(dut.capture, 1)
            await ctx.tick()
            assert ctx.get(dut.o_rows[0]) == expected
        ctx.set(dut.capture, 0)
        await complete(0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_reset_forgets_beats_and_a_finished_position():
    dut = MacArray(rows=1, lanes=1, digit_bits=8, acc_bits=16)
    reset = Signal()

    async def bench(ctx):
        for cycles_before_reset in range(dut.latency + 2):
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload.first, 1)
            ctx.set(dut.i.payload.last, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            for _ in range(cycles_before_reset):
                await ctx.tick()
            assert ctx.get(dut.complete) == (cycles_before_reset >= dut.latency - 1)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            for _ in range(5):
                assert ctx.get(dut.complete) == 0
                await ctx.tick()

    simulator = Simulator(ResetInserter(reset)(dut))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_beat_layout():
    layout = beat_layout(rows=3, lanes=2, digit_bits=4)
    offsets = {name: field.offset for name, field in layout}
    assert offsets == {
        "activations": 0,
        "weights": 8,
        "first": 32,
        "shift": 33,
        "last": 34,
        "ones": 35,
        "tile_last": 36,
    }
    assert layout["weights"].shape == data.ArrayLayout(data.ArrayLayout(4, 2), 3)


def test_drain_holds_and_repeats():
    """Nothing moves without advance, and the ones row does not move at all."""
    dut = MacArray(rows=3, lanes=1, digit_bits=4, acc_bits=8, drain_rows=2)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(
            dut.i.payload,
            {"activations": [2], "weights": [[1], [2], [3]], "first": 1, "last": 1, "ones": 1},
        )
        await ctx.tick()
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(dut.latency)
        ctx.set(dut.capture, 1)
        await ctx.tick()
        ctx.set(dut.capture, 0)
        for _ in range(3):
            assert (ctx.get(dut.o_rows[0]), ctx.get(dut.o_rows[1]), ctx.get(dut.o_ones)) == (2, 4, 2)
            await ctx.tick()
        ctx.set(dut.advance, 1)
        await ctx.tick()
        ctx.set(dut.advance, 0)
        assert (ctx.get(dut.o_rows[0]), ctx.get(dut.o_ones)) == (6, 2)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("digit_bits", "pipeline", "held"),
    [(4, 0, True), (4, 1, False), (4, 2, False), (8, 0, True), (8, 1, False), (8, 2, True), (16, 2, True)],
)
def test_sums_of_pairs_are_held_where_no_register_leaves_time_for_them(digit_bits, pipeline, held):
    dut = MacArray(rows=1, lanes=2, digit_bits=digit_bits, acc_bits=2 * digit_bits, form=Form.PAIRS, pipeline=pipeline)
    assert bool(re.search(r"^ *reg .*\bpair_sums_n\b", generate(dut), re.MULTILINE)) is held


GOOD = {"rows": 4, "lanes": 2, "digit_bits": 2, "acc_bits": 8}


def test_init():
    dut = MacArray(**GOOD)
    assert (dut.rows, dut.lanes, dut.digit_bits, dut.acc_bits, dut.drain_rows) == (4, 2, 2, 8, 1)
    assert (dut.pipeline, dut.latency) == (0, 2)
    dut = MacArray(**GOOD | {"digit_bits": 8, "acc_bits": 16, "drain_rows": 4})
    assert (dut.pipeline, dut.latency, dut.drain_rows) == (1, 3, 4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rows": 0}, "Number of rows must be at least 1, not 0"),
        ({"lanes": 0}, "Number of lanes must be at least 1, not 0"),
        ({"digit_bits": 5}, "Digit width must be 1, 2, 4, 8 or 16, not 5"),
        ({"acc_bits": 3}, "Accumulator width must be at least 4, not 3"),
        ({"drain_rows": 0}, "Number of drain rows must be between 1 and 4, not 0"),
        ({"drain_rows": 5}, "Number of drain rows must be between 1 and 4, not 5"),
    ],
)
def test_init_wrong(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        MacArray(**GOOD | change)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("rows", "Number of rows"),
        ("lanes", "Number of lanes"),
        ("digit_bits", "Digit width"),
        ("acc_bits", "Accumulator width"),
        ("drain_rows", "Number of drain rows"),
    ],
)
def test_init_wrong_type(name, title):
    with pytest.raises(TypeError, match=f"^{title} must be an integer, not '2'$"):
        MacArray(**GOOD | {name: "2"})
