"""Fake quantizers, one file each: pure functions and small frozen descriptions, no modules.

A weight quantizer is any object with the members of :class:`WeightQuantizer`; :class:`sw.layers.QuantConv2d` and
:class:`sw.layers.QuantLinear` take one, so a new weight quantizer needs no new layer.
"""
from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from golden.network import Grid

__all__ = ["VectorWeightQuantizer", "WeightQuantizer"]


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


@runtime_checkable
class VectorWeightQuantizer(WeightQuantizer, Protocol):
    """A weight quantizer with an integer scale per vector of input channels: the weights are scale·s·W.

    Members
    -------
    vector : :class:`int`
        Channels of a vector.
    scale_bits : :class:`int`
        Width of an integer scale.
    """

    @property
    def vector(self) -> int:
        """Channels of a vector."""
        ...

    @property
    def scale_bits(self) -> int:
        """Width of an integer scale."""
        ...

    def scale_codes(self, weight: torch.Tensor) -> torch.Tensor:
        """The integer scales s (int64) of weights (O, C, ...): (O, ⌈C/vector⌉, ...)."""
        ...

    def scaled(self, integers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """s·W of integer weights (O, C, ...) and their scales."""
        ...
