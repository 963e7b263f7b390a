"""One simulation of the accelerator: a list of things that the host does, and what came of each.

A session is a folder with ``program.hex`` and ``input.hex`` (:mod:`hw.program.files`), from which the Verilog around
the accelerator (``tb/verilog``) feeds its streams, and into which it writes ``output.hex``. The bench
:mod:`tb.benches.accelerator` only says how many packets may go and reads the registers. Many networks, frames and
faults fit into one session.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hw.accelerator import Accelerator
from hw.config import AcceleratorConfig
from hw.program.files import packets_text
from hw.program_format import Error
from hw.verilog import generate
from tb import runner

__all__ = [
    "STREAMS",
    "VERILOG",
    "Outcome",
    "Session",
    "Step",
    "compile_accelerator",
    "compile_text",
    "harness",
    "read_outcomes",
    "run_session",
]

VERILOG = Path(__file__).parent / "verilog"
"""The Verilog around the accelerator."""
STREAMS = ("program", "input", "output")
OUTCOMES = "outcomes.jsonl"
SLOWEST_CYCLES_PER_S = 100
"""A simulator slower than this is taken for hung."""

Packet = Sequence[int]


@dataclass(frozen=True)
class Step:
    """What the host does next: it lets packets go and waits until the programs have finished or one fails.

    After an error it waits until all packets have been sent, and does a soft reset.

    Parameters
    ----------
    programs, inputs : sequences of packets
        That may go as fast as they are taken.
    limit : :class:`int`
        Cycles after which the accelerator is taken to stand still.
    stalls : mapping
        By stream, of :data:`STREAMS`, the probability of a cycle without an offer or without readiness; 0 without one.
    reset_after : :class:`int` or ``None``
        Pull the reset after so many cycles instead of waiting for an end.
    """

    programs: Sequence[Packet]
    inputs: Sequence[Packet]
    limit: int
    stalls: Mapping[str, float] = field(default_factory=dict)
    reset_after: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a step.

    ``cycles`` to ``layers`` are the counters of the step's last program. ``packets`` are the words that came out, the
    last packet perhaps unfinished.
    """

    error: Error
    command: int
    cycles: int
    beats: int
    program_waits: int
    input_waits: int
    output_waits: int
    layers: tuple[int, ...]
    packets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Session:
    """What a simulation did; ``cycles`` were simulated in ``seconds``, of which Python took ``python_seconds``.

    ``python_seconds`` is 0 unless it was asked for.
    """

    outcomes: tuple[Outcome, ...]
    cycles: int
    seconds: float
    python_seconds: float


def compile_accelerator(config: AcceleratorConfig, simulator: str, *, wave: bool = False) -> runner.Simulation:
    """The accelerator of a configuration with the streams around it, compiled."""
    return compile_text(_verilog(config), config, simulator, wave=wave)


def compile_text(
    accelerator: str, config: AcceleratorConfig, simulator: str, *, wave: bool = False
) -> runner.Simulation:
    """As :func:`compile_accelerator`, with the accelerator's Verilog given."""
    return runner.compile_verilog(accelerator, "harness", simulator, harness=harness(config), wave=wave)


def harness(config: AcceleratorConfig) -> str:
    """The Verilog around the accelerator; its top module is ``harness``."""
    parts = [f"`define STREAM_BITS {config.stream_bits}\n"]
    return "".join([*parts, *((VERILOG / name).read_text() for name in ("streams.v", "harness.v"))])


@functools.cache
def _verilog(config: AcceleratorConfig) -> str:
    return generate(Accelerator(config), name="accelerator")


def run_session(
    steps: Sequence[Step],
    config: AcceleratorConfig,
    simulation: runner.Simulation,
    *,
    seed: int = 1,
    directory: Path | None = None,
    wave: Path | None = None,
    profile: bool = False,
) -> Session:
    """Simulate the steps, one after the other, in one simulator process.

    Parameters
    ----------
    seed : :class:`int`
        For stalls and, on Verilator, for the state at power-up.
    directory : path or ``None``
        For the session's files, which are deleted unless it fails; a new one with ``None``.
    wave : path or ``None``
        Where the waveform goes, a VCD file; the simulation must have been compiled for it.
    profile : :class:`bool`
        Measure Python's share of the time, at the cost of some.

    Raises
    ------
    tb.runner.SimulationError
        The simulation did not run to its end, the accelerator stood still, or its output stream broke a rule.
    """
    directory = directory or runner.run_directory()
    bits = config.stream_bits
    for name, packets in (
        ("program.hex", [packet for step in steps for packet in step.programs]),
        ("input.hex", [packet for step in steps for packet in step.inputs]),
    ):
        (directory / name).write_text(packets_text(packets, bits))
    job = {
        "config": asdict(config),
        "steps": [
            {
                "programs": len(step.programs),
                "inputs": len(step.inputs),
                "limit": step.limit,
                "stalls": {name: round(256 * step.stalls.get(name, 0.0)) for name in STREAMS},
                "reset_after": step.reset_after,
            }
            for step in steps
        ],
        "outcomes": OUTCOMES,
        "profile": profile,
    }
    runner.run_bench(
        simulation,
        "tb.benches.accelerator",
        job,
        directory=directory,
        seed=seed,
        limit_s=120 + sum(step.limit for step in steps) / SLOWEST_CYCLES_PER_S,
        wave=wave is not None,
    )
    *lines, summary = read_outcomes(directory)
    words = (directory / "output.hex").read_text().split()
    outcomes, first = [], 0
    for line in lines:
        line["packets"] = tuple(_packets(words[first : line["words"]], bits))
        first = line.pop("words")
        line |= {"error": Error(line["error"]), "layers": tuple(line["layers"])}
        outcomes.append(Outcome(**line))
    if wave is not None:
        wave.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(directory / "wave.vcd", wave)
    shutil.rmtree(directory)
    return Session(tuple(outcomes), **summary)


def read_outcomes(directory: Path) -> list[dict[str, Any]]:
    """The lines that a session has written so far: one per step that has ended, and a summary.

    None before the first and after the session has removed its directory, which it may do at any moment.
    """
    try:
        text = (directory / OUTCOMES).read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _packets(lines: Sequence[str], bits: int) -> Iterator[tuple[int, ...]]:
    packet: list[int] = []
    for line in lines:
        word = int(line, 16)
        packet.append(word & ((1 << bits) - 1))
        if word >> bits:
            yield tuple(packet)
            packet = []
    if packet:
        yield tuple(packet)
