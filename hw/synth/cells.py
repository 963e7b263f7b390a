"""Verilog models of a library's cells, made of their functions in the Liberty alone: netlists simulate with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hw.synth.liberty import Cell, LibertyError, Library, evaluate

__all__ = ["cell_models", "clock_pin"]


@dataclass(frozen=True)
class _Text:
    """A Verilog expression that :func:`~hw.synth.liberty.evaluate` calculates with as if it were a bit."""

    text: str

    def __and__(self, other: _Text | int) -> _Text:
        return _Text(f"({self.text} & {_text(other)})")

    def __or__(self, other: _Text | int) -> _Text:
        return _Text(f"({self.text} | {_text(other)})")

    def __xor__(self, other: _Text | int) -> _Text:
        return _Text(f"({self.text} ^ {_text(other)})")

    def __rsub__(self, one: int) -> _Text:
        return _Text(f"(~{self.text})")

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__


def _text(value: _Text | int) -> str:
    return value.text if isinstance(value, _Text) else f"1'b{value}"


def _expression(function: str, cell: Cell, names: Iterable[str]) -> str:
    try:
        return _text(evaluate(function, {name: _Text(name) for name in names}))
    except LibertyError as error:
        raise LibertyError(f"Cell {cell.name!r} cannot be simulated: {error}") from None


def clock_pin(cell: Cell) -> tuple[str, bool]:
    """The clock pin of a flip-flop, and whether it is the rising edge that counts.

    Raises
    ------
    :class:`~hw.synth.liberty.LibertyError`
        The clock is more than a pin or its complement.
    """
    clock = cell.state.get("clocked_on", "")
    found = re.fullmatch(r"(!?)(\w+)('?)", re.sub(r"[\s()]", "", clock))
    if found is None:
        raise LibertyError(f"Flip-flop {cell.name!r} must be clocked by a pin, not {clock!r}")
    return found[2], not (found[1] or found[3])


def _model(cell: Cell, *, delays: bool) -> str:
    inputs = [pin.name for pin in cell.inputs]
    ports = ", ".join(f"{pin.direction} {pin.name}" for pin in (*cell.inputs, *cell.outputs))
    lines = [f"module {cell.name}({ports});"]
    paths = []
    if cell.sequential and not cell.is_flip_flop:
        raise LibertyError(f"Cell {cell.name!r} must be combinational or a flip-flop, to be simulated")
    if cell.is_flip_flop:
        clock, rising = clock_pin(cell)
        state = cell.variables[0]
        complement = f"  wire {cell.variables[1]} = ~{state};" if len(cell.variables) > 1 else ""
        names = [*inputs, *cell.variables]
        following = _expression(cell.state["next_state"], cell, names)
        edges, assignment = [f"{'pos' if rising else 'neg'}edge {clock}"], f"{state} <= {following};"
        lines += [f"  reg {state};", f"  initial {state} = $random;", *([complement] if complement else [])]
        for event, value in (("preset", 1), ("clear", 0)):
            if event in cell.state:
                lines.append(f"  wire when_{event} = {_expression(cell.state[event], cell, inputs)};")
                edges.append(f"posedge when_{event}")
                assignment = f"if (when_{event}) {state} <= 1'b{value}; else {assignment}"
        lines.append(f"  always @({' or '.join(edges)}) {assignment}")
        paths = [f"({clock} => {pin.name}) = 0;" for pin in cell.outputs]
    else:
        names = inputs
        paths = [f"({i} => {pin.name}) = 0;" for pin in cell.outputs for i in inputs]
    lines += [f"  assign {pin.name} = {_expression(pin.function or '', cell, names)};" for pin in cell.outputs]
    if delays and paths:
        lines += ["  specify", *(f"    {path}" for path in paths), "  endspecify"]
    return "\n".join([*lines, "endmodule", ""])


def cell_models(library: Library, names: Iterable[str], *, delays: bool = False) -> str:
    """Verilog modules of the cells ``names``; flip-flops begin with random values.

    Parameters
    ----------
    delays : :class:`bool`
        Whether the modules have a path from every input to every output, each of delay 0 until an SDF file says
        otherwise.

    Raises
    ------
    :class:`~hw.synth.liberty.LibertyError`
        A cell is neither combinational nor a flip-flop, or its function is malformed; the sentence names it.
    """
    return "".join(_model(library.cells[name], delays=delays) for name in names)
