"""Three gradients for a value that was clipped and rounded: straight through, piecewise linear, magnitude-aware.

All three pass the rounding straight through and differ in what they give beyond the clip s, which counts as a constant
(Sakr et al., "Optimal Clipping and Magnitude-aware Differentiation", arXiv 2206.06501).
"""
from __future__ import annotations

import enum

import torch

__all__ = ["Gradient", "with_gradient"]


class Gradient(enum.Enum):
    """What ∂clip(x)/∂x is taken for; on [−s, s], or [0, s] where values are unsigned, it is 1 in every case."""

    STE = "ste"
    """Straight through: 1 beyond the clip too."""

    PWL = "pwl"
    """Piecewise linear, the clip's own derivative: 0 beyond it."""

    MAD = "mad"
    """Magnitude-aware differentiation: s ÷ |x| beyond the clip, from clip(x) = a·x with the attenuation a constant."""

    @classmethod
    def _missing_(cls, value: object) -> Gradient:
        raise ValueError(f"Gradient must be one of {', '.join(g.value for g in cls)}, not {value!r}")

    def factor(self, x: torch.Tensor, clip: torch.Tensor, *, signed: bool = True) -> torch.Tensor:
        """The derivative at every element of ``x``.

        Parameters
        ----------
        x : :class:`torch.Tensor`
            Any shape.
        clip : :class:`torch.Tensor`
            s, positive; a scalar, or of a shape that broadcasts.
        signed : :class:`bool`
            Whether the clip is at −s and s. If not, it is at 0 and s, and negative values get 0 in every case: a ReLU.
        """
        magnitude = x.abs()
        if self is Gradient.STE:
            factor = torch.ones_like(x)
        elif self is Gradient.PWL:
            factor = (magnitude <= clip).to(x.dtype)
        else:
            factor = clip / torch.maximum(magnitude, clip)
        return factor if signed else factor * (x >= 0)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value, factor):
        ctx.save_for_backward(factor)
        return value

    @staticmethod
    def backward(ctx, *grads):
        factor, = ctx.saved_tensors
        return grads[0] * factor, None, None


def with_gradient(x: torch.Tensor, value: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """``value``, through which the gradient to ``x`` is ``factor`` times the incoming one."""
    return _WithGradient.apply(x, value.detach(), factor.detach())
