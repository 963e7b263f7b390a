"""The plots of the full area report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hw.synth.flow import APART
from hw.synth.parts import BODY
from hw.synth.plot import ARRAY, FAINT, INK, STYLE, number, ticks, values
from hw.synth.row import Row
from hw.synth.technology import Kind, Target, bit_product_area

__all__ = ["PACT_RATIO", "draw", "passes"]

PACT_RATIO = 14
"""How much denser a MAC of 2 bits is than one of 16, by PACT's Fig. 6b (14 nm); its other points are not known."""

PLAIN = "#d9822b"
SINGLE = "#7a4fa3"
PACT = "#b2334b"

PARTS = {
    "products": ("products", "#0b6e8a"),
    "tree": ("compressor tree", "#5aa9bd"),
    "accumulator": ("accumulator", "#d9822b"),
    "pipeline": ("pipeline register", "#f0c489"),
    "activation_register": ("activation registers", "#7a4fa3"),
    "distribution": ("shared sums, buffers", "#b9a3d6"),
    "control": ("control", "#8a97a3"),
    "weight_register": ("weight registers", "#d3dae0"),
    "ones_row": ("ones row", "#dfe5ea"),
    "drain": ("drain registers", "#ebeff2"),
}
"""Titles and colours; those that are not counted in the area per MAC are pale."""

PRODUCTS = ((2, 2), (4, 2), (4, 4), (8, 4), (8, 8))
"""Bits of weight and activation of the products in the plot of mixed precisions."""


