"""Symmetric weights scaled by their largest magnitude, on the two's complement grid: the field's usual 8-bit choice."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from golden.network import Grid

from .rounding import check_bits, round_half_up, round_half_up_ste

__all__ = ["MaxAbs"]


@dataclass(frozen=True)
class MaxAbs:
    """W = floor(w/s + ½) with s = max|w| ÷ (2^(k−1) − 1), so that W spans −(2^(k−1) − 1) .. 2^(k−1) − 1.

    Called on weights it returns s·W; the gradient to the weights is 1.

    Parameters
    ----------
    bits : :class:`int`
        k, 2..16.
    per_channel : :class:`bool`
        One scale per output channel (the first dimension) instead of one for the layer.
    """

    bits: int
    per_channel: bool = False

    def __post_init__(self) -> None:
        if check_bits(self.bits) < 2:
            raise ValueError(f"Bits must be at least 2 for two's complement weights, not {self.bits!r}")

    @property
    def grid(self) -> Grid:
        """The two's complement grid."""
        return Grid.TWOS_COMPLEMENT

    def _scale(self, weight: torch.Tensor) -> torch.Tensor:
        magnitude = weight.detach().abs()
        largest = magnitude.flatten(1).amax(1) if self.per_channel else magnitude.max()
        return largest.clamp(min=torch.finfo(weight.dtype).tiny) / (2 ** (self.bits - 1) - 1)

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes n = W + 2^(k−1) (int64) and the scale (float64, a scalar or one per output channel)."""
        scale = self._scale(weight)
        integers = round_half_up(weight.detach() / _broadcast(scale, weight)).to(torch.int64)
        return integers + 2 ** (self.bits - 1), scale.double()

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """scale·W with the training gradient."""
        scale = _broadcast(self._scale(weight), weight)
        return round_half_up_ste(weight / scale) * scale


def _broadcast(scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return scale.reshape(-1, *(1,) * (weight.dim() - 1)) if scale.dim() else scale
