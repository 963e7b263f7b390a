"""A run that is killed and taken up again ends with the same bytes; the metrics; the files; held-out images."""
from __future__ import annotations

import csv
import dataclasses
import json
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from sw import train as training
from sw.data import Dataset, Split, digits
from sw.train import (
    TrainConfig,
    accuracy,
    held_out,
    learning_rates,
    load_checkpoint,
    read_toml,
    save_checkpoint,
    train,
    trained,
    write_metrics,
)

TINY = TrainConfig(network="digits-residual", weight_bits=2, activation_bits=2, shortcut_bits=8, weights="octav",
                   activations="octav", epochs=4, batch_size=32, warmup=0.2, augmentation="crop-flip", validation=50)


@pytest.fixture(scope="module")
def small():
    """The first images of the digits."""
    split, test = digits()
    return Dataset(name="digits", train=split.part(slice(250)), test=test.part(slice(60)))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("change", [{}, {"weights": "sawb", "activations": "pact+"},
                                    {"weights": "vsquant", "activations": "vsquant"},
                                    {"octav_clips": "static", "octav_weight_gradient": "pwl"},
                                    {"weight_bits": None, "activation_bits": None, "weights": "dorefa",
                                     "activations": "pact", "shortcut_bits": None, "data": "fashion-mnist"}])
def test_a_run_taken_up_after_any_epoch_ends_with_the_same_bytes(change, small, tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, **change)
    trained(config, tmp_path / "whole", dataset=small)
    whole = files(tmp_path / "whole")
    assert sorted(name.rsplit(".", 1)[1] for name in whole) == ["csv", "safetensors"], "no state is left"
    state = tmp_path / "parts" / f"{config.name}-seed0.state"

    saved = training._Run.save

    def save_and_stop(run, path):
        saved(run, path)
        torch.manual_seed(12345)
        raise KeyboardInterrupt

    monkeypatch.setattr(training._Run, "save", save_and_stop)
    for _ in range(config.epochs):
        with pytest.raises(KeyboardInterrupt):
            trained(config, tmp_path / "parts", dataset=small)
        assert state.exists()
    monkeypatch.setattr(training._Run, "epoch", None)
    trained(config, tmp_path / "parts", dataset=small)
    assert files(tmp_path / "parts") == whole


