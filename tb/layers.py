"""The layers of a network through the Datapath alone: each gets golden's input and is compared with golden's output.

A fault shows in the layer that it is in and nowhere else. Whole networks on the accelerator are in
:mod:`tb.simulate`.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from golden import vectors
from golden.network import Conv2d
from hw.config import AcceleratorConfig
from hw.datapath import Datapath
from hw.verilog import generate
from tb import runner
from tb.compare import Difference
from tb.stimulus import Layer

__all__ = ["LayerResult", "LayersResult", "simulate_layers"]

STREAMS = ("i_beat", "i_constants", "i_skip", "o_result")
"""The Datapath's streams, as :func:`simulate_layers` names them."""
SLOWEST_CYCLES_PER_S = 20
"""A simulator slower than this is taken for hung."""


@dataclass(frozen=True)
class LayerResult:
    """One layer: how many results were compared, how many differ, and where the first one is."""

    name: str
    compared: int
    mismatches: int
    cycles: int | None
    difference: Difference | None


@dataclass(frozen=True)
class LayersResult:
    """The layers of one network."""

    layers: tuple[LayerResult, ...]
    frames: int

    @property
    def mismatches(self) -> int:
        """Results that differ from golden's, over all layers."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def difference(self) -> Difference | None:
        """The first difference of the first layer that has one."""
        return next((layer.difference for layer in self.layers if layer.difference is not None), None)


def simulate_layers(
    folder: Path,
    config: AcceleratorConfig,
    simulator: str,
    *,
    frames: int | None = None,
    stalls: float | Mapping[str, float] = 0.0,
    together: bool = False,
    seed: int = 1,
    simulation: runner.Simulation | None = None,
    directory: Path | None = None,
) -> LayersResult:
    """Simulate every convolution and linear layer of a network.

    Parameters
    ----------
    folder : path
        Golden vectors; the network must have passed the configuration's ``check``.
    config : :class:`~hw.config.AcceleratorConfig`
        The hardware.
    simulator : :class:`str`
        One of :data:`tb.runner.SIMULATORS`.
    frames : :class:`int` or ``None``
        How many of the folder's frames; all with ``None``.
    stalls : :class:`float` or mapping
        Probability of a cycle without an offer (inputs) or without readiness (results), for all streams or by the
        streams' names, :data:`STREAMS`; those without a name do not stall.
    together : :class:`bool`
        Whether the layers follow each other without a pause; a layer's cycles are not known then.
    seed : :class:`int`
        For stalls, for payloads between items and, on Verilator, for the state at power-up.
    simulation : :class:`tb.runner.Simulation` or ``None``
        A compiled Datapath of this configuration; ``None``: the one that :mod:`hw.verilog` generates.
    directory : path or ``None``
        For the run's job, log and results, which are deleted unless it fails; a new one with ``None``.

    Raises
    ------
    tb.runner.SimulationError
        The simulation could not be built or did not run to its end.
    """
    network, tensors = vectors.read(folder)
    count = len(tensors[network.input.name]) if frames is None else frames
    tensors = {name: values[:count] for name, values in tensors.items()}
    layers = [
        Layer.of(network, operation, config, tensors)
        for operation in network.operations
        if isinstance(operation, Conv2d)
    ]
    directory = directory or runner.run_directory()
    results = directory / "results.jsonl"
    job = {
        "config": asdict(config),
        "vectors": str(folder.resolve()),
        "frames": count,
        "stalls": dict(stalls) if isinstance(stalls, Mapping) else dict.fromkeys(STREAMS, stalls),
        "together": together,
        "results": str(results),
    }
    runner.run_bench(
        simulation or _compile(config, simulator),
        "tb.benches.datapath",
        job,
        directory=directory,
        seed=seed,
        limit_s=120 + sum(layer.beat_count for layer in layers) / SLOWEST_CYCLES_PER_S,
    )
    lines = {line["name"]: line for line in map(json.loads, results.read_text().splitlines())}
    shutil.rmtree(directory)
    found = []
    for layer in layers:
        name = layer.operation.name
        if name not in lines:
            raise runner.SimulationError(f"Layer {name!r} of {network.name} has no result")
        try:
            values = layer.decode(lines[name]["words"])
        except ValueError as error:
            raise runner.SimulationError(str(error)) from None
        mismatches, difference = layer.difference(values)
        found.append(LayerResult(name, layer.expected.size, mismatches, lines[name]["cycles"], difference))
    return LayersResult(tuple(found), count)


@functools.cache
def _compile(config: AcceleratorConfig, simulator: str) -> runner.Simulation:
    name = f"datapath_{config.name}"
    return runner.compile_verilog(generate(Datapath(config), name=name), name, simulator)
