"""Where an accelerator's area is: every module by itself, memories as black boxes with their sizes stated."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from golden.files import write_table
from hw.accelerator import Accelerator
from hw.config import AcceleratorConfig, preset
from hw.synth.console import grouped, progress_bar
from hw.synth.flow import Netlist, synthesize
from hw.synth.technology import Target, resolve
from hw.verilog import generate

__all__ = ["Part", "accelerator_parts", "run"]

UNDIVIDED = {"mac_array": "array", "pact_unit": "PACT units", "offset_correction": "PACT units"}
"""Modules that are synthesized with everything below them, and the group that they belong to."""
CONTROL = "control"
GROUPS = ("array", "accumulators", "weight registers", "PACT units", CONTROL)
FILE_WIDTH = 100
"""Columns of the table where it does not go to a terminal."""
MEMORY = "ram"
"""Modules of this name, numbers after it apart, are memories."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of module of an accelerator, or one kind of register of its array.

    Members
    -------
    config, group, module : :class:`str`
        The preset; one of the groups or ``memory``; the Verilog module.
    instances : :class:`int`
        How many of it there are.
    area_um2 : :class:`float` or ``None``
        Of all instances. ``None``: a memory, which is a black box.
    ffs : :class:`int` or ``None``
        Flip-flops of all instances.
    words, bits : :class:`int` or ``None``
        Memories only: depth and width of one instance.
    """

    config: str
    group: str
    module: str
    instances: int
    area_um2: float | None = None
    ffs: int | None = None
    words: int | None = None
    bits: int | None = None


def _modules(verilog: str) -> dict[str, str]:
    """The text of every module by its name."""
    return dict(re.findall(r"^module (\w+)\b(.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL))


def _hierarchy(modules: dict[str, str], top: str) -> tuple[Counter[str], dict[str, list[str]]]:
    """How many instances of each module there are below ``top``, and what each has directly below it."""
    children = {
        name: [kind for kind in re.findall(r"^  (\w+) \\?\S+ +\($", text, re.MULTILINE) if kind in modules]
        for name, text in modules.items()
    }
    counts: Counter[str] = Counter()

    def visit(name: str) -> None:
        counts[name] += 1
        if name not in UNDIVIDED:
            for child in children[name]:
                visit(child)

    visit(top)
    return counts, children


def _is_memory(name: str) -> bool:
    return re.fullmatch(rf"{MEMORY}(_\d+)?", name) is not None


def _memory(config: AcceleratorConfig, name: str, text: str, instances: int) -> Part:
    found = re.findall(r"^  reg \[(\d+):0\] \w+ \[(\d+):0\];", text, re.MULTILINE)
    ((width, depth),) = found
    return Part(
        config=config.name,
        group="memory",
        module=name,
        instances=instances,
        words=int(depth) + 1,
        bits=int(width) + 1,
    )


def _parts(config: AcceleratorConfig, name: str, netlist: Netlist, instances: int, target: Target) -> list[Part]:
    assert target.library is not None and netlist.area is not None
    if name != "mac_array":
        group = UNDIVIDED.get(name, CONTROL)
        area = round(netlist.area * instances, 3)
        return [
            Part(
                config=config.name,
                group=group,
                module=name,
                instances=instances,
                area_um2=area,
                ffs=netlist.ffs * instances,
            )
        ]
    # All flip-flops of the rows have the area of the one kind of cell that they are mapped to.
    cells = {cell: count for cell, count in netlist.cells.items() if target.library.cells[cell].is_flip_flop}
    each = sum(target.library.cells[cell].area * count for cell, count in cells.items()) / netlist.ffs
    accumulators = config.rows * config.acc_bits
    apart = [
        (group, part, netlist.apart[part].area or 0.0, netlist.apart[part].ffs)
        for group, part in (("array", "ones_row"), ("accumulators", "drain"), ("weight registers", "weight_register"))
    ]
    return [
        Part(config=config.name, group=group, module=module, instances=1, area_um2=round(area, 3), ffs=ffs)
        for group, module, area, ffs in (
            ("array", "mac_array", netlist.area - each * accumulators, netlist.ffs - accumulators),
            ("accumulators", "accumulators", each * accumulators, accumulators),
            *apart,
        )
    ]


def accelerator_parts(
    config: AcceleratorConfig,
    target: Target,
    *,
    build: Path,
    clock_ns: float | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[Part]:
    """Synthesize every kind of module of an accelerator by itself.

    What a module instantiates is left out of it and counted where it is; the array and the PACT units are taken whole.
    No logic is shared or moved across a module's border, and no buffer is sized for what lies beyond it.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        The accelerator.
    target : :class:`~hw.synth.technology.Target`
        Standard cells.
    build, clock_ns, jobs
        As of :func:`hw.synth.report.run`.
    progress : :class:`rich.progress.Progress` or ``None``
        Gets a task.

    Raises
    ------
    :class:`ValueError`
        The technology has no standard cells.
    :class:`~hw.synth.flow.SynthesisError`
        Yosys failed.
    """
    top = f"pactolus_{config.name}"
    verilog = generate(Accelerator(config), name=top)
    modules = _modules(verilog)
    counts, children = _hierarchy(modules, top)
    parts = [_memory(config, name, modules[name], counts[name]) for name in counts if _is_memory(name)]
    logic = [name for name in counts if not _is_memory(name)]
    task = progress.add_task(config.name, total=len(logic)) if progress else None
    with ThreadPoolExecutor(max_workers=jobs or min(4, os.cpu_count() or 1)) as pool:
        futures = {}
        for name in sorted(logic, key=lambda name: name != "mac_array"):
            boxes = () if name in UNDIVIDED else tuple(sorted(set(children[name])))
            future = pool.submit(synthesize, verilog, name, target, build=build, clock_ns=clock_ns, black_boxes=boxes)
            futures[future] = name
        for future in as_completed(futures):
            name = futures[future]
            parts += _parts(config, name, future.result(), counts[name], target)
            if progress and task is not None:
                progress.update(task, advance=1)
    order = (*GROUPS, "memory")
    return sorted(parts, key=lambda part: (order.index(part.group), -(part.area_um2 or 0), part.module))


def run(
    configs: Sequence[str],
    *,
    pdk: str = "mini",
    liberty: Path | None = None,
    clock_ns: float | None = None,
    build: Path = Path("build/synth"),
    path: Path,
    command: str,
    console: Console | None = None,
) -> list[Part]:
    """Print each preset's area by group and write every part to a CSV file, below the command that made it.

    Raises
    ------
    :class:`ValueError`
        An unknown preset or technology, or one without standard cells.
    :class:`~hw.synth.flow.SynthesisError`
        Yosys failed.
    """
    console = console or Console()
    chosen = [preset(name) for name in configs]
    target = resolve(pdk, liberty)
    if target.library is None:
        raise ValueError(f"Technology must have standard cells for areas by component, not {target.name!r}")
    parts: list[Part] = []
    with progress_bar(console) as progress:
        for config in chosen:
            parts += accelerator_parts(config, target, build=build, clock_ns=clock_ns, progress=progress)
    write_table(parts, path, command=command)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    console.print(_table(parts, [config.name for config in chosen], target))
    console.print(f"Memories are black boxes; every module by itself is in {path}.", highlight=False, soft_wrap=True)
    return parts


def _table(parts: Sequence[Part], names: Sequence[str], target: Target) -> Table:
    table = Table(
        title=f"Area in µm² by component: {target.technology.title}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("%", justify="right", no_wrap=True)
    totals = {name: sum(part.area_um2 or 0 for part in parts if part.config == name) for name in names}
    for group in (*GROUPS, None):
        cells = []
        for name in names:
            area = sum(part.area_um2 or 0 for part in parts if part.config == name and group in (part.group, None))
            cells += [grouped(area), f"{100 * area / totals[name]:.1f}"]
        table.add_row(group or "all logic", *cells, end_section=group == GROUPS[-1])
    memory = []
    for name in names:
        bits = sum(
            part.instances * (part.words or 0) * (part.bits or 0)
            for part in parts
            if part.config == name and part.group == "memory"
        )
        memory += [grouped(bits / 8192, 1), ""]
    table.add_row("memory, KiB", *memory)
    return table
