"""OCTAV against its fixed-point equation solved by bisection, published fixed points, and a search of the clip."""
from __future__ import annotations

import math
import re

import pytest
import torch

from golden.network import Grid
from sw.layers import OctavActivation, OctavWeight
from sw.quantizers.gradients import Gradient
from sw.quantizers.octav import Octav, octav, octav_clip, octav_codes


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def half_quantiles(distribution: str, count: int = 1 << 20) -> torch.Tensor:
    """Magnitudes of a symmetric distribution of deviation 1, at equal steps of probability."""
    p = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return math.sqrt(2) * torch.erfinv(p) if distribution == "gauss" else -torch.log1p(-p) / math.sqrt(2)


def stationary(density: str, noise: float) -> float:
    """The root of noise·s·P(|X| ≤ s) = E[(|X| − s)·1(|X| > s)] by bisection: no samples, no recursion."""
    def excess(s: float) -> float:
        if density == "gauss":
            tail = math.erfc(s / math.sqrt(2))
            beyond = 2 * math.exp(-s * s / 2) / math.sqrt(2 * math.pi) - s * tail
        else:
            tail = math.exp(-math.sqrt(2) * s)
            beyond = tail / math.sqrt(2)
        return beyond - noise * s * (1 - tail)

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low


FIXED_POINTS = {"gauss": {2: 1.739, 3: 2.161, 4: 2.562, 6: 3.287, 8: 3.924},
                "laplace": {2: 2.032, 3: 2.767, 4: 3.560, 6: 5.242, 8: 6.998}}


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("distribution", FIXED_POINTS)
def test_fixed_points(distribution, bits):
    x = half_quantiles(distribution, 1 << (22 if bits == 8 else 20))  # the clip at 8 bits is far out in the tail
    signed, unsigned = octav_clip(x, bits).item(), octav_clip(x, bits, signed=False).item()
    assert signed == pytest.approx(FIXED_POINTS[distribution][bits], rel=5e-4)
    assert signed == pytest.approx(stationary(distribution, 4.0 ** -bits / 3), rel=5e-4)
    assert unsigned == pytest.approx(stationary(distribution, 4.0 ** -bits / 12), rel=5e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_the_recursion_in_plain_numbers(signed, bits):
    x = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    x[::3] = 0
    values = [abs(v) if signed else max(v, 0.0) for v in x.tolist()]
    clip = sum(values) / sum(v > 0 for v in values)
    for _ in range(20):
        above = [v for v in values if v > clip]
        below = [v for v in values if 0 < v <= clip]
        clip = sum(above) / (4.0 ** -bits / (3 if signed else 12) * len(below) + len(above))
    assert octav_clip(x, bits, signed=signed).item() == pytest.approx(clip, rel=1e-4)


@pytest.mark.parametrize(("signed", "excess"), [(True, {2: 0.08, 3: 0.06, 4: 0.02, 6: 0.002}),
                                                (False, {2: 0.18, 3: 0.08, 4: 0.03, 6: 0.003})])
def test_the_error_is_near_that_of_the_best_clip(signed, excess):
    """The recursion takes s for the top level, where both grids have s − Δ: at few bits that costs."""
    x = half_quantiles("gauss", 20000)
    x = torch.cat([x, -x]) if signed else x

    def error(clip: float, bits: int) -> float:
        step = clip / 2 ** (bits - 1 if signed else bits)
        low, high = (-2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2 ** bits - 1)
        return (x - step * torch.round(x / step).clamp(low, high)).square().mean().item()

    for bits, expected in excess.items():
        best = min(error(i / 100, bits) for i in range(50, 500, 5))
        found = error(octav_clip(x, bits, signed=signed).item(), bits)
        assert found / best - 1 == pytest.approx(expected, abs=max(0.006, expected / 10))
        if not signed:
            assert error(octav_clip(x, bits).item(), bits) / best > 1.2, "the constant of signed values is wrong here"


def test_zeros_change_nothing():
    x = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sparse = torch.cat([x, torch.zeros(9000, dtype=torch.float64)])
    for signed in (True, False):
        assert octav_clip(sparse, 4, signed=signed).item() == pytest.approx(octav_clip(x, 4, signed=signed).item())
    assert octav_clip(x, 4, signed=False).item() == pytest.approx(octav_clip(x.clamp(min=0), 4, signed=False).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_data_have_a_positive_clip(dtype):
    assert octav_clip(torch.zeros(10, dtype=dtype), 4).item() == torch.finfo(dtype).tiny
    assert octav_clip(-torch.ones(10, dtype=dtype), 4, signed=False).item() == torch.finfo(dtype).tiny
    for value in (0.1, 0.7, 3e-5, 1e20):
        one = torch.zeros(10, dtype=dtype)
        one[3] = value
        for x in (one, torch.full((7,), value, dtype=dtype), one[3]):
            for bits in (2, 8):
                assert octav_clip(x, bits).item() == pytest.approx(value)


@pytest.mark.parametrize("start", [1e-6, 0.5, 2.0, 3.9, 1000.0])
def test_any_start_ends_at_the_same_clip(start):
    x = half_quantiles("gauss", 100000)
    assert octav_clip(x, 4, start=double(start)[0]).item() == pytest.approx(octav_clip(x, 4).item(), rel=1e-4)
    assert octav_clip(x, 4, start=octav_clip(x, 4), iterations=1).item() == pytest.approx(octav_clip(x, 4).item())


def test_a_clip_beyond_the_data_is_followed_by_the_mean():
    assert octav_clip(double(1, -2, 0, 6), 4, start=double(7)[0], iterations=1).item() == 3
    assert octav_clip(double(2, -2, 0, 2), 4, iterations=1).item() == 2


def test_steps_to_three_digits():
    x = half_quantiles("gauss")
    for bits, steps in ((2, 4), (4, 6), (8, 12)):
        last = octav_clip(x, bits).item()
        assert octav_clip(x, bits, iterations=steps).item() == pytest.approx(last, rel=1e-3)
        assert octav_clip(x, bits, iterations=steps - 2).item() != pytest.approx(last, rel=1e-3)


# Codes ----------------------------------------------------------------------------------------------------------------

def test_codes_by_hand():
    x = double(-9, -4.5, -4, -3.5, -0.5, -0.51, 0, 0.5, 2.5, 3, 3.5, 9)  # steps of 1
    assert octav_codes(x, double(4)[0], 3).tolist() == [0, 0, 0, 1, 4, 3, 4, 5, 7, 7, 7, 7]
    assert octav(x, double(4)[0], 3).tolist() == [-4, -4, -4, -3, 0, -1, 0, 1, 3, 3, 3, 3]
    assert octav_codes(x, double(4)[0], 2, signed=False).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 3, 3]
    assert octav_codes(double(0.24, 0.25, 3), double(1)[0], 1, signed=False).tolist() == [0, 1, 1]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("gradient", Gradient)
def test_gradients_are_those_that_were_asked_for(gradient, signed):
    x = double(-5, -1, 0.3, 1, 4).requires_grad_()
    octav(x, double(2)[0], 4, signed=signed, gradient=gradient).backward(double(1, 2, 4, 8, 16))
    expected = double(1, 2, 4, 8, 16) * gradient.factor(x.detach(), double(2)[0], signed=signed)
    assert x.grad is not None and x.grad.equal(expected)


def test_weights_are_dynamic_or_static():
    weight = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    clip = octav_clip(weight, 4)
    codes, scale = Octav(4).to_int(weight)
    assert scale.item() == clip.item() / 8 and codes.min() == 0 and codes.max() == 15
    assert Octav(4).to_int(3 * weight)[0].equal(codes)
    codes, scale = Octav(4, clip=0.5).to_int(weight)
    assert scale.item() == 1 / 16
    assert (codes - 8).equal(torch.floor(weight * 16 + 0.5).clamp(-8, 7).long())
    assert Octav(4).grid is Grid.TWOS_COMPLEMENT


def test_clipped_weights_keep_a_gradient_by_default():
    weight = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    clip = octav_clip(weight, 3)
    Octav(3)(weight).sum().backward()
    assert weight.grad is not None and (weight.detach().abs() > clip).sum() > 10
    torch.testing.assert_close(weight.grad, torch.minimum(clip / weight.detach().abs(), double(1)[0]))


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Octav(1), "Bits must be at least 2 for signed OCTAV, not 1"),
    (lambda: octav_clip(double(1), 1), "Bits must be at least 2 for signed OCTAV, not 1"),
    (lambda: octav_codes(double(1), double(1)[0], 1), "Bits must be at least 2 for signed OCTAV, not 1"),
    (lambda: Octav(4, clip=0.0), "Clip must be positive, not 0.0"),
    (lambda: Octav(4, clip=float("nan")), "Clip must be positive, not nan"),
    (lambda: Octav(4, "x"), "Gradient must be one of ste, pwl, mad, not 'x'"),
    (lambda: OctavActivation(4, gradient="x"), "Gradient must be one of ste, pwl, mad, not 'x'"),
    (lambda: OctavActivation(1, signed=True), "Bits must be at least 2 for a signed activation, not 1"),
    (lambda: OctavActivation(4).scale, "OctavActivation must be trained or calibrated before it is used"),
    (lambda: OctavActivation(4).eval()(double(1)), "OctavActivation must be trained or calibrated before it is used"),
])
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()


