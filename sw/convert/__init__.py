"""A float model of a user's own, quantized by one call: its layers are swapped for those of :mod:`sw.layers`.

:func:`quantize` traces the model with ``torch.fx``, follows what is a code and what is not yet one from the input to
the output, and builds the same network from quantized layers under the same paths. What it cannot swap it names, all
of it in one :class:`ConversionError`.
"""
from __future__ import annotations

from .converter import Conversion, convert, quantize
from .swap import ConversionError

__all__ = ["Conversion", "ConversionError", "convert", "quantize"]
