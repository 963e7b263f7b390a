"""`pactolus report imports`: a folder of files as a table."""

from __future__ import annotations

import csv

import numpy as np
import onnx
import pytest

from golden.onnx_import import agreement, load
from golden.tests.qonnx_graphs import GRAPHS
from pactolus import import_report
from pactolus.tests.test_cli import pactolus, sentence

FILES = ("per_channel", "quantized_global_pool", "residual_with_ties", "float_weights", "integer_input")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "inside").mkdir()
    for name in FILES:
        onnx.save(GRAPHS[name]().model, folder / "inside" / f"{name}.onnx")
    (folder / "broken.onnx").write_bytes(b"nothing")
    return folder


def test_matrix(folder, tmp_path):
    done = pactolus("report", "imports", folder, "-o", tmp_path / "m", "--input-range", "integer_input=0,15")
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines[0].startswith("# pactolus report imports ") and done.stdout.count("Written to") == 2
    rows = {row["file"].removeprefix("inside/").removesuffix(".onnx"): row for row in csv.DictReader(lines[1:])}
    assert set(rows) == {*FILES, "broken"}

    row = rows["per_channel"]
    assert (row["status"], row["executor"], row["frames"], row["differing"]) == ("exact", "qonnx", "100", "0")
    assert (row["weight_bits"], row["activation_bits"], int(row["codes"])) == ("4", "8, 4", 65300)
    assert row["operators"] == "BatchNormalization×2, Conv×2, Flatten, Gemm, Quant×6, Relu×2"
    assert rows["integer_input"]["status"] == "exact"
    row = rows["quantized_global_pool"]
    assert int(row["ties"]) == int(row["differing"]) > 0 and "float32's error is at most" in row["example"]
    assert row["status"] == f"differs in {row['ties']} of 21,400 codes: {row['ties']} float32 ties of qonnx"
    row = rows["residual_with_ties"]
    assert int(row["inexact"]) > 0 and "get another code" in row["notices"]
    assert rows["float_weights"]["status"].startswith("refused: Node 'conv' (Conv) must have")
    assert rows["broken"]["status"].startswith("refused: File ") and rows["broken"]["operators"] == ""

    text = (tmp_path / "m.md").read_text()
    assert text.startswith("# Import matrix\n\n    pactolus report imports ")
    assert "6 files: 2 exact, 2 differ, 2 refused. " in text and ", and 0 differ without a reason." in text
    assert (
        "| `inside/per_channel.onnx` | BatchNormalization×2, Conv×2, Flatten, Gemm, Quant×6, Relu×2 | 4 | 8, 4 |"
        in text
    )
    refused = text[text.index("## Refused") : text.index("## First difference")]
    assert refused.count("\n| `") == 2 and "refused:" not in refused
    assert text.count("\n* `inside/residual_with_ties.onnx`: ") == 2


def test_a_code_that_nothing_explains_fails(folder, tmp_path, monkeypatch):
    true = agreement.run

    def wrong(model, x):
        values = true(model, x)
        name = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
        quantized = next(node.output[0] for node in model.graph.node if name in node.input)
        return values | {quantized: np.roll(values[quantized], 1, axis=0)}

    monkeypatch.setattr(agreement, "run", wrong)
    file = folder / "inside" / "per_channel.onnx"
    done = pactolus("report", "imports", file, "-o", tmp_path / "m", "--frames", 3, status=1)
    assert "unexplained" in done.stdout and "per_channel.onnx" in done.stdout
    text = (tmp_path / "m.md").read_text()
    assert "## First difference" in text and "but" in text


def test_a_file_that_its_executor_refuses_is_not_compared(folder, tmp_path, monkeypatch):
    def fails(model, x):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(agreement, "run", fails)
    row = import_report.row("a.onnx", folder / "inside" / "per_channel.onnx", frames=2)
    assert row.status == "not compared: qonnx cannot run it: no such operator" and row.weight_bits == "4"


def test_mistakes_are_one_sentence(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert sentence("report", "imports", tmp_path / "empty").endswith("must have .onnx files")
    assert sentence("report", "imports", folder, "--frames", 0) == "Frames must be at least 1, not 0"
    text = sentence("report", "imports", folder, "--input-range", "a=1")
    assert text == "Input range must be two integers separated by a comma, not '1'"


@pytest.mark.parametrize("name", ["per_channel", "bipolar_activations", "transposed_input", "integer_input",
                                  "qcdq_zero_points", "multi_threshold_bipolar"])  # fmt: skip
def test_inputs_reach_all_codes(name, tmp_path):
    """Also through what the file does before it quantizes: 2x - 1, a Transpose."""
    graph = GRAPHS[name]()
    onnx.save(graph.model, tmp_path / "a.onnx")
    result = load(tmp_path / "a.onnx", **graph.options)
    x = import_report.draw(result, graph.model, 50)
    assert x.shape == (50, *graph.shape[1:])
    codes = result.encode(x)
    assert len(np.unique(codes)) > 0.9 * (result.network.input.max_code - 1)
    assert codes.min() == 0
