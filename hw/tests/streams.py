"""Bench for components whose ports are valid/ready streams: stalls on every side, and the rules of streams checked."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amaranth.hdl import Value
from amaranth.lib import stream, wiring
from amaranth.sim import Simulator

IDLE_LIMIT = 200
TRAILING = 12


@dataclass
class Log:
    """What was transferred on one stream, packed, and the cycles of the transfers.

    ``offered`` are the first cycles in which each payload was valid.
    """

    payloads: list[int] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)


class Streams:
    """Feeds and reads all streams of a component, stepped once a cycle.

    A valid payload of the component must hold until its transfer, and what stands on an input without valid (random
    bits here) must not matter.

    Parameters
    ----------
    dut : :class:`amaranth.lib.wiring.Component`
        The component; each of its members is a stream.
    stall : :class:`float` or mapping
        Probability, for all streams or by member, that a cycle passes without an offer or without a ready.
    """

    def __init__(self, dut: wiring.Component, *, stall: float | Mapping[str, float] = 0.0, seed: int = 0) -> None:
        members = dut.signature.members
        self.dut = dut
        self.inputs = [name for name in members if members[name].flow is wiring.In]
        self.outputs = [name for name in members if members[name].flow is wiring.Out]
        assert all(isinstance(members[name].signature, stream.Signature) for name in members)
        self.stall = stall if isinstance(stall, Mapping) else dict.fromkeys(members, stall)
        self.rng = random.Random(seed)
        self.cycle = 0

    async def run(
        self,
        ctx,
        items: Mapping[str, Sequence[int]],
        count: int | Mapping[str, int],
        *,
        after: Mapping[str, int] | None = None,
        cycles: int | None = None,
        idle: int = IDLE_LIMIT,
    ) -> dict[str, Log]:
        """Feed ``items`` until each output has sent its ``count`` of payloads, and see that nothing more comes.

        Parameters
        ----------
        items : mapping
            Packed payloads of every input.
        after : mapping or ``None``
            Inputs that offer nothing before a cycle, and outputs that are not ready before it.
        cycles : :class:`int` or ``None``
            Stop after so many cycles, whatever has come.
        idle : :class:`int`
            Cycles without a transfer after which the component is taken for stuck.
        """
        after = after or {}
        counts = count if isinstance(count, Mapping) else dict.fromkeys(self.outputs, count)
        logs = {name: Log() for name in (*self.inputs, *self.outputs)}
        offering = dict.fromkeys(self.inputs, False)
        pending: dict[str, int | None] = dict.fromkeys(self.outputs)
        # Ports by name, looked up once.
        ports = {name: getattr(self.dut, name) for name in logs}
        words = {name: Value.cast(port.payload) for name, port in ports.items()}
        start, moved, trailing = self.cycle, self.cycle, 0

        def stalls(name: str) -> bool:
            if self.cycle - start < after.get(name, 0):
                return True
            chance = self.stall.get(name, 0.0)
            return chance > 0 and self.rng.random() < chance

        while trailing < TRAILING and (cycles is None or self.cycle - start < cycles):
            for name in self.inputs:
                index = len(logs[name].payloads)
                if not offering[name]:
                    offering[name] = index < len(items[name]) and not stalls(name)
                    ctx.set(words[name], items[name][index] if offering[name] else self._noise(words[name]))
                    ctx.set(ports[name].valid, offering[name])
                    if offering[name]:
                        logs[name].offered.append(self.cycle - start)
            ready = {name: not stalls(name) for name in self.outputs}
            for name in self.outputs:
                ctx.set(ports[name].ready, ready[name])
            done = {name: offering[name] and ctx.get(ports[name].ready) for name in self.inputs}
            for name in self.outputs:
                before, log = pending[name], logs[name]
                if not ctx.get(ports[name].valid):
                    assert before is None, f"{name}.valid dropped before the transfer in cycle {self.cycle - start}"
                    done[name] = False
                    continue
                word = ctx.get(words[name])
                if before is None:
                    log.offered.append(self.cycle - start)
                else:
                    assert word == before, f"{name}.payload changed before the transfer in cycle {self.cycle - start}"
                pending[name] = None if ready[name] else word
                done[name] = ready[name]
                if ready[name]:
                    assert len(log.payloads) < counts[name], f"{name} sent more than {counts[name]} payloads"
                    log.payloads.append(word)
                    log.cycles.append(self.cycle - start)
            for name in self.inputs:
                if done[name]:
                    logs[name].payloads.append(items[name][len(logs[name].payloads)])
                    logs[name].cycles.append(self.cycle - start)
                    offering[name] = False
            await ctx.tick()
            self.cycle += 1
            if any(done.values()):
                moved, trailing = self.cycle, 0
            elif all(len(logs[name].payloads) == counts[name] for name in self.outputs):
                trailing += 1
            waited_for = max([0, *after.values()]) + start
            assert self.cycle - max(moved, waited_for) < idle, (
                f"nothing moves any more; moved so far: { {name: len(log.payloads) for name, log in logs.items()} }"
            )
        for name in self.inputs:
            ctx.set(ports[name].valid, 0)
        return logs

    def _noise(self, word: Value) -> int:
        return self.rng.getrandbits(len(word))


def run(
    dut: wiring.Component,
    items: Mapping[str, Sequence[int]],
    count: int,
    *,
    stall: float | Mapping[str, float] = 0.0,
    seed: int = 0,
    after: Mapping[str, int] | None = None,
    idle: int = IDLE_LIMIT,
) -> dict[str, Log]:
    """:meth:`Streams.run` of a whole simulation; every payload must have been taken in the end."""
    logs: dict[str, Log] = {}

    async def bench(ctx):
        logs.update(await Streams(dut, stall=stall, seed=seed).run(ctx, items, count, after=after, idle=idle))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for name, payloads in items.items():
        assert logs[name].payloads == list(payloads)
    return logs


def pack(fields: Sequence[tuple[int, int]]) -> int:
    """(value, width) pairs as one word, least significant first; a value must fit its width, signed or unsigned."""
    word = offset = 0
    for value, width in fields:
        assert -(1 << width) <= 2 * value < 2 << width, f"{value} does not fit {width} bits"
        word |= (value & (1 << width) - 1) << offset
        offset += width
    return word
