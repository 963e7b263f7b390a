"""The exporter: the integer network computes the modules' own codes, and what cannot be exported is refused by name."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from golden.execute import accumulate, execute
from golden.network import Add, Conv2d, Kind
from golden.requantize import Widths
from sw.export import ExportError, export, logits
from sw.layers import (
    ActivationQuantizer,
    GlobalAveragePool,
    InputQuantizer,
    OctavActivation,
    PactActivation,
    QuantConv2d,
    QuantLinear,
    ResidualAdd,
    SymmetricActivation,
    frozen,
)
from sw.models import MODELS, Precision, ResidualBlock
from sw.quantizers.dorefa import Dorefa
from sw.quantizers.maxabs import MaxAbs
from sw.quantizers.octav import Octav
from sw.quantizers.sawb import Sawb


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Weights, batch-norm statistics, gammas of both signs and 0, and clips as no training would leave them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter):
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, QuantConv2d | QuantLinear):
                module.weight.copy_(normal(module.weight))
                if module.bias is not None:
                    module.bias.copy_(normal(module.bias))
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.copy_(normal(module.running_mean))
                module.running_var.copy_(normal(module.running_var).exp() * 4)
                if module.affine:
                    module.weight.copy_(normal(module.weight) * 2)
                    module.weight[::3] = 0
                    module.bias.copy_(normal(module.bias) + 0.5)
            elif isinstance(module, PactActivation | SymmetricActivation):
                module.clip.fill_(1.5 + torch.rand((), generator=generator))
            elif isinstance(module, OctavActivation):
                module.calibrate(torch.randn(500, generator=generator))
    return model


def own_codes(model: nn.Module, sample: torch.Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every quantizer's codes in the model's own float64 forward, by module name, and the output; no torch.fx."""
    reference = frozen(model)
    codes: dict[str, np.ndarray] = {}
    for name, module in reference.named_modules():
        if isinstance(module, ActivationQuantizer):
            def keep(module, args, name=name):
                codes[name] = module.to_int(args[0]).numpy()
            module.register_forward_pre_hook(keep)
    with torch.no_grad():
        output = reference(sample.double()).numpy()
    return codes, output


def check(model: nn.Module, sample: torch.Tensor):
    """Export, and compare every code and the output with the model's own forward."""
    exported = export(model, sample)
    network = exported.network
    values = execute(network, exported.encode(sample))
    codes, output = own_codes(model, sample)
    assert codes and set(codes) <= set(values)
    for name, expected in codes.items():
        np.testing.assert_array_equal(values[name], expected.reshape(values[name].shape), err_msg=name)
    np.testing.assert_allclose(logits(network, values).reshape(output.shape), output, rtol=1e-9, atol=1e-9)
    for layer in exported.report.layers:
        assert layer.float64_differences == 0 and layer.mismatches == 0, layer
        assert layer.compared == values[layer.tensor].size
    return exported


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pact(bits: int = 4) -> PactActivation:
    return PactActivation(bits, alpha=2)


def conv(i: int, o: int, kernel_size=3, **options) -> QuantConv2d:
    return QuantConv2d(i, o, kernel_size, **{"quantizer": Dorefa(4), **options})


def entrance() -> InputQuantizer:
    return InputQuantizer(scale=1 / 255)


NETWORKS = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("resnet") else name for name in MODELS]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", NETWORKS)
def test_reference_networks_keep_every_code(name, bits):
    model = randomize(MODELS[name](Precision(weight_bits=bits, activation_bits=bits), shape=(1, 8, 8)), bits)
    report = check(model, images(3, 1, 8, 8)).report
    assert all(layer.float32_differences < layer.compared / 50 for layer in report.layers)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(("weights", "activations"), [("sawb", "pact+"), ("octav", "octav")])
