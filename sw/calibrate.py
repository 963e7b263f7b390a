"""Integers without training: a float model's clips and scales from a few batches of data.

:func:`post_training` swaps the model's layers (:mod:`sw.convert`), lets the *float* model see the data while a
:class:`Histogram` watches every tensor that is to become codes, and sets every clip from it. The result is exported
like a trained network.
"""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import fx, nn

from .convert import convert
from .layers import PactActivation, QuantizedWeight, SymmetricActivation, VsQuantActivation
from .models import Precision
from .quantizers import WeightQuantizer
from .quantizers.maxabs import MaxAbs
from .quantizers.mse import Mse, mse_clip
from .quantizers.octav import ITERATIONS, TOLERANCE, Octav, octav_clip
from .quantizers.sawb import COEFFICIENTS, Sawb
from .quantizers.vsquant import VsQuant

__all__ = ["ACTIVATION_CLIPS", "WEIGHT_SCALES", "Histogram", "post_training"]


class Histogram:
    """The magnitudes of everything that was added, in :data:`BINS` bins from 0 to a power of two above the largest.

    A larger value doubles the range as often as needed, and merges bins pairwise: the result does not depend on the
    order of the batches, and at least half of the bins lie below the largest value. So a bin is at most
    ``largest`` ÷ 16384 wide. Each bin keeps how many values it holds and their sum.

    Parameters
    ----------
    signed : :class:`bool`
        Whether negative values count by their magnitude, or as 0, which is what a ReLU makes of them.
    ceiling : :class:`float` or ``None``
        Larger values count as this one, as the float model clips them.

    Members
    -------
    total : :class:`int`
        Values that were added, zeros included, which no bin holds.
    largest : :class:`float`
        Exact.
    counts, sums : (BINS,) float64
        Counts are exact below 2^53.
    """

    BINS = 2 ** 15

    def __init__(self, *, signed: bool = False, ceiling: float | None = None):
        self.signed, self.ceiling = signed, ceiling
        self.total, self.largest = 0, 0.0
        self.counts = torch.zeros(self.BINS, dtype=torch.float64)
        self.sums = torch.zeros(self.BINS, dtype=torch.float64)
        self._exponent: int | None = None

    def add(self, x: torch.Tensor) -> None:
        """Count the values of a tensor.

        Raises
        ------
        ValueError
            One of them is not finite.
        """
        x = x.detach().flatten().double()
        x = x.abs() if self.signed else x.clamp(min=0)
        x = x if self.ceiling is None else x.clamp(max=self.ceiling)
        largest = x.max().item() if len(x) else 0.0
        if not math.isfinite(largest) or x.isnan().any():
            raise ValueError("Values must be finite to be calibrated on")
        self.total += len(x)
        self.largest = max(self.largest, largest)
        if largest == 0:
            return
        self._reach(math.frexp(largest)[1])
        x = x[x > 0]
        where = (x / self.width).long()
        self.counts += torch.bincount(where, minlength=self.BINS)
        self.sums += torch.bincount(where, weights=x, minlength=self.BINS)

    @property
    def width(self) -> float:
        """Of a bin; 0 before there is a value."""
        return 0.0 if self._exponent is None else 2.0 ** self._exponent / self.BINS

    def _reach(self, exponent: int) -> None:
        if self._exponent is None:
            self._exponent = exponent
        elif exponent > self._exponent:
            merged = min(2 ** (exponent - self._exponent), self.BINS)
            for bins in (self.counts, self.sums):
                kept = bins.reshape(-1, merged).sum(1)
                bins.zero_()[:len(kept)] = kept
            self._exponent = exponent

    def used(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and count of every bin that holds something."""
        held = self.counts > 0
        return self.sums[held] / self.counts[held], self.counts[held]


class _Peaks:
    """The largest value of every channel, at most ``ceiling``; negative values count as 0."""

    def __init__(self, ceiling: float | None):
        self.ceiling = ceiling
        self.largest = torch.zeros(0)

    def add(self, x: torch.Tensor) -> None:
        found = x.detach().clamp(0, self.ceiling).transpose(0, 1).flatten(1).amax(1)
        if not found.isfinite().all():
            raise ValueError("Values must be finite to be calibrated on")
        self.largest = torch.maximum(self.largest, found) if len(self.largest) else found


def _largest(histogram: Histogram, bits: int, percentile: float) -> float:
    return histogram.largest


def _percentile(histogram: Histogram, bits: int, percentile: float) -> float:
    below = histogram.total - histogram.counts.sum() + histogram.counts.cumsum(0)
    wanted = math.ceil(Fraction(str(percentile)) * histogram.total / 100)
    place = int(torch.searchsorted(below, wanted))
    return min((place + 1) * histogram.width, histogram.largest)


def _mse(histogram: Histogram, bits: int, percentile: float) -> float:
    means, counts = histogram.used()
    return mse_clip(means, _top(histogram, bits), counts=counts).item()


def _octav(histogram: Histogram, bits: int, percentile: float) -> float:
    """OCTAV's s less one step, which is what its top code stands for."""
    means, counts = histogram.used()
    sums = means * counts
    noise = 4.0 ** -bits / (3 if histogram.signed else 12)
    clip = mean = sums.sum() / counts.sum()
    for _ in range(ITERATIONS):
        beyond = means > clip
        clipped = counts[beyond].sum()
        previous = clip
        clip = sums[beyond].sum() / (noise * (counts.sum() - clipped) + clipped) if clipped else mean
        if (clip - previous).abs() <= TOLERANCE * previous:
            break
    top = _top(histogram, bits)
    return clip.item() * top / (top + 1)


def _top(histogram: Histogram, bits: int) -> int:
    """The largest code, counted from that of 0."""
    return 2 ** (bits - 1) - 1 if histogram.signed else 2 ** bits - 1


ACTIVATION_CLIPS: dict[str, Callable[[Histogram, int, float], float]] = {
    "max": _largest, "percentile": _percentile, "mse": _mse, "octav": _octav, "vsquant": _largest}
"""From a histogram, the bits and the percentile, the value that the top code stands for. With ``vsquant`` only tensors
with a sign have one."""

WEIGHT_SCALES: dict[str, Callable[[torch.Tensor, int, int, int], WeightQuantizer]] = {
    "max": lambda weight, bits, *_: MaxAbs(bits, per_channel=True),
    "mse": lambda weight, bits, *_: Mse(bits, per_channel=True).fixed(weight),
    "octav": lambda weight, bits, *_: Octav(bits, clip=octav_clip(weight.double(), bits).item()),
    "sawb": lambda weight, bits, *_: Sawb(bits) if bits <= max(COEFFICIENTS) else MaxAbs(bits, per_channel=True),
    "vsquant": lambda weight, bits, vector, scale_bits: VsQuant(bits, vector, scale_bits),
}
"""The quantizer of given weights at given bits, by method; VS-Quant's also by its vector and its scales' bits."""


def post_training(model: nn.Module, batches: Iterable[Any], *, weight_bits: int = 8, activation_bits: int = 8,
                  edge_bits: int = 8, shortcut_bits: int | None = None, weights: str = "mse", activations: str = "mse",
                  percentile: float = 99.99, vector: int = 16, scale_bits: int = 0,
                  input_range: tuple[float, float] = (0.0, 1.0),
                  bits: Mapping[str, int] | None = None) -> fx.GraphModule:
    """Quantize a trained float model without training it.

    Activations are uniform from 0 to a clip (codes as for PACT), projection shortcuts symmetric. The clip of a tensor
    comes from its values in the float model, over all batches:

    ``max``
        The largest value, exactly.
    ``percentile``
        The value that so many percent of all values, zeros included, do not exceed; too large by at most a bin of the
        histogram, 1/16384 of the largest value.
    ``mse``
        The least squared error between values and codes, :func:`sw.quantizers.mse.mse_clip`, every value taken for its
        bin's mean: the root of the mean squared error is known to within a bin.
    ``octav``
        The fixed point of OCTAV's recursion over the bins.
    ``vsquant``
        No clip but a scale for every vector of channels, from the vector's largest value; a projection shortcut's clip
        is the largest value.

    Weights have ``max`` (:class:`~sw.quantizers.maxabs.MaxAbs`) or ``mse`` (:class:`~sw.quantizers.mse.Mse`) with one
    scale per output channel; ``octav`` or ``sawb`` with one for the layer; or ``vsquant`` with one for every vector
    of input channels of a kernel position, or of a position of a flattened map. With ``sawb``, layers of more than 5
    bits have ``max``. Batch norm is folded at export, after the weights have been quantized, and costs nothing.

    Parameters
    ----------
    model : :class:`torch.nn.Module`
        Not changed; evaluation mode is what is quantized.
    batches : iterable of :class:`torch.Tensor` or of tuples whose first is the inputs
        Is gone through once. (N, C, H, W) or (N, features).
    weight_bits, activation_bits, edge_bits, shortcut_bits, input_range, bits
        As for :func:`sw.convert.quantize`.
    weights : :class:`str`
        A key of :data:`WEIGHT_SCALES`.
    activations : :class:`str`
        A key of :data:`ACTIVATION_CLIPS`.
    percentile : :class:`float`
        Above 0, at most 100.
    vector, scale_bits : :class:`int`
        Of ``vsquant``, see :class:`sw.quantizers.vsquant.VsQuant`.

    Returns
    -------
    :class:`torch.fx.GraphModule`
        In evaluation mode, for :func:`sw.export.export`, or to be trained on.

    Raises
    ------
    sw.convert.ConversionError
        Naming everything that cannot be swapped.
    ValueError
        An unknown method, or an argument that does not fit the model.
    """
    for what, method, known in (("Weights", weights, WEIGHT_SCALES), ("Activations", activations, ACTIVATION_CLIPS)):
        if method not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, not {method!r}")
    if not 0 < percentile <= 100:
        raise ValueError(f"Percentile must be above 0 and at most 100, not {percentile!r}")
    inputs = (batch[0] if isinstance(batch, tuple | list) else batch for batch in batches)
    first = next(inputs, None)
    if first is None:
        raise ValueError("Batches must hold at least one")
    options: dict[str, Any] = {"activations": "vsquant", "vsquant_vector": vector, "vsquant_scale_bits": scale_bits}
    precision = Precision(weight_bits=weight_bits, activation_bits=activation_bits, edge_bits=edge_bits,
                          shortcut_bits=shortcut_bits, weights="maxabs", **options if activations == "vsquant" else {})
    conversion = convert(model, first, precision, input_range=input_range, bits=bits)
    result = conversion.model.eval()
    histograms: dict[str, Histogram] = {}
    peaks: dict[str, _Peaks] = {}
    watched: dict[str, list[Histogram | _Peaks]] = {}
    for path, (source, ceiling) in conversion.sources.items():
        if isinstance(result.get_submodule(path), VsQuantActivation):
            peaks[path] = _Peaks(ceiling)
            watched.setdefault(source, []).append(peaks[path])
            continue
        signed = isinstance(result.get_submodule(path), SymmetricActivation)
        histograms[path] = Histogram(signed=signed, ceiling=ceiling)
        watched.setdefault(source, []).append(histograms[path])
    observer = _Observer(conversion.reference, watched)
    with torch.no_grad():
        for batch in itertools.chain([first], inputs):
            observer.run(batch)
        for path, histogram in histograms.items():
            quantizer = result.get_submodule(path)
            assert isinstance(quantizer, PactActivation | SymmetricActivation)
            clip = ACTIVATION_CLIPS[activations](histogram, quantizer.bits, percentile) if histogram.largest else 0.0
            quantizer.clip.fill_(max(clip, quantizer.FLOOR))
        for path, found in peaks.items():
            vectors = result.get_submodule(path)
            assert isinstance(vectors, VsQuantActivation)
            vectors.calibrate(found.largest[None])
        for path in conversion.weights:
            layer = result.get_submodule(path)
            assert isinstance(layer, QuantizedWeight)
            layer.quantizer = WEIGHT_SCALES[weights](layer.weight.detach(), layer.quantizer.bits, vector, scale_bits)
    return result


class _Observer(fx.Interpreter):
    """Runs the float model and shows the watched nodes' values, as they are before anything changes them in place."""

    def __init__(self, module: fx.GraphModule, watched: Mapping[str, list[Histogram | _Peaks]]):
        super().__init__(module)
        self.watched = watched
        self.extra_traceback = False

    def run_node(self, n: fx.Node):
        result = super().run_node(n)
        for histogram in self.watched.get(n.name, ()):
            histogram.add(result)
        return result
