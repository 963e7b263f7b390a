"""Two-level scales against ONNX Runtime, exact fractions and plain loops; extremes, the file, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from golden import file, vectors
from golden.execute import accumulate, execute, vector_quantize
from golden.network import (
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    NetworkError,
    Tensor,
    VectorQuantize,
    VectorScales,
)
from golden.tests import onnx_runtime
from golden.tests.test_execute import assert_equals_onnx_runtime
from golden.tests.test_file import assert_same

X = Tensor("x", (5, 2, 2), bits=4, zero_point=3, scale=0.5, vector_scales=VectorScales(np.array([7, 0, 2]), 3, 2))
CODES = np.arange(15).reshape(3, 5, 1, 1)
SCALES = VectorScales(np.arange(9).reshape(3, 3, 1, 1), 4, 2)
LOGITS = Tensor("y", (3, 2, 2), Kind.ACCUMULATOR, 30, slope=np.ones(3), offset=np.zeros(3))
CONV = Conv2d("c", "x", "y", CODES, 4, Grid.TWOS_COMPLEMENT, vector_scales=SCALES, product_shift=2)


def scaled(network_maker, seed=0, bits=4, grid=Grid.ODD, shift=0):
    """A stem, a convolution with scales on both sides, a pool, a residual sum, dynamic scales, a broadcast layer."""
    maker = network_maker(seed, (3, 6, 6), 8, zero_point=7)
    maker.conv(5, bits=bits, grid=grid, padding=(1, 1, 1, 1), out_scales=(4, 2), scales=(3, 2))
    stem = maker.pool()
    block = maker.conv(5, bits=bits, grid=grid, padding=(1, 1, 1, 1), scales=(5, 2), product_shift=shift, skip=stem)
    maker.conv(7, (1, 1), bits=bits, grid=grid, out_bits=7, source=block, scales=(4, 3))
    maker.vector_quantize(4, 3, 3)
    maker.conv(4, (2, 2), bits=bits, grid=grid, scales=(2, 4), out_bits=5, out_scales=(6, 4), out_zero=4)
    maker.conv(3, (1, 1), bits=8, out_bits=None, broadcast=True, scales=(6, 4), product_shift=shift)
    return maker


@pytest.mark.parametrize("shift", [0, 4])
def test_whole_networks(network_maker, grid, shift):
    assert_equals_onnx_runtime(scaled(network_maker, 3, grid=grid, shift=shift))


@pytest.mark.parametrize("vector", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("sides", ["weights", "codes", "both", "both, rounded"])
def test_every_side_and_vector(network_maker, vector, sides):
    """7 channels: the last vector is short, or the only one."""
    maker = network_maker(vector, (2, 4, 4), 6)
    maker.conv(7, (1, 1), bits=3, out_bits=4, out_zero=5, out_scales=None if sides == "weights" else (4, vector))
    maker.conv(4, bits=4, out_bits=None, padding=(1, 0, 1, 0), product_shift=3 if "rounded" in sides else 0,
               scales=None if sides == "codes" else (5, vector))  # fmt: skip
    assert_equals_onnx_runtime(maker)


@pytest.mark.parametrize("options", [{"groups": 2}, {"groups": 6, "padding": (1, 1, 1, 1)},
                                     {"groups": 3, "stride": (2, 1), "dilation": (1, 2)}], ids=str)  # fmt: skip
def test_groups(network_maker, options):
    """A group's channels need not begin with a vector of the tensor: a product is that of its own two scales."""
    maker = network_maker(8, (2, 5, 6), 6)
    maker.conv(6, (1, 1), bits=3, out_bits=4, out_scales=(4, 4))
    maker.conv(12, bits=4, out_bits=None, scales=(5, 4), product_shift=2, **options)
    assert_equals_onnx_runtime(maker)


