"""Whole networks through the Datapath's RTL: every output of every layer compared with golden.

Each layer is fed golden's input to it, so a fault shows in the layer that it is in and nowhere else. One
simulator process serves one network; several run at once. Results are a table for people and a JSON file for
programs.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from golden import vectors
from golden.network import Add, Conv2d, IntegerNetwork, MaxPool2d, Operation
from hw.config import AcceleratorConfig, preset
from hw.datapath import Datapath
from hw.verilog import generate
from tb import runner
from tb.stimulus import Difference, Layer, break_weight

__all__ = ["LayerReport", "NetworkReport", "UsageError", "run", "simulate_network"]

NOT_IN_RTL = {
    MaxPool2d: "max pool: golden computes it, since the Datapath has no pooling",
    Add: "addition: golden computes it, since the Datapath adds only a convolution's residual operand",
}
STREAMS = ("i_beat", "i_constants", "i_skip", "o_result")
"""The Datapath's streams, as :func:`simulate_network` names them."""
RESULTS = "results.jsonl"
FILE_WIDTH = 120
"""Columns of the table where it does not go to a terminal."""
SLOWEST_CYCLES_PER_S = 20
"""A simulator slower than this is taken for hung."""


class UsageError(ValueError):
    """What was asked for cannot be done; one sentence says what is allowed."""


@dataclass
class LayerReport:
    """One operation of a network: what was compared, or why nothing was."""

    name: str
    shape: tuple[int, int, int]
    computed_by: str
    bits: dict[str, int] = field(default_factory=dict)
    compared: int = 0
    mismatches: int = 0
    cycles: int = 0
    reason: str | None = None
    difference: Difference | None = None


@dataclass
class NetworkReport:
    """One network on one configuration and simulator."""

    network: str
    config: AcceleratorConfig
    simulator: str
    frames: int
    seed: int
    broken: dict[str, Any] | None
    layers: list[LayerReport]
    seconds: float = 0.0

    @property
    def mismatches(self) -> int:
        """Results that differ from golden's, over all layers."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def difference(self) -> Difference | None:
        """The first difference of the first layer that has one."""
        return next((layer.difference for layer in self.layers if layer.difference is not None), None)

    def to_json(self) -> dict[str, Any]:
        """What the report file holds."""
        return {
            **asdict(self),
            "config": self.config.name,
            "parameters": asdict(self.config),
            "mismatches": self.mismatches,
            "difference": None if self.difference is None else asdict(self.difference),
        }


@dataclass
class _Plan:
    """A network that is ready to be simulated."""

    folder: Path
    network: IntegerNetwork
    frames: int
    broken: dict[str, Any] | None
    beats: dict[str, int]


def _choose(names: Sequence[str | os.PathLike[str]]) -> list[Path]:
    chosen = [vectors.find(name, runner.BUILD / "vectors") for name in (names or vectors.committed())]
    if not chosen:
        raise UsageError("Network must be given, since no network is committed")
    return chosen


def _plan(folder: Path, config: AcceleratorConfig, frames: int | None, break_layer: str | None) -> _Plan:
    network, tensors = vectors.read(folder)
    config.check(network)
    stored = len(tensors[network.input.name])
    if frames is not None and not 1 <= frames <= stored:
        raise UsageError(
            f"Frames must be between 1 and {stored}, which {network.name} has vectors for, not {frames}"
        )
    count = stored if frames is None else frames
    tensors = {name: values[:count] for name, values in tensors.items()}
    layers = [operation for operation in network.operations if isinstance(operation, Conv2d)]
    broken = None
    if break_layer is not None:
        broken = _break(network, tensors, break_layer)
    beats = {operation.name: Layer.of(network, operation, config, tensors).beat_count for operation in layers}
    return _Plan(folder, network, count, broken, beats)


def _break(network: IntegerNetwork, tensors: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    layers = {operation.name: operation for operation in network.operations if isinstance(operation, Conv2d)}
    if name not in layers:
        raise UsageError(f"Layer of {network.name} must be one of {', '.join(layers)}, not {name!r}")
    found = break_weight(network, layers[name], tensors)
    if found is None:
        raise UsageError(
            f"Layer {name!r} of {network.name} cannot be broken: "
            f"no single weight changes any of its results on the frames simulated"
        )
    operation, index = found
    return {
        "operation": name,
        "index": list(index),
        "was": int(layers[name].codes[index]),
        "code": int(operation.codes[index]),
    }


def simulate_network(
    folder: Path,
    config: AcceleratorConfig,
    simulator: str,
    *,
    frames: int | None = None,
    break_layer: str | None = None,
    stalls: float | Mapping[str, float] = 0.0,
    together: bool = False,
    seed: int = 1,
    simulation: runner.Simulation | None = None,
    directory: Path | None = None,
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
    stalls : :class:`float` or mapping
        Probability of a cycle without an offer (inputs) or without readiness (results), for all streams or by the
        streams' names, :data:`STREAMS`; those without a name do not stall.
    together : :class:`bool`
        Whether the layers follow each other without a pause; a layer's cycles are not known then.
    seed : :class:`int`
        For stalls, for payloads between items and, on Verilator, for the state at power-up.
    simulation : :class:`tb.runner.Simulation` or ``None``
        A compiled Datapath of this configuration; ``None``: the one that :mod:`hw.verilog` generates.
    directory : path or ``None``
        For the run's job, log and results, which are deleted unless it fails; a new one with ``None``.

    Raises
    ------
    UsageError, NetworkError, UnsupportedNetworkError
        The network, the layer or the frames cannot be simulated on this configuration.
    tb.runner.SimulationError
        The simulation could not be built or did not run to its end.
    """
    plan = _plan(folder, config, frames, break_layer)
    simulation = simulation or _compile(config, simulator)
    where = directory or _run_directory()
    return _simulate(plan, config, simulation, where, stalls=stalls, together=together, seed=seed)


