"""Netlists as next-state and output functions, with their adders either kept as boxes or opened.

A :class:`Design` is read from generated Verilog (:func:`read_rtl`) or from a mapped netlist (:func:`read_mapped`);
both name ports, registers and adders alike, so that what stands for the same thing has the same name.
"""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hw.synth.equivalence.aig import FALSE, TRUE, Aig
from hw.synth.flow import run_yosys
from hw.synth.liberty import Cell, Library, evaluate
from hw.synth.netlist import FlatNetlist

__all__ = ["Box", "Circuit", "Design", "DesignError", "adder_polarity", "read_mapped", "read_rtl"]

Net = int | str
"""A number, or ``"0"``, ``"1"``, ``"x"``."""


class DesignError(ValueError):
    """A netlist that cannot be reasoned about; the message is one sentence."""


class Gate(NamedTuple):
    """A truth table over nets: bit i is the value where input n has bit n of i."""

    inputs: tuple[Any, ...]
    table: int


@dataclass(frozen=True, kw_only=True)
class Register:
    """A flip-flop: its nets, each with whether it is complemented, its next state, and what must never be true."""

    nets: tuple[tuple[Net, bool], ...]
    next: Gate
    never: tuple[Gate, ...] = ()
    clock: Net


class Polarity(NamedTuple):
    """Which sides of an adder are complemented."""

    inputs: bool
    sum: bool
    carry: bool


@dataclass(frozen=True, kw_only=True)
class Adder:
    """A full or half adder: ``sum(inputs) == 2*carry + sum``, polarities applied."""

    inputs: tuple[Net, ...]
    sum: Net
    carry: Net
    polarity: Polarity
    kind: str


@dataclass(frozen=True, kw_only=True)
class Box:
    """A kept adder: ``sum(weight * input) == sum(weight * output)``, modulo ``2**modulus`` if that is given.

    Inputs are literals, outputs nodes of inputs of the graph.
    """

    name: str
    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    modulus: int | None = None


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """A design in a graph, whose inputs are the ports, the registers and the outputs of the kept adders.

    Members
    -------
    registers, outputs : mapping of :class:`str` to :class:`int`
        The literals of the registers' next states and of the output ports' bits.
    boxes : mapping of :class:`str` to :class:`Box`
        The kept adders.
    """

    aig: Aig
    registers: Mapping[str, int]
    outputs: Mapping[str, int]
    boxes: Mapping[str, Box]


