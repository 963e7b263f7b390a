"""What the tests of sw share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same weights whatever ran before: a test must not pass or fail by its place in the order."""
    torch.manual_seed(0)
