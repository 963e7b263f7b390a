"""`pactolus onnx`: files in every form, executed, and what a user reads about them."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from golden import file, vectors
from golden.generated import random_spec
from golden.onnx_export import FORMS, integer_model, metadata
from pactolus import onnx_files
from pactolus.tests.test_cli import ROOT, pactolus, sentence


@pytest.mark.parametrize("form", FORMS)
def test_a_committed_network(form, tmp_path):
    done = pactolus("onnx", "digits-residual-w2a2", "--form", form, cwd=tmp_path)
    path = tmp_path / f"build/onnx/digits-residual-w2a2-{form}.onnx"
    assert metadata(onnx.load(path))["form"] == form
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["tensor", "elements", "differing"] in lines
    assert ["block2.act2", "1024", "0"] in lines and ["linear", "20", "0"] in lines
    who = "qonnx" if form == "qonnx" else "onnxruntime"
    assert re.search(rf"^2 frames, {who} [\d.]+: 0 of 9236 differ\.$", done.stdout, re.MULTILINE)
    assert ("7 of 7 operations are proved for every input." in done.stdout) == (form != "integer")


def test_what_is_not_proved_is_said(tmp_path):
    done = pactolus("onnx", "digits-plain-w8a8", "--form", "qcdq", cwd=tmp_path)
    found = re.findall(r"^(\w+): (\d+) of (\d+) reachable accumulators have another code\.$", done.stdout, re.MULTILINE)
    assert {name for name, *_ in found} <= {"conv1", "conv2", "conv3"} and len(found) > 0
    assert all(0 < int(count) < 20 < 10**6 < int(of) for _, count, of in found)
    assert f"{4 - len(found)} of 4 operations are proved for every input." in done.stdout


def test_a_network_file_gets_random_codes(tmp_path):
    network, _ = random_spec(3).build(frames=1)
    file.save(network, tmp_path / "mine.safetensors")
    done = pactolus("onnx", "mine.safetensors", "-o", "mine.onnx", "--frames", 7, cwd=tmp_path)
    assert re.search(r"^7 frames, onnxruntime [\d.]+: 0 of \d+ differ\.$", done.stdout, re.MULTILINE)
    first = (tmp_path / "mine.onnx").read_bytes()
    pactolus("onnx", "mine.safetensors", "-o", "mine.onnx", cwd=tmp_path)
    assert (tmp_path / "mine.onnx").read_bytes() == first


def test_a_file_that_differs_ends_in_status_1(tmp_path, monkeypatch):
    def wrong(network):
        model = integer_model(network)
        (bias,) = [each for each in model.graph.initializer if each.name == "conv2.B"]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * 2, "conv2.B"))
        return model

    monkeypatch.setitem(FORMS, "integer", wrong)
    done = pactolus("onnx", "digits-plain-w4a4", cwd=tmp_path, status=1)
    assert re.search(r": [1-9]\d* of 8212 differ\.$", done.stdout, re.MULTILINE)
    act2 = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["act2"])
    assert int(act2[2]) > 0
    act1 = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["act1"])
    assert int(act1[2]) == 0


def test_mistakes_are_one_sentence(tmp_path):
    text = sentence("onnx", "digits-plain-w2a2", "digits-plain-w3a3", "-o", "x.onnx", cwd=tmp_path)
    assert text == "Output must be given with one network only, not with 2"
    assert sentence("onnx", "nothing", cwd=tmp_path).startswith("Network must be a vector folder or one of digits-")
    network, _ = random_spec(3).build(frames=1)
    file.save(network, tmp_path / "mine.safetensors")
    text = sentence("onnx", "mine.safetensors", "--data", "digits", cwd=tmp_path)
    assert re.fullmatch(r"Input of network '[\w-]+' must have shape \(1, 8, 8\) for digits, not \(.*\)", text)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    assert "broken.safetensors" in sentence("onnx", "broken.safetensors", cwd=tmp_path)


def test_the_images_are_those_of_the_vectors():
    network, values = vectors.read(vectors.find("digits-residual-w4a4"))
    codes = onnx_files.test_codes(network, "digits", None)
    assert len(codes) == 360
    np.testing.assert_array_equal(codes[:2], values["input"])


def test_without_onnxruntime_the_extra_is_named(tmp_path):
    script = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "sys.argv = ['pactolus', 'onnx', 'digits-plain-w2a2']\n"
        "import pactolus.cli; pactolus.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and done.stderr.strip().endswith("pip install 'pactolus[import]'")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_test_image(form, tmp_path):
    """All eight networks at every layer; the float forms too, although not every threshold of w8a8 is proved."""
    done = pactolus("onnx", "--data", "digits", "--form", form, cwd=tmp_path)
    totals = re.findall(r"^360 frames, \w+ [\d.]+: (\d+) of (\d+) differ\.$", done.stdout, re.MULTILINE)
    assert totals == [("0", "1478160")] * 4 + [("0", "1662480")] * 4
