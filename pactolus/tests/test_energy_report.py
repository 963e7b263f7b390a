"""The energy report from the command line."""

import csv
import re

import pytest
from typer.testing import CliRunner

from hw.synth.energy_plot import COLOURS
from hw.tests.synth_support import full_liberty
from hw.tests.tools import tool
from pactolus import energy_report
from pactolus.cli import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["report", "energy", *map(str, arguments)])


def test_small_arrays(tmp_path, monkeypatch):
    tool("iverilog")
    liberty = full_liberty("nangate45")
    monkeypatch.chdir(tmp_path)
    result = invoke(
        "--liberty", liberty, "--bits", "2", "--rows", "2", "--lanes", "4", "--beats", "16", "--config", ""
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    path = tmp_path / "build" / "reports" / "energy-nangate45.csv"
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# pactolus")
    rows = {row["operands"]: row for row in csv.DictReader(lines)}
    assert list(rows) == ["uniform", "layer", "zeros", "idle"]
    for row in rows.values():
        assert float(row["pj"]) == pytest.approx(sum(float(row[f"pj_{part}"]) for part in COLOURS), rel=1e-4)
        kinds = ("internal", "switching", "clock", "leakage")
        assert float(row["pj"]) == pytest.approx(sum(float(row[f"pj_{kind}"]) for kind in kinds), rel=1e-4)
        assert row["mismatches"] == "0" and int(row["compared"]) > 0
    uniform, zeros, idle = (float(rows[name]["pj"]) for name in ("uniform", "zeros", "idle"))
    assert uniform > zeros > idle > 0
    assert float(rows["zeros"]["pj_tree"]) < 0.1 * float(rows["uniform"]["pj_tree"])
    assert all(path.with_suffix(suffix).is_file() for suffix in (".svg", ".png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pdk", "mini"), "Liberty library 'pactolus_mini' must have internal_power groups, for an energy"),
        (("--pdk", "generic"), "Energy needs a technology of standard cells, not 'generic'"),
        (("--pdk", "mini", "--beats", "3"), "Number of beats must be at least 4, not 3"),
        (("--pdk", "mini", "--slew-ns", "0"), "Slew must be positive, not 0.0"),
        (("--pdk", "mini", "--clock-ns", "-1"), "Clock period must be positive, not -1.0"),
        (("--pdk", "mini", "--layer", "conv1"), "Layer must be NETWORK:LAYER, not 'conv1'"),
        (
            ("--pdk", "mini", "--layer", "digits-plain-w2a2:conv9"),
            "Layer of network 'digits-plain-w2a2' must be one of conv1, conv2, conv3, linear, not 'conv9'",
        ),
        (("--pdk", "mini", "--layer", "digits:conv1"), "Network must be one of digits-plain-w2a2, "),
    ],
)
def test_refused(arguments, message, tmp_path, monkeypatch):
    tool("iverilog")
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments, "--bits", "1", "--rows", "1", "--lanes", "1")
    assert isinstance(result.exception, ValueError)
    assert re.match(re.escape(message), str(result.exception))


def test_every_width_has_a_trained_layer():
    for network, layer, _ in energy_report.TRAINED.values():
        assert (energy_report.NETWORKS / network).is_dir()
        assert layer
