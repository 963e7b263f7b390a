"""The proofs of many arrays, as a table and a CSV file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from golden.files import write_csv
from hw.config import checked_digit_bits
from hw.dot_product import Form, checked_form, checked_pipeline
from hw.mac_array import MacArray
from hw.synth import area, netlist
from hw.synth.components import ROWS, WORD_BITS
from hw.synth.console import progress_bar
from hw.synth.equivalence.circuit import DesignError, read_mapped, read_rtl
from hw.synth.equivalence.proof import ProofError, Shape, Step, prove
from hw.synth.flow import synthesize
from hw.synth.technology import Kind, Target, resolve
from hw.verilog import generate

__all__ = ["REPORTED", "SMALL", "Subject", "reported", "run", "subjects"]

TOP = "mac_array"

REPORTED = {d: (WORD_BITS // d, rows) for d, rows in ROWS.items()}
"""Lanes and rows of the arrays in the area report, by digit width."""

SMALL = {1: ((10, 2), (16, 1)), 2: ((5, 2),), 4: ((2, 2),), 8: ((1, 2),), 16: ()}
"""Lanes and rows of arrays small enough for the methods that take a row's product as a whole, by digit width."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An array to be proven; parameters as of :class:`hw.mac_array.MacArray`, ``pipeline`` resolved.

    Members
    -------
    clock_ns : :class:`float` or ``None``
        The period that its netlist is mapped for; ``None``: the technology's.
    """

    digit_bits: int
    lanes: int
    rows: int
    acc_bits: int
    form: Form
    pipeline: int
    carry_save: bool = False
    clock_ns: float | None = None

    def array(self) -> MacArray:
        """The component."""
        return MacArray(**{name: value for name, value in asdict(self).items() if name != "clock_ns"})

    @property
    def title(self) -> str:
        """What progress calls it."""
        return f"d={self.digit_bits} {self.lanes}×{self.rows} {self.form}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was proven of which array."""

    pdk: str
    digit_bits: int
    lanes: int
    rows: int
    acc_bits: int
    form: str
    pipeline: int
    carry_save: bool
    clock_ns: float
    method: str
    proven: str
    count: int
    unit: str
    seconds: float


def subjects(
    digit_bits: Iterable[int],
    *,
    lanes: int | None = None,
    rows: int | None = None,
    acc_bits: int | None = None,
    forms: Iterable[Form | str] = tuple(Form),
    pipeline: int | None = None,
    carry_save: bool = False,
) -> list[Subject]:
    """What to prove: per digit width and form the small arrays and the reported one, or the one of ``lanes``.

    Accumulators are of 2*d + 12 bits if nothing else is said. The form ``best`` is the generator's choice for a width.
    """
    found = []
    for d in map(checked_digit_bits, digit_bits):
        sizes = [*SMALL[d], REPORTED[d]] if lanes is None else [(lanes, REPORTED[d][1])]
        found += [
            Subject(
                digit_bits=d,
                lanes=size[0],
                rows=size[1] if rows is None else rows,
                acc_bits=2 * d + 12 if acc_bits is None else acc_bits,
                form=checked_form(None if form == "best" else form, d),
                pipeline=checked_pipeline(pipeline, d),
                carry_save=carry_save,
            )
            for form in forms
            for size in sizes
        ]
    return found


def reported(target: Target, digit_bits: Iterable[int]) -> list[Subject]:
    """Every array of the area report (:mod:`hw.synth.area`) on standard cells, with the clocks it is mapped for."""
    found = []
    for job in area.jobs(target, digit_bits=list(digit_bits)):
        array = job.subject
        if array.component != "mac_array":
            continue
        assert array.digit_bits and array.lanes and array.rows and array.form is not None
        found.append(
            Subject(
                digit_bits=array.digit_bits,
                lanes=array.lanes,
                rows=array.rows,
                acc_bits=array.accumulator_bits,
                form=array.form,
                pipeline=checked_pipeline(array.pipeline, array.digit_bits),
                clock_ns=job.clock_ns,
            )
        )
    return found


def _steps(subject: Subject, target: Target, build: Path, progress: Progress) -> list[Step]:
    task = progress.add_task(f"{subject.title}: synthesis", total=None)
    try:
        array = subject.array()
        shape = Shape.of(array)
        verilog = generate(array, name=TOP)
        mapped = synthesize(verilog, TOP, target, build=build, clock_ns=subject.clock_ns)
        rtl = read_rtl(verilog, TOP)
        design = read_mapped(netlist.read(mapped.json, TOP), target.library, rtl)

        def done(step: Step) -> None:
            progress.update(task, description=f"{subject.title}: after {step.method}, {step.seconds:.1f} s")

        progress.update(task, description=f"{subject.title}: proofs")
        return prove(rtl, design, shape, done=done)
    except (DesignError, ProofError) as error:
        raise ProofError(f"Array {subject.title} on {target.name} is not proven: {error}") from None
    finally:
        progress.remove_task(task)


