"""Drivers and monitors for valid/ready streams, stepped once a cycle by one loop.

A bench that awaits the clock in a coroutine per stream spends most of its time waking coroutines. Here every
agent has a ``step`` that is called right after the rising edge, reads the values from before the edge, and
writes the values for the next one; :func:`run` is the only coroutine. Agents never look inside the design.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotb.types import LogicArray

__all__ = ["Agent", "ProtocolError", "Sink", "Source", "Strobe", "read", "reset", "run"]

PERIOD_NS = 10
IDLE_LIMIT = 1000
TRAILING = 12


class ProtocolError(AssertionError):
    """The design broke a rule of its streams: an unknown bit, a dropped valid, a payload that did not hold."""


class Agent(Protocol):
    """What :func:`run` steps."""

    def step(self) -> None:
        """One clock cycle: read the values before the edge, write those after it."""


def read(handle: Any, dont_care: Callable[[str], str] | None = None) -> int:
    """The unsigned value of a signal.

    Parameters
    ----------
    dont_care : callable or ``None``
        Given the bits as text, most significant first, returns them with those that mean nothing replaced.

    Raises
    ------
    ProtocolError
        A bit is X or Z.
    """
    text = str(handle.value)
    if dont_care is not None:
        text = dont_care(text)
    try:
        return int(text, 2)
    except ValueError:
        raise ProtocolError(f"{handle._name} must be known, not {text}") from None


class Strobe:
    """Drives a stream without back-pressure, one cycle at a time.

    Between items the payload is unknown on simulators that know X, random bits elsewhere: a design that reads
    it without ``valid`` is found.

    Parameters
    ----------
    dut, name
        The design and its stream member: ``<name>__valid`` and ``<name>__payload``.
    random : :class:`random.Random`
        Where payloads between items come from.
    hold : :class:`bool`
        Between items the payload stays as it was instead; before the first one it is 0.
    """

    def __init__(self, dut: Any, name: str, *, random: Random, hold: bool = False) -> None:
        self.valid, self.payload = dut[f"{name}__valid"], dut[f"{name}__payload"]
        self.random = random
        self.hold = hold
        if hold:
            self.payload.value = 0
        self.width = len(self.payload)
        self.unknown = LogicArray("X" * self.width) if "icarus" in cocotb.SIM_NAME.lower() else None
        self.offering = True
        self.offer(None)

    def offer(self, item: int | None) -> None:
        """Drive an item, or nothing, for the coming cycle."""
        if item is not None:
            self.payload.value = item
        elif self.offering and not self.hold:
            self.payload.value = self.random.getrandbits(self.width) if self.unknown is None else self.unknown
        if (item is not None) != self.offering:
            self.offering = item is not None
            self.valid.value = int(self.offering)


class Source:
    """Drives a stream's input from an iterable of packed payloads; see :class:`Strobe` for the time between
    them.

    ``valid`` and the payload hold until the transfer.

    Parameters
    ----------
    dut, name
        The design and its stream member.
    items : iterable of :class:`int`
        Payloads, taken one by one.
    stall : :class:`float`
        Probability that a cycle in which nothing is offered stays without an offer.
    random : :class:`random.Random`
        Where stalls come from.
    """

    def __init__(self, dut: Any, name: str, items: Iterable[int], *, stall: float, random: Random) -> None:
        self.strobe = Strobe(dut, name, random=random)
        self.ready = dut[f"{name}__ready"]
        self.items = iter(items)
        self.stall, self.random = stall, random
        self.sent = 0
        self.exhausted = False

    @property
    def done(self) -> bool:
        """Whether every item has been taken."""
        return self.exhausted and not self.strobe.offering

    def step(self) -> None:
        """Count a transfer at the edge; offer the next item, hold the current one, or stall."""
        if self.exhausted:
            return
        if self.strobe.offering:
            if not read(self.ready):
                return
            self.sent += 1
        if self.stall and self.random.random() < self.stall:
            self.strobe.offer(None)
            return
        item = next(self.items, None)
        self.exhausted = item is None
        self.strobe.offer(item)


class Sink:
    """Takes a stream's output, checks its rules, and keeps the packed payloads.

    Checked every cycle: ``valid`` is known, it does not drop before the transfer, and the payload is known
    and holds meanwhile.

    Parameters
    ----------
    dut, name
        The design and its stream member.
    stall : :class:`float`
        Probability that ``ready`` is low in a cycle. With 0, ``ready`` stays high.
    random : :class:`random.Random`
        Where stalls come from.
    dont_care : callable or ``None``
        For payload bits that mean nothing; see :func:`read`.
    """

    def __init__(
        self,
        dut: Any,
        name: str,
        *,
        stall: float,
        random: Random,
        dont_care: Callable[[str], str] | None = None,
    ) -> None:
        self.name = name
        self.dont_care = dont_care
        self.valid, self.payload, self.ready = (
            dut[f"{name}__valid"],
            dut[f"{name}__payload"],
            dut[f"{name}__ready"],
        )
        self.stall, self.random = stall, random
        self.received: list[int] = []
        self.waiting: int | None = None
        self.willing = not stall
        self.ready.value = int(self.willing)

    def step(self) -> None:
        """Check the rules at the edge, keep what is transferred, and choose whether to be ready next."""
        if read(self.valid):
            payload = read(self.payload, self.dont_care)
            if self.waiting is not None and payload != self.waiting:
                raise ProtocolError(
                    f"{self.name}.payload must hold until the transfer, "
                    f"not change from {self.waiting:#x} to {payload:#x}"
                )
            if self.willing:
                self.received.append(payload)
                self.waiting = None
            else:
                self.waiting = payload
        elif self.waiting is not None:
            raise ProtocolError(f"{self.name}.valid must hold until the transfer, not drop")
        if self.stall:
            self.willing = self.random.random() >= self.stall
            self.ready.value = int(self.willing)


async def reset(dut: Any) -> None:
    """Start the clock and hold reset for two cycles; the agents should exist already, so that inputs are driven."""
    Clock(dut.clk, PERIOD_NS, unit="ns", impl="gpi").start()
    dut.rst.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


async def run(dut: Any, agents: Iterable[Agent], finished: Callable[[], bool]) -> int:
    """Step the agents every cycle until ``finished()``, then some cycles more in which nothing may come out.

    Returns
    -------
    :class:`int`
        Cycles until ``finished()``.

    Raises
    ------
    ProtocolError
        No source sent and no sink received anything for :data:`IDLE_LIMIT` cycles, or a sink received
        something after the end.
    """
    edge = RisingEdge(dut.clk)
    agents = list(agents)
    steps = [agent.step for agent in agents]
    streams = [agent for agent in agents if isinstance(agent, (Source, Sink))]

    def moved() -> int:
        return sum(agent.sent if isinstance(agent, Source) else len(agent.received) for agent in streams)

    cycles, progress, check_at = 0, moved(), IDLE_LIMIT
    while not finished():
        await edge
        for step in steps:
            step()
        cycles += 1
        if cycles == check_at:
            if moved() == progress:
                raise ProtocolError(f"The design must make progress, not stand still for {IDLE_LIMIT} cycles")
            progress, check_at = moved(), cycles + IDLE_LIMIT
    complete = moved()
    for _ in range(TRAILING):
        await edge
        for step in steps:
            step()
    if moved() != complete:
        raise ProtocolError("The design must be silent after its last result, not send more")
    return cycles
