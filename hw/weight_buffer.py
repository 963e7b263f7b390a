"""The weight buffer: one bank a row in two halves, one that is read while the other is filled."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.config import AcceleratorConfig
from hw.ram import Ram

__all__ = ["WeightBuffer", "weights_layout"]


def weights_layout(config: AcceleratorConfig) -> data.StructLayout:
    """One weight word on its way into the buffer.

    * ``word``: one digit per lane.
    * ``row``, ``address``: where it goes.
    * ``last``: it completes the half.
    """
    return data.StructLayout(
        {
            "word": config.lanes * config.digit_bits,
            "row": range(max(2, config.rows)),
            "address": range(max(2, config.weight_depth)),
            "last": 1,
        }
    )


class WeightBuffer(wiring.Component):
    """``rows`` banks of 2 × ``weight_depth`` words of ``lanes`` digits.

    Words fill a half in any order until one has ``last``; ``i.ready`` is low while both halves are full. The full
    halves are read in the order in which they were filled: ``address`` with ``enable`` gives all rows' words in the
    next cycle, where they stay until the next ``enable``. With ``release`` the half that is read becomes free, from the
    next cycle on; it may come with the half's last read. Words that were not written hold what was there before.
    Rate: one word in and one of every row out a cycle.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Its geometry and depth.

    Members
    -------
    i : ``In(stream.Signature(weights_layout(config)))``
        Words.
    address : ``In(range(weight_depth))``, ``enable`` : ``In(1)``
        The read.
    release : ``In(1)``
        Strobe: the tile has read its last word.
    words : ``Out(rows * lanes * digit_bits)``
        What was read, row 0 in the low bits.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._word_bits = config.lanes * config.digit_bits
        super().__init__(
            {
                "i": In(stream.Signature(weights_layout(config))),
                "address": In(range(max(2, config.weight_depth))),
                "enable": In(1),
                "release": In(1),
                "words": Out(config.rows * self._word_bits),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        depth = self.config.weight_depth
        power_of_two = depth == 1 << ceil_log2(depth)
        full = Signal(2)
        filled, read = Signal(), Signal()
        word = self.i.payload

        def address(half: Value, offset: Value) -> Value:
            base = Mux(half, depth, 0)
            return offset | base if power_of_two else offset + base

        taken = Signal()
        m.d.comb += [self.i.ready.eq(~full.bit_select(filled, 1)), taken.eq(self.i.valid & self.i.ready)]
        for row in range(self.config.rows):
            bank = Ram(lane_bits=self._word_bits, depth=2 * depth)
            m.submodules[f"bank_{row}"] = bank
            m.d.comb += [
                bank.write.addr.eq(address(filled, word.address)),
                bank.write.data.eq(word.word),
                bank.write.en.eq(taken & (word.row == row)),
                bank.read[0].addr.eq(address(read, self.address)),
                bank.read[0].en.eq(self.enable),
                self.words.word_select(row, self._word_bits).eq(bank.read[0].data),
            ]
        with m.If(taken & word.last):
            m.d.sync += [full.bit_select(filled, 1).eq(1), filled.eq(~filled)]
        with m.If(self.release):
            m.d.sync += [full.bit_select(read, 1).eq(0), read.eq(~read)]
        return m
