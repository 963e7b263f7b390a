"""AXI: the flat names of its ports, and the streams and interfaces that stand behind them.

Ports of an AXI component must have certain names for tools to recognize them; inside, they are Amaranth interfaces.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Member, Out

__all__ = ["OKAY", "SLVERR", "LiteSignature", "connect_lite", "lite_ports", "stream_ports", "word_layout"]

OKAY = 0b00
SLVERR = 0b10


def word_layout(bits: int) -> data.StructLayout:
    """Payload of a stream of words: ``data``, and ``last`` in the last word of a packet."""
    return data.StructLayout({"data": bits, "last": 1})


class LiteSignature(wiring.Signature):
    """AXI4-Lite with 32-bit data as its manager sees it, without AxPROT.

    Parameters
    ----------
    address_bits : :class:`int`
        Width of the addresses.
    """

    def __init__(self, address_bits: int) -> None:
        self.address_bits = address_bits
        super().__init__(
            {
                "awaddr": Out(address_bits),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_bits),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


def lite_ports(prefix: str, address_bits: int) -> dict[str, Member]:
    """Ports of an AXI4-Lite subordinate: ``<prefix>_awaddr`` and so on."""
    signature = LiteSignature(address_bits).flip()
    return {f"{prefix}_{name}": signature.members[name] for name in signature.members}


def connect_lite(m: Module, component: Any, prefix: str, subordinate: Any) -> None:
    """Join the ports of :func:`lite_ports` to the interface of a part, a flipped :class:`LiteSignature`."""
    for name, member in subordinate.signature.members.items():
        outer, inner = getattr(component, f"{prefix}_{name}"), getattr(subordinate, name)
        m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)


def stream_ports(prefix: str, flow: wiring.Flow, bits: int) -> dict[str, Member]:
    """Ports of an AXI4-Stream: ``<prefix>_tdata`` and so on; ``flow`` is ``In`` where words come in."""
    return {
        f"{prefix}_tdata": flow(bits),
        f"{prefix}_tvalid": flow(1),
        f"{prefix}_tready": flow.flip()(1),
        f"{prefix}_tlast": flow(1),
    }