@pytest.mark.parametrize(("bits", "scale_bits", "vector"), [(1, 2, 4), (4, 4, 2), (2, 1, 3), (8, 8, 5), (3, 9, 16)])
def test_dynamic_scales(network_maker, bits, scale_bits, vector):
    maker = network_maker(bits, (5, 4, 4), bits + scale_bits)
    maker.vector_quantize(bits, scale_bits, vector)
    network, x = maker.network(), maker.input(4)
    x[0] = 0
    x[1] = (1 << bits + scale_bits) - 1
    x[2] >>= x[2] % (bits + scale_bits)
    expected = onnx_runtime.executed(network, x)
    np.testing.assert_array_equal(execute(network, x)["quantize0_out"], expected["quantize0_out"])


@pytest.mark.parametrize(("bits", "scale_bits"), [(1, 1), (2, 2), (3, 2), (2, 4)])
def test_the_dynamic_scale_is_the_smallest_that_covers_its_vector(bits, scale_bits):
    """Every pair of codes, by search and exact fractions."""
    size, top, most = 1 << bits + scale_bits, (1 << bits) - 1, (1 << scale_bits) - 1
    pairs = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(-1, 2, 1, 1)
    found = vector_quantize(pairs.astype(np.uint8), VectorQuantize("q", "x", "y", bits, scale_bits, 2))
    for pair, results in zip(pairs[:, :, 0, 0].tolist(), found[:, :, 0, 0].tolist(), strict=True):
        scale = next((s for s in range(most + 1) if s * top >= max(pair)), most)
        for code, result in zip(pair, results, strict=True):
            coarse = min(int(Fraction(code, scale) + Fraction(1, 2)), top) if scale else 0
            assert result == scale * coarse
            if max(pair) <= top * most:
                assert 2 * abs(result - code) <= scale


