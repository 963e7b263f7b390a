"""The one comparison of what the RTL gave with what golden says, and how a difference is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Difference", "Neighbourhood", "compare"]

REACH = 2


@dataclass(frozen=True)
class Neighbourhood:
    """The codes around a difference, expected and got, at most 5 by 5.

    ``first_row`` and ``first_column`` are the place of its first code in the channel's map. Around a difference in a
    1 by 1 map it is a column of neighbouring channels, ``first_row`` being a channel.
    """

    channels: bool
    first_row: int
    first_column: int
    expected: tuple[tuple[int, ...], ...]
    got: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Difference:
    """The first place where a layer's results differ from golden's."""

    layer: str
    frame: int
    channel: int
    row: int
    column: int
    expected: int
    got: int
    neighbourhood: Neighbourhood

    def __str__(self) -> str:
        return (
            f"layer {self.layer}, frame {self.frame}, channel {self.channel}, row {self.row}, column {self.column}: "
            f"expected {self.expected}, got {self.got}"
        )

    def picture(self) -> str:
        """The neighbourhood in lines of text, expected and got side by side, codes that differ marked with ``*``."""
        near = self.neighbourhood
        columns = range(near.first_column, near.first_column + len(near.expected[0]))
        head = [f"{'channel' if near.channels else 'row'}", *(f"col {column}" for column in columns)]
        lines = [(head, [f"col {column}" for column in columns])]
        for n, (expected, got) in enumerate(zip(near.expected, near.got, strict=True)):
            marked = [f"{g}{'*' if e != g else ' '}" for e, g in zip(expected, got, strict=True)]
            lines.append(([str(near.first_row + n), *(f"{e} " for e in expected)], marked))
        width = max(len(cell) for left, right in lines for cell in (*left[1:], *right))
        first = max(len(left[0]) for left, _ in lines)
        text = [
            left[0].rjust(first)
            + " ".join(["", *(cell.rjust(width) for cell in left[1:])])
            + "   |"
            + " ".join(["", *(cell.rjust(width) for cell in right)])
            for left, right in lines
        ]
        half = first + (width + 1) * len(columns)
        return "\n".join([f"{'expected':>{half}}   | got", *text])


def compare(layer: str, expected: np.ndarray, got: np.ndarray) -> tuple[int, Difference | None]:
    """Count the results that differ, and find the first one: by frame, then channel, row and column.

    Parameters
    ----------
    layer : :class:`str`
        What the difference is called by.
    expected, got : integer arrays (N, C, H, W)
        Golden's results and the RTL's.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if expected.shape != got.shape:
        raise ValueError(f"Results of layer {layer!r} must have shape {expected.shape}, not {got.shape}")
    places = np.argwhere(got != expected)
    if not len(places):
        return 0, None
    frame, channel, row, column = (int(index) for index in places[0])
    channels = expected.shape[2:] == (1, 1)
    here = (channel, 0) if channels else (row, column)

    def around(values: np.ndarray) -> tuple[tuple[int, ...], ...]:
        plane = values[frame, :, :, 0] if channels else values[frame, channel]
        part = plane[tuple(slice(max(0, index - REACH), index + REACH + 1) for index in here)]
        return tuple(tuple(int(value) for value in line) for line in part)

    first_row, first_column = (max(0, index - REACH) for index in here)
    near = Neighbourhood(channels, first_row, first_column, around(expected), around(got))
    right, wrong = (int(values[frame, channel, row, column]) for values in (expected, got))
    return len(places), Difference(layer, frame, channel, row, column, right, wrong, near)
