"""`pactolus fuzz-import`: broken and hostile files, and an importer that fails on them."""

from __future__ import annotations

import io
import random
import re
import sys

import onnx
import pytest
from rich.console import Console

from golden.onnx_import import convert
from pactolus import import_fuzz
from pactolus.tests.test_cli import pactolus, sentence

IMPORTER = "import golden.onnx_import as g, sys, os, time; "


def test_the_files_that_it_starts_from_are_imported():
    for model in import_fuzz.seeds():
        assert convert(model, input_range=(0, 15) if len(model.graph.node) < 15 else None).network.operations


def test_a_seed_makes_the_same_file():
    data = import_fuzz.seeds()[0].SerializeToString()
    files = [import_fuzz.mutate(data, random.Random(seed)) for seed in range(40)]
    assert files == [import_fuzz.mutate(data, random.Random(seed)) for seed in range(40)]
    assert len(set(files)) > 35 and data not in files[:3]


@pytest.mark.parametrize("change", import_fuzz._CHANGES, ids=lambda change: change.__name__)
def test_every_change_changes_something(change):
    before = import_fuzz.seeds()
    changed = 0
    for seed in range(30):
        model = onnx.ModelProto.FromString(before[seed % 3].SerializeToString())
        change(model, random.Random(seed))
        changed += model.SerializeToString() != before[seed % 3].SerializeToString()
    assert changed > 10


def test_files_are_imported_or_refused(tmp_path):
    done = pactolus("fuzz-import", "--count", 400, "--seed", 7000, "-o", tmp_path)
    assert re.match(r"400 changed files \(seeds from 7000\): \d+ imported, \d+ refused in \d+", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 40_000, 10_000))
def test_many_files_are_imported_or_refused(seed, tmp_path):
    assert import_fuzz.run(10_000, seed=seed, output=tmp_path) == []


@pytest.mark.parametrize(
    ("importer", "reason"),
    [
        ("raise KeyError('inside')", "KeyError: 'inside'"),
        ("raise ValueError('a mistake of ours')", "ValueError: a mistake of ours"),
        ("bytearray(8 << 30)", "MemoryError: "),
        ("any(False for _ in iter(int, 1))", "TimeoutError: more than 1 seconds"),
        ("os._exit(3)", "the process ended with 3"),
    ],
)
def test_whatever_else_happens_is_found(importer, reason, tmp_path, monkeypatch):
    """In the process of the importer: exceptions of other kinds, memory, time, and its end. The others go on."""
    code = f"def load(path, **options):\n    load.calls += 1\n    if load.calls == 5: {importer}\nload.calls = 0\n"
    worker = f"{IMPORTER}\nexec({code!r})\ng.load = load\n{import_fuzz.WORKER}".replace(
        "import sys, json;", "import json;"
    )
    monkeypatch.setattr(
        import_fuzz, "WORKER", worker.replace("import_fuzz._work", "import_fuzz.LIMIT_SECONDS = 1; import_fuzz._work")
    )
    text = io.StringIO()
    failures = import_fuzz.run(6, seed=3, output=tmp_path, console=Console(file=text, width=200))
    # Three valid files come first, so that the fifth call is that of the second seed.
    assert [failure.seed for failure in failures][:1] == [4]
    assert failures[0].reason.startswith(reason)
    assert failures[0].path.read_bytes() == import_fuzz._case(import_fuzz._corpus([]), 4)
    assert f"{len(failures)} failed" in text.getvalue() and f"seed 4: {reason[:20]}" in text.getvalue()


def test_sentences_of_two_lines_are_found(tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(b"")

    def load(path, **options):
        from golden.onnx_import import UnsupportedModelError

        error = UnsupportedModelError("")
        error.args = ("one\ntwo",)
        raise error

    monkeypatch.setattr("golden.onnx_import.load", load)
    with pytest.raises(AssertionError, match="must be one line"):
        import_fuzz.outcome(tmp_path / "a.onnx")


def test_without_atheris_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", None)
    text = sentence("fuzz-import", "--guided", "--count", 3, "-o", tmp_path)
    assert text == "Package atheris must be there for this command: pip install 'pactolus[fuzz]'"


def test_count(tmp_path):
    with pytest.raises(ValueError, match=r"^Count must be at least 1, not 0$"):
        import_fuzz.run(0, output=tmp_path)
