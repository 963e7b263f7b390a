"""Three gradients for a value that was clipped and rounded: straight through, piecewise linear, magnitude-aware.

All three pass the rounding straight through and differ in what they give beyond the clip s, which counts as a constant
(Sakr et al., "Optimal Clipping and Magnitude-aware Differentiation", arXiv 2206.06501).
"""
from __future__ import annotations

import enum

import torch

__all__ = ["Gradient", "between", "beyond", "just_above", "just_below", "with_gradient"]


def between(grad: torch.Tensor, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """``grad`` where low < x < high, 0 elsewhere, in one pass over the data."""
    return torch.ops.aten.hardtanh_backward(grad, x, low, high)


def beyond(grad: torch.Tensor, x: torch.Tensor, bound: float) -> torch.Tensor:
    """``grad`` where x > bound, 0 elsewhere, in one pass over the data."""
    return torch.ops.aten.threshold_backward(grad, x, bound)


def just_below(value: float, dtype: torch.dtype) -> float:
    """The next smaller number of ``dtype``: what turns the strict comparisons above into x ≥ value."""
    return torch.nextafter(torch.tensor(value, dtype=dtype), torch.tensor(-torch.inf, dtype=dtype)).item()


def just_above(value: float, dtype: torch.dtype) -> float:
    """The next larger number of ``dtype``."""
    return -just_below(-value, dtype)


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
    def forward(ctx, x, value, gradient, clip, signed):
        ctx.save_for_backward(x, clip)
        ctx.gradient, ctx.signed = gradient, signed
        return value

    @staticmethod
    def backward(ctx, *grads):
        x, clip = ctx.saved_tensors
        grad, = grads
        if ctx.gradient is Gradient.PWL and clip.dim() == 0:
            top = just_above(clip.item(), x.dtype)
            return between(grad, x, -top if ctx.signed else just_below(0.0, x.dtype), top), None, None, None, None
        return grad * ctx.gradient.factor(x, clip, signed=ctx.signed), None, None, None, None


def with_gradient(x: torch.Tensor, value: torch.Tensor, gradient: Gradient, clip: torch.Tensor, *,
                  signed: bool = True) -> torch.Tensor:
    """``value``, through which the gradient to ``x`` is the incoming one times :meth:`Gradient.factor`."""
    return _WithGradient.apply(x, value.detach(), gradient, clip.detach(), signed)
