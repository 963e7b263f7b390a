"""The result writer: the maximum over a pooling window, cut into digits, into the activation buffer."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.command import command_fields
from hw.config import AcceleratorConfig
from hw.datapath import result_layout
from hw.result_walk import ResultWalk, walk_layout

__all__ = ["ResultWriter", "writer_layout"]


def writer_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A tile as the writer must know it: :func:`~hw.result_walk.walk_layout`, ``window_last`` and ``mark``."""
    fields = command_fields(config)
    return walk_layout(config, "output_digits_last", window_last=fields["window_last"][0], mark=fields["mark"][0])


class ResultWriter(wiring.Component):
    """Takes a tile's result words from the datapath and writes them into the activation buffer.

    Of ``window_last + 1`` successive positions the unsigned maximum is written, channel by channel, with the last of
    them. Results of rows without a channel are written as 0, groups without any channel are not written. A write of a
    group of lanes writes 0 to all lanes above it in the word, which the groups after it overwrite: no lane is left
    with what was there before.

    Timing: a result word with k digits is taken in the k-th cycle in which it is valid, one digit being written in
    each; without a write (groups without a channel, positions before their window's last) in the first. The writes are
    in the buffer for reads of the next cycle. ``i_result.ready`` depends on registers and ``i_result.valid`` alone.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry and widths.

    Members
    -------
    i_tile : ``In(stream.Signature(writer_layout(config)))``
        Tiles in the order of their results; one may wait.
    i_result : ``In(stream.Signature(result_layout(config)))``
        The datapath's results.
    i_halt : ``In(1)``
        Nothing is taken or written any more.
    write : ``Out({addr, data, en})``
        The write port of the activation buffer; ``en`` has a bit per ``requant_lanes`` lanes.
    o_busy : ``Out(1)``
        There is a tile whose last result has not been taken.
    o_mark : ``Out(1)``
        Strobe, in the cycle in which the last result of a tile with ``mark`` is taken.
    o_address_error : ``Out(1)``
        Strobe: this cycle's write is outside the activation buffer. It is not made.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        write = wiring.Signature(
            {
                "addr": Out(range(config.activation_depth)),
                "data": Out(config.lanes * config.digit_bits),
                "en": Out(config.lanes // config.requant_lanes),
            }
        )
        super().__init__(
            {
                "i_tile": In(stream.Signature(writer_layout(config))),
                "i_result": In(stream.Signature(result_layout(config))),
                "i_halt": In(1),
                "write": Out(write),
                "o_busy": Out(1),
                "o_mark": Out(1),
                "o_address_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        m.submodules.walk = walk = ResultWalk(config, writer_layout(config))
        wiring.connect(m, wiring.flipped(self.i_tile), walk.i)
        result = self.i_result

        # The maximum so far, per group; a position that is its window's first starts anew.
        window = Signal.like(walk.tile.window_last, name="window", reset_less=True)
        last_of_window = Signal()
        m.d.comb += last_of_window.eq(window == walk.tile.window_last)
        code = data.ArrayLayout(unsigned(config.max_output_bits), config.requant_lanes)
        maxima = [Signal(code, name=f"maxima_{n}", reset_less=True) for n in range(walk.groups)]
        before = data.View(code, Array(maximum.as_value() for maximum in maxima)[walk.group])
        pooled = Signal(code)
        values = []
        for lane in range(config.requant_lanes):
            value = result.payload.values[lane]
            new, old = value[: config.max_output_bits], before[lane]
            m.d.comb += pooled[lane].eq(Mux((window == 0) | (new > old), new, old))
            # Accumulators are wider than codes, and never pooled.
            whole = Cat(pooled[lane], value[config.max_output_bits :])
            values.append(Mux(walk.lanes[lane], whole, 0))

        writes = Signal()
        m.d.comb += [
            writes.eq(result.valid & walk.valid & last_of_window & walk.lanes[0] & ~self.i_halt),
            walk.whole.eq(~last_of_window | ~walk.lanes[0]),
            walk.again.eq(~last_of_window),
            walk.advance.eq(result.valid & walk.valid & ~self.i_halt),
            result.ready.eq(walk.valid & ~self.i_halt & (walk.whole | walk.last_digit)),
            self.o_busy.eq(walk.valid),
        ]
        taken = Signal()
        m.d.comb += taken.eq(result.valid & result.ready)
        with m.If(taken):
            for group, maximum in enumerate(maxima):
                with m.If(walk.group == group):
                    m.d.sync += maximum.eq(pooled)
        with m.If(~walk.valid):
            m.d.sync += window.eq(0)
        with m.Elif(taken & walk.last_group):
            m.d.sync += window.eq(Mux(last_of_window, 0, window + 1))
        m.d.comb += self.o_mark.eq(taken & walk.last_group & last_of_window & walk.last_pixel & walk.tile.mark)

        # One digit of every lane, in its group of lanes; zeros above.
        digits = []
        for value in values:
            cut = [value[at : at + config.digit_bits] for at in range(0, len(value), config.digit_bits)]
            count = 1 << ceil_log2(len(cut))
            digits.append(Array([*cut, *[cut[-1]] * (count - len(cut))])[walk.digit] if count > 1 else cut[0])
        slots = config.lanes // config.requant_lanes
        group_word = Signal(config.requant_lanes * config.digit_bits)
        outside = Signal()
        enable: Value = Cat(walk.slot <= slot for slot in range(slots))
        m.d.comb += [
            group_word.eq(Cat(digits)),
            self.write.data.eq(Cat(Mux(walk.slot == slot, group_word, 0) for slot in range(slots))),
            outside.eq((walk.address < 0) | (walk.address >= config.activation_depth)),
            self.write.addr.eq(walk.address),
            self.write.en.eq(Mux(writes & ~outside, enable, 0)),
            self.o_address_error.eq(writes & outside),
        ]
        return m
