"""VS-Quant: one small integer scale per vector of channels (Dai et al., "VS-Quant", MLSys 2021, arXiv 2102.04503).

x ≈ γ·s·u: u an N-bit integer per element, s an unsigned M-bit integer per vector of V consecutive channels, γ one float
per output channel of the weights, or per tensor of activations. :class:`VsQuant` quantizes weights;
:func:`vector_steps` and :func:`vs_quant` activations with static scales, :func:`vs_quant_dynamic` with scales of their
own at every position. The integer model of the products is in :mod:`golden.network`.

What is recalled of the paper is the order for weights: elements are quantized with the *unrounded* scale of their
vector, then that scale is rounded. For activations the scales are there before the elements, which are quantized with
the rounded ones.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from golden.network import Grid

from .gradients import Gradient, with_gradient
from .rounding import check_bits, round_half_up

__all__ = [
    "VsQuant",
    "check_vector",
    "scale_bits_for",
    "two_level",
    "vector_peaks",
    "vector_steps",
    "vs_quant",
    "vs_quant_codes",
    "vs_quant_dynamic",
    "vs_quant_dynamic_codes",
    "vs_quant_weights",
]


def scale_bits_for(bits: int, scale_bits: int) -> int:
    """M: ``scale_bits``, or if that is 0 as many as the elements have, N, but at least 4.

    On Gaussian data with V = 16 that costs less than 0.8 dB against scales that are not rounded, at any N.
    """
    return check_bits(scale_bits or max(bits, 4))


def check_vector(vector: int) -> int:
    """Return ``vector``.

    Raises
    ------
    ValueError
        Unless it is an integer of at least 1.
    """
    if isinstance(vector, bool) or not isinstance(vector, int) or vector < 1:
        raise ValueError(f"Vector must be an integer of at least 1, not {vector!r}")
    return vector


def vector_peaks(x: torch.Tensor, vector: int) -> torch.Tensor:
    """The largest value of every vector: (N, C, ...) → (N, ⌈C/V⌉, ...), the last vector being shorter.

    Of values that are not negative.
    """
    short = -x.shape[1] % vector
    if short:
        x = functional.pad(x, (0, 0) * (x.dim() - 2) + (0, short))
    return x.unflatten(1, (-1, vector)).amax(2)


def _each(per_vector: torch.Tensor, vector: int, channels: int) -> torch.Tensor:
    """(N, ⌈C/V⌉, ...) → (N, C, ...)."""
    return per_vector.repeat_interleave(vector, 1)[:, :channels]


def two_level(scales: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Integer scales s = floor(scale/γ + ½), in the floating type, and γ = the largest scale ÷ (2^M − 1).

    A scale below γ/2 becomes 0, and its vector with it.

    Parameters
    ----------
    scales : :class:`torch.Tensor`
        (N, ...), not negative.
    bits : :class:`int`
        M, 1..16.

    Returns
    -------
    s, γ : the shape of ``scales``, and (N,); γ is positive
    """
    top = 2 ** check_bits(bits) - 1
    gamma = (scales.flatten(1).amax(1) / top).clamp(min=torch.finfo(scales.dtype).tiny)
    return round_half_up(scales / gamma.reshape(-1, *(1,) * (scales.dim() - 1))).clamp(0, top), gamma


