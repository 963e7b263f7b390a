"""From a trained module to the integer network.

:func:`export` traces a model built from :mod:`sw.layers` with ``torch.fx``, freezes its integer weights, folds batch
norm in float64 by :func:`golden.requantize.fold`, and solves every channel's integer requantization from the exact
rationals of the result. Its report says what the hardware must bring, and compares the integers with the model's own
forward in float64 and in float32.
"""
from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import rich.box
import rich.table
import torch
from torch import fx, nn

from golden import vectors
from golden.execute import accumulate, execute
from golden.network import Add, Conv2d, IntegerNetwork, Kind, MaxPool2d, Requantize, Tensor, signed_width
from golden.requantize import INT64, Solution, Widths, fold, solve, solve_channels

from .data import Split, digits
from .layers import (
    ActivationQuantizer,
    GlobalAveragePool,
    InputQuantizer,
    OctavActivation,
    QuantConv2d,
    QuantizedWeight,
    QuantLinear,
    ResidualAdd,
    frozen,
)
from .train import load_checkpoint

__all__ = [
    "Export",
    "ExportError",
    "ExportReport",
    "LayerReport",
    "export",
    "export_checkpoint",
    "integer_accuracy",
    "logits",
]


class ExportError(ValueError):
    """A model that cannot be exported; one sentence that names the node and says what must be changed."""


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What one operation of the integer network needs, and how it agrees with the float model.

    Members
    -------
    name : :class:`str`
        Of the operation; ``tensor`` is the name of what it makes.
    shape : (C, H, W)
        Of its output.
    weight_bits, input_bits, output_bits : :class:`int` or ``None``
        ``None`` where there are no weights, and for the output of a layer that gives accumulators.
    accumulator_bits : :class:`int` or ``None``
        Signed width that holds every sum the actual weights can reach.
    multiplier_bits, skip_multiplier_bits, bias_bits, shift : :class:`int` or ``None``
        Widths (two's complement) and largest shift of the solved constants; ``None`` where there are none.
    mismatches : :class:`int`
        (accumulator, skip) pairs whose code is not the exact one: 0 unless limits were given and were too narrow.
    compared : :class:`int`
        Elements of the sample's output.
    ties : :class:`int`
        Elements whose real value lies exactly between two codes.
    float64_differences, float32_differences : :class:`int`
        Elements that differ from the model's own forward, in float64 with frozen integer weights and in float32 as
        trained. Each forward runs from the input on, so a difference may be inherited.
    """

    name: str
    tensor: str
    shape: tuple[int, int, int]
    weight_bits: int | None = None
    input_bits: int | None = None
    output_bits: int | None = None
    accumulator_bits: int | None = None
    multiplier_bits: int | None = None
    skip_multiplier_bits: int | None = None
    bias_bits: int | None = None
    shift: int | None = None
    mismatches: int = 0
    compared: int = 0
    ties: int = 0
    float64_differences: int = 0
    float32_differences: int = 0


@dataclass(frozen=True)
class ExportReport:
    """One :class:`LayerReport` per operation, in the network's order."""

    network: str
    layers: tuple[LayerReport, ...]

    def table(self) -> rich.table.Table:
        """The report for people: bits of weights, input and output codes, accumulator, M, M_skip and B, and so on.

        Fits 80 columns with layer names of up to 17 characters.
        """
        titles = ("layer", "W", "in", "out", "acc", "M", "Ms", "B", "S", "lost", "ties", "≠ f64", "≠ f32")
        table = rich.table.Table(title=f"{self.network}: bits needed, and agreement on the sample",
                                 box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for title in titles:
            table.add_column(title, justify="left" if title == "layer" else "right", no_wrap=True)
        for layer in self.layers:
            fields = dataclasses.asdict(layer)
            hidden = ("name", "tensor", "shape", "compared")
            cells = [fields[f.name] for f in dataclasses.fields(layer) if f.name not in hidden]
            table.add_row(layer.name, *("" if cell is None else str(cell) for cell in cells))
        return table

    def widths(self) -> dict[str, int]:
        """Over all layers, the widest of each: what one hardware configuration must bring."""
        names = ("accumulator_bits", "multiplier_bits", "skip_multiplier_bits", "bias_bits", "shift")
        return {name: max((getattr(layer, name) or 0 for layer in self.layers), default=0) for name in names}


@dataclass(frozen=True)
class Export:
    """An exported model: its integer network, the report, and the quantizer of its input."""

    network: IntegerNetwork
    report: ExportReport
    input: InputQuantizer

    def encode(self, images: torch.Tensor) -> np.ndarray:
        """Input codes, unsigned (N, C, H, W), of a batch in the model's own form."""
        codes = self.input.to_int(images.double()).numpy()
        return codes.reshape(len(codes), *self.network.input.shape).astype(np.uint16)


def export(model: nn.Module, sample: torch.Tensor, *, name: str = "network", limits: Widths = INT64) -> Export:
    """Turn a trained model into the integer network that computes the very same codes.

    The model starts with an :class:`~sw.layers.InputQuantizer` and may contain

    * :class:`~sw.layers.QuantConv2d` and :class:`~sw.layers.QuantLinear` on quantized tensors, each followed by an
      optional batch norm and an activation quantizer; the model's last one gives accumulators instead,
    * :class:`~sw.layers.ResidualAdd` (or ``+``) of a convolution's or linear layer's result and a quantized tensor, or
      of two quantized tensors, followed by an activation quantizer,
    * ``MaxPool2d`` on quantized tensors, ``flatten`` before a linear layer,
    * :class:`~sw.layers.GlobalAveragePool` or ``AdaptiveAvgPool2d(1)`` of a quantized tensor before a linear layer,
    * ``Identity`` and dropout, which vanish.

    Parameters
    ----------
    model : :class:`torch.nn.Module`
        Not changed. Evaluation mode is what is exported.
    sample : :class:`torch.Tensor`
        A batch (N, C, H, W) or (N, features): gives the shapes, and is what the report compares.
    name : :class:`str`
        Of the network.
    limits : :class:`golden.requantize.Widths`
        Widths that the constants may have; the report counts what is lost where they are too narrow.

    Raises
    ------
    ExportError
        If the model has something else; the sentence names the module by its path, or the node as ``torch.fx`` does.
    """
    reference = frozen(model)
    graph = _trace(reference)
    builder = _Builder(reference, graph, sample.double(), limits)
    network, layers = builder.build(name)
    quantizer = builder.quantizer
    codes = quantizer.to_int(sample.double()).numpy().reshape(len(sample), *network.input.shape).astype(np.uint16)
    values = execute(network, codes)
    trained = copy.deepcopy(model).eval().float()
    agreement = [_differences(network, values, recorded, builder.nodes)
                 for recorded in (builder.recorded, _Recorder(trained, graph).record(sample.float()))]
    rows = []
    for layer, channels in zip(layers, builder.channels, strict=True):
        float64, float32 = (counts[layer.tensor] for counts in agreement)
        rows.append(dataclasses.replace(
            layer, compared=values[layer.tensor].size, ties=channels.ties(network, values) if channels else 0,
            float64_differences=float64, float32_differences=float32))
    return Export(network, ExportReport(name, tuple(rows)), quantizer)


def export_checkpoint(checkpoint: Path, folder: Path, *, frames: int = 2, limits: Widths = INT64) -> Export:
    """Export a checkpoint of a reference network and write its golden vectors.

    Parameters
    ----------
    checkpoint : path
        What :func:`sw.train.save_checkpoint` wrote.
    folder : path
        Gets the vectors of the test split's first ``frames`` images, see :mod:`golden.vectors`.
    frames : :class:`int`
        At least 1.
    limits : :class:`golden.requantize.Widths`
        See :func:`export`.

    Returns
    -------
    :class:`Export`
        With the report on the whole test split.
    """
    config, model = load_checkpoint(checkpoint)
    _, test = digits()
    if not 1 <= frames <= len(test.images):
        raise ValueError(f"Frames must be between 1 and {len(test.images)}, not {frames!r}")
    result = export(model, test.images, name=config.name, limits=limits)
    vectors.write(folder, result.network, result.encode(test.images[:frames]), seed=config.seed)
    return result


def logits(network: IntegerNetwork, values: dict[str, np.ndarray]) -> np.ndarray:
    """Real values of the network's output, (N, C, H, W): slope·acc + offset, or scale·(code − zero point)."""
    output, result = network.output, values[network.output.name]
    if output.kind is Kind.CODE:
        return output.scale * (result.astype(np.float64) - output.zero_point)
    assert output.slope is not None and output.offset is not None
    return output.slope[:, None, None] * result + output.offset[:, None, None]


def integer_accuracy(model: nn.Module, split: Split) -> float:
    """Share of the split's images that the exported integer network gives the right label, 0..1."""
    exported = export(model, split.images[:1])
    values = execute(exported.network, exported.encode(split.images))
    predictions = logits(exported.network, values).reshape(len(split.labels), -1).argmax(1)
    return float((predictions == split.labels.numpy()).mean())


class _Tracer(fx.Tracer):
    """Our layers are leaves, like PyTorch's own; blocks made of them are looked into."""

    LEAVES = (QuantizedWeight, ActivationQuantizer, ResidualAdd, GlobalAveragePool)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.LEAVES) or super().is_leaf_module(m, module_qualified_name)


def _labels(graph: fx.Graph) -> dict[fx.Node, str]:
    """How nodes are called: by the module's path, ``block1.conv1``, with a number from its second call on."""
    labels: dict[fx.Node, str] = {}
    for node in graph.nodes:
        name = str(node.target) if node.op == "call_module" else node.name
        labels[node] = _unused(name, labels.values())
    return labels


def _unused(name: str, taken: Collection[str]) -> str:
    """``name``, or its first numbered form that is not taken."""
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        graph = fx.GraphModule(model, _Tracer().trace(model)).graph
    except (fx.proxy.TraceError, TypeError) as error:
        raise ExportError(f"Model must have a forward that torch.fx can trace: {error}") from None
    graph.eliminate_dead_code()
    return graph


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every quantizer's codes and every other node's result, by node name."""

    def __init__(self, model: nn.Module, graph: fx.Graph):
        super().__init__(fx.GraphModule(model, graph))
        self.results: dict[str, torch.Tensor] = {}

    def record(self, sample: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            self.run(sample)
        return self.results

    def run_node(self, n: fx.Node):
        result = super().run_node(n)
        # A copy: an in-place sum (out += identity) would change what was recorded.
        self.results[n.name] = result.clone() if isinstance(result, torch.Tensor) else result
        if n.op == "call_module":
            module = self.fetch_attr(str(n.target))
            if isinstance(module, ActivationQuantizer):
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                self.results[n.name] = module.to_int(*args, **kwargs)
        return result


def _differences(network: IntegerNetwork, values: dict[str, np.ndarray], recorded: dict[str, torch.Tensor],
                 nodes: dict[str, str]) -> dict[str, int]:
    """Per tensor, the elements in which the integer network differs from a recorded forward.

    Pooled codes are recovered from their real values, accumulators from the model's output.
    """
    counts = {}
    for tensor in network.tensors:
        result = recorded[nodes[tensor.name]]
        if result.is_floating_point():
            real = result.double().numpy().reshape(values[tensor.name].shape)
            if tensor.kind is Kind.CODE:
                found = np.floor(real / tensor.scale + tensor.zero_point + 0.5)
            else:
                assert tensor.slope is not None and tensor.offset is not None
                slope, offset = (x[:, None, None] for x in (tensor.slope, tensor.offset))
                found = np.floor((real - offset) / np.where(slope == 0, 1, slope) + 0.5)
                found = np.where(slope == 0, values[tensor.name], found)
        else:
            found = result.numpy().reshape(values[tensor.name].shape)
        counts[tensor.name] = int((found != values[tensor.name]).sum())
    return counts


@dataclass(frozen=True)
class _Code:
    """A quantized tensor. ``flat``: the model sees it as (N, features)."""

    tensor: Tensor
    flat: bool


@dataclass(frozen=True)
class _Average:
    """A quantized tensor whose global average is meant."""

    tensor: Tensor
    flat: bool


@dataclass(frozen=True)
class _Norm:
    """Batch norm's parameters as float64 arrays; the default is its absence."""

    gamma: np.ndarray | float = 1.0
    beta: np.ndarray | float = 0.0
    mean: np.ndarray | float = 0.0
    variance: np.ndarray | float = 1.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class _Result:
    """A convolution's or linear layer's result, not yet quantized, with what was folded into it so far."""

    operation: Conv2d
    source: Tensor
    shape: tuple[int, int, int]
    weight_scale: np.ndarray
    input_scale: float
    bias: np.ndarray | float
    norm: _Norm | None = None
    skip: Tensor | None = None


@dataclass(frozen=True)
class _Sum:
    """The sum of two quantized tensors."""

    name: str
    a: _Code
    b: _Code


_Value = _Code | _Average | _Result | _Sum


@dataclass(frozen=True)
class _Channels:
    """The exact real value per channel, r = slope·acc + skip_slope·skip + offset, of one requantized operation."""

    operation: Conv2d | Add
    slopes: Sequence[Fraction]
    offsets: Sequence[Fraction]
    skip_slope: Fraction

    def ties(self, network: IntegerNetwork, values: dict[str, np.ndarray]) -> int:
        """Elements with r = j − ½ for a code j ≥ 1, exactly; float64 finds the candidates, rationals decide."""
        operation = self.operation
        if isinstance(operation, Add):
            acc, skip = values[operation.a].astype(np.int64), values[operation.b]
        else:
            acc = accumulate(values[operation.input], operation, network)
            skip = values[operation.skip] if operation.skip else np.zeros_like(acc)
        slopes, offsets = (np.array([float(x) for x in xs])[:, None, None] for xs in (self.slopes, self.offsets))
        doubled = 2 * (slopes * acc + float(self.skip_slope) * skip + offsets)
        odd = 2 * np.floor(doubled / 2) + 1
        top = 2 * network.tensor(operation.output).max_code - 1
        count = 0
        for where in np.argwhere((np.abs(doubled - odd) < 1e-3) & (odd >= 1) & (odd <= top)):
            n, c, y, x = where.tolist()
            exact = self.slopes[c] * int(acc[n, c, y, x]) + self.skip_slope * int(skip[n, c, y, x]) + self.offsets[c]
            count += 2 * exact == int(odd[n, c, y, x])
        return count


class _Builder:
    """Walks the graph once; each node becomes a value, and operations are emitted where a quantizer ends one.

    Members
    -------
    recorded : :class:`dict`
        What the float64 forward gave, by node.
    nodes : :class:`dict`
        Node name by tensor name.
    channels : :class:`list`
        Per operation, its :class:`_Channels`; ``None`` where nothing is rounded.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, sample: torch.Tensor, limits: Widths):
        self.graph, self.limits = graph, limits
        self.labels = _labels(graph)
        self.inputs = [node for node in graph.nodes if node.op == "placeholder"]
        if len(self.inputs) != 1:
            raise ExportError(f"Model must have one input, not {len(self.inputs)}")
        self.modules = dict(model.named_modules())
        for node in graph.nodes:
            module = self.modules.get(str(node.target))
            if isinstance(module, OctavActivation) and not module.calibrated:
                raise self._refusal(node, "must be trained or calibrated: it has no clip yet")
        self.recorded = _Recorder(model, graph).record(sample)
        self.tensors: list[Tensor] = []
        self.operations: list[Conv2d | MaxPool2d | Add] = []
        self.layers: list[LayerReport] = []
        self.channels: list[_Channels | None] = []
        self.nodes: dict[str, str] = {}
        self.values: dict[fx.Node, _Value] = {}
        self.quantizers: list[InputQuantizer] = []

    @property
    def quantizer(self) -> InputQuantizer:
        return self.quantizers[0]

    def build(self, name: str) -> tuple[IntegerNetwork, list[LayerReport]]:
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
            self.values[node] = _Average(self._code(node).tensor, flat=True)
        elif isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            self.values[node] = _Average(self._code(node).tensor, flat=False)
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

    def _value(self, node: fx.Node) -> tuple[str, _Value]:
        """What ``node`` reads, and how it is called."""
        source = self._source(node)
        if source in self.inputs:
            raise self._refusal(
                node, "must read a quantized tensor, not the model's input: put an InputQuantizer first")
        return self.labels[source], self.values[source]

    def _code(self, node: fx.Node, *, average: bool = False) -> _Code | _Average:
        """The quantized tensor, or with ``average`` also the averaged one, that ``node`` reads."""
        source, value = self._value(node)
        if not isinstance(value, _Code) and not (average and isinstance(value, _Average)):
            raise self._refusal(node, f"must read a quantized tensor: put a PactActivation behind {source!r}")
        return value

    def _tensor(self, node: fx.Node, quantizer: ActivationQuantizer) -> Tensor:
        return Tensor(self.labels[node], self._shape(node), Kind.CODE, quantizer.bits, quantizer.zero_point,
                      quantizer.scale.double().item())

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
        self.nodes[tensor.name] = node.name
        if tensor.kind is Kind.CODE:
            self.values[node] = _Code(tensor, self._flat(node))

    def _emit(self, operation: Conv2d | MaxPool2d | Add, output: Tensor, node: fx.Node, layer: LayerReport,
              channels: _Channels | None = None) -> None:
        self._emit_tensor(output, node)
        self.operations.append(operation)
        self.layers.append(layer)
        self.channels.append(channels)

    def _operation_name(self, name: str) -> str:
        """A result that several nodes read is computed once for each, under a name of its own."""
        return _unused(name, [operation.name for operation in self.operations])

    def _weighted(self, node: fx.Node, module: QuantizedWeight) -> _Result:
        value = self._code(node, average=True)
        tensor = value.tensor
        codes, scale = (x.numpy() for x in module.to_int())
        geometry: dict = {}
        if isinstance(module, QuantConv2d):
            if value.flat or isinstance(value, _Average):
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
            broadcast = isinstance(value, _Average)
            kernel = (1, 1) if broadcast else tensor.shape[1:]
            codes = codes.reshape(len(codes), tensor.shape[0], *kernel)
            geometry = {"broadcast": broadcast}
        quantizer, label = module.quantizer, self.labels[node]
        operation = Conv2d(label, tensor.name, label, codes, quantizer.bits, quantizer.grid, **geometry)
        positions = tensor.shape[1] * tensor.shape[2] if operation.broadcast else 1
        bias = module.bias.detach().numpy() if isinstance(module.bias, torch.Tensor) else 0.0
        return _Result(operation, tensor, self._shape(node), np.broadcast_to(scale, len(codes)),
                       tensor.scale / positions, bias)

    def _norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> _Result:
        source, value = self._value(node)
        if not isinstance(value, _Result) or value.norm is not None or value.skip is not None:
            raise self._refusal(node, f"must read a convolution or a linear layer directly, not {source!r}")
        if module.running_mean is None or module.running_var is None:
            raise self._refusal(node, "must track running statistics")
        gamma, beta = (None if p is None else p.detach().numpy() for p in (module.weight, module.bias))
        norm = _Norm(1.0 if gamma is None else gamma, 0.0 if beta is None else beta, module.running_mean.numpy(),
                     module.running_var.numpy(), module.eps)
        return dataclasses.replace(value, norm=norm)

    def _sum(self, node: fx.Node) -> _Value:
        operands = (*node.args, *node.kwargs.values())
        sources = [operand for operand in operands if isinstance(operand, fx.Node)]
        if len(operands) != 2 or len(sources) != 2 or any(s in self.inputs for s in sources):
            raise self._refusal(node, f"must add two computed tensors and nothing else, not {operands!r}")
        a, b = (self.values[s] for s in sources)
        if len({self.recorded[n.name].shape for n in (*sources, node)}) > 1:
            raise self._refusal(node, "must add tensors of one shape")
        if isinstance(a, _Code) and isinstance(b, _Code):
            return _Sum(self.labels[node], a, b)
        result, skip = (b, a) if isinstance(a, _Code) else (a, b)
        if not isinstance(skip, _Code) or not isinstance(result, _Result):
            raise self._refusal(
                node, "must have a quantized tensor as one operand: put a SymmetricActivation behind "
                      f"{self.labels[sources[1]]!r}, or a PactActivation where it is not negative")
        if result.skip is not None:
            raise self._refusal(node, "must be the only sum before an activation quantizer")
        return dataclasses.replace(result, skip=skip.tensor)

    def _flatten(self, node: fx.Node, module: nn.Module | None) -> _Value:
        source, value = self._value(node)
        if isinstance(module, nn.Flatten):
            start, end = module.start_dim, module.end_dim
        else:
            given: dict = {**dict(zip(("start_dim", "end_dim"), node.args[1:])), **node.kwargs}
            start, end = given.get("start_dim", 0), given.get("end_dim", -1)
        if (start, end) not in ((1, -1), (1, 3)) or not isinstance(value, _Code | _Average):
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
        if isinstance(value, _Result):
            self._requantize(node, value, output)
        elif isinstance(value, _Sum):
            self._add(node, value, output)
        else:
            raise self._refusal(node, f"must follow a convolution, a linear layer or a sum, not {source!r}")

    def _requantize(self, node: fx.Node, result: _Result, output: Tensor) -> None:
        operation = dataclasses.replace(result.operation, name=self._operation_name(result.operation.name),
                                        output=output.name)
        slope, offset = self._fold(result, output.scale, output.zero_point)
        lo, hi = operation.accumulator_bounds(result.source)
        slopes = [Fraction(s) for s in slope.tolist()]
        weight_sums = operation.weights.sum(axis=(1, 2, 3)) * _positions(result)
        offsets = [Fraction(o) - s * result.source.zero_point * int(w)
                   for o, s, w in zip(offset.tolist(), slopes, weight_sums, strict=True)]
        skip_slope, skip_bits = Fraction(0), 0
        if result.skip is not None:
            skip_slope, skip_bits = Fraction(result.skip.scale / output.scale), result.skip.bits
            offsets = [o - skip_slope * result.skip.zero_point for o in offsets]
        constants, solutions = solve_channels(
            slopes, offsets, output.bits, lo, hi, skip_bits=skip_bits, limits=self.limits,
            skip_slopes=None if result.skip is None else [skip_slope] * len(slopes))
        operation = dataclasses.replace(operation, requantize=constants,
                                        skip=None if result.skip is None else result.skip.name)
        layer = self._layer(operation, result, output, signed_width(int(lo.min()), int(hi.max())))
        self._emit(operation, output, node, _with_constants(layer, constants, solutions),
                   _Channels(operation, slopes, offsets, skip_slope))

    def _add(self, node: fx.Node, value: _Sum, output: Tensor) -> None:
        a, b = value.a.tensor, value.b.tensor
        slope, skip_slope = Fraction(a.scale / output.scale), Fraction(b.scale / output.scale)
        offset = Fraction(output.zero_point) - slope * a.zero_point - skip_slope * b.zero_point
        solution = solve(slope, offset, output.bits, 0, a.max_code, skip_slope=skip_slope, skip_bits=b.bits,
                         limits=self.limits)
        count = output.shape[0]
        operation = Add(self._operation_name(value.name), a.name, b.name, output.name,
                        multiplier_a=np.full(count, solution.multiplier, np.int64),
                        multiplier_b=np.full(count, solution.skip_multiplier, np.int64),
                        bias=np.full(count, solution.bias, np.int64), shift=np.full(count, solution.shift, np.uint8))
        layer = LayerReport(name=operation.name, tensor=output.name, shape=output.shape, input_bits=a.bits,
                            output_bits=output.bits)
        self._emit(operation, output, node, _with_constants(layer, operation.requantize, [solution]),
                   _Channels(operation, [slope] * count, [offset] * count, skip_slope))

    def _output(self, node: fx.Node) -> None:
        source, = node.args
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(value, _Code) and self.operations:
            return
        if isinstance(value, _Sum) or (isinstance(value, _Result) and value.skip is not None):
            assert isinstance(source, fx.Node)
            raise self._refusal(source, "must be followed by an activation quantizer: a residual sum has to be clipped")
        if not isinstance(source, fx.Node) or not isinstance(value, _Result):
            raise ExportError("Model must return the result of one convolution, linear layer or activation quantizer")
        slope, offset = self._fold(value, 1.0, 0)
        offset = offset - slope * (value.source.zero_point * _positions(value)) * \
            value.operation.weights.sum(axis=(1, 2, 3))
        operation = dataclasses.replace(value.operation, name=self._operation_name(value.operation.name),
                                        output=self.labels[source])
        lo, hi = operation.accumulator_bounds(value.source)
        width = signed_width(int(lo.min()), int(hi.max()))
        output = Tensor(self.labels[source], value.shape, Kind.ACCUMULATOR, width, slope=slope, offset=offset)
        self._emit(operation, output, source, self._layer(operation, value, None, width))

    def _fold(self, result: _Result, output_scale: float, output_zero_point: int) -> tuple[np.ndarray, np.ndarray]:
        norm = result.norm or _Norm()
        try:
            return fold(**vars(norm), bias=np.asarray(result.bias), weight_scale=result.weight_scale,
                        input_scale=result.input_scale, output_scale=output_scale,
                        output_zero_point=output_zero_point)
        except ValueError as error:
            raise ExportError(f"Node {result.operation.name!r} must have finite parameters: {error}") from None

    @staticmethod
    def _layer(operation: Conv2d, result: _Result, output: Tensor | None, accumulator_bits: int) -> LayerReport:
        return LayerReport(name=operation.name, tensor=operation.output, shape=result.shape,
                           weight_bits=operation.bits, input_bits=result.source.bits,
                           output_bits=output.bits if output else None, accumulator_bits=accumulator_bits)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _positions(result: _Result) -> int:
    """How many times each weight is used for one output."""
    return result.source.shape[1] * result.source.shape[2] if result.operation.broadcast else 1


def _with_constants(layer: LayerReport, constants: Requantize, solutions: Sequence[Solution]) -> LayerReport:
    def width(values: np.ndarray) -> int:
        return signed_width(int(values.min()), int(values.max()))

    skip = constants.skip_multiplier
    return dataclasses.replace(
        layer, multiplier_bits=width(constants.multiplier), skip_multiplier_bits=None if skip is None else width(skip),
        bias_bits=width(constants.bias), shift=int(constants.shift.max()),
        mismatches=sum(s.mismatches for s in solutions))
