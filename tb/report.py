"""What is said of simulated networks: the table for people, the JSON file for programs."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from hw.config import AcceleratorConfig
from tb.broken import Broken
from tb.compare import Difference

__all__ = ["LayerReport", "NetworkReport", "print_reports", "write_report"]

FILE_WIDTH = 120
"""Columns of the table where it does not go to a terminal."""


@dataclass(frozen=True)
class LayerReport:
    """One layer: what the accelerator writes at once, perhaps a convolution and the max pool behind it.

    Parameters
    ----------
    name : :class:`str`
        The layer's.
    operations : tuple of :class:`str`
        The network's operations that it computes.
    shape : (C, H, W)
        Of what it writes.
    bits : :class:`dict`
        ``weight`` (of layers that have weights), ``activation`` and ``output``.
    compared, mismatches : :class:`int`
        Results, over all frames, and how many differ from golden's.
    cycles, predicted_cycles : :class:`int` or ``None``
        From the end of what comes before, in one frame; ``None`` where the layer table is too short.
    macs : :class:`int`
        Digit products of the network's own channels.
    utilization : :class:`float` or ``None``
        ``macs`` by what the array can do in these cycles.
    stalls : :class:`int` or ``None``
        Cycles in which the array took no word.
    difference : :class:`~tb.compare.Difference` or ``None``
        The first one.
    """

    name: str
    operations: tuple[str, ...]
    shape: tuple[int, int, int]
    bits: dict[str, int]
    compared: int
    mismatches: int
    cycles: int | None
    predicted_cycles: int | None
    macs: int
    utilization: float | None
    stalls: int | None
    difference: Difference | None


@dataclass(frozen=True)
class NetworkReport:
    """One network on one configuration and simulator.

    ``cycles`` to ``stalls`` are of one frame, from the first word of the program to the last of the output;
    ``waits`` are cycles spent waiting for the streams, by stream. ``simulated_cycles`` are all of them, in
    ``seconds`` of the simulator's time.
    """

    network: str
    config: AcceleratorConfig
    simulator: str
    frames: int
    seed: int
    broken: Broken | None
    layers: tuple[LayerReport, ...]
    cycles: int
    predicted_cycles: int
    utilization: float
    stalls: int
    waits: dict[str, int]
    simulated_cycles: int
    seconds: float

    @property
    def mismatches(self) -> int:
        """Results that differ from golden's, over all layers."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def compared(self) -> int:
        """Results compared, over all layers."""
        return sum(layer.compared for layer in self.layers)

    @property
    def difference(self) -> Difference | None:
        """The first difference of the first layer that has one."""
        return next((layer.difference for layer in self.layers if layer.difference is not None), None)

    @property
    def as_predicted(self) -> bool:
        """Whether every number of cycles is the predicted one."""
        return self.cycles == self.predicted_cycles and all(
            layer.cycles == layer.predicted_cycles for layer in self.layers
        )

    def to_json(self) -> dict[str, Any]:
        """What the report file holds."""
        broken = self.broken
        return {
            "network": self.network,
            "config": self.config.name,
            "parameters": asdict(self.config),
            "simulator": self.simulator,
            "frames": self.frames,
            "seed": self.seed,
            "broken": broken
            and {
                "operation": broken.operation,
                "index": list(broken.index),
                "was": broken.was,
                "code": broken.code,
            },
            "compared": self.compared,
            "mismatches": self.mismatches,
            "difference": self.difference and asdict(self.difference),
            "cycles": self.cycles,
            "predicted_cycles": self.predicted_cycles,
            "utilization": self.utilization,
            "stalls": self.stalls,
            "waits": self.waits,
            "simulated_cycles": self.simulated_cycles,
            "seconds": self.seconds,
            "cycles_per_second": self.simulated_cycles / self.seconds,
            "layers": [{**asdict(layer), "computed_by": "rtl"} for layer in self.layers],
        }


def write_report(report: NetworkReport, folder: Path) -> Path:
    """Write the report's file, ``sim-<network>-<config>-<simulator>.json``; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]", "_", report.network)
    path = folder / f"sim-{name}-{report.config.name}-{report.simulator}.json"
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    return path


def print_reports(reports: list[NetworkReport], console: Console) -> None:
    """Print the table, then what was broken, what differs, and the totals."""
    if not reports:
        return
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    console.print(_table(reports))

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for report in reports:
        if report.broken is not None:
            say(f"{report.network}: the RTL was given {report.broken}")
        if report.difference is not None:
            say(f"{report.network}: first difference in {report.difference}")
            say(report.difference.picture())
        if not report.as_predicted:
            say(f"{report.network}: cycles are not the predicted ones")
    first = reports[0]
    simulated, seconds = (sum(getattr(r, name) for r in reports) for name in ("simulated_cycles", "seconds"))
    say(f"{simulated} cycles simulated, {simulated / seconds:.0f} a second and simulator process.")
    say(
        f"{sum(report.compared for report in reports)} results compared with golden, "
        f"{sum(report.mismatches for report in reports)} mismatches ({first.config.name}, {first.simulator})."
    )


def _table(reports: list[NetworkReport]) -> Table:
    first = reports[0]
    frames = "one frame" if first.frames == 1 else f"{first.frames} frames"
    title = f"RTL against golden: {first.config.name} on {first.simulator}, {frames} each"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, collapse_padding=True, pad_edge=False)
    for heading in ("network", "layer"):
        table.add_column(heading, overflow="fold")
    for heading in ("shape", "w/a bits", "compared", "mismatches", "cycles", "predicted", "utilization", "stalls"):
        table.add_column(heading, justify="right", no_wrap=True)

    def text(value: int | None) -> str:
        return "" if value is None else str(value)

    for report in reports:
        for n, layer in enumerate(report.layers):
            table.add_row(
                report.network if n == 0 else "",
                "+".join(layer.operations),
                "×".join(str(size) for size in layer.shape),
                f"{layer.bits.get('weight', '-')}/{layer.bits['activation']}",
                str(layer.compared),
                str(layer.mismatches),
                text(layer.cycles),
                text(layer.predicted_cycles),
                "" if layer.utilization is None else f"{layer.utilization:.1%}",
                text(layer.stalls),
                style="red" if layer.mismatches or layer.cycles != layer.predicted_cycles else None,
            )
        table.add_row(
            "",
            "total",
            "",
            "",
            str(report.compared),
            str(report.mismatches),
            str(report.cycles),
            str(report.predicted_cycles),
            f"{report.utilization:.1%}",
            str(report.stalls),
            style="bold",
        )
        table.add_section()
    return table
