"""OCTAV's clip against the best one, and how soon its recursion stands still: by width, distribution and sign."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from golden.files import write_table

from ..quantizers.mse import mse_clip
from ..quantizers.octav import TOLERANCE, octav, octav_clip
from ..train import TrainConfig, train
from .plot import COLOURS, FAINT, STYLE

__all__ = ["DISTRIBUTIONS", "Row", "draw", "measure", "study", "trained_weights", "write"]

SAMPLES = 2 ** 17
MOST = 100


def _sign(generator: torch.Generator) -> torch.Tensor:
    return 2.0 * torch.randint(2, (SAMPLES,), generator=generator) - 1


def _uniform(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(SAMPLES, generator=generator, dtype=torch.float64)


def _normal(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(SAMPLES, generator=generator, dtype=torch.float64)


def _exponential(generator: torch.Generator) -> torch.Tensor:
    return -torch.log1p(-_uniform(generator))


def _logistic(generator: torch.Generator) -> torch.Tensor:
    return torch.logit(_uniform(generator).clamp(min=2.0 ** -53))


DISTRIBUTIONS: dict[str, tuple[bool, Callable[[torch.Generator], torch.Tensor]]] = {
    "uniform": (True, lambda g: 2 * _uniform(g) - 1),
    "Gauss": (True, _normal),
    "logistic": (True, _logistic),
    "Laplace": (True, lambda g: _sign(g) * _exponential(g)),
    "uniform from 0": (False, _uniform),
    "half-normal": (False, lambda g: _normal(g).abs()),
    "exponential": (False, _exponential),
    "log-normal": (False, lambda g: _normal(g).exp()),
}
"""By name: whether values have a sign, and 131072 samples."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor at one width.

    Members
    -------
    data : :class:`str`
        A key of :data:`DISTRIBUTIONS`, or a layer of a trained network.
    trained : :class:`bool`
        Whether it is one.
    signed : :class:`bool`
    bits, count : :class:`int`
        Of a code; of values.
    octav_clip, best_clip : :class:`float`
        In units of the values' root mean square.
    octav_error, best_error : :class:`float`
        Mean squared error in units of the values' mean square.
    iterations : :class:`int` or ``None``
        Steps from the mean until s changes by at most 1e-5 of it, the last one included; ``None`` if 100 are not
        enough.
    """

    data: str
    trained: bool
    signed: bool
    bits: int
    count: int
    octav_clip: float
    best_clip: float
    octav_error: float
    best_error: float
    iterations: int | None

    @property
    def clip_excess(self) -> float:
        """By how much OCTAV's clip is above the best, in percent."""
        return 100 * (self.octav_clip / self.best_clip - 1)

    @property
    def error_excess(self) -> float:
        """By how much its mean squared error is above the least, in percent."""
        return 100 * (self.octav_error / self.best_error - 1)


def measure(data: str, x: torch.Tensor, bits: int, *, signed: bool, trained: bool = False) -> Row:
    """OCTAV on one tensor, beside the clip of least error by search (:func:`sw.quantizers.mse.mse_clip`)."""
    x = x.detach().double().flatten()
    square = x.square().mean().item()
    half = 2 ** (bits - 1)
    top, bottom = (half - 1, -half) if signed else (2 * half - 1, 0)
    best = mse_clip(x, top, bottom=bottom) * ((top + 1) / top)  # s stands for one step above the top code
    found, iterations = octav_clip(x, bits, signed=signed, iterations=0), None
    for step in range(1, MOST + 1):
        previous, found = found, octav_clip(x, bits, signed=signed, start=found, iterations=1)
        if (found - previous).abs() <= TOLERANCE * previous:
            iterations = step
            break

    def error(clip: torch.Tensor) -> float:
        return (octav(x, clip, bits, signed=signed) - x).square().mean().item() / square

    if error(found) < error(best):  # among many shallow valleys
        best = found
    return Row(data=data, trained=trained, signed=signed, bits=bits, count=len(x),
               octav_clip=found.item() / square ** 0.5, best_clip=best.item() / square ** 0.5,
               octav_error=error(found), best_error=error(best), iterations=iterations)


def trained_weights(epochs: int = 30) -> dict[str, torch.Tensor]:
    """The convolutions of ``digits-residual``, trained in float32 with seed 0, but for the small first one."""
    model = train(TrainConfig(network="digits-residual", epochs=epochs)).model
    layers = {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return {name: weight for name, weight in layers.items() if weight.numel() >= 500}


def study(bits: Sequence[int] = range(2, 9), *, seed: int = 0,
          weights: dict[str, torch.Tensor] | None = None) -> list[Row]:
    """Every distribution and every layer's weights at every width.

    Parameters
    ----------
    bits : sequence of :class:`int`
        2..16.
    seed : :class:`int`
        Of the samples.
    weights : mapping or ``None``
        Signed tensors by name beside the distributions.
    """
    rows = []
    for name, (signed, draw) in DISTRIBUTIONS.items():
        x = draw(torch.Generator().manual_seed(seed))
        rows += [measure(name, x, width, signed=signed) for width in bits]
    for name, weight in (weights or {}).items():
        rows += [measure(name, weight, width, signed=True, trained=True) for width in bits]
    return rows


def write(rows: Sequence[Row], path: Path, *, command: str) -> None:
    """Write one line per tensor and width; the first line, a comment, names the command that made the file."""
    write_table(rows, path, command=command, digits=6)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the excess of clip and error, and the steps, by width: signed, unsigned, and trained weights in grey."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row.data for row in rows))
    signed = [n for n, (is_signed, _) in DISTRIBUTIONS.items() if is_signed]
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(2, 3, figsize=(9.6, 5.6), sharex=True, sharey="col", layout="constrained")
        for name in names:
            of_name = [row for row in rows if row.data == name]
            first = of_name[0]
            line = axes[0 if first.signed else 1]
            if first.trained:
                style = {"color": FAINT, "linewidth": 0.9, "alpha": 0.8, "zorder": 1, "label": None}
            else:
                group = signed if first.signed else [n for n in DISTRIBUTIONS if n not in signed]
                style = {"color": COLOURS[group.index(name)], "linewidth": 1.7, "marker": "o", "markersize": 3.8,
                         "label": name}
            widths = [row.bits for row in of_name]
            line[0].plot(widths, [row.clip_excess for row in of_name], **style)
            line[1].plot(widths, [row.error_excess for row in of_name], **style)
            line[2].plot(widths, [row.iterations or float("nan") for row in of_name], **style)
        for row, title in zip(axes, ("Signed", "Unsigned")):
            if title == "Signed" and any(r.trained for r in rows):
                row[0].plot([], [], color=FAINT, linewidth=0.9, label="trained layers")
            row[0].legend(fontsize=8)
            row[0].set_title(title)
            for axis, label in zip(row, ("s above the best clip (%)", "squared error above the least (%)",
                                         "steps to 1e-5")):
                axis.set_ylabel(label)
                axis.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
        for axis in axes[1]:
            axis.set_xlabel("bits")
            axis.set_xticks(sorted({row.bits for row in rows}))
        axes[0][1].set_ylim(bottom=-1)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
