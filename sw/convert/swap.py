"""The walk over the float model's graph that changes it, and finds what is in the way."""
from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from ..graph import unused
from ..layers import GlobalAveragePool, ResidualAdd
from .forms import (
    AVERAGE_POOL,
    FUNCTIONS,
    IN_PLACE,
    MODULES,
    POOL,
    REASONS,
    has_tensor,
    is_norm,
    pair,
    symmetric_padding,
)
from .values import Activation, Average, Code, Pooled, Result, Sum, Value, Weight

__all__ = ["ConversionError", "Swap"]


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


class Swap:
    """Walks the graph once, changing it; :func:`sw.convert.modules.quantized_modules` makes what is then called.

    Members
    -------
    input : :class:`str`
        Path of the input's quantizer.
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
        self.input = ""
        self.values: dict[fx.Node, Value] = {}
        self.weights: dict[str, Weight] = {}
        self.activations: dict[str, Activation] = {}
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
        """A path for a module that the float model does not have there; identities vanish."""
        taken = {name for name, module in self.modules.items() if not isinstance(module, nn.Identity)}
        return unused(path, {*taken, *self.activations, *self.kept})

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
            elif node.users and has_tensor(self.recorded[node.name]):
                self._node(node)
        if self.refusals:
            raise ConversionError(tuple(self.refusals.items()))

    def separate_branches(self) -> None:
        """Put a quantizer between the residual stream and every layer that reads it, but for projections and the last.

        Layers that read the same node share one.
        """
        branches: dict[fx.Node, fx.Node] = {}
        for node in list(self.graph.nodes):
            weight = self.weights.get(str(node.target)) if node.op == "call_module" else None
            if weight is None or weight.source is None or weight.projection or weight.last:
                continue
            stream = self.activations.get(weight.source.path)
            if stream is None or not stream.stream:
                continue
            reader, place = node, self._source(node)
            while place.target is torch.flatten or not isinstance(self.values[place], Code):  # an average is no code
                reader, place = place, self._source(place)
            if place not in branches:
                parent = self.labels[node.name].rpartition(".")[0]
                path = self._new_path(f"{parent}.branch" if parent else "branch")
                self.activations[path] = Activation(self.origins.get(place.name, place.name), None,
                                                    ceiling=stream.ceiling)
                branches[place] = self._insert(place, path, place)
                self.values[branches[place]] = Code(path, signed=False)
            reader.replace_input_with(place, branches[place])

    def _refuse(self, label: str, reason: str) -> None:
        self.refusals.setdefault(label, reason)

    def _check_in_place(self) -> None:
        """Without in-place operations, what reads their operand afterwards would read something else."""
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in self.graph.nodes:
            module = self.modules.get(str(node.target)) if node.op == "call_module" else None
            in_place = ((node.op == "call_method" and str(node.target).endswith("_"))
                        or node.target in IN_PLACE or bool(node.kwargs.get("inplace"))
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
            what, method = type(module).__name__, MODULES.get(type(module))
        else:
            module, what = None, str(getattr(node.target, "__name__", node.target))
            method = None if node.op == "get_attr" else FUNCTIONS.get(node.target)
        self.values.setdefault(node, None)
        if method is None:
            reason = REASONS.get(what.lower().strip("_"), "has no quantized form")
            if node.op == "get_attr":
                what, reason = "a parameter or buffer", "must belong to a layer, not be read by the forward itself"
            elif isinstance(module, tuple(MODULES)):
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

    def _code(self, node: fx.Node, source: fx.Node | None = None, *, average: bool = False) -> Code | Average | None:
        """The quantized tensor that ``node`` reads; if it is none, that is refused, and ``None`` is given."""
        value = self.values[source or self._source(node)]
        if isinstance(value, Code) or value is None or (average and isinstance(value, Average)):
            return value
        label = self.labels[node.name]
        if isinstance(value, Average):
            self._refuse(label, "must not read a global average: only a linear layer can")
        else:
            result = value.result if isinstance(value, Pooled) else value
            what = "residual sum" if isinstance(result, Sum) or result.added else "layer"
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
        self.input = self._new_path("input")
        new = self._insert(node, self.input, node)
        for user in users:
            user.replace_input_with(node, new)
        self.values[new] = Code(self.input, signed=False)

    def _output(self, node: fx.Node) -> None:
        source, = node.args
        value = self.values.get(source) if isinstance(source, fx.Node) else None
        if isinstance(value, Code) and value.path in self.activations:
            layer = self.activations[value.path].layer
            if layer is not None:
                self.weights[layer].last = True
        elif isinstance(value, Result) and not value.added:
            self.weights[value.layer].last = True
        elif isinstance(source, fx.Node) and value is None and self.refusals:
            return
        elif isinstance(value, Result | Sum):
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
        padding = symmetric_padding(module)
        if padding is None or module.padding_mode != "zeros":
            self._refuse(self.labels[node.name], "Conv2d must pad with zeros, the same on both sides, not "
                                                 f"{module.padding!r} and {module.padding_mode!r}")
        self._weighted(node, module, self._code(node))

    def _linear(self, node: fx.Node, module: nn.Linear) -> None:
        if len(self._shape(node)) != 2:
            self._refuse(self.labels[node.name], "Linear must read (N, features): put a flatten before it")
        self._weighted(node, module, self._code(node, average=True))

    def _weighted(self, node: fx.Node, module: nn.Conv2d | nn.Linear, source: Code | Average | None) -> None:
        path = str(node.target)
        code = source.code if isinstance(source, Average) else source
        positions = source.positions if isinstance(source, Code) else 1
        self.weights.setdefault(path, Weight(module, code, positions=positions))
        depth = 0
        if code is not None and code.path in self.activations:
            behind = self.activations[code.path].layer
            depth = 1 + self.depths[behind] if behind is not None else 1
        self.depths[path] = max(depth, self.depths.get(path, 0))
        result = Result(path, self.labels[node.name], self.depths[path])
        self.values[node] = result
        if not any(is_norm(self.modules.get(str(user.target))) for user in node.users):
            self.weights[path].bare = True

    def _norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        label, value = self.labels[node.name], self.values[self._source(node)]
        if module.running_mean is None:
            self._refuse(label, f"{type(module).__name__} must track running statistics")
        if value is None:
            return
        if not isinstance(value, Result) or value.norm or value.added:
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
        if isinstance(value, Average):
            if value.code.signed or ceiling is not None:
                self._refuse(self.labels[node.name], "must not read a global average: only a linear layer can")
            else:
                self._drop(node)
            return
        if isinstance(value, Code) and not value.signed and ceiling is None:
            self._drop(node)  # codes without a sign have nothing below 0
            return
        if isinstance(value, Pooled) and (len(value.pool.users) > 1 or len(source.users) > 1):
            self._code(node)
            return
        path = self._place(node)
        result = value.result if isinstance(value, Pooled) else value
        layer = result.layer if isinstance(result, Result) else None
        before = value.pool if isinstance(value, Pooled) else node
        read = self._source(before)
        self.activations[path] = Activation(self.origins.get(read.name, read.name), layer, ceiling=ceiling)
        if ceiling is not None:
            self.notices.append(f"{path}: the bound {ceiling:g} is where its clip starts, no longer fixed")
        code = Code(path, signed=False)
        with self.graph.inserting_before(before):
            new = self.graph.call_module(path, (read,))
        self._known_as(new, read)
        if isinstance(value, Pooled):
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
        if any(isinstance(value, Average | Pooled) for value in (a, b)):
            self._refuse(label, "must add the results of layers or quantized tensors, not pooled ones")
            return
        if isinstance(a, Sum) or isinstance(b, Sum) or any(isinstance(v, Result) and v.added for v in (a, b)):
            self._refuse(label, "must be the only sum before an activation")
            return
        value: Value
        if isinstance(a, Result) and isinstance(b, Result):
            which = 0 if a.depth < b.depth else 1
            if sources[0] is sources[1]:
                self._refuse(label, "must add two tensors, not a layer's result to itself")
                return
            sources[which] = self._signed(sources[which], (a, b)[which])
            projection = self.weights[(a, b)[which].layer]
            projection.projection = True
            self._streams(projection.source)
            value = dataclasses.replace((b, a)[which], added=True, label=label)
        elif isinstance(a, Result) or isinstance(b, Result):
            result = a if isinstance(a, Result) else b
            assert isinstance(result, Result)
            value = dataclasses.replace(result, added=True, label=label)
        else:
            value = Sum(label)
        self._streams(a)
        self._streams(b)
        path = self._place(node)
        self.kept[path] = ResidualAdd()
        with self.graph.inserting_before(node):
            new = self.graph.call_module(path, tuple(sources))
        self._known_as(new, node)
        self._replace(node, new)
        self.values[new] = value

    def _streams(self, value: Value) -> None:
        """A shortcut reads this: if it is a code, it is the residual stream's."""
        if isinstance(value, Code) and value.path in self.activations:
            self.activations[value.path].stream = True

    def _signed(self, source: fx.Node, result: Result) -> fx.Node:
        """The signed quantizer of a projection shortcut."""
        parent = result.label.rpartition(".")[0]
        path = self._new_path(f"{parent}.shortcut" if parent else "shortcut")
        self.activations[path] = Activation(self.origins.get(source.name, source.name), result.layer, signed=True)
        new = self._insert(source, path, source)
        self.values[new] = Code(path, signed=True)
        return new

    def _max_pool(self, node: fx.Node, module: nn.MaxPool2d | None) -> None:
        options, label = self._options(node, module, POOL), self.labels[node.name]
        if options["ceil_mode"] or options["return_indices"] or pair(options["dilation"]) != (1, 1):
            self._refuse(label, "must be a max pool without ceil_mode, dilation and indices")
            return
        value = self.values[self._source(node)]
        if isinstance(value, Average | Sum) or (isinstance(value, Result) and value.added):
            value = self._code(node)
        if module is None:
            node = self._by_module(node, nn.MaxPool2d(options["kernel_size"], options["stride"], options["padding"]))
        else:
            self.kept[str(node.target)] = module
        self.values[node] = Pooled(value, node) if isinstance(value, Result) else value

    def _adaptive_average(self, node: fx.Node, module: nn.AdaptiveAvgPool2d | None) -> None:
        size = self._options(node, module, {"output_size": None})["output_size"]
        shape = self._shape(node)
        if shape == self._shape(self._source(node)) and tuple(shape[2:]) != (1, 1):
            self._drop(node)
            return
        if pair(size) != (1, 1):
            self._refuse(self.labels[node.name], f"must average the whole map, not to {size!r}")
            return
        self._average(node, nn.AdaptiveAvgPool2d(1))

    def _average_pool(self, node: fx.Node, module: nn.AvgPool2d | None) -> None:
        options = self._options(node, module, AVERAGE_POOL)
        size = tuple(self._shape(self._source(node))[2:])
        if (pair(options["kernel_size"]) != size or pair(options["padding"]) != (0, 0)
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
        self.values[new] = Average(value) if isinstance(value, Code) else value

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
        if isinstance(value, Code):
            value = dataclasses.replace(value, positions=value.positions * math.prod(before[2:]))
        with self.graph.inserting_before(node):
            new = self.graph.call_function(torch.flatten, (source, 1))
        self._known_as(new, node)
        self._replace(node, new)
        self.values[new] = value
