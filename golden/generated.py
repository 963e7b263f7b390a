"""Networks made from a seed: small random ones that reach into every corner of the format, and a ResNet-20.

A :class:`NetworkSpec` says all there is to say about a small random network in one printable, comparable value; its
``repr`` can be pasted back. :func:`random_spec` draws one from a seed, :meth:`NetworkSpec.build` makes the network and
an input, and :func:`shrink` makes a failing one smaller.
:func:`resnet20` is a whole network of a known shape, folded and solved as the exporter does it.

Weights and inputs are random; constants are chosen from what the accumulators turn out to be, so that codes are well
spread. Constants stay within :data:`WIDTHS`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from golden.execute import execute
from golden.network import (
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    NetworkError,
    Operation,
    Requantize,
    Tensor,
    code_dtype,
    map_size,
    signed_width,
)
from golden.requantize import Widths, fold, requantize, solve_channels

__all__ = [
    "NAMES",
    "WIDTHS",
    "AddSpec",
    "ConvSpec",
    "NetworkSpec",
    "PoolSpec",
    "ResidualSpec",
    "generate",
    "random_spec",
    "resnet20",
    "shrink",
]

WIDTHS = Widths(36, 46, 56, 48)
"""Widths that the constants of generated networks stay within."""

NAMES = ("resnet20", "random-SEED")
"""What :func:`generate` knows."""
CALIBRATION_FRAMES = 4
WORK = (2_000, 24_000)
"""Least and most :meth:`NetworkSpec.work` that :func:`random_spec` aims at."""
MAX_WORDS = 1_000
"""Most words of weights for one output, and most words of one tensor, of :func:`random_spec`'s networks."""

