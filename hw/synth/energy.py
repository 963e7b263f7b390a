"""The energy of a netlist over a simulation: what its nets did, times what the Liberty says that costs.

Per edge of a net, half of C V² with C the capacitances of the pins that it drives, and the internal energy of the cell
that drives it, which comes from the Liberty's tables at one input slew and the net's real load. Per edge of an input
that moves no output, the internal energy that the Liberty has for it. Per cycle, the clock pins of the flip-flops.
Per time, the leakage of every cell in the state that it is in. docs/energy.md says what that leaves out.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np

from hw.synth.cells import clock_pin
from hw.synth.liberty import Cell, Library, evaluate
from hw.synth.netlist import FlatCell, FlatNetlist
from hw.synth.power import CellPower, PowerLibrary

__all__ = ["Energy", "Waves", "WavesError", "energy", "loads"]

CHUNK = 2048
"""Cells of one kind whose states are counted at a time."""


class WavesError(ValueError):
    """Waves that cannot be those of the netlist; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Waves:
    """What every net of a netlist was at the end of each cycle.

    Parameters
    ----------
    rows : mapping of :class:`int` to :class:`int`
        The row of each net.
    bits : uint8 array (rows, cycles)
        0 or 1.
    """

    rows: Mapping[int, int]
    bits: np.ndarray

    @property
    def cycles(self) -> int:
        """How many cycles there are."""
        return self.bits.shape[1]

    def of(self, nets: list[int | str]) -> np.ndarray:
        """The rows of some nets; the constants ``"0"``, ``"1"`` and ``"x"`` (taken as 0) may be among them."""
        made = np.empty((len(nets), self.cycles), np.uint8)
        for row, net in zip(made, nets):
            row[:] = int(net == "1") if isinstance(net, str) else self.bits[self.rows[net]]
        return made


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Femtojoules.

    Members
    -------
    internal : :class:`float`
        Inside cells, the clock's part left out.
    switching : :class:`float`
        Charging the pins that nets drive.
    clock : :class:`float`
        Of the clock pins: their capacitance, and the internal energy of clock edges that move no output.
    leakage : :class:`float`
    """

    internal: float = 0.0
    switching: float = 0.0
    clock: float = 0.0
    leakage: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __add__(self, other: Energy) -> Energy:
        return Energy(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def loads(netlist: FlatNetlist, library: Library, *, outputs: float = 0.0) -> dict[int, float]:
    """The capacitance of the pins that each net drives, in femtofarads; ``outputs`` is that of an output port."""
    capacitances = {
        (cell.name, pin.name): pin.capacitance for cell in library.cells.values() for pin in cell.inputs
    }
    found: dict[int, float] = defaultdict(float)
    for net, pins in netlist.loads.items():
        found[net] = sum(capacitances[cell.kind, pin] for cell, pin in pins)
    for direction, bits in netlist.ports.values():
        if direction == "output":
            for bit in bits:
                if isinstance(bit, int):
                    found[bit] += outputs
    return dict(found)


Usage = dict[tuple[int, str], float]
"""How often an arc, by number, and an edge count in a cell's step; the clock pin's are ``"clock rise"`` and so on."""


class _Kind:
    """One kind of cell: its states, and which arcs a step from one state to another uses.

    A state has the values of ``names``: the inputs, for a flip-flop without its clock but with an output.
    """

    def __init__(self, cell: Cell, power: CellPower, output: str | None) -> None:
        self.cell, self.power, self.output = cell, power, output
        self.clock, self.rising = clock_pin(cell) if cell.is_flip_flop else ("", True)
        self.inputs = [pin.name for pin in cell.inputs if pin.name != self.clock]
        self.names = [*self.inputs, *([output] if output else [])]
        self.states = [
            self._complete(dict(zip(self.names, bits)))
            for bits in itertools.product((0, 1), repeat=len(self.names))
        ]
        holds = [arc.when for arc in power.arcs]
        self._holds = {
            (number, clock): [bool(evaluate(when, state | {self.clock: clock})) for state in self.states]
            for number, when in enumerate(holds)
            if when is not None
            for clock in (0, 1)
        }

    def _complete(self, values: dict[str, int]) -> dict[str, int]:
        """With the pins, and for a flip-flop the state variables, that follow from ``values``."""
        if self.output is not None and self.cell.is_flip_flop:
            function = next(pin.function or "" for pin in self.cell.outputs if pin.name == self.output)
            inverted = evaluate(function, dict(zip(self.cell.variables, (1, 0)))) == 0
            state = values[self.output] ^ int(inverted)
            values = values | dict(zip(self.cell.variables, (state, 1 - state)))
        return values | {pin.name: evaluate(pin.function or "0", values) for pin in self.cell.outputs}

    def next_output(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """What a flip-flop's output becomes at the clock edge."""
        state = evaluate(self.cell.state["next_state"], values)
        for event, value in (("preset", 1), ("clear", 0)):
            if event in self.cell.state:
                active = evaluate(self.cell.state[event], values)
                state = (active & value) | ((1 - active) & state)
        function = next(pin.function or "" for pin in self.cell.outputs if pin.name == self.output)
        return evaluate(function, dict(zip(self.cell.variables, (state, 1 - state))))

    def _use(self, usage: Usage, arcs: list[int], edge: str, at: list[tuple[int, int]]) -> None:
        """Count the arcs whose condition holds at the first (state, clock) of ``at`` where one's does.

        Rails add up; several arcs of a rail are averaged.
        """
        for state, clock in at:
            chosen = [n for n in arcs if (n, clock) not in self._holds or self._holds[n, clock][state]]
            if chosen:
                rails: dict[str, list[int]] = defaultdict(list)
                for number in chosen:
                    rails[self.power.arcs[number].rail].append(number)
                for numbers in rails.values():
                    for number in numbers:
                        usage[number, edge] = usage.get((number, edge), 0.0) + 1 / len(numbers)
                return

    def _of(self, pin: str, related: list[str] | None) -> list[int]:
        return [
            number
            for number, arc in enumerate(self.power.arcs)
            if arc.pin == pin
            and (arc.related is None if related is None else bool(set((arc.related or "").split()) & set(related)))
        ]

    def step(self, old: int, new: int) -> Usage:
        """What one cycle from state ``old`` to state ``new`` uses."""
        usage: Usage = {}
        before, after = self.states[old], self.states[new]
        moved = [name for name in self.inputs if before[name] != after[name]]
        active, idle = int(self.rising), 1 - int(self.rising)
        clock = active if self.clock else 0
        if self.clock:
            self._use(usage, self._of(self.clock, None), f"clock {_edge(active)}", [(old, idle)])
        for pin in self.cell.outputs:
            if before[pin.name] != after[pin.name]:
                causes = [self.clock] if self.clock else moved
                arcs = self._of(pin.name, causes)
                self._use(usage, arcs, _edge(after[pin.name]), [(new, clock), (old, clock)])
                if not any(number in arcs for number, _ in usage):
                    self._use(usage, self._of(pin.name, [p.name for p in self.cell.inputs]), _edge(after[pin.name]),
                              [(new, clock), (old, clock)])
        for name in moved:
            self._use(usage, self._of(name, None), _edge(after[name]), [(new, clock)])
        if self.clock:
            self._use(usage, self._of(self.clock, None), f"clock {_edge(idle)}", [(new, active)])
        return usage

    def leakage(self, state: int) -> float:
        """Nanowatts in a state, the clock half of the time low and half of it high."""
        total = 0.0
        for clock in (0, 1):
            values = self.states[state] | {self.clock: clock}
            held = [watts for when, _, watts in self.power.states if evaluate(when, values)]
            total += (sum(held) if held else self.power.leakage_nw) / 2
        return total


