"""OCTAV: the clip of least squared error by Newton's recursion (Sakr et al., arXiv 2206.06501, equation 6).

:func:`octav_clip` finds the clip, :class:`Octav` quantizes weights with it, and :func:`octav_codes` and :func:`octav`
activations. Magnitude-aware differentiation, the paper's other half, is in :mod:`sw.quantizers.gradients`.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from golden.network import Grid

from .gradients import Gradient, with_gradient
from .rounding import check_bits, round_half_up_

__all__ = ["Octav", "octav", "octav_clip", "octav_codes"]

ITERATIONS = 20
TOLERANCE = 1e-5


def octav_clip(x: torch.Tensor, bits: int, *, signed: bool = True, start: torch.Tensor | None = None,
               iterations: int = ITERATIONS) -> torch.Tensor:
    """The clip s, a scalar: s ← E[|x|·1(|x| > s)] ÷ (4^−B/c · E[1(0 < |x| ≤ s)] + E[1(|x| > s)]) until it stands still.

    c = 3 for signed values, whose step is 2s/2^B, and 12 for unsigned ones, whose step is s/2^B. Zeros have no error
    and count nowhere. The start is the mean of the magnitudes that are not 0, and where no magnitude exceeds a clip the
    next one is that mean too. All-zero data have the smallest normal number for a clip.

    Parameters
    ----------
    x : :class:`torch.Tensor`
        Any shape.
    bits : :class:`int`
        B, 2..16 if ``signed``, else 1..16.
    signed : :class:`bool`
        If not, negative values count as 0: they are what a ReLU leaves out.
    start : :class:`torch.Tensor` or ``None``
        A clip to begin with, such as that of the previous step.
    iterations : :class:`int`
        At most so many; fewer if a step changes s by less than 1e-5 of it. Few samples can end in a small cycle.
    """
    _check(bits, signed)
    x = x.detach()
    magnitude = x.abs() if signed else x  # what is negative exceeds no clip
    count = int(magnitude.count_nonzero() if signed else (x > 0).count_nonzero())
    noise = 4.0 ** -bits / (3 if signed else 12)
    smallest = torch.finfo(x.dtype).tiny
    clip = magnitude.relu().sum().item() / max(count, 1) if start is None else start.item()
    beyond = torch.empty_like(x)
    for _ in range(iterations if count else 0):
        torch.sub(magnitude, clip, out=beyond).relu_()
        clipped = int(beyond.count_nonzero())
        previous = clip
        if clipped:
            clip = (beyond.sum().item() + clip * clipped) / (noise * (count - clipped) + clipped)
        else:
            clip = magnitude.relu().sum().item() / count
        if abs(clip - previous) <= TOLERANCE * previous:
            break
    return x.new_tensor(max(clip, smallest) if count else smallest)


def _check(bits: int, signed: bool) -> None:
    if check_bits(bits) < 2 and signed:
        raise ValueError(f"Bits must be at least 2 for signed OCTAV, not {bits!r}")


def octav_codes(x: torch.Tensor, clip: torch.Tensor, bits: int, *, signed: bool = True) -> torch.Tensor:
    """Unsigned codes, in the floating type of ``x``: clip(floor(x/Δ + ½) + z, 0, 2^B − 1).

    Signed: Δ = s/2^(B−1) and z = 2^(B−1), two's complement with an offset. Unsigned: Δ = s/2^B and z = 0. Either way
    the top code stands for s − Δ.

    Parameters
    ----------
    x : :class:`torch.Tensor`
        Any shape.
    clip : :class:`torch.Tensor`
        s, a positive scalar.
    bits : :class:`int`
        B, 2..16 if ``signed``, else 1..16.
    signed : :class:`bool`
    """
    _check(bits, signed)
    half = 2 ** (bits - 1)
    codes = round_half_up_((x / clip.item()).mul_(half if signed else 2 * half))
    return (codes.add_(half) if signed else codes).clamp_(0, 2 * half - 1)


def octav(x: torch.Tensor, clip: torch.Tensor, bits: int, *, signed: bool = True,
          gradient: Gradient = Gradient.PWL) -> torch.Tensor:
    """Values on the grid of :func:`octav_codes`, Δ·(code − z).

    Gradient: to ``x`` that of ``gradient``; s counts as a constant.

    Parameters
    ----------
    x, clip, bits, signed
        As for :func:`octav_codes`.
    gradient : :class:`sw.quantizers.gradients.Gradient`
    """
    half = 2 ** (bits - 1)
    zero_point, scale = (half, clip / half) if signed else (0, clip / (2 * half))
    value = octav_codes(x.detach(), clip, bits, signed=signed).sub_(zero_point).mul_(scale.item())
    return with_gradient(x, value, gradient, clip, signed=signed)


@dataclass(frozen=True)
class Octav:
    """The OCTAV weight quantizer: W = clip(floor(w/Δ + ½), −2^(k−1), 2^(k−1) − 1), Δ = s/2^(k−1).

    The grid is two's complement. Called on weights it returns Δ·W. s counts as a constant in the gradient.

    Parameters
    ----------
    bits : :class:`int`
        k, 2..16.
    gradient : :class:`sw.quantizers.gradients.Gradient`
        ``MAD`` is what the paper advises for weights.
    clip : :class:`float` or ``None``
        s. ``None`` is dynamic: :func:`octav_clip` of the weights as they are, at every call. A number is static.
    """

    bits: int
    gradient: Gradient = Gradient.MAD
    clip: float | None = None

    def __post_init__(self) -> None:
        _check(self.bits, signed=True)
        object.__setattr__(self, "gradient", Gradient(self.gradient))
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise ValueError(f"Clip must be positive, not {self.clip!r}")

    @property
    def grid(self) -> Grid:
        """The two's complement grid."""
        return Grid.TWOS_COMPLEMENT

    def _clip(self, weight: torch.Tensor) -> torch.Tensor:
        return octav_clip(weight, self.bits) if self.clip is None else weight.new_tensor(self.clip)

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes n = W + 2^(k−1) (int64) and the scale Δ (a scalar float64 tensor)."""
        clip = self._clip(weight)
        return octav_codes(weight.detach(), clip, self.bits).to(torch.int64), (clip / 2 ** (self.bits - 1)).double()

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """scale·W with the training gradient."""
        return octav(weight, self._clip(weight), self.bits, gradient=self.gradient)
