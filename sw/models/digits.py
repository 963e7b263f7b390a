"""The two reference networks for 8×8 digits."""
from __future__ import annotations

import torch
from torch import nn

from ..layers import GlobalAveragePool
from .blocks import ResidualBlock
from .precision import Precision, scaled

__all__ = ["DigitsPlain", "DigitsResidual"]


class DigitsPlain(nn.Module):
    """Three convolutions with a max pool between, and a linear layer over the flattened map.

    Parameters
    ----------
    shape : (C, H, W)
        Of an image.
    classes : :class:`int`
    width : :class:`float`
        Width multiplier, see :func:`sw.models.precision.scaled`.
    """

    def __init__(self, precision: Precision, *, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10,
                 width: float = 1.0):
        super().__init__()
        narrow, wide = scaled(16, width), scaled(32, width)
        self.input = precision.input()
        self.conv1 = precision.conv(shape[0], narrow, 3, edge=True)
        self.norm1 = nn.BatchNorm2d(narrow)
        self.act1 = precision.activation()
        self.conv2 = precision.conv(narrow, wide, 3)
        self.norm2 = nn.BatchNorm2d(wide)
        self.act2 = precision.activation()
        self.pool = nn.MaxPool2d(2)
        self.conv3 = precision.conv(wide, wide, 3)
        self.norm3 = nn.BatchNorm2d(wide)
        self.act3 = precision.activation(edge=True)
        self.linear = precision.linear(wide * (shape[1] // 2) * (shape[2] // 2), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.input(x)                                  # (N, 1, 8, 8)
        x = self.act1(self.norm1(self.conv1(x)))           # (N, 16, 8, 8)
        x = self.act2(self.norm2(self.conv2(x)))           # (N, 32, 8, 8)
        x = self.pool(x)                                   # (N, 32, 4, 4)
        x = self.act3(self.norm3(self.conv3(x)))           # (N, 32, 4, 4)
        return self.linear(x.flatten(1))                   # (N, 10)


class DigitsResidual(nn.Module):
    """A stem, an identity block, a projection block, a global average pool and a linear layer.

    Parameters
    ----------
    shape, classes, width
        As for :class:`DigitsPlain`.
    """

    def __init__(self, precision: Precision, *, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10,
                 width: float = 1.0):
        super().__init__()
        narrow, wide = scaled(16, width), scaled(32, width)
        self.input = precision.input()
        self.stem = precision.conv(shape[0], narrow, 3, edge=True)
        self.norm = nn.BatchNorm2d(narrow)
        self.act = precision.stream()
        self.block1 = ResidualBlock(precision, narrow, narrow)
        self.block2 = ResidualBlock(precision, narrow, wide, stride=2, last=True)
        self.pool = GlobalAveragePool()
        self.linear = precision.linear(wide, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.input(x)                                  # (N, 1, 8, 8)
        x = self.act(self.norm(self.stem(x)))              # (N, 16, 8, 8)
        x = self.block1(x)                                 # (N, 16, 8, 8)
        x = self.block2(x)                                 # (N, 32, 4, 4)
        return self.linear(self.pool(x))                   # (N, 10)
