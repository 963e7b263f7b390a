"""Which modules, functions and methods there are a swap for, and why not for others."""
from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..layers import GlobalAveragePool, ResidualAdd

__all__ = ["AVERAGE_POOL", "FUNCTIONS", "IN_PLACE", "MODULES", "POOL", "REASONS", "has_tensor", "is_norm", "pair",
           "symmetric_padding"]

FUNCTIONS: dict[Any, str] = {
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
"""The method of :class:`sw.convert.swap.Swap` that takes a function, or a tensor's method given by name."""

MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv", nn.Linear: "linear", nn.BatchNorm1d: "norm", nn.BatchNorm2d: "norm", nn.ReLU: "relu",
    nn.ReLU6: "relu6", nn.Hardtanh: "hardtanh", nn.MaxPool2d: "max_pool", nn.AdaptiveAvgPool2d: "adaptive_average",
    nn.AvgPool2d: "average_pool", nn.Flatten: "flatten", nn.Dropout: "dropout", nn.Dropout2d: "dropout",
    nn.Identity: "identity", ResidualAdd: "add", GlobalAveragePool: "global_average",
}
"""The same for modules of exactly these types: a subclass may compute something else."""

POOL = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}
AVERAGE_POOL = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True,
                 "divisor_override": None}

IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv, torch.relu_, functional.relu_,
             functional.hardtanh_)

REASONS: dict[str, str] = {
    **dict.fromkeys(("softmax", "log_softmax"), "belongs to the loss (cross_entropy), not into the network"),
    **dict.fromkeys(("conv2d", "linear", "batch_norm"), "must be a module: a function's weights cannot be swapped"),
    **dict.fromkeys(("cat", "concat", "concatenate"), "has no integer form: its operands have scales of their own"),
    **dict.fromkeys(
        ("sigmoid", "tanh", "gelu", "silu", "leakyrelu", "leaky_relu", "prelu", "elu", "selu", "celu", "hardswish",
         "hardsigmoid", "mish", "softplus", "rrelu", "logsigmoid"),
        "must be a ReLU, ReLU6 or Hardtanh(0, x): no other activation has a quantizer"),
}


def has_tensor(value: Any) -> bool:
    """Whether a node's result is a tensor, or a sequence with one in it."""
    if isinstance(value, tuple | list):
        return any(has_tensor(item) for item in value)
    return isinstance(value, torch.Tensor)


def is_norm(module: nn.Module | None) -> bool:
    """Whether it is a batch norm."""
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)


def pair(value: Any) -> tuple[Any, ...]:
    """(height, width) of what PyTorch also takes as one number."""
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def symmetric_padding(conv: nn.Conv2d) -> tuple[int, int] | None:
    """Padding in numbers, or ``None`` if it differs between the two sides."""
    if conv.padding == "valid":
        return 0, 0
    if conv.padding == "same":
        whole = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
        return None if any(w % 2 for w in whole) else (whole[0] // 2, whole[1] // 2)
    assert not isinstance(conv.padding, str)
    return conv.padding[0], conv.padding[1]
