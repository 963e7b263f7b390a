"""What the Datapath is given for one layer of an integer network, and what must come out: plain integers.

A layer is a :class:`~golden.network.Conv2d`. Its output channels are cut into tiles of ``rows``, groups
apart. Within a tile the output positions follow each other, frames outermost, each a run of beats:

* The K codes of a position's window are laid along the lanes in golden's order, ``ceil(K / lanes)`` words;
  lanes beyond
  K hold 0. Taps and channels are packed without gaps, so that few input channels do not leave lanes empty.
* Codes are cut into digits of ``digit_bits``. Digit pairs (i of the weight, j of the activation) come in
  descending
  i + j; a position's first beat has ``first``, the first beat of every smaller i + j has ``shift``, its last
  beat ``last``.
* Beats with i = 0 have ``ones``: the ones row then sums each activation digit once.
* Every beat of a tile's last position has ``tile_last``.

Fields are packed least significant first in the order of the ports' layouts. Networks are data: nothing here
depends on the simulator, and nothing knows how the RTL works inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from golden.execute import weight_matrix, windows
from golden.network import Conv2d, Grid, IntegerNetwork, Kind
from hw.config import AcceleratorConfig
from tb.compare import Difference, compare

__all__ = ["Layer", "digit_words", "pack"]


def pack(fields: Iterable[tuple[int, int]]) -> int:
    """Pack (value, width) pairs, least significant first; negative values in two's complement.

    Raises
    ------
    ValueError
        A value does not fit its width, neither unsigned nor signed.
    """
    word = offset = 0
    for value, width in fields:
        if not -(1 << width) <= 2 * value < 2 << width:
            raise ValueError(f"Field must fit {width} bits, not {value!r}")
        word |= (value & ((1 << width) - 1)) << offset
        offset += width
    return word


def digit_words(codes: np.ndarray, *, lanes: int, digit_bits: int, digits: int) -> list[list[list[int]]]:
    """Cut codes into digits and pack the digits of ``lanes`` codes into words.

    Parameters
    ----------
    codes : unsigned array (n, K)
        One vector of codes a row.

    Returns
    -------
    nested lists of :class:`int`
        ``[row][digit][word]``: lane l of word t holds the digit of code ``t * lanes + l``; lanes beyond K
        hold 0.
    """
    count, length = codes.shape
    words = -(-length // lanes)
    padded = np.zeros((count, words * lanes), np.uint32)
    padded[:, :length] = codes
    shifts = digit_bits * np.arange(digits, dtype=np.uint32)
    cut = (padded[:, None, :] >> shifts[None, :, None]) & np.uint32((1 << digit_bits) - 1)
    single = (cut[..., None] >> np.arange(digit_bits, dtype=np.uint32)) & 1
    bits = single.astype(np.uint8).reshape(count * digits * words, lanes * digit_bits)
    rows = np.packbits(bits, axis=1, bitorder="little")
    flat = [int.from_bytes(row.tobytes(), "little") for row in rows]
    return [
        [flat[(n * digits + i) * words : (n * digits + i + 1) * words] for i in range(digits)] for n in range(count)
    ]


@dataclass(frozen=True)
class Layer:
    """The streams of one layer.

    Parameters
    ----------
    network, operation
        The layer.
    config : :class:`~hw.config.AcceleratorConfig`
        What it runs on; the network must have passed its ``check``.
    source, skip, expected : arrays (N, C, H, W)
        Golden's input codes, residual operand (``None`` without one), and results.
    """

    network: IntegerNetwork
    operation: Conv2d
    config: AcceleratorConfig
    source: np.ndarray
    skip: np.ndarray | None
    expected: np.ndarray

    @classmethod
    def of(
        cls,
        network: IntegerNetwork,
        operation: Conv2d,
        config: AcceleratorConfig,
        tensors: dict[str, np.ndarray],
    ) -> Layer:
        """The layer with its tensors out of all tensors of the network."""
        skip = tensors[operation.skip] if operation.skip is not None else None
        return cls(network, operation, config, tensors[operation.input], skip, tensors[operation.output])

    @cached_property
    def output_bits(self) -> int:
        """Bits of an output code; 0 for accumulators."""
        output = self.network.tensor(self.operation.output)
        return 0 if output.kind is Kind.ACCUMULATOR else output.bits

    @cached_property
    def activation_bits(self) -> int:
        """Bits of an input code."""
        return self.network.tensor(self.operation.input).bits

    @cached_property
    def tiles(self) -> list[tuple[int, range]]:
        """Per tile its group and its output channels, at most ``rows``."""
        channels = self.operation.codes.shape[0] // self.operation.groups
        return [
            (
                group,
                range(group * channels + start, group * channels + min(start + self.config.rows, channels)),
            )
            for group in range(self.operation.groups)
            for start in range(0, channels, self.config.rows)
        ]

    @property
    def positions(self) -> int:
        """Output positions of all frames."""
        return self.expected.shape[0] * self.expected.shape[2] * self.expected.shape[3]

    @property
    def drain_groups(self) -> int:
        """Result words per position."""
        return -(-self.config.rows // self.config.requant_lanes)

    @cached_property
    def schedule(self) -> list[tuple[int, int, int, int]]:
        """The beats of a position: (weight digit, activation digit, word, flags without ``tile_last``)."""
        config = self.config
        weight_digits = -(-self.operation.bits // config.digit_bits)
        activation_digits = -(-self.activation_bits // config.digit_bits)
        words = -(-self._matrix.shape[2] // config.lanes)
        beats = []
        for total in reversed(range(weight_digits + activation_digits - 1)):
            pairs = [(i, total - i) for i in range(weight_digits) if 0 <= total - i < activation_digits]
            beats += [(i, j, word, (i, j) == pairs[0] and word == 0) for i, j in pairs for word in range(words)]
        last = len(beats) - 1
        return [
            (i, j, word, pack([(n == 0, 1), (new_sum and n > 0, 1), (n == last, 1), (i == 0, 1)]))
            for n, (i, j, word, new_sum) in enumerate(beats)
        ]

    @property
    def beat_count(self) -> int:
        """Beats of the whole layer."""
        return len(self.tiles) * self.positions * len(self.schedule)

    @cached_property
    def _matrix(self) -> np.ndarray:
        return weight_matrix(self.operation, self.network.tensor(self.operation.input))

    def beats(self) -> Iterator[int]:
        """The packed beats, in order."""
        config = self.config
        word_bits = config.lanes * config.digit_bits
        flags_at = word_bits * (config.rows + 1)
        tile_last = 1 << (flags_at + 4)
        cut = {"lanes": config.lanes, "digit_bits": config.digit_bits}
        gathered = windows(self.source, self.operation, self.network.tensor(self.operation.input))
        activations: list[list[int]] = []
        loaded = -1
        for group, channels in self.tiles:
            if group != loaded:
                codes = gathered[:, group].reshape(self.positions, -1)
                digits = digit_words(codes, digits=-(-self.activation_bits // config.digit_bits), **cut)
                activations = [[position[j][word] for _, j, word, _ in self.schedule] for position in digits]
                loaded = group
            first = group * self._matrix.shape[1]
            rows = self._matrix[group, channels.start - first : channels.stop - first]
            weights = digit_words(rows, digits=-(-self.operation.bits // config.digit_bits), **cut)
            constant = [
                sum(row[i][word] << (word_bits * (r + 1)) for r, row in enumerate(weights)) | flags << flags_at
                for i, _, word, flags in self.schedule
            ]
            for position in activations[:-1]:
                for activation, rest in zip(position, constant, strict=True):
                    yield activation | rest
            for activation, rest in zip(activations[-1], constant, strict=True):
                yield activation | rest | tile_last

    def records(self) -> list[int]:
        """The packed constants records: ``rows`` per tile, zeros for rows without a channel."""
        config, constants = self.config, self.operation.requantize
        packed = []
        for _, channels in self.tiles:
            for row in range(config.rows):
                multiplier = skip_multiplier = bias = shift = 0
                if row < len(channels):
                    channel = channels[row]
                    if constants is None:
                        multiplier = 1
                    else:
                        multiplier, bias = int(constants.multiplier[channel]), int(constants.bias[channel])
                        shift = int(constants.shift[channel])
                        if constants.skip_multiplier is not None:
                            skip_multiplier = int(constants.skip_multiplier[channel])
                packed.append(
                    pack(
                        [
                            (multiplier, config.multiplier_bits),
                            (skip_multiplier, config.skip_multiplier_bits),
                            (bias, config.bias_bits),
                            (shift, config.max_shift.bit_length()),
                            (self.output_bits, config.max_output_bits.bit_length()),
                            (self.operation.bits, 5),
                            (self.operation.grid is Grid.ODD, 1),
                            (self.operation.skip is not None, 1),
                        ]
                    )
                )
        return packed

    def skip_words(self) -> list[int]:
        """The packed words of the residual operand, one per result word; none without a residual operand."""
        if self.skip is None:
            return []
        config = self.config
        by_position = self.skip.transpose(0, 2, 3, 1).reshape(self.positions, -1)
        packed = []
        for _, channels in self.tiles:
            lanes = np.zeros((self.positions, self.drain_groups * config.requant_lanes), np.uint32)
            lanes[:, : len(channels)] = by_position[:, channels.start : channels.stop]
            words = digit_words(lanes, lanes=config.requant_lanes, digit_bits=config.max_output_bits, digits=1)
            packed += [word for (row,) in words for word in row]
        return packed

    @property
    def result_count(self) -> int:
        """Result words of the whole layer."""
        return len(self.tiles) * self.positions * self.drain_groups

    def decode(self, words: Sequence[int]) -> np.ndarray:
        """The results in the shape of ``expected``, out of the packed result words.

        Raises
        ------
        ValueError
            There are more or fewer words than :attr:`result_count`, or ``last`` is not on each position's
            last word.
        """
        config, groups = self.config, self.drain_groups
        if len(words) != self.result_count:
            raise ValueError(
                f"Results of layer {self.operation.name!r} must be {self.result_count} words, not {len(words)}"
            )
        last_at = config.requant_lanes * config.acc_bits
        if any(word >> last_at != (n % groups == groups - 1) for n, word in enumerate(words)):
            raise ValueError(f"Results of layer {self.operation.name!r} must have 'last' on each position's last word")
        mask = (1 << config.acc_bits) - 1
        sign = 1 << (config.acc_bits - 1) if self.output_bits == 0 else 0
        lanes = [
            (((word >> (config.acc_bits * lane)) & mask) ^ sign) - sign
            for word in words
            for lane in range(config.requant_lanes)
        ]
        table = np.array(lanes, np.int64).reshape(len(self.tiles), self.positions, groups * config.requant_lanes)
        frames, _, height, width = self.expected.shape
        parts = [tile[:, : len(channels)] for tile, (_, channels) in zip(table, self.tiles, strict=True)]
        return np.concatenate(parts, axis=1).reshape(frames, height, width, -1).transpose(0, 3, 1, 2)

    def difference(self, results: np.ndarray) -> tuple[int, Difference | None]:
        """How many results differ from golden's, and the first one that does (frames, then channels, rows, columns)."""
        return compare(self.operation.name, self.expected, results)
