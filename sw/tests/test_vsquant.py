"""VS-Quant against plain loops in fractions, its error on known data, its gradients, its modules and their export."""
from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from golden.execute import execute, vector_quantize
from golden.network import Conv2d, Grid, VectorQuantize
from sw.export import ExportError, export
from sw.layers import (
    GlobalAveragePool,
    PactActivation,
    QuantConv2d,
    QuantLinear,
    SymmetricActivation,
    VsQuantActivation,
)
from sw.models import MODELS, Precision
from sw.quantizers import VectorWeightQuantizer
from sw.quantizers.dorefa import Dorefa
from sw.quantizers.maxabs import MaxAbs
from sw.quantizers.vsquant import (
    VsQuant,
    two_level,
    vector_peaks,
    vector_steps,
    vs_quant,
    vs_quant_codes,
    vs_quant_dynamic,
    vs_quant_dynamic_codes,
)
from sw.tests.test_export import Branches, PreciseShortcut, check, entrance, images, randomize, sequential


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def half_up(x: Fraction) -> int:
    return (x + Fraction(1, 2)).__floor__()


@pytest.mark.parametrize("shape", [(3, 16, 1, 1), (2, 7, 2, 1), (2, 5), (1, 33, 1, 2)])
@pytest.mark.parametrize(("bits", "vector", "scale_bits"), [(2, 4, 4), (4, 16, 4), (3, 5, 2), (8, 1, 8)])
def test_weights_in_fractions(shape, bits, vector, scale_bits):
    """Dyadic weights, so that every number is exact: elements by the unrounded scale, which is rounded after them."""
    weight = torch.floor(normal(*shape) * 64) / 64
    weight[:, :2] *= 4
    quantizer = VsQuant(bits, vector, scale_bits)
    codes, gamma = quantizer.to_int(weight)
    integers, scales = codes - 2 ** (bits - 1), quantizer.scale_codes(weight)
    top, most = 2 ** (bits - 1) - 1, 2 ** scale_bits - 1
    for o in range(shape[0]):
        exact = {}
        for j, *tap in np.ndindex(-(-shape[1] // vector), *shape[2:]):
            part = [Fraction(x) for x in weight[(o, slice(j * vector, (j + 1) * vector), *tap)].tolist()]
            exact[j, *tap] = max(map(abs, part)) / top
            for c, x in enumerate(part):
                ratio = x / exact[j, *tap] if exact[j, *tap] else Fraction(0)
                assert integers[o, j * vector + c, *tap].item() == half_up(ratio)
        step = max(exact.values()) / most
        assert gamma[o].item() == pytest.approx(float(step), rel=1e-14)
        for key, scale in exact.items():
            ratio = scale / step
            assert scales[o, *key].item() == half_up(ratio) or abs(2 * ratio % 2 - 1) < 1e-12
    assert codes.dtype == scales.dtype == torch.int64 and gamma.dtype == torch.float64
    assert scales.max() == most and isinstance(quantizer, VectorWeightQuantizer)


def test_the_value_is_gamma_times_scale_times_integer():
    weight = normal(4, 20, 3, 3)
    quantizer = VsQuant(4, 8, 6)
    codes, gamma = quantizer.to_int(weight)
    scales = quantizer.scale_codes(weight).repeat_interleave(8, 1)[:, :20]
    assert quantizer.grid is Grid.TWOS_COMPLEMENT
    assert quantizer(weight).equal((codes - 8) * scales * gamma[:, None, None, None])


def test_a_vector_of_zeros_and_a_scale_that_rounds_to_0():
    weight = normal(2, 6)
    weight[0, :2] = 0
    weight[0, 2:4] = torch.tensor([1.0, -2.0])
    weight[0, 4:] = torch.tensor([0.06, -0.06])
    weight[1] = 0
    quantizer = VsQuant(3, 2, 4)
    scales, value = quantizer.scale_codes(weight), quantizer(weight)
    assert scales[0].tolist() == [0, 15, 0] and scales[1].tolist() == [0, 0, 0]  # 0.06 < 2/15/2 < 0.07
    assert value[0, 4:].abs().max() == value[1].abs().max() == 0 and value[0, 3].item() == pytest.approx(-2)
    weight[0, 4] = 0.07
    assert quantizer.scale_codes(weight)[0].tolist() == [0, 15, 1]


def decibels(x: torch.Tensor, y: torch.Tensor) -> float:
    return 10 * torch.log10(x.square().sum() / (x - y).square().sum()).item()


@pytest.mark.parametrize(("bits", "per_channel", "by_scale_bits"), [
    (3, 8.9, {4: 13.9, 6: 14.0, 16: 14.0}), (4, 16.3, {4: 20.7, 6: 21.3, 16: 21.4}),
    (8, 41.4, {4: 29.0, 6: 40.4, 8: 45.8, 16: 46.6})])
def test_signal_to_noise_of_gaussian_weights(bits, per_channel, by_scale_bits):
    """Vectors of 16 gain 5 dB over one scale a channel; 8-bit elements lose it again if their scales have 4 bits."""
    weight = normal(64, 2304)
    assert decibels(weight, MaxAbs(bits, per_channel=True)(weight)) == pytest.approx(per_channel, abs=0.15)
    for scale_bits, expected in by_scale_bits.items():
        assert decibels(weight, VsQuant(bits, 16, scale_bits)(weight)) == pytest.approx(expected, abs=0.15)
    least = decibels(weight, VsQuant(bits, 16, 16)(weight)) - 0.8
    assert decibels(weight, VsQuant(bits)(weight)) > least > per_channel


def test_peaks_of_short_vectors():
    x = torch.tensor([[1.0, 5, 2, 7, 3], [0, 0, 4, 1, 9]])
    assert vector_peaks(x, 2).tolist() == [[5, 7, 3], [0, 4, 9]]
    assert vector_peaks(x, 16).tolist() == [[7], [9]]
    assert vector_peaks(x[:, :, None, None].expand(2, 5, 3, 1), 2).shape == (2, 3, 3, 1)


def test_two_level_scales():
    codes, gamma = two_level(torch.tensor([[1.5, 0.5, 0.0499, 0.05], [0, 0, 0, 0]], dtype=torch.float64), 4)
    assert codes.tolist() == [[15, 5, 0, 1], [0, 0, 0, 0]] and gamma[0] == 0.1 and gamma[1] > 0


def test_static_codes_are_thresholds():
    """Steps of γ·s, clipped at both ends; a vector whose scale is 0 has code 0."""
    codes, gamma = vector_steps(torch.tensor([6.0, 0.1, 3.0], dtype=torch.float64), 2, 2)
    assert codes.tolist() == [3, 0, 2] and gamma.item() == pytest.approx(2 / 3)  # 1.5 rounds up
    x = torch.tensor([[0.99, 1.01, 9, 9, 2.01], [-1, 5.01, 0, 0, 100]], dtype=torch.float64)
    assert vs_quant_codes(x, codes, gamma, 2, 2).tolist() == [[0, 1, 0, 0, 2], [0, 3, 0, 0, 3]]
    value = vs_quant(x, codes, gamma, 2, 2)
    assert torch.allclose(value, torch.tensor([[0, 2, 0, 0, 8 / 3], [0, 6, 0, 0, 4]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^Channels must be those of 3 vectors of 2, not 7$"):
        vs_quant_codes(torch.zeros(1, 7), codes, gamma, 2, 2)


@pytest.mark.parametrize(("bits", "scale_bits", "vector"), [(1, 2, 4), (2, 4, 3), (4, 4, 16), (8, 8, 2), (3, 13, 5)])
def test_dynamic_scales_are_those_of_golden(bits, scale_bits, vector):
    size = 2 ** (bits + scale_bits)
    fine = torch.randint(0, size, (300, 5, 2, 2), generator=torch.Generator().manual_seed(0))
    fine[0], fine[1] = size - 1, 0
    fine >>= torch.randint(0, bits + scale_bits, (300, 5, 1, 1), generator=torch.Generator().manual_seed(1))
    expected = vector_quantize(fine.numpy(), VectorQuantize("q", "x", "y", bits, scale_bits, vector))
    found = vs_quant_dynamic_codes(fine.float(), bits, scale_bits, vector)
    np.testing.assert_array_equal(found.numpy(), expected)


def slopes(function, x: torch.Tensor, width: float) -> torch.Tensor:
    """Central differences that span many steps of the quantizer, so that rounding is passed straight through."""
    return torch.stack([(function(x + width * e) - function(x - width * e)).sum() / (2 * width)
                        for e in torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)]).reshape(x.shape)


def gradient(function, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad


def test_gradients_are_those_of_the_clip():
    """Fine steps (N = 12), so that what differences see is the clip: 1 inside, 0 beyond it, 0 where s = 0."""
    x = torch.tensor([[0.5, 2.5, 0.03, 5.0, 7.0, -1.0]], dtype=torch.float64)
    codes, gamma = vector_steps(torch.tensor([4.0, 0.01, 6.0], dtype=torch.float64), 12, 4)
    assert codes.tolist() == [10, 0, 15]
    def static(x):
        return vs_quant(x, codes, gamma, 12, 2)

    assert gradient(static, x).tolist() == [[1, 1, 0, 0, 0, 0]]
    assert torch.allclose(gradient(static, x), slopes(static, x, 0.02), atol=0.05)

    def dynamic(x):
        return vs_quant_dynamic(x, torch.tensor(6 / 4095 / 15, dtype=torch.float64), 12, 4, 2)

    assert gradient(dynamic, x).tolist() == [[1, 1, 1, 1, 0, 0]]
    assert torch.allclose(gradient(dynamic, x), slopes(dynamic, x, 0.02), atol=0.05)


def test_the_gradient_of_weights_passes_straight_through():
    """Many bits, elements that are not their vector's largest: differences see the identity."""
    weight = torch.tensor([[0.3, 1.0, -0.2, 0.05, -0.9, 0.4]], dtype=torch.float64)
    quantizer = VsQuant(12, 3, 12)
    assert gradient(quantizer, weight).tolist() == [[1] * 6]
    found = slopes(quantizer, weight, 0.02)
    assert torch.allclose(found[:, [0, 2, 3, 5]], torch.ones(1, 4, dtype=torch.float64), atol=0.05)
    zeroed = torch.tensor([[1.0, 0.5, 0.001, 0.001]], dtype=torch.float64)
    assert VsQuant(4, 2, 4).scale_codes(zeroed).tolist() == [[15, 0]]
    assert gradient(VsQuant(4, 2, 4), zeroed).tolist() == [[1] * 4], "a silenced vector can grow again"


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: VsQuant(1), "Bits must be at least 2 for two's complement weights, not 1"),
    (lambda: VsQuant(4, 0), "Vector must be an integer of at least 1, not 0"),
    (lambda: VsQuant(4, 16, 17), "Bits must be an integer between 1 and 16, not 17"),
    (lambda: QuantLinear(54, 2, quantizer=VsQuant(4), positions=4), "Positions must divide the 54 features, not 4"),
    (lambda: QuantLinear(54, 2, quantizer=VsQuant(4), positions=0), "Positions must divide the 54 features, not 0"),
    (lambda: VsQuantActivation(4, vector=1.5), "Vector must be an integer of at least 1, not 1.5"),
    (lambda: VsQuantActivation(9, dynamic=True),
     "Bits of elements and scales must be at most 16 together, not 9 and 9"),
    (lambda: VsQuantActivation(4).eval()(torch.zeros(1, 4)),
     "VsQuantActivation must be trained or calibrated before it is used"),
])
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()


def test_the_module_keeps_the_largest_values():
    module = VsQuantActivation(4, vector=2)
    assert not module.calibrated
    x = torch.tensor([[1.0, 2.5, -5.0], [0.5, 0.0, 4.0]])[:, :, None, None]
    module.train()(x)
    assert module.peaks.tolist() == [2.5, 4]
    module(x * 2)
    assert torch.allclose(module.peaks, torch.tensor([2.75, 4.4]))
    assert module.scale_codes.tolist() == [9, 15] and module.scale.item() == pytest.approx(4.4 / 225)
    before = module.peaks.clone()
    module.eval()(x * 9)
    assert module.peaks.equal(before)
    again = VsQuantActivation(4, vector=2)
    again.eval().load_state_dict(module.state_dict())
    assert again.peaks.equal(module.peaks) and again(x).equal(module(x))
    dynamic = VsQuantActivation(4, vector=2, dynamic=True)
    dynamic.calibrate(x)
    assert dynamic.peaks.tolist() == [4] and dynamic.scale_codes is None and dynamic.bits == 8


def test_scales_are_the_same_in_either_floating_type():
    """Ratios next to a rounding boundary."""
    module = VsQuantActivation(4, vector=1)
    for largest in torch.linspace(1, 7, 50):
        module.float().calibrate(torch.cat([largest[None], largest * (torch.arange(15) + 0.5) / 15])[None])
        scales = module.scale_codes
        assert scales.equal(module.double().scale_codes)


def vs(bits: int = 4, **options) -> VsQuantActivation:
    return VsQuantActivation(bits, **{"vector": 4} | options)


def conv(i: int, o: int, kernel_size=3, **options) -> QuantConv2d:
    return QuantConv2d(i, o, kernel_size, **{"quantizer": VsQuant(4, 4)} | options)


def prepare(model: nn.Module, sample: torch.Tensor, seed: int = 0) -> nn.Module:
    """Random parameters, batch norms of small gain, then scales calibrated layer by layer; one vector is silenced."""
    randomize(model, seed)
    model.train()
    with torch.no_grad():
        model(sample)
    for module in model.modules():
        if isinstance(module, VsQuantActivation) and len(module.peaks) > 1:
            module.peaks[-1] = 1e-6
    return model.eval()


FORMS = {
    "static": lambda: sequential(
        entrance(), conv(2, 6), nn.BatchNorm2d(6), vs(), conv(6, 9, 3, padding=1, bias=True), nn.BatchNorm2d(9),
        vs(3, scale_bits=6), nn.MaxPool2d(2), conv(9, 5, 1), vs(2), conv(5, 3, 2, quantizer=Dorefa(3)),
        SymmetricActivation(4, clip=1), conv(3, 6, 1), SymmetricActivation(5, clip=1), conv(6, 2, 1)),
    "dynamic": lambda: sequential(
        entrance(), conv(2, 6), nn.BatchNorm2d(6), vs(4, dynamic=True), conv(6, 9, 3, padding=1), nn.BatchNorm2d(9),
        vs(2, vector=3, scale_bits=3, dynamic=True), nn.MaxPool2d(2), conv(9, 3, 1), vs(3, dynamic=True)),
    "groups": lambda: sequential(
        entrance(), conv(2, 8, 1), vs(), conv(8, 8, 3, groups=8), vs(), conv(8, 6, 2, groups=2), vs(),
        conv(6, 2, 1, quantizer=VsQuant(3, 4, 2))),
    "linear": lambda: sequential(
        entrance(), conv(2, 6), vs(), GlobalAveragePool(), QuantLinear(6, 9, quantizer=VsQuant(6, 4)),
        vs(), QuantLinear(9, 3, quantizer=VsQuant(8, 4))),
    "flattened": lambda: sequential(
        entrance(), conv(2, 6, 5), vs(), nn.Flatten(), QuantLinear(96, 3, quantizer=MaxAbs(8))),
    "vectors of a flattened map": lambda: sequential(
        entrance(), conv(2, 6, (5, 6)), vs(), nn.Flatten(), QuantLinear(72, 9, quantizer=VsQuant(4, 4), positions=12),
        vs(), QuantLinear(9, 3, quantizer=VsQuant(8, 4))),
    "re-quantized": lambda: sequential(
        entrance(), conv(2, 6), vs(8), vs(2), vs(3, dynamic=True), conv(6, 3, 1), PactActivation(3, alpha=2)),
}


@pytest.mark.parametrize("name", FORMS)
def test_export_keeps_every_code(name):
    sample = images(3, 2, 8, 8)
    network = check(prepare(FORMS[name](), sample, 1), sample).network
    assert any(isinstance(op, Conv2d) and op.vector_scales is not None for op in network.operations)
    assert any(isinstance(op, VectorQuantize) for op in network.operations) == (name in ("dynamic", "re-quantized"))


def test_a_linear_layer_on_a_flattened_map_is_the_convolution_over_the_whole_map():
    """The same weights, scales, values and gradients, frozen or not."""
    linear = QuantLinear(6 * 2 * 3, 5, quantizer=VsQuant(4, 4), positions=6).double()
    whole = conv(6, 5, (2, 3), bias=True).double()
    whole.weight.data, whole.bias.data = linear.weight.detach().reshape(5, 6, 2, 3).clone(), linear.bias.data
    x = normal(7, 6, 2, 3)
    assert torch.allclose(linear(x.flatten(1)), whole(x).flatten(1), rtol=1e-12)
    for module, value in ((linear, linear(x.flatten(1))), (whole, whole(x))):
        value.square().sum().backward()
        module.freeze()
    assert linear.weight.grad.shape == (5, 36) and torch.allclose(linear.weight.grad, whole.weight.grad.flatten(1))
    assert linear.scale_codes().reshape(5, 2, 2, 3).equal(whole.scale_codes())
    assert all(a.reshape(b.shape).equal(b) for a, b in zip(linear.to_int(), whole.to_int()))
    assert torch.allclose(linear(x.flatten(1)), whole(x).flatten(1), rtol=1e-12)


def test_residual_operands_and_sums_take_a_factor_per_channel():
    """Scales per channel on the skip path and, with a silenced vector, on the output."""
    sample = images(2, 2, 7, 7)
    block = PreciseShortcut(4, 1, lambda bits: vs(bits, vector=2))
    check(prepare(block, sample), sample)

    class Sum(Branches):
        def __init__(self):
            super().__init__()
            self.act_a, self.act = vs(3, vector=1), vs(4, vector=2)

    check(prepare(Sum(), images(2, 1, 5, 5)), images(2, 1, 5, 5))


def test_a_reference_network_keeps_every_code():
    model = MODELS["digits-residual"](Precision(weight_bits=2, activation_bits=2, edge_bits=4, weights="vsquant",
                                                activations="vsquant"))
    sample = images(3, 1, 8, 8)
    check(prepare(model, sample), sample)


def test_a_product_shift_is_reported_as_codes_that_differ():
    sample = images(3, 2, 8, 8)
    model = prepare(FORMS["static"](), sample, 1)
    exact, rounded = (export(model, sample, product_shift=shift) for shift in (0, 6))
    assert all(layer.float64_differences == 0 for layer in exact.report.layers)
    differences = {layer.name: layer.float64_differences for layer in rounded.report.layers}
    assert differences["1"] == 0, "an input without scales has no products to round"
    assert 0 < differences["4"] < rounded.report.layers[1].compared / 4
    assert [op.product_shift for op in rounded.network.operations if isinstance(op, Conv2d)] == [0, 6, 6, 0, 0, 0]
    assert all(layer.mismatches == 0 for layer in rounded.report.layers), "lossless on the accumulators there are"
    values = execute(rounded.network, rounded.encode(sample))
    widths = {layer.name: layer.accumulator_bits for layer in rounded.report.layers}
    assert widths["4"] < {layer.name: layer.accumulator_bits for layer in exact.report.layers}["4"]
    assert len(np.unique(values["6"])) > 4
    with pytest.raises(ValueError, match=r"^Product shift must be between 0 and 31, not 32$"):
        export(model, sample, product_shift=32)


@pytest.mark.parametrize(("model", "sentence"), [
    (lambda: sequential(entrance(), conv(2, 6), vs(), conv(6, 2, quantizer=VsQuant(4, 8))),
     "Node '3' must have vectors of 4 channels like its input, not 8"),
    (lambda: sequential(entrance(), conv(2, 6), vs(), nn.Flatten(), QuantLinear(54, 2, quantizer=VsQuant(4, 4))),
     "Node '4' must have the positions of the map that it reads, since its vectors lie along channels: positions=9, "
     "not 1"),
    (lambda: sequential(entrance(), conv(2, 6), PactActivation(4), nn.Flatten(), vs(), QuantLinear(
        54, 2, quantizer=MaxAbs(4))), "Node '4' must come before the flatten, since its vectors lie along channels"),
])
def test_export_refuses_by_name(model, sentence):
    model = model()
    sample = images(2, 2, 5, 5)
    model.train()(sample)
    with pytest.raises(ExportError, match=f"^{re.escape(sentence)}$"):
        export(model, sample)


def test_export_refuses_what_has_no_scales_yet():
    with pytest.raises(ExportError, match=r"^Node '2' must be trained or calibrated: it has no scales yet$"):
        export(sequential(entrance(), conv(2, 6), vs()), images(1, 2, 5, 5))


def test_a_training_step_moves_weights_and_scales():
    torch.manual_seed(0)
    model = MODELS["digits-plain"](Precision(weight_bits=4, activation_bits=4, weights="vsquant",
                                             activations="vsquant"))
    sample, labels = images(10, 1, 8, 8), torch.arange(10)
    losses = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(sample), labels)
        for p, grad in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
            p.data -= 0.1 * grad
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
