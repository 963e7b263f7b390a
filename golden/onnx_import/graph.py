"""Reading an ONNX file that nobody vouches for: its nodes and constants, or one sentence that says what is wrong.

Nothing is computed here, and nothing is read that the file does not hold: the sizes that a tensor claims are compared
with the bytes that are there before any memory is taken for it, and data in other files must lie beside the model.
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo

__all__ = [
    "MAX_CONSTANT",
    "QUANTIZERS",
    "SMALL_TYPES",
    "Graph",
    "Node",
    "UnsupportedModelError",
    "integer",
    "integers",
    "read",
    "type_bits",
]

MAX_CONSTANT = 1 << 26
"""Elements of a constant, given or computed."""

SMALL_TYPES: dict[str, np.dtype[Any]] = {
    f"{name}{bits}": np.dtype(f"{name}8", metadata={"bits": bits}) for name in ("int", "uint") for bits in (2, 4)
}
"""Types of 2 and 4 bits by ONNX's name: bytes that know their bits (:func:`type_bits`)."""

MAX_NODES = 1 << 16

MAX_WORD, MAX_SENTENCE = 120, 2000
"""Characters that an error's words and sentence may have."""

QUANTIZERS = ("Quant", "IntQuant", "BipolarQuant", "MultiThreshold", "QuantizeLinear", "DequantizeLinear")
"""Operators that say what real numbers the integers stand for; a file without them holds nothing but integers."""

DOMAINS = {
    "": "", "ai.onnx": "", "com.microsoft": "",
    "qonnx.custom_op.general": "", "finn.custom_op.general": "", "onnx.brevitas": "",
    "qonnx.custom_op.channels_last": "channels last",
}  # fmt: skip
"""Domains whose operators are known by their names alone; those of channels last have the channels behind."""


class UnsupportedModelError(ValueError):
    """A file that is not such a network, or not exactly; one sentence that names the node and the reason.

    It is one printable line of bounded length, whatever names and values the file has: words of more than
    :data:`MAX_WORD` characters are shortened.
    """

    def __init__(self, sentence: str) -> None:
        words = "".join(x if x.isprintable() else " " for x in sentence).split()
        short = (x if len(x) <= MAX_WORD else f"{x[: MAX_WORD // 2]}...{x[-9:]}" for x in words)
        super().__init__(" ".join(short)[:MAX_SENTENCE])


