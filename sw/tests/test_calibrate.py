"""Post-training: histograms, each method's clip against brute force, and integers without a difference."""
from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from golden.execute import execute
from sw.calibrate import ACTIVATION_CLIPS, WEIGHT_SCALES, Histogram, post_training
from sw.data import digits
from sw.export import export, logits
from sw.layers import PactActivation, QuantizedWeight, SymmetricActivation, VsQuantActivation
from sw.models import MODELS, Precision
from sw.quantizers.mse import Mse, mse_clip
from sw.quantizers.octav import octav_clip
from sw.quantizers.pact import pact
from sw.quantizers.symmetric import symmetric
from sw.train import TrainConfig, accuracy, train


def random(kind: str, n: int = 20000, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n, generator=generator)
    return {"normal": normal, "long tails": normal ** 3, "sparse": normal * (normal > 1),
            "positive": torch.rand(n, generator=generator) + 1}[kind]


def histogram(x: torch.Tensor, parts: int = 7, **options) -> Histogram:
    result = Histogram(**options)
    for part in x.chunk(parts):
        result.add(part)
    return result


KINDS = ("normal", "long tails", "sparse", "positive")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_histograms_hold_everything_in_any_order(kind, signed):
    x = random(kind)
    x[:3000] *= 1e-3  # the range grows
    found, backwards = histogram(x, signed=signed), histogram(x.flip(0), parts=3, signed=signed)
    magnitude = (x.abs() if signed else x.clamp(min=0)).double()
    assert found.largest == magnitude.max() and found.total == len(x)
    assert found.largest < found.width * Histogram.BINS <= 2 * found.largest
    expected = torch.bincount((magnitude[magnitude > 0] / found.width).long(), minlength=Histogram.BINS)
    assert found.counts.equal(expected.double()) and found.counts.equal(backwards.counts)
    torch.testing.assert_close(found.sums.sum(), magnitude.sum())
    means, counts = found.used()
    torch.testing.assert_close((means * counts).sum(), magnitude.sum())


def test_histograms_of_little():
    empty = Histogram()
    empty.add(torch.tensor([0.0, -1.0]))
    assert (empty.total, empty.largest, empty.width) == (2, 0.0, 0.0)
    empty.add(torch.tensor([]))
    bounded = Histogram(ceiling=6.0)
    bounded.add(torch.tensor([7.0, 9.0, 1.0]))
    assert bounded.largest == 6.0 and bounded.counts.max() == 2
    far = Histogram()
    far.add(torch.tensor([1e-9]))
    far.add(torch.tensor([1e9]))
    assert far.counts[0] == 1 and far.counts.sum() == 2
    with pytest.raises(ValueError, match=r"^Values must be finite to be calibrated on$"):
        far.add(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match=r"^Values must be finite to be calibrated on$"):
        Histogram(signed=True).add(torch.tensor([float("-inf")]))


