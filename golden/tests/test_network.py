"""What the integer network refuses, by message, and its derived numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from golden.network import (
    Add,
    Conv2d,
    Grid,
    IntegerNetwork,
    Kind,
    MaxPool2d,
    NetworkError,
    Requantize,
    Tensor,
    signed_width,
)

X = Tensor("x", (2, 4, 4), bits=4)
Y = Tensor("y", (3, 4, 4), bits=4)
LOGITS = Tensor("y", (3, 4, 4), Kind.ACCUMULATOR, 20, slope=np.ones(3), offset=np.zeros(3))
CODES = np.arange(6).reshape(3, 2, 1, 1)
CONSTANTS = Requantize(np.ones(3, int), np.zeros(3, int), np.zeros(3, int))
CONV = Conv2d("c", "x", "y", CODES, 4, Grid.ODD, requantize=CONSTANTS)


@pytest.mark.parametrize("bits", range(1, 17))
def test_grids(bits):
    codes = np.arange(1 << bits)
    odd = Conv2d("c", "x", "y", codes.reshape(1, -1, 1, 1), bits, Grid.ODD).weights.ravel()
    assert (odd % 2 != 0).all() and odd[0] == -odd[-1] == 1 - (1 << bits) and (np.diff(odd) == 2).all()
    twos = Conv2d("c", "x", "y", codes.reshape(1, -1, 1, 1), bits, Grid.TWOS_COMPLEMENT).weights.ravel()
    assert twos[0] == -(1 << (bits - 1)) and twos[-1] == (1 << (bits - 1)) - 1 and (np.diff(twos) == 1).all()


def test_bipolar_is_the_odd_grid_of_one_bit():
    assert Conv2d("c", "x", "y", np.array([0, 1]).reshape(1, 2, 1, 1), 1, Grid.ODD).weights.ravel().tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("low", "high", "width"), [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-3, 1, 3), (-128, 127, 8), (0, 128, 9)]
)
def test_signed_width(low, high, width):
    assert signed_width(low, high) == width


def test_arrays_are_copies_and_read_only():
    codes = CODES.copy()
    conv = replace(CONV, codes=codes)
    codes[0] = 9
    assert conv.codes[0, 0, 0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        conv.codes[0] = 1


def test_an_operation_is_found_by_name():
    network = IntegerNetwork("n", (X, Y), (CONV,))
    assert network.operation("c") is CONV and network.tensor("x") is X
    assert (network.input, network.output) == (X, Y)
    with pytest.raises(NetworkError, match=r"^Operation of network 'n' must be one of c, not 'd'$"):
        network.operation("d")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": ""}, r"^Tensor name must be a printable name of 1 to 200 characters, not ''$"),
        ({"name": "a\n"}, r"^Tensor name must be a printable name of 1 to 200 characters, not 'a\\n'$"),
        ({"shape": (1, 2)}, r"^Shape of tensor 'x' must be 3 integers, not \(1, 2\)$"),
        ({"shape": 3}, r"^Shape of tensor 'x' must be 3 integers, not of type int$"),
        ({"shape": (1, 0, 2)}, r"^Shape of tensor 'x' must be between 1 and 65536, not \(1, 0, 2\)$"),
        ({"shape": (1, 65536, 65536)}, r"^Shape of tensor 'x' must have at most 268435456 elements, not .*$"),
        ({"kind": "code"}, r"^Kind of tensor 'x' must be a Kind, not 'code'$"),
        ({"bits": 17}, r"^Bits of tensor 'x' must be an integer between 1 and 16, not 17$"),
        ({"bits": True}, r"^Bits of tensor 'x' must be an integer between 1 and 16, not True$"),
        ({"zero_point": 16}, r"^Zero point of tensor 'x' must be an integer between 0 and 15, not 16$"),
        ({"scale": 0.0}, r"^Scale of tensor 'x' must be a positive finite number, not 0\.0$"),
        ({"scale": float("nan")}, r"^Scale of tensor 'x' must be a positive finite number, not nan$"),
        ({"slope": np.ones(2)}, r"^Slope and offset of tensor 'x' must be absent, since it holds codes$"),
    ],
)
def test_wrong_tensors(change, sentence):
    with pytest.raises(NetworkError, match=sentence):
        replace(X, **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 64}, r"^Bits of tensor 'y' must be an integer between 2 and 63, not 64$"),
        ({"zero_point": 1}, r"^Zero point and scale of tensor 'y' must be 0 and 1, since it holds accumulators$"),
        ({"slope": None}, r"^Slope of tensor 'y' must be float64 numbers, not object$"),
        ({"slope": np.ones(2)}, r"^Slope of tensor 'y' must be 3 finite numbers, not shape \(2,\)$"),
        ({"offset": np.array([1, np.inf, 0])}, r"^Offset of tensor 'y' must be 3 finite numbers, not shape \(3,\)$"),
    ],
)
def test_wrong_accumulator_tensors(change, sentence):
    with pytest.raises(NetworkError, match=sentence):
        replace(LOGITS, **change)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1.0], [0], [0]), r"^Requantize multiplier must be int64 numbers, not float64$"),
        (([1, 2], [0], [0]), r"^Requantize bias must have 2 values, not 1$"),
        (([], [], []), r"^Requantize multiplier must be int64 numbers, not float64$"),
        (([[1]], [0], [0]), r"^Requantize multiplier must have one value per channel, not shape \(1, 1\)$"),
        (([1], [0], [63]), r"^Requantize shift must be at most 62, not 63$"),
        (([1], [0], [-1]), r"^Requantize shift must be between 0 and 255, not -1\.\.-1$"),
        (([1], [0], [0], [1, 2]), r"^Requantize skip multiplier must have 1 values, not 2$"),
    ],
)
def test_wrong_constants(arguments, sentence):
    with pytest.raises(NetworkError, match=sentence):
        Requantize(*(np.array(a) for a in arguments))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": 3}, r"^Conv2d name must be a printable name of 1 to 200 characters, not 3$"),
        ({"input": ""}, r"^Conv2d input of operation 'c' must be a printable name of 1 to 200 characters, not ''$"),
        ({"bits": 0}, r"^Weight bits of operation 'c' must be an integer between 1 and 16, not 0$"),
        ({"bits": 2}, r"^Weight codes of operation 'c' must fit 2 bits, not 5$"),
        ({"grid": "odd"}, r"^Grid of operation 'c' must be a Grid, not 'odd'$"),
        ({"codes": CODES * 0.5}, r"^Weight codes of operation 'c' must be uint8 numbers, not float64$"),
        ({"codes": CODES - 1}, r"^Weight codes of operation 'c' must be between 0 and 255, not -1\.\.4$"),
        ({"codes": CODES[:, :, 0]}, r"^Weight codes of operation 'c' must have shape \(O, C/groups, kh, kw\), not .*$"),
        ({"stride": (1,)}, r"^Stride of operation 'c' must be 2 integers, not \(1,\)$"),
        ({"stride": (1, 0)}, r"^Stride of operation 'c' must be between 1 and 65536, not \(1, 0\)$"),
        ({"dilation": (0, 1)}, r"^Dilation of operation 'c' must be between 1 and 65536, not \(0, 1\)$"),
        ({"padding": (0, 0, 0, -1)}, r"^Padding of operation 'c' must be between 0 and 65536, not \(0, 0, 0, -1\)$"),
        ({"groups": 2}, r"^Groups of operation 'c' must divide 3 output channels, not 2$"),
        ({"broadcast": 1}, r"^Broadcast of operation 'c' must be true or false, not 1$"),
        (
            {"broadcast": True, "stride": (2, 2)},
            r"^Broadcast of operation 'c' must come with 1x1 weights, stride 1, no padding and one group$",
        ),
        ({"requantize": None, "skip": "x"}, r"^Skip of operation 'c' must come with a requantization$"),
        ({"requantize": 5}, r"^Requantize of operation 'c' must be a Requantize, not 5$"),
        ({"skip": "x"}, r"^Skip and skip multiplier of operation 'c' must be given together$"),
        (
            {"requantize": Requantize(np.ones(2, int), np.ones(2, int), np.ones(2, int))},
            r"^Requantize of operation 'c' must have 3 channels, not 2$",
        ),
    ],
)
def test_wrong_convolutions(change, sentence):
    with pytest.raises(NetworkError, match=sentence):
        replace(CONV, **change)


def test_wrong_pools_and_adds():
    with pytest.raises(NetworkError, match=r"^Kernel of operation 'p' must be between 1 and 65536, not \(0, 2\)$"):
        MaxPool2d("p", "x", "y", (0, 2))
    with pytest.raises(NetworkError, match=r"^Padding of operation 'p' must be smaller than the kernel, not .*$"):
        MaxPool2d("p", "x", "y", (2, 2), (2, 2), (0, 2, 0, 0))
    ones = np.ones(2, int)
    with pytest.raises(NetworkError, match=r"^Add of operation 'a': Requantize bias must have 2 values, not 1$"):
        Add("a", "x", "y", "z", ones, ones, ones[:1], ones)
    with pytest.raises(NetworkError, match=r"^Multiplier b of operation 'a' must be given$"):
        Add("a", "x", "y", "z", ones, None, ones, ones)


def pool(source="x", output="p", **options):
    return MaxPool2d("p", source, output, **options)


@pytest.mark.parametrize(
    ("tensors", "operations", "sentence"),
    [
        ((X, Y), (), r"^Network 'n' must have at least one operation$"),
        ((X, Y, X), (CONV,), r"^Tensor name 'x' must be unique$"),
        ((X, 5), (CONV,), r"^Tensors of network 'n' must be of class Tensor, not 5$"),
        ((X, Y), (CONV, 5), r"^Operations must be Conv2d, MaxPool2d, Add or VectorQuantize, not 5$"),
        ((X, Y), (CONV, CONV), r"^Operation name 'c' must be unique$"),
        ((X,), (CONV,), r"^Operation 'c' names tensor 'y', which does not exist$"),
        (
            (X, Y),
            (CONV, replace(CONV, name="d")),
            r"^Tensor 'y' must be made by one operation, not by 'c' and 'd'$",
        ),
        ((X, Y, replace(X, name="z")), (CONV,), r"^Network 'n' must have one input, not \['x', 'z'\]$"),
        ((Y,), (replace(CONV, input="y"),), r"^Network 'n' must have one input, not \[\]$"),
        (
            (X, Y, replace(Y, name="z")),
            (pool("y", "z", kernel=(1, 1), stride=(1, 1)), CONV),
            r"^Operation 'p' reads tensor 'y' before it is made: operations must be in topological order, .*$",
        ),
        (
            (X, Y, replace(X, name="z")),
            (CONV, pool("x", "z", kernel=(1, 1), stride=(1, 1))),
            r"^Network 'n' must have one output, not \['y', 'z'\]$",
        ),
        (
            (X, LOGITS, replace(LOGITS, name="z")),
            (replace(CONV, requantize=None), pool("y", "z", kernel=(1, 1), stride=(1, 1))),
            r"^Tensor 'y' holds accumulators and must be the network's output$",
        ),
        (
            (X, replace(Y, shape=(3, 4, 5))),
            (CONV,),
            r"^Output of operation 'c' must have shape \(3, 4, 4\), not \(3, 4, 5\)$",
        ),
        (
            (X, Y),
            (replace(CONV, dilation=(5, 5), codes=np.zeros((3, 2, 2, 2), int)),),
            r"^Operation 'c' must fit its input, but its output would be \(3, -1, -1\)$",
        ),
        (
            (replace(X, shape=(3, 4, 4)), Y),
            (CONV,),
            r"^Weight codes of operation 'c' must be for 3 input channels, not 2$",
        ),
        ((X, LOGITS), (CONV,), r"^Output of operation 'c' must hold codes, not accumulators$"),
        ((X, Y), (replace(CONV, requantize=None),), r"^Output of operation 'c' must hold accumulators, not codes$"),
        (
            (X, replace(LOGITS, bits=4)),
            (replace(CONV, requantize=None),),
            r"^Output of operation 'c' must have at least 10 bits, not 4$",
        ),
        (
            (X, Y),
            (replace(CONV, skip="x", requantize=replace(CONSTANTS, skip_multiplier=np.ones(3, int))),),
            r"^Skip of operation 'c' must have shape \(3, 4, 4\), not \(2, 4, 4\)$",
        ),
        (
            (X, Tensor("p", (2, 2, 2), bits=5)),
            (pool(),),
            r"^Output of operation 'p' must have its input's bits and scale$",
        ),
        (
            (replace(LOGITS, name="x", shape=(3, 4, 4)), Tensor("p", (3, 2, 2))),
            (pool(),),
            r"^Tensor 'x' holds accumulators and must be the network's output$",
        ),
    ],
)
def test_wrong_networks(tensors, operations, sentence):
    with pytest.raises(NetworkError, match=sentence):
        IntegerNetwork("n", tensors, operations)


def test_wrong_additions():
    ones = np.ones(2, int)
    add = Add("a", "x", "b", "y", ones, ones, ones, ones)
    pointwise = pool("x", "b", kernel=(1, 1), stride=(1, 1))
    b, y = replace(X, name="b"), replace(X, name="y")
    IntegerNetwork("n", (X, b, y), (pointwise, add))
    with pytest.raises(NetworkError, match=r"^Output of operation 'a' must have shape \(2, 4, 4\), not \(3, 4, 4\)$"):
        IntegerNetwork("n", (X, b, Y), (pointwise, add))
    with pytest.raises(NetworkError, match=r"^Constants of operation 'a' must have 2 channels, not 1$"):
        one = np.ones(1, int)
        IntegerNetwork("n", (X, b, y), (pointwise, Add("a", "x", "b", "y", one, one, one, one)))
    with pytest.raises(NetworkError, match=r"^Inputs of operation 'a' must have the same shape$"):
        small = pool("x", "b")
        IntegerNetwork("n", (X, replace(b, shape=(2, 2, 2)), y), (small, add))
    with pytest.raises(NetworkError, match=r"^Output of operation 'a' must hold codes$"):
        acc = Tensor("y", (2, 4, 4), Kind.ACCUMULATOR, 20, slope=np.ones(2), offset=np.zeros(2))
        IntegerNetwork("n", (X, b, acc), (pointwise, add))
