"""The fetch unit: reads the program stream, checks it, and hands on commands, constants and weights."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.axi import word_layout
from hw.command import command_fields, command_layout
from hw.config import AcceleratorConfig
from hw.control import COMMAND_BITS
from hw.datapath import constants_layout
from hw.program_format import (
    COMMANDS,
    CONSTANT_FIELDS,
    ERROR_BITS,
    HEADER,
    MAGIC,
    VERSION,
    Error,
    Field,
    Opcode,
    constants_fields,
    fingerprint,
    placed,
    record_words,
)
from hw.weight_buffer import weights_layout

__all__ = ["ProgramFetch"]


_TILE_FIELDS = ("output_bits", "weight_bits", "odd", "use_skip")


class _State(enum.Enum):
    HEADER = 0
    RECORD = 1
    CONSTANTS = 2
    WEIGHTS = 3
    FINISHING = 4  # END is read; the next program waits until the core is done
    FAILED = 5


class ProgramFetch(wiring.Component):
    """Reads the program stream of :mod:`hw.program_format`: the only part that knows it.

    Every word is checked as it is accepted: magic number, version and fingerprint, opcodes, every field against the
    range that :func:`~hw.command.command_fields` gives it, constants against their widths, and ``last``. The first
    wrong word sets ``o_error`` (where it is wrong in several ways, the smallest code of
    :class:`~hw.program_format.Error`); nothing is handed on of it or after it, and all further words are accepted and
    thrown away until reset. Commands that were handed on before stay valid. A tile is handed on only when its
    weights have been: a truncated one never is.

    Timing. One word a cycle is accepted, every cycle, unless one of the following keeps ``i_program.ready`` low; it
    never depends on ``i_program.valid`` or the word.

    * A record's words, until the command before has been taken: the first one is accepted in the cycle of the
      transfer on ``o_command`` at the earliest. (The record is parsed into the very registers of ``o_command``.)
    * Words of constants, until the records before have been taken, the zero records of the tile before included: in
      the cycle of the transfer of the last one on ``o_constants`` at the earliest.
    * Weight words: while ``o_weights.ready`` is low.
    * The first word of a program, from the cycle after END's word to that of ``i_done``: it is accepted in the cycle
      after ``i_done`` at the earliest.

    With t the cycle in which a word is accepted:

    * END, LOAD, STORE: ``o_command.valid`` from t + 1, t of the record's last word.
    * COMPUTE: ``o_command.valid`` from t + 1, t of the tile's last weight word.
    * ``o_constants.valid`` from t + 1, t of the last word of the row's record. After row ``channels - 1`` follow
      ``rows - channels`` records of zeros, valid from the cycle after the transfer of the one before, so one a cycle if
      ready stays high; the weight words after them are accepted meanwhile.
    * ``o_weights`` is valid in t itself; ready passes through.
    * ``o_error`` from t + 1.

    A program of n words whose streams never wait is thus accepted in n cycles, plus those that commands wait for
    their turn.

    Parameters
    ----------
    config : :class:`~hw.config.AcceleratorConfig`
        What a program must be built for.

    Members
    -------
    i_program : ``In(stream.Signature(word_layout(stream_bits)))``
        The program stream.
    o_command : ``Out(stream.Signature(command_layout(config)))``
        Commands, END included.
    o_constants : ``Out(stream.Signature(constants_layout(config)))``
        ``rows`` records per tile.
    o_weights : ``Out(stream.Signature(weights_layout(config)))``
        The tile's weight words, row 0 first.
    i_done : ``In(1)``
        Strobe: the END command that was handed on has been executed.
    i_stop : ``In(1)``
        Something else has failed: from the next cycle on words are thrown away.
    o_start : ``Out(1)``
        The first word of a program is accepted in this cycle.
    o_wait : ``Out(1)``
        In this cycle a program runs, END is not handed on, and ``o_command`` is ready but has no command.
    o_index : ``Out(COMMAND_BITS)``
        Index in its program of the command that is read or waits on ``o_command``, modulo ``2**COMMAND_BITS``.
    o_error : ``Out(ERROR_BITS)``
        Level: what is wrong with the program, until reset; 0 if nothing is.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i_program": In(stream.Signature(word_layout(config.stream_bits))),
                "o_command": Out(stream.Signature(command_layout(config))),
                "o_constants": Out(stream.Signature(constants_layout(config))),
                "o_weights": Out(stream.Signature(weights_layout(config))),
                "i_done": In(1),
                "i_stop": In(1),
                "o_start": Out(1),
                "o_wait": Out(1),
                "o_index": Out(COMMAND_BITS),
                "o_error": Out(ERROR_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        config, bits = self.config, self.config.stream_bits
        program, command, constants, weights = self.i_program, self.o_command, self.o_constants, self.o_weights
        # Without reset: they mean nothing until they are valid.
        fields = Signal(command.payload.shape(), reset_less=True)
        requantization = Signal(constants.payload.shape(), reset_less=True)
        word = program.payload.data
        m = Module()

        lengths = {opcode: record_words(record, bits) for opcode, record in COMMANDS.items()}
        header_length = record_words(HEADER, bits)
        constants_length = record_words(constants_fields(config), bits)
        state = Signal(_State)
        index = Signal(range(max(2, header_length, constants_length, *lengths.values())))
        opcode = Signal(COMMANDS[Opcode.END][0].bits)
        row = Signal(range(max(2, config.rows)))
        address = Signal(range(max(2, config.weight_depth)))
        last_row, last_address = Signal(), Signal()
        taken, good, wrong = Signal(), Signal(), Signal()
        ends, complete = Signal(), Signal()
        m.d.comb += [
            command.payload.eq(fields),
            constants.payload.eq(requantization),
            taken.eq(program.valid & program.ready),
            good.eq(taken & ~wrong),
            opcode.eq(Mux(index == 0, word[: len(opcode)], fields.opcode)),
            last_row.eq(row == fields.channels - 1),
            last_address.eq(address == fields.weight_words - 1),
        ]

        with m.If(command.valid & command.ready):
            m.d.sync += [command.valid.eq(0), self.o_index.eq(self.o_index + 1)]

        # Records of zeros for the rows that have no channel, after the last real one.
        zeros = Signal(range(max(2, config.rows)))
        with m.If(constants.valid & constants.ready):
            with m.If(zeros == 0):
                m.d.sync += constants.valid.eq(0)
            with m.Else():
                m.d.sync += [zeros.eq(zeros - 1), *(requantization[name].eq(0) for name in CONSTANT_FIELDS)]

        with m.If(good):
            m.d.sync += index.eq(Mux(ends, 0, index + 1))
        with m.Switch(state):
            with m.Case(_State.HEADER):
                m.d.comb += [
                    program.ready.eq(1),
                    self.o_start.eq(taken & (index == 0)),
                    ends.eq(index == header_length - 1),
                ]
                with m.If(self.o_start):
                    m.d.sync += self.o_index.eq(0)
                with m.If(good & ends):
                    m.d.sync += state.eq(_State.RECORD)
            with m.Case(_State.RECORD):
                m.d.comb += [
                    program.ready.eq(~command.valid | command.ready),
                    ends.eq(_any((opcode == code) & (index == length - 1) for code, length in lengths.items())),
                    complete.eq(ends & (opcode != Opcode.COMPUTE)),
                ]
                with m.If(good & ends), m.Switch(opcode):
                    with m.Case(Opcode.COMPUTE):
                        m.d.sync += [state.eq(_State.CONSTANTS), row.eq(0)]
                    with m.Case(Opcode.END):
                        m.d.sync += state.eq(_State.FINISHING)
            with m.Case(_State.CONSTANTS):
                m.d.comb += [
                    program.ready.eq(~constants.valid | (constants.ready & (zeros == 0))),
                    ends.eq(index == constants_length - 1),
                ]
                with m.If(good & ends):
                    m.d.sync += [constants.valid.eq(1), row.eq(row + 1)]
                    with m.If(last_row):
                        m.d.sync += [
                            state.eq(_State.WEIGHTS),
                            zeros.eq(config.rows - fields.channels),
                            row.eq(0),
                            address.eq(0),
                        ]
            with m.Case(_State.WEIGHTS):
                m.d.comb += [
                    program.ready.eq(weights.ready),
                    weights.valid.eq(program.valid & ~wrong),
                    ends.eq(1),
                    complete.eq(last_row & last_address),
                ]
                with m.If(good):
                    m.d.sync += address.eq(address + 1)
                    with m.If(last_address):
                        m.d.sync += [address.eq(0), row.eq(row + 1)]
                    with m.If(complete):
                        m.d.sync += state.eq(_State.RECORD)
            with m.Case(_State.FINISHING), m.If(self.i_done):
                m.d.sync += state.eq(_State.HEADER)
            with m.Case(_State.FAILED):
                m.d.comb += [program.ready.eq(1), ends.eq(1)]
        with m.If(good & complete):
            m.d.sync += command.valid.eq(1)
        m.d.comb += [
            weights.payload.row.eq(row),
            weights.payload.address.eq(address),
            weights.payload.word.eq(word),
            weights.payload.last.eq(last_row & last_address),
        ]

        # Fields are loaded from where they stand in the stream word, and checked there.
        checks: dict[Error, list[Value]] = {error: [] for error in Error if Error.NONE < error <= Error.PROGRAM_LONG}

        def check(error: Error, here: Value, bad: Value) -> None:
            checks[error].append(here & bad)

        def check_range(here: Value, field: Field, value: Value, low: int, high: int) -> None:
            below = above = Error.ADDRESS if field.name.endswith("address") else Error.FIELD
            if field.name == "weight_words":
                above = Error.WEIGHTS
            least, most = field.range
            if low > least:
                check(below, here, value < low)
            if high < most:
                check(above, here, value > high)

        identity = {
            "magic": (MAGIC, Error.MAGIC),
            "version": (VERSION, Error.VERSION),
            "fingerprint": (fingerprint(config), Error.FINGERPRINT),
        }
        for field, slot, value in _placed(HEADER, word):
            expected, error = identity[field.name]
            check(error, (state == _State.HEADER) & (index == slot), value != expected)

        reads_record = state == _State.RECORD
        ranges = command_fields(config)
        places: dict[str, tuple[int, Value]] = {}
        for code, record in COMMANDS.items():
            for field, slot, value in _placed(record, word):
                here = reads_record & (opcode == code) & (index == slot)
                places[field.name] = slot, value
                if field.name != "opcode":
                    check_range(here, field, value, *ranges[field.name][1:])
                if field.name == "window_last":
                    # The maximum of a pooling window is taken of what the residual operand would be added to.
                    first, use_skip = places["use_skip"]
                    check(Error.FIELD, here, (value != 0) & (use_skip if first == slot else fields.use_skip))
        check(Error.OPCODE, reads_record & (index == 0), ~_any(opcode == code for code in COMMANDS))
        with m.If(taken & reads_record):
            for name, (slot, value) in places.items():
                with m.If(index == slot):
                    m.d.sync += fields[name].eq(value)

        reads_constants = state == _State.CONSTANTS
        for field, slot, value in _placed(constants_fields(config), word):
            name = field.name.removesuffix("_low").removesuffix("_high")
            target = requantization[name]
            target = target[32:] if field.name.endswith("_high") else target[:32]
            here = reads_constants & (index == slot)
            if name == "shift":
                check_range(here, field, value, 0, config.max_shift)
            elif field.signed:
                half = 1 << (len(target) - 1)
                check_range(here, field, value, -half, half - 1)
            with m.If(taken & here):
                m.d.sync += target.eq(value)
        with m.If(taken & reads_constants):
            # Those of the tile; its command may have been taken when the records of zeros leave.
            m.d.sync += [requantization[name].eq(fields[name]) for name in _TILE_FIELDS]

        ends_program = reads_record & (opcode == Opcode.END) & ends
        check(Error.PROGRAM_SHORT, state != _State.FAILED, program.payload.last & ~ends_program)
        check(Error.PROGRAM_LONG, ends_program, ~program.payload.last)
        m.d.comb += wrong.eq(_any(bad for values in checks.values() for bad in values))
        with m.If(taken & wrong):
            m.d.sync += state.eq(_State.FAILED)
            for error in reversed(checks):
                with m.If(_any(checks[error])):
                    m.d.sync += self.o_error.eq(error)
        with m.If(self.i_stop):
            m.d.sync += state.eq(_State.FAILED)

        running = self.o_start | ((state == _State.HEADER) & (index != 0))
        running |= _any(state == value for value in (_State.RECORD, _State.CONSTANTS, _State.WEIGHTS))
        m.d.comb += self.o_wait.eq(running & command.ready & ~command.valid)
        return m


def _any(values: Iterable[Value]) -> Value:
    return Cat(*values).any()


def _placed(record: tuple[Field, ...], word: Value) -> Iterator[tuple[Field, int, Value]]:
    """The fields of a record: each with the index of the stream word that has it, and its value there."""
    for bit, field in placed(record):
        index, low = divmod(bit, len(word))
        value = word[low : low + field.bits]
        yield field, index, value.as_signed() if field.signed else value
