"""The proofs of a MAC array: its Verilog and its mapped netlist against the plain sum of products."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw.mac_array import MacArray, beat_layout
from hw.synth.equivalence import solver
from hw.synth.equivalence.aig import FALSE, TRUE, Aig, ConeError, patterns
from hw.synth.equivalence.circuit import Circuit, Design, DesignError
from hw.synth.equivalence.telescope import AGE, Polynomial, Telescope, TelescopeError

__all__ = [
    "EXHAUSTIVE_BITS",
    "WHOLE_LANES",
    "ProofError",
    "Shape",
    "Step",
    "prove",
    "prove_exhaustively",
    "prove_mapping",
    "prove_netlist_sums",
    "prove_rtl_sums",
    "prove_whole",
]

EXHAUSTIVE_BITS = 20
"""Most digit bits of a row, ``2 * d * lanes``, whose products are all tried."""

WHOLE_LANES = {1: 16, 2: 5, 4: 2, 8: 1}
"""Most lanes whose product is given to the solver as a whole, by digit width: it does not end in a minute beyond."""

MAPPING_SECONDS = 3600.0
WHOLE_SECONDS = 1800.0


class ProofError(RuntimeError):
    """Something is not proven; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of an array decides what it must compute."""

    rows: int
    lanes: int
    digit_bits: int
    acc_bits: int
    latency: int

    @classmethod
    def of(cls, array: MacArray) -> Shape:
        """The shape of ``array``."""
        return cls(
            rows=array.rows,
            lanes=array.lanes,
            digit_bits=array.digit_bits,
            acc_bits=array.acc_bits,
            latency=array.latency,
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing proven.

    Members
    -------
    method : :class:`str`
        ``telescoping``, ``SAT``, ``exhaustive`` or ``whole SAT``.
    proven : :class:`str`
        What.
    count : :class:`int`
        Of ``unit``.
    seconds : :class:`float`
        Time it took.
    """

    method: str
    proven: str
    count: int
    unit: str
    seconds: float = 0.0


class _Ports:
    """Names of the array's port bits."""

    def __init__(self, shape: Shape) -> None:
        self._d = shape.digit_bits
        self._lanes = shape.lanes
        layout = beat_layout(rows=shape.rows, lanes=shape.lanes, digit_bits=shape.digit_bits)
        self._offsets = {name: field.offset for name, field in layout}
        self.valid = "i__valid[0]"

    def flag(self, name: str) -> str:
        return f"i__payload[{self._offsets[name]}]"

    def activation(self, lane: int, bit: int) -> str:
        return f"i__payload[{self._offsets['activations'] + lane * self._d + bit}]"

    def weight(self, row: int, lane: int, bit: int) -> str:
        return f"i__payload[{self._offsets['weights'] + (row * self._lanes + lane) * self._d + bit}]"


def _accumulators(rtl: Design, shape: Shape, row: int | None) -> list[tuple[str, int]]:
    """The registers of one row's accumulator, the ones row's for ``None``, and how each counts: 0 is 1, 1 is 2.

    In carry-save form there are two of each weight.
    """
    place = "ones_row" if row is None else f"row_{row}"
    words = [f"{place}.accumulator", f"{place}.accumulator_carry"]
    found = [(rtl.aliases[name], bit) for word in words for bit in range(shape.acc_bits)
             if (name := f"{word}[{bit}]") in rtl.aliases]  # fmt: skip
    if len(found) not in (shape.acc_bits, 2 * shape.acc_bits):
        raise ProofError(f"Verilog must have a register {words[0]} of {shape.acc_bits} bits")
    return found


def _title(row: int | None) -> str:
    return "ones row" if row is None else f"row {row}"


