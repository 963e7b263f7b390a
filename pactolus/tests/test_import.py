"""`pactolus import`: files, sentences, and a network that can be simulated as any other."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest

from golden import vectors
from golden.tests.onnx_maker import OnnxMaker
from pactolus.tests.test_cli import ROOT, pactolus, sentence


@pytest.fixture
def file(tmp_path):
    maker = OnnxMaker((2, 5, 5))
    maker.conv(maker.weights(3, 2, 3, 3))
    maker.requantize(3, high=3)
    maker.node("Flatten")
    maker.node("MatMul", maker.last, maker.constant(maker.weights(27, 4)))
    maker.node("Softmax")
    onnx.save(maker.model(), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def test_help():
    assert "Usage" in pactolus("import", "--help").stdout


def test_import(file, tmp_path):
    done = pactolus("import", file, "--input-range", "-1,1", "--frames", 2, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "Conv_0    convolution 3×3  3-bit weights  t5  3×3×3  2-bit codes",
        "MatMul_7  linear           3-bit weights  t7  4×1×1  8-bit accumulators",
        "Node 'Softmax_8' (Softmax) at the end was dropped: the host computes it.",
        "Golden vectors are in build/vectors/small.",
    ]
    network, values = vectors.read(tmp_path / "build" / "vectors" / "small")
    assert network.name == "small" and len(values["x"]) == 2 and network.input.zero_point == 1


def test_mistakes_are_one_sentence(file, tmp_path):
    text = sentence("import", file, "--input-range", "3", cwd=tmp_path)
    assert text == "Input range must be two integers separated by a comma, not '3'"
    text = sentence("import", file, "--input-range", "1,3", cwd=tmp_path)
    assert text == "Input range must contain 0 and another integer, not 1..3"
    assert "absent.onnx" in sentence("import", tmp_path / "absent.onnx", cwd=tmp_path)
    maker = OnnxMaker((2, 5, 5))
    maker.node("Exp", name="e")
    onnx.save(maker.model(), tmp_path / "exp.onnx")
    assert sentence("import", tmp_path / "exp.onnx", cwd=tmp_path).startswith(
        "Node 'e' (Exp) is of an operator that is"
    )


def test_without_onnx_the_extra_is_named(file):
    script = (
        "import sys; sys.modules['onnx'] = None\n"
        f"sys.argv = ['pactolus', 'import', {str(file)!r}]\n"
        "import golden.vectors, pactolus.cli; pactolus.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and done.stderr.strip().endswith("pip install 'pactolus[import]'")
