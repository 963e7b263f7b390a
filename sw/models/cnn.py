"""A small convolutional network for images of about 28×28."""
from __future__ import annotations

import torch
from torch import nn

from .precision import Precision, scaled

__all__ = ["Cnn"]


class Cnn(nn.Module):
    """Three 3×3 convolutions of 16, 32 and 64 channels, each with a 2×2 max pool behind it, and a linear layer.

    Parameters
    ----------
    shape : (C, H, W)
        Of an image; at least 8×8.
    classes : :class:`int`
    width : :class:`float`
        Width multiplier, see :func:`sw.models.precision.scaled`.
    """

    def __init__(self, precision: Precision, *, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10,
                 width: float = 1.0):
        super().__init__()
        first, second, third = (scaled(channels, width) for channels in (16, 32, 64))
        self.input = precision.input()
        self.conv1 = precision.conv(shape[0], first, 3, edge=True)
        self.norm1 = nn.BatchNorm2d(first)
        self.act1 = precision.activation()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = precision.conv(first, second, 3)
        self.norm2 = nn.BatchNorm2d(second)
        self.act2 = precision.activation()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = precision.conv(second, third, 3)
        self.norm3 = nn.BatchNorm2d(third)
        self.act3 = precision.activation(edge=True)
        self.pool3 = nn.MaxPool2d(2)
        self.linear = precision.linear(third * (shape[1] // 8) * (shape[2] // 8), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.input(x)                                       # (N, 1, 28, 28)
        x = self.pool1(self.act1(self.norm1(self.conv1(x))))    # (N, 16, 14, 14)
        x = self.pool2(self.act2(self.norm2(self.conv2(x))))    # (N, 32, 7, 7)
        x = self.pool3(self.act3(self.norm3(self.conv3(x))))    # (N, 64, 3, 3)
        return self.linear(x.flatten(1))                        # (N, 10)
