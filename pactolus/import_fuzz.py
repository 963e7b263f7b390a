"""Broken and hostile ONNX files for the importer: what comes out must be an import, or one sentence.

:func:`mutate` changes a valid file: bytes are flipped, cut out and put in; tensors claim sizes that nothing has, types
that do not exist, data in other files; numbers become NaN, infinite, 0 or negative; attributes vanish or change their
type; nodes read what they make, are left out, are exchanged. :func:`run` gives the importer many of them, in a process
with limited memory and a clock; :func:`guided` lets atheris choose them by the code that they reach.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from rich.console import Console
from rich.progress import Progress

__all__ = ["LIMIT_BYTES", "LIMIT_SECONDS", "Failure", "guided", "mutate", "run", "seeds"]

WORKER = "import sys, json; from pactolus import import_fuzz; import_fuzz._work(json.loads(sys.argv[1]))"

LIMIT_SECONDS = 10
"""Of a file."""

LIMIT_BYTES = 1 << 30
"""What the importer may take beyond what Python and its packages take anyway."""

SPECIAL = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-10, 1e-45, 1e38, 3.4e38, 0.5, 255.0)
INTEGERS = (0, 1, -1, 2, 3, 7, 8, 16, 31, 63, 64, 127, 255, 1 << 15, 1 << 16, 1 << 31, (1 << 31) - 1, -(1 << 31),
            1 << 40, (1 << 63) - 1, -(1 << 63))  # fmt: skip
NAMES = ("", "x", "\n", "a" * 5000, "../../up", "名", "\x00", "Quant", "{name!r}", "%s")
OPERATORS = (
    "Add", "AveragePool", "BatchNormalization", "BipolarQuant", "BitShift", "Cast", "Clip", "Concat", "Constant",
    "Conv", "ConvInteger", "DequantizeLinear", "Div", "Dropout", "Exp", "Flatten", "Floor", "Gather", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "Identity", "If", "Loop", "MatMul", "MatMulInteger", "Max", "MaxPool",
    "Min", "Mul", "MultiThreshold", "Neg", "Pad", "Quant", "QuantizeLinear", "ReduceMean", "ReduceSum", "Relu",
    "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Squeeze", "Sub", "Transpose", "Trunc", "Unsqueeze",
)  # fmt: skip
ATTRIBUTES = (
    "auto_pad", "axis", "axes", "alpha", "beta", "ceil_mode", "dilations", "direction", "epsilon", "group", "keepdims",
    "kernel_shape", "mode", "narrow", "out_bias", "out_dtype", "out_scale", "pads", "perm", "rounding_mode", "shape",
    "signed", "strides", "to", "transA", "transB", "value", "data_layout",
)  # fmt: skip
DOMAINS = ("", "qonnx.custom_op.general", "qonnx.custom_op.channels_last", "onnx.brevitas", "com.microsoft", "nobody")
PLACES = ("/dev/zero", "/etc/passwd", "../outside", "", "absent.bin", "x" * 300, ".", "a/../../b", "\x00")


# ---- valid files -----------------------------------------------------------------------------------------------------


def seeds() -> list[onnx.ModelProto]:
    """Small valid models: QONNX, QCDQ and integers, with a convolution, a sum, a pool and a linear layer each."""
    return [_qonnx(), _qcdq(), _integers()]


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"{operator}_{name}", **attributes))
        return name

    def weights(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-4, 4, shape)

    def model(self, output: str, shape: Sequence[int], opset: int = 13) -> onnx.ModelProto:
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "graph", [source], [made], self.constants)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("qonnx.custom_op.general", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _qonnx() -> onnx.ModelProto:
    b = _Builder()

    def quant(source: str, scale: Any, bits: float, **options: Any) -> str:
        options = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"} | options
        operands = [source, b.constant(scale), b.constant(0.0), b.constant(bits)]
        return b.node("Quant", *operands, domain="qonnx.custom_op.general", **options)

    def weights(*shape: int) -> str:
        scale = np.full((shape[0], *(1,) * (len(shape) - 1)), 0.07)
        return quant(b.constant(b.weights(*shape) * 0.071), scale, 4.0, signed=1, narrow=1)

    x = quant("x", 0.01, 8.0, signed=1)
    y = b.node("Conv", x, weights(4, 2, 3, 3), pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    norm = [b.constant(each) for each in ([1, -1, 0.5, 2], [0.1] * 4, [0.0] * 4, [0.9] * 4)]
    y = b.node("Relu", b.node("BatchNormalization", y, *norm, epsilon=1e-5))
    skip = quant(y, 0.11, 4.0)
    y = b.node("Conv", skip, weights(4, 1, 3, 3), pads=[1, 1, 1, 1], group=4)
    y = quant(b.node("Relu", b.node("Add", y, skip)), 0.13, 4.0)
    y = b.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = b.node("Flatten", y)
    return b.model(b.node("Gemm", y, weights(3, 16), b.constant([0.1, 0.2, 0.3]), transB=1), [1, 2, 4, 4])


def _qcdq() -> onnx.ModelProto:
    b = _Builder()

    def quantized(source: str, scale: float, zero: int, low: int, high: int, dtype: Any = np.uint8) -> str:
        s, z = b.constant(scale), b.constant(zero, dtype)
        y = b.node("QuantizeLinear", source, s, z)
        y = b.node("Clip", y, b.constant(low, dtype), b.constant(high, dtype))
        return b.node("DequantizeLinear", y, s, z)

    def weights(*shape: int) -> str:
        scale, zeros = b.constant(np.full(shape[0], 0.07)), b.constant(np.zeros(shape[0]), np.int8)
        return b.node("DequantizeLinear", b.constant(b.weights(*shape), np.int8), scale, zeros, axis=0)

    x = quantized("x", 0.01, 3, 0, 255)
    bias = b.node("DequantizeLinear", b.constant([5, -9, 0, 77], np.int32), b.constant(0.0007), b.constant(0, np.int32))
    y = b.node("Conv", x, weights(4, 2, 3, 3), bias, pads=[1, 1, 1, 1])
    y = quantized(b.node("Relu", y), 0.05, 0, 0, 15)
    y = quantized(b.node("GlobalAveragePool", y), 0.04, -2, -8, 7, np.int8)
    y = b.node("Reshape", y, b.constant([0, -1], np.int64))
    w = b.node("Transpose", weights(3, 4), perm=[1, 0])
    return b.model(b.node("MatMul", y, w), [1, 2, 5, 5])


def _integers() -> onnx.ModelProto:
    b = _Builder()
    y = b.node("Conv", "x", b.constant(b.weights(3, 2, 3, 3)))
    y = b.node(
        "Add", b.node("Mul", y, b.constant([[[3.0]], [[5.0]], [[-2.0]]])), b.constant([[[7.0]], [[0.0]], [[1.0]]])
    )
    y = b.node("Clip", b.node("Floor", b.node("Div", y, b.constant(32.0))), b.constant(0.0), b.constant(15.0))
    y = b.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = b.node("Floor", b.node("Div", b.node("Mul", y, b.constant(4.0)), b.constant(2.0)))
    y = b.node("Reshape", y, b.constant([1, -1], np.int64))
    return b.model(b.node("MatMul", y, b.constant(b.weights(12, 3))), [1, 2, 6, 6])


# ---- mutations -------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A changed copy of a file: mostly one change, sometimes several; of its bytes, or of what they say."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if rng.random() < 0.2:
            data = _bytes(data, rng)
            continue
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
            rng.choice(_CHANGES)(model, rng)
            data = model.SerializeToString()
        except Exception:  # no model any more, or nothing of that kind in it, or a number that the field does not take
            data = _bytes(data, rng)
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(64)))
    kind, at = rng.randrange(5), rng.randrange(len(data))
    end = min(len(data), at + rng.randrange(1, 64))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:at] + data[at:end] * rng.randrange(2, 5) + data[end:]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32))):
        place = rng.randrange(len(changed))
        changed[place] = changed[place] ^ (1 << rng.randrange(8)) if kind == 3 else rng.randrange(256)
    return bytes(changed)


def _tensor(model: onnx.ModelProto, rng: random.Random) -> TensorProto:
    inside = [each.t for node in model.graph.node for each in node.attribute if each.type == AttributeProto.TENSOR]
    return rng.choice([*model.graph.initializer, *inside])


def _some_node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    return rng.choice(list(model.graph.node))


def _dims(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    dims = list(tensor.dims) or [1]
    dims[rng.randrange(len(dims))] = rng.choice(INTEGERS)
    if rng.random() < 0.3:
        dims = dims * rng.randrange(1, 5)
    del tensor.dims[:]
    tensor.dims.extend(dims)


def _numbers(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    array = numpy_helper.to_array(tensor).copy()
    values = array.reshape(-1)
    count = rng.choice((1, len(values)))
    for place in rng.sample(range(len(values)), min(count, len(values))):
        if array.dtype.kind == "f":
            values[place] = rng.choice(SPECIAL)
        else:
            info = np.iinfo(array.dtype)
            values[place] = min(max(rng.choice(INTEGERS), int(info.min)), int(info.max))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _reshaped(model: onnx.ModelProto, rng: random.Random) -> None:
    """A valid tensor of another shape or type."""
    tensor = _tensor(model, rng)
    array = numpy_helper.to_array(tensor)
    shape = [rng.choice((0, 1, 1, 2, 3, 4, 16)) for _ in range(rng.randrange(5))]
    array = np.resize(array, shape) if rng.random() < 0.6 else array
    dtypes = (
        np.float32,
        np.float64,
        np.float16,
        np.int8,
        np.uint8,
        np.int32,
        np.int64,
        np.bool_,
        np.uint64,
        np.complex64,
    )
    with np.errstate(all="ignore"):
        array = array.astype(rng.choice(dtypes)) if rng.random() < 0.6 else array
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _type(model: onnx.ModelProto, rng: random.Random) -> None:
    _tensor(model, rng).data_type = rng.choice((*range(24), 99, -1))


def _external(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    tensor.data_location = TensorProto.EXTERNAL
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
    entries = {"location": rng.choice(PLACES), "offset": str(rng.choice(INTEGERS)), "length": str(rng.choice(INTEGERS))}
    for key, value in entries.items():
        if rng.random() < 0.7:
            tensor.external_data.add(key=key, value=value if rng.random() < 0.9 else "many")


def _input_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    kind = rng.choice(list(model.graph.input)).type.tensor_type
    if rng.random() < 0.2:
        kind.elem_type = rng.choice((*range(24), 99))
    dims = list(kind.shape.dim)
    choice = rng.randrange(3)
    if choice == 0 and dims:
        rng.choice(dims).dim_value = rng.choice(INTEGERS)
    elif choice == 1 and dims:
        rng.choice(dims).dim_param = rng.choice(NAMES)
    else:
        kind.shape.dim.add(dim_value=rng.choice((0, 1, 2, 1 << 20)))


def _attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([each for each in model.graph.node if each.attribute])
    attribute = rng.choice(list(node.attribute))
    kind = rng.randrange(6)
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.type = rng.randrange(16)
    elif kind == 2:
        attribute.name = rng.choice((*NAMES, *(a.name for n in model.graph.node for a in n.attribute)))
    elif kind == 3:
        value = rng.choice(
            (rng.choice(INTEGERS), rng.choice(SPECIAL), rng.choice(NAMES), [rng.choice(INTEGERS)] * 3, [])
        )
        attribute.CopyFrom(
            helper.make_attribute(attribute.name, value, attr_type=AttributeProto.INTS if value == [] else None)
        )
    elif kind == 4 and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTEGERS)
    else:
        attribute.ints.extend([rng.choice(INTEGERS)] * rng.randrange(1, 9))


def _new_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    name = rng.choice(ATTRIBUTES)
    value = rng.choice(
        (rng.choice(INTEGERS), rng.choice(SPECIAL), rng.choice(NAMES), [rng.choice(INTEGERS)] * 2, "SAME_UPPER")
    )
    _some_node(model, rng).attribute.append(helper.make_attribute(name, value))


def _rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    """An input of a node becomes any name: a cycle, a constant, nothing."""
    node = rng.choice([each for each in model.graph.node if each.input])
    names = [*NAMES, *(o for n in model.graph.node for o in n.output), *(each.name for each in model.graph.initializer)]
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _operands(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _some_node(model, rng)
    field = node.input if rng.random() < 0.8 else node.output
    kind = rng.randrange(4)
    if kind == 0 and field:
        del field[rng.randrange(len(field))]
    elif kind == 1:
        field.append(rng.choice((*NAMES, *node.input, *node.output)))
    elif kind == 2:
        del field[:]
    else:
        field.reverse()


def _nodes(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = model.graph.node
    kind = rng.randrange(4)
    if kind == 0:
        del nodes[rng.randrange(len(nodes))]
    elif kind == 1:
        nodes.append(copy.deepcopy(_some_node(model, rng)))
    elif kind == 2:
        order = [copy.deepcopy(each) for each in nodes]
        rng.shuffle(order)
        del nodes[:]
        nodes.extend(order)
    else:
        # The same again, a few times in a row: x -> f(f(f(x))).
        node, last = _some_node(model, rng), ""
        for _ in range(rng.choice((2, 8, 200))):
            again = copy.deepcopy(node)
            again.input[0] = last or node.output[0]
            again.output[0] = last = f"{node.output[0]}.{len(nodes)}"
            nodes.append(again)
        model.graph.output[0].name = last


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _some_node(model, rng)
    if rng.random() < 0.7:
        node.op_type = rng.choice((*OPERATORS, *NAMES))
    else:
        node.domain = rng.choice(DOMAINS)


def _names(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(
        (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output, model.graph)
    ).name = rng.choice(NAMES)


def _interface(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    kind = rng.randrange(7)
    if kind == 0:
        del graph.output[:]
    elif kind == 1:
        graph.output.append(
            helper.make_empty_tensor_value_info(rng.choice((*NAMES, *(n.output[0] for n in graph.node))))
        )
    elif kind == 2:
        graph.output[0].name = rng.choice((*NAMES, *(name for n in graph.node for name in (*n.input, *n.output))))
    elif kind == 3:
        del graph.input[:]
    elif kind == 4:
        graph.input.append(copy.deepcopy(rng.choice(list(graph.input))))
    elif kind == 5:
        graph.initializer.append(copy.deepcopy(_tensor(model, rng)))
    else:
        del graph.initializer[rng.randrange(len(graph.initializer))]


def _model(model: onnx.ModelProto, rng: random.Random) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        model.opset_import[0].version = rng.choice((0, 1, 7, 9, 10, 11, 12, 18, 99, 1 << 40))
    elif kind == 1:
        del model.opset_import[:]
    elif kind == 2:
        model.functions.add(name=rng.choice(NAMES), domain=rng.choice(DOMAINS))
    else:
        # A graph within a graph within a graph.
        inner = model.graph
        for _ in range(rng.choice((1, 5, 60))):
            node = inner.node.add(op_type="If", name="if", output=["inner"])
            attribute = node.attribute.add(name="then_branch", type=AttributeProto.GRAPH)
            inner = attribute.g


Change = Callable[[onnx.ModelProto, random.Random], None]
_CHANGES: tuple[Change, ...] = (
    _dims, _numbers, _numbers, _numbers, _reshaped, _reshaped, _type, _external, _input_shape, _attribute, _attribute,
    _new_attribute, _rewire, _rewire, _operands, _nodes, _operator, _operator, _names, _interface, _model,
)  # fmt: skip


# ---- the importer under test -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A file for which the importer did something else than it may.

    Members
    -------
    seed : :class:`int`
        That :func:`mutate` made it from.
    reason : :class:`str`
        What happened.
    path : :class:`pathlib.Path`
        Where the file is.
    """

    seed: int
    reason: str
    path: Path


