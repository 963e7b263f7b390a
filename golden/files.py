"""Files that appear whole or not at all, and tables that name the command that made them."""
from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["write_atomically", "write_csv", "write_table"]


def write_atomically(path: Path, contents: bytes) -> None:
    """Replace a file in one piece: whenever the process or the machine stops, the old or the new one is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[object]], *, command: str | None = None
              ) -> None:
    """Write a table in one piece: the columns' names, then a line for each row.

    The first line, a comment, names the command that made the file, if there is one.
    """
    text = io.StringIO()
    if command is not None:
        text.write(f"# {command}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_table(rows: Sequence[Any], path: Path, *, command: str | None = None, digits: int | None = None) -> None:
    """:func:`write_csv` of frozen dataclasses of one class, at least one: a column for each field.

    Floats have ``digits`` significant digits, or all of theirs; what is ``None`` is empty.
    """
    def cell(value: Any) -> object:
        if value is None:
            return ""
        return f"{value:.{digits}g}" if isinstance(value, float) and digits is not None else value

    names = [field.name for field in dataclasses.fields(rows[0])]
    write_csv(path, names, ([cell(getattr(row, name)) for name in names] for row in rows), command=command)
