"""The cycle model: in which cycle everything of a program happens, with streams that never wait.

Exact: total and every stamp equal the RTL's counters. It is written as recurrences over events, each one a maximum of
what must have happened before, of the timing sections of :class:`~hw.fetch.ProgramFetch`, :class:`~hw.core.Core`,
:class:`~hw.sequencer.Sequencer`, :class:`~hw.datapath.Datapath`, :class:`~hw.skip_reader.SkipReader`,
:class:`~hw.result_writer.ResultWriter`, :class:`~hw.load.Load` and :class:`~hw.store.Store`. The positions of a tile
all do the same, so that soon the pattern of their delays repeats; from there on whole periods are added at once.

Cycles are numbered as the registers count them: the program's first word is accepted in cycle 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hw.config import PIPELINED_DIGIT_BITS, AcceleratorConfig
from hw.program.tiles import Command
from hw.program_format import COMMANDS, HEADER, Opcode, constants_fields, record_words

if TYPE_CHECKING:
    from hw.program import Program

__all__ = ["Cycles", "LayerCycles", "array_latency", "predict"]


@dataclass(frozen=True)
class LayerCycles:
    """Where the cycles of one layer go, from the one after the end of what comes before to its last result's.

    Parameters
    ----------
    name : :class:`str`
        The layer's.
    cycles : :class:`int`
        All of them: the sum of the following.
    beats : :class:`int`
        The array takes a beat.
    drain : :class:`int`
        A beat waits between two others for the results before it to leave: requantizers, residual operand or writes
        are slower than the array.
    program : :class:`int`
        The array stands still since a tile's constants and weights are not there yet.
    latency : :class:`int`
        Everything else: from a tile's start to its first beat, and from the layer's last beat to its last result.
    """

    name: str
    cycles: int
    beats: int
    drain: int
    program: int
    latency: int


@dataclass(frozen=True)
class Cycles:
    """What :func:`predict` says of a program.

    Parameters
    ----------
    total : :class:`int`
        From the first word of the program to the last of the output: the CYCLES register.
    beats : :class:`int`
        The BEATS register.
    stamps : tuple of :class:`int`
        The entries of the layer table.
    layers : tuple of :class:`LayerCycles`
        In order.
    moves : tuple of (what, cycles)
        LOADs and STOREs, each from the cycle after the end of what comes before to its last word's. With the layers'
        they are ``total``.
    """

    total: int
    beats: int
    stamps: tuple[int, ...]
    layers: tuple[LayerCycles, ...]
    moves: tuple[tuple[str, int], ...]


def array_latency(config: AcceleratorConfig) -> int:
    """Cycles from a beat to its sum: that of :class:`~hw.mac_array.MacArray`."""
    return 3 if config.digit_bits >= PIPELINED_DIGIT_BITS else 2


def predict(program: Program) -> Cycles:
    """The cycles of a program that runs by itself, its streams never waiting."""
    config = program.config
    fetch, engine = _Fetch(config), _Engine(config)
    tiles: list[_TileTimes] = []
    idle = 0  # the first cycle in which everything before has finished
    moved = 0  # the same of LOADs and STOREs
    ended = 0  # the last cycle of what has finished
    stamps: list[int] = []
    moves: list[tuple[str, int]] = []
    layers: list[LayerCycles] = []
    parts: list[_TileTimes] = []
    names = iter(program.layers)
    for number, command in enumerate(program.commands):
        fields = command.fields
        if command.opcode is Opcode.END:
            break
        if command.opcode is not Opcode.COMPUTE:
            taken = fetch.take(max(fetch.record(command), idle))
            words = fields["words_last"] + 1
            finished = taken + words + (command.opcode is Opcode.STORE)
            moves.append((f"{command.opcode.name} {command.note}", finished - ended))
            moved = idle = finished + 1
            ended = finished
        else:
            before, second = (tiles[-n] if len(tiles) >= n else _NOTHING for n in (1, 2))
            valid, constants = fetch.tile(command, bank_free=second.drained + 1, half_free=second.last_read + 1)
            ready = max(before.last_read, second.written + 1, moved, idle if fields["fence"] else 0)
            times = engine.tile(
                command,
                taken=fetch.take(max(valid, ready)),
                constants=constants,
                waited=max(0, valid - ready),
            )
            tiles.append(times)
            parts.append(times)
            finished = times.written
            idle = finished + 1
            following = program.commands[number + 1]
            if following.opcode is not Opcode.COMPUTE or following.fields["fence"]:
                layers.append(_layer(next(names).name, parts, ended))
                parts, ended = [], finished
        if fields["mark"]:
            stamps.append(finished)
    return Cycles(
        total=ended,
        beats=sum(layer.beats for layer in layers),
        stamps=tuple(stamps),
        layers=tuple(layers),
        moves=tuple(moves),
    )


def _layer(name: str, parts: Sequence[_TileTimes], begin: int) -> LayerCycles:
    """The account of a layer whose predecessor ended in cycle ``begin``."""
    cycles = parts[-1].written - begin
    beats = sum(part.beats for part in parts)
    drain = sum(part.stalled for part in parts)
    program, last = 0, begin
    for part in parts:
        program += min(part.waited, part.first_beat - last - 1)
        last = part.last_beat
    return LayerCycles(name, cycles, beats, drain, program, cycles - beats - drain - program)


class _Fetch:
    """When the words of the program are accepted."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._taken = 0  # the last command
        self._transferred = 0  # the last record of constants
        self._next = record_words(HEADER, config.stream_bits) + 1

    def record(self, command: Command) -> int:
        """Read a command's record; the cycle in which a command without weights is handed on."""
        self._next = max(self._next, self._taken) + record_words(COMMANDS[command.opcode], self.config.stream_bits)
        return self._next

    def tile(self, command: Command, *, bank_free: int, half_free: int) -> tuple[int, int]:
        """Read a COMPUTE; the cycles from which it is handed on, and from which its constants can be used.

        ``bank_free`` and ``half_free`` are the first cycles in which a bank for its constants and a half for its
        weights are free.
        """
        config, channels = self.config, command.fields["channels"]
        length = record_words(constants_fields(config), config.stream_bits)
        self.record(command)
        for _ in range(channels):
            self._next = max(self._next, self._transferred) + length
            self._transferred = max(self._next, bank_free)
        self._transferred += config.rows - channels
        self._next = max(self._next, half_free) + channels * command.fields["weight_words"]
        return self._next, self._transferred + 1

    def take(self, cycle: int) -> int:
        """Note in which cycle the command is taken: the next one's record is not read before."""
        self._taken = cycle
        return cycle


