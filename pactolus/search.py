"""The search's space and objectives: a network for the digits and the array that runs it, accuracy and latency."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from golden.network import Conv2d, Grid, IntegerNetwork, Kind, MaxPool2d, Requantize, Tensor
from hw.config import AcceleratorConfig
from hw.program import build
from hw.program.cycles import predict
from sw.models.precision import scaled
from sw.search import Choice, Point, Space
from sw.train import TrainConfig, train

__all__ = ["MAC_AREA", "REFERENCE", "SPACE", "DigitsObjective", "accelerator", "equal_area_cycles", "network"]

SPACE = Space(
    (
        Choice("width", (0.25, 0.5, 0.75, 1.0, 1.5)),
        Choice("conv2_bits", (1, 2, 3, 4, 6, 8)),
        Choice("conv3_bits", (1, 2, 3, 4, 6, 8)),
        Choice("act1_bits", (1, 2, 3, 4, 8)),
        Choice("act2_bits", (1, 2, 3, 4, 8)),
        Choice("rows", (4, 8, 16, 32)),
        Choice("lanes", (4, 8, 16, 32)),
        Choice("digit_bits", (1, 2, 4, 8)),
    )
)
"""``digits-plain`` with a width multiplier, the bits of its middle layers, and the array's shape."""

MAC_AREA = {1: 7.476, 2: 25.723, 4: 81.326, 8: 295.395}
"""µm² of a d×d-bit multiplier with its share of the adders, accumulators, ones row and drain by d, on Nangate45 at 500
MHz: series ``best`` of docs/results/arrays-nangate45.csv, which ``pactolus report area`` made."""

REFERENCE = (0.8, -18.0)
"""Where the hypervolume begins: 80 % accuracy, and 2^18 cycles at equal area."""


def accelerator(point: Point) -> AcceleratorConfig:
    """The array of a point, with a stream of 256 bits and memories that hold any network of the space."""
    rows, lanes = int(point["rows"]), int(point["lanes"])
    return AcceleratorConfig(
        name="searched",
        rows=rows,
        lanes=lanes,
        digit_bits=int(point["digit_bits"]),
        requant_lanes=max(1, min(rows, lanes) // 4),
        weight_depth=2**14,
        activation_depth=2**16,
        stream_bits=256,
    )


def network(point: Point) -> IntegerNetwork:
    """The shapes and widths of a point's network, on which alone the cycles depend; its weights are all alike."""
    narrow, wide = scaled(16, float(point["width"])), scaled(32, float(point["width"]))
    act1, act2 = int(point["act1_bits"]), int(point["act2_bits"])
    worst = 16 + math.ceil(math.log2(16 * wide))  # trained weights may need a few bits less
    output = Tensor("linear", (10, 1, 1), Kind.ACCUMULATOR, worst, slope=np.ones(10), offset=np.zeros(10))
    tensors = (
        Tensor("input", (1, 8, 8)),
        Tensor("act1", (narrow, 8, 8), bits=act1),
        Tensor("act2", (wide, 8, 8), bits=act2),
        Tensor("pool", (wide, 4, 4), bits=act2),
        Tensor("act3", (wide, 4, 4)),
        output,
    )

    def layer(name: str, source: str, target: str, shape: tuple[int, int, int, int], bits: int) -> Conv2d:
        last = target == "linear"
        ones, zeros = np.ones(shape[0], np.int64), np.zeros(shape[0], np.int64)
        return Conv2d(
            name,
            source,
            target,
            np.zeros(shape, np.uint8),
            bits,
            Grid.TWOS_COMPLEMENT if last else Grid.ODD,
            padding=(0, 0, 0, 0) if last else (1, 1, 1, 1),
            requantize=None if last else Requantize(ones, zeros, zeros.astype(np.uint8)),
        )

    return IntegerNetwork(
        "searched",
        tensors,
        (
            layer("conv1", "input", "act1", (narrow, 1, 3, 3), 8),
            layer("conv2", "act1", "act2", (wide, narrow, 3, 3), int(point["conv2_bits"])),
            MaxPool2d("pool", "act2", "pool"),
            layer("conv3", "pool", "act3", (wide, wide, 3, 3), int(point["conv3_bits"])),
            layer("linear", "act3", "linear", (10, wide, 4, 4), 8),
        ),
    )


def equal_area_cycles(point: Point) -> float:
    """Cycles of an image (:mod:`hw.program.cycles`, streams never waiting) times the array's area.

    The area is that of rows·lanes multipliers by :data:`MAC_AREA`, in units of 16×16 of 4 bits: an array of half that
    area that takes twice the cycles counts as equal. Memories and requantizers are left out.
    """
    area = int(point["rows"]) * int(point["lanes"]) * MAC_AREA[int(point["digit_bits"])] / (256 * MAC_AREA[4])
    return predict(build(network(point), accelerator(point))).total * area


@dataclass(frozen=True)
class DigitsObjective:
    """Accuracy on 360 images held out of the training split, and −log2 of the cycles at equal area.

    Can be pickled, and imports what it needs on a worker.
    """

    epochs: int = 6
    seed: int = 0

    def training(self, point: Point) -> TrainConfig:
        """What is trained."""
        return TrainConfig(
            network="digits-plain",
            width=float(point["width"]),
            weight_bits=8,
            activation_bits=8,
            layer_weight_bits=tuple((name, int(point[f"{name}_bits"])) for name in ("conv2", "conv3")),
            layer_activation_bits=tuple((name, int(point[f"{name}_bits"])) for name in ("act1", "act2")),
            epochs=self.epochs,
            seed=self.seed,
            validation=360,
        )

    def __call__(self, point: Point) -> tuple[float, float]:
        """Both objectives, to be large."""
        accuracy = train(self.training(point)).epochs[-1].validation_accuracy
        assert accuracy is not None
        return accuracy, -math.log2(equal_area_cycles(point))
