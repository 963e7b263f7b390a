"""PACT: activations clipped at a trained α (Choi et al., arXiv 1805.06085), and the finer gradient of PACT+.

PACT+ is what the authors' group calls the variant in its code (foundation-model-stack/fms-model-optimizer).
"""
from __future__ import annotations

import torch

from .gradients import between, beyond, just_below
from .rounding import check_bits, round_half_up, round_half_up_

__all__ = ["pact", "pact_codes"]


def pact_codes(x: torch.Tensor, alpha: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned codes of PACT, in the floating type of ``x``: floor(clip(x, 0, α)·(2^k − 1)/α + ½).

    The step α ÷ (2^k − 1) is rounded once to the type of ``alpha``; it is the scale that the exporter uses.

    Parameters
    ----------
    x : :class:`torch.Tensor`
        Any shape.
    alpha : :class:`torch.Tensor`
        Scalar, positive.
    bits : :class:`int`
        k, 1..16.
    """
    step = (alpha / (2 ** check_bits(bits) - 1)).item()
    return round_half_up_(x.clamp(0, alpha.item()).div_(step))


class _Pact(torch.autograd.Function):
    """The passes over the data are what a training step pays for: five forward, three backward, ReLU has one each."""

    @staticmethod
    def forward(ctx, x, alpha, bits, plus):
        ctx.save_for_backward(x, alpha)
        ctx.bits, ctx.plus = bits, plus
        return pact_codes(x, alpha, bits).mul_((alpha / (2 ** bits - 1)).item())

    @staticmethod
    def backward(ctx, *grads):
        x, alpha = ctx.saved_tensors
        grad, = grads
        clip = alpha.item()
        to_x = between(grad, x, 0.0 if ctx.plus else just_below(0.0, x.dtype), clip)
        to_alpha = beyond(grad, x, just_below(clip, x.dtype)).sum()
        if ctx.plus:
            levels = 2 ** ctx.bits - 1
            z = x / (alpha / levels).item()
            to_alpha += round_half_up(z).sub_(z).mul_(to_x).sum() / levels
        return to_x, to_alpha.reshape(alpha.shape), None, None


def pact(x: torch.Tensor, alpha: torch.Tensor, bits: int, *, plus: bool = False) -> torch.Tensor:
    """PACT activation on the k-bit grid: value = code·α ÷ (2^k − 1), both 0 and α representable.

    Equations 1 and 2 of the paper, with rounding half up. The gradients are those of equation 3: 1 to ``x`` on
    [0, α) and 0 elsewhere; to ``alpha`` the *sum* over all elements of the incoming gradient where x ≥ α.

    Parameters
    ----------
    x : :class:`torch.Tensor`
        Any shape.
    alpha : :class:`torch.Tensor`
        Scalar clip, positive, one per layer.
    bits : :class:`int`
        k, 1..16.
    plus : :class:`bool`
        The gradients of PACT+: to ``alpha`` also (code − z) ÷ (2^k − 1) with z = x·(2^k − 1)/α where 0 < x < α, so that
        α feels the rounding error of what is not clipped; to ``x`` 1 on (0, α).
    """
    return _Pact.apply(x, alpha, check_bits(bits), plus)
