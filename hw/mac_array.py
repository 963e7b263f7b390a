"""The array: rows of dot products that share one activation word, with Horner accumulation and a drain."""

from __future__ import annotations

import operator

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import check_digit_bits

__all__ = ["MacArray", "beat_layout"]


def beat_layout(*, rows: int, lanes: int, digit_bits: int) -> data.StructLayout:
    """The payload of one beat, least significant field first.

    * ``activations``: one digit per lane, shared by all rows.
    * ``weights``: one digit per lane and row.
    * ``first``: first beat of a position; the accumulators start from 0.
    * ``shift``: the accumulators are shifted left by ``digit_bits`` before this beat is added.
    * ``last``: last beat of a position.
    * ``ones``: the weight digits are digit 0 of their codes, so the ones row adds this beat's activation digits.
    * ``tile_last``: this position is the last one of its tile; of no interest to the array.
    """
    word = data.ArrayLayout(digit_bits, lanes)
    return data.StructLayout(
        {
            "activations": word,
            "weights": data.ArrayLayout(word, rows),
            "first": 1,
            "shift": 1,
            "last": 1,
            "ones": 1,
            "tile_last": 1,
        }
    )


class MacArray(wiring.Component):
    """``rows`` accumulating dot products over ``lanes`` unsigned digit pairs, plus the ones row.

    A position (one accumulator per row) is a run of beats from one with ``first`` to one with ``last``; a beat does,
    in every row and modulo ``2**acc_bits``,

        ``accumulator = (0 if first else accumulator << digit_bits if shift else accumulator) + sum(w[l] * x[l])``

    and in the ones row the same with 1 in the place of each ``w[l]`` of a beat with ``ones``, else 0. Digit pairs
    (i, j) sent in descending i + j with ``shift`` whenever i + j drops (Horner) thus leave ``sum(n*u)`` in the rows
    and ``sum(u)`` in the ones row. The beats of one digit sum may come in any order. ``first`` wins over ``shift``.

    Rate: one beat per cycle, no back-pressure; cycles without a beat may come anywhere and change nothing, since no
    enable reaches the rows: such a cycle adds a word of zeros. Latency: the accumulators hold a beat ``latency``
    cycles after the cycle of its transfer, and their copy in the drain one cycle after ``capture``.

    The user must capture a finished position before the next one's first beat reaches the accumulators:
    ``complete`` says that they hold one, and back-to-back positions leave it there for a single cycle.

    Parameters
    ----------
    rows, lanes : :class:`int`
        At least 1.
    digit_bits : :class:`int`
        Width d of a digit: 1, 2, 4, 8 or 16.
    acc_bits : :class:`int`
        Width of an accumulator, at least 2*d.
    drain_rows : :class:`int`
        Rows that leave the drain together, 1 to ``rows``.
    pipeline : :class:`bool` or ``None``
        Whether the dot products have a carry-save pipeline register. ``None``: from 8-bit digits up.

    Attributes
    ----------
    latency : :class:`int`
        2, or 3 with the pipeline register: activation and weight registers, (carry-save register,) accumulators.

    Members
    -------
    i : ``In(stream.Signature(beat_layout(...), always_ready=True))``
        Beats; see :func:`beat_layout`.
    capture : ``In(1)``
        Copy the accumulators, as they are in this cycle, to the drain registers. Wins over ``advance``.
    advance : ``In(1)``
        Move the drain registers down by ``drain_rows`` rows.
    complete : ``Out(1)``
        The accumulators hold a finished position: from ``latency`` cycles after the transfer of its last beat until
        it is captured (high in the cycle of ``capture``, low in the next one) or the next beat is accumulated.
        Low after reset.
    o_rows : ``Out(data.ArrayLayout(acc_bits, drain_rows))``
        The lowest drain registers: rows ``0 .. drain_rows-1`` after a capture, the next ones after each ``advance``.
        Lanes beyond the last row hold copies of other rows.
    o_ones : ``Out(acc_bits)``
        The captured ones row; does not move with ``advance``.

    Raises
    ------
    :class:`TypeError`
        A parameter is not an integer.
    :class:`ValueError`
        A parameter is outside its range.
    """

    def __init__(
        self,
        *,
        rows: int,
        lanes: int,
        digit_bits: int,
        acc_bits: int,
        drain_rows: int = 1,
        pipeline: bool | None = None,
    ) -> None:
        self.rows = operator.index(rows)
        self.lanes = operator.index(lanes)
        self.digit_bits = check_digit_bits(digit_bits)
        self.acc_bits = operator.index(acc_bits)
        self.drain_rows = operator.index(drain_rows)
        self.pipeline = self.digit_bits >= 8 if pipeline is None else bool(pipeline)
        if self.rows < 1:
            raise ValueError(f"Number of rows must be at least 1, not {self.rows!r}")
        if self.lanes < 1:
            raise ValueError(f"Number of lanes must be at least 1, not {self.lanes!r}")
        if self.acc_bits < 2 * self.digit_bits:
            raise ValueError(f"Accumulator width must be at least {2 * self.digit_bits}, not {self.acc_bits!r}")
        if not 1 <= self.drain_rows <= self.rows:
            raise ValueError(f"Number of drain rows must be between 1 and {self.rows}, not {self.drain_rows!r}")
        self.latency = 3 if self.pipeline else 2
        layout = beat_layout(rows=self.rows, lanes=self.lanes, digit_bits=self.digit_bits)
        super().__init__(
            {
                "i": In(stream.Signature(layout, always_ready=True)),
                "capture": In(1),
                "advance": In(1),
                "complete": Out(1),
                "o_rows": Out(data.ArrayLayout(self.acc_bits, self.drain_rows)),
                "o_ones": Out(self.acc_bits),
            }
        )
