"""The order in which a tile's results come: pixel by pixel, requantizer-wide group by group, two digits at a time."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.command import command_fields
from hw.config import AcceleratorConfig
from hw.program_format import address_bits

__all__ = ["ResultWalk", "walk_layout"]


def walk_layout(config: AcceleratorConfig, digits: str, **others: Shape) -> data.StructLayout:
    """What a walk must know of its tile, and what else goes along with it.

    * ``address``: of digit 0 of the first pixel's first word. ``step``: from one pixel to the next.
    * ``digits_last``: digits of a code less 1, as wide as the command's field ``digits``.
    * ``slot``: the group of lanes that the tile begins in. ``channels``, ``pixels_last``: as of the command.
    """
    shapes = {name: shape for name, (shape, _, _) in command_fields(config).items()}
    return data.StructLayout(
        {
            "address": shapes["output_address"],
            "step": shapes["output_step"],
            "digits_last": shapes[digits],
            "slot": shapes["slot"],
            "channels": shapes["channels"],
            "pixels_last": shapes["pixels_last"],
            **others,
        }
    )


class ResultWalk(wiring.Component):
    """Walks over the places of a tile's results in the activation buffer.

    A place is two digits of one group of ``requant_lanes`` channels, or the last one alone: ``address`` is the first
    one's word, the second one's is the next, and ``slot`` is the group's group of lanes in there. With ``advance`` it
    goes two digits on; from the last ones, or with ``whole``, to the next group; from the last group to the next pixel,
    or with ``again`` to the same one. After the last pixel comes the next tile.

    Timing: a tile that is taken in cycle c is current from c + 1 if none was before it. One tile may wait while one is
    current, and becomes so in the cycle after the last ``advance`` of that. Rate: one place a cycle.
    ``i.ready`` does not depend on an input of the same cycle.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry.
    layout : :class:`amaranth.lib.data.StructLayout`
        Of tiles; from :func:`walk_layout`.

    Members
    -------
    i : ``In(stream.Signature(layout))``
        Tiles.
    valid : ``Out(1)``
        There is a current tile; without one the other outputs mean nothing.
    tile : ``Out(layout)``
        The current tile.
    advance, whole, again : ``In(1)``
        As above; the latter two matter with ``advance`` only.
    address : ``Out(signed(address_bits(config)))``
        The word; outside the buffer if the tile is.
    group : ``Out``, ``slot`` : ``Out``, ``digit`` : ``Out``
        The place; ``digit`` is its first one, and even.
    two : ``Out(1)``
        It has a second one.
    lanes : ``Out(requant_lanes)``
        Which lanes of the group have a channel of the tile.
    last_digit, last_group, last_pixel : ``Out(1)``
        The place is the last one of that kind.
    """

    def __init__(self, config: AcceleratorConfig, layout: data.StructLayout) -> None:
        self.config = config
        self.layout = layout
        self.groups = config.rows // config.requant_lanes
        super().__init__(
            {
                "i": In(stream.Signature(layout)),
                "valid": Out(1),
                "tile": Out(layout),
                "advance": In(1),
                "whole": In(1),
                "again": In(1),
                "address": Out(signed(address_bits(config))),
                "group": Out(range(max(2, self.groups))),
                "slot": Out(layout["slot"].shape),
                "digit": Out(layout["digits_last"].shape),
                "two": Out(1),
                "lanes": Out(config.requant_lanes),
                "last_digit": Out(1),
                "last_group": Out(1),
                "last_pixel": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        waiting_valid = Signal()
        waiting = Signal(self.layout, reset_less=True)
        tile = self.tile
        pixel_address = Signal(self.address.shape(), reset_less=True)
        word_address = Signal(self.address.shape(), reset_less=True)
        pixels = Signal(self.layout["pixels_last"].shape, reset_less=True)
        channels = Signal(self.layout["channels"].shape, reset_less=True)

        next_group = Signal()
        next_position = Signal()
        next_pixel = Signal()
        finished = Signal()
        begin = Signal()
        first = Signal(self.layout)
        m.d.comb += [
            self.i.ready.eq(~waiting_valid),
            self.two.eq(self.digit != tile.digits_last),
            self.last_digit.eq((self.digit | 1) >= tile.digits_last),
            self.last_group.eq(self.group == self.groups - 1),
            self.last_pixel.eq(pixels == tile.pixels_last),
            next_group.eq(self.advance & (self.last_digit | self.whole)),
            next_position.eq(next_group & self.last_group),
            next_pixel.eq(next_position & ~self.again),
            finished.eq(next_pixel & self.last_pixel),
            begin.eq(~self.valid | finished),
            first.eq(Mux(waiting_valid, waiting.as_value(), self.i.payload.as_value())),
            self.lanes.eq(Cat(channels > lane for lane in range(config.requant_lanes))),
            self.address.eq(word_address + self.digit),
        ]
        with m.If(begin):
            m.d.sync += [
                self.valid.eq(waiting_valid | self.i.valid),
                waiting_valid.eq(0),
                tile.eq(first),
                pixels.eq(0),
                pixel_address.eq(first.address),
                word_address.eq(first.address),
                channels.eq(first.channels),
                self.group.eq(0),
                self.slot.eq(first.slot),
                self.digit.eq(0),
            ]
        with m.Else():
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [waiting_valid.eq(1), waiting.eq(self.i.payload)]
            with m.If(self.advance):
                m.d.sync += self.digit.eq(self.digit + 2)
            with m.If(next_group):
                m.d.sync += [
                    self.digit.eq(0),
                    self.group.eq(self.group + 1),
                    self.slot.eq(self.slot + 1),
                    channels.eq(Mux(channels > config.requant_lanes, channels - config.requant_lanes, 0)),
                ]
                with m.If(self.slot == config.lanes // config.requant_lanes - 1):
                    m.d.sync += [self.slot.eq(0), word_address.eq(word_address + tile.digits_last + 1)]
            with m.If(next_position):
                m.d.sync += [
                    self.group.eq(0),
                    self.slot.eq(tile.slot),
                    channels.eq(tile.channels),
                    word_address.eq(pixel_address),
                ]
            with m.If(next_pixel):
                m.d.sync += [
                    pixels.eq(pixels + 1),
                    pixel_address.eq(pixel_address + tile.step),
                    word_address.eq(pixel_address + tile.step),
                ]
        return m
