"""What two-level scales (VS-Quant) cost in the array, and what 4 bits with them save against 8 bits without.

Dai et al., "VS-Quant: Per-vector Scaled Quantization" (arXiv 2102.04503), claim in their abstract 37 % of the area for
4-bit weights and activations with scales, against an 8-bit baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from golden.files import write_table
from golden.network import MAX_CODE_BITS
from hw.config import checked_integer
from hw.mac_array import MacArray
from hw.scaled_array import ScaledArray
from hw.scaled_row import product_bits
from hw.synth import plot, timing
from hw.synth.flow import Netlist, is_flip_flop, synthesize
from hw.synth.liberty import Library
from hw.synth.netlist import read
from hw.synth.parts import array_parts, costs
from hw.synth.sweep import in_parallel
from hw.synth.technology import Target, resolve
from hw.verilog import generate

__all__ = ["FORMS", "SCALE_BITS", "SHAPES", "Row", "draw", "run"]

SHAPES = ((4, 16), (8, 16), (4, 32), (8, 32))
"""Bits of weights and activations, and lanes."""

SCALE_BITS = tuple(range(4, 11))
"""Widths M of both scales."""

FORMS = ("full", "rounded", "static")
"""Of the scale product: all its 2*M bits; rounded to M bits; M bits that are given, since both scales are static."""

COMPARED = ((8, 32),)
"""Shapes that only the others are compared with."""

PAPER_SAVING = 37.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One array; the members are the columns of the CSV file, empty where they do not apply.

    Weights and codes have ``digit_bits`` bits, one beat is one vector of ``lanes`` channels, and an accumulator has
    2*d + 12 bits (4096 products) and those of the scale product.

    Members
    -------
    form : :class:`str`
        ``plain`` without scales, else of :data:`FORMS`.
    area_um2 : :class:`float`
        Rows, activation registers and buffers. Apart: the registers of weights and their scales, the sums that make
        the weights signed (with scales they are ready to be added; without, it is the ones row), the drain registers.
    total_um2 : :class:`float`
        All of it.
    row_um2 : :class:`float`
        One row: its part of ``area_um2`` without what the rows share, which is activation registers, their sums of
        pairs and buffers, and flags (:mod:`hw.synth.parts`).
    overhead_percent, row_overhead_percent, total_overhead_percent : :class:`float`
        More than the plain array of the same bits and lanes.
    saving_percent, total_saving_percent : :class:`float` or ``None``
        Less than the plain array of 8 bits and as many lanes. 4 bits only.
    """

    digit_bits: int
    lanes: int
    rows: int
    form: str
    scale_bits: int | None = None
    product_bits: int | None = None
    accumulator_bits: int
    area_um2: float
    area_per_mac_um2: float
    row_um2: float
    weight_register_um2: float
    ones_row_um2: float
    drain_um2: float
    total_um2: float
    total_per_mac_um2: float
    overhead_percent: float | None = None
    row_overhead_percent: float | None = None
    total_overhead_percent: float | None = None
    saving_percent: float | None = None
    total_saving_percent: float | None = None
    delay_ns: float | None
    clock_ns: float
    ffs: int
    full_adders: int

    @property
    def shape(self) -> tuple[int, int]:
        """Bits and lanes."""
        return self.digit_bits, self.lanes


@dataclass(frozen=True)
class _Subject:
    digit_bits: int
    lanes: int
    rows: int
    form: str = "plain"
    scale_bits: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.digit_bits, self.lanes

    @property
    def _scales(self) -> dict[str, Any]:
        """The parameters of the scales."""
        static = self.form == "static"
        return {
            "weight_scale_bits": self.scale_bits,
            "activation_scale_bits": 0 if static else self.scale_bits,
            "product_shift": self.scale_bits if self.form == "rounded" else 0,
        }

    @property
    def product_bits(self) -> int:
        return 0 if self.form == "plain" else product_bits(**self._scales)

    @property
    def accumulator_bits(self) -> int:
        return 2 * self.digit_bits + 12 + self.product_bits

    def verilog(self) -> tuple[str, str]:
        """The name of the top module, and the text."""
        sizes: dict[str, Any] = {"rows": self.rows, "lanes": self.lanes, "digit_bits": self.digit_bits}
        if self.form == "plain":
            # Without the register of wide digits: smaller, and fast enough.
            plain = MacArray(**sizes, acc_bits=self.accumulator_bits, pipeline=0)
            return "mac_array", generate(plain, name="mac_array")
        array = ScaledArray(**sizes, **self._scales, acc_bits=self.accumulator_bits)
        return "scaled_array", generate(array, name="scaled_array")


