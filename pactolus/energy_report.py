"""The energy report: netlists of arrays simulated with several operands, and what that costs, part by part."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from golden import vectors
from golden.files import write_table
from golden.network import Conv2d
from hw.config import AcceleratorConfig, checked_digit_bits, preset
from hw.synth.components import ROWS, WORD_BITS
from hw.synth.console import progress_bar
from hw.synth.energy import Energy, energy
from hw.synth.energy_plot import EnergyRow, energy_plot
from hw.synth.flow import synthesize
from hw.synth.liberty import LibertyError, Library
from hw.synth.netlist import FlatCell, FlatNetlist
from hw.synth.parts import array_parts
from hw.synth.power import PowerLibrary, read_power
from hw.synth.technology import Target, TechnologyError, resolve
from hw.verilog import generate
from tb import runner
from tb.gates import GateRun, array, simulate_array

__all__ = ["LAYERS", "cell_parts", "common_slew", "run"]

NETWORKS = Path(__file__).resolve().parents[1] / "golden" / "networks"

TRAINED = {
    1: ("digits-plain-w2a2", "conv3", 0),
    2: ("digits-plain-w2a2", "conv3", 0),
    4: ("digits-plain-w4a4", "conv3", 0),
    8: ("digits-plain-w8a8", "conv3", 0),
    16: ("digits-plain-w8a8", "conv3", 8),
}
"""By digit width: network, layer, and random bits below its codes, since there is no trained 16-bit network."""

LAYERS = (
    ("digits-residual-w2a2", "block2.conv1"),
    ("digits-residual-w4a4", "block2.conv1"),
    ("digits-residual-w8a8", "block2.conv1"),
)
"""The layers that run on a preset's array."""

POSITION = 16
"""Beats of a position of drawn operands."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    name: str
    config: AcceleratorConfig
    runs: tuple[tuple[str, dict[str, Any]], ...]


def _layer(network: str, layer: str, *, frames: int, low_bits: int = 0, beats: int = 0) -> dict[str, Any]:
    folder = NETWORKS / network
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in NETWORKS.iterdir() if path.is_dir()))
        raise ValueError(f"Network must be one of {known}, not {network!r}")
    names = [operation.name for operation in vectors.read(folder)[0].operations if isinstance(operation, Conv2d)]
    if layer not in names:
        raise ValueError(f"Layer of network {network!r} must be one of {', '.join(names)}, not {layer!r}")
    return {
        "kind": "layer",
        "vectors": str(folder),
        "layer": layer,
        "frames": frames,
        "low_bits": low_bits,
        "beats": beats,
    }


def _jobs(
    digit_bits: Sequence[int],
    rows: int | None,
    lanes: int | None,
    beats: int,
    config: AcceleratorConfig | None,
    layers: Sequence[tuple[str, str]],
    frames: int,
) -> Iterator[_Job]:
    for width in map(checked_digit_bits, digit_bits):
        network, layer, low_bits = TRAINED[width]
        height = ROWS[width] if rows is None else rows
        drawn = {"beats": beats, "length": min(POSITION, beats)}
        yield _Job(
            name="report",
            # All rows leave the drain at once, so that no position waits for it.
            config=AcceleratorConfig(
                name="report",
                rows=height,
                lanes=WORD_BITS // width if lanes is None else lanes,
                digit_bits=width,
                acc_bits=2 * width + 12,
                requant_lanes=height,
            ),
            runs=(
                ("uniform", {"kind": "uniform", **drawn}),
                (
                    "layer",
                    _layer(network, layer, frames=2, low_bits=low_bits, beats=beats),
                ),
                ("zeros", {"kind": "zeros", **drawn}),
                ("idle", {"kind": "idle", "cycles": max(2, beats // 4)}),
            ),
        )
    if config is not None:
        yield _Job(
            name=config.name,
            config=config,
            runs=tuple(
                (
                    f"{network} {layer}",
                    _layer(network, layer, frames=frames),
                )
                for network, layer in layers
            ),
        )


def common_slew(library: Library, power: PowerLibrary) -> float:
    """The slew that inputs are taken to have: that of an adder's sum, else of the driver, which drives one input."""
    adder = library.full_adder
    if adder is not None and adder.cell in power.cells:
        return power.slew(adder.cell, adder.sum, library.load)
    return power.slew(library.driver.name, library.driver.outputs[0].name, library.load)