RUN = """
import sys
from pathlib import Path
import torch
from sw.data import Dataset, Split
from sw.train import TrainConfig, trained
pixels = torch.randint(0, 256, (96, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
split = Split(pixels, torch.arange(96) % 10)
config = TrainConfig(network="digits-plain", weight_bits=3, activation_bits=3, epochs=25, batch_size=32)
print("begun", flush=True)
trained(config, Path(sys.argv[1]), dataset=Dataset(name="digits", train=split, test=split))
"""


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_same_bytes(kills, tmp_path):
    """SIGKILL at random moments, then the run is let through: the bytes are those of a run that was let be."""
    def start(folder):
        process = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        return process

    with start(tmp_path / "whole") as whole:
        begin = time.monotonic()
        assert whole.wait(120) == 0
        duration = time.monotonic() - begin
    chance = random.Random(kills)
    for _ in range(kills):
        with start(tmp_path / "killed") as process:
            time.sleep(chance.uniform(0.1, 0.6) * duration / kills)
            process.send_signal(signal.SIGKILL)
    assert not list((tmp_path / "killed").glob("*.safetensors")), "killed before the end"
    with start(tmp_path / "killed") as last:
        assert last.wait(120) == 0
    (tmp_path / "killed" / "digits-plain-w3a3-seed0.state.part").unlink(missing_ok=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_state_of_another_run_is_refused(small, tmp_path):
    config = dataclasses.replace(TINY, epochs=1)
    state = tmp_path / "x.state"
    train(config, dataset=small, state=state)
    where = re.escape(repr(str(state)))
    with pytest.raises(ValueError, match=rf"^Training state {where} must be of the run that is to go on: it is of "
                                         r"another configuration; remove it, or choose another folder$"):
        train(TINY, dataset=small, state=state)
    save_checkpoint(train(config, dataset=small), state)
    with pytest.raises(ValueError, match=rf"^Training state {where} must be a pactolus-training-state of version"):
        train(config, dataset=small, state=state)


def test_a_checkpoint_is_used_and_one_of_another_configuration_replaced(small, tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, epochs=1)
    model = trained(config, tmp_path, dataset=small)
    monkeypatch.setattr(training, "train", None)
    again = trained(config, tmp_path, dataset=small)
    assert again.state_dict()["stem.weight"].equal(model.state_dict()["stem.weight"])
    monkeypatch.undo()
    other = dataclasses.replace(config, learning_rate=0.01)
    trained(other, tmp_path, dataset=small)
    assert load_checkpoint(tmp_path / f"{config.name}-seed0.safetensors")[0] == other


def test_the_metrics_of_every_epoch(small, tmp_path):
    result = train(TINY, dataset=small)
    assert [e.epoch for e in result.epochs] == [1, 2, 3, 4]
    rest, held = held_out(small.train, 50)
    assert result.epochs[-1].validation_accuracy == accuracy(result.model, held)
    assert result.train_accuracy == accuracy(result.model, rest)
    clips = dict(result.epochs[-1].clips)
    assert clips["act"] == result.model.act.clip.item() and len(clips) == 8
    write_metrics(result, tmp_path / "m.csv")
    with (tmp_path / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and rows[3]["epoch"] == "4"
    assert float(rows[1]["clip:block2.shortcut.2"]) == pytest.approx(
        dict(result.epochs[1].clips)["block2.shortcut.2"], rel=1e-5)
    assert float(rows[2]["loss"]) == pytest.approx(result.losses[2], abs=1e-6)
    assert float(rows[2]["validation_percent"]) == pytest.approx(100 * result.epochs[2].validation_accuracy, abs=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_learning_rates_are_those_of_pytorch(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert learning_rates(TrainConfig(network="cnn"), steps) == expected


def test_the_warm_up_rises_in_a_straight_line():
    rates = learning_rates(TrainConfig(network="cnn", warmup=0.3, learning_rate=0.4), 10)
    assert rates[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates[3:] == learning_rates(TrainConfig(network="cnn", learning_rate=0.4), 7)


def test_held_out_images_are_always_the_same_and_not_trained_with():
    split = Split(torch.arange(20, dtype=torch.uint8).reshape(20, 1, 1, 1), torch.arange(20))
    rest, held = held_out(split, 5)
    assert sorted([*rest.labels.tolist(), *held.labels.tolist()]) == list(range(20)) and len(held) == 5
    torch.manual_seed(3)
    assert held_out(split, 5)[1].labels.equal(held.labels)
    assert held_out(split, 0)[0] is split and len(held_out(split, 0)[1]) == 0
    with pytest.raises(ValueError, match=r"^Validation must be less than the 20 images of the training split, not 20$"):
        held_out(split, 20)


def test_a_batch_that_cannot_be_filled_is_refused(small):
    with pytest.raises(ValueError, match=r"^Batch size must be at most 200, the images of an epoch, not 201$"):
        train(dataclasses.replace(TINY, batch_size=201), dataset=small)


def test_an_epoch_can_be_a_part_of_the_images(small):
    config = dataclasses.replace(TINY, epoch_images=70)
    result = train(config, dataset=small)
    rates = learning_rates(config, 4 * 2)
    assert [e.learning_rate for e in result.epochs] == rates[1::2], "two steps of 32 images an epoch"
    with pytest.raises(ValueError, match=r"^Batch size must be at most 20, the images of an epoch, not 32$"):
        train(dataclasses.replace(config, epoch_images=20), dataset=small)


def test_single_layers_have_their_own_widths():
    config = TrainConfig(network="cnn", data="fashion-mnist", weight_bits=4, activation_bits=4,
                         layer_weight_bits={"conv3": 2}, layer_activation_bits={"act1": 3})
    model = config.build()
    assert [model.get_submodule(f"conv{i}").quantizer.bits for i in (1, 2, 3)] == [8, 4, 2]
    assert [model.get_submodule(f"act{i}").bits for i in (1, 2, 3)] == [3, 4, 8]
    assert config.layer_weight_bits == (("conv3", 2),)
    assert config == TrainConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    other = dataclasses.replace(config, layer_weight_bits={"conv3": 3})
    assert re.fullmatch(r"cnn-fashion-mnist-w4a4-[0-9a-f]{8}", config.name) and other.name != config.name


@pytest.mark.parametrize(("change", "name"), [
    ({}, "cnn-fashion-mnist-w2a3"), ({"width": 1.5}, "cnn-fashion-mnist-x1.5-w2a3"),
    ({"edge_bits": None, "weights": "sawb"}, "cnn-fashion-mnist-sawb-pact-w2a3-efp32"),
    ({"edge_bits": 4, "shortcut_bits": 8}, "cnn-fashion-mnist-w2a3-e4-s8"), ({"data": "digits"}, "cnn-digits-w2a3")])
def test_names_say_what_is_trained(change, name):
    config = TrainConfig(network="cnn", data="fashion-mnist", weight_bits=2, activation_bits=3)
    assert dataclasses.replace(config, **change).name == name


@pytest.mark.parametrize(("change", "sentence"), [
    ({"data": "mnist"}, "Data must be one of digits, fashion-mnist, cifar-10, not 'mnist'"),
    ({"augmentation": "cutout"}, "Augmentation must be one of none, crop-flip, not 'cutout'"),
    ({"width": 0}, "Width must be positive, not 0"), ({"width": "wide"}, "Width must be positive, not 'wide'"),
    ({"warmup": 1.0}, "Warmup must be at least 0 and less than 1, not 1.0"),
    ({"validation": -1}, "Validation must be an integer of at least 0, not -1"),
    ({"epoch_images": 0}, "Epoch images must be an integer of at least 1, not 0"),
    ({"threads": 0}, "Threads must be an integer of at least 1, not 0"),
    ({"edge_bits": 17}, "Bits must be an integer between 1 and 16, not 17"),
    ({"layer_weight_bits": {"act": 3}}, "Layer of weight bits must be one of stem, block1.conv1, block1.conv2, "
     "block2.conv1, block2.conv2, block2.shortcut.0, linear, not 'act'"),
    ({"layer_activation_bits": {"stem": 3}}, "Layer of activation bits must be one of act, block1.branch, block1.act1, "
     "block1.act2, block2.branch, block2.act1, block2.act2, not 'stem'"),
    ({"weight_bits": None, "activation_bits": None, "layer_weight_bits": {"stem": 3}},
     "Weight bits must be given where those of single layers are, not None"),
])
def test_configurations_are_refused_by_message(change, sentence):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(TINY, **change)
    assert str(caught.value) == sentence


def test_configurations_are_read_from_toml(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('network = "cnn"\nepochs = 3\n[layer_weight_bits]\nconv2 = 2\n')
    assert read_toml(path) == {"network": "cnn", "epochs": 3, "layer_weight_bits": {"conv2": 2}}
    where = re.escape(repr(str(path)))
    path.write_text("colour = 1\n")
    with pytest.raises(ValueError, match=rf"^Key in {where} must be one of network, data, .*, threads, not 'colour'$"):
        read_toml(path)
    path.write_text("epochs = \n")
    with pytest.raises(ValueError, match=rf"^Configuration {where} must be a TOML file: "):
        read_toml(path)
    path.unlink()
    with pytest.raises(ValueError, match=rf"^Configuration {where} cannot be read: No such file or directory$"):
        read_toml(path)


@pytest.mark.parametrize("version", [1, 2])
def test_checkpoints_of_earlier_versions_are_read(version, small, tmp_path):
    config = TrainConfig(network="digits-plain", weight_bits=4, activation_bits=4, weights="octav", activations="octav",
                         epochs=1)
    result = train(config, dataset=small)
    first = ("network", "weight_bits", "activation_bits", "weights", "activations", "seed", "epochs")
    old = {key: value for key, value in dataclasses.asdict(config).items()
           if not key.startswith("octav_") and (version == 2 or key in first)}
    save_file(result.model.state_dict(), tmp_path / "x.safetensors",
              {"pactolus-checkpoint": json.dumps({"version": version, "config": old})})
    assert load_checkpoint(tmp_path / "x.safetensors")[0] == config
