"""A float model of a user's own, quantized by one call: its layers are swapped for those of :mod:`sw.layers`.

:func:`quantize` traces the model with ``torch.fx``, follows what is a code and what is not yet one from the input to
the output, and builds the same network from quantized layers under the same paths. What it cannot swap it names, all
of it in one :class:`ConversionError`.
"""
from __future__ import annotations

import copy
import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from .graph import Recorder, unused
from .layers import GlobalAveragePool, InputQuantizer, QuantConv2d, QuantLinear, ResidualAdd
from .models import WEIGHTS, Precision
from .quantizers import WeightQuantizer
from .quantizers.dorefa import Dorefa
from .quantizers.sawb import COEFFICIENTS

__all__ = ["Conversion", "ConversionError", "convert", "quantize"]


class ConversionError(ValueError):
    """A model that cannot be swapped: a line for every node that is in the way.

    Members
    -------
    refusals : tuple of (path, reason)
        The path is the module's, or for a function that of the module that calls it with the function's name.
    """

    def __init__(self, refusals: Sequence[tuple[str, str]]):
        self.refusals = tuple(refusals)
        lines = "".join(f"\n  {path}: {reason}" for path, reason in self.refusals)
        super().__init__(f"Model must be made of layers that can be swapped, which these are not:{lines}")


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` made, and how it belongs to the float model.

    Members
    -------
    model : :class:`torch.fx.GraphModule`
        The quantized model.
    reference : :class:`torch.fx.GraphModule`
        The float model as it was traced: a copy, in evaluation mode.
    sources : :class:`dict`
        For the path of every activation quantizer in ``model``, the name of the node of ``reference`` whose value it
        quantizes and the bound above which the float model clips it, if it does.
    weights : tuple of :class:`str`
        Paths of the layers with weights, in the order of their first use.
    notices : tuple of :class:`str`
        What is not quite as it was, a sentence each.
    """

    model: fx.GraphModule
    reference: fx.GraphModule
    sources: dict[str, tuple[str, float | None]]
    weights: tuple[str, ...]
    notices: tuple[str, ...]


def quantize(model: nn.Module, sample: torch.Tensor | Sequence[int], precision: Precision, *,
             input_range: tuple[float, float] = (0.0, 1.0), bits: Mapping[str, int] | None = None) -> fx.GraphModule:
    """A quantized copy of a float model, ready to be trained and for :func:`sw.export.export`.

    What is swapped, under its own path where it is a module:

    * ``Conv2d`` and ``Linear``, each with an optional batch norm, which is copied with its statistics;
    * ``ReLU``, ``ReLU6``, ``Hardtanh(0, x)`` and their functions, and ``clamp`` from 0 on, for activation quantizers. A
      module that is called several times gets one for each call, numbered from the second on;
    * residual sums (``+``, ``torch.add``, in place or not) of two branches. If neither is quantized, the shorter one, a
      projection shortcut, gets a signed quantizer;
    * max pools, also between a layer and its activation;
    * global average pools: ``AdaptiveAvgPool2d(1)``, a mean over the map, an average pool as large as the map;
    * ``flatten``, and ``view``, ``reshape`` and ``squeeze`` that do the same; dropout; ``Identity``, which vanishes.

    The first and the last layer, the last layer's input, the network's input and projection shortcuts have edge bits.
    DoReFa, whose weights are always within ±1, is taken where batch norm follows and can make up for it; the statistics
    are scaled accordingly. The last layer is max-abs whatever the method, as are layers without batch norm with DoReFa,
    and the first layer and those of more than 5 bits with SAWB.

    Parameters
    ----------
    model : :class:`torch.nn.Module`
        Not changed. What it does in evaluation mode is what is traced.
    sample : :class:`torch.Tensor` or sequence of :class:`int`
        A batch of images (N, C, H, W) or features (N, F), or the shape of one, (C, H, W) or (F,).
    precision : :class:`sw.models.Precision`
        With edge bits, and without shortcut bits. Its ``clip`` is where every trained clip starts, but for activations
        that had a bound: they start at that.
    input_range : (low, high)
        Of the model's inputs, widened to include 0; gives the input's scale and zero point.
    bits : mapping or ``None``
        Other widths by path: of the weights for a layer with weights, of the codes for an activation (``input`` is the
        network's input). ``print`` of the result shows all paths.

    Returns
    -------
    :class:`torch.fx.GraphModule`
        In the mode of ``model``. ``result.meta["notices"]`` says what is not quite as it was.

    Raises
    ------
    ConversionError
        Naming everything that cannot be swapped.
    ValueError
        An argument that does not fit the model.
    """
    return convert(model, sample, precision, input_range=input_range, bits=bits).model


def convert(model: nn.Module, sample: torch.Tensor | Sequence[int], precision: Precision, *,
            input_range: tuple[float, float] = (0.0, 1.0), bits: Mapping[str, int] | None = None) -> Conversion:
    """:func:`quantize`, with what a calibration needs beside it; parameters and errors are the same."""
    if precision.weight_bits is None:
        raise ValueError("Precision must have weight and activation bits, not those of the float32 baseline")
    if precision.edge_bits is None or precision.shortcut_bits is not None:
        raise ValueError("Precision must have edge bits and no shortcut bits of its own, not "
                         f"{precision.edge_bits!r} and {precision.shortcut_bits!r}")
    low, high = (float(bound) for bound in input_range)
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"Input range must go from a smaller to a larger number, not {input_range!r}")
    batch = _batch(sample, low, high)
    reference = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(reference)
    except (fx.proxy.TraceError, TypeError) as error:
        raise ValueError(f"Model must have a forward that torch.fx can trace: {error}") from None
    float_model = fx.GraphModule(reference, copy.deepcopy(graph))
    swap = _Swap(reference, graph, _record(float_model, batch))
    swap.walk()
    result = swap.result(precision, (min(low, 0.0), max(high, 0.0)), dict(bits or {}))
    swapped = fx.GraphModule(result, graph, class_name=type(model).__name__)
    swapped.graph.eliminate_dead_code()
    swapped.recompile()
    swapped.train(model.training)
    swapped.meta["notices"] = tuple(swap.notices)
    sources = {path: (activation.source, activation.ceiling) for path, activation in swap.activations.items()}
    return Conversion(swapped, float_model, sources, tuple(swap.weights), tuple(swap.notices))


def _batch(sample: torch.Tensor | Sequence[int], low: float, high: float) -> torch.Tensor:
    """Two inputs: with one, dropping the dimensions of size 1 could drop the batch's."""
    if not isinstance(sample, torch.Tensor):
        return low + (high - low) * torch.rand(2, *sample, generator=torch.Generator().manual_seed(0))
    if sample.dim() not in (2, 4) or not len(sample):
        raise ValueError(f"Sample must be a batch (N, C, H, W) or (N, features), not of shape {tuple(sample.shape)}")
    least, most = sample.min().item(), sample.max().item()
    if least < low - 0.01 * (high - low) or most > high + 0.01 * (high - low):
        raise ValueError(f"Sample must lie in the input range {low:g}..{high:g}, not in {least:g}..{most:g}")
    return sample[:2] if len(sample) > 1 else sample.repeat(2, *(1,) * (sample.dim() - 1))


class _Tracer(fx.Tracer):
    """What is swapped is not looked into, nor are types derived from it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, tuple(_MODULES)) or super().is_leaf_module(m, module_qualified_name)


def _record(model: fx.GraphModule, batch: torch.Tensor) -> dict[str, Any]:
    recorder = Recorder(copy.deepcopy(model))
    recorder.extra_traceback = False
    try:
        return recorder.record(batch)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"Model must take inputs of shape {tuple(batch.shape[1:])}: {error}") from None


@dataclass(frozen=True)
class _Code:
    """A quantized tensor: the path of its quantizer."""

    path: str
    signed: bool


@dataclass(frozen=True)
class _Average:
    """The global average of a quantized tensor."""

    code: _Code


@dataclass(frozen=True)
class _Result:
    """What a layer with weights gives, with batch norm and one residual operand if they are there.

    Members
    -------
    layer : :class:`str`
        Its path.
    label : :class:`str`
        Of the node that the last of them is.
    depth : :class:`int`
        Layers with weights between the input and here, the most of all ways.
    """

    layer: str
    label: str
    depth: int
    norm: bool = False
    added: bool = False


@dataclass(frozen=True)
class _Pooled:
    """The max pool of a result whose activation is still to come."""

    result: _Result
    pool: fx.Node


@dataclass(frozen=True)
class _Sum:
    """The sum of two quantized tensors."""

    label: str


_Value = _Code | _Average | _Result | _Pooled | _Sum | None
"""``None`` stands for what follows a refusal."""


@dataclass
class _Weight:
    """A layer with weights: what it reads, and where it stands."""

    module: nn.Conv2d | nn.Linear
    source: _Code | None
    last: bool = False
    norms: list[nn.Module] = dataclasses.field(default_factory=list)
    bare: bool = False


@dataclass
class _Activation:
    """An activation quantizer to be: the float node that it quantizes, the layer behind it, and its form."""

    source: str
    layer: str | None
    signed: bool = False
    ceiling: float | None = None


_FUNCTIONS: dict[Any, str] = {
    **dict.fromkeys((functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_"), "relu"),
    functional.relu6: "relu6",
    **dict.fromkeys((functional.hardtanh, functional.hardtanh_), "hardtanh"),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"), "clamp"),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), "add"),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), "max_pool"),
    functional.adaptive_avg_pool2d: "adaptive_average",
    functional.avg_pool2d: "average_pool",
    **dict.fromkeys((torch.mean, "mean"), "mean"),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze"), "flatten"),
    **dict.fromkeys((functional.dropout, functional.dropout2d), "dropout"),
    "contiguous": "identity",
}
"""The method of :class:`_Swap` that takes a function, or a tensor's method given by name."""

_MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv", nn.Linear: "linear", nn.BatchNorm1d: "norm", nn.BatchNorm2d: "norm", nn.ReLU: "relu",
    nn.ReLU6: "relu6", nn.Hardtanh: "hardtanh", nn.MaxPool2d: "max_pool", nn.AdaptiveAvgPool2d: "adaptive_average",
    nn.AvgPool2d: "average_pool", nn.Flatten: "flatten", nn.Dropout: "dropout", nn.Dropout2d: "dropout",
    nn.Identity: "identity", ResidualAdd: "add", GlobalAveragePool: "global_average",
}
"""The same for modules of exactly these types: a subclass may compute something else."""

_POOL = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
_AVERAGE_POOL = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True,
                 "divisor_override": None}

_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv, torch.relu_, functional.relu_,
             functional.hardtanh_)

_REASONS: dict[str, str] = {
    **dict.fromkeys(("softmax", "log_softmax"), "belongs to the loss (cross_entropy), not into the network"),
    **dict.fromkeys(("conv2d", "linear", "batch_norm"), "must be a module: a function's weights cannot be swapped"),
    **dict.fromkeys(("cat", "concat", "concatenate"), "has no integer form: its operands have scales of their own"),
    **dict.fromkeys(
        ("sigmoid", "tanh", "gelu", "silu", "leakyrelu", "leaky_relu", "prelu", "elu", "selu", "celu", "hardswish",
         "hardsigmoid", "mish", "softplus", "rrelu", "logsigmoid"),
        "must be a ReLU, ReLU6 or Hardtanh(0, x): no other activation has a quantizer"),
}


class _Swap:
    """Walks the graph once, changing it; modules of the quantized network are made at the end.

    Members
    -------
    values : :class:`dict`
        What each node gives, as far as quantization goes.
    weights, activations : :class:`dict`
        By path, what is to be made.
    kept : :class:`dict`
        By path, modules that are taken as they are.
    depths : :class:`dict`
        By path of a layer, how many layers with weights there are before it, the most of all ways.
    origins : :class:`dict`
        Of a node that is not the float model's, the name of the one that gives the same there.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, recorded: dict[str, Any]):
        self.graph, self.recorded = graph, recorded
        self.modules = dict(model.named_modules())
        self.labels: dict[str, str] = {}
        for node in graph.nodes:
            self.labels[node.name] = unused(self._path(node), self.labels.values())
        self.values: dict[fx.Node, _Value] = {}
        self.weights: dict[str, _Weight] = {}
        self.activations: dict[str, _Activation] = {}
        self.kept: dict[str, nn.Module] = {}
        self.depths: dict[str, int] = {}
        self.origins: dict[str, str] = {}
        self.refusals: dict[str, str] = {}
        self.notices: list[str] = []

    @staticmethod
    def _path(node: fx.Node) -> str:
        """Of a module; of a function within the module that calls it."""
        if node.op == "call_module":
            return str(node.target)
        owner = next(reversed(node.meta.get("nn_module_stack", {"": None})), "")
        what = str(getattr(node.target, "__name__", node.target)).strip("_")
        return f"{owner}.{what}" if owner else what

    def _new_path(self, path: str) -> str:
        """A path for a module that the float model does not have there."""
        return unused(path, {*self.modules, *self.activations, *self.kept})

    def _place(self, node: fx.Node) -> str:
        """Where the module that comes for ``node`` goes: to its own path, if nothing is there yet."""
        label = self.labels[node.name]
        free = node.op == "call_module" and label not in self.activations and label not in self.kept
        return label if free else self._new_path(label)

    def walk(self) -> None:
        """Change the graph.

        Raises
        ------
        ConversionError
            After the last node, if something cannot be swapped.
        """
        inputs = [node for node in self.graph.nodes if node.op == "placeholder" and node.users]
        if len(inputs) != 1:
            raise ValueError(f"Model must have one input, not {len(inputs)}")
        self._check_in_place()
        for node in list(self.graph.nodes):
            if node.op == "placeholder":
                self._input(node)
            elif node.op == "output":
                self._output(node)
            elif node.users and _has_tensor(self.recorded[node.name]):
                self._node(node)
        if self.refusals:
            raise ConversionError(tuple(self.refusals.items()))

    def _refuse(self, label: str, reason: str) -> None:
        self.refusals.setdefault(label, reason)

    def _check_in_place(self) -> None:
        """Without in-place operations, what reads their operand afterwards would read something else."""
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in self.graph.nodes:
            module = self.modules.get(str(node.target)) if node.op == "call_module" else None
            in_place = ((node.op == "call_method" and str(node.target).endswith("_"))
                        or node.target in _IN_PLACE or bool(node.kwargs.get("inplace"))
                        or bool(getattr(module, "inplace", False)))
            if not in_place or not node.all_input_nodes:
                continue
            readers = [self.labels[user.name] for user in node.all_input_nodes[0].users
                       if order[user] > order[node] and isinstance(self.recorded[user.name], torch.Tensor)]
            if readers or not node.users:
                after = f"{readers[0]!r} reads afterwards" if readers else "is not used by its result"
                self._refuse(self.labels[node.name], f"must not work in place on what {after}")

    def _node(self, node: fx.Node) -> None:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            what, method = type(module).__name__, _MODULES.get(type(module))
        else:
            module, what = None, str(getattr(node.target, "__name__", node.target))
            method = None if node.op == "get_attr" else _FUNCTIONS.get(node.target)
        self.values.setdefault(node, None)
        if method is None:
            reason = _REASONS.get(what.lower().strip("_"), "has no quantized form")
            if node.op == "get_attr":
                what, reason = "a parameter or buffer", "must belong to a layer, not be read by the forward itself"
            elif isinstance(module, tuple(_MODULES)):
                reason = "must be of PyTorch's own type: a subclass may compute something else"
            self._refuse(self.labels[node.name], f"{what} {reason}")
            return
        getattr(self, f"_{method}")(node, module)

    # Reading the graph

    def _source(self, node: fx.Node) -> fx.Node:
        """The first tensor that ``node`` reads."""
        return next(n for n in node.all_input_nodes if isinstance(self.recorded[n.name], torch.Tensor))

    def _shape(self, node: fx.Node) -> torch.Size:
        return self.recorded[node.name].shape

    def _options(self, node: fx.Node, module: nn.Module | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """A module's attributes, or a call's arguments behind the first, as numbers."""
        if module is not None:
            return {name: getattr(module, name) for name in defaults}
        given = {**dict(zip(defaults, node.args[1:])), **node.kwargs}
        values = fx.map_arg(given, lambda n: self.recorded[n.name])
        return {name: values.get(name, default) for name, default in defaults.items()}

    def _code(self, node: fx.Node, source: fx.Node | None = None, *, average: bool = False) -> _Code | _Average | None:
        """The quantized tensor that ``node`` reads; if it is none, that is refused, and ``None`` is given."""
        value = self.values[source or self._source(node)]
        if isinstance(value, _Code) or value is None or (average and isinstance(value, _Average)):
            return value
        label = self.labels[node.name]
        if isinstance(value, _Average):
            self._refuse(label, "must not read a global average: only a linear layer can")
        else:
            result = value.result if isinstance(value, _Pooled) else value
            what = "residual sum" if isinstance(result, _Sum) or result.added else "layer"
            self._refuse(result.label, f"must be followed by a ReLU, ReLU6 or Hardtanh(0, x): {label!r} reads the "
                                       f"{what} as it is")
        return None

    # Changing the graph

    def _insert(self, after: fx.Node, path: str, *sources: fx.Node) -> fx.Node:
        with self.graph.inserting_after(after):
            node = self.graph.call_module(path, sources)
        self._known_as(node, after)
        return node

    def _known_as(self, node: fx.Node, other: fx.Node) -> None:
        self.recorded[node.name] = self.recorded[other.name]
        self.labels[node.name] = self.labels[other.name]
        self.origins[node.name] = self.origins.get(other.name, other.name)

    def _replace(self, node: fx.Node, other: fx.Node) -> None:
        node.replace_all_uses_with(other)
        self.graph.erase_node(node)

    def _drop(self, node: fx.Node) -> None:
        self._replace(node, self._source(node))

    def _by_module(self, node: fx.Node, module: nn.Module) -> fx.Node:
        """Let a module of our own do what ``node`` did with its first operand."""
        path = self._place(node)
        self.kept[path] = module
        new = self._insert(node, path, self._source(node))
        self._replace(node, new)
        return new

    # What nodes there are

    def _input(self, node: fx.Node) -> None:
        if not node.users:
            self.values[node] = None
            return
        users = list(node.users)
        new = self._insert(node, "input", node)
        for user in users:
            user.replace_input_with(node, new)
        self.values[new] = _Code("input", signed=False)

    def _output(self, node: fx.Node) -> None:
        source, = node.args
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(value, _Code) and value.path in self.activations:
            layer = self.activations[value.path].layer
            if layer is not None:
                self.weights[layer].last = True
        elif isinstance(value, _Result) and not value.added:
            self.weights[value.layer].last = True
        elif isinstance(source, fx.Node) and value is None and self.refusals:
            return
        elif isinstance(value, _Result | _Sum):
            self._refuse(value.label, "must be followed by a ReLU, ReLU6 or Hardtanh(0, x): the model returns the "
                                      "residual sum as it is")
        else:
            self._refuse("output", "must be the result of one convolution, linear layer or activation")

    def _identity(self, node: fx.Node, module: nn.Module | None) -> None:
        self._drop(node)

    def _dropout(self, node: fx.Node, module: nn.Module | None) -> None:
        value = self.values[self._source(node)]
        if module is None:
            kind = nn.Dropout2d if node.target is functional.dropout2d else nn.Dropout
            node = self._by_module(node, kind(self._options(node, None, {"p": 0.5})["p"]))
        else:
            self.kept[str(node.target)] = module
        self.values[node] = value

    def _conv(self, node: fx.Node, module: nn.Conv2d) -> None:
        padding = _numbers(module)
        if padding is None or module.padding_mode != "zeros":
            self._refuse(self.labels[node.name], "Conv2d must pad with zeros, the same on both sides, not "
                                                 f"{module.padding!r} and {module.padding_mode!r}")
        self._weighted(node, module, self._code(node))

    def _linear(self, node: fx.Node, module: nn.Linear) -> None:
        if len(self._shape(node)) != 2:
            self._refuse(self.labels[node.name], "Linear must read (N, features): put a flatten before it")
        self._weighted(node, module, self._code(node, average=True))

    def _weighted(self, node: fx.Node, module: nn.Conv2d | nn.Linear, source: _Code | _Average | None) -> None:
        path = str(node.target)
        code = source.code if isinstance(source, _Average) else source
        self.weights.setdefault(path, _Weight(module, code))
        depth = 0
        if code is not None and code.path in self.activations:
            behind = self.activations[code.path].layer
            depth = 1 + self.depths[behind] if behind is not None else 1
        self.depths[path] = max(depth, self.depths.get(path, 0))
        result = _Result(path, self.labels[node.name], self.depths[path])
        self.values[node] = result
        if not any(_is_norm(self.modules.get(str(user.target))) for user in node.users):
            self.weights[path].bare = True

    def _norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        label, value = self.labels[node.name], self.values[self._source(node)]
        if module.running_mean is None:
            self._refuse(label, f"{type(module).__name__} must track running statistics")
        if value is None:
            return
        if not isinstance(value, _Result) or value.norm or value.added:
            self._refuse(label, f"{type(module).__name__} must directly follow a convolution or a linear layer")
            return
        path = str(node.target)
        kept = self.kept.setdefault(path, copy.deepcopy(module))
        norms = self.weights[value.layer].norms
        if not any(norm is kept for norm in norms):
            norms.append(kept)
        self.values[node] = dataclasses.replace(value, norm=True, label=label)

    def _relu(self, node: fx.Node, module: nn.Module | None) -> None:
        self._activation(node, None)

    def _relu6(self, node: fx.Node, module: nn.Module | None) -> None:
        self._activation(node, 6.0)

    def _hardtanh(self, node: fx.Node, module: nn.Module | None) -> None:
        options = self._options(node, module, {"min_val": -1.0, "max_val": 1.0})
        self._clip(node, options["min_val"], options["max_val"], "Hardtanh")

    def _clamp(self, node: fx.Node, module: nn.Module | None) -> None:
        options = self._options(node, module, {"min": None, "max": None})
        self._clip(node, options["min"], options["max"], "clamp")

    def _clip(self, node: fx.Node, low: Any, high: Any, what: str) -> None:
        if low != 0 or not (high is None or (isinstance(high, int | float) and high > 0)):
            self._refuse(self.labels[node.name], f"{what} must clip from 0 to a positive number, not from {low} to "
                                                 f"{high}")
            return
        self._activation(node, None if high is None else float(high))

    def _activation(self, node: fx.Node, ceiling: float | None) -> None:
        """Put a quantizer in the place of ``node``, or before the max pool that it follows."""
        source = self._source(node)
        value = self.values[source]
        if isinstance(value, _Average):
            if value.code.signed or ceiling is not None:
                self._refuse(self.labels[node.name], "must not read a global average: only a linear layer can")
            else:
                self._drop(node)
            return
        if isinstance(value, _Code) and not value.signed and ceiling is None:
            self._drop(node)  # codes without a sign have nothing below 0
            return
        if isinstance(value, _Pooled) and (len(value.pool.users) > 1 or len(source.users) > 1):
            self._code(node)
            return
        path = self._place(node)
        result = value.result if isinstance(value, _Pooled) else value
        layer = result.layer if isinstance(result, _Result) else None
        before = value.pool if isinstance(value, _Pooled) else node
        read = self._source(before)
        self.activations[path] = _Activation(self.origins.get(read.name, read.name), layer, ceiling=ceiling)
        if ceiling is not None:
            self.notices.append(f"{path}: the bound {ceiling:g} is where its clip starts, no longer fixed")
        code = _Code(path, signed=False)
        with self.graph.inserting_before(before):
            new = self.graph.call_module(path, (read,))
        self._known_as(new, read)
        if isinstance(value, _Pooled):
            before.replace_input_with(read, new)
            self._replace(node, source)
            self.values[source] = self.values[before] = code
        else:
            self._replace(node, new)
        self.values[new] = code

    def _add(self, node: fx.Node, module: nn.Module | None) -> None:
        label = self.labels[node.name]
        operands = (*node.args, *node.kwargs.values())
        sources = [operand for operand in operands if isinstance(operand, fx.Node)]
        if len(operands) != 2 or len(sources) != 2:
            self._refuse(label, "must add two computed tensors and nothing else")
            return
        if len({self._shape(n) for n in (*sources, node)}) > 1:
            self._refuse(label, "must add tensors of one shape")
            return
        a, b = (self.values[source] for source in sources)
        if a is None or b is None:
            return
        if any(isinstance(value, _Average | _Pooled) for value in (a, b)):
            self._refuse(label, "must add the results of layers or quantized tensors, not pooled ones")
            return
        if isinstance(a, _Sum) or isinstance(b, _Sum) or any(isinstance(v, _Result) and v.added for v in (a, b)):
            self._refuse(label, "must be the only sum before an activation")
            return
        value: _Value
        if isinstance(a, _Result) and isinstance(b, _Result):
            which = 0 if a.depth < b.depth else 1
            if sources[0] is sources[1]:
                self._refuse(label, "must add two tensors, not a layer's result to itself")
                return
            sources[which] = self._signed(sources[which], (a, b)[which])
            value = dataclasses.replace((b, a)[which], added=True, label=label)
        elif isinstance(a, _Result) or isinstance(b, _Result):
            result = a if isinstance(a, _Result) else b
            assert isinstance(result, _Result)
            value = dataclasses.replace(result, added=True, label=label)
        else:
            value = _Sum(label)
        path = self._place(node)
        self.kept[path] = ResidualAdd()
        with self.graph.inserting_before(node):
            new = self.graph.call_module(path, tuple(sources))
        self._known_as(new, node)
        self._replace(node, new)
        self.values[new] = value

    def _signed(self, source: fx.Node, result: _Result) -> fx.Node:
        """The signed quantizer of a projection shortcut."""
        parent = result.label.rpartition(".")[0]
        path = self._new_path(f"{parent}.shortcut" if parent else "shortcut")
        self.activations[path] = _Activation(self.origins.get(source.name, source.name), result.layer, signed=True)
        new = self._insert(source, path, source)
        self.values[new] = _Code(path, signed=True)
        return new

    def _max_pool(self, node: fx.Node, module: nn.MaxPool2d | None) -> None:
        options, label = self._options(node, module, _POOL), self.labels[node.name]
        if options["ceil_mode"] or options["return_indices"] or _pair(options["dilation"]) != (1, 1):
            self._refuse(label, "must be a max pool without ceil_mode, dilation and indices")
            return
        value = self.values[self._source(node)]
        if isinstance(value, _Average | _Sum) or (isinstance(value, _Result) and value.added):
            value = self._code(node)
        if module is None:
            node = self._by_module(node, nn.MaxPool2d(options["kernel_size"], options["stride"], options["padding"]))
        else:
            self.kept[str(node.target)] = module
        self.values[node] = _Pooled(value, node) if isinstance(value, _Result) else value

    def _adaptive_average(self, node: fx.Node, module: nn.AdaptiveAvgPool2d | None) -> None:
        size = self._options(node, module, {"output_size": None})["output_size"]
        if _pair(size) != (1, 1):
            self._refuse(self.labels[node.name], f"must average the whole map, not to {size!r}")
            return
        self._average(node, nn.AdaptiveAvgPool2d(1))

    def _average_pool(self, node: fx.Node, module: nn.AvgPool2d | None) -> None:
        options = self._options(node, module, _AVERAGE_POOL)
        size = tuple(self._shape(self._source(node))[2:])
        if (_pair(options["kernel_size"]) != size or _pair(options["padding"]) != (0, 0)
                or options["divisor_override"] is not None):
            self._refuse(self.labels[node.name], f"must average the whole map of {size[0]}×{size[1]}, not "
                                                 f"{options['kernel_size']!r}: put a convolution of stride 2 or a "
                                                 "max pool")
            return
        self._average(node, nn.AdaptiveAvgPool2d(1))

    def _mean(self, node: fx.Node, module: nn.Module | None) -> None:
        options = self._options(node, None, {"dim": None, "keepdim": False})
        dim, shape = options["dim"], self._shape(self._source(node))
        dims = sorted(d % len(shape) for d in dim) if isinstance(dim, Iterable) else dim
        if len(shape) != 4 or dims != [2, 3]:
            self._refuse(self.labels[node.name], f"must be the mean over dimensions 2 and 3 of a map, not over {dim!r}")
            return
        self._average(node, nn.AdaptiveAvgPool2d(1) if options["keepdim"] else GlobalAveragePool())

    def _global_average(self, node: fx.Node, module: GlobalAveragePool) -> None:
        self._average(node, GlobalAveragePool())

    def _average(self, node: fx.Node, pool: nn.Module) -> None:
        value = self._code(node, average=True)
        new = self._by_module(node, pool)
        self.values[new] = _Average(value) if isinstance(value, _Code) else value

    def _flatten(self, node: fx.Node, module: nn.Module | None) -> None:
        source = self._source(node)
        before, after = self._shape(source), self._shape(node)
        if tuple(after) == tuple(before):
            self._drop(node)
            return
        if tuple(after) != (before[0], math.prod(before[1:]), *(1,) * (len(after) - 2)):
            self._refuse(self.labels[node.name], "must flatten everything but the batch, not make "
                                                 f"{tuple(after[1:])} of {tuple(before[1:])}")
            return
        value = self._code(node, average=True)
        with self.graph.inserting_before(node):
            new = self.graph.call_function(torch.flatten, (source, 1))
        self._known_as(new, node)
        self._replace(node, new)
        self.values[new] = value

    # The quantized modules

    def result(self, precision: Precision, input_range: tuple[float, float], bits: dict[str, int]
               ) -> dict[str, nn.Module]:
        """All modules of the changed graph by path."""
        unknown = sorted(set(bits) - {"input", *self.weights, *self.activations})
        if unknown:
            raise ValueError(f"Bits must be for layers of the model, not for {', '.join(map(repr, unknown))}")
        edges = {weight.source.path for weight in self.weights.values() if weight.last and weight.source is not None}
        assert precision.edge_bits is not None
        made: dict[str, nn.Module] = {"input": _input(bits.get("input", precision.edge_bits), *input_range)}
        for path, activation in self.activations.items():
            made[path] = _quantizer(activation, precision, bits.get(path), edge=path in edges)
        made.update(self.kept)  # before the layers, whose batch norms are scaled
        for path, weight in self.weights.items():
            made[path] = self._layer(path, weight, precision, bits.get(path))
        return made

    def _layer(self, path: str, weight: _Weight, precision: Precision, bits: int | None) -> nn.Module:
        assert precision.weight_bits is not None and precision.edge_bits is not None
        first = weight.source is not None and weight.source.path == "input"
        if bits is None:
            bits = precision.edge_bits if first or weight.last else precision.weight_bits
        method = precision.weights
        reason = ""
        if weight.last or (method == "sawb" and (first or bits > max(COEFFICIENTS))):
            method = "maxabs"
        elif method == "dorefa" and (weight.bare or not weight.norms):
            method, reason = "maxabs", "DoReFa needs a batch norm behind it"
        if method == "maxabs" and bits == 1 and precision.weights != "maxabs":
            raise ValueError(f"Bits of {path!r} must be at least 2: its weights are max-abs")
        if reason:
            self.notices.append(f"{path}: its weights are max-abs, since {reason}")
        quantizer = precision.weight_quantizer(bits) if method == precision.weights else WEIGHTS[method](bits)
        layer = _quantized(weight.module, quantizer)
        if isinstance(quantizer, Dorefa) and bits > 1:
            _scale(layer, weight.norms)
        return layer


def _has_tensor(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_has_tensor(item) for item in value)
    return isinstance(value, torch.Tensor)


def _is_norm(module: nn.Module | None) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def _numbers(conv: nn.Conv2d) -> tuple[int, int] | None:
    """Padding in numbers, or ``None`` if it differs between the two sides."""
    if conv.padding == "valid":
        return 0, 0
    if conv.padding == "same":
        whole = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        return None if any(w % 2 for w in whole) else (whole[0] // 2, whole[1] // 2)
    assert not isinstance(conv.padding, str)
    return conv.padding[0], conv.padding[1]


def _input(bits: int, low: float, high: float) -> InputQuantizer:
    top = 2 ** bits - 1
    scale = (high - low) / top
    return InputQuantizer(bits=bits, scale=scale, zero_point=min(top, math.floor(-low / scale + 0.5)))


def _quantizer(activation: _Activation, precision: Precision, bits: int | None, *, edge: bool) -> nn.Module:
    if activation.signed:
        return dataclasses.replace(precision, edge_bits=bits or precision.edge_bits).shortcut()
    if bits is None:
        bits = precision.edge_bits if edge else precision.activation_bits
    clip = precision.clip if activation.ceiling is None else activation.ceiling
    return dataclasses.replace(precision, activation_bits=bits, clip=clip).activation()


def _quantized(module: nn.Conv2d | nn.Linear, quantizer: WeightQuantizer) -> QuantConv2d | QuantLinear:
    layer: QuantConv2d | QuantLinear
    if isinstance(module, nn.Conv2d):
        padding = _numbers(module)
        layer = QuantConv2d(module.in_channels, module.out_channels, module.kernel_size, quantizer=quantizer,
                            stride=module.stride, padding=padding, dilation=module.dilation, groups=module.groups,
                            bias=module.bias is not None)
    else:
        layer = QuantLinear(module.in_features, module.out_features, quantizer=quantizer,
                            bias=module.bias is not None)
    layer.weight = nn.Parameter(module.weight.detach().clone())
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach().clone())
    return layer


def _scale(layer: QuantConv2d | QuantLinear, norms: Iterable[nn.Module]) -> None:
    """Let bias and batch norm follow weights that DoReFa stretches to ±1."""
    factor = 1 / torch.tanh(layer.weight.detach()).abs().max().clamp(min=torch.finfo(layer.weight.dtype).tiny)
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias *= factor
        for norm in norms:
            assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean *= factor
            norm.running_var *= factor ** 2
