"""From an integer network to layers: what the accelerator computes in one run of tiles each.

Everything becomes a convolution, its pooling window and its residual operand:

* a max pool is taken into the convolution before it where nothing else reads that convolution's output, it has no
  residual operand, and the windows neither overlap nor reach over the edge, so that no position is computed twice;
* another max pool becomes a convolution of its own that passes the codes on (1x1, weight 1, one group a channel);
* a sum becomes such a convolution of ``a`` whose residual operand is ``b``;
* the windows of a first convolution may be laid out along the channels by the host (:func:`packed`), so that few
  input channels do not leave lanes empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from golden.execute import windows
from golden.network import (
    MAX_DIMENSION,
    MAX_ELEMENTS,
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    MaxPool2d,
    Requantize,
    Tensor,
)

__all__ = ["Layer", "lower", "pack_frame", "packable", "packed"]

PASS_BITS = 2
PASS_CODE = 3
"""The weight 1 in two's complement of two bits, the least that has both 1 and the 0 of foreign channels."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution on its way to the hardware.

    Parameters
    ----------
    conv : :class:`~golden.network.Conv2d`
        What is computed; its name is the layer's.
    source : :class:`~golden.network.Tensor`
        Its input as it lies in the activation buffer.
    output : :class:`~golden.network.Tensor`
        What is written: the pooled tensor where there is a pool.
    operations : tuple of :class:`str`
        Names of the network's operations that this computes.
    skip : :class:`~golden.network.Tensor` or ``None``
        The residual operand.
    pool : :class:`~golden.network.MaxPool2d` or ``None``
        The windows of positions whose maximum is written.
    passes : :class:`bool`
        The convolution passes codes on and is none of the network's: positions outside hold code 0, and it has no
        products of its own to count.
    unpacked : :class:`~golden.network.Conv2d` or ``None``
        The network's own convolution, where the host lays its windows along the channels.
    """

    conv: Conv2d
    source: Tensor
    output: Tensor
    operations: tuple[str, ...]
    skip: Tensor | None = None
    pool: MaxPool2d | None = None
    passes: bool = False
    unpacked: Conv2d | None = None

    @property
    def name(self) -> str:
        """The name of the layer's first operation."""
        return self.conv.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the layer reads."""
        return self.conv.inputs

    @property
    def pad_code(self) -> int:
        """The code of a position outside the map."""
        return 0 if self.passes else self.source.zero_point

    @property
    def kernel(self) -> tuple[int, int]:
        """Taps along y and x; the whole map where the weights are broadcast."""
        height, width = self.source.shape[1:] if self.conv.broadcast else self.conv.codes.shape[2:]
        return height, width

    @property
    def positions(self) -> int:
        """Positions whose products are summed, those of a pooling window each."""
        _, height, width = self.output.shape
        return height * width * self.window

    @property
    def window(self) -> int:
        """Positions of one output pixel."""
        return 1 if self.pool is None else self.pool.kernel[0] * self.pool.kernel[1]


def lower(network: IntegerNetwork) -> list[Layer]:
    """The layers of a network in an order in which they can be computed."""
    made_by = {operation.output: operation for operation in network.operations}
    readers = {tensor.name: 0 for tensor in network.tensors}
    for operation in network.operations:
        for name in operation.inputs:
            readers[name] += 1

    def fuses(pool: MaxPool2d) -> bool:
        before = made_by.get(pool.input)
        return (
            isinstance(before, Conv2d)
            and before.skip is None
            and readers[pool.input] == 1
            and all(step >= size for step, size in zip(pool.stride, pool.kernel, strict=True))
            and not any(pool.padding)
        )

    fused = {op.input: op for op in network.operations if isinstance(op, MaxPool2d) and fuses(op)}
    layers = []
    for operation in network.operations:
        output = network.tensor(operation.output)
        if isinstance(operation, Conv2d):
            pool = fused.get(output.name)
            layers.append(
                Layer(
                    conv=operation,
                    source=network.tensor(operation.input),
                    output=output if pool is None else network.tensor(pool.output),
                    operations=(operation.name,) if pool is None else (operation.name, pool.name),
                    skip=None if operation.skip is None else network.tensor(operation.skip),
                    pool=pool,
                )
            )
        elif isinstance(operation, Add):
            conv = _passing(operation.name, operation.a, output, operation.requantize, operation.b)
            layers.append(
                Layer(
                    conv=conv,
                    source=network.tensor(operation.a),
                    output=output,
                    operations=(operation.name,),
                    skip=network.tensor(operation.b),
                    passes=True,
                )
            )
        elif isinstance(operation, MaxPool2d) and operation.input not in fused:
            ones, zeros = np.ones(output.shape[0], np.int64), np.zeros(output.shape[0], np.int64)
            conv = _passing(operation.name, operation.input, output, Requantize(ones, zeros, zeros), None)
            layers.append(
                Layer(
                    conv=conv,
                    source=network.tensor(operation.input),
                    output=output,
                    operations=(operation.name,),
                    pool=operation,
                    passes=True,
                )
            )
    return layers


def _passing(name: str, source: str, output: Tensor, constants: Requantize, skip: str | None) -> Conv2d:
    """The convolution whose accumulators are its input's codes."""
    channels = output.shape[0]
    return Conv2d(
        name=name,
        input=source,
        output=output.name,
        codes=np.full((channels, 1, 1, 1), PASS_CODE, np.uint8),
        bits=PASS_BITS,
        grid=Grid.TWOS_COMPLEMENT,
        groups=channels,
        requantize=constants,
        skip=skip,
    )


def packable(layers: list[Layer], network: IntegerNetwork) -> bool:
    """Whether the host may lay the first layer's windows along the channels.

    It may if nothing but one convolution reads the input, if that has more than one tap, and if the result is a tensor.
    """
    first = layers[0]
    readers = [layer for layer in layers if network.input.name in layer.inputs]
    if readers != [first] or first.conv.skip == network.input.name or first.passes or first.conv.broadcast:
        return False
    shape = _packed_shape(first)
    return shape[0] > first.source.shape[0] and max(shape) <= MAX_DIMENSION and math.prod(shape) <= MAX_ELEMENTS


def packed(layer: Layer) -> Layer:
    """The layer whose windows lie along the channels: 1x1, its channels ordered (group, ky, kx, channel of the group).

    The map is that of the positions; what is outside the network's own map is already the zero point.
    """
    conv = layer.conv
    shape = _packed_shape(layer)
    return replace(
        layer,
        conv=replace(
            conv,
            codes=conv.codes.transpose(0, 2, 3, 1).reshape(conv.codes.shape[0], shape[0] // conv.groups, 1, 1),
            stride=(1, 1),
            dilation=(1, 1),
            padding=(0, 0, 0, 0),
        ),
        source=replace(layer.source, shape=shape),
        unpacked=conv,
    )


def _packed_shape(layer: Layer) -> tuple[int, int, int]:
    rows, columns = layer.conv.codes.shape[2:]
    return (layer.source.shape[0] * rows * columns, *layer.conv.output_size(layer.source))


def pack_frame(frame: np.ndarray, layer: Layer, source: Tensor) -> np.ndarray:
    """The windows of one frame (C, H, W) of the network's ``source`` in the shape of a packed layer's source."""
    assert layer.unpacked is not None
    gathered = windows(frame[None], layer.unpacked, source)[0]
    return gathered.transpose(0, 2, 1).reshape(layer.source.shape)
