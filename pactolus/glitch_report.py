"""The share of glitches in an array's energy: the same operands without delays and with OpenSTA's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from golden.files import write_table
from hw.config import AcceleratorConfig, checked_digit_bits
from hw.synth.energy import energy
from hw.synth.flow import synthesize
from hw.synth.parts import PARTS
from hw.synth.power import read_power
from hw.synth.technology import TechnologyError, resolve
from hw.verilog import generate
from pactolus.energy_report import cell_parts, common_slew
from tb.gates import array, simulate_array
from tb.glitches import count_edges

__all__ = ["GlitchRow", "run"]

SLACK = 4.0
"""Clock periods of the simulation with delays, in those asked for: all must settle, and the period does not matter."""


@dataclass(frozen=True, kw_only=True)
class GlitchRow:
    """One part of the array, or ``all``.

    Members
    -------
    settled_edges, all_edges : :class:`int`
        Edges of the nets that its cells drive, between the ends of cycles and all of them.
    pj_settled, pj_all : :class:`float`
        Picojoules per product without and with the further edges; these cost each cell what its others do.
    """

    part: str
    digit_bits: int
    rows: int
    lanes: int
    cycles: int
    settled_edges: int
    all_edges: int
    pj_settled: float
    pj_all: float


def run(
    *,
    pdk: str,
    liberty: Path | None,
    digit_bits: int,
    rows: int,
    lanes: int,
    beats: int,
    build: Path,
    output: Path,
    command: str,
    console: Console | None = None,
) -> list[GlitchRow]:
    """Simulate twice, print a table and write it to ``output``.

    Parameters
    ----------
    digit_bits, rows, lanes : :class:`int`
        Of an array with accumulators of 2d + 12 bits.
    beats : :class:`int`
        With uniform digits, four a position; at least 16.

    Raises
    ------
    :class:`ValueError`
        A parameter is outside its range; the Liberty has no power tables.
    tb.runner.SimulationError
        A tool is missing; the netlist differs from golden, or does not settle.
    """
    console = console or Console()
    if beats < 16:
        raise ValueError(f"Number of beats must be at least 16, not {beats}")
    target = resolve(pdk, liberty)
    library = target.library
    if library is None:
        raise TechnologyError(f"Energy needs a technology of standard cells, not {pdk!r}")
    config = AcceleratorConfig(
        name="report",
        rows=rows,
        lanes=lanes,
        digit_bits=checked_digit_bits(digit_bits),
        acc_bits=2 * digit_bits + 12,
        requant_lanes=rows,
    )
    component = array(config)
    with console.status("Synthesizing"):
        netlist = synthesize(generate(component, name="mac_array"), "mac_array", target, build=build)
        kinds = {*netlist.cells, *(kind for part in netlist.apart.values() for kind in part.cells)}
        power = read_power(target.liberty or "", sorted({*kinds, library.driver.name}))
    slew = common_slew(library, power)
    period = target.technology.clock_ns
    with console.status("Simulating"):
        plain = simulate_array(
            netlist,
            library,
            config,
            component.latency,
            {"kind": "uniform", "beats": beats, "length": 4},
            simulator="icarus",
        )
        edges = count_edges(
            netlist, target, plain, build=build, period_ns=SLACK * period, slew_ns=slew * power.time_ns
        )
    found = energy(
        plain.netlist,
        library,
        power,
        plain.waves,
        part=lambda cell: cell.name,
        period_ns=period,
        slew=slew,
        output_load=library.load,
    )
    parts = cell_parts(plain.netlist, config, library)
    products = plain.products
    settled: dict[str, int] = defaultdict(int)
    every: dict[str, int] = defaultdict(int)
    before: dict[str, float] = defaultdict(float)
    after: dict[str, float] = defaultdict(float)
    for cell in plain.netlist.cells.values():
        nets = [net for net in cell.outputs.values() if isinstance(net, int)]
        few, many = sum(edges.settled[net] for net in nets), sum(edges.all[net] for net in nets)
        spent = found[cell.name]
        moving = spent.internal + spent.switching
        for part in (parts[cell.name], "all"):
            settled[part] += few
            every[part] += many
            before[part] += spent.total / products / 1000
            after[part] += (spent.total + (moving * (many / few - 1) if few else 0)) / products / 1000
    table = [
        GlitchRow(
            part=part,
            digit_bits=digit_bits,
            rows=rows,
            lanes=lanes,
            cycles=edges.cycles,
            settled_edges=settled[part],
            all_edges=every[part],
            pj_settled=before[part],
            pj_all=after[part],
        )
        for part in (*PARTS, "all")
        if part in settled
    ]
    write_table(table, output, command=command, digits=6)
    shown = Table(
        title=f"Edges and femtojoules per product, without and with delays: d = {digit_bits}, {rows} rows of {lanes}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    for heading in ("part", "edges", "with glitches", "ratio", "fJ", "with glitches", "ratio"):
        shown.add_column(heading, justify="left" if heading == "part" else "right", no_wrap=True)
    for row in table:
        shown.add_row(
            row.part.replace("_", " "),
            str(row.settled_edges),
            str(row.all_edges),
            f"{row.all_edges / row.settled_edges:.2f}" if row.settled_edges else "",
            f"{1000 * row.pj_settled:.4g}",
            f"{1000 * row.pj_all:.4g}",
            f"{row.pj_all / row.pj_settled:.2f}",
        )
    console.width = max(console.width, 100)
    console.print(shown)
    console.print(f"Written: {output}", soft_wrap=True, highlight=False)
    return table
