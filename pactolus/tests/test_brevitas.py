"""Brevitas's own models: trained, exported by Brevitas itself, imported, and computed by golden and by the RTL."""

from __future__ import annotations

import functools
import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from golden import vectors
from golden.execute import execute
from golden.network import Kind
from golden.onnx_import import UnsupportedModelError, load
from golden.onnx_import.agreement import compare
from pactolus.tests import brevitas_models
from tb import simulate

IMAGES = 120
FORMS = (
    ("plain-w4a4", "qonnx"),
    ("plain-w4a4", "qcdq"),
    ("residual-w4a4", "qonnx"),
    ("residual-w4a4", "qcdq"),
    ("binary", "qonnx"),
    ("signed", "qcdq"),
)
MORE = (
    ("plain-w4a4-bias", "qonnx"),
    ("plain-w4a4-bias", "qcdq"),
    ("plain-w2a2", "qonnx"),
    ("plain-w2a2", "qcdq"),
    ("plain-w8a8", "qonnx"),
    ("plain-w8a8", "qcdq"),
    ("signed", "qonnx"),
)
"""What make test-slow does besides. Brevitas has no binary quantizers in QCDQ."""
UNWRITTEN = ("plain-w4a4-bias", "qcdq")
"""What Brevitas does not write by PyTorch's other exporter."""
ACCURACY = 25.0
"""Percent of the test images at least, of models trained for a second on whatever machine: chance has 10."""


@functools.cache
def model(name):
    return brevitas_models.trained(name, epochs=2)


@functools.cache
def imported(name, form, dynamo=False):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}-{form}.onnx"
        brevitas_models.export(model(name), path, form=form, dynamo=dynamo)
        return load(path), onnx.load(path)


def test_images():
    _, _, images, labels = brevitas_models.digits()
    return images.numpy(), labels.numpy()


test_images.__test__ = False


@pytest.mark.parametrize(("name", "form"), [*FORMS, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE)])
def test_codes_are_those_of_the_executor(name, form):
    """Every named tensor on the test images, with ONNX Runtime or qonnx; and PyTorch has the same classes."""
    result, file = imported(name, form)
    images, labels = test_images()
    found = compare(result, file, images[:IMAGES])
    assert found.unexplained == found.inexact == 0, [layer.example for layer in found.layers]
    assert found.ties <= 2 and found.frames >= 100
    quantizers = [node for node in file.graph.node if node.op_type in ("Quant", "BipolarQuant", "QuantizeLinear")]
    weights = [node for node in quantizers if node.input[0] in {each.name for each in file.graph.initializer}]
    assert len(found.layers) >= len(quantizers) - len(weights) + (result.network.output.kind is Kind.ACCUMULATOR)

    output = result.network.output
    codes = execute(result.network, result.encode(images))[output.name]
    logits = result.values(file.graph.output[0].name, codes)
    assert brevitas_models.accuracy(logits, labels) >= ACCURACY
    with torch.no_grad():
        theirs = brevitas_models.outputs(model(name), torch.tensor(images)).numpy()
    # Their class is one of our largest logits; binary networks have several of the same size.
    logits = logits.reshape(len(images), -1)
    chosen = np.take_along_axis(logits, theirs.argmax(1)[:, None], 1)[:, 0]
    same = chosen >= logits.max(1) - 1e-4
    assert same.mean() >= (1.0 if found.ties == 0 else 0.99)


def test_bits_are_those_of_the_model():
    """Weights and activations come in with the bits that they were trained with."""
    result, _ = imported("plain-w4a4", "qonnx")
    network = result.network
    assert [operation.bits for operation in network.operations if hasattr(operation, "codes")] == [4, 4, 4]
    codes = [network.tensor(operation.output) for operation in network.operations[:-1]]
    assert {tensor.bits for tensor in codes} == {4} and network.input.bits == 8
    assert not any(tensor.zero_point for tensor in codes)
    assert result.notices == ()


def test_a_truncating_pool_is_refused_by_name():
    """Brevitas's TruncAvgPool2d is a Trunc in QONNX; in QCDQ, it is a quantizer like any."""
    with pytest.raises(UnsupportedModelError, match=r"^Node '.*/Trunc' \(Trunc\) is not taken: put a Quant in its"):
        imported("truncated", "qonnx")
    result, file = imported("truncated", "qcdq")
    found = compare(result, file, test_images()[0][:IMAGES])
    assert found.differing == found.ties
    assert any("compares with thresholds" in notice for notice in result.notices)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("plain-w4a4", "qonnx"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (*FORMS[1:], *MORE) if each != UNWRITTEN),
    ],
)
def test_the_other_exporter(name, form):
    """PyTorch has two exporters; Brevitas writes by both, but for quantized biases in QCDQ."""
    result, file = imported(name, form, dynamo=True)
    found = compare(result, file, test_images()[0][:IMAGES])
    assert found.unexplained == found.inexact == 0 and found.ties <= 2


@pytest.mark.parametrize(
    "networks",
    [
        (("residual-w4a4", "qonnx"), ("signed", "qcdq")),
        pytest.param((("binary", "qonnx"), ("plain-w2a2", "qcdq"), ("plain-w8a8", "qonnx")), marks=pytest.mark.slow),
    ],
)
def test_the_rtl_computes_it(networks, tmp_path):
    """One frame each, every code of every layer: a residual network; depthwise, signed, with an average pool."""
    folders = []
    for name, form in networks:
        result, _ = imported(name, form)
        folders.append(str(tmp_path / name))
        vectors.write(folders[-1], result.network, result.encode(test_images()[0][:1]), seed=0)
    console = Console(file=io.StringIO(), width=120)
    status = simulate.run(folders, config="tiny", simulator="verilator", reports=tmp_path, console=console)
    assert isinstance(console.file, io.StringIO)
    assert status == 0, console.file.getvalue()


def test_inputs_are_quantized_as_in_the_file():
    """The file's own input quantizer, in float32: also where a number is a tie, beyond the range, or negative."""
    result, file = imported("plain-w4a4", "qonnx")
    step = result.network.input.scale
    x = np.zeros((1, 1, 8, 8), np.float32)
    x.flat[:8] = [step * (k + 0.5) for k in range(8)]
    x.flat[8:12] = [-1.0, 2.0, 1e30, -0.0]
    found = compare(result, file, np.concatenate([x, -x]))
    assert found.layers[0].operation == "input" and found.layers[0].differing == 0
