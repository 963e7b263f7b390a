"""The quick area report: arrays and PACT units by width on one technology, as a table, a CSV file and a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from golden.files import write_table
from hw.synth import plot, timing
from hw.synth.components import DIGIT_WIDTHS, KINDS, OUTPUT_WIDTHS, Subject, arrays, units
from hw.synth.console import grouped
from hw.synth.row import Row
from hw.synth.sweep import Job, sweep, with_ratios
from hw.synth.technology import Kind, Target, resolve

__all__ = ["Report", "run"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rows and the files they were written to."""

    target: Target
    rows: tuple[Row, ...]
    csv: Path
    plots: tuple[Path, ...]


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
        Of the arrays; ``None``: 16, from 8-bit digits up 8, on FPGAs fewer.
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
            kind=target.technology.kind,
            rows=rows,
            lanes=lanes,
            accumulator_bits=accumulator_bits,
        )
    if "pact" in chosen:
        subjects += units(output_bits)
    no_delay = timing.unavailable(target)
    made = [Job(subject=subject, target=target, clock_ns=clock_ns) for subject in subjects]
    table = with_ratios(sweep(made, build=build, processes=jobs, console=console), target)

    _print(table, target, console)
    if no_delay:
        console.print(no_delay)
    path = reports / f"area-{target.name}.csv"
    write_table(table, path)
    plots = plot.area(table, target, reports / f"area-{target.name}")
    console.print(f"Written: {', '.join(str(p) for p in (path, *plots))}", soft_wrap=True)
    return Report(target=target, rows=table, csv=path, plots=plots)


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
        return [grouped(value) for value in (*first, row.cells, row.ffs)]

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
            "Array",
            (
                "d",
                "rows",
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
                grouped(row.digit_bits),
                grouped(row.rows),
                grouped(row.lanes),
                grouped(row.accumulator_bits),
                grouped(row.cost_per_mac, 2),
                grouped(row.ratio_to_16, 1),
                *costs(row),
                grouped(row.weight_register if kind is Kind.CELLS else row.weight_register_ffs),
                *([grouped(row.delay_ns, 2)] if delays else []),
            )
        console.print(made)
        console.print(
            "A MAC is one product of d-bit digits. Activation registers, buffers and accumulators\n"
            "are counted; weight registers, ones row and drain registers are apart.\n"
            "16 ÷ d: how many times denser than d = 16.\n"
        )
    selected = [row for row in rows if not row.macs]
    if selected:
        made = table("PACT unit", ("form", "k", "acc", *headings))
        for row in selected:
            made.add_row(
                plot.FORMS[row.component].label,
                grouped(row.output_bits),
                grouped(row.accumulator_bits),
                *costs(row),
                *([grouped(row.delay_ns, 2)] if delays else []),
            )
        console.print(made)
        console.print("One unit for k-bit codes; its constants come from outside.\n")
    if units:
        console.print(f"{', '.join(units)}.")
