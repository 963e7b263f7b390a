"""Whole networks through the accelerator's RTL: every layer's output, and every cycle, compared with what must be.

The accelerator feeds itself from layer to layer. A network runs twice a frame: as its program, whose cycles are
counted, and as one that stores every layer's output, which is compared with golden's. One simulator process serves one
network; several run at once. Results are a table for people and a JSON file for programs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from golden import vectors
from golden.network import Conv2d, IntegerNetwork
from hw.config import AcceleratorConfig, preset
from hw.program import PlannedLayer, Program, build
from hw.program.cycles import Cycles, predict
from hw.program_format import Error
from tb import runner
from tb.broken import Broken, break_weight
from tb.compare import compare
from tb.report import LayerReport, NetworkReport, print_reports, write_report
from tb.session import Outcome, Session, Step, compile_accelerator, read_outcomes, run_session

__all__ = ["UsageError", "run", "simulate_network", "step_limit"]


class UsageError(ValueError):
    """What was asked for cannot be done; one sentence says what is allowed."""


@dataclass(frozen=True)
class _Plan:
    """A network that is ready to be simulated."""

    network: IntegerNetwork
    tensors: dict[str, np.ndarray]
    frames: int
    broken: Broken | None
    program: Program
    trace: Program
    predicted: Cycles
    trace_cycles: int

    @property
    def steps(self) -> list[Step]:
        """Every frame's program, then every frame's with all layers stored."""
        frames = self.tensors[self.network.input.name]
        return [
            Step([program.words()], program.inputs(frame), step_limit(cycles))
            for program, cycles in ((self.program, self.predicted.total), (self.trace, self.trace_cycles))
            for frame in frames
        ]

    @property
    def work(self) -> int:
        """Cycles of all steps."""
        return self.frames * (self.predicted.total + self.trace_cycles)


def step_limit(cycles: int) -> int:
    """Cycles after which a program of so many predicted ones is taken to stand still."""
    return 2 * cycles + 10_000


def _plan(folder: Path, config: AcceleratorConfig, frames: int | None, break_layer: str | None) -> _Plan:
    network, tensors = vectors.read(folder)
    stored = len(tensors[network.input.name])
    if frames is not None and not 1 <= frames <= stored:
        raise UsageError(f"Frames must be between 1 and {stored}, which {network.name} has vectors for, not {frames}")
    count = stored if frames is None else frames
    tensors = {name: values[:count] for name, values in tensors.items()}
    program, trace = (build(network, config, trace=trace) for trace in (False, True))
    broken = None
    if break_layer is not None:
        broken = _break(network, program.layers, tensors, break_layer)
        program, trace = (build(broken.network, config, trace=trace) for trace in (False, True))
    return _Plan(network, tensors, count, broken, program, trace, predict(program), predict(trace).total)


def _break(
    network: IntegerNetwork, layers: tuple[PlannedLayer, ...], tensors: dict[str, np.ndarray], name: str
) -> Broken:
    names = [operation.name for operation in network.operations if isinstance(operation, Conv2d)]
    if name not in names:
        raise UsageError(f"Layer of {network.name} must be one of {', '.join(names)}, not {name!r}")
    visible = next(layer.tensor for layer in layers if name in layer.operations)
    broken = break_weight(network, name, tensors[network.input.name], visible=visible)
    if broken is None:
        raise UsageError(
            f"Layer {name!r} of {network.name} cannot be broken: "
            f"no single weight changes any of its results on the frames simulated"
        )
    return broken


def simulate_network(
    folder: Path,
    config: AcceleratorConfig,
    simulator: str,
    *,
    frames: int | None = None,
    break_layer: str | None = None,
    seed: int = 1,
    wave: Path | None = None,
) -> NetworkReport:
    """Simulate one network and report on every layer.

    Parameters
    ----------
    folder : path
        Golden vectors.
    config : :class:`~hw.config.AcceleratorConfig`
        The hardware.
    simulator : :class:`str`
        One of :data:`tb.runner.SIMULATORS`.
    frames : :class:`int` or ``None``
        How many of the folder's frames; all with ``None``.
    break_layer : :class:`str` or ``None``
        Give the RTL one weight of this layer that is not golden's.
    seed : :class:`int`
        On Verilator, for the state at power-up.
    wave : path or ``None``
        Where a waveform is written, a VCD file.

    Raises
    ------
    UsageError, NetworkError, UnsupportedNetworkError
        The network, the layer or the frames cannot be simulated on this configuration.
    tb.runner.SimulationError
        The simulation could not be built or did not run to its end.
    """
    plan = _plan(folder, config, frames, break_layer)
    simulation = compile_accelerator(config, simulator, wave=wave is not None)
    return _simulate(plan, simulation, runner.run_directory(), seed=seed, wave=wave)


def _simulate(
    plan: _Plan, simulation: runner.Simulation, directory: Path, *, seed: int, wave: Path | None
) -> NetworkReport:
    config = plan.program.config
    session = run_session(plan.steps, config, simulation, seed=seed, directory=directory, wave=wave)
    for outcome in session.outcomes:
        if outcome.error is not Error.NONE:
            raise runner.SimulationError(
                f"The accelerator stopped at command {outcome.command} of {plan.network.name}: {outcome.error.name}"
            )
    plain, traced = session.outcomes[: plan.frames], session.outcomes[plan.frames :]
    results = _tensors(plan.trace, traced)
    (name, last), *_ = _tensors(plan.program, plain).items()
    if (last != results[name]).any():
        raise runner.SimulationError(
            f"The output of {plan.network.name} must be the same with and without its layers stored, and is not"
        )
    return _report(plan, session, simulation.simulator, seed, results)


def _tensors(program: Program, outcomes: Sequence[Outcome]) -> dict[str, np.ndarray]:
    """The stored tensors, (N, C, H, W), of the frames."""
    try:
        frames = [program.decode(outcome.packets) for outcome in outcomes]
    except ValueError as error:
        raise runner.SimulationError(str(error)) from None
    return {name: np.stack([frame[name] for frame in frames]) for name, _ in program.outputs}


def _report(plan: _Plan, session: Session, simulator: str, seed: int, results: dict[str, np.ndarray]) -> NetworkReport:
    config = plan.program.config
    first = session.outcomes[0]
    if any(outcome.layers != first.layers for outcome in session.outcomes[: plan.frames]):
        raise runner.SimulationError(f"Every frame of {plan.network.name} must take the same cycles, and does not")
    array = config.rows * config.lanes
    layers = []
    for planned, predicted in zip(plan.program.layers, plan.predicted.layers, strict=True):
        cycles = None if planned.mark is None else first.layers[planned.mark] - first.layers[planned.mark - 1]
        mismatches, difference = compare(planned.name, plan.tensors[planned.tensor], results[planned.tensor])
        layers.append(
            LayerReport(
                name=planned.name,
                operations=planned.operations,
                shape=plan.network.tensor(planned.tensor).shape,
                bits=_bits(plan.network, planned),
                compared=results[planned.tensor].size,
                mismatches=mismatches,
                cycles=cycles,
                predicted_cycles=predicted.cycles if cycles is not None else None,
                macs=planned.macs,
                utilization=None if cycles is None else planned.macs / (cycles * array),
                stalls=None if cycles is None else cycles - planned.beats,
                difference=difference,
            )
        )
    return NetworkReport(
        network=plan.network.name,
        config=config,
        simulator=simulator,
        frames=plan.frames,
        seed=seed,
        broken=plan.broken,
        layers=tuple(layers),
        cycles=first.cycles,
        predicted_cycles=plan.predicted.total,
        utilization=sum(layer.macs for layer in layers) / (first.cycles * array),
        stalls=first.cycles - first.beats,
        waits={"program": first.program_waits, "input": first.input_waits, "output": first.output_waits},
        simulated_cycles=session.cycles,
        seconds=session.seconds,
    )


def _bits(network: IntegerNetwork, planned: PlannedLayer) -> dict[str, int]:
    operation = network.operation(planned.operations[0])
    weight = {"weight": operation.bits} if isinstance(operation, Conv2d) else {}
    activation = network.tensor(operation.inputs[0]).bits
    return {**weight, "activation": activation, "output": network.tensor(planned.tensor).bits}


def run(
    networks: Sequence[str | os.PathLike[str]] = (),
    *,
    config: str | AcceleratorConfig = "small",
    simulator: str = "verilator",
    frames: int | None = None,
    break_layer: str | None = None,
    seed: int = 1,
    wave: bool = False,
    reports: Path = runner.BUILD / "reports",
    console: Console | None = None,
) -> int:
    """Simulate networks, print the table, write the reports.

    Parameters
    ----------
    networks : sequence of names or paths
        Committed networks by name, generated ones (:data:`golden.generated.NAMES`), or folders of golden vectors; all
        committed ones when empty.
    config : :class:`str` or :class:`~hw.config.AcceleratorConfig`
        Name of a preset, or a configuration.
    simulator, frames, break_layer, seed
        As for :func:`simulate_network`.
    wave : :class:`bool`
        Write waveforms, ``sim-<network>-<config>-<simulator>.vcd`` beside the reports.
    reports : path
        Folder of the report files, one per network: ``sim-<network>-<config>-<simulator>.json``.
    console : :class:`rich.console.Console` or ``None``
        Where the table goes; standard output with ``None``.

    Returns
    -------
    :class:`int`
        Exit status: 0 when every compared result equals golden's and every number of cycles the predicted one, 1 when
        one does not or a simulation failed; the first difference of every network, or the failure, is printed.

    Raises
    ------
    UsageError, NetworkError, UnsupportedNetworkError, ValueError
        What was asked for cannot be done; one sentence, before anything is simulated.
    tb.runner.MissingSimulator
        The simulator is not installed.
    """
    console = console or Console()
    chosen = preset(config) if isinstance(config, str) else config
    runner.check_simulator(simulator)
    folders = [vectors.find(name, runner.BUILD / "vectors") for name in (networks or vectors.committed())]
    if not folders:
        raise UsageError("Network must be given, since no network is committed")
    plans = [_plan(folder, chosen, frames, break_layer) for folder in folders]
    waves = [reports / f"sim-{plan.network.name}-{chosen.name}-{simulator}.vcd" if wave else None for plan in plans]
    finished, errors = _run_all(plans, waves, chosen, simulator, seed, console)
    for report in finished:
        write_report(report, reports)
    print_reports(finished, console)
    for path in waves:
        if path is not None and path.is_file():
            console.print(f"Waveform: {path}", markup=False, highlight=False, soft_wrap=True)
    for reason in errors:
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
    wrong = any(report.mismatches or not report.as_predicted for report in finished)
    return 1 if wrong or errors or not finished else 0


def _run_all(
    plans: list[_Plan],
    waves: list[Path | None],
    config: AcceleratorConfig,
    simulator: str,
    seed: int,
    console: Console,
) -> tuple[list[NetworkReport], list[str]]:
    """Simulate the networks, the longest first, as many at once as there are processors; reports in the order given."""
    finished: dict[int, NetworkReport] = {}
    errors: list[str] = []
    with _progress(console) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        compiling = progress.add_task(f"compiling {config.name} for {simulator}", total=None)
        try:
            simulation = compile_accelerator(config, simulator, wave=any(waves))
        except runner.SimulationError as error:
            return [], [str(error)]
        progress.remove_task(compiling)
        pending: dict[Future[NetworkReport], tuple[int, Path, TaskID]] = {}
        for number in sorted(range(len(plans)), key=lambda number: -plans[number].work):
            plan, directory = plans[number], runner.run_directory()
            task = progress.add_task(plan.network.name, total=plan.work)
            future = pool.submit(_simulate, plan, simulation, directory, seed=seed, wave=waves[number])
            pending[future] = number, directory, task
        while pending:
            done, _ = wait(pending, timeout=0.2)
            for future, (number, directory, task) in list(pending.items()):
                progress.update(task, completed=sum(line["cycles"] for line in read_outcomes(directory)))
                if future in done:
                    del pending[future]
                    progress.update(task, completed=plans[number].work)
                    try:
                        finished[number] = future.result()
                    except runner.SimulationError as error:
                        errors.append(f"{plans[number].network.name}: {error}")
    return [finished[number] for number in sorted(finished)], errors


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