def outcome(path: Path, input_range: tuple[int, int] | None = None) -> str:
    """ "imported", or the sentence that refuses a file; anything else is raised."""
    from golden.onnx_import import UnsupportedModelError, load

    try:
        load(path, input_range=input_range)
    except UnsupportedModelError as error:
        sentence = str(error)
        if "\n" in sentence or len(sentence) > 4000:
            raise AssertionError(f"The sentence must be one line, not {sentence[:200]!r}") from None
        return sentence
    return "imported"


def _case(corpus: Sequence[bytes], seed: int) -> bytes:
    rng = random.Random(seed)
    return mutate(rng.choice(corpus), rng)


def _corpus(folders: Sequence[Path]) -> list[bytes]:
    files = sorted(path for folder in folders for path in folder.rglob("*.onnx"))
    return [model.SerializeToString() for model in seeds()] + [path.read_bytes() for path in files]


def _work(request: dict[str, Any]) -> None:
    """The worker: one line of JSON for each seed, as soon as it is done."""
    import golden.onnx_import

    corpus = _corpus([Path(each) for each in request["folders"]])
    path = Path(request["path"])
    for model in corpus[:3]:
        # Whatever is imported late is imported now, so that the limit is the importer's alone.
        path.write_bytes(model)
        with contextlib.suppress(ValueError):
            golden.onnx_import.load(path, input_range=(0, 15))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT_BYTES, resource.RLIM_INFINITY))

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {LIMIT_SECONDS} seconds")

    # Seconds of work; a file that only waits has six times as long.
    signal.signal(signal.SIGPROF, late)
    signal.signal(signal.SIGALRM, late)
    for seed in range(request["first"], request["last"]):
        path.write_bytes(_case(corpus, seed))
        signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
        signal.alarm(6 * LIMIT_SECONDS)
        started = time.monotonic()
        try:
            said, wrong = outcome(path, (0, 15) if seed % 2 else None), False
        except BaseException as error:
            said, wrong = f"{type(error).__name__}: {error}"[:500], True
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        row = {"seed": seed, "said": said, "wrong": wrong, "seconds": time.monotonic() - started}
        print(json.dumps(row), flush=True)


