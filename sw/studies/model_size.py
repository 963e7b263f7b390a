"""One weight bitwidth: networks of equal size in bits, one for each weight width, and one of mixed widths.

After Chin et al., "One Weight Bitwidth to Rule Them All" (arXiv 2008.09916): narrower weights pay for a wider network.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.box
import rich.table
import torch
from rich.console import Console

from golden.files import write_csv

from ..layers import QuantizedWeight
from ..train import TrainConfig
from .methods import BUDGETS
from .plot import COLOURS, FAINT, figure
from .runs import Run, mean_and_deviation, measure_all, percent, spread

__all__ = ["ASSIGNMENTS", "Row", "configurations", "draw", "model_bits", "study", "table", "width_for", "write"]

ASSIGNMENTS: dict[str, Mapping[str, object]] = {
    "1": {"weight_bits": 1}, "2": {"weight_bits": 2}, "4": {"weight_bits": 4}, "8": {"weight_bits": 8},
    "mixed": {"weight_bits": 4, "layer_weight_bits": {"conv3": 2}},
}
"""Weight bits of the middle layers. Mixed: the largest layer has two bits, the other four."""

STEPS = 64
"""Width multipliers are multiples of 1/64."""


def model_bits(config: TrainConfig) -> int:
    """Bits of all quantized weights, the ends included."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = config.build()
    return sum(m.weight.numel() * m.quantizer.bits for m in model.modules() if isinstance(m, QuantizedWeight))


def width_for(config: TrainConfig, bits: int) -> TrainConfig:
    """``config`` with the width multiplier, up to 8, that brings :func:`model_bits` closest to ``bits``.

    Raises
    ------
    ValueError
        If that is more than a tenth off.
    """
    def at(step: int) -> tuple[int, TrainConfig]:
        changed = dataclasses.replace(config, width=step / STEPS)
        return model_bits(changed), changed

    low, high = 1, 8 * STEPS
    while low < high:  # the first width that is not too small
        middle = (low + high) // 2
        low, high = (middle + 1, high) if at(middle)[0] < bits else (low, middle)
    size, found = min((at(step) for step in {max(1, low - 1), low}), key=lambda pair: abs(pair[0] - bits))
    if abs(size - bits) > bits / 10:
        raise ValueError(f"Size must be one that {config.name} can have within a tenth, not {bits} bits")
    return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run: its weight widths, a key of :data:`ASSIGNMENTS`, and the bits of its weights."""

    weights: str
    bits: int
    run: Run


def configurations(network: str = "cnn", *, data: str = "fashion-mnist", seeds: Iterable[int] = (0, 1, 2),
                   reference: str = "4", changes: Mapping[str, object] | None = None) -> list[tuple[str, TrainConfig]]:
    """The runs: DoReFa weights, 4-bit PACT activations, 8-bit ends, sized like ``reference`` at width 1.

    Parameters
    ----------
    network, data : :class:`str`
        ``network`` is one with ``conv3``.
    seeds : iterable of :class:`int`
    reference : :class:`str`
        A key of :data:`ASSIGNMENTS`.
    changes : mapping or ``None``
        Fields that differ from :data:`sw.studies.methods.BUDGETS`.
    """
    fields: dict = {**BUDGETS[network], "activation_bits": 4, **(changes or {})}
    configs = {name: TrainConfig(**{"network": network, "data": data, **fields, **bits})
               for name, bits in ASSIGNMENTS.items()}
    target = model_bits(configs[reference])
    configs = {name: width_for(config, target) for name, config in configs.items()}
    return [(name, dataclasses.replace(config, seed=seed)) for seed in seeds for name, config in configs.items()]


def study(runs: Sequence[tuple[str, TrainConfig]], folder: Path, *, jobs: int = 1, directory: Path | None = None,
          console: Console | None = None) -> list[Row]:
    """Train and measure; see :func:`sw.studies.runs.measure_all`."""
    measured = measure_all([config for _, config in runs], folder, jobs=jobs, directory=directory, console=console)
    return [Row(weights=name, bits=model_bits(run.config), run=run) for (name, _), run in zip(runs, measured)]


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.weights == name] for name in ASSIGNMENTS
            if any(row.weights == name for row in rows)}


def table(rows: Sequence[Row]) -> rich.table.Table:
    """For people: mean ± standard deviation over the seeds."""
    result = rich.table.Table(title="Equal size in bits: test accuracy in percent", box=rich.box.SIMPLE_HEAD)
    for title in ("weight bits", "width", "size (bits)", "integers", "seeds"):
        result.add_column(title, justify="right", no_wrap=True)
    for name, group in _groups(rows).items():
        text = mean_and_deviation([row.run.accuracy for row in group])
        result.add_row(name, f"{group[0].run.config.width:.3f}", str(group[0].bits), text, str(len(group)))
    return result


def write(rows: Sequence[Row], path: Path, *, command: str) -> None:
    """Write one line per run; the first line, a comment, names the command that made the file."""
    def line(row: Row) -> list[object]:
        config = row.run.config
        return [config.network, row.weights, f"{config.width:g}", row.bits, config.seed, config.epochs,
                percent(row.run.fake_quantized), percent(row.run.accuracy)]

    names = ["network", "weight_bits", "width", "size_bits", "seed", "epochs", "fake_quantized_percent",
             "integer_percent"]
    write_csv(path, names, map(line, rows), command=command)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy over weight bits, the width multiplier at each point, to an SVG file."""
    groups = _groups(rows)
    size = next(iter(groups.values()))[0].bits
    with figure(path, title=f"Networks of about {size / 8000:.1f} kB of weights, on Fashion-MNIST") as (axis,):
        names = list(groups)
        uniform = [i for i, name in enumerate(names) if name != "mixed"]
        means = [spread([row.run.accuracy for row in group])[0] for group in groups.values()]
        axis.plot(uniform, [means[i] for i in uniform], color=FAINT, linewidth=1.2, zorder=1)
        for i, group in enumerate(groups.values()):
            colour = COLOURS[0] if i in uniform else COLOURS[1]
            axis.plot([i] * len(group), [row.run.accuracy for row in group], color=colour, marker="_", linestyle="none")
            axis.plot([i], [means[i]], color=colour, marker="o", markersize=6, linestyle="none")
            axis.annotate(f"× {group[0].run.config.width:.2f}", (i, means[i]), xytext=(7, 6),
                          textcoords="offset points", color="#5d6a76")
        axis.set_xticks(range(len(names)), names)
        axis.set_xlim(-0.5, len(names) - 0.3)
        axis.set_xlabel("weight bits of the middle layers (× width multiplier)")
        axis.set_ylabel("right answers on the test split (%)")
