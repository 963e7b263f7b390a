"""The swap of a float model: the same function at 8 bits, the same paths, exact integers, refusals."""
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from golden.execute import execute
from golden.network import Add, Conv2d
from sw.convert import ConversionError, quantize
from sw.export import export
from sw.layers import (
    ActivationQuantizer,
    InputQuantizer,
    OctavActivation,
    OctavWeight,
    PactActivation,
    QuantConv2d,
    QuantizedWeight,
    QuantLinear,
    SymmetricActivation,
)
from sw.models import MODELS, Precision
from sw.quantizers.dorefa import Dorefa
from sw.quantizers.gradients import Gradient
from sw.quantizers.maxabs import MaxAbs
from sw.quantizers.octav import octav_clip
from sw.quantizers.sawb import Sawb
from sw.quantizers.vsquant import VsQuant

EIGHT = Precision(weight_bits=8, activation_bits=8, weights="maxabs")
SHAPE = (2, 12, 12)


class Basic(nn.Module):
    """torchvision's basic block: one ReLU module called twice, the sum in place."""

    def __init__(self, i: int, o: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = nn.Sequential(Basic(4, 4)), nn.Sequential(Basic(4, 6, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(6, 5)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


class Functional(nn.Module):
    """Everything as functions and methods, no batch norm, a max pool between a layer and its activation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 5), nn.Conv2d(6, 8, 3, padding="same")
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = functional.relu(functional.max_pool2d(functional.dropout(self.conv1(x), 0.2, self.training), 2))
        x = self.conv2(x).relu_()
        x = x.view(x.size(0), -1)
        return self.fc2(functional.dropout(torch.relu(self.fc1(x)), training=self.training))


def separable(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, i, 3, stride, 1, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU6(inplace=True),
        nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.Hardtanh(0, 4))


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), separable(8, 16, 1), separable(16, 16, 2))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, 4), nn.BatchNorm1d(4))

    def forward(self, x):
        return self.classifier(self.features(x).mean([-2, -1]))


class Shortcuts(nn.Module):
    """Sums of every kind: functions, the shortcut first, two quantized tensors, and an average pool of a map."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.short = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.deep, self.head, self.same = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 3), nn.Identity()

    def forward(self, x):
        x = functional.relu6(self.stem(self.same(x)))
        x = functional.relu(torch.add(self.short(x), self.deep(torch.clamp(self.body(x), 0, 5))))
        y = functional.relu(self.body(x))
        x = functional.relu(x + y)
        x = functional.avg_pool2d(x, x.size()[3])
        return self.head(x.squeeze(-1).squeeze(-1).contiguous())


class Flat(nn.Module):
    """A perceptron on images."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(288, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8),
                                  nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.body(x)


FLOAT = {make.__name__: make for make in (ResNet, Functional, MobileNet, Shortcuts, Flat)}


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """As after training: batch norm has seen data, gammas and betas are not 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) / 4)
        model.train()
        for _ in range(20):
            model(torch.rand(32, *SHAPE, generator=generator))
    return model.eval()


def made(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return lively(FLOAT[name]())


def calibrated(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Each clip at the largest magnitude that the module reads, layer after layer."""
    def fit(module, args):
        module.clip.data.fill_(args[0].abs().max())

    handles = [m.register_forward_pre_hook(fit) for m in model.modules()
               if isinstance(m, PactActivation | SymmetricActivation)]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return model


def images(n: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def paths(model: nn.Module, *kinds: type) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("name", FLOAT)
def test_at_eight_bits_the_function_stays_and_the_integers_are_exact(name):
    model, sample = made(name), images()
    quantized = calibrated(quantize(model, SHAPE, EIGHT), sample)
    with torch.no_grad():
        expected, found = model(sample), quantized(sample)
    spread = expected.std()
    assert (found - expected).abs().max() < 0.1 * spread, "a step of 8 bits is far below"
    assert (found - expected).abs().max() > 0, "something is quantized"
    report = export(quantized, sample).report
    assert all(layer.float64_differences == 0 and layer.mismatches == 0 for layer in report.layers)


@pytest.mark.parametrize("weights", ["dorefa", "sawb", "octav"])
@pytest.mark.parametrize("name", ["ResNet", "MobileNet"])
def test_other_methods_and_widths_are_trainable_and_exact(name, weights):
    activations = "octav" if weights == "octav" else "pact+"
    precision = Precision(weight_bits=3, activation_bits=4, weights=weights, activations=activations)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = quantize(made(name), SHAPE, precision).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        target = torch.arange(16) % 3
        losses = []
        for _ in range(8):
            loss = functional.cross_entropy(model(images()), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.endswith("clip"))
    report = export(model, images()).report
    assert all(layer.float64_differences == 0 and layer.mismatches == 0 for layer in report.layers)


def test_paths_stay_and_parameters_are_copies():
    model = made("ResNet")
    quantized = quantize(model, images(1), EIGHT)
    state = model.state_dict()
    copied = quantized.state_dict()
    assert set(copied) - set(state) == {
        f"{path}.clip" for path in ("relu", "layer1.0.relu", "layer1.0.relu_2", "layer2.0.relu", "layer2.0.relu_2",
                                    "layer2.0.downsample.shortcut")}
    assert set(state) <= set(copied)
    for key, value in state.items():
        assert copied[key].equal(value) and copied[key].data_ptr() != value.data_ptr()
    assert paths(quantized, SymmetricActivation) == ["layer2.0.downsample.shortcut"]
    assert paths(model, QuantizedWeight, ActivationQuantizer) == [], "the model itself is left alone"


def test_edges_and_shortcuts_have_edge_bits():
    precision = Precision(weight_bits=3, activation_bits=2, edge_bits=7, weights="sawb")
    model = quantize(made("ResNet"), SHAPE, precision)
    modules = dict(model.named_modules())
    widths = {name: m.quantizer.bits for name, m in modules.items() if isinstance(m, QuantizedWeight)}
    assert {name for name, bits in widths.items() if bits == 7} == {"conv1", "fc"}
    assert {bits for name, bits in widths.items() if name not in ("conv1", "fc")} == {3}
    codes = {name: m.bits for name, m in modules.items() if isinstance(m, ActivationQuantizer)}
    assert {name for name, bits in codes.items() if bits == 7} == {
        "input", "layer2.0.relu_2", "layer2.0.downsample.shortcut"}
    assert {bits for name, bits in codes.items() if bits != 7} == {2}
    assert isinstance(modules["conv1"].quantizer, MaxAbs), "SAWB has no coefficients for 7 bits"
    assert isinstance(modules["layer1.0.conv1"].quantizer, Sawb)


def test_an_activation_at_the_end_makes_the_layer_before_it_the_last():
    model = quantize(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 1),
                                   nn.ReLU()), SHAPE, Precision(weight_bits=2, activation_bits=3, weights="maxabs"))
    modules = dict(model.named_modules())
    assert [modules[n].quantizer.bits for n in "024"] == [8, 2, 8]
    assert [modules[n].bits for n in "135"] == [3, 8, 3]


def test_widths_by_path():
    bits = {"input": 5, "layer1.0.conv2": 4, "layer1.0.relu_2": 3, "layer2.0.downsample.shortcut": 6, "fc": 2}
    model = quantize(made("ResNet"), SHAPE, EIGHT, bits=bits)
    modules = dict(model.named_modules())
    for path, width in bits.items():
        module = modules[path]
        assert (module.quantizer.bits if isinstance(module, QuantizedWeight) else module.bits) == width
    assert modules["layer1.0.conv1"].quantizer.bits == modules["layer1.0.relu"].bits == 8
    with pytest.raises(ValueError, match=r"^Bits must be for layers of the model, not for 'layer1', 'layer1.0.bn1'$"):
        quantize(made("ResNet"), SHAPE, EIGHT, bits={"layer1.0.bn1": 4, "layer1": 2, "fc": 8})


def test_bounds_become_clips_and_are_noticed():
    model = quantize(made("MobileNet"), SHAPE, EIGHT)
    clips = {name: m.clip.item() for name, m in model.named_modules() if isinstance(m, PactActivation)}
    assert list(clips.values()) == [6.0, 6.0, 4.0, 6.0, 4.0]
    assert model.meta["notices"][0] == "features.2: the bound 6 is where its clip starts, no longer fixed"
    assert len(model.meta["notices"]) == 5
    assert quantize(made("ResNet"), SHAPE, EIGHT).meta["notices"] == ()


def test_dorefa_is_taken_where_batch_norm_can_make_up_for_its_scale():
    precision = Precision(weight_bits=8, activation_bits=8)
    net = lively(nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                               nn.Flatten(), nn.Linear(512, 3)))
    sample = images()
    model = calibrated(quantize(net, SHAPE, precision), sample)
    assert [type(m.quantizer) for m in model.modules() if isinstance(m, QuantizedWeight)] == [Dorefa, MaxAbs, MaxAbs]
    assert model.meta["notices"] == ("3: its weights are max-abs, since DoReFa needs a batch norm behind it",)
    with torch.no_grad():
        assert (model(sample) - net(sample)).abs().max() < 0.1 * net(sample).std()


def test_an_average_to_the_size_that_is_there_vanishes():
    expected, found = (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), between, nn.Flatten(),
                                     nn.Linear(100, 3)).eval() for between in (nn.Identity(), nn.AdaptiveAvgPool2d(5)))
    found.load_state_dict(expected.state_dict())
    model, other = (calibrated(quantize(m, SHAPE, EIGHT), images()) for m in (found, expected))
    assert model(images()).equal(other(images()))
    assert all(layer.float64_differences == 0 for layer in export(model, images()).report.layers)


def test_the_mode_and_the_dropout_stay():
    net = FLOAT["Functional"]().train()
    model = quantize(net, SHAPE, EIGHT)
    assert model.training and len(paths(model, nn.Dropout)) == 2
    assert not model(images()).equal(model(images())), "dropout works"
    assert model.eval()(images()).equal(model(images()))
    assert net.training


def test_pools_between_layer_and_activation_change_places():
    model = quantize(made("Functional"), SHAPE, EIGHT)
    names = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
    assert names == ["input", "conv1", "dropout", "relu", "max_pool2d", "conv2", "relu_2", "fc1", "relu_3",
                     "dropout_2", "fc2"]


def test_sums_choose_the_shortcut():
    model = quantize(made("Shortcuts"), SHAPE, EIGHT)
    assert paths(model, SymmetricActivation) == ["shortcut"]
    reads = [node.args[0].target for node in model.graph.nodes if node.target == "shortcut"]
    assert reads == ["short"], "the branch of fewer layers, though it comes first"
    network = export(calibrated(model, images()), images()).network
    kinds = [type(op) for op in network.operations]
    assert kinds.count(Add) == 1 and sum(isinstance(o, Conv2d) and o.skip is not None for o in network.operations) == 1


def test_the_reference_networks_are_swapped_too():
    for name in ("digits-plain", "digits-residual"):
        model = MODELS[name](Precision()).eval()
        quantized = quantize(model, (1, 8, 8), EIGHT)
        expected = MODELS[name](EIGHT)
        kinds = QuantizedWeight, ActivationQuantizer
        swapped = {path.replace("shortcut.shortcut", "shortcut.2") for path in paths(quantized, *kinds)}
        assert swapped == set(paths(expected, *kinds))


@pytest.mark.parametrize("weights", ["dorefa", "sawb"])
def test_shortcut_bits_make_the_network_that_is_built_with_them(weights):
    """Widths, methods, paths and the very values of the reference network."""
    precision = Precision(weight_bits=2, activation_bits=3, shortcut_bits=6, weights=weights)
    model = MODELS["digits-residual"](Precision())
    for seed in range(3):
        model.train()(torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))
    found, expected = quantize(model.eval(), (1, 8, 8), precision), MODELS["digits-residual"](precision).eval()
    state = {path.replace("shortcut.shortcut", "shortcut.2"): value for path, value in found.state_dict().items()}
    expected.load_state_dict(state)

    def widths(net):
        return {path.replace("shortcut.shortcut", "shortcut.2"): (type(m), m.bits, type(getattr(m, "quantizer", None)))
                if isinstance(m, ActivationQuantizer) else m.quantizer
                for path, m in net.named_modules() if isinstance(m, ActivationQuantizer | QuantizedWeight)}

    assert widths(found) == widths(expected)
    sample = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    assert calibrated(found, sample)(sample).equal(calibrated(expected, sample)(sample))


@pytest.mark.parametrize(("weights", "activations"), [("sawb", "pact"), ("vsquant", "vsquant"), ("octav", "octav")])
def test_the_residual_stream_is_wide_and_what_convolutions_read_is_not(weights, activations):
    precision = Precision(weight_bits=3, activation_bits=2, shortcut_bits=6, weights=weights, activations=activations)
    model = quantize(made("ResNet"), SHAPE, precision)
    modules = dict(model.named_modules())
    read = {str(node.target): str(node.args[0].target) for node in model.graph.nodes if node.op == "call_module"}
    assert read["layer1.0.conv1"] == "layer1.0.branch" and read["layer1.0.branch"] == "maxpool"
    assert read["layer2.0.conv1"] == "layer2.0.branch" and read["layer2.0.branch"] == "layer1.0.relu_2"
    assert read["layer2.0.downsample.0"] == "layer1.0.relu_2"
    codes = {path: m.bits for path, m in modules.items() if isinstance(m, ActivationQuantizer)}
    assert codes == {"input": 8, "relu": 6, "layer1.0.branch": 2, "layer1.0.relu": 2, "layer1.0.relu_2": 6,
                     "layer2.0.branch": 2, "layer2.0.relu": 2, "layer2.0.relu_2": 8,
                     "layer2.0.downsample.shortcut": 8}
    assert modules["layer2.0.downsample.0"].quantizer.bits == 6 and modules["layer2.0.conv1"].quantizer.bits == 3
    with torch.no_grad():
        model.train()(images())
    layers = export(model.eval(), images()).report.layers
    assert layers and all(layer.float64_differences == layer.mismatches == 0 for layer in layers)


def test_the_input_takes_its_range():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    model = quantize(net, images() * 4 - 1, EIGHT, input_range=(-1.0, 3.0))
    quantizer = model.get_submodule("input")
    assert isinstance(quantizer, InputQuantizer)
    assert quantizer.zero_point == 64 and abs(quantizer.scale - 4 / 255) < 1e-12
    x = torch.linspace(-1, 3, 9)
    assert (quantizer(x) - x).abs().max() <= 2 / 255 + 4 / 255
    exported = export(model, images() * 4 - 1)
    assert all(layer.float64_differences == 0 for layer in exported.report.layers)
    assert set(execute(exported.network, exported.encode(images()))) >= {"input"}
    assert quantize(net, SHAPE, EIGHT, input_range=(0.5, 2)).get_submodule("input").zero_point == 0


class Written(nn.Module):
    """A model whose forward is given."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)
        for name, module in modules.items():
            setattr(self, name, module)
        self.written = forward

    def forward(self, x):
        return self.written(self, x)


ACTIVATION = "must be followed by a ReLU, ReLU6 or Hardtanh(0, x): "
NO_QUANTIZER = "must be a ReLU, ReLU6 or Hardtanh(0, x): no other activation has a quantizer"
relu = functional.relu


def shared(y, forward):
    """A tensor that several read."""
    return forward(y)


class Scaled(nn.Conv2d):
    """A convolution of the user's own."""


REFUSALS = {
    "sigmoid": (Written(lambda m, x: m.last(m.act(m.conv(x))), act=nn.Sigmoid()), {"act": f"Sigmoid {NO_QUANTIZER}"}),
    "several": (
        Written(lambda m, x: m.up(functional.gelu(m.conv(torch.tanh(m.conv(x))))), up=nn.ConvTranspose2d(2, 2, 2)),
        {"tanh": f"tanh {NO_QUANTIZER}", "gelu": f"gelu {NO_QUANTIZER}",
         "up": "ConvTranspose2d has no quantized form"}),
    "no activation": (Written(lambda m, x: m.last(m.conv(x))),
                      {"conv": ACTIVATION + "'last' reads the layer as it is"}),
    "no activation behind the norm": (
        Written(lambda m, x: m.last(m.norm(m.conv(x))), norm=nn.BatchNorm2d(2)),
        {"norm": ACTIVATION + "'last' reads the layer as it is"}),
    "concatenation": (
        Written(lambda m, x: m.last(relu(torch.cat([m.conv(x), m.last(x)], 1)[:, :2]))),
        {"cat": "cat has no integer form: its operands have scales of their own",
         "getitem": "getitem has no quantized form"}),
    "average pool": (
        Written(lambda m, x: m.last(m.pool(relu(m.conv(x)))), pool=nn.AvgPool2d(2)),
        {"pool": "must average the whole map of 12×12, not 2: put a convolution of stride 2 or a max pool"}),
    "adaptive pool": (
        Written(lambda m, x: m.last(functional.adaptive_avg_pool2d(relu(m.conv(x)), 3))),
        {"adaptive_avg_pool2d": "must average the whole map, not to 3"}),
    "mean of channels": (
        Written(lambda m, x: m.last(relu(m.conv(x)).mean(1, keepdim=True).expand(-1, 2, -1, -1))),
        {"mean": "must be the mean over dimensions 2 and 3 of a map, not over 1",
         "expand": "expand has no quantized form"}),
    "average before a convolution": (
        Written(lambda m, x: m.last(m.pool(relu(m.conv(x)))), pool=nn.AdaptiveAvgPool2d(1)),
        {"last": "must not read a global average: only a linear layer can"}),
    "sum without activation": (
        Written(lambda m, x: m.last(m.last(relu(m.conv(x))) + relu(m.conv(x)))),
        {"add": ACTIVATION + "'last_2' reads the residual sum as it is"}),
    "sum at the end": (
        Written(lambda m, x: relu(m.conv(x)) + relu(m.conv(x))),
        {"add": ACTIVATION + "the model returns the residual sum as it is"}),
    "two sums": (
        Written(lambda m, x: relu(m.conv(x) + relu(m.conv(x)) + relu(m.conv(x)))),
        {"add_2": "must be the only sum before an activation"}),
    "sum with a number": (
        Written(lambda m, x: relu(m.conv(x) + 1)), {"add": "must add two computed tensors and nothing else"}),
    "sum of two shapes": (
        Written(lambda m, x: relu(m.conv(x) + m.pool(relu(m.conv(x)))), pool=nn.MaxPool2d(12)),
        {"add": "must add tensors of one shape"}),
    "sum to itself": (
        Written(lambda m, x: shared(m.conv(x), lambda y: relu(y + y))),
        {"add": "must add two tensors, not a layer's result to itself"}),
    "norm after activation": (
        Written(lambda m, x: m.last(m.norm(relu(m.conv(x)))), norm=nn.BatchNorm2d(2)),
        {"norm": "BatchNorm2d must directly follow a convolution or a linear layer"}),
    "norm without statistics": (
        Written(lambda m, x: relu(m.norm(m.conv(x))), norm=nn.BatchNorm2d(2, track_running_stats=False)),
        {"norm": "BatchNorm2d must track running statistics"}),
    "padding": (
        Written(lambda m, x: m.even(x), even=nn.Conv2d(2, 2, 2, padding="same")),
        {"even": "Conv2d must pad with zeros, the same on both sides, not 'same' and 'zeros'"}),
    "reflecting padding": (
        Written(lambda m, x: m.wide(x), wide=nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
        {"wide": "Conv2d must pad with zeros, the same on both sides, not (1, 1) and 'reflect'"}),
    "pool with ceil_mode": (
        Written(lambda m, x: m.last(functional.max_pool2d(relu(m.conv(x)), 2, ceil_mode=True))),
        {"max_pool2d": "must be a max pool without ceil_mode, dilation and indices"}),
    "hardtanh": (
        Written(lambda m, x: m.last(m.act(m.conv(x))), act=nn.Hardtanh()),
        {"act": "Hardtanh must clip from 0 to a positive number, not from -1.0 to 1.0"}),
    "softmax": (
        Written(lambda m, x: functional.log_softmax(m.conv(x).flatten(1), 1)),
        {"conv": ACTIVATION + "'flatten' reads the layer as it is",
         "log_softmax": "log_softmax belongs to the loss (cross_entropy), not into the network"}),
    "functional convolution": (
        Written(lambda m, x: functional.conv2d(x, m.last.weight)),
        {"last.weight": "a parameter or buffer must belong to a layer, not be read by the forward itself",
         "conv2d": "conv2d must be a module: a function's weights cannot be swapped"}),
    "a type of one's own": (
        Written(lambda m, x: m.own(x), own=Scaled(2, 2, 1)),
        {"own": "Scaled must be of PyTorch's own type: a subclass may compute something else"}),
    "reshaping": (
        Written(lambda m, x: m.last(relu(m.conv(x)).view(2, 2, 6, 24))),
        {"view": "must flatten everything but the batch, not make (2, 6, 24) of (2, 12, 12)"}),
    "linear layer on a map": (
        Written(lambda m, x: m.head(relu(m.conv(x))), head=nn.Linear(12, 3)),
        {"head": "Linear must read (N, features): put a flatten before it"}),
    "in place": (
        Written(lambda m, x: shared(m.conv(x), lambda y: m.last(relu(m.last(relu(y, inplace=True)) + relu(y))))),
        {"relu": "must not work in place on what 'relu_2' reads afterwards"}),
    "pooled and not": (
        Written(lambda m, x: shared(m.conv(x), lambda y: relu(m.pool(y) + m.last(m.pool(relu(y))))),
                pool=nn.MaxPool2d(2)),
        {"add": "must add the results of layers or quantized tensors, not pooled ones"}),
    "output of two": (Written(lambda m, x: (m.conv(x), m.last(x))),
                      {"output": "must be the result of one convolution, linear layer or activation"}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_every_node_and_its_reason(name):
    model, refusals = REFUSALS[name]
    with pytest.raises(ConversionError) as caught:
        quantize(model, SHAPE, EIGHT)
    assert dict(caught.value.refusals) == refusals
    assert str(caught.value).splitlines()[1:] == [f"  {path}: {reason}" for path, reason in refusals.items()]


def test_a_layer_may_be_called_input():
    net = Written(lambda m, x: m.last(relu(m.input(x))), input=nn.Conv2d(2, 2, 3)).eval()
    model = quantize(net, SHAPE, EIGHT, bits={"input": 5, "input_2": 7})
    assert isinstance(model.get_submodule("input"), QuantConv2d) and model.get_submodule("input").quantizer.bits == 5
    assert isinstance(model.get_submodule("input_2"), InputQuantizer) and model.get_submodule("input_2").bits == 7
    assert all(layer.float64_differences == 0
               for layer in export(calibrated(model.eval(), images()), images()).report.layers)
    precision = Precision(weight_bits=3, activation_bits=3, weights="maxabs")
    assert quantize(net, SHAPE, precision).get_submodule("input").quantizer.bits == 8, "it is the first layer"


def test_layers_that_read_the_same_stream_share_a_branch():
    def forward(m, x):
        x = relu(m.conv(x))
        y = relu(m.last(x) + x)
        hidden = relu(m.averaged(m.pool(x).flatten(1)) + relu(m.flattened(x.flatten(1))))
        return m.head(relu(m.deep(m.pool(y).flatten(1)) + hidden))

    net = Written(forward, pool=nn.AdaptiveAvgPool2d(1), averaged=nn.Linear(2, 5), flattened=nn.Linear(288, 5),
                  deep=nn.Linear(2, 5), head=nn.Linear(5, 3)).eval()
    precision = Precision(weight_bits=4, activation_bits=3, shortcut_bits=7, weights="maxabs")
    model = calibrated(quantize(net, SHAPE, precision), images())
    assert model.get_submodule("branch").bits == 3 and model.get_submodule("relu").bits == 7
    assert model.get_submodule("relu_2").bits == 3, "no shortcut reads it"
    users = {str(user.target) if user.op == "call_module" else "flatten"
             for node in model.graph.nodes if node.target == "branch" for user in node.users}
    assert users == {"last", "pool", "flatten"} and paths(model, PactActivation).count("branch_2") == 0
    assert all(layer.float64_differences == 0 for layer in export(model, images()).report.layers)


def test_wrong_arguments_are_refused():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    for sentence, arguments in {
        "Precision must have weight and activation bits, not those of the float32 baseline": {"precision": Precision()},
        "Precision must have edge bits, not None":
            {"precision": Precision(weight_bits=4, activation_bits=4, edge_bits=None)},
        r"Input range must go from a smaller to a larger number, not \(1, 1\)": {"input_range": (1, 1)},
        r"Sample must lie in the input range 0..1, not in 0..2": {"sample": torch.arange(3.0).expand(1, 2, 8, 3)},
        r"Sample must be a batch \(N, C, H, W\) or \(N, features\), not of shape \(2, 3, 3\)":
            {"sample": torch.rand(2, 3, 3)},
        "Model must take inputs of shape .3, 9, 9.: Given groups=1, .*": {"sample": (3, 9, 9)},
        "Bits of '2' must be at least 2: its weights are max-abs":
            {"precision": Precision(weight_bits=2, activation_bits=2), "bits": {"2": 1}},
        "Model must have a forward that torch.fx can trace: .*":
            {"model": Written(lambda m, x: m.conv(x) if x.sum() > 0 else x)},
        "Model must have one input, not 2":
            {"model": type("Two", (nn.Module,), {"forward": lambda m, x, y=0: x + y})()},
    }.items():
        with pytest.raises(ValueError, match=f"^{sentence}"):
            quantize(**{"model": net, "sample": SHAPE, "precision": EIGHT, **arguments})


def test_static_octav_keeps_the_clips_of_the_float_weights():
    precision = Precision(weight_bits=3, activation_bits=4, weights="octav", activations="octav", octav_clips="static",
                          octav_weight_gradient="ste", octav_activation_gradient="mad")
    model = quantize(made("ResNet"), SHAPE, precision)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        model.train()(images())
    static = {path: m for path, m in model.named_modules() if isinstance(m, OctavWeight)}
    assert len(static) == 6 and all(m.gradient is Gradient.STE for m in static.values())
    for path, module in static.items():
        weight = weights[path.removesuffix("quantizer") + "weight"]
        assert module.clip.equal(octav_clip(weight, module.bits))
        weight.data.mul_(1.5)
    activations = [m for m in model.modules() if isinstance(m, OctavActivation)]
    assert len(activations) == 6 and all(m.gradient is Gradient.MAD and not m.dynamic for m in activations)
    layers = export(model.eval(), images()).report.layers
    assert layers and all(layer.float64_differences == 0 for layer in layers)


def test_vectors_of_linear_layers_lie_along_the_channels_of_a_flattened_map():
    precision = Precision(weight_bits=4, activation_bits=4, weights="vsquant", activations="vsquant")
    model = quantize(made("Functional"), SHAPE, precision)
    layer = model.get_submodule("fc1")
    assert isinstance(layer.quantizer, VsQuant) and layer.positions == 16
    assert layer.scale_codes().shape == (12, 1, 16)
    with torch.no_grad():
        model.train()(images())
    assert all(layer.float64_differences == 0 for layer in export(model.eval(), images()).report.layers)


def test_octav_is_made_without_a_clip():
    model = quantize(made("MobileNet"), SHAPE, Precision(weight_bits=8, activation_bits=8, activations="octav"))
    assert not any(m.calibrated for m in model.modules() if isinstance(m, OctavActivation))
    assert {type(m) for m in model.modules() if isinstance(m, QuantizedWeight)} == {QuantConv2d, QuantLinear}
