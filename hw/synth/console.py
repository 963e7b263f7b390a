"""What the reports' tables and progress have in common."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["grouped", "progress_bar"]


def progress_bar(console: Console | None) -> Progress:
    """Progress that counts what is done and goes away at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def grouped(value: float | None, digits: int = 0) -> str:
    """A number with its thousands apart and ``digits`` decimals; nothing for ``None``."""
    return "" if value is None else f"{value:,.{digits}f}".replace(",", "\N{NO-BREAK SPACE}")
