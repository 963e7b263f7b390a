"""The file of an integer network: one ``.safetensors`` file with a versioned JSON header, no pickle anywhere.

The arrays are safetensors entries called ``<operation>.<field>`` (weight codes, requantization constants) and
``<tensor>.<field>`` (slope and offset of accumulators); everything else is one JSON document in the metadata entry
``pactolus``. Loading believes nothing: an unknown format, version, operation or field, a missing or superfluous array
and whatever :class:`~golden.network.IntegerNetwork` refuses end in one :class:`~golden.network.NetworkError`.

Version 2 brings per-vector scales and :class:`~golden.network.VectorQuantize`, version 3
:class:`~golden.network.Thresholds`. A network is written in the least version that has what it needs, so that its file
is what it always was.
"""

from __future__ import annotations

import enum
import json
import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from golden.network import (
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    NetworkError,
    Requantize,
    Tensor,
    Thresholds,
    VectorQuantize,
    VectorScales,
)

__all__ = ["FORMAT", "VERSIONS", "load", "save", "version"]

FORMAT = "pactolus-integer-network"
VERSIONS = (1, 2, 3)
MAX_FILE_BYTES = 1 << 31

_OPERATIONS: dict[str, type] = {
    "conv2d": Conv2d,
    "max_pool2d": MaxPool2d,
    "add": Add,
    "vector_quantize": VectorQuantize,
}
_ENUMS: dict[str, type[enum.Enum]] = {"kind": Kind, "grid": Grid}
_PARTS: dict[str, type] = {"requantize": Requantize, "thresholds": Thresholds, "vector_scales": VectorScales}
_NEW: dict[int, tuple[str, ...]] = {
    1: ("vector_scales", "product_shift", "vector_quantize", "thresholds"),
    2: ("thresholds",),
    3: (),
}
"""Fields and operations that a version does not know."""


def version(network: IntegerNetwork) -> int:
    """The least version of the file format that holds ``network``."""
    if any(isinstance(operation, Conv2d) and operation.thresholds is not None for operation in network.operations):
        return 3
    scaled = any(item.vector_scales is not None for item in (*network.tensors, *network.operations)
                 if isinstance(item, (Tensor, Conv2d)))  # fmt: skip
    return 2 if scaled or any(isinstance(operation, VectorQuantize) for operation in network.operations) else 1


