"""Many training runs, several at a time in processes of their own: what is on disk is not done again."""
from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import statistics
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich.progress
from rich.console import Console
from torch import nn

from golden.files import write_atomically

from ..data import Dataset, Split, load
from ..export import integer_accuracy
from ..train import TrainConfig, accuracy, threads, trained

__all__ = ["Run", "accuracies", "mean_and_deviation", "measure", "measure_all", "percent", "spread"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained network and its accuracies on the test split, in percent.

    Members
    -------
    config : :class:`sw.train.TrainConfig`
    fake_quantized : :class:`float`
        The module's own forward in float32.
    integer : :class:`float` or ``None``
        The exported integer network; ``None`` for float32 networks, and for ends in float32.
    """

    config: TrainConfig
    fake_quantized: float
    integer: float | None

    @property
    def accuracy(self) -> float:
        """Of what would be used: the integer network where there is one."""
        return self.fake_quantized if self.integer is None else self.integer


def accuracies(config: TrainConfig, model: nn.Module, split: Split) -> tuple[float, float | None]:
    """Right answers in percent: of the module's own forward in float32, and of the integer network if there is one."""
    integer = 100 * integer_accuracy(model, split) if config.has_integers else None
    return 100 * accuracy(model, split), integer


def measure(config: TrainConfig, folder: Path, *, dataset: Dataset, console: Console | None = None,
            report: Callable[[int], None] | None = None) -> Run:
    """Train, unless the checkpoint is there, and count right answers on the test split.

    The accuracies are kept beside the checkpoint, in ``NAME-seedN.json``, with its SHA-256.

    Parameters
    ----------
    config : :class:`sw.train.TrainConfig`
    folder : path
        See :func:`sw.train.trained`.
    dataset : :class:`sw.data.Dataset`
    console : :class:`rich.console.Console` or ``None``
        For the training's progress.
    report : callable or ``None``
        Is called with the number of epochs that are done, after each.
    """
    model = trained(config, folder, dataset=dataset, console=console, report=report)
    stem = folder / f"{config.name}-seed{config.seed}"
    digest = hashlib.sha256(stem.with_name(f"{stem.name}.safetensors").read_bytes()).hexdigest()
    path = stem.with_name(f"{stem.name}.json")
    try:
        known = json.loads(path.read_text())
        if known["sha256"] == digest:
            return Run(config=config, fake_quantized=known["fake_quantized"], integer=known["integer"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with threads(config.threads):
        fake_quantized, integer = accuracies(config, model, dataset.test)
    run = Run(config=config, fake_quantized=fake_quantized, integer=integer)
    values = {"sha256": digest, "fake_quantized": run.fake_quantized, "integer": run.integer}
    write_atomically(path, json.dumps(values).encode())
    return run


@functools.lru_cache(maxsize=1)
def _dataset(name: str, directory: Path | None) -> Dataset:
    """Once in every process."""
    return load(name, directory)


_reports: Any = None


def _begin(reports: Any) -> None:
    """In every process: where epochs are reported, and an end as soon as the one that began it has ended."""
    global _reports
    _reports = reports
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(index: int, fields: dict, folder: Path, directory: Path | None) -> tuple[int, Run]:
    config = TrainConfig(**fields)
    dataset = _dataset(config.data, directory)
    return index, measure(config, folder, dataset=dataset, report=lambda epochs: _reports.put((index, epochs)))


def measure_all(configs: Sequence[TrainConfig], folder: Path, *, jobs: int = 1, directory: Path | None = None,
                console: Console | None = None) -> list[Run]:
    """Every configuration's :class:`Run`, in order; ``jobs`` train at once.

    Parameters
    ----------
    configs : sequence of :class:`sw.train.TrainConfig`
    folder : path
        Of the checkpoints. Whenever this is stopped, the same call goes on from what is there.
    jobs : :class:`int`
        At least 1. What comes out does not depend on it.
    directory : path or ``None``
        Of the data's files, see :func:`sw.data.load`.
    console : :class:`rich.console.Console` or ``None``
        For progress: epochs of all runs, and what each is at.

    Raises
    ------
    ValueError
        What :func:`sw.train.trained` raises, and a number of jobs below 1.
    RuntimeError
        A training process was ended from outside.
    """
    if jobs < 1:
        raise ValueError(f"Jobs must be at least 1, not {jobs}")
    for name in {config.data for config in configs}:
        load(name, directory)  # what is missing is said before anything is trained
    columns = (rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(),
               rich.progress.TextColumn("{task.fields[runs]}"), rich.progress.TimeElapsedColumn(),
               rich.progress.TimeRemainingColumn(), rich.progress.TextColumn("{task.fields[status]}"))
    progress = rich.progress.Progress(*columns, console=console or Console(quiet=True), disable=console is None)
    context = multiprocessing.get_context("spawn")
    done: dict[int, Run] = {}
    epochs = dict.fromkeys(range(len(configs)), 0)
    reports = context.SimpleQueue()
    with progress, ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(reports,)) as pool:
        task = progress.add_task("epochs", total=sum(config.epochs for config in configs), runs="", status="")
        status = ""
        pending = {pool.submit(_work, i, asdict(config), folder, directory) for i, config in enumerate(configs)}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                while not reports.empty():
                    index, count = reports.get()
                    epochs[index] = count
                    status = f"{configs[index].name} seed {configs[index].seed}: {count}"
                for future in finished:
                    index, run = future.result()
                    done[index] = run
                    epochs[index] = run.config.epochs
                    if console is not None:
                        progress.console.print(f"{run.config.name} seed {run.config.seed}: {run.accuracy:.2f} %",
                                               highlight=False)
                progress.update(task, completed=sum(epochs.values()), runs=f"{len(done)} of {len(configs)} runs",
                                status=status)
        except BrokenProcessPool:
            raise RuntimeError("A training process was ended from outside; the same command goes on from what is in "
                               f"{str(folder)!r}") from None
        finally:
            for future in pending:
                future.cancel()
    return [done[i] for i in range(len(configs))]


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (n − 1) of a sample; ``None`` for a sample of one."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def mean_and_deviation(values: Sequence[float]) -> str:
    """:func:`spread` for people."""
    mean, deviation = spread(values)
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def percent(value: float | None) -> str:
    """An accuracy in a table's file; empty if there is none."""
    return "" if value is None else f"{value:.4f}"