@pytest.mark.parametrize("name", NETWORKS)
def test_reference_networks_of_other_methods_keep_every_code(name, weights, activations, bits):
    precision = Precision(weight_bits=bits, activation_bits=bits, weights=weights, activations=activations)
    check(randomize(MODELS[name](precision, shape=(1, 8, 8)), bits), images(3, 1, 8, 8))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_residual_blocks_keep_every_code(stride, bits):
    precision = Precision(weight_bits=bits, activation_bits=bits)
    block = nn.Sequential(entrance(), conv(2, 4), nn.BatchNorm2d(4), pact(bits),
                          ResidualBlock(precision, 4, 4 * stride, stride=stride))
    for seed in range(3):
        network = check(randomize(block, seed), images(2, 2, 7, 7, seed=seed)).network
        skips = [op for op in network.operations if isinstance(op, Conv2d) and op.skip is not None]
        assert len(skips) == 1
        assert network.tensor(str(skips[0].skip)).zero_point == (128 if stride == 2 else 0)


class Branches(nn.Module):
    """Two quantized branches of different scales, one of them signed, that are added."""

    def __init__(self):
        super().__init__()
        self.input = entrance()
        self.a, self.norm, self.act_a = conv(1, 3), nn.BatchNorm2d(3), pact(3)
        self.b, self.act_b = conv(1, 3), SymmetricActivation(5, clip=1)
        self.act = SymmetricActivation(4, clip=2)
        self.head = QuantLinear(27, 2, quantizer=MaxAbs(5))

    def forward(self, x):
        x = self.input(x)
        a, b = self.act_a(self.norm(self.a(x))), self.act_b(self.b(x))
        return self.head(self.act(a + b).flatten(1))


class Twice(nn.Module):
    """Modules called more than once, and with named arguments."""

    def __init__(self):
        super().__init__()
        self.input, self.conv, self.act, self.add = entrance(), conv(1, 1, padding=1), pact(), ResidualAdd()

    def forward(self, x):
        x = self.act(x=self.conv(x=self.input(x=x)))
        return self.act(x=self.add(shortcut=x, main=self.conv(x=x)))


class InPlace(nn.Module):
    """A pooled tensor to which a result is added in place."""

    def __init__(self):
        super().__init__()
        self.input, self.first, self.act, self.pool = entrance(), conv(1, 2), pact(), nn.MaxPool2d(2)
        self.conv, self.last = conv(2, 2, padding=1), pact()

    def forward(self, x):
        x = self.pool(self.act(self.first(self.input(x))))
        return self.last(x.add_(self.conv(x)))


class PreciseShortcut(nn.Module):
    """A block whose shortcut keeps the 8-bit codes that its convolution takes at fewer bits."""

    def __init__(self, bits: int = 4, stride: int = 1, quantizer: Callable[[int], ActivationQuantizer] = pact):
        super().__init__()
        self.input, self.stem, self.norm = entrance(), conv(2, 4), nn.BatchNorm2d(4)
        self.wide, self.narrow = quantizer(8), quantizer(bits)
        self.conv1, self.norm1, self.act1 = conv(4, 6, padding=1, stride=stride), nn.BatchNorm2d(6), quantizer(bits)
        self.conv2, self.norm2 = conv(6, 6, padding=1), nn.BatchNorm2d(6)
        self.project = nn.Sequential(conv(4, 6, 1, stride=stride), nn.BatchNorm2d(6), SymmetricActivation(8, clip=1))
        self.add, self.act = ResidualAdd(), quantizer(8)

    def forward(self, x):
        x8 = self.wide(self.norm(self.stem(self.input(x))))
        main = self.act1(self.norm1(self.conv1(self.narrow(x8))))
        return self.act(self.add(self.norm2(self.conv2(main)), self.project(x8)))


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.input, self.conv, self.small, self.large = entrance(), conv(1, 4), pact(2), pact(6)
        self.head, self.act = conv(4, 4, 1), pact(3)

    def forward(self, x):
        result = self.conv(self.input(x))
        return self.act(self.large(result) + self.head(self.small(result)))


