"""What a network is told about its bit widths and quantizers, and the modules that follow from that."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..layers import (
    InputQuantizer,
    OctavActivation,
    OctavWeight,
    PactActivation,
    QuantConv2d,
    QuantLinear,
    SymmetricActivation,
    VsQuantActivation,
)
from ..quantizers import WeightQuantizer
from ..quantizers.dorefa import Dorefa
from ..quantizers.gradients import Gradient
from ..quantizers.maxabs import MaxAbs
from ..quantizers.octav import Octav
from ..quantizers.rounding import check_bits
from ..quantizers.sawb import COEFFICIENTS, Sawb
from ..quantizers.vsquant import VsQuant, check_vector

__all__ = ["ACTIVATIONS", "OPTIONS", "WEIGHTS", "Precision", "scaled"]


WEIGHTS: dict[str, Callable[[int], WeightQuantizer]] = {"dorefa": Dorefa, "sawb": Sawb, "octav": Octav,
                                                        "maxabs": MaxAbs, "vsquant": VsQuant}
"""Weight quantizers by name."""

ACTIVATIONS = ("pact", "pact+", "octav", "vsquant")
"""Names of activation quantizers."""

OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "octav_clips": ("octav", ("weights", "activations")),
    "octav_weight_gradient": ("octav", ("weights",)),
    "octav_activation_gradient": ("octav", ("activations",)),
    "vsquant_vector": ("vsquant", ("weights", "activations")),
    "vsquant_scale_bits": ("vsquant", ("weights", "activations")),
    "vsquant_scales": ("vsquant", ("activations",)),
}
"""Fields of :class:`Precision` that belong to one method: which, and whether for weights or activations."""

FORMS = ("dynamic", "static")


def scaled(channels: int, width: float) -> int:
    """Channels under a width multiplier: ``channels``·``width`` rounded half up, at least 1."""
    return max(1, int(channels * width + 0.5))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The bit widths and quantizers of a network, and the modules that follow from them.

    Parameters
    ----------
    weight_bits, activation_bits : :class:`int` or ``None``
        Of the middle layers; both ``None`` for the float32 baseline, whose activations are ReLU.
    edge_bits : :class:`int` or ``None``
        Of the weights of the first and last layers, the input, the last layer's input, and projection shortcuts'
        outputs. ``None`` leaves the ends in float32, which trains but cannot be exported; projection shortcuts' outputs
        then have 8 bits.
    shortcut_bits : :class:`int` or ``None``
        ``None``: a block's input has activation bits, and its shortcut reads the same codes as its first convolution.
        A number: the residual stream, which shortcuts read, has that many bits, and so have the weights of projection
        shortcuts; a block's first convolution reads the stream re-quantized to activation bits. With 8 this is the
        integer form of the full-precision shortcuts that are advised for SAWB (arXiv 1807.06964).
    weights : :class:`str`
        A key of :data:`WEIGHTS`. The last layer's weights are max-abs whatever the method, and with ``sawb``, which has
        no coefficients for wide weights, so are those of the first layer, and of projection shortcuts of their own
        width where it is too wide.
    activations : :class:`str`
        One of :data:`ACTIVATIONS`. A projection shortcut's output has a trained symmetric clip, or signed OCTAV.
    clip : :class:`float`
        Initial clip of every activation quantizer that trains it.
    octav_clips : :class:`str`
        ``dynamic``: OCTAV's clips are computed anew at every training step. ``static``: once, from the weights and the
        batch that come first (:class:`~sw.layers.OctavWeight`, :class:`~sw.layers.OctavActivation`).
    octav_weight_gradient, octav_activation_gradient : :class:`str`
        OCTAV's gradient beyond the clip: ``ste``, ``pwl`` or ``mad`` (:class:`sw.quantizers.gradients.Gradient`). The
        defaults are the pair that the paper advises.
    vsquant_vector : :class:`int`
        Channels of VS-Quant's vectors.
    vsquant_scale_bits : :class:`int`
        Width of VS-Quant's integer scales; 0 for that of :func:`sw.quantizers.vsquant.scale_bits_for`.
    vsquant_scales : :class:`str`
        Of activations: ``static``, one for each vector, or ``dynamic``, one at each position too
        (:class:`~sw.layers.VsQuantActivation`), which the hardware has not.

    Raises
    ------
    ValueError
        An unknown method, a width that it does not have, only one of the two widths ``None``, or one of
        :data:`OPTIONS` where its method is not used.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    edge_bits: int | None = 8
    shortcut_bits: int | None = None
    weights: str = "dorefa"
    activations: str = "pact"
    clip: float = 10.0
    octav_clips: str = "dynamic"
    octav_weight_gradient: str = "mad"
    octav_activation_gradient: str = "pwl"
    vsquant_vector: int = 16
    vsquant_scale_bits: int = 0
    vsquant_scales: str = "static"

    def __post_init__(self) -> None:
        if (self.weight_bits is None) != (self.activation_bits is None):
            raise ValueError("Weight bits and activation bits must be both given or both absent, not "
                             f"{self.weight_bits!r} and {self.activation_bits!r}")
        for bits in (self.weight_bits, self.activation_bits, self.edge_bits, self.shortcut_bits):
            if bits is not None:
                check_bits(bits)
        for what, method, known in (("Weights", self.weights, WEIGHTS), ("Activations", self.activations, ACTIVATIONS)):
            if method not in tuple(known):
                raise ValueError(f"{what} must be one of {', '.join(known)}, not {method!r}")
        self._check_options()
        if self.weight_bits is not None:
            self.weight_quantizer(self.weight_bits)
            if self.edge_bits == 1:
                raise ValueError("Edge bits must be at least 2 for the last layer's weights, not 1")
            for bits in (self.activation_bits, self.edge_bits, self.shortcut_bits):
                self.activation(bits)
            for bits in (self.edge_bits, self.shortcut_bits):
                if bits is not None:
                    self._wide_weight_quantizer(bits, edge=True)

    def _check_options(self) -> None:
        for name in ("octav_clips", "vsquant_scales"):
            if getattr(self, name) not in FORMS:
                raise ValueError(f"{_words(name)} must be one of {', '.join(FORMS)}, not {getattr(self, name)!r}")
        for gradient in (self.octav_weight_gradient, self.octav_activation_gradient):
            Gradient(gradient)
        check_vector(self.vsquant_vector)
        if self.vsquant_scale_bits != 0:
            check_bits(self.vsquant_scale_bits)
        for name, (method, where) in OPTIONS.items():
            value, default = getattr(self, name), getattr(Precision, name)
            if value != default and method not in [getattr(self, kind) for kind in where]:
                raise ValueError(f"{_words(name)} must be {default} unless {' or '.join(where)} are {method}, "
                                 f"not {value!r}")

    def weight_quantizer(self, bits: int) -> WeightQuantizer:
        """Of the method, for a middle layer's weights.

        Raises
        ------
        ValueError
            A width that the method does not have.
        """
        if self.weights == "octav":
            kind = Octav if self.octav_clips == "dynamic" else OctavWeight
            return kind(bits, Gradient(self.octav_weight_gradient))
        if self.weights == "vsquant":
            return VsQuant(bits, self.vsquant_vector, self.vsquant_scale_bits)
        return WEIGHTS[self.weights](bits)

    def _octav(self, bits: int, *, signed: bool = False) -> OctavActivation:
        return OctavActivation(bits, signed=signed, gradient=Gradient(self.octav_activation_gradient),
                               dynamic=self.octav_clips == "dynamic")

    def _wide_weight_quantizer(self, bits: int, *, edge: bool) -> WeightQuantizer:
        if self.weights == "sawb" and (edge or bits > max(COEFFICIENTS)):
            return MaxAbs(bits)
        return self.weight_quantizer(bits)

    def input(self) -> nn.Module:
        """For images in 0..1."""
        if self.weight_bits is None or self.edge_bits is None:
            return nn.Identity()
        return InputQuantizer(bits=self.edge_bits, scale=1 / (2 ** self.edge_bits - 1))

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, edge: bool = False,
             shortcut: bool = False) -> nn.Module:
        """A "same" convolution (at stride 1) without bias: a middle layer's, the first layer's, or a projection's."""
        padding = kernel_size // 2
        if self.weight_bits is None or (edge and self.edge_bits is None):
            return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        quantizer = self.weight_quantizer(self.weight_bits)
        if edge and self.edge_bits is not None:
            quantizer = self._wide_weight_quantizer(self.edge_bits, edge=True)
        elif shortcut and self.shortcut_bits is not None:
            quantizer = self._wide_weight_quantizer(self.shortcut_bits, edge=False)
        return QuantConv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, quantizer=quantizer)

    def linear(self, in_features: int, out_features: int) -> nn.Module:
        """The last layer."""
        if self.weight_bits is None or self.edge_bits is None:
            return nn.Linear(in_features, out_features)
        return QuantLinear(in_features, out_features, quantizer=MaxAbs(self.edge_bits))

    def activation(self, bits: int | None = None, *, edge: bool = False) -> nn.Module:
        """PACT, OCTAV or static VS-Quant, or ReLU for the baseline; ``bits`` instead of the middle layers' if given.

        With ``edge`` it feeds the last layer.
        """
        if self.activation_bits is None or (edge and self.edge_bits is None):
            return nn.ReLU()
        if edge and self.edge_bits is not None:
            bits = self.edge_bits
        bits = bits or self.activation_bits
        if self.activations == "octav":
            return self._octav(bits)
        if self.activations == "vsquant":
            return VsQuantActivation(bits, vector=self.vsquant_vector, scale_bits=self.vsquant_scale_bits,
                                     dynamic=self.vsquant_scales == "dynamic")
        return PactActivation(bits, alpha=self.clip, plus=self.activations == "pact+")

    def stream(self, *, edge: bool = False) -> nn.Module:
        """The activation that ends a block, or the stem: the residual stream."""
        return self.activation(self.shortcut_bits, edge=edge)

    def branch(self) -> nn.Module:
        """What a block's first convolution reads of the residual stream: re-quantized if the stream has its own width.
        """
        if self.activation_bits is None or self.shortcut_bits is None:
            return nn.Identity()
        return self.activation()

    def shortcut(self) -> nn.Module:
        """What makes a projection shortcut's output a code."""
        if self.weight_bits is None:
            return nn.Identity()
        bits = self.edge_bits or 8
        if self.activations == "octav":
            return self._octav(bits, signed=True)
        return SymmetricActivation(bits, clip=self.clip)
