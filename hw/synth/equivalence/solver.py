"""SAT: many pairs of literals at once, by ABC's combinational equivalence checker."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hw.synth.equivalence.aig import Aig

__all__ = ["Different", "Undecided", "compare"]

CASES = 512
"""Random assignments that are tried before the solver is asked."""

CONFLICTS = 1_000_000_000
"""More than there is time for."""


class Different(Exception):
    """Two literals differ; ``index`` says which pair."""

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(index)


class Undecided(Exception):
    """The solver has not ended in its time."""


def compare(aig: Aig, pairs: Sequence[tuple[int, int]], *, seconds: float) -> int:
    """Prove that the literals of each pair are equal, and return for how many of them the solver was needed.

    Raises
    ------
    :class:`Different`
        A pair is not.
    :class:`Undecided`
        The solver has not ended in ``seconds``.
    """
    indices = [index for index, (a, b) in enumerate(pairs) if a != b]
    if not indices:
        return 0
    left = [pairs[index][0] for index in indices]
    right = [pairs[index][1] for index in indices]
    inputs = [node for node in aig.cone(left + right) if node in aig.names]
    draw = random.Random(0)
    words = {node: draw.getrandbits(CASES) for node in inputs}
    values = aig.simulate(left + right, words, (1 << CASES) - 1)
    for index, a, b in zip(indices, values[: len(left)], values[len(left) :], strict=True):
        if a != b:
            raise Different(index)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "left.aig").write_bytes(aig.aiger(left, inputs))
        (folder / "right.aig").write_bytes(aig.aiger(right, inputs))
        command = f"&r left.aig; &cec -T {max(1, round(seconds))} -C {CONFLICTS} right.aig"
        try:
            process = subprocess.run(
                [_abc(), "-c", command], cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise Undecided from None
    if re.search(r"^Networks are equivalent", process.stdout, re.MULTILINE):
        return len(indices)
    match = re.search(r"zero-based number (\d+)", process.stdout)
    if match:
        raise Different(indices[int(match[1])])
    raise Undecided


def _abc() -> str:
    """The program that comes with pyosys."""
    package = importlib.util.find_spec("pyosys")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'pyosys'", name="pyosys")
    return str(Path(package.origin).with_name("yosys-abc"))