@dataclass(kw_only=True)
class Design:
    """A flat netlist; bits are named ``signal[index]``.

    Members
    -------
    aliases : mapping of :class:`str` to :class:`str`
        The register's name in :attr:`registers` by each name that its net has.
    words : mapping
        Word adders: the nets of both operands and of the result.
    """

    inputs: dict[Net, str] = field(default_factory=dict)
    outputs: dict[str, Net] = field(default_factory=dict)
    registers: dict[str, Register] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    gates: dict[Any, Gate] = field(default_factory=dict)
    adders: dict[str, Adder] = field(default_factory=dict)
    words: dict[str, tuple[tuple[Net, ...], tuple[Net, ...], tuple[Net, ...]]] = field(default_factory=dict)

    def build(self, aig: Aig, keep: Collection[str], zero: Collection[str] = ()) -> Circuit:
        """The circuit in ``aig`` with the adders and word adders named in ``keep`` as boxes, the others opened.

        The registers ``zero`` are taken to hold 0.

        Raises
        ------
        :class:`DesignError`
            A net has no driver, there is a combinational loop, or registers have unlike clocks, or an asynchronous
            set or reset that is not tied off.
        """
        literals: dict[Any, int] = {"0": FALSE, "1": TRUE}
        for net, name in self.inputs.items():
            literals[net] = aig.input(name)
        for name, register in self.registers.items():
            for net, inverted in register.nets:
                literals[net] = (FALSE if name in zero else aig.input(name)) ^ inverted
        gates = dict(self.gates)
        for name, adder in self.adders.items():
            if name in keep:
                literals[adder.sum] = aig.input(f"{name}/sum") ^ adder.polarity.sum
                literals[adder.carry] = aig.input(f"{name}/carry") ^ adder.polarity.carry
            else:
                gates |= _opened(adder)
        for name, (a, b, y) in self.words.items():
            if name in keep:
                for index, net in enumerate(y):
                    literals[net] = aig.input(f"{name}/{index}")
            else:
                gates |= _opened_word(name, a, b, y)

        def find(net: Any) -> int:
            return _resolve(aig, net, gates, literals)

        boxes = {}
        for name, adder in self.adders.items():
            if name in keep:
                boxes[name] = Box(
                    name=name,
                    inputs=tuple((find(net) ^ adder.polarity.inputs, 1) for net in adder.inputs),
                    outputs=(
                        (aig.inputs[f"{name}/sum"] >> 1, 1),
                        (aig.inputs[f"{name}/carry"] >> 1, 2),
                    ),
                )
        for name, (a, b, y) in self.words.items():
            if name in keep:
                boxes[name] = Box(
                    name=name,
                    inputs=tuple((find(net), 1 << index) for word in (a, b) for index, net in enumerate(word)),
                    outputs=tuple((aig.inputs[f"{name}/{index}"] >> 1, 1 << index) for index in range(len(y))),
                    modulus=None if len(y) > max(len(a), len(b)) else len(y),
                )
        registers = {}
        clocks = {register.clock for register in self.registers.values()}
        if len(clocks) > 1 or not all(self.inputs.get(clock) == "clk[0]" for clock in clocks):
            raise DesignError("Registers must all have the clock clk itself")
        for name, register in self.registers.items():
            for gate in register.never:
                if aig.of_table(gate.table, [find(net) for net in gate.inputs]) != FALSE:
                    raise DesignError(f"Register {name!r} must have its asynchronous set and reset tied off")
            registers[name] = aig.of_table(register.next.table, [find(net) for net in register.next.inputs])
        return Circuit(
            aig=aig,
            registers=registers,
            outputs={name: find(net) for name, net in self.outputs.items()},
            boxes=boxes,
        )


def _resolve(aig: Aig, wanted: Any, gates: Mapping[Any, Gate], literals: dict[Any, int]) -> int:
    """The literal of a net; ``literals`` remembers those found on the way."""
    if wanted in literals:
        return literals[wanted]
    stack = [wanted]
    open_nets = set()
    while stack:
        net = stack[-1]
        if net in literals:
            stack.pop()
            continue
        if net not in gates:
            raise DesignError(f"Net {net!r} must have a driver")
        gate = gates[net]
        missing = [source for source in gate.inputs if source not in literals]
        if not missing:
            literals[net] = aig.of_table(gate.table, [literals[source] for source in gate.inputs])
            stack.pop()
            continue
        if net in open_nets:
            raise DesignError(f"Net {net!r} must not depend on itself")
        open_nets.add(net)
        stack += missing
    return literals[wanted]


XOR = {2: 0b0110, 3: 0b10010110}
MAJORITY = {2: 0b1000, 3: 0b11101000}


def adder_polarity(inputs: int, sum_table: int, carry_table: int) -> Polarity | None:
    """How two truth tables add 2 or 3 inputs, or ``None`` if they do not; every assignment is looked at."""
    for polarity in itertools.starmap(Polarity, itertools.product((False, True), repeat=3)):
        for row in range(1 << inputs):
            bits = [(row >> n & 1) ^ polarity.inputs for n in range(inputs)]
            total = ((sum_table >> row & 1) ^ polarity.sum) + 2 * ((carry_table >> row & 1) ^ polarity.carry)
            if sum(bits) != total:
                break
        else:
            return polarity
    return None


def _opened(adder: Adder) -> dict[Any, Gate]:
    """An adder as two gates."""
    count = len(adder.inputs)
    full = (1 << (1 << count)) - 1
    tables = []
    for table, inverted in ((XOR[count], adder.polarity.sum), (MAJORITY[count], adder.polarity.carry)):
        if adder.polarity.inputs:
            table = sum((table >> (row ^ ((1 << count) - 1)) & 1) << row for row in range(1 << count))
        tables.append(table ^ full if inverted else table)
    return {adder.sum: Gate(adder.inputs, tables[0]), adder.carry: Gate(adder.inputs, tables[1])}