@dataclass(frozen=True)
class Node:
    """A node with its attributes as Python values; ``channels_last``: it has the channels behind."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = False

    @property
    def label(self) -> str:
        """How a sentence names it."""
        return f"Node {self.name!r} ({self.operator})"

    def integers(self, key: str, default: Any = None) -> Any:
        """An attribute of integers; ``default`` where it is absent."""
        value = self.attributes.get(key, default)
        if value is not default and not (
            isinstance(value, (list, tuple)) and all(isinstance(x, int) and abs(x) < 1 << 31 for x in value)
        ):
            raise UnsupportedModelError(f"{self.label} must have integers as its {key}, not {value!r}")
        return value

    def integer(self, key: str, default: int) -> int:
        """An attribute that is one integer."""
        value = self.attributes.get(key, default)
        if not isinstance(value, int) or abs(value) >= 1 << 31:
            raise UnsupportedModelError(f"{self.label} must have an integer as its {key}, not {value!r}")
        return value


@dataclass(frozen=True)
class Graph:
    """What a model holds.

    Members
    -------
    nodes : list of :class:`Node`
        In the file's order.
    constants : :class:`dict`
        The file's own constants by name.
    input : :class:`onnx.ValueInfoProto`
        The only input that is no constant.
    output : :class:`str`
        Name of the only output that no node reads.
    """

    nodes: list[Node]
    constants: dict[str, np.ndarray]
    input: onnx.ValueInfoProto
    output: str

    @property
    def quantized(self) -> bool:
        """Whether it has quantizers, so that its tensors hold real numbers and not integers."""
        return any(node.operator in QUANTIZERS for node in self.nodes)


def read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, with data that it keeps in other files of the same folder.

    Raises
    ------
    OSError
        If the file cannot be read.
    UnsupportedModelError
        If it is no model, or its data is elsewhere or missing.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own class, which is not ours to import
        raise UnsupportedModelError(f"File {str(path)!r} must be an ONNX model: {error}") from None
    if not isinstance(model, onnx.ModelProto) or not model.HasField("graph"):
        raise UnsupportedModelError(f"File {str(path)!r} must be an ONNX model: it has no graph")
    taken = 0
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            taken += _load_external(tensor, path.parent, 8 * MAX_CONSTANT - taken)
    return model


def graph(model: onnx.ModelProto) -> Graph:
    """What ``model`` holds, checked.

    Raises
    ------
    UnsupportedModelError
        If a constant is not what it says, or there is not one input and one output.
    """
    source = model.graph
    if len(source.node) > MAX_NODES:
        raise UnsupportedModelError(f"Model must have at most {MAX_NODES} nodes, not {len(source.node)}")
    if model.functions:
        raise UnsupportedModelError(f"Model must have no functions of its own, not {model.functions[0].name!r}")
    if source.sparse_initializer:
        raise UnsupportedModelError("Model must have no sparse constants")
    nodes = source.node
    texts = [each.name for each in (*source.initializer, *source.input, *source.output, *nodes)]
    texts += [x for node in nodes for x in (node.op_type, node.domain, *node.input, *node.output)]
    texts += [attribute.name for node in nodes for attribute in node.attribute]
    # What is not UTF-8 comes out of protobuf as bytes.
    if not all(isinstance(text, str) for text in texts):
        raise UnsupportedModelError("Model must have names that are text")
    constants = {each.name: array(each, f"Constant {each.name!r}") for each in source.initializer}
    given = [each for each in source.input if each.name not in constants]
    if len(given) != 1:
        raise UnsupportedModelError(f"Model must have one input, not {len(given)}")
    nodes = [_node(node, position) for position, node in enumerate(source.node)]
    makers = {output: node for node in nodes for output in node.outputs}
    ones = {name for name, value in _known(constants, nodes).items() if value.size == 1 and value.item() == 1}
    nodes = [_selection(_floor_division(node, makers, ones), makers) for node in nodes]
    return Graph(nodes, constants, given[0], _output(source, nodes))


def _output(source: onnx.GraphProto, nodes: list[Node]) -> str:
    """The only output, or the only one that nothing else reads: the others show what is inside."""
    read = {name for node in nodes for name in node.inputs}
    ends = [each.name for each in source.output if each.name not in read]
    if len(source.output) == 1:
        return str(source.output[0].name)
    if len(ends) != 1:
        names = ", ".join(map(repr, ends[:5])) or "none"
        raise UnsupportedModelError(f"Model must have one output that nothing in it reads, not {names}")
    return ends[0]


def array(tensor: onnx.TensorProto, what: str) -> np.ndarray:
    """A constant's numbers, if it holds as many as it says."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        raise UnsupportedModelError(f"{what} must be of a known type, not {tensor.data_type}") from None
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise UnsupportedModelError(f"{what} must hold its data: give the file, so that the data beside it is found")
    if count < 0 or min(tensor.dims, default=0) < 0 or count > MAX_CONSTANT:
        raise UnsupportedModelError(f"{what} must have at most {MAX_CONSTANT} elements, not {tuple(tensor.dims)}")
    small = SMALL_TYPES.get(dtype.name)
    if small is None and (dtype.kind not in "iufb" or dtype.itemsize > 8):
        raise UnsupportedModelError(f"{what} must hold numbers, not {dtype.name}")
    size = -(-count * type_bits(small or dtype) // 8)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != size:
        raise UnsupportedModelError(
            f"{what} must have {size} bytes for {tuple(tensor.dims)}, not {len(tensor.raw_data)}"
        )
    try:
        found = numpy_helper.to_array(tensor)
        return found if small is None else found.astype(np.int8 if small.kind == "i" else np.uint8).astype(small)
    except Exception as error:  # whatever a malformed tensor brings about
        raise UnsupportedModelError(f"{what} must be a tensor of {tuple(tensor.dims)}: {error}") from None


def type_bits(dtype: np.dtype[Any]) -> int:
    """Bits of a number of a constant's type; fewer than numpy's for :data:`SMALL_TYPES`."""
    known: Any = dtype.metadata or {}
    return int(known.get("bits", 8 * dtype.itemsize))


def integer(value: np.ndarray, what: str, low: int, high: int) -> int:
    """A constant that is one integer in ``low..high``."""
    return integers(value, what, low, high, size=1)[0]


def integers(value: np.ndarray, what: str, low: int, high: int, *, size: int | None = None) -> list[int]:
    """A constant of integers in ``low..high``, ``size`` of them if that is said, as a list."""
    fine = value.dtype.kind in "iuf" and value.size <= 1 << 16 and (size is None or value.size == size)
    if not fine or not np.isfinite(value).all() or not np.array_equal(value, np.rint(value)):
        raise UnsupportedModelError(f"{what} must be {'one integer' if size == 1 else 'integers'}")
    found = [int(x) for x in value.ravel()]
    if not all(low <= x <= high for x in found):
        raise UnsupportedModelError(f"{what} must be between {low} and {high}, not {found[0] if size == 1 else found}")
    return found


def _load_external(tensor: onnx.TensorProto, folder: Path, most: int) -> int:
    """Put the bytes that a constant keeps in another file into it, at most so many, and say how many they are."""
    what = f"Constant {tensor.name!r}"
    try:
        info = ExternalDataInfo(tensor)
        offset, length = int(info.offset or 0), info.length and int(info.length)
        place = PurePosixPath(info.location)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"{what} must say where its data is: {error}") from None
    path = folder / place
    try:
        inside = path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a name that no file system takes
        inside = False
    if place.is_absolute() or ".." in place.parts or not inside:
        raise UnsupportedModelError(f"{what} must have its data in a file beside the model, not in {str(place)!r}")
    length = path.stat().st_size - offset if length is None else length
    if length > most:
        raise UnsupportedModelError(f"Model must have at most {8 * MAX_CONSTANT} bytes of data in other files")
    if offset < 0 or length < 0 or offset + length > path.stat().st_size:
        raise UnsupportedModelError(
            f"{what} must have its data in {str(place)!r}, which has {path.stat().st_size} bytes: "
            f"not {length} from {offset} on"
        )
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    return int(length)