@dataclass(frozen=True)
class _TileTimes:
    """Cycles of a tile: of its first and last beat, of its last weight read, of the issue of its last result to the
    requantizers and of that result's write; and how many beats there are, how many cycles they waited for the drain,
    and how many the command waited for its weights."""

    first_beat: int = 0
    last_beat: int = 0
    last_read: int = 0
    drained: int = 0
    written: int = 0
    beats: int = 0
    stalled: int = 0
    waited: int = 0


_NOTHING = _TileTimes()
"""Before the first tile."""


class _Engine:
    """From beats to writes: sequencer, array, drain, residual operand, requantizers and result writer.

    A position's beats follow each other without a gap, from the cycle in which the position before the previous one
    has drained. It is captured ``array_latency`` cycles after its last beat, if the one before has drained by then; its
    groups are issued from the next cycle on, at most one a cycle. An issued word enters the requantizers' pipeline of
    three stages, which all hold while the writer keeps the last one: k digits take ceil(k / 2)
    cycles.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.groups = config.rows // config.requant_lanes
        self.latency = array_latency(config)
        self.last_beat = self.previous_beat = 0  # of the previous position and of the one before
        self.newer = self.older = 0  # when their last groups are issued
        self.entered = 0  # the last word's entry into the pipeline
        self.holds: list[tuple[int, int]] = []  # recent words that hold it, from one cycle to before another
        self.written = 0
        self.skip_valid = self.skip_taken = 0  # the last word of a residual operand

    def tile(self, command: Command, *, taken: int, constants: int, waited: int) -> _TileTimes:
        """The times of a tile whose command is taken in cycle ``taken`` and whose constants are usable from another."""
        fields = command.fields
        beats = (fields["weight_digits_last"] + 1) * (fields["activation_digits_last"] + 1)
        for loop in ("word", "kernel_x", "kernel_y"):
            beats *= fields[f"{loop}_last"] + 1
        writes = [[1] * self.groups] * fields["window_last"] + [self._steps(fields, "output_digits_last")]
        skips = self._steps(fields, "skip_digits_last") if fields["use_skip"] else None

        first_read = max(taken + 1, self.last_beat)
        first_beat = max(first_read + 1, self.older)
        begin: int | None = first_beat
        stalled = first_beat - first_read - 1
        seen: dict[tuple[int, ...], tuple[int, int, int]] = {}
        window, windows = 0, fields["pixels_last"] + 1
        while window < windows:
            for steps in writes:
                if begin is None:
                    begin = max(self.last_beat + 1, self.older)
                    stalled += begin - self.last_beat - 1
                self._position(begin + beats - 1, steps, skips, constants=constants, taken=taken)
                begin = None
            window += 1
            state = self._state()
            if state in seen:
                earlier, last_beat, before = seen[state]
                periods = (windows - window) // (window - earlier)
                window += periods * (window - earlier)
                stalled += periods * (stalled - before)
                self._shift(periods * (self.last_beat - last_beat))
                seen = {}
            else:
                seen[state] = window, self.last_beat, stalled
        positions = windows * len(writes)
        return _TileTimes(
            first_beat=first_beat,
            last_beat=self.last_beat,
            last_read=self.last_beat - 1 if beats > 1 else first_read if positions == 1 else self.previous_beat,
            drained=self.newer,
            written=self.written,
            beats=beats * positions,
            stalled=stalled,
            waited=waited,
        )

    def _steps(self, fields: dict[str, int], digits_last: str) -> list[int]:
        """The cycles that each group of a position takes: one for two digits; one without a channel."""
        used = -(-fields["channels"] // self.config.requant_lanes)
        return [fields[digits_last] // 2 + 1 if group < used else 1 for group in range(self.groups)]

    def _position(
        self, last_beat: int, writes: Sequence[int], skips: Sequence[int] | None, *, constants: int, taken: int
    ) -> None:
        """One position, given its last beat: capture, and each group's issue, entry into the pipeline, and write."""
        self.previous_beat, self.last_beat = self.last_beat, last_beat
        issued = max(last_beat + self.latency, self.newer)
        for group in range(self.groups):
            issued = max(issued + 1, self.entered, constants)
            if skips is not None:
                issued = max(issued, self._skip(skips[group], taken))
                self.skip_taken = issued
            self.entered = self._unheld(issued + 1)
            valid = self._unheld(self._unheld(self.entered + 1) + 1) + 1
            self.written = valid + writes[group] - 1
            if self.written != valid:
                self.holds.append((valid, self.written))
        self.older, self.newer = self.newer, issued

    def _skip(self, steps: int, taken: int) -> int:
        """The cycle from which the next word of the residual operand, of so many reads, is there.

        The reader goes on while a word is not valid, or is taken; the word after it is then two reads on.
        """
        begin = taken + 1
        if begin > self.skip_taken:
            self.skip_valid = begin + steps + 1
        else:
            self.skip_valid = self.skip_taken + steps + (begin >= self.skip_valid)
        return self.skip_valid

    def _unheld(self, cycle: int) -> int:
        """The first cycle from this one on in which the pipeline is not held."""
        for begin, end in self.holds:
            if begin <= cycle < end:
                return end
        return cycle

    def _state(self) -> tuple[int, ...]:
        """All that matters of the past, in cycles after the last beat."""
        now = self.last_beat
        self.holds = [hold for hold in self.holds if hold[1] > self.entered]
        past = [max(cycle - now, 0) for cycle in (self.older, self.newer, self.entered)]
        return (*past, self.skip_taken - now, self.skip_valid - now, *(c - now for hold in self.holds for c in hold))

    def _shift(self, cycles: int) -> None:
        """Let that many cycles pass in which everything goes on as before."""
        for name in ("last_beat", "previous_beat", "older", "newer", "entered", "written", "skip_valid", "skip_taken"):
            setattr(self, name, getattr(self, name) + cycles)
        self.holds = [(begin + cycles, end + cycles) for begin, end in self.holds]
