"""The full area report as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hw.synth.components import NATIVE_BITS
from hw.synth.row import Row
from hw.synth.technology import Kind, Target

__all__ = ["page"]


def _number(value: float | None, digits: int = 4) -> str:
    """So many digits, thin spaces between thousands, never an exponent; a dash for nothing."""
    if value is None:
        return "–"
    decimals = 0
    while decimals < digits and abs(value) * 10**decimals < 10 ** (digits - 1):
        decimals += 1
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _times(value: float | None) -> str:
    return "–" if value is None else f"{_number(value, 3)}×"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(cells) + " |" for cells in (head, *lines)]
    return "\n".join([rows[0], "|---" * len(head) + "|", *rows[1:]]) + "\n"


class _Found:
    """Rows by technology, series, width and clock."""

    def __init__(self, target: Target, rows: Sequence[Row]) -> None:
        self.target = target
        self.rows = rows
        self.clock = (target.technology.clock_ns or None) if target.library else None

    def row(self, series: str, width: int, clock: float | None = None) -> Row | None:
        wanted = clock or self.clock
        return next(
            (row for row in self.rows if (row.series, row.digit_bits, row.clock_ns) == (series, width, wanted)), None
        )

    def all(self, series: str) -> list[Row]:
        return [row for row in self.rows if row.series == series and row.clock_ns == self.clock]

    @property
    def title(self) -> str:
        return self.target.technology.title


def _speed(row: Row | None) -> str:
    return "–" if row is None else f"{_number(row.cost_per_mac)} / {_number(row.delay_ns, 3)}"


def _split(found: _Found) -> str:
    def per_mac(row: Row, *parts: str) -> str:
        return _number(sum(row.parts[part] for part in parts) / (row.macs or 1), 3) if row.parts else "–"

    lines = []
    for row in found.all("best"):
        lines.append(
            (
                f"{row.digit_bits}",
                f"{row.lanes}×{row.rows}",
                f"{row.form}",
                f"**{_number(row.cost_per_mac)}**",
                _times(row.ratio_to_floor),
                per_mac(row, "products", "tree"),
                per_mac(row, "accumulator"),
                per_mac(row, "pipeline"),
                per_mac(row, "activation_register"),
                per_mac(row, "distribution"),
                per_mac(row, "control"),
                per_mac(row, "weight_register"),
                per_mac(row, "ones_row"),
                per_mac(row, "drain"),
            )
        )
    head = ("d", "lanes×rows", "form", "per MAC", "÷ floor", "products, tree", "accumulator", "pipeline")
    return _table(
        (*head, "activation registers", "shared sums, buffers", "control", "*weights*", "*ones row*", "*drain*"), lines
    )


def _widths(found: Sequence[_Found]) -> list[int]:
    return sorted({row.digit_bits or 0 for one in found for row in one.all("best")})


def _technologies(found: Sequence[_Found]) -> str:
    lines = [
        (
            f"{width}",
            *(
                f"{_number(row.cost_per_mac)} ({_times(row.ratio_to_floor)})"
                if (row := one.row("best", width))
                else "–"
                for one in found
            ),
        )
        for width in _widths(found)
    ]
    return _table(("d", *(f"{one.target.name}, {one.clock:g} ns" for one in found)), lines)


def _speeds(found: Sequence[_Found]) -> str:
    lines = []
    for one in found:
        for width in _widths([one]):
            rows = [one.row("best", width), one.row("best", width, 2.0), one.row("fast", width, 1.0)]
            rows.append(one.row("unpipelined", width))
            lines.append((one.target.name, f"{width}", *map(_speed, rows)))
    return _table(("", "d", "own clock", "500 MHz", "1 GHz, two pipeline registers", "own clock, none"), lines)


def _comparisons(found: Sequence[_Found]) -> str:
    lines = []
    for one in found:
        for row in one.all("best"):
            booth = one.row("signed_mac_booth", row.digit_bits or 0)
            signed = (booth.cost_per_mac or 0) / (row.cost_per_mac or 1) if booth else None
            lines.append(
                (
                    one.target.name,
                    f"{row.digit_bits}",
                    _number(row.cost_per_mac),
                    *(
                        f"{_number(other.cost_per_mac)} ({_times(ratio)})" if other else "–"
                        for other, ratio in (
                            (one.row("plain", row.digit_bits or 0), row.plain_ratio),
                            (one.row("booth", row.digit_bits or 0), row.booth_ratio),
                            (one.row("signed_mac", row.digit_bits or 0), row.signed_mac_ratio),
                            (booth, signed),
                        )
                    ),
                )
            )
    head = ("", "d", "this array", "sum(w\\*x), Yosys", "the same, Booth", "signed MAC, alone", "the same, Booth")
    return _table(head, lines)


def _densities(found: Sequence[_Found]) -> str:
    def ratio(one: _Found, series: str, weights: bool = False) -> str:
        row = one.row(series, 2)
        return _times(None if row is None else row.ratio_to_16_with_weights if weights else row.ratio_to_16)

    lines = [
        (
            one.target.name,
            ratio(one, "and"),
            ratio(one, "and", True),
            ratio(one, "best"),
            ratio(one, "best", True),
            ratio(one, "mac"),
        )
        for one in found
    ]
    return _table(("", "AND form", "with weights", "best forms", "with weights", "single MAC"), lines)


def _forms(one: _Found) -> str:
    names = [name for name in ("and", "nand", "pairs") if one.all(name)]
    lines = [
        (f"{width}", *(_number(row.cost_per_mac) if (row := one.row(name, width)) else "–" for name in names))
        for width in _widths([one])
    ]
    return _table(("d", *names), lines)


def _passes(one: _Found) -> str:
    lines = [
        (
            f"{row.digit_bits}",
            f"{row.lanes}×{row.rows}",
            _number(row.cost_per_mac),
            f"{row.passes}",
            _number((row.cost_per_mac or 0) * (row.passes or 1)),
            _times(row.pass_ratio),
        )
        for row in one.all("wide")
    ]
    product = f"{NATIVE_BITS}×{NATIVE_BITS}"
    return _table(("d", "lanes×rows", "per MAC", f"cycles of {product}", "area · cycles", "native ÷ this"), lines)


def _fpgas(found: Sequence[_Found]) -> str:
    lines = []
    for one in found:
        for row in one.all("best"):
            macs = row.macs or 1
            plain = one.row("plain", row.digit_bits or 0)
            lines.append(
                (
                    one.target.name,
                    f"{row.digit_bits}",
                    f"{row.lanes}×{row.rows}",
                    _number(row.cost_per_mac),
                    _number(row.luts),
                    f"{row.ffs + (row.weight_register_ffs or 0)}",
                    *(_number(row.parts[part] / macs, 3) for part in ("products", "accumulator", "distribution")),
                    _number(row.fmax_mhz),
                    _number(plain.cost_per_mac if plain else None),
                )
            )
    head = ("", "d", "lanes×rows", "LUTs per MAC", "LUTs", "FFs", "products, tree", "accumulator", "shared sums")
    return _table((*head, "MHz", "sum(w\\*x), LUTs per MAC"), lines)


def page(results: Mapping[str, Sequence[Row]], targets: Sequence[Target], command: str | None) -> str:
    """The results as tables. What they mean is in ``docs/area.md``.

    Parameters
    ----------
    results : mapping
        Rows with ratios by technology.
    targets : sequence of :class:`~hw.synth.technology.Target`
        The technologies; the tables that are of one only are of the one that has the most series.
    """
    found = [_Found(target, results[target.name]) for target in targets]
    cells = [one for one in found if one.target.technology.kind is Kind.CELLS]
    fpgas = [one for one in found if one.target.technology.kind is Kind.FPGA and one.all("best")]
    text = ["# Area: the tables\n"]
    if command:
        text.append(f"    {command}\n")
    text.append("Areas in µm² per MAC; (n×) is a ratio to, or of, this array's. Method: docs/area.md.\n")
    if cells:
        most = max(cells, key=lambda one: len({row.series for row in one.rows}))
        clock = f"clock target {most.clock:g} ns"
        parts = (
            (f"{most.title}: where the area goes, {clock}", _split(most) if most.all("best") else ""),
            ("Every library at its own clock (ratio to its floor)", _technologies(cells) if _widths(cells) else ""),
            ("Area / delay in ns by clock target", _speeds(cells) if _widths(cells) else ""),
            ("Beside plain HDL and single units", _comparisons(cells) if _widths(cells) else ""),
            ("How many times denser 2 bits are than 16", _densities(cells) if most.row("mac", 2) else ""),
            (f"Forms on {most.title}, {clock}", _forms(most) if most.all("nand") else ""),
            (f"Several passes on {most.title}, {clock}", _passes(most) if most.all("wide") else ""),
        )
        text += [f"## {title}\n\n{table}" for title, table in parts if table]
    if fpgas:
        text.append(f"## FPGAs\n\n{_fpgas(fpgas)}")
    return "\n".join(text)
