"""Packing: round trips, the order of bits, and what does not fit."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.program.words import cut, join, pack_digits, pack_record, unpack_digits, unpack_record
from hw.program_format import Field


@given(st.data())
def test_digits_come_back(data):
    digit_bits = data.draw(st.sampled_from([1, 2, 4, 8, 16]))
    count = data.draw(st.integers(1, 64 // digit_bits))
    codes = np.array(data.draw(st.lists(st.integers(0, (1 << min(62, digit_bits * count)) - 1), min_size=1)))
    digits = cut(codes, count, digit_bits)
    assert digits.shape == (len(codes), count) and digits.max() < 1 << digit_bits
    np.testing.assert_array_equal(join(digits, digit_bits), codes)
    np.testing.assert_array_equal(unpack_digits(pack_digits(digits, digit_bits), count, digit_bits), digits)


def test_order_of_digits():
    np.testing.assert_array_equal(cut(np.array([0x1234, -2]), 5, 4), [[4, 3, 2, 1, 0], [14, 15, 15, 15, 15]])
    np.testing.assert_array_equal(cut(np.array([-1]), 70, 1), np.ones((1, 70)))
    assert pack_digits(np.array([[1, 2, 3], [0, 0, 1]]), 4) == [0x321, 0x100]
    np.testing.assert_array_equal(unpack_digits([0xFF321], 3, 4), [[1, 2, 3]])


FIELDS = (Field("a", 4, ""), Field("reserved", 28, ""), Field("b", 32, "", signed=True), Field("c", 8, ""))


def test_records():
    assert pack_record(FIELDS, {"a": 5, "b": -2, "c": 7}, 32) == [5, 0xFFFF_FFFE, 7]
    assert pack_record(FIELDS, {"a": 5, "b": -2, "c": 7}, 64) == [0xFFFF_FFFE_0000_0005, 7]
    for bits in (32, 64, 128):
        words = pack_record(FIELDS, {"a": 15, "b": -(1 << 31), "c": 0}, bits)
        assert unpack_record(FIELDS, words, bits) == {"a": 15, "b": -(1 << 31), "c": 0}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"a": 16}, "Field 'a' must be between 0 and 15, not 16"),
        ({"b": 1 << 31}, "Field 'b' must be between -2147483648 and 2147483647, not 2147483648"),
        ({"c": -1}, "Field 'c' must be between 0 and 255, not -1"),
    ],
)
def test_records_refuse_what_does_not_fit(change, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        pack_record(FIELDS, {"a": 0, "b": 0, "c": 0} | change, 32)
