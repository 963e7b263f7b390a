"""From a trained module to the integer network.

:func:`export` traces a model built from :mod:`sw.layers` with ``torch.fx``, freezes its integer weights, folds batch
norm in float64 by :func:`golden.requantize.fold`, and solves every channel's integer requantization from the exact
rationals of the result. Its report says what the hardware must bring, and compares the integers with the model's own
forward in float64 and in float32.
"""
from __future__ import annotations

from .exporter import Export, export, export_checkpoint, integer_accuracy, logits
from .report import ExportError, ExportReport, LayerReport

__all__ = [
    "Export",
    "ExportError",
    "ExportReport",
    "LayerReport",
    "export",
    "export_checkpoint",
    "integer_accuracy",
    "logits",
]
