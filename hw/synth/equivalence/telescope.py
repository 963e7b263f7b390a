"""Telescoping: a weighted sum of bits is pushed through kept adders, one at a time, back to what they add up.

What is pushed is a polynomial over bits with integer coefficients modulo a power of two, multilinear since a bit is
its own square, so that equal polynomials are equal functions and conversely. An adder is passed by putting
``k * (sum of its inputs)`` in the place of ``k*sum + 2*k*carry``, which is exact; the coefficients must be there in
that proportion, in every context (product of other bits) by itself. The gates between adders are tabulated.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping

from hw.synth.equivalence.aig import Aig, ConeError
from hw.synth.equivalence.circuit import Box, Circuit

__all__ = ["Polynomial", "Telescope", "TelescopeError", "Term"]

MAX_SUPPORT = 10
"""Most inputs of the gates between two adders, or an adder and a register."""

AGE = 1 << 40
"""A variable is the node of an input of the graph plus this times how many cycles before."""

Term = frozenset[int]
"""A product of variables."""

ONE: Term = frozenset()


class TelescopeError(ValueError):
    """The sum is not what it should be; the message is one sentence."""


class Polynomial:
    """A multilinear polynomial modulo ``2**bits``, changed in place.

    Attributes
    ----------
    terms : dict of :data:`Term` to :class:`int`
        Coefficients, none of them 0.
    uses : dict of :class:`int` to set of :data:`Term`
        The terms that each variable is in.
    """

    def __init__(self, bits: int) -> None:
        self.mask = (1 << bits) - 1
        self.bits = bits
        self.terms: dict[Term, int] = {}
        self.uses: dict[int, set[Term]] = {}

    def add(self, term: Term, coefficient: int) -> None:
        """Add ``coefficient * term``."""
        old = self.terms.get(term, 0)
        new = (old + coefficient) & self.mask
        if new:
            self.terms[term] = new
            if not old:
                for variable in term:
                    self.uses.setdefault(variable, set()).add(term)
        elif old:
            self.remove(term)

    def remove(self, term: Term) -> int:
        """Take a term out and return its coefficient."""
        for variable in term:
            uses = self.uses[variable]
            uses.discard(term)
            if not uses:
                del self.uses[variable]
        return self.terms.pop(term)


class Telescope:
    """Polynomials of a circuit's literals, and adders that can be passed.

    Parameters
    ----------
    boxes : mapping of :class:`str` to :class:`~hw.synth.equivalence.circuit.Box`
        The adders, whose outputs are inputs of ``aig``.

    Attributes
    ----------
    passed : set of :class:`str`
        The adders that have been passed so far.
    leaves : set of :class:`int`
        The literals that have been tabulated so far.
    """

    def __init__(self, aig: Aig, boxes: Mapping[str, Box]) -> None:
        self.aig = aig
        self.passed: set[str] = set()
        self.leaves: set[int] = set()
        self._boxes = {node: box for box in boxes.values() for node, _ in box.outputs}
        self._tables: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._polynomials: dict[int, list[tuple[Term, int]]] = {}
        self._levels: dict[int, int] = {}
        for box in boxes.values():
            self._level(box)

    def _level(self, box: Box) -> int:
        """How many adders lie before a box's outputs."""
        stack = [box]
        entered: set[str] = set()
        while stack:
            current = stack[-1]
            below = {
                node: self._boxes[node]
                for literal, _ in current.inputs
                for node in self.aig.support(literal)
                if node in self._boxes
            }
            missing = [inner for node, inner in below.items() if node not in self._levels]
            if missing:
                if current.name in entered:
                    raise TelescopeError(f"Adder {current.name!r} must not depend on itself")
                entered.add(current.name)
                stack += missing
                continue
            level = 1 + max((self._levels[node] for node in below), default=0)
            for node, _ in current.outputs:
                self._levels[node] = level
            stack.pop()
        return self._levels[box.outputs[0][0]]

    def polynomial(self, literal: int) -> list[tuple[Term, int]]:
        """Terms and integer coefficients of a literal, from all assignments of its gates' inputs.

        Raises
        ------
        :class:`~hw.synth.equivalence.aig.ConeError`
            It has too many.
        """
        known = self._polynomials.get(literal)
        if known is None:
            node = literal >> 1
            if node == 0:
                known = [(ONE, 1)] if literal else []
            elif node in self.aig.names:
                variable = frozenset((node,))
                known = [(ONE, 1), (variable, -1)] if literal & 1 else [(variable, 1)]
            else:
                support, table = self.aig.table(literal, MAX_SUPPORT)
                self.leaves.add(literal)
                known = [
                    (frozenset(node for n, node in enumerate(support) if subset >> n & 1), coefficient)
                    for subset, coefficient in self._transform(table, len(support))
                ]
            self._polynomials[literal] = known
        return known

    def _transform(self, table: int, count: int) -> list[tuple[int, int]]:
        """The multilinear polynomial of a truth table: subsets of the inputs and their coefficients (Möbius)."""
        known = self._tables.get((table, count))
        if known is None:
            values = [table >> row & 1 for row in range(1 << count)]
            for n in range(count):
                for row in range(1 << count):
                    if row >> n & 1:
                        values[row] -= values[row ^ 1 << n]
            known = self._tables[table, count] = [(row, value) for row, value in enumerate(values) if value]
        return known

    def weighted(self, literals: Iterable[tuple[int, int]], bits: int) -> Polynomial:
        """``sum(weight * literal)`` modulo ``2**bits``."""
        total = Polynomial(bits)
        for literal, weight in literals:
            for term, coefficient in self.polynomial(literal):
                total.add(term, weight * coefficient)
        return total

    def reduce(self, polynomial: Polynomial, age: int, only: Collection[str] | None = None) -> None:
        """Pass all adders (or those named in ``only``) whose outputs of ``age`` cycles before are in ``polynomial``.

        Raises
        ------
        :class:`TelescopeError`
            An adder's outputs are not there in their proportion.
        """
        offset = age * AGE
        queue: list[tuple[int, int]] = []
        queued: set[int] = set()

        def enqueue(variables: Iterable[int]) -> None:
            for variable in variables:
                node = variable - offset
                box = self._boxes.get(node)
                if box is not None and node not in queued and (only is None or box.name in only):
                    first = box.outputs[0][0]
                    queued.update(node for node, _ in box.outputs)
                    heapq.heappush(queue, (-self._levels[first], first))

        enqueue(list(polynomial.uses))
        while queue:
            box = self._boxes[heapq.heappop(queue)[1]]
            queued.difference_update(node for node, _ in box.outputs)
            enqueue(self._pass(box, polynomial, offset))

    def _pass(self, box: Box, polynomial: Polynomial, offset: int) -> set[int]:
        """Pass one adder; return the variables that this brought in."""
        contexts: dict[Term, dict[int, int]] = {}
        for node, _ in box.outputs:
            variable = node + offset
            for term in list(polynomial.uses.get(variable, ())):
                contexts.setdefault(term - {variable}, {})[node] = polynomial.remove(term)
        weights = dict(box.outputs)
        brought: set[int] = set()
        for context, found in contexts.items():
            scale = found.get(box.outputs[0][0], 0)
            for node, weight in weights.items():
                if node + offset in context or found.get(node, 0) != scale * weight & polynomial.mask:
                    counts = [found.get(node, 0) for node in weights]
                    raise TelescopeError(
                        f"Outputs of adder {box.name!r} must count as {list(weights.values())}, and count as {counts}"
                    )
            if box.modulus is not None and scale << box.modulus & polynomial.mask:
                raise TelescopeError(f"Addition {box.name!r} must keep its carry")
            for literal, weight in box.inputs:
                for term, coefficient in self._product(context, literal, offset):
                    polynomial.add(term, scale * weight * coefficient)
                    brought |= term
        self.passed.add(box.name)
        return brought

    def _product(self, context: Term, literal: int, offset: int) -> Iterable[tuple[Term, int]]:
        for term, coefficient in self.polynomial(literal):
            yield context | {variable + offset for variable in term}, coefficient

    def step_back(
        self,
        polynomial: Polynomial,
        age: int,
        circuits: Callable[[str], Iterable[Circuit]],
        held: Collection[str],
    ) -> Polynomial:
        """Put the next states in place of the registers of ``age`` cycles before, one cycle earlier.

        Those ``held`` stay. The next state of a register is taken from the first of its ``circuits`` in which its gates
        can be tabulated.

        Raises
        ------
        :class:`TelescopeError`
            There is none.
        """
        states: dict[int, list[tuple[Term, int]]] = {}

        def state(variable: int) -> list[tuple[Term, int]]:
            if variable not in states:
                known = [(frozenset((variable,)), 1)]
                name = self.aig.names[variable % AGE]
                choices = list(circuits(name))
                if variable // AGE == age and name not in held and name in choices[-1].registers:
                    known = [
                        (frozenset(node + (age + 1) * AGE for node in term), coefficient)
                        for term, coefficient in self._next(name, choices)
                    ]
                states[variable] = known
            return states[variable]

        result = Polynomial(polynomial.bits)
        for term, coefficient in polynomial.terms.items():
            products: dict[Term, int] = {ONE: coefficient}
            for variable in term:
                factor = state(variable)
                expanded: dict[Term, int] = {}
                for left, a in products.items():
                    for right, b in factor:
                        expanded[left | right] = expanded.get(left | right, 0) + a * b
                products = expanded
            for product, value in products.items():
                result.add(product, value)
        return result

    def _next(self, name: str, circuits: list[Circuit]) -> list[tuple[Term, int]]:
        for circuit in circuits:
            if name in circuit.registers:
                try:
                    return self.polynomial(circuit.registers[name])
                except ConeError:
                    continue
        raise TelescopeError(f"Register {name!r} must have a next state of few inputs")
