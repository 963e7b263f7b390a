"""Bench of an array's netlist: given operands, no pauses, every accumulator compared.

The first position is played several times, at first to give every register a value, those of the drain being the last.

Job: ``config`` and ``latency`` as of :mod:`tb.benches.mac_array`, ``result`` (file) and ``operands``, one of

* ``{"kind": "uniform", "beats", "length"}``: random digits, ``length`` beats a position;
* ``{"kind": "zeros", "beats", "length"}``: the same weights, activations 0;
* ``{"kind": "idle", "cycles"}``: a position, then cycles without a beat, the payload held;
* ``{"kind": "layer", "vectors", "layer", "frames", "low_bits", "beats"}``: a layer of a network with golden's codes;
  evenly spaced positions where the layer has more than ``beats``, unless that is 0. With ``low_bits`` codes get so many
  random bits below those that they have, as finer ones of the same distribution would; an activation code of 0 stays 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import cocotb
import numpy as np

from golden import vectors
from golden.network import Conv2d, IntegerNetwork, Kind, Tensor
from hw.config import AcceleratorConfig
from tb.benches.common import LIMIT, job
from tb.benches.mac_array import Position, layer_positions, plan, play
from tb.stimulus import Layer, pack


def drawn(config: AcceleratorConfig, seed: int, beats: int, length: int, *, zeros: bool) -> Iterator[Position]:
    """Positions of ``length`` beats with uniform digits, or with activations of 0."""
    random = np.random.default_rng(seed)
    limit = 1 << config.digit_bits
    for _ in range(beats // length):
        x = random.integers(0, 1 if zeros else limit, (length, config.lanes), np.int64)
        w = random.integers(0, limit, (length, config.rows, config.lanes), np.int64)
        sums = [*np.einsum("brl,bl->r", w, x).tolist(), int(x.sum())]
        packed = []
        for n in range(length):
            digits = [*x[n].tolist(), *w[n].ravel().tolist()]
            flags = [n == 0, 0, n == length - 1, 1, 0]
            packed.append(pack([*((digit, config.digit_bits) for digit in digits), *((int(f), 1) for f in flags)]))
        yield Position(packed, [total % (1 << config.acc_bits) for total in sums])


def layer_of(config: AcceleratorConfig, seed: int, operands: Mapping[str, Any]) -> Layer:
    """The layer that the job names."""
    network, tensors = vectors.read(Path(operands["vectors"]))
    named = [op for op in network.operations if op.name == operands["layer"] and isinstance(op, Conv2d)]
    if not named:
        raise ValueError(f"Network {network.name!r} must have a convolution or linear layer {operands['layer']!r}")
    (operation,) = named
    values = {name: array[: operands["frames"]] for name, array in tensors.items()}
    if not operands.get("low_bits"):
        return Layer.of(network, operation, config, values)
    low = int(operands["low_bits"])
    random = np.random.default_rng(seed)
    source, codes = network.tensor(operation.input), values[operation.input].astype(np.int64)
    if source.zero_point:
        raise ValueError(f"Low bits need an input whose zero point is 0, not {source.zero_point}")
    fine = np.where(codes > 0, (codes << low) | random.integers(0, 1 << low, codes.shape), 0)
    weights = (operation.codes.astype(np.int64) << low) | random.integers(0, 1 << low, operation.codes.shape)
    output = network.tensor(operation.output)
    channels = output.shape[0]
    finer = Conv2d(
        operation.name,
        source.name,
        output.name,
        weights,
        operation.bits + low,
        operation.grid,
        operation.stride,
        operation.dilation,
        operation.padding,
        operation.groups,
        operation.broadcast,
    )
    tensors_of_one = (
        Tensor(source.name, source.shape, bits=source.bits + low),
        Tensor(output.name, output.shape, Kind.ACCUMULATOR, 63, slope=np.ones(channels), offset=np.zeros(channels)),
    )
    return Layer(
        IntegerNetwork(network.name, tensors_of_one, (finer,)), finer, config, fine, None, values[operation.output]
    )


def operand_positions(
    config: AcceleratorConfig, seed: int, operands: Mapping[str, Any]
) -> tuple[list[Position], list[int]]:
    """The job's positions, and each one's digit products of operands."""
    kind = operands["kind"]
    if kind == "idle":
        return list(drawn(config, seed, 4, 4, zeros=False)), [0]
    if kind in ("uniform", "zeros"):
        positions = list(drawn(config, seed, operands["beats"], operands["length"], zeros=kind == "zeros"))
        return positions, [len(position.beats) * config.rows * config.lanes for position in positions]
    layer = layer_of(config, seed, operands)
    pairs = -(-layer.operation.bits // config.digit_bits) * -(-layer.activation_bits // config.digit_bits)
    window = int(np.prod(layer.operation.codes.shape[1:]))
    if layer.operation.broadcast:
        window *= int(np.prod(layer.source.shape[2:]))
    step = -(-layer.beat_count // operands["beats"]) if operands["beats"] else 1
    products = [len(channels) * window * pairs for _, channels in layer.tiles for _ in range(layer.positions)]
    return list(islice(layer_positions(layer), 0, None, step)), products[::step]


@cocotb.test(**LIMIT)
async def accumulators_equal_golden(dut: Any) -> None:
    """Plays the operands, and writes down what they were."""
    parameters = job()
    config = AcceleratorConfig(**parameters["config"])
    operands = parameters["operands"]
    positions, products = operand_positions(config, cocotb.RANDOM_SEED, operands)
    length = len(positions[0].beats)
    warm_up = 1 + -(-(parameters["latency"] + 2) // length)
    positions = [positions[0]] * warm_up + positions
    steps = plan(
        positions,
        rows=config.rows,
        drain_rows=config.requant_lanes,
        latency=parameters["latency"],
        stall=0.0,
        random=Random(0),
    )
    beats = [number for number, step in enumerate(steps) if step.beat is not None][warm_up * length :]
    # The nets' line n + 1 has what step n drives.
    first, last = beats[0] + 1, beats[-1] + 1 + parameters["latency"]
    if operands["kind"] == "idle":
        first = len(steps) + 1
        last = first + operands["cycles"]
        steps += [type(steps[0])() for _ in range(operands["cycles"] + 2)]
    await play(dut, steps, config, Random(0), hold=True)
    word = config.lanes * config.digit_bits
    ones = [0, 0]
    for number in beats:
        beat = steps[number].beat or 0
        ones[0] += (beat & ((1 << word) - 1)).bit_count()
        ones[1] += ((beat >> word) & ((1 << (word * config.rows)) - 1)).bit_count()
    result = {
        "positions": len(positions) - warm_up,
        "beats": len(beats),
        "compared": len(positions) * (config.rows + 1),
        "products": sum(products),
        "first": first,
        "last": last,
        "activation_density": ones[0] / (len(beats) * word),
        "weight_density": ones[1] / (len(beats) * word * config.rows),
    }
    Path(parameters["result"]).write_text(json.dumps(result))