def quantized(x: torch.Tensor, clip: float, bits: int, signed: bool) -> torch.Tensor:
    return (symmetric if signed else pact)(x, torch.tensor(clip, dtype=x.dtype), bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mse_clip_is_the_best_of_a_brute_force_search(kind, signed, bits):
    x = random(kind, 4000).double()
    values = x if signed else x.clamp(min=0)
    clip = ACTIVATION_CLIPS["mse"](histogram(x, signed=signed), bits, 0)

    def error(clip):
        return (quantized(x, clip, bits, signed) - values).square().mean().item()

    best = min(error(x.abs().max().item() * i / 1000) for i in range(1, 1001))
    assert error(clip) <= 1.02 * best if bits > 2 or not signed else error(clip) <= 1.3 * best, (
        "a signed clip is chosen for magnitudes, and at 2 bits the code below −clip matters")


@pytest.mark.parametrize("percentile", [50, 90, 99.9, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_percentiles_are_within_a_bin(kind, percentile):
    x = random(kind)
    found = histogram(x)
    clip = ACTIVATION_CLIPS["percentile"](found, 4, percentile)
    values = x.clamp(min=0).double().sort().values
    exact = values[-(-len(x) * int(10 * percentile) // 1000) - 1].item()
    assert exact <= clip <= exact + found.width + 1e-12
    assert clip <= ACTIVATION_CLIPS["max"](found, 4, percentile) == values[-1]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_octav_over_bins_is_octav(kind, signed, bits):
    x = random(kind).double()
    top = 2 ** (bits - 1) - 1 if signed else 2 ** bits - 1
    clip = ACTIVATION_CLIPS["octav"](histogram(x, signed=signed), bits, 0) * (top + 1) / top
    assert abs(clip / octav_clip(x, bits, signed=signed).item() - 1) < 2e-3


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["normal", "long tails", "positive"])
def test_mse_weights_against_brute_force(kind, bits):
    weight = random(kind, 6 * 150).reshape(6, 2, 5, 15).double()
    weight[1] *= 30
    weight[2] = 0
    quantizer = Mse(bits, per_channel=True)
    codes, steps = quantizer.to_int(weight)
    half = 2 ** (bits - 1)
    assert codes.min() >= 0 and codes.max() < 2 * half and steps.shape == (6,)
    value = quantizer(weight)
    torch.testing.assert_close(value, (codes - half) * steps.reshape(-1, 1, 1, 1))
    for row, got in zip(weight, value):
        # At 8 bits 150 weights make many shallow valleys.
        candidates = torch.arange(1, 2001).double() / 2000 * row.abs().max() / (half - 1)
        brute = min(((row / s + 0.5).floor().clamp(-half, half - 1) * s - row).square().sum().item()
                    for s in candidates.clamp(min=1e-300))
        assert (got - row).square().sum() <= (1.05 if bits == 8 else 1.01) * brute + 1e-30
    static = quantizer.fixed(weight)
    assert static.to_int(weight)[0].equal(codes) and static(weight).equal(value)
    assert static.to_int(3 * weight)[1].equal(steps)
    single = Mse(bits).fixed(weight)
    assert single.to_int(weight)[1].dim() == 0
    gradient = weight.clone().requires_grad_()
    static(gradient).sum().backward()
    inside = weight.abs() <= steps.reshape(-1, 1, 1, 1) * (half - 1)
    assert gradient.grad.equal(inside.double())


def test_counts_weigh_values():
    x = torch.tensor([0.1, 0.2, 5.0])
    counts = torch.tensor([3.0, 2.0, 1.0])
    repeated = x.repeat_interleave(counts.long())
    assert mse_clip(x, 3, counts=counts) == mse_clip(repeated, 3)
    assert mse_clip(torch.zeros(4), 3) > 0


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"bits": 1}, "Bits must be at least 2 for two's complement weights, not 1"),
    ({"bits": 4, "steps": (0.0,)}, r"Steps must be positive, not \(0.0,\)"),
    ({"bits": 4, "steps": ()}, r"Steps must be positive, not \(\)"),
])
def test_wrong_mse_quantizers_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Mse(**arguments)


@functools.cache
def trained(name: str) -> nn.Module:
    return train(TrainConfig(network=name, epochs=3)).model


@pytest.mark.parametrize("name", ["digits-plain", pytest.param("digits-residual", marks=pytest.mark.slow)])
def test_eight_bits_lose_little_and_the_integers_are_exact(name):
    training, test = digits()
    baseline = accuracy(trained(name), test)
    assert baseline > 0.9
    batches = training.images[:512].split(128)
    for weights, activations in (("max", "max"), ("octav", "octav"), ("sawb", "percentile"), ("vsquant", "vsquant"),
                                 ("mse", "mse")):
        model = post_training(trained(name), batches, weights=weights, activations=activations)
        assert accuracy(model, test) >= baseline - 0.02, (weights, activations)
    exported = export(model, test.images[:60])
    assert all(layer.float64_differences == layer.mismatches == 0 for layer in exported.report.layers)
    values = logits(exported.network, execute(exported.network, exported.encode(test.images)))
    assert (values.reshape(360, 10).argmax(1) == test.labels.numpy()).mean() >= baseline - 0.02


def test_batches_are_gone_through_once_in_any_form_and_order():
    training, _ = digits()
    parts = training.images[:200].split(50)
    expected = post_training(trained("digits-plain"), parts).state_dict()
    labels = training.labels[:200].split(50)
    for batches in (iter(parts), list(zip(parts, labels)), parts[::-1]):
        found = post_training(trained("digits-plain"), batches).state_dict()
        assert all(found[key].equal(value) for key, value in expected.items())
    fewer = post_training(trained("digits-plain"), parts[:1]).state_dict()
    assert not fewer["act1.clip"].equal(expected["act1.clip"])


def test_clips_are_those_of_the_float_tensors():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU6(inplace=True), nn.Conv2d(1, 1, 1, bias=False),
                        nn.ReLU(inplace=True), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        net[0].weight.fill_(10.0)
        net[2].weight.fill_(-1.0)
    x = torch.linspace(0, 1, 50).reshape(1, 1, 5, 10)
    model = post_training(net, [x[..., :3], x], activations="max")
    clips = [m.clip.item() for m in model.modules() if isinstance(m, PactActivation)]
    assert clips[0] == 6.0, "no more than the bound"
    assert clips[1] == pytest.approx(PactActivation.FLOOR), "nothing ever gets through"


