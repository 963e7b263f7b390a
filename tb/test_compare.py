"""The comparison: counts, the first place, and its picture."""

from __future__ import annotations

import numpy as np
import pytest

from tb.compare import compare


def test_equal() -> None:
    values = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert compare("conv", values, values.copy()) == (0, None)


def test_the_first_place_and_what_is_around_it() -> None:
    expected = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    got = expected.copy()
    got[1, 2, 3, 0] = 7
    got[1, 2, 2, 1] = 8
    got[1, 2, 3, 4] = 9
    count, difference = compare("conv", expected, got)
    assert count == 3 and difference is not None
    assert str(difference) == "layer conv, frame 1, channel 2, row 2, column 1: expected 111, got 8"
    assert difference.picture().splitlines() == [
        "                   expected   | got",
        "row col 0 col 1 col 2 col 3   | col 0 col 1 col 2 col 3",
        "  0  100   101   102   103    |  100   101   102   103 ",
        "  1  105   106   107   108    |  105   106   107   108 ",
        "  2  110   111   112   113    |  110     8*  112   113 ",
        "  3  115   116   117   118    |    7*  116   117   118 ",
    ]


def test_channels_stand_around_a_difference_in_a_vector() -> None:
    expected = np.array([-900, -80, 7, 6, 5]).reshape(1, 5, 1, 1)
    got = expected.copy()
    got[0, 1] = 12345
    count, difference = compare("fc", expected, got)
    assert count == 1 and difference is not None and difference.channel == 1
    assert difference.neighbourhood.channels and difference.neighbourhood.first_row == 0
    assert difference.neighbourhood.expected == ((-900,), (-80,), (7,), (6,))
    assert "      1   -80    | 12345*" in difference.picture()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^Results of layer 'fc' must have shape \(1, 2, 3, 4\), not \(1, 2, 4, 3\)$"):
        compare("fc", np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 4, 3)))
