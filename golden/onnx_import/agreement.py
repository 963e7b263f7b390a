"""An imported file beside its own executor, code by code, and what the differences are.

A file of standard operators is executed by ONNX Runtime (its graph optimizations off, so that each node is what ONNX
says it is), one with QONNX's operators by qonnx. Both compute in float32. :func:`compare` gives every operation of the
network the executor's own codes as its inputs, so that a difference is that operation's and no consequence of another
one, and explains it by exact arithmetic (:class:`golden.affine.Exact`):

* *tie*: golden's code is the correct one of the operation's exact rational r, and the executor's is the code of a
  number that float32's error does not tell from r.
* *inexact*: no (M, B, S) gives the correct code; the importer's notice counts these accumulators.
* whatever else is *unexplained*: a bug of one of the two.

The bound of float32's error. A number that is made of others by +, -, × and ÷ with constants, each of them going
through at most n roundings of relative error u = 2**-24, differs from its exact value by at most n·u/(1 - n·u) times
the same expression of absolute values (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1).
That holds for sums in any order and with fused multiplications, as ONNX Runtime's and numpy's kernels compute them;
clips and maxima are no further apart than what they read. :class:`_Magnitudes` computes n and the expression of
absolute values, node by node.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from golden.affine import Exact
from golden.execute import accumulate, execute
from golden.network import Add, Conv2d, IntegerNetwork, Kind, Operation, Tensor
from golden.onnx_import.result import Import
from golden.requantize import count_thresholds, requantize

__all__ = ["Agreement", "Layer", "compare", "executor", "run"]

UNIT = 2.0**-24
"""Largest relative error of a float32 rounding."""

QUANTIZERS = ("Quant", "IntQuant", "BipolarQuant", "MultiThreshold", "QuantizeLinear")
ROUNDERS = ("Floor", "Ceil", "Round", "Cast")
"""What integer networks round with."""


# ---- executors -------------------------------------------------------------------------------------------------------


def executor(model: onnx.ModelProto) -> str:
    """Who executes a file: "qonnx" if it has operators that are not ONNX's, "ONNX Runtime" otherwise."""
    standard = ("", "ai.onnx", "com.microsoft")
    return "qonnx" if any(node.domain not in standard for node in model.graph.node) else "ONNX Runtime"


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of a file by name, constants included, computed by its own executor.

    Parameters
    ----------
    model : :class:`onnx.ModelProto`
        One input; its batch is whatever the file says.
    x : array (N, ...)
        Values of the input, of its type.
    """
    return (_run_qonnx if executor(model) == "qonnx" else _run_standard)(model, x)


def _input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    constants = {each.name for each in model.graph.initializer}
    return next(each for each in model.graph.input if each.name not in constants)


def _batch(model: onnx.ModelProto) -> int:
    """Frames that one call takes; 0: any number."""
    return int(_input(model).type.tensor_type.shape.dim[0].dim_value)


def _chunks(x: np.ndarray, batch: int) -> Iterable[tuple[np.ndarray, int]]:
    """``x`` in pieces of ``batch`` frames, and how many of them count: the last piece repeats its last frame."""
    for start in range(0, len(x), batch or len(x)):
        piece = x[start : start + batch] if batch else x
        count = len(piece)
        yield (np.concatenate([piece, np.repeat(piece[-1:], batch - count, 0)]) if count < batch else piece), count


def _joined(pieces: list[tuple[dict[str, np.ndarray], int]], fixed: set[str], batch: int) -> dict[str, np.ndarray]:
    """Tensors of all pieces; what does not depend on the input is taken once."""
    first, _ = pieces[0]
    joined = {}
    for name, value in first.items():
        if not name:
            continue  # an operand that is left out
        if name in fixed or value.ndim == 0 or (batch and value.shape[0] != batch):
            joined[name] = value
        else:
            joined[name] = np.concatenate([piece[name][:count] for piece, count in pieces])
    return joined


def _fixed(model: onnx.ModelProto) -> set[str]:
    """Names of tensors that do not depend on the input."""
    fixed = {each.name for each in model.graph.initializer}
    for node in model.graph.node:
        if all(name in fixed for name in node.input if name):
            fixed |= set(node.output)
    return fixed


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run_standard(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    _strip(opened)
    known = {each.name for each in opened.graph.output} | _without_numpy(model)
    made = [name for node in opened.graph.node for name in node.output if name]
    opened.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in made if name not in known)
    session = _session(opened)
    labels, source, batch = [each.name for each in session.get_outputs()], _input(model).name, _batch(model)
    pieces = [
        (dict(zip(labels, session.run(labels, {source: piece}), strict=True)), count)
        for piece, count in _chunks(x, batch)
    ]
    values = _joined(pieces, _fixed(model), batch or len(x))
    values |= {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return values | {source: x}


def _without_numpy(model: onnx.ModelProto) -> set[str]:
    """Names of tensors of 4 bits, which ONNX Runtime computes but does not hand over."""
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    types = (TensorProto.INT4, TensorProto.UINT4)
    return {each.name for each in inferred if each.type.tensor_type.elem_type in types}


def _strip(model: onnx.ModelProto) -> None:
    """Leave out attributes that ONNX does not know, as NEMO writes them: ONNX Runtime refuses them."""
    versions = {each.domain: each.version for each in model.opset_import}
    for node in model.graph.node:
        try:
            known = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain).attributes
        except onnx.defs.SchemaError:
            continue
        for attribute in [each for each in node.attribute if each.name not in known]:
            node.attribute.remove(attribute)


def _run_qonnx(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    last_only = any(node.domain.endswith("channels_last") for node in model.graph.node)
    model = copy.deepcopy(model) if last_only else _rebatched(model, len(x))
    source, batch = _input(model).name, _batch(model)
    constants = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # qonnx warns of its own future and of shapes that it infers itself
        onnxruntime.set_default_logger_severity(3)  # its channels-last operators make models of opset 1
        wrapper = ModelWrapper(model).transform(InferShapes())
        pieces = [
            (execute_onnx(wrapper, {source: piece}, return_full_exec_context=True), count)
            for piece, count in _chunks(x, batch)
        ]
    return _joined(pieces, _fixed(model), batch) | {source: x}


def _rebatched(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same model for ``batch`` frames at once; a Reshape that names the old batch keeps what there is."""
    old = _batch(model)
    model = copy.deepcopy(model)
    del model.graph.value_info[:]
    _input(model).type.tensor_type.shape.dim[0].dim_value = batch
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    dynamic = set(_dynamic_reshapes(model))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes & dynamic:
            for attribute in node.attribute:
                if attribute.name == "value":
                    attribute.t.CopyFrom(_kept(attribute.t, old, batch))
    for each in model.graph.initializer:
        if each.name in shapes & dynamic:
            each.CopyFrom(_kept(each, old, batch))
    return model