def _shared(netlist: Netlist, subject: _Subject, library: Library) -> float:
    """The area of what all rows share."""
    flat = read(netlist.json, netlist.top)
    digits = flat.ports["i__payload"][1][: subject.lanes * subject.digit_bits]
    adders = [adder.cell for adder in (library.full_adder, library.half_adder) if adder]
    parts = array_parts(flat, digits, lambda kind: is_flip_flop(kind, library), adders)
    areas = costs(flat, parts, lambda kind: library.cells[kind].area)
    return sum(areas[part] for part in ("activation_register", "distribution", "control"))


def _row(subject: _Subject, target: Target, build: Path, clock_ns: float | None, with_delay: bool) -> Row:
    assert target.library is not None
    top, text = subject.verilog()
    netlist = synthesize(text, top, target, build=build, clock_ns=clock_ns)
    apart = {name: round(netlist.apart[name].area or 0, 3) for name in ("weight_register", "ones_row", "drain")}
    area = netlist.area or 0
    total = area + sum(apart.values())
    macs = subject.rows * subject.lanes
    return Row(
        digit_bits=subject.digit_bits,
        lanes=subject.lanes,
        rows=subject.rows,
        form=subject.form,
        scale_bits=subject.scale_bits or None,
        product_bits=subject.product_bits or None,
        accumulator_bits=subject.accumulator_bits,
        area_um2=round(area, 3),
        area_per_mac_um2=round(area / macs, 3),
        row_um2=round((area - _shared(netlist, subject, target.library)) / subject.rows, 3),
        **{f"{name}_um2": value for name, value in apart.items()},
        total_um2=round(total, 3),
        total_per_mac_um2=round(total / macs, 3),
        delay_ns=timing.analyze(netlist, target, build=build).delay_ns if with_delay else None,
        clock_ns=clock_ns or target.technology.clock_ns,
        ffs=netlist.ffs,
        full_adders=netlist.full_adders,
    )


def _compared(rows: Sequence[Row]) -> list[Row]:
    """The rows with their overheads and savings."""
    plain = {row.shape: row for row in rows if row.form == "plain"}

    def percent(value: float, reference: float) -> float:
        return round(100 * (value / reference - 1), 1)

    compared = []
    for row in rows:
        own, wide = plain[row.shape], plain.get((8, row.lanes))
        if row.form != "plain":
            row = replace(
                row,
                overhead_percent=percent(row.area_um2, own.area_um2),
                row_overhead_percent=percent(row.row_um2, own.row_um2),
                total_overhead_percent=percent(row.total_um2, own.total_um2),
            )
        if row.digit_bits < 8 and wide is not None:
            row = replace(
                row,
                saving_percent=-percent(row.area_um2, wide.area_um2),
                total_saving_percent=-percent(row.total_um2, wide.total_um2),
            )
        compared.append(row)
    return compared


def run(
    *,
    pdk: str = "mini",
    liberty: Path | None = None,
    shapes: Iterable[tuple[int, int]] = SHAPES,
    scale_bits: Iterable[int] = SCALE_BITS,
    rows: int = 2,
    clock_ns: float | None = None,
    jobs: int | None = None,
    build: Path = Path("build/synth"),
    path: Path,
    command: str,
    console: Console | None = None,
) -> list[Row]:
    """Synthesize every array, print the table, write the CSV file below the command, and the plots beside it.

    Parameters
    ----------
    pdk, liberty
        As of :func:`hw.synth.technology.resolve`.
    shapes : iterable of (bits, lanes)
        Of the arrays.
    scale_bits : iterable of :class:`int`
        Widths of the scales, 1 to 16.
    rows : :class:`int`
        Of the arrays.
    clock_ns : :class:`float` or ``None``
        Clock target; ``None``: the technology's.
    jobs : :class:`int` or ``None``
        Yosys processes at a time; ``None``: one per core, four at most.

    Raises
    ------
    :class:`ValueError`
        A parameter is outside its range, an unknown technology, or one without standard cells.
    :class:`RuntimeError`
        Yosys or OpenSTA failed.
    """
    console = console or Console()
    target = resolve(pdk, liberty)
    if target.library is None:
        raise ValueError(f"Technology must have standard cells for areas of vector scales, not {target.name!r}")
    widths = [checked_integer("Scale width", width, 1, MAX_CODE_BITS) for width in scale_bits]
    chosen = list(shapes)
    subjects = [_Subject(*shape, rows) for shape in chosen]
    for form in FORMS:
        subjects += [
            _Subject(*shape, rows, form, width) for shape in chosen if shape not in COMPARED for width in widths
        ]
    no_delay = timing.unavailable(target)
    found = in_parallel(
        lambda subject: _row(subject, target, build, clock_ns, no_delay is None),
        subjects,
        title=lambda subject: f"Synthesizing for {target.name}",
        processes=jobs,
        console=console,
    )
    results = _compared([found[subject] for subject in sorted(subjects, key=lambda s: chosen.index(s.shape))])

    write_table(results, path, command=command)
    console.print(_table(results, target))
    if no_delay:
        console.print(no_delay)
    written = (path, *draw(results, target, path.with_suffix("")))
    console.print(
        "Area of rows, activation registers and buffers; + %: more than without scales, row: without what rows share;\n"
        "saves: against 8 bits without scales and as many lanes.\n"
        f"Written: {', '.join(map(str, written))}",
        soft_wrap=True,
        highlight=False,
    )
    return results


