"""A program and its streams as files that a plain Verilog testbench reads.

::

    <folder>/program.hex    the program stream
    <folder>/input.hex      the packets of the input stream, frame after frame
    <folder>/expected.hex   the packets that the output stream must bring
    <folder>/listing.txt    the program for people
    <folder>/manifest.json  names, sizes, and what the output packets hold

A line of a ``.hex`` file is one word in hexadecimal, the digit before the data's is ``tlast``: ``$readmemh`` into a
memory of ``stream_bits + 1`` bits, or ``$fscanf`` with ``%h``. The program runs once a frame: send it again for each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw.program import Program
from hw.program.cycles import predict
from hw.program.listing import listing

__all__ = ["packets_text", "write"]


def packets_text(packets: Iterable[Sequence[int]], stream_bits: int) -> str:
    """Packets as lines of a ``.hex`` file."""
    width = -(-stream_bits // 4)
    return "".join(
        f"{int(index == len(packet) - 1)}{word:0{width}x}\n" for packet in packets for index, word in enumerate(packet)
    )


def write(folder: str | os.PathLike[str], program: Program, tensors: dict[str, np.ndarray]) -> None:
    """Write the folder of a program and some frames; the same arguments give the same files byte for byte.

    Parameters
    ----------
    folder : path
        Made if missing; files of the same names are replaced.
    tensors : :class:`dict`
        By name, (N, C, H, W), as :func:`golden.execute.execute` gives them: the network's input and what is stored.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    folder = Path(folder)
    frames = tensors[program.network.input.name]
    inputs = [packet for frame in frames for packet in program.inputs(frame)]
    expected = [
        packet
        for frame in range(len(frames))
        for packet in program.encode({name: tensors[name][frame] for name, _ in program.outputs})
    ]
    words = program.words()
    manifest: dict[str, Any] = {
        "format": "pactolus-program",
        "network": program.network.name,
        "config": program.config.name,
        "stream_bits": program.config.stream_bits,
        "frames": len(frames),
        "program_words": len(words),
        "input_words": sum(map(len, inputs)),
        "expected_words": sum(map(len, expected)),
        "predicted_cycles": predict(program).total,
        "outputs": [{"tensor": name, "words": count} for name, count in program.outputs],
    }
    bits = program.config.stream_bits
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("program.hex", packets_text([words], bits)),
        ("input.hex", packets_text(inputs, bits)),
        ("expected.hex", packets_text(expected, bits)),
        ("listing.txt", listing(program)),
        ("manifest.json", json.dumps(manifest, indent=1) + "\n"),
    ):
        (folder / name).write_text(text, encoding="utf-8")
