"""What the cells of an array's netlist are for, found by what lies before and behind each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from hw.synth.flow import APART
from hw.synth.netlist import FlatCell, FlatNetlist

__all__ = ["BODY", "PARTS", "array_parts", "costs"]

BODY = ("products", "tree", "accumulator", "pipeline", "activation_register", "distribution", "control")
"""What the area per MAC is made of.

* ``products``: gates between digits and compressor tree; without adder cells the tree as well.
* ``tree``: the adders that add the products up, and the gates among them.
* ``accumulator``: registers, Horner multiplexers, the adders that take the addend in, carry-propagate adders, the one
  behind the drain of carry-save accumulators included.
* ``pipeline``: the registers in the tree, or between tree and accumulator.
* ``activation_register``: flip-flops of the activations and of the sums that the rows share.
* ``distribution``: what makes those sums, gates in front of these registers, and buffers behind them.
* ``control``: the flags' registers and what makes them.
"""

PARTS = (*BODY, *APART)
"""All parts: those of the body, then the modules of :data:`hw.synth.flow.APART`."""

# Where a signal comes from: ports of the activations, other ports, registers, adder cells of the trees.
DIGIT, PORT, ACTIVATION, WEIGHT, PIPELINE, ROW, FLAG, TREE = (1 << bit for bit in range(8))


class _Array:
    """The graph of a netlist between registers, and what each register is."""

    def __init__(
        self, flat: FlatNetlist, digits: Collection[int | str], is_flip_flop: Callable[[str], bool]
    ) -> None:
        self.flat = flat
        self.apart = {
            cell.name: name
            for cell in flat.cells.values()
            for name in APART
            if re.search(rf"(^|[\\.]){name}\w*\.", cell.name)
        }
        body = [cell for cell in flat.cells.values() if cell.name not in self.apart]
        self.registers = [cell for cell in body if is_flip_flop(cell.kind)]
        self.logic = self._ordered([cell for cell in body if not is_flip_flop(cell.kind)])
        self.sources: dict[int | str, int] = {}
        for direction, nets in flat.ports.values():
            if direction == "input":
                self.sources |= {net: DIGIT if net in digits else PORT for net in nets}
        for name, part in self.apart.items():
            for net in flat.cells[name].outputs.values():
                self.sources[net] = {"weight_register": WEIGHT, "drain": ROW}.get(part, FLAG)
        self.register_parts = self._register_parts()

    def _ordered(self, logic: list[FlatCell]) -> list[FlatCell]:
        """The logic, every cell behind those that drive it."""
        waiting = {cell.name: 0 for cell in logic}
        behind: dict[str, list[FlatCell]] = {}
        for cell in logic:
            for net in cell.inputs.values():
                driver = self.flat.drivers.get(net) if isinstance(net, int) else None
                if driver and driver[0].name in waiting:
                    waiting[cell.name] += 1
                    behind.setdefault(driver[0].name, []).append(cell)
        ready = [cell for cell in logic if not waiting[cell.name]]
        for cell in ready:
            for load in behind.get(cell.name, ()):
                waiting[load.name] -= 1
                if not waiting[load.name]:
                    ready.append(load)
        if len(ready) != len(logic):
            raise ValueError(f"Netlist of {self.flat.top!r} must have no loops of gates")
        return ready

    def reach(self, adders: Collection[str] = ()) -> dict[int | str, int]:
        """Where every net's value comes from: through gates, and through all adder cells but those in ``adders``.

        Adders of shared sums, which no weight reaches, are never a place where the search ends.
        """
        found = dict(self.sources)
        for cell in self.logic:
            mask = 0
            for net in cell.inputs.values():
                mask |= found.get(net, 0)
            if cell.kind in adders and mask & ~(DIGIT | PORT | ACTIVATION):
                mask = TREE
            for net in cell.outputs.values():
                found[net] = mask
        return found

    def _register_parts(self) -> dict[str, str]:
        """The parts of the registers, which what comes into them tells; sets their ``sources``."""
        for cell in self.registers:
            self.sources |= dict.fromkeys(cell.outputs.values(), 0)
        drained = self.behind([name for name, part in self.apart.items() if part == "drain"], lambda cell: True)
        kinds: dict[str, int] = {}
        while True:
            found = self.reach()
            before = dict(kinds)
            for cell in self.registers:
                mask = 0
                for net in cell.inputs.values():
                    mask |= found.get(net, 0)
                kind = ROW if mask & (WEIGHT | PIPELINE | ROW) else ACTIVATION if mask & (DIGIT | ACTIVATION) else FLAG
                # An accumulator is drained or comes back to itself; other registers of rows are the pipeline's.
                comes_back = mask & ROW or before.get(cell.name) not in (ROW, PIPELINE)
                if kind == ROW and not comes_back and not drained.intersection(cell.outputs.values()):
                    kind = PIPELINE
                kinds[cell.name] = kind
            for cell in self.registers:
                self.sources |= dict.fromkeys(cell.outputs.values(), kinds[cell.name])
            if kinds == before:
                break
        parts = {ROW: "accumulator", PIPELINE: "pipeline", ACTIVATION: "activation_register", FLAG: "control"}
        return {name: parts[kind] for name, kind in kinds.items()}

    def behind(self, targets: Collection[str], through: Callable[[FlatCell], bool]) -> set[int | str]:
        """The nets that lead into the cells ``targets``, directly or through others."""
        nets = {net for name in targets for net in self.flat.cells[name].inputs.values()}
        for cell in reversed(self.logic):
            if through(cell) and nets.intersection(cell.outputs.values()):
                nets.update(cell.inputs.values())
        return nets


def array_parts(
    flat: FlatNetlist,
    digits: Collection[int | str],
    is_flip_flop: Callable[[str], bool],
    adders: Collection[str] = (),
) -> dict[str, str]:
    """The part, of :data:`PARTS`, of every cell of an array's netlist, by the cell's name.

    A gate or adder cell that activations alone reach is distribution, one that weights reach too is a product or of
    the tree. Since the addend joins the tree late, cells behind that point are not all the accumulator's: an adder is
    if the addend comes into it through gates, since each of its bits costs one adder; others are the tree's. Gates
    behind the tree are the accumulator's unless they lead into another adder cell. Without adder cells there is no
    such point, and all that the addend reaches is accumulator.

    Parameters
    ----------
    digits : collection of nets
        The input port's bits that are activations.
    is_flip_flop : callable
        Whether a kind of cell is one.
    adders : collection of :class:`str`
        The kinds of cell that are adders.

    Raises
    ------
    :class:`ValueError`
        Gates make a loop.
    """
    array = _Array(flat, set(digits), is_flip_flop)
    through_all = array.reach()
    through_gates = array.reach(adders)
    into_tree = array.behind(
        [cell.name for cell in array.logic if cell.kind in adders]
        + [name for name, part in array.register_parts.items() if part == "pipeline"],
        lambda cell: cell.kind not in adders,
    )
    into_activations = array.behind(
        [name for name, part in array.register_parts.items() if part == "activation_register"], lambda cell: True
    )
    into_rows = array.behind(
        [name for name, part in array.register_parts.items() if part == "accumulator"], lambda cell: True
    )
    parts = array.apart | array.register_parts
    for cell in array.logic:
        every = near = 0
        for net in cell.inputs.values():
            every |= through_all.get(net, 0)
            near |= through_gates.get(net, 0)
        outputs = set(cell.outputs.values())
        if not every & (ACTIVATION | WEIGHT | PIPELINE | ROW):
            part = "accumulator" if outputs & into_rows else "control"
            part = "distribution" if outputs & into_activations else part
        elif not every & (WEIGHT | PIPELINE | ROW):
            part = "distribution"
        elif near & ROW:
            part = "accumulator"
        elif not every & (PIPELINE | ROW):
            part = "tree" if cell.kind in adders or near & TREE else "products"
        else:
            part = "tree" if cell.kind in adders or outputs & into_tree else "accumulator"
        parts[cell.name] = part
    return parts


def costs(flat: FlatNetlist, parts: Mapping[str, str], cost: Callable[[str], float]) -> dict[str, float]:
    """What the cells of each part cost together."""
    sums = dict.fromkeys(PARTS, 0.0)
    for name, part in parts.items():
        sums[part] += cost(flat.cells[name].kind)
    return {part: round(value, 6) for part, value in sums.items()}