def test_static_weights_keep_the_clip_of_their_first_use():
    weight = torch.randn(500, generator=torch.Generator().manual_seed(1))
    module = OctavWeight(4, Gradient.PWL)
    assert module(weight).equal(Octav(4)(weight))
    clip = octav_clip(weight, 4).item()
    assert module.clip.item() == clip and module.grid is Grid.TWOS_COMPLEMENT
    codes, scale = module.to_int(3 * weight)
    assert codes.equal(Octav(4, clip=clip).to_int(3 * weight)[0]) and scale.item() == clip / 8
    again = OctavWeight(4)
    again.load_state_dict(module.state_dict())
    assert again.to_int(3 * weight)[0].equal(codes) and not Octav(4).to_int(3 * weight)[0].equal(codes)
    x = (3 * weight).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None and x.grad.equal((x.detach().abs() <= clip).float())
    assert f"clip={clip:.4g}" in repr(module)


# The module -----------------------------------------------------------------------------------------------------------

def batch(scale: float, seed: int) -> torch.Tensor:
    return scale * torch.randn(1000, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("signed", [True, False])
def test_a_dynamic_clip_is_the_batch_s_and_a_moving_mean_is_kept(signed):
    module = OctavActivation(4, signed=signed)
    first, second = batch(1, 0), batch(3, 1)
    clip = octav_clip(first, 4, signed=signed)
    assert module(first).equal(octav(first, clip, 4, signed=signed)) and module.clip.equal(clip)
    warm = octav_clip(second, 4, signed=signed, start=clip, iterations=module.WARM_STEPS)
    assert module(second).equal(octav(second, warm, 4, signed=signed))
    kept = 0.9 * clip.item() + 0.1 * warm.item()
    assert module.clip.item() == pytest.approx(kept)
    module.eval()
    assert module(second).equal(octav(second, module.clip, 4, signed=signed))
    assert module.clip.item() == pytest.approx(kept), "evaluation leaves it alone"


@pytest.mark.parametrize("signed", [True, False])
def test_the_kept_clip_arrives_where_the_whole_recursion_does(signed):
    module = OctavActivation(4, signed=signed)
    module(batch(1, 0))
    for _ in range(100):
        module(batch(3, 1))
    assert module.clip.item() == pytest.approx(octav_clip(batch(3, 1), 4, signed=signed).item(), rel=1e-3)


def test_a_static_clip_stays():
    module = OctavActivation(4, dynamic=False)
    module(batch(1, 0))
    clip = module.clip.clone()
    assert module(batch(3, 1)).equal(octav(batch(3, 1), clip, 4, signed=False)) and module.clip.equal(clip)
    module.calibrate(batch(3, 1))
    assert module.clip.item() == pytest.approx(octav_clip(batch(3, 1), 4, signed=False).item(), rel=1e-4)


def test_a_module_keeps_its_clip_in_its_state():
    module = OctavActivation(4)
    module(batch(1, 0))
    other = OctavActivation(4).eval()
    other.load_state_dict(module.state_dict())
    assert other(batch(2, 3)).equal(module.eval()(batch(2, 3)))


def test_a_dead_batch_does_no_harm():
    module = OctavActivation(4)
    x = torch.full((5,), -1.0, requires_grad=True)
    module(x).sum().backward()
    assert module.clip.item() == pytest.approx(module.FLOOR)
    assert x.grad is not None and x.grad.tolist() == [0] * 5
    assert module.eval()(torch.ones(2)).isfinite().all()
