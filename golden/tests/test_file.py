"""The network file: round trip, byte equality, and every kind of damage in one sentence."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from golden import file
from golden.execute import execute
from golden.network import NetworkError


def assert_same(a, b):
    assert type(a) is type(b)
    for field in fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        elif hasattr(left, "__dataclass_fields__"):
            assert_same(left, right)
        else:
            assert left == right


def test_round_trip(small, tmp_path):
    network, maker = small
    file.save(network, tmp_path / "n.safetensors")
    again = file.load(tmp_path / "n.safetensors")
    assert again.name == network.name
    for a, b in zip((*network.tensors, *network.operations), (*again.tensors, *again.operations), strict=True):
        assert_same(a, b)
    x = maker.input()
    for name, value in execute(network, x).items():
        np.testing.assert_array_equal(value, execute(again, x)[name])


def test_an_add_and_dilation_survive(network_maker, tmp_path):
    maker = network_maker(0, (2, 9, 9), 12, zero_point=9)
    a = maker.conv(2, dilation=(2, 3), padding=(2, 3, 2, 3), stride=(2, 1))
    b = maker.conv(2, (1, 1), source="x", stride=(2, 1))
    maker.add(a, b)
    network = maker.network()
    file.save(network, tmp_path / "n")
    for a, b in zip(network.operations, file.load(tmp_path / "n").operations, strict=True):
        assert_same(a, b)


def test_the_same_network_gives_the_same_bytes(small, tmp_path):
    network, _ = small
    file.save(network, tmp_path / "a")
    file.save(file.load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.fixture
def saved(small, tmp_path):
    """A saved network's path, header and arrays, and a function that writes them changed."""
    path = tmp_path / "n.safetensors"
    file.save(small[0], path)
    with safe_open(path, framework="numpy") as opened:
        document = json.loads(opened.metadata()["pactolus"])
    arrays = load_arrays(path.read_bytes())

    def rewrite(document=document, arrays=arrays):
        text = document if isinstance(document, str) else json.dumps(document)
        path.write_bytes(save_arrays(arrays, metadata={"pactolus": text}))
        return path

    return path, document, arrays, rewrite


def refused(path, sentence):
    with pytest.raises(NetworkError, match=sentence) as caught:
        file.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path):
    refused(tmp_path / "none", r"^Network file '.*none' cannot be read: No such file or directory$")
    refused(tmp_path, r"^Network file '.*' cannot be read: ")
    (tmp_path / "text").write_text("hello, this is no network")
    refused(tmp_path / "text", r"^Network file '.*text' must be a whole safetensors file: ")
    (tmp_path / "other").write_bytes(save_arrays({"a": np.ones(3)}))
    refused(tmp_path / "other", r"^Network file '.*': must have a 'pactolus-integer-network' header, not only tensors$")


def test_every_truncation_is_one_sentence(saved):
    path, *_ = saved
    whole = path.read_bytes()
    for length in [*range(0, 64), *range(64, len(whole), max(1, len(whole) // 50))]:
        path.write_bytes(whole[:length])
        refused(path, r"^Network file '.*' (must be a whole safetensors file|cannot be read): ")


def test_flipped_bytes_never_escape(saved):
    """Any damage is either still a well-formed network or one sentence."""
    path, *_ = saved
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, min(len(whole), 4000), 300):
        damaged = whole.copy()
        damaged[position] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        try:
            file.load(path)
        except NetworkError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: "{", r"': header must be JSON: "),
        (lambda d: "[" * 100_000, r"': header must be JSON: "),
        (lambda d: "[]", r"': header must be a JSON object, not list$"),
        (lambda d: d | {"format": "x"}, r"': format must be 'pactolus-integer-network', not 'x'$"),
        (lambda d: d | {"version": 4}, r"': version must be one of 1, 2, 3, not 4$"),
        (lambda d: d | {"author": "x"}, r"': header must have the fields \[.*\], not \[.*'author'.*\]$"),
        (lambda d: d | {"tensors": 5}, r"': tensors must be a list of objects$"),
        (lambda d: d | {"operations": [5]}, r"': operations must be a list of objects$"),
        (lambda d: d | {"operations": []}, r"': arrays must all be used by the header, not so '.*'$"),
    ],
)
def test_damaged_headers(saved, damage, sentence):
    _, document, _, rewrite = saved
    refused(rewrite(document=damage(document)), sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"type": "softmax"}, r"type of operation 'conv0' must be one of conv2d, max_pool2d, add, not 'softmax'$"),
        ({"type": []}, r"type of operation 'conv0' must be one of conv2d, max_pool2d, add, not \[\]$"),
        ({"groups": "2"}, r"Groups of operation 'conv0' must be an integer between 1 and 65536, not '2'$"),
        ({"sparsity": 1}, r"operation 'conv0' must not have the unknown field 'sparsity'$"),
        ({"grid": "ternary"}, r"grid of operation 'conv0' must be one of 'twos_complement', 'odd', not 'ternary'$"),
        ({"codes": {"array": "none"}}, r"codes of operation 'conv0' must name an array of the file, not \{.*\}$"),
        ({"codes": [1, 2]}, r"Weight codes of operation 'conv0' must have shape \(O, C/groups, kh, kw\), not \(2,\)$"),
        ({"requantize": 7}, r"requantize of operation 'conv0' must be an object, not 7$"),
        ({"requantize": {"scale": 7}}, r"requantize must not have the unknown field 'scale'$"),
        ({"requantize": {}}, r"requantize must have the field 'multiplier'$"),
        ({"stride": {"array": "conv0.codes"}}, r"Stride of operation 'conv0' must be 2 integers, not "),
        ({"name": None}, r"Conv2d name must be a printable name of 1 to 200 characters, not None$"),
    ],
)
def test_damaged_operations(saved, change, sentence):
    _, document, _, rewrite = saved
    document["operations"][0] |= change
    refused(rewrite(), sentence)


def test_a_missing_field(saved):
    _, document, _, rewrite = saved
    del document["operations"][0]["codes"]
    refused(rewrite(), r"': operation 'conv0' must have the field 'codes'$")


@pytest.mark.parametrize("value", [np.full((6, 1, 3, 3), 0.5), np.zeros((6, 1, 3)), np.full((6, 1, 3, 3), 256)])
def test_damaged_arrays(saved, value):
    _, _, arrays, rewrite = saved
    arrays["conv0.codes"] = value
    refused(rewrite(), r"': Weight codes of operation 'conv0' must ")


def test_a_superfluous_array(saved):
    _, _, arrays, rewrite = saved
    arrays["stowaway"] = np.zeros(3)
    refused(rewrite(), r"': arrays must all be used by the header, not so 'stowaway'$")
