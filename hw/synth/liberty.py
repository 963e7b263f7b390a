"""What synthesis asks of a standard-cell library: its cells' areas, functions and pin capacitances.

Only what decides a mapping is read (delays are left to ABC and OpenSTA), from the Liberty text itself, so that any
library serves without a table of cell names: the full adder, the half adder, the buffer that drives the inputs and the
tie cells are recognised by their functions.
"""

from __future__ import annotations

import gzip
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Adder", "Cell", "LibertyError", "Library", "Pin", "evaluate", "read_text"]


class LibertyError(ValueError):
    """A file that cannot serve as a Liberty library; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A signal pin of a cell.

    Members
    -------
    direction : :class:`str`
        ``input``, ``output`` or another word of the Liberty format.
    function : :class:`str` or ``None``
        The Boolean expression of an output, as written.
    capacitance : :class:`float`
        In femtofarads.
    """

    name: str
    direction: str
    function: str | None = None
    capacitance: float = 0.0
    tristate: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell: its area in the library's unit (µm² in all libraries met so far) and its signal pins.

    ``state`` holds the attributes of its ``ff`` group, ``variables`` the group's two names; both are empty for a
    combinational cell. ``sequential`` is true for latches too.
    """

    name: str
    area: float
    pins: tuple[Pin, ...]
    state: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    sequential: bool = False
    dont_use: bool = False

    @property
    def inputs(self) -> tuple[Pin, ...]:
        """The input pins, in the file's order."""
        return tuple(pin for pin in self.pins if pin.direction == "input")

    @property
    def outputs(self) -> tuple[Pin, ...]:
        """The output pins, in the file's order."""
        return tuple(pin for pin in self.pins if pin.direction == "output")

    @property
    def is_flip_flop(self) -> bool:
        """Whether the cell has an ``ff`` group."""
        return bool(self.state)

    def table(self, output: Pin) -> int:
        """The truth table of a combinational output: bit i is its value where input n has bit n of i."""
        names = [pin.name for pin in self.inputs]
        rows = itertools.product((0, 1), repeat=len(names))
        values = (evaluate(output.function or "0", dict(zip(names, reversed(row)))) for row in rows)
        return sum(value << i for i, value in enumerate(values))


@dataclass(frozen=True, kw_only=True)
class Adder:
    """A full or half adder cell: the pin names, and which of its outputs come inverted."""

    cell: str
    inputs: tuple[str, ...]
    sum: str
    carry: str
    sum_inverted: bool
    carry_inverted: bool