def _codes(operands: Mapping[str, Any]) -> tuple[int, int, int | None] | None:
    """Weight bits, activation bits and, of a whole layer, products of codes."""
    if operands["kind"] != "layer":
        return None
    network, _ = vectors.read(Path(operands["vectors"]))
    operation = next(op for op in network.operations if op.name == operands["layer"] and isinstance(op, Conv2d))
    source, output = network.tensor(operation.input), network.tensor(operation.output)
    window = operation.codes[0].size
    if operation.broadcast:
        window *= source.shape[1] * source.shape[2]
    pixels = output.shape[0] * output.shape[1] * output.shape[2]
    low = operands["low_bits"]
    whole = None if operands["beats"] else window * pixels * operands["frames"]
    return operation.bits + low, source.bits + low, whole


def cell_parts(flat: FlatNetlist, config: AcceleratorConfig, library: Library) -> dict[str, str]:
    """The part of every cell of an array."""
    digits = flat.ports["i__payload"][1][: config.lanes * config.digit_bits]
    adders = [adder.cell for adder in (library.full_adder, library.half_adder) if adder]
    return array_parts(flat, digits, lambda kind: library.cells[kind].is_flip_flop, adders)


def _owner(owners: Mapping[str, str], cell: FlatCell) -> str:
    return owners[cell.name]


def _row(
    job: _Job,
    name: str,
    operands: Mapping[str, Any],
    result: GateRun,
    found: Mapping[str, Energy],
    **constants: Any,
) -> EnergyRow:
    config = job.config
    cycles = result.waves.cycles - 1
    products = result.products or cycles * config.rows * config.lanes
    total = sum(found.values(), Energy())
    codes = _codes(operands)

    def per_product(femtojoules: float) -> float:
        return femtojoules / products / 1000

    def of(part: str) -> float:
        return per_product(found.get(part, Energy()).total)

    return EnergyRow(
        array=job.name,
        digit_bits=config.digit_bits,
        rows=config.rows,
        lanes=config.lanes,
        accumulator_bits=config.acc_bits,
        operands=name,
        weight_bits=codes[0] if codes else None,
        activation_bits=codes[1] if codes else None,
        activation_ones=result.density[0],
        weight_ones=result.density[1],
        cycles=cycles,
        products=products,
        code_products=codes[2] if codes else None,
        compared=result.compared,
        mismatches=0,
        pj=per_product(total.total),
        pj_products=of("products"),
        pj_tree=of("tree"),
        pj_pipeline=of("pipeline"),
        pj_accumulator=of("accumulator"),
        pj_activation_register=of("activation_register"),
        pj_distribution=of("distribution"),
        pj_weight_register=of("weight_register"),
        pj_ones_row=of("ones_row"),
        pj_drain=of("drain"),
        pj_control=of("control"),
        pj_internal=per_product(total.internal),
        pj_switching=per_product(total.switching),
        pj_clock=per_product(total.clock),
        pj_leakage=per_product(total.leakage),
        pj_all=total.total / 1000,
        **constants,
    )


