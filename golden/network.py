"""The integer network: frozen dataclasses that say what is computed, and refuse what is not well formed.

Numbers (normative):

* An activation code u is unsigned with ``bits`` bits; its value is ``scale * (u - zero_point)``.
* A weight code n is unsigned with ``bits`` bits; its integer weight is ``W = p*n - c`` on one of two grids
  (:class:`Grid`).
* An accumulator is ``sum(W * u)``, exact. Spatial padding is ``u = zero_point``.
* With two-level scales (:class:`VectorScales`) a vector of consecutive channels has a small unsigned scale of its own.
  An accumulator is then ``sum(P * W * u)`` with the rounded scale product ``P = (w*a + 2**(r-1)) >> r`` of each vector
  (``P = w*a`` where r = 0), w and a the scales of its weights and of its codes; scales that are absent count as 1.
* A requantized output is ``clip((acc*M + skip*M_skip + B) >> S, 0, 2**k - 1)`` with one arithmetic shift (floor) and
  constants per output channel (:class:`Requantize`).
* Or it is the number of thresholds of its channel that the accumulator reaches (:class:`Thresholds`): what other
  people's roundings need where no M, B, S has their thresholds.
* The network's output may be the accumulator itself; its real value is ``slope * acc + offset`` per channel.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

__all__ = [
    "Add",
    "Conv2d",
    "Grid",
    "IntegerNetwork",
    "Kind",
    "MaxPool2d",
    "NetworkError",
    "Operation",
    "Requantize",
    "Tensor",
    "Thresholds",
    "VectorQuantize",
    "VectorScales",
    "code_dtype",
    "map_size",
]

MAX_CODE_BITS = 16
MAX_ACCUMULATOR_BITS = 63
MAX_SHIFT = 62
MAX_PRODUCT_SHIFT = 31
MAX_DIMENSION = 1 << 16
MAX_ELEMENTS = 1 << 28


class NetworkError(ValueError):
    """A network that is not well formed; the message is one sentence: what, where, what is allowed."""


class Grid(enum.Enum):
    """How an unsigned weight code n of w bits stands for an integer weight: ``W = p*n - c``."""

    TWOS_COMPLEMENT = "twos_complement"
    """p = 1, c = 2**(w-1): the integers -2**(w-1) .. 2**(w-1) - 1."""

    ODD = "odd"
    """p = 2, c = 2**w - 1: the odd integers -(2**w - 1) .. 2**w - 1 (DoReFa, SAWB; bipolar at w = 1)."""

    def p(self, bits: int) -> int:
        """The factor p of the grid for weights of ``bits`` bits."""
        return 1 if self is Grid.TWOS_COMPLEMENT else 2

    def c(self, bits: int) -> int:
        """The offset c of the grid for weights of ``bits`` bits."""
        return 1 << (bits - 1) if self is Grid.TWOS_COMPLEMENT else (1 << bits) - 1


class Kind(enum.Enum):
    """What the integers of a tensor are."""

    CODE = "code"
    """Unsigned codes of 1 to 16 bits with a zero point and a scale."""

    ACCUMULATOR = "accumulator"
    """Signed sums of products, with a slope and an offset per channel that give their real value."""


def code_dtype(bits: int) -> np.dtype[Any]:
    """The unsigned dtype that holds codes of ``bits`` bits: uint8 to 8 bits, uint16 to 16."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16)


def _frozen(value: Any, dtype: type, what: str) -> np.ndarray:
    """A read-only, contiguous copy of ``value``; refuses another kind of number instead of converting it."""
    array = np.asarray(value)
    kind = np.dtype(dtype).kind
    if array.dtype.kind not in ({"f": "f", "i": "iu", "u": "iu"}[kind]):
        raise NetworkError(f"{what} must be {np.dtype(dtype).name} numbers, not {array.dtype.name}")
    if kind != "f" and array.size:
        info = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < info.min or high > info.max:
            raise NetworkError(f"{what} must be between {info.min} and {info.max}, not {low}..{high}")
    array = np.array(array, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def _integers(value: Any, count: int, what: str, low: int, high: int) -> tuple[int, ...]:
    """``value`` as a tuple of ``count`` ints, each in ``low..high``."""
    if not isinstance(value, (list, tuple)):
        raise NetworkError(f"{what} must be {count} integers, not of type {type(value).__name__}")
    items = tuple(value)
    if len(items) != count or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in items):
        raise NetworkError(f"{what} must be {count} integers, not {items!r}")
    if not all(low <= v <= high for v in items):
        raise NetworkError(f"{what} must be between {low} and {high}, not {items!r}")
    return tuple(int(v) for v in items)


