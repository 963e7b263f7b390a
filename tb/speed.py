"""How fast the accelerator is simulated: cycles per second of each preset, and Python's share of the time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from golden import vectors
from golden.files import write_csv
from hw.config import preset
from hw.program import build
from hw.program.cycles import predict
from tb import runner
from tb.session import Step, compile_accelerator, run_session
from tb.simulate import step_limit

__all__ = ["measure", "run"]

COLUMNS = ("config", "simulator", "cycles", "seconds", "cycles_per_second", "python_percent")


def measure(network: str, config: str, simulator: str, cycles: int) -> dict[str, str | int | float]:
    """Simulate a network again and again, about so many cycles in all, on a preset.

    The compiler's time and the start of the simulator's process are not counted. Python's share is measured in a run of
    its own, since measuring takes time itself.

    Returns
    -------
    :class:`dict`
        By :data:`COLUMNS`.
    """
    integers, tensors = vectors.read(vectors.find(network, runner.BUILD / "vectors"))
    chosen = preset(config)
    program = build(integers, chosen)
    predicted = predict(program).total
    frame = program.inputs(tensors[integers.input.name][0])
    steps = [Step([program.words()], frame, step_limit(predicted))] * -(-cycles // predicted)
    simulation = compile_accelerator(chosen, simulator)
    session, profiled = (run_session(steps, chosen, simulation, profile=profile) for profile in (False, True))
    return {
        "config": config,
        "simulator": simulator,
        "cycles": session.cycles,
        "seconds": round(session.seconds, 2),
        "cycles_per_second": round(session.cycles / session.seconds),
        "python_percent": round(100 * profiled.python_seconds / profiled.seconds, 1),
    }


def run(
    configs: Sequence[str],
    *,
    network: str,
    simulator: str,
    cycles: int,
    path: Path,
    console: Console | None = None,
) -> None:
    """Measure the presets one by one, print the table, write it as a CSV file.

    Raises
    ------
    ValueError
        There is no such preset or network, or the network does not fit.
    tb.runner.SimulationError
        A simulation failed.
    """
    console = console or Console()
    for name in configs:
        preset(name)
    runner.check_simulator(simulator)
    rows = []
    for name in configs:
        with console.status(f"{name} on {simulator}"):
            rows.append(measure(network, name, simulator, cycles))
    table = Table(*COLUMNS, title=f"Simulation speed: {network}", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(str(row[column]) for column in COLUMNS))
    console.print(table)
    write_csv(path, COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    console.print(f"{path}", highlight=False, soft_wrap=True)
