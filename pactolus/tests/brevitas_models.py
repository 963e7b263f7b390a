"""Tiny Brevitas models of the digits: made of its own layers, trained for seconds, exported by itself."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

with warnings.catch_warnings():
    # Brevitas deprecates a module of its own that it imports, and misses an optional package.
    warnings.filterwarnings("ignore", "brevitas.fx is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", "fast_hadamard_transform package not found", UserWarning)
    import brevitas.nn as qnn
    from brevitas.export import export_onnx_qcdq, export_qonnx
    from brevitas.quant import (
        Int8ActPerTensorFloat,
        Int8WeightPerChannelFloat,
        Int8WeightPerTensorFloat,
        Int32Bias,
        ShiftedUint8ActPerTensorFloat,
        SignedBinaryActPerTensorConst,
        SignedBinaryWeightPerTensorConst,
        Uint8ActPerTensorFloat,
    )

__all__ = ["MODELS", "accuracy", "digits", "export", "main", "outputs", "trained"]


def digits():
    """Images (N, 1, 8, 8) of 0..1 and labels: 1437 for training, 360 for the test."""
    data = load_digits()
    images = torch.tensor(data.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(data.target)
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def _conv(inputs, outputs, kernel, bits, **options):
    return qnn.QuantConv2d(
        inputs, outputs, kernel, bias=False, weight_bit_width=bits, weight_quant=Int8WeightPerChannelFloat, **options
    )


def _plain(bits, classifier_bias=None):
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        _conv(1, 8, 3, bits, padding=1),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=bits),
        nn.MaxPool2d(2),
        _conv(8, 16, 3, bits),
        nn.BatchNorm2d(16),
        qnn.QuantReLU(bit_width=bits, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 10, bias=True, weight_bit_width=bits, bias_quant=classifier_bias),
    )


class _Residual(nn.Module):
    """A block whose shortcut is quantized with the branch's scale, one with scales of their own, a global pool."""

    def __init__(self, bits):
        super().__init__()
        self.quant_input = qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)
        self.stem, self.bn = _conv(1, 8, 3, bits, padding=1, stride=2), nn.BatchNorm2d(8)
        self.relu = qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)
        self.conv1, self.bn1 = _conv(8, 8, 3, bits, padding=1), nn.BatchNorm2d(8)
        self.relu1 = qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)
        self.conv2, self.bn2 = _conv(8, 8, 3, bits, padding=1), nn.BatchNorm2d(8)
        self.shared = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=bits + 1, return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)
        self.conv3, self.bn3 = _conv(8, 8, 3, bits, padding=1), nn.BatchNorm2d(8)
        self.own = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=bits, return_quant_tensor=False)
        self.relu3 = qnn.QuantReLU(bit_width=bits, return_quant_tensor=False)
        self.classifier = qnn.QuantLinear(8, 10, bias=True, weight_bit_width=bits)

    def forward(self, x):
        x = self.relu(self.bn(self.stem(self.quant_input(x))))
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        x = self.relu2(self.shared(y) + self.shared(x))
        y = self.own(self.bn3(self.conv3(x)))
        x = self.relu3(y + (x.value if hasattr(x, "value") else x))
        return self.classifier(x.mean((2, 3)))


class _Scaled(nn.Module):
    """2*x - 1, as FINN's binary networks begin."""

    def forward(self, x):
        return 2.0 * x - torch.tensor([1.0])


def _binary():
    layers = [_Scaled(), nn.Flatten(), qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)]
    for inputs in (64, 32):
        layers += [
            qnn.QuantLinear(inputs, 32, bias=False, weight_quant=SignedBinaryWeightPerTensorConst),
            nn.BatchNorm1d(32),
            qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst),
        ]
    return nn.Sequential(*layers, qnn.QuantLinear(32, 10, bias=False, weight_quant=SignedBinaryWeightPerTensorConst))


def _signed():
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat),
        _conv(1, 8, 3, 4, padding=1),
        nn.BatchNorm2d(8),
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4),
        _conv(8, 8, 3, 4, padding=1, groups=8),
        nn.BatchNorm2d(8),
        qnn.QuantHardTanh(min_val=-1.0, max_val=1.0, act_quant=Int8ActPerTensorFloat, bit_width=3),
        qnn.QuantConv2d(8, 8, 1, bias=True, weight_bit_width=4, weight_quant=Int8WeightPerTensorFloat),
        qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat, bit_width=4),
        nn.AvgPool2d(2),
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=5),
        nn.Flatten(),
        qnn.QuantLinear(128, 10, bias=True, weight_bit_width=4),
    )


def _truncated():
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
        _conv(1, 8, 3, 4, padding=1),
        nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.TruncAvgPool2d(2, bit_width=4),
        nn.Flatten(),
        qnn.QuantLinear(128, 10, bias=True, weight_bit_width=4),
    )


MODELS = {
    "plain-w4a4": lambda: _plain(4),
    "plain-w4a4-bias": lambda: _plain(4, Int32Bias),
    "plain-w2a2": lambda: _plain(2),
    "plain-w8a8": lambda: _plain(8),
    "residual-w4a4": lambda: _Residual(4),
    "binary": _binary,
    "signed": _signed,
    "truncated": _truncated,
}
"""Makers of untrained models by name."""


def trained(name, *, epochs=6, seed=0):
    """A model after a few epochs of Adam, in evaluation mode."""
    torch.manual_seed(seed)
    model = MODELS[name]()
    x, y, _, _ = digits()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with _quiet():
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(outputs(model, x[batch]), y[batch]).backward()
                optimizer.step()
    return model.eval()


def outputs(model, x):
    """Logits as plain tensors."""
    made = model(x)
    return made.value if hasattr(made, "value") else made


def export(model, path: Path, *, form: str, dynamo: bool = False, batch: int = 1):
    """Write ``model`` by Brevitas, as ``form`` "qonnx" or "qcdq"."""
    to = {"qonnx": export_qonnx, "qcdq": export_onnx_qcdq}[form]
    options = {"optimize": True} if dynamo else {"opset_version": 13}
    with _quiet():
        to(model, args=torch.zeros(batch, 1, 8, 8), export_path=str(path), dynamo=dynamo, **options)


def accuracy(logits, labels) -> float:
    """Percent."""
    return 100 * float((np.asarray(logits).reshape(len(labels), -1).argmax(1) == np.asarray(labels)).mean())


@contextlib.contextmanager
def _quiet():
    """PyTorch's exporters print, log and warn about their own future; none of it is about the model."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def main(folder: Path) -> None:
    """All models in both forms as files of a folder, those of the other exporter behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        model = trained(name)
        for form in ("qonnx", "qcdq"):
            for dynamo in (False, True):
                # Brevitas refuses binary quantizers in QCDQ, and quantized biases where dynamo writes them.
                if form == "qcdq" and (name == "binary" or (dynamo and name == "plain-w4a4-bias")):
                    continue
                kind = f"{form}-dynamo" if dynamo else form
                export(model, folder / f"{name}.{kind}.onnx", form=form, dynamo=dynamo)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
