"""The multi-objective search beside Sobol points: the hypervolume at equal evaluations, and what was found."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from golden.files import write_csv

from ..search import Evaluation, front, hypervolume
from .plot import COLOURS, FAINT, figure

__all__ = ["draw", "volumes", "write"]

LABELS = {"saas": "SAAS + qLogNEHVI", "sobol": "Sobol"}

Results = Mapping[tuple[str, int], Sequence[Evaluation]]
"""The evaluations of each search, by method and seed."""


def volumes(evaluations: Sequence[Evaluation], reference: tuple[float, float]) -> list[float]:
    """The hypervolume after each evaluation."""
    values = [(e.values[0], e.values[1]) for e in evaluations]
    return [hypervolume(values[:n + 1], reference) for n in range(len(values))]


def write(results: Results, path: Path, *, reference: tuple[float, float], command: str) -> None:
    """Write one line per evaluation: the search, the point, both objectives and the hypervolume so far."""
    names = list(next(iter(results.values()))[0].point)
    write_csv(path, ["method", "seed", "number", *names, "accuracy", "minus_log2_cycles", "volume"], (
        [method, seed, evaluation.number, *(evaluation.point[name] for name in names),
         *(f"{value:.6g}" for value in (*evaluation.values, volume))]
        for (method, seed), evaluations in results.items()
        for evaluation, volume in zip(evaluations, volumes(evaluations, reference))), command=command)


def draw(results: Results, path: Path, *, reference: tuple[float, float]) -> None:
    """Draw hypervolume by evaluation, a line a seed; and the fronts of the first seed."""
    with figure(path, 2) as (left, right):
        for (method, seed), evaluations in results.items():
            colour = COLOURS[list(LABELS).index(method)]
            label = LABELS[method] if seed == min(s for m, s in results if m == method) else None
            left.step(range(1, len(evaluations) + 1), volumes(evaluations, reference), where="post", color=colour,
                      linewidth=1.6, label=label)
            if label is None:
                continue
            points = [(2 ** -e.values[1], 100 * e.values[0]) for e in evaluations]
            right.scatter(*zip(*points), s=12, color=colour, alpha=0.35, linewidths=0)
            best = [(2 ** -second, 100 * first) for first, second in front((e.values[0], e.values[1])
                                                                           for e in evaluations)]
            right.plot(*zip(*best), color=colour, linewidth=1.6, marker="o", markersize=4, label=label)
        left.set_xlabel("evaluations")
        left.set_ylabel("hypervolume")
        left.legend()
        right.set_xscale("log", base=2)
        right.set_xlabel("cycles per image at equal array area")
        right.set_ylabel("accuracy, held-out images (%)")
        right.axhline(100 * reference[0], color=FAINT, linewidth=0.8, linestyle=":")
        right.set_ylim(100 * reference[0] - 2, 100.5)
        right.legend(loc="lower right")
