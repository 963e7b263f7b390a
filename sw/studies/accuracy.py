"""Networks × bits, what ``pactolus train`` ends with: right answers of the integer networks, over several seeds."""
from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console

from golden.files import write_csv

from ..data import load
from ..models import OPTIONS
from ..train import TrainConfig
from .runs import Run, mean_and_deviation, measure, percent, spread

__all__ = ["DIGITS", "configurations", "study", "table", "write"]

DIGITS = ("digits-plain", "digits-residual")
"""The networks that the digits are for."""

QUANTIZED = ("edge_bits", "shortcut_bits", "layer_weight_bits", "layer_activation_bits", "weights", "activations",
             *OPTIONS)
"""Fields of a configuration that mean nothing to a float32 baseline."""


def configurations(networks: Sequence[str] = DIGITS, *,
                   bits: Sequence[int | tuple[int | None, int | None] | None] = (None, 8, 4, 3, 2),
                   seeds: Iterable[int] = (0, 1, 2), fields: Mapping[str, Any] | None = None) -> list[TrainConfig]:
    """Every network at every width with every seed.

    Parameters
    ----------
    networks : sequence of :class:`str`
        Keys of :data:`sw.models.MODELS`.
    bits : sequence of :class:`int`, pairs, or ``None``
        Middle layers' weight and activation bits; ``None`` is the float32 baseline, which has no methods.
    seeds : iterable of :class:`int`
    fields : mapping or ``None``
        The other fields of every configuration.

    Raises
    ------
    ValueError
        One of them is refused.
    """
    configs = []
    for network, width, seed in itertools.product(networks, bits, seeds):
        weight_bits, activation_bits = width if isinstance(width, tuple) else (width, width)
        values = {**(fields or {}), "network": network, "weight_bits": weight_bits, "activation_bits": activation_bits,
                  "seed": seed}
        if weight_bits is None:
            values = {name: value for name, value in values.items() if name not in QUANTIZED}
        configs.append(TrainConfig(**values))
    return configs


def study(configs: Sequence[TrainConfig], folder: Path, *, directory: Path | None = None,
          console: Console | None = None) -> list[Run]:
    """Train one after the other, and measure; see :func:`sw.studies.runs.measure`.

    Parameters
    ----------
    configs : sequence of :class:`sw.train.TrainConfig`
    folder : path
        Of the checkpoints. Whenever this is stopped, the same call goes on from what is there.
    directory : path or ``None``
        Of the data's files, see :func:`sw.data.load`.
    console : :class:`rich.console.Console` or ``None``
        For progress.
    """
    datasets = {name: load(name, directory) for name in {config.data for config in configs}}
    return [measure(config, folder, dataset=datasets[config.data], console=console) for config in configs]


def _label(config: TrainConfig) -> str:
    """``w4a4``, ``sawb-pact-w4a4`` or ``fp32``."""
    return config.name.removeprefix(f"{config.network}-")


def table(runs: Sequence[Run]) -> rich.table.Table:
    """For people: mean ± standard deviation over the seeds, and the distance from the float32 baseline."""
    result = rich.table.Table("network", "bits", rich.table.Column("integer accuracy %", justify="right"),
                              rich.table.Column("fake-quantized %", justify="right"),
                              rich.table.Column("against FP32", justify="right"),
                              rich.table.Column("seeds", justify="right"), title="Test accuracy")
    groups: dict[str, list[Run]] = {}
    baselines: dict[tuple[str, str, float], list[Run]] = {}
    for run in runs:
        config = run.config
        groups.setdefault(config.name, []).append(run)
        if config.weight_bits is None:
            baselines.setdefault((config.network, config.data, config.width), []).append(run)
    for group in groups.values():
        config = group[0].config
        baseline = baselines.get((config.network, config.data, config.width))
        mean, _ = spread([run.accuracy for run in group])
        against = "" if baseline is None else f"{mean - spread([run.accuracy for run in baseline])[0]:+.2f}"
        integers = [run.integer for run in group if run.integer is not None]
        result.add_row(config.network, _label(config), mean_and_deviation(integers) if integers else "",
                       mean_and_deviation([run.fake_quantized for run in group]), against, str(len(group)))
    return result


def write(runs: Sequence[Run], path: Path, *, command: str) -> None:
    """Write one line per run; the first line, a comment, names the command that made the file."""
    names = ["network", "bits", "seed", "fake_quantized_percent", "integer_percent"]
    write_csv(path, names, ([run.config.network, _label(run.config), run.config.seed, percent(run.fake_quantized),
                             percent(run.integer)] for run in runs), command=command)
