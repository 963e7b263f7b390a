"""The matrix of imports: which files of a folder run here, how exactly, and why the others are refused.

One line a file, in a form to be pasted into a bug report: operators, bits, and whether the codes are those of the
file's own executor (:mod:`golden.onnx_import.agreement`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from golden.files import write_atomically, write_table
from golden.network import Conv2d, IntegerNetwork, Kind
from golden.onnx_import import Import, UnsupportedModelError, load
from golden.onnx_import.agreement import Agreement, compare, executor

__all__ = ["Row", "draw", "files", "report", "row", "write"]

PACKAGES = ("onnx", "onnxruntime", "qonnx", "brevitas", "numpy")
HEADINGS = {
    "file": "file",
    "operators": "operators",
    "weight_bits": "W bits",
    "activation_bits": "A bits",
    "executor": "executor",
    "codes": "codes",
    "status": "status",
}


KINDS = {"exact": "exact", "differs": "differ", "refused": "refused", "not compared": "not compared"}
"""How a status begins, and how it is counted."""


@dataclass(frozen=True)
class Row:
    """One file.

    Members
    -------
    file, operators : :class:`str`
        Its name in the folder, and how many nodes of which operators it has.
    weight_bits, activation_bits : :class:`str`
        Of the network's weights, and of its codes, the input's first; empty where it is refused.
    executor : :class:`str`
        Who computes it besides golden.
    frames, tensors, codes : :class:`int`
        Inputs, tensors and codes that were compared.
    differing, ties, inexact, unexplained : :class:`int`
        As in :class:`~golden.onnx_import.agreement.Agreement`.
    status : :class:`str`
        "exact", "differs in ...", "refused: ..." or "not compared: ...".
    notices : :class:`str`
        What the importer says about it.
    example : :class:`str`
        The first code that differs, of the worst kind there is.
    """

    file: str
    operators: str
    weight_bits: str
    activation_bits: str
    executor: str
    frames: int
    tensors: int
    codes: int
    differing: int
    ties: int
    inexact: int
    unexplained: int
    status: str
    notices: str
    example: str


def files(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """All .onnx files of folders, with a name for each: its place in the folder, whose name is there if several are.

    A file may be given itself.
    """
    found = []
    for folder in folders:
        paths = [folder] if folder.is_file() else sorted(folder.rglob("*.onnx"))
        if not paths:
            raise ValueError(f"Folder {str(folder)!r} must have .onnx files")
        root = folder.parent if folder.is_file() or len(folders) > 1 else folder
        found += [(path.relative_to(root).as_posix(), path) for path in paths]
    return found


def row(name: str, path: Path, *, frames: int, seed: int = 0, input_range: tuple[int, int] | None = None) -> Row:
    """Import a file and compare it with its executor on ``frames`` random inputs."""
    try:
        model = onnx.load(path)
        operators, who = _operators(model), executor(model)
    except Exception:  # not readable as a model: the importer says why
        model, operators, who = None, "", ""
    try:
        result = load(path, input_range=input_range)
    except UnsupportedModelError as error:
        return _row(name, operators, who, f"refused: {error}")
    bits = _weight_bits(result.network), _activation_bits(result.network)
    notices = tuple(result.notices)
    assert model is not None
    try:
        agreement = compare(result, model, draw(result, model, frames, seed=seed))
    except Exception as error:  # ONNX Runtime and qonnx raise what they like
        return _row(name, operators, who, f"not compared: {who} cannot run it: {_line(error)}", bits, notices)
    return _row(name, operators, who, agreement.status(), bits, notices, agreement)


def _row(
    name: str,
    operators: str,
    who: str,
    status: str,
    bits: tuple[str, str] = ("", ""),
    notices: Sequence[str] = (),
    agreement: Agreement | None = None,
) -> Row:
    counts, example = (0,) * 7, ""
    if agreement is not None:
        worst = sorted(agreement.layers, key=lambda layer: (layer.unexplained, layer.inexact, layer.ties))
        example = worst[-1].example if worst else ""
        counts = (
            agreement.frames,
            len(agreement.layers),
            agreement.codes,
            agreement.differing,
            agreement.ties,
            agreement.inexact,
            agreement.unexplained,
        )
    return Row(name, operators, *bits, who, *counts, status, " ".join(notices), example)


def draw(result: Import, model: onnx.ModelProto, frames: int, *, seed: int = 0) -> np.ndarray:
    """Random inputs (N, ...) of a file, in its own form and type, over all that its input quantizer tells apart."""
    rng = np.random.default_rng(seed)
    form = result.input_form
    constants = {each.name for each in model.graph.initializer}
    given = next(each for each in model.graph.input if each.name not in constants)
    dtype = helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    shape = (frames, *form.sizes)
    if form.levels is None:
        return rng.integers(form.low, form.high, shape, endpoint=True).astype(dtype)
    # The numbers beyond which all codes are the first or the last: sought among powers of the square root of 2.
    positive = 2.0 ** (np.arange(-40, 41) / 2)
    ladder = np.concatenate([-positive[::-1], [0.0], positive])
    constant_frames = np.broadcast_to(ladder.reshape(-1, *(1,) * len(form.sizes)), (len(ladder), *form.sizes))
    codes = result.encode(constant_frames.astype(np.float32)).reshape(len(ladder), -1).astype(np.int64)
    low = ladder[(codes == codes[0]).all(axis=1)].max()
    high = ladder[(codes == codes[-1]).all(axis=1)].min()
    return rng.uniform(min(low, high), max(low, high), shape).astype(dtype)


def report(
    folders: Sequence[Path],
    *,
    frames: int = 100,
    seed: int = 0,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    console: Console | None = None,
) -> list[Row]:
    """A row for each file of the folders.

    Parameters
    ----------
    folders : sequence of paths
        Folders with .onnx files, or such files.
    frames, seed : :class:`int`
        Random inputs of each file.
    ranges : mapping
        Integers that the input holds, by file name without its ending; "" for all others.
    """
    if frames < 1:
        raise ValueError(f"Frames must be at least 1, not {frames}")
    ranges = ranges or {}
    found = files(folders)
    steps: Iterator[tuple[str, Path]] | list[tuple[str, Path]] = found
    if console is not None and console.is_terminal:
        steps = iter(track(found, "importing", console=console, transient=True))
    rows = []
    for name, path in steps:
        chosen = ranges.get(path.stem, ranges.get(""))
        rows.append(row(name, path, frames=frames, seed=seed, input_range=chosen))
    return rows


def write(rows: Sequence[Row], stem: Path, *, command: str, console: Console | None = None) -> list[Path]:
    """Print the table, and write it as ``stem``.csv and ``stem``.md."""
    if console is not None:
        console.width = max(console.width, 140)
        console.print(_table(rows))
    paths = [stem.with_suffix(".csv"), stem.with_suffix(".md")]
    write_table(rows, paths[0], command=command)
    write_atomically(paths[1], markdown(rows, command=command).encode())
    return paths


LEGEND = """\
Every file is imported, and every tensor that the import names is compared with the file's own executor, ONNX Runtime
(graph optimizations off) or qonnx, on random inputs that reach all codes of the input. Each operation is given the
executor's own codes, so that a difference is its own and not a consequence.

