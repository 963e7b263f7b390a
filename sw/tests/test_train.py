"""Training: a function of its configuration alone; checkpoints; the data."""
from __future__ import annotations

import dataclasses
import io
import json
import re

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from golden import vectors
from golden.execute import execute
from sw.data import digits
from sw.export import export, export_checkpoint, integer_accuracy, logits
from sw.layers import OctavActivation, OctavWeight, PactActivation, SymmetricActivation, VsQuantActivation
from sw.quantizers.gradients import Gradient
from sw.quantizers.octav import Octav, octav_clip
from sw.quantizers.vsquant import VsQuant
from sw.train import TrainConfig, accuracy, load_checkpoint, parameter_groups, save_checkpoint, train

QUICK = TrainConfig(network="digits-residual", weight_bits=2, activation_bits=2, epochs=2, seed=3)
DYNAMIC = {"vsquant_vector": 8, "vsquant_scale_bits": 5, "vsquant_scales": "dynamic"}
STATIC = {"octav_clips": "static", "octav_weight_gradient": "ste", "octav_activation_gradient": "mad"}


@pytest.fixture(scope="module")
def trained():
    return train(QUICK)


def test_the_split_is_stratified_and_complete():
    training, test = digits()
    assert training.images.shape == (1437, 1, 8, 8) and test.images.shape == (360, 1, 8, 8)
    assert training.images.dtype == torch.float32 and training.images.max() == 1 and training.images.min() == 0
    assert all(35 <= n <= 37 for n in test.labels.bincount().tolist())
    everything = torch.cat([training.images, test.images]).flatten(1)
    assert len(everything.unique(dim=0)) == 1797
    again = digits()[1]
    assert again.images.equal(test.images) and again.labels.equal(test.labels)


def test_training_learns(trained):
    assert len(trained.losses) == 2 and trained.losses[1] < trained.losses[0]
    assert trained.train_accuracy > 0.3
    assert not trained.model.training
    _, test = digits()
    assert accuracy(trained.model, test) == trained.test_accuracy


def test_the_same_configuration_gives_the_same_bytes(trained, tmp_path):
    torch.manual_seed(1234)  # what went before must not matter
    before = torch.random.get_rng_state()
    again = train(QUICK)
    assert torch.random.get_rng_state().equal(before), "nor may training change the caller's generator"
    for name, result in (("a", trained), ("b", again)):
        save_checkpoint(result, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = train(dataclasses.replace(QUICK, seed=4))
    assert not other.model.state_dict()["stem.weight"].equal(trained.model.state_dict()["stem.weight"])


def test_a_checkpoint_brings_back_the_same_network(trained, tmp_path):
    path = tmp_path / "folder" / "x.safetensors"
    save_checkpoint(trained, path)
    config, model = load_checkpoint(path)
    assert config == QUICK and not model.training
    state = trained.model.state_dict()
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())
    _, test = digits()
    with torch.no_grad():
        assert model(test.images).equal(trained.model(test.images))


def test_a_checkpoint_from_before_there_were_methods_is_dorefa_and_pact(trained, tmp_path):
    path = tmp_path / "x.safetensors"
    config = {key: value for key, value in dataclasses.asdict(QUICK).items() if key not in ("weights", "activations")}
    save_file(trained.model.state_dict(), path, {"pactolus-checkpoint": json.dumps({"version": 1, "config": config})})
    assert load_checkpoint(path)[0] == QUICK


@pytest.mark.parametrize(("weights", "activations", "options"), [
    ("sawb", "pact", {}), ("vsquant", "vsquant", {}), ("octav", "octav", STATIC),
    pytest.param("vsquant", "vsquant", {**DYNAMIC, "edge_bits": 4}, marks=pytest.mark.slow),
    *(pytest.param(*methods, {}, marks=pytest.mark.slow) for methods in (("sawb", "pact+"), ("octav", "octav")))])
def test_every_method_trains_and_keeps_every_code_on_the_whole_test_split(weights, activations, options, tmp_path):
    config = dataclasses.replace(QUICK, weights=weights, activations=activations, weight_bits=3, activation_bits=3,
                                 **options)
    result = train(config)
    assert result.train_accuracy > 0.2
    save_checkpoint(result, tmp_path / "x.safetensors")
    exported = export_checkpoint(tmp_path / "x.safetensors", tmp_path / "vectors")
    assert exported.network.name == config.name
    assert [layer.float64_differences for layer in exported.report.layers] == [0] * len(exported.report.layers)
    assert all(layer.compared >= 360 * 10 for layer in exported.report.layers)
    model = load_checkpoint(tmp_path / "x.safetensors")[1]
    assert integer_accuracy(model, digits()[1]) == pytest.approx(result.test_accuracy, abs=1 / 360)


