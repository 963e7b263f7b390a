"""A numpy interpreter of the program stream: what the accelerator must do, without how.

It knows the words of the stream and their meaning (:mod:`hw.program_format`) and nothing of the builder or of the RTL.
The activation buffer holds digits; words that were never written are garbage, and reading one is an error. Weights of
rows without a channel are garbage too. Everything is as literal as numpy allows: the loops walk by adding steps, beat
by beat, and a position's products are summed in the order of its passes, modulo the accumulator's width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from golden.network import Requantize
from golden.requantize import requantize
from hw.config import AcceleratorConfig
from hw.program.words import pack_digits, unpack_digits, unpack_record
from hw.program_format import (
    COMMANDS,
    HEADER,
    LOOPS,
    MAGIC,
    VERSION,
    Opcode,
    constants_fields,
    fingerprint,
    record_words,
)

__all__ = ["Interpreter", "ProgramError"]


class ProgramError(Exception):
    """The program or its streams are not what they must be."""


def _require(condition, sentence):
    if not condition:
        raise ProgramError(sentence)


@dataclass
class Interpreter:
    """The accelerator's state between programs."""

    config: AcceleratorConfig
    seed: int = 0
    marks: int = 0
    trace: list[tuple[Opcode, set[int], set[int]]] = field(default_factory=list)
    """Per command the addresses that it read and those that it wrote."""

    def __post_init__(self):
        self._random = np.random.default_rng(self.seed)
        shape = (self.config.activation_depth, self.config.lanes)
        self.memory = self._garbage(shape)
        self.written = np.zeros(self.config.activation_depth, bool)

    def _garbage(self, shape):
        return self._random.integers(0, 1 << self.config.digit_bits, shape).astype(np.uint16)

    def run(self, words, packets):
        """Run one program; the packets of its outputs."""
        config = self.config
        self._words, self._at = list(words), 0
        self._packets, outputs = [list(packet) for packet in packets], []
        header = self._record(HEADER)
        _require(header["magic"] == MAGIC and header["version"] == VERSION, "header")
        _require(header["fingerprint"] == fingerprint(config), "fingerprint")
        fenced = True
        while True:
            opcode = Opcode(self._words[self._at] & 0xFF)
            fields = self._record(COMMANDS[opcode])
            self._reads, self._writes = set(), set()
            if opcode is Opcode.END:
                break
            if opcode is not Opcode.COMPUTE or not fenced:
                _require(fields["fence"], "LOAD, STORE and what follows them must wait for each other")
            self.marks += fields["mark"]
            fenced = opcode is Opcode.COMPUTE
            if opcode is Opcode.COMPUTE:
                self._compute(fields)
            else:
                addresses = fields["address"] + np.arange(fields["words_last"] + 1)
                if opcode is Opcode.LOAD:
                    packet = self._packets.pop(0)
                    _require(len(packet) == len(addresses), "input packet")
                    _require(all(word >> (config.lanes * config.digit_bits) == 0 for word in packet), "input word")
                    self._write(addresses, unpack_digits(packet, config.lanes, config.digit_bits))
                else:
                    outputs.append(pack_digits(self._read(addresses), config.digit_bits))
            self.trace.append((opcode, self._reads, self._writes))
        _require(self._at == len(self._words), "words after END")
        _require(not self._packets, "input packets after END")
        return outputs

    def _record(self, fields):
        return unpack_record(fields, self._take(record_words(fields, self.config.stream_bits)), self.config.stream_bits)

    def _take(self, count):
        _require(self._at + count <= len(self._words), "program too short")
        self._at += count
        return self._words[self._at - count : self._at]

    def _read(self, addresses):
        addresses = np.asarray(addresses)
        _require(((addresses >= 0) & (addresses < self.config.activation_depth)).all(), "read address")
        _require(self.written[addresses].all(), "read of a word that was never written")
        self._reads.update(np.unique(addresses).tolist())
        return self.memory[addresses]

    def _write(self, addresses, digits):
        _require(((addresses >= 0) & (addresses < self.config.activation_depth)).all(), "write address")
        self._writes.update(np.unique(addresses).tolist())
        self.memory[addresses] = digits
        self.written[addresses] = True

    def _compute(self, f):
        config = self.config
        channels = f["channels"]
        _require(1 <= channels <= config.rows, "channels")
        _require(1 <= f["weight_words"] <= config.weight_depth, "weight words")
        record = constants_fields(config)
        constants = []
        for _ in range(channels):
            values = self._record(record)
            constants.append(
                [
                    values[name] if name in values else values[f"{name}_low"] | values[f"{name}_high"] << 32
                    for name in ("multiplier", "skip_multiplier", "bias", "shift")
                ]
            )
        weights = self._garbage((config.rows, f["weight_words"], config.lanes))
        packed = self._take(channels * f["weight_words"])
        weights[:channels] = unpack_digits(packed, config.lanes, config.digit_bits).reshape(channels, -1, config.lanes)

        acc = self._accumulate(f, weights)
        mask = (1 << config.acc_bits) - 1 if config.acc_bits < 64 else -1
        acc &= mask
        if config.acc_bits < 64:
            acc -= (acc >> (config.acc_bits - 1) & 1) << config.acc_bits
        self._finish(f, acc[:, :channels], np.array(constants, np.int64))

    def _walk(self, f):
        """Address, x, y and iteration of each loop, of every beat."""
        passes = (f["weight_digits_last"] + 1) * (f["activation_digits_last"] + 1)
        counts = [passes if loop == "pass" else f[f"{loop}_last"] + 1 for loop in LOOPS]
        index = np.indices(counts[::-1]).reshape(len(counts), -1)[::-1]
        at_last = np.array([index[n] == counts[n] - 1 for n in range(len(counts))])
        stepping = np.argmin(at_last, axis=0)[:-1]
        state = []
        for start, step in (("input_address", "step"), ("x", "dx"), ("y", "dy")):
            steps = np.array([f[f"{loop}_{step}"] for loop in LOOPS])
            state.append(np.concatenate([[f[start]], f[start] + np.cumsum(steps[stepping])]))
        return (*state, index, counts)

    def _accumulate(self, f, weights):
        """The rows' sums of every position, offset corrected: int64 (positions, rows)."""
        config = self.config
        address, x, y, index, counts = self._walk(f)
        beats = int(np.prod(counts[:3]))
        positions = int(np.prod(counts[4:]))
        inside = (x >= 0) & (x < f["width"]) & (y >= 0) & (y < f["height"])
        shape = (positions, counts[3], beats)
        # Addresses are taken modulo more than four times the buffer's depth.
        modulus = 4 << (config.activation_depth - 1).bit_length()
        address, inside = (address % modulus).reshape(shape), inside.reshape(shape)
        last_word = (index[0] == counts[0] - 1).reshape(shape)
        lane = np.arange(config.lanes)
        acc = np.zeros((positions, config.rows), np.int64)
        ones = np.zeros(positions, np.int64)
        top_i, top_j = f["weight_digits_last"], f["activation_digits_last"]
        for number, (i, j) in enumerate(_pairs(top_i, top_j)):
            words = np.zeros((positions, beats, config.lanes), np.uint16)
            words[inside[:, number]] = self._read(address[:, number][inside[:, number]] + j)
            digit = f["pad_code"] >> (j * config.digit_bits) & ((1 << config.digit_bits) - 1)
            fill = np.where(last_word[:, number, :, None] & (lane >= f["pad_lanes"]), 0, digit)
            words = np.where(inside[:, number, :, None], words, fill).reshape(positions, -1)
            count = index[0] if f["broadcast"] else index[0] + counts[0] * (index[1] + counts[1] * index[2])
            rows = weights[:, i * f["plane"] + count[:beats]].reshape(config.rows, -1)
            if number and (i == 0 or j == top_j):
                acc <<= config.digit_bits
                ones <<= config.digit_bits
            product = words.astype(np.float64) @ rows.T.astype(np.float64)
            assert product.max() < 1 << 53
            acc += product.astype(np.int64)
            if i == 0:
                ones += words.sum(axis=1, dtype=np.int64)
        bits = f["weight_bits"]
        if f["odd"]:
            return 2 * acc - ((1 << bits) - 1) * ones[:, None]
        return acc - (1 << (bits - 1)) * ones[:, None]

    def _finish(self, f, acc, constants):
        config = self.config
        lanes, slots = config.requant_lanes, config.lanes // config.requant_lanes
        channels, groups = f["channels"], -(-f["channels"] // lanes)
        window = f["window_last"] + 1
        pixels = acc.shape[0] // window
        _require(pixels * window == acc.shape[0] and pixels == f["pixels_last"] + 1, "pixels")
        slot = f["slot"] + np.arange(groups)
        within = (slot % slots)[:, None] * lanes + np.arange(lanes)
        skip = None
        if f["use_skip"]:
            _require(window == 1, "residual operand with a pooling window")
            skip = np.zeros((pixels, groups, lanes), np.int64)
            base = f["skip_address"] + np.arange(pixels)[:, None] * f["skip_step"]
            for digit in range(f["skip_digits_last"] + 1):
                words = self._read(base + slot // slots * (f["skip_digits_last"] + 1) + digit)
                skip |= words[:, np.arange(groups)[:, None], within].astype(np.int64) << digit * config.digit_bits
            skip = skip.reshape(pixels, -1)[:, :channels]
        if f["output_bits"]:
            m, ms, b, s = constants.T
            arrays = Requantize(m, b, s, ms if skip is not None else None)
            values = requantize(
                acc[:, :, None, None], arrays, f["output_bits"], None if skip is None else skip[:, :, None, None]
            )[:, :, 0, 0].astype(np.int64)
        else:
            _require((constants == [1, 0, 0, 0]).all(), "constants of accumulators")
            values = acc
        values = values.reshape(pixels, window, channels).max(axis=1)
        laid = np.zeros((pixels, groups * lanes), np.int64)
        laid[:, :channels] = values
        laid = laid.reshape(pixels, groups, lanes)
        digits = f["output_digits_last"] + 1
        base = f["output_address"] + np.arange(pixels) * f["output_step"]
        for group in range(groups):
            first = slot[group] % slots * lanes
            for digit in range(digits):
                addresses = base + slot[group] // slots * digits + digit
                word = self.memory[addresses]
                word[:, first:] = 0
                word[:, first : first + lanes] = laid[:, group] >> digit * config.digit_bits & (
                    (1 << config.digit_bits) - 1
                )
                self._write(addresses, word)


def _pairs(top_i, top_j):
    """Digit pairs in descending i + j, ascending i in each sum."""
    return sorted(np.ndindex(top_i + 1, top_j + 1), key=lambda pair: (-sum(pair), pair[0]))
