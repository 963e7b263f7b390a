"""What every bench needs: its job, and a limit in simulated time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tb.runner import JOB

__all__ = ["LIMIT", "job"]

LIMIT: dict[str, Any] = {"timeout_time": 1, "timeout_unit": "sec"}
"""Arguments of ``cocotb.test``: 100 million cycles. A design that stands still is found long before
(:func:`tb.streams.run`), and a simulator that hangs is killed by the runner."""


def job() -> dict[str, Any]:
    """The JSON object that :func:`tb.runner.run_bench` wrote for this run."""
    return json.loads(Path(os.environ[JOB]).read_text())
