"""What the ScaledArray is given for one layer of an integer network, and what must come out: plain integers.

Output channels are cut into tiles of ``rows``, groups apart. Within a tile the output positions follow each other, each
a run of vectors: tap by tap of the kernel (of the whole map with ``broadcast``), the channels of a tap in words of
``lanes``, lanes beyond them 0. Codes are cut into digits of ``digit_bits``; where they have more than one, the digit
pairs of a vector follow each other in descending i + j.

Scales that a layer does not have are 1. An array without activation scales is given golden's scale products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from golden.execute import accumulate, weight_matrix, windows
from golden.network import Conv2d, Grid, IntegerNetwork, Tensor
from hw.scaled_array import ScaledArray
from tb.stimulus import digit_words, pack

__all__ = ["ScaledLayer"]


@dataclass(frozen=True)
class ScaledLayer:
    """The beats of one layer and the accumulators that they leave.

    Parameters
    ----------
    network, operation
        The layer; the array's ``check`` must have accepted it.
    array : :class:`~hw.scaled_array.ScaledArray`
        What it runs on.
    x : array (N, C, H, W)
        Golden's input codes.
    """

    network: IntegerNetwork
    operation: Conv2d
    array: ScaledArray
    x: np.ndarray

    @property
    def source(self) -> Tensor:
        """The tensor of the input codes."""
        return self.network.tensor(self.operation.input)

    @property
    def odd(self) -> bool:
        """Whether the weights are on the odd grid."""
        return self.operation.grid is Grid.ODD

    @cached_property
    def expected(self) -> np.ndarray:
        """Golden's accumulators (N, O, OH, OW)."""
        return accumulate(self.x, self.operation, self.network)

    @cached_property
    def tiles(self) -> list[tuple[int, range]]:
        """Per tile its group and its output channels, at most ``rows``."""
        rows, channels = self.array.rows, self.operation.codes.shape[0] // self.operation.groups
        return [
            (group, range(start, min(start + rows, (group + 1) * channels)))
            for group in range(self.operation.groups)
            for start in range(group * channels, (group + 1) * channels, rows)
        ]

    def sums(self) -> Iterator[list[int]]:
        """Per position of the beats the accumulators of the rows, as signed numbers; 0 in rows without a channel."""
        by_position = self.expected.transpose(0, 2, 3, 1).reshape(-1, self.expected.shape[1])
        for _, channels in self.tiles:
            rest = [0] * (self.array.rows - len(channels))
            for position in by_position:
                yield position[channels.start : channels.stop].tolist() + rest

    def place(self, number: int, row: int) -> tuple[int, int, int, int] | None:
        """Frame, channel, row and column of the ``number``-th position's sum in a row of the array; ``None``: none."""
        frames, _, height, width = self.expected.shape
        tile, position = divmod(number, frames * height * width)
        channels = self.tiles[tile][1]
        if row >= len(channels):
            return None
        frame, at = divmod(position, height * width)
        return frame, channels[row], *divmod(at, width)

    @cached_property
    def _passes(self) -> list[tuple[int, int, int]]:
        """(weight digit, activation digit, flags of several passes) of a vector's beats."""
        d = self.array.digit_bits
        weight_digits, activation_digits = -(-self.operation.bits // d), -(-self.source.bits // d)
        pairs = [(i, j) for i in range(weight_digits) for j in range(activation_digits)]
        pairs.sort(key=lambda pair: -sum(pair))
        beats = []
        for number, (i, j) in enumerate(pairs):
            first, last = number == 0, number == len(pairs) - 1
            shift = not first and i + j < sum(pairs[number - 1])
            beats.append((i, j, pack([(first, 1), (shift, 1), (i == 0, 1), (last, 1)])))
        return beats

    def _by_tap(self, array: np.ndarray) -> np.ndarray:
        """(..., taps * channels of a group) → (..., taps, channels of a group)."""
        return array.reshape(*array.shape[:-1], -1, self.operation.codes.shape[1])

    def _scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Scales (groups, O/groups, taps, words) of the weights and (groups, words) of the codes."""
        operation, source = self.operation, self.source
        groups, channels = operation.groups, operation.codes.shape[1]
        starts = range(0, channels, self.array.lanes)
        ours: np.ndarray = np.ones(operation.codes.shape, np.int64)
        theirs: np.ndarray = np.ones((groups, channels), np.int64)
        if not self.array.activation_scale_bits:
            products = operation.scale_products(source)
            ours = ours if products is None else np.broadcast_to(products, ours.shape)
        else:
            if operation.vector_scales is not None:
                ours = operation.vector_scales.per_channel(channels, 1)
            if source.vector_scales is not None:
                theirs = source.vector_scales.per_channel(source.shape[0], 0).reshape(groups, channels)
        taps = source.shape[1] * source.shape[2] if operation.broadcast else ours.shape[2] * ours.shape[3]
        ours = ours.transpose(0, 2, 3, 1).reshape(groups, -1, ours.shape[2] * ours.shape[3], channels)
        ours = np.broadcast_to(ours, (*ours.shape[:2], taps, channels))
        return ours[..., starts], theirs[..., starts]

    def positions(self) -> Iterator[list[int]]:
        """The packed beats of every position."""
        array, operation = self.array, self.operation
        lanes, d, rows = array.lanes, array.digit_bits, array.rows
        cut = {"lanes": lanes, "digit_bits": d}
        word_bits = lanes * d
        scale_at = word_bits * (rows + 1)
        scales_at = scale_at + array.activation_scale_bits
        flags_at = scales_at + rows * array.weight_scale_bits
        matrix = self._by_tap(weight_matrix(operation, self.source))
        gathered = self._by_tap(windows(self.x, operation, self.source))
        weight_scales, scales = self._scales()
        taps, words = weight_scales.shape[2:]
        digits = max(j for _, j, _ in self._passes) + 1
        for group, channels in self.tiles:
            first = channels.start - group * matrix.shape[1]
            own = slice(first, first + len(channels))
            weights = digit_words(
                matrix[group, own].reshape(-1, matrix.shape[3]), digits=max(i for i, _, _ in self._passes) + 1, **cut
            )
            constant: list[tuple[int, int, int, int]] = []
            for tap in range(taps):
                for word in range(words):
                    common = int(scales[group, word]) << scale_at if array.activation_scale_bits else 0
                    common |= (tap == word == 0) << flags_at
                    common |= (tap == taps - 1 and word == words - 1) << (flags_at + 1)
                    for row, scale in enumerate(weight_scales[group, own, tap, word].tolist()):
                        common |= scale << (scales_at + row * array.weight_scale_bits)
                    for i, j, flags in self._passes:
                        rest = common | (flags << (flags_at + 2) if array.passes else 0)
                        for row in range(len(channels)):
                            rest |= weights[row * taps + tap][i][word] << (word_bits * (row + 1))
                        constant.append((tap, j, word, rest))
            for position in gathered[:, group].reshape(-1, taps, gathered.shape[-1]):
                activations = digit_words(position, digits=digits, **cut)
                yield [activations[tap][j][word] | rest for tap, j, word, rest in constant]