def test_the_definition_in_fractions(network_maker):
    """acc stands for the sum of products of real values, exactly where products are not rounded."""
    maker = network_maker(2, (5, 4, 3), 4, zero_point=6)
    maker.tensors[0] = replace(maker.tensors[0], vector_scales=maker.scales(4, 2, (5,), 0))
    for shift in (0, 3):
        maker.tensors, maker.operations = maker.tensors[:1], []
        maker.conv(4, (2, 2), bits=3, out_bits=None, padding=(1, 0, 0, 1), scales=(3, 2), product_shift=shift)
        network, x = maker.network(), maker.input(2)
        source, (operation,) = network.input, network.operations
        acc = execute(network, x)["conv0_out"]
        own, given = operation.vector_scales.codes.tolist(), source.vector_scales.codes.tolist()
        for (n, o, oy, ox), value in np.ndenumerate(acc):
            total, real = 0, Fraction(0)
            for c, ky, kx in np.ndindex(5, 2, 2):
                y, column = oy - 1 + ky, ox + kx
                code = int(x[n, c, y, column]) if 0 <= y < 4 and column < 3 else 6
                weight, scale = int(operation.weights[o, c, ky, kx]), own[o][c // 2][ky][kx]
                product = Fraction(scale * given[c // 2], 2**shift)
                total += int(product + Fraction(1, 2)) * weight * code
                real += Fraction(source.scale) * given[c // 2] * (code - 6) * scale * weight
            assert value == total
            if shift == 0:
                offset = 6 * int(operation.scaled_weights(source)[o].sum())
                assert Fraction(source.scale) * (int(value) - offset) == real


def test_a_scale_of_0_silences_its_vector(network_maker):
    maker = network_maker(1, (4, 3, 3), 8)
    maker.conv(2, bits=4, out_bits=None, scales=(4, 2))
    operation = maker.operations[0]
    codes = operation.vector_scales.codes.copy()
    codes[:, 1] = 0
    maker.operations[0] = replace(operation, vector_scales=VectorScales(codes, 4, 2))
    network, x = maker.network(), maker.input(2)
    other = x.copy()
    other[:, 2:] = 255 - other[:, 2:]
    np.testing.assert_array_equal(execute(network, x)["conv0_out"], execute(network, other)["conv0_out"])


@pytest.mark.parametrize(("code", "scale", "shift"), [(0, 65535, 0), (15, 65535, 0), (15, 65535, 17), (15, 3, 2)])
def test_the_largest_products_reach_the_bounds(code, scale, shift):
    """Widest scales, longest sums: bounds and sums beyond 2**53 stay exact."""
    scales = VectorScales(np.full((1, 16, 3, 3), scale), 16, 16)
    operation = Conv2d("c", "x", "y", np.full((1, 256, 3, 3), code), 4, Grid.ODD, vector_scales=scales,
                       product_shift=shift)  # fmt: skip
    source = Tensor("x", (256, 3, 3), bits=8, vector_scales=VectorScales(np.full(16, scale), 16, 16))
    output = Tensor("y", (1, 1, 1), Kind.ACCUMULATOR, 63, slope=np.ones(1), offset=np.zeros(1))
    network = IntegerNetwork("extreme", (source, output), (operation,))
    product = (scale**2 + (1 << shift >> 1)) >> shift
    x = np.full((1, 256, 3, 3), 255, np.uint8)
    acc = execute(network, x)["y"].item()
    assert acc == (2 * code - 15) * product * 255 * 256 * 9
    lo, hi = network.accumulator_bounds(operation)
    assert acc == (lo if code == 0 else hi).item() and lo.dtype == np.int64
    x[0, 0, 0, 0] = 254
    assert execute(network, x)["y"].item() == acc - (2 * code - 15) * product


def test_sums_beyond_63_bits_are_refused():
    scales = VectorScales(np.full((1, 64, 3, 3), 65535), 16, 16)
    operation = Conv2d("c", "x", "y", np.full((1, 1024, 3, 3), 0), 16, Grid.ODD, vector_scales=scales)
    source = Tensor("x", (1024, 3, 3), bits=16, vector_scales=VectorScales(np.full(64, 65535), 16, 16))
    output = Tensor("y", (1, 1, 1), Kind.ACCUMULATOR, 63, slope=np.ones(1), offset=np.zeros(1))
    lo, _ = operation.accumulator_bounds(source)
    assert lo.item() == -(65535**4) * 1024 * 9
    with pytest.raises(NetworkError, match=r"^Accumulators of operation 'c' must fit 63 bits, not 79$"):
        IntegerNetwork("extreme", (source, output), (operation,))


def test_without_scales_nothing_is_different(small):
    network, maker = small
    x = maker.input()
    for operation in network.operations:
        if isinstance(operation, Conv2d):
            ones = VectorScales(np.ones((*operation.codes.shape[:1], 1, *operation.codes.shape[2:]), int), 1, 64)
            source = network.tensor(operation.input)
            by_1 = replace(operation, vector_scales=ones)
            for bounds in zip(operation.accumulator_bounds(source), by_1.accumulator_bounds(source), strict=True):
                np.testing.assert_array_equal(*bounds)
            codes = execute(network, x)[operation.input]
            expected = accumulate(codes, operation, network)
            np.testing.assert_array_equal(accumulate(codes, by_1, network), expected)


def test_the_value_of_a_channel():
    np.testing.assert_array_equal(X.channel_scale, [3.5, 3.5, 0, 0, 1])
    np.testing.assert_array_equal(replace(X, vector_scales=None).channel_scale, [0.5] * 5)


def refused(sentence, make):
    with pytest.raises(NetworkError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((np.array([1]), 17, 2), r"^Bits of vector scales must be an integer between 1 and 16, not 17$"),
        ((np.array([1]), 3, 0), r"^Vector of vector scales must be an integer between 1 and 65536, not 0$"),
        ((np.array([8]), 3, 2), r"^Vector scales must fit 3 bits, not 8$"),
        ((np.array([1.0]), 3, 2), r"^Vector scales must be uint8 numbers, not float64$"),
        ((np.array([-1]), 3, 2), r"^Vector scales must be between 0 and 255, not -1\.\.-1$"),
    ],
)
def test_wrong_scales(arguments, sentence):
    refused(sentence, lambda: VectorScales(*arguments))


SHORT = VectorScales(np.ones(2, int), 3, 2)


@pytest.mark.parametrize(
    ("item", "change", "sentence"),
    [
        (X, {"vector_scales": SHORT}, r"^Vector scales of tensor 'x' must have shape \(3,\), not \(2,\)$"),
        (X, {"vector_scales": 5}, r"^Vector scales of tensor 'x' must be VectorScales, not 5$"),
        (LOGITS, {"vector_scales": SHORT},
         r"^Vector scales of tensor 'y' must be absent, since it holds accumulators$"),
        (CONV, {"vector_scales": SHORT},
         r"^Vector scales of operation 'c' must have shape \(3, 3, 1, 1\), not \(2,\)$"),
        (CONV, {"product_shift": 32}, r"^Product shift of operation 'c' must be an integer between 0 and 31, not 32$"),
        (CONV, {"vector_scales": None},
         r"^Product shift of operation 'c' must be 0 without vector scales, not 2$"),
    ],
)  # fmt: skip
def test_scales_in_wrong_places(item, change, sentence):
    refused(sentence, lambda: replace(item, **change))


def test_scales_that_do_not_suit_the_network():
    IntegerNetwork("n", (X, LOGITS), (CONV,))
    refused(
        r"^Product shift of operation 'c' must be 0, since tensor 'x' has no vector scales, not 2$",
        lambda: IntegerNetwork("n", (replace(X, vector_scales=None), LOGITS), (CONV,)),
    )
    wider = replace(X, vector_scales=VectorScales(np.ones(2, int), 1, 4))
    refused(
        r"^Vectors of operation 'c' must have the 4 channels of those of tensor 'x', not 2$",
        lambda: IntegerNetwork("n", (wider, LOGITS), (CONV,)),
    )


def test_a_pool_keeps_the_scales(network_maker):
    maker = network_maker(0, (4, 4, 4), 4)
    maker.tensors[0] = replace(maker.tensors[0], vector_scales=maker.scales(4, 2, (4,), 0))
    maker.pool()
    network = maker.network()
    for scales in (None, VectorScales(network.input.vector_scales.codes, 4, 3),
                   VectorScales(network.input.vector_scales.codes ^ 1, 4, 2)):  # fmt: skip
        output = replace(network.output, vector_scales=scales)
        refused(
            r"^Output of operation 'pool0' must have its input's bits and scale$",
            lambda output=output: IntegerNetwork("n", (network.input, output), network.operations),
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 16}, r"^Bits of operation 'q' must be an integer between 1 and 15, not 16$"),
        ({"scale_bits": 0}, r"^Scale bits of operation 'q' must be an integer between 1 and 15, not 0$"),
        ({"vector": 0}, r"^Vector of operation 'q' must be an integer between 1 and 65536, not 0$"),
        ({"bits": 3}, r"^Input of operation 'q' must have 5 bits, zero point 0 and no vector scales, not 6 bits, "
                      r"zero point 0 and no vector scales$"),
    ],
)  # fmt: skip
def test_wrong_vector_quantize(change, sentence):
    tensors = (Tensor("x", (2, 2, 2), bits=6), Tensor("y", (2, 2, 2), bits=6))
    operation = VectorQuantize("q", "x", "y", 4, 2, 2)
    IntegerNetwork("n", tensors, (operation,))
    refused(sentence, lambda: IntegerNetwork("n", tensors, (replace(operation, **change),)))


