"""The command line as a user types it: exit status, sentences, files."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from pactolus.cli import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def pactolus(*arguments, cwd=None, status=0):
    """Run a command in this process: importing torch anew for each would take most of the time."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        chdir(cwd or ROOT),
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["pactolus", *map(str, arguments)])
        main()
    done = Done(stdout.getvalue(), stderr.getvalue())
    assert (end.value.code or 0) == status, done.stdout + done.stderr
    return done


def sentence(*arguments, cwd=None):
    done = pactolus(*arguments, cwd=cwd, status=2)
    text = (done.stderr or done.stdout).strip()
    assert "\n" not in text, text
    return text.removeprefix("pactolus: ")


def test_report_area(tmp_path):
    """Files of one technology, below the command that made them."""
    pactolus("report", "area", "--technology", "mini", "--series", "mac", "--digit-bits", "2", "-o", tmp_path)
    first, head, line = (tmp_path / "arrays-mini.csv").read_text().splitlines()
    assert first.startswith("# pactolus report area --technology mini --series mac")
    assert (head.split(",")[0], line.split(",")[0]) == ("series", "mac")
    assert (tmp_path / "arrays.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "stdout", "stderr"),
    [
        (["--version"], 0, f"pactolus {version('pactolus')}\n", ""),
        (["report", "area", "--technology", "tsmc7"], 2, "",
         "pactolus: Technology must be one of mini, ice40, ecp5, xilinx, not 'tsmc7' (others: --liberty)\n"),
        (["verilog", "--config", "huge"], 2, "",
         "pactolus: Config must be one of tiny, small, wide, int8, not 'huge'\n"),
    ],
)
def test_as_a_process(arguments, status, stdout, stderr):
    command = [sys.executable, "-m", "pactolus", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, stdout, stderr)


@pytest.mark.parametrize(
    "command",
    ["", "sim", "program", "synth", "train", "export", "onnx", "verilog", "docs", "report", "report solver", "study",
     "study methods", "study model-size", "study pact", "fuzz", "bench", "bench simulation", "bench training"],
)
def test_every_command_has_help(command):
    assert "Usage" in pactolus(*command.split(), "--help").stdout


