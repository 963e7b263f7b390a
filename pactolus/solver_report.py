"""The table of the solver's widths: one line per output width, the solver beside plain rounding."""

from __future__ import annotations

import shlex
import statistics
from collections import defaultdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from golden.files import write_csv
from golden.network import signed_width
from golden.solver_study import Trial, study

__all__ = ["write"]


def write(channels: int, residuals: int, *, seed: int, path: Path, console: Console) -> int:
    """Run the study, print the table and write it to ``path``; 1 if any checked code was wrong, else 0."""
    groups: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    trials = study(channels, residuals, seed=seed)
    for trial in track(trials, "solving", total=channels + residuals, console=console, transient=True):
        groups["residual" if trial.channel.skip_bits else "plain", trial.channel.bits].append(trial)
    header = ["operand", "output_bits", "channels", "wrong_codes"]
    measures = {
        "M": lambda s: signed_width(s.multiplier, s.multiplier),
        "M_skip": lambda s: signed_width(s.skip_multiplier, s.skip_multiplier),
        "B": lambda s: signed_width(s.bias, s.bias),
        "S": lambda s: s.shift,
    }
    for name in measures:
        header += [f"{name}_median", f"{name}_max", f"{name}_rounded_median", f"{name}_rounded_max"]
    rows = []
    for (operand, bits), group in sorted(groups.items()):
        row: list[str | int] = [operand, bits, len(group), sum(trial.wrong for trial in group)]
        for measure in measures.values():
            for solutions in ([t.solution for t in group], [t.rounded for t in group]):
                row += _median_and_max([measure(solution) for solution in solutions])
        rows.append(row)
    command = f"pactolus report solver --channels {channels} --residuals {residuals} --seed {seed}"
    write_csv(path, header, rows, command=f"{command} --output {shlex.quote(str(path))}")
    table = Table(title="Signed bits of the constants, median/max; rounded: slope and offset", box=box.SIMPLE_HEAD)
    shown = [f"{measure}{form}" for measure in measures if measure != "S" for form in ("", " rounded")]
    for heading in ("operand", "k", "channels", "wrong", *shown):
        table.add_column(heading, justify="left" if heading == "operand" else "right", no_wrap=True)
    for row in rows:
        cells = [str(cell) for cell in row]
        pairs = (f"{cells[at]}/{cells[at + 1]}" for at in range(4, 4 + 2 * len(shown), 2))
        table.add_row(*cells[:4], *pairs)
    console.width = max(console.width, 106)
    console.print(table)
    wrong = sum(trial.wrong for group in groups.values() for trial in group)
    console.print(f"{channels + residuals} channels, {wrong} wrong codes; written to {path}.", highlight=False)
    return 1 if wrong else 0


def _median_and_max(values: list[int]) -> list[int]:
    return [round(statistics.median(values)), max(values)]