@pytest.mark.parametrize(
    ("source", "output", "sentence"),
    [
        ({"zero_point": 1}, {"zero_point": 1}, r"^Input of operation 'q' must have 6 bits, zero point 0 and no vector "
                                               r"scales, not 6 bits, zero point 1 and no vector scales$"),
        ({"vector_scales": VectorScales(np.ones(1, int), 1, 2)}, {"vector_scales": VectorScales(np.ones(1, int), 1, 2)},
         r"^Input of operation 'q' must .*, not 6 bits, zero point 0 and vector scales$"),
        ({}, {"scale": 2.0}, r"^Output of operation 'q' must have its input's bits and scale$"),
        ({}, {"shape": (2, 1, 2)}, r"^Output of operation 'q' must have shape \(2, 2, 2\), not \(2, 1, 2\)$"),
    ],
)  # fmt: skip
def test_vector_quantize_of_wrong_tensors(source, output, sentence):
    tensors = (replace(Tensor("x", (2, 2, 2), bits=6), **source), replace(Tensor("y", (2, 2, 2), bits=6), **output))
    refused(sentence, lambda: IntegerNetwork("n", tensors, (VectorQuantize("q", "x", "y", 4, 2, 2),)))


def header(path):
    with safe_open(path, framework="numpy") as opened:
        return json.loads(opened.metadata()["pactolus"])


