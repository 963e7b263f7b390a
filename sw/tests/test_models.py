"""The networks: shapes, the width multiplier, full-precision ends, and shortcuts of their own width."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from sw.export import ExportError, export
from sw.layers import PactActivation, QuantConv2d, QuantLinear, SymmetricActivation
from sw.models import MODELS, Precision
from sw.models.precision import scaled
from sw.quantizers.maxabs import MaxAbs

SHAPES = [("digits-plain", (1, 8, 8)), ("digits-residual", (1, 8, 8)), ("cnn", (1, 28, 28)), ("cnn", (3, 32, 32)),
          ("resnet-8", (1, 28, 28)), ("resnet-8", (3, 32, 32)), ("resnet-20", (3, 32, 32))]
W2A2 = Precision(weight_bits=2, activation_bits=2)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "shape"), SHAPES)
@pytest.mark.parametrize("precision", [Precision(), W2A2], ids=["fp32", "w2a2"])
def test_every_network_takes_every_image(name, shape, precision):
    model = MODELS[name](precision, shape=shape, classes=7, width=0.5)
    assert model(torch.rand(2, *shape)).shape == (2, 7)


def test_resnet_20_has_the_published_size_and_projections():
    """269 722 is the paper's, with no parameters in its shortcuts; ours has two projections with batch norm."""
    assert count(MODELS["resnet-20"](Precision(), shape=(3, 32, 32))) == 269_722 + 16 * 32 + 32 * 64 + 2 * (32 + 64)


@pytest.mark.parametrize(("name", "layers"), [("resnet-8", 8), ("resnet-20", 20)])
def test_resnets_have_as_many_layers_as_their_names_say(name, layers):
    modules = [m for m in MODELS[name](W2A2).modules() if isinstance(m, QuantConv2d | QuantLinear)]
    assert sum(not (isinstance(m, QuantConv2d) and m.kernel_size == (1, 1)) for m in modules) == layers
    assert len(modules) == layers + 2


def test_the_width_multiplier_rounds_half_up_and_keeps_one_channel():
    assert [scaled(16, width) for width in (1, 0.5, 1.41, 0.01)] == [16, 8, 23, 1]
    assert scaled(1, 2.5) == 3 and scaled(2, 0.25) == 1
    plain = MODELS["cnn"](Precision(), width=1.5)
    assert [m.out_channels for m in plain.modules() if isinstance(m, nn.Conv2d)] == [24, 48, 96]


def test_full_precision_ends_train_and_are_refused_by_name():
    precision = Precision(weight_bits=2, activation_bits=2, edge_bits=None)
    model = MODELS["resnet-8"](precision, shape=(1, 28, 28))
    assert type(model.stem) is nn.Conv2d and type(model.linear) is nn.Linear
    assert type(model.input) is nn.Identity and type(model.stages[2].act2) is nn.ReLU
    assert all(isinstance(m, QuantConv2d) for name, m in model.named_modules()
               if isinstance(m, nn.Conv2d) and name != "stem")
    assert model.stages[1].shortcut[2].bits == 8
    model(torch.rand(2, 1, 28, 28)).sum().backward()
    with pytest.raises(ExportError, match=r"^Node 'input' must follow an InputQuantizer$"):
        export(model, torch.rand(1, 1, 28, 28))


@pytest.mark.parametrize("weights", ["dorefa", "sawb"])
def test_the_residual_stream_has_its_own_width(weights):
    precision = Precision(weight_bits=2, activation_bits=2, shortcut_bits=8, weights=weights)
    model = MODELS["resnet-8"](precision, shape=(1, 28, 28))
    assert model.act.bits == 8 and [block.act2.bits for block in model.stages] == [8, 8, 8]
    assert all(isinstance(block.branch, PactActivation) and block.branch.bits == 2 for block in model.stages)
    for block in model.stages[1:]:
        projection, _, quantizer = block.shortcut
        assert projection.quantizer.bits == 8 and isinstance(quantizer, SymmetricActivation)
        assert isinstance(projection.quantizer, MaxAbs) == (weights == "sawb")
    read = {}
    for i, block in enumerate(model.stages):
        block.conv1.register_forward_pre_hook(lambda m, x, i=i: read.update({i: x[0]}))
    with torch.no_grad():
        model.eval()(torch.rand(4, 1, 28, 28))
    assert all(len(x.unique()) <= 4 for x in read.values()), "convolutions read codes of two bits"


def test_without_a_width_of_their_own_shortcuts_read_what_the_branch_reads():
    model = MODELS["resnet-8"](W2A2)
    assert all(type(block.branch) is nn.Identity for block in model.stages)
    assert [block.act2.bits for block in model.stages] == [2, 2, 8]
    assert model.stages[1].shortcut[0].quantizer.bits == 2
    quantized = [m for m in model.modules() if isinstance(m, QuantConv2d | QuantLinear)]
    assert len(quantized) == 10
