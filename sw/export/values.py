"""What a node of the graph stands for on the way to an operation of the integer network."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from golden.execute import accumulate
from golden.network import Add, Conv2d, IntegerNetwork, Tensor

__all__ = ["Average", "Channels", "Code", "Norm", "Result", "Sum", "Value"]


@dataclass(frozen=True)
class Code:
    """A quantized tensor. ``flat``: the model sees it as (N, features)."""

    tensor: Tensor
    flat: bool


@dataclass(frozen=True)
class Average:
    """A quantized tensor whose global average is meant."""

    tensor: Tensor
    flat: bool


@dataclass(frozen=True)
class Norm:
    """Batch norm's parameters as float64 arrays; the default is its absence."""

    gamma: np.ndarray | float = 1.0
    beta: np.ndarray | float = 0.0
    mean: np.ndarray | float = 0.0
    variance: np.ndarray | float = 1.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class Result:
    """A convolution's or linear layer's result, not yet quantized, with what was folded into it so far."""

    operation: Conv2d
    source: Tensor
    shape: tuple[int, int, int]
    weight_scale: np.ndarray
    input_scale: float
    bias: np.ndarray | float
    norm: Norm | None = None
    skip: Tensor | None = None


@dataclass(frozen=True)
class Sum:
    """The sum of two quantized tensors."""

    name: str
    a: Code
    b: Code


Value = Code | Average | Result | Sum


@dataclass(frozen=True)
class Channels:
    """The exact real value per channel, r = slope·acc + skip_slope·skip + offset, of one requantized operation."""

    operation: Conv2d | Add
    slopes: Sequence[Fraction]
    offsets: Sequence[Fraction]
    skip_slopes: Sequence[Fraction]

    def ties(self, network: IntegerNetwork, values: dict[str, np.ndarray]) -> int:
        """Elements with r = j − ½ for a code j ≥ 1, exactly; float64 finds the candidates, rationals decide."""
        operation = self.operation
        if isinstance(operation, Add):
            acc, skip = values[operation.a].astype(np.int64), values[operation.b]
        else:
            acc = accumulate(values[operation.input], operation, network)
            skip = values[operation.skip] if operation.skip else np.zeros_like(acc)
        slopes, skip_slopes, offsets = (np.array([float(x) for x in xs])[:, None, None]
                                        for xs in (self.slopes, self.skip_slopes, self.offsets))
        doubled = 2 * (slopes * acc + skip_slopes * skip + offsets)
        odd = 2 * np.floor(doubled / 2) + 1
        top = 2 * network.tensor(operation.output).max_code - 1
        count = 0
        for where in np.argwhere((np.abs(doubled - odd) < 1e-3) & (odd >= 1) & (odd <= top)):
            n, c, y, x = where.tolist()
            exact = (self.slopes[c] * int(acc[n, c, y, x]) + self.skip_slopes[c] * int(skip[n, c, y, x])
                     + self.offsets[c])
            count += 2 * exact == int(odd[n, c, y, x])
        return count
