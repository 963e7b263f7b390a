"""The executor: every tensor of an integer network, exactly.

Products are summed in float32 matrix multiplications where every partial sum is proved to stay below 2**24, in float64
ones below 2**53 (both are then exact, and as fast as a float convolution), in int64 otherwise; the network's own check
keeps accumulators within 63 bits.
"""

from __future__ import annotations

import numpy as np

from golden.network import Conv2d, IntegerNetwork, MaxPool2d, NetworkError, Tensor, VectorQuantize, code_dtype
from golden.requantize import count_thresholds, requantize

__all__ = ["accumulate", "execute", "vector_quantize", "weight_matrix", "windows"]


def execute(network: IntegerNetwork, x: np.ndarray) -> dict[str, np.ndarray]:
    """Compute every tensor of ``network`` for a batch of input codes.

    Parameters
    ----------
    network : :class:`~golden.network.IntegerNetwork`
        What to compute.
    x : unsigned integer array (N, C, H, W)
        Input codes.

    Returns
    -------
    :class:`dict`
        By tensor name, the input included: codes as uint8 (to 8 bits) or uint16, accumulators as int64; (N, C, H, W).

    Raises
    ------
    NetworkError
        If ``x`` is not what the network's input takes.
    """
    values = {network.input.name: check_codes(x, network.input)}
    for operation in network.operations:
        output = network.tensor(operation.output)
        if isinstance(operation, MaxPool2d):
            values[output.name] = _max_pool(values[operation.input], operation)
        elif isinstance(operation, Conv2d):
            acc = accumulate(values[operation.input], operation, network)
            if operation.thresholds is not None:
                acc = count_thresholds(acc, operation.thresholds)
            elif operation.requantize is not None:
                skip = values[operation.skip] if operation.skip is not None else None
                acc = requantize(acc, operation.requantize, output.bits, skip)
            values[output.name] = acc
        elif isinstance(operation, VectorQuantize):
            values[output.name] = vector_quantize(values[operation.input], operation)
        else:
            a, b = values[operation.a], values[operation.b]
            values[output.name] = requantize(a.astype(np.int64), operation.requantize, output.bits, b)
    return values


def check_codes(x: np.ndarray, tensor: Tensor) -> np.ndarray:
    """``x`` in the dtype of the tensor's codes, checked for kind, shape and range."""
    x = np.asarray(x)
    if x.dtype.kind not in "ui":
        raise NetworkError(f"Codes of tensor {tensor.name!r} must be integers, not {x.dtype.name}")
    if x.ndim != 4 or x.shape[1:] != tensor.shape or x.shape[0] == 0:
        wanted = ", ".join(str(s) for s in tensor.shape)
        raise NetworkError(f"Codes of tensor {tensor.name!r} must have shape (N, {wanted}), not {x.shape}")
    if int(x.min()) < 0 or int(x.max()) > tensor.max_code:
        raise NetworkError(
            f"Codes of tensor {tensor.name!r} must be between 0 and {tensor.max_code}, "
            f"not {int(x.min())}..{int(x.max())}"
        )
    return x.astype(code_dtype(tensor.bits))


def windows(x: np.ndarray, operation: Conv2d, source: Tensor) -> np.ndarray:
    """The codes that each output position multiplies.

    Parameters
    ----------
    x : unsigned array (N, C, H, W)
        Codes of ``source``, the operation's input.

    Returns
    -------
    array (N, groups, positions, K) of the dtype of ``x``
        Positions row by row; the K codes of one group ordered (ky, kx, channel), padding filled with the zero point.
        With ``broadcast`` the window is the whole map.
    """
    n, channels, height, width = x.shape
    if operation.broadcast:
        return x.transpose(0, 2, 3, 1).reshape(n, 1, 1, height * width * channels)
    group_channels, kh, kw = operation.codes.shape[1:]
    top, left, bottom, right = operation.padding
    (sy, sx), (dy, dx) = operation.stride, operation.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=x.dtype.type(source.zero_point))
    view = np.lib.stride_tricks.sliding_window_view(padded, ((kh - 1) * dy + 1, (kw - 1) * dx + 1), axis=(2, 3))
    view = view[:, :, ::sy, ::sx, ::dy, ::dx]
    oh, ow = view.shape[2:4]
    view = view.reshape(n, operation.groups, group_channels, oh, ow, kh, kw)
    return view.transpose(0, 1, 3, 4, 5, 6, 2).reshape(n, operation.groups, oh * ow, kh * kw * group_channels)


def weight_matrix(operation: Conv2d, source: Tensor) -> np.ndarray:
    """Weight codes n in the order of :func:`windows`: unsigned (groups, O/groups, K)."""
    return _matrix(operation.codes, operation, source)


def _matrix(array: np.ndarray, operation: Conv2d, source: Tensor) -> np.ndarray:
    """An array of the shape of the weights in the order of :func:`windows`: (groups, O/groups, K)."""
    if operation.broadcast:
        array = np.broadcast_to(array, (*array.shape[:2], *source.shape[1:]))
    return array.transpose(0, 2, 3, 1).reshape(operation.groups, array.shape[0] // operation.groups, -1)


def accumulate(x: np.ndarray, operation: Conv2d, network: IntegerNetwork) -> np.ndarray:
    """The accumulators of an operation whose input codes are ``x``: int64 (N, O, OH, OW).

    ``sum(W * u)``, or ``sum(P * W * u)`` where there are vector scales.
    """
    source, output = network.tensor(operation.input), network.tensor(operation.output)
    weights = _matrix(operation.scaled_weights(source), operation, source)
    # Python integers: the largest sum of magnitudes proves that a sum of floats is exact in any order.
    low, high = network.accumulator_bounds(operation)
    largest = int((high.astype(object) - low).max())
    number = np.dtype(np.float32 if largest < 1 << 24 else np.float64 if largest < 1 << 53 else np.int64)
    columns = weights.transpose(0, 2, 1).astype(number)
    frames = max(1, (1 << 24) // max(1, columns.shape[1] * output.shape[1] * output.shape[2] * operation.groups))
    acc = np.empty((x.shape[0], operation.groups, output.shape[1] * output.shape[2], columns.shape[2]), np.int64)
    for start in range(0, x.shape[0], frames):
        part = slice(start, start + frames)
        acc[part] = windows(x[part], operation, source).astype(number) @ columns
    return np.ascontiguousarray(acc.transpose(0, 1, 3, 2)).reshape(x.shape[0], *output.shape)


def vector_quantize(x: np.ndarray, operation: VectorQuantize) -> np.ndarray:
    """The codes ``s * u`` of ``operation`` for the input codes ``x`` (N, C, H, W), of its shape and dtype."""
    top = (1 << operation.bits) - 1
    starts = np.arange(0, x.shape[1], operation.vector)
    fine = x.astype(np.int64)
    largest = np.maximum.reduceat(fine, starts, axis=1)
    scale = np.minimum(-(-largest // top), (1 << operation.scale_bits) - 1)
    scale = np.repeat(scale, operation.vector, axis=1)[:, : x.shape[1]]
    coarse = np.minimum((2 * fine + scale) // np.maximum(2 * scale, 1), top)
    return (scale * coarse).astype(x.dtype)


def _max_pool(x: np.ndarray, operation: MaxPool2d) -> np.ndarray:
    top, left, bottom, right = operation.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    view = np.lib.stride_tricks.sliding_window_view(padded, operation.kernel, axis=(2, 3))
    return np.ascontiguousarray(view[:, :, :: operation.stride[0], :: operation.stride[1]].max(axis=(4, 5)))