def test_the_options_of_octav_reach_every_layer():
    octav = dataclasses.replace(QUICK, weights="octav", activations="octav", shortcut_bits=8)
    quantizers = [m.quantizer for m in octav.build().modules() if isinstance(getattr(m, "quantizer", None), Octav)]
    assert len(quantizers) == 6 and all(q == Octav(q.bits, Gradient.MAD) for q in quantizers)
    model = dataclasses.replace(octav, **STATIC).build()
    weights = [m for m in model.modules() if isinstance(m, OctavWeight)]
    activations = [m for m in model.modules() if isinstance(m, OctavActivation)]
    assert len(weights) == 6 and all(m.gradient is Gradient.STE for m in weights)
    assert len(activations) == 8 and all(m.gradient is Gradient.MAD and not m.dynamic for m in activations)
    clips = [octav_clip(m.weight, m.quantizer.bits) for m in model.modules()
             if isinstance(getattr(m, "quantizer", None), OctavWeight)]
    for scale in (1, 3):
        model.train()(scale * torch.rand(8, 1, 8, 8)).sum().backward()
        assert [m.clip for m in weights] == clips
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)


def test_the_options_of_vsquant_reach_every_layer():
    model = dataclasses.replace(QUICK, weights="vsquant", activations="vsquant", **DYNAMIC).build()
    quantizers = [m.quantizer for m in model.modules() if isinstance(getattr(m, "quantizer", None), VsQuant)]
    assert len(quantizers) == 6 and {(q.vector, q.scale_bits) for q in quantizers} == {(8, 5)}
    activations = [m for m in model.modules() if isinstance(m, VsQuantActivation)]
    assert len(activations) == 5 and {(m.vector, m.scale_bits, m.dynamic) for m in activations} == {(8, 5, True)}


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    where = re.escape(repr(str(path)))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=rf"^Checkpoint {where} must be a safetensors file: "):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=rf"^Checkpoint {where} must be a pactolus-checkpoint of version 1 to 3, "
                                         r"not of version None$"):
        load_checkpoint(path)
    for config in ('{"network": "digits-plain"}', '{"network": "digits-plain", "colour": 1}'):
        save_file({"a": torch.zeros(1)}, path, {"pactolus-checkpoint": f'{{"version": 1, "config": {config}}}'})
        with pytest.raises(ValueError, match=rf"^Checkpoint {where} must hold the network that its configuration "
                                             r"names: "):
            load_checkpoint(path)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"network": "resnet"},
     "Network must be one of digits-plain, digits-residual, cnn, resnet-8, resnet-20, not 'resnet'"),
    ({"activation_bits": None}, "Weight bits and activation bits must be both given or both absent, not 2 and None"),
    ({"weight_bits": 0}, "Bits must be an integer between 1 and 16, not 0"),
    ({"weights": "lsq"}, "Weights must be one of dorefa, sawb, octav, maxabs, vsquant, not 'lsq'"),
    ({"activations": "relu"}, "Activations must be one of pact, pact+, octav, vsquant, not 'relu'"),
    ({"weights": "sawb", "weight_bits": 8}, "Bits must be between 1 and 5 for SAWB, not 8"),
    ({"weights": "octav", "weight_bits": 1}, "Bits must be at least 2 for signed OCTAV, not 1"),
    ({"weights": "octav", "octav_clips": "frozen"}, "Octav clips must be one of dynamic, static, not 'frozen'"),
    ({"weights": "octav", "octav_weight_gradient": "lsq"}, "Gradient must be one of ste, pwl, mad, not 'lsq'"),
    ({"octav_clips": "static"}, "Octav clips must be dynamic unless weights or activations are octav, not 'static'"),
    ({"activations": "octav", "octav_weight_gradient": "ste"},
     "Octav weight gradient must be mad unless weights are octav, not 'ste'"),
    ({"weights": "octav", "octav_activation_gradient": "ste"},
     "Octav activation gradient must be pwl unless activations are octav, not 'ste'"),
    ({"activations": "vsquant", "vsquant_scales": "x"}, "Vsquant scales must be one of dynamic, static, not 'x'"),
    ({"weights": "vsquant", "vsquant_scales": "dynamic"},
     "Vsquant scales must be static unless activations are vsquant, not 'dynamic'"),
    ({"vsquant_vector": 8}, "Vsquant vector must be 16 unless weights or activations are vsquant, not 8"),
    ({"weights": "vsquant", "vsquant_vector": 0}, "Vector must be an integer of at least 1, not 0"),
    ({"weights": "vsquant", "vsquant_scale_bits": -1}, "Bits must be an integer between 1 and 16, not -1"),
    ({"activations": "vsquant", "vsquant_scales": "dynamic", "vsquant_scale_bits": 9},
     "Bits of elements and scales must be at most 16 together, not 8 and 9"),
    ({"edge_bits": 1}, "Edge bits must be at least 2 for the last layer's weights, not 1"),
    ({"network": ["cnn"]},
     "Network must be one of digits-plain, digits-residual, cnn, resnet-8, resnet-20, not ['cnn']"),
    ({"weights": ["sawb"]}, "Weights must be one of dorefa, sawb, octav, maxabs, vsquant, not ['sawb']"),
    ({"layer_weight_bits": 3}, "Layer weight bits must be bits by layer, not 3"),
    ({"layer_weight_bits": [["stem", 3, 4]]}, "Layer weight bits must be bits by layer, not [['stem', 3, 4]]"),
    ({"epochs": 0}, "Epochs must be an integer of at least 1, not 0"),
    ({"batch_size": 1}, "Batch size must be an integer of at least 2, not 1"),
    ({"seed": -1}, "Seed must be an integer of at least 0, not -1"),
    ({"seed": 1.0}, "Seed must be an integer of at least 0, not 1.0"),
    ({"learning_rate": -0.1}, "Learning rate must be at least 0, not -0.1"),
    ({"alpha_decay": float("nan")}, "Alpha decay must be at least 0, not nan"),
    ({"alpha": 0.0}, "Alpha must be positive, not 0.0"),
])
def test_configurations_are_refused_by_message(change, sentence):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(QUICK, **change)
    assert str(caught.value) == sentence


