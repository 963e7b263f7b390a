"""The two reference networks for 8×8 digits, each also as a float32 baseline with the same shape."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .layers import (
    GlobalAveragePool,
    InputQuantizer,
    OctavActivation,
    PactActivation,
    QuantConv2d,
    QuantLinear,
    ResidualAdd,
    SymmetricActivation,
)
from .quantizers import WeightQuantizer
from .quantizers.dorefa import Dorefa
from .quantizers.maxabs import MaxAbs
from .quantizers.octav import Octav
from .quantizers.rounding import check_bits
from .quantizers.sawb import Sawb

__all__ = ["ACTIVATIONS", "MODELS", "WEIGHTS", "DigitsPlain", "DigitsResidual", "Precision", "ResidualBlock"]


WEIGHTS: dict[str, Callable[[int], WeightQuantizer]] = {"dorefa": Dorefa, "sawb": Sawb, "octav": Octav,
                                                        "maxabs": MaxAbs}
"""Weight quantizers by name."""

ACTIVATIONS = ("pact", "pact+", "octav")
"""Names of activation quantizers."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The bit widths and quantizers of a network, and the modules that follow from them.

    Parameters
    ----------
    weight_bits, activation_bits : :class:`int` or ``None``
        Of the middle layers; both ``None`` for the float32 baseline, whose activations are ReLU.
    edge_bits : :class:`int`
        Of the weights of the first and last layers, the input, the last layer's input, and projection shortcuts'
        outputs.
    weights : :class:`str`
        A key of :data:`WEIGHTS`. The last layer's weights are max-abs whatever the method, and with ``sawb``, which has
        no coefficients for wide weights, those of the first layer too.
    activations : :class:`str`
        One of :data:`ACTIVATIONS`. A projection shortcut's output has a trained symmetric clip, or signed OCTAV.
    clip : :class:`float`
        Initial clip of every activation quantizer that trains it.

    Raises
    ------
    ValueError
        An unknown method, a width that it does not have, or only one of the two widths ``None``.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    edge_bits: int = 8
    weights: str = "dorefa"
    activations: str = "pact"
    clip: float = 10.0

    def __post_init__(self) -> None:
        if (self.weight_bits is None) != (self.activation_bits is None):
            raise ValueError("Weight bits and activation bits must be both given or both absent, not "
                             f"{self.weight_bits!r} and {self.activation_bits!r}")
        for bits in (self.weight_bits, self.activation_bits, self.edge_bits):
            if bits is not None:
                check_bits(bits)
        for what, method, known in (("Weights", self.weights, WEIGHTS), ("Activations", self.activations, ACTIVATIONS)):
            if method not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, not {method!r}")
        if self.weight_bits is not None:
            self._weight_quantizer(self.weight_bits)
            self._weight_quantizer(self.edge_bits, edge=True)

    def _weight_quantizer(self, bits: int, *, edge: bool = False) -> WeightQuantizer:
        return WEIGHTS["maxabs" if edge and self.weights == "sawb" else self.weights](bits)

    def input(self) -> nn.Module:
        """For images in 0..1."""
        if self.weight_bits is None:
            return nn.Identity()
        return InputQuantizer(bits=self.edge_bits, scale=1 / (2 ** self.edge_bits - 1))

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, edge: bool = False
             ) -> nn.Module:
        """A "same" convolution (at stride 1) without bias."""
        padding = kernel_size // 2
        if self.weight_bits is None:
            return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        quantizer = self._weight_quantizer(self.edge_bits if edge else self.weight_bits, edge=edge)
        return QuantConv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, quantizer=quantizer)

    def linear(self, in_features: int, out_features: int) -> nn.Module:
        """The last layer."""
        if self.weight_bits is None:
            return nn.Linear(in_features, out_features)
        return QuantLinear(in_features, out_features, quantizer=MaxAbs(self.edge_bits))

    def activation(self, *, edge: bool = False) -> nn.Module:
        """PACT or OCTAV, or ReLU for the baseline."""
        if self.activation_bits is None:
            return nn.ReLU()
        bits = self.edge_bits if edge else self.activation_bits
        if self.activations == "octav":
            return OctavActivation(bits)
        return PactActivation(bits, alpha=self.clip, plus=self.activations == "pact+")

    def shortcut(self) -> nn.Module:
        """What makes a projection shortcut's output a code."""
        if self.weight_bits is None:
            return nn.Identity()
        if self.activations == "octav":
            return OctavActivation(self.edge_bits, signed=True)
        return SymmetricActivation(self.edge_bits, clip=self.clip)