def _opened_word(name: str, a: Sequence[Net], b: Sequence[Net], y: Sequence[Net]) -> dict[Any, Gate]:
    """A word adder as a ripple-carry adder, whose carries are nets of their own."""
    gates: dict[Any, Gate] = {}
    carry: Any = "0"
    for index, net in enumerate(y):
        operands = tuple(word[index] if index < len(word) else "0" for word in (a, b))
        gates[net] = Gate((*operands, carry), XOR[3])
        gates[name, index + 1] = Gate((*operands, carry), MAJORITY[3])
        carry = (name, index + 1)
    return gates


_GATES = {
    "$_BUF_": ("A", 0b10),
    "$_NOT_": ("A", 0b01),
    "$_AND_": ("AB", 0b1000),
    "$_NAND_": ("AB", 0b0111),
    "$_OR_": ("AB", 0b1110),
    "$_NOR_": ("AB", 0b0001),
    "$_XOR_": ("AB", 0b0110),
    "$_XNOR_": ("AB", 0b1001),
    "$_ANDNOT_": ("AB", 0b0010),
    "$_ORNOT_": ("AB", 0b1011),
    "$_MUX_": ("ABS", 0b11001010),
}
"""Yosys's gates: input pins and truth table."""

_MODULE = re.compile(r"(?:\w+_)?(full|half)_adders_\d+$")


def _gate(design: Design, kind: str, pins: Mapping[str, Net]) -> bool:
    """Take a gate of Yosys's into ``design``; false if it is none."""
    if kind not in _GATES:
        return False
    names, table = _GATES[kind]
    design.gates[pins["Y"]] = Gate(tuple(pins[name] for name in names), table)
    return True


def _names(names: Mapping[str, Sequence[Net]]) -> dict[Net, list[str]]:
    """All names of every net, those with fewer dots first."""
    found: dict[Net, list[str]] = {}
    for name, nets in sorted(names.items(), key=lambda item: (item[0].startswith("$"), item[0].count("."), item[0])):
        for index, net in enumerate(nets):
            found.setdefault(net, []).append(f"{name}[{index}]")
    return found


def _ports(design: Design, ports: Iterable[tuple[str, str, Sequence[Net]]]) -> None:
    for name, direction, nets in ports:
        for index, net in enumerate(nets):
            if direction == "input":
                design.inputs[net] = f"{name}[{index}]"
            else:
                design.outputs[f"{name}[{index}]"] = net


def _adder_module(name: str, module: dict[str, Any]) -> list[tuple[tuple[str, ...], Polarity]]:
    """The ports and polarity of each bit of a module of adders.

    Raises
    ------
    :class:`DesignError`
        One of them does not add.
    """
    inputs = tuple(port for port in ("a", "b", "c") if port in module["ports"])
    inner = Design()
    _ports(inner, [(port, value["direction"], value["bits"]) for port, value in module["ports"].items()])
    for cell, content in module["cells"].items():
        pins = {pin: bits[0] for pin, bits in content["connections"].items()}
        if content["type"] != "$scopeinfo" and not _gate(inner, content["type"], pins):
            raise DesignError(f"Adder module {name!r} must be of gates, and has a {content['type']} {cell!r}")
    aig = Aig()
    circuit = inner.build(aig, ())
    bits = []
    for index in range(len(module["ports"]["sum"]["bits"])):
        literals = [aig.input(f"{port}[{index}]") for port in inputs]
        tables = []
        for port in ("sum", "carry"):
            output = circuit.outputs[f"{port}[{index}]"]
            if not set(aig.support(output)) <= {literal >> 1 for literal in literals}:
                raise DesignError(f"Adder {index} of module {name!r} must depend on its own inputs only")
            tables.append(_table(aig, output, literals))
        polarity = adder_polarity(len(inputs), *tables)
        if polarity is None:
            raise DesignError(f"Adder {index} of module {name!r} must add its inputs, and does not")
        bits.append((inputs, polarity))
    return bits


def _table(aig: Aig, literal: int, inputs: Sequence[int]) -> int:
    """The truth table of ``literal`` over ``inputs``."""
    size = 1 << len(inputs)
    table = 0
    for row in range(size):
        words = {node >> 1: row >> n & 1 for n, node in enumerate(inputs)}
        table |= aig.simulate([literal], words, 1)[0] << row
    return table