def run(
    *,
    pdk: str = "nangate45",
    liberty: Path | None = None,
    digit_bits: Sequence[int] = (1, 2, 4, 8, 16),
    rows: int | None = None,
    lanes: int | None = None,
    beats: int = 128,
    config: str | None = "small",
    layers: Sequence[tuple[str, str]] = LAYERS,
    frames: int = 1,
    clock_ns: float | None = None,
    slew_ns: float | None = None,
    simulator: str = "icarus",
    build: Path,
    output: Path,
    command: str,
    console: Console | None = None,
) -> list[EnergyRow]:
    """Synthesize, simulate, print the table, write the CSV file ``output`` and the plots beside it.

    Parameters
    ----------
    digit_bits : sequence of :class:`int`
        Arrays of the area report: 128-bit activation word, 16 rows (8 from 8-bit digits up), 2d + 12-bit accumulators.
    rows, lanes : :class:`int` or ``None``
        Of those arrays, instead.
    beats : :class:`int`
        Of the drawn operands, and at most so many of the layers on the report's arrays.
    config, layers, frames
        The preset whose array computes the ``layers`` (network, layer), and frames of each; ``None``: no preset.
    slew_ns : :class:`float` or ``None``
        Of all inputs; ``None``: see :func:`common_slew`.

    Raises
    ------
    :class:`ValueError`
        A parameter is outside its range; the Liberty has no power tables.
    tb.runner.SimulationError
        A netlist differs from golden.
    """
    console = console or Console()
    if beats < 4:
        raise ValueError(f"Number of beats must be at least 4, not {beats}")
    for name, value in (("Clock period", clock_ns), ("Slew", slew_ns)):
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive, not {value!r}")
    runner.check_simulator(simulator)
    target = resolve(pdk, liberty)
    library = target.library
    if library is None:
        raise TechnologyError(f"Energy needs a technology of standard cells, not {pdk!r}")
    jobs = list(_jobs(digit_bits, rows, lanes, beats, preset(config) if config else None, layers, frames))
    period = clock_ns or target.technology.clock_ns
    table: list[EnergyRow] = []
    known: PowerLibrary | None = None
    with progress_bar(console) as progress:
        task = progress.add_task("", total=sum(1 + len(job.runs) for job in jobs))
        for job in jobs:
            title = f"{job.name} d={job.config.digit_bits}"
            progress.update(task, description=f"{title}: synthesis")
            component = array(job.config)
            netlist = synthesize(
                generate(component, name="mac_array"), "mac_array", target, build=build, clock_ns=clock_ns
            )
            progress.advance(task)
            kinds = {*netlist.cells, *(kind for part in netlist.apart.values() for kind in part.cells)}
            kinds.add(library.driver.name)
            try:
                power = read_power(target.liberty or "", sorted(kinds), known)
            except LibertyError as error:
                raise TechnologyError(str(error)) from None
            known = power
            slew = common_slew(library, power) if slew_ns is None else slew_ns / power.time_ns
            owners: Mapping[str, str] = {}
            for name, operands in job.runs:
                progress.update(task, description=f"{title}: {name}")
                result = simulate_array(
                    netlist, library, job.config, component.latency, operands, simulator=simulator
                )
                owners = owners or cell_parts(result.netlist, job.config, library)
                found = energy(
                    result.netlist,
                    library,
                    power,
                    result.waves,
                    part=functools.partial(_owner, owners),
                    period_ns=period,
                    slew=slew,
                    output_load=library.load,
                )
                table.append(
                    _row(
                        job,
                        name,
                        operands,
                        result,
                        found,
                        clock_ns=period,
                        voltage=power.voltage,
                        slew_ns=slew * power.time_ns,
                        simulator=simulator,
                    )
                )
                write_table(table, output, command=command, digits=6)
                progress.advance(task)
    _print(table, target, console)
    title = f"Energy per product of d-bit digits: {target.technology.title}, {table[0].voltage:g} V, no wires"
    plots = energy_plot(table, title, output.with_suffix(""))
    console.print(f"Written: {', '.join(str(p) for p in (output, *plots))}", soft_wrap=True, highlight=False)
    return table


def _print(rows: Sequence[EnergyRow], target: Target, console: Console) -> None:
    """One line a netlist and operands, femtojoules per product."""
    table = Table(
        title=f"Femtojoules per product of d-bit digits: {target.technology.title}, {rows[0].voltage:g} V, "
        f"{rows[0].clock_ns:g} ns",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    groups = {
        "products": ("products",),
        "tree": ("tree", "pipeline"),
        "accum.": ("accumulator",),
        "activ.": ("activation_register", "distribution"),
        "weights": ("weight_register",),
        "rest": ("ones_row", "drain", "control"),
    }
    for heading in ("array", "d", "operands", "fJ", *groups, "clock", "all, nJ", "≠ golden"):
        table.add_column(heading, justify="left" if heading in ("array", "operands") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.array,
            str(row.digit_bits),
            row.operands,
            f"{1000 * row.pj:.4g}",
            *(f"{1000 * sum(row.parts[part] for part in group):.3g}" for group in groups.values()),
            f"{1000 * row.pj_clock:.3g}",
            f"{row.pj_all / 1000:.3g}",
            f"{row.mismatches} of {row.compared}",
        )
    console.width = max(console.width, 132)
    console.print(table)
    console.print(
        "Wires, the clock's tree and glitches are not in it. Idle: a cycle without a beat, per row and lane. Clock:\n"
        "what flip-flops take at their clock pins, part of the sum. A layer's products are those of its operands.\n"
        "Activations: registers and what makes and distributes shared sums. Rest: ones row, drain, control.\n"
    )
