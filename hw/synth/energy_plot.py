"""The plot of the energy report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw.synth.parts import PARTS
from hw.synth.plot import INK, STYLE

__all__ = ["EnergyRow", "energy_plot"]

COLOURS = {
    "products": "#0b6e8a",
    "tree": "#3f95ab",
    "pipeline": "#86c0cf",
    "accumulator": "#bfe0e8",
    "activation_register": "#d9822b",
    "distribution": "#f0bd85",
    "weight_register": "#7a4fa3",
    "ones_row": "#b58bd6",
    "drain": "#8a97a3",
    "control": "#cbd3d9",
}
assert set(COLOURS) == set(PARTS)


@dataclass(frozen=True, kw_only=True)
class EnergyRow:
    """One line of ``energy-<pdk>.csv``: a netlist with some operands. Energies are picojoules per product.

    Members
    -------
    array : :class:`str`
        ``report``: the array of the area report for ``digit_bits``; else the preset whose array it is.
    operands : :class:`str`
        ``uniform``, ``layer``, ``zeros`` or ``idle``; of a preset's array the network and the layer.
    activation_ones, weight_ones : :class:`float`
        Share of ones among the bits sent.
    cycles, products : :class:`int`
        What was measured; ``products`` of d-bit digits, rows and lanes without operands left out. Idle cycles count one
        for every row and lane.
    compared, mismatches : :class:`int`
        Accumulators, against golden.
    pj : :class:`float`
        The sum of the parts, those of :data:`hw.synth.parts.PARTS`, and again of ``internal`` to ``leakage``.
    pj_all : :class:`float`
        Of all products together.
    weight_bits, activation_bits : :class:`int` or ``None``
        Of a layer's codes; products of codes are ``code_products``.
    """

    array: str
    digit_bits: int
    rows: int
    lanes: int
    accumulator_bits: int
    operands: str
    weight_bits: int | None = None
    activation_bits: int | None = None
    activation_ones: float
    weight_ones: float
    cycles: int
    products: int
    code_products: int | None = None
    compared: int
    mismatches: int
    pj: float
    pj_products: float
    pj_tree: float
    pj_pipeline: float
    pj_accumulator: float
    pj_activation_register: float
    pj_distribution: float
    pj_weight_register: float
    pj_ones_row: float
    pj_drain: float
    pj_control: float
    pj_internal: float
    pj_switching: float
    pj_clock: float
    pj_leakage: float
    pj_all: float
    clock_ns: float
    voltage: float
    slew_ns: float
    simulator: str

    @property
    def parts(self) -> dict[str, float]:
        """Picojoules per product, part by part."""
        return {part: getattr(self, f"pj_{part}") for part in COLOURS}


def energy_plot(rows: Sequence[EnergyRow], title: str, stem: Path) -> tuple[Path, ...]:
    """Draw the report's arrays to ``<stem>.svg`` and ``<stem>.png``: a bar per width and kind of operands, by part.

    The bars' heights are energies over d², so that all widths can be seen; the energies stand above them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.array == "report"]
    if not shown:
        return ()
    widths = sorted({row.digit_bits for row in shown})
    kinds = list(dict.fromkeys(row.operands for row in shown))
    paths = []
    with pyplot.rc_context(STYLE):
        figure, axis = pyplot.subplots(figsize=(9.0, 4.4), layout="constrained")
        axis.grid(True, axis="y", color="#e4e8ec", linewidth=0.8)
        axis.set_axisbelow(True)
        pitch = 0.86 / len(kinds)
        highest = max(1000 * row.pj / row.digit_bits**2 for row in shown)
        for row in shown:
            place = widths.index(row.digit_bits) + (kinds.index(row.operands) - (len(kinds) - 1) / 2) * pitch
            bottom = 0.0
            for part, value in row.parts.items():
                height = 1000 * value / row.digit_bits**2
                axis.bar(place, height, 0.9 * pitch, bottom, color=COLOURS[part], linewidth=0)
                bottom += height
            shown_value = f"{float(f'{1000 * row.pj:.3g}'):g}"
            axis.text(place, bottom + 0.012 * highest, shown_value, ha="center", va="bottom", fontsize=7)
            axis.text(
                place, -0.012 * highest, row.operands, ha="center", va="top", fontsize=7, rotation=90, color=INK
            )
        axis.set_xticks(range(len(widths)), [f"d = {width}" for width in widths])
        axis.tick_params(axis="x", length=0, pad=38)
        axis.set_ylabel("fJ per product / d²  (above the bars: fJ)")
        axis.set_ylim(0, 1.12 * highest)
        handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
        axis.legend(handles, [part.replace("_", " ") for part in COLOURS], frameon=False, fontsize=8, ncols=2)
        axis.set_title(title, fontsize=9)
        for suffix in ("svg", "png"):
            path = stem.with_name(f"{stem.name}.{suffix}")
            metadata = {"Date": None} if suffix == "svg" else {"Software": None}
            figure.savefig(path, dpi=200, metadata=metadata)
            paths.append(path)
        pyplot.close(figure)
    return tuple(paths)
