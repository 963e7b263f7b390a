"""The sequencer: one COMPUTE command as beats, one a cycle: loops, addresses, padding, flags."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.command import STILL, command_fields, command_layout
from hw.config import AcceleratorConfig
from hw.mac_array import beat_layout
from hw.program_format import LOOPS

__all__ = ["Sequencer"]

COUNTED = tuple(loop for loop in LOOPS if loop != "pass")


class Sequencer(wiring.Component):
    """Walks the loops of a COMPUTE command (see :data:`hw.program_format.LOOPS`) and sends a beat for every step.

    State is (address, x, y); each beat uses it, then the innermost loop that is not at its last iteration adds its
    steps, and the loops inside begin again. The loop ``pass`` goes over digit pairs (i of the weight, j of the
    activation) in descending i + j, i ascending where the sums are equal, and ends with (0, 0). A beat reads the
    activation word at address + j and the weight word at i * plane + n, n counting the beats of the pass
    (``broadcast``: the words of the tap). Where x, y is outside the map the activation word is made, not read: digit j
    of ``pad_code`` in every lane, in the word loop's last iteration in ``pad_lanes`` lanes, 0 in the others.

    Timing: with the command taken in cycle c, the first words are read in c + 1 and the first beat is valid in c + 2;
    from then on one beat a cycle. While a beat is not taken everything holds. The next command is taken in the cycle
    in which the last words are read, so beats of successive tiles follow each other without a pause.
    ``i_command.ready`` and the reads follow ``o_beat.ready`` in the same cycle.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        Geometry, widths and depths.

    Members
    -------
    i_command : ``In(stream.Signature(command_layout(config)))``
        COMPUTE commands whose weights are in the buffer.
    i_halt : ``In(1)``
        Nothing is read any more; a beat that is offered stays.
    activations : ``Out({addr, en, data})``, ``weights`` : ``Out({addr, en, data})``
        Read ports, latency 1, whose data hold until the next ``en``.
    o_release : ``Out(1)``
        Strobe, in the cycle of the tile's last weight read.
    o_beat : ``Out(stream.Signature(beat_layout(...)))``
        The beats.
    o_address_error : ``Out(1)``
        Strobe: this cycle's read is outside the activation buffer. It is not made.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._word_bits = config.lanes * config.digit_bits
        beat = beat_layout(rows=config.rows, lanes=config.lanes, digit_bits=config.digit_bits)

        def port(depth: int, width: int) -> wiring.Signature:
            return wiring.Signature({"addr": Out(range(max(2, depth))), "en": Out(1), "data": In(width)})

        super().__init__(
            {
                "i_command": In(stream.Signature(command_layout(config))),
                "i_halt": In(1),
                "activations": Out(port(config.activation_depth, self._word_bits)),
                "weights": Out(port(config.weight_depth, config.rows * self._word_bits)),
                "o_release": Out(1),
                "o_beat": Out(stream.Signature(beat)),
                "o_address_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        config = self.config
        m = Module()
        command = self.i_command.payload
        shapes = {name: shape for name, (shape, _, _) in command_fields(config).items()}

        # What the command says, kept while it runs.
        names = ["broadcast", "weight_digits_last", "activation_digits_last", "plane", "pad_code", "pad_lanes"]
        names += ["width", "height"]
        names += [f"{loop}_last" for loop in COUNTED]
        names += [f"{loop}_{part}" for loop in LOOPS for part in ("step", "dx", "dy") if (loop, part) not in STILL]
        kept = {name: Signal(shapes[name], name=name, reset_less=True) for name in names}

        running = Signal()
        go = Signal()
        take = Signal()
        tile_end = Signal()
        offered = Signal()
        m.d.comb += [
            go.eq(running & (~offered | self.o_beat.ready) & ~self.i_halt),
            self.i_command.ready.eq((~running | (go & tile_end)) & ~self.i_halt),
            take.eq(self.i_command.valid & self.i_command.ready),
        ]
        with m.If(take):
            m.d.sync += running.eq(1)
            m.d.sync += [kept[name].eq(command[name]) for name in names]
        with m.Elif(go & tile_end):
            m.d.sync += running.eq(0)

        # Loops. `stepping` is one-hot: the loop that steps after this beat, none after the tile's last.
        counts = {loop: Signal(shapes[f"{loop}_last"], name=f"{loop}_count", reset_less=True) for loop in COUNTED}
        i = Signal(shapes["weight_digits_last"], reset_less=True)
        j = Signal(shapes["activation_digits_last"], reset_less=True)
        ends = {loop: counts[loop] == kept[f"{loop}_last"] for loop in COUNTED}
        ends["pass"] = (i == 0) & (j == 0)
        stepping, ending = {}, {}
        inner: Value | int = 1
        for loop in LOOPS:
            end = Signal(name=f"{loop}_end")
            stepping[loop] = Signal(name=f"{loop}_steps")
            ending[loop] = Signal(name=f"{loop}_and_all_inside_end")
            m.d.comb += [end.eq(ends[loop]), stepping[loop].eq(~end & inner), ending[loop].eq(end & inner)]
            inner = ending[loop]
        position_end = ending["pass"]
        m.d.comb += tile_end.eq(ending[LOOPS[-1]])
        for at, loop in enumerate(LOOPS):
            if loop in counts:
                outer = [stepping[other] for other in LOOPS[at + 1 :]]
                with m.If(take):
                    m.d.sync += counts[loop].eq(0)
                with m.Elif(go & stepping[loop]):
                    m.d.sync += counts[loop].eq(counts[loop] + 1)
                if outer:
                    with m.Elif(go & Cat(outer).any()):
                        m.d.sync += counts[loop].eq(0)

        def stepped(part: str, now: Signal) -> Value:
            """The state after this beat: one-hot AND-OR, then one adder."""
            step: Value = 0
            for loop in LOOPS:
                if (loop, part) not in STILL:
                    value = kept[f"{loop}_{part}"]
                    step = step | Mux(stepping[loop], value, 0)
            return now + step.as_signed()

        # State.
        address = Signal(shapes["input_address"], reset_less=True)
        x = Signal(shapes["x"], reset_less=True)
        y = Signal(shapes["y"], reset_less=True)
        for state, part, start in ((address, "step", "input_address"), (x, "dx", "x"), (y, "dy", "y")):
            with m.If(take):
                m.d.sync += state.eq(command[start])
            with m.Elif(go):
                m.d.sync += state.eq(stepped(part, state))

        # Digit pairs and weight addresses. The pass begins at weight word i * plane, kept as `pass_base`.
        address_bits = unsigned(ceil_log2(max(2, config.weight_depth)))
        start_i = Signal.like(i, name="start_i", reset_less=True)
        start_j = Signal.like(j, name="start_j", reset_less=True)
        top = Signal(address_bits, reset_less=True)  # where the most significant digit begins
        start_base = Signal(address_bits, reset_less=True)
        pass_base = Signal(address_bits, reset_less=True)
        weight_address = Signal(address_bits, reset_less=True)
        next_top = Signal(address_bits)
        m.d.comb += next_top.eq(command.weight_words - command.plane)
        along = Signal()
        m.d.comb += along.eq((i != kept["weight_digits_last"]) & (j != 0))
        with m.If(take):
            m.d.sync += [
                i.eq(command.weight_digits_last),
                start_i.eq(command.weight_digits_last),
                j.eq(command.activation_digits_last),
                start_j.eq(command.activation_digits_last),
                top.eq(next_top),
                start_base.eq(next_top),
                pass_base.eq(next_top),
                weight_address.eq(next_top),
            ]
        with m.Elif(go & position_end):
            m.d.sync += [
                i.eq(kept["weight_digits_last"]),
                start_i.eq(kept["weight_digits_last"]),
                j.eq(kept["activation_digits_last"]),
                start_j.eq(kept["activation_digits_last"]),
                start_base.eq(top),
                pass_base.eq(top),
                weight_address.eq(top),
            ]
        with m.Elif(go & stepping["pass"]):
            base = Signal(address_bits)
            with m.If(along):
                m.d.comb += base.eq(pass_base + kept["plane"])
                m.d.sync += [i.eq(i + 1), j.eq(j - 1)]
            with m.Elif(start_i != 0):
                m.d.comb += base.eq(start_base - kept["plane"])
                m.d.sync += [start_i.eq(start_i - 1), i.eq(start_i - 1), j.eq(start_j), start_base.eq(base)]
            with m.Else():
                m.d.comb += base.eq(start_base)
                m.d.sync += [start_j.eq(start_j - 1), i.eq(start_i), j.eq(start_j - 1)]
            m.d.sync += [pass_base.eq(base), weight_address.eq(base)]
        with m.Elif(go):
            with m.If(kept["broadcast"] & ~stepping["word"]):
                m.d.sync += weight_address.eq(pass_base)
            with m.Else():
                m.d.sync += weight_address.eq(weight_address + 1)

        first = Signal(reset_less=True)
        shift = Signal(reset_less=True)
        with m.If(take | (go & position_end)):
            m.d.sync += [first.eq(1), shift.eq(0)]
        with m.Elif(go):
            m.d.sync += [first.eq(0), shift.eq(stepping["pass"] & ~along)]

        # Reads.
        inside = Signal()
        read = Signal(signed(len(address) + 1))
        outside_buffer = Signal()
        m.d.comb += [
            inside.eq((x >= 0) & (x < kept["width"]) & (y >= 0) & (y < kept["height"])),
            read.eq(address + j),
            outside_buffer.eq((read < 0) | (read >= config.activation_depth)),
            self.activations.addr.eq(read),
            self.activations.en.eq(go & inside & ~outside_buffer),
            self.o_address_error.eq(go & inside & outside_buffer),
            self.weights.addr.eq(weight_address),
            self.weights.en.eq(go),
            self.o_release.eq(go & tile_end),
        ]

        # The cycle of the beat: the memories' data, or padding.
        last_position = Cat(ends[loop] for loop in LOOPS[LOOPS.index("pass") + 1 :]).all()
        flags = Signal(5, reset_less=True)
        padding = Signal(reset_less=True)
        digit = Signal(config.digit_bits, reset_less=True)
        lanes = Signal(config.lanes, reset_less=True)
        with m.If(go):
            m.d.sync += [
                flags.eq(Cat(first, shift, position_end, i == 0, last_position)),
                padding.eq(~inside),
                digit.eq(kept["pad_code"].word_select(j, config.digit_bits)),
                lanes.eq(Cat((lane < kept["pad_lanes"]) | stepping["word"] for lane in range(config.lanes))),
            ]
        with m.If(go):
            m.d.sync += offered.eq(1)
        with m.Elif(self.o_beat.ready):
            m.d.sync += offered.eq(0)
        beat = self.o_beat.payload
        made = Cat(digit & lane.replicate(config.digit_bits) for lane in lanes)
        m.d.comb += [
            self.o_beat.valid.eq(offered),
            beat.activations.as_value().eq(Mux(padding, made, self.activations.data)),
            beat.weights.as_value().eq(self.weights.data),
            Cat(beat.first, beat.shift, beat.last, beat.ones, beat.tile_last).eq(flags),
        ]
        return m
