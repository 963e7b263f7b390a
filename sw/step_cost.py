"""What a quantized training step costs: its time over that of the float32 step, method by method, measured in pairs."""
from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional

from golden.files import write_csv

from .models import MODELS, Precision
from .train import laid_out, threads

__all__ = ["METHODS", "StepCost", "measure", "table", "write"]

METHODS = (("dorefa", "pact"), ("dorefa", "pact+"), ("sawb", "pact"), ("octav", "octav"), ("vsquant", "vsquant"))
"""Weight and activation quantizers that are measured."""

FLOAT = "float32"


@dataclass(frozen=True)
class StepCost:
    """A method's training step against the float32 step.

    Members
    -------
    network, method : :class:`str`
        ``method`` is float32 in the control: two models of the same kind.
    bits, batch : :class:`int`
    milliseconds : :class:`float`
        Median over the rounds; depends on the machine and on what else it does.
    ratio, low, high : :class:`float`
        Median and quartiles of a round's time over that round's float32 time.
    """

    network: str
    method: str
    bits: int
    batch: int
    milliseconds: float
    ratio: float
    low: float
    high: float


class _Trained:
    """A model and its optimizer, a step at a time."""

    def __init__(self, network: str, precision: Precision, images: torch.Tensor):
        self.model = laid_out(MODELS[network](precision, shape=tuple(images.shape[1:])), torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Seconds of one forward, backward and update."""
        start = time.perf_counter()
        loss = functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return time.perf_counter() - start


def measure(network: str = "cnn", *, shape: tuple[int, int, int] = (1, 28, 28), bits: int = 4, batch: int = 128,
            rounds: int = 30, methods: Sequence[tuple[str, str]] = METHODS,
            console: Console | None = None) -> list[StepCost]:
    """Time training steps of a network on random images, on one thread.

    A round is one step of every model, so that whatever slows the machine slows all of them; the order turns from round
    to round. The first three rounds are not counted: clips settle and memory is allocated.

    Parameters
    ----------
    network : :class:`str`
        A key of :data:`sw.models.MODELS`.
    shape : (C, H, W)
        Of an image.
    bits : :class:`int`
        Of weights and activations of the middle layers; the ends have 8.
    batch, rounds : :class:`int`
    methods : pairs of :class:`str`
        Weight and activation quantizers.
    console : :class:`rich.console.Console` or ``None``
        For progress.

    Returns
    -------
    list of :class:`StepCost`
        The control first, which says how far a ratio can be trusted, then the methods in their order.

    Raises
    ------
    ValueError
        A network or method that is not known.
    """
    if network not in MODELS:
        raise ValueError(f"Network must be one of {', '.join(MODELS)}, not {network!r}")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *shape, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,), generator=generator)
    precisions = {FLOAT: Precision(), f"{FLOAT} ": Precision()}
    for weights, activations in methods:
        precisions[f"{weights}, {activations}"] = Precision(
            weight_bits=bits, activation_bits=bits, weights=weights, activations=activations)
    with threads(1):
        trained = {name: _Trained(network, precision, images) for name, precision in precisions.items()}
        times: dict[str, list[float]] = {name: [] for name in trained}
        names = list(trained)
        shown = console or Console(quiet=True)
        for number in track(range(-3, rounds), description=f"{network}, {bits} bits", console=shown, transient=True):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                seconds = trained[name].step(images, labels)
                if number >= 0:
                    times[name].append(seconds)
    costs = []
    for name in names[1:]:
        ratios = [mine / reference for mine, reference in zip(times[name], times[FLOAT], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        costs.append(StepCost(network, name.strip(), bits, batch, 1e3 * statistics.median(times[name]), ratio, low,
                              high))
    return costs


def table(costs: Sequence[StepCost]) -> Table:
    """For people."""
    result = Table(title="Training step against float32, one thread", box=box.SIMPLE_HEAD)
    for title in ("network", "weights, activations", "bits", "batch", "ms", "ratio", "quartiles"):
        result.add_column(title, justify="left" if title in ("network", "weights, activations") else "right")
    for cost in costs:
        result.add_row(cost.network, cost.method, str(cost.bits), str(cost.batch), f"{cost.milliseconds:.1f}",
                       f"{cost.ratio:.2f}", f"{cost.low:.2f} .. {cost.high:.2f}")
    return result


def write(costs: Sequence[StepCost], path: Path, *, command: str) -> None:
    """Write one line per method; the first line, a comment, names the command that made the file."""
    def line(cost: StepCost) -> list[object]:
        return [f"{value:.3f}" if isinstance(value, float) else value for value in astuple(cost)]

    write_csv(path, [field.name for field in fields(StepCost)], map(line, costs), command=command)
