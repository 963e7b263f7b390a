"""Small integer networks with random weights, for tests that need no training."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.execute import accumulate, execute
from golden.network import (
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    Operation,
    Requantize,
    Tensor,
    VectorScales,
)
from golden.requantize import requantize

__all__ = ["plain_network", "random_codes", "residual_network", "scaled_network", "small_network", "varied_network"]


class _Builder:
    """Adds operations one by one; constants spread a layer's codes over the whole range, with clips at both ends."""

    def __init__(self, shape: tuple[int, int, int], *, bits: int, zero_point: int, frames: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.tensors = [Tensor("input", shape, bits=bits, zero_point=zero_point)]
        self.operations: list[Operation] = []
        self.values = {"input": self.random.integers(0, 1 << bits, (frames, *shape))}

    def tensor(self, name: str) -> Tensor:
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def conv(
        self,
        name: str,
        source: str,
        channels: int,
        *,
        weight_bits: int,
        bits: int,
        grid: Grid,
        kernel: tuple[int, int] = (3, 3),
        skip: str | None = None,
        zero_point: int = 0,
        scales: tuple[int, int] | None = None,
        output_scales: tuple[int, int] | None = None,
        **geometry: Any,
    ) -> None:
        """``bits`` = 0 gives accumulators. Scales, of the weights and of the output, are (bits, vector).

        With scales of its own the operation is called ``<name>_layer``: its arrays' names must not be the output's.
        """
        groups = geometry.get("groups", 1)
        shape = (channels, self.tensor(source).shape[0] // groups, *kernel)
        codes = self.random.integers(0, 1 << weight_bits, shape)
        own = name
        if scales is not None:
            geometry["vector_scales"] = self.scales(*scales, shape, 1)
            own = f"{name}_layer"
        trial = Conv2d(own, source, name, codes, weight_bits, grid, **geometry)
        height, width = trial.output_size(self.tensor(source))
        wide = Tensor(
            name,
            (channels, height, width),
            Kind.ACCUMULATOR,
            63,
            slope=np.ones(channels),
            offset=np.zeros(channels),
        )
        probe = IntegerNetwork("probe", (self.tensor(source), wide), (trial,))
        acc = accumulate(self.values[source], trial, probe)
        if bits == 0:
            low, high = probe.accumulator_bounds(trial)
            width_needed = 1 + max(int(-low.min()).bit_length(), int(high.max()).bit_length())
            self.tensors.append(
                Tensor(
                    name,
                    wide.shape,
                    Kind.ACCUMULATOR,
                    width_needed,
                    slope=np.ones(channels),
                    offset=np.zeros(channels),
                )
            )
            self.operations.append(trial)
            return
        low, high = acc.min(axis=(0, 2, 3)), acc.max(axis=(0, 2, 3))
        sign = self.random.choice([-1, 1], channels)
        shift = self.random.integers(6, 14, channels)
        multiplier = sign * np.maximum(1, (1.4 * (1 << bits) / (high - low + 1) * 2.0**shift).astype(np.int64))
        bias = -multiplier * ((low + high) // 2) + (1 << (bits + shift - 1))
        skip_multiplier = None
        if skip is not None:
            skip_bits = self.tensor(skip).bits
            skip_multiplier = self.random.integers(-8, 9, channels) * (1 << shift) * (1 << bits) // (16 << skip_bits)
            bias -= skip_multiplier * (1 << (skip_bits - 1))
        found = self.scales(*output_scales, (channels,), 0) if output_scales is not None else None
        self.tensors.append(Tensor(name, wide.shape, bits=bits, zero_point=zero_point, vector_scales=found))
        constants = Requantize(multiplier, bias, shift.astype(np.uint8), skip_multiplier)
        self.values[name] = requantize(acc, constants, bits, None if skip is None else self.values[skip])
        self.operations.append(
            Conv2d(own, source, name, codes, weight_bits, grid, requantize=constants, skip=skip, **geometry)
        )

    def scales(self, bits: int, vector: int, shape: tuple[int, ...], axis: int) -> VectorScales:
        """Random ones, one in eight 0, for the vectors of the channels, which are ``shape[axis]``."""
        shape = (*shape[:axis], -(-shape[axis] // vector), *shape[axis + 1 :])
        codes = self.random.integers(1, 1 << bits, shape) * (self.random.random(shape) > 1 / 8)
        return VectorScales(codes, bits, vector)

    def pool(self, name: str, source: str) -> None:
        tensor = self.tensor(source)
        channels, height, width = tensor.shape
        self.tensors.append(
            Tensor(
                name,
                (channels, height // 2, width // 2),
                bits=tensor.bits,
                zero_point=tensor.zero_point,
                vector_scales=tensor.vector_scales,
            )
        )
        self.operations.append(MaxPool2d(name, source, name))
        alone = IntegerNetwork("pool", (tensor, self.tensors[-1]), (self.operations[-1],))
        self.values[name] = execute(alone, self.values[source])[name]

    def add(self, name: str, a: str, b: str, *, bits: int) -> None:
        channels = self.tensor(a).shape[0]
        self.tensors.append(Tensor(name, self.tensor(a).shape, bits=bits))
        one = np.ones(channels, np.int64)
        operation = Add(name, a, b, name, one, 2 * one, one, np.full(channels, 1, np.uint8))
        self.values[name] = requantize(self.values[a].astype(np.int64), operation.requantize, bits, self.values[b])
        self.operations.append(operation)

    def network(self, name: str) -> IntegerNetwork:
        return IntegerNetwork(name, tuple(self.tensors), tuple(self.operations))


def random_codes(network: IntegerNetwork, frames: int, seed: int) -> np.ndarray:
    """Input codes over the whole range of the network's input."""
    tensor = network.input
    return np.random.default_rng(seed).integers(0, 1 << tensor.bits, (frames, *tensor.shape))


def plain_network(bits: int, *, seed: int = 1, channels: int = 6) -> IntegerNetwork:
    """8-bit ends, ``bits`` between; zero-point padding, stride, dilation, groups, depthwise, max pool, broadcast."""
    build = _Builder((2, 8, 8), bits=8, zero_point=3, frames=2, seed=seed)
    middle: dict[str, Any] = {"weight_bits": bits, "bits": bits}
    build.conv("first", "input", channels, weight_bits=8, bits=bits, grid=Grid.TWOS_COMPLEMENT, padding=(1, 1, 1, 1))
    build.conv("grouped", "first", channels, grid=Grid.ODD, groups=2, padding=(1, 0, 1, 2), stride=(1, 2), **middle)
    build.pool("pool", "grouped")
    build.conv("deep", "pool", channels, grid=Grid.ODD, groups=channels, kernel=(2, 1), dilation=(2, 1), **middle)
    build.conv("last", "deep", 5, weight_bits=8, bits=0, grid=Grid.TWOS_COMPLEMENT, kernel=(1, 1), broadcast=True)
    return build.network(f"random-plain-w{bits}a{bits}")


def residual_network(bits: int, *, seed: int = 2, channels: int = 6) -> IntegerNetwork:
    """8-bit ends, ``bits`` between; both kinds of shortcut, an Add, a linear layer over the whole map."""
    build = _Builder((1, 6, 6), bits=8, zero_point=0, frames=2, seed=seed)
    middle: dict[str, Any] = {"weight_bits": bits, "bits": bits, "grid": Grid.ODD, "padding": (1, 1, 1, 1)}
    build.conv("stem", "input", channels, **{**middle, "weight_bits": 8, "grid": Grid.TWOS_COMPLEMENT})
    build.conv("a1", "stem", channels, **middle)
    build.conv("a2", "a1", channels, skip="stem", **middle)
    build.conv("b1", "a2", channels + 3, stride=(2, 2), **middle)
    build.conv(
        "shortcut",
        "a2",
        channels + 3,
        weight_bits=bits,
        bits=8,
        grid=Grid.ODD,
        kernel=(1, 1),
        stride=(2, 2),
        zero_point=128,
    )
    build.conv("b2", "b1", channels + 3, skip="shortcut", **middle)
    build.add("sum", "b1", "b2", bits=bits)
    build.conv("fc", "sum", 4, weight_bits=8, bits=0, grid=Grid.TWOS_COMPLEMENT, kernel=(3, 3))
    return build.network(f"random-residual-w{bits}a{bits}")


def small_network(*, seed: int = 3) -> IntegerNetwork:
    """A thousand beats: positions of one beat, both grids, a residual operand, 2- to 4-bit codes, accumulators."""
    build = _Builder((2, 3, 3), bits=4, zero_point=1, frames=2, seed=seed)
    build.conv("first", "input", 4, weight_bits=4, bits=2, grid=Grid.TWOS_COMPLEMENT, kernel=(1, 1))
    build.conv("short", "first", 5, weight_bits=2, bits=3, grid=Grid.ODD, kernel=(1, 1))
    build.conv("third", "short", 5, weight_bits=4, bits=4, grid=Grid.ODD, padding=(1, 1, 1, 1), skip="short")
    build.conv("last", "third", 3, weight_bits=5, bits=0, grid=Grid.ODD, kernel=(1, 1), broadcast=True)
    return build.network("random-small")


def varied_network(*, seed: int = 4) -> IntegerNetwork:
    """What can go wrong in 3000 cycles: padding codes, several tiles, odd digits, a pool, both kinds of sum."""
    build = _Builder((2, 4, 4), bits=4, zero_point=5, frames=2, seed=seed)
    same = (1, 1, 1, 1)
    build.conv("first", "input", 6, weight_bits=3, bits=3, grid=Grid.TWOS_COMPLEMENT, padding=same, zero_point=2)
    build.conv("second", "first", 5, weight_bits=2, bits=3, grid=Grid.ODD, padding=same, kernel=(3, 2))
    build.pool("pool", "second")
    build.conv("third", "pool", 5, weight_bits=3, bits=3, grid=Grid.ODD, padding=same, skip="pool")
    build.add("sum", "third", "pool", bits=4)
    build.conv("mix", "sum", 4, weight_bits=4, bits=3, grid=Grid.ODD, kernel=(1, 1), broadcast=True)
    build.conv("last", "mix", 3, weight_bits=2, bits=0, grid=Grid.ODD, kernel=(1, 1))
    return build.network("random-varied")


def scaled_network(*, bits: int = 4, shift: int = 0, ends: int = 4, seed: int = 5) -> IntegerNetwork:
    """Two-level scales of weights, of codes, of both and of neither; vectors of 4 channels, one of them short.

    Both grids, zero-point padding, groups, a residual operand, a pool, a broadcast layer. ``shift`` rounds the products
    of layers with both; ``ends`` are the bits of the first layer's and the last layer's weights and of the input.
    """
    build = _Builder((2, 4, 4), bits=ends, zero_point=2, frames=2, seed=seed)
    middle: dict[str, Any] = {"weight_bits": bits, "bits": bits, "padding": (1, 1, 1, 1), "scales": (4, 4)}
    two: dict[str, Any] = {"grid": Grid.TWOS_COMPLEMENT}
    odd: dict[str, Any] = {"grid": Grid.ODD}
    build.conv("first", "input", 7, weight_bits=ends, bits=bits, output_scales=(4, 4), padding=(1, 1, 1, 1), **two)
    build.conv("both", "first", 7, skip="first", product_shift=shift, **middle, **two)
    build.conv("weights", "both", 8, output_scales=(3, 4), zero_point=1, **middle, **odd)
    build.conv("grouped", "weights", 6, groups=2, product_shift=shift, **middle, **two)
    build.pool("pool", "grouped")
    build.conv("codes", "pool", 5, weight_bits=bits, bits=bits, kernel=(1, 1), output_scales=(4, 4), **odd)
    build.conv("neither", "pool", 5, weight_bits=bits, bits=bits, kernel=(1, 1), output_scales=(4, 4), **two)
    build.add("sum", "codes", "neither", bits=bits)
    build.conv("last", "sum", 3, weight_bits=ends, bits=0, kernel=(1, 1), broadcast=True, scales=(4, 4), **two)
    return build.network(f"random-scaled-{bits}-{shift}")
