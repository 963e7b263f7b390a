"""What the studies' plots have in common."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["COLOURS", "FAINT", "figure"]

COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#4d4d4d")
"""Of series, in order; they differ in lightness too."""

FAINT = "#93a1ad"

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#5d6a76", "axes.labelcolor": "#2b333a",
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e8ec", "grid.linewidth": 0.8,
    "xtick.color": "#5d6a76", "ytick.color": "#5d6a76", "legend.frameon": False,
    "svg.hashsalt": "pactolus", "svg.fonttype": "path",
}


@contextmanager
def figure(path: Path, panels: int = 1, *, size: tuple[float, float] = (5.6, 4.0), title: str = "") -> Iterator[Any]:
    """Axes, in a row, that are drawn to the SVG file ``path`` at the end.

    The file is the same, byte for byte, for the same drawing and version of matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        drawing, axes = pyplot.subplots(1, panels, figsize=(size[0] * panels, size[1]), squeeze=False,
                                        layout="constrained")
        if title:
            drawing.suptitle(title, x=0.012, ha="left", fontsize=11)
        yield axes[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, metadata={"Date": None})
        pyplot.close(drawing)
