"""Golden vectors: a folder that holds a network, an input, and every tensor that must come out.

::

    <folder>/network.safetensors   the integer network (golden.file)
    <folder>/tensors.safetensors   every tensor's codes or accumulators by name, (N, C, H, W), the input included
    <folder>/hex/<tensor>.hex      the same for $readmemh: one element a line, in (N, C, H, W) order, two's complement
    <folder>/hex/<operation>.weights.hex    weight codes n in (O, C/groups, kh, kw) order
    <folder>/hex/<operation>.scales.hex     vector scales of weights in (O, vector, kh, kw) order, where there are any
    <folder>/hex/<tensor>.scales.hex        vector scales of codes, one a vector, where there are any
    <folder>/hex/<operation>.constants.hex  per channel one line: M, M_skip, B (16 hex digits each), S (2 digits)
    <folder>/hex/<operation>.thresholds.hex or per channel one line: negate, then its thresholds, highest first
    <folder>/manifest.json         seed, versions, shapes, sha256 of every other file

The same network, input and seed give the same folder byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as deserialize
from safetensors.numpy import save as serialize

import golden.generated
from golden import file
from golden.execute import execute
from golden.network import Conv2d, IntegerNetwork, NetworkError, Tensor, Thresholds

__all__ = ["Vectors", "committed", "find", "read", "write"]

VERSION = 1
NETWORKS = Path(__file__).parent / "networks"
"""The committed vector folders, one a network."""

Vectors = tuple[IntegerNetwork, dict[str, np.ndarray]]


def write(folder: str | os.PathLike[str], network: IntegerNetwork, x: np.ndarray, *, seed: int) -> None:
    """Execute ``network`` on ``x`` and write the folder.

    Parameters
    ----------
    folder : path
        Made if missing; files of the same names are replaced.
    x : unsigned array (N, C, H, W)
        Input codes.
    seed : :class:`int`
        What the network and the input were made from, for the manifest.

    Raises
    ------
    NetworkError
        If ``x`` does not suit the network, or a name cannot be a file name.
    OSError
        If the folder cannot be written.
    """
    folder = Path(folder)
    values = execute(network, x)
    for name in [t.name for t in network.tensors] + [o.name for o in network.operations]:
        if not re.fullmatch(r"[A-Za-z0-9_.\-]+", name):
            raise NetworkError(f"Name {name!r} must consist of letters, digits, '_', '-' and '.' to be a file name")
    (folder / "hex").mkdir(parents=True, exist_ok=True)
    file.save(network, folder / "network.safetensors")
    # safetensors writes the memory of an array as it lies, whatever its strides.
    contiguous = {tensor: np.ascontiguousarray(value) for tensor, value in values.items()}
    (folder / "tensors.safetensors").write_bytes(serialize(contiguous))
    texts: dict[str, str] = {}
    for name, value in values.items():
        texts[f"hex/{name}.hex"] = _hex_lines(value, network.tensor(name).bits)
    for item in (*network.tensors, *network.operations):
        if isinstance(item, (Tensor, Conv2d)) and item.vector_scales is not None:
            scales = item.vector_scales
            texts[f"hex/{item.name}.scales.hex"] = _hex_lines(scales.codes, scales.bits)
    for operation in network.operations:
        if isinstance(operation, Conv2d):
            texts[f"hex/{operation.name}.weights.hex"] = _hex_lines(operation.codes, operation.bits)
            if operation.thresholds is not None:
                texts[f"hex/{operation.name}.thresholds.hex"] = _thresholds_lines(operation.thresholds)
            if operation.requantize is not None:
                texts[f"hex/{operation.name}.constants.hex"] = _constants_lines(operation)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="ascii")
    files = ["network.safetensors", "tensors.safetensors", *sorted(texts)]
    manifest: dict[str, Any] = {
        "format": "pactolus-golden-vectors",
        "version": VERSION,
        "network": network.name,
        "seed": seed,
        "frames": int(x.shape[0]),
        "versions": {
            "network file": file.version(network),
            **{name: version(name) for name in ("pactolus", "numpy", "safetensors")},
        },
        "tensors": {t.name: {"shape": list(t.shape), "kind": t.kind.value, "bits": t.bits} for t in network.tensors},
        "sha256": {name: _sha256(folder / name) for name in files},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")


def read(folder: str | os.PathLike[str]) -> Vectors:
    """The network and every tensor of a folder, each file checked against the manifest's sha256.

    Raises
    ------
    NetworkError
        If the folder is not one of golden vectors, or a file is missing or changed; the sentence names it.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="ascii"))
        if manifest["format"] != "pactolus-golden-vectors" or manifest["version"] != VERSION:
            raise NetworkError(
                f"Vector folder {str(folder)!r} must be of format 'pactolus-golden-vectors' version {VERSION}, "
                f"not {manifest['format']!r} version {manifest['version']!r}"
            )
        sums = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, NetworkError):
            raise
        raise NetworkError(f"Vector folder {str(folder)!r} must have a readable manifest.json") from None
    for name, digest in sums.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
            raise NetworkError(f"Vector folder {str(folder)!r} must have the file {name!r}")
        if _sha256(path) != digest:
            raise NetworkError(f"File {name!r} of vector folder {str(folder)!r} must have the manifest's sha256")
    for name in ("network.safetensors", "tensors.safetensors"):
        if name not in sums:
            raise NetworkError(f"Manifest of vector folder {str(folder)!r} must list {name!r}")
    network = file.load(folder / "network.safetensors")
    values = deserialize((folder / "tensors.safetensors").read_bytes())
    for tensor in network.tensors:
        if tensor.name not in values or values[tensor.name].shape[1:] != tensor.shape:
            raise NetworkError(
                f"Vector folder {str(folder)!r} must have tensor {tensor.name!r} of shape {tensor.shape}"
            )
    return network, values


