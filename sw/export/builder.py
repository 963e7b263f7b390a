"""From the nodes of the graph to the tensors and operations of the integer network."""
from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import fx, nn

from golden.network import (
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    Operation,
    Requantize,
    Tensor,
    VectorQuantize,
    VectorScales,
    signed_width,
)
from golden.requantize import Solution, Widths, fold, solve, solve_channels

from ..graph import unused
from ..layers import (
    ActivationQuantizer,
    GlobalAveragePool,
    InputQuantizer,
    OctavActivation,
    QuantConv2d,
    QuantizedWeight,
    QuantLinear,
    ResidualAdd,
    VsQuantActivation,
)
from ..quantizers import VectorWeightQuantizer
from .report import ExportError, LayerReport
from .trace import FINE, CodeRecorder, labels
from .values import Average, Channels, Code, Norm, Result, Sum, Value

__all__ = ["Builder"]

RESIDUAL_BITS = 20
"""Of an output code and its residual operand's together: every pair of them has a threshold that is looked at."""


class Builder:
    """Walks the graph once; each node becomes a value, and operations are emitted where a quantizer ends one.

    Members
    -------
    recorded : :class:`dict`
        What the float64 forward gave, by node.
    nodes : :class:`dict`
        Node name by tensor name.
    channels : :class:`list`
        Per operation, its :class:`Channels`; ``None`` where nothing is rounded.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, sample: torch.Tensor, limits: Widths, product_shift: int = 0):
        self.graph, self.limits, self.product_shift = graph, limits, product_shift
        self.labels = labels(graph)
        self.inputs = [node for node in graph.nodes if node.op == "placeholder"]
        if len(self.inputs) != 1:
            raise ExportError(f"Model must have one input, not {len(self.inputs)}")
        self.modules = dict(model.named_modules())
        for node in graph.nodes:
            module = self.modules.get(str(node.target))
            if isinstance(module, OctavActivation | VsQuantActivation) and not module.calibrated:
                what = "clip" if isinstance(module, OctavActivation) else "scales"
                raise self._refusal(node, f"must be trained or calibrated: it has no {what} yet")
        self.recorded = CodeRecorder(model, graph).record(sample)
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        self.layers: list[LayerReport] = []
        self.channels: list[Channels | None] = []
        self.nodes: dict[str, str] = {}
        self.values: dict[fx.Node, Value] = {}
        self.quantizers: list[InputQuantizer] = []

    @property
    def quantizer(self) -> InputQuantizer:
        """The quantizer of the model's input."""
        return self.quantizers[0]

    def build(self, name: str) -> tuple[IntegerNetwork, list[LayerReport]]:
        """The network called ``name``, and one report per operation, without what only running it can tell."""
        for node in self.graph.nodes:
            if node.op == "output":
                self._output(node)
            elif node not in self.inputs:
                self._node(node)
        return IntegerNetwork(name, tuple(self.tensors), tuple(self.operations)), self.layers

    def _refusal(self, node: fx.Node, reason: str) -> ExportError:
        return ExportError(f"Node {self.labels[node]!r} {reason}")

    def _node(self, node: fx.Node) -> None:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            what = type(module).__name__
        else:
            module, what = None, str(getattr(node.target, "__name__", node.target))
        if isinstance(module, InputQuantizer):
            self._input(node, module)
        elif isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d):
            source = self._source(node)
            if source in self.inputs:
                raise self._refusal(node, "must follow an InputQuantizer")
            self.values[node] = self.values[source]
        elif isinstance(module, QuantizedWeight):
            self.values[node] = self._weighted(node, module)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            self.values[node] = self._norm(node, module)
        elif isinstance(module, ActivationQuantizer):
            self._quantize(node, module)
        elif isinstance(module, ResidualAdd) or node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
            self.values[node] = self._sum(node)
        elif isinstance(module, nn.MaxPool2d):
            self._max_pool(node, module)
        elif isinstance(module, GlobalAveragePool):
            self.values[node] = Average(self._code(node).tensor, flat=True)
        elif isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            self.values[node] = Average(self._code(node).tensor, flat=False)
        elif isinstance(module, nn.Flatten) or node.target in (torch.flatten, "flatten"):
            self.values[node] = self._flatten(node, module)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            raise self._refusal(node, f"must have quantized weights (Quant{what}), not those of {what}")
        else:
            raise self._refusal(
                node, f"must be one of sw.layers' modules, a max pool, a flatten or a sum, not {what!r}")

    def _source(self, node: fx.Node) -> fx.Node:
        """The one node that ``node`` reads."""
        if len(node.all_input_nodes) != 1:
            raise self._refusal(node, f"must read one computed tensor, not {len(node.all_input_nodes)}")
        return node.all_input_nodes[0]

    def _value(self, node: fx.Node) -> tuple[str, Value]:
        """What ``node`` reads, and how it is called."""
        source = self._source(node)
        if source in self.inputs:
            raise self._refusal(
                node, "must read a quantized tensor, not the model's input: put an InputQuantizer first")
        return self.labels[source], self.values[source]

    def _code(self, node: fx.Node, *, average: bool = False) -> Code | Average:
        """The quantized tensor, or with ``average`` also the averaged one, that ``node`` reads."""
        source, value = self._value(node)
        if not isinstance(value, Code) and not (average and isinstance(value, Average)):
            raise self._refusal(node, f"must read a quantized tensor: put a PactActivation behind {source!r}")
        return value

    def _tensor(self, node: fx.Node, quantizer: ActivationQuantizer) -> Tensor:
        scales = None
        if isinstance(quantizer, VsQuantActivation) and quantizer.scale_codes is not None:
            scales = VectorScales(quantizer.scale_codes.numpy(), quantizer.scale_bits, quantizer.vector)
        return Tensor(self.labels[node], self._shape(node), Kind.CODE, quantizer.bits, quantizer.zero_point,
                      quantizer.scale.double().item(), vector_scales=scales)

    def _shape(self, node: fx.Node) -> tuple[int, int, int]:
        _, *shape = self.recorded[node.name].shape
        if len(shape) not in (1, 3):
            raise self._refusal(node, f"must give (N, C, H, W) or (N, features), not {(len(shape) + 1)} dimensions")
        return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)

    def _flat(self, node: fx.Node) -> bool:
        return self.recorded[node.name].dim() == 2

    def _input(self, node: fx.Node, module: InputQuantizer) -> None:
        source = self._source(node)
        if source not in self.inputs or self.quantizers:
            raise self._refusal(node, "must be the only InputQuantizer and read the model's input")
        self.quantizers.append(module)
        self._emit_tensor(self._tensor(node, module), node)

    def _emit_tensor(self, tensor: Tensor, node: fx.Node) -> None:
        self.tensors.append(tensor)
        self.nodes[tensor.name] = node.name + FINE if tensor.name == self.labels[node] + FINE else node.name
        if tensor.kind is Kind.CODE:
            self.values[node] = Code(tensor, self._flat(node))

    def _emit(self, operation: Operation, output: Tensor, node: fx.Node, layer: LayerReport,
              channels: Channels | None = None) -> None:
        self._emit_tensor(output, node)
        self.operations.append(operation)
        self.layers.append(layer)
        self.channels.append(channels)

    def _operation_name(self, name: str) -> str:
        """A result that several nodes read is computed once for each, under a name of its own."""
        return unused(name, [operation.name for operation in self.operations])

    def _weighted(self, node: fx.Node, module: QuantizedWeight) -> Result:
        value = self._code(node, average=True)
        tensor = value.tensor
        codes, scale = (x.numpy() for x in module.to_int())
        geometry: dict = {}
        if isinstance(module, QuantConv2d):
            if value.flat or isinstance(value, Average):
                raise self._refusal(node, "must read a map, not a flattened or averaged tensor")
            if isinstance(module.padding, str) or module.padding_mode != "zeros":
                raise self._refusal(node, "must have numbers for padding and padding mode 'zeros', not "
                                          f"{module.padding!r} and {module.padding_mode!r}")
            geometry = {"stride": module.stride, "dilation": module.dilation, "padding": module.padding * 2,
                        "groups": module.groups}
        else:
            assert isinstance(module, QuantLinear)
            if not value.flat:
                raise self._refusal(node, "must read (N, features): put torch.flatten(x, 1) before it")
            broadcast = isinstance(value, Average)
            kernel = (1, 1) if broadcast else tensor.shape[1:]
            codes = codes.reshape(len(codes), tensor.shape[0], *kernel)
            geometry = {"broadcast": broadcast}
        quantizer, label = module.quantizer, self.labels[node]
        geometry |= self._vectors(node, module, tensor, codes.shape[2:])
        operation = Conv2d(label, tensor.name, label, codes, quantizer.bits, quantizer.grid, **geometry)
        positions = tensor.shape[1] * tensor.shape[2] if operation.broadcast else 1
        bias = module.bias.detach().numpy() if isinstance(module.bias, torch.Tensor) else 0.0
        return Result(operation, tensor, self._shape(node), np.broadcast_to(scale, len(codes)),
                      tensor.scale * 2 ** operation.product_shift / positions, bias)

    def _vectors(self, node: fx.Node, module: QuantizedWeight, source: Tensor, kernel: tuple[int, ...]) -> dict:
        """The vector scales of a layer's weights, and the shift of their products with those of its input."""
        quantizer, scales = module.quantizer, module.scale_codes()
        if scales is None or not isinstance(quantizer, VectorWeightQuantizer):
            return {}
        if isinstance(module, QuantLinear):
            if module.positions != kernel[0] * kernel[1]:
                raise self._refusal(node, "must have the positions of the map that it reads, since its vectors lie "
                                          f"along channels: positions={kernel[0] * kernel[1]}, not {module.positions}")
            scales = scales.reshape(*scales.shape[:2], *kernel)
        given = source.vector_scales
        if given is not None and given.vector != quantizer.vector:
            raise self._refusal(node, f"must have vectors of {given.vector} channels like its input, not "
                                      f"{quantizer.vector}")
        return {"vector_scales": VectorScales(scales.numpy(), quantizer.scale_bits, quantizer.vector),
                "product_shift": 0 if given is None else self.product_shift}

    def _norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Result:
        source, value = self._value(node)
        if not isinstance(value, Result) or value.norm is not None or value.skip is not None:
            raise self._refusal(node, f"must read a convolution or a linear layer directly, not {source!r}")
        if module.running_mean is None or module.running_var is None:
            raise self._refusal(node, "must track running statistics")
        gamma, beta = (None if p is None else p.detach().numpy() for p in (module.weight, module.bias))
        norm = Norm(1.0 if gamma is None else gamma, 0.0 if beta is None else beta, module.running_mean.numpy(),
                     module.running_var.numpy(), module.eps)
        return dataclasses.replace(value, norm=norm)

    def _sum(self, node: fx.Node) -> Value:
        operands = (*node.args, *node.kwargs.values())
        sources = [operand for operand in operands if isinstance(operand, fx.Node)]
        if len(operands) != 2 or len(sources) != 2 or any(s in self.inputs for s in sources):
            raise self._refusal(node, f"must add two computed tensors and nothing else, not {operands!r}")
        a, b = (self.values[s] for s in sources)
        if len({self.recorded[n.name].shape for n in (*sources, node)}) > 1:
            raise self._refusal(node, "must add tensors of one shape")
        if isinstance(a, Code) and isinstance(b, Code):
            return Sum(self.labels[node], a, b)
        result, skip = (b, a) if isinstance(a, Code) else (a, b)
        if not isinstance(skip, Code) or not isinstance(result, Result):
            raise self._refusal(
                node, "must have a quantized tensor as one operand: put a SymmetricActivation behind "
                      f"{self.labels[sources[1]]!r}, or a PactActivation where it is not negative")
        if result.skip is not None:
            raise self._refusal(node, "must be the only sum before an activation quantizer")
        return dataclasses.replace(result, skip=skip.tensor)

    def _flatten(self, node: fx.Node, module: nn.Module | None) -> Value:
        source, value = self._value(node)
        if isinstance(module, nn.Flatten):
            start, end = module.start_dim, module.end_dim
        else:
            given: dict = {**dict(zip(("start_dim", "end_dim"), node.args[1:])), **node.kwargs}
            start, end = given.get("start_dim", 0), given.get("end_dim", -1)
        if (start, end) not in ((1, -1), (1, 3)) or not isinstance(value, Code | Average):
            raise self._refusal(
                node, f"must flatten a quantized tensor from dimension 1 on, not {source!r} from {start} to {end}")
        return dataclasses.replace(value, flat=True)

    def _max_pool(self, node: fx.Node, module: nn.MaxPool2d) -> None:
        value = self._code(node)
        if value.flat or module.ceil_mode or _pair(module.dilation) != (1, 1) or module.return_indices:
            raise self._refusal(node, "must pool a map without ceil_mode, dilation and indices")
        kernel, stride, padding = (_pair(x) for x in (module.kernel_size, module.stride, module.padding))
        label = self.labels[node]
        output = dataclasses.replace(value.tensor, name=label, shape=self._shape(node))
        operation = MaxPool2d(label, value.tensor.name, label, kernel, stride, padding * 2)
        layer = LayerReport(name=label, tensor=label, shape=output.shape, input_bits=output.bits,
                            output_bits=output.bits)
        self._emit(operation, output, node, layer)

    def _quantize(self, node: fx.Node, module: ActivationQuantizer) -> None:
        source, value = self._value(node)
        output = self._tensor(node, module)
        if not isinstance(module, VsQuantActivation) or not module.dynamic:
            self._requantized(node, source, value, output)
            return
        fine = dataclasses.replace(output, name=output.name + FINE)
        self._requantized(node, source, value, fine)
        fine = self.tensors[-1]
        output = dataclasses.replace(fine, name=output.name)
        operation = VectorQuantize(self._operation_name(output.name), fine.name, output.name, module.element_bits,
                                   module.scale_bits, module.vector)
        layer = LayerReport(name=operation.name, tensor=output.name, shape=output.shape, input_bits=fine.bits,
                            output_bits=output.bits)
        self._emit(operation, output, node, layer)

    def _requantized(self, node: fx.Node, source: str, value: Value, output: Tensor) -> None:
        if isinstance(value, Result):
            self._requantize(node, value, output)
        elif isinstance(value, Sum):
            self._add(node, value, output)
        elif isinstance(value, Code):
            vectors = isinstance(self.modules[str(node.target)], VsQuantActivation)
            if vectors and value.flat and value.tensor.shape[1:] != (1, 1):
                raise self._refusal(node, "must come before the flatten, since its vectors lie along channels")
            output = dataclasses.replace(output, shape=value.tensor.shape)
            self._requantize(node, self._passed_on(node, value.tensor), output)
        else:
            raise self._refusal(
                node, f"must follow a convolution, a linear layer, a sum or a quantized tensor, not {source!r}")

    def _passed_on(self, node: fx.Node, tensor: Tensor) -> Result:
        """The result whose accumulators are the codes of ``tensor``: a depthwise 1×1 convolution with weight 1."""
        channels, label = tensor.shape[0], self.labels[node]
        codes = np.full((channels, 1, 1, 1), 1 + Grid.TWOS_COMPLEMENT.c(2))
        operation = Conv2d(label, tensor.name, label, codes, 2, Grid.TWOS_COMPLEMENT, groups=channels)
        return Result(operation, tensor, tensor.shape, np.ones(channels), tensor.scale, 0.0)

    def _requantize(self, node: fx.Node, result: Result, output: Tensor) -> None:
        operation = dataclasses.replace(result.operation, name=self._operation_name(result.operation.name),
                                        output=output.name)
        slope, offset = self._fold(result, _divisors(output), output.zero_point)
        slope, offset = _silenced(output, slope, 0), _silenced(output, offset, output.zero_point)
        lo, hi = operation.accumulator_bounds(result.source)
        slopes = [Fraction(s) for s in slope.tolist()]
        weight_sums = operation.scaled_weights(result.source).sum(axis=(1, 2, 3)) * _positions(result)
        offsets = [Fraction(o) - s * result.source.zero_point * int(w)
                   for o, s, w in zip(offset.tolist(), slopes, weight_sums, strict=True)]
        skip_slopes, skip_bits = [Fraction(0)] * len(slopes), 0
        if result.skip is not None:
            self._check_residual(node, output, result.skip)
            skip_slopes, skip_bits = _ratios(result.skip, output), result.skip.bits
            offsets = [o - s * result.skip.zero_point for o, s in zip(offsets, skip_slopes, strict=True)]
        constants, solutions = solve_channels(
            slopes, offsets, output.bits, lo, hi, skip_bits=skip_bits, limits=self.limits,
            skip_slopes=None if result.skip is None else skip_slopes)
        operation = dataclasses.replace(operation, requantize=constants,
                                        skip=None if result.skip is None else result.skip.name)
        layer = self._layer(operation, result, output, signed_width(int(lo.min()), int(hi.max())))
        self._emit(operation, output, node, _with_constants(layer, constants, solutions),
                   Channels(operation, slopes, offsets, skip_slopes))

    def _add(self, node: fx.Node, value: Sum, output: Tensor) -> None:
        a, b = value.a.tensor, value.b.tensor
        self._check_residual(node, output, b)
        slopes, skip_slopes = _ratios(a, output), _ratios(b, output)
        offsets = [Fraction(output.zero_point) - s * a.zero_point - t * b.zero_point
                   for s, t in zip(slopes, skip_slopes, strict=True)]
        solutions: dict[tuple[Fraction, Fraction], Solution] = {}
        for s, t, offset in zip(slopes, skip_slopes, offsets, strict=True):
            if (s, t) not in solutions:
                solutions[s, t] = solve(s, offset, output.bits, 0, a.max_code, skip_slope=t, skip_bits=b.bits,
                                        limits=self.limits)
        each = [solutions[key] for key in zip(slopes, skip_slopes, strict=True)]
        operation = Add(self._operation_name(value.name), a.name, b.name, output.name,
                        multiplier_a=np.array([x.multiplier for x in each], np.int64),
                        multiplier_b=np.array([x.skip_multiplier for x in each], np.int64),
                        bias=np.array([x.bias for x in each], np.int64),
                        shift=np.array([x.shift for x in each], np.uint8))
        layer = LayerReport(name=operation.name, tensor=output.name, shape=output.shape, input_bits=a.bits,
                            output_bits=output.bits)
        self._emit(operation, output, node, _with_constants(layer, operation.requantize, list(solutions.values())),
                   Channels(operation, slopes, offsets, skip_slopes))

    def _check_residual(self, node: fx.Node, output: Tensor, skip: Tensor) -> None:
        if output.bits + skip.bits > RESIDUAL_BITS:
            raise self._refusal(node, f"must have at most {RESIDUAL_BITS} bits together with its residual operand "
                                      f"{skip.name!r}, not {output.bits} and {skip.bits}")

    def _output(self, node: fx.Node) -> None:
        source, = node.args
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(value, Code) and self.operations:
            return
        if isinstance(value, Sum) or (isinstance(value, Result) and value.skip is not None):
            assert isinstance(source, fx.Node)
            raise self._refusal(source, "must be followed by an activation quantizer: a residual sum has to be clipped")
        if not isinstance(source, fx.Node) or not isinstance(value, Result):
            raise ExportError("Model must return the result of one convolution, linear layer or activation quantizer")
        slope, offset = self._fold(value, 1.0, 0)
        offset = offset - slope * (value.source.zero_point * _positions(value)) * \
            value.operation.scaled_weights(value.source).sum(axis=(1, 2, 3))
        operation = dataclasses.replace(value.operation, name=self._operation_name(value.operation.name),
                                        output=self.labels[source])
        lo, hi = operation.accumulator_bounds(value.source)
        width = signed_width(int(lo.min()), int(hi.max()))
        output = Tensor(self.labels[source], value.shape, Kind.ACCUMULATOR, width, slope=slope, offset=offset)
        self._emit(operation, output, source, self._layer(operation, value, None, width))

    def _fold(self, result: Result, output_scale: float | np.ndarray,
              output_zero_point: int) -> tuple[np.ndarray, np.ndarray]:
        norm = result.norm or Norm()
        try:
            return fold(**vars(norm), bias=np.asarray(result.bias), weight_scale=result.weight_scale,
                        input_scale=result.input_scale, output_scale=output_scale,
                        output_zero_point=output_zero_point)
        except ValueError as error:
            raise ExportError(f"Node {result.operation.name!r} must have finite parameters: {error}") from None

    @staticmethod
    def _layer(operation: Conv2d, result: Result, output: Tensor | None, accumulator_bits: int) -> LayerReport:
        return LayerReport(name=operation.name, tensor=operation.output, shape=result.shape,
                           weight_bits=operation.bits, input_bits=result.source.bits,
                           output_bits=output.bits if output else None, accumulator_bits=accumulator_bits)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _positions(result: Result) -> int:
    """How many times each weight is used for one output."""
    return result.source.shape[1] * result.source.shape[2] if result.operation.broadcast else 1


def _divisors(output: Tensor) -> np.ndarray:
    """The step of each channel; 1 where its scale is 0, since its value is 0 whatever its codes."""
    scale = output.channel_scale
    return np.where(scale > 0, scale, 1.0)


def _silenced(output: Tensor, values: np.ndarray, instead: int) -> np.ndarray:
    """``values`` per channel, with ``instead`` where the channel's scale is 0."""
    return np.where(output.channel_scale > 0, values, instead)


def _ratios(operand: Tensor, output: Tensor) -> list[Fraction]:
    """Codes of ``output`` per code of ``operand``, for each channel."""
    return [Fraction(x) for x in _silenced(output, operand.channel_scale / _divisors(output), 0).tolist()]


def _with_constants(layer: LayerReport, constants: Requantize, solutions: Sequence[Solution]) -> LayerReport:
    def width(values: np.ndarray) -> int:
        return signed_width(int(values.min()), int(values.max()))

    skip = constants.skip_multiplier
    return dataclasses.replace(
        layer, multiplier_bits=width(constants.multiplier), skip_multiplier_bits=None if skip is None else width(skip),
        bias_bits=width(constants.bias), shift=int(constants.shift.max()),
        mismatches=sum(s.mismatches for s in solutions))
