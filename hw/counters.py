"""Full and half adders side by side, and what is built from them: carry-save compressor trees and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from amaranth.hdl import C, Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import checked_integer

__all__ = [
    "Bit",
    "ComplementHalfAdders",
    "FullAdders",
    "HalfAdders",
    "bits_of",
    "carry_save_sum",
    "compress",
    "compress_pipelined",
    "concatenate",
    "register",
    "stage_heights",
    "two_rows",
]


class _Adders(wiring.Component):
    """What the adders below have in common: a checked width and a name for the generated module."""

    _inputs: tuple[str, ...]
    _kind: str

    def __init__(self, *, width: int) -> None:
        self.width = checked_integer("Width", width, 1)
        super().__init__(
            {port: In(self.width) for port in self._inputs} | {"sum": Out(self.width), "carry": Out(self.width)}
        )

    @property
    def module_name(self) -> str:
        """Name of the Verilog module; synthesis recognises the adder cells by it."""
        return f"{self._kind}_{self.width}"


class FullAdders(_Adders):
    """``width`` full adders, independent of each other: ``a + b + c = 2*carry + sum`` at every bit position.

    Combinational. A full adder is its own dual: given complemented inputs it gives complemented outputs.

    Parameters
    ----------
    width : :class:`int`
        Number of full adders; at least 1.

    Members
    -------
    a, b, c : ``In(width)``
        Three bits of equal weight. Library cells are fastest from ``c``.
    sum : ``Out(width)``
        Bits of that weight.
    carry : ``Out(width)``
        Bits of twice that weight.
    """

    _inputs = ("a", "b", "c")
    _kind = "full_adders"

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += [
            self.sum.eq(self.a ^ self.b ^ self.c),
            self.carry.eq((self.a & self.b) | (self.c & (self.a ^ self.b))),
        ]
        return m


class HalfAdders(_Adders):
    """``width`` half adders, independent of each other: ``a + b = 2*carry + sum`` at every bit position.

    Combinational.

    Parameters
    ----------
    width : :class:`int`
        Number of half adders; at least 1.

    Members
    -------
    a, b : ``In(width)``
        Two bits of equal weight.
    sum : ``Out(width)``
        Bits of that weight.
    carry : ``Out(width)``
        Bits of twice that weight.
    """

    _inputs = ("a", "b")
    _kind = "half_adders"

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += [self.sum.eq(self.a ^ self.b), self.carry.eq(self.a & self.b)]
        return m


class ComplementHalfAdders(_Adders):
    """Half adders whose inputs and outputs are all complemented: ``~a + ~b = 2*~carry + ~sum`` at every position.

    Combinational. They stand where :class:`HalfAdders` would in a tree of complemented bits.

    Parameters
    ----------
    width : :class:`int`
        Number of half adders; at least 1.

    Members
    -------
    a, b : ``In(width)``
        Complements of two bits of equal weight.
    sum : ``Out(width)``
        Complements of bits of that weight.
    carry : ``Out(width)``
        Complements of bits of twice that weight.
    """

    _inputs = ("a", "b")
    _kind = "complement_half_adders"

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += [self.sum.eq(~(self.a ^ self.b)), self.carry.eq(self.a | self.b)]
        return m


class Bit(NamedTuple):
    """``source[offset]``, which arrives ``arrival`` after the earliest bits: see the delays below."""

    arrival: int
    source: Value
    offset: int


# Relative delays of the adders of common cell libraries, in units of about 30 ps on Nangate45.
SUM_DELAY = 4
CARRY_DELAY = 3
LATE_INPUT_GAIN = 1  # a full adder's input c is faster than a and b by this much


def bits_of(value: Value, arrival: int = 0) -> list[Bit]:
    """The bits of ``value``, least significant first."""
    return [Bit(arrival, value, offset) for offset in range(len(value))]


def concatenate(bits: Iterable[Bit]) -> Value:
    """The value made of ``bits``, least significant first, with neighbours of one source as one slice."""
    slices: list[tuple[Value, int, int]] = []
    for bit in bits:
        if slices and slices[-1][0] is bit.source and slices[-1][2] == bit.offset:
            slices[-1] = (bit.source, slices[-1][1], bit.offset + 1)
        else:
            slices.append((bit.source, bit.offset, bit.offset + 1))
    return Cat(source[start:stop] for source, start, stop in slices)


def _triples(bits: Sequence[Bit]) -> list[tuple[Bit, Bit, Bit]]:
    """``bits``, sorted by arrival, three by three in that order.

    A run of bits that arrive together is taken as three slices rather than bit by bit, so that the generated code
    moves words around instead of single bits.
    """
    triples = []
    start = 0
    while start + 3 <= len(bits):
        stop = start
        while stop < len(bits) and bits[stop].arrival == bits[start].arrival:
            stop += 1
        third = (stop - start) // 3
        if third:
            triples += [(bits[i], bits[i + third], bits[i + 2 * third]) for i in range(start, start + third)]
            start += 3 * third
        else:
            triples.append((bits[start], bits[start + 1], bits[start + 2]))
            start += 3
    return triples


def stage_heights(height: int) -> list[int]:
    """What columns of ``height`` bits come down to in each stage of a compressor tree, 2 being the last."""
    heights = [2]
    while heights[-1] * 3 // 2 < height:
        heights.append(heights[-1] * 3 // 2)
    return heights[::-1] if height > 2 else []


def compress(
    m: Module,
    columns: Sequence[Sequence[Bit]],
    *,
    complemented: bool = False,
    prefix: str = "stage",
    height: int = 2,
) -> list[list[Bit]]:
    """Add a carry-save compressor tree to ``m`` and return its columns, each of at most ``height`` bits.

    ``columns[k]`` are bits of weight ``2**k``; the sum of all bits is kept modulo ``2**len(columns)``. The tree has
    one submodule of full adders (and rarely one of half adders) per stage, of logarithmic depth.

    Every three bits of a column go through a full adder as early as possible, those that arrive last through its
    fast input. A full adder takes exactly one bit away, so how many there are does not depend on the order; half
    adders take none away and are used only where a column would otherwise ripple into its neighbour and cost a
    stage: stage heights are those of L. Dadda, "Some schemes for parallel multipliers", Alta Frequenza 34 (1965).

    Parameters
    ----------
    m : :class:`Module`
        Receives the submodules ``<prefix>_<n>_full_adders`` and ``<prefix>_<n>_half_adders``.
    columns : lists of :class:`Bit`
        May be of any height.
    complemented : :class:`bool`
        Whether the bits that come in and go out are complements of the bits to be summed.
    prefix : :class:`str`
        Of the names of the submodules.
    height : :class:`int`
        Where it ends; at least 2.
    """
    heap = [list(column) for column in columns]
    stage = 0
    while max(map(len, heap)) > height:
        limit = stage_heights(max(map(len, heap)))[0]
        full: list[tuple[int, tuple[Bit, Bit, Bit]]] = []
        half: list[tuple[int, tuple[Bit, Bit]]] = []
        rest: list[list[Bit]] = []
        carries = 0
        for weight, unsorted in enumerate(heap):
            column = sorted(unsorted, key=lambda bit: bit.arrival)
            triples = _triples(column)
            left = column[3 * len(triples) :]
            pair = len(left) == 2 and len(triples) + len(left) + carries > limit
            full += [(weight, triple) for triple in triples]
            if pair:
                half.append((weight, (left[0], left[1])))
                left = []
            rest.append(left)
            carries = len(triples) + int(pair)

        def place(weight: int, bit: Bit, heap: list[list[Bit]] = rest) -> None:
            if weight < len(heap):
                heap[weight].append(bit)

        if full:
            adders = FullAdders(width=len(full))
            m.submodules[f"{prefix}_{stage}_full_adders"] = adders
            for position, port in enumerate((adders.a, adders.b, adders.c)):
                m.d.comb += port.eq(concatenate(triple[position] for _, triple in full))
            for index, (weight, (a, b, c)) in enumerate(full):
                ready = max(a.arrival, b.arrival, c.arrival - LATE_INPUT_GAIN)
                place(weight, Bit(ready + SUM_DELAY, adders.sum, index))
                place(weight + 1, Bit(ready + CARRY_DELAY, adders.carry, index))
        if half:
            halves = (ComplementHalfAdders if complemented else HalfAdders)(width=len(half))
            m.submodules[f"{prefix}_{stage}_half_adders"] = halves
            for position, port in enumerate((halves.a, halves.b)):
                m.d.comb += port.eq(concatenate(pair[position] for _, pair in half))
            for index, (weight, (a, b)) in enumerate(half):
                ready = max(a.arrival, b.arrival)
                place(weight, Bit(ready + CARRY_DELAY, halves.sum, index))
                place(weight + 1, Bit(ready + CARRY_DELAY, halves.carry, index))
        heap = rest
        stage += 1
    return heap


def two_rows(m: Module, columns: list[list[Bit]], *, complemented: bool = False) -> tuple[Value, Value]:
    """Columns of at most two bits as two numbers of ``len(columns)`` bits. What a column lacks is 0."""
    rows = []
    for row in range(2):
        bits = [concatenate(column[row : row + 1]) if row < len(column) else C(complemented, 1) for column in columns]
        rows.append(Signal(len(columns), name=f"row_{row}"))
        m.d.comb += rows[row].eq(~Cat(bits) if complemented else Cat(bits))
    return rows[0], rows[1]


def carry_save_sum(m: Module, columns: list[list[Bit]], *, complemented: bool = False) -> Value:
    """The sum, modulo ``2**len(columns)``, of columns of at most two bits: one carry-propagate adder.

    Columns of one bit below the first one of two are passed through. An empty column is 0.
    """
    first, second = two_rows(m, columns, complemented=complemented)
    low = next((weight for weight, column in enumerate(columns) if len(column) == 2), len(columns))
    return Cat(first[:low], (first[low:] + second[low:])[: len(columns) - low])


def register(m: Module, columns: list[list[Bit]], name: str) -> list[list[Bit]]:
    """Columns of the same bits one cycle later, out of one register without reset."""
    value = concatenate(bit for column in columns for bit in column)
    stored = Signal(len(value), name=name, reset_less=True)
    m.d.sync += stored.eq(value)
    bits = iter(bits_of(stored))
    return [[next(bits) for _ in column] for column in columns]


def compress_pipelined(
    m: Module, columns: list[list[Bit]], *, registers: int, complemented: bool = False, prefix: str
) -> list[list[Bit]]:
    """A compressor tree with ``registers`` registers in it, one cycle of latency each.

    With one it stands where there are two bits to a column, with two there is another half way; without any, the
    columns are returned as they are.
    """
    heights = stage_heights(max(map(len, columns)))
    middle = heights[max(len(heights) // 2 - 1, 0)] if heights else 2
    for number, height in enumerate((middle, 2)[2 - registers :]):
        columns = compress(m, columns, complemented=complemented, prefix=f"{prefix}_{number}", height=height)
        columns = register(m, columns, f"{prefix}_{number}_register{'_n' if complemented else ''}")
    return columns
