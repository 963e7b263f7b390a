"""The networks, each also as a float32 baseline of the same shape, and the precision that they are built with."""
from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .blocks import ResidualBlock
from .cnn import Cnn
from .digits import DigitsPlain, DigitsResidual
from .precision import ACTIVATIONS, OPTIONS, WEIGHTS, Precision
from .resnet import ResNet, resnet_8, resnet_20

__all__ = ["ACTIVATIONS", "MODELS", "OPTIONS", "WEIGHTS", "Cnn", "DigitsPlain", "DigitsResidual", "Precision",
           "ResNet", "ResidualBlock"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "digits-plain": DigitsPlain,
    "digits-residual": DigitsResidual,
    "cnn": Cnn,
    "resnet-8": resnet_8,
    "resnet-20": resnet_20,
}
"""By name. Each takes a :class:`Precision`, and by keyword ``shape`` (C, H, W), ``classes`` and ``width``."""
