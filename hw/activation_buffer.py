"""The activation buffer: words in two banks, so that two neighbouring ones are written or read together."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.config import AcceleratorConfig
from hw.ram import Ram

__all__ = ["ActivationBuffer", "read_signature", "read_two_signature", "write_signature"]


def write_signature(config: AcceleratorConfig) -> wiring.Signature:
    """The write port, as who writes sees it.

    * ``addr``, ``data[0]``: the word, and its digits. ``data[1]``: those of the next word.
    * ``en``: which groups of ``requant_lanes`` lanes are written. ``two``: the next word's too.
    """
    return wiring.Signature(
        {
            "addr": Out(range(config.activation_depth)),
            "data": Out(data.ArrayLayout(config.lanes * config.digit_bits, 2)),
            "en": Out(config.lanes // config.requant_lanes),
            "two": Out(1),
        }
    )


def read_signature(config: AcceleratorConfig) -> wiring.Signature:
    """A read port, as who reads sees it: ``addr``, ``en``; ``data`` in the next cycle, held until the next ``en``."""
    word = config.lanes * config.digit_bits
    return wiring.Signature({"addr": Out(range(config.activation_depth)), "en": Out(1), "data": In(word)})


def read_two_signature(config: AcceleratorConfig) -> wiring.Signature:
    """As :func:`read_signature`, but ``data`` are the word and the next one."""
    words = data.ArrayLayout(config.lanes * config.digit_bits, 2)
    return wiring.Signature({"addr": Out(range(config.activation_depth)), "en": Out(1), "data": In(words)})


class ActivationBuffer(wiring.Component):
    """``activation_depth`` words of ``lanes`` digits: even addresses in one bank, odd ones in the other.

    Ports are independent and take a request each cycle. A read of a word that is written in the same cycle gives the
    old one. Words that were never written are unknown, and so is the one after the last.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry and depth.

    Members
    -------
    write : ``In(write_signature(config))``
        ``two`` must be low at the last address.
    read : ``In(read_signature(config))``, ``read_two`` : ``In(read_two_signature(config))``
        The read ports.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "write": In(write_signature(config)),
                "read": In(read_signature(config)),
                "read_two": In(read_two_signature(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        slots = config.lanes // config.requant_lanes
        banks = [
            Ram(
                lane_bits=config.requant_lanes * config.digit_bits,
                lanes=slots,
                depth=max(2, (config.activation_depth + 1) // 2),
                reads=2,
            )
            for _ in range(2)
        ]
        m.submodules.even, m.submodules.odd = banks

        write, read, two = self.write, self.read, self.read_two
        read_odd = Signal(reset_less=True)
        two_odd = Signal(reset_less=True)
        with m.If(read.en):
            m.d.sync += read_odd.eq(read.addr[0])
        with m.If(two.en):
            m.d.sync += two_odd.eq(two.addr[0])
        for odd, bank in enumerate(banks):
            second = write.addr[0] != odd
            # The word after an odd address is one further in the even bank.
            m.d.comb += [
                bank.write.addr.eq(write.addr[1:] + (0 if odd else write.addr[0])),
                bank.write.data.eq(Mux(second, write.data[1], write.data[0])),
                bank.write.en.eq(Mux(~second | write.two, write.en, 0)),
                bank.read[0].addr.eq(read.addr[1:]),
                bank.read[0].en.eq(read.en & (read.addr[0] == odd)),
                bank.read[1].addr.eq(two.addr[1:] + (0 if odd else two.addr[0])),
                bank.read[1].en.eq(two.en),
            ]
        even, odd = banks
        m.d.comb += [
            read.data.eq(Mux(read_odd, odd.read[0].data, even.read[0].data)),
            two.data[0].eq(Mux(two_odd, odd.read[1].data, even.read[1].data)),
            two.data[1].eq(Mux(two_odd, even.read[1].data, odd.read[1].data)),
        ]
        return m
