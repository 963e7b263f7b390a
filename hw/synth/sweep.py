"""Synthesis of many designs at once: in parallel, with progress, and from the cache where an earlier run ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from hw.synth import netlist as netlists
from hw.synth import place, timing
from hw.synth.components import NATIVE_BITS, Subject
from hw.synth.console import progress_bar
from hw.synth.flow import Netlist, is_flip_flop, luts, synthesize
from hw.synth.parts import array_parts, costs
from hw.synth.row import Row
from hw.synth.technology import Kind, Target, bit_product_area

__all__ = ["Job", "in_parallel", "sweep", "with_ratios"]

J = TypeVar("J", bound=Hashable)
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One design on one technology.

    Members
    -------
    clock_ns : :class:`float` or ``None``
        Clock target; ``None``: the technology's.
    routed : :class:`bool`
        Whether it is placed and routed too. FPGAs only.
    """

    subject: Subject
    target: Target
    clock_ns: float | None = None
    routed: bool = False


def _parts(subject: Subject, netlist: Netlist, target: Target) -> dict[str, float]:
    """The cost of each part of an array."""
    library = target.library
    adders = [adder.cell for adder in (library.full_adder, library.half_adder) if adder] if library else []
    flat = netlists.read(netlist.json, netlist.top)
    assert subject.lanes is not None and subject.digit_bits is not None
    digits = flat.ports["i__payload"][1][: subject.lanes * subject.digit_bits]

    def cost(cell: str) -> float:
        if library:
            return library.cells[cell].area
        return luts({cell: 1}) if target.technology.kind is Kind.FPGA else 1

    return costs(flat, array_parts(flat, digits, lambda cell: is_flip_flop(cell, library), adders), cost)


def _measure(job: Job, build: Path, with_delay: bool) -> Row:
    subject, target = job.subject, job.target
    verilog = subject.verilog()
    netlist = synthesize(verilog, subject.component, target, build=build, clock_ns=job.clock_ns, booth=subject.booth)
    delay = timing.analyze(netlist, target, build=build).delay_ns if with_delay else None
    fmax = place.route(verilog, subject.component, target, build=build).fmax_mhz if job.routed else None
    area = None if netlist.area is None else round(netlist.area, 3)
    parts: dict[str, Any] = _parts(subject, netlist, target) if subject.is_array else {}
    return Row(
        series=subject.series,
        component=subject.component,
        form=subject.form and subject.form.value,
        pipeline_registers=subject.pipeline,
        digit_bits=subject.digit_bits,
        output_bits=subject.output_bits,
        rows=subject.rows,
        lanes=subject.lanes,
        accumulator_bits=subject.accumulator_bits,
        area_um2=area,
        area_per_mac_um2=round(area / subject.macs, 3) if subject.macs and area is not None else None,
        **{name: round(value, 3) for name, value in parts.items()},
        delay_ns=delay,
        fmax_mhz=fmax,
        clock_ns=(job.clock_ns or target.technology.clock_ns) if target.library else None,
        cells=sum(netlist.cells.values()),
        ffs=netlist.ffs,
        luts=netlist.luts,
        full_adders=netlist.full_adders,
        half_adders=netlist.half_adders,
        weight_register_ffs=netlist.apart["weight_register"].ffs if subject.is_array else None,
    )


def with_ratios(rows: Iterable[Row], target: Target) -> tuple[Row, ...]:
    """The rows of one technology with the columns that compare them."""
    rows = list(rows)
    floor = bit_product_area(target.library) if target.library else None
    found = {(row.series, row.digit_bits, row.clock_ns): row for row in rows}

    def with_weights(row: Row) -> float:
        return (row.cost + (row.weight_register or 0)) / (row.macs or 1)

    def ratio(other: Row | None, row: Row, digits: int = 4) -> float | None:
        if other is None or other is row or not (other.cost_per_mac and row.cost_per_mac):
            return None
        return round(other.cost_per_mac / row.cost_per_mac, digits)

    compared = []
    for row in rows:
        width, clock = row.digit_bits, row.clock_ns
        if not row.cost_per_mac or width is None:
            compared.append(row)
            continue
        widest = found.get((row.series, 16, clock))
        is_ours = row.component == "mac_array"
        wide = row.series == "wide"
        native = found.get((row.series, NATIVE_BITS, clock)) if wide else None
        passes = (NATIVE_BITS // width) ** 2 if wide else None
        compared.append(
            replace(
                row,
                ratio_to_floor=round(row.cost_per_mac / (floor * width**2), 5) if floor and row.parts else None,
                ratio_to_16=1.0 if widest is row else ratio(widest, row),
                ratio_to_16_with_weights=(
                    round(with_weights(widest) / with_weights(row), 4) if widest and row.weight_register else None
                ),
                plain_ratio=ratio(found.get(("plain", width, clock)), row) if is_ours else None,
                booth_ratio=ratio(found.get(("booth", width, clock)), row) if is_ours else None,
                signed_mac_ratio=ratio(found.get(("signed_mac", width, clock)), row) if is_ours else None,
                passes=passes,
                pass_ratio=(
                    round(native.cost_per_mac / (row.cost_per_mac * passes), 5)
                    if native and native.cost_per_mac and passes
                    else None
                ),
            )
        )
    return tuple(compared)


def in_parallel(
    work: Callable[[J], R],
    jobs: Sequence[J],
    *,
    title: Callable[[J], str],
    processes: int | None = None,
    console: Console | None = None,
) -> dict[J, R]:
    """What ``work`` makes of every job, begun in their order, with progress that shows the title of the last one done.

    The first error ends it; what has not begun does not begin any more.

    Parameters
    ----------
    processes : :class:`int` or ``None``
        Jobs at a time; ``None``: one per core, four at most.
    console : :class:`rich.console.Console` or ``None``
        Where progress goes; ``None``: standard output.
    """
    results: dict[J, R] = {}
    with (
        progress_bar(console) as progress,
        ThreadPoolExecutor(max_workers=processes or min(4, os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task("Synthesizing", total=len(jobs))
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                job = futures[future]
                results[job] = future.result()
                progress.update(task, advance=1, description=title(job))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def sweep(
    jobs: Sequence[Job], *, build: Path, processes: int | None = None, console: Console | None = None
) -> list[Row]:
    """The row of every job, in their order, without ratios.

    Whatever stops it, the results so far are under ``build``, and the same call goes on from there.

    Parameters
    ----------
    build : :class:`~pathlib.Path`
        Folder of the cached results.
    processes : :class:`int` or ``None``
        Yosys processes at a time; ``None``: one per core, four at most.
    console : :class:`rich.console.Console` or ``None``
        Where progress goes; ``None``: standard output.

    Raises
    ------
    :class:`RuntimeError`
        Yosys, OpenSTA or nextpnr failed (its subclasses :class:`~hw.synth.flow.SynthesisError`,
        :class:`~hw.synth.timing.TimingError` and :class:`~hw.synth.place.RoutingError`).
    """
    delays = {job.target.name: timing.unavailable(job.target) is None for job in jobs}
    # What takes longest goes first, so that no core waits for it in the end.
    order = sorted(jobs, key=lambda job: (not job.routed, -job.subject.size))
    rows = in_parallel(
        lambda job: _measure(job, build, delays[job.target.name]),
        order,
        title=lambda job: f"{job.target.name}: {job.subject.title}",
        processes=processes,
        console=console,
    )
    return [rows[job] for job in jobs]
