"""The graph of a model, the names of its nodes, and a forward pass that keeps every node's result."""
from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn

from golden.network import IntegerNetwork, Kind

from ..graph import Recorder, unused
from ..layers import ActivationQuantizer, GlobalAveragePool, QuantizedWeight, ResidualAdd, VsQuantActivation
from .report import ExportError

__all__ = ["FINE", "CodeRecorder", "differences", "labels", "trace"]

FINE = ".fine"
"""What is appended to the name of a quantizer with dynamic vector scales for the codes before it."""


class Tracer(fx.Tracer):
    """Our layers are leaves, like PyTorch's own; blocks made of them are looked into."""

    LEAVES = (QuantizedWeight, ActivationQuantizer, ResidualAdd, GlobalAveragePool)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.LEAVES) or super().is_leaf_module(m, module_qualified_name)


def labels(graph: fx.Graph) -> dict[fx.Node, str]:
    """How nodes are called: by the module's path, ``block1.conv1``, with a number from its second call on."""
    labels: dict[fx.Node, str] = {}
    for node in graph.nodes:
        name = str(node.target) if node.op == "call_module" else node.name
        labels[node] = unused(name, labels.values())
    return labels


def trace(model: nn.Module) -> fx.Graph:
    """The graph of the model's forward, without what its result does not need."""
    try:
        graph = fx.GraphModule(model, Tracer().trace(model)).graph
    except (fx.proxy.TraceError, TypeError) as error:
        raise ExportError(f"Model must have a forward that torch.fx can trace: {error}") from None
    graph.eliminate_dead_code()
    return graph


class CodeRecorder(Recorder):
    """Keeps every quantizer's codes (int64) in place of its result."""

    def __init__(self, model: nn.Module, graph: fx.Graph):
        super().__init__(fx.GraphModule(model, graph))

    def run_node(self, n: fx.Node):
        """Run one node and keep its codes or its result."""
        result = super().run_node(n)
        if n.op == "call_module":
            module = self.fetch_attr(str(n.target))
            if isinstance(module, ActivationQuantizer):
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                self.results[n.name] = module.to_int(*args, **kwargs)
                if isinstance(module, VsQuantActivation) and module.dynamic:
                    self.results[n.name + FINE] = module.fine_codes(*args, **kwargs)
        return result


def differences(network: IntegerNetwork, values: dict[str, np.ndarray], recorded: dict[str, torch.Tensor],
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
                scale = tensor.channel_scale[:, None, None]
                found = np.floor(real / np.where(scale > 0, scale, 1) + tensor.zero_point + 0.5)
                found = np.where(scale > 0, found, values[tensor.name])
            else:
                assert tensor.slope is not None and tensor.offset is not None
                slope, offset = (x[:, None, None] for x in (tensor.slope, tensor.offset))
                found = np.floor((real - offset) / np.where(slope == 0, 1, slope) + 0.5)
                found = np.where(slope == 0, values[tensor.name], found)
        else:
            found = result.numpy().reshape(values[tensor.name].shape)
        counts[tensor.name] = int((found != values[tensor.name]).sum())
    return counts
