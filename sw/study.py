"""The accuracy study: every network at every width with every seed, as integers.

It trains what is not trained yet, exports, and counts right answers of the integer networks on the test split.
"""
from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console

from .data import load
from .files import write_csv
from .studies.runs import accuracies, mean_and_deviation, percent
from .train import TrainConfig, train, trained

__all__ = ["DIGITS", "Accuracy", "accuracy_table", "study", "write_accuracies"]

DIGITS = ("digits-plain", "digits-residual")
"""The networks that the digits are for."""

QUANTIZED = ("edge_bits", "shortcut_bits", "layer_weight_bits", "layer_activation_bits", "weights", "activations",
             "octav_clips", "octav_weight_gradient", "octav_activation_gradient")
"""Fields of a configuration that mean nothing to a float32 baseline."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of one trained network on the test split, in percent.

    Members
    -------
    network, bits : :class:`str`
        ``digits-plain`` and ``w4a4``, ``sawb-pact-w4a4`` or ``fp32``.
    seed : :class:`int`
    fake_quantized : :class:`float`
        The module's own forward in float32.
    integer : :class:`float` or ``None``
        The exported integer network; ``None`` where there is none, as for the float32 baseline.
    """

    network: str
    bits: str
    seed: int
    fake_quantized: float
    integer: float | None

    @property
    def accuracy(self) -> float:
        """Of what would be used: the integer network where there is one."""
        return self.fake_quantized if self.integer is None else self.integer


def study(networks: Sequence[str] = DIGITS,
          bits: Sequence[int | tuple[int | None, int | None] | None] = (None, 8, 4, 3, 2),
          seeds: Iterable[int] = (0, 1, 2), *, checkpoints: Path | None = None, console: Console | None = None,
          directory: Path | None = None, fields: Mapping[str, Any] | None = None) -> list[Accuracy]:
    """Train every network at every width with every seed and measure the *integer* networks on the test split.

    Parameters
    ----------
    networks : sequence of :class:`str`
        Keys of :data:`sw.models.MODELS`.
    bits : sequence of :class:`int`, pairs, or ``None``
        Middle layers' weight and activation bits; ``None`` is the float32 baseline, which has no methods.
    seeds : iterable of :class:`int`
    checkpoints : path or ``None``
        Folder for what :func:`sw.train.trained` writes. A checkpoint that is already there with the very same
        configuration is used instead of training again, and a run that was killed is taken up.
    console : :class:`rich.console.Console` or ``None``
        For progress.
    directory : path or ``None``
        Of the data's files, see :func:`sw.data.load`.
    fields : mapping or ``None``
        The other fields of every :class:`sw.train.TrainConfig`.
    """
    # All configurations first: one that is refused must not be found after hours of training.
    configs = []
    for network, width, seed in itertools.product(networks, bits, seeds):
        weight_bits, activation_bits = width if isinstance(width, tuple) else (width, width)
        values = {**(fields or {}), "network": network, "weight_bits": weight_bits, "activation_bits": activation_bits,
                  "seed": seed}
        if weight_bits is None:
            values = {name: value for name, value in values.items() if name not in QUANTIZED}
        configs.append(TrainConfig(**values))
    datasets = {name: load(name, directory) for name in {config.data for config in configs}}
    rows = []
    for config in configs:
        dataset = datasets[config.data]
        model = trained(config, checkpoints, console=console, dataset=dataset) if checkpoints else train(
            config, console=console, dataset=dataset).model
        label = config.name.removeprefix(f"{config.network}-")
        rows.append(Accuracy(config.network, label, config.seed, *accuracies(config, model, dataset.test)))
    return rows


def accuracy_table(rows: Sequence[Accuracy]) -> rich.table.Table:
    """Mean ± standard deviation over the seeds, one line per network and width."""
    table = rich.table.Table("network", "bits", rich.table.Column("integer accuracy %", justify="right"),
                             rich.table.Column("fake-quantized %", justify="right"),
                             rich.table.Column("against FP32", justify="right"),
                             rich.table.Column("seeds", justify="right"), title="Test accuracy")
    groups: dict[tuple[str, str], list[Accuracy]] = {}
    for row in rows:
        groups.setdefault((row.network, row.bits), []).append(row)
    for (network, bits), group in groups.items():
        mean = statistics.mean(row.accuracy for row in group)
        baseline = groups.get((network, "fp32"))
        against = "" if baseline is None else f"{mean - statistics.mean(row.accuracy for row in baseline):+.2f}"
        integer = "" if group[0].integer is None else mean_and_deviation([row.accuracy for row in group])
        table.add_row(network, bits, integer, mean_and_deviation([row.fake_quantized for row in group]), against,
                      str(len(group)))
    return table


def write_accuracies(rows: Sequence[Accuracy], path: Path, *, command: str) -> None:
    """Write one line per run; the first line, a comment, names the command that made the file."""
    names = ["network", "bits", "seed", "fake_quantized_percent", "integer_percent"]
    write_csv(path, names, ([row.network, row.bits, row.seed, percent(row.fake_quantized), percent(row.integer)]
                            for row in rows), command=command)
