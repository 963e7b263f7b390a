"""The program stream: what its words mean. The builder writes it, the RTL reads it, the documentation prints it.

A program is one AXI4-Stream packet of ``stream_bits`` wide words. It holds records, each starting in a new word and
padded with zeros to whole words, their fields packed least significant first:

* one header record (:data:`HEADER`);
* commands, each beginning with a record (:data:`COMMANDS`) whose first field is its opcode. After a COMPUTE record
  come ``channels`` records of requantization constants (:func:`constants_fields`) and then the weights: for each of
  the ``channels`` rows, row 0 first, ``weight_words`` words, one in the low ``lanes * digit_bits`` bits of each
  stream word;
* an END command, in whose last word ``tlast`` is high, and nowhere before it.

No field crosses a multiple of 32 bits. Fields called ``reserved`` are written as 0 and not read.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass

from hw.config import AcceleratorConfig

__all__ = [
    "COMMANDS",
    "CONSTANT_FIELDS",
    "COORDINATE_BITS",
    "ERROR_BITS",
    "HEADER",
    "LOOPS",
    "MAGIC",
    "VERSION",
    "Error",
    "Field",
    "Opcode",
    "address_bits",
    "constants_fields",
    "fingerprint",
    "offsets",
    "placed",
    "record_words",
]

MAGIC = int.from_bytes(b"PACT", "little")
VERSION = 1


class Opcode(enum.IntEnum):
    """The commands."""

    END = 1
    """The program is complete; the core is done when everything before has finished."""
    LOAD = 2
    """Move one packet of the input stream to consecutive words of the activation buffer."""
    COMPUTE = 3
    """Compute one tile: at most ``rows`` output channels at every output position."""
    STORE = 4
    """Send consecutive words of the activation buffer as one packet of the output stream."""


class Error(enum.IntEnum):
    """Why the core stopped; the code in the ERROR register."""

    NONE = 0
    """No error."""
    MAGIC = 1
    """The first word of a program does not begin with the magic number."""
    VERSION = 2
    """The program is of another version of the format."""
    FINGERPRINT = 3
    """The program was built for another configuration."""
    OPCODE = 4
    """A record begins with an opcode that does not exist."""
    FIELD = 5
    """A field of a record is outside what this configuration allows."""
    WEIGHTS = 6
    """A tile has more weight words than a half of the weight banks holds."""
    ADDRESS = 7
    """A command reads or writes outside the activation buffer."""
    PROGRAM_SHORT = 8
    """``tlast`` came before the end of the program."""
    PROGRAM_LONG = 9
    """The last word of the END command came without ``tlast``."""
    INPUT_SHORT = 10
    """``tlast`` of the input stream came before the last word of a LOAD."""
    INPUT_LONG = 11
    """The last word of a LOAD came without ``tlast``."""


ERROR_BITS = max(Error).bit_length()
"""Width of an error's code."""

COORDINATE_BITS = 16
"""Signed width of x and y in a COMPUTE: maps of up to 32767 pixels in a row or column, padding included."""


@dataclass(frozen=True)
class Field:
    """One field of a record: its name, its width in the stream, whether it is signed, and what it says."""

    name: str
    bits: int
    doc: str
    signed: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest value that it holds."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        return low, low + (1 << self.bits) - 1


LOOPS = ("word", "kernel_x", "kernel_y", "pass", "pool_x", "pool_y", "output_x", "output_y")
"""The loops of a COMPUTE command, innermost first."""

HEADER = (
    Field("magic", 32, "the characters PACT"),
    Field("version", 16, "of the format"),
    Field("reserved", 16, ""),
    Field("fingerprint", 32, "of the configuration that the program was built for, as in the FINGERPRINT register"),
    Field("reserved", 32, ""),
)

_OPCODE = Field("opcode", 8, "which command this is")
_FENCE = Field("fence", 1, "wait until every command before has finished, then start")
_MARK = Field("mark", 1, "note the cycle in which this command finishes in the layer table")

_TRANSFER = (
    _OPCODE,
    _FENCE,
    _MARK,
    Field("reserved", 22, ""),
    Field("address", 32, "first word in the activation buffer"),
    Field("words_last", 32, "words less 1"),
    Field("reserved", 32, ""),
)

_LOOP_FIELDS = tuple(
    field
    for loop in LOOPS
    for field in (
        Field(f"{loop}_last", 16, "iterations less 1 (`pass`: not used, the digits count)"),
        Field(f"{loop}_dx", 16, "what a step of this loop adds to x", signed=True),
        Field(f"{loop}_dy", 16, "what a step of this loop adds to y", signed=True),
        Field("reserved", 16, ""),
        Field(f"{loop}_step", 32, "what a step of this loop adds to the input address", signed=True),
    )
)

