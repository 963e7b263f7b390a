"""Import of QONNX, QCDQ and integer operators: generated graphs, each code against the graph's own executor."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from golden.network import Conv2d, IntegerNetwork, Kind
from golden.onnx_import import UnsupportedModelError, agreement, convert
from golden.onnx_import.agreement import compare, executor, run
from golden.tests.qonnx_graphs import BATCH, GRAPHS

REFUSED = ("bipolar_padded", "float_input", "float_weights", "missing_quantizer", "pool_before_negative_slopes",
           "sigmoid_inside", "truncation")  # fmt: skip
TIES = ("average_of_one_scale", "integer_operators", "mixed_widths", "qcdq_zero_points", "quantized_global_pool")
"""Graphs with scales that make sums fall on ties, or with so many codes that one does."""
COMPARED = ("average_of_one_scale", "rounding_down", "rounding_round", "rounding_up", "uneven_thresholds")
"""Graphs whose thresholds no multiplier, bias and shift have: ties on every other accumulator, for instance."""
INEXACT = ("residual_with_ties",)
"""The same with a residual operand, where there are no thresholds to compare with."""
QUANTIZERS = ("Quant", "BipolarQuant", "MultiThreshold", "DequantizeLinear")


def check(name, seed=0, **options):
    graph = GRAPHS[name](seed)
    result = convert(graph.model, **graph.options, **options)
    found = compare(result, graph.model, graph.inputs(seed))
    assert found.unexplained == 0, [layer.example for layer in found.layers]
    assert found.frames == BATCH >= 100
    return graph, result, found


def quantized(model):
    """Names of what the quantizers make that depends on the input."""
    constants = {each.name for each in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if all(each in constants for each in node.input if each):
            constants |= set(node.output)
        elif node.op_type in QUANTIZERS:
            found.append(node.output[0])
    return found


# ---- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in REFUSED])
def test_codes_are_those_of_the_executor(name):
    graph, result, found = check(name)
    assert bool(found.ties) == (name in TIES), found.status()
    assert bool(found.inexact) == (name in INEXACT), found.status()
    assert found.executor == ("ONNX Runtime" if name.startswith(("qcdq", "integer_op")) else "qonnx")
    # Accumulators that differ are announced, and no others.
    announced = [each for each in result.notices if "another code" in each]
    assert (result.mismatches > 0) == bool(announced) == (name in INEXACT)
    operations = [layer.operation for layer in found.layers if layer.inexact]
    assert all(any(repr(operation) in each for each in announced) for operation in operations)
    compared = [o for o in result.network.operations if isinstance(o, Conv2d) and o.thresholds is not None]
    assert bool(compared) == (name in COMPARED) == any("compares with thresholds" in each for each in result.notices)
    # Nothing is left out: each quantizer's result, and the output.
    assert {*quantized(graph.model), graph.model.graph.output[0].name} <= set(result.tensors)
    assert len(found.layers) >= 2


@pytest.mark.parametrize("name", [name for name in COMPARED if name != "uneven_thresholds"])
def test_multipliers_alone_differ_in_what_is_announced(name):
    """Without comparisons: the codes that differ are accumulators that the notice counts, and no others."""
    _, result, found = check(name, thresholds=False)
    assert found.inexact > 0 and result.mismatches > 0
    operations = [layer.operation for layer in found.layers if layer.inexact]
    announced = [each for each in result.notices if "another code" in each]
    assert operations and all(any(repr(operation) in each for each in announced) for operation in operations)


def test_thresholds_that_no_multiplier_puts_are_refused_without_comparisons():
    graph = GRAPHS["uneven_thresholds"]()
    with pytest.raises(
        UnsupportedModelError, match=r"^Node 'MultiThreshold_2' .* a multiplier, a bias and a shift can"
    ):
        convert(graph.model, thresholds=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in REFUSED])
def test_codes_of_other_seeds(name, seed):
    check(name, seed)


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_integer_network_computes_is_refused(name):
    graph = GRAPHS[name](0)
    assert graph.refused is not None
    with pytest.raises(UnsupportedModelError) as error:
        convert(graph.model, **graph.options)
    assert str(error.value).startswith(graph.refused)


# ---- the comparison itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["per_channel", "qcdq_of_brevitas", "residual_unquantized_branch"])
def test_a_wrong_weight_is_unexplained(name):
    graph, result, found = check(name)
    assert found.differing == 0 and found.status() == "exact"
    network = result.network
    operation = next(o for o in network.operations if isinstance(o, Conv2d))
    codes = operation.codes.copy()
    codes.flat[0] ^= 1
    operations = [dataclasses.replace(o, codes=codes) if o is operation else o for o in network.operations]
    broken = dataclasses.replace(result, network=IntegerNetwork("broken", network.tensors, tuple(operations)))
    found = compare(broken, graph.model, graph.inputs())
    assert found.unexplained > 0 and {layer.operation for layer in found.layers if layer.differing} == {operation.name}
    assert "unexplained" in found.status()


def test_an_executor_that_is_off_by_one_is_unexplained(monkeypatch):
    """A code beside the right one is no tie if the exact value is not near the boundary."""
    graph, result, _ = check("per_channel")
    right = run(graph.model, graph.inputs())
    name = quantized(graph.model)[1]
    values = right[name].copy()
    step = np.float32(result.views[name].scale)
    places = [tuple(place) for place in np.argwhere(values == 4 * step)[:50]]
    for place in places:
        values[place] += step
    monkeypatch.setattr(agreement, "run", lambda model, x: right | {name: values})
    found = compare(result, graph.model, graph.inputs())
    layer = next(layer for layer in found.layers if layer.tensor == name)
    assert (layer.unexplained, layer.ties) == (len(places), 0) and "code 4, but 5 of qonnx" in layer.example


def test_a_value_that_no_code_stands_for_is_unexplained(monkeypatch):
    graph, result, _ = check("per_channel")
    right = run(graph.model, graph.inputs())
    name = quantized(graph.model)[1]
    values = right[name].copy()
    values[0, 0, 0, 0] += np.float32(result.views[name].scale) / 3
    monkeypatch.setattr(agreement, "run", lambda model, x: right | {name: values})
    layer = next(layer for layer in compare(result, graph.model, graph.inputs()).layers if layer.tensor == name)
    assert layer.unexplained == 1 and layer.example.endswith("is the value of no code")


@pytest.mark.parametrize("name", ["per_channel", "mixed_widths", "batch_norm_negative", "dead_channels", "zero_points",
                                  "residual_unquantized_branch", "quantized_global_pool", "average_pools",
                                  "reshape_and_matmul", "qcdq_of_brevitas", "qcdq_zero_points",
                                  "scaled_by_constants"])  # fmt: skip
def test_the_bound_of_float32_holds(name):
    """The executor's float in front of each quantizer is as near to the exact rational as the bound says."""
    graph = GRAPHS[name](0)
    result = convert(graph.model, **graph.options)
    comparison = agreement._Comparison(result, graph.model, graph.inputs())
    makers = {made: node for node in graph.model.graph.node for made in node.output}
    codes = {result.network.input.name: result.encode(graph.inputs())}
    checked, closest = 0, np.inf
    for operation in result.network.operations:
        output = result.network.tensor(operation.output)
        acc, skip, codes[output.name] = comparison._compute(operation, codes)
        label = next((each for each in comparison.names.get(output.name, ())), None)
        if label is None or output.kind is Kind.ACCUMULATOR or acc is None:
            continue
        codes[output.name] = result.codes(label, comparison.theirs[label]).astype(codes[output.name].dtype)
        error, node = comparison._error(label), makers[label]
        while node.op_type in ("DequantizeLinear", "Clip"):
            node = makers[node.input[0]]
        scale, value = comparison.theirs[node.input[1]], comparison.theirs[node.input[0]].astype(np.float64)
        exact = result.exact[operation.name]
        factors = (exact.slope, exact.skip_slope, exact.offset)
        slope, skips, offset = (each.astype(float)[:, None, None] for each in factors)
        r = slope * acc + (0 if skip is None else skips * skip) + offset
        zero = comparison.theirs[node.input[2]] if node.op_type == "Quant" else 0
        distance = np.abs(comparison._canonical(label, value / np.float64(scale) + np.float64(zero)) - r)
        # Outside the codes a ReLU may have clipped it.
        inside = (r > exact.first) & (r < exact.first + output.max_code)
        assert (distance <= error + 1e-9)[inside].all(), label
        closest = min(closest, float((error / np.maximum(distance, 1e-12))[inside].min()))
        checked += int(inside.sum())
    assert checked > 1000
    assert closest < 1e4, "a bound that is never within 10000 times the error says nothing"


def test_executors_take_any_number_of_frames():
    """Batches of one frame, in pieces, and all at once."""
    for name in ("per_channel", "channels_last_input", "qcdq_of_brevitas"):
        graph = GRAPHS[name](0)
        x = graph.inputs(frames=7)
        values = run(graph.model, x)
        output = values[graph.model.graph.output[0].name]
        assert len(output) == 7 and executor(graph.model) in ("qonnx", "ONNX Runtime")
        again = run(graph.model, x[3:5])[graph.model.graph.output[0].name]
        np.testing.assert_allclose(again, output[3:5], rtol=1e-5, atol=1e-6)


def test_codes_and_values_of_a_file():
    """What the importer says a code is worth is what the file's tensor holds."""
    graph, result, _ = check("zero_points")
    values = run(graph.model, graph.inputs())
    for name in quantized(graph.model):
        view = result.views[name]
        codes = result.codes(name, values[name])
        np.testing.assert_allclose(result.values(name, codes), values[name], rtol=1e-6, atol=1e-6)
        assert Fraction(view.scale) > 0
