"""The studies: which runs they are made of, that they go on from what is on disk, what they write."""
from __future__ import annotations

import csv
import dataclasses
import io
import xml.etree.ElementTree as ET

import pytest
import torch
from rich.console import Console

from sw.data import Dataset, Split, load
from sw.models import MODELS
from sw.studies import methods, runs
from sw.studies.runs import Run, measure, measure_all, spread
from sw.train import TrainConfig

TINY = TrainConfig(network="digits-plain", weight_bits=2, activation_bits=2, epochs=1)


@pytest.fixture(scope="module")
def small():
    dataset = load("digits")
    return dataclasses.replace(dataset, train=dataset.train.part(slice(256)), test=dataset.test.part(slice(50)))


def test_a_measurement_is_kept_with_the_checkpoint_that_it_is_of(small, tmp_path, monkeypatch):
    run = measure(TINY, tmp_path, dataset=small)
    assert run.config == TINY and 0 <= run.integer <= 100 and run.accuracy == run.integer
    monkeypatch.setattr(runs, "integer_accuracy", None)
    assert measure(TINY, tmp_path, dataset=small) == run
    with pytest.raises(TypeError):
        measure(dataclasses.replace(TINY, learning_rate=0.01), tmp_path, dataset=small)
    baseline = dataclasses.replace(TINY, weight_bits=None, activation_bits=None)
    unquantized = measure(baseline, tmp_path, dataset=small)
    assert unquantized.integer is None and unquantized.accuracy == unquantized.fake_quantized
    ends = dataclasses.replace(TINY, edge_bits=None)
    assert measure(ends, tmp_path, dataset=small).integer is None


@pytest.mark.slow
def test_runs_in_processes_are_those_of_one_process(tmp_path):
    configs = [dataclasses.replace(TINY, seed=seed) for seed in (0, 1)]
    console = Console(width=140, record=True, force_terminal=True, file=io.StringIO())
    found = measure_all(configs, tmp_path / "two", jobs=2, console=console)
    assert [run.config for run in found] == configs
    assert "2 of 2 runs" in console.export_text()
    assert measure(configs[1], tmp_path / "one", dataset=load("digits")) == found[1]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_no_jobs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^Jobs must be at least 1, not 0$"):
        measure_all([TINY], tmp_path, jobs=0)


def test_missing_data_are_said_before_anything_is_trained(tmp_path):
    configs = [TINY, dataclasses.replace(TINY, network="cnn", data="cifar-10")]
    with pytest.raises(ValueError, match=r"^CIFAR-10 must have its file cifar-10-binary\.tar\.gz in "):
        measure_all(configs, tmp_path / "c", directory=tmp_path)
    assert not (tmp_path / "c").exists()


def test_the_mean_and_the_deviation():
    assert spread([1.0, 2.0, 6.0]) == (3.0, pytest.approx(7 ** 0.5)) and spread([2.0]) == (2.0, None)


def test_methods_are_compared_at_the_same_budget():
    found = methods.configurations("cnn", seeds=(0, 1))
    names = {config.name for _, config in found}
    assert len(names) * 2 == len(found) and names >= {
        "cnn-fashion-mnist-fp32", "cnn-fashion-mnist-w2a2", "cnn-fashion-mnist-sawb-pact-w4a4",
        "cnn-fashion-mnist-maxabs-pact-w8a8", "cnn-fashion-mnist-octav-octav-w8a8"}
    budgets = {tuple(getattr(config, name) for name in methods.BUDGETS["cnn"]) for _, config in found}
    assert len(budgets) == 1
    assert all(config.edge_bits == 8 and config.shortcut_bits is None for _, config in found)
    residual = methods.configurations("resnet-8", methods=["pact-sawb", "octav"], bits=[2], seeds=[0])
    assert [(name, config.shortcut_bits) for name, config in residual] == [("pact-sawb", 8), ("octav", None)]
    with pytest.raises(ValueError, match=r"^Method must be one of fp32, pact-dorefa, .*, not 'lsq'$"):
        methods.configurations(methods=["lsq"])
    with pytest.raises(ValueError, match=r"^Network must be one of cnn, resnet-8, not 'vgg'$"):
        methods.configurations("vgg")


def rows_of_methods():
    result = []
    for i, (name, config) in enumerate(methods.configurations("cnn", seeds=(0, 1))):
        integer = None if config.weight_bits is None else 88.0 + i / 10
        result.append(methods.Row(method=name, run=Run(config=config, fake_quantized=90.0 + i / 10, integer=integer)))
    for name, config in methods.configurations("resnet-8", seeds=[0], methods=["octav"], bits=[4]):
        result.append(methods.Row(method=name, run=Run(config=config, fake_quantized=91.0, integer=91.25)))
    return result


def test_methods_are_written_shown_and_drawn(tmp_path):
    rows = rows_of_methods()
    methods.write(rows, tmp_path / "m.csv", command="pactolus study methods")
    first, *lines = (tmp_path / "m.csv").read_text().splitlines()
    assert first == "# pactolus study methods"
    found = list(csv.DictReader(lines))
    assert len(found) == len(rows)
    assert found[0] == {"network": "cnn", "method": "fp32", "weights": "", "activations": "", "bits": "", "seed": "0",
                        "epochs": str(methods.BUDGETS["cnn"]["epochs"]), "fake_quantized_percent": "90.0000",
                        "integer_percent": ""}
    assert found[-1]["network"] == "resnet-8" and found[-1]["integer_percent"] == "91.2500"
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(methods.table(rows))
    text = console.export_text()
    half = len(rows) // 2
    assert f"{90 + half / 20:.2f} ± {half / 10 / 2 ** 0.5:.2f}" in text and "91.25" in text and "PACT + SAWB" in text
    methods.draw(rows, tmp_path / "m.svg")
    picture = (tmp_path / "m.svg").read_bytes()
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    methods.draw(rows, tmp_path / "m.svg")
    assert (tmp_path / "m.svg").read_bytes() == picture


def test_every_network_with_a_budget_is_one():
    assert set(methods.BUDGETS) <= set(MODELS)


def test_a_dataset_can_be_of_any_size():
    split = Split(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert Dataset(name="x", train=split, test=split).shape == (1, 28, 28)
