"""From a layer to COMPUTE commands, one a tile: loops, addresses, constants and weight words.

A tile is at most ``rows`` successive output channels. Its weights are laid out for the words of the activation buffer
that hold one of the input channels which those need: where several groups share a word, a lane of a foreign channel
gets the weight 0, the code c in two's complement. The odd grid has no 0, so that such a tile's weights are recoded in
two's complement of one bit more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from golden.network import Grid, Kind, Tensor
from hw.config import MAX_WEIGHT_BITS, AcceleratorConfig, UnsupportedNetworkError
from hw.program.lowering import Layer
from hw.program.words import cut
from hw.program_format import COMMANDS, COORDINATE_BITS, LOOPS, Opcode, address_bits

__all__ = ["Command", "Tile", "compute", "digits", "pixel_words", "tensor_words", "tiles"]


@dataclass(frozen=True, eq=False)
class Command:
    """One command of a program.

    Parameters
    ----------
    opcode : :class:`~hw.program_format.Opcode`
        Which one.
    fields : :class:`dict`
        The values of its record, the opcode left out.
    constants : tuple of tuples
        Of a COMPUTE: per channel M, M_skip, B and S.
    weights : uint16 array (channels, weight_words, lanes) or ``None``
        Of a COMPUTE: the digits of its weight words.
    note : :class:`str`
        What it does, for people.
    """

    opcode: Opcode
    fields: dict[str, int]
    constants: tuple[tuple[int, int, int, int], ...] = ()
    weights: np.ndarray | None = None
    note: str = ""


def digits(tensor: Tensor, config: AcceleratorConfig) -> int:
    """Words of digits that one word of lanes of a tensor takes.

    Of accumulators those that fit the hardware's: a network that has passed ``config.check`` needs no more.
    """
    bits = min(tensor.bits, config.acc_bits) if tensor.kind is Kind.ACCUMULATOR else tensor.bits
    return -(-bits // config.digit_bits)


def pixel_words(tensor: Tensor, config: AcceleratorConfig) -> int:
    """Words from one pixel of a tensor to the next."""
    return -(-tensor.shape[0] // config.lanes) * digits(tensor, config)


def tensor_words(tensor: Tensor, config: AcceleratorConfig) -> int:
    """Words of a whole tensor."""
    return tensor.shape[1] * tensor.shape[2] * pixel_words(tensor, config)


@dataclass(frozen=True, eq=False)
class Tile:
    """Which part of a layer one COMPUTE command computes.

    Parameters
    ----------
    layer, config
        Of what, and on what.
    channels : :class:`range`
        The output channels.
    """

    layer: Layer
    config: AcceleratorConfig
    channels: range

    @property
    def _inputs(self) -> range:
        """The input channels from the first group's first one to the last group's last one."""
        conv = self.layer.conv
        out_channels, group_channels = conv.codes.shape[:2]
        per_group = out_channels // conv.groups
        first, last = self.channels[0] // per_group, self.channels[-1] // per_group
        return range(first * group_channels, (last + 1) * group_channels)

    @property
    def first_word(self) -> int:
        """The first word of a pixel that holds one of the tile's input channels."""
        return self._inputs[0] // self.config.lanes

    @property
    def words(self) -> int:
        """How many words of a pixel the tile reads."""
        return self._inputs[-1] // self.config.lanes - self.first_word + 1

    @property
    def _word_channels(self) -> range:
        """The channels in those words."""
        lanes = self.config.lanes
        first = self.first_word * lanes
        return range(first, min(first + self.words * lanes, self.layer.source.shape[0]))

    @property
    def pad_lanes(self) -> int:
        """Lanes of the last word that hold a channel."""
        return (len(self._word_channels) - 1) % self.config.lanes + 1

    @cached_property
    def _mixed(self) -> bool:
        """Whether a lane holds a channel that one of the rows must not see."""
        return len(self._word_channels) != self.layer.conv.codes.shape[1]

    @property
    def odd(self) -> bool:
        """Whether the weights are on the odd grid."""
        return self.layer.conv.grid is Grid.ODD and not self._mixed

    @property
    def weight_bits(self) -> int:
        """Bits of the weight codes, recoded ones if there must be zeros."""
        conv = self.layer.conv
        return conv.bits + 1 if conv.grid is Grid.ODD and self._mixed else conv.bits

    @property
    def weight_digits(self) -> int:
        """Digits of a weight code."""
        return -(-self.weight_bits // self.config.digit_bits)

    @property
    def activation_digits(self) -> int:
        """Digits of an activation code."""
        return digits(self.layer.source, self.config)

    @property
    def plane(self) -> int:
        """Weight words of a row and digit."""
        return self.words * int(np.prod(self.layer.conv.codes.shape[2:]))

    @property
    def weight_words(self) -> int:
        """Weight words of a row."""
        return self.plane * self.weight_digits

    @property
    def position_beats(self) -> int:
        """Beats of one position."""
        height, width = self.layer.kernel
        return height * width * self.words * self.weight_digits * self.activation_digits

    @property
    def beats(self) -> int:
        """Beats of the tile."""
        return self.position_beats * self.layer.positions

    def check(self) -> None:
        """Refuse what the weight banks cannot hold.

        Raises
        ------
        :class:`~hw.config.UnsupportedNetworkError`
            The layer by name, what it needs and what there is.
        """
        if self.weight_bits > MAX_WEIGHT_BITS:
            raise UnsupportedNetworkError(
                f"Layer {self.layer.name!r} needs weights of {self.weight_bits} bits, since its groups share words and "
                f"the odd grid has no 0, but weights have at most {MAX_WEIGHT_BITS} bits"
            )
        if self.weight_words > self.config.weight_depth:
            raise UnsupportedNetworkError(
                f"Layer {self.layer.name!r} needs {self.weight_words} weight words a row, "
                f"but configuration {self.config.name!r} has weight_depth {self.config.weight_depth}"
            )

    def weights(self) -> np.ndarray:
        """The digits of the weight words: uint16 (channels, weight_words, lanes)."""
        conv = self.layer.conv
        out_channels, group_channels, height, width = conv.codes.shape
        per_group = out_channels // conv.groups
        held = self._word_channels
        codes = conv.codes[self.channels.start : self.channels.stop].transpose(0, 2, 3, 1).astype(np.int64)
        if conv.grid is Grid.ODD and self._mixed:
            # W = 2n - (2**w - 1) as two's complement of w + 1 bits, whose code is W + 2**w.
            codes = 2 * codes + 1
        # Lanes without a channel hold activation 0, so that any weight does.
        laid = np.zeros((len(self.channels), height, width, self.words * self.config.lanes), np.int64)
        laid[..., : len(held)] = Grid.TWOS_COMPLEMENT.c(self.weight_bits) if self._mixed else 0
        for row, channel in enumerate(self.channels):
            start = channel // per_group * group_channels - held.start
            laid[row, :, :, start : start + group_channels] = codes[row]
        split = cut(laid, self.weight_digits, self.config.digit_bits)
        shape = (len(self.channels), self.weight_words, self.config.lanes)
        return np.moveaxis(split, -1, 1).reshape(shape)

    def constants(self) -> tuple[tuple[int, int, int, int], ...]:
        """M, M_skip, B and S of each channel; those that pass the accumulator where there is no requantization."""
        constants = self.layer.conv.requantize
        if constants is None:
            return ((1, 0, 0, 0),) * len(self.channels)
        skips = np.zeros_like(constants.bias) if constants.skip_multiplier is None else constants.skip_multiplier
        return tuple(
            (
                int(constants.multiplier[channel]),
                int(skips[channel]),
                int(constants.bias[channel]),
                int(constants.shift[channel]),
            )
            for channel in self.channels
        )


def tiles(layer: Layer, config: AcceleratorConfig) -> list[Tile]:
    """The tiles of a layer in ascending order of channels."""
    channels = layer.conv.codes.shape[0]
    return [
        Tile(layer, config, range(first, min(first + config.rows, channels)))
        for first in range(0, channels, config.rows)
    ]


def compute(tile: Tile, addresses: dict[str, int], *, fence: bool, mark: bool) -> Command:
    """The COMPUTE command of a tile, the tensors of its layer at ``addresses``.

    Raises
    ------
    :class:`~hw.config.UnsupportedNetworkError`
        A coordinate or a count is beyond its field; the sentence names the layer and the limit.
    """
    layer, config = tile.layer, tile.config
    source, output, skip = layer.source, layer.output, layer.skip
    x, y, loops = _loops(tile)
    first_word = tile.channels[0] // config.lanes
    pixel = pixel_words(source, config)
    fields = {
        "fence": int(fence),
        "mark": int(mark),
        "odd": int(tile.odd),
        "use_skip": int(skip is not None),
        "broadcast": int(layer.conv.broadcast),
        "weight_bits": tile.weight_bits,
        "output_bits": 0 if output.kind is Kind.ACCUMULATOR else output.bits,
        "weight_digits_last": tile.weight_digits - 1,
        "activation_digits_last": tile.activation_digits - 1,
        "output_digits_last": digits(output, config) - 1,
        "skip_digits_last": 0 if skip is None else digits(skip, config) - 1,
        "channels": len(tile.channels),
        "weight_words": tile.weight_words,
        "plane": tile.plane,
        "pad_code": layer.pad_code,
        "pad_lanes": tile.pad_lanes,
        "window_last": layer.window - 1,
        "width": source.shape[2],
        "height": source.shape[1],
        "x": x,
        "y": y,
        "input_address": addresses[source.name]
        + (y * source.shape[2] + x) * pixel
        + tile.first_word * tile.activation_digits,
        "output_address": addresses[output.name] + first_word * digits(output, config),
        "output_step": pixel_words(output, config),
        "skip_address": 0 if skip is None else addresses[skip.name] + first_word * digits(skip, config),
        "skip_step": 0 if skip is None else pixel_words(skip, config),
        "slot": tile.channels[0] % config.lanes // config.requant_lanes,
        "pixels_last": output.shape[1] * output.shape[2] - 1,
        **loops,
    }
    for field in COMMANDS[Opcode.COMPUTE]:
        if field.name in ("width", "height"):
            _check_range(layer, field.name, fields[field.name], 1, (1 << (COORDINATE_BITS - 1)) - 1)
        elif field.name in fields:
            _check_range(layer, field.name, fields[field.name], *field.range)
    for name in ("input_address", *(f"{loop}_step" for loop in LOOPS)):
        fields[name] = _wrapped(fields[name], config)
    first, last = tile.channels[0], tile.channels[-1]
    return Command(Opcode.COMPUTE, fields, tile.constants(), tile.weights(), f"{layer.name} channels {first}..{last}")


def _check_range(layer: Layer, what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UnsupportedNetworkError(
            f"Layer {layer.name!r} needs {what} {value}, but a program holds {low} to {high} there"
        )


def _wrapped(address: int, config: AcceleratorConfig) -> int:
    """An address or a step in the hardware's modulus, which only positions outside a map need."""
    half = 1 << (address_bits(config) - 1)
    return (address + half) % (2 * half) - half


def _loops(tile: Tile) -> tuple[int, int, dict[str, int]]:
    """The first tap's x and y, and the fields of the loops.

    A loop's step is what leads from the last iteration of everything inside to its own next iteration: what it moves
    by itself, less what the loops inside have moved.
    """
    layer = tile.layer
    conv, source, output = layer.conv, layer.source, layer.output
    pixel = pixel_words(source, tile.config)
    kernel_y, kernel_x = layer.kernel
    (stride_y, stride_x), (dilation_y, dilation_x) = conv.stride, conv.dilation
    top, left = conv.padding[:2]
    window = step = (1, 1)
    if layer.pool is not None:
        window, step = layer.pool.kernel, layer.pool.stride
        top, left = top + layer.pool.padding[0] * stride_y, left + layer.pool.padding[1] * stride_x
    moves = {
        "word": (tile.words, 0, 0),
        "kernel_x": (kernel_x, dilation_x, 0),
        "kernel_y": (kernel_y, 0, dilation_y),
        "pass": (1, 0, 0),
        "pool_x": (window[1], stride_x, 0),
        "pool_y": (window[0], 0, stride_y),
        "output_x": (output.shape[2], step[1] * stride_x, 0),
        "output_y": (output.shape[1], 0, step[0] * stride_y),
    }
    fields: dict[str, int] = {}
    inside_x = inside_y = inside_address = 0
    for loop in LOOPS:
        count, dx, dy = moves[loop]
        address = tile.activation_digits if loop == "word" else (dy * source.shape[2] + dx) * pixel
        steps = count > 1 or (loop == "pass" and tile.weight_digits * tile.activation_digits > 1)
        fields[f"{loop}_last"] = count - 1
        fields[f"{loop}_dx"] = dx - inside_x if steps else 0
        fields[f"{loop}_dy"] = dy - inside_y if steps else 0
        fields[f"{loop}_step"] = address - inside_address if steps else 0
        inside_x += (count - 1) * dx
        inside_y += (count - 1) * dy
        inside_address += (count - 1) * address
    # The walk's last x and y are the farthest.
    for what, low, extent in (("x", -left, inside_x), ("y", -top, inside_y)):
        for coordinate in (low, low + extent):
            half = 1 << (COORDINATE_BITS - 1)
            _check_range(layer, f"coordinate {what}", coordinate, -half, half - 1)
    return -left, -top, fields