def passes(weight_bits: int, activation_bits: int, digit_bits: int) -> int:
    """The cycles that a product takes on an array of narrower digits."""
    return -(-weight_bits // digit_bits) * -(-activation_bits // digit_bits)


def draw(rows: Sequence[Row], target: Target, folder: Path) -> list[Path]:
    """Draw ``area-per-mac``, ``area-parts`` and ``area-passes`` as SVG and PNG; those without data are left out.

    The files are the same, byte for byte, for the same rows and version of matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = {row.series: row.clock_ns for row in reversed(rows)}  # the technology's own clock comes first
    series = {
        name: sorted(
            (row for row in rows if row.series == name and row.clock_ns == clock), key=lambda row: row.digit_bits or 0
        )
        for name, clock in first.items()
    }
    unit = {Kind.CELLS: "µm²", Kind.FPGA: "LUTs", Kind.GENERIC: "cells"}[target.technology.kind]
    floor = bit_product_area(target.library) if target.library else None
    plots: dict[str, tuple[Callable[[Any], None], tuple[float, float], int, bool]] = {
        "area-per-mac": (
            lambda axes: _per_mac(axes, series, floor, unit),
            (9.6, 4.3) if floor else (5.2, 4.3),
            2 if floor else 1,
            len(series.get("best", ())) > 1,
        ),
        "area-parts": (
            lambda axes: _parts(axes[0], series["best"], floor, unit),
            (7.2, 4.3),
            1,
            bool(series.get("best")) and bool(series["best"][0].parts),
        ),
        "area-passes": (
            lambda axes: _passes(axes[0], series["wide"], unit),
            (7.2, 3.9),
            1,
            len(series.get("wide", ())) > 1,
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, (drawn, size, panels, there) in plots.items():
        if not there:
            continue
        with pyplot.rc_context(STYLE):
            figure, axes = pyplot.subplots(1, panels, figsize=size, squeeze=False, layout="constrained")
            for axis in axes[0]:
                axis.grid(True, which="major", color="#e4e8ec", linewidth=0.8)
                axis.set_axisbelow(True)
            drawn(axes[0])
            for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                paths.append(folder / f"{name}.{suffix}")
                figure.savefig(paths[-1], dpi=200, metadata=metadata)
            pyplot.close(figure)
    return paths


def _widths(rows: Sequence[Row]) -> list[int]:
    return [row.digit_bits or 0 for row in rows]


def _costs(rows: Sequence[Row]) -> list[float]:
    return [row.cost_per_mac or 0.0 for row in rows]


def _best(*series: Sequence[Row]) -> list[Row]:
    """The cheapest row of each width."""
    found: dict[int, Row] = {}
    for rows in series:
        for row in rows:
            other = found.get(row.digit_bits or 0)
            if other is None or (row.cost_per_mac or 0) < (other.cost_per_mac or 0):
                found[row.digit_bits or 0] = row
    return [found[width] for width in sorted(found)]


def _per_mac(axes: Any, series: dict[str, list[Row]], floor: float | None, unit: str) -> None:
    """To the left the cost against d, to the right the same over the floor."""
    best = series["best"]
    plain = _best(series.get("plain", ()), series.get("booth", ()))
    lines = [
        ("this array", best, ARRAY, "o"),
        ("the same array, sum(w·x) left to Yosys, Booth or not", plain, PLAIN, "s"),
    ]
    single = series.get("mac", [])
    left = axes[0]
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    if single:
        lines.append(("one MAC alone, accumulator of 2k + 8 bits", single, SINGLE, "D"))
        top = next((row for row in single if row.digit_bits == 16), None)
        if top and top.cost_per_mac:
            left.plot(
                [2, 16],
                [top.cost_per_mac / PACT_RATIO, top.cost_per_mac],
                color=PACT,
                linestyle=(0, (1, 1.6)),
                linewidth=1.6,
                zorder=2,
                label=f"PACT, Fig. 6b: {PACT_RATIO}× from 16 to 2 bits",
            )
    if floor:
        line = [floor * d * d for d in _widths(best)]
        left.plot(_widths(best), line, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.3, zorder=2,
                  label="d² · (AND + full adder)")  # fmt: skip
    for label, rows, colour, marker in lines:
        if rows:
            left.plot(_widths(rows), _costs(rows), color=colour, marker=marker, markersize=5, linewidth=1.7, zorder=3,
                      label=label)  # fmt: skip
    for row in best:
        left.annotate(number(row.cost_per_mac or 0), (row.digit_bits, row.cost_per_mac), xytext=(6, -4),
                      textcoords="offset points", ha="left", va="top", fontsize=8, color=ARRAY)  # fmt: skip
    ticks(left.xaxis, _widths(best))
    values(left.yaxis, (1.0,))
    left.set_xlim(min(_widths(best)) / 1.25, max(_widths(best)) * 1.9)
    left.set_xlabel("bits of a digit, d")
    left.set_ylabel(f"{unit} per d×d MAC")
    left.set_title("Area per MAC", fontsize=9)
    handles, labels = left.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: ("this" not in labels[index], "same" not in labels[index]))
    order = [i for i in order if "²" not in labels[i]] + [i for i in order if "²" in labels[i]]
    left.legend([handles[i] for i in order], [labels[i] for i in order], frameon=False, fontsize=7.5, loc="upper left")
    low, high = left.get_ylim()
    left.set_ylim(low, high * 25)
    if not floor:
        return
    right = axes[1]
    right.set_xscale("log", base=2)
    right.axhline(1, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.3, zorder=2)
    for _, rows, colour, marker in lines[:2]:
        ratios = [cost / (floor * d * d) for d, cost in zip(_widths(rows), _costs(rows))]
        right.plot(_widths(rows), ratios, color=colour, marker=marker, markersize=5, linewidth=1.7, zorder=3)
        for d, ratio in zip(_widths(rows), ratios):
            right.annotate(f"{ratio:.2f}", (d, ratio), xytext=(0, 6), textcoords="offset points", ha="center",
                           va="bottom", fontsize=8, color=colour)  # fmt: skip
    shown = [cost / (floor * d * d) for _, rows, _, _ in lines[:2] for d, cost in zip(_widths(rows), _costs(rows))]
    right.set_ylim(0, max(shown) * 1.12)
    ticks(right.xaxis, _widths(best))
    right.set_xlabel("bits of a digit, d")
    right.set_ylabel("area per MAC ÷ d² · (AND + full adder)")
    right.set_title("Over the floor of the plain form", fontsize=9)


def _parts(axis: Any, rows: Sequence[Row], floor: float | None, unit: str) -> None:
    """A bar per width, stacked by part, in units of the floor."""
    positions = range(len(rows))
    scales = [(floor or 1) * (row.digit_bits or 1) ** 2 * (row.macs or 1) for row in rows]
    highest = max(sum(row.parts.values()) / scale for row, scale in zip(rows, scales))
    bottoms = [0.0] * len(rows)
    for part in (*BODY, *APART):
        heights = [row.parts.get(part, 0.0) / scale for row, scale in zip(rows, scales)]
        if not any(heights):
            continue
        title, colour = PARTS[part]
        axis.bar(positions, heights, 0.66, bottoms, color=colour, label=title, zorder=3, edgecolor="white",
                 linewidth=0.5)  # fmt: skip
        for x, (height, bottom) in enumerate(zip(heights, bottoms)):
            if part in BODY and height > 0.035 * highest:
                axis.text(x, bottom + height / 2, f"{height:.2f}", ha="center", va="center", fontsize=7.5, zorder=4,
                          color="white" if part in ("products", "activation_register") else INK)  # fmt: skip
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights)]
    for x, (row, scale) in enumerate(zip(rows, scales)):
        body = row.cost / scale
        axis.plot([x - 0.36, x + 0.36], [body, body], color=INK, linewidth=1.4, zorder=5)
        axis.annotate(f"{number(row.cost_per_mac or 0)} {unit}", (x, bottoms[x]), xytext=(0, 4),
                      textcoords="offset points", ha="center", fontsize=8.5, fontweight="bold",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    if floor:
        axis.axhline(1, color=FAINT, linestyle=(0, (5, 3)), linewidth=1.3, zorder=2)
    axis.grid(False, axis="x")
    axis.set_xticks(list(positions), [f"d = {row.digit_bits}\n{row.lanes}×{row.rows}" for row in rows])
    axis.set_ylim(0, max(bottoms) * 1.1)
    axis.set_ylabel("area ÷ d² · (AND + full adder)" if floor else f"{unit} per bit product")
    axis.set_title("Where the area goes; bold, and below the black line: the area per MAC", fontsize=9)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _passes(axis: Any, rows: Sequence[Row], unit: str) -> None:
    """Per product of given widths a bar per array: its area per MAC times the cycles that the product takes."""
    colours = (ARRAY, PLAIN, SINGLE)
    width = 0.8 / len(rows)
    highest = 0.0
    for index, row in enumerate(rows):
        places = [x + (index - (len(rows) - 1) / 2) * width for x in range(len(PRODUCTS))]
        cycles = [passes(w, a, row.digit_bits or 1) for w, a in PRODUCTS]
        heights = [(row.cost_per_mac or 0) * n for n in cycles]
        highest = max([highest, *heights])
        axis.bar(places, heights, width * 0.92, color=colours[index % 3], zorder=3,
                 label=f"d = {row.digit_bits}, {row.lanes}×{row.rows}")  # fmt: skip
        for x, height, n in zip(places, heights, cycles):
            axis.annotate(f"{number(height)}\n{n}×" if n > 1 else number(height), (x, height), xytext=(0, 2),
                          textcoords="offset points", ha="center", va="bottom", fontsize=7)  # fmt: skip
    axis.set_yscale("log")
    axis.grid(False, axis="x")
    axis.set_xticks(range(len(PRODUCTS)), [f"{w}×{a}" for w, a in PRODUCTS])
    axis.set_ylim(top=highest * 2.2)
    values(axis.yaxis, (1.0, 2.0, 5.0))
    axis.set_xlabel("bits of the product: weight × activation")
    axis.set_ylabel(f"{unit} · cycles per product")
    axis.set_title(f"Area times cycles, accumulators of {rows[0].accumulator_bits} bits; n×: cycles", fontsize=9)
    axis.legend(frameon=False, fontsize=8, loc="upper left")
