"""ONNX files of networks: written, executed by somebody else, and every tensor compared with golden."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from rich import box
from rich.console import Console
from rich.table import Table

from golden import file, vectors
from golden.files import write_atomically
from golden.network import IntegerNetwork
from golden.onnx_export import FORMS, agreement, compare

__all__ = ["find", "test_codes", "write"]

EXECUTORS = {"integer": "onnxruntime", "qcdq": "onnxruntime", "qonnx": "qonnx"}


def find(name: str, generated: Path, *, frames: int, seed: int) -> tuple[IntegerNetwork, np.ndarray]:
    """A network and input codes for it: those of its golden vectors, or ``frames`` random ones for a network file."""
    if Path(name).is_file():
        network = file.load(name)
        shape = (frames, *network.input.shape)
        return network, np.random.default_rng(seed).integers(0, network.input.max_code + 1, shape)
    network, values = vectors.read(vectors.find(name, generated))
    return network, values[network.input.name]


def test_codes(network: IntegerNetwork, data: str, directory: Path | None) -> np.ndarray:
    """Every image of a data set's test split as codes of the network's input.

    Raises
    ------
    ValueError
        If the images do not have the input's shape.
    """
    from sw.data import load
    from sw.layers import InputQuantizer

    source, images = network.input, load(data, directory).test.images
    shape = tuple(images.shape[1:])
    if shape != source.shape:
        raise ValueError(f"Input of network {network.name!r} must have shape {shape} for {data}, not {source.shape}")
    quantizer = InputQuantizer(scale=source.scale, zero_point=source.zero_point, bits=source.bits)
    codes: np.ndarray = quantizer.to_int(images.double()).numpy()
    return codes


def write(network: IntegerNetwork, form: str, path: Path, codes: np.ndarray, console: Console) -> int:
    """Write the form of a network to ``path``, execute the file and print what differs from golden.

    Returns
    -------
    :class:`int`
        1 if anything differs, else 0.
    """
    model = FORMS[form](network)
    write_atomically(path, model.SerializeToString(deterministic=True))
    compared = compare(network, onnx.load(path), codes)
    table = Table("tensor", box=box.SIMPLE, title=str(path), title_justify="left")
    table.add_column("elements", justify="right")
    table.add_column("differing", justify="right")
    for each in compared:
        table.add_row(each.tensor, str(each.elements), str(each.different))
    console.print(table)
    who = f"{EXECUTORS[form]} {version(EXECUTORS[form])}"
    elements, different = sum(each.elements for each in compared), sum(each.different for each in compared)
    lines = [f"{len(codes)} frames, {who}: {different} of {elements} differ."]
    proofs = agreement(model)
    for proof in proofs:
        if proof.different is None:
            lines.append(f"{proof.operation}: not proved. {proof.reason}.")
        elif proof.different:
            found = f"{proof.different} of {proof.reachable}"
            lines.append(f"{proof.operation}: {found} reachable accumulators have another code.")
    if proofs:
        exact = sum(proof.different == 0 for proof in proofs)
        lines.append(f"{exact} of {len(proofs)} operations are proved for every input.")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    return int(different > 0)
