# amaranth: UnusedElaboratable=no
"""Rows with two-level scales against the definition in plain integers: products, rounding, stalls, refusals."""

import itertools
import random
import re

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.network import Conv2d, Grid, Tensor, VectorScales
from hw.config import UnsupportedNetworkError
from hw.scaled_array import ScaledArray
from hw.scaled_row import MultiplyAdd, ScaledRow, ScaleProduct, Triple, best_triple, product_bits, vector_bits
from hw.tests.clocked import simulate


def scale_product(w, a, shift):
    return w * a if shift == 0 else (w * a + (1 << shift - 1)) >> shift


@pytest.mark.parametrize(
    ("w_bits", "a_bits", "shift"), [(1, 1, 0), (4, 4, 0), (4, 4, 4), (3, 5, 1), (4, 3, 6), (1, 1, 2), (2, 4, 9)]
)
def test_every_scale_product(w_bits, a_bits, shift):
    dut = ScaleProduct(weight_scale_bits=w_bits, activation_scale_bits=a_bits, product_shift=shift)

    async def bench(ctx):
        for w, a in itertools.product(range(1 << w_bits), range(1 << a_bits)):
            ctx.set(dut.w, w)
            ctx.set(dut.a, a)
            assert ctx.get(dut.o) == scale_product(w, a, shift), (w, a)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    largest = scale_product((1 << w_bits) - 1, (1 << a_bits) - 1, shift)
    assert dut.product_bits == max(1, largest.bit_length())


@pytest.mark.parametrize("triple", [False, True])
@pytest.mark.parametrize(("a_bits", "b_bits", "width"), [(1, 1, 1), (1, 3, 5), (4, 2, 4), (4, 3, 7), (3, 4, 12)])
def test_multiply_add(a_bits, b_bits, width, triple):
    """Every pair of factors with corner and random addends, modulo wraps included."""
    dut = MultiplyAdd(a_bits=a_bits, b_bits=b_bits, width=width, triple=triple, late=triple)
    rng = random.Random(1)
    top = (1 << width) - 1

    async def bench(ctx):
        for a, b in itertools.product(range(-(1 << a_bits - 1), 1 << a_bits - 1), range(1 << b_bits)):
            for addend in (0, top, rng.randint(0, top)):
                ctx.set(dut.a, a)
                ctx.set(dut.b, b)
                ctx.set(dut.addend, addend)
                if triple:
                    ctx.set(dut.triple, 3 * a)
                assert ctx.get(dut.result) == (addend + a * b) % (1 << width), (a, b, addend)

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_widths():
    assert vector_bits(lanes=16, weight_bits=4, activation_bits=4) == 12
    assert vector_bits(lanes=16, weight_bits=8, activation_bits=8) == 20
    assert vector_bits(lanes=16, weight_bits=4, activation_bits=4, odd_grid=True) == 13
    assert vector_bits(lanes=1, weight_bits=1, activation_bits=1) == 1
    assert product_bits(weight_scale_bits=4, activation_scale_bits=4, product_shift=0) == 8
    assert product_bits(weight_scale_bits=4, activation_scale_bits=4, product_shift=4) == 4
    assert product_bits(weight_scale_bits=4, activation_scale_bits=4, product_shift=9) == 1
    assert product_bits(weight_scale_bits=6, activation_scale_bits=0, product_shift=0) == 6
    assert best_triple(vector_bits=12, product_bits=4) is Triple.NONE
    assert best_triple(vector_bits=12, product_bits=8) is Triple.MADE
    assert best_triple(vector_bits=20, product_bits=11) is Triple.STORED


def digits(code, digit_bits, count):
    return [code >> digit_bits * i & (1 << digit_bits) - 1 for i in range(count)]