COMMANDS: dict[Opcode, tuple[Field, ...]] = {
    Opcode.END: (_OPCODE, Field("reserved", 24, "")),
    Opcode.LOAD: _TRANSFER,
    Opcode.STORE: _TRANSFER,
    Opcode.COMPUTE: (
        _OPCODE,
        _FENCE,
        _MARK,
        Field("odd", 1, "the weights are on the odd grid, not two's complement"),
        Field("use_skip", 1, "the tile has a residual operand"),
        Field("broadcast", 1, "every tap uses the same weight words (linear layer after a global average pool)"),
        Field("reserved", 3, ""),
        Field("weight_bits", 8, "w, 1 to 16"),
        Field("output_bits", 8, "k; 0: the accumulators themselves are written"),
        Field("weight_digits_last", 8, "digits of a weight code less 1"),
        Field("activation_digits_last", 8, "digits of an activation code less 1"),
        Field("output_digits_last", 8, "digits of an output code or accumulator less 1"),
        Field("skip_digits_last", 8, "digits of the residual operand's codes less 1"),
        Field("channels", 16, "output channels of the tile, 1 to rows"),
        Field("weight_words", 16, "weight words of a row, all digits, 1 to weight_depth"),
        Field("plane", 16, "weight words of a row and digit; digit i begins at word i * plane"),
        Field("pad_code", 16, "the code of a position outside the map, in the lanes that hold a channel"),
        Field("pad_lanes", 16, "lanes of the word loop's last word that hold a channel; all do in the others"),
        Field("window_last", 16, "positions less 1 of the pooling window whose maximum is written"),
        Field("width", 16, "of the input map: x from 0 to width - 1 is inside"),
        Field("height", 16, "of the input map: y from 0 to height - 1 is inside"),
        Field("x", 16, "of the first position's first tap", signed=True),
        Field("y", 16, "of the first position's first tap", signed=True),
        Field("input_address", 32, "of digit 0 at x, y; may be outside where x, y is", signed=True),
        Field("output_address", 32, "of digit 0 of the first output pixel"),
        Field("output_step", 32, "words from one output pixel to the next"),
        Field("skip_address", 32, "of digit 0 of the residual operand's first pixel"),
        Field("skip_step", 32, "words from one pixel of the residual operand to the next"),
        Field("slot", 16, "which requant_lanes lanes of the first output (and residual) word the tile begins in"),
        Field("reserved", 16, ""),
        Field("pixels_last", 32, "output pixels less 1"),
        *_LOOP_FIELDS,
    ),
}
"""The records of the commands."""

CONSTANT_FIELDS = ("multiplier", "skip_multiplier", "bias", "shift")


def constants_fields(config: AcceleratorConfig) -> tuple[Field, ...]:
    """The record of one row's requantization constants, M, M_skip, B and S: each in its own 32-bit words.

    A value wider than 32 bits takes two of them, the low one first (``*_low``, ``*_high``).
    """
    fields = []
    for name in CONSTANT_FIELDS:
        bits = config.max_shift.bit_length() if name == "shift" else getattr(config, f"{name}_bits")
        if bits <= 32:
            fields.append(Field(name, 32, "", signed=name != "shift"))
        else:
            fields += [Field(f"{name}_low", 32, ""), Field(f"{name}_high", 32, "", signed=True)]
    return tuple(fields)


def placed(fields: tuple[Field, ...]) -> Iterator[tuple[int, Field]]:
    """The bit at which each field begins, and the field; the reserved ones are left out."""
    bit = 0
    for field in fields:
        if bit // 32 != (bit + field.bits - 1) // 32:
            raise ValueError(f"Field {field.name!r} must not cross a multiple of 32 bits")
        if field.name != "reserved":
            yield bit, field
        bit += field.bits


def offsets(fields: tuple[Field, ...]) -> dict[str, int]:
    """The bit at which each field begins, by name."""
    return {field.name: bit for bit, field in placed(fields)}


def record_words(fields: tuple[Field, ...], stream_bits: int) -> int:
    """Stream words of one record."""
    return -(-sum(field.bits for field in fields) // stream_bits)


def address_bits(config: AcceleratorConfig) -> int:
    """Signed width of an address of the activation buffer.

    One bit more than a signed number needs for its depth: the address of a padding position may be outside, and sums
    are modulo ``2**address_bits``.
    """
    return (config.activation_depth - 1).bit_length() + 2


def fingerprint(config: AcceleratorConfig) -> int:
    """CRC-32 of the parameters that a program depends on: all but the name."""
    text = ",".join(str(value) for value in astuple(config)[1:])
    return zlib.crc32(text.encode("ascii"))
