"""Pareto fronts and their hypervolume, for two objectives that are both to be large."""
from __future__ import annotations

from collections.abc import Iterable

__all__ = ["front", "hypervolume"]

Values = tuple[float, float]


def front(values: Iterable[Values]) -> list[Values]:
    """Those that no other equals or exceeds in both, by the first objective from large to small."""
    best: list[Values] = []
    for first, second in sorted(set(values), reverse=True):
        if not best or second > best[-1][1]:
            best.append((first, second))
    return best


def hypervolume(values: Iterable[Values], reference: Values) -> float:
    """The area that is below at least one of ``values`` in both objectives, and above ``reference``."""
    area, height = 0.0, reference[1]
    for first, second in front(values):
        if first > reference[0] and second > height:
            area += (first - reference[0]) * (second - height)
            height = second
    return area
