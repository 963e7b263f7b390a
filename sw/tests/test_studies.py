"""The studies: which runs they are made of, that they go on from what is on disk, what they write."""
from __future__ import annotations

import csv
import dataclasses
import io
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from rich.console import Console

from sw.data import Dataset, Split, load
from sw.models import MODELS
from sw.search import Evaluation
from sw.studies import accuracy, methods, model_size, pact_figures, runs
from sw.studies import search as search_study
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


def test_accuracies_refuse_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"^Bits must be between 1 and 5 for SAWB, not 8$"):
        accuracy.configurations(["digits-plain"], bits=[2, 8], seeds=[0], fields={"weights": "sawb"})


def test_baselines_have_no_methods_and_pairs_of_bits_are_weights_and_activations():
    fields = {"weights": "octav", "activations": "octav", "octav_clips": "static", "epochs": 7}
    found = accuracy.configurations(["digits-plain"], bits=[None, 3, (2, 4)], seeds=[1, 0], fields=fields)
    assert [(config.name.removeprefix("digits-plain-"), config.seed) for config in found] == [
        (name, seed) for name in ("fp32", "octav-octav-static-w3a3", "octav-octav-static-w2a4") for seed in (1, 0)]
    assert all(config.epochs == 7 for config in found)


def test_accuracies_are_measured_once(small, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "load", lambda name, directory: small)
    configs = accuracy.configurations(["digits-plain"], bits=[None, 2], seeds=[0, 1], fields={"epochs": 1})
    console = Console(width=120, record=True, force_terminal=True, file=io.StringIO())
    found = accuracy.study(configs, tmp_path, console=console)
    assert [run.config for run in found] == configs
    assert [run.integer is None for run in found] == [True, True, False, False]
    assert "digits-plain-w2a2 seed 1" in console.export_text()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path.name for path in files} == {f"digits-plain-{bits}-seed{seed}.{suffix}" for bits in ("fp32", "w2a2")
                                             for seed in (0, 1) for suffix in ("safetensors", "csv", "json")}
    assert accuracy.study(configs, tmp_path) == found
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}, "trained again for nothing"


@pytest.mark.parametrize(("network", "data", "label"), [("digits-plain", "digits", ""),
                                                        ("cnn", "fashion-mnist", "fashion-mnist-")])
def test_accuracies_are_written_and_shown(network, data, label, tmp_path):
    configs = accuracy.configurations([network], bits=[None, 4], seeds=[0, 1], fields={"data": data})
    found = [Run(config=config, fake_quantized=fake_quantized, integer=integer)
             for config, fake_quantized, integer in zip(configs, (99.0, 98.0, 97.5, 98.5), (None, None, 97.25, 98.75))]
    accuracy.write(found, tmp_path / "folder" / "a.csv", command="pactolus train")
    first, *lines = (tmp_path / "folder" / "a.csv").read_text().splitlines()
    assert first == "# pactolus train"
    rows = list(csv.DictReader(lines))
    assert [(row["network"], row["bits"], row["seed"]) for row in rows] == [
        (network, label + bits, seed) for bits in ("fp32", "w4a4") for seed in ("0", "1")]
    assert [row["integer_percent"] for row in rows] == ["", "", "97.2500", "98.7500"]
    assert [row["fake_quantized_percent"] for row in rows] == ["99.0000", "98.0000", "97.5000", "98.5000"]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(accuracy.table(found))
    text = console.export_text()
    assert "98.50 ± 0.71" in text and "98.00 ± 1.06" in text and "-0.50" in text


@pytest.mark.slow
def test_processes_end_with_the_one_that_began_them(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom sw.studies.runs import measure_all\n"
        "from sw.train import TrainConfig\nif __name__ == '__main__':\n"
        "    measure_all([TrainConfig(network='digits-plain', epochs=9999)], Path(sys.argv[1]))\n")
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(tmp_path / "c")], env=environment,
                          stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "c").glob("*.state")):
            time.sleep(0.2)
        process.kill()
    state = tmp_path / "c" / "digits-plain-fp32-seed0.state"
    for _ in range(50):
        before = state.stat().st_mtime_ns
        time.sleep(2)
        if state.stat().st_mtime_ns == before:
            return
    raise AssertionError("the training goes on")


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


def test_equal_sizes_are_equal_within_a_tenth():
    found = model_size.configurations(seeds=(0, 1))
    assert [name for name, _ in found[:5]] == list(model_size.ASSIGNMENTS) and len(found) == 10
    sizes = [model_size.model_bits(config) for _, config in found]
    reference = TrainConfig(network="cnn", data="fashion-mnist", weight_bits=4, activation_bits=4)
    assert sizes[2] == model_size.model_bits(reference) == 8 * 144 + 4 * (4608 + 18432) + 8 * 5760
    assert all(abs(size - sizes[2]) <= sizes[2] / 20 for size in sizes)
    widths = {name: config.width for name, config in found}
    assert widths["1"] > widths["2"] > widths["mixed"] > widths["4"] == 1 > widths["8"]
    with pytest.raises(ValueError, match=r"^Size must be one that cnn-fashion-mnist-w4a4 can have within a tenth, not "
                                         r"1 bits$"):
        model_size.width_for(reference, 1)