* *exact*: all codes are equal, and the output's accumulators are the executor's numbers within float32's error.
* *float32 ties*: the executor computes in float32 and golden in exact numbers. These codes are within a proven bound of
  float32's error of where the code changes, and golden's is the correct one.
* *no constants give them*: the file rounds as no multiplier, bias and shift do, behind a residual sum. The import says
  for how many accumulators.
* *refused*: with the sentence that says where and why."""


def markdown(rows: Sequence[Row], *, command: str) -> str:
    """The matrix as Markdown: what ran where, a table of what runs, and one of what is refused and why."""
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    runs, refused = ([each for each in rows if each.status.startswith("refused") is side] for side in (False, True))
    lines = [
        "# Import matrix",
        "",
        f"    {command}",
        "",
        LEGEND,
        "",
        f"pactolus {_version('pactolus')}; {packages}.",
        "",
        f"{_count(rows)} {sum(each.codes for each in rows):,} codes were compared: "
        f"{sum(each.ties for each in rows):,} are float32 ties, no constants give "
        f"{sum(each.inexact for each in rows):,}, and {sum(each.unexplained for each in rows):,} differ without a "
        "reason.",
    ]
    for title, part in (("Runs", runs), ("Refused", refused)):
        if not part:
            continue
        names = [n for n in HEADINGS if part is runs or n in ("file", "operators", "status")]
        lines += ["", f"## {title}", "", _line_of(HEADINGS[n] for n in names), _line_of("---" for _ in names)]
        lines += [_line_of(_cell(each, name) for name in names) for each in part]
    for title, field in (("First difference", "example"), ("Notices", "notices")):
        said = [each for each in runs if getattr(each, field)]
        if said:
            lines += ["", f"## {title}", ""]
            lines += [f"* `{each.file}`: {_escaped(getattr(each, field))}" for each in said]
    return "\n".join(lines) + "\n"


def _count(rows: Sequence[Row]) -> str:
    kinds = Counter(next(kind for kind in KINDS if each.status.startswith(kind)) for each in rows)
    return f"{len(rows)} files: " + ", ".join(f"{kinds[k]} {said}" for k, said in KINDS.items() if kinds[k]) + "."


def _cell(each: Row, name: str) -> str:
    value = getattr(each, name)
    if name == "codes":
        return f"{value:,}"
    text = _escaped(str(value).removeprefix("refused: "))
    return f"`{text}`" if name == "file" else text


def _line_of(cells: Iterator[str] | Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=_count(rows), box=box.SIMPLE_HEAD, title_justify="left")
    for name, heading in HEADINGS.items():
        if name not in ("operators", "executor"):
            table.add_column(heading, justify="right" if name == "codes" else "left", overflow="fold")
    for each in rows:
        style = "" if each.status == "exact" else "yellow" if not each.unexplained else "red"
        table.add_row(each.file, each.weight_bits, each.activation_bits, f"{each.codes:,}", each.status, style=style)
    return table


def _operators(model: onnx.ModelProto) -> str:
    counts = Counter(node.op_type for node in model.graph.node if node.op_type != "Constant")
    return ", ".join(f"{kind}×{count}" if count > 1 else kind for kind, count in sorted(counts.items()))


def _weight_bits(network: IntegerNetwork) -> str:
    # A sum, a mean or a rescaling is a convolution whose weights are all 1: no weights of the file's.
    bits = [op.bits for op in network.operations if isinstance(op, Conv2d) and not (op.weights == 1).all()]
    return ", ".join(map(str, dict.fromkeys(bits)))


def _activation_bits(network: IntegerNetwork) -> str:
    tensors = [network.input, *(network.tensor(op.output) for op in network.operations)]
    return ", ".join(map(str, dict.fromkeys(t.bits for t in tensors if t.kind is Kind.CODE)))


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return ""
