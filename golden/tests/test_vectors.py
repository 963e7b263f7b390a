"""Golden vector folders: byte equality, round trip, damage; and the committed ones against the executor."""

from __future__ import annotations

import json

import numpy as np
import pytest

from golden import vectors
from golden.execute import execute
from golden.network import NetworkError


@pytest.fixture
def folder(small, tmp_path):
    network, maker = small
    vectors.write(tmp_path / "v", network, maker.input(2), seed=5)
    return tmp_path / "v"


def test_round_trip(folder, small):
    network, values = vectors.read(folder)
    assert [t.name for t in network.tensors] == [t.name for t in small[0].tensors]
    expected = execute(network, values[network.input.name])
    assert set(values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value)


def test_the_same_seed_gives_the_same_bytes(folder, small, tmp_path):
    network, values = vectors.read(folder)
    vectors.write(tmp_path / "w", network, values[network.input.name], seed=5)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "w") for p in (tmp_path / "w").rglob("*") if p.is_file())
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / "w" / name).read_bytes()


def test_hex_files_hold_the_same_numbers(folder):
    network, values = vectors.read(folder)
    for tensor in network.tensors:
        words = (folder / f"hex/{tensor.name}.hex").read_text().split()
        numbers = np.array([int(word, 16) for word in words]).reshape(values[tensor.name].shape)
        mask = (1 << tensor.bits) - 1
        np.testing.assert_array_equal(numbers, values[tensor.name].astype(np.int64) & mask)
    operation = network.operations[0]
    lines = (folder / f"hex/{operation.name}.constants.hex").read_text().split()
    for channel, line in enumerate(lines):
        fields = [int(line[start : start + 16], 16) for start in (0, 16, 32)] + [int(line[48:], 16)]
        signed = [v - (1 << 64) if v >> 63 else v for v in fields]
        assert signed == [
            operation.requantize.multiplier[channel],
            0,
            operation.requantize.bias[channel],
            operation.requantize.shift[channel],
        ]


def test_damage_is_one_sentence(folder):
    manifest = (folder / "manifest.json").read_text()
    tensors = (folder / "tensors.safetensors").read_bytes()

    def refused(sentence):
        with pytest.raises(NetworkError, match=sentence):
            vectors.read(folder)

    (folder / "tensors.safetensors").write_bytes(tensors[:-1] + bytes([tensors[-1] ^ 1]))
    refused(r"^File 'tensors.safetensors' of vector folder '.*' must have the manifest's sha256$")
    (folder / "tensors.safetensors").unlink()
    refused(r"^Vector folder '.*' must have the file 'tensors.safetensors'$")
    (folder / "tensors.safetensors").write_bytes(tensors)
    vectors.read(folder)
    for text in ("", "[]", "{}", '{"format": 1}'):
        (folder / "manifest.json").write_text(text)
        refused(r"^Vector folder '.*' must have a readable manifest.json$")
    (folder / "manifest.json").write_text(manifest.replace('"version": 1,', '"version": 9,', 1))
    refused(r"^Vector folder '.*' must be of format 'pactolus-golden-vectors' version 1, not .* version 9$")
    document = json.loads(manifest)
    document["sha256"]["../secret"] = "0"
    (folder / "manifest.json").write_text(json.dumps(document))
    refused(r"^Vector folder '.*' must have the file '../secret'$")
    del document["sha256"]["../secret"], document["sha256"]["network.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(document))
    refused(r"^Manifest of vector folder '.*' must list 'network.safetensors'$")


def test_names_must_be_file_names(network_maker, tmp_path):
    maker = network_maker(0, (1, 4, 4), 4)
    maker.tensors[0] = type(maker.tensors[0])("a/b", (1, 4, 4), bits=4)
    maker.conv(1, source="a/b", out_bits=None)
    with pytest.raises(NetworkError, match=r"^Name 'a/b' must consist of letters, digits, '_', '-' and '\.' to be .*$"):
        vectors.write(tmp_path, maker.network(), maker.input(), seed=0)


def test_find_lists_the_committed_names():
    with pytest.raises(NetworkError, match=r"^Network must be a vector folder or one of .*, not 'nothing'$"):
        vectors.find("nothing")


@pytest.mark.parametrize("name", vectors.committed())
def test_committed_vectors_are_what_the_executor_gives(name):
    network, values = vectors.read(vectors.find(name))
    assert network.name == name
    for tensor, value in execute(network, values[network.input.name]).items():
        np.testing.assert_array_equal(values[tensor], value)


def test_the_committed_networks_are_the_documented_eight():
    expected = {f"digits-{kind}-w{b}a{b}" for kind in ("plain", "residual") for b in (2, 3, 4, 8)}
    assert expected <= set(vectors.committed())