def committed() -> list[str]:
    """Names of the networks that the repository brings along."""
    return sorted(path.parent.name for path in NETWORKS.glob("*/manifest.json"))


def find(name: str | os.PathLike[str], generated: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a committed network's name, of a generated network's name, or of a path to a vector folder.

    Parameters
    ----------
    name : :class:`str` or path
        What to look for, in this order: committed, a path, generated.
    generated : path or ``None``
        Where the folders of generated networks (:data:`golden.generated.NAMES`) are written. They are made anew, and
        what is there stays untouched if it is the same. ``None``: generated names are not known.

    Raises
    ------
    NetworkError
        If there is neither; the sentence lists the names.
    """
    for folder in (NETWORKS / name, Path(name)):
        if (folder / "manifest.json").is_file():
            return folder
    names = committed()
    if generated is not None:
        made = golden.generated.generate(str(name))
        if made is not None:
            network, x, seed = made
            return _write_whole(Path(generated) / network.name, network, x, seed)
        names += golden.generated.NAMES
    raise NetworkError(f"Network must be a vector folder or one of {', '.join(names)}, not {str(name)!r}")


def _write_whole(folder: Path, network: IntegerNetwork, x: np.ndarray, seed: int) -> Path:
    """:func:`write`, so that somebody who reads ``folder`` at the same time never sees half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        write(made, network, x, seed=seed)
        while True:
            try:
                made.rename(folder)
                break
            except OSError:  # the folder is there
                if _same_file(folder / "manifest.json", made / "manifest.json"):
                    break
                folder.rename(tempfile.mkdtemp(dir=temporary))
    return folder


def _same_file(a: Path, b: Path) -> bool:
    return a.is_file() and a.read_bytes() == b.read_bytes()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hex_lines(values: np.ndarray, bits: int) -> str:
    digits, mask = (bits + 3) // 4, (1 << bits) - 1
    return "".join(f"{value & mask:0{digits}x}\n" for value in values.ravel().tolist())


def _thresholds_lines(thresholds: Thresholds) -> str:
    """A channel a line: the negate bit, then its thresholds of 64 bits, the highest first."""
    word = (1 << 64) - 1
    rows = zip(thresholds.negate.tolist(), thresholds.values.tolist(), strict=True)
    return "".join(f"{negate:x}{''.join(f'{t & word:016x}' for t in row[::-1])}\n" for negate, row in rows)


def _constants_lines(operation: Conv2d) -> str:
    constants = operation.requantize
    assert constants is not None
    skips = constants.skip_multiplier if constants.skip_multiplier is not None else np.zeros_like(constants.bias)
    word = (1 << 64) - 1
    return "".join(
        f"{m & word:016x}{ms & word:016x}{b & word:016x}{s:02x}\n"
        for m, ms, b, s in zip(
            *(array.tolist() for array in (constants.multiplier, skips, constants.bias, constants.shift)), strict=True
        )
    )