def test_without_torch_simulation_is_imported():
    """Simulation, synthesis and Verilog work where torch is not installed."""
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['sklearn'] = None\n"
        "import pactolus.cli, tb.simulate, hw.synth.report, hw.datapath, golden.vectors"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_a_missing_package_is_named(tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "sys.argv = ['pactolus', 'train', '--epochs', '1']\n"
        "from pactolus.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == "pactolus: Package torch must be there for this command: pip install 'pactolus[train]'\n"


def test_sim_breaks_and_reports(tmp_path):
    """A broken weight ends in status 1 and the place of the first difference; the report file says the same."""
    arguments = ("sim", "digits-residual-w2a2", "--config", "tiny")
    done = pactolus(*arguments, "--break", "block2.shortcut.0", cwd=tmp_path, status=1)
    place = r"first difference in layer block2\.shortcut\.0, frame 0, channel \d+, row \d+, column \d+"
    assert re.search(place + r": expected \d+, got \d+", done.stdout)
    report = json.loads((tmp_path / "build/reports/sim-digits-residual-w2a2-tiny-verilator.json").read_text())
    wrong = {layer["name"] for layer in report["layers"] if layer["mismatches"]}
    assert wrong == {"block2.shortcut.0"}
    done = pactolus(*arguments, cwd=tmp_path)
    report = json.loads((tmp_path / "build/reports/sim-digits-residual-w2a2-tiny-verilator.json").read_text())
    assert report["mismatches"] == 0 and "0 mismatches" in done.stdout
    for layer in report["layers"]:
        assert {"name", "bits", "compared", "mismatches", "cycles"} <= set(layer)
        assert layer["compared"] > 0 or layer["reason"]


def test_program(tmp_path):
    """Listed, the program is read; else its files are written, for as many frames as wanted."""
    listing = pactolus("program", "digits-plain-w4a4", "--config", "tiny", "--list", cwd=tmp_path).stdout
    assert listing.startswith("Program of digits-plain-w4a4 for tiny: 4 rows, 4 lanes, 2-bit digits.\n")
    table = pactolus("program", "digits-plain-w4a4", "--config", "tiny", "--cycles", cwd=tmp_path).stdout
    assert re.search(r"^conv2 +73\d\d\d +73728 +0 ", table, re.MULTILINE)
    assert not list(tmp_path.iterdir())
    done = pactolus("program", "digits-plain-w4a4", "--config", "tiny", "--frames", "2", cwd=tmp_path)
    folder = tmp_path / "build/programs/digits-plain-w4a4-tiny"
    assert (folder / "listing.txt").read_text(encoding="utf-8") == listing
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["frames"] == 2 and f"{manifest['program_words']} words of 32 bits" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("sim nothing", "Network must be a vector folder or one of digits-plain-w2a2, "),
        ("sim --config huge", "Config must be one of tiny, small, wide, int8, not 'huge'"),
        ("sim digits-plain-w2a2 --break conv9", "Layer of digits-plain-w2a2 must be one of conv1, conv2, conv3, "),
        ("sim digits-plain-w2a2 --frames 99", "Frames must be between 1 and "),
        ("verilog --config huge", "Config must be one of tiny, small, wide, int8, not 'huge'"),
        ("program nothing", "Network must be a vector folder or one of digits-plain-w2a2, "),
        ("program digits-plain-w2a2 --frames 99", "Frames must be between 1 and 2, those of the vectors, not 99"),
        ("synth --pdk gf180", "PDK must be one of "),
        ("synth --digit-bits 2,x", "Bits must be numbers separated by commas, not 'x'"),
        ("verilog --bits 2", "Output width (--bits) and --component requantizer must come together"),
        ("synth --components array,tree", "Component must be one of array, pact, not 'tree'"),
        ("train --bits 4,x", "Bits must be numbers separated by commas, not 'x'"),
        ("train resnet1000",
            "Network must be one of digits-plain, digits-residual, cnn, resnet-8, resnet-20, not 'resnet1000'"),
        ("train cnn --data fashion-mnist --data-dir . --bits 4", "Fashion-MNIST must have its file train-images-idx3"),
        ("train --bits 4 --edge-bits four", "Bits must be numbers separated by commas, not 'four'"),
        ("study methods --methods lsq", "Method must be one of fp32, pact-dorefa, pact-sawb, "),
        ("export nothing.safetensors", "Checkpoint 'nothing.safetensors' "),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, expected, tmp_path):
    assert sentence(*arguments.split(), cwd=tmp_path).startswith(expected)


def test_verilog_is_written_once(tmp_path):
    first = pactolus("verilog", "--config", "tiny", cwd=tmp_path).stdout
    assert first.startswith("build/verilog/accelerator-tiny.v: ") and "unchanged" not in first
    assert "module accelerator(" in (tmp_path / "build/verilog/accelerator-tiny.v").read_text()
    assert "unchanged" in pactolus("verilog", "--config", "tiny", cwd=tmp_path).stdout
    pactolus("verilog", "--config", "tiny", "--component", "mac_array", "-o", tmp_path / "a/b.v", cwd=tmp_path)
    assert "module mac_array" in (tmp_path / "a/b.v").read_text()
    pactolus("verilog", "--config", "tiny", "--component", "datapath", cwd=tmp_path)
    assert "module datapath(" in (tmp_path / "build/verilog/datapath-tiny.v").read_text()
    for bits, module in ((2, "threshold_unit"), (8, "pact_unit")):
        pactolus("verilog", "--component", "requantizer", "--bits", str(bits), "-o", tmp_path / "r.v", cwd=tmp_path)
        assert f"module {module}(" in (tmp_path / "r.v").read_text()


def test_docs(tmp_path):
    assert "docs/registers.md\n" in pactolus("docs", cwd=tmp_path).stdout
    assert (tmp_path / "docs/registers.md").read_text() == (ROOT / "docs/registers.md").read_text()
    assert pactolus("docs", cwd=tmp_path).stdout == "docs: nothing has changed\n"


