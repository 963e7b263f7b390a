"""Random small networks through the accelerator's RTL, many in one simulation; a failing one is made smaller.

Every network runs as the program that stores every layer, and every code and the number of cycles are compared; then
once more with stalls on every stream.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count as count_up
from itertools import islice

import numpy as np
from rich.console import Console
from rich.progress import Progress

from golden.execute import execute
from golden.generated import NetworkSpec, random_spec, shrink
from hw.config import AcceleratorConfig, UnsupportedNetworkError, preset
from hw.program import Program, build
from hw.program.cycles import Cycles, predict
from hw.program_format import Error
from tb import runner
from tb.compare import compare
from tb.session import STREAMS, Outcome, Step, compile_accelerator, run_session
from tb.simulate import step_limit

__all__ = ["Failure", "run"]

BATCH = 20
STALL = 0.3


@dataclass(frozen=True)
class Failure:
    """A network that failed, and how."""

    spec: NetworkSpec
    reason: str


@dataclass(frozen=True)
class _Case:
    spec: NetworkSpec
    program: Program
    expected: dict[str, np.ndarray]
    predicted: Cycles
    steps: tuple[Step, Step]

    @classmethod
    def of(cls, spec: NetworkSpec, config: AcceleratorConfig) -> _Case:
        network, x = spec.build()
        program = build(network, config, trace=True)
        words, inputs, predicted = program.words(), program.inputs(x[0]), predict(program)
        plain = Step([words], inputs, step_limit(predicted.total))
        stalled = Step([words], inputs, 4 * plain.limit, dict.fromkeys(STREAMS, STALL))
        return cls(spec, program, execute(network, x), predicted, (plain, stalled))

    def reason(self, outcomes: Sequence[Outcome]) -> str | None:
        """Why the outcomes of the two steps are wrong."""
        for outcome, how in zip(outcomes, ("", ", with stalls"), strict=True):
            if outcome.error is not Error.NONE:
                return f"stopped at command {outcome.command}: {outcome.error.name}{how}"
            try:
                tensors = self.program.decode(outcome.packets)
            except ValueError as error:
                return f"{error}{how}"
            for name, got in tensors.items():
                _, difference = compare(name, self.expected[name], got[None])
                if difference is not None:
                    return f"first difference in {difference}{how}\n{difference.picture()}"
        first, predicted = outcomes[0], self.predicted
        counted = {"cycles": first.cycles, "beats": first.beats, "stamps": first.layers}
        said = {"cycles": predicted.total, "beats": predicted.beats, "stamps": predicted.stamps}
        for what in counted:
            if counted[what] != said[what]:
                return f"{what} are {counted[what]}, not {said[what]} as predicted"
        return None


def _check(cases: Sequence[_Case], config: AcceleratorConfig, simulation: runner.Simulation) -> list[Failure]:
    """Simulate networks in one simulation; those that failed."""
    steps = [step for case in cases for step in case.steps]
    seed = cases[0].spec.seed + 1
    directory = runner.run_directory()
    try:
        outcomes = run_session(steps, config, simulation, seed=seed, directory=directory).outcomes
    except runner.SimulationError as error:
        shutil.rmtree(directory)
        if len(cases) == 1:
            return [Failure(cases[0].spec, str(error).splitlines()[-1].strip())]
        return [failure for case in cases for failure in _check([case], config, simulation)]
    found = []
    for n, case in enumerate(cases):
        reason = case.reason(outcomes[2 * n : 2 * n + 2])
        if reason is not None:
            found.append(Failure(case.spec, reason))
    return found


def run(
    count: int,
    *,
    seed: int = 0,
    config: str = "tiny",
    simulator: str = "verilator",
    simulation: runner.Simulation | None = None,
    tries: int = 200,
    console: Console | None = None,
) -> int:
    """Simulate ``count`` random networks, those of the seeds from ``seed`` on that the configuration takes.

    Parameters
    ----------
    simulation : :class:`tb.runner.Simulation` or ``None``
        A compiled accelerator of this configuration; ``None``: the one that is generated.
    tries : :class:`int`
        How many smaller networks are tried when one fails.

    Returns
    -------
    :class:`int`
        Exit status: 0 when all passed; 1 when one did not: it is made smaller, and printed with its seed.

    Raises
    ------
    ValueError
        The count is not positive, or the configuration is unknown.
    tb.runner.SimulationError
        The simulation could not be built.
    """
    console = console or Console()
    if count < 1:
        raise ValueError(f"Count must be at least 1, not {count}")
    chosen = preset(config)
    runner.check_simulator(simulator)
    refused: list[int] = []

    def cases() -> Iterator[_Case]:
        for number in count_up(seed):
            try:
                yield _Case.of(random_spec(number), chosen)
            except UnsupportedNetworkError:
                refused.append(number)

    failures: list[Failure] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("random networks", total=count)
        compiled = simulation or compile_accelerator(chosen, simulator)
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            source = islice(cases(), count)
            pending: deque[Future[list[Failure]]] = deque()
            # Networks are made while the simulators of earlier ones run.
            while (batch := list(islice(source, BATCH))) or pending:
                if batch:
                    pending.append(pool.submit(_check, batch, chosen, compiled))
                if not batch or len(pending) > 2 * workers:
                    failures += pending.popleft().result()
                    progress.advance(bar, BATCH)
    passed = count - len(failures)
    console.print(
        f"{passed} of {count} random networks passed ({chosen.name}, {simulator}; seeds from {seed}"
        f"{f', {len(refused)} refused' if refused else ''}).",
        highlight=False,
    )
    if not failures:
        return 0

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for failure in failures[1:]:
        say(f"seed {failure.spec.seed} fails too: {failure.reason.splitlines()[0]}")
    first = failures[0]
    say(f"seed {first.spec.seed} fails: {first.reason}")

    def alone(spec: NetworkSpec) -> list[Failure]:
        try:
            return _check([_Case.of(spec, chosen)], chosen, compiled)
        except UnsupportedNetworkError:
            return []

    if not alone(first.spec):
        say(f"It passes alone, and fails only behind others: the {BATCH} networks before it are needed.")
        return 1
    with console.status("making it smaller"):
        smallest = shrink(first.spec, lambda spec: bool(alone(spec)), tries)
    say(f"The smallest that fails: {alone(smallest)[0].reason}")
    say(repr(smallest))
    return 1
