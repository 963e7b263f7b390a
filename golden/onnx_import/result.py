"""What an import gives: the network, and what its codes mean in the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from golden.affine import Exact
from golden.network import Conv2d, IntegerNetwork, Kind, code_dtype
from golden.onnx_import.graph import UnsupportedModelError
from golden.onnx_import.levels import Levels

__all__ = ["AXES", "Import", "InputForm", "Step", "View"]

AXES = "CHW"

Step = Callable[[np.ndarray], np.ndarray]
"""What is done to a batch of inputs, in float32."""


@dataclass(frozen=True)
class View:
    """A tensor of the file that a tensor of the network holds: the value of a code is ``scale*code + offset``.

    ``sizes`` are the file's, without the batch; ``order`` is the order in which they run through C, H and W.
    """

    tensor: str
    scale: Fraction
    offset: Fraction
    sizes: tuple[int, ...]
    order: str = AXES

    def in_file(self, x: np.ndarray) -> np.ndarray:
        """(N, C, H, W) in the file's own form."""
        axes = [0, *(1 + AXES.index(axis) for axis in self.order)]
        return np.ascontiguousarray(x.transpose(axes)).reshape(len(x), *self.sizes)


@dataclass(frozen=True, eq=False)
class InputForm:
    """How the file's input becomes codes.

    Parameters
    ----------
    sizes : tuple of :class:`int`
        Of the input in the file, without the batch.
    order : :class:`str`
        The order in which the sizes run through C, H and W when it is quantized.
    low, high : :class:`int`
        Integers that it takes; the codes are these minus ``low``.
    levels : :class:`~golden.onnx_import.levels.Levels` or ``None``
        The file's own quantizer; ``None``: the input holds the integers themselves.
    steps : tuple of :data:`Step`
        What the file does with it before.
    """

    sizes: tuple[int, ...]
    order: str
    low: int
    high: int
    levels: Levels | None = None
    steps: tuple[Step, ...] = ()

    def integers(self, x: np.ndarray) -> np.ndarray:
        """The integers of the file's input (N, sizes), behind what the file does before it quantizes."""
        for step in self.steps:
            x = step(x)
        if self.levels is None:
            return x.astype(np.int64)
        found = self.levels.quantize(x)
        return (found + 1) // 2 - 1 if self.levels.bipolar else found


@dataclass(frozen=True, eq=False)
class Import:
    """An imported network.

    Members
    -------
    network : :class:`~golden.network.IntegerNetwork`
        Tensors and operations are called as in the file, as far as such a name can be a file name.
    notices : tuple of :class:`str`
        What the reader should know: nodes that were dropped, what was assumed, accumulators that differ.
    views : :class:`dict`
        :class:`View` by name of the file's tensor.
    exact : :class:`dict`
        :class:`~golden.affine.Exact` by operation: the file's own arithmetic, from which its constants were made.
    input_form : :class:`InputForm`
        How the file's input becomes codes.
    """

    network: IntegerNetwork
    notices: tuple[str, ...]
    views: dict[str, View]
    exact: dict[str, Exact]
    input_form: InputForm
    input_name: str = field(default="input")

    @property
    def tensors(self) -> dict[str, str]:
        """Name of the network's tensor by name of the file's."""
        return {name: view.tensor for name, view in self.views.items()}

    @property
    def mismatches(self) -> int:
        """(Accumulator, skip) pairs of all operations whose codes no constants give as the file does."""
        return sum(sum(each.mismatches) for each in self.exact.values())

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Input codes of the file's input values, (N, C, H, W) or in the file's own form, batch first.

        Through the file's own quantizer in float32, or as the integers that they are.

        Raises
        ------
        UnsupportedModelError
            If they are no numbers, no integers where they should be, outside the input's range or of another shape.
        """
        form, source, what = self.input_form, self.network.input, f"Values of input {self.input_name!r}"
        x = np.asarray(x)
        if form.levels is None and (x.dtype.kind not in "iuf" or not np.array_equal(x, np.rint(x))):
            raise UnsupportedModelError(f"{what} must be integers, not {x.dtype.name} numbers")
        if x.dtype.kind not in "iuf" or not np.isfinite(x).all():
            raise UnsupportedModelError(f"{what} must be finite numbers")
        if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(form.sizes) or x.shape[0] == 0:
            wanted = ", ".join(map(str, form.sizes))
            raise UnsupportedModelError(f"{what} must have shape (N, {wanted}), not {x.shape}")
        if form.levels is None and (x.min() < form.low or x.max() > form.high):
            raise UnsupportedModelError(
                f"{what} must be between {form.low} and {form.high}, not {int(x.min())}..{int(x.max())}"
            )
        found = form.integers(x.reshape(len(x), *form.sizes))
        shape = dict(zip(AXES, source.shape, strict=True))
        found = found.reshape(len(x), *(shape[axis] for axis in form.order))
        canonical = found.transpose(0, *(1 + form.order.index(axis) for axis in AXES))
        return np.ascontiguousarray(canonical - form.low).astype(code_dtype(source.bits))

    def values(self, name: str, values: np.ndarray) -> np.ndarray:
        """The file's numbers, float64 in the file's own form, of codes or accumulators (N, C, H, W) of its ``name``."""
        view = self.views[name]
        tensor = self.network.tensor(view.tensor)
        if tensor.kind is Kind.CODE:
            found = values.astype(np.float64) * float(view.scale) + float(view.offset)
        else:
            assert tensor.slope is not None and tensor.offset is not None
            found = tensor.slope[:, None, None] * values + tensor.offset[:, None, None]
        return view.in_file(found)

    def codes(self, name: str, values: np.ndarray) -> np.ndarray:
        """The codes (N, C, H, W), int64, that stand for the file's numbers of its code tensor ``name``.

        The nearest ones: a float32 product of scale and code is not the exact one.
        """
        view = self.views[name]
        shape = dict(zip(AXES, self.network.tensor(view.tensor).shape, strict=True))
        found = np.rint((np.asarray(values, np.float64) - float(view.offset)) / float(view.scale)).astype(np.int64)
        found = found.reshape(-1, *(shape[axis] for axis in view.order))
        return np.ascontiguousarray(found.transpose(0, *(1 + view.order.index(axis) for axis in AXES)))

    def table(self) -> str:
        """One line an operation: its name, what it is, the bits of its weights, and what it makes."""
        rows = []
        for operation in self.network.operations:
            output = self.network.tensor(operation.output)
            what, weights = type(operation).__name__, ""
            if isinstance(operation, Conv2d):
                kernel = "×".join(map(str, operation.codes.shape[2:]))
                kind = f"{kernel} in {operation.groups} groups" if operation.groups > 1 else kernel
                whole = operation.codes.shape[2:] == self.network.tensor(operation.input).shape[1:]
                linear = operation.broadcast or (whole and output.shape[1:] == (1, 1))
                what = "linear" if linear else f"convolution {kind}"
                weights = f"{operation.bits}-bit weights"
            size = "×".join(map(str, output.shape))
            codes = f"{output.bits}-bit {output.kind.value}s" + f", zero point {output.zero_point}" * bool(
                output.zero_point
            )
            rows.append((operation.name, what, weights, output.name, size, codes))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "".join(f"{line.rstrip()}\n" for line in lines)
