"""SAWB and the three gradients against closed forms, a brute-force search of the clip, and finite differences."""
from __future__ import annotations

import math
import re

import pytest
import torch

from golden.network import Grid
from sw.quantizers.gradients import Gradient, with_gradient
from sw.quantizers.sawb import COEFFICIENTS, Sawb, sawb_clip


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def quantiles(distribution: str, count: int = 20001) -> torch.Tensor:
    """Points of a distribution of mean 0 and deviation 1 at equal steps of probability."""
    p = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    centred = 2 * p - 1
    if distribution == "gauss":
        return math.sqrt(2) * torch.erfinv(centred)
    if distribution == "laplace":
        return -centred.sign() * torch.log1p(-centred.abs()) / math.sqrt(2)
    return math.sqrt(3) * centred


def best_clip(x: torch.Tensor, bits: int) -> float:
    """The clip of least squared error on 2^bits levels from −α to α, by search: no formula of SAWB's."""
    def error(clip: float) -> float:
        levels = torch.linspace(-clip, clip, 2 ** bits, dtype=torch.float64)
        nearest = torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)
        return (x - levels[nearest]).square().mean().item()

    largest = x.abs().max().item()
    coarse = min(range(1, 61), key=lambda i: error(largest * i / 60))
    return min((largest * (coarse + i / 40) / 60 for i in range(-39, 40)), key=error)


# Gradients ------------------------------------------------------------------------------------------------------------

X = double(-4, -2, -1.9, -0.5, 0, 0.5, 2, 2.5, 8)