def _expected(aig: Aig, shape: Shape, row: int | None, accumulators: Sequence[tuple[str, int]]) -> Polynomial:
    """What an accumulator becomes, as the docstring of :class:`hw.mac_array.MacArray` has it.

    In terms of the accumulator before and of the beat that came ``latency`` - 1 cycles before.
    """
    ports, d = _Ports(shape), shape.digit_bits
    then = (shape.latency - 1) * AGE

    def port(name: str) -> int:
        return (aig.input(name) >> 1) + then

    valid, first, shift, ones = (port(name) for name in (ports.valid, *map(ports.flag, ("first", "shift", "ones"))))
    total = Polynomial(shape.acc_bits)
    for name, index in accumulators:
        bit = aig.input(name) >> 1
        # As it is: unless there is a beat and (it is the first, or shifts).
        for flags, coefficient in (((), 1), ((first,), -1), ((shift,), -1), ((first, shift), 1)):
            total.add(frozenset((bit, *((valid, *flags) if flags else ()))), coefficient << index)
        # Shifted by a digit: if there is a beat that shifts and is not the first.
        for flags, coefficient in (((shift,), 1), ((first, shift), -1)):
            total.add(frozenset((bit, valid, *flags)), coefficient << index + d)
    for lane in range(shape.lanes):
        for j in range(d):
            activation = port(ports.activation(lane, j))
            if row is None:
                total.add(frozenset((valid, ones, activation)), 1 << j)
            for i in range(d if row is not None else 0):
                assert row is not None
                total.add(frozenset((valid, activation, port(ports.weight(row, lane, i)))), 1 << i + j)
    return total


def _name(aig: Aig, term: Collection[int]) -> str:
    return " * ".join(sorted(aig.names[variable % AGE] for variable in term)) or "1"


def _check(aig: Aig, found: Polynomial, expected: Polynomial, row: int | None) -> None:
    for term in {**found.terms, **expected.terms}:
        counts = [polynomial.terms.get(term, 0) for polynomial in (found, expected)]
        if counts[0] != counts[1]:
            raise ProofError(
                f"The {_title(row)} must add {_name(aig, term)} {counts[1]} times, and adds it {counts[0]} times"
            )


def _rows(shape: Shape) -> list[int | None]:
    return [*range(shape.rows), None]


def prove_rtl_sums(rtl: Design, shape: Shape) -> Step:
    """Telescope every row of the Verilog, from the accumulator's next state to the beat at the input ports.

    Raises
    ------
    :class:`ProofError`
        It does not come out.
    """
    aig = Aig()
    try:
        circuit = rtl.build(aig, {*rtl.adders, *rtl.words})
        telescope = Telescope(aig, circuit.boxes)
        for row in _rows(shape):
            accumulators = _accumulators(rtl, shape, row)
            held = {name for name, _ in accumulators}
            sums = telescope.weighted(
                ((circuit.registers[name], 1 << index) for name, index in accumulators), shape.acc_bits
            )
            telescope.reduce(sums, 0)
            for age in range(shape.latency - 1):
                sums = telescope.step_back(sums, age, lambda name: [circuit], held if age == 0 else ())
                telescope.reduce(sums, age + 1)
            _check(aig, sums, _expected(aig, shape, row, accumulators), row)
    except (TelescopeError, ConeError, DesignError) as error:
        raise ProofError(f"The Verilog's sums do not telescope: {error}") from None
    _all_passed(telescope, rtl.adders)
    return Step(
        method="telescoping",
        proven="Verilog: every row = sum of products",
        count=sum(name in rtl.adders for name in telescope.passed),
        unit="adders",
    )


def _all_passed(telescope: Telescope, adders: Collection[str]) -> None:
    left = [name for name in adders if name not in telescope.passed]
    if left:
        raise ProofError(f"Adder {left[0]!r} must be part of a row's sum, and is not")


def _matched(rtl: Design, mapped: Design) -> dict[str, tuple[int, ...]]:
    """The adders that both have, with which inputs of the Verilog's the netlist's has: a constant 0 may be missing."""
    circuit = rtl.build(Aig(), {*rtl.adders, *rtl.words})
    found = {}
    for name, adder in mapped.adders.items():
        if name not in circuit.boxes:
            continue
        inputs = tuple(n for n, (literal, _) in enumerate(circuit.boxes[name].inputs) if literal != FALSE)
        if len(inputs) == len(adder.inputs):
            found[name] = inputs
        elif len(rtl.adders[name].inputs) == len(adder.inputs):
            found[name] = tuple(range(len(adder.inputs)))
    return found