def _node(node: onnx.NodeProto, position: int) -> Node:
    name = node.name or (node.output[0] if node.output else str(position))
    label = f"Node {name!r} ({node.op_type})"
    if node.domain not in DOMAINS:
        raise UnsupportedModelError(f"{label} must be of a known domain, not {node.domain!r}")
    attributes: dict[str, Any] = {}
    for each in node.attribute:
        if each.type == onnx.AttributeProto.TENSOR:
            attributes[each.name] = array(each.t, f"{label}: constant {each.name!r}")
            continue
        try:
            value = onnx.helper.get_attribute_value(each)
            attributes[each.name] = value.decode() if isinstance(value, bytes) else value
        except (ValueError, UnicodeDecodeError) as error:
            raise UnsupportedModelError(f"{label} must have an attribute {each.name!r} that is one: {error}") from None
    if not node.output or not node.output[0]:
        raise UnsupportedModelError(f"{label} must make something")
    last = DOMAINS[node.domain] == "channels last"
    return Node(node.op_type, name, tuple(node.input), tuple(node.output), attributes, last)


def _known(constants: dict[str, np.ndarray], nodes: list[Node]) -> dict[str, np.ndarray]:
    """The file's constants with those of its Constant nodes."""
    made = {n.outputs[0]: n.attributes["value"] for n in nodes if n.operator == "Constant" and "value" in n.attributes}
    return {**constants, **{name: value for name, value in made.items() if isinstance(value, np.ndarray)}}


def _maker(makers: dict[str, Node], name: str, operator: str) -> Node | None:
    """The node of that operator that makes ``name``, looking through what changes no number."""
    for _ in range(len(makers)):
        maker = makers.get(name)
        if maker is None or maker.operator == operator or maker.operator not in ("Cast", "Identity"):
            return maker if maker is not None and maker.operator == operator else None
        name = maker.inputs[0] if maker.inputs else ""
    return None


def _floor_division(node: Node, makers: dict[str, Node], ones: set[str]) -> Node:
    """``node``; if it is the end of what PyTorch writes for a floor division of integers, one node for all of it.

    That is ``q = Div(a, b)`` minus 1 where the remainder ``a - q*b`` is not 0 and one of a and b is negative.
    """
    if node.operator == "Sub" and len(node.inputs) == 2:
        quotient, fixup = _maker(makers, node.inputs[0], "Div"), _maker(makers, node.inputs[1], "Mul")
        mask = None if fixup is None else _maker(makers, fixup.inputs[0], "And")
    elif node.operator == "Where" and len(node.inputs) == 3:
        quotient, fixup = _maker(makers, node.inputs[2], "Div"), _maker(makers, node.inputs[1], "Sub")
        mask = _maker(makers, node.inputs[0], "And")
    else:
        return node
    if quotient is None or mask is None or fixup is None or fixup.inputs[-1] not in ones or len(mask.inputs) != 2:
        return node
    sign, unequal = _maker(makers, mask.inputs[0], "Xor"), _maker(makers, mask.inputs[1], "Not")
    equal = None if unequal is None else _maker(makers, unequal.inputs[0], "Equal")
    rest = None if equal is None else _maker(makers, equal.inputs[0], "Sub") or _maker(makers, equal.inputs[0], "Mod")
    if sign is None or rest is None or rest.inputs[:1] != quotient.inputs[:1]:
        return node
    return dataclasses.replace(node, operator="Div", inputs=quotient.inputs, attributes={"rounding": "floor"})


def _selection(node: Node, makers: dict[str, Node]) -> Node:
    """``node``; if it chooses the smaller or larger of two by comparing these, a Min or Max of them."""
    if node.operator != "Where" or len(node.inputs) != 3:
        return node
    for operator, swapped in (("Less", "Min"), ("LessOrEqual", "Min"), ("Greater", "Max"), ("GreaterOrEqual", "Max")):
        test = makers.get(node.inputs[0])
        if test is not None and test.operator == operator and sorted(test.inputs) == sorted(node.inputs[1:]):
            other = {"Min": "Max", "Max": "Min"}[swapped]
            chosen = swapped if test.inputs == node.inputs[1:] else other
            return dataclasses.replace(node, operator=chosen, inputs=node.inputs[1:])
    return node