def test_names():
    assert QUICK.name == "digits-residual-w2a2"
    assert TrainConfig(network="digits-plain").name == "digits-plain-fp32"
    assert dataclasses.replace(QUICK, weights="sawb").name == "digits-residual-sawb-pact-w2a2"
    assert dataclasses.replace(QUICK, activations="pact+").name == "digits-residual-dorefa-pact+-w2a2"
    octav = dataclasses.replace(QUICK, weights="octav", activations="octav")
    assert octav.name == "digits-residual-octav-octav-w2a2"
    assert dataclasses.replace(octav, octav_clips="static").name == "digits-residual-octav-octav-static-w2a2"
    assert dataclasses.replace(octav, **STATIC).name == "digits-residual-octav-octav-ste-mad-static-w2a2"
    vsquant = dataclasses.replace(QUICK, weights="vsquant", activations="vsquant", **DYNAMIC)
    assert vsquant.name == "digits-residual-vsquant-vsquant-v8-m5-dynamic-w2a2"


def test_alpha_has_its_own_lambda():
    model = QUICK.build()
    others, clips = parameter_groups(model, weight_decay=0.1, alpha_decay=0.2)
    assert (others["weight_decay"], clips["weight_decay"]) == (0.1, 0.2)
    expected = [m.clip for m in model.modules() if isinstance(m, PactActivation | SymmetricActivation)]
    assert len(expected) == 6 and [id(p) for p in clips["params"]] == [id(p) for p in expected]
    assert len(others["params"]) + len(clips["params"]) == len(list(model.parameters()))
    baseline = dataclasses.replace(QUICK, weight_bits=None, activation_bits=None).build()
    assert len(parameter_groups(baseline, weight_decay=0.1, alpha_decay=0.2)) == 1


def test_every_alpha_is_trained(trained):
    clips = [m.clip.item() for m in trained.model.modules() if isinstance(m, PactActivation | SymmetricActivation)]
    assert all(0 < clip < QUICK.alpha for clip in clips)


def test_integer_accuracy_is_that_of_the_exported_network(trained):
    _, test = digits()
    exported = export(trained.model, test.images)
    values = execute(exported.network, exported.encode(test.images))
    predictions = logits(exported.network, values)[:, :, 0, 0].argmax(1)
    expected = (predictions == test.labels.numpy()).mean()
    assert integer_accuracy(trained.model, test) == pytest.approx(expected)
    assert abs(expected - trained.test_accuracy) <= 1 / 360, "float32 and the integers may part on a threshold only"


def test_exporting_a_checkpoint_writes_golden_vectors(trained, tmp_path):
    save_checkpoint(trained, tmp_path / "x.safetensors")
    exported = export_checkpoint(tmp_path / "x.safetensors", tmp_path / "vectors", frames=3)
    network, values = vectors.read(tmp_path / "vectors")
    assert network.name == "digits-residual-w2a2"
    _, test = digits()
    np.testing.assert_array_equal(values[network.input.name], exported.encode(test.images[:3]))
    assert exported.report.layers[0].compared == 360 * 16 * 8 * 8
    with pytest.raises(ValueError, match=r"^Frames must be between 1 and 360, not 0$"):
        export_checkpoint(tmp_path / "x.safetensors", tmp_path / "vectors", frames=0)


def test_progress_is_shown_where_there_is_a_console():
    console = Console(width=120, record=True, force_terminal=True, file=io.StringIO())
    train(TrainConfig(network="digits-plain", epochs=1), console=console)
    assert "digits-plain-fp32 seed 0" in console.export_text()