def _zero(rtl: Design, mapped: Design) -> set[str]:
    """The registers that the netlist lacks because they are 0 from the first clock edge on."""
    zero: set[str] = set()
    while True:
        circuit = rtl.build(Aig(), {*rtl.adders, *rtl.words}, zero)
        found = {name for name, literal in circuit.registers.items()
                 if literal == FALSE and name not in mapped.registers}  # fmt: skip
        if found == zero:
            return zero
        zero = found


def prove_mapping(rtl: Design, mapped: Design, *, seconds: float = MAPPING_SECONDS) -> Step:
    """Prove by SAT that Verilog and netlist have the same next states and outputs, cut at registers and adder cells.

    From any state that both share they then stay the same forever; registers of the Verilog that are always 0 need not
    be in the netlist. Adders that only one of them has are opened.

    Raises
    ------
    :class:`ProofError`
        They differ, or the solver does not end in ``seconds``.
    """
    aig = Aig()
    matched = _matched(rtl, mapped)
    try:
        left, right = rtl.build(aig, matched, _zero(rtl, mapped)), mapped.build(aig, matched)
    except DesignError as error:
        raise ProofError(f"Verilog and netlist cannot be compared: {error}") from None
    names: list[str] = []
    pairs: list[tuple[int, int]] = []
    for title, ours, theirs in (
        ("Register", left.registers, right.registers),
        ("Output", left.outputs, right.outputs),
    ):
        lost = [name for name in theirs if name not in ours] + [
            name for name in ours if name not in theirs and title == "Output"
        ]
        if lost:
            raise ProofError(f"{title} {lost[0]!r} must be in Verilog and netlist")
        for name, literal in theirs.items():
            names.append(f"{title} {name!r}")
            pairs.append((ours[name], literal))
    for name, inputs, literals in _boundaries(aig, left, right, matched):
        names += [f"Input of adder {name!r}"] * len(inputs)
        pairs += zip(inputs, literals, strict=True)
    try:
        hard = solver.compare(aig, pairs, seconds=seconds)
    except solver.Different as error:
        raise ProofError(f"{names[error.index]} must be the same in Verilog and netlist, and differs") from None
    except solver.Undecided:
        raise ProofError(f"SAT must end in {seconds:g} s for Verilog and netlist, and has not") from None
    return Step(
        method="SAT",
        proven=f"netlist = Verilog, cut at {len(matched)} adder cells and {len(right.registers)} registers",
        count=len(pairs),
        unit=f"cuts, {hard} not by structure",
    )


def _boundaries(
    aig: Aig, left: Circuit, right: Circuit, matched: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, list[int], list[int]]]:
    """The inputs of matched adders on both sides, in an order in which random cases agree, if there is one."""
    cases = 64
    sides = [
        {name: [circuit.boxes[name].inputs[n][0] for n in (inputs if circuit is left else range(len(inputs)))]
         for name, inputs in matched.items()}
        for circuit in (left, right)
    ]  # fmt: skip
    literals = [literal for side in sides for inputs in side.values() for literal in inputs]
    generator = np.random.default_rng(0)
    words = {node: int(generator.integers(1 << 63)) for node in aig.cone(literals) if node in aig.names}
    values = dict(zip(literals, aig.simulate(literals, words, (1 << cases) - 1), strict=True))
    for name in matched:
        ours, theirs = (sorted(side[name], key=lambda literal: values[literal]) for side in sides)
        if [values[literal] for literal in ours] != [values[literal] for literal in theirs]:
            ours, theirs = (side[name] for side in sides)
        yield name, ours, theirs