def run(
    chosen: Sequence[Subject],
    *,
    pdk: str = "mini",
    liberty: Path | None = None,
    clock_ns: float | None = None,
    reported_bits: Sequence[int] = (),
    build: Path = Path("build/synth"),
    path: Path,
    command: str,
    console: Console | None = None,
) -> list[Row]:
    """Prove each array, print the table and write it to a CSV file, below the command that made it.

    The file has what is proven so far if one of them fails.

    Parameters
    ----------
    clock_ns : :class:`float` or ``None``
        Of those that have none; ``None``: the technology's.
    reported_bits : sequence of :class:`int`
        Digit widths of which every array of the area report is proven too.

    Raises
    ------
    :class:`~hw.synth.equivalence.proof.ProofError`
        One of them is not proven.
    :class:`ValueError`
        An unknown technology, an unfit Liberty, or an FPGA.
    :class:`~hw.synth.flow.SynthesisError`
        Yosys failed.
    """
    console = console or Console()
    target = resolve(pdk, liberty)
    if target.technology.kind is Kind.FPGA:
        raise ValueError(f"Proofs need a technology of cells or gates, not {target.name!r}")
    own = clock_ns or target.technology.clock_ns
    named = [*chosen, *(reported(target, reported_bits) if reported_bits else ())]
    todo = dict.fromkeys(replace(one, clock_ns=one.clock_ns or own) for one in named)
    rows: list[Row] = []
    try:
        with progress_bar(console) as progress:
            total = progress.add_task(f"Proofs on {target.name}", total=len(todo))
            for subject in todo:
                rows += [
                    Row(pdk=target.name, **asdict(subject), **asdict(step))
                    for step in _steps(subject, target, build, progress)
                ]
                progress.advance(total)
    finally:
        _write(rows, path, command)
        if rows:
            _print(rows, target, console)
    console.print(f"Written to {path}.", highlight=False, soft_wrap=True)
    return rows


def _write(rows: Sequence[Row], path: Path, command: str) -> None:
    changed = [asdict(row) | {"carry_save": int(row.carry_save), "seconds": f"{row.seconds:.2f}"} for row in rows]
    write_csv(path, [field.name for field in fields(Row)], (list(row.values()) for row in changed), command=command)


def _print(rows: Sequence[Row], target: Target, console: Console) -> None:
    """One line an array, a column a method: how much it took in. 80 columns are enough."""
    methods = {
        ("telescoping", "Verilog"): "Verilog",
        ("SAT", "netlist"): "cuts",
        ("telescoping", "netlist"): "cells",
        ("exhaustive", "netlist"): "all inputs",
        ("whole SAT", "netlist"): "whole SAT",
    }
    table = Table(
        title=f"Proven: {target.technology.title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in ("d", "size", "acc", "form", "reg", *methods.values(), "s"):
        table.add_column(name, justify="left" if name == "form" else "right", no_wrap=True)
    lines: dict[Subject, dict[str, str]] = {}
    seconds: dict[Subject, float] = {}
    for row in rows:
        one = Subject(**{field.name: getattr(row, field.name) for field in fields(Subject)})
        power = row.count.bit_length() - 1
        count = f"2^{power}" if row.count == 1 << power and power > 9 else str(row.count)
        lines.setdefault(one, {})[methods[row.method, row.proven.split()[0].rstrip(":")]] = count
        seconds[one] = seconds.get(one, 0.0) + row.seconds
    for one, line in lines.items():
        shape = (str(one.digit_bits), f"{one.lanes}×{one.rows}", str(one.acc_bits), one.form, str(one.pipeline))
        table.add_row(*shape, *(line.get(name, "") for name in methods.values()), f"{seconds[one]:.1f}")
    console.print(table)
    console.print(
        "reg: pipeline registers. Verilog, cells: adders passed by telescoping, from the\n"
        "accumulators to the input ports, in the Verilog and in the netlist's adder cells.\n"
        "cuts: registers, outputs and adders' inputs at which the netlist is the Verilog, by\n"
        "SAT. all inputs: digits of a row, each tried. whole SAT: bits of a row against\n"
        "shift-and-add multipliers.",
        soft_wrap=True,
        highlight=False,
    )
