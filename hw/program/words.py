"""Digits and records as words: the packing that streams and the activation buffer share.

A word of digits holds digit l, of ``digit_bits`` bits, at bit ``l * digit_bits``. A record holds its fields one after
the other, the first in the lowest bits, and takes whole stream words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hw.program_format import Field, placed, record_words

__all__ = ["cut", "join", "pack_digits", "pack_record", "unpack_digits", "unpack_record"]


def cut(codes: np.ndarray, digits: int, digit_bits: int) -> np.ndarray:
    """Cut integers into digits, the low one first: a new last axis of ``digits`` numbers (uint16).

    Negative integers are cut as two's complement.
    """
    shifts = digit_bits * np.arange(digits, dtype=np.int64)
    wide = codes.astype(np.int64)[..., None] >> np.minimum(shifts, 63)
    return (wide & ((1 << digit_bits) - 1)).astype(np.uint16)


def join(digits: np.ndarray, digit_bits: int) -> np.ndarray:
    """The integers (int64, not negative up to 63 bits) whose digits, the low one first, lie along the last axis."""
    codes = np.zeros(digits.shape[:-1], np.int64)
    for digit in reversed(range(digits.shape[-1])):
        codes = (codes << digit_bits) | digits[..., digit].astype(np.int64)
    return codes


def pack_digits(digits: np.ndarray, digit_bits: int) -> list[int]:
    """Pack digits (n, lanes) into n words."""
    bits = (digits.astype(np.uint16)[..., None] >> np.arange(digit_bits, dtype=np.uint16)) & 1
    rows = np.packbits(bits.astype(np.uint8).reshape(digits.shape[0], -1), axis=1, bitorder="little")
    width = rows.shape[1]
    flat = rows.tobytes()
    return [int.from_bytes(flat[at : at + width], "little") for at in range(0, len(flat), width)]


def unpack_digits(words: Sequence[int], lanes: int, digit_bits: int) -> np.ndarray:
    """The digits (n, lanes), uint16, of n words; bits above the last lane are not read."""
    width = -(-lanes * digit_bits // 8)
    mask = (1 << (lanes * digit_bits)) - 1
    flat = b"".join((word & mask).to_bytes(width, "little") for word in words)
    rows = np.frombuffer(flat, np.uint8).reshape(len(words), width)
    bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : lanes * digit_bits]
    weights = 1 << np.arange(digit_bits, dtype=np.uint32)
    return (bits.reshape(len(words), lanes, digit_bits) @ weights).astype(np.uint16)


def pack_record(fields: tuple[Field, ...], values: Mapping[str, int], stream_bits: int) -> list[int]:
    """Pack one record into stream words.

    Raises
    ------
    :class:`ValueError`
        A value does not fit its field; the sentence names the field and its range.
    """
    record = 0
    for bit, field in placed(fields):
        value = values[field.name]
        low, high = field.range
        if not low <= value <= high:
            raise ValueError(f"Field {field.name!r} must be between {low} and {high}, not {value!r}")
        record |= (value & ((1 << field.bits) - 1)) << bit
    mask = (1 << stream_bits) - 1
    return [(record >> at) & mask for at in range(0, record_words(fields, stream_bits) * stream_bits, stream_bits)]


def unpack_record(fields: tuple[Field, ...], words: Sequence[int], stream_bits: int) -> dict[str, int]:
    """The values of the fields of a record that fills ``words``."""
    record = sum(word << (index * stream_bits) for index, word in enumerate(words))
    values = {}
    for bit, field in placed(fields):
        value = (record >> bit) & ((1 << field.bits) - 1)
        if field.signed and value >> (field.bits - 1):
            value -= 1 << field.bits
        values[field.name] = value
    return values
