"""Thin modules over :mod:`sw.quantizers`: what a network is built from so that :mod:`sw.export` can take it.

PyTorch's own ``BatchNorm2d``, ``BatchNorm1d``, ``MaxPool2d``, ``Flatten``, ``Identity`` and ``Dropout`` go with them.
"""
from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn
from torch.nn import functional

from golden.network import Grid

from .quantizers import VectorWeightQuantizer, WeightQuantizer
from .quantizers.gradients import Gradient
from .quantizers.octav import Octav, octav, octav_clip, octav_codes
from .quantizers.pact import pact, pact_codes
from .quantizers.rounding import check_bits, round_half_up, round_half_up_
from .quantizers.symmetric import symmetric, symmetric_codes
from .quantizers.vsquant import (
    check_vector,
    scale_bits_for,
    vector_peaks,
    vector_steps,
    vs_quant,
    vs_quant_codes,
    vs_quant_dynamic,
    vs_quant_dynamic_codes,
)

__all__ = [
    "ActivationQuantizer",
    "GlobalAveragePool",
    "InputQuantizer",
    "OctavActivation",
    "OctavWeight",
    "PactActivation",
    "QuantConv2d",
    "QuantLinear",
    "QuantizedWeight",
    "ResidualAdd",
    "SymmetricActivation",
    "VsQuantActivation",
    "frozen",
]


