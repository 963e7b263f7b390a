"""The quantizers against the papers' formulas, by closed form, by hand and by finite differences."""
from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from golden.network import Grid
from sw.quantizers.dorefa import Dorefa
from sw.quantizers.maxabs import MaxAbs
from sw.quantizers.octav import Octav
from sw.quantizers.pact import pact, pact_codes
from sw.quantizers.rounding import round_half_up, round_half_up_ste
from sw.quantizers.sawb import Sawb
from sw.quantizers.symmetric import symmetric, symmetric_codes

BITS = (1, 2, 3, 4, 8)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_rounding_sends_every_tie_up():
    ties = torch.arange(-10, 10, dtype=torch.float64) + 0.5
    assert round_half_up(ties).equal(ties + 0.5)
    assert not torch.round(ties).equal(ties + 0.5)


def test_rounding_passes_the_gradient_straight_through():
    x = double(-1.3, 0.5, 2.0).requires_grad_()
    (round_half_up_ste(x) * double(2, 3, 5)).sum().backward()
    assert x.grad is not None and x.grad.equal(double(2, 3, 5))


@pytest.mark.parametrize("bits", [0, 17, 2.0, True, None])
def test_bits_are_refused_by_message(bits):
    sentence = re.escape(f"Bits must be an integer between 1 and 16, not {bits!r}")
    for call in (Dorefa, MaxAbs, Octav, Sawb, lambda b: pact(double(1), double(1), b),
                 lambda b: symmetric(double(1), double(1), b)):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            call(bits)


# PACT -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", BITS)
def test_pact_codes_at_the_ends_and_on_every_midpoint(bits, dtype):
    levels = 2 ** bits - 1
    alpha = torch.tensor(levels * 0.25, dtype=dtype)  # a step of ¼: midpoints are exact, and ties
    below = torch.nextafter(alpha, torch.zeros((), dtype=dtype))
    ends = torch.stack([-alpha, torch.zeros((), dtype=dtype), below, alpha, 2 * alpha])
    assert pact_codes(ends, alpha, bits).tolist() == [0, 0, levels, levels, levels]
    midpoints = (torch.arange(levels, dtype=dtype) + 0.5) / 4
    assert pact_codes(midpoints, alpha, bits).tolist() == list(range(1, levels + 1))
    assert pact_codes(midpoints - 2**-12, alpha, bits).tolist() == list(range(levels))


@pytest.mark.parametrize("bits", BITS)
def test_pact_is_equations_1_and_2(bits):
    x = torch.linspace(-3, 7, 1001, dtype=torch.float64)
    alpha = double(math.sqrt(19))[0]  # no point of x is a tie
    clipped = 0.5 * (x.abs() - (x - alpha).abs() + alpha)
    levels = 2 ** bits - 1
    expected = torch.floor(clipped * levels / alpha + 0.5) * alpha / levels
    torch.testing.assert_close(pact(x, alpha, bits), expected, rtol=1e-12, atol=1e-12)
    assert pact(x, alpha, bits).max() == alpha


def test_pact_gradients_are_equation_3():
    alpha = double(2)[0].requires_grad_()
    x = double(-1, 0, 0.4, 1.999, 2, 3).requires_grad_()
    grad = double(1, 2, 4, 8, 16, 32)
    pact(x, alpha, 2).backward(grad)
    assert x.grad is not None and x.grad.tolist() == [0, 2, 4, 8, 0, 0]
    assert alpha.grad is not None and alpha.grad.item() == 48, "the sum over the elements with x ≥ α, not their mean"


def test_pact_gradient_to_alpha_is_a_scalar_over_every_dimension():
    alpha = torch.tensor(1.0, requires_grad=True)
    pact(torch.full((2, 3, 4, 5), 1.5), alpha, 4).sum().backward()
    assert alpha.grad is not None and alpha.grad.shape == () and alpha.grad.item() == 2 * 3 * 4 * 5