_RTL = """\
read_verilog design.v
hierarchy -check -top {top}
proc
setattr -mod -set keep_hierarchy 1 *_adders_*
flatten
simplemap
clean
write_json rtl.json
"""


def read_rtl(verilog: str, top: str) -> Design:
    """The module ``top`` of generated Verilog as it is written: no optimization, adder modules and additions kept.

    Every adder of every adder module is tried on all assignments of its inputs.

    Raises
    ------
    :class:`DesignError`
        There are cells that are not known here, or an adder module does not add.
    :class:`~hw.synth.flow.SynthesisError`
        Yosys cannot read the Verilog.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "design.v").write_text(verilog)
        (folder / "rtl.ys").write_text(_RTL.format(top=top))
        run_yosys("rtl.ys", folder, top)
        modules = json.loads((folder / "rtl.json").read_text())["modules"]
    return _rtl_design(modules, top)


def _rtl_design(modules: dict[str, Any], top: str) -> Design:
    module = modules[top]
    design = Design()
    _ports(design, [(name, port["direction"], port["bits"]) for name, port in module["ports"].items()])
    names = _names({name: net["bits"] for name, net in module["netnames"].items()})
    kinds = {name: _adder_module(name, inner) for name, inner in modules.items() if _MODULE.match(name)}
    for name, cell in module["cells"].items():
        kind, pins = cell["type"], cell["connections"]
        if kind == "$scopeinfo":
            continue
        if kind in kinds:
            for index, (ports, polarity) in enumerate(kinds[kind]):
                design.adders[f"{name}[{index}]"] = Adder(
                    inputs=tuple(pins[port][index] for port in ports),
                    sum=pins["sum"][index],
                    carry=pins["carry"][index],
                    polarity=polarity,
                    kind=kind,
                )
        elif kind == "$add" and not int(cell["parameters"]["A_SIGNED"], 2):
            place = re.sub(r"\$flatten|\\|\$add\$.*\$(\d+)$", lambda match: f"add_{match[1]}" if match[1] else "", name)
            design.words[place] = tuple(pins["A"]), tuple(pins["B"]), tuple(pins["Y"])
        elif kind == "$_DFF_P_":
            net = pins["Q"][0]
            register = names[net][0]
            design.aliases |= dict.fromkeys(names[net], register)
            design.registers[register] = Register(
                nets=((net, False),), next=Gate((pins["D"][0],), 0b10), clock=pins["C"][0]
            )
        elif not _gate(design, kind, {pin: bits[0] for pin, bits in pins.items()}):
            raise DesignError(f"Verilog must come down to gates, adders and flip-flops, and has a {kind} {name!r}")
    return design


def _function(cell: Cell, function: str, pins: Sequence[str]) -> int:
    """The truth table of a Liberty expression over ``pins``."""
    rows = itertools.product((0, 1), repeat=len(pins))
    return sum(evaluate(function, dict(zip(pins, reversed(row)))) << i for i, row in enumerate(rows))


def _pins(function: str) -> tuple[str, ...]:
    return tuple(sorted(set(re.findall(r"[A-Za-z_]\w*", function))))


def _cell_adder(cell: Cell) -> tuple[str, str, Polarity] | None:
    """Sum pin, carry pin and polarity of a library's adder cell."""
    count = len(cell.inputs)
    if cell.sequential or count not in XOR or len(cell.outputs) != 2:
        return None
    for total, carry in itertools.permutations(cell.outputs):
        polarity = adder_polarity(count, cell.table(total), cell.table(carry))
        if polarity is not None:
            return total.name, carry.name, polarity
    return None


_BLACK_BOX = {"pactolus_full_adder": ("a", "b", "c"), "pactolus_half_adder": ("a", "b")}
"""The adders of generic gates, which nothing maps."""

_PLACE = re.compile(r"^(?P<module>.*)\.bits\[(?P<index>\d+)\]\.adder(?P<folded>\..*)?$")