def test_model_sizes_are_written_shown_and_drawn(tmp_path):
    rows = [model_size.Row(weights=name, bits=model_size.model_bits(config),
                           run=Run(config=config, fake_quantized=90.0, integer=90.0 + i))
            for i, (name, config) in enumerate(model_size.configurations(seeds=(0, 1)))]
    model_size.write(rows, tmp_path / "m.csv", command="pactolus study model-size")
    first, *lines = (tmp_path / "m.csv").read_text().splitlines()
    assert first == "# pactolus study model-size"
    found = list(csv.DictReader(lines))
    assert found[2]["width"] == "1" and found[2]["size_bits"] == "139392" and found[9]["weight_bits"] == "mixed"
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(model_size.table(rows))
    assert "94.50 ± 3.54" in console.export_text()
    model_size.draw(rows, tmp_path / "m.svg")
    assert ET.parse(tmp_path / "m.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_pact_figures_from_training_to_files(tmp_path, monkeypatch):
    """Everything but the data and the training time is the study's own."""
    fields = {"network": "digits-plain", "data": "digits", "changes": {"epochs": 2, "epoch_images": 128}}
    monkeypatch.setattr(pact_figures, "DECAYS", (0.0, 5e-3))
    monkeypatch.setattr(pact_figures, "ENDS", (None, 8))
    monkeypatch.setattr(pact_figures, "BITS", (2,))
    monkeypatch.setattr(pact_figures, "measure_all", lambda configs, folder, **_: [
        measure(config, folder, dataset=load("digits")) for config in configs])
    configs = pact_figures.configurations(**fields)
    assert len(configs) == 5 and len(set(configs.values())) == 3
    found = pact_figures.study(configs, tmp_path / "c")
    assert found["alpha", 2, None] == found["decay", 2, 5e-3] == found["ends", 2, 8]
    assert found["ends", 2, None].integer is None
    alphas, losses = pact_figures.figures(configs, tmp_path / "c")
    assert [(c.layer, c.epoch) for c in alphas] == [(f"act{i}", epoch) for i in (1, 2, 3) for epoch in (0, 1, 2)]
    assert alphas[0].alpha == 10 and alphas[2].alpha < alphas[1].alpha < 10
    trained = {s.layer: s.loss for s in losses if s.alpha == s.trained_alpha}
    assert len(losses) == 3 * len(pact_figures.SHARES) and len(set(trained.values())) == 1
    paths = [*pact_figures.write(found, alphas, losses, tmp_path, command="pactolus study pact"),
             *pact_figures.draw(found, alphas, losses, tmp_path)]
    assert [path.name for path in paths] == ["pact-alpha.csv", "pact-loss.csv", "pact-runs.csv", "pact-alpha.svg",
                                             "pact-runs.svg"]
    assert all(path.stat().st_size > 0 for path in paths)
    lines = paths[2].read_text().splitlines()
    assert lines[0] == "# pactolus study pact" and len(lines) == 2 + 4
    assert lines[-2].startswith("ends,2,fp32,0.005,") and lines[-2].endswith(",")


def test_searches_are_written_and_drawn(tmp_path):
    """Areas by hand above (0.8, −16): the second point adds nothing, the third a strip of 0.05 × 1."""
    values = ((0.9, -12.0), (0.85, -13.0), (0.95, -15.0))
    evaluations = [Evaluation(i, {"a": i, "b": 8}, pair) for i, pair in enumerate(values)]
    results = {(method, seed): evaluations for method in ("sobol", "saas") for seed in (0, 1)}
    reference = (0.8, -16.0)
    assert search_study.volumes(evaluations, reference) == pytest.approx([0.4, 0.4, 0.45])
    search_study.write(results, tmp_path / "s.csv", reference=reference, command="pactolus study search")
    first, *lines = (tmp_path / "s.csv").read_text().splitlines()
    assert first == "# pactolus study search"
    found = list(csv.DictReader(lines))
    assert len(found) == 12 and list(found[0]) == ["method", "seed", "number", "a", "b", "accuracy",
                                                   "minus_log2_cycles", "volume"]
    assert list(found[8].values()) == ["saas", "0", "2", "2", "8", "0.95", "-15", "0.45"]
    search_study.draw(results, tmp_path / "s.svg", reference=reference)
    assert ET.parse(tmp_path / "s.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_every_network_with_a_budget_is_one():
    assert set(methods.BUDGETS) <= set(MODELS)


def test_a_dataset_can_be_of_any_size():
    split = Split(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert Dataset(name="x", train=split, test=split).shape == (1, 28, 28)
