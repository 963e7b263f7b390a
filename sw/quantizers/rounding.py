"""The one rounding of the project: half up, floor(x + ½), in training as in the hardware."""
from __future__ import annotations

import torch

__all__ = ["check_bits", "round_half_up", "round_half_up_", "round_half_up_ste"]


def check_bits(bits: int) -> int:
    """Return ``bits``.

    Raises
    ------
    ValueError
        Unless 1 ≤ ``bits`` ≤ 16, the range of a code in :mod:`golden.network`.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ValueError(f"Bits must be an integer between 1 and 16, not {bits!r}")
    return bits


def round_half_up(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer, ties towards +∞ (``torch.round`` sends ties to the even neighbour)."""
    return torch.floor(x + 0.5)


def round_half_up_(x: torch.Tensor) -> torch.Tensor:
    """:func:`round_half_up` in place: saves a copy where ``x`` is needed no more."""
    return x.add_(0.5).floor_()


class _RoundHalfUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return round_half_up(x)

    @staticmethod
    def backward(ctx, *grads):
        return grads[0]


def round_half_up_ste(x: torch.Tensor) -> torch.Tensor:
    """:func:`round_half_up` with the straight-through gradient 1."""
    return _RoundHalfUp.apply(x)
