"""The full area report: every technology, width and series; a CSV file of each technology, tables, three plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from golden.files import write_table
from hw.synth import area_plot, area_tables, place, timing
from hw.synth.components import DIGIT_WIDTHS, SERIES, series
from hw.synth.console import grouped
from hw.synth.row import Row
from hw.synth.sweep import Job, sweep, with_ratios
from hw.synth.technology import TECHNOLOGIES, Kind, Target, resolve

__all__ = ["jobs", "run", "targets"]

REFERENCE = "nangate45"
FILE_WIDTH = 100
"""Columns of the tables where they do not go to a terminal."""


def targets(liberties: Iterable[Path] = (), names: Iterable[str] | None = None) -> list[Target]:
    """``mini``, the technologies of the Liberty files, and the FPGAs; or those of them that ``names`` has.

    Parameters
    ----------
    liberties : iterable of :class:`~pathlib.Path`
        Liberty files, or folders of them (``*.lib``, ``*.lib.gz``).

    Raises
    ------
    :class:`ValueError`
        A name is none of theirs; or as of :func:`~hw.synth.technology.resolve`.
    """
    files: list[Path] = []
    for path in liberties:
        files += sorted([*path.glob("*.lib"), *path.glob("*.lib.gz")]) if path.is_dir() else [path]
    found = [resolve("mini"), *(resolve(liberty=file) for file in files)]
    found += [resolve(name) for name, technology in TECHNOLOGIES.items() if technology.kind is Kind.FPGA]
    if names is None:
        return found
    chosen = list(names)
    by_name = {target.name: target for target in found}
    for name in chosen:
        if name not in by_name:
            raise ValueError(f"Technology must be one of {', '.join(by_name)}, not {name!r} (others: --liberty)")
    return [by_name[name] for name in chosen]


def jobs(
    target: Target,
    *,
    digit_bits: Sequence[int] = DIGIT_WIDTHS,
    chosen: Sequence[str] | None = None,
    rows: int | None = None,
    lanes: int | None = None,
    routed: bool = True,
) -> list[Job]:
    """What is synthesized for a technology, at its own clock; the best arrays also for 500 MHz, fast ones for 1 GHz.

    Parameters
    ----------
    chosen : sequence of :class:`str` or ``None``
        Series; ``None``: all of the reference technology, those that are said to be everywhere of others.
    """
    kind = target.technology.kind
    names = [
        name
        for name, known in SERIES.items()
        if (name in chosen if chosen is not None else known.everywhere or target.name == REFERENCE)
        and (known.fpga or kind is Kind.CELLS)
    ]
    found = []
    for name in names:
        for subject in series(name, digit_bits, kind=kind, rows=rows, lanes=lanes):
            if kind is not Kind.CELLS:
                can = routed and name == "best" and place.unavailable(target) is None
                found.append(Job(subject=subject, target=target, routed=can))
                continue
            own = target.technology.clock_ns
            clocks = {"best": (own, 2.0), "fast": (1.0,)}.get(name, (own,))
            found += [Job(subject=subject, target=target, clock_ns=clock) for clock in dict.fromkeys(clocks)]
    return found


def run(
    *,
    liberties: Iterable[Path] = (),
    technologies: Iterable[str] | None = None,
    digit_bits: Sequence[int] = DIGIT_WIDTHS,
    chosen: Sequence[str] | None = None,
    rows: int | None = None,
    lanes: int | None = None,
    routed: bool = True,
    processes: int | None = None,
    build: Path = Path("build/synth"),
    reports: Path = Path("build/reports"),
    command: str | None = None,
    console: Console | None = None,
) -> dict[str, tuple[Row, ...]]:
    """Synthesize all, print a table of each technology, and write ``arrays-<technology>.csv``, tables and plots.

    The tables go to ``arrays.md``. The plots, ``area-per-mac``, ``area-parts`` and ``area-passes``, are of Nangate45,
    or else of the first technology.
    Everything is cached under ``build``: stopped in whatever way, the same call goes on from there.

    Parameters
    ----------
    liberties, technologies
        As of :func:`targets`.
    digit_bits, chosen, rows, lanes, routed
        As of :func:`jobs`.
    processes, build, console
        As of :func:`~hw.synth.sweep.sweep`.
    reports : :class:`~pathlib.Path`
        Folder of the files.
    command : :class:`str` or ``None``
        What was typed, for the first line of the files.

    Raises
    ------
    :class:`ValueError`
        A parameter is outside its range, or as of :func:`targets`.
    :class:`RuntimeError`
        As of :func:`~hw.synth.sweep.sweep`.
    """
    console = console or Console()
    for name in chosen or ():
        if name not in SERIES:
            raise ValueError(f"Series must be one of {', '.join(SERIES)}, not {name!r}")
    found = targets(liberties, technologies)
    todo = [
        job
        for target in found
        for job in jobs(target, digit_bits=digit_bits, chosen=chosen, rows=rows, lanes=lanes, routed=routed)
    ]
    made = sweep(todo, build=build, processes=processes, console=console)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    results: dict[str, tuple[Row, ...]] = {}
    paths = []
    for target in found:
        rows_of = with_ratios([row for job, row in zip(todo, made, strict=True) if job.target is target], target)
        results[target.name] = rows_of
        _print(rows_of, target, console)
        why = timing.unavailable(target) if target.library else place.unavailable(target)
        if why and (target.library or routed):
            console.print(why)
        paths.append(reports / f"arrays-{target.name}.csv")
        write_table(rows_of, paths[-1], command=command)
    paths.append(reports / "arrays.md")
    paths[-1].write_text(area_tables.page(results, found, command), encoding="utf-8")
    shown = next((target for target in found if target.name == REFERENCE), found[0])
    paths += area_plot.draw(results[shown.name], shown, reports)
    console.print(f"Written: {', '.join(map(str, paths))}", soft_wrap=True, highlight=False)
    return results


COLUMNS = {
    "products, tree": ("products", "tree"),
    "acc": ("accumulator", "pipeline"),
    "x": ("activation_register", "distribution", "control"),
}
"""The printed columns and the parts that they add up."""


def _digits(value: float) -> int:
    """Decimals for three or four digits in all."""
    return 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 3


def _print(rows: Sequence[Row], target: Target, console: Console) -> None:
    """One line per design: per MAC in total and by part, ratios, delay."""
    unit = {Kind.CELLS: "µm²", Kind.FPGA: "LUTs", Kind.GENERIC: "cells"}[target.technology.kind]
    table = Table(
        title=f"{target.technology.title}: {unit} per MAC",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    ratios = ("÷ floor", "16 ÷ d", "plain ÷")
    speed = "ns" if target.library else "MHz"
    names = ("series", "d", "array", *(["MHz"] if target.library else []), "all", *COLUMNS, *ratios, speed)
    for name in names:
        table.add_column(name, justify="left" if name == "series" else "right", no_wrap=True)
    previous = None
    for row in rows:
        if previous not in (None, row.series):
            table.add_section()
        macs = row.macs or 1
        cost = row.cost / macs
        values = [
            "" if previous == row.series else row.series,
            str(row.digit_bits),
            f"{row.lanes}×{row.rows}" if macs > 1 else "",
            *([grouped(1000 / row.clock_ns)] if row.clock_ns else []),
            grouped(cost, _digits(cost)),
        ]
        for parts in COLUMNS.values():
            values.append(grouped(sum(row.body[part] for part in parts) / macs, _digits(cost)) if row.body else "")
        values += [grouped(row.ratio_to_floor, 2), grouped(row.ratio_to_16, 1), grouped(row.plain_ratio, 2)]
        table.add_row(*values, grouped(row.delay_ns, 2) if target.library else grouped(row.fmax_mhz, 0))
        previous = row.series
    console.print(table)
    console.print("x: activation registers, what the rows share, control. Parts one by one are in the file.\n")