def test_vectors_are_those_of_the_float_tensors():
    """Two batches, a bound, values that are never positive, and integers without a difference."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 40, 1), nn.ReLU6(), nn.Conv2d(40, 3, 3), nn.ReLU(), nn.Flatten(),
                        nn.Linear(48, 5)).eval()
    with torch.no_grad():
        net[0].weight.mul_(4)
        net[0].bias[:16] += 6
        net[0].bias[32:] -= 90
    batches = torch.rand(9, 2, 6, 6).split(5)
    model = post_training(net, batches, weight_bits=4, activation_bits=4, weights="vsquant", activations="vsquant")
    first, second = (m for m in model.modules() if isinstance(m, VsQuantActivation))
    values = net[:2](torch.cat(batches)).detach()
    assert first.peaks.tolist() == [6, values[:, 16:32].max().item(), pytest.approx(first.FLOOR)]
    assert second.peaks.item() == pytest.approx(net[:4](torch.cat(batches)).max().item())
    exported = export(model, torch.cat(batches))
    assert all(layer.float64_differences == 0 for layer in exported.report.layers)
    model = post_training(net, batches, weight_bits=4, activation_bits=4, weights="vsquant", activations="vsquant",
                          vector=8, scale_bits=6)
    assert {(m.vector, m.scale_bits) for m in model.modules() if isinstance(m, VsQuantActivation)} == {(8, 6)}
    assert {(m.quantizer.vector, m.quantizer.scale_bits) for m in model.modules()
            if isinstance(m, QuantizedWeight)} == {(8, 6)}
    assert all(layer.float64_differences == 0 for layer in export(model, torch.cat(batches)).report.layers)
    with pytest.raises(ValueError, match=r"^Values must be finite to be calibrated on$"):
        with torch.no_grad():
            net[0].bias[0] = float("nan")
        post_training(net, batches, activations="vsquant")


def test_projections_are_calibrated_with_their_sign():
    class Projection(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(4))

        def forward(self, x):
            x = functional.relu(self.a(x))
            return self.d(functional.relu(self.c(functional.relu(self.b(x))) + self.b(x)))

    net = Projection()
    with torch.no_grad():
        for layer, value in zip((net.a, net.b, net.c, net.d), (1.0, -3.0, 1.0, 1.0)):
            layer.weight.fill_(value)
    model = post_training(net, [torch.rand(1, 1, 9, 9), torch.ones(1, 1, 9, 9)], activations="max")
    clip, = (m.clip.item() for m in model.modules() if isinstance(m, SymmetricActivation))
    assert clip == 3.0


def test_a_residual_stream_of_its_own_width_is_calibrated():
    model = MODELS["digits-residual"](Precision()).eval()
    batch = torch.rand(8, 1, 8, 8)
    quantized = post_training(model, [batch], activation_bits=3, shortcut_bits=8, activations="max")
    read = {path: [] for path in ("act", "block1.branch", "block1.act2", "block2.branch")}
    for path, values in read.items():
        quantized.get_submodule(path).register_forward_pre_hook(lambda m, x, values=values: values.append(x[0]))
    quantized(batch)
    bits = {path: quantized.get_submodule(path).bits for path in read}
    assert bits == {"act": 8, "block1.branch": 3, "block1.act2": 8, "block2.branch": 3}
    for path, (value,) in read.items():
        clip = quantized.get_submodule(path).clip.item()
        assert clip == pytest.approx(value.max().item(), rel=0.1)
    assert all(layer.float64_differences == 0 for layer in export(quantized, batch).report.layers)


def test_methods_of_weights():
    training, _ = digits()
    kinds = {}
    for method in WEIGHT_SCALES:
        model = post_training(trained("digits-plain"), [training.images[:10]], weight_bits=4, weights=method,
                              bits={"conv3": 3})
        kinds[method] = [(type(m.quantizer).__name__, m.quantizer.bits) for m in model.modules()
                         if isinstance(m, QuantizedWeight)]
    names = {"max": "MaxAbs", "mse": "Mse", "octav": "Octav"}
    for method, name in names.items():
        assert kinds[method] == [(name, 8), (name, 4), (name, 3), (name, 8)]
    assert kinds["sawb"] == [("MaxAbs", 8), ("Sawb", 4), ("Sawb", 3), ("MaxAbs", 8)]
    assert kinds["vsquant"] == [("VsQuant", 8), ("VsQuant", 4), ("VsQuant", 3), ("VsQuant", 8)]


@pytest.mark.parametrize(("arguments", "sentence"), [
    ({"weights": "best"}, "Weights must be one of max, mse, octav, sawb, vsquant, not 'best'"),
    ({"activations": "best"}, "Activations must be one of max, percentile, mse, octav, vsquant, not 'best'"),
    ({"percentile": 0}, "Percentile must be above 0 and at most 100, not 0"),
    ({"batches": []}, "Batches must hold at least one"),
    ({"batches": [torch.rand(2, 1, 4, 4) * 9]}, "Sample must lie in the input range 0..1, not in .*"),
])
def test_wrong_arguments_are_refused(arguments, sentence):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        post_training(net, **{"batches": [torch.rand(2, 1, 4, 4)], **arguments})
