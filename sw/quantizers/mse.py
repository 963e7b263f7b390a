"""Symmetric weights with the scale of least squared error, found by search, for post-training quantization."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from golden.network import Grid

from .gradients import Gradient, with_gradient
from .rounding import check_bits, round_half_up

__all__ = ["Mse", "mse_clip"]

OCTAVES, COARSE, FINE = 8, 16, 32


def mse_clip(x: torch.Tensor, top: int, *, bottom: int = 0, counts: torch.Tensor | None = None) -> torch.Tensor:
    """The clip s for which Σ counts·(x − Δ·clip(floor(x/Δ + ½), bottom, top))² with Δ = s/top is least, float64.

    First the clips m·2^(−i/16), i = 0..127, with m the largest magnitude, then 65 clips from one neighbour of the best
    to the other: within 0.07 % of the best clip if the error has only one valley between those neighbours.

    Parameters
    ----------
    x : (..., n)
        One clip for each row of n values.
    top, bottom : :class:`int`
        Codes; ``top`` at least 1.
    counts : (..., n) or ``None``
        How often each value occurs; once if not given.

    Returns
    -------
    (...)
        Positive: the smallest normal number of float64 for a row of zeros.
    """
    x = x.detach().double()
    largest = x.abs().amax(-1)

    def error(clip: torch.Tensor) -> torch.Tensor:
        step = (clip / top).clamp(min=torch.finfo(x.dtype).tiny).unsqueeze(-1)
        squares = (x - round_half_up(x / step).clamp_(bottom, top) * step).square_()
        return (squares if counts is None else squares * counts).sum(-1)

    def best(exponents: torch.Tensor) -> torch.Tensor:
        least = torch.full_like(largest, torch.inf)
        found = torch.zeros_like(largest)
        for exponent in exponents.unbind(-1):
            now = error(largest * torch.exp2(exponent))
            found = torch.where(now < least, exponent, found)
            least = torch.minimum(now, least)
        return found

    coarse = best(-torch.arange(OCTAVES * COARSE, dtype=x.dtype).expand(*largest.shape, -1) / COARSE)
    steps = torch.arange(-FINE, FINE + 1, dtype=x.dtype) / (FINE * COARSE)
    fine = best((coarse.unsqueeze(-1) + steps).clamp(max=0))
    return (largest * torch.exp2(fine)).clamp(min=torch.finfo(x.dtype).tiny)


@dataclass(frozen=True)
class Mse:
    """W = clip(floor(w/Δ + ½), −2^(k−1), 2^(k−1) − 1) with the Δ of least squared error, see :func:`mse_clip`.

    The grid is two's complement. Called on weights it returns Δ·W; Δ counts as a constant in the gradient, which is 0
    for clipped weights.

    Parameters
    ----------
    bits : :class:`int`
        k, 2..16.
    per_channel : :class:`bool`
        One Δ per output channel (the first dimension) instead of one for the layer.
    steps : tuple of :class:`float` or ``None``
        Δ, one or one per output channel. ``None`` searches at every call; numbers are static.
    """

    bits: int
    per_channel: bool = False
    steps: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if check_bits(self.bits) < 2:
            raise ValueError(f"Bits must be at least 2 for two's complement weights, not {self.bits!r}")
        if self.steps is not None and not (self.steps and all(0 < step < float("inf") for step in self.steps)):
            raise ValueError(f"Steps must be positive, not {self.steps!r}")

    @property
    def grid(self) -> Grid:
        """The two's complement grid."""
        return Grid.TWOS_COMPLEMENT

    def fixed(self, weight: torch.Tensor) -> Mse:
        """The same quantizer with the steps that these weights have now."""
        return Mse(self.bits, self.per_channel, tuple(self._steps(weight).reshape(-1).tolist()))

    def _steps(self, weight: torch.Tensor) -> torch.Tensor:
        """Float64, a scalar or one per channel."""
        if self.steps is not None:
            steps = torch.tensor(self.steps, dtype=torch.float64)
            return steps if self.per_channel else steps[0]
        half = 2 ** (self.bits - 1)
        rows = weight.flatten(1 if self.per_channel else 0)
        return mse_clip(rows, half - 1, bottom=-half) / (half - 1)

    def _integers(self, weight: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        half = 2 ** (self.bits - 1)
        return round_half_up(weight.detach().double() / steps.reshape(-1, *(1,) * (weight.dim() - 1))).clamp(
            -half, half - 1)

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes n = W + 2^(k−1) (int64) and the scale Δ (float64, a scalar or one per output channel)."""
        steps = self._steps(weight)
        return self._integers(weight, steps).to(torch.int64) + 2 ** (self.bits - 1), steps

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """scale·W with the training gradient."""
        steps = self._steps(weight)
        shaped = steps.reshape(-1, *(1,) * (weight.dim() - 1))
        value = self._integers(weight, steps).to(weight) * shaped.to(weight)
        clip = (shaped * (2 ** (self.bits - 1) - 1)).to(weight)
        return with_gradient(weight, value, Gradient.PWL, clip)