def _edge(value: int) -> str:
    return "rise" if value else "fall"


def _groups(netlist: FlatNetlist, library: Library) -> Iterator[tuple[Cell, str | None, list[FlatCell]]]:
    """The cells by kind; of flip-flops, by the output that is connected, too."""
    found: dict[tuple[str, str | None], list[FlatCell]] = defaultdict(list)
    for cell in netlist.cells.values():
        kind = library.cells[cell.kind]
        output = None
        if kind.is_flip_flop:
            output = next((pin.name for pin in kind.outputs if isinstance(cell.outputs.get(pin.name), int)), None)
            if output is None:
                raise WavesError(f"Flip-flop {cell.name!r} must drive something")
        found[cell.kind, output].append(cell)
    for (name, output), cells in found.items():
        for start in range(0, len(cells), CHUNK):
            yield library.cells[name], output, cells[start : start + CHUNK]


def energy(
    netlist: FlatNetlist,
    library: Library,
    power: PowerLibrary,
    waves: Waves,
    *,
    part: Callable[[FlatCell], str],
    period_ns: float,
    slew: float,
    output_load: float = 0.0,
    clock: str = "clk",
) -> dict[str, Energy]:
    """The energy of the steps between the cycles of ``waves``, by part.

    The waves must be those of the netlist: that every cell's outputs follow from its inputs is verified on the way.

    Parameters
    ----------
    part : callable
        The part that a cell belongs to. What ports charge belongs to the cells that they drive.
    period_ns : :class:`float`
        Of the clock; only the leakage depends on it.
    slew : :class:`float`
        Of all inputs, in the library's unit of time.
    output_load : :class:`float`
        Capacitance at the output ports, in femtofarads.
    clock : :class:`str`
        The port that clocks all flip-flops. Its edges are not in the waves; the net's own wires and buffers are left
        out.

    Raises
    ------
    WavesError
        The waves contradict the netlist, or a flip-flop has another clock.
    """
    total: dict[str, Energy] = defaultdict(Energy)
    load = loads(netlist, library, outputs=output_load)
    half = power.voltage**2 / 2
    steps = waves.cycles - 1
    (clock_net,) = netlist.ports[clock][1]
    for cell, output, members in _groups(netlist, library):
        kind = _Kind(cell, power.cells[cell.name], output)
        owners = [part(member) for member in members]
        values = {
            name: waves.of([{**member.inputs, **member.outputs}[name] for member in members]) for name in kind.names
        }
        _verify(kind, members, values, waves)
        codes = np.zeros((len(members), waves.cycles), np.int64)
        for name in kind.names:
            codes = codes << 1 | values[name]
        size = len(kind.states)
        pairs = (np.arange(len(members))[:, None] * size + codes[:, :-1]) * size + codes[:, 1:]
        counts = np.bincount(pairs.ravel(), minlength=len(members) * size * size).reshape(len(members), size * size)

        used: dict[tuple[int, str], np.ndarray] = {}
        for pair in np.flatnonzero(counts.any(axis=0)):
            for use, weight in kind.step(*divmod(int(pair), size)).items():
                used[use] = used.get(use, 0.0) + counts[:, pair] * weight
        internal = np.zeros(len(members))
        clocked = np.zeros(len(members))
        for (number, edge), times in used.items():
            arc = kind.power.arcs[number]
            table = arc.rise if edge.endswith("rise") else arc.fall
            if table is not None:
                driven = [member.outputs.get(arc.pin) for member in members]
                at = np.array([load.get(net, 0.0) if isinstance(net, int) else 0.0 for net in driven])
                (clocked if edge.startswith("clock") else internal)[:] += times * table.at(slew, at)
        switching = np.zeros(len(members))
        for pin in cell.outputs:
            nets: list[int | str] = [member.outputs.get(pin.name, "0") for member in members]
            charge = np.array([load.get(net, 0.0) if isinstance(net, int) else 0.0 for net in nets])
            if charge.any():
                switching += half * charge * _toggles(waves.of(nets))
        for pin in cell.inputs:
            if pin.name == kind.clock:
                if any(member.inputs[pin.name] != clock_net for member in members):
                    raise WavesError(f"Flip-flops of kind {cell.name!r} must be clocked by the port {clock!r}")
                clocked += steps * 2 * half * pin.capacitance
                continue
            nets = [member.inputs[pin.name] for member in members]
            ports = np.array([isinstance(net, int) and net not in netlist.drivers for net in nets])
            if ports.any():
                switching += ports * half * pin.capacitance * _toggles(waves.of(nets))
        leaks = counts.reshape(len(members), size, size).sum(axis=1) @ [kind.leakage(state) for state in range(size)]
        for owner, *numbers in zip(owners, internal, switching, clocked, leaks * period_ns * 1e-3):
            a, b, c, d = map(float, numbers)
            total[owner] += Energy(internal=a, switching=b, clock=c, leakage=d)
    return dict(total)


def _toggles(bits: np.ndarray) -> np.ndarray:
    return np.count_nonzero(bits[:, 1:] != bits[:, :-1], axis=1)


def _verify(kind: _Kind, members: list[FlatCell], values: dict[str, np.ndarray], waves: Waves) -> None:
    """Refuse waves in which a cell's output is not what its inputs make of it."""
    if kind.output is not None:
        expected = {kind.output: kind.next_output(values)[:, :-1]}
    else:
        expected = {pin.name: evaluate(pin.function or "0", values) for pin in kind.cell.outputs}
    for name, wanted in expected.items():
        connected = [(row, member) for row, member in enumerate(members) if isinstance(member.outputs.get(name), int)]
        if not connected:
            continue
        got = waves.of([member.outputs[name] for _, member in connected])
        got = got[:, 1:] if kind.output is not None else got
        # The function of a tie cell is a plain number.
        wanted = np.broadcast_to(wanted, (len(members), got.shape[1]))[[row for row, _ in connected]]
        wrong = (got != wanted).any(axis=1)
        if wrong.any():
            member = connected[int(np.argmax(wrong))][1]
            raise WavesError(f"Waves must be those of the netlist, and at cell {member.name!r} they are not")
