"""Memory: one write port with lane enables, any number of read ports. What an SRAM macro takes the place of."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.config import checked_integer

__all__ = ["POWERS_UP_UNKNOWN", "Ram"]

POWERS_UP_UNKNOWN = "powers_up_unknown"
"""Attribute of a memory whose words have no value before they are written: Verilog gives it no initial ones."""


class Ram(wiring.Component):
    """``depth`` words of ``lanes`` times ``lane_bits`` bits. A Verilog module of its own, without initial values.

    Read latency 1: ``data`` has the word in the cycle after one with ``en`` and keeps it until the next one. A read of
    the word that is written in the same cycle gives the old word. Addresses are less than ``depth``.

    Parameters
    ----------
    lane_bits, lanes : :class:`int`
        Width of what is written together, and how many of it there are in a word; at least 1.
    depth : :class:`int`
        At least 2.
    reads : :class:`int`
        Read ports; at least 1.

    Members
    -------
    write : ``{addr, data, en}``
        ``en`` has a bit per lane.
    read : array of ``{addr, en, data}``
        One per read port.

    Raises
    ------
    :class:`TypeError`
        A parameter is not an integer.
    :class:`ValueError`
        A parameter is outside its range.
    """

    def __init__(self, *, lane_bits: int, lanes: int = 1, depth: int, reads: int = 1) -> None:
        self.lane_bits = checked_integer("Lane width", lane_bits, 1)
        self.lanes = checked_integer("Number of lanes", lanes, 1)
        self.depth = checked_integer("Depth", depth, 2)
        self.reads = checked_integer("Number of read ports", reads, 1)
        address = ceil_log2(self.depth)
        word = self.lane_bits * self.lanes
        write = wiring.Signature({"addr": In(address), "data": In(word), "en": In(self.lanes)})
        read = wiring.Signature({"addr": In(address), "en": In(1), "data": Out(word)})
        super().__init__({"write": Out(write), "read": Out(read).array(self.reads)})

    def elaborate(self, platform) -> Module:
        m = Module()
        shape = data.ArrayLayout(self.lane_bits, self.lanes)
        m.submodules.memory = words = memory.Memory(
            shape=shape, depth=self.depth, init=[], attrs={POWERS_UP_UNKNOWN: 1}
        )
        write = words.write_port(granularity=1)
        m.d.comb += [
            write.addr.eq(self.write.addr),
            write.data.eq(self.write.data),
            write.en.eq(self.write.en),
        ]
        for port in self.read:
            read = words.read_port()
            m.d.comb += [read.addr.eq(port.addr), read.en.eq(port.en), port.data.eq(read.data)]
        return m
