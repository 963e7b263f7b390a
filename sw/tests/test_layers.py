"""The modules: their integers are their values, clips stay positive, freezing survives a change of dtype."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from sw.layers import (
    GlobalAveragePool,
    InputQuantizer,
    OctavActivation,
    PactActivation,
    QuantConv2d,
    QuantizedWeight,
    QuantLinear,
    ResidualAdd,
    SymmetricActivation,
    frozen,
)
from sw.models import MODELS, Precision
from sw.quantizers.dorefa import Dorefa
from sw.quantizers.maxabs import MaxAbs
from sw.quantizers.octav import Octav
from sw.quantizers.sawb import Sawb


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quantizer", [
    PactActivation(3, alpha=2.5), PactActivation(8), PactActivation(2, plus=True), SymmetricActivation(clip=1.7),
    SymmetricActivation(4),
    InputQuantizer(scale=1 / 255), InputQuantizer(scale=1 / 127, zero_point=128),
], ids=repr)
def test_an_activation_shows_its_integers(quantizer, dtype):
    quantizer = quantizer.to(dtype)
    x = torch.randn(1000, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 4
    codes = quantizer.to_int(x)
    assert codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() <= 2 ** quantizer.bits - 1
    assert len(codes.unique()) > 2
    value = quantizer.scale.to(dtype) * (codes - quantizer.zero_point)
    torch.testing.assert_close(quantizer(x), value, rtol=1e-6, atol=1e-9)
    assert quantizer.to_int(torch.zeros(1, dtype=dtype)).item() == quantizer.zero_point


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_calibrated_activation_shows_its_integers(bits, dtype, signed):
    quantizer = OctavActivation(bits, signed=signed)
    quantizer.calibrate(torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    test_an_activation_shows_its_integers(quantizer.eval(), dtype)


def test_input_codes_of_images_are_the_same_in_both_types():
    images = torch.arange(17) / 16  # 8/16 falls on a tie of 255 steps
    quantizer = InputQuantizer(scale=1 / 255)
    assert quantizer.to_int(images).tolist() == quantizer.to_int(images.double()).tolist()
    assert quantizer.to_int(images)[8].item() == 128


@pytest.mark.parametrize("module", [PactActivation(2), SymmetricActivation(8)], ids=repr)
def test_a_clip_is_kept_positive(module):
    with torch.no_grad():
        module.clip.fill_(-5)
    value = module(torch.linspace(-1, 1, 11))
    assert module.clip.item() == pytest.approx(module.FLOOR) and value.isfinite().all()
    with torch.no_grad():
        module.clip.fill_(-5)
    assert module.scale > 0
    value = module(torch.linspace(-1, 1, 11))
    value.sum().backward()
    assert module.clip.grad.item() != 0, "a projected clip can grow again"


def test_pact_plus_feels_what_is_not_clipped():
    for plus in (False, True):
        module = PactActivation(2, alpha=3, plus=plus)
        module(torch.tensor([0.75])).sum().backward()
        assert module.clip.grad is not None and module.clip.grad.item() == pytest.approx(0.25 / 3 if plus else 0)


def test_l2_on_alpha_adds_lambda_alpha_to_its_gradient():
    module = PactActivation(4, alpha=10)
    optimizer = torch.optim.SGD([{"params": [module.clip], "weight_decay": 0.01}], lr=1.0)
    module(torch.tensor([1.0, 2.0])).sum().backward()
    optimizer.step()
    assert module.clip.item() == pytest.approx(10 - 0.01 * 10)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: PactActivation(0), "Bits must be an integer between 1 and 16, not 0"),
    (lambda: PactActivation(4, alpha=0), "Initial clip must be positive, not 0"),
    (lambda: SymmetricActivation(1), "Bits must be at least 2 for a signed activation, not 1"),
    (lambda: SymmetricActivation(8, clip=-1), "Initial clip must be positive, not -1"),
    (lambda: InputQuantizer(scale=0), "Scale must be positive, not 0"),
    (lambda: InputQuantizer(scale=1, zero_point=256), "Zero point must be between 0 and 255, not 256"),
    (lambda: InputQuantizer(scale=1, zero_point=-1, bits=4), "Zero point must be between 0 and 15, not -1"),
    (lambda: Precision(weight_bits=4), "Weight bits and activation bits must be both given or both absent, not 4 and "
                                       "None"),
    (lambda: Precision(weight_bits=4, activation_bits=17), "Bits must be an integer between 1 and 16, not 17"),
])
def test_refusals(make, sentence):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("quantizer", [Dorefa(1), Dorefa(4), MaxAbs(8), MaxAbs(8, per_channel=True)], ids=repr)
def test_quantized_layers_compute_with_their_integers(quantizer):
    torch.manual_seed(0)
    conv = QuantConv2d(3, 6, 3, quantizer=quantizer, stride=2, padding=1, groups=3)
    linear = QuantLinear(5, 4, quantizer=quantizer)
    x, features = torch.randn(2, 3, 7, 7), torch.randn(2, 5)
    for module, source in ((conv, x), (linear, features)):
        before = module(source)
        copy = frozen(module, torch.float32)
        assert isinstance(copy, QuantizedWeight)
        with torch.no_grad():
            copy.weight.zero_()
        torch.testing.assert_close(copy(source), before)


def test_freezing_keeps_the_codes_in_float64():
    torch.manual_seed(1)
    model = MODELS["digits-residual"](Precision(weight_bits=3, activation_bits=3))
    copy = frozen(model)
    assert not copy.training and all(p.dtype == torch.float64 for p in copy.parameters())
    pairs = list(zip(model.modules(), copy.modules(), strict=True))
    layers = [(a, b) for a, b in pairs if isinstance(a, QuantizedWeight) and isinstance(b, QuantizedWeight)]
    assert len(layers) == 7
    for a, b in layers:
        assert a.to_int()[0].equal(b.to_int()[0])
        grid, bits = b.quantizer.grid, b.quantizer.bits
        codes, scale = b.to_int()
        assert b.quantized_weight().equal((grid.p(bits) * codes - grid.c(bits)).double() * scale)


@pytest.mark.parametrize(("weights", "middle", "first"), [
    ("dorefa", Dorefa(4), Dorefa(8)), ("sawb", Sawb(4), MaxAbs(8)), ("octav", Octav(4), Octav(8)),
    ("maxabs", MaxAbs(4), MaxAbs(8))])
def test_methods_by_name(weights, middle, first):
    model = MODELS["digits-residual"](Precision(weight_bits=4, activation_bits=3, weights=weights, activations="pact+"))
    quantizers = [m.quantizer for m in model.modules() if isinstance(m, QuantizedWeight)]
    assert quantizers == [first, *[middle] * 5, MaxAbs(8)]
    assert all(m.plus for m in model.modules() if isinstance(m, PactActivation))
    model = MODELS["digits-residual"](Precision(weight_bits=4, activation_bits=3, activations="octav"))
    activations = [m for m in model.modules() if isinstance(m, OctavActivation)]
    assert [(m.bits, m.signed) for m in activations] == [(3, False)] * 4 + [(8, True), (8, False)]
    assert not any(isinstance(m, PactActivation | SymmetricActivation) for m in model.modules())


def test_small_modules():
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert GlobalAveragePool()(x).equal(torch.tensor([[5.5, 17.5]]))
    assert ResidualAdd()(x, 2 * x).equal(3 * x)


@pytest.mark.parametrize("name", ["digits-plain", "digits-residual"])
def test_reference_networks(name):
    model = MODELS[name](Precision(weight_bits=2, activation_bits=3))
    assert model.eval()(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    layers = [m for m in model.modules() if isinstance(m, QuantizedWeight)]
    assert [m.quantizer.bits for m in layers] == [8] + [2] * (len(layers) - 2) + [8]
    activations = [m for m in model.modules() if isinstance(m, PactActivation)]
    assert [m.bits for m in activations] == [3] * (len(activations) - 1) + [8]
    baseline = MODELS[name](Precision())
    assert not any(isinstance(m, QuantizedWeight | PactActivation | InputQuantizer) for m in baseline.modules())
    weights = [p.numel() for p in model.parameters() if p.dim() > 1]
    assert weights == [p.numel() for p in baseline.parameters() if p.dim() > 1]
    assert baseline(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert any(isinstance(m, nn.ReLU) for m in baseline.modules())
