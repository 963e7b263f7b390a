"""What the studies' files have in common: tables that name the command that made them, and the plots' look."""
from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FAINT", "INK", "STYLE", "save_plot", "write_table"]

INK = "#1b2a38"
FAINT = "#8a97a3"
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
    "legend.frameon": False,
    "svg.hashsalt": "pactolus",
    "svg.fonttype": "path",
}
"""For :func:`matplotlib.rc_context`."""


def write_table(rows: Sequence[Any], path: Path, *, command: str) -> None:
    """Write one line per row, a frozen dataclass; the first line, a comment, names the command that made the file.

    Numbers have 6 significant digits, what is ``None`` is empty.
    """
    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {command}\n")
        writer = csv.writer(file, lineterminator="\n")
        names = [field.name for field in dataclasses.fields(rows[0])]
        writer.writerow(names)
        writer.writerows([cell(getattr(row, name)) for name in names] for row in rows)


def save_plot(figure: Figure, path: Path) -> None:
    """Write an SVG, the same bytes for the same plot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