def save(network: IntegerNetwork, path: str | os.PathLike[str]) -> None:
    """Write ``network`` to ``path``, byte for byte the same for the same network.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    unknown = _NEW[version(network)]
    document = {
        "format": FORMAT,
        "version": version(network),
        "name": network.name,
        "tensors": [_describe(tensor, arrays, unknown) for tensor in network.tensors],
        "operations": [
            {"type": next(k for k, v in _OPERATIONS.items() if v is type(operation))}
            | _describe(operation, arrays, unknown)
            for operation in network.operations
        ],
    }
    Path(path).write_bytes(serialize(arrays, metadata={"pactolus": json.dumps(document)}))


def load(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Read a network from ``path`` and check all of it.

    Raises
    ------
    NetworkError
        If the file is missing, damaged, of another format or version, or holds a network that is not well formed; the
        sentence names the file and the place.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise NetworkError(f"must have at most {MAX_FILE_BYTES} bytes, not {path.stat().st_size}")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "pactolus" not in metadata:
                raise NetworkError(f"must have a {FORMAT!r} header, not only tensors")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return _parse(_json(metadata["pactolus"]), arrays)
    except OSError as error:
        raise NetworkError(f"Network file {str(path)!r} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise NetworkError(f"Network file {str(path)!r} must be a whole safetensors file: {error}") from None
    except NetworkError as error:
        raise NetworkError(f"Network file {str(path)!r}: {error}") from None


def _describe(
    item: Any, arrays: dict[str, np.ndarray], unknown: tuple[str, ...], prefix: str | None = None
) -> dict[str, Any]:
    """The JSON of a dataclass without ``unknown`` fields; arrays go to ``arrays`` and leave their names behind."""
    prefix = item.name if prefix is None else prefix
    described: dict[str, Any] = {}
    for field in fields(item):
        if field.name in unknown:
            continue
        value = getattr(item, field.name)
        if isinstance(value, np.ndarray):
            key = f"{prefix}.{field.name}"
            if key in arrays:
                raise NetworkError(f"Names of tensors and operations must not collide in {key!r}")
            arrays[key] = value
            value = {"array": key}
        elif isinstance(value, enum.Enum):
            value = value.value
        elif isinstance(value, tuple(_PARTS.values())):
            value = _describe(value, arrays, unknown, f"{prefix}.{field.name}")
        described[field.name] = value
    return described


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"header must be JSON: {error}") from None
    if not isinstance(document, dict):
        raise NetworkError(f"header must be a JSON object, not {type(document).__name__}")
    return document


def _parse(document: dict[str, Any], arrays: dict[str, np.ndarray]) -> IntegerNetwork:
    if document.get("format") != FORMAT:
        raise NetworkError(f"format must be {FORMAT!r}, not {document.get('format')!r}")
    number = document.get("version")
    if isinstance(number, bool) or number not in VERSIONS:
        raise NetworkError(f"version must be one of {', '.join(map(str, VERSIONS))}, not {number!r}")
    unknown = _NEW[number]
    types = [name for name in _OPERATIONS if name not in unknown]
    expected = {"format", "version", "name", "tensors", "operations"}
    if set(document) != expected:
        raise NetworkError(f"header must have the fields {sorted(expected)}, not {sorted(document)}")
    for key in ("tensors", "operations"):
        if not isinstance(document[key], list) or not all(isinstance(item, dict) for item in document[key]):
            raise NetworkError(f"{key} must be a list of objects")
    used: set[str] = set()
    tensors = [_build(Tensor, item, arrays, used, "tensor", unknown) for item in document["tensors"]]
    operations = []
    for item in document["operations"]:
        kind = item.get("type")
        if not isinstance(kind, str) or kind not in types:
            raise NetworkError(
                f"type of operation {item.get('name')!r} must be one of {', '.join(types)}, not {kind!r}"
            )
        body = {key: value for key, value in item.items() if key != "type"}
        operations.append(_build(_OPERATIONS[kind], body, arrays, used, "operation", unknown))
    if used != set(arrays):
        raise NetworkError(f"arrays must all be used by the header, not so {min(set(arrays) - used)!r}")
    return IntegerNetwork(document["name"], tuple(tensors), tuple(operations))


def _build(
    cls: type,
    item: dict[str, Any],
    arrays: dict[str, np.ndarray],
    used: set[str],
    what: str,
    unknown: tuple[str, ...],
) -> Any:
    """An instance of a dataclass from its JSON; fields that are ``unknown`` to the file's version are refused."""
    where = f"{what} {item.get('name')!r}" if what not in _PARTS else what
    known = {field.name: field for field in fields(cls) if field.name not in unknown}
    for key in item:
        if key not in known:
            raise NetworkError(f"{where} must not have the unknown field {key!r}")
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in item:
            if field.default is MISSING:
                raise NetworkError(f"{where} must have the field {name!r}")
            continue
        value = item[name]
        if name in _ENUMS:
            try:
                value = _ENUMS[name](value)
            except ValueError:
                allowed = ", ".join(repr(member.value) for member in _ENUMS[name])
                raise NetworkError(f"{name} of {where} must be one of {allowed}, not {value!r}") from None
        elif name in _PARTS and value is not None:
            if not isinstance(value, dict):
                raise NetworkError(f"{name} of {where} must be an object, not {value!r}")
            value = _build(_PARTS[name], value, arrays, used, name, unknown)
        elif isinstance(value, dict):
            entry = value.get("array")
            if set(value) != {"array"} or not isinstance(entry, str) or entry not in arrays:
                raise NetworkError(f"{name} of {where} must name an array of the file, not {value!r}")
            used.add(entry)
            value = arrays[entry]
        values[name] = value
    return cls(**values)
