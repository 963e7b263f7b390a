"""The executor against ONNX Runtime's integer operators, against plain loops, and at its extremes."""

from __future__ import annotations

import numpy as np
import pytest

from golden.execute import accumulate, execute, weight_matrix, windows
from golden.network import Conv2d, Grid, IntegerNetwork, Kind, NetworkError, Tensor
from golden.tests import onnx_runtime


def assert_equals_onnx_runtime(maker, frames=3):
    network, x = maker.network(), maker.input(frames)
    got, expected = execute(network, x), onnx_runtime.executed(network, x)
    assert set(got) == set(expected) | {network.input.name}
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value, name)
    return got


def test_whole_networks(small):
    values = assert_equals_onnx_runtime(small[1])
    codes = np.concatenate([values[f"conv{i}_out"].ravel() for i in (0, 1)])
    assert len(np.unique(codes)) == 16  # every code occurs: the comparison is not about clipped zeros


@pytest.mark.parametrize("weight_bits", [1, 2, 3, 4, 7, 8, 9, 16])
@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_every_width_on_both_grids(network_maker, grid, weight_bits, bits):
    maker = network_maker(weight_bits * 17 + bits, (3, 5, 5), bits, zero_point=(1 << bits) // 3)
    maker.conv(4, bits=weight_bits, out_bits=bits, padding=(1, 1, 1, 1), grid=grid)
    maker.conv(4, bits=weight_bits, out_bits=None, grid=grid)
    assert_equals_onnx_runtime(maker)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": (2, 1)},
        {"stride": (3, 2), "padding": (0, 1, 2, 1)},
        {"dilation": (2, 1), "padding": (2, 0, 1, 0)},
        {"dilation": (1, 3), "stride": (2, 2), "padding": (1, 3, 1, 3)},
        {"groups": 2},
        {"groups": 6, "padding": (1, 1, 1, 1)},
        {"kernel": (1, 1)},
        {"kernel": (1, 5), "padding": (0, 2, 0, 2)},
        {"kernel": (7, 9)},
        {"kernel": (1, 1), "broadcast": True},
    ],
    ids=str,
)
def test_every_geometry(network_maker, grid, options):
    maker = network_maker(1, (6, 7, 9), 4, zero_point=5)
    maker.conv(12, **{"kernel": (3, 3)} | options, bits=3, out_bits=None, grid=grid)
    assert_equals_onnx_runtime(maker)


def test_one_dimensional_signals(network_maker, grid):
    maker = network_maker(3, (4, 1, 30), 8, zero_point=128)
    maker.conv(6, (1, 5), stride=(1, 2), padding=(0, 2, 0, 2), grid=grid)
    maker.pool((1, 3), (1, 2))
    maker.conv(3, (1, 1), out_bits=None, grid=grid)
    assert_equals_onnx_runtime(maker)


@pytest.mark.parametrize(
    "pool",
    [((2, 2), (2, 2)), ((3, 3), (2, 2), (1, 1, 1, 1)), ((3, 2), (1, 2), (0, 1, 2, 0)), ((8, 8), (1, 1))],
    ids=str,
)
def test_max_pools(network_maker, pool):
    maker = network_maker(4, (3, 8, 8), 8)
    maker.pool(*pool)
    assert_equals_onnx_runtime(maker)


def test_add(network_maker):
    maker = network_maker(5, (3, 6, 6), 8, zero_point=3)
    a = maker.conv(4, padding=(1, 1, 1, 1), out_bits=4)
    b = maker.conv(4, (1, 1), source="x", out_bits=8, out_zero=128)
    maker.add(a, b, out_bits=5)
    assert_equals_onnx_runtime(maker)


