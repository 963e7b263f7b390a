"""Codes by comparison: against a plain count, ONNX Runtime, the file, and what is not well formed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from golden import file, vectors
from golden.execute import execute
from golden.network import NetworkError, Tensor, Thresholds
from golden.onnx_export import agreement, compare, qcdq_model, qonnx_model
from golden.onnx_import import convert
from golden.tests.onnx_runtime import executed
from golden.tests.test_file import assert_same


@pytest.fixture
def compared(network_maker):
    """A network whose first layer compares: uneven thresholds, rising and falling channels, some never reached."""
    maker = network_maker(3, (3, 6, 6), 4, zero_point=2)
    maker.conv(5, (3, 3), padding=(1, 1, 1, 1), out_bits=3)
    maker.conv(4, (3, 3))
    network = maker.network()
    first, second = network.operations
    low, high = network.accumulator_bounds(first)
    rng = np.random.default_rng(4)
    values = np.sort(rng.integers(low.min() // 3, high.max() // 3, (5, 7)), axis=1)
    values[0, 4:] = high.max() + 1
    values[1, 2:5] = 0
    thresholds = Thresholds(values, np.array([False, True, False, True, True]))
    first = dataclasses.replace(first, requantize=None, thresholds=thresholds)
    return dataclasses.replace(network, operations=(first, second)), maker


def test_codes_are_counts(compared):
    network, maker = compared
    x = maker.input(20)
    values = execute(network, x)
    operation = network.operations[0]
    bare = dataclasses.replace(operation, thresholds=None)
    low, high = network.accumulator_bounds(operation)
    width = max(int(-low.min()), int(high.max())).bit_length() + 1
    acc_tensor = Tensor(operation.output, (5, 6, 6), bits=width, kind=type(network.output.kind).ACCUMULATOR,
                        slope=np.ones(5), offset=np.zeros(5))  # fmt: skip
    alone = dataclasses.replace(network, tensors=(network.input, acc_tensor), operations=(bare,))
    acc = execute(alone, x)[operation.output]
    signed = np.where(operation.thresholds.negate[None, :, None, None], -acc, acc)
    counts = (signed[..., None] >= operation.thresholds.values[None, :, None, None, :]).sum(axis=-1)
    np.testing.assert_array_equal(values[operation.output], counts)
    assert counts[:, 1:].min() == 0 and counts[:, 1:].max() >= 5 and counts[:, 0].max() <= 4


def test_onnx_runtime_counts_the_same(compared):
    network, maker = compared
    x = maker.input(5)
    values = execute(network, x)
    for name, expected in executed(network, x).items():
        np.testing.assert_array_equal(values[name], expected, err_msg=name)


def test_qonnx_counts_the_same_and_comes_back(compared):
    network, maker = compared
    x = maker.input(3)
    model = qonnx_model(network, batch=3)
    assert agreement(model)[0].different == 0
    for each in compare(network, model, x):
        assert each.different == 0, each
    result = convert(model)
    values, got = execute(network, x), execute(result.network, x)
    for name in result.tensors:
        if name in values:
            np.testing.assert_array_equal(got[result.tensors[name]], values[name], err_msg=name)
    with pytest.raises(NetworkError, match=r"^Operation '.*' must multiply and shift in QCDQ, not compare with thresh"):
        qcdq_model(network)


def test_file_and_vectors(compared, tmp_path):
    network, maker = compared
    assert file.version(network) == 3
    file.save(network, tmp_path / "n")
    for a, b in zip(network.operations, file.load(tmp_path / "n").operations, strict=True):
        assert_same(a, b)
    vectors.write(tmp_path / "v", network, maker.input(1), seed=0)
    vectors.read(tmp_path / "v")
    operation = network.operations[0]
    lines = (tmp_path / "v" / "hex" / f"{operation.name}.thresholds.hex").read_text().split()
    assert len(lines) == 5 and all(len(line) == 1 + 7 * 16 for line in lines)
    assert int(lines[1][0]) == 1 and int(lines[0][-16:], 16) == int(operation.thresholds.values[0, 0]) & (1 << 64) - 1


def test_refusals(compared):
    network, _ = compared
    operation = network.operations[0]
    given = operation.thresholds

    def refused(sentence, make):
        with pytest.raises(NetworkError, match=sentence):
            make()

    values, negate = given.values, given.negate
    refused(r"^Thresholds must have 2\*\*k - 1 values per channel, not shape \(5, 6\)$",
            lambda: Thresholds(values[:, :6], negate))  # fmt: skip
    refused(r"^Thresholds must be ascending in every channel$", lambda: Thresholds(values[:, ::-1], negate))
    refused(r"^Negate of thresholds must be 5 booleans, not int64 of shape \(5,\)$",
            lambda: Thresholds(values, negate.astype(np.int64)))  # fmt: skip
    refused(r"^Thresholds of operation '.*' must have 5 channels, not 4$",
            lambda: dataclasses.replace(operation, thresholds=Thresholds(values[:4], negate[:4])))  # fmt: skip
    refused(r"^Thresholds of operation '.*' must be Thresholds, not 3$",
            lambda: dataclasses.replace(operation, thresholds=3))  # fmt: skip
    constants = network.operations[1].requantize
    assert constants is not None
    both = Thresholds(values[:4], negate[:4])
    refused(r"^Operation '.*' must have a requantization or thresholds, not both$",
            lambda: dataclasses.replace(network.operations[1], thresholds=both))  # fmt: skip
    narrow = dataclasses.replace(operation, thresholds=Thresholds(values[:, :3], negate))
    refused(r"^Thresholds of operation '.*' must be 7 per channel, not 3$",
            lambda: dataclasses.replace(network, operations=(narrow, network.operations[1])))  # fmt: skip
