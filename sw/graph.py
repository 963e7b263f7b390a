"""What everything that walks a model's torch.fx graph needs."""
from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

__all__ = ["Recorder", "unused"]


def unused(name: str, taken: Collection[str]) -> str:
    """``name``, or its first numbered form that is not taken."""
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


class Recorder(fx.Interpreter):
    """Runs a graph and keeps every node's result by name, tensors as they are when the node has just run."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.results: dict[str, Any] = {}

    def record(self, batch: torch.Tensor) -> dict[str, Any]:
        """Results by node name."""
        with torch.no_grad():
            self.run(batch)
        return self.results

    def run_node(self, n: fx.Node):
        """Run one node and keep its result."""
        result = super().run_node(n)
        # A copy: an in-place sum (out += identity) would change what was recorded.
        self.results[n.name] = result.clone() if isinstance(result, torch.Tensor) else result
        return result