class QuantizedWeight(nn.Module):
    """What :class:`QuantConv2d` and :class:`QuantLinear` share: a weight, its quantizer, and the frozen integers."""

    weight: torch.Tensor
    quantizer: WeightQuantizer
    _integers: tuple[torch.Tensor, torch.Tensor] | None = None
    _scale_codes: torch.Tensor | None = None

    def shaped_weight(self) -> torch.Tensor:
        """The weight as the quantizer takes it: (O, C, ...)."""
        return self.weight

    def to_int(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned weight codes (O, C, ...) (int64) and their float64 scale, a scalar or one per output channel."""
        return self.quantizer.to_int(self.shaped_weight()) if self._integers is None else self._integers

    def scale_codes(self) -> torch.Tensor | None:
        """The integer scales (int64) of vectors of input channels, where the quantizer has any."""
        if self._integers is None and isinstance(self.quantizer, VectorWeightQuantizer):
            return self.quantizer.scale_codes(self.shaped_weight())
        return self._scale_codes

    def freeze(self) -> None:
        """Fix the integer weights at what they are now: they no longer follow ``weight`` or the module's dtype."""
        self._integers, self._scale_codes = self.to_int(), self.scale_codes()

    def quantized_weight(self) -> torch.Tensor:
        """scale·W (O, C, ...): with the training gradient, or from the frozen integers in the dtype of ``weight``."""
        if self._integers is None:
            return self.quantizer(self.shaped_weight())
        codes, scale = self._integers
        grid, bits = self.quantizer.grid, self.quantizer.bits
        integers = (grid.p(bits) * codes - grid.c(bits)).to(self.weight)
        if self._scale_codes is not None and isinstance(self.quantizer, VectorWeightQuantizer):
            integers = self.quantizer.scaled(integers, self._scale_codes.to(self.weight))
        return integers * scale.to(self.weight).reshape(-1, *(1,) * (codes.dim() - 1))


class QuantConv2d(nn.Conv2d, QuantizedWeight):
    """A 2-D convolution with quantized weights.

    Parameters
    ----------
    quantizer : :class:`sw.quantizers.WeightQuantizer`
        For example ``Dorefa(4)``.

    The others are those of :class:`torch.nn.Conv2d`; ``bias`` is off unless asked for (batch norm brings one), padding
    is with zeros.
    """

    def __init__(self, in_channels, out_channels, kernel_size, *, quantizer: WeightQuantizer, stride=1, padding=0,
                 dilation=1, groups=1, bias=False):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.quantizer = quantizer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve with the quantized weights."""
        return self._conv_forward(x, self.quantized_weight(), self.bias)


class QuantLinear(nn.Linear, QuantizedWeight):
    """A linear layer with quantized weights.

    Parameters
    ----------
    quantizer : :class:`sw.quantizers.WeightQuantizer`
    positions : :class:`int`
        H·W of the flattened map (C, H, W) that it reads. Only quantizers with vectors of channels need it, which then
        have the same vectors as those of the convolution over the whole map.

    The others are those of :class:`torch.nn.Linear`.

    Raises
    ------
    ValueError
        If the features are no multiple of the positions.
    """

    def __init__(self, in_features, out_features, *, quantizer: WeightQuantizer, bias=True, positions: int = 1):
        super().__init__(in_features, out_features, bias)
        if positions < 1 or in_features % positions:
            raise ValueError(f"Positions must divide the {in_features} features, not {positions!r}")
        self.quantizer, self.positions = quantizer, positions

    def shaped_weight(self) -> torch.Tensor:
        """(O, C), or (O, C, positions) if it reads several."""
        return self.weight if self.positions == 1 else self.weight.unflatten(1, (-1, self.positions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by the quantized weights."""
        return functional.linear(x, self.quantized_weight().flatten(1), self.bias)


class OctavWeight(nn.Module):
    """A weight quantizer: OCTAV (:class:`sw.quantizers.octav.Octav`) with a static clip.

    The clip is that of the weights as they are when the quantizer is first used: the initial ones in training from
    scratch, those of the float model where that was swapped. It is kept in the buffer ``clip``, in the state of the
    layer that has this for its quantizer.

    Parameters
    ----------
    bits : :class:`int`
        2..16.
    gradient : :class:`sw.quantizers.gradients.Gradient`
    """

    clip: torch.Tensor

    def __init__(self, bits: int, gradient: Gradient = Gradient.MAD):
        super().__init__()
        self._dynamic = Octav(bits, gradient)
        self.register_buffer("clip", torch.tensor(0.0))

    @property
    def bits(self) -> int:
        """Width of a weight code."""
        return self._dynamic.bits

    @property
    def grid(self) -> Grid:
        """The two's complement grid."""
        return self._dynamic.grid

    @property
    def gradient(self) -> Gradient:
        """What the derivative beyond the clip is taken for."""
        return self._dynamic.gradient

    def _static(self, weight: torch.Tensor) -> Octav:
        if self.clip.item() == 0:
            self.clip.copy_(octav_clip(weight, self.bits))
        return dataclasses.replace(self._dynamic, clip=self.clip.item())

    def to_int(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes (int64) and the scale Δ (a scalar float64 tensor)."""
        return self._static(weight).to_int(weight)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """scale·W with the training gradient."""
        return self._static(weight)(weight)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"bits={self.bits}, gradient={self.gradient.value}, clip={self.clip.item():.4g}"


class ActivationQuantizer(nn.Module):
    """What the activation quantizers share: value = scale·(code − zero point), codes of ``bits`` bits.

    Members
    -------
    bits : :class:`int`
    scale : :class:`torch.Tensor`
        A scalar in the dtype of the module's parameters.
    zero_point : :class:`int`
    """

    bits: int
    zero_point: int

    @property
    def scale(self) -> torch.Tensor:
        """The step between two codes, a scalar."""
        raise NotImplementedError

    def to_int(self, x: torch.Tensor) -> torch.Tensor:
        """The codes (int64) that the module's output for the *input* ``x`` stands for."""
        raise NotImplementedError


class _TrainedClip(ActivationQuantizer):
    """A quantizer with one trained clip, kept positive by projection: every use first raises it to ``FLOOR``.

    The projection is in the module, so no training loop can forget it, and unlike a clamp in the graph it leaves the
    clip its gradient. The clip takes part in L2 regularization like any parameter: :func:`sw.train.parameter_groups`
    gives it its own λ.
    """

    FLOOR = 1e-3

    def __init__(self, bits: int, clip: float):
        super().__init__()
        if not clip > 0:
            raise ValueError(f"Initial clip must be positive, not {clip!r}")
        self.bits = check_bits(bits)
        self.clip = nn.Parameter(torch.tensor(float(clip)))

    def projected_clip(self) -> torch.Tensor:
        """The trained clip, at least ``FLOOR``."""
        with torch.no_grad():
            self.clip.clamp_(min=self.FLOOR)
        return self.clip

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"bits={self.bits}, clip={self.clip.item():.4g}"


class PactActivation(_TrainedClip):
    """PACT (:func:`sw.quantizers.pact.pact`) with one trained α per layer.

    Parameters
    ----------
    bits : :class:`int`
        1..16.
    alpha : :class:`float`
        Initial α. The paper starts well above typical activations and lets the L2 term pull it down.
    plus : :class:`bool`
        Train with the gradients of PACT+.
    """

    zero_point = 0

    def __init__(self, bits: int, *, alpha: float = 10.0, plus: bool = False):
        super().__init__(bits, alpha)
        self.plus = plus

    @property
    def scale(self) -> torch.Tensor:
        """The step between two codes, a scalar."""
        return self.projected_clip().detach() / (2 ** self.bits - 1)

    def to_int(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (int64) for the input ``x``."""
        return pact_codes(x, self.projected_clip().detach(), self.bits).to(torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clip and quantize."""
        return pact(x, self.projected_clip(), self.bits, plus=self.plus)


class SymmetricActivation(_TrainedClip):
    """A signed quantizer with a trained symmetric clip and zero point 2^(bits−1), for a projection shortcut's output.

    Parameters
    ----------
    bits : :class:`int`
        2..16.
    clip : :class:`float`
        Initial clip.
    """

    def __init__(self, bits: int = 8, *, clip: float = 10.0):
        super().__init__(bits, clip)
        if bits < 2:
            raise ValueError(f"Bits must be at least 2 for a signed activation, not {bits!r}")
        self.zero_point = 2 ** (bits - 1)

    @property
    def scale(self) -> torch.Tensor:
        """The step between two codes, a scalar."""
        return self.projected_clip().detach() / (self.zero_point - 1)

    def to_int(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (int64) for the input ``x``."""
        return symmetric_codes(x, self.projected_clip().detach(), self.bits).to(torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clip and quantize."""
        return symmetric(x, self.projected_clip(), self.bits)


class OctavActivation(ActivationQuantizer):
    """OCTAV (:func:`sw.quantizers.octav.octav`): the clip is computed from the data, not trained.

    The module keeps one clip, in the buffer ``clip``; it is what evaluation and export use. The first batch, or
    :meth:`calibrate`, sets it. Every training batch after it moves it a tenth of the way to the batch's own clip, as
    batch norm moves its statistics; from the kept clip that is two steps of the recursion away.

    Parameters
    ----------
    bits : :class:`int`
        1..16, or 2..16 if ``signed``.
    signed : :class:`bool`
        Whether negative values are kept (zero point 2^(bits−1)) or become 0, as by a ReLU.
    gradient : :class:`sw.quantizers.gradients.Gradient`
        ``PWL`` is what the paper advises for activations.
    dynamic : :class:`bool`
        Training quantizes each batch with the batch's own clip. If not (static), training uses the kept clip too, and
        no batch but the first moves it.
    """

    FLOOR = 1e-3
    MOMENTUM = 0.1
    WARM_STEPS = 2
    clip: torch.Tensor

    def __init__(self, bits: int, *, signed: bool = False, gradient: Gradient = Gradient.PWL, dynamic: bool = True):
        super().__init__()
        if check_bits(bits) < 2 and signed:
            raise ValueError(f"Bits must be at least 2 for a signed activation, not {bits!r}")
        self.bits, self.signed, self.dynamic = bits, signed, dynamic
        self.gradient = Gradient(gradient)
        self.zero_point = 2 ** (bits - 1) if signed else 0
        self.register_buffer("clip", torch.tensor(0.0))

    @property
    def calibrated(self) -> bool:
        """Whether there is a clip to use."""
        return self.clip.item() > 0

    def calibrate(self, x: torch.Tensor) -> None:
        """Keep the clip of the batch ``x``."""
        self.clip.copy_(self._clip_of(x))

    def _clip_of(self, x: torch.Tensor, **start) -> torch.Tensor:
        return octav_clip(x, self.bits, signed=self.signed, **start).clamp(min=self.FLOOR)

    def _kept(self) -> torch.Tensor:
        if not self.calibrated:
            raise ValueError("OctavActivation must be trained or calibrated before it is used")
        return self.clip

    @property
    def scale(self) -> torch.Tensor:
        """The step between two codes, a scalar."""
        return self._kept() / 2 ** (self.bits - 1 if self.signed else self.bits)

    def to_int(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (int64) for the input ``x`` with the kept clip."""
        return octav_codes(x.detach(), self._kept(), self.bits, signed=self.signed).to(torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clip and quantize."""
        return octav(x, self._next_clip(x) if self.training else self._kept(), self.bits, signed=self.signed,
                     gradient=self.gradient)

    def _next_clip(self, x: torch.Tensor) -> torch.Tensor:
        """The clip of a training step; what is kept moves."""
        if not self.calibrated:
            self.calibrate(x)
        elif self.dynamic:
            clip = self._clip_of(x, start=self.clip, iterations=self.WARM_STEPS)
            self.clip.lerp_(clip, self.MOMENTUM)
            return clip
        return self.clip.clone()

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return (f"bits={self.bits}, signed={self.signed}, gradient={self.gradient.value}, clip={self.clip.item():.4g}, "
                f"dynamic={self.dynamic}")


class VsQuantActivation(ActivationQuantizer):
    """VS-Quant of values that are not negative: a scale per vector of channels (:mod:`sw.quantizers.vsquant`).

    The scales come from the largest values, in the buffer ``peaks``: what evaluation and export use. The first batch,
    or :meth:`calibrate`, sets them; every training batch moves them a tenth of the way to its own largest values.

    Parameters
    ----------
    bits : :class:`int`
        N, of an element; 1..16.
    vector : :class:`int`
        V, channels of a vector, which lie along dimension 1.
    scale_bits : :class:`int`
        M, of an integer scale, 1..16; 0 for that of :func:`~sw.quantizers.vsquant.scale_bits_for`.
    dynamic : :class:`bool`
        Static: every vector has one scale, kept from training or calibration, and a code has N bits. Dynamic: it has
        one at each position, found from the values there, of which only the largest of all is kept; a code then has
        N + M bits, at most 16, on the fine grid of :class:`golden.network.VectorQuantize`.
    """

    FLOOR = 1e-3
    MOMENTUM = 0.1
    zero_point = 0
    peaks: torch.Tensor

    def __init__(self, bits: int, *, vector: int = 16, scale_bits: int = 0, dynamic: bool = False):
        super().__init__()
        self.element_bits = check_bits(bits)
        self.vector, self.scale_bits, self.dynamic = check_vector(vector), scale_bits_for(bits, scale_bits), dynamic
        self.bits = bits + self.scale_bits if dynamic else bits
        if self.bits > 16:
            raise ValueError(f"Bits of elements and scales must be at most 16 together, not {bits} and "
                             f"{self.scale_bits}")
        self.register_buffer("peaks", torch.zeros(0))

    @property
    def calibrated(self) -> bool:
        """Whether there are scales to use."""
        return len(self.peaks) > 0

    def calibrate(self, x: torch.Tensor) -> None:
        """Keep the largest values of the batch ``x``."""
        self.peaks = self._peaks_of(x)

    def _peaks_of(self, x: torch.Tensor) -> torch.Tensor:
        largest = x.detach().relu().transpose(0, 1).flatten(1).amax(1)
        peaks = largest.max()[None] if self.dynamic else vector_peaks(largest[None], self.vector)[0]
        return peaks.clamp(min=self.FLOOR).to(self.peaks)

    def _steps(self) -> tuple[torch.Tensor, torch.Tensor]:
        """s (vectors,), for dynamic scales its largest value (1,), and γ; from float64 whatever the module's type."""
        if not self.calibrated:
            raise ValueError("VsQuantActivation must be trained or calibrated before it is used")
        codes, gamma = vector_steps(self.peaks.double(), self.element_bits, self.scale_bits)
        return codes, gamma.to(self.peaks)

    @property
    def scale(self) -> torch.Tensor:
        """γ, a scalar."""
        return self._steps()[1]

    @property
    def scale_codes(self) -> torch.Tensor | None:
        """The integer scale (int64) of every vector; ``None`` where scales are dynamic."""
        return None if self.dynamic else self._steps()[0].to(torch.int64)

    def fine_codes(self, x: torch.Tensor) -> torch.Tensor:
        """With dynamic scales: codes (int64) for the input ``x`` before the vectors have their scales."""
        return round_half_up(x.detach() / self.scale).clamp_(0, 2 ** self.bits - 1).to(torch.int64)

    def to_int(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (int64) for the input ``x``: with static scales its value is scale·s·code."""
        if self.dynamic:
            fine = self.fine_codes(x).to(x.dtype)
            return vs_quant_dynamic_codes(fine, self.element_bits, self.scale_bits, self.vector).to(torch.int64)
        return vs_quant_codes(x.detach(), *self._steps(), self.bits, self.vector).to(torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale, clip and quantize."""
        if self.training:
            if self.calibrated:
                self.peaks.lerp_(self._peaks_of(x), self.MOMENTUM)
            else:
                self.calibrate(x)
        codes, gamma = self._steps()
        if self.dynamic:
            return vs_quant_dynamic(x, gamma, self.element_bits, self.scale_bits, self.vector)
        return vs_quant(x, codes, gamma, self.bits, self.vector)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if prefix + "peaks" in state_dict:  # as many as there were vectors
            self.peaks = self.peaks.new_empty(state_dict[prefix + "peaks"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"bits={self.element_bits}, vector={self.vector}, scale_bits={self.scale_bits}, dynamic={self.dynamic}"


class InputQuantizer(ActivationQuantizer):
    """The network's input on a fixed grid: code = clip(floor(x/scale + ½) + zero point, 0, 2^bits − 1), no gradient.

    Parameters
    ----------
    scale : :class:`float`
        Step, positive: 1/255 for images in 0..1.
    zero_point : :class:`int`
        The code of 0, 0..2^bits − 1: 128 for images in −1..1 with scale 1/127.
    bits : :class:`int`
        1..16.
    """

    def __init__(self, *, scale: float, zero_point: int = 0, bits: int = 8):
        super().__init__()
        self.bits = check_bits(bits)
        if not scale > 0:
            raise ValueError(f"Scale must be positive, not {scale!r}")
        if not 0 <= zero_point < 2 ** bits:
            raise ValueError(f"Zero point must be between 0 and {2 ** bits - 1}, not {zero_point!r}")
        self.zero_point = zero_point
        self._scale = float(scale)

    @property
    def scale(self) -> torch.Tensor:
        """The step between two codes, a scalar."""
        return torch.tensor(self._scale, dtype=torch.float64)

    def _codes(self, x: torch.Tensor) -> torch.Tensor:
        # In place on a copy: with one channel any other result would lose the strides that say channels_last.
        codes = round_half_up_(x.detach().clone().mul_(1 / self._scale))
        return codes.add_(self.zero_point).clamp_(0, 2 ** self.bits - 1)

    def to_int(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (int64) for the input ``x``."""
        return self._codes(x).to(torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantize; no gradient."""
        return self._codes(x).sub_(self.zero_point).mul_(self._scale)


class ResidualAdd(nn.Module):
    """The sum of a block's two branches; an activation quantizer must follow."""

    def forward(self, main: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        """``main`` + ``shortcut``, of one shape."""
        return main + shortcut


class GlobalAveragePool(nn.Module):
    """The mean over the whole map, (N, C, H, W) → (N, C); at export it becomes part of the linear layer after it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C)."""
        return x.mean((2, 3))


def frozen(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A copy of ``model`` in evaluation mode and in ``dtype`` whose integer weights are those ``model`` has now.

    Without freezing, converting to float64 could move a weight that lies on a rounding boundary to the next code.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, QuantizedWeight):
            module.freeze()
    return model.to(dtype)
