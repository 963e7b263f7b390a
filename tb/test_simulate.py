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
from tb import examples, runner, simulate

PLAIN = "random-plain-w3a3"
RESIDUAL = "random-residual-w2a2"


def run(*networks: Path | str, **arguments: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    status = simulate.run(networks, console=console, **{"config": "tiny", **arguments})
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_table_report_and_status(any_simulator: str, folders: dict[str, Path], tmp_path: Path) -> None:
    status, text = run(folders[PLAIN], folders[RESIDUAL], simulator=any_simulator, frames=1, reports=tmp_path)
    assert status == 0, text
    for name in (PLAIN, RESIDUAL):
        network, _ = vectors.read(folders[name])
        report = json.loads((tmp_path / f"sim-{name}-tiny-{any_simulator}.json").read_text())
        assert (
            report["network"] == name and report["config"] == "tiny" and report["simulator"] == any_simulator
        )
        assert report["frames"] == 1 and report["mismatches"] == 0 and report["difference"] is None
        assert report["parameters"]["rows"] == 4
        assert [layer["name"] for layer in report["layers"]] == [
            operation.name for operation in network.operations
        ]
        for layer, operation in zip(report["layers"], network.operations, strict=True):
            output = network.tensor(operation.output)
            assert layer["name"] in text and layer["shape"] == list(output.shape)
            if isinstance(operation, Conv2d):
                assert layer["computed_by"] == "rtl" and layer["mismatches"] == 0 and layer["cycles"] > 0
                assert layer["compared"] == np.prod(output.shape)
                activation = network.tensor(operation.input).bits
                assert layer["bits"] == {
                    "weight": operation.bits,
                    "activation": activation,
                    "output": output.bits,
                }
                assert f"{operation.bits}/{activation}" in text
            else:
                assert layer["computed_by"] == "golden" and layer["compared"] == 0 and layer["reason"] in text
    total = sum(layer["compared"] for layer in report["layers"])
    assert total > 0 and " 0 mismatches (tiny," in text


@pytest.mark.parametrize(
    ("network", "layer"), [(PLAIN, "deep"), (PLAIN, "last"), (RESIDUAL, "a2"), (RESIDUAL, "fc")]
)
def test_break(verilator: str, folders: dict[str, Path], tmp_path: Path, network: str, layer: str) -> None:
    status, text = run(folders[network], frames=1, break_layer=layer, reports=tmp_path)
    assert status == 1
    report = json.loads((tmp_path / f"sim-{network}-tiny-verilator.json").read_text())
    wrong = [entry["name"] for entry in report["layers"] if entry["mismatches"]]
    assert wrong == [layer]
    difference = report["difference"]
    assert difference["layer"] == layer and difference["expected"] != difference["got"]
    assert report["broken"]["operation"] == layer and report["broken"]["code"] != report["broken"]["was"]
    assert difference["channel"] == report["broken"]["index"][0]
    place = ", ".join(f"{key} {difference[key]}" for key in ("channel", "row", "column"))
    assert (
        f"{network}: first difference in layer {layer}, frame 0, {place}: expected {difference['expected']}"
        in text
    )
    # What the RTL computed is what golden computes with the broken weight.
    original, tensors = vectors.read(folders[network])
    codes = np.array(original.operation(layer).codes)  # type: ignore[union-attr]
    codes[tuple(report["broken"]["index"])] = report["broken"]["code"]
    operations = tuple(
        replace(op, codes=codes) if op.name == layer and isinstance(op, Conv2d) else op
        for op in original.operations
    )
    changed = execute(IntegerNetwork(original.name, original.tensors, operations), tensors["input"][:1])
    output = original.operation(layer).output
    assert (changed[output] != tensors[output][:1]).sum() == sum(
        entry["mismatches"] for entry in report["layers"]
    )


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
    with pytest.raises(
        NetworkError, match=r"^Network must be a vector folder or one of .*, not 'no-such-network'$"
    ):
        run("no-such-network")


def test_refuses_a_network_that_does_not_fit(
    verilator: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "narrow", replace(PRESETS["tiny"], name="narrow", acc_bits=8))
    sentence = r"^Layer 'first' needs acc_bits of at least \d+, but configuration 'narrow' has 8$"
    with pytest.raises(UnsupportedNetworkError, match=sentence):
        run(folders[PLAIN], config="narrow")


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
        raise runner.SimulationError("The design must make progress")

    monkeypatch.setattr(runner, "run_bench", fail)
    status, text = run(folders[PLAIN], reports=tmp_path)
    assert status == 1 and f"{PLAIN}: The design must make progress" in text
    assert not list(tmp_path.iterdir())
