"""The plot of the area report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.synth.row import Row
from hw.synth.technology import Kind, Target, bit_product_area

__all__ = ["ARRAY", "FAINT", "FORMS", "INK", "STYLE", "Form", "area", "number", "ticks", "values"]

INK = "#1b2a38"
FAINT = "#8a97a3"
ARRAY = "#0b6e8a"


@dataclass(frozen=True)
class Form:
    """How a form of the PACT unit is called and drawn."""

    label: str
    colour: str
    marker: str


FORMS = {
    "threshold_unit": Form("thresholds", "#d9822b", "D"),
    "pact_unit_fixed": Form("multiply-shift, k fixed", "#b58bd6", "s"),
    "pact_unit": Form("multiply-shift, k at run time", "#7a4fa3", "o"),
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "pactolus",
    "svg.fonttype": "path",
}


def ticks(axis: Any, values: Sequence[int]) -> None:
    """The given numbers, and no others, as marks of a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def number(value: float) -> str:
    """Three digits, or all before the point; thin spaces between thousands, never an exponent."""
    if value < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}".replace(",", "\N{THIN SPACE}")


def values(axis: Any, subdivisions: Sequence[float]) -> None:
    """Plain numbers as marks of a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=subdivisions))
    axis.set_major_formatter(lambda value, _: number(value))
    axis.set_minor_formatter(NullFormatter())


def area(rows: Sequence[Row], target: Target, stem: Path) -> tuple[Path, ...]:
    """Draw ``rows`` to ``<stem>.svg`` and ``<stem>.png``: arrays to the left, PACT units to the right.

    The files are the same, byte for byte, for the same rows and version of matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    unit = {Kind.CELLS: "µm²", Kind.FPGA: "LUTs", Kind.GENERIC: "cells"}[target.technology.kind]
    arrays = [row for row in rows if row.macs]
    forms = {name: [row for row in rows if row.component == name] for name in FORMS}
    forms = {name: selected for name, selected in forms.items() if selected}
    panels = [name for name, present in (("arrays", arrays), ("units", forms)) if present]
    if not panels:
        return ()
    paths = []
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            1,
            len(panels),
            figsize=(5.4 * len(panels), 4.4),
            squeeze=False,
            width_ratios=[1.15, 1][: len(panels)],
            layout="constrained",
        )
        for name, axis in zip(panels, axes[0]):
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.grid(True, which="major", color="#e4e8ec", linewidth=0.8)
            axis.set_axisbelow(True)
            if name == "arrays":
                floor = bit_product_area(target.library) if target.library else None
                _draw_arrays(axis, arrays, floor, unit)
            else:
                _draw_units(axis, forms, unit)
        figure.suptitle(f"Area per bit width: {target.technology.title}", x=0.012, ha="left", fontsize=12)
        for suffix in ("svg", "png"):
            path = stem.with_name(f"{stem.name}.{suffix}")
            metadata = {"Date": None} if suffix == "svg" else {"Software": None}
            figure.savefig(path, dpi=200, metadata=metadata)
            paths.append(path)
        pyplot.close(figure)
    return tuple(paths)


def _draw_arrays(axis: Any, rows: Sequence[Row], floor: float | None, unit: str) -> None:
    widths = [row.digit_bits or 0 for row in rows]
    costs = [row.cost_per_mac or 0.0 for row in rows]
    if floor is not None:
        axis.plot(widths, [floor * d * d for d in widths], color=FAINT, linestyle=(0, (5, 3)), linewidth=1.3, zorder=2)
        axis.annotate(
            "d² · (AND + full adder)",
            (widths[0] * 1.25, floor * widths[0] ** 2 * 1.25**2),
            xytext=(9, -3),
            textcoords="offset points",
            ha="left",
            va="top",
            color="#5d6a76",
        )
    axis.plot(widths, costs, color=ARRAY, marker="o", markersize=6, linewidth=1.8, zorder=3)
    for row, cost in zip(rows, costs):
        ratio = f"\n{number(row.ratio_to_16)}× denser" if row.ratio_to_16 and row.digit_bits != 16 else ""
        axis.annotate(
            number(cost) + ratio,
            (row.digit_bits, cost),
            xytext=(-7, 5),
            textcoords="offset points",
            ha="right",
            va="bottom",
            linespacing=1.25,
            fontsize=8.5,
        )
    ticks(axis.xaxis, widths)
    values(axis.yaxis, (1.0,))
    axis.set_xlim(min(widths) / 2.3, max(widths) * 1.35)
    low = min([*costs, *([floor * min(widths) ** 2] if floor is not None else [])])
    axis.set_ylim(low / 1.8, max(costs) * 2.6)
    axis.set_xlabel("digit width d (bits); × denser: than d = 16")
    axis.set_ylabel(f"{unit} per d×d MAC, weight registers, ones row, drain apart")
    first = rows[0]
    lanes = {(row.lanes or 0) * (row.digit_bits or 0) for row in rows}
    word = f"{lanes.pop()}-bit activation word" if len(lanes) == 1 else f"{first.lanes} lanes"
    by_rule = all(row.accumulator_bits == 2 * (row.digit_bits or 0) + 12 for row in rows)
    rule = "2d + 12 bits" if by_rule else f"{first.accumulator_bits} bits"
    axis.set_title(f"Array: {word}, accumulators of {rule}", fontsize=9)


def _draw_units(axis: Any, forms: dict[str, list[Row]], unit: str) -> None:
    widths = sorted({row.output_bits or 0 for rows in forms.values() for row in rows})
    for name, rows in forms.items():
        form = FORMS[name]
        axis.plot(
            [row.output_bits for row in rows],
            [row.cost for row in rows],
            color=form.colour,
            marker=form.marker,
            markersize=5.5,
            linewidth=1.8,
            label=form.label,
            zorder=3,
        )
        last = rows[-1]
        above = name != "pact_unit_fixed"
        axis.annotate(
            number(last.cost),
            (last.output_bits, last.cost),
            xytext=(0, 7 if above else -7),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            color=form.colour,
            fontsize=8.5,
        )
    ticks(axis.xaxis, widths)
    values(axis.yaxis, (1.0, 2.0, 5.0))
    costs = [row.cost for rows in forms.values() for row in rows]
    axis.set_xlim(min(widths) / 1.2, max(widths) * 1.25)
    axis.set_ylim(min(costs) / 1.5, max(costs) * 1.5)
    axis.set_xlabel("output width k (bits)")
    axis.set_ylabel(f"{unit} per unit, constants from outside")
    some = next(iter(forms.values()))[0]
    axis.set_title(f"PACT unit: {some.accumulator_bits}-bit accumulators", fontsize=9)
    axis.legend(frameon=False, loc="lower right", reverse=True)