def test_the_file_carries_them(network_maker, tmp_path):
    network = scaled(network_maker, shift=3).network()
    file.save(network, tmp_path / "a")
    again = file.load(tmp_path / "a")
    for a, b in zip((*network.tensors, *network.operations), (*again.tensors, *again.operations), strict=True):
        assert_same(a, b)
    file.save(again, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert header(tmp_path / "a")["version"] == file.version(network) == 2


@pytest.mark.parametrize("name", vectors.committed())
def test_committed_networks_are_still_written_as_they_were(name, tmp_path):
    path = vectors.find(name) / "network.safetensors"
    file.save(file.load(path), tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == path.read_bytes() and header(path)["version"] == 1


@pytest.mark.parametrize("only", ["tensor", "weights", "operation"])
def test_each_of_them_needs_version_2(network_maker, only):
    maker = network_maker(0, (4, 3, 3), 8)
    if only == "operation":
        maker.vector_quantize(4, 4, 2)
    else:
        maker.conv(2, scales=(4, 2) if only == "weights" else None, out_scales=(4, 2) if only == "tensor" else None)
    assert file.version(maker.network()) == 2


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: d | {"version": 4}, r"': version must be one of 1, 2, 3, not 4$"),
        (lambda d: d | {"version": True}, r"': version must be one of 1, 2, 3, not True$"),
        (lambda d: d | {"version": 1}, r"': tensor 'x' must not have the unknown field 'vector_scales'$"),
        (lambda d: d | {"version": 1, "tensors": []},
         r"': operation 'conv0' must not have the unknown field 'vector_scales'$"),
        (lambda d: d | {"version": 1, "tensors": [], "operations": d["operations"][4:5]},
         r"': type of operation 'quantize4' must be one of conv2d, max_pool2d, add, not 'vector_quantize'$"),
        (lambda d: d["operations"][0].update(vector_scales=7) or d,
         r"': vector_scales of operation 'conv0' must be an object, not 7$"),
        (lambda d: d["operations"][0]["vector_scales"].update(gamma=1) or d,
         r"': vector_scales must not have the unknown field 'gamma'$"),
        (lambda d: d["operations"][0]["vector_scales"].pop("bits") and d,
         r"': vector_scales must have the field 'bits'$"),
        (lambda d: d["operations"][0]["vector_scales"].update(bits=1) or d,
         r"': Vector scales must fit 1 bits, not \d$"),
        (lambda d: d["operations"][0].update(vector_scales=None) or d,
         r"': arrays must all be used by the header, not so 'conv0\.vector_scales\.codes'$"),
    ],
)  # fmt: skip
def test_damaged_files(network_maker, tmp_path, damage, sentence):
    path = tmp_path / "n"
    file.save(scaled(network_maker).network(), path)
    arrays = load_arrays(path.read_bytes())
    path.write_bytes(save_arrays(arrays, metadata={"pactolus": json.dumps(damage(header(path)))}))
    with pytest.raises(NetworkError, match=sentence) as caught:
        file.load(path)
    assert str(path) in str(caught.value)


def test_vector_folders_hold_the_scales(network_maker, tmp_path):
    maker = scaled(network_maker)
    network, x = maker.network(), maker.input(2)
    vectors.write(tmp_path, network, x, seed=0)
    again, values = vectors.read(tmp_path)
    for name, value in execute(again, x).items():
        np.testing.assert_array_equal(values[name], value)
    scales = network.operation("conv0").vector_scales.codes
    lines = (tmp_path / "hex" / "conv0.scales.hex").read_text().split()
    assert [int(line, 16) for line in lines] == scales.ravel().tolist()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["versions"]["network file"] == 2 and "hex/conv0_out.scales.hex" in manifest["sha256"]
