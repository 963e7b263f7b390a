"""The search's latency is that of the network that is trained, and its accuracy that of the images held out."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import pytest
import torch

from hw.program import build
from hw.program.cycles import predict
from pactolus.search import MAC_AREA, SPACE, DigitsObjective, accelerator, equal_area_cycles, network
from sw.export import export

POINT = {"width": 0.25, "conv2_bits": 3, "conv3_bits": 1, "act1_bits": 2, "act2_bits": 4, "rows": 8, "lanes": 4}


def test_cycles_are_those_of_the_trained_network():
    point = {**POINT, "digit_bits": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DigitsObjective().training(point).build()
    exported = export(model, torch.rand(2, 1, 8, 8)).network
    program = build(network(point), accelerator(point))
    total = predict(build(exported, accelerator(point))).total
    assert predict(program).total == pytest.approx(total, rel=0.005), "but for the width of the output's accumulators"
    equal = predict(program).total * 8 * 4 * MAC_AREA[2] / (256 * MAC_AREA[4])
    assert equal_area_cycles(point) == pytest.approx(equal)


def test_areas_are_those_of_the_report():
    path = Path(__file__).parents[2] / "docs" / "results" / "arrays-nangate45.csv"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    measured = {}
    for row in csv.DictReader(lines):
        if (row["series"], row["clock_ns"]) == ("best", "2.0"):
            area = sum(float(row[part]) for part in ("area_um2", "ones_row", "drain"))
            measured[int(row["digit_bits"])] = round(area / (int(row["rows"]) * int(row["lanes"])), 3)
    assert {d: measured[d] for d in MAC_AREA} == MAC_AREA


@pytest.mark.parametrize("end", [0, -1])
def test_the_ends_of_the_space_fit_their_arrays(end):
    """All networks and arrays in between need less memory than the largest of each."""
    point = {choice.name: choice.values[end] for choice in SPACE.choices}
    assert equal_area_cycles(point) > 0
    assert equal_area_cycles({**point, "digit_bits": 1}) > 0


def test_the_objective_travels_and_gives_the_same_again():
    objective = pickle.loads(pickle.dumps(DigitsObjective(epochs=1)))
    accuracy, cycles = objective({**POINT, "digit_bits": 4})
    assert 0 < accuracy < 1 and -30 < cycles < 0
    assert objective.training({**POINT, "digit_bits": 4}).validation == 360
