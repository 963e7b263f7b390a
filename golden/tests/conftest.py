"""Networks for golden's tests, made from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from golden.network import (
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    Requantize,
    Tensor,
    VectorQuantize,
    VectorScales,
)


class NetworkMaker:
    """Builds an integer network layer by layer with random weights and constants that use the whole code range."""

    def __init__(self, seed: int, shape, bits: int, zero_point: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors = [Tensor("x", shape, bits=bits, zero_point=zero_point, scale=0.5)]
        self.operations: list = []

    @property
    def last(self) -> Tensor:
        return self.tensors[-1]

    def find(self, name: str) -> Tensor:
        return next(t for t in self.tensors if t.name == name)

    def constants(self, lo, hi, bits, skip_span=None) -> Requantize:
        """Multipliers of both signs whose outputs spread over the codes, and clip on both sides."""
        channels = len(lo)
        shift = self.rng.integers(0, 24, channels)
        span = np.maximum(hi - lo, 1).astype(float)
        sign = self.rng.choice([-1, 1], channels)
        multiplier = np.rint(sign * 2.0**shift * 3 * 2**bits / span).astype(np.int64)
        middle = (lo + hi) // 2
        bias = -multiplier * middle + (2 ** (bits - 1) << shift)
        skip_multiplier = None
        if skip_span is not None:
            skip_multiplier = np.rint(self.rng.uniform(-1, 1, channels) * 2.0**shift * 2**bits / skip_span)
            skip_multiplier = skip_multiplier.astype(np.int64)
        return Requantize(multiplier, bias, shift, skip_multiplier)

    def conv(
        self,
        channels,
        kernel=(3, 3),
        *,
        bits=4,
        out_bits=4,
        out_zero=0,
        grid=Grid.ODD,
        source=None,
        skip=None,
        scales=None,
        out_scales=None,
        **options,
    ):
        """``scales`` and ``out_scales``: (bits, vector) of the vector scales of the weights and of the output."""
        name = f"conv{len(self.operations)}"
        source = self.find(source) if source else self.last
        groups = options.get("groups", 1)
        codes = self.rng.integers(0, 1 << bits, (channels, source.shape[0] // groups, *kernel))
        accumulator = out_bits is None
        if scales is not None:
            options["vector_scales"] = self.scales(*scales, codes.shape, 1)
        operation = Conv2d(name, source.name, f"{name}_out", codes, bits, grid, **options)
        if operation.broadcast:
            size = (1, 1)
        else:
            top, left, bottom, right = operation.padding
            size = tuple(
                (extent + pads - (k - 1) * d - 1) // s + 1
                for extent, pads, k, d, s in zip(
                    source.shape[1:],
                    (top + bottom, left + right),
                    kernel,
                    operation.dilation,
                    operation.stride,
                    strict=True,
                )
            )
        lo, hi = operation.accumulator_bounds(source)
        out_scales = None if out_scales is None else self.scales(*out_scales, (channels,), 0)
        if accumulator:
            self.tensors.append(
                Tensor(
                    f"{name}_out",
                    (channels, *size),
                    Kind.ACCUMULATOR,
                    40,
                    slope=self.rng.normal(size=channels),
                    offset=self.rng.normal(size=channels),
                )
            )
            self.operations.append(operation)
            return f"{name}_out"
        self.tensors.append(
            Tensor(
                f"{name}_out",
                (channels, *size),
                bits=out_bits,
                zero_point=out_zero,
                scale=0.25,
                vector_scales=out_scales,
            )
        )
        skip_span = None if skip is None else self.find(skip).max_code
        self.operations.append(
            Conv2d(
                name,
                source.name,
                f"{name}_out",
                codes,
                bits,
                grid,
                requantize=self.constants(lo, hi, out_bits, skip_span),
                skip=skip,
                **options,
            )
        )
        return f"{name}_out"

    def scales(self, bits, vector, shape, axis) -> VectorScales:
        """Random scales, one in five of them 0, for the vectors of ``axis``."""
        shape = (*shape[:axis], -(-shape[axis] // vector), *shape[axis + 1 :])
        codes = self.rng.integers(1, 1 << bits, shape) * (self.rng.random(shape) > 0.2)
        return VectorScales(codes, bits, vector)

    def vector_quantize(self, bits, scale_bits, vector):
        name = f"quantize{len(self.operations)}"
        t = self.last
        self.tensors.append(Tensor(f"{name}_out", t.shape, bits=t.bits, scale=t.scale))
        self.operations.append(VectorQuantize(name, t.name, f"{name}_out", bits, scale_bits, vector))
        return f"{name}_out"

    def pool(self, kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0)):
        name = f"pool{len(self.operations)}"
        t = self.last
        size = (
            (t.shape[1] + padding[0] + padding[2] - kernel[0]) // stride[0] + 1,
            (t.shape[2] + padding[1] + padding[3] - kernel[1]) // stride[1] + 1,
        )
        self.tensors.append(
            Tensor(
                f"{name}_out",
                (t.shape[0], *size),
                bits=t.bits,
                zero_point=t.zero_point,
                scale=t.scale,
                vector_scales=t.vector_scales,
            )
        )
        self.operations.append(MaxPool2d(name, t.name, f"{name}_out", kernel, stride, padding))
        return f"{name}_out"

    def add(self, a, b, *, out_bits=4):
        name = f"add{len(self.operations)}"
        ta, tb = self.find(a), self.find(b)
        channels = ta.shape[0]
        constants = self.constants(np.zeros(channels, int), np.full(channels, ta.max_code), out_bits, tb.max_code)
        self.tensors.append(Tensor(f"{name}_out", ta.shape, bits=out_bits))
        self.operations.append(
            Add(
                name,
                a,
                b,
                f"{name}_out",
                constants.multiplier,
                constants.skip_multiplier,
                constants.bias,
                constants.shift,
            )
        )
        return f"{name}_out"

    def network(self, name="net") -> IntegerNetwork:
        return IntegerNetwork(name, tuple(self.tensors), tuple(self.operations))

    def input(self, frames=3) -> np.ndarray:
        t = self.tensors[0]
        return self.rng.integers(0, 1 << t.bits, (frames, *t.shape)).astype(np.uint8 if t.bits <= 8 else np.uint16)


def plain(seed=0, bits=4, grid=Grid.ODD):
    maker = NetworkMaker(seed, (1, 8, 8), 8)
    maker.conv(6, bits=8, out_bits=bits, padding=(1, 1, 1, 1), grid=grid)
    maker.conv(8, bits=bits, out_bits=bits, padding=(1, 1, 1, 1), grid=grid)
    maker.pool()
    maker.conv(5, (4, 4), bits=8, out_bits=None, grid=grid)
    return maker


def residual(seed=0, bits=4, grid=Grid.ODD):
    maker = NetworkMaker(seed, (3, 8, 8), 8, zero_point=7)
    stem = maker.conv(6, bits=8, out_bits=bits, padding=(1, 1, 1, 1), grid=grid)
    maker.conv(6, bits=bits, out_bits=bits, padding=(1, 1, 1, 1), grid=grid)
    block = maker.conv(6, bits=bits, out_bits=bits, padding=(1, 1, 1, 1), grid=grid, skip=stem)
    shortcut = maker.conv(8, (1, 1), bits=bits, out_bits=8, out_zero=128, source=block, stride=(2, 2), grid=grid)
    maker.conv(8, bits=bits, out_bits=bits, source=block, stride=(2, 2), padding=(1, 1, 1, 1), grid=grid)
    maker.conv(8, bits=bits, out_bits=bits, padding=(1, 1, 1, 1), grid=grid, skip=shortcut)
    maker.conv(10, (1, 1), bits=8, out_bits=None, broadcast=True, grid=grid)
    return maker


@pytest.fixture
def network_maker():
    """The class itself, for tests that build networks of their own."""
    return NetworkMaker


@pytest.fixture(params=[Grid.ODD, Grid.TWOS_COMPLEMENT], ids=lambda g: g.value)
def grid(request):
    """Both weight grids."""
    return request.param


@pytest.fixture(params=[plain, residual], ids=["plain", "residual"])
def small(request):
    """A small whole network and its maker."""
    maker = request.param()
    return maker.network(), maker