def sequential(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


MADE = {
    "geometry": (lambda: sequential(
        entrance(), conv(3, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=3, bias=True),
        nn.BatchNorm2d(6), pact(5), nn.MaxPool2d((3, 2), (2, 1), (1, 0)), conv(6, 6, 3, groups=6),
        nn.BatchNorm2d(6, affine=False), pact(2)), (3, 13, 9)),
    "signed images": (lambda: sequential(
        InputQuantizer(scale=1 / 63, zero_point=64, bits=7), conv(2, 4, padding=2), nn.BatchNorm2d(4), pact(3),
        nn.Dropout2d(), conv(4, 3, padding=1), SymmetricActivation(6, clip=1), nn.Flatten(),
        QuantLinear(3 * 7 * 7, 5, quantizer=MaxAbs(8, per_channel=True))), (2, 5, 5)),
    "average of a signed map": (lambda: sequential(
        entrance(), conv(1, 4), SymmetricActivation(6, clip=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        QuantLinear(4, 6, quantizer=MaxAbs(6)), nn.BatchNorm1d(6), pact(4), nn.Dropout(),
        QuantLinear(6, 3, quantizer=Dorefa(3), bias=False), nn.BatchNorm1d(3)), (1, 6, 5)),
    "features": (lambda: sequential(
        entrance(), QuantLinear(7, 8, quantizer=Dorefa(2)), nn.BatchNorm1d(8), pact(2), nn.Identity(),
        QuantLinear(8, 4, quantizer=MaxAbs(4))), (7,)),
    "one signal": (lambda: sequential(
        entrance(), conv(2, 3, (1, 5), padding=(0, 2)), pact(9), conv(3, 2, (1, 3), quantizer=MaxAbs(9)), pact(10)),
        (2, 1, 20)),
    "SAWB": (lambda: sequential(
        entrance(), conv(1, 6, quantizer=Sawb(4)), nn.BatchNorm2d(6), pact(2), conv(6, 6, quantizer=Sawb(2)), pact(3),
        conv(6, 6, 1, quantizer=Sawb(3)), nn.BatchNorm2d(6), SymmetricActivation(4, clip=1), nn.Flatten(),
        QuantLinear(6 * 2 * 2, 3, quantizer=Sawb(5))), (1, 6, 6)),
    "OCTAV": (lambda: sequential(
        entrance(), conv(1, 6, quantizer=Octav(4)), nn.BatchNorm2d(6), OctavActivation(2),
        conv(6, 6, quantizer=Octav(2, clip=1.3)), OctavActivation(8, dynamic=False), conv(6, 6, 1, quantizer=Octav(8)),
        nn.BatchNorm2d(6), OctavActivation(4, signed=True), nn.Flatten(),
        QuantLinear(6 * 2 * 2, 3, quantizer=Octav(3))), (1, 6, 6)),
    "average by our module": (lambda: sequential(
        entrance(), conv(1, 4), pact(8), GlobalAveragePool(), QuantLinear(4, 3, quantizer=MaxAbs(8))), (1, 6, 6)),
    "branches": (Branches, (1, 5, 5)),
    "one result, two readers": (TwoReaders, (1, 6, 6)),
    "a sum in place": (InPlace, (1, 6, 6)),
}


@pytest.mark.parametrize("name", MADE)
def test_networks_of_every_form_keep_every_code(name):
    make, shape = MADE[name]
    for seed in range(3):
        sample = images(4, *shape, seed=seed)
        check(randomize(make(), seed), sample * 2 - 1 if name == "signed images" else sample)


def test_a_sum_of_two_quantized_tensors_is_an_add():
    network = check(randomize(Branches(), 0), images(3, 1, 5, 5)).network
    assert [type(op) for op in network.operations] == [Conv2d, Conv2d, Add, Conv2d]


def test_a_result_that_two_quantizers_read_is_computed_for_each():
    network = check(randomize(TwoReaders(), 0), images(3, 1, 6, 6)).network
    assert [op.name for op in network.operations] == ["conv", "conv_2", "head"]


@pytest.mark.parametrize("quantizer", [pact, OctavActivation])
@pytest.mark.parametrize(("bits", "stride"), [(2, 1), (4, 2)])
def test_a_quantizer_of_a_quantized_tensor_passes_codes_on(bits, stride, quantizer):
    network = check(randomize(PreciseShortcut(bits, stride, quantizer), 1), images(3, 2, 7, 7)).network
    narrow = network.operation("narrow")
    assert isinstance(narrow, Conv2d) and narrow.inputs == ("wide",) and (narrow.weights == 1).all()
    assert (narrow.bits, narrow.groups, network.tensor("narrow").bits) == (2, 4, bits)
    assert network.operation("project.0").inputs == ("wide",) and network.operation("conv1").inputs == ("narrow",)


def test_signed_and_flattened_codes_are_passed_on():
    signed = sequential(entrance(), conv(1, 3), SymmetricActivation(8, clip=1), SymmetricActivation(3, clip=0.7),
                        pact(2))
    flat = sequential(entrance(), conv(1, 3), pact(8), nn.Flatten(), pact(3), nn.Identity(),
                      QuantLinear(48, 3, quantizer=Dorefa(4)))
    for model in (signed, flat):
        check(randomize(model, 1), images(3, 1, 6, 6))


def test_every_code_that_is_passed_on_keeps_its_rounding():
    """Steps of 1 become steps of 4: a quarter of all codes are ties, and go up."""
    model = sequential(InputQuantizer(scale=1, bits=8), PactActivation(4, alpha=60))
    layer, = check(model, torch.arange(256.0).reshape(1, 1, 16, 16)).report.layers
    assert layer.ties == 15 and (layer.multiplier_bits, layer.shift) == (2, 2)


def test_a_module_called_twice_is_two_operations():
    exported = export(randomize(Twice(), 1), images(2, 1, 4, 4))
    assert [(op.name, op.output) for op in exported.network.operations] == [("conv", "act"), ("conv_2", "act_2")]
    assert all(layer.float64_differences == 0 for layer in exported.report.layers)


def dyadic(bits: int = 3) -> nn.Sequential:
    """Every real value is a multiple of ⅛ of a code: ties are frequent, and exact in either floating type."""
    model = sequential(InputQuantizer(scale=0.25, bits=4), conv(2, 4, quantizer=Dorefa(1)),
                       PactActivation(bits, alpha=2 ** bits - 1), conv(4, 4, 1, quantizer=Dorefa(1)),
                       SymmetricActivation(4, clip=7))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model:
            if isinstance(module, QuantConv2d):
                module.weight.copy_(torch.where(torch.rand(module.weight.shape, generator=generator) < 0.3, -0.5, 0.5))
    return model


def test_exact_ties_are_counted_and_go_up():
    exported = check(dyadic(), images(8, 2, 6, 6) * 4)
    first, second = exported.report.layers
    assert first.ties > 20 and second.ties > 20
    assert first.float32_differences == second.float32_differences == 0
    network = exported.network
    values = execute(network, exported.encode(images(8, 2, 6, 6) * 4))
    operation = network.operations[0]
    assert isinstance(operation, Conv2d)
    acc = accumulate(values[operation.input], operation, network)  # r = acc/8: a tie where acc mod 8 is 4
    assert first.ties == int(((acc % 8 == 4) & (acc > 0) & (acc < 56)).sum())


@pytest.mark.parametrize("make", [
    lambda: (Sawb(1), PactActivation(3, alpha=7)), lambda: (Octav(3, clip=4.0), OctavActivation(3))])
def test_exact_ties_of_other_quantizers_go_up(make):
    quantizer, activation = make()
    activation.clip.data.fill_(7 if isinstance(activation, PactActivation) else 8)  # steps of 1, sums of quarters
    model = sequential(InputQuantizer(scale=0.25, bits=4), conv(2, 4, quantizer=quantizer), activation)
    with torch.no_grad():
        signs = 1 - 2 * (torch.arange(72) % 5 % 2)
        model[1].weight.copy_(signs.reshape(4, 2, 3, 3))
    layer, = check(model, images(8, 2, 6, 6) * 4).report.layers
    assert layer.ties > 20 and layer.float32_differences == 0


def test_near_ties_are_not_counted():
    model = dyadic()
    for module in model:
        if isinstance(module, PactActivation):
            module.clip.data *= 1 + 1e-6
    assert check(model, images(8, 2, 6, 6) * 4).report.layers[0].ties == 0


def test_ties_of_a_sum_count_the_residual_operand():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.act = dyadic()[:3], PactActivation(3, alpha=7)
            self.conv = dyadic()[3]

        def forward(self, x):
            x = self.body(x)
            return self.act(self.conv(x) + x)

    report = check(Tied(), images(8, 2, 6, 6) * 4).report
    assert report.layers[1].ties > 50 and report.layers[1].float32_differences == 0


def test_the_report_says_what_is_needed():
    model = sequential(InputQuantizer(scale=1.0, bits=2), conv(1, 2, 1, quantizer=MaxAbs(3)),
                       PactActivation(2, alpha=3), conv(2, 1, 1, quantizer=MaxAbs(3)))
    first, last = (m for m in model if isinstance(m, QuantConv2d))
    with torch.no_grad():
        first.weight.copy_(torch.tensor([3.0, -1.0]).reshape(2, 1, 1, 1))
        last.weight.copy_(torch.tensor([3.0, -2.0]).reshape(1, 2, 1, 1))
    exported = export(model, torch.tensor([0.0, 1, 2, 3]).reshape(1, 1, 2, 2), name="tiny")
    front, head = exported.report.layers
    assert (front.name, front.tensor, front.shape) == ("1", "2", (2, 2, 2))
    assert (front.weight_bits, front.input_bits, front.output_bits) == (3, 2, 2)
    assert front.accumulator_bits == 5, "−3 .. 9"
    assert (front.multiplier_bits, front.bias_bits, front.shift) == (2, 1, 0)
    assert (head.output_bits, head.accumulator_bits, head.multiplier_bits) == (None, 5, None), "−6 .. 9"
    assert exported.network.output.kind is Kind.ACCUMULATOR and exported.network.output.bits == 5
    assert exported.report.widths() == {"accumulator_bits": 5, "multiplier_bits": 2, "skip_multiplier_bits": 0,
                                        "bias_bits": 1, "shift": 0}
    assert exported.report.table().row_count == 2


def test_narrow_limits_are_reported_and_seen():
    model = randomize(MODELS["digits-residual"](Precision(weight_bits=4, activation_bits=4)), 0)
    limits = Widths(multiplier_bits=8, skip_multiplier_bits=8, bias_bits=24, max_shift=20)
    report = export(model, images(20, 1, 8, 8), limits=limits).report
    assert sum(layer.mismatches for layer in report.layers) > 0
    assert sum(layer.float64_differences for layer in report.layers) > 0
    widths = report.widths()
    assert widths["multiplier_bits"] <= 8 and widths["skip_multiplier_bits"] <= 8 and widths["bias_bits"] <= 24
    assert widths["shift"] <= 20


def test_the_model_is_left_alone():
    model = MODELS["digits-plain"](Precision(weight_bits=2, activation_bits=2)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export(model, images(2, 1, 8, 8))
    assert model.training
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


class Written(nn.Module):
    """A model whose forward is given."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.input, self.conv, self.act = entrance(), conv(2, 2, 1), pact()
        for name, module in modules.items():
            setattr(self, name, module)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


def start(m, x):
    return m.act(m.conv(m.input(x)))


class After(Written):
    """The rest of a model, given what comes after a first quantized layer."""

    def forward(self, x):
        return self.written(self, start(self, x))


class Pair(QuantConv2d):
    """A layer of the user's own that reads two tensors."""

    def forward(self, x, y=0):
        return super().forward(x + y)


REFUSALS = {
    "no input quantizer": (
        Written(lambda m, x: m.act(m.conv(x))),
        "Node 'conv' must read a quantized tensor, not the model's input: put an InputQuantizer first"),
    "identity before the input quantizer": (
        Written(lambda m, x: m.act(m.conv(m.input(m.same(x)))), same=nn.Identity()),
        "Node 'same' must follow an InputQuantizer"),
    "two input quantizers": (
        Written(lambda m, x: m.act(m.conv(m.input(x)) + m.second(x)), second=entrance()),
        "Node 'second' must be the only InputQuantizer and read the model's input"),
    "ReLU": (
        After(lambda m, y: y.relu()),
        "Node 'relu' must be one of sw.layers' modules, a max pool, a flatten or a sum, not 'relu'"),
    "float convolution": (
        After(lambda m, y: m.plain(y), plain=nn.Conv2d(2, 2, 1)),
        "Node 'plain' must have quantized weights (QuantConv2d), not those of Conv2d"),
    "convolution of a result": (
        Written(lambda m, x: m.conv(m.conv(m.input(x)))),
        "Node 'conv_2' must read a quantized tensor: put a PactActivation behind 'conv'"),
    "pool of a result": (
        Written(lambda m, x: m.act(m.pool(m.conv(m.input(x)))), pool=nn.MaxPool2d(2)),
        "Node 'pool' must read a quantized tensor: put a PactActivation behind 'conv'"),
    "pool with ceil_mode": (
        After(lambda m, y: m.pool(y), pool=nn.MaxPool2d(2, ceil_mode=True)),
        "Node 'pool' must pool a map without ceil_mode, dilation and indices"),
    "norm of codes": (
        After(lambda m, y: m.norm(y), norm=nn.BatchNorm2d(2)),
        "Node 'norm' must read a convolution or a linear layer directly, not 'act'"),
    "norm after a sum": (
        After(lambda m, y: m.act(m.norm(m.conv(y) + y)), norm=nn.BatchNorm2d(2)),
        "Node 'norm' must read a convolution or a linear layer directly, not 'add'"),
    "norm without statistics": (
        Written(lambda m, x: m.act(m.norm(m.conv(m.input(x)))), norm=nn.BatchNorm2d(2, track_running_stats=False)),
        "Node 'norm' must track running statistics"),
    "quantizer of an average": (
        After(lambda m, y: m.act(m.pool(y)), pool=nn.AdaptiveAvgPool2d(1)),
        "Node 'act_2' must follow a convolution, a linear layer, a sum or a quantized tensor, not 'pool'"),
    "pre-activation residual": (
        After(lambda m, y: m.conv(m.add(m.conv(y), y)), add=ResidualAdd()),
        "Node 'conv_3' must read a quantized tensor: put a PactActivation behind 'add'"),
    "residual sum at the end": (
        After(lambda m, y: m.add(m.conv(y), y), add=ResidualAdd()),
        "Node 'add' must be followed by an activation quantizer: a residual sum has to be clipped"),
    "sum of codes at the end": (
        After(lambda m, y: y + y),
        "Node 'add' must be followed by an activation quantizer: a residual sum has to be clipped"),
    "projection without quantizer": (
        After(lambda m, y: m.act(m.conv(y) + m.short(y)), short=conv(2, 2, 1)),
        "Node 'add' must have a quantized tensor as one operand: put a SymmetricActivation behind 'short', or a "
        "PactActivation where it is not negative"),
    "two skips": (
        After(lambda m, y: m.act(m.conv(y) + y + y)),
        "Node 'add_1' must be the only sum before an activation quantizer"),
    "broadcasting sum": (
        After(lambda m, y: m.act(m.conv(y) + m.one(y)), one=nn.MaxPool2d(4)),
        "Node 'add' must add tensors of one shape"),
    "sum with a number": (
        Written(lambda m, x: m.act(m.conv(m.input(x)) + 1)),
        "Node 'add' must add two computed tensors and nothing else, not (conv, 1)"),
    "scaled sum": (
        After(lambda m, y: m.act(torch.add(m.conv(y), y, alpha=2))),
        "Node 'add' must add two computed tensors and nothing else, not (conv_1, act, 2)"),
    "sum with the input": (
        Written(lambda m, x: m.act(m.conv(m.input(x)) + x)),
        "Node 'add' must add two computed tensors and nothing else, not (conv, x)"),
    "a buffer": (
        Written(lambda m, x: m.act(m.conv(m.input(x) * m.scale)), scale=nn.Parameter(torch.ones(1))),
        "Node 'scale' must be one of sw.layers' modules, a max pool, a flatten or a sum, not 'scale'"),
    "a layer of two tensors": (
        After(lambda m, y: m.pair(y, m.conv(y)), pair=Pair(2, 2, 1, quantizer=Dorefa(4))),
        "Node 'pair' must read one computed tensor, not 2"),
    "linear layer on a map": (
        After(lambda m, y: m.head(y), head=QuantLinear(4, 3, quantizer=Dorefa(4))),
        "Node 'head' must read (N, features): put torch.flatten(x, 1) before it"),
    "average then convolution": (
        After(lambda m, y: m.conv(m.pool(y)), pool=nn.AdaptiveAvgPool2d(1)),
        "Node 'conv_2' must read a map, not a flattened or averaged tensor"),
    "flatten of the batch": (
        After(lambda m, y: y.flatten()),
        "Node 'flatten' must flatten a quantized tensor from dimension 1 on, not 'act' from 0 to -1"),
    "flatten of a result": (
        Written(lambda m, x: torch.flatten(m.conv(m.input(x)), start_dim=1)),
        "Node 'flatten' must flatten a quantized tensor from dimension 1 on, not 'conv' from 1 to -1"),
    "no clip yet": (
        After(lambda m, y: m.last(m.conv(y)), last=OctavActivation(4)),
        "Node 'last' must be trained or calibrated: it has no clip yet"),
    "string padding": (
        After(lambda m, y: m.act(m.same(y)), same=conv(2, 2, 3, padding="same")),
        "Node 'same' must have numbers for padding and padding mode 'zeros', not 'same' and 'zeros'"),
    "two outputs": (
        After(lambda m, y: (y, y)),
        "Model must return the result of one convolution, linear layer or activation quantizer"),
    "nothing computed": (
        Written(lambda m, x: m.input(x)),
        "Model must return the result of one convolution, linear layer or activation quantizer"),
    "infinite parameters": (
        Written(lambda m, x: m.act(m.norm(m.conv(m.input(x)))), norm=nn.BatchNorm2d(2, eps=0)),
        "Node 'conv' must have finite parameters: Slope and offset must be finite, not so in channel 0"),
}


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_node_and_the_reason(name):
    model, sentence = REFUSALS[name]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.eps == 0 and module.running_var is not None:
            module.running_var.zero_()
    with pytest.raises(ExportError) as caught:
        export(model, images(2, 2, 4, 4))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("model", "sample", "sentence"), [
    (lambda: PreciseShortcut(quantizer=lambda bits: pact(bits + 5)), (2, 5, 5),
     "Node 'act' must have at most 20 bits together with its residual operand 'project.2', not 13 and 8"),
    (lambda: Branches(), (1, 5, 5), "Node 'act' must have at most 20 bits together with its residual operand 'act_b', "
     "not 16 and 5")])
def test_residual_operands_that_would_take_hours_are_refused(model, sample, sentence):
    net = model()
    if isinstance(net, Branches):
        net.act = SymmetricActivation(16, clip=2)
    with pytest.raises(ExportError) as caught:
        export(net.eval(), images(2, *sample))
    assert str(caught.value) == sentence


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(ExportError, match=r"^Model must have one input, not 2$"):
        export(Two(), images(2, 2, 4, 4))


def test_a_forward_that_cannot_be_traced_is_refused():
    model = Written(lambda m, x: start(m, x) if x.sum() > 0 else x)
    with pytest.raises(ExportError, match=r"^Model must have a forward that torch.fx can trace: "):
        export(model, images(2, 2, 4, 4))
