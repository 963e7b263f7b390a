"""What the two float forms share: integers as float32 values, exact sums, and thresholds that are proved.

A tensor of codes is carried as its values code - zero point, integers in float32, so that padding is 0 and every scale
is 1. A convolution's sum of products of such integers is exact in any order as long as no partial sum can leave the
integers that float32 holds (2**24). What follows it is in :mod:`golden.onnx_export.float32`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from golden.network import (
    Conv2d,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    NetworkError,
    Requantize,
    Tensor,
    Thresholds,
    VectorQuantize,
)
from golden.onnx_export.float32 import EXACT, Quantizer, float_constants
from golden.onnx_export.graph import Graph, describe, metadata

__all__ = ["Agreement", "Dialect", "agreement", "float_model"]

FLOAT = int(TensorProto.FLOAT)


@dataclass(frozen=True)
class Agreement:
    """What is proved about one operation of a float form.

    Parameters
    ----------
    operation : :class:`str`
        Its name.
    different : :class:`int` or ``None``
        Of all reachable accumulators (with a residual operand: pairs of an accumulator and a skip code) those whose
        code is not golden's; ``None``: not known.
    reachable : :class:`int`
        How many there are.
    reason : :class:`str`
        Why the number is not known, in one sentence; empty if it is.
    """

    operation: str
    different: int | None
    reachable: int
    reason: str = ""


class Dialect(ABC):
    """How a form writes quantizers."""

    form: str
    title: str
    batch: str | int
    opsets: tuple[tuple[str, int], ...]
    about: str

    @abstractmethod
    def check(self, tensor: Tensor) -> None:
        """Refuse codes that the form does not have."""

    @abstractmethod
    def added(self, tensor: Tensor) -> int:
        """What the tensor's quantizer adds before it rounds."""

    @abstractmethod
    def quantize(self, graph: Graph, value: str, tensor: Tensor, output: str) -> None:
        """Nodes that make the values of ``tensor``, called ``output``, from float32 numbers."""

    @abstractmethod
    def weights(self, graph: Graph, operation: Conv2d, weights: np.ndarray) -> str:
        """Nodes that make float32 weights; returns their name."""

    def compare(self, graph: Graph, name: str, value: str, thresholds: Thresholds, output: Tensor) -> None:
        """Nodes that make the values of ``output``: how many thresholds numbers reach, which must be negated first."""
        raise NetworkError(
            f"Operation {name!r} must multiply and shift in {self.title}, not compare with thresholds: the integer "
            "form and QONNX have them"
        )


def float_model(network: IntegerNetwork, dialect: Dialect) -> onnx.ModelProto:
    """The model of ``network`` in a dialect.

    Raises
    ------
    NetworkError
        If the form cannot carry an operation or a tensor, which the sentence names.
    """
    for operation in network.operations:
        if isinstance(operation, VectorQuantize):
            raise NetworkError(
                f"Operation {operation.name!r} must have fixed scales in {dialect.title}, not vector scales that are "
                f"found from the data: the integer form has them"
            )
    for tensor in network.tensors:
        if tensor.kind is Kind.CODE:
            dialect.check(tensor)
    walk = _Walk(network, dialect)
    for operation in network.operations:
        if isinstance(operation, MaxPool2d):
            walk.max_pool(operation)
        elif isinstance(operation, Conv2d):
            walk.convolution(operation)
        elif not isinstance(operation, VectorQuantize):
            walk.addition(operation)
    return walk.model()