@functools.cache
def _compile(config: AcceleratorConfig, simulator: str) -> runner.Simulation:
    name = f"datapath_{config.name}"
    return runner.compile_verilog(generate(Datapath(config), name=name), name, simulator)


def _run_directory() -> Path:
    """A new directory for one run's job, log and results; it is deleted unless the run fails."""
    parent = runner.BUILD / "runs"
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


def _simulate(
    plan: _Plan,
    config: AcceleratorConfig,
    simulation: runner.Simulation,
    directory: Path,
    *,
    stalls: float | Mapping[str, float] = 0.0,
    together: bool = False,
    seed: int,
) -> NetworkReport:
    started = time.monotonic()
    results = directory / RESULTS
    job = {
        "config": asdict(config),
        "vectors": str(plan.folder.resolve()),
        "frames": plan.frames,
        "broken": plan.broken,
        "stalls": dict(stalls) if isinstance(stalls, Mapping) else dict.fromkeys(STREAMS, stalls),
        "together": together,
        "results": str(results),
    }
    limit = 120 + sum(plan.beats.values()) / SLOWEST_CYCLES_PER_S
    runner.run_bench(simulation, "tb.benches.datapath", job, directory=directory, seed=seed, limit_s=limit)
    lines = {line["name"]: line for line in _lines(results)}
    shutil.rmtree(directory)
    layers = [_layer_report(plan.network, operation, lines) for operation in plan.network.operations]
    seconds = time.monotonic() - started
    return NetworkReport(
        plan.network.name, config, simulation.simulator, plan.frames, seed, plan.broken, layers, seconds
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def _layer_report(
    network: IntegerNetwork, operation: Operation, lines: dict[str, dict[str, Any]]
) -> LayerReport:
    output = network.tensor(operation.output)
    if not isinstance(operation, Conv2d):
        return LayerReport(operation.name, output.shape, "golden", reason=NOT_IN_RTL[type(operation)])
    if operation.name not in lines:
        raise runner.SimulationError(f"Layer {operation.name!r} of {network.name} has no result")
    line = lines[operation.name]
    bits = {
        "weight": operation.bits,
        "activation": network.tensor(operation.input).bits,
        "output": output.bits,
    }
    difference = None if line["difference"] is None else Difference(**line["difference"])
    return LayerReport(
        operation.name,
        output.shape,
        "rtl",
        bits,
        line["compared"],
        line["mismatches"],
        line["cycles"],
        difference=difference,
    )


def run(
    networks: Sequence[str | os.PathLike[str]] = (),
    *,
    config: str = "small",
    simulator: str = "verilator",
    frames: int | None = None,
    break_layer: str | None = None,
    seed: int = 1,
    reports: Path = runner.BUILD / "reports",
    console: Console | None = None,
) -> int:
    """Simulate networks, print the table, write the reports.

    Parameters
    ----------
    networks : sequence of names or paths
        Committed networks by name, or folders of golden vectors; all committed ones when empty.
    config : :class:`str`
        Name of a preset.
    simulator, frames, break_layer, seed
        As for :func:`simulate_network`.
    reports : path
        Folder of the report files, one per network: ``sim-<network>-<config>-<simulator>.json``.
    console : :class:`rich.console.Console` or ``None``
        Where the table goes; standard output with ``None``.

    Returns
    -------
    :class:`int`
        Exit status: 0 when every compared result equals golden's, 1 when one does not or a simulation failed; the
        first difference of every network, or the failure, is printed.

    Raises
    ------
    UsageError, NetworkError, UnsupportedNetworkError, ValueError
        What was asked for cannot be done; one sentence, before anything is simulated.
    tb.runner.MissingSimulator
        The simulator is not installed.
    """
    console = console or Console()
    chosen = preset(config)
    runner.check_simulator(simulator)
    plans = [_plan(folder, chosen, frames, break_layer) for folder in _choose(networks)]
    finished, errors = _run_all(plans, chosen, simulator, seed, console)
    for report in finished:
        reports.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]", "_", report.network)
        path = reports / f"sim-{name}-{config}-{simulator}.json"
        path.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    if finished:
        table = _table(finished)
        if not console.is_terminal:
            console.width = max(console.width, FILE_WIDTH)
        console.print(table)
        for reason in sorted(
            {layer.reason for report in finished for layer in report.layers if layer.reason}
        ):
            console.print(f"* {reason}", highlight=False, soft_wrap=True)
    for report in finished:
        if report.broken is not None:
            index = ", ".join(str(i) for i in report.broken["index"])
            console.print(
                f"{report.network}: the RTL was given weight code {report.broken['code']} instead of "
                f"{report.broken['was']} at [{index}] of layer {report.broken['operation']}",
                highlight=False,
                soft_wrap=True,
            )
        if report.difference is not None:
            console.print(
                f"{report.network}: first difference in {report.difference}", highlight=False, soft_wrap=True
            )
    for reason in errors:
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
    total = sum(report.mismatches for report in finished)
    compared = sum(layer.compared for report in finished for layer in report.layers)
    console.print(
        f"{compared} results compared with golden, {total} mismatches ({config}, {simulator}).",
        highlight=False,
    )
    return 1 if total or errors or not compared else 0