def _table(rows: Sequence[Row], target: Target) -> Table:
    table = Table(
        title=f"Vector scales: {target.technology.title}, {rows[0].rows} rows, clock target {rows[0].clock_ns:g} ns",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in ("bits", "lanes", "form", "M", "P", "acc", "µm²/MAC", "+ %", "row + %", "saves %", "ns"):
        table.add_column(name, justify="left" if name == "form" else "right", no_wrap=True)

    def text(value: float | None, digits: int = 0) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    for index, row in enumerate(rows):
        table.add_row(
            text(row.digit_bits),
            text(row.lanes),
            row.form,
            text(row.scale_bits),
            text(row.product_bits),
            text(row.accumulator_bits),
            text(row.area_per_mac_um2, 1),
            text(row.overhead_percent, 1),
            text(row.row_overhead_percent, 1),
            text(row.saving_percent, 1),
            text(row.delay_ns, 2),
            end_section=index + 1 < len(rows) and rows[index + 1].shape != row.shape,
        )
    return table


COLOURS = {(4, 16): "#0b6e8a", (4, 32): "#7a4fa3", (8, 16): "#d9822b"}
LINES: dict[str, Any] = {"full": "-", "rounded": (0, (4, 2)), "static": (0, (1, 1.5))}
LABELS = {"full": "all 2M bits of the product", "rounded": "rounded to M bits", "static": "M bits, static: no product"}


def draw(rows: Sequence[Row], target: Target, stem: Path) -> tuple[Path, ...]:
    """Draw the overhead to the left and the saving to the right, to ``<stem>.svg`` and ``<stem>.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    paths = []
    scaled = [row for row in rows if row.form != "plain"]
    shapes = sorted({row.shape for row in scaled})
    ticks = sorted({row.scale_bits or 0 for row in scaled})
    with pyplot.rc_context(plot.STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.4, 4.4), layout="constrained")
        for axis in (left, right):
            axis.grid(True, axis="y", color="#e4e8ec", linewidth=0.8)
            axis.set_axisbelow(True)
            axis.set_xlabel("scale width M (bits)")
            axis.set_xticks(ticks)
        for shape in shapes:
            colour = COLOURS.get(shape, plot.INK)
            for form in FORMS:
                line = [row for row in scaled if row.shape == shape and row.form == form]
                style = {"color": colour, "linestyle": LINES[form], "linewidth": 1.8, "marker": "o", "markersize": 3.5}
                widths = [row.scale_bits for row in line]
                left.plot(widths, [row.row_overhead_percent for row in line], **style)
                if line and line[0].saving_percent is not None:
                    right.plot(widths, [row.saving_percent for row in line], **style)
            plain = next(row for row in rows if row.shape == shape and row.form == "plain")
            if plain.saving_percent is not None:
                right.plot([ticks[-1] + 0.6], [plain.saving_percent], marker="D",
                           color=colour, markersize=5, clip_on=False)  # fmt: skip
        right.axhline(PAPER_SAVING, color=plot.FAINT, linestyle=(0, (5, 3)), linewidth=1.3)
        right.annotate("37 %: Dai et al., abstract", (0.02, PAPER_SAVING), xycoords=("axes fraction", "data"),
                       xytext=(0, -4), textcoords="offset points", va="top", color="#5d6a76")  # fmt: skip
        left.set_ylim(bottom=0)
        right.set_ylim(0, 80)
        left.set_ylabel("% more area than the row without scales")
        right.set_ylabel("% less area than the array of 8 bits without scales")
        left.set_title("What scales cost in a row")
        right.set_title("What 4 bits with scales save (diamond: without)")
        bits = [Line2D([], [], color=COLOURS.get((b, n), plot.INK), linewidth=1.8, label=f"{b}/{b} bits, {n} lanes")
                for b, n in shapes]  # fmt: skip
        forms = [Line2D([], [], color=plot.INK, linestyle=LINES[form], linewidth=1.6, label=LABELS[form])
                 for form in FORMS]  # fmt: skip
        left.legend(handles=[*bits, *forms], frameon=False, loc="upper left", fontsize=8.5)
        figure.suptitle(f"Two-level scales in the array: {target.technology.title}", x=0.012, ha="left", fontsize=12)
        for suffix in ("svg", "png"):
            path = stem.with_name(f"{stem.name}.{suffix}")
            figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == "svg" else {"Software": None})
            paths.append(path)
        pyplot.close(figure)
    return tuple(paths)
