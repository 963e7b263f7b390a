"""The residual block that the residual networks share."""
from __future__ import annotations

import torch
from torch import nn

from ..layers import ResidualAdd
from .precision import Precision

__all__ = ["ResidualBlock"]


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
        self.branch = precision.branch()
        self.conv1 = precision.conv(in_channels, out_channels, 3, stride=stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.act1 = precision.activation()
        self.conv2 = precision.conv(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(precision.conv(in_channels, out_channels, 1, stride=stride, shortcut=True),
                                          nn.BatchNorm2d(out_channels), precision.shortcut())
        self.add = ResidualAdd()
        self.act2 = precision.stream(edge=last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A quantized map from a quantized map."""
        main = self.act1(self.norm1(self.conv1(self.branch(x))))
        main = self.norm2(self.conv2(main))
        return self.act2(self.add(main, self.shortcut(x)))