def _run_all(
    plans: list[_Plan], config: AcceleratorConfig, simulator: str, seed: int, console: Console
) -> tuple[list[NetworkReport], list[str]]:
    """Simulate the networks, the longest first, as many at once as there are processors; reports in the order given."""
    finished: dict[int, NetworkReport] = {}
    errors: list[str] = []
    with _progress(console) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        compiling = progress.add_task(f"compiling {config.name} for {simulator}", total=None)
        try:
            simulation = _compile(config, simulator)
        except runner.SimulationError as error:
            return [], [str(error)]
        progress.remove_task(compiling)
        pending: dict[Future[NetworkReport], tuple[int, Path, TaskID]] = {}
        for number in sorted(range(len(plans)), key=lambda number: -sum(plans[number].beats.values())):
            plan, directory = plans[number], _run_directory()
            task = progress.add_task(plan.network.name, total=sum(plan.beats.values()))
            future = pool.submit(_simulate, plan, config, simulation, directory, seed=seed)
            pending[future] = number, directory, task
        while pending:
            done, _ = wait(pending, timeout=0.2)
            for future, (number, directory, task) in list(pending.items()):
                beats = plans[number].beats
                progress.update(
                    task, completed=sum(beats[line["name"]] for line in _lines(directory / RESULTS))
                )
                if future in done:
                    del pending[future]
                    progress.update(task, completed=sum(beats.values()))
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


def _table(finished: list[NetworkReport]) -> Table:
    title = f"RTL against golden: {finished[0].config.name} on {finished[0].simulator}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, collapse_padding=True, pad_edge=False)
    for heading in ("network", "layer"):
        table.add_column(heading, overflow="fold")
    for heading in ("shape", "w/a bits", "compared", "mismatches", "cycles"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in finished:
        for n, layer in enumerate(report.layers):
            name = report.network if n == 0 else ""
            shape = "×".join(str(size) for size in layer.shape)
            if layer.computed_by == "golden":
                table.add_row(name, f"{layer.name} *", shape, "", "", "", "")
                continue
            table.add_row(
                name,
                layer.name,
                shape,
                f"{layer.bits['weight']}/{layer.bits['activation']}",
                str(layer.compared),
                str(layer.mismatches),
                str(layer.cycles),
                style="red" if layer.mismatches else None,
            )
        table.add_section()
    return table
