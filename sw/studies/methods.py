"""Methods × bits: what each method's integer network answers right on Fashion-MNIST, by bits, over several seeds."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rich.box
import rich.table
from rich.console import Console

from golden.files import write_csv

from ..train import TrainConfig
from .plot import COLOURS, FAINT, figure
from .runs import Run, mean_and_deviation, measure_all, percent, spread

__all__ = ["BUDGETS", "METHODS", "Method", "Row", "configurations", "draw", "study", "table", "write"]

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Method:
    """A weight quantizer, an activation quantizer, and the widths that they are compared at.

    Members
    -------
    title : :class:`str`
    fields : mapping
        Fields of :class:`sw.train.TrainConfig`.
    bits : tuple of :class:`int`, or (``None``,)
        Of the middle layers' weights and activations.
    at_bits : mapping
        Further fields at some widths.
    residual : mapping
        Further fields for residual networks.
    """

    title: str
    fields: Mapping[str, object] = field(default_factory=dict)
    bits: tuple[int | None, ...] = (2, 3, 4, 8)
    at_bits: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    residual: Mapping[str, object] = field(default_factory=dict)


METHODS = {
    "fp32": Method("FP32", bits=(None,)),
    "pact-dorefa": Method("PACT + DoReFa", {"activations": "pact", "weights": "dorefa"}),
    # SAWB's coefficients end where the tails decide (5 bits): eight-bit weights are scaled by their maximum.
    "pact-sawb": Method("PACT + SAWB", {"activations": "pact", "weights": "sawb"}, at_bits={8: {"weights": "maxabs"}},
                        residual={"shortcut_bits": 8}),
    "octav": Method("OCTAV (MAD, PWL)", {"activations": "octav", "weights": "octav"}),
    "vsquant": Method("VS-Quant", {"activations": "vsquant", "weights": "vsquant"}),
}
"""By the name in the table; the ends of every quantized network have 8 bits."""

BUDGETS: dict[str, Mapping[str, object]] = {
    "cnn": {"epochs": 3, "batch_size": 128, "learning_rate": 0.1, "warmup": 0.1},
    "resnet-8": {"epochs": 1, "batch_size": 128, "learning_rate": 0.1, "warmup": 0.1},
}
"""How each network is trained, the same for every method and width."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run.

    Members
    -------
    method : :class:`str`
        A key of :data:`METHODS`.
    run : :class:`sw.studies.runs.Run`
    """

    method: str
    run: Run

    @property
    def bits(self) -> int | None:
        """Of the middle layers."""
        return self.run.config.weight_bits


def configurations(network: str = "cnn", *, data: str = "fashion-mnist", methods: Sequence[str] = tuple(METHODS),
                   bits: Sequence[int] | None = None, seeds: Iterable[int] = SEEDS,
                   changes: Mapping[str, object] | None = None) -> list[tuple[str, TrainConfig]]:
    """The runs of the study, all methods of one seed before the next seed.

    Parameters
    ----------
    network : :class:`str`
        A key of :data:`BUDGETS`.
    data : :class:`str`
    methods : sequence of :class:`str`
        Keys of :data:`METHODS`.
    bits : sequence of :class:`int` or ``None``
        Only these widths, beside the baseline.
    seeds : iterable of :class:`int`
    changes : mapping or ``None``
        Fields that differ from :data:`BUDGETS`.

    Raises
    ------
    ValueError
        An unknown method or network, or a configuration that is refused.
    """
    for what, names, known in (("Method", methods, METHODS), ("Network", [network], BUDGETS)):
        for name in names:
            if name not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, not {name!r}")
    found = []
    for seed in seeds:
        for name in methods:
            method = METHODS[name]
            for width in method.bits:
                if bits is not None and width is not None and width not in bits:
                    continue
                fields: dict = {**BUDGETS[network], **method.fields, "weight_bits": width, "activation_bits": width}
                fields |= method.residual if network.startswith("resnet") else {}
                fields |= method.at_bits.get(width, {}) if width is not None else {}
                fields |= changes or {}
                found.append((name, TrainConfig(network=network, data=data, seed=seed, **fields)))
    return found


def study(runs: Sequence[tuple[str, TrainConfig]], folder: Path, *, jobs: int = 1, directory: Path | None = None,
          console: Console | None = None) -> list[Row]:
    """Train and measure; see :func:`sw.studies.runs.measure_all`."""
    measured = measure_all([config for _, config in runs], folder, jobs=jobs, directory=directory, console=console)
    return [Row(method=name, run=run) for (name, _), run in zip(runs, measured, strict=True)]


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str, int | None], list[Run]]:
    groups: dict[tuple[str, str, int | None], list[Run]] = {}
    for row in rows:
        groups.setdefault((row.run.config.network, row.method, row.bits), []).append(row.run)
    return groups


def table(rows: Sequence[Row]) -> rich.table.Table:
    """For people: mean ± standard deviation over the seeds, and the distance from the float32 baseline."""
    result = rich.table.Table(title="Test accuracy in percent", box=rich.box.SIMPLE_HEAD)
    for title in ("network", "method", "bits", "integers", "fake-quantized", "against fp32", "seeds"):
        result.add_column(title, justify="left" if title in ("network", "method") else "right", no_wrap=True)
    groups = _groups(rows)
    for (network, method, bits), runs in groups.items():
        baseline = groups.get((network, "fp32", None))
        mean, _ = spread([run.accuracy for run in runs])
        against = f"{mean - spread([run.accuracy for run in baseline])[0]:+.2f}" if baseline and bits else ""
        integers = [run.integer for run in runs if run.integer is not None]
        result.add_row(network, METHODS[method].title, "" if bits is None else str(bits),
                       mean_and_deviation(integers) if integers else "",
                       mean_and_deviation([run.fake_quantized for run in runs]), against, str(len(runs)))
    return result


def write(rows: Sequence[Row], path: Path, *, command: str) -> None:
    """Write one line per run; the first line, a comment, names the command that made the file."""
    def line(row: Row) -> list[object]:
        config, run = row.run.config, row.run
        quantizers = (config.weights, config.activations) if row.bits else ("", "")
        return [config.network, row.method, *quantizers, row.bits or "", config.seed, config.epochs,
                percent(run.fake_quantized), percent(run.integer)]

    names = ["network", "method", "weights", "activations", "bits", "seed", "epochs", "fake_quantized_percent",
             "integer_percent"]
    write_csv(path, names, map(line, rows), command=command)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy over bits to an SVG file, a panel for each network: the mean of the seeds, and every seed."""
    networks = list(dict.fromkeys(row.run.config.network for row in rows))
    groups = _groups(rows)
    with figure(path, len(networks), title="Integer networks on Fashion-MNIST, 8-bit ends") as axes:
        for axis, network in zip(axes, networks):
            widths = sorted({bits for name, _, bits in groups if name == network and bits})
            baseline = groups.get((network, "fp32", None))
            if baseline:
                values = [run.accuracy for run in baseline]
                axis.axhspan(min(values), max(values), color=FAINT, alpha=0.25, linewidth=0)
                axis.axhline(spread(values)[0], color=FAINT, linewidth=1.2, label="FP32")
            methods = [name for name in METHODS if any(m == name and n == network and b for n, m, b in groups)]
            for i, name in enumerate(methods):
                shift = 0.07 * (i - (len(methods) - 1) / 2)
                points = [(widths.index(bits) + shift, [run.accuracy for run in groups[network, name, bits]])
                          for bits in widths if (network, name, bits) in groups]
                axis.plot([x for x, _ in points], [spread(values)[0] for _, values in points], color=COLOURS[i],
                          marker="o", markersize=5, linewidth=1.6, label=METHODS[name].title)
                for x, values in points:
                    axis.plot([x] * len(values), values, color=COLOURS[i], marker="_", markersize=6, linestyle="none",
                              alpha=0.7)
            axis.set_xticks(range(len(widths)), [str(width) for width in widths])
            axis.set_xlabel("bits of the middle layers' weights and activations")
            axis.set_ylabel("right answers on the test split (%)")
            seeds = len({row.run.config.seed for row in rows if row.run.config.network == network})
            axis.set_title(f"{network}, {seeds} seed{'s' if seeds > 1 else ''}", fontsize=9, loc="left")
            axis.legend(loc="lower right")
