"""ResNet-8, of MLPerf Tiny's shape, and ResNet-20, for images of 28×28 or 32×32."""
from __future__ import annotations

import functools

import torch
from torch import nn

from ..layers import GlobalAveragePool
from .blocks import ResidualBlock
from .precision import Precision, scaled

__all__ = ["ResNet", "resnet_8", "resnet_20"]


class ResNet(nn.Module):
    """A 3×3 stem, three stages of blocks with 16, 32 and 64 channels, a global average pool and a linear layer.

    The second and third stage begin with stride 2 and a projection shortcut. 6·``blocks`` + 2 layers by the usual
    count, which leaves the projections out.

    Parameters
    ----------
    blocks : :class:`int`
        In each stage: 1 for ResNet-8, 3 for ResNet-20.
    shape : (C, H, W)
        Of an image.
    classes : :class:`int`
    width : :class:`float`
        Width multiplier, see :func:`sw.models.precision.scaled`.
    """

    def __init__(self, precision: Precision, *, blocks: int, shape: tuple[int, int, int] = (3, 32, 32),
                 classes: int = 10, width: float = 1.0):
        super().__init__()
        channels = [scaled(c, width) for c in (16, 32, 64)]
        self.input = precision.input()
        self.stem = precision.conv(shape[0], channels[0], 3, edge=True)
        self.norm = nn.BatchNorm2d(channels[0])
        self.act = precision.stream()
        self.stages = nn.Sequential()
        source = channels[0]
        for stage, target in enumerate(channels):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                last = stage == 2 and block == blocks - 1
                self.stages.append(ResidualBlock(precision, source, target, stride=stride, last=last))
                source = target
        self.pool = GlobalAveragePool()
        self.linear = precision.linear(source, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.input(x)                                  # (N, 3, 32, 32)
        x = self.act(self.norm(self.stem(x)))              # (N, 16, 32, 32)
        x = self.stages(x)                                 # (N, 64, 8, 8)
        return self.linear(self.pool(x))                   # (N, 10)


resnet_8 = functools.partial(ResNet, blocks=1)
resnet_20 = functools.partial(ResNet, blocks=3)