@pytest.mark.parametrize(("gradient", "signed", "expected"), [
    ("ste", True, [1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ("pwl", True, [0, 1, 1, 1, 1, 1, 1, 0, 0]),
    ("mad", True, [0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.25]),
    ("ste", False, [0, 0, 0, 0, 1, 1, 1, 1, 1]),
    ("pwl", False, [0, 0, 0, 0, 1, 1, 1, 0, 0]),
    ("mad", False, [0, 0, 0, 0, 1, 1, 1, 0.8, 0.25]),
])
def test_gradients_by_hand(gradient, signed, expected):
    assert Gradient(gradient).factor(X, double(2)[0], signed=signed).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("gradient", Gradient)
def test_gradients_equal_finite_differences_of_what_they_differentiate(gradient):
    x = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    clip = double(1.7)[0]
    attenuation = torch.minimum(x.abs(), clip) / x.abs()  # of MAD: clip(x) = a·x, a constant
    smooth = {Gradient.STE: lambda x: x, Gradient.PWL: lambda x: x.clamp(-clip, clip),
              Gradient.MAD: lambda x: attenuation * x}[gradient]
    h = 1e-6
    assert ((x.abs() - clip).abs() > h).all()
    difference = (smooth(x + h) - smooth(x - h)) / (2 * h)
    torch.testing.assert_close(gradient.factor(x, clip), difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("gradient", Gradient)
def test_gradients_are_finite_at_zero_and_at_the_smallest_clip(gradient, signed):
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    factor = gradient.factor(torch.tensor([0.0, -0.0, tiny, 1.0, 1e38]), tiny, signed=signed)
    assert factor.isfinite().all() and (factor >= 0).all() and (factor <= 1).all()


@pytest.mark.parametrize("gradient", Gradient)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_value_is_passed_on_with_its_gradient(gradient, signed, dtype):
    clip = torch.tensor(1.5, dtype=dtype)
    edges = [clip, torch.nextafter(clip, clip * 0), torch.nextafter(clip, clip * 2)]
    others = [clip * 0, clip * 3, clip * -3, torch.nextafter(clip * 0, -clip)]
    x = torch.stack([*edges, *(-edge for edge in edges), *others]).requires_grad_()
    value = torch.arange(len(x), dtype=dtype)
    result = with_gradient(x, value, gradient, clip, signed=signed)
    assert result.tolist() == value.tolist()
    result.backward(value + 1)
    assert x.grad is not None and torch.equal(x.grad, (value + 1) * gradient.factor(x.detach(), clip, signed=signed))


def test_unknown_gradients_are_refused():
    with pytest.raises(ValueError, match=r"^Gradient must be one of ste, pwl, mad, not 'lsq'$"):
        Gradient("lsq")


# SAWB -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("distribution", ["gauss", "laplace", "uniform"])
def test_clips_are_within_five_percent_of_the_best(distribution, bits):
    x = quantiles(distribution)
    for scale in (1, 0.03):
        assert sawb_clip(scale * x, bits).item() == pytest.approx(scale * best_clip(x, bits), rel=0.05)


def test_the_search_finds_the_known_optima_of_four_levels():
    for distribution, clip in (("gauss", 1.494), ("laplace", 1.631), ("uniform", 1.299)):
        assert best_clip(quantiles(distribution), 2) == pytest.approx(clip, rel=0.005)


@pytest.mark.parametrize("bits", COEFFICIENTS)
def test_the_clip_is_the_closed_form(bits):
    weight = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    c1, c2 = COEFFICIENTS[bits]
    values = weight.flatten().tolist()
    expected = c1 * math.sqrt(sum(w * w for w in values) / 60) - c2 * sum(map(abs, values)) / 60
    assert sawb_clip(weight, bits).item() == pytest.approx(expected, rel=1e-12)


def test_one_bit_is_the_mean_magnitude():
    weight = double(-3, 0.0, 0.5, 4.5)
    codes, scale = Sawb(1).to_int(weight)
    assert codes.tolist() == [0, 1, 1, 1] and scale.item() == 2
    assert sawb_clip(quantiles("laplace"), 1).item() == pytest.approx(best_clip(quantiles("laplace"), 1), rel=0.01)


def test_weights_of_one_magnitude_fall_back_to_it():
    weight = double(-0.5, 0.5, 0.5, -0.5)
    assert sawb_clip(weight, 2).item() == pytest.approx((3.12 - 2.064) * 0.5), "positive: no fall-back"
    for bits in (4, 5):
        assert sawb_clip(weight, bits).item() == 0.5
        codes, scale = Sawb(bits).to_int(weight)
        levels = 2 ** bits - 1
        assert codes.tolist() == [0, levels, levels, 0] and scale.item() == 0.5 / levels


def test_a_single_outlier_and_zeros_have_finite_clips():
    outlier = torch.zeros(100, dtype=torch.float64)
    outlier[7] = 10
    assert sawb_clip(outlier, 2).item() == pytest.approx(3.12 * 1 - 2.064 * 0.1)
    for bits in range(1, 6):
        for dtype in (torch.float32, torch.float64):
            zeros = torch.zeros(2, 3, dtype=dtype)
            codes, scale = Sawb(bits).to_int(zeros)
            assert 0 < scale.item() < 1e-30 and codes.unique().tolist() == [2 ** (bits - 1)]
            assert Sawb(bits)(zeros).abs().max() < 1e-30


def test_two_bits_are_four_levels_without_zero():
    weight = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    clip = sawb_clip(weight, 2).item()
    assert Sawb(2)(weight).unique().tolist() == pytest.approx([-clip, -clip / 3, clip / 3, clip])
    assert Sawb(2).grid is Grid.ODD


@pytest.mark.parametrize("bits", range(1, 6))
def test_every_weight_goes_to_its_nearest_level_and_ties_go_up(bits):
    weight = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    clip = sawb_clip(weight, bits)
    levels = torch.linspace(-1, 1, 2 ** bits, dtype=torch.float64) * clip
    nearest = (weight[:, None] - levels).abs().argmin(1)
    torch.testing.assert_close(Sawb(bits)(weight), levels[nearest])
    assert Sawb(bits).to_int(weight)[0].equal(nearest)
    tied = double(-1, 1, 0.0, 0.0)  # a tie at two bits between −α/3 and α/3
    assert Sawb(2).to_int(tied)[0].tolist()[2:] == [2, 2]


@pytest.mark.parametrize(("gradient", "clipped"), [("pwl", 0.0), ("ste", 1.0), ("mad", None)])
def test_gradients_of_clipped_weights(gradient, clipped):
    weight = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    clip = sawb_clip(weight, 2)
    assert Sawb(2) == Sawb(2, Gradient.PWL)
    Sawb(2, gradient)(weight).sum().backward()
    beyond = weight.detach().abs() > clip
    assert 5 < beyond.sum() < 30 and weight.grad is not None
    assert weight.grad[~beyond].eq(1).all()
    expected = clip / weight.detach().abs() if clipped is None else torch.full_like(weight, clipped)
    torch.testing.assert_close(weight.grad[beyond], expected.detach()[beyond])


def test_what_sawb_has_no_coefficients_for_is_refused():
    for bits in (6, 8):
        sentence = re.escape(f"Bits must be between 1 and 5 for SAWB, not {bits}")
        for call in (Sawb, lambda b: sawb_clip(double(1), b)):
            with pytest.raises(ValueError, match=f"^{sentence}$"):
                call(bits)
    with pytest.raises(ValueError, match=r"^Gradient must be one of ste, pwl, mad, not 'x'$"):
        Sawb(2, "x")
