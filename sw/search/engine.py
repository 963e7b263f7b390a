"""A search that can be stopped: batches of points, evaluated in parallel, every result on disk at once.

The folder holds ``search.json``, what was asked for; ``batch-000.json`` and so on, the points that were proposed
together; and ``0000.json`` and so on, one evaluation each. Every file appears whole or not at all. A batch is proposed
from all evaluations before it, in the order of their numbers, so that neither the order in which they end nor a restart
changes anything.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from golden.files import write_atomically

from .space import Point, Space

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Evaluation", "Objective", "Proposer", "dask_client", "evaluate_here", "evaluate_on_dask", "search"]

Objective = Callable[[Point], Sequence[float]]
"""Gives a point's objectives, each to be large; the same ones whenever it is called."""

Evaluate = Callable[[Objective, Sequence[tuple[int, Point]]], Iterable[tuple[int, Sequence[float]]]]
"""Gives the objectives of numbered points, in whatever order."""


@dataclass(frozen=True)
class Evaluation:
    """A point, its number from 0 on, and its objectives."""

    number: int
    point: Point
    values: tuple[float, ...]


class Proposer(Protocol):
    """Says what to try next; a frozen dataclass of numbers."""

    def __call__(self, space: Space, done: Sequence[Evaluation], count: int, seed: int) -> list[Point]:
        """``count`` points, a function of the arguments alone."""
        ...


def evaluate_here(objective: Objective, points: Sequence[tuple[int, Point]]) -> Iterator[tuple[int, Sequence[float]]]:
    """One after the other, in this process."""
    for number, point in points:
        yield number, objective(point)


@contextmanager
def dask_client(scheduler: str | None = None, *, workers: int = 2) -> Iterator[Client]:
    """A client of the Dask cluster whose scheduler has that address, or of one of ``workers`` processes made here."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
    else:
        with (LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
              Client(cluster) as client):
            yield client


def evaluate_on_dask(client: Client, *, retries: int = 2) -> Evaluate:
    """In parallel on a Dask cluster.

    Parameters
    ----------
    client : :class:`distributed.Client`
        The tasks of a worker that dies go to another one, or to the one that takes its place.
    retries : :class:`int`
        How often a task that *fails* is tried again.
    """
    def evaluate(objective: Objective, points: Sequence[tuple[int, Point]]) -> Iterator[tuple[int, Sequence[float]]]:
        from distributed import as_completed

        numbers = {client.submit(objective, point, retries=retries, pure=False): number for number, point in points}
        for future in as_completed(list(numbers)):
            yield numbers[future], future.result()

    return evaluate


def search(space: Space, objective: Objective, folder: Path, *, propose: Proposer, evaluations: int, initial: int,
           batch: int, seed: int = 0, evaluate: Evaluate = evaluate_here,
           show: Callable[[Evaluation], None] = lambda evaluation: None) -> list[Evaluation]:
    """Evaluate ``evaluations`` points, going on from what the folder has already.

    Parameters
    ----------
    space : :class:`~sw.search.space.Space`
    objective : callable
        For Dask, something that can be pickled.
    folder : path
        Of this search alone.
    propose : :class:`Proposer`
        Is given the evaluations so far; none for the first batch.
    evaluations, initial, batch : :class:`int`
        In all, of the first batch, and of every other one (the last may be smaller); positive.
    seed : :class:`int`
    evaluate : callable
        :func:`evaluate_here`, or what :func:`evaluate_on_dask` gives.
    show : callable
        Is called with every evaluation as it ends.

    Returns
    -------
    list of :class:`Evaluation`
        By number.

    Raises
    ------
    ValueError
        The folder belongs to another search, or a number that is not positive.
    """
    for name, value in (("Evaluations", evaluations), ("Initial", initial), ("Batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be positive, not {value!r}")
    asked = {"space": asdict(space), "propose": [type(propose).__name__, _plain(propose)], "initial": initial,
             "batch": batch, "seed": seed}
    header = folder / "search.json"
    if header.exists():
        if json.loads(header.read_text(encoding="utf-8")) != json.loads(json.dumps(asked)):
            raise ValueError(f"Folder {str(folder)!r} must be that of the same search, or a new one")
    else:
        _write(header, asked)
    done: list[Evaluation] = []
    for number in range(evaluations):
        if len(done) == evaluations:
            break
        count = min(initial if number == 0 else batch, evaluations - len(done))
        path = folder / f"batch-{number:03d}.json"
        if not path.exists():
            _write(path, propose(space, done, initial if number == 0 else batch, seed))
        points = list(enumerate(json.loads(path.read_text(encoding="utf-8"))[:count], start=len(done)))
        missing = [(i, point) for i, point in points if not _file(folder, i).exists()]
        for i, values in evaluate(objective, missing):
            found = Evaluation(i, dict(points)[i], tuple(float(value) for value in values))
            _write(_file(folder, i), asdict(found))
            show(found)
        done += [_read(_file(folder, i)) for i, _ in points]
    return done


def _plain(propose: Any) -> Any:
    return asdict(propose)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.json"


def _read(path: Path) -> Evaluation:
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Evaluation(fields["number"], fields["point"], tuple(fields["values"]))


def _write(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value).encode())
