"""SAWB weights: the clip in closed form from two moments, on the odd grid (Choi et al., arXiv 1807.06964)."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from golden.network import Grid

from .gradients import Gradient, with_gradient
from .rounding import check_bits, round_half_up

__all__ = ["COEFFICIENTS", "Sawb", "sawb_clip"]

COEFFICIENTS = {2: (3.12, 2.064), 3: (7.509, 6.892), 4: (12.68, 12.80), 5: (17.74, 18.64)}
"""(c1, c2) by bits, for 2^bits levels without zero, as the authors' group publishes them in its code
(foundation-model-stack/fms-model-optimizer)."""


def sawb_clip(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The clip α = c1·√E[w²] − c2·E|w|, a scalar: close to the clip of least squared error whatever the distribution.

    (c1, c2) is the regression over several distributions, see :data:`COEFFICIENTS`. Where the formula gives no positive
    clip, as for weights of nearly one magnitude, α = max|w|. At one bit α = E|w|, which is optimal.

    Parameters
    ----------
    weight : :class:`torch.Tensor`
        The weights of a layer.
    bits : :class:`int`
        1..5. At more bits the two terms nearly cancel and the clip hangs on the tails: take another quantizer.
    """
    _check(bits)
    magnitude = weight.detach().abs()
    mean = magnitude.mean()
    if bits == 1:
        clip = mean
    else:
        c1, c2 = COEFFICIENTS[bits]
        clip = c1 * magnitude.square().mean().sqrt() - c2 * mean
        clip = torch.where(clip > 0, clip, magnitude.max())
    return clip.clamp(min=torch.finfo(weight.dtype).tiny)


def _check(bits: int) -> None:
    if check_bits(bits) > max(COEFFICIENTS):
        raise ValueError(f"Bits must be between 1 and {max(COEFFICIENTS)} for SAWB, not {bits!r}")


@dataclass(frozen=True)
class Sawb:
    """The SAWB weight quantizer: n = floor((clip(w, −α, α)/α + 1)·(2^k − 1)/2 + ½), W = 2n − (2^k − 1).

    2^k levels from −α to α without zero: at two bits −α, −α/3, α/3, α. The scale is α ÷ (2^k − 1), with α from
    :func:`sawb_clip` of the weights as they are, in training and in evaluation alike (no moving average).

    Called on weights it returns scale·W. α counts as a constant in the gradient.

    Parameters
    ----------
    bits : :class:`int`
        k, 1..5.
    gradient : :class:`sw.quantizers.gradients.Gradient`
        ``PWL`` is SAWB: 0 for clipped weights. ``STE`` is known as SAWB+: 1 for all of them.
    """

    bits: int
    gradient: Gradient = Gradient.PWL

    def __post_init__(self) -> None:
        _check(self.bits)
        object.__setattr__(self, "gradient", Gradient(self.gradient))

    @property
    def grid(self) -> Grid:
        """The odd grid."""
        return Grid.ODD

    def _codes(self, weight: torch.Tensor, clip: torch.Tensor) -> torch.Tensor:
        levels = 2 ** self.bits - 1
        return round_half_up((weight.detach() / clip).clamp(-1, 1).add(1) * (levels / 2))

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes n (int64) and the scale (a scalar float64 tensor)."""
        clip = sawb_clip(weight, self.bits)
        return self._codes(weight, clip).to(torch.int64), (clip / (2 ** self.bits - 1)).double()

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """scale·W with the training gradient."""
        levels = 2 ** self.bits - 1
        clip = sawb_clip(weight, self.bits)
        value = (2 * self._codes(weight, clip) - levels) * (clip / levels)
        return with_gradient(weight, value, self.gradient, clip)
