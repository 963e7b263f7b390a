"""And-inverter graphs with structural hashing: what circuits are compared as."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["FALSE", "TRUE", "Aig", "ConeError", "patterns"]

FALSE, TRUE = 0, 1
"""The constant literals. A literal is twice a node, plus one if complemented."""


class ConeError(ValueError):
    """A cone of more inputs than can be tabulated."""


def patterns(count: int) -> list[int]:
    """All assignments of ``count`` variables: bit i of word n is bit n of i."""
    size = 1 << count
    words = []
    for n in range(count):
        block = ((1 << (1 << n)) - 1) << (1 << n)
        length = 2 << n
        while length < size:
            block |= block << length
            length *= 2
        words.append(block)
    return words


class Aig:
    """A graph that only grows. Equal structures are one node, so equal literals are a proof of equality.

    Attributes
    ----------
    fanins : list
        The two literals of each node; ``None`` for the constant (node 0) and the inputs.
    inputs : mapping of :class:`str` to :class:`int`
        The literal of every input, by name.
    names : mapping of :class:`int` to :class:`str`
        The name of every input's node.
    """

    def __init__(self) -> None:
        self.fanins: list[tuple[int, int] | None] = [None]
        self.inputs: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self._nodes: dict[tuple[int, int], int] = {}

    def input(self, name: str) -> int:
        """The literal of the input ``name``, which is made if there is none."""
        literal = self.inputs.get(name)
        if literal is None:
            node = len(self.fanins)
            self.fanins.append(None)
            self.names[node] = name
            literal = self.inputs[name] = 2 * node
        return literal

    def and_(self, a: int, b: int) -> int:
        """The literal of ``a & b``."""
        if a > b:
            a, b = b, a
        if a == FALSE or a ^ b == 1:
            return FALSE
        if a in (TRUE, b):
            return b
        literal = self._nodes.get((a, b))
        if literal is None:
            literal = 2 * len(self.fanins)
            self.fanins.append((a, b))
            self._nodes[a, b] = literal
        return literal

    def or_(self, a: int, b: int) -> int:
        """The literal of ``a | b``."""
        return self.and_(a ^ 1, b ^ 1) ^ 1

    def mux(self, select: int, one: int, zero: int) -> int:
        """The literal of ``one if select else zero``."""
        if one == zero:
            return one
        return self.or_(self.and_(select, one), self.and_(select ^ 1, zero))

    def xor(self, a: int, b: int) -> int:
        """The literal of ``a ^ b``."""
        sign = (a ^ b) & 1
        a, b = a & ~1, b & ~1
        return self.and_(self.and_(a, b) ^ 1, self.and_(a ^ 1, b ^ 1) ^ 1) ^ sign

    def majority(self, a: int, b: int, c: int) -> int:
        """The literal of ``a + b + c >= 2``."""
        return self.or_(self.and_(a, b), self.and_(c, self.or_(a, b)))

    def of_table(self, table: int, inputs: Sequence[int]) -> int:
        """The literal of a truth table: bit i is the value where input n has bit n of i."""
        size = 1 << len(inputs)
        if table == 0:
            return FALSE
        if table == (1 << size) - 1:
            return TRUE
        half = size // 2
        low, high = table & ((1 << half) - 1), table >> half
        *rest, last = inputs
        if low ^ high == (1 << half) - 1:
            return self.xor(last, self.of_table(low, rest))
        return self.mux(last, self.of_table(high, rest), self.of_table(low, rest))

    def cone(self, literals: Iterable[int]) -> list[int]:
        """All nodes that ``literals`` depend on, fan-ins first."""
        found: set[int] = set()
        stack = [literal >> 1 for literal in literals]
        while stack:
            node = stack.pop()
            if node in found:
                continue
            found.add(node)
            fanins = self.fanins[node]
            if fanins is not None:
                stack += (fanins[0] >> 1, fanins[1] >> 1)
        return sorted(found)

    def support(self, literal: int) -> list[int]:
        """The inputs' nodes that ``literal`` depends on by structure."""
        return [node for node in self.cone([literal]) if node in self.names]

    def simulate(self, literals: Iterable[int], words: Mapping[int, int], mask: int) -> list[int]:
        """The values of ``literals`` where inputs' nodes have the values ``words``: one bit of ``mask`` each a case."""
        return self.program(literals)(words, mask)

    def program(self, literals: Iterable[int]) -> Callable[[Mapping[int, int], int], list[int]]:
        """:meth:`simulate` of ``literals``, to be called many times."""
        wanted = list(literals)
        places: dict[int, int] = {FALSE: 0}  # of literals among the values
        inputs: list[int] = []
        steps: list[tuple[int, int]] = []  # the places of what to AND, or of what to complement and -1
        nodes = self.cone(wanted)
        for node in nodes:
            if node and self.fanins[node] is None:
                places[2 * node] = 1 + len(inputs)
                inputs.append(node)

        def place(literal: int) -> int:
            if literal not in places:
                steps.append((places[literal ^ 1], -1))
                places[literal] = len(inputs) + len(steps)
            return places[literal]

        for node in nodes:
            fanins = self.fanins[node]
            if fanins is not None:
                step = place(fanins[0]), place(fanins[1])
                steps.append(step)
                places[2 * node] = len(inputs) + len(steps)
        results = [place(literal) for literal in wanted]

        def run(words: Mapping[int, int], mask: int) -> list[int]:
            values = [0, *(words[node] for node in inputs)]
            for a, b in steps:
                values.append(values[a] ^ mask if b < 0 else values[a] & values[b])
            return [values[index] for index in results]

        return run

    def table(self, literal: int, limit: int) -> tuple[list[int], int]:
        """The inputs' nodes that ``literal`` depends on and its truth table over them.

        Raises
        ------
        :class:`ConeError`
            There are more than ``limit``.
        """
        support = self.support(literal)
        if len(support) > limit:
            raise ConeError(f"Cone must have at most {limit} inputs, not {len(support)}")
        words = dict(zip(support, patterns(len(support)), strict=True))
        return support, self.simulate([literal], words, (1 << (1 << len(support))) - 1)[0]

    def compose(self, literals: Sequence[int], replacements: Mapping[int, int]) -> list[int]:
        """``literals`` with inputs' nodes replaced by the literals that ``replacements`` has for them."""
        copies: dict[int, int] = {0: FALSE}
        for node in self.cone(literals):
            fanins = self.fanins[node]
            if fanins is None:
                copies[node] = replacements.get(node, 2 * node)
            else:
                a, b = fanins
                copies[node] = self.and_(copies[a >> 1] ^ (a & 1), copies[b >> 1] ^ (b & 1))
        return [copies[literal >> 1] ^ (literal & 1) for literal in literals]

    def add(self, a: Sequence[int], b: Sequence[int]) -> list[int]:
        """The literals of the sum of two words of equal width, modulo that width, by a ripple-carry adder."""
        carry = FALSE
        total = []
        for x, y in zip(a, b, strict=True):
            total.append(self.xor(self.xor(x, y), carry))
            carry = self.majority(x, y, carry)
        return total

    def aiger(self, literals: Sequence[int], inputs: Sequence[int]) -> bytes:
        """``literals`` as the outputs of a binary AIGER file whose inputs are the nodes ``inputs``, in that order."""
        gates = [node for node in self.cone(literals) if self.fanins[node] is not None]
        numbers = {node: number for number, node in enumerate([0, *inputs, *gates])}

        def renumbered(literal: int) -> int:
            return 2 * numbers[literal >> 1] | (literal & 1)

        head = f"aig {len(numbers) - 1} {len(inputs)} 0 {len(literals)} {len(gates)}\n"
        body = bytearray(head.encode())
        body += "".join(f"{renumbered(literal)}\n" for literal in literals).encode()
        for node in gates:
            fanins = self.fanins[node]
            assert fanins is not None
            low, high = sorted(map(renumbered, fanins))
            for delta in (2 * numbers[node] - high, high - low):
                while delta > 0x7F:
                    body.append(delta & 0x7F | 0x80)
                    delta >>= 7
                body.append(delta)
        return bytes(body)
