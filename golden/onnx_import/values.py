"""Values: the tensors of a file, as its operators see them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from golden.affine import Expression, InexactError, rationals, weight_codes
from golden.network import Grid, MaxPool2d
from golden.onnx_import.constants import Constant
from golden.onnx_import.graph import Node, UnsupportedModelError
from golden.onnx_import.result import AXES, Step

__all__ = ["Pool", "Value", "canonical", "coded", "integer_weights", "printable"]


@dataclass(frozen=True)
class Pool:
    """A maximum over windows that waits for codes: its node, the operation without tensors, and the map it makes."""

    node: Node
    operation: MaxPool2d
    size: tuple[int, int]


@dataclass(frozen=True)
class Value:
    """A tensor of the file.

    Parameters
    ----------
    expression : :class:`~golden.affine.Expression` or ``None``
        What it is; ``None``: the input before its quantizer.
    sizes : tuple of :class:`int`
        The file's, without the batch.
    integer : :class:`bool`
        Whether its type is an integer.
    padding, fill
        What a Pad has put around it, (top, left, bottom, right), and with which number.
    order : :class:`str`
        The order in which ``sizes`` run through C, H and W; H is absent in (C, L) or (L, C).
    steps : tuple of :data:`~golden.onnx_import.result.Step`
        What was done to the input before its quantizer.
    pools : tuple of :class:`Pool`
        Pools of what is not quantized yet, first one first: its quantizer goes before them, which changes nothing,
        since it is monotone.
    """

    expression: Expression | None
    sizes: tuple[int, ...]
    integer: bool
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: Fraction = Fraction(0)
    order: str = AXES
    steps: tuple[Step, ...] = ()
    pools: tuple[Pool, ...] = ()

    @property
    def known(self) -> Expression:
        """The expression of a value that is not the raw input."""
        assert self.expression is not None
        return self.expression

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.known.shape

    @property
    def axes(self) -> str:
        """What each of the sizes is; of a flattened map nothing but C."""
        return {1: "C", 2: self.order.replace("H", "")}.get(len(self.sizes), self.order)

    @property
    def padded(self) -> bool:
        """Whether a Pad is around it."""
        return any(self.padding)


def integer_weights(node: Node, constant: Constant, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer weights, and what one step of them is worth for each index of ``axis``, as rationals.

    Raises
    ------
    UnsupportedModelError
        If they are no integers and were not quantized, or not with one scale per index.
    """
    values, scale = constant.values, constant.scale
    if constant.integers is None or scale is None:
        finite = values.dtype.kind in "iuf" and values.size and np.isfinite(values).all()
        whole = finite and np.array_equal(values, np.rint(values))
        if not whole or np.abs(values.astype(np.float64)).max() >= 1 << 31:
            raise UnsupportedModelError(f"{node.label} must have integer weights, or such as a quantizer makes")
        return values.astype(np.int64), rationals(np.ones(values.shape[axis], np.int64))
    if not values.size:
        raise UnsupportedModelError(f"{node.label} must have weights")
    others = np.moveaxis(scale, axis, 0).reshape(scale.shape[axis], -1)
    if (others != others[:, :1]).any():
        raise UnsupportedModelError(f"{node.label} must have one weight scale for the layer or for each output channel")
    return constant.integers, rationals(others[:, 0])


def coded(node: Node, weights: np.ndarray) -> tuple[np.ndarray, int, Grid]:
    """:func:`~golden.affine.weight_codes`, refused in the name of a node."""
    try:
        return weight_codes(weights)
    except InexactError as error:
        raise UnsupportedModelError(f"{node.label} {error}") from None


def canonical(sizes: tuple[int, ...], order: str = AXES) -> tuple[int, int, int]:
    """(C, H, W) of sizes without the batch; a one-dimensional signal has H = 1."""
    axes = {1: "C", 2: order.replace("H", "")}.get(len(sizes), order)
    known = {"H": 1, "W": 1, **dict(zip(axes, sizes, strict=True))}
    return known["C"], known["H"], known["W"]


def printable(name: str) -> str:
    """``name`` as part of a file name: letters, digits, '_', '-' and '.'."""
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_")[:150] or "unnamed"