def _dynamic_reshapes(model: onnx.ModelProto) -> Iterable[str]:
    """Shapes of the Reshapes that read what depends on the input."""
    fixed = _fixed(model)
    return (node.input[1] for node in model.graph.node if node.op_type == "Reshape" and node.input[0] not in fixed)


def _kept(shape: onnx.TensorProto, old: int, batch: int) -> onnx.TensorProto:
    sizes = numpy_helper.to_array(shape).copy()
    if old and sizes.size and sizes[0] == old:
        sizes[0] = batch
    return numpy_helper.from_array(sizes, shape.name)


# ---- float32's error -------------------------------------------------------------------------------------------------


class _UnboundedError(Exception):
    """An operator whose error in float32 is not known here."""


class _Magnitudes:
    """For a tensor of floats: the sum of the absolute values of all its terms, and how many roundings one goes through.

    Parameters
    ----------
    model : :class:`onnx.ModelProto`
        The file.
    values : :class:`dict`
        Of every tensor, from :func:`run`.
    """

    SAME_ORDER = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout")
    ALIKE = ("Relu", "Transpose", "MaxPool", "Pad", "Cast", "GlobalMaxPool")
    SUMS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum")

    def __init__(self, model: onnx.ModelProto, values: dict[str, np.ndarray]) -> None:
        self.model, self.values = model, values
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.fixed = _fixed(model)
        self.initializers = {each.name for each in model.graph.initializer}
        self.known: dict[str, tuple[np.ndarray, int]] = {}

    def of(self, name: str) -> tuple[np.ndarray, int]:
        """(magnitude, roundings) of a tensor."""
        if name not in self.known:
            self.known[name] = self._compute(name)
        return self.known[name]

    def _compute(self, name: str) -> tuple[np.ndarray, int]:
        node = self.makers.get(name)
        value = np.abs(self.values[name].astype(np.float32))
        if self.values[name].dtype.kind in "iub":
            return value, 0
        if node is None or name in self.fixed or node.op_type in (*QUANTIZERS, "DequantizeLinear"):
            # Numbers of the file are what they are; dequantized ones, and what is computed from constants, are rounded.
            return value, 0 if node is None else 4
        operands = [self.of(each) for each in node.input if each]
        magnitudes, counts = [m for m, _ in operands], [n for _, n in operands]
        kind = node.op_type
        if kind in ("Add", "Sub"):
            return magnitudes[0] + magnitudes[1], max(counts) + 1
        if kind in ("Mul", "Div"):
            second = magnitudes[1] if kind == "Mul" else 1 / magnitudes[1]
            return magnitudes[0] * second, sum(counts) + 1
        if kind == "Clip":
            bounds = [np.abs(self.values[each]) for each in node.input[1:] if each]
            finite = [float(bound) for bound in bounds if float(bound) < 3e38]
            return np.maximum(magnitudes[0], max(finite, default=0.0)), counts[0]
        if kind == "BatchNormalization":
            # gamma/sqrt(variance + epsilon) has at most 4 roundings, beta - mean*that 2 more, the whole 2 more.
            gamma, beta, mean, variance = magnitudes[1:5]
            return self._single(node, [magnitudes[0], gamma, beta, -mean, variance]), counts[0] + 8
        if kind in ("Conv", "Gemm", "MatMul", "ConvInteger", "MatMulInteger"):
            weights = self.values[node.input[1]]
            products = int(np.prod(weights.shape[1:])) if kind.startswith("Conv") else max(weights.shape)
            return self._single(node, magnitudes), sum(counts) + products + 2
        if kind in self.SUMS:
            terms = max(1, round(magnitudes[0].size / max(1, value.size)))
            if kind == "AveragePool":
                terms = int(np.prod(next(list(a.ints) for a in node.attribute if a.name == "kernel_shape")))
            return self._single(node, [magnitudes[0], *(self.values[each] for each in node.input[1:])]), (
                counts[0] + terms + 1
            )
        if kind in self.SAME_ORDER:
            return magnitudes[0].reshape(value.shape), counts[0]
        if kind in self.ALIKE:
            plain = node if kind != "Relu" else helper.make_node("Identity", node.input[:1], node.output)
            rest = [self.values[each] for each in node.input[1:] if each]
            return self._single(plain, [magnitudes[0], *rest]), counts[0]
        raise _UnboundedError(kind)

    def _single(self, node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
        """What one node makes of other inputs."""
        single = onnx.NodeProto()
        single.CopyFrom(node)
        names = [f"i{i}" for i in range(len(inputs))]
        del single.input[:], single.output[:]
        single.input.extend(names)
        single.output.append("o")
        if node.domain.endswith("channels_last"):
            single.domain = ""
            last = inputs[0].ndim - 1
            first = (0, last, *range(1, last))
            inputs = [x.transpose(first) if i == 0 or (i == 1 and node.op_type == "Conv") else x
                      for i, x in enumerate(inputs)]  # fmt: skip
        versions = {each.domain: each.version for each in self.model.opset_import}
        made = helper.make_model(
            helper.make_graph(
                [single],
                "single",
                [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
                 for n, x in zip(names, inputs, strict=True)],
                [helper.make_empty_tensor_value_info("o")],
            ),
            opset_imports=[helper.make_opsetid("", versions.get("", 13))],
            ir_version=8,
        )  # fmt: skip
        out = _session(made).run(None, dict(zip(names, map(np.ascontiguousarray, inputs), strict=True)))[0]
        return np.moveaxis(out, 1, -1) if node.domain.endswith("channels_last") else out

    def error(self, name: str) -> np.ndarray:
        """What a tensor of floats may at most differ from its exact values, float64, in the tensor's form.

        Two more roundings are counted for what a quantizer divides and adds; magnitudes are themselves rounded up.
        """
        magnitude, count = self.of(name)
        count += 2
        return magnitude.astype(np.float64) * (1.001 * count * UNIT / (1 - count * UNIT))


# ---- comparison ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One operation, with the executor's own codes as its inputs, beside the executor.

    Members
    -------
    operation, tensor : :class:`str`
        The network's operation and the file's name of what it makes; "input" for the file's own input quantizer.
    codes : :class:`int`
        How many were compared.
    ties, inexact, unexplained : :class:`int`
        How many differ, and why; see the module.
    example : :class:`str`
        The first difference in words; empty if there is none.
    """

    operation: str
    tensor: str
    codes: int
    ties: int = 0
    inexact: int = 0
    unexplained: int = 0
    example: str = ""

    @property
    def differing(self) -> int:
        """Codes that differ."""
        return self.ties + self.inexact + self.unexplained


@dataclass(frozen=True)
class Agreement:
    """What :func:`compare` found.

    Members
    -------
    executor : :class:`str`
        Who computed the file.
    frames : :class:`int`
        Of each tensor.
    layers : tuple of :class:`Layer`
        One for each tensor that both have, in the network's order.
    outputs : :class:`int`
        Values of the file's output that differ when each of the two computes everything from the input.
    classes : :class:`int`
        Frames whose largest output is another one then.
    """

    executor: str
    frames: int
    layers: tuple[Layer, ...]
    outputs: int
    classes: int

    @property
    def codes(self) -> int:
        """Codes that were compared."""
        return sum(layer.codes for layer in self.layers)

    @property
    def differing(self) -> int:
        """Codes that differ."""
        return sum(layer.differing for layer in self.layers)

    @property
    def ties(self) -> int:
        """Codes that differ by float32's error."""
        return sum(layer.ties for layer in self.layers)

    @property
    def inexact(self) -> int:
        """Codes that differ because no constants give them."""
        return sum(layer.inexact for layer in self.layers)

    @property
    def unexplained(self) -> int:
        """Codes that differ otherwise."""
        return sum(layer.unexplained for layer in self.layers)

    def status(self) -> str:
        """One line for people: exact, or how many codes differ and why."""
        if not self.differing:
            return "exact"
        reasons = {
            f"float32 ties of {self.executor}": self.ties,
            "no constants give them (counted in the notice)": self.inexact,
            "unexplained": self.unexplained,
        }
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        return f"differs in {self.differing:,} of {self.codes:,} codes: {why}"


def compare(result: Import, model: onnx.ModelProto, x: np.ndarray) -> Agreement:
    """Compare every tensor that an import names with the file's own executor.

    Parameters
    ----------
    result : :class:`~golden.onnx_import.Import`
        Of ``model``.
    model : :class:`onnx.ModelProto`
        The file.
    x : array (N, ...)
        Values of the file's input.
    """
    return _Comparison(result, model, x).run()


class _Comparison:
    def __init__(self, result: Import, model: onnx.ModelProto, x: np.ndarray) -> None:
        self.result, self.network, self.model, self.x = result, result.network, model, x
        self.theirs = run(model, x)
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.magnitudes = _Magnitudes(model, self.theirs)
        self.hidden: dict[str, tuple[Exact, np.ndarray, np.ndarray | None]] = {}
        self.names: dict[str, list[str]] = {}
        for name, tensor in result.tensors.items():
            if name in self.theirs:
                self.names.setdefault(tensor, []).append(name)

    def run(self) -> Agreement:
        source = self.network.input
        codes = {source.name: self.result.encode(self.x)}
        layers = [self._input(codes)] if source.name in self.names else []
        for operation in self.network.operations:
            output = self.network.tensor(operation.output)
            acc, skip, got = self._compute(operation, codes)
            codes[output.name] = got
            if output.name not in self.names:
                if acc is not None and acc.shape == got.shape and operation.name in self.result.exact:
                    self.hidden[output.name] = self.result.exact[operation.name], acc, skip
                continue
            name = self.names[output.name][0]
            if output.kind is Kind.ACCUMULATOR:
                layers.append(self._accumulators(operation, name, got))
                continue
            wanted = self.result.codes(name, self.theirs[name])
            layers.append(self._layer(operation, name, got, wanted, acc, skip))
            codes[output.name] = np.clip(wanted, 0, output.max_code).astype(got.dtype)
        outputs, classes = self._end_to_end()
        return Agreement(executor(self.model), len(self.x), tuple(layers), outputs, classes)

    def _compute(
        self, operation: Operation, codes: dict[str, np.ndarray]
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        """Accumulators and residual codes of an operation, and what it makes."""
        output = self.network.tensor(operation.output)
        if isinstance(operation, Conv2d):
            acc = accumulate(codes[operation.input], operation, self.network)
            skip = None if operation.skip is None else codes[operation.skip]
            if operation.thresholds is not None:
                return acc, None, count_thresholds(acc, operation.thresholds)
            if operation.requantize is None:
                return acc, None, acc
            return acc, skip, requantize(acc, operation.requantize, output.bits, skip)
        if isinstance(operation, Add):
            acc, skip = codes[operation.a].astype(np.int64), codes[operation.b]
            return acc, skip, requantize(acc, operation.requantize, output.bits, skip)
        source = self.network.tensor(operation.inputs[0])
        alone = IntegerNetwork("one", (source, output), (operation,))
        return None, None, execute(alone, codes[source.name])[output.name]

    def _input(self, codes: dict[str, np.ndarray]) -> Layer:
        """The file's own input quantizer, in float32 as the executor computes it."""
        source = self.network.input
        name = self.names[source.name][0]
        wanted = self.result.codes(name, self.theirs[name])
        wrong = int((wanted != codes[source.name]).sum())
        codes[source.name] = np.clip(wanted, 0, source.max_code).astype(codes[source.name].dtype)
        return Layer("input", name, wanted.size, unexplained=wrong, example=f"{wrong} input codes" if wrong else "")

    def _layer(
        self,
        operation: Operation,
        name: str,
        got: np.ndarray,
        wanted: np.ndarray,
        acc: np.ndarray | None,
        skip: np.ndarray | None,
    ) -> Layer:
        back = self.result.values(name, wanted)
        theirs = self.theirs[name].astype(np.float64).reshape(back.shape)
        off_grid = ~(np.abs(back - theirs) <= 1e-5 * np.maximum(np.abs(theirs), np.abs(back)) + 1e-30)
        if off_grid.any():
            return Layer(operation.name, name, wanted.size, unexplained=int(off_grid.sum()),
                         example=f"{theirs[off_grid][0]!r} of {name!r} is the value of no code")  # fmt: skip
        places = np.argwhere(got != wanted)
        counts = {"ties": 0, "inexact": 0, "unexplained": 0}
        example = ""
        if len(places):
            error = self._error(name)
            for place in map(tuple, places):
                reason, text = self._explain(operation, place, got, wanted, acc, skip, error)
                counts[reason] += 1
                if not example or (reason == "unexplained" and counts[reason] == 1):
                    example = text
        return Layer(operation.name, name, wanted.size, **counts, example=example)

    def _explain(
        self,
        operation: Operation,
        place: tuple[int, ...],
        got: np.ndarray,
        wanted: np.ndarray,
        acc: np.ndarray | None,
        skip: np.ndarray | None,
        error: np.ndarray | None,
    ) -> tuple[str, str]:
        ours, theirs = int(got[place]), int(wanted[place])
        exact = self.result.exact.get(operation.name)
        where = f"frame {place[0]}, channel {place[1]}, position {place[2]}, {place[3]} of operation {operation.name!r}"
        said = f"{where}: code {ours}, but {theirs} of {executor(self.model)}"
        if exact is None or acc is None:
            return "unexplained", said
        channel, a, s = int(place[1]), int(acc[place]), 0 if skip is None else int(skip[place])
        r, correct = exact.value(channel, a, s), exact.code(channel, a, s)
        said = f"{said}; exactly {float(r):.9g}, whose code is {correct}"
        if ours != correct:
            return ("inexact" if exact.mismatches and exact.mismatches[channel] else "unexplained"), said
        if error is None:
            return "unexplained", said
        bound = Fraction(float(error[place]))
        ends = [exact.quantized(channel, r + side * bound) for side in (-1, 1)]
        if isinstance(operation, Conv2d) and operation.input in self.hidden and (operation.weights == 1).all():
            # The first of two steps is where the file rounds; the second only clips.
            first, acc, skip = self.hidden[operation.input]
            r = first.value(channel, int(acc[place]), 0 if skip is None else int(skip[place]))
            ends = [exact.code(channel, first.quantized(channel, r + side * bound)) for side in (-1, 1)]
        reason = "ties" if ends[0] <= theirs <= ends[1] else "unexplained"
        return reason, f"{said}; float32's error is at most {float(bound):.2g}"

    def _error(self, name: str) -> np.ndarray | None:
        """Bounds of float32's error, (N, C, H, W), in the exact rationals' units; ``None`` where none is known."""
        node = self.makers.get(name)
        while node is not None and node.op_type not in (*QUANTIZERS, *ROUNDERS):
            if node.op_type not in ("DequantizeLinear", "Clip", "Identity"):
                return None
            node = self.makers.get(node.input[0])
        if node is None:
            return None
        try:
            error = self.magnitudes.error(node.input[0])
        except _UnboundedError:
            return None
        if node.op_type in ("Quant", "IntQuant", "QuantizeLinear"):
            scale = np.asarray(self.theirs[node.input[1]], np.float64)
            zero = np.abs(np.asarray(self.theirs[node.input[2]], np.float64)) if len(node.input) > 2 else np.zeros(1)
            # Adding the zero point is rounded too.
            error = error / float(scale.ravel()[0]) + 2 * UNIT * float(zero.ravel()[0])
        return self._canonical(name, error)

    def _canonical(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values in the form of the file's tensor ``name`` as (N, C, H, W)."""
        view = self.result.views[name]
        sizes = dict(zip("CHW", self.network.tensor(view.tensor).shape, strict=True))
        shaped = values.reshape(-1, *(sizes[axis] for axis in view.order))
        return np.ascontiguousarray(shaped.transpose(0, *(1 + view.order.index(axis) for axis in "CHW")))

    def _accumulators(self, operation: Operation, name: str, got: np.ndarray) -> Layer:
        """The last layer: its real values, which are the executor's but for float32's error."""
        tensor = self.network.tensor(operation.output)
        theirs = self._canonical(name, self.theirs[name].astype(np.float64))
        assert tensor.slope is not None and tensor.offset is not None
        exact = tensor.slope[:, None, None] * got + tensor.offset[:, None, None]
        nearest = np.abs(exact - theirs) <= np.abs(tensor.slope[:, None, None]) / 2
        try:
            error = self._canonical(name, self.magnitudes.error(name))
        except _UnboundedError:
            error = np.zeros_like(theirs)
        near = np.abs(exact - theirs) <= error + 1e-12 * np.abs(exact)
        wrong = ~(near | nearest)
        return Layer(operation.name, name, got.size, ties=int((near & ~nearest).sum()), unexplained=int(wrong.sum()),
                     example=_value_example(tensor, exact, theirs, wrong))  # fmt: skip

    def _end_to_end(self) -> tuple[int, int]:
        """Differing outputs, and frames with another class, where each computes everything itself."""
        output = self.network.output
        if output.name not in self.names:
            return 0, 0
        name = self.names[output.name][0]
        codes = execute(self.network, self.result.encode(self.x))[output.name]
        ours = self.result.values(name, codes).reshape(len(self.x), -1)
        theirs = self.theirs[name].astype(np.float64).reshape(ours.shape)
        if output.kind is Kind.ACCUMULATOR:
            assert output.slope is not None
            step = self.result.values(name, np.ones_like(codes)) - self.result.values(name, np.zeros_like(codes))
            differs = np.abs(ours - theirs) > np.maximum(np.abs(step).reshape(ours.shape) / 2, 1e-5 * np.abs(theirs))
        else:
            differs = (self.result.codes(name, self.theirs[name]) != codes).reshape(ours.shape)
        return int(differs.sum()), int((ours.argmax(1) != theirs.argmax(1)).sum())


def _value_example(tensor: Tensor, ours: np.ndarray, theirs: np.ndarray, wrong: np.ndarray) -> str:
    if not wrong.any():
        return ""
    place = tuple(np.argwhere(wrong)[0])
    return f"{float(ours[place]):.9g} of {tensor.name!r} at {tuple(map(int, place))}, but {float(theirs[place]):.9g}"
