"""Fake quantizers, one file each: pure functions and small frozen descriptions, no modules.

A weight quantizer is any object with the members of :class:`WeightQuantizer`; :class:`sw.layers.QuantConv2d` and
:class:`sw.layers.QuantLinear` take one, so a new weight quantizer needs no new layer.
"""
from __future__ import annotations

from typing import Protocol

import torch

from golden.network import Grid

__all__ = ["WeightQuantizer"]


class WeightQuantizer(Protocol):
    """What a quantized layer and the exporter need of a weight quantizer.

    Members
    -------
    bits : :class:`int`
        Width of a weight code.
    grid : :class:`golden.network.Grid`
        How a code becomes an integer weight, W = p·n − c.
    """

    @property
    def bits(self) -> int:
        """Width of a weight code."""
        ...

    @property
    def grid(self) -> Grid:
        """How a code stands for an integer weight."""
        ...

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes (int64, the shape of ``weight``) and the scale: a scalar, or one per output channel."""
        ...

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights on the grid, scale·W, with the gradient that training uses."""
        ...