def read_mapped(netlist: FlatNetlist, library: Library | None, rtl: Design) -> Design:
    """A mapped netlist, every cell as its Liberty describes it; without a library it is of generic gates.

    A register is called as ``rtl`` calls the one whose name its net bears, an adder as the one that it was made from.

    Raises
    ------
    :class:`DesignError`
        There are cells that are not known here, or a register bears no name that ``rtl`` has.
    """
    design = Design()
    _ports(design, [(name, direction, nets) for name, (direction, nets) in netlist.ports.items()])
    names = _names(netlist.names)
    cells = library.cells if library else {}
    adders = {name: _cell_adder(cell) for name, cell in cells.items()}
    orders = {name: tuple(pin.name for pin in cell.inputs) for name, cell in cells.items()}
    tables: dict[tuple[str, str], int] = {}

    def add_register(cell_name: str, nets: list[tuple[Net, bool]], register: Register) -> None:
        found = [rtl.aliases[name] for net, inverted in nets if not inverted for name in names.get(net, ())
                 if name in rtl.aliases]  # fmt: skip
        if not found:
            raise DesignError(f"Flip-flop {cell_name!r} must bear the name of a register of the Verilog")
        if found[0] in design.registers:
            raise DesignError(f"Register {found[0]!r} must be one flip-flop, not two")
        design.registers[found[0]] = register

    for name, instance in netlist.cells.items():
        kind, inputs, outputs = instance.kind, instance.inputs, instance.outputs
        if kind in _BLACK_BOX:
            place = _PLACE.match(name)
            design.adders[_place(place, name)] = Adder(
                inputs=tuple(inputs[pin] for pin in _BLACK_BOX[kind]),
                sum=outputs.get("sum", f"{name}/sum"),
                carry=outputs.get("carry", f"{name}/carry"),
                polarity=Polarity(False, False, False),
                kind=kind,
            )
        elif kind == "$_DFF_P_":
            net = outputs["Q"]
            register = Register(nets=((net, False),), next=Gate((inputs["D"],), 0b10), clock=inputs["C"])
            add_register(name, [(net, False)], register)
        elif kind not in cells:
            if not _gate(design, kind, {**inputs, **outputs}):
                raise DesignError(f"Netlist must have cells of the library only, and has a {kind} {name!r}")
        elif cells[kind].is_flip_flop:
            cell = cells[kind]
            nets = []
            for pin in cell.outputs:
                function = re.sub(r"[\s()]", "", pin.function or "")
                if pin.name in outputs and function:
                    nets.append((outputs[pin.name], function != cell.variables[0]))
            clock = cell.state["clocked_on"].strip("() ")
            if clock not in inputs:
                raise DesignError(f"Flip-flop {name!r} must take the clock's rising edge, not {clock!r}")

            def gate(function: str, inputs: Mapping[str, Net] = inputs, cell: Cell = cell) -> Gate:
                pins = _pins(function)
                return Gate(tuple(inputs[pin] for pin in pins), _function(cell, function, pins))

            add_register(
                name,
                nets,
                Register(
                    nets=tuple(nets),
                    next=gate(cell.state["next_state"]),
                    never=tuple(gate(cell.state[key]) for key in ("clear", "preset") if key in cell.state),
                    clock=inputs[clock],
                ),
            )
        elif cells[kind].sequential:
            raise DesignError(f"Netlist must have flip-flops only, and has a {kind} {name!r}")
        elif adders[kind] is not None:
            found = adders[kind]
            assert found is not None
            total, carry, polarity = found
            design.adders[_place(_PLACE.match(name), name)] = Adder(
                inputs=tuple(inputs[pin] for pin in orders[kind]),
                sum=outputs.get(total, f"{name}/sum"),
                carry=outputs.get(carry, f"{name}/carry"),
                polarity=polarity,
                kind=kind,
            )
        else:
            for pin in cells[kind].outputs:
                if pin.name in outputs:
                    if (kind, pin.name) not in tables:
                        tables[kind, pin.name] = cells[kind].table(pin)
                    nets_in = tuple(inputs[port] for port in orders[kind])
                    design.gates[outputs[pin.name]] = Gate(nets_in, tables[kind, pin.name])
    return design


def _place(match: re.Match[str] | None, name: str) -> str:
    """The name that :func:`read_rtl` has for the adder that a cell was made from; else its own."""
    return f"{match['module']}[{match['index']}]" if match else name
