"""The program on the page docs/your-own-network.md runs and keeps every code."""
from __future__ import annotations

import re
from pathlib import Path

import torch

from golden import vectors
from golden.network import Conv2d

PAGE = Path(__file__).parents[2] / "docs" / "your-own-network.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    assert program.count("epochs=20") == 3
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    with torch.random.fork_rng(devices=[]):
        exec(compile(program.replace("epochs=20", "epochs=2"), str(PAGE), "exec"), names)
    output = capsys.readouterr().out
    assert "float32, fake-quantized: 0." in output and "integer network: 0." in output
    layers = names["exported"].report.layers
    assert [layer.name for layer in layers] == ["stem", "pool", "shortcut.0", "conv", "head"]
    assert all(layer.float64_differences == 0 and layer.mismatches == 0 for layer in layers)
    network, values = vectors.read(tmp_path / "my-network")
    assert values[network.input.name].shape == (2, 1, 8, 8)
    assert [op.skip for op in network.operations if isinstance(op, Conv2d) and op.skip] == ["shortcut.2"]
    layers = names["exported_float"].report.layers
    assert [layer.name for layer in layers] == ["0", "3", "4", "9"]
    assert all(layer.float64_differences == 0 and layer.mismatches == 0 for layer in layers)
    assert "swapped and trained: 0." in output and "post-training: 0." in output
    assert "2: the bound 6 is where its clip starts, no longer fixed" in output
