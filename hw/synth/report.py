"""The area report: every component and width on one technology, as a table, a CSV file and a plot."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hw.synth import plot, timing
from hw.synth.components import DIGIT_WIDTHS, KINDS, OUTPUT_WIDTHS, Subject, arrays, units
from hw.synth.flow import synthesize
from hw.synth.row import Row
from hw.synth.technology import Kind, Target, resolve

__all__ = ["Report", "run"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rows and the files they were written to."""

    target: Target
    rows: tuple[Row, ...]
    csv: Path
    plots: tuple[Path, ...]


def _row(subject: Subject, target: Target, build: Path, clock_ns: float | None, with_delay: bool) -> Row:
    netlist = synthesize(subject.verilog(), subject.component, target, build=build, clock_ns=clock_ns)
    delay = timing.analyze(netlist, target, build=build).delay_ns if with_delay else None
    area = None if netlist.area is None else round(netlist.area, 3)
    is_array = subject.macs is not None
    return Row(
        component=subject.component,
        digit_bits=subject.digit_bits,
        output_bits=subject.output_bits,
        rows=subject.rows,
        lanes=subject.lanes,
        accumulator_bits=subject.accumulator_bits,
        area_um2=area,
        area_per_mac_um2=round(area / subject.macs, 3) if subject.macs and area is not None else None,
        **{
            f"{name}_um2": round(part.area, 3)
            for name, part in netlist.apart.items()
            if is_array and part.area is not None
        },
        delay_ns=delay,
        clock_ns=(clock_ns or target.technology.clock_ns) if target.library else None,
        cells=sum(netlist.cells.values()),
        ffs=netlist.ffs,
        luts=netlist.luts,
        full_adders=netlist.full_adders,
        half_adders=netlist.half_adders,
        weight_register_ffs=netlist.apart["weight_register"].ffs if is_array else None,
    )


def _with_ratios(rows: Sequence[Row]) -> tuple[Row, ...]:
    widest = next((row.cost_per_mac for row in rows if row.digit_bits == 16), None)
    return tuple(
        replace(row, ratio_to_16=round(widest / row.cost_per_mac, 2)) if widest and row.cost_per_mac else row
        for row in rows
    )


def run(
    *,
    pdk: str = "mini",
    liberty: Path | None = None,
    components: Iterable[str] = KINDS,
    digit_bits: Iterable[int] = DIGIT_WIDTHS,
    output_bits: Iterable[int] = OUTPUT_WIDTHS,
    rows: int | None = None,
    lanes: int | None = None,
    accumulator_bits: int | None = None,
    clock_ns: float | None = None,
    jobs: int | None = None,
    build: Path = Path("build/synth"),
    reports: Path = Path("build/reports"),
    console: Console | None = None,
) -> Report:
    """Synthesize, print the table, and write ``area-<pdk>.csv``, ``.svg`` and ``.png``.

    Without an earlier run's results under ``build`` the default takes two to four minutes on two cores.

    Parameters
    ----------
    pdk, liberty
        As of :func:`hw.synth.technology.resolve`.
    components : iterable of :class:`str`
        Of ``array`` and ``pact``.
    digit_bits, output_bits : iterables of :class:`int`
        Widths of the arrays and of the PACT units.
    rows : :class:`int` or ``None``
        Of the arrays; ``None``: 16, on FPGAs 4.
    lanes, accumulator_bits
        Of the arrays, as of :func:`hw.synth.components.arrays`.
    clock_ns : :class:`float` or ``None``
        Clock target; ``None``: the technology's.
    jobs : :class:`int` or ``None``
        Yosys processes at a time; ``None``: one per core, four at most.
    build, reports : :class:`~pathlib.Path`
        Folders of the cached results and of the report.
    console : :class:`rich.console.Console` or ``None``
        Where table and progress go; ``None``: standard output.

    Raises
    ------
    :class:`ValueError`
        A parameter is outside its range; unknown technology, missing or unfit Liberty (its subclasses
        :class:`~hw.synth.technology.TechnologyError` and :class:`~hw.synth.liberty.LibertyError`).
    :class:`RuntimeError`
        Yosys or OpenSTA failed (its subclasses :class:`~hw.synth.flow.SynthesisError` and
        :class:`~hw.synth.timing.TimingError`).
    """
    console = console or Console()
    chosen = list(components)
    for component in chosen:
        if component not in KINDS:
            raise ValueError(f"Component must be one of {', '.join(KINDS)}, not {component!r}")
    if clock_ns is not None and clock_ns <= 0:
        raise ValueError(f"Clock period must be positive, not {clock_ns!r}")
    target = resolve(pdk, liberty)
    subjects: list[Subject] = []
    if "array" in chosen:
        subjects += arrays(
            digit_bits,
            rows=target.technology.rows if rows is None else rows,
            lanes=lanes,
            accumulator_bits=accumulator_bits,
        )
    if "pact" in chosen:
        subjects += units(output_bits)
    no_delay = timing.unavailable(target)

    results: dict[Subject, Row] = {}
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    )  # fmt: skip
    with progress, ThreadPoolExecutor(max_workers=jobs or min(4, os.cpu_count() or 1)) as pool:
        task = progress.add_task(f"Synthesizing for {target.name}", total=len(subjects))
        # The widest array takes as long as half of the others together, so it goes first.
        order = sorted(subjects, key=lambda subject: -(subject.digit_bits or 0))
        futures = {pool.submit(_row, s, target, build, clock_ns, no_delay is None): s for s in order}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress.update(task, advance=1, description=f"Synthesizing for {target.name}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    table = _with_ratios([results[subject] for subject in subjects])

    _print(table, target, console)
    if no_delay:
        console.print(no_delay)
    reports.mkdir(parents=True, exist_ok=True)
    path = reports / f"area-{target.name}.csv"
    _write_csv(table, path)
    plots = plot.area(table, target, reports / f"area-{target.name}")
    console.print(f"Written: {', '.join(str(p) for p in (path, *plots))}", soft_wrap=True)
    return Report(target=target, rows=table, csv=path, plots=plots)


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if value is None else value for name, value in asdict(row).items()})


