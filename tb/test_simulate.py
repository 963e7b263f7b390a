"""``simulate.run``: the table, the reports, the exit status and every refusal."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from golden import vectors
from golden.execute import execute
from golden.network import Conv2d, IntegerNetwork, NetworkError
from hw.config import PRESETS, UnsupportedNetworkError
from tb import examples, runner, session, simulate

PLAIN = "random-plain-w3a3"
RESIDUAL = "random-residual-w2a2"
SMALL = "random-small"
VARIED = "random-varied"


def run(*networks: Path | str, **arguments: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    status = simulate.run(networks, console=console, **{"config": "tiny", **arguments})
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_table_report_and_status(any_simulator: str, folders: dict[str, Path], tmp_path: Path) -> None:
    names = (PLAIN, RESIDUAL) if any_simulator == "verilator" else (SMALL, VARIED)
    chosen = [folders[name] for name in names]
    status, text = run(*chosen, simulator=any_simulator, frames=2, reports=tmp_path)
    assert status == 0, text
    compared = 0
    for name in names:
        network, _ = vectors.read(folders[name])
        report = json.loads((tmp_path / f"sim-{name}-tiny-{any_simulator}.json").read_text())
        assert (report["network"], report["config"], report["simulator"]) == (name, "tiny", any_simulator)
        assert report["frames"] == 2 and report["mismatches"] == 0 and report["difference"] is None
        assert report["parameters"]["rows"] == 4 and report["waits"]["output"] == 0
        assert report["cycles"] == report["predicted_cycles"] > sum(layer["cycles"] for layer in report["layers"])
        assert report["simulated_cycles"] > 4 * report["cycles"] and report["cycles_per_second"] > 0
        macs = sum(layer["macs"] for layer in report["layers"])
        assert report["utilization"] == macs / (report["cycles"] * 16)
        assert [name for layer in report["layers"] for name in layer["operations"]] == [
            operation.name for operation in network.operations
        ]
        for layer in report["layers"]:
            assert "+".join(layer["operations"]) in text and layer["computed_by"] == "rtl"
            assert layer["mismatches"] == 0 and layer["difference"] is None
            assert layer["compared"] == 2 * np.prod(layer["shape"])
            assert layer["cycles"] == layer["predicted_cycles"] > layer["stalls"] >= 0
            assert layer["utilization"] == layer["macs"] / (16 * layer["cycles"]) <= 1
            operation = network.operation(layer["operations"][0])
            activation = network.tensor(operation.inputs[0]).bits
            output = network.tensor(network.operation(layer["operations"][-1]).output)
            assert layer["shape"] == list(output.shape)
            weight = {"weight": operation.bits} if isinstance(operation, Conv2d) else {}
            assert layer["bits"] == {**weight, "activation": activation, "output": output.bits}
            assert f"{weight.get('weight', '-')}/{activation}" in text
        compared += report["compared"]
    assert f"{compared} results compared with golden, 0 mismatches (tiny, {any_simulator})" in text


@pytest.mark.parametrize(
    ("network", "layer"), [(PLAIN, "grouped"), (PLAIN, "last"), (RESIDUAL, "a2"), (RESIDUAL, "fc")]
)
def test_break(verilator: str, folders: dict[str, Path], tmp_path: Path, network: str, layer: str) -> None:
    status, text = run(folders[network], frames=1, break_layer=layer, reports=tmp_path)
    assert status == 1
    report = json.loads((tmp_path / f"sim-{network}-tiny-verilator.json").read_text())
    difference, broken = report["difference"], report["broken"]
    assert layer in next(entry["operations"] for entry in report["layers"] if entry["mismatches"])
    assert difference["expected"] != difference["got"]
    assert broken["operation"] == layer and broken["code"] != broken["was"]
    assert difference["channel"] == broken["index"][0]
    place = ", ".join(f"{key} {difference[key]}" for key in ("channel", "row", "column"))
    said = f"first difference in layer {difference['layer']}, frame 0, {place}: expected {difference['expected']}"
    assert f"{network}: {said}" in text and f"{difference['got']}*" in text
    # What the RTL computed from there on is what golden computes with the broken weight.
    original, tensors = vectors.read(folders[network])
    codes = np.array(original.operation(layer).codes)  # type: ignore[union-attr]
    codes[tuple(broken["index"])] = broken["code"]
    operations = tuple(
        replace(op, codes=codes) if op.name == layer and isinstance(op, Conv2d) else op for op in original.operations
    )
    changed = execute(IntegerNetwork(original.name, original.tensors, operations), tensors["input"][:1])
    for entry in report["layers"]:
        output = original.operation(entry["operations"][-1]).output
        assert entry["mismatches"] == (changed[output] != tensors[output][:1]).sum()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"config": "huge"}, f"Config must be one of {', '.join(PRESETS)}, not 'huge'"),
        ({"simulator": "vcs"}, "Simulator must be one of verilator, icarus, not 'vcs'"),
        ({"break_layer": "pool"}, f"Layer of {PLAIN} must be one of first, grouped, deep, last, not 'pool'"),
        ({"frames": 0}, f"Frames must be between 1 and 2, which {PLAIN} has vectors for, not 0"),
        ({"frames": 3}, f"Frames must be between 1 and 2, which {PLAIN} has vectors for, not 3"),
    ],
)
def test_refusals(verilator: str, folders: dict[str, Path], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(folders[PLAIN], **arguments)


def test_refuses_an_unknown_network(verilator: str) -> None:
    with pytest.raises(NetworkError, match=r"^Network must be a vector folder or one of .*, not 'no-such-network'$"):
        run("no-such-network")


def test_refuses_a_network_that_does_not_fit(verilator: str, folders: dict[str, Path]) -> None:
    narrow = replace(PRESETS["tiny"], name="narrow", acc_bits=8)
    sentence = r"^Layer 'first' needs acc_bits of at least \d+, but configuration 'narrow' has 8$"
    with pytest.raises(UnsupportedNetworkError, match=sentence):
        run(folders[PLAIN], config=narrow)


def test_says_when_a_layer_cannot_be_broken(verilator: str, tmp_path: Path) -> None:
    network = examples.residual_network(2)
    vectors.write(tmp_path / "dark", network, np.zeros((1, *network.input.shape), np.uint8), seed=0)
    sentence = (
        f"^Layer 'stem' of {RESIDUAL} cannot be broken: "
        "no single weight changes any of its results on the frames simulated$"
    )
    with pytest.raises(simulate.UsageError, match=sentence):
        run(tmp_path / "dark", break_layer="stem")


def test_missing_simulator_is_a_failure(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(runner.MissingSimulator, match=r"^Icarus Verilog is not installed"):
        run(folders[PLAIN], simulator="icarus")


def test_failed_simulation_is_a_failure(
    verilator: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise runner.SimulationError("The accelerator must finish")

    monkeypatch.setattr(runner, "run_bench", fail)
    status, text = run(folders[PLAIN], reports=tmp_path)
    assert status == 1 and f"{PLAIN}: The accelerator must finish" in text
    assert not list(tmp_path.iterdir())


def test_other_cycles_than_predicted_are_a_failure(
    verilator: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = session.run_session

    def slower(*arguments: Any, **options: Any) -> session.Session:
        done = honest(*arguments, **options)
        outcomes = (replace(done.outcomes[0], cycles=done.outcomes[0].cycles + 1), *done.outcomes[1:])
        return replace(done, outcomes=outcomes)

    monkeypatch.setattr(simulate, "run_session", slower)
    status, text = run(folders[PLAIN], frames=1, reports=tmp_path)
    assert status == 1 and f"{PLAIN}: cycles are not the predicted ones" in text


def test_waveform_only_when_asked(any_simulator: str, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / f"sim-random-small-tiny-{any_simulator}.vcd"
    status, text = run(folders["random-small"], frames=1, simulator=any_simulator, reports=tmp_path)
    assert status == 0 and not path.exists() and "Waveform" not in text
    status, text = run(folders["random-small"], frames=1, simulator=any_simulator, reports=tmp_path, wave=True)
    assert status == 0 and f"Waveform: {path}" in text
    assert "sequencer" in path.read_text()