@pytest.mark.parametrize("bits", BITS)
def test_pact_gradients_equal_finite_differences_of_the_clip(bits):
    # Quantization is a staircase; what eq. 3 differentiates is the clip under it (eq. 1), smooth away from 0 and α.
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(50, dtype=torch.float64, generator=generator) * 2
    weights = torch.randn(50, dtype=torch.float64, generator=generator)
    alpha = double(1.5)[0]
    assert ((x.abs() > 1e-3) & ((x - alpha).abs() > 1e-3)).all()

    def clipped(x, alpha):
        return (weights * torch.minimum(x.clamp(min=0), alpha)).sum()

    x_leaf, alpha_leaf = x.clone().requires_grad_(), alpha.clone().requires_grad_()
    (weights * pact(x_leaf, alpha_leaf, bits)).sum().backward()
    h = 1e-6
    assert alpha_leaf.grad is not None and x_leaf.grad is not None
    difference = (clipped(x, alpha + h) - clipped(x, alpha - h)) / (2 * h)
    torch.testing.assert_close(alpha_leaf.grad, difference, rtol=1e-6, atol=1e-8)
    for i in range(50):
        step = torch.zeros_like(x)
        step[i] = h
        difference = (clipped(x + step, alpha) - clipped(x - step, alpha)) / (2 * h)
        torch.testing.assert_close(x_leaf.grad[i], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bits", BITS)
def test_pact_itself_is_smooth_in_alpha_above_it(bits):
    x, alpha = double(3, 4, 5), double(1.5)[0].requires_grad_()
    pact(x, alpha, bits).sum().backward()
    difference = (pact(x, alpha.detach() + 1e-6, bits) - pact(x, alpha.detach() - 1e-6, bits)).sum() / 2e-6
    assert alpha.grad is not None and alpha.grad.item() == pytest.approx(difference.item(), rel=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_pact_plus_has_the_values_of_pact(bits):
    x = torch.linspace(-1, 3, 401)
    assert pact(x, torch.tensor(2.0), bits, plus=True).equal(pact(x, torch.tensor(2.0), bits))


def test_pact_plus_gradients_by_hand():
    alpha = double(3)[0].requires_grad_()  # steps of 1 at two bits
    x = double(-1, 0, 0.25, 0.5, 1.75, 2.999, 3, 5).requires_grad_()
    slopes = double(0, 0, -0.25, 0.5, 0.25, 0.001, 3, 3) / 3
    for i in range(8):
        x.grad = alpha.grad = None
        pact(x, alpha, 2, plus=True)[i].backward()
        assert alpha.grad is not None and alpha.grad.item() == pytest.approx(slopes[i].item(), abs=1e-12)
        assert x.grad is not None and x.grad[i].item() == (2 <= i <= 5)


@pytest.mark.parametrize("bits", BITS)
def test_pact_plus_gradient_equals_finite_differences_with_the_rounding_errors_held(bits):
    x = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(bits)) * 2
    weights = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(bits + 100))
    alpha, levels, h = double(1.5)[0], 2 ** bits - 1, 1e-6
    assert ((x.abs() > 2 * h) & ((x - alpha).abs() > 2 * h)).all()
    z = x.clamp(min=0) * levels / alpha
    error = torch.where((x > 0) & (x < alpha), torch.floor(z + 0.5) - z, 0)

    def held(alpha):
        step = alpha / levels
        return (weights * step * (torch.minimum(x.clamp(min=0), alpha) / step + error)).sum()

    leaf = alpha.clone().requires_grad_()
    (weights * pact(x, leaf, bits, plus=True)).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, (held(alpha + h) - held(alpha - h)) / (2 * h), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pact_plus_is_nearer_to_the_staircase_than_pact(bits):
    # ∫ x·y(x, α) dx is smooth in α though y is a staircase: its derivative by difference needs no formula.
    x = torch.linspace(0, 3, 600001, dtype=torch.float64)
    alpha, h = double(2)[0], 0.01
    true = ((x * pact(x, alpha + h, bits)).mean() - (x * pact(x, alpha - h, bits)).mean()) / (2 * h)
    found = []
    for plus in (False, True):
        leaf = alpha.clone().requires_grad_()
        (x * pact(x, leaf, bits, plus=plus)).mean().backward()
        assert leaf.grad is not None
        found.append(abs((leaf.grad - true).item()))
    assert found[1] < 0.7 * found[0]


# Symmetric ------------------------------------------------------------------------------------------------------------

def test_symmetric_codes_have_their_zero_in_the_middle():
    x = double(-100, -128.5, -128.49, -127.5, -0.5, -0.51, 0, 0.5, 126.5, 127, 1000)
    assert symmetric_codes(x, double(127)[0], 8).tolist() == [28, 0, 0, 1, 128, 127, 128, 129, 255, 255, 255]
    assert symmetric(x, double(127)[0], 8).tolist() == [-100, -128, -128, -127, 0, -1, 0, 1, 127, 127, 127]


def test_symmetric_gradients():
    clip = double(127)[0].requires_grad_()
    x = double(-200, -128, -127.9, 0, 126, 127, 300).requires_grad_()
    symmetric(x, clip, 8).backward(double(1, 2, 4, 8, 16, 32, 64))
    assert x.grad is not None and x.grad.tolist() == [0, 0, 4, 8, 16, 0, 0]
    assert clip.grad is not None and clip.grad.item() == pytest.approx(96 - 3 * 128 / 127)
    lower, upper = (symmetric(double(-200, -300, 400), clip.detach() + h, 8).sum() for h in (-1e-6, 1e-6))
    assert ((upper - lower) / 2e-6).item() == pytest.approx(1 - 2 * 128 / 127, rel=1e-6)


