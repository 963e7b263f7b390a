"""Signed activations with a trained symmetric clip, coded with the zero point in the middle of the range.

Serves tensors that must keep their sign, such as the output of a projection shortcut. The gradients follow PACT's
equation 3 on both sides (Choi et al., arXiv 1805.06085).
"""
from __future__ import annotations

import torch

from .rounding import check_bits, round_half_up

__all__ = ["symmetric", "symmetric_codes"]


def _half_range(bits: int) -> int:
    if check_bits(bits) < 2:
        raise ValueError(f"Bits must be at least 2 for a signed activation, not {bits!r}")
    return 2 ** (bits - 1)


def symmetric_codes(x: torch.Tensor, clip: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned codes, in the floating type of ``x``: clip(floor(x/s + ½) + z, 0, 2^k − 1).

    s = clip ÷ (2^(k−1) − 1) and z = 2^(k−1), so the top code stands for ``clip`` itself and code 0 for one step below
    −``clip``.

    Parameters
    ----------
    x : :class:`torch.Tensor`
        Any shape.
    clip : :class:`torch.Tensor`
        Scalar, positive.
    bits : :class:`int`
        k, 2..16.
    """
    half = _half_range(bits)
    return (round_half_up(x / (clip / (half - 1))) + half).clamp(0, 2 * half - 1)


class _Symmetric(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, clip, bits):
        ctx.save_for_backward(x, clip)
        ctx.half = _half_range(bits)
        return (symmetric_codes(x, clip, bits) - ctx.half) * (clip / (ctx.half - 1))

    @staticmethod
    def backward(ctx, *grads):
        x, clip = ctx.saved_tensors
        grad, = grads
        lowest = ctx.half / (ctx.half - 1)
        above, below = x >= clip, x <= -lowest * clip
        to_clip = (grad * above).sum() - lowest * (grad * below).sum()
        return grad * ~(above | below), to_clip.reshape(clip.shape), None


def symmetric(x: torch.Tensor, clip: torch.Tensor, bits: int) -> torch.Tensor:
    """Signed values on the k-bit grid: value = s·(code − z), see :func:`symmetric_codes`.

    Straight-through gradient: 1 to ``x`` inside the range; to ``clip`` the derivative of the saturated value, 1 above
    and −2^(k−1)/(2^(k−1) − 1) below, summed over all elements.
    """
    return _Symmetric.apply(x, clip, bits)
