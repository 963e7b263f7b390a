"""DoReFa weights: tanh-normalised, on the odd grid (Zhou et al., arXiv 1606.06160, section 2.3)."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from golden.network import Grid

from .rounding import check_bits, round_half_up, round_half_up_ste

__all__ = ["Dorefa"]


class _Bipolar(torch.autograd.Function):
    """sign(w)·E|w| with gradient 1, as in the paper's one-bit case."""

    @staticmethod
    def forward(ctx, weight):
        return torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype) * weight.abs().mean()

    @staticmethod
    def backward(ctx, *grads):
        return grads[0]


def _normalised(weight: torch.Tensor) -> torch.Tensor:
    """tanh(w) ÷ (2·max|tanh w|) + ½, in [0, 1]; the maximum is over the layer. All-zero weights give ½."""
    squashed = torch.tanh(weight)
    largest = squashed.abs().max().clamp(min=torch.finfo(weight.dtype).tiny)
    return squashed / (2 * largest) + 0.5


@dataclass(frozen=True)
class Dorefa:
    """The DoReFa weight quantizer: n = floor((2^k − 1)·(tanh(w) ÷ (2·max|tanh w|) + ½) + ½), W = 2n − (2^k − 1).

    The scale is 1 ÷ (2^k − 1), so the largest weight of a layer is always ±1; what follows (batch norm, or a trained
    slope) sets the magnitude. For k = 1, W = ±1 with W = +1 for w = 0, and the scale is E|w| of the layer.

    Called on weights it returns scale·W. Gradient: straight through the rounding, exact through tanh and the maximum;
    for k = 1 straight through everything.

    Parameters
    ----------
    bits : :class:`int`
        k, 1..16.
    """

    bits: int

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def grid(self) -> Grid:
        """The odd grid."""
        return Grid.ODD

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes n (int64) and the scale (a scalar float64 tensor)."""
        weight = weight.detach()
        if self.bits == 1:
            return (weight >= 0).to(torch.int64), weight.abs().mean().double()
        levels = 2 ** self.bits - 1
        codes = round_half_up(_normalised(weight) * levels)
        return codes.to(torch.int64), torch.tensor(1 / levels, dtype=torch.float64)

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """scale·W with the training gradient."""
        if self.bits == 1:
            return _Bipolar.apply(weight)
        levels = 2 ** self.bits - 1
        return (2 * round_half_up_ste(_normalised(weight) * levels) - levels) / levels
