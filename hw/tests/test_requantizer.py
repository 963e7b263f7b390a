"""Which requantizer is generated, and that the choice is the smaller one of what the committed report measured."""

import csv
import re
from pathlib import Path

import pytest

from hw.pact_unit import PactUnit
from hw.requantizer import requantizer
from hw.threshold_unit import ThresholdUnit

RESULTS = Path(__file__).parents[2] / "docs" / "results"
WIDTHS = {"acc_bits": 24, "multiplier_bits": 16, "bias_bits": 40, "max_shift": 39}


@pytest.mark.parametrize("output_bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("pdk", ["mini", "nangate45", "sky130hd", "ihp", "asap7"])
def test_smaller_of_what_was_measured(pdk, output_bits):
    with (RESULTS / f"area-{pdk}.csv").open() as file:
        lines = [line for line in file if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if row["output_bits"] == str(output_bits)]
    forms = {"threshold_unit": ThresholdUnit, "pact_unit_fixed": PactUnit}
    areas = {row["component"]: float(row["area_um2"]) for row in rows if row["component"] in forms}
    chosen = requantizer(output_bits=output_bits, **WIDTHS)
    assert type(chosen) is forms[min(areas, key=areas.get)]
    assert chosen.output_bits == output_bits


def test_residual_operand_takes_the_multiplication():
    chosen = requantizer(output_bits=2, skip_bits=2, skip_multiplier_bits=20, **WIDTHS)
    assert isinstance(chosen, PactUnit)
    assert (chosen.output_bits, chosen.max_output_bits, chosen.skip_bits) == (2, 2, 2)


def test_wrong_width():
    with pytest.raises(ValueError, match=re.escape("Output width must be between 1 and 16, not 0")):
        requantizer(output_bits=0, **WIDTHS)