def read_text(path: Path) -> str:
    """The text of a Liberty file, ``.gz`` or plain.

    Raises
    ------
    :class:`LibertyError`
        There is no such file, or its content is no Liberty text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LibertyError(f"Liberty file {str(path)!r} cannot be read: {error.strerror or error}") from None
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", errors="replace")
    except (OSError, EOFError) as error:
        raise LibertyError(f"Liberty file {str(path)!r} cannot be decompressed: {error}") from None
    if not re.search(r"^\s*library\s*\(", text, re.MULTILINE):
        raise LibertyError(f"Liberty file must have a library(...) group, and {str(path)!r} has none")
    return text


_TOKEN = re.compile(
    r"""/\*.*?\*/                                        # a comment
    |(?P<open>[A-Za-z_]\w*)\s*\((?P<args>[^(){};]*)\)\s*\{
    |(?P<key>[A-Za-z_]\w*)\s*:\s*(?P<value>"[^"]*"|[^;\n}]*)
    |(?P<complex>capacitive_load_unit)\s*\((?P<unit>[^)]*)\)
    |"[^"]*"
    |(?P<close>\})""",
    re.VERBOSE | re.DOTALL,
)


def _unquote(text: str) -> str:
    return text.strip().strip('"').strip()


@dataclass
class _Group:
    kind: str
    arguments: list[str]
    attributes: dict[str, str] = field(default_factory=dict)
    groups: list[_Group] = field(default_factory=list)


_KEPT = {"library", "cell", "pin", "ff", "ff_bank", "latch", "latch_bank", "bus", "bundle", "statetable"}


def _parse(text: str) -> _Group:
    """The tree of the groups that matter; attributes of all others are dropped."""
    root = _Group("", [])
    stack = [root]
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "args":
            name = match["open"]
            group = _Group(name, [_unquote(word) for word in match["args"].split(",")])
            if name in _KEPT:
                stack[-1].groups.append(group)
            stack.append(group)
        elif kind == "value":
            stack[-1].attributes[match["key"]] = _unquote(match["value"])
        elif kind == "unit":
            stack[-1].attributes["capacitive_load_unit"] = match["unit"]
        elif kind == "close" and len(stack) > 1:
            stack.pop()
    return root


def _cell(group: _Group, femtofarads: float) -> Cell:
    pins: list[Pin] = []
    state: dict[str, str] = {}
    variables: tuple[str, ...] = ()
    sequential = False
    for inner in group.groups:
        attributes = inner.attributes
        if inner.kind == "pin":
            pins.extend(
                Pin(
                    name=name,
                    direction=attributes.get("direction", "internal"),
                    function=attributes.get("function"),
                    capacitance=float(attributes.get("capacitance", 0)) * femtofarads,
                    tristate="three_state" in attributes,
                )
                for name in inner.arguments
            )
        elif inner.kind == "ff":
            state, variables, sequential = attributes, tuple(inner.arguments), True
        else:
            sequential = True
    return Cell(
        name=group.arguments[0],
        area=float(group.attributes.get("area", 0)),
        pins=tuple(pins),
        state=state,
        variables=variables,
        sequential=sequential,
        dont_use=group.attributes.get("dont_use", "false").lower() == "true",
    )


class Library:
    """The cells of a Liberty text.

    Parameters
    ----------
    text : :class:`str`
        Liberty source, see :func:`read_text`.
    avoid : callable
        Says of a cell's name whether synthesis must not use it, in addition to the cells with ``dont_use``.

    Attributes
    ----------
    name : :class:`str`
        As written in the file.
    cells : mapping of :class:`str` to :class:`Cell`
        All cells, those not to be used included.

    Raises
    ------
    :class:`LibertyError`
        The text has no cells, or a unit of capacitance that is neither fF nor pF.
    """

    def __init__(self, text: str, avoid: Callable[[str], bool] = lambda name: False) -> None:
        libraries = [group for group in _parse(text).groups if group.kind == "library"]
        if not libraries:
            raise LibertyError("Liberty text must have a library(...) group")
        library = libraries[0]
        self.name = library.arguments[0]
        amount, _, unit = library.attributes.get("capacitive_load_unit", "1,pf").partition(",")
        try:
            femtofarads = float(_unquote(amount)) * {"ff": 1.0, "pf": 1000.0}[_unquote(unit).lower()]
        except (KeyError, ValueError):
            raise LibertyError(f"Liberty unit of capacitance must be ff or pf, not {unit.strip()!r}") from None
        self.cells = {c.name: c for c in (_cell(g, femtofarads) for g in library.groups if g.kind == "cell")}
        if not self.cells:
            raise LibertyError(f"Liberty library {self.name!r} must have cells")
        self._avoid = avoid

    def _usable(self) -> list[Cell]:
        """Cells that synthesis may use, smallest first; ties by name, so that a choice never changes."""
        usable = (cell for cell in self.cells.values() if not cell.dont_use and not self._avoid(cell.name))
        return sorted(usable, key=lambda cell: (cell.area, cell.name))

    def _combinational(self, inputs: int, outputs: int) -> Iterator[Cell]:
        for cell in self._usable():
            if (
                not cell.sequential
                and len(cell.inputs) == inputs
                and len(cell.outputs) == outputs
                and len(cell.pins) == inputs + outputs
                and all(pin.function and not pin.tristate for pin in cell.outputs)
            ):
                yield cell

    def _adder(self, inputs: int, sum_table: int, carry_table: int) -> Adder | None:
        mask = (1 << (1 << inputs)) - 1
        for cell in self._combinational(inputs, 2):
            for total, carry in itertools.permutations(cell.outputs):
                tables = cell.table(total), cell.table(carry)
                if tables[0] in (sum_table, sum_table ^ mask) and tables[1] in (carry_table, carry_table ^ mask):
                    return Adder(
                        cell=cell.name,
                        inputs=tuple(pin.name for pin in cell.inputs),
                        sum=total.name,
                        carry=carry.name,
                        sum_inverted=tables[0] != sum_table,
                        carry_inverted=tables[1] != carry_table,
                    )
        return None

    @property
    def full_adder(self) -> Adder | None:
        """The smallest cell with the sum and the majority of three inputs, either of them possibly inverted."""
        return self._adder(3, 0b10010110, 0b11101000)

    @property
    def half_adder(self) -> Adder | None:
        """The smallest cell with the exclusive or and the and of two inputs, either of them possibly inverted."""
        return self._adder(2, 0b0110, 0b1000)

    def smallest(self, inputs: int, table: int) -> Cell | None:
        """The smallest combinational cell of one output with this truth table (see :meth:`Cell.table`)."""
        return next((c for c in self._combinational(inputs, 1) if c.table(c.outputs[0]) == table), None)

    @property
    def flip_flops(self) -> tuple[Cell, ...]:
        """The usable cells with an ``ff`` group, smallest first."""
        return tuple(cell for cell in self._usable() if cell.is_flip_flop)

    @property
    def driver(self) -> Cell:
        """What is assumed to drive the inputs: a buffer one size above the smallest (else an inverter).

        Raises
        ------
        :class:`LibertyError`
            The library has neither.
        """
        buffers = [cell for cell in self._combinational(1, 1) if cell.table(cell.outputs[0]) == 0b10]
        inverters = [cell for cell in self._combinational(1, 1) if cell.table(cell.outputs[0]) == 0b01]
        for candidates in (buffers, inverters):
            if candidates:
                return next((cell for cell in candidates if cell.area > candidates[0].area), candidates[0])
        raise LibertyError(f"Liberty library {self.name!r} must have a buffer or an inverter")

    @property
    def load(self) -> float:
        """What is assumed to hang on the outputs, in femtofarads: a full adder's input, else a driver's."""
        adder = self.full_adder
        cell = self.cells[adder.cell] if adder else self.driver
        return round(max(pin.capacitance for pin in cell.inputs), 3)

    def tie(self, value: int) -> tuple[str, str] | None:
        """Cell and pin of the smallest tie cell of the constant ``value`` (``dont_use`` is usual on these)."""
        for cell in sorted(self.cells.values(), key=lambda cell: (cell.area, cell.name)):
            if not cell.sequential and not cell.inputs:
                for pin in cell.outputs:
                    if pin.function == str(value):
                        return cell.name, pin.name
        return None


_WORD = re.compile(r"\s*([A-Za-z_]\w*|[01!'&*|+^()])")


def evaluate(function: str, values: Mapping[str, Any]) -> Any:
    """The value, 0 or 1, of a Liberty Boolean expression: ``! ' & * | + ^ ( )``, and side by side for *and*.

    ``values`` may be anything else that has ``& | ^`` and can be subtracted from 1, arrays of bits say.

    Raises
    ------
    :class:`LibertyError`
        The expression is malformed or names an unknown pin.
    """
    words = _WORD.findall(function)
    if "".join(words) != re.sub(r"\s", "", function):
        raise LibertyError(f"Liberty function {function!r} must be a Boolean expression")
    position = 0

    def peek() -> str:
        return words[position] if position < len(words) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return words[position - 1] if position <= len(words) else ""

    def primary() -> Any:
        word = take()
        if word == "!":
            return 1 - primary()
        if word == "(":
            value = disjunction()
            if take() != ")":
                raise LibertyError(f"Liberty function {function!r} must have matching parentheses")
        elif word in ("0", "1"):
            value = int(word)
        elif word in values:
            value = values[word]
        else:
            raise LibertyError(f"Liberty function {function!r} must name input pins only, not {word!r}")
        while peek() == "'":
            take()
            value = 1 - value
        return value

    def exclusive() -> Any:
        value = primary()
        while peek() == "^":
            take()
            value = value ^ primary()
        return value

    def conjunction() -> Any:
        value = exclusive()
        while peek() not in ("", "|", "+", ")"):
            if peek() in ("&", "*"):
                take()
            value = value & exclusive()
        return value

    def disjunction() -> Any:
        value = conjunction()
        while peek() in ("|", "+"):
            take()
            value = value | conjunction()
        return value

    result = disjunction()
    if position != len(words):
        raise LibertyError(f"Liberty function {function!r} must have matching parentheses")
    return result
