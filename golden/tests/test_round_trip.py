"""Out and in again: a network through each of its ONNX forms gives the same codes at every layer."""

from __future__ import annotations

import numpy as np
import pytest

from golden import vectors
from golden.execute import execute
from golden.generated import generate
from golden.network import Kind, NetworkError
from golden.onnx_export import integer_model, qcdq_model, qonnx_model
from golden.onnx_import import UnsupportedModelError, convert

FORMS = {"integer": integer_model, "qcdq": qcdq_model, "qonnx": qonnx_model}


def again(network, form):
    """The import of an export. Integer operators do not say how many bits of a byte the input's codes use."""
    options = {"input_range": (0, network.input.max_code)} if form == "integer" else {}
    return convert(FORMS[form](network), **options)


def compare(network, result, codes):
    """Every code tensor of the network that the file names, and the output; the names that were there."""
    values, got = execute(network, codes), execute(result.network, codes)
    found = set()
    for tensor in network.tensors:
        if tensor.kind is Kind.CODE and tensor.name in result.tensors:
            np.testing.assert_array_equal(got[result.tensors[tensor.name]], values[tensor.name], err_msg=tensor.name)
            found.add(tensor.name)
    np.testing.assert_array_equal(got[result.network.output.name], values[network.output.name])
    return found


def cases():
    """Every network and form; those with residual operands of 8 bits take seconds through floats."""
    for name in vectors.committed():
        for form in FORMS:
            slow = form != "integer" and "residual" in name and "w2a2" not in name
            yield pytest.param(name, form, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("name", "form"), list(cases()))
def test_committed_networks(name, form):
    network, values = vectors.read(vectors.find(name))
    result = again(network, form)
    found = compare(network, result, values[network.input.name])
    hidden = {network.output.name} | (set() if form == "integer" else {network.input.name})
    assert found == {tensor.name for tensor in network.tensors} - hidden
    assert len(result.network.operations) == len(network.operations) and result.mismatches == 0
    for ours, theirs in zip(network.operations, result.network.operations, strict=True):
        if hasattr(ours, "codes"):
            np.testing.assert_array_equal(ours.weights, theirs.weights)


@pytest.mark.parametrize("form", FORMS)
def test_generated_networks(form):
    """Everything that a network may hold; what a form cannot carry is refused on the way out or in, never changed."""
    compared = 0
    for seed in range(12):
        network, codes, _ = generate(f"random-{seed}")
        try:
            result = again(network, form)
        except (NetworkError, UnsupportedModelError):
            assert form != "integer"
            continue
        compare(network, result, codes)
        compared += 1
    assert compared >= 10
