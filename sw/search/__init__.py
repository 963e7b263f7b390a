"""Multi-objective search over the choices that make a network: what to try next, where, and what came of it."""
from __future__ import annotations

from .engine import Evaluation, Proposer, dask_client, evaluate_here, evaluate_on_dask, search
from .front import front, hypervolume
from .propose import Nuts, Saas, Sobol
from .space import Choice, Point, Space

__all__ = ["Choice", "Evaluation", "Nuts", "Point", "Proposer", "Saas", "Sobol", "Space", "dask_client",
           "evaluate_here", "evaluate_on_dask", "front", "hypervolume", "search"]