def test_symmetric_refuses_one_bit():
    with pytest.raises(ValueError, match=r"^Bits must be at least 2 for a signed activation, not 1$"):
        symmetric(double(1), double(1)[0], 1)


# Weights --------------------------------------------------------------------------------------------------------------

def on_grid(quantizer, weight: torch.Tensor) -> torch.Tensor:
    """scale·W from the integer form."""
    codes, scale = quantizer.to_int(weight)
    integers = (quantizer.grid.p(quantizer.bits) * codes - quantizer.grid.c(quantizer.bits)).double()
    return integers * scale.reshape(-1, *(1,) * (weight.dim() - 1))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dorefa_is_the_papers_formula(bits):
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tanh = np.tanh(weight.numpy())
    levels = 2 ** bits - 1
    unit = np.floor(levels * (tanh / (2 * np.abs(tanh).max()) + 0.5) + 0.5) / levels
    np.testing.assert_allclose(Dorefa(bits)(weight).numpy(), 2 * unit - 1, rtol=0, atol=1e-15)
    codes, scale = Dorefa(bits).to_int(weight)
    assert scale.item() == 1 / levels and scale.dtype == torch.float64
    assert codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() <= levels
    assert {0, levels} & set(codes.flatten().tolist()), "the largest weight is at an end of the grid"
    assert Dorefa(bits).grid is Grid.ODD


def test_dorefa_gradient_is_that_of_the_normalisation():
    weight = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    mix = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (Dorefa(4)(weight) * mix).sum().backward()
    found = weight.grad
    weight.grad = None
    tanh = torch.tanh(weight)
    (tanh / tanh.abs().max() * mix).sum().backward()
    assert found is not None and weight.grad is not None
    torch.testing.assert_close(found, weight.grad)


def test_dorefa_one_bit_is_sign_times_mean_magnitude():
    weight = double(-3, -0.0, 0, 0.5, 4.5).requires_grad_()
    value = Dorefa(1)(weight)
    assert value.tolist() == [-1.6, 1.6, 1.6, 1.6, 1.6]
    value.backward(double(1, 2, 3, 4, 5))
    assert weight.grad is not None and weight.grad.tolist() == [1, 2, 3, 4, 5]
    codes, scale = Dorefa(1).to_int(weight)
    assert codes.tolist() == [0, 1, 1, 1, 1] and scale.item() == 1.6


def test_maxabs_spans_the_symmetric_range():
    weight = double(-1.27, 0.014, 0.0151, 0.005, -0.005, 0.63)
    codes, scale = MaxAbs(8).to_int(weight)
    assert (codes - 128).tolist() == [-127, 1, 2, 1, 0, 63] and scale.item() == 1.27 / 127
    assert MaxAbs(8).grid is Grid.TWOS_COMPLEMENT


def test_maxabs_per_channel_gives_every_channel_its_scale():
    weight = torch.stack([double(1, -2), double(0.5, 0.25), double(0, 0)])
    codes, scale = MaxAbs(3, per_channel=True).to_int(weight)
    assert scale[:2].tolist() == [2 / 3, 0.5 / 3]
    assert (codes - 4).tolist() == [[2, -3], [3, 2], [0, 0]]


def test_maxabs_refuses_one_bit():
    with pytest.raises(ValueError, match=r"^Bits must be at least 2 for two's complement weights, not 1$"):
        MaxAbs(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quantizer", [*(Dorefa(b) for b in BITS), MaxAbs(2), MaxAbs(8), MaxAbs(4, per_channel=True),
                                       *(Sawb(b) for b in (1, 2, 3, 4, 5)), Octav(2), Octav(4), Octav(8, clip=2.5)],
                         ids=repr)
def test_integers_are_what_training_sees(quantizer, dtype):
    for seed in range(5):
        weight = torch.randn(6, 3, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(quantizer(weight).double(), on_grid(quantizer, weight), rtol=1e-6, atol=1e-9)
    zeros = torch.zeros(2, 3, dtype=dtype)
    assert quantizer(zeros).isfinite().all() and on_grid(quantizer, zeros).isfinite().all()


def test_maxabs_gradient_is_one():
    weight = double(-2, 0.3, 1).requires_grad_()
    MaxAbs(4)(weight).backward(double(1, 2, 3))
    assert weight.grad is not None and weight.grad.tolist() == pytest.approx([1, 2, 3])