def vector_beats(dut, u, n, weight_bits, activation_bits, scales, first, last):
    """The beats of one vector: codes u of the lanes, codes n of rows and lanes, (a, w of the rows)."""
    a, w = scales
    common = {"first": int(first), "last": int(last)}
    if not dut.passes:
        yield {"activations": u, "weights": n, "weight_scales": w, "activation_scale": a, **common}
        return
    count_w, count_u = -(-weight_bits // dut.digit_bits), -(-activation_bits // dut.digit_bits)
    cut_w = [[digits(code, dut.digit_bits, count_w) for code in row] for row in n]
    cut_u = [digits(code, dut.digit_bits, count_u) for code in u]
    pairs = sorted(itertools.product(range(count_w), range(count_u)), key=lambda pair: -sum(pair))
    before = None
    for number, (i, j) in enumerate(pairs):
        yield {
            "activations": [code[j] for code in cut_u],
            "weights": [[code[i] for code in row] for row in cut_w],
            "weight_scales": w,
            "activation_scale": a,
            **common,
            "vector_first": int(number == 0),
            "shift": int(before is not None and i + j < before),
            "ones": int(i == 0),
            "vector_last": int(number == len(pairs) - 1),
        }
        before = i + j


def run(dut, layers, *, seed=0):
    """Feed the positions of layers (positions, weight bits, odd, probability of a stall) and capture them at once."""
    rng = random.Random(seed)
    groups = -(-dut.rows // dut.drain_rows)
    drained = []

    async def layer(ctx, positions, weight_bits, odd, stall):
        payload = dut.i.payload
        ctx.set(dut.weight_bits, weight_bits)
        if dut.odd_grid:
            ctx.set(dut.odd, odd)
        rows, due = None, 0
        queue = [beat for position in positions for beat in position]
        idle = 0
        while idle < dut.latency + groups + 2:
            valid = bool(queue) and rng.random() >= stall
            ctx.set(dut.i.valid, valid)
            # What stands on the port without valid, flags included, must not matter.
            ctx.set(payload.as_value(), rng.getrandbits(len(payload.as_value())))
            if valid:
                for name, value in queue.pop(0).items():
                    if name != "activation_scale" or dut.activation_scale_bits:
                        ctx.set(getattr(payload, name), value)
            idle = 0 if queue or valid else idle + 1
            capture = ctx.get(dut.complete)
            if rows is not None:
                rows += [ctx.get(dut.o_rows[lane]) for lane in range(dut.drain_rows)]
                due -= 1
                if due == 0:
                    drained.append(rows[: dut.rows])
                    rows = None
            ctx.set(dut.capture, capture)
            ctx.set(dut.advance, rows is not None or rng.getrandbits(1))
            if capture:
                assert rows is None, "positions must be long enough to drain the one before"
                rows, due = [], groups
            await ctx.tick()

    async def bench(ctx):
        for each in layers:
            await layer(ctx, *each)

    simulate(dut, bench)
    return drained


def case(dut, *, weight_bits, activation_bits, grid, count, seed, biggest=False, vectors=None):
    """Positions of random vectors, and their accumulators as golden defines them."""
    rng = random.Random(seed)

    def code(bits):
        return (1 << bits) - 1 if biggest else rng.choice([0, (1 << bits) - 1, rng.getrandbits(bits)])

    positions, expected = [], []
    for _ in range(count):
        beats, sums = [], [0] * dut.rows
        length = vectors or rng.randint(-(-dut.rows // dut.drain_rows), 5)
        for number in range(length):
            u = [code(activation_bits) for _ in range(dut.lanes)]
            n = [[code(weight_bits) for _ in range(dut.lanes)] for _ in range(dut.rows)]
            a = code(dut.activation_scale_bits) if dut.activation_scale_bits else 1
            w = [code(dut.weight_scale_bits) for _ in range(dut.rows)]
            beats += vector_beats(dut, u, n, weight_bits, activation_bits, (a, w), number == 0, number == length - 1)
            for row in range(dut.rows):
                signed = [grid.p(weight_bits) * x - grid.c(weight_bits) for x in n[row]]
                product = scale_product(w[row], a, dut.product_shift)
                sums[row] += product * sum(x * y for x, y in zip(signed, u, strict=True))
        positions.append(beats)
        expected.append(sums)
    return positions, expected


SHAPES = {
    name: dict(zip(("lanes", "digit_bits", "weight_scale_bits", "activation_scale_bits", "product_shift"), values))
    for name, values in {
        "4/4 full": (6, 4, 4, 4),
        "4/4 rounded": (5, 4, 6, 5, 6),
        "4/4 static": (4, 4, 7, 0),
        "8/8 rounded": (2, 8, 8, 8, 3),
        "1/1": (9, 1, 1, 3),
        "one lane": (1, 2, 2, 2, 4),
    }.items()
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("4/4 full", {"pipeline": 0, "triple": "none"}, marks=pytest.mark.slow),
        ("4/4 full", {"pipeline": 1, "triple": "made", "odd_grid": True}),
        ("4/4 rounded", {"pipeline": 0, "triple": "stored", "odd_grid": True}),
        ("4/4 rounded", {"pipeline": 2}),
        ("4/4 static", {"pipeline": 0, "odd_grid": True}),
        pytest.param("4/4 static", {"pipeline": 1, "triple": "stored"}, marks=pytest.mark.slow),
        ("8/8 rounded", {"odd_grid": True}),
        ("1/1", {"odd_grid": True}),
        pytest.param("one lane", {}, marks=pytest.mark.slow),
        ("one lane", {"odd_grid": True}),
    ],
)
def test_one_pass(name, options):
    """The narrowest and the widest weights, both grids on one array, stalls, corners and the largest sums."""
    dut = ScaledArray(**SHAPES[name], rows=3, drain_rows=2, acc_bits=44, **options)
    d = dut.digit_bits
    layers, expected = [], []
    for grid in Grid if dut.odd_grid else [Grid.TWOS_COMPLEMENT]:
        for seed, weight_bits in enumerate((d, 1, d)):
            positions, sums = case(
                dut, weight_bits=weight_bits, activation_bits=d, grid=grid, count=5, seed=seed, biggest=seed == 2
            )
            layers.append((positions, weight_bits, grid is Grid.ODD, 0.3 * seed))
            expected += sums
    assert run(dut, layers) == expected


@pytest.mark.parametrize(
    ("d", "scales", "pipeline", "triple"),
    [
        (2, (4, 4, 0), 0, "made"),
        (4, (6, 4, 5), 1, "stored"),
        (4, (9, 0, 0), 2, "none"),
        (8, (10, 10, 10), 1, None),
    ],
)
def test_several_passes(d, scales, pipeline, triple):
    """Every number of digits on both grids, one after the other on one array."""
    dut = ScaledArray(
        rows=2, lanes=3, digit_bits=d, weight_scale_bits=scales[0], activation_scale_bits=scales[1],
        product_shift=scales[2], acc_bits=50, passes=True, odd_grid=True, max_weight_bits=16, max_activation_bits=9,
        pipeline=pipeline, triple=triple,
    )  # fmt: skip
    layers, expected = [], []
    for seed, (weight_bits, activation_bits) in enumerate([(4, 4), (1, 9), (16, 9), (8, 3)]):
        grid = list(Grid)[seed % 2]
        positions, sums = case(dut, weight_bits=weight_bits, activation_bits=activation_bits, grid=grid, count=3,
                               seed=seed, biggest=seed == 2)  # fmt: skip
        layers.append((positions, weight_bits, grid is Grid.ODD, 0.2 * seed))
        expected += sums
    assert run(dut, layers) == expected


@pytest.mark.parametrize(("d", "passes"), [(4, False), (4, True), (8, False), (8, True)])
def test_latency_and_back_to_back(d, passes):
    """Positions of one vector of one beat are complete for one cycle each; reset forgets nothing that is asked for."""
    scale = {"weight_scale_bits": d, "activation_scale_bits": d}
    dut = ScaledArray(rows=1, lanes=2, digit_bits=d, acc_bits=40, passes=passes, **scale)
    assert dut.latency == 3 + (d == 8) + passes

    async def bench(ctx):
        ctx.set(dut.weight_bits, 2)
        seen = []
        for cycle in range(12):
            ctx.set(dut.i.valid, cycle < 2)
            beat = {"activations": [1 + cycle % 2, 0], "weights": [[3, 0]], "activation_scale": 2, "weight_scales": [3],
                    "first": 1, "last": 1}  # fmt: skip
            if passes:
                beat |= {"vector_first": 1, "vector_last": 1, "ones": 1, "shift": 0}
            ctx.set(dut.i.payload, beat)
            if ctx.get(dut.complete):
                seen.append(cycle)
            ctx.set(dut.capture, ctx.get(dut.complete))
            await ctx.tick()
            if seen and seen[-1] == cycle:
                assert ctx.get(dut.o_rows[0]) == 6 * len(seen)
        assert seen == [dut.latency, dut.latency + 1]

    simulate(dut, bench)


GOOD = {"rows": 2, "lanes": 4, "digit_bits": 4, "weight_scale_bits": 4, "activation_scale_bits": 4, "acc_bits": 24}


def layer(*, vector=4, weight_scale_bits=4, activation_scale_bits=4, channels=8, groups=1, shift=0, **options):
    source = Tensor("x", (channels, 2, 2), bits=options.pop("activation_bits", 4))
    bits = options.pop("weight_bits", 4)
    codes = np.zeros((groups, channels // groups, 1, 1), int)
    if activation_scale_bits:
        scales = np.full(-(-channels // vector), (1 << activation_scale_bits) - 1)
        source = Tensor(
            "x", source.shape, bits=source.bits, vector_scales=VectorScales(scales, activation_scale_bits, vector)
        )
    scales = None
    if weight_scale_bits:
        shape = (groups, -(-channels // groups // vector), 1, 1)
        scales = VectorScales(np.full(shape, (1 << weight_scale_bits) - 1), weight_scale_bits, vector)
    grid = options.pop("grid", Grid.TWOS_COMPLEMENT)
    return Conv2d("conv", "x", "y", codes, bits, grid, groups=groups, vector_scales=scales, product_shift=shift), source


@pytest.mark.parametrize(
    ("needs", "array", "sentence"),
    [
        ({"vector": 3}, {}, "Vectors of layer 'conv' must be whole words of 4 channels, not of 3"),
        ({"vector": 6}, {}, "Vectors of layer 'conv' must be whole words of 4 channels, not of 6"),
        ({"groups": 4, "vector": 3}, {}, "Vectors of layer 'conv' must be whole words of 4 channels, not of 3"),
        ({"weight_scale_bits": 5}, {}, "Weight scales of layer 'conv' must be of at most 4 bits, not of 5"),
        ({"activation_scale_bits": 6}, {}, "Activation scales of layer 'conv' must be of at most 4 bits, not of 6"),
        ({"shift": 3}, {}, "Product shift of layer 'conv' must be 0, as in the array, not 3"),
        ({"weight_scale_bits": 0, "activation_scale_bits": 0}, {"product_shift": 2},
         "Product shift of layer 'conv' must be 2, as in the array, not 0"),
        ({}, {"activation_scale_bits": 0}, "Scale products of layer 'conv' must be of at most 4 bits, not of 8"),
        ({"weight_bits": 5}, {}, "Weight width of layer 'conv' must be at most 4, not 5"),
        ({"activation_bits": 8}, {}, "Activation width of layer 'conv' must be at most 4, not 8"),
        ({"activation_bits": 8}, {"passes": True}, "Activation width of layer 'conv' must be at most 4, not 8"),
        ({"grid": Grid.ODD}, {}, "Grid of layer 'conv' must be twos_complement, not odd"),
    ],
)  # fmt: skip
def test_refused_layers(needs, array, sentence):
    with pytest.raises(UnsupportedNetworkError, match=f"^{re.escape(sentence)}$"):
        ScaledArray(**GOOD | array).check(*layer(**needs))


@pytest.mark.parametrize(
    ("needs", "array"),
    [
        ({}, {}),
        ({"vector": 8}, {}),
        ({"vector": 16, "channels": 3}, {}),
        ({"groups": 4, "vector": 2}, {}),
        ({"shift": 5}, {"activation_scale_bits": 0}),
        ({"weight_scale_bits": 0, "activation_scale_bits": 0, "vector": 3}, {"activation_scale_bits": 0}),
        ({"weight_bits": 7, "grid": Grid.ODD}, {"passes": True, "max_weight_bits": 8, "odd_grid": True}),
    ],
)
def test_accepted_layers(needs, array):
    ScaledArray(**GOOD | array).check(*layer(**needs))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rows": 0}, "Number of rows must be at least 1, not 0"),
        ({"lanes": 0}, "Number of lanes must be at least 1, not 0"),
        ({"drain_rows": 3}, "Number of drain rows must be between 1 and 2, not 3"),
        ({"weight_scale_bits": 0}, "Width of weight scales must be between 1 and 16, not 0"),
        (
            {"weight_scale_bits": 33, "activation_scale_bits": 0},
            "Width of weight scales must be between 1 and 32, not 33",
        ),
        ({"activation_scale_bits": 17}, "Width of activation scales must be between 0 and 16, not 17"),
        ({"product_shift": 32}, "Product shift must be between 0 and 31, not 32"),
        ({"product_shift": 1, "activation_scale_bits": 0}, "Product shift must be between 0 and 0, not 1"),
        ({"triple": "both"}, "Triple must be one of none, made, stored, not 'both'"),
        ({"acc_bits": 9}, "Accumulator width must be at least 10, not 9"),
        ({"max_weight_bits": 5}, "Weight width must be between 1 and 4, not 5"),
        ({"max_activation_bits": 17, "passes": True}, "Activation width must be between 1 and 16, not 17"),
    ],
)
def test_init_wrong(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ScaledArray(**GOOD | change)


def test_init_wrong_row():
    with pytest.raises(ValueError, match=r"^Width of a vector's sum must be at least 8, not 7$"):
        ScaledRow(lanes=1, digit_bits=4, weight_scale_bits=1, activation_scale_bits=1, vector_bits=7, acc_bits=20)