def _rows(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Outcomes of all seeds; a worker that dies is one, and another goes on behind it."""
    first, last = request["first"], request["last"]
    while first < last:
        command = [sys.executable, "-W", "error::RuntimeWarning", "-c", WORKER, json.dumps(request | {"first": first})]
        root = str(Path(__file__).parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              env={**os.environ, "PYTHONPATH": paths}) as worker:  # fmt: skip
            assert worker.stdout is not None
            for line in worker.stdout:
                row = json.loads(line)
                first = row["seed"] + 1
                yield row
        if first < last:
            yield {"seed": first, "said": f"the process ended with {worker.returncode}", "wrong": True, "seconds": 0.0}
            first += 1


def run(
    count: int, *, seed: int = 0, folders: Sequence[Path] = (), output: Path, console: Console | None = None
) -> list[Failure]:
    """Give the importer ``count`` changed files.

    Parameters
    ----------
    count, seed : :class:`int`
        How many, and the seed of the first.
    folders : sequence of paths
        With .onnx files to change, besides :func:`seeds`.
    output : path
        Folder for the files that fail.
    """
    console = console or Console()
    if count < 1:
        raise ValueError(f"Count must be at least 1, not {count}")
    output.mkdir(parents=True, exist_ok=True)
    corpus = _corpus(folders)
    request = {"first": seed, "last": seed + count, "folders": [str(each) for each in folders],
               "path": str(output / "now.onnx")}  # fmt: skip
    failures: list[Failure] = []
    sentences: set[str] = set()
    imported, slowest = 0, 0.0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("changed files", total=count)
        for row in _rows(request):
            progress.advance(bar)
            slowest = max(slowest, row["seconds"])
            if row["wrong"]:
                path = output / f"import-{row['seed']}.onnx"
                path.write_bytes(_case(corpus, row["seed"]))
                failures.append(Failure(row["seed"], row["said"], path))
            elif row["said"] == "imported":
                imported += 1
            else:
                sentences.add(row["said"].partition(")")[2] or row["said"])
    (output / "now.onnx").unlink(missing_ok=True)
    console.print(
        f"{count} changed files (seeds from {seed}): {imported} imported, "
        f"{count - imported - len(failures)} refused in {len(sentences)} different ways, "
        f"{len(failures)} failed; the slowest took {slowest:.1f} s.",
        highlight=False,
    )
    for failure in failures:
        console.print(f"seed {failure.seed}: {failure.reason} ({failure.path})", markup=False, highlight=False,
                      soft_wrap=True)  # fmt: skip
    return failures


def guided(count: int, *, seed: int = 0, folders: Sequence[Path] = (), output: Path) -> None:
    """The same with atheris, which keeps what reaches new code; ends the process with libFuzzer's own exit status.

    What it keeps is in the folder ``corpus`` of the output, and the next call begins with it. Its own memory grows by
    about 0.1 MB a file: calls of 30 000 files stay below its limit of 4 GB.
    """
    import atheris

    output.mkdir(parents=True, exist_ok=True)
    start, path = output / "corpus", output / "now.onnx"
    start.mkdir(exist_ok=True)
    for number, data in enumerate(_corpus(folders)):
        (start / f"{number:04}.onnx").write_bytes(data)
    with atheris.instrument_imports(include=["golden.onnx_import", "golden.affine"]):
        for name in [each for each in sys.modules if each.startswith(("golden.onnx_import", "golden.affine"))]:
            del sys.modules[name]
        importlib.import_module("golden.onnx_import")

    def one(data: bytes) -> None:
        path.write_bytes(data)
        outcome(path, (0, 15) if len(data) % 2 else None)

    def changed(data: bytes, most: int, number: int) -> bytes:
        return mutate(data, random.Random(number))[:most]

    options = [f"-runs={count}", f"-seed={seed + 1}", f"-timeout={LIMIT_SECONDS}", "-rss_limit_mb=4096",
               "-max_len=65536", f"-artifact_prefix={output}/", "-print_final_stats=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(start)], one, custom_mutator=changed)
    atheris.Fuzz()