def prove_netlist_sums(rtl: Design, mapped: Design, shape: Shape) -> Step:
    """Telescope every row of the netlist through its adder cells, and through its registers, to the input ports.

    Where a sum begins, in the two operands of the carry-propagate adder, is what the Verilog says; adders that the
    netlist has as gates are passed as the Verilog has them, and so are additions of activations. All of that is the
    same in the netlist by :func:`prove_mapping`. The leaves of the tree are the netlist's own gates.

    Raises
    ------
    :class:`ProofError`
        It does not come out.
    """
    aig = Aig()
    try:
        matched, zero = _matched(rtl, mapped), _zero(rtl, mapped)
        ours = rtl.build(aig, {*rtl.adders, *rtl.words}, zero)
        theirs = mapped.build(aig, matched)
        # Bits of sums that are no adder cells, and what is made of them: as the Verilog has it.
        added = {node for name in rtl.words for node, _ in ours.boxes[name].outputs}

        def plain(literal: int) -> bool:
            return added.isdisjoint(aig.support(literal))

        boxes = dict(ours.boxes)
        leaves = [0, 0]
        for name, inputs, literals in _boundaries(aig, ours, theirs, matched):
            chosen = [b if plain(a) else a for a, b in zip(inputs, literals, strict=True)]
            boxes[name] = replace(theirs.boxes[name], inputs=tuple((literal, 1) for literal in chosen))
            for a, b in zip(inputs, literals, strict=True):
                leaves[not plain(a)] += bool(b >> 1 not in aig.names)
        summed = {name for name, literal in ours.registers.items() if not plain(literal)}
        beginning, telescope = Telescope(aig, ours.boxes), Telescope(aig, boxes)
        for row in _rows(shape):
            accumulators = [item for item in _accumulators(rtl, shape, row) if item[0] not in zero]
            held = {name for name, _ in accumulators}
            sums = beginning.weighted(
                ((ours.registers[name], 1 << index) for name, index in accumulators), shape.acc_bits
            )
            beginning.reduce(sums, 0, rtl.words)
            telescope.reduce(sums, 0)
            for age in range(shape.latency - 1):
                sums = telescope.step_back(
                    sums,
                    age,
                    lambda name: [ours] if name in summed else [theirs, ours],
                    held if age == 0 else (),
                )
                telescope.reduce(sums, age + 1)
            _check(aig, sums, _expected(aig, shape, row, accumulators), row)
    except (TelescopeError, ConeError, DesignError) as error:
        raise ProofError(f"The netlist's sums do not telescope: {error}") from None
    _all_passed(telescope, matched)
    return Step(
        method="telescoping",
        proven=f"netlist: every row = sum of products, {leaves[0]} leaves tabulated, {leaves[1]} by SAT",
        count=len(matched),
        unit="adder cells",
    )


def _products(design: Design, rtl: Design, shape: Shape, aig: Aig) -> Iterator[tuple[int, list[int], list[list[int]]]]:
    """Of each row: its number, what its accumulator becomes on a first beat, all adders opened, and the digits' bits.

    The digits are those of the activations, then those of the weights; bits are nodes' literals.
    """
    ports = _Ports(shape)
    circuit = design.build(aig, (), zero := _zero(rtl, design))
    last = shape.latency - 1
    constants = {ports.valid: TRUE, ports.flag("first"): TRUE}

    def aged(name: str, age: int) -> int:
        return constants[name] if age == last and name in constants else aig.input(f"{name}@{age}")

    states = {aig.inputs[name] >> 1: literal for name, literal in circuit.registers.items()}
    inputs = [aig.inputs[name] >> 1 for name in design.inputs.values()]
    for row in range(shape.rows):
        total = [FALSE] * shape.acc_bits
        names = [name for name, _ in _accumulators(rtl, shape, row)]
        states_next = [FALSE if name in zero else circuit.registers[name] for name in names]
        for start in range(0, len(names), shape.acc_bits):
            total = aig.add(total, states_next[start : start + shape.acc_bits])
        for age in range(shape.latency):
            replacements = states | {node: aged(aig.names[node], age) for node in inputs}
            if age == last:
                for node in states:
                    replacements.pop(node)
            total = aig.compose(total, replacements)
        bits = [
            [aged(name(lane, bit), last) for bit in range(shape.digit_bits)]
            for name in (ports.activation, lambda lane, bit, row=row: ports.weight(row, lane, bit))
            for lane in range(shape.lanes)
        ]
        known = {literal >> 1 for digit in bits for literal in digit}
        for literal in total:
            for node in aig.support(literal):
                if node not in known:
                    raise ProofError(f"The product of row {row} must not depend on {aig.names[node]!r}")
        yield row, total, bits