def test_plain_loops_agree(network_maker):
    """The definition written as loops over Python integers: padding is the zero point, order does not matter."""
    maker = network_maker(6, (4, 5, 6), 3, zero_point=2)
    maker.conv(4, (3, 2), bits=3, out_bits=None, stride=(2, 1), dilation=(1, 2), padding=(1, 0, 2, 1), groups=2)
    network, x = maker.network(), maker.input(2)
    (operation,) = network.operations
    got = execute(network, x)["conv0_out"]
    weights = operation.weights
    for (n, o, oy, ox), value in np.ndenumerate(got):
        total = 0
        for c in range(2):
            for ky in range(3):
                for kx in range(2):
                    y, xx = oy * 2 - 1 + ky, ox - 0 + kx * 2
                    inside = 0 <= y < 5 and 0 <= xx < 6
                    code = int(x[n, (o // 2) * 2 + c, y, xx]) if inside else 2
                    total += int(weights[o, c, ky, kx]) * code
        assert value == total


@pytest.mark.parametrize("code", ["smallest", "largest"])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_accumulator_extremes_reach_the_bounds(grid, code, bits):
    """All activations at the top, all weights at one end, the largest K that is handy."""
    top = (1 << bits) - 1
    codes = np.full((1, 512, 3, 3), 0 if code == "smallest" else top)
    operation = Conv2d("c", "x", "y", codes, bits, grid)
    output = Tensor("y", (1, 1, 1), Kind.ACCUMULATOR, 63, slope=np.ones(1), offset=np.zeros(1))
    network = IntegerNetwork("extreme", (Tensor("x", (512, 3, 3), bits=bits), output), (operation,))
    weight = grid.p(bits) * (0 if code == "smallest" else top) - grid.c(bits)
    acc = execute(network, np.full((1, 512, 3, 3), top, np.uint16))["y"]
    lo, hi = network.accumulator_bounds(operation)
    assert acc.item() == weight * top * 512 * 9 == (lo if code == "smallest" else hi).item()


@pytest.mark.parametrize("count", [258, 259, 2 * 259 + 1])
def test_sums_about_the_end_of_float32_are_exact(count):
    """From 259 terms on the sum of 255*255 is an odd number, or one beyond, that float32 does not have."""
    operation = Conv2d("c", "x", "y", np.full((1, count, 1, 1), 255), 8, Grid.ODD)
    output = Tensor("y", (1, 1, 1), Kind.ACCUMULATOR, 32, slope=np.ones(1), offset=np.zeros(1))
    network = IntegerNetwork("edge", (Tensor("x", (count, 1, 1)), output), (operation,))
    assert execute(network, np.full((1, count, 1, 1), 255))["y"].item() == count * 255 * 255


def test_sums_beyond_float64_are_exact(network_maker):
    """16-bit codes and weights over a large K pass 2**53 only in int64; the smallest difference must survive."""
    codes = np.full((1, 1 << 21, 1, 1), 65535)
    codes[0, 0] = 65534
    operation = Conv2d("c", "x", "y", codes, 16, Grid.ODD)
    output = Tensor("y", (1, 1, 1), Kind.ACCUMULATOR, 63, slope=np.ones(1), offset=np.zeros(1))
    with pytest.raises(NetworkError, match=r"^Shape of tensor 'x' must be between 1 and 65536, not"):
        Tensor("x", (1 << 21, 1, 1), bits=16)
    codes = codes.reshape(1, 1 << 15, 8, 8)
    operation = Conv2d("c", "x", "y", codes, 16, Grid.ODD)
    network = IntegerNetwork("wide", (Tensor("x", (1 << 15, 8, 8), bits=16), output), (operation,))
    x = np.full((1, 1 << 15, 8, 8), 65535, np.uint16)
    assert execute(network, x)["y"].item() == 65535 * (65535 * (1 << 21) - 2) > 1 << 52


def test_windows_and_weight_matrix_give_the_accumulators(small):
    network, maker = small
    values = execute(network, maker.input())
    for operation in network.operations:
        if not isinstance(operation, Conv2d):
            continue
        source, x = network.tensor(operation.input), values[operation.input]
        w = weight_matrix(operation, source).astype(np.int64)
        u = windows(x, operation, source).astype(np.int64)
        n = np.einsum("gok,ngpk->ngop", w, u)
        acc = operation.grid.p(operation.bits) * n - operation.grid.c(operation.bits) * u.sum(-1)[:, :, None]
        np.testing.assert_array_equal(
            acc.reshape(len(x), *network.tensor(operation.output).shape), accumulate(x, operation, network)
        )


def test_batches_are_split_without_a_trace(network_maker, monkeypatch):
    maker = network_maker(7, (2, 40, 40), 8)
    maker.conv(2, out_bits=None)
    network, x = maker.network(), maker.input(700)
    whole = execute(network, x)["conv0_out"]
    np.testing.assert_array_equal(whole[-1:], execute(network, x[-1:])["conv0_out"])


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((1, 1, 8, 8)), r"^Codes of tensor 'x' must be integers, not float64$"),
        (np.zeros((1, 8, 8), np.uint8), r"^Codes of tensor 'x' must have shape \(N, 1, 8, 8\), not \(1, 8, 8\)$"),
        (np.zeros((0, 1, 8, 8), np.uint8), r"^Codes of tensor 'x' must have shape \(N, 1, 8, 8\), not \(0, 1, 8, 8\)$"),
        (np.full((1, 1, 8, 8), -1), r"^Codes of tensor 'x' must be between 0 and 15, not -1\.\.-1$"),
        (np.full((1, 1, 8, 8), 16, np.uint8), r"^Codes of tensor 'x' must be between 0 and 15, not 16\.\.16$"),
    ],
)
def test_wrong_inputs(network_maker, x, sentence):
    maker = network_maker(0, (1, 8, 8), 4)
    maker.conv(2, out_bits=None)
    with pytest.raises(NetworkError, match=sentence):
        execute(maker.network(), x)