def _text(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}".replace(",", "\N{NO-BREAK SPACE}")


def _print(rows: Sequence[Row], target: Target, console: Console) -> None:
    """The arrays' table, then the units'. 80 columns are enough."""
    kind = target.technology.kind
    unit = {Kind.CELLS: "area", Kind.FPGA: "LUTs", Kind.GENERIC: "cells"}[kind]
    clock = rows[0].clock_ns if rows else None
    suffix = target.technology.title + (f", clock target {clock:g} ns" if clock else "")
    delays = any(row.delay_ns is not None for row in rows)
    units = (["Areas in µm²"] if kind is Kind.CELLS else []) + (["delays in ns"] if delays else [])
    headings = [*(["area"] if kind is Kind.CELLS else ["LUTs"] if kind is Kind.FPGA else []), "cells", "FFs"]

    def costs(row: Row) -> list[str]:
        first = [] if kind is Kind.GENERIC else [row.cost]
        return [_text(value) for value in (*first, row.cells, row.ffs)]

    def table(title: str, names: Sequence[str]) -> Table:
        made = Table(
            title=f"{title}: {suffix}",
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for name in (*names, *(["delay"] if delays else [])):
            made.add_column(name, justify="left" if name == "form" else "right", no_wrap=True)
        return made

    selected = [row for row in rows if row.macs]
    if selected:
        made = table(
            f"Array of {selected[0].rows} rows",
            (
                "d",
                "lanes",
                "acc",
                f"{unit}/MAC",
                "16 ÷ d",
                *headings,
                "weights" if kind is Kind.CELLS else "weight FFs",
            ),
        )
        for row in selected:
            made.add_row(
                _text(row.digit_bits),
                _text(row.lanes),
                _text(row.accumulator_bits),
                _text(row.cost_per_mac, 2),
                _text(row.ratio_to_16, 1),
                *costs(row),
                _text(row.weight_register_um2 if kind is Kind.CELLS else row.weight_register_ffs),
                *([_text(row.delay_ns, 2)] if delays else []),
            )
        console.print(made)
        console.print(
            "A MAC is one product of d-bit digits. Activation registers, ones row, buffers,\n"
            "accumulators and drain registers are counted; the weight registers are apart.\n"
            "16 ÷ d: how many times denser than d = 16.\n"
        )
    selected = [row for row in rows if not row.macs]
    if selected:
        made = table("PACT unit", ("form", "k", "acc", *headings))
        for row in selected:
            made.add_row(
                plot.FORMS[row.component].label,
                _text(row.output_bits),
                _text(row.accumulator_bits),
                *costs(row),
                *([_text(row.delay_ns, 2)] if delays else []),
            )
        console.print(made)
        console.print("One unit for k-bit codes; its constants come from outside.\n")
    if units:
        console.print(f"{', '.join(units)}.")
