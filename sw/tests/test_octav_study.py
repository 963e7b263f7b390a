"""The study of OCTAV: its numbers against published and integrated ones, its files."""
from __future__ import annotations

import csv

import pytest
import torch

from sw.studies import octav
from sw.studies.octav import DISTRIBUTIONS, measure, write


def test_gauss_has_the_known_fixed_points_and_optima():
    signed, draw = DISTRIBUTIONS["Gauss"]
    x = draw(torch.Generator().manual_seed(0))[:30_000]
    # The fixed points of the recursion for a standard normal density, and the best clips by numerical integration.
    for bits, fixed, best, least in ((2, 1.739, 2.10, 0.14943), (4, 2.562, 2.70, 0.011865)):
        row = measure("Gauss", x, bits, signed=signed)
        assert row.octav_clip == pytest.approx(fixed, rel=0.02)
        assert row.best_clip == pytest.approx(best, rel=0.03)
        assert row.best_error == pytest.approx(least, rel=0.03)
        assert row.best_error < row.octav_error and row.iterations is not None and 5 <= row.iterations <= 9
        assert row.clip_excess < 0 < row.error_excess


def test_a_cycle_has_no_number_of_steps():
    row = measure("few", torch.tensor([1.0, 1.0, 1.0, 5.0]), 2, signed=True)
    assert row.iterations is None or row.iterations <= 100
    assert row.count == 4 and row.best_error <= row.octav_error


def test_table_and_plot_say_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(octav, "SAMPLES", 200)
    rows = octav.study([2], weights={"layer": torch.linspace(-1, 1, 99)})
    assert len(rows) == len(DISTRIBUTIONS) + 1
    write(rows, tmp_path / "o" / "octav.csv", command="pactolus study octav")
    octav.draw(rows, tmp_path / "o" / "octav.svg")
    first, *lines = (tmp_path / "o/octav.csv").read_text(encoding="utf-8").splitlines()
    assert first == "# pactolus study octav"
    table = list(csv.DictReader(lines))
    assert [row["data"] for row in table] == [*DISTRIBUTIONS, "layer"]
    assert float(table[0]["octav_clip"]) == pytest.approx(rows[0].octav_clip, rel=1e-5)
    assert (tmp_path / "o/octav.svg").read_text(encoding="utf-8").startswith("<?xml")