def prove_exhaustively(design: Design, rtl: Design, shape: Shape, what: str) -> Step:
    """Try all digits of every row: a first beat leaves exactly the sum of products.

    Raises
    ------
    :class:`ProofError`
        It does not.
    """
    d, lanes = shape.digit_bits, shape.lanes
    size = 1 << d * lanes
    mask = (1 << size) - 1
    words = np.arange(size, dtype=np.int64)
    codes = np.stack([words >> d * lane & (1 << d) - 1 for lane in range(lanes)])
    aig = Aig()
    for row, total, digits in _guarded(design, rtl, shape, aig):
        program = aig.program(total)
        nodes = [literal >> 1 for digit in digits for literal in digit]
        weights = dict(zip(nodes[d * lanes :], patterns(d * lanes), strict=True))
        for word in range(size):  # one activation word against all weight words at once
            activations = {node: mask if word >> bit & 1 else 0 for bit, node in enumerate(nodes[: d * lanes])}
            expected = codes[:, word] @ codes
            for bit, value in enumerate(program(activations | weights, mask)):
                wanted = np.packbits((expected >> bit & 1).astype(np.uint8), bitorder="little").tobytes()
                if value != int.from_bytes(wanted, "little"):
                    raise ProofError(
                        f"Bit {bit} of row {row} of the {what} must be that of the sum of products "
                        f"for the activation word {word}"
                    )
    return Step(
        method="exhaustive", proven=f"{what}: products of every row", count=size * size, unit="inputs of a row"
    )


def prove_whole(design: Design, rtl: Design, shape: Shape, what: str, *, seconds: float = WHOLE_SECONDS) -> Step:
    """Prove by SAT, without any cut, that a first beat leaves the sum of products in row 0.

    The other side are shift-and-add multipliers and an adder after the other.

    Raises
    ------
    :class:`ProofError`
        It does not, or the solver does not end in ``seconds``.
    """
    aig = Aig()
    row, total, digits = next(_guarded(design, rtl, shape, aig))
    lanes = shape.lanes
    expected = [FALSE] * shape.acc_bits
    for x, w in zip(digits[:lanes], digits[lanes:], strict=True):
        for i, weight in enumerate(w):
            product = [FALSE] * i + [aig.and_(weight, bit) for bit in x]
            product += [FALSE] * shape.acc_bits
            expected = aig.add(expected, product[: shape.acc_bits])
    try:
        solver.compare(aig, list(zip(total, expected, strict=True)), seconds=seconds)
    except solver.Different as error:
        raise ProofError(f"Bit {error.index} of row {row} of the {what} must be that of the sum of products") from None
    except solver.Undecided:
        raise ProofError(f"SAT must end in {seconds:g} s for the whole of row {row}, and has not") from None
    return Step(method="whole SAT", proven=f"{what}: products of row {row}", count=len(total), unit="bits")


def _guarded(
    design: Design, rtl: Design, shape: Shape, aig: Aig
) -> Iterator[tuple[int, list[int], list[list[int]]]]:
    try:
        yield from _products(design, rtl, shape, aig)
    except DesignError as error:
        raise ProofError(f"The netlist cannot be followed: {error}") from None


def prove(
    rtl: Design, mapped: Design, shape: Shape, *, done: Callable[[Step], None] = lambda step: None
) -> list[Step]:
    """All proofs that ``shape`` admits; ``done`` is called after each.

    Raises
    ------
    :class:`ProofError`
        One of them fails.
    """
    jobs: list[Callable[[], Step]] = [lambda: prove_rtl_sums(rtl, shape), lambda: prove_mapping(rtl, mapped)]
    if mapped.adders:
        jobs.append(lambda: prove_netlist_sums(rtl, mapped, shape))
    if 2 * shape.digit_bits * shape.lanes <= EXHAUSTIVE_BITS:
        jobs.append(lambda: prove_exhaustively(mapped, rtl, shape, "netlist"))
    if shape.lanes <= WHOLE_LANES.get(shape.digit_bits, 0):
        jobs.append(lambda: prove_whole(mapped, rtl, shape, "netlist"))
    steps = []
    for job in jobs:
        start = time.perf_counter()
        step = replace(job(), seconds=time.perf_counter() - start)
        steps.append(step)
        done(step)
    return steps
