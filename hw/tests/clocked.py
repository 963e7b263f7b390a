"""Benches that step a component cycle by cycle, and memories for its read ports."""

from collections.abc import Mapping

from amaranth.lib import data
from amaranth.sim import Simulator


def simulate(dut, bench):
    """Run one bench, an ``async`` function of the simulation's context."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


class Memory:
    """What stands behind a read port ``{addr, en, data}``: latency 1, and ``data`` hold until the next read.

    Where ``data`` are two words, the second one is that of the next address, 0 if there is none.

    Parameters
    ----------
    port
        The component's port.
    words : mapping
        By address; a read of any other address is refused.
    """

    def __init__(self, port, words: Mapping[int, int]) -> None:
        self.port = port
        self.words = words
        self.reads: list[tuple[int, int]] = []
        """Cycle and address of every read."""
        self._data: int | list[int] | None = None

    def before_edge(self, ctx, cycle):
        """To be called when all inputs of a cycle are set."""
        self._data = None
        if ctx.get(self.port.en):
            address = ctx.get(self.port.addr)
            assert address in self.words, f"read of address {address} in cycle {cycle}"
            self.reads.append((cycle, address))
            two = isinstance(self.port.data, data.View)
            self._data = [self.words[address], self.words.get(address + 1, 0)] if two else self.words[address]

    def after_edge(self, ctx):
        """To be called after the cycle's edge."""
        if self._data is not None:
            ctx.set(self.port.data, self._data)