def _integer(value: Any, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise NetworkError(f"{what} must be an integer between {low} and {high}, not {value!r}")
    return int(value)


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 200:
        raise NetworkError(f"{what} must be a printable name of 1 to 200 characters, not {value!r}")
    return value


@dataclass(frozen=True, eq=False)
class VectorScales:
    """The integer half of two-level scales: one small unsigned scale per vector of consecutive channels.

    Dai et al., "VS-Quant: Per-vector Scaled Quantization" (arXiv 2102.04503). Where the number of channels is not a
    multiple of ``vector``, the last vector is shorter. A scale of 0 makes a vector 0.

    Parameters
    ----------
    codes : uint8 or uint16 array
        Scales of a tensor: (ceil(C / vector),). Of weights: (O, ceil(C/groups / vector), kh, kw).
    bits : :class:`int`
        Bits of a scale, 1 to 16.
    vector : :class:`int`
        Channels of a vector, at least 1.
    """

    codes: np.ndarray
    bits: int
    vector: int

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "bits", _integer(self.bits, "Bits of vector scales", 1, MAX_CODE_BITS))
        put(self, "vector", _integer(self.vector, "Vector of vector scales", 1, MAX_DIMENSION))
        codes = _frozen(self.codes, code_dtype(self.bits).type, "Vector scales")
        if codes.size and int(codes.max()) >= 1 << self.bits:
            raise NetworkError(f"Vector scales must fit {self.bits} bits, not {int(codes.max())}")
        put(self, "codes", codes)

    def check(self, channels: int, shape: tuple[int, ...], axis: int, what: str) -> None:
        """Refuse scales whose shape is not ``shape`` with the vectors of ``channels`` in the place of ``axis``."""
        expected = (*shape[:axis], -(-channels // self.vector), *shape[axis + 1 :])
        if self.codes.shape != expected:
            raise NetworkError(f"Vector scales {what} must have shape {expected}, not {self.codes.shape}")

    def per_channel(self, channels: int, axis: int) -> np.ndarray:
        """The scales as int64, repeated for every one of ``channels`` along ``axis``."""
        return np.repeat(self.codes.astype(np.int64), self.vector, axis).take(range(channels), axis)

    def same(self, other: VectorScales | None) -> bool:
        """Whether ``other`` is equal in every number."""
        return (
            other is not None
            and (self.bits, self.vector) == (other.bits, other.vector)
            and np.array_equal(self.codes, other.codes)
        )


@dataclass(frozen=True, eq=False)
class Tensor:
    """One activation tensor.

    Parameters
    ----------
    name : :class:`str`
        Unique in the network.
    shape : (C, H, W)
        One frame; the batch is not part of the network. A one-dimensional signal has H = 1.
    kind : :class:`Kind`
        Codes or accumulators.
    bits : :class:`int`
        Codes: 1 to 16. Accumulators: the signed width that holds every reachable sum, 2 to 63.
    zero_point : :class:`int`
        Codes only: the code that stands for 0. Also the value of spatial padding.
    scale : :class:`float`
        Codes only: positive; the value is ``scale * (code - zero_point)``. Not used by the arithmetic.
    slope, offset : float64 arrays (C,)
        Accumulators only: the value is ``slope * acc + offset``.
    vector_scales : :class:`VectorScales` or ``None``
        Codes only: with codes (ceil(C / vector),) the value is
        ``scale * vector_scales.codes[channel // vector] * (code - zero_point)``.
    """

    name: str
    shape: tuple[int, int, int]
    kind: Kind = Kind.CODE
    bits: int = 8
    zero_point: int = 0
    scale: float = 1.0
    slope: np.ndarray | None = None
    offset: np.ndarray | None = None
    vector_scales: VectorScales | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        _name(self.name, "Tensor name")
        where = f"of tensor {self.name!r}"
        put(self, "shape", _integers(self.shape, 3, f"Shape {where}", 1, MAX_DIMENSION))
        if int(np.prod(self.shape, dtype=np.int64)) > MAX_ELEMENTS:
            raise NetworkError(f"Shape {where} must have at most {MAX_ELEMENTS} elements, not {self.shape!r}")
        if not isinstance(self.kind, Kind):
            raise NetworkError(f"Kind {where} must be a Kind, not {self.kind!r}")
        if self.kind is Kind.CODE:
            put(self, "bits", _integer(self.bits, f"Bits {where}", 1, MAX_CODE_BITS))
            put(self, "zero_point", _integer(self.zero_point, f"Zero point {where}", 0, (1 << self.bits) - 1))
            if not isinstance(self.scale, (int, float)) or not np.isfinite(self.scale) or self.scale <= 0:
                raise NetworkError(f"Scale {where} must be a positive finite number, not {self.scale!r}")
            if self.slope is not None or self.offset is not None:
                raise NetworkError(f"Slope and offset {where} must be absent, since it holds codes")
            _check_scales(self.vector_scales, self.shape[0], self.shape[:1], 0, where)
            return
        if self.vector_scales is not None:
            raise NetworkError(f"Vector scales {where} must be absent, since it holds accumulators")
        put(self, "bits", _integer(self.bits, f"Bits {where}", 2, MAX_ACCUMULATOR_BITS))
        if self.zero_point != 0 or self.scale != 1.0:
            raise NetworkError(f"Zero point and scale {where} must be 0 and 1, since it holds accumulators")
        for each in ("slope", "offset"):
            array = _frozen(getattr(self, each), np.float64, f"{each.capitalize()} {where}")
            if array.shape != (self.shape[0],) or not np.isfinite(array).all():
                raise NetworkError(
                    f"{each.capitalize()} {where} must be {self.shape[0]} finite numbers, not shape {array.shape}"
                )
            put(self, each, array)

    @property
    def max_code(self) -> int:
        """The largest code, 2**bits - 1."""
        return (1 << self.bits) - 1

    @property
    def channel_scale(self) -> np.ndarray:
        """Codes only: the value of one step in each channel, float64 (C,)."""
        scales = np.ones(self.shape[0], np.int64)
        if self.vector_scales is not None:
            scales = self.vector_scales.per_channel(self.shape[0], 0)
        return np.float64(self.scale) * scales


def _check_scales(scales: Any, channels: int, shape: tuple[int, ...], axis: int, where: str) -> None:
    if scales is None:
        return
    if not isinstance(scales, VectorScales):
        raise NetworkError(f"Vector scales {where} must be VectorScales, not {scales!r}")
    scales.check(channels, shape, axis, where)


@dataclass(frozen=True, eq=False)
class Requantize:
    """Constants of ``q = clip((acc*M + skip*M_skip + B) >> S, 0, 2**k - 1)``, one set per output channel.

    Parameters
    ----------
    multiplier, bias : int64 arrays (C,)
        M and B.
    shift : uint8 array (C,)
        S, 0 to 62.
    skip_multiplier : int64 array (C,) or ``None``
        M_skip; present exactly when the operation has a residual operand.
    """

    multiplier: np.ndarray
    bias: np.ndarray
    shift: np.ndarray
    skip_multiplier: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None and each.name == "skip_multiplier":
                continue
            what = f"Requantize {each.name.replace('_', ' ')}"
            array = _frozen(value, np.uint8 if each.name == "shift" else np.int64, what)
            if array.ndim != 1 or array.shape[0] == 0:
                raise NetworkError(f"{what} must have one value per channel, not shape {array.shape}")
            if array.shape != np.shape(self.multiplier):
                raise NetworkError(f"{what} must have {len(self.multiplier)} values, not {array.shape[0]}")
            put(self, each.name, array)
        if int(self.shift.max()) > MAX_SHIFT:
            raise NetworkError(f"Requantize shift must be at most {MAX_SHIFT}, not {int(self.shift.max())}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.multiplier)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Codes by comparison: how many thresholds of its channel ``-acc if negate else acc`` reaches.

    Parameters
    ----------
    values : int64 array (C, 2**k - 1)
        Ascending in every row, equal ones allowed. What no accumulator reaches is never counted.
    negate : bool array (C,)
        Channels whose codes fall as their accumulators rise.
    """

    values: np.ndarray
    negate: np.ndarray

    def __post_init__(self) -> None:
        put = object.__setattr__
        values = _frozen(self.values, np.int64, "Thresholds")
        steps = values.shape[-1] if values.ndim == 2 else 0
        if 0 in values.shape or steps & (steps + 1) or not 1 <= steps.bit_length() <= MAX_CODE_BITS:
            raise NetworkError(f"Thresholds must have 2**k - 1 values per channel, not shape {values.shape}")
        if (values[:, 1:] < values[:, :-1]).any():
            raise NetworkError("Thresholds must be ascending in every channel")
        negate = np.array(self.negate)
        if negate.dtype != np.bool_ or negate.shape != values.shape[:1]:
            raise NetworkError(
                f"Negate of thresholds must be {len(values)} booleans, not {negate.dtype.name} of shape {negate.shape}"
            )
        negate.flags.writeable = False
        put(self, "values", values)
        put(self, "negate", negate)

    @property
    def bits(self) -> int:
        """Bits of the codes."""
        return int(self.values.shape[1]).bit_length()


@dataclass(frozen=True, eq=False)
class Conv2d:
    """Convolution, or a linear layer (a convolution over the whole map), with an optional requantization.

    Parameters
    ----------
    name, input, output : :class:`str`
        The operation's own name and the names of its tensors.
    codes : uint8 or uint16 array (O, C/groups, kh, kw)
        Weight codes n; see :attr:`weights`.
    bits : :class:`int`
        Bits of a weight code, 1 to 16.
    grid : :class:`Grid`
        What a weight code stands for.
    stride, dilation : (y, x)
        At least 1.
    padding : (top, left, bottom, right)
        Padded with the input's zero point.
    groups : :class:`int`
        Divides input and output channels; C means depthwise.
    broadcast : :class:`bool`
        The 1x1 weights are used at every position of the whole map and all products are summed: a linear layer after
        a global average pool (the 1/(H*W) is in its scale). The output map is 1x1.
    requantize : :class:`Requantize` or ``None``
        ``None``: the output is a tensor of accumulators, if there are no thresholds.
    skip : :class:`str` or ``None``
        Name of the residual operand: codes of the output's shape.
    vector_scales : :class:`VectorScales` or ``None``
        Of the weights, codes (O, ceil(C/groups / vector), kh, kw): the integer weight is multiplied by the scale of
        its vector.
    product_shift : :class:`int`
        r, 0 to 31: the product of a weight's and an input's vector scale is rounded half up to ``(w*a + 2**(r-1)) >>
        r`` before anything is multiplied by it. Not 0 only where both have scales.
    """

    name: str
    input: str
    output: str
    codes: np.ndarray
    bits: int
    grid: Grid
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    broadcast: bool = False
    requantize: Requantize | None = None
    skip: str | None = None
    vector_scales: VectorScales | None = None
    product_shift: int = 0
    thresholds: Thresholds | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        where = _check_names(self, ("input", "output"))
        put(self, "bits", _integer(self.bits, f"Weight bits {where}", 1, MAX_CODE_BITS))
        if not isinstance(self.grid, Grid):
            raise NetworkError(f"Grid {where} must be a Grid, not {self.grid!r}")
        codes = _frozen(self.codes, code_dtype(self.bits).type, f"Weight codes {where}")
        if codes.ndim != 4 or 0 in codes.shape:
            raise NetworkError(f"Weight codes {where} must have shape (O, C/groups, kh, kw), not {codes.shape}")
        if int(codes.max()) >= 1 << self.bits:
            raise NetworkError(f"Weight codes {where} must fit {self.bits} bits, not {int(codes.max())}")
        put(self, "codes", codes)
        _check_scales(self.vector_scales, codes.shape[1], codes.shape, 1, where)
        put(self, "product_shift", _integer(self.product_shift, f"Product shift {where}", 0, MAX_PRODUCT_SHIFT))
        if self.product_shift and self.vector_scales is None:
            raise NetworkError(f"Product shift {where} must be 0 without vector scales, not {self.product_shift}")
        put(self, "stride", _integers(self.stride, 2, f"Stride {where}", 1, MAX_DIMENSION))
        put(self, "dilation", _integers(self.dilation, 2, f"Dilation {where}", 1, MAX_DIMENSION))
        put(self, "padding", _integers(self.padding, 4, f"Padding {where}", 0, MAX_DIMENSION))
        put(self, "groups", _integer(self.groups, f"Groups {where}", 1, MAX_DIMENSION))
        if codes.shape[0] % self.groups:
            raise NetworkError(f"Groups {where} must divide {codes.shape[0]} output channels, not {self.groups}")
        if not isinstance(self.broadcast, bool):
            raise NetworkError(f"Broadcast {where} must be true or false, not {self.broadcast!r}")
        if self.broadcast and (
            codes.shape[2:] != (1, 1)
            or (self.stride, self.dilation, self.padding, self.groups) != ((1, 1), (1, 1), (0, 0, 0, 0), 1)
        ):
            raise NetworkError(f"Broadcast {where} must come with 1x1 weights, stride 1, no padding and one group")
        if self.thresholds is not None:
            if not isinstance(self.thresholds, Thresholds):
                raise NetworkError(f"Thresholds {where} must be Thresholds, not {self.thresholds!r}")
            if self.requantize is not None:
                raise NetworkError(f"Operation {self.name!r} must have a requantization or thresholds, not both")
            if len(self.thresholds.values) != codes.shape[0]:
                raise NetworkError(
                    f"Thresholds {where} must have {codes.shape[0]} channels, not {len(self.thresholds.values)}"
                )
        if self.requantize is None:
            if self.skip is not None:
                raise NetworkError(f"Skip {where} must come with a requantization")
            return
        if not isinstance(self.requantize, Requantize):
            raise NetworkError(f"Requantize {where} must be a Requantize, not {self.requantize!r}")
        if self.requantize.channels != codes.shape[0]:
            raise NetworkError(
                f"Requantize {where} must have {codes.shape[0]} channels, not {self.requantize.channels}"
            )
        if (self.skip is None) != (self.requantize.skip_multiplier is None):
            raise NetworkError(f"Skip and skip multiplier {where} must be given together")
        if self.skip is not None:
            _name(self.skip, f"Skip {where}")

    @property
    def quantizes(self) -> bool:
        """Whether the output holds codes, not accumulators."""
        return self.requantize is not None or self.thresholds is not None

    @property
    def weights(self) -> np.ndarray:
        """The integer weights W = p*n - c, int64 (O, C/groups, kh, kw)."""
        return self.codes.astype(np.int64) * self.grid.p(self.bits) - self.grid.c(self.bits)

    def scale_products(self, source: Tensor) -> np.ndarray | None:
        """What each weight's product is multiplied by: int64, broadcasts to the shape of the weights.

        ``None`` where neither the weights nor ``source``, the operation's input, have vector scales.
        """
        channels = self.codes.shape[1]
        weights = self.vector_scales.per_channel(channels, 1) if self.vector_scales is not None else None
        if source.vector_scales is None:
            return weights
        inputs = source.vector_scales.per_channel(source.shape[0], 0).reshape(self.groups, 1, channels, 1, 1)
        inputs = np.repeat(inputs, self.codes.shape[0] // self.groups, 1).reshape(-1, channels, 1, 1)
        if weights is None:
            return inputs
        half = 1 << self.product_shift >> 1
        return (weights * inputs + half) >> self.product_shift

    def scaled_weights(self, source: Tensor) -> np.ndarray:
        """The factors of the codes in the accumulator, P*W, int64 (O, C/groups, kh, kw); W without vector scales."""
        products = self.scale_products(source)
        return self.weights if products is None else self.weights * products

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the operation reads."""
        return (self.input,) if self.skip is None else (self.input, self.skip)

    def output_size(self, source: Tensor) -> tuple[int, int]:
        """Height and width of the output for the input ``source``; see :func:`map_size`."""
        if self.broadcast:
            return 1, 1
        height, width = self.codes.shape[2:]
        return map_size(source.shape[1:], (height, width), self.stride, self.padding, self.dilation)

    def accumulator_bounds(self, source: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest accumulator that the actual weights can reach, integers (O,) each.

        Every code of ``source``, the operation's input, may take any value from 0 to 2**bits - 1, independently. The
        arrays are of int64, or of Python integers where vector scales make bounds that int64 does not hold.
        """
        weights = self.scaled_weights(source)
        positions = source.shape[1] * source.shape[2] if self.broadcast else 1
        step = source.max_code * positions
        if int(np.abs(weights).max()) * weights[0].size * step >= 1 << 62:
            weights = weights.astype(object)
        low = np.minimum(weights, 0).sum(axis=(1, 2, 3)) * step
        high = np.maximum(weights, 0).sum(axis=(1, 2, 3)) * step
        if signed_width(int(low.min()), int(high.max())) <= 64:
            low, high = low.astype(np.int64), high.astype(np.int64)
        return low, high


@dataclass(frozen=True, eq=False)
class MaxPool2d:
    """Maximum over windows of codes; padding has code 0, the smallest.

    Parameters
    ----------
    name, input, output : :class:`str`
        The operation's own name and the names of its tensors (same bits, zero point and scale).
    kernel, stride : (y, x)
        At least 1.
    padding : (top, left, bottom, right)
        Each smaller than the kernel.
    """

    name: str
    input: str
    output: str
    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        put = object.__setattr__
        where = _check_names(self, ("input", "output"))
        put(self, "kernel", _integers(self.kernel, 2, f"Kernel {where}", 1, MAX_DIMENSION))
        put(self, "stride", _integers(self.stride, 2, f"Stride {where}", 1, MAX_DIMENSION))
        put(self, "padding", _integers(self.padding, 4, f"Padding {where}", 0, MAX_DIMENSION))
        for side, pad in enumerate(self.padding):
            if pad >= self.kernel[side % 2]:
                raise NetworkError(f"Padding {where} must be smaller than the kernel, not {self.padding!r}")

    def output_size(self, source: Tensor) -> tuple[int, int]:
        """Height and width of the output for the input ``source``; see :func:`map_size`."""
        return map_size(source.shape[1:], self.kernel, self.stride, self.padding)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the operation reads."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Add:
    """Addition of two code tensors with its own requantization: ``clip((a*M_a + b*M_b + B) >> S, 0, 2**k - 1)``.

    Parameters
    ----------
    name, a, b, output : :class:`str`
        The operation's own name and the names of its tensors, all of one shape.
    multiplier_a, multiplier_b, bias : int64 arrays (C,)
        M_a, M_b and B.
    shift : uint8 array (C,)
        S, 0 to 62.
    """

    name: str
    a: str
    b: str
    output: str
    multiplier_a: np.ndarray
    multiplier_b: np.ndarray
    bias: np.ndarray
    shift: np.ndarray

    def __post_init__(self) -> None:
        where = _check_names(self, ("a", "b", "output"))
        try:
            constants = Requantize(self.multiplier_a, self.bias, self.shift, self.multiplier_b)
        except NetworkError as error:
            raise NetworkError(f"Add {where}: {error}") from None
        if constants.skip_multiplier is None:
            raise NetworkError(f"Multiplier b {where} must be given")
        for each, value in (
            ("multiplier_a", constants.multiplier),
            ("multiplier_b", constants.skip_multiplier),
            ("bias", constants.bias),
            ("shift", constants.shift),
        ):
            object.__setattr__(self, each, value)

    @property
    def requantize(self) -> Requantize:
        """The same constants with a in the accumulator's place and b in the residual operand's."""
        return Requantize(self.multiplier_a, self.bias, self.shift, self.multiplier_b)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the operation reads."""
        return (self.a, self.b)


@dataclass(frozen=True, eq=False)
class VectorQuantize:
    """Codes on a fine grid, brought to N bits and one scale of M bits per vector and position, and back to that grid.

    For each position and vector of consecutive channels, with y the largest of its codes, the scale is the smallest
    that covers it, s = min(ceil(y / (2**N - 1)), 2**M - 1). Each code y becomes ``s * u`` with
    u = min(floor((2*y + s) / (2*s)), 2**N - 1), which is y / s rounded half up; where s = 0, so is u. This is how
    VS-Quant's activation scales are found from the data (Dai et al., arXiv 2102.04503). The result has the input's
    bits, zero point 0 and scale, so that an operation that reads it needs to know of no vectors.

    Parameters
    ----------
    name, input, output : :class:`str`
        The operation's own name and the names of its tensors: codes of N + M bits.
    bits, scale_bits : :class:`int`
        N and M, 1 to 15 each.
    vector : :class:`int`
        Channels of a vector, at least 1; the last vector may be shorter.
    """

    name: str
    input: str
    output: str
    bits: int
    scale_bits: int
    vector: int

    def __post_init__(self) -> None:
        put = object.__setattr__
        where = _check_names(self, ("input", "output"))
        put(self, "bits", _integer(self.bits, f"Bits {where}", 1, MAX_CODE_BITS - 1))
        put(self, "scale_bits", _integer(self.scale_bits, f"Scale bits {where}", 1, MAX_CODE_BITS - 1))
        put(self, "vector", _integer(self.vector, f"Vector {where}", 1, MAX_DIMENSION))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the operation reads."""
        return (self.input,)


Operation = Conv2d | MaxPool2d | Add | VectorQuantize


def _check_names(operation: Any, tensor_fields: tuple[str, ...]) -> str:
    """Check the names of an operation and return how a message names it."""
    kind = type(operation).__name__
    _name(operation.name, f"{kind} name")
    for each in tensor_fields:
        _name(getattr(operation, each), f"{kind} {each} of operation {operation.name!r}")
    return f"of operation {operation.name!r}"


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A network in integers: tensors, and operations in an order in which they can be computed.

    Every tensor but one is made by exactly one operation; that one is the input. Exactly one tensor is read by no
    operation: the output. Only the output may hold accumulators.

    Parameters
    ----------
    name : :class:`str`
        For people and reports.
    tensors : tuple of :class:`Tensor`
        In any order.
    operations : tuple of :class:`Operation`
        Topologically ordered.

    Raises
    ------
    NetworkError
        If a reference, shape, range or width does not hold; the sentence names the operation or the tensor.
    """

    name: str
    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    _by_name: dict[str, Tensor] = field(init=False, repr=False)
    _input: str = field(init=False, repr=False)
    _output: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        _name(self.name, "Network name")
        put(self, "tensors", tuple(self.tensors))
        put(self, "operations", tuple(self.operations))
        by_name: dict[str, Tensor] = {}
        for tensor in self.tensors:
            if not isinstance(tensor, Tensor):
                raise NetworkError(f"Tensors of network {self.name!r} must be of class Tensor, not {tensor!r}")
            if tensor.name in by_name:
                raise NetworkError(f"Tensor name {tensor.name!r} must be unique")
            by_name[tensor.name] = tensor
        put(self, "_by_name", by_name)
        self._check_references()
        for operation in self.operations:
            if isinstance(operation, Conv2d):
                self._check_conv(operation)
            elif isinstance(operation, MaxPool2d):
                self._check_pool(operation)
            elif isinstance(operation, VectorQuantize):
                self._check_vector_quantize(operation)
            else:
                self._check_add(operation)

    def _check_references(self) -> None:
        if not self.operations:
            raise NetworkError(f"Network {self.name!r} must have at least one operation")
        names: set[str] = set()
        made_by: dict[str, str] = {}
        for operation in self.operations:
            if not isinstance(operation, Operation):
                raise NetworkError(f"Operations must be Conv2d, MaxPool2d, Add or VectorQuantize, not {operation!r}")
            if operation.name in names:
                raise NetworkError(f"Operation name {operation.name!r} must be unique")
            names.add(operation.name)
            for name in (*operation.inputs, operation.output):
                if name not in self._by_name:
                    raise NetworkError(f"Operation {operation.name!r} names tensor {name!r}, which does not exist")
            if operation.output in made_by:
                raise NetworkError(
                    f"Tensor {operation.output!r} must be made by one operation, "
                    f"not by {made_by[operation.output]!r} and {operation.name!r}"
                )
            made_by[operation.output] = operation.name
        sources = [t.name for t in self.tensors if t.name not in made_by]
        if len(sources) != 1:
            raise NetworkError(f"Network {self.name!r} must have one input, not {sources!r}")
        known = {sources[0]}
        read: set[str] = set()
        for operation in self.operations:
            for name in operation.inputs:
                if name not in known:
                    raise NetworkError(
                        f"Operation {operation.name!r} reads tensor {name!r} before it is made: "
                        f"operations must be in topological order, without cycles"
                    )
                if self.tensor(name).kind is Kind.ACCUMULATOR:
                    raise NetworkError(f"Tensor {name!r} holds accumulators and must be the network's output")
                read.add(name)
            known.add(operation.output)
        sinks = [t.name for t in self.tensors if t.name not in read]
        if len(sinks) != 1:
            raise NetworkError(f"Network {self.name!r} must have one output, not {sinks!r}")
        if self.tensor(sources[0]).kind is not Kind.CODE:
            raise NetworkError(f"Input tensor {sources[0]!r} must hold codes")
        object.__setattr__(self, "_input", sources[0])
        object.__setattr__(self, "_output", sinks[0])

    def _check_shape(self, operation: Operation, expected: tuple[int, int, int]) -> None:
        output = self.tensor(operation.output)
        if min(expected) < 1:
            raise NetworkError(f"Operation {operation.name!r} must fit its input, but its output would be {expected}")
        if output.shape != expected:
            raise NetworkError(f"Output of operation {operation.name!r} must have shape {expected}, not {output.shape}")

    def _check_conv(self, operation: Conv2d) -> None:
        source, output = self.tensor(operation.input), self.tensor(operation.output)
        out_channels, group_channels = operation.codes.shape[:2]
        if source.shape[0] != group_channels * operation.groups:
            raise NetworkError(
                f"Weight codes of operation {operation.name!r} must be for {source.shape[0]} input channels, "
                f"not {group_channels * operation.groups}"
            )
        self._check_shape(operation, (out_channels, *operation.output_size(source)))
        if operation.skip is not None and self.tensor(operation.skip).shape != output.shape:
            raise NetworkError(
                f"Skip of operation {operation.name!r} must have shape {output.shape}, "
                f"not {self.tensor(operation.skip).shape}"
            )
        if (output.kind is Kind.ACCUMULATOR) == operation.quantizes:
            raise NetworkError(
                f"Output of operation {operation.name!r} must hold "
                f"{'codes' if operation.quantizes else 'accumulators'}, not {output.kind.value}s"
            )
        if operation.thresholds is not None and operation.thresholds.bits != output.bits:
            raise NetworkError(
                f"Thresholds of operation {operation.name!r} must be {output.max_code} per channel, "
                f"not {operation.thresholds.values.shape[1]}"
            )
        if operation.product_shift and source.vector_scales is None:
            raise NetworkError(
                f"Product shift of operation {operation.name!r} must be 0, since tensor {source.name!r} has no vector "
                f"scales, not {operation.product_shift}"
            )
        scales = [x for x in (operation.vector_scales, source.vector_scales) if x is not None]
        if len({x.vector for x in scales}) > 1:
            raise NetworkError(
                f"Vectors of operation {operation.name!r} must have the {scales[1].vector} channels of those of tensor "
                f"{source.name!r}, not {scales[0].vector}"
            )
        low, high = self.accumulator_bounds(operation)
        needed = signed_width(int(low.min()), int(high.max()))
        if needed > MAX_ACCUMULATOR_BITS:
            raise NetworkError(
                f"Accumulators of operation {operation.name!r} must fit {MAX_ACCUMULATOR_BITS} bits, not {needed}"
            )
        if not operation.quantizes and output.bits < needed:
            raise NetworkError(
                f"Output of operation {operation.name!r} must have at least {needed} bits, not {output.bits}"
            )

    def _check_pool(self, operation: MaxPool2d) -> None:
        source, output = self.tensor(operation.input), self.tensor(operation.output)
        self._check_shape(operation, (source.shape[0], *operation.output_size(source)))
        if not _same_codes(source, output):
            raise NetworkError(f"Output of operation {operation.name!r} must have its input's bits and scale")

    def _check_vector_quantize(self, operation: VectorQuantize) -> None:
        source, output = self.tensor(operation.input), self.tensor(operation.output)
        self._check_shape(operation, source.shape)
        if not _same_codes(source, output):
            raise NetworkError(f"Output of operation {operation.name!r} must have its input's bits and scale")
        bits = operation.bits + operation.scale_bits
        if (source.bits, source.zero_point) != (bits, 0) or source.vector_scales is not None:
            raise NetworkError(
                f"Input of operation {operation.name!r} must have {bits} bits, zero point 0 and no vector scales, not "
                f"{source.bits} bits, zero point {source.zero_point} and "
                f"{'no ' if source.vector_scales is None else ''}vector scales"
            )

    def _check_add(self, operation: Add) -> None:
        self._check_shape(operation, self.tensor(operation.a).shape)
        output = self.tensor(operation.output)
        if self.tensor(operation.b).shape != output.shape:
            raise NetworkError(f"Inputs of operation {operation.name!r} must have the same shape")
        if output.kind is not Kind.CODE:
            raise NetworkError(f"Output of operation {operation.name!r} must hold codes")
        if operation.requantize.channels != output.shape[0]:
            raise NetworkError(
                f"Constants of operation {operation.name!r} must have {output.shape[0]} channels, "
                f"not {operation.requantize.channels}"
            )

    def tensor(self, name: str) -> Tensor:
        """The tensor called ``name``."""
        return self._by_name[name]

    @property
    def input(self) -> Tensor:
        """The tensor that no operation makes."""
        return self.tensor(self._input)

    @property
    def output(self) -> Tensor:
        """The tensor that no operation reads."""
        return self.tensor(self._output)

    def operation(self, name: str) -> Operation:
        """The operation called ``name``.

        Raises
        ------
        NetworkError
            If there is none; the sentence lists the names.
        """
        for operation in self.operations:
            if operation.name == name:
                return operation
        names = ", ".join(operation.name for operation in self.operations)
        raise NetworkError(f"Operation of network {self.name!r} must be one of {names}, not {name!r}")

    def accumulator_bounds(self, operation: Conv2d) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`Conv2d.accumulator_bounds` for the operation's own input."""
        return operation.accumulator_bounds(self.tensor(operation.input))


def _same_codes(a: Tensor, b: Tensor) -> bool:
    """Whether every code means the same in both tensors."""
    if (a.kind, a.bits, a.zero_point, a.scale) != (b.kind, b.bits, b.zero_point, b.scale):
        return False
    return b.vector_scales is None if a.vector_scales is None else a.vector_scales.same(b.vector_scales)


def signed_width(low: int, high: int) -> int:
    """Bits of the two's complement number that holds every integer from ``low`` to ``high``; at least 1."""
    return max((low if low >= 0 else ~low).bit_length(), (high if high >= 0 else ~high).bit_length()) + 1


def map_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Height and width of the map of windows on a map of ``size``; less than 1 where no window fits."""
    height, width = (
        (extent + before + after - ((k - 1) * d + 1)) // s + 1
        for extent, k, s, before, after, d in zip(size, kernel, stride, padding[:2], padding[2:], dilation, strict=True)
    )
    return height, width
