"""What can be chosen: ordered values by name, laid out on the unit cube for models that want real numbers."""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Choice", "Point", "Space"]

Point = dict[str, int | float]
"""A value for every choice, by name."""


@dataclass(frozen=True)
class Choice:
    """One choice.

    Parameters
    ----------
    name : :class:`str`
    values : tuple of numbers
        In an order in which neighbours are alike; at least one, each once.
    """

    name: str
    values: tuple[int | float, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise ValueError(f"Values of {self.name!r} must be different and at least one, not {self.values!r}")


@dataclass(frozen=True)
class Space:
    """All choices; a point has one coordinate for each, and each value an equal part of 0..1."""

    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        names = [choice.name for choice in self.choices]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"Choices must have different names, not {names!r}")

    def decode(self, unit: Sequence[float]) -> Point:
        """The point whose parts of 0..1 the coordinates lie in."""
        return {choice.name: choice.values[min(int(u * len(choice.values)), len(choice.values) - 1)]
                for choice, u in zip(self.choices, unit, strict=True)}

    def encode(self, point: Point) -> list[float]:
        """The middle of each part.

        Raises
        ------
        ValueError
            A value that is none of the choice's.
        """
        for choice in self.choices:
            if point.get(choice.name) not in choice.values:
                raise ValueError(f"Value of {choice.name!r} must be one of {', '.join(map(str, choice.values))}, not "
                                 f"{point.get(choice.name)!r}")
        return [(choice.values.index(point[choice.name]) + 0.5) / len(choice.values) for choice in self.choices]

    def points(self) -> Iterator[Point]:
        """All of them, one after the other."""
        names = [choice.name for choice in self.choices]
        for values in itertools.product(*(choice.values for choice in self.choices)):
            yield dict(zip(names, values))