def vs_quant_weights(weight: torch.Tensor, bits: int, vector: int,
                     scale_bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two-level quantized weights γ·s·W.

    A vector's scale is max|w| ÷ (2^(N−1) − 1); W = floor(w/scale + ½) with that scale, unrounded; then s and γ are
    those of :func:`two_level` for each output channel.

    Parameters
    ----------
    weight : :class:`torch.Tensor`
        (O, C, ...); vectors lie along C.
    bits, scale_bits : :class:`int`
        N, 2..16, and M, 1..16.
    vector : :class:`int`
        V, at least 1.

    Returns
    -------
    W (O, C, ...), s (O, ⌈C/V⌉, ...), γ (O,) : in the floating type of ``weight``
    """
    top = 2 ** (bits - 1) - 1
    scales = vector_peaks(weight.abs(), vector) / top
    divisors = _each(torch.where(scales > 0, scales, torch.ones_like(scales)), vector, weight.shape[1])
    integers = round_half_up(weight / divisors).clamp(-top, top)
    return integers, *two_level(scales, scale_bits)


@dataclass(frozen=True)
class VsQuant:
    """The VS-Quant weight quantizer, :func:`vs_quant_weights`, on the two's complement grid.

    Called on weights it returns γ·s·W; the gradient to the weights is 1.

    Parameters
    ----------
    bits : :class:`int`
        N, 2..16.
    vector : :class:`int`
        V, channels of a vector.
    scale_bits : :class:`int`
        M, 1..16; 0 for that of :func:`scale_bits_for`.
    """

    bits: int
    vector: int = 16
    scale_bits: int = 0

    def __post_init__(self) -> None:
        if check_bits(self.bits) < 2:
            raise ValueError(f"Bits must be at least 2 for two's complement weights, not {self.bits!r}")
        check_vector(self.vector)
        object.__setattr__(self, "scale_bits", scale_bits_for(self.bits, self.scale_bits))

    @property
    def grid(self) -> Grid:
        """The two's complement grid."""
        return Grid.TWOS_COMPLEMENT

    def _parts(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return vs_quant_weights(weight.detach(), self.bits, self.vector, self.scale_bits)

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes n = W + 2^(N−1) (int64) and γ (float64, one per output channel)."""
        integers, _, gamma = self._parts(weight)
        return integers.to(torch.int64) + 2 ** (self.bits - 1), gamma.double()

    def scale_codes(self, weight: torch.Tensor) -> torch.Tensor:
        """The integer scales s (int64), (O, ⌈C/V⌉, ...)."""
        return self._parts(weight)[1].to(torch.int64)

    def scaled(self, integers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """s·W for integer weights (O, C, ...) and scales (O, ⌈C/V⌉, ...)."""
        return integers * _each(codes, self.vector, integers.shape[1])

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """γ·s·W with the training gradient."""
        integers, codes, gamma = self._parts(weight)
        value = self.scaled(integers, codes) * gamma.reshape(-1, *(1,) * (weight.dim() - 1))
        return with_gradient(weight, value, Gradient.STE, gamma)


def vector_steps(peaks: torch.Tensor, bits: int, scale_bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Static scales of activations, s (⌈C/V⌉,) and γ, a scalar, from the largest value of each vector.

    :func:`two_level` of peak ÷ (2^N − 1), in the floating type of ``peaks``.
    """
    codes, gamma = two_level(peaks[None] / (2 ** check_bits(bits) - 1), scale_bits)
    return codes[0], gamma[0]


def _per_channel(codes: torch.Tensor, vector: int, x: torch.Tensor) -> torch.Tensor:
    """(⌈C/V⌉,) → (1, C, 1, ...) in the type of ``x``."""
    if len(codes) != -(-x.shape[1] // vector):
        raise ValueError(f"Channels must be those of {len(codes)} vectors of {vector}, not {x.shape[1]}")
    return _each(codes[None], vector, x.shape[1]).reshape(1, -1, *(1,) * (x.dim() - 2)).to(x)


def vs_quant_codes(x: torch.Tensor, codes: torch.Tensor, gamma: torch.Tensor, bits: int, vector: int) -> torch.Tensor:
    """Unsigned codes, in the floating type of ``x``: clip(floor(x/(γ·s) + ½), 0, 2^N − 1); 0 where s = 0.

    Parameters
    ----------
    x : :class:`torch.Tensor`
        (N, C, ...); vectors lie along C.
    codes, gamma : :class:`torch.Tensor`
        s, (⌈C/V⌉,), and γ, a positive scalar.
    bits : :class:`int`
        N, 1..16.
    vector : :class:`int`
        V, at least 1.

    Raises
    ------
    ValueError
        If ``x`` has another number of vectors.
    """
    each = _per_channel(codes, vector, x)
    result = round_half_up(x / torch.where(each > 0, gamma * each, torch.ones_like(each)))
    return result.clamp_(0, 2 ** check_bits(bits) - 1).mul_(each > 0)


def vs_quant(x: torch.Tensor, codes: torch.Tensor, gamma: torch.Tensor, bits: int, vector: int) -> torch.Tensor:
    """Values γ·s·code of :func:`vs_quant_codes`, with the same parameters.

    Gradient: to ``x`` 1 on [0, γ·s·(2^N − 1)], 0 elsewhere; the scales count as constants.
    """
    each = _per_channel(codes, vector, x)
    value = vs_quant_codes(x.detach(), codes, gamma, bits, vector).mul_(each).mul_(gamma)
    return with_gradient(x, value, Gradient.PWL, each * gamma * (2 ** bits - 1), signed=False)


def vs_quant_dynamic_codes(fine: torch.Tensor, bits: int, scale_bits: int, vector: int) -> torch.Tensor:
    """s·u of codes on the fine grid of N + M bits, exactly as :class:`golden.network.VectorQuantize` computes it.

    For every position and vector, s is the smallest scale that covers the vector's largest code and u the code over s,
    rounded half up.

    Parameters
    ----------
    fine : :class:`torch.Tensor`
        Integers 0..2^(N+M) − 1 in a floating type, (N, C, ...).
    bits, scale_bits : :class:`int`
        N and M, together at most 16: float32 is exact.
    vector : :class:`int`
        V, at least 1.
    """
    top = 2 ** bits - 1
    scale = (vector_peaks(fine, vector) / top).ceil_().clamp_(max=2 ** scale_bits - 1)
    scale = _each(scale, vector, fine.shape[1])
    coarse = ((2 * fine + scale) / (2 * scale).clamp(min=1)).floor_().clamp_(max=top)
    return coarse.mul_(scale)


def vs_quant_dynamic(x: torch.Tensor, gamma: torch.Tensor, bits: int, scale_bits: int, vector: int) -> torch.Tensor:
    """Values γ·s·u of :func:`vs_quant_dynamic_codes` for the fine codes clip(floor(x/γ + ½), 0, 2^(N+M) − 1).

    Gradient: to ``x`` 1 on [0, γ·(2^N − 1)·(2^M − 1)], 0 elsewhere; the scales count as constants.
    """
    fine = round_half_up(x.detach() / gamma).clamp_(0, 2 ** (bits + scale_bits) - 1)
    value = vs_quant_dynamic_codes(fine, bits, scale_bits, vector).mul_(gamma)
    clip = gamma * ((2 ** bits - 1) * (2 ** scale_bits - 1))
    return with_gradient(x, value, Gradient.PWL, clip, signed=False)
