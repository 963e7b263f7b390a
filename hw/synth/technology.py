"""The technologies that a component can be mapped to, by the names that ``PDK=`` takes."""

from __future__ import annotations

import enum
import fnmatch
import hashlib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hw.synth.liberty import LibertyError, Library, read_text

__all__ = ["TECHNOLOGIES", "Kind", "Target", "Technology", "TechnologyError", "bit_product_area", "resolve"]

MINI = Path(__file__).with_name("mini.lib")


class TechnologyError(ValueError):
    """A technology that is unknown or lacks its Liberty file; the message is one sentence that says what to do."""


class Kind(enum.Enum):
    """What a technology's result is counted in."""

    GENERIC = "generic"
    """Gates and flip-flops of no library; cells are counted, there is no area."""

    CELLS = "cells"
    """Standard cells of a Liberty library, with areas."""

    FPGA = "fpga"
    """Lookup tables and flip-flops."""


@dataclass(frozen=True, kw_only=True)
class Technology:
    """A name for ``PDK=``.

    Members
    -------
    clock_ns : :class:`float`
        Default clock target. Cells only.
    library : :class:`str`
        Regular expression that the name in the library group of its Liberty matches. Cells only.
    avoid : tuple of :class:`str`
        Glob patterns of cells that no design should use (delay lines, probes, power-domain cells).
    synth : :class:`str`
        The Yosys command of an FPGA. Multipliers stay in lookup tables, so that all widths are counted in one coin.
    """

    name: str
    title: str
    kind: Kind
    clock_ns: float = 0.0
    library: str = ""
    avoid: tuple[str, ...] = ()
    synth: str = ""


_SKY130_AVOID = ("*__lpflow_*", "*__probe*", "*__macro_*", "*__dly*", "*__clkdly*", "*__tap*", "*__decap*", "*__diode*")

TECHNOLOGIES = {
    technology.name: technology
    for technology in (
        Technology(
            name="mini",
            title="mini, a score of sky130_fd_sc_hd cells",
            kind=Kind.CELLS,
            clock_ns=10.0,
            library="pactolus_mini",
        ),
        Technology(name="generic", title="generic gates", kind=Kind.GENERIC),
        Technology(
            name="nangate45",
            title="Nangate45 Open Cell Library",
            kind=Kind.CELLS,
            clock_ns=2.0,
            library="NangateOpenCellLibrary",
        ),
        Technology(
            name="sky130hd",
            title="SkyWater sky130_fd_sc_hd",
            kind=Kind.CELLS,
            clock_ns=10.0,
            library="sky130_fd_sc_hd",
            avoid=_SKY130_AVOID,
        ),
        Technology(name="asap7", title="ASAP7 7.5-track RVT", kind=Kind.CELLS, clock_ns=1.0, library="asap7sc7p5t"),
        Technology(name="ihp", title="IHP SG13G2", kind=Kind.CELLS, clock_ns=8.0, library="sg13g2"),
        Technology(name="ice40", title="Lattice iCE40", kind=Kind.FPGA, synth="synth_ice40"),
        Technology(name="ecp5", title="Lattice ECP5", kind=Kind.FPGA, synth="synth_ecp5 -nodsp -noiopad"),
        Technology(
            name="xilinx",
            title="Xilinx 7 series",
            kind=Kind.FPGA,
            synth="synth_xilinx -nodsp -noiopad -nosrl -noclkbuf",
        ),
    )
}

CUSTOM_CLOCK_NS = 5.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """A technology with the library that a run uses.

    Members
    -------
    liberty : :class:`str` or ``None``
        The text of the Liberty, uncompressed.
    digest : :class:`str`
        SHA-256 of that text; empty without one.
    """

    technology: Technology
    library: Library | None = None
    liberty: str | None = None
    digest: str = ""

    @property
    def name(self) -> str:
        """The technology's name."""
        return self.technology.name


def resolve(pdk: str = "mini", liberty: Path | None = None) -> Target:
    """The target that ``PDK=`` and ``LIBERTY=`` name.

    A Liberty file decides alone: its library's name says which technology it is, or else a technology of that name is
    made for it (clock target 5 ns), so that any library serves.

    Raises
    ------
    :class:`TechnologyError`
        ``pdk`` is unknown, needs a Liberty that is not given, or the library has no flip-flops or no buffers.
    :class:`~hw.synth.liberty.LibertyError`
        The file cannot be read or is no Liberty.
    """
    if pdk not in TECHNOLOGIES:
        raise TechnologyError(f"PDK must be one of {', '.join(TECHNOLOGIES)}, not {pdk!r}")
    technology = TECHNOLOGIES[pdk]
    if liberty is None:
        if technology.kind is not Kind.CELLS:
            return Target(technology=technology)
        if technology.name != "mini":
            raise TechnologyError(
                f"PDK {pdk!r} needs the Liberty file of {technology.title}: give its path with LIBERTY= or --liberty"
            )
        liberty = MINI
    text = read_text(liberty)
    match = re.search(r"^\s*library\s*\(\s*\"?([\w.-]+)", text, re.MULTILINE)
    name = match[1] if match else liberty.stem
    technology = next(
        (known for known in TECHNOLOGIES.values() if known.library and re.match(known.library, name)),
        Technology(name=name, title=name, kind=Kind.CELLS, clock_ns=CUSTOM_CLOCK_NS, library=re.escape(name)),
    )
    library = Library(text, lambda cell: any(fnmatch.fnmatch(cell, pattern) for pattern in technology.avoid))
    if not library.flip_flops:
        raise TechnologyError(f"Liberty library {name!r} must have a flip-flop, and {str(liberty)!r} has none")
    try:
        _ = library.driver
    except LibertyError as error:
        raise TechnologyError(str(error)) from None
    return Target(
        technology=technology,
        library=library,
        liberty=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _smallest(library: Library, inputs: int, function: Callable[..., int]) -> float | None:
    """The area of the smallest cell of this function, its pins in any order."""
    areas = []
    for order in itertools.permutations(range(inputs)):
        table = sum(
            1 << index for index in range(1 << inputs) if function(*(index >> position & 1 for position in order))
        )
        cell = library.smallest(inputs, table)
        areas += [cell.area] if cell else []
    return min(areas, default=None)


def bit_product_area(library: Library) -> float | None:
    """The area of an AND gate and a full adder: what one bit of a product costs in a plain array, at least.

    A library without such an adder cell builds it from two exclusive ors and, for the carry, the smallest of a
    multiplexer, an AND-OR, an AND-OR-INVERT with an inverter, and three NANDs. ``None``: it lacks gates.
    """
    gate = _smallest(library, 2, lambda a, b: a & b)
    if library.full_adder is not None:
        return None if gate is None else library.cells[library.full_adder.cell].area + gate
    exclusive = _smallest(library, 2, lambda a, b: a ^ b)
    nand = _smallest(library, 2, lambda a, b: 1 - (a & b))
    inverter = _smallest(library, 1, lambda a: 1 - a)
    and_or = _smallest(library, 4, lambda a, b, c, d: 1 - (a & b | c & d))
    carries = [
        _smallest(library, 3, lambda a, b, s: b if s else a),
        _smallest(library, 4, lambda a, b, c, d: a & b | c & d),
        None if and_or is None or inverter is None else and_or + inverter,
        None if nand is None else 3 * nand,
    ]
    known = [area for area in carries if area is not None]
    if gate is None or exclusive is None or not known:
        return None
    return round(gate + 2 * exclusive + min(known), 6)
