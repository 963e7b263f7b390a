"""The report on vector scales: its files, its table, its percentages, its errors."""

import csv
import io
import re

import pytest
from rich.console import Console

from hw.synth.vector_scales import Row, _compared, run

COMMAND = "pactolus report vector-scales --rows 1"


def test_mini(tmp_path):
    """Small arrays of every form; what the CSV file says, and what is printed."""
    console = Console(file=io.StringIO(), width=100)
    path = tmp_path / "vector-scales-mini.csv"
    rows = run(
        shapes=[(4, 2)], scale_bits=[2], rows=1, build=tmp_path / "synth", path=path, command=COMMAND, console=console
    )
    with path.open() as file:
        assert file.readline() == f"# {COMMAND}\n"
        table = list(csv.DictReader(file))
    assert [(row["form"], row["product_bits"], row["accumulator_bits"]) for row in table] == [
        ("plain", "", "20"), ("full", "4", "24"), ("rounded", "2", "22"), ("static", "2", "22"),
    ]  # fmt: skip
    assert [float(row["area_um2"]) for row in table] == [row.area_um2 for row in rows]
    plain, full, rounded, static = (row.area_um2 for row in rows)
    assert plain < static < rounded < full
    assert rows[1].overhead_percent == round(100 * (full / plain - 1), 1)
    assert rows[1].row_overhead_percent > rows[1].overhead_percent > 0
    for row in rows:
        assert 0.5 * row.area_um2 < row.row_um2 < row.area_um2
        parts = row.area_um2 + row.weight_register_um2 + row.ones_row_um2 + row.drain_um2
        assert row.total_um2 == pytest.approx(parts) and row.total_per_mac_um2 == pytest.approx(parts / 2)
        assert row.saving_percent is None, "there is no 8-bit array to compare with"
    # Two codes and two scales more in the static form's weight register, three registers more in the full one's.
    assert rows[0].weight_register_um2 < rows[3].weight_register_um2 == rows[1].weight_register_um2
    assert "Vector scales: " in console.file.getvalue() and "static" in console.file.getvalue()
    for suffix in ("svg", "png"):
        assert (tmp_path / f"vector-scales-mini.{suffix}").stat().st_size > 5000


def row(digit_bits, form, area, total):
    return Row(
        digit_bits=digit_bits, lanes=16, rows=4, form=form, accumulator_bits=20, area_um2=area, area_per_mac_um2=1,
        row_um2=area / 8,
        weight_register_um2=0, ones_row_um2=0, drain_um2=0, total_um2=total, total_per_mac_um2=1, delay_ns=None,
        clock_ns=2, ffs=1, full_adders=1,
    )  # fmt: skip


def test_percentages():
    rows = _compared([row(4, "plain", 100, 200), row(4, "full", 150, 280), row(8, "plain", 400, 700)])
    assert [(r.overhead_percent, r.total_overhead_percent) for r in rows] == [(None, None), (50, 40), (None, None)]
    assert [(r.saving_percent, r.total_saving_percent) for r in rows] == [(75, 71.4), (62.5, 60), (None, None)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pdk": "generic"}, "Technology must have standard cells for areas of vector scales, not 'generic'"),
        ({"scale_bits": [17]}, "Scale width must be between 1 and 16, not 17"),
    ],
)
def test_wrong(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(shapes=[(1, 2)], rows=1, build=tmp_path, path=tmp_path / "x.csv", command=COMMAND, jobs=1,
            console=Console(file=io.StringIO()), **options)  # fmt: skip
