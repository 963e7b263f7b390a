"""The folder of a program as a plain Verilog testbench reads it."""

import json

import pytest

from golden import vectors
from hw.config import PRESETS
from hw.program import build
from hw.program.cycles import predict
from hw.program.files import packets_text, write
from hw.program.listing import listing
from hw.tests.program_interpreter import Interpreter


def read(path, bits):
    """The packets of a .hex file, read as a Verilog testbench reads it."""
    packets, packet = [], []
    for line in path.read_text().splitlines():
        word = int(line, 16)
        assert len(line) == 1 + bits // 4 and word >> bits <= 1
        packet.append(word & ((1 << bits) - 1))
        if word >> bits:
            packets.append(packet)
            packet = []
    assert not packet
    return packets


@pytest.mark.parametrize("config", ["tiny", "int8"])
def test_the_files_run(config, tmp_path):
    network, tensors = vectors.read(vectors.find("digits-residual-w3a3"))
    config = PRESETS[config]
    program = build(network, config, trace=True)
    write(tmp_path / "a", program, tensors)
    (words,) = read(tmp_path / "a/program.hex", config.stream_bits)
    inputs, expected = (read(tmp_path / "a" / name, config.stream_bits) for name in ("input.hex", "expected.hex"))
    assert words == program.words()
    interpreter = Interpreter(config)
    frames = len(tensors["input"])
    assert len(inputs) == frames == 2
    assert [packet for frame in inputs for packet in interpreter.run(words, [frame])] == expected
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest == {
        "format": "pactolus-program",
        "network": network.name,
        "config": config.name,
        "stream_bits": config.stream_bits,
        "frames": frames,
        "program_words": len(words),
        "input_words": sum(map(len, inputs)),
        "expected_words": sum(map(len, expected)),
        "predicted_cycles": predict(program).total,
        "outputs": [{"tensor": name, "words": count} for name, count in program.outputs],
    }
    assert (tmp_path / "a/listing.txt").read_text() == listing(program)
    write(tmp_path / "b", program, tensors)
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == {
        f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()
    }


def test_lines():
    assert packets_text([[1, 0xABCDEF01], [2]], 32) == "000000001\n1abcdef01\n100000002\n"