Shape = tuple[int, int, int]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True, repr=False)
class _Spec:
    """A ``repr`` that shows what differs from the defaults, and evaluates to an equal spec."""

    def __repr__(self) -> str:
        shown = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING or value != field.default:
                shown.append(f"{field.name}={value if isinstance(value, Grid) else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class ConvSpec(_Spec):
    """A convolution or linear layer.

    Parameters
    ----------
    channels : :class:`int`
        Of the output.
    kernel : (y, x) or ``None``
        ``None``: the whole map, a linear layer.
    stride, dilation, padding, groups, broadcast, grid
        As in :class:`~golden.network.Conv2d`.
    weight_bits : :class:`int`
        1 to 16.
    bits : :class:`int` or ``None``
        Of the output's codes; ``None``: accumulators, for the last layer only.
    zero_point : :class:`int`
        Of the output's codes.
    """

    channels: int
    kernel: Pair | None = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pads = (0, 0, 0, 0)
    groups: int = 1
    broadcast: bool = False
    weight_bits: int = 2
    grid: Grid = Grid.TWOS_COMPLEMENT
    bits: int | None = 2
    zero_point: int = 0

    def window(self, source: Shape) -> Pair:
        """The kernel on a map of ``source``'s size."""
        return self.kernel if self.kernel is not None else (source[1], source[2])

    def shape(self, source: Shape) -> Shape:
        """Of the output; ``source`` is the input's shape."""
        if self.broadcast:
            return (self.channels, 1, 1)
        return (self.channels, *map_size(source[1:], self.window(source), self.stride, self.padding, self.dilation))


@dataclass(frozen=True, repr=False)
class PoolSpec(_Spec):
    """A max pool, as :class:`~golden.network.MaxPool2d`."""

    kernel: Pair = (2, 2)
    stride: Pair = (2, 2)
    padding: Pads = (0, 0, 0, 0)

    def shape(self, source: Shape) -> Shape:
        """Of the output; ``source`` is the input's shape."""
        return (source[0], *map_size(source[1:], self.kernel, self.stride, self.padding))


@dataclass(frozen=True, repr=False)
class AddSpec(_Spec):
    """The codes that an addition of its own gives."""

    bits: int = 2
    zero_point: int = 0


@dataclass(frozen=True, repr=False)
class ResidualSpec(_Spec):
    """A residual block: convolutions in a row, and their input added past them.

    Parameters
    ----------
    body : tuple of :class:`ConvSpec`
        At least one.
    shortcut : :class:`ConvSpec` or ``None``
        What the input goes through; ``None``: nothing, then the body must keep the shape.
    add : :class:`AddSpec` or ``None``
        ``None``: the shortcut is the residual operand of the body's last convolution. Otherwise an operation of its
        own adds the codes of both.
    """

    body: tuple[ConvSpec, ...]
    shortcut: ConvSpec | None = None
    add: AddSpec | None = None


Block = ConvSpec | PoolSpec | ResidualSpec


@dataclass(frozen=True)
class _Step:
    """One operation of a spec. Tensors are numbered: 0 the input, i + 1 what step i makes."""

    spec: ConvSpec | PoolSpec | AddSpec
    source: int
    skip: int | None
    shape: Shape
    bits: int | None
    zero_point: int


@dataclass(frozen=True, repr=False)
class NetworkSpec(_Spec):
    """A small random network.

    Parameters
    ----------
    seed : :class:`int`
        Of the weights, constants and input.
    shape : (C, H, W)
        Of the input.
    blocks : tuple of :class:`ConvSpec`, :class:`PoolSpec` and :class:`ResidualSpec`
        In a row; at least one.
    bits, zero_point : :class:`int`
        Of the input's codes.

    Raises
    ------
    NetworkError
        If a block does not fit what comes before it.
    """

    seed: int
    shape: Shape
    blocks: tuple[Block, ...]
    bits: int = 2
    zero_point: int = 0

    def __post_init__(self) -> None:
        steps = self._steps()
        if not steps:
            raise NetworkError("Spec must have at least one block")
        shapes = [self.shape, *(step.shape for step in steps)]
        for number, step in enumerate(steps):
            where = f"of step {number} of the spec"
            if min(step.shape) < 1:
                raise NetworkError(f"Window {where} must fit its input, but its output would be {step.shape}")
            if step.bits is None and number != len(steps) - 1:
                raise NetworkError(f"Accumulators {where} must be the network's output")
            if isinstance(step.spec, ConvSpec) and (
                shapes[step.source][0] % step.spec.groups or step.spec.channels % step.spec.groups
            ):
                raise NetworkError(f"Groups {where} must divide the channels, not {step.spec.groups}")
            if step.skip is not None and (shapes[step.skip] != step.shape or step.bits is None):
                raise NetworkError(f"Residual operand {where} must have shape {step.shape}, not {shapes[step.skip]}")

    def _steps(self) -> list[_Step]:
        steps: list[_Step] = []
        shapes: list[Shape] = [self.shape]
        codes: list[tuple[int | None, int]] = [(self.bits, self.zero_point)]

        def put(spec: ConvSpec | PoolSpec | AddSpec, source: int, skip: int | None = None) -> int:
            shape = shapes[source] if isinstance(spec, AddSpec) else spec.shape(shapes[source])
            bits, zero_point = codes[source] if isinstance(spec, PoolSpec) else (spec.bits, spec.zero_point)
            steps.append(_Step(spec, source, skip, shape, bits, zero_point))
            shapes.append(shape)
            codes.append((bits, zero_point))
            return len(steps)

        last = 0
        for block in self.blocks:
            if not isinstance(block, ResidualSpec):
                last = put(block, last)
                continue
            skip = put(block.shortcut, last) if block.shortcut is not None else last
            for conv in block.body[:-1]:
                last = put(conv, last)
            last = put(block.body[-1], last, skip if block.add is None else None)
            if block.add is not None:
                last = put(block.add, last, skip)
        return steps

    def build(self, frames: int = 1) -> tuple[IntegerNetwork, np.ndarray]:
        """The network, named ``random-SEED``, and ``frames`` frames of input codes (N, C, H, W)."""
        rng = np.random.default_rng((self.seed, 0))
        source = Tensor("x", self.shape, bits=self.bits, zero_point=self.zero_point, scale=0.5)
        codes = rng.integers(0, 1 << self.bits, (frames, *self.shape)).astype(code_dtype(self.bits))
        sample = rng.integers(0, 1 << self.bits, (CALIBRATION_FRAMES, *self.shape)).astype(codes.dtype)
        maker = _Maker(source, sample)
        names = [source.name]
        for number, step in enumerate(self._steps(), 1):
            rng = np.random.default_rng((self.seed, number))
            skip = names[step.skip] if step.skip is not None else None
            names.append(_make(maker, f"{_KIND[type(step.spec)]}{number}", step, names[step.source], skip, rng))
        return maker.network(f"random-{self.seed}"), codes

    def work(self) -> int:
        """Products of four outputs by four inputs by 2-bit digits: about the cycles on a small array of such size."""
        total = 0
        codes = [(self.shape, self.bits)]
        for step in self._steps():
            shape, bits = codes[step.source]
            positions, tiles = step.shape[1] * step.shape[2], _words(step.shape[0], 1)
            if isinstance(step.spec, ConvSpec):
                total += positions * tiles * _weight_words(step.spec, shape) * _words(bits, 2, 1)
            elif isinstance(step.spec, PoolSpec):
                total += positions * tiles * math.prod(step.spec.kernel) * _words(bits, 2, 1)
            else:
                total += positions * tiles * _words(bits, 2, 1)
            codes.append((step.shape, step.bits or 0))
        return total

    def fits(self) -> bool:
        """Whether every layer's weights and every tensor stay within :data:`MAX_WORDS` words of four 2-bit digits."""
        codes = [(self.shape, self.bits)]
        for step in self._steps():
            if isinstance(step.spec, ConvSpec):
                spec = dataclasses.replace(step.spec, broadcast=False)
                if _weight_words(spec, codes[step.source][0]) > MAX_WORDS:
                    return False
            codes.append((step.shape, step.bits or 32))
        return all(_words(shape[0], bits) * shape[1] * shape[2] <= MAX_WORDS for shape, bits in codes)

    def simpler(self) -> Iterator[NetworkSpec]:
        """Specs with one thing less each, large steps first; all of them are well formed.

        Each is smaller than its parent in a sum of all its numbers, so every chain of simpler specs ends. Weights and
        constants are drawn anew.
        """
        seen = set()
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for change in self._changes():
            fields = own | change
            fields["blocks"] = _settled(fields["shape"], fields["blocks"])
            try:
                spec = NetworkSpec(**fields)
            except NetworkError:
                continue
            if spec not in seen and _size(spec) < _size(self):
                seen.add(spec)
                yield spec

    def _changes(self) -> Iterator[dict[str, Any]]:
        count = len(self.blocks)
        if count > 1:
            yield {"blocks": self.blocks[: count // 2]}
            yield {"blocks": self.blocks[count // 2 :]}
        for i, block in enumerate(self.blocks):
            for blocks in ((), *_simpler_blocks(block)):
                yield {"blocks": (*self.blocks[:i], *blocks, *self.blocks[i + 1 :])}
        for axis in (1, 2, 0):
            for extent in _smaller(self.shape[axis]):
                yield {"shape": (*self.shape[:axis], extent, *self.shape[axis + 1 :])}
        for bits in _smaller(self.bits):
            yield {"bits": bits, "zero_point": min(self.zero_point, (1 << bits) - 1)}
        yield {"zero_point": 0}


def shrink(spec: NetworkSpec, fails: Callable[[NetworkSpec], bool], tries: int = 200) -> NetworkSpec:
    """The smallest spec found from ``spec``, for which ``fails`` holds, on a way on which it always holds.

    ``fails`` is called at most ``tries`` times.
    """
    while True:
        for candidate in spec.simpler():
            if tries == 0:
                return spec
            tries -= 1
            if fails(candidate):
                spec = candidate
                break
        else:
            return spec


def _smaller(value: int) -> Iterator[int]:
    yield from dict.fromkeys(v for v in (1, value // 2, value - 1) if 1 <= v < value)


def _size(value: Any) -> int:
    """The sum of all numbers of a spec; the odd grid counts one."""
    if isinstance(value, _Spec):
        return 1 + sum(_size(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        return sum(map(_size, value))
    return int(value) if isinstance(value, int) else int(value is Grid.ODD)


def _simpler_blocks(block: Block) -> Iterator[tuple[Block, ...]]:
    """What may stand in a block's place."""
    if isinstance(block, ConvSpec):
        for conv in _simpler_convs(block):
            yield (conv,)
    elif isinstance(block, PoolSpec):
        yield (dataclasses.replace(block, padding=(0, 0, 0, 0)),)
        yield (PoolSpec(),)
        yield (PoolSpec((1, 2), (1, 2)),)
    else:
        yield block.body
        if block.shortcut is not None:
            yield (block.shortcut,)
            yield (dataclasses.replace(block, shortcut=None),)
        if block.add is not None:
            yield (dataclasses.replace(block, add=None),)
            yield (dataclasses.replace(block, add=AddSpec()),)
        for i, conv in enumerate(block.body):
            if len(block.body) > 1:
                yield (dataclasses.replace(block, body=block.body[:i] + block.body[i + 1 :]),)
            for simpler in _simpler_convs(conv):
                yield (dataclasses.replace(block, body=(*block.body[:i], simpler, *block.body[i + 1 :])),)
        if block.shortcut is not None:
            for simpler in _simpler_convs(block.shortcut):
                yield (dataclasses.replace(block, shortcut=simpler),)
        # Body and shortcut must give one shape: what changes it must change in all of them.
        for change in ({"stride": (1, 1)}, _POINT):
            yield (
                dataclasses.replace(
                    block,
                    body=tuple(dataclasses.replace(conv, **change) for conv in block.body),
                    shortcut=block.shortcut and dataclasses.replace(block.shortcut, **change),
                ),
            )


_POINT: dict[str, Any] = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0)}


def _simpler_convs(conv: ConvSpec) -> Iterator[ConvSpec]:
    changes: list[dict[str, Any]] = [
        _POINT,
        {"dilation": (1, 1)},
        {"stride": (1, 1)},
        {"padding": (0, 0, 0, 0)},
        {"groups": 1},
        {"grid": Grid.TWOS_COMPLEMENT},
        {"zero_point": 0},
        *({"channels": channels} for channels in _smaller(conv.channels)),
        *({"weight_bits": bits} for bits in _smaller(conv.weight_bits)),
    ]
    if conv.kernel is not None:
        ky, kx = conv.kernel
        changes += [{"kernel": (k, kx)} for k in _smaller(ky)] + [{"kernel": (ky, k)} for k in _smaller(kx)]
    for side in range(4):
        changes.append({"padding": (*conv.padding[:side], 0, *conv.padding[side + 1 :])})
    if conv.bits is not None:
        changes += [{"bits": b, "zero_point": min(conv.zero_point, (1 << b) - 1)} for b in _smaller(conv.bits)]
    for change in changes:
        yield dataclasses.replace(conv, **change)


def _settled(shape: Shape, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks with groups that divide the channels before and after, and shortcuts with the body's channels."""
    settled: list[Block] = []
    channels = shape[0]

    def conv(spec: ConvSpec, source: int) -> ConvSpec:
        return dataclasses.replace(spec, groups=math.gcd(spec.groups, source, spec.channels))

    for block in blocks:
        if isinstance(block, ConvSpec):
            block = conv(block, channels)
            channels = block.channels
        elif isinstance(block, ResidualSpec):
            body, source = [], channels
            last = block.body[-1]
            if block.shortcut is None:
                last = dataclasses.replace(last, channels=channels)
            else:
                shortcut = dataclasses.replace(block.shortcut, channels=last.channels)
                block = dataclasses.replace(block, shortcut=conv(shortcut, channels))
            for spec in (*block.body[:-1], last):
                body.append(conv(spec, source))
                source = spec.channels
            block = dataclasses.replace(block, body=tuple(body))
            channels = source
        settled.append(block)
    return tuple(settled)


def generate(name: str) -> tuple[IntegerNetwork, np.ndarray, int] | None:
    """The network of a name in :data:`NAMES`, frames of its input, and its seed; ``None`` for another name.

    ``random-17`` is ``random_spec(17).build()``.
    """
    if name == "resnet20":
        return *resnet20(), 0
    if re.fullmatch(r"random-\d{1,9}", name):
        seed = int(name.removeprefix("random-"))
        return *random_spec(seed).build(frames=4), seed
    return None


def random_spec(seed: int) -> NetworkSpec:
    """A spec drawn from ``seed``: kernels 1..5, strides 1..3, dilation, groups, pads, 1 to 8 bits, both grids, zero
    points, residual operands, additions, max pools, one-dimensional maps, and every kind of end.

    Its :meth:`NetworkSpec.work` is at most the second of :data:`WORK`, and it :meth:`NetworkSpec.fits`.
    """
    return _Drawer(np.random.default_rng(seed)).network(seed)


class _Drawer:
    """Draws specs block by block, as far as the work allows."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.work = int(np.exp(rng.uniform(*np.log(WORK))))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, values: Any, weights: Any = None) -> int:
        weights = None if weights is None else np.array(weights) / sum(weights)
        return int(self.rng.choice(values, p=weights))

    def channels(self) -> int:
        return self.pick(np.arange(1, 21), [1, 1, 2, 1, 2, 2, 2, 2] + 12 * [1])

    def codes(self) -> dict[str, Any]:
        bits = self.pick(np.arange(1, 9), [2, 3, 2, 3, 1, 1, 1, 3])
        return {"bits": bits, "zero_point": self.pick([0, self.rng.integers(0, 1 << bits)], [2, 1])}

    def weights(self) -> dict[str, Any]:
        return {
            "weight_bits": self.pick(np.arange(1, 9), [2, 3, 2, 3, 1, 1, 1, 2]),
            "grid": Grid.ODD if self.chance(0.5) else Grid.TWOS_COMPLEMENT,
        }

    def pads(self, limit: Pair, shape: Shape) -> Pads:
        """Each up to a limit per axis; a one-dimensional map stays one."""
        y, x = (0 if shape[1] == 1 else limit[0]), limit[1]
        top, left, bottom, right = (int(self.rng.integers(0, each + 1)) for each in (y, x, y, x))
        return (top, left, bottom, right)

    def conv(self, shape: Shape) -> ConvSpec:
        flat = shape[1] == 1
        kernel = (
            1 if flat else self.pick([1, 2, 3, 4, 5], [3, 2, 4, 1, 1]),
            self.pick([1, 2, 3, 4, 5], [3, 2, 4, 1, 1]),
        )
        stride = tuple(self.pick([1, 2, 3], [5, 2, 1]) for _ in range(2))
        dilation = tuple(self.pick([1, 2], [5, 1]) if k > 1 else 1 for k in kernel)
        spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        if self.chance(0.4):
            padding = (spans[0] // 2, spans[1] // 2) * 2
        elif self.chance(0.6):
            padding = self.pads((min(3, spans[0] - 1), min(3, spans[1] - 1)), shape)
        else:
            padding = self.pads((0, 0) if self.chance(0.9) else (1, 1), shape)
        channels, groups = self.channels(), 1
        if self.chance(0.3):
            groups = self.pick([g for g in range(1, shape[0] + 1) if shape[0] % g == 0])
            groups = shape[0] if self.chance(0.4) else groups
            channels = groups * self.pick([g for g in (1, 2, 3, 4, 5) if groups * g <= max(20, groups)])
        return ConvSpec(
            channels,
            kernel,
            (stride[0], stride[1]),
            (dilation[0], dilation[1]),
            padding,
            groups,
            **self.weights(),
            **self.codes(),
        )

    def pool(self, shape: Shape) -> PoolSpec:
        flat = shape[1] == 1
        kind = self.rng.random()
        if kind < 0.4:
            return PoolSpec((1, 2), (1, 2)) if flat else PoolSpec()
        if kind < 0.8:
            kernel, stride = ((1, 3), (1, 2)) if flat else ((3, 3), (2, 2))
        else:
            kernel = (1 if flat else self.pick([1, 2, 3]), self.pick([1, 2, 3]))
            stride = (1 if flat else self.pick([1, 2, 3]), self.pick([1, 2, 3]))
        limit = (kernel[0] - 1, kernel[1] - 1)
        return PoolSpec(kernel, stride, limit * 2 if self.chance(0.3) else self.pads(limit, shape))

    def residual(self, shape: Shape) -> ResidualSpec:
        """A body of one or two convolutions, and a shortcut: nothing, 1x1, or what the body's one convolution does."""
        add = AddSpec(**self.codes()) if self.chance(0.4) else None
        first = self.conv(shape)
        middle = first.shape(shape)
        if min(middle) < 1:
            raise NetworkError("Body must fit its input")
        second = self.conv(middle) if self.chance(0.5) else None
        if second is not None:
            # "Same" from here on, so that a shortcut with the first one's stride gives the same map.
            size = (1 if middle[1] == 1 else 3, 3)
            second = dataclasses.replace(
                second, kernel=size, stride=(1, 1), dilation=(1, 1), padding=(size[0] // 2, 1) * 2
            )
        body = (first,) if second is None else (first, second)
        shortcut = None
        if middle[1:] != shape[1:] or self.chance(0.4):
            codes: dict[str, Any] = {"bits": 8, "zero_point": 128} if self.chance(0.6) else self.codes()
            small = ConvSpec(1, (1, 1), first.stride).shape(shape) == (1, *middle[1:])
            same = ("stride",) if small else ("kernel", "stride", "dilation", "padding")
            geometry: dict[str, Any] = {key: getattr(first, key) for key in same}
            shortcut = ConvSpec(body[-1].channels, **geometry, **self.weights(), **codes)
        return ResidualSpec(body, shortcut, add)

    def end(self, shape: Shape) -> ConvSpec | None:
        kind = self.rng.random()
        if kind < 0.25:
            return None
        codes: dict[str, Any] = {"bits": None} if kind < 0.8 else self.codes()
        channels = self.channels()
        if self.chance(0.4):
            return ConvSpec(channels, (1, 1), broadcast=True, **self.weights(), **codes)
        return ConvSpec(channels, None if self.chance(0.8) else (1, 1), **self.weights(), **codes)

    def network(self, seed: int) -> NetworkSpec:
        if self.chance(0.15):
            size = (1, self.pick(np.arange(3, 17)))
        else:
            size = (self.pick(np.arange(2, 9)), self.pick(np.arange(2, 9)))
        fields: dict[str, Any] = {"seed": seed, "shape": (self.pick(np.arange(1, 13)), *size), **self.codes()}
        count = self.pick([1, 2, 3, 4], [1, 2, 2, 1])
        spec: NetworkSpec | None = None
        for _ in range(200):
            done = () if spec is None else spec.blocks
            shape = fields["shape"] if spec is None else spec._steps()[-1].shape
            if len(done) == count:
                break
            draw = (self.conv, self.pool, self.residual)[self.pick(range(3), [55, 15, 30])]
            spec = self._longer(fields, done, draw, shape) or spec
        if spec is None:
            spec = NetworkSpec(**fields, blocks=(ConvSpec(1, **self.weights(), **self.codes()),))
        for _ in range(20):
            end = self._longer(fields, spec.blocks, self.end, spec._steps()[-1].shape)
            if end is not None:
                return end
        return spec

    def _longer(
        self, fields: dict[str, Any], blocks: tuple[Block, ...], draw: Callable[[Shape], Block | None], shape: Shape
    ) -> NetworkSpec | None:
        """The spec with what was drawn behind its blocks; ``None`` where it does not fit or is too much work."""
        try:
            block = draw(shape)
            if block is None:
                return NetworkSpec(**fields, blocks=blocks)
            spec = NetworkSpec(**fields, blocks=_settled(fields["shape"], (*blocks, block)))
        except NetworkError:
            return None
        return spec if spec.work() <= self.work and spec.fits() else None


def _words(channels: int, bits: int | None, lanes: int = 4) -> int:
    """Words of ``lanes`` 2-bit digits for one pixel."""
    return -(-channels // lanes) * -(-(bits or 0) // 2)


def _weight_words(conv: ConvSpec, source: Shape) -> int:
    """Words of four 2-bit digits that one output's weights take."""
    ky, kx = source[1:] if conv.broadcast else conv.window(source)
    channels = source[0] if conv.groups == 1 else min(source[0], source[0] // conv.groups + 6)
    return ky * kx * _words(channels, conv.weight_bits + (conv.groups > 1))


class _Maker:
    """Adds operations to a network one at a time, and knows what each makes of a sample of inputs.

    Parameters
    ----------
    source : :class:`~golden.network.Tensor`
        The network's input.
    sample : unsigned array (N, C, H, W)
        Codes of it.
    """

    def __init__(self, source: Tensor, sample: np.ndarray) -> None:
        self.tensors = {source.name: source}
        self.values = {source.name: sample}
        self.operations: list[Operation] = []

    def accumulators(self, operation: Conv2d, shape: Shape) -> tuple[Tensor, np.ndarray]:
        """The tensor (with slope 1) of what a convolution sums up, and its values for the sample."""
        source = self.tensors[operation.input]
        low, high = operation.accumulator_bounds(source)
        bits = max(2, signed_width(int(low.min()), int(high.max())))
        slope, offset = np.ones(shape[0]), np.zeros(shape[0])
        output = Tensor(operation.output, shape, Kind.ACCUMULATOR, bits, slope=slope, offset=offset)
        return output, self._alone(operation, output)

    def put(self, operation: Operation, output: Tensor, acc: np.ndarray | None = None) -> None:
        """Append an operation and the tensor that it makes, of a convolution with its accumulators."""
        if isinstance(operation, MaxPool2d):
            values = self._alone(operation, output)
        elif isinstance(operation, Add):
            a, b = self.values[operation.a], self.values[operation.b]
            values = requantize(a.astype(np.int64), operation.requantize, output.bits, b)
        else:
            assert acc is not None and isinstance(operation, Conv2d)
            skip = None if operation.skip is None else self.values[operation.skip]
            constants = operation.requantize
            values = acc if constants is None else requantize(acc, constants, output.bits, skip)
        self.values[output.name] = values
        self.tensors[output.name] = output
        self.operations.append(operation)

    def _alone(self, operation: Conv2d | MaxPool2d, output: Tensor) -> np.ndarray:
        network = IntegerNetwork("alone", (self.tensors[operation.input], output), (operation,))
        return execute(network, self.values[operation.input])[output.name]

    def network(self, name: str) -> IntegerNetwork:
        """What was made so far."""
        return IntegerNetwork(name, tuple(self.tensors.values()), tuple(self.operations))


_KIND = {ConvSpec: "conv", PoolSpec: "pool", AddSpec: "add"}


def _make(maker: _Maker, name: str, step: _Step, source: str, skip: str | None, rng: np.random.Generator) -> str:
    """Append one step's operation to the network; returns the name of what it makes."""
    spec, output = step.spec, f"{name}_out"
    if isinstance(spec, PoolSpec):
        tensor = dataclasses.replace(maker.tensors[source], name=output, shape=step.shape)
        maker.put(MaxPool2d(name, source, output, spec.kernel, spec.stride, spec.padding), tensor)
        return output
    if isinstance(spec, AddSpec):
        assert skip is not None
        tensor = Tensor(output, step.shape, bits=spec.bits, zero_point=spec.zero_point, scale=0.25)
        constants = _spread(maker.values[source].astype(np.int64), maker.values[skip], spec.bits, rng)
        assert constants.skip_multiplier is not None
        maker.put(
            Add(
                name,
                source,
                skip,
                output,
                constants.multiplier,
                constants.skip_multiplier,
                constants.bias,
                constants.shift,
            ),
            tensor,
        )
        return output
    shape = maker.tensors[source].shape
    size = (spec.channels, shape[0] // spec.groups, *spec.window(shape))
    top = (1 << spec.weight_bits) - 1
    # Now and then only the outermost weights: sums as large as they get.
    codes = rng.integers(0, 2, size) * top if rng.random() < 0.1 else rng.integers(0, top + 1, size)
    operation = Conv2d(
        name,
        source,
        output,
        codes,
        spec.weight_bits,
        spec.grid,
        spec.stride,
        spec.dilation,
        spec.padding,
        spec.groups,
        spec.broadcast,
    )
    tensor, acc = maker.accumulators(operation, step.shape)
    if spec.bits is not None:
        constants = _spread(acc, None if skip is None else maker.values[skip], spec.bits, rng)
        operation = dataclasses.replace(operation, requantize=constants, skip=skip)
        tensor = Tensor(output, step.shape, bits=spec.bits, zero_point=spec.zero_point, scale=0.25)
    maker.put(operation, tensor, acc)
    return output


def _spread(acc: np.ndarray, skip: np.ndarray | None, bits: int, rng: np.random.Generator) -> Requantize:
    """Constants of any size and sign that :data:`WIDTHS` allow, with which the sample's codes are well spread.

    Codes cover about two to five standard deviations of ``acc`` and ``skip``, both (N, C, H, W); every 25th channel is
    constant.
    """
    rows = []
    for channel in range(acc.shape[1]):
        terms = [(acc, rng.uniform(2.2, 5.0), 0.3)]
        if skip is not None:
            terms.append((skip, rng.uniform(2.2, 8.0), 0.2))
        gains, total = [], np.zeros(acc.shape[0:1] + acc.shape[2:])
        for values, deviations, negative in terms:
            part = values[:, channel].astype(float)
            spread = part.std() or values.std() or 1.0
            gains.append((1 << bits) / (deviations * spread) * (-1 if rng.random() < negative else 1))
            total += gains[-1] * part
        gains = [gain / len(terms) ** 0.5 for gain in gains]
        centre = (1 << bits) / 2 + rng.uniform(-0.15, 0.15) * (1 << bits)
        offset = centre - total.mean() / len(terms) ** 0.5
        if rng.random() < 0.04:
            gains, offset = [0.0 for _ in gains], float(rng.integers(0, 1 << bits))
        gains += [0.0] * (2 - len(gains))
        limits = (WIDTHS.multiplier_bits, WIDTHS.skip_multiplier_bits, WIDTHS.bias_bits)
        # The largest shift at which all three fit, and the smallest that keeps two bits of the multiplier.
        most = min(w - 2 - math.ceil(math.log2(max(abs(v), 2.0**-60))) for v, w in zip((*gains, offset), limits))
        most = max(0, min(most, WIDTHS.max_shift))
        least = max(0, min(most, 2 - math.floor(math.log2(abs(gains[0]) or 1.0))))
        shift = int(rng.integers(least, most + 1))
        rows.append((*(round(v * 2.0**shift) for v in (*gains, offset)), shift))
    m, ms, b, s = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Requantize(m, b, s, None if skip is None else ms)


def resnet20(seed: int = 0, frames: int = 2) -> tuple[IntegerNetwork, np.ndarray]:
    """ResNet-20 for 3x32x32 images with 4-bit weights and activations and 8-bit ends, and ``frames`` frames of input.

    Three stages of three blocks with 16, 32 and 64 channels; the shortcut is the identity, or where the shape changes a
    1x1 projection to an 8-bit code with zero point 128; the global average pool is in the last, linear layer. Eight
    bits: the input, the first layer's weights, the last block's output, the linear layer's weights. Weights are random;
    batch norms have statistics as training leaves them, random gamma and beta, and are folded and solved exactly.
    """
    rng = np.random.default_rng(seed)
    source = Tensor("input", (3, 32, 32), bits=8, scale=1 / 255)
    maker = _Maker(source, _images(rng, CALIBRATION_FRAMES))
    last = _layer(maker, "stem", "input", rng, channels=16, kernel=3, weight_bits=8)
    for stage, channels in enumerate((16, 32, 64), 1):
        for number in (1, 2, 3):
            name, skip = f"stage{stage}.{number}", last
            stride = 2 if stage > 1 and number == 1 else 1
            if stride == 2:
                skip = _layer(
                    maker, f"{name}.shortcut", last, rng, channels=channels, kernel=1, stride=2, bits=8, zero_point=128
                )
            last = _layer(maker, f"{name}.conv1", last, rng, channels=channels, kernel=3, stride=stride)
            bits = 8 if (stage, number) == (3, 3) else 4
            last = _layer(maker, f"{name}.conv2", last, rng, channels=channels, kernel=3, bits=bits, skip=skip)
    classes, pooled = 10, maker.tensors[last]
    codes = np.clip(np.rint(rng.normal(0, 40, (classes, 64, 1, 1))), -127, 127).astype(np.int64) + 128
    operation = Conv2d("linear", last, "logits", codes, 8, Grid.TWOS_COMPLEMENT, broadcast=True)
    output, acc = maker.accumulators(operation, (classes, 1, 1))
    positions = pooled.shape[1] * pooled.shape[2]
    slope = np.full(classes, pooled.scale / positions / 127)
    maker.put(operation, dataclasses.replace(output, slope=slope, offset=rng.normal(0, 0.1, classes)), acc)
    return maker.network("resnet20" if seed == 0 else f"resnet20-{seed}"), _images(rng, frames)


def _images(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Images with a coarse structure, noise, and whole areas of black and white: uint8 (N, 3, 32, 32)."""
    coarse = rng.normal(110, 70, (frames, 3, 8, 8)).repeat(4, axis=2).repeat(4, axis=3)
    return np.clip(np.rint(coarse + rng.normal(0, 20, coarse.shape)), 0, 255).astype(np.uint8)


def _layer(
    maker: _Maker,
    name: str,
    source: str,
    rng: np.random.Generator,
    *,
    channels: int,
    kernel: int,
    stride: int = 1,
    weight_bits: int = 4,
    bits: int = 4,
    zero_point: int = 0,
    skip: str | None = None,
) -> str:
    """Convolution, batch norm, sum with ``skip`` if there is one, and PACT: constants solved as the exporter does."""
    tensor = maker.tensors[source]
    top = (1 << weight_bits) - 1
    weights = np.clip(rng.normal(0, 0.4, (channels, tensor.shape[0], kernel, kernel)), -1, 1)
    codes = np.floor((weights + 1) / 2 * top + 0.5).astype(np.int64)
    operation = Conv2d(
        name, source, f"{name}.out", codes, weight_bits, Grid.ODD, (stride, stride), padding=(kernel // 2,) * 4
    )
    size = (tensor.shape[1] - 1) // stride + 1
    _, acc = maker.accumulators(operation, (channels, size, size))
    weight_scale = 1 / top
    real = acc * (weight_scale * tensor.scale)
    # Running statistics are near those of the sample; parameters are float32, as trained ones are.
    mean = real.mean(axis=(0, 2, 3)) + rng.normal(0, 0.1, channels) * real.std()
    variance = real.var(axis=(0, 2, 3)) * rng.uniform(0.8, 1.25, channels) + 1e-4 * real.var()
    gamma = rng.uniform(0.3, 1.2, channels) * np.where(rng.random(channels) < 0.1, -1, 1)
    beta = rng.normal(0.2, 0.3, channels)
    # A clip at about two deviations of what PACT sees; the signed quantizer of a projection has 127 steps a side.
    clip = rng.uniform(2.0, 2.6) if skip is None else rng.uniform(2.2, 2.8)
    scale = clip / ((1 << bits) - 1 if zero_point == 0 else zero_point - 1)
    slope, offset = fold(
        gamma=gamma.astype(np.float32),
        beta=beta.astype(np.float32),
        mean=mean.astype(np.float32),
        variance=variance.astype(np.float32),
        epsilon=1e-5,
        bias=np.zeros(channels),
        weight_scale=np.full(channels, weight_scale),
        input_scale=tensor.scale,
        output_scale=scale,
        output_zero_point=zero_point,
    )
    slopes = [Fraction(x) for x in slope.tolist()]
    sums = operation.weights.sum(axis=(1, 2, 3)).tolist()
    offsets = [Fraction(o) - s * tensor.zero_point * w for o, s, w in zip(offset.tolist(), slopes, sums, strict=True)]
    skip_slopes = None
    if skip is not None:
        operand = maker.tensors[skip]
        skip_slope = Fraction(operand.scale / scale)
        skip_slopes = [skip_slope] * channels
        offsets = [o - skip_slope * operand.zero_point for o in offsets]
    constants, solutions = solve_channels(
        slopes,
        offsets,
        bits,
        *operation.accumulator_bounds(tensor),
        skip_slopes=skip_slopes,
        skip_bits=0 if skip is None else maker.tensors[skip].bits,
        limits=WIDTHS,
    )
    assert not any(solution.mismatches for solution in solutions)
    output = Tensor(f"{name}.out", (channels, size, size), bits=bits, zero_point=zero_point, scale=scale)
    maker.put(dataclasses.replace(operation, requantize=constants, skip=skip), output, acc)
    return output.name
