"""A command as it goes from the fetch unit to what executes it: the fields of the stream's records, as wide as they
need to be."""

from __future__ import annotations

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from hw.config import MAX_WEIGHT_BITS, AcceleratorConfig
from hw.program_format import COMMANDS, COORDINATE_BITS, LOOPS, Opcode, address_bits

__all__ = ["STILL", "command_fields", "command_layout", "transfer_layout"]

STILL = (("word", "dx"), ("word", "dy"), ("kernel_x", "dy"))
"""Steps that are always 0: channels of one pixel, and taps of one row."""


def command_fields(config: AcceleratorConfig) -> dict[str, tuple[Shape, int, int]]:
    """By name every field of every record: its shape in hardware, and the smallest and largest value allowed.

    LOAD and STORE share ``address`` and ``words_last``. What a field's record has more bits for than its shape must be
    the shape's own extension.

    * addresses and their steps: :func:`~hw.program_format.address_bits`; coordinates and their steps:
      :data:`~hw.program_format.COORDINATE_BITS`;
    * the digit counts: as many as 16-bit codes, or accumulators, have;
    * weight words: the depth of a half of the banks; channels and slots: rows and lanes; all other counts: the stream's
      16 bits, or as many as the activation buffer has words.
    """
    digits = -(-16 // config.digit_bits)
    output_digits = -(-max(16, config.acc_bits) // config.digit_bits)
    address = signed(address_bits(config))
    depth = config.activation_depth
    half = 1 << (address_bits(config) - 1)

    def count(low: int, high: int) -> tuple[Shape, int, int]:
        return unsigned(max(1, high.bit_length())), low, high

    coordinate = (signed(COORDINATE_BITS), -(1 << (COORDINATE_BITS - 1)), (1 << (COORDINATE_BITS - 1)) - 1)
    step = (address, -half, half - 1)
    fields = {
        "fence": count(0, 1),
        "mark": count(0, 1),
        "address": count(0, depth - 1),
        "words_last": count(0, depth - 1),
        "odd": count(0, 1),
        "use_skip": count(0, 1),
        "broadcast": count(0, 1),
        "weight_bits": count(1, MAX_WEIGHT_BITS),
        "output_bits": count(0, config.max_output_bits),
        "weight_digits_last": count(0, digits - 1),
        "activation_digits_last": count(0, digits - 1),
        "output_digits_last": count(0, output_digits - 1),
        "skip_digits_last": count(0, -(-config.max_output_bits // config.digit_bits) - 1),
        "channels": count(1, config.rows),
        "weight_words": count(1, config.weight_depth),
        "plane": count(1, config.weight_depth),
        "pad_code": count(0, (1 << 16) - 1),
        "pad_lanes": count(1, config.lanes),
        "window_last": count(0, (1 << 16) - 1),
        "width": count(1, (1 << (COORDINATE_BITS - 1)) - 1),
        "height": count(1, (1 << (COORDINATE_BITS - 1)) - 1),
        "x": coordinate,
        "y": coordinate,
        "input_address": step,
        "output_address": count(0, depth - 1),
        "output_step": count(0, depth),
        "skip_address": count(0, depth - 1),
        "skip_step": count(0, depth),
        "slot": count(0, config.lanes // config.requant_lanes - 1),
        "pixels_last": count(0, depth - 1),
    }
    for loop in LOOPS:
        fields[f"{loop}_last"] = count(0, (1 << 16) - 1)
        for part in ("dx", "dy"):
            fields[f"{loop}_{part}"] = count(0, 0) if (loop, part) in STILL else coordinate
        fields[f"{loop}_step"] = step
    names = {field.name for record in COMMANDS.values() for field in record} - {"opcode", "reserved"}
    assert names == fields.keys(), names ^ fields.keys()
    return fields


def command_layout(config: AcceleratorConfig) -> data.StructLayout:
    """The payload of the command stream: ``opcode``, then all of :func:`command_fields`.

    Fields of other commands than the one that ``opcode`` says mean nothing.
    """
    return data.StructLayout(
        {
            "opcode": unsigned(max(Opcode).bit_length()),
            **{name: shape for name, (shape, _, _) in command_fields(config).items()},
        }
    )


def transfer_layout(config: AcceleratorConfig) -> data.StructLayout:
    """A LOAD or STORE: ``address`` of its first word, ``words_last``, ``mark``."""
    shapes = {name: shape for name, (shape, _, _) in command_fields(config).items()}
    return data.StructLayout({name: shapes[name] for name in ("address", "words_last", "mark")})
