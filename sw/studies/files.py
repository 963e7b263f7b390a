"""Tables that name the command that made them."""
from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["write_table"]


def write_table(rows: Sequence[Any], path: Path, *, command: str) -> None:
    """Write one line per row, a frozen dataclass; the first line, a comment, names the command that made the file.

    Numbers have 6 significant digits, what is ``None`` is empty.
    """
    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {command}\n")
        writer = csv.writer(file, lineterminator="\n")
        names = [field.name for field in dataclasses.fields(rows[0])]
        writer.writerow(names)
        writer.writerows([cell(getattr(row, name)) for name in names] for row in rows)