class DigitsPlain(nn.Module):
    """Three convolutions with a max pool between, and a linear layer over the flattened map."""

    def __init__(self, precision: Precision):
        super().__init__()
        self.input = precision.input()
        self.conv1 = precision.conv(1, 16, 3, edge=True)
        self.norm1 = nn.BatchNorm2d(16)
        self.act1 = precision.activation()
        self.conv2 = precision.conv(16, 32, 3)
        self.norm2 = nn.BatchNorm2d(32)
        self.act2 = precision.activation()
        self.pool = nn.MaxPool2d(2)
        self.conv3 = precision.conv(32, 32, 3)
        self.norm3 = nn.BatchNorm2d(32)
        self.act3 = precision.activation(edge=True)
        self.linear = precision.linear(32 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.input(x)                                  # (N, 1, 8, 8)
        x = self.act1(self.norm1(self.conv1(x)))           # (N, 16, 8, 8)
        x = self.act2(self.norm2(self.conv2(x)))           # (N, 32, 8, 8)
        x = self.pool(x)                                   # (N, 32, 4, 4)
        x = self.act3(self.norm3(self.conv3(x)))           # (N, 32, 4, 4)
        return self.linear(x.flatten(1))                   # (N, 10)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut that is the identity, or a 1×1 projection where the shape changes.

    Parameters
    ----------
    last : :class:`bool`
        Whether the block's output feeds the last layer, which takes edge precision.
    """

    def __init__(self, precision: Precision, in_channels: int, out_channels: int, *, stride: int = 1,
                 last: bool = False):
        super().__init__()
        self.conv1 = precision.conv(in_channels, out_channels, 3, stride=stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.act1 = precision.activation()
        self.conv2 = precision.conv(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(precision.conv(in_channels, out_channels, 1, stride=stride),
                                          nn.BatchNorm2d(out_channels), precision.shortcut())
        self.add = ResidualAdd()
        self.act2 = precision.activation(edge=last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A quantized map from a quantized map."""
        main = self.act1(self.norm1(self.conv1(x)))
        main = self.norm2(self.conv2(main))
        return self.act2(self.add(main, self.shortcut(x)))


class DigitsResidual(nn.Module):
    """A stem, an identity block, a projection block, a global average pool and a linear layer."""

    def __init__(self, precision: Precision):
        super().__init__()
        self.input = precision.input()
        self.stem = precision.conv(1, 16, 3, edge=True)
        self.norm = nn.BatchNorm2d(16)
        self.act = precision.activation()
        self.block1 = ResidualBlock(precision, 16, 16)
        self.block2 = ResidualBlock(precision, 16, 32, stride=2, last=True)
        self.pool = GlobalAveragePool()
        self.linear = precision.linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.input(x)                                  # (N, 1, 8, 8)
        x = self.act(self.norm(self.stem(x)))              # (N, 16, 8, 8)
        x = self.block1(x)                                 # (N, 16, 8, 8)
        x = self.block2(x)                                 # (N, 32, 4, 4)
        return self.linear(self.pool(x))                   # (N, 10)


MODELS: dict[str, Callable[[Precision], nn.Module]] = {
    "digits-plain": DigitsPlain,
    "digits-residual": DigitsResidual,
}