def test_solver_report(tmp_path):
    done = pactolus("report", "solver", "--channels", "60", "--residuals", "4", "-o", "s.csv", cwd=tmp_path)
    assert "64 channels, 0 wrong codes" in done.stdout
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "# pactolus report solver --channels 60 --residuals 4 --seed 0 --output s.csv"
    rows = list(csv.DictReader(lines[1:]))
    assert sum(int(row["channels"]) for row in rows) == 64
    assert all(int(row["M_median"]) <= int(row["M_rounded_median"]) for row in rows)


def test_train_export_simulate(tmp_path):
    """The main road: a checkpoint, its integers, its vectors, and the RTL that computes them."""
    done = pactolus("train", "digits-residual", "--bits", "fp32,3", "--epochs", "2", "--table", "t.csv", cwd=tmp_path)
    assert "Test accuracy" in done.stdout
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 4
    checkpoint = tmp_path / "build/checkpoints/digits-residual-w3a3-seed0.safetensors"
    assert "Golden vectors are in" in pactolus("export", checkpoint, "-o", "mine", cwd=tmp_path).stdout
    first = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    pactolus("export", checkpoint, "-o", "mine", cwd=tmp_path)
    assert first == {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    assert "0 mismatches" in pactolus("sim", "mine", "--config", "tiny", cwd=tmp_path).stdout


def test_train_takes_the_methods_by_name(tmp_path):
    pactolus("train", "digits-plain", "--bits", "2", "--weights", "sawb", "--activations", "pact+", "--epochs", "1",
             cwd=tmp_path)
    assert (tmp_path / "build/checkpoints/digits-plain-sawb-pact+-w2a2-seed0.safetensors").exists()
    octav = ("--weights", "octav", "--activations", "octav", "--octav-weight-gradient", "ste")
    pactolus("train", "digits-plain", "--bits", "2", *octav, "--octav-activation-gradient", "mad", "--octav-clips",
             "static", "--epochs", "1", cwd=tmp_path)
    assert (tmp_path / "build/checkpoints/digits-plain-octav-octav-ste-mad-static-w2a2-seed0.safetensors").exists()
    vsquant = ("--weights", "vsquant", "--activations", "vsquant", "--vsquant-vector", 8, "--vsquant-scale-bits", 3)
    pactolus("train", "digits-plain", "--bits", "2", *vsquant, "--vsquant-scales", "dynamic", "--edge-bits", 4,
             "--epochs", "1", cwd=tmp_path)
    name = "digits-plain-vsquant-vsquant-v8-m3-dynamic-w2a2-e4-seed0.safetensors"
    assert (tmp_path / "build/checkpoints" / name).exists()
    refused = sentence("train", "digits-plain", "--bits", "fp32,8", "--weights", "sawb", cwd=tmp_path)
    assert refused == "Bits must be between 1 and 5 for SAWB, not 8"


def test_train_takes_a_configuration_from_a_file(tmp_path):
    (tmp_path / "c.toml").write_text('network = "digits-plain"\nweight_bits = 3\nactivation_bits = 2\nepochs = 9\n'
                                     "width = 0.5\n[layer_weight_bits]\nconv3 = 4\n")
    done = pactolus("train", "--config", "c.toml", "--epochs", "1", "--seed", "5", "--validation", "100", cwd=tmp_path)
    assert "digits-plain" in done.stdout
    found = sorted(path.name for path in (tmp_path / "build/checkpoints").iterdir())
    assert [re.sub("-[0-9a-f]{8}-", "-", name) for name in found] == [
        f"digits-plain-x0.5-w3a2-seed5.{suffix}" for suffix in ("csv", "json", "safetensors")]
    metrics = (tmp_path / "build/checkpoints" / found[0]).read_text().splitlines()
    assert len(metrics) == 2 and metrics[0].startswith("epoch,learning_rate,loss,train_percent,validation_percent")


def test_export_into_narrow_widths_says_what_differs(tmp_path, monkeypatch):
    """Constants that are too narrow are used, counted, and end in status 1."""
    from typer.testing import CliRunner

    from hw.config import PRESETS, AcceleratorConfig
    from pactolus.cli import app
    from sw.train import TrainConfig, save_checkpoint, train

    narrow = AcceleratorConfig(name="narrow", rows=1, lanes=1, digit_bits=1, multiplier_bits=4, bias_bits=16)
    monkeypatch.setitem(PRESETS, "narrow", narrow)
    checkpoint = tmp_path / "c.safetensors"
    save_checkpoint(train(TrainConfig(network="digits-plain", weight_bits=4, activation_bits=4, epochs=1)), checkpoint)
    arguments = ["export", str(checkpoint), "-o", str(tmp_path / "v")]
    assert CliRunner().invoke(app, [*arguments, "--onnx", "--form", "qcdq"]).exit_code == 0
    assert list((tmp_path / "v").glob("*.onnx"))
    result = CliRunner().invoke(app, [*arguments, "--config", "narrow"])
    assert result.exit_code == 1
    assert re.search(r"^[1-9]\d* codes differ from the model's forward in float64\.$", result.stdout, re.MULTILINE)


def test_export_rounds_the_products_of_scales(tmp_path):
    from golden import vectors
    from golden.network import Conv2d
    from sw.train import TrainConfig, save_checkpoint, train

    config = TrainConfig(network="digits-plain", weight_bits=2, activation_bits=2, edge_bits=4, weights="vsquant",
                         activations="vsquant", width=0.5, epochs=1)
    save_checkpoint(train(config), tmp_path / "c.safetensors")
    done = pactolus("export", "c.safetensors", "-o", "v", "--product-shift", 3, "--onnx", cwd=tmp_path, status=1)
    assert "codes differ from the model's forward in float64." in done.stdout
    # The file is that of the rounded products, which ONNX Runtime rounds too.
    assert re.search(r"2 frames, onnxruntime [\d.]+: 0 of \d+ differ\.", done.stdout)
    assert list((tmp_path / "v").glob("*.onnx"))
    network, _ = vectors.read(tmp_path / "v")
    shifts = {op.name: op.product_shift for op in network.operations if isinstance(op, Conv2d)}
    assert shifts == {"conv1": 0, "conv2": 3, "conv3": 3, "linear": 0}


def test_fuzz():
    done = pactolus("fuzz", "--count", 2, "--seed", 40)
    assert done.stdout == "2 of 2 random networks passed (tiny, verilator; seeds from 40).\n"


def test_bench_writes_a_table(tmp_path):
    path = tmp_path / "speed.csv"
    options = ("--config", "tiny", "--network", "digits-plain-w2a2", "--cycles", 10_000, "-o", path)
    done = pactolus("bench", "simulation", *options)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["config"] == "tiny" and int(row["cycles"]) >= 10_000 and int(row["cycles_per_second"]) > 1_000
    assert 0 < float(row["python_percent"]) < 100 and row["cycles_per_second"] in done.stdout


def test_bench_refuses_an_unknown_preset():
    assert sentence("bench", "simulation", "--config", "tiny,huge").endswith(", not 'huge'")


def test_bench_training_writes_ratios(tmp_path):
    done = pactolus("bench", "training", "--network", "digits-plain", "--bits", "4,2", "--rounds", 2, "--batch", 4,
                    cwd=tmp_path)
    assert "sawb, pact" in done.stdout
    command, *lines = (tmp_path / "build/reports/training-step.csv").read_text().splitlines()
    assert command.startswith("# pactolus bench training ")
    rows = list(csv.DictReader(lines))
    assert [row["bits"] for row in rows if row["method"] == "sawb, pact"] == ["4", "2"]
    assert [row["method"] for row in rows].count("float32") == 2, "the control"
    assert all(0 < float(row["low"]) <= float(row["ratio"]) <= float(row["high"]) for row in rows)
    assert sentence("bench", "training", "--network", "lenet").startswith("Network must be one of digits-plain, ")
