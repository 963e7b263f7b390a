"""The accuracy study: every network at every width with every seed, as integers.

It trains what is not trained yet, exports, and counts right answers of the integer networks on the test split.
"""
from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich.console import Console
from torch import nn

from .data import digits
from .export import integer_accuracy
from .train import TrainConfig, accuracy, load_checkpoint, save_checkpoint, train

__all__ = ["DIGITS", "Accuracy", "accuracy_table", "study", "write_accuracies"]

DIGITS = ("digits-plain", "digits-residual")
"""The networks that the digits are for."""


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
        The exported integer network; ``None`` for the float32 baseline.
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


def study(networks: Sequence[str] = DIGITS, bits: Sequence[int | None] = (None, 8, 4, 3, 2),
          seeds: Iterable[int] = (0, 1, 2), *, checkpoints: Path | None = None, console: Console | None = None,
          configure: Callable[[TrainConfig], TrainConfig] = lambda config: config) -> list[Accuracy]:
    """Train every network at every width with every seed and measure the *integer* networks on the test split.

    Parameters
    ----------
    networks : sequence of :class:`str`
        Keys of :data:`sw.models.MODELS`.
    bits : sequence of :class:`int` or ``None``
        Middle layers' weight and activation bits; ``None`` is the float32 baseline.
    seeds : iterable of :class:`int`
    checkpoints : path or ``None``
        Folder for ``<network>-<bits>-seed<n>.safetensors``. A file that is already there with the very same
        configuration is used instead of training again.
    console : :class:`rich.console.Console` or ``None``
        For progress.
    configure : callable
        Changes each run's configuration, for example to fewer epochs.
    """
    _, test = digits()
    # All configurations first: one that is refused must not be found after hours of training.
    configs = [configure(TrainConfig(network=network, weight_bits=width, activation_bits=width, seed=seed))
               for network, width, seed in itertools.product(networks, bits, seeds)]
    rows = []
    for config in configs:
        model = _trained(config, checkpoints, console)
        label = config.name.removeprefix(f"{config.network}-")
        integer = None if config.weight_bits is None else 100 * integer_accuracy(model, test)
        rows.append(Accuracy(config.network, label, config.seed, 100 * accuracy(model, test), integer))
    return rows


def _trained(config: TrainConfig, folder: Path | None, console: Console | None) -> nn.Module:
    path = folder / f"{config.name}-seed{config.seed}.safetensors" if folder else None
    if path and path.exists():
        found, model = load_checkpoint(path)
        if found == config:
            return model
    result = train(config, console=console)
    if path:
        save_checkpoint(result, path)
    return result.model


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
        integer = "" if bits == "fp32" else _mean_and_deviation([row.accuracy for row in group])
        table.add_row(network, bits, integer, _mean_and_deviation([row.fake_quantized for row in group]), against,
                      str(len(group)))
    return table


def _mean_and_deviation(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def write_accuracies(rows: Sequence[Accuracy], path: Path, *, command: str) -> None:
    """Write one line per run; the first line, a comment, names the command that made the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"# {command}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "bits", "seed", "fake_quantized_percent", "integer_percent"])
        for row in rows:
            integer = "" if row.integer is None else f"{row.integer:.4f}"
            writer.writerow([row.network, row.bits, row.seed, f"{row.fake_quantized:.4f}", integer])
