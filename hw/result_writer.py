"""The result writer: the maximum over a pooling window, cut into digits, into the activation buffer."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.activation_buffer import write_signature
from hw.command import command_fields
from hw.config import AcceleratorConfig
from hw.datapath import result_layout
from hw.result_walk import ResultWalk, walk_layout

__all__ = ["ResultWriter", "writer_layout"]


def writer_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A tile as the writer must know it: :func:`~hw.result_walk.walk_layout` and

    * ``window_last``: positions less 1 of its pooling windows. ``pooled``: they are more than one.
    * ``mark``: as of the command.
    """
    fields = command_fields(config)
    return walk_layout(
        config, "output_digits_last", window_last=fields["window_last"][0], pooled=unsigned(1), mark=fields["mark"][0]
    )


class ResultWriter(wiring.Component):
    """Takes a tile's result words from the datapath and writes them into the activation buffer.

    Of ``window_last + 1`` successive positions the unsigned maximum is written, channel by channel, with the last of
    them. Results of rows without a channel are written as 0, groups without any channel are not written. A write of a
    group of lanes writes 0 to all lanes above it in the word, which the groups after it overwrite: no lane is left
    with what was there before.

    Timing: two digits are written a cycle. A result word of k digits is taken in the ceil(k / 2)-th cycle in which it
    is valid, one without a write (groups without a channel, positions before their window's last) in the first. The
    writes are in the buffer for reads of the next cycle. ``i_result.ready`` depends on registers and on
    ``i_result.valid`` alone.

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
    write : ``Out(write_signature(config))``
        The write port of the activation buffer.
    o_busy : ``Out(1)``
        There is a tile whose last result has not been taken.
    o_mark : ``Out(1)``
        Strobe, in the cycle in which the last result of a tile with ``mark`` is taken.
    o_address_error : ``Out(1)``
        Strobe: this cycle's write is outside the activation buffer. It is not made.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i_tile": In(stream.Signature(writer_layout(config))),
                "i_result": In(stream.Signature(result_layout(config))),
                "i_halt": In(1),
                "write": Out(write_signature(config)),
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
        first_of_window = Signal(init=1)
        at_last = Signal()
        last_of_window = Signal()
        m.d.comb += last_of_window.eq(at_last | ~walk.tile.pooled)
        code = data.ArrayLayout(unsigned(config.max_output_bits), config.requant_lanes)
        maxima = [Signal(code, name=f"maxima_{n}", reset_less=True) for n in range(walk.groups)]
        before = data.View(code, Array(maximum.as_value() for maximum in maxima)[walk.group])
        pooled = Signal(code)
        values = []
        for lane in range(config.requant_lanes):
            value = result.payload.values[lane]
            new, old = value[: config.max_output_bits], before[lane]
            m.d.comb += pooled[lane].eq(Mux(first_of_window | (new > old), new, old))
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
        with m.If(taken & walk.last_group):
            m.d.sync += [
                first_of_window.eq(last_of_window),
                window.eq(Mux(first_of_window, 1, window + 1)),
                at_last.eq(~last_of_window & (walk.tile.window_last == Mux(first_of_window, 1, window + 1))),
            ]
        m.d.comb += self.o_mark.eq(taken & walk.last_group & last_of_window & walk.last_pixel & walk.tile.mark)

        # Two digits of every lane, in its group of lanes; zeros above.
        group_words = [Signal(config.requant_lanes * config.digit_bits, name=f"group_word_{n}") for n in range(2)]
        for second, group_word in enumerate(group_words):
            digits = []
            for value in values:
                cut = [value[at : at + config.digit_bits] for at in range(0, len(value), config.digit_bits)][second::2]
                digits.append(_choose(cut, walk.digit[1:]))
            m.d.comb += group_word.eq(Cat(digits))
        slots = config.lanes // config.requant_lanes
        outside = Signal()
        enable: Value = Cat(walk.slot <= slot for slot in range(slots))
        for word, group_word in enumerate(group_words):
            m.d.comb += self.write.data[word].eq(Cat(Mux(walk.slot == slot, group_word, 0) for slot in range(slots)))
        m.d.comb += [
            outside.eq((walk.address < 0) | (walk.address + walk.two >= config.activation_depth)),
            self.write.two.eq(walk.two),
            self.write.addr.eq(walk.address),
            self.write.en.eq(Mux(writes & ~outside, enable, 0)),
            self.o_address_error.eq(writes & outside),
        ]
        return m


def _choose(values: list[Value], index: Value) -> Value:
    """``values[index]``; the last of them where there is none, nothing where there are none at all."""
    if not values:
        return Const(0, 0)
    if len(values) == 1 or not len(index):
        return values[0]
    return Array([*values, *[values[-1]] * ((1 << len(index)) - len(values))])[index]
