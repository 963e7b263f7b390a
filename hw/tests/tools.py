"""Programs that tests need and that pip does not bring."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name):
    """Path of a program; absent it skips the test, but not where the environment says that it must be there."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return path