class _Walk:
    def __init__(self, network: IntegerNetwork, dialect: Dialect) -> None:
        self.network, self.dialect = network, dialect
        self.graph = Graph(network, dialect.form, batch=dialect.batch)
        self.agreements: list[Agreement] = []
        source = network.input
        self.values = {tensor.name: tensor.name for tensor in network.tensors}
        self.values[source.name] = self.graph.free(f"{source.name}.quantized")
        dialect.quantize(self.graph, source.name, source, self.values[source.name])

    def model(self) -> onnx.ModelProto:
        network = self.network
        made = [network.tensor(operation.output) for operation in network.operations]
        outputs = [(t.name, FLOAT, t, describe(t, values=True)) for t in made]
        outputs.sort(key=lambda each: each[2] is not network.output)
        if network.output.kind is Kind.ACCUMULATOR:
            outputs.insert(0, (self.real(), FLOAT, network.output, "slope*acc + offset"))
        return self.graph.model(
            FLOAT,
            outputs,
            about=self.dialect.about,
            opsets=self.dialect.opsets,
            extra={"agreement": [dataclasses.asdict(each) for each in self.agreements]},
            values=True,
        )

    def real(self) -> str:
        output = self.network.output
        name = self.graph.free(f"{output.name}.real")
        slope = self.graph.channels(output.slope, np.float32, f"{name}.slope")
        offset = self.graph.channels(output.offset, np.float32, f"{name}.offset")
        scaled = self.graph.node("Mul", [output.name, slope], f"{name}.scaled", shape=output.shape)
        return self.graph.node("Add", [scaled, offset], name, name)

    def max_pool(self, operation: MaxPool2d) -> None:
        self.graph.node(
            "MaxPool",
            [self.values[operation.input]],
            operation.name,
            operation.output,
            kernel_shape=operation.kernel,
            strides=operation.stride,
            pads=operation.padding,
        )

    def convolution(self, operation: Conv2d) -> None:
        graph, network = self.graph, self.network
        source, output = network.tensor(operation.input), network.tensor(operation.output)
        weights = operation.scaled_weights(source)
        positions = source.shape[1] * source.shape[2] if operation.broadcast else 1
        lo, hi = network.accumulator_bounds(operation)
        zero = source.zero_point * positions * weights.sum(axis=(1, 2, 3))
        value = graph.node(
            "Conv",
            [self.values[source.name], self.dialect.weights(graph, operation, weights)],
            f"{operation.name}.conv",
            shape=(len(weights), *(source.shape[1:] if operation.broadcast else output.shape[1:])),
            kernel_shape=operation.codes.shape[2:],
            strides=operation.stride,
            dilations=operation.dilation,
            pads=operation.padding,
            group=operation.groups,
        )
        if operation.broadcast:
            axes = graph.constant([2, 3], np.int64, "axes of the map")
            value = graph.node("ReduceSum", [value, axes], f"{operation.name}.map", shape=output.shape, keepdims=1)
        largest = max(source.zero_point, source.max_code - source.zero_point) * positions
        largest *= int(np.abs(weights).sum(axis=(1, 2, 3)).max())
        reason = ""
        if largest > EXACT:
            reason = f"Sums may reach {largest}, and float32 holds every integer up to {EXACT} only"
        if operation.thresholds is not None:
            compared = operation.thresholds
            moved = np.where(compared.negate, zero, -zero)[:, None] + compared.values
            most = int(np.abs(moved).max())
            if not reason and most > EXACT:
                reason = f"Thresholds reach {most}, and float32 holds every integer up to {EXACT} only"
            self.agreements.append(Agreement(operation.name, None if reason else 0, _reachable(lo, hi, 0), reason))
            shifted = dataclasses.replace(compared, values=moved)
            self.dialect.compare(graph, operation.name, value, shifted, output)
            return
        if operation.requantize is not None:
            self.requantize(operation.name, value, operation.requantize, output, operation.skip, lo, hi, zero, reason)
            return
        self.agreements.append(Agreement(operation.name, None if reason else 0, _reachable(lo, hi, 0), reason))
        offset = graph.channels(zero, np.float32, f"{operation.name}.zero")
        graph.node("Add", [value, offset], operation.name, output.name)

    def addition(self, operation: Any) -> None:
        a, output = self.network.tensor(operation.a), self.network.tensor(operation.output)
        lo, hi, zero = (np.full(output.shape[0], each) for each in (0, a.max_code, a.zero_point))
        value = self.values[a.name]
        self.requantize(operation.name, value, operation.requantize, output, operation.b, lo, hi, zero, "")

    def requantize(
        self,
        name: str,
        value: str,
        constants: Requantize,
        output: Tensor,
        skip: str | None,
        lo: np.ndarray,
        hi: np.ndarray,
        zero: np.ndarray,
        reason: str,
    ) -> None:
        other = self.network.tensor(skip) if skip is not None else None
        found = float_constants(
            constants,
            Quantizer(output.bits, output.zero_point, self.dialect.added(output)),
            lo,
            hi,
            zero,
            skip_bits=other.bits if other is not None else 0,
            skip_zero=other.zero_point if other is not None else 0,
        )
        if not reason and found.different is None:
            reason = "There are too many thresholds and skip codes to look at all of them"
        different = None if reason or found.different is None else int(found.different.sum())
        reachable = _reachable(lo, hi, other.bits if other is not None else 0)
        self.agreements.append(Agreement(name, different, reachable, reason))
        if found.offset.any():
            value = self.step("Add", value, found.offset, f"{name}.offset", output)
        value = self.step("Mul", value, found.multiplier, f"{name}.multiplier", output)
        if other is not None and found.skip_multiplier is not None:
            term = self.step("Mul", self.values[other.name], found.skip_multiplier, f"{name}.skip_multiplier", output)
            value = self.graph.node("Add", [value, term], f"{name}.sum", shape=output.shape)
        if found.bias.any():
            value = self.step("Add", value, found.bias, f"{name}.bias", output)
        self.dialect.quantize(self.graph, value, output, output.name)

    def step(self, operator: str, value: str, constants: np.ndarray, name: str, output: Tensor) -> str:
        constant = self.graph.channels(constants, np.float32, name)
        return self.graph.node(operator, [value, constant], f"{name}.{operator.lower()}", shape=output.shape)


def _reachable(lo: np.ndarray, hi: np.ndarray, skip_bits: int) -> int:
    return sum(int(high) - int(low) + 1 for low, high in zip(lo, hi, strict=True)) << skip_bits


def agreement(model: onnx.ModelProto) -> tuple[Agreement, ...]:
    """What a model in one of the float forms says is proved, operation by operation.

    An integer model has nothing to prove: the tuple is empty.
    """
    return tuple(Agreement(**each) for each in metadata(model).get("agreement", []))
